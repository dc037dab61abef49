//! One run of a script, as written or varied.

use std::sync::Arc;

use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner, strict_column_validator};

use super::{
    failure::Failure,
    file::{Script, is_run},
    shape::{Inserted, Shape},
    stage::{Stage, StageError},
    variation::Variation,
};

/// Why a run ended before its script.
pub enum Stop {
    /// A pipeline is wrong: the text says how.
    Unusable(String),
    Failed(Failure),
}

/// What the engine is to the runner of records.
pub struct Connection(pub Arc<Stage>);

#[async_trait]
impl AsyncDB for Connection {
    type Error = StageError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, StageError> {
        self.0.statement(sql.trim()).await
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "zeta"
    }
}

/// Runs a script and says what each record appended. `shape` is that of the run as written; an empty one for that run itself.
pub async fn run(script: &Script, variation: &Variation, shape: &Shape) -> Result<Vec<Option<Inserted>>, Stop> {
    let stage = Arc::new(Stage::open(script).await.map_err(Stop::Unusable)?);
    let shared = Arc::clone(&stage);
    let mut runner = Runner::new(move || std::future::ready(Ok(Connection(Arc::clone(&shared)))));
    runner.with_column_validator(strict_column_validator);

    let mut inserted = vec![None; script.records.len()];
    let mut segment = None;
    for index in variation.order(script.records.len(), shape) {
        let record = &script.records[index];
        let line = script.line(index);
        let failed = |what: &str, error: StageError| {
            Stop::Failed(Failure::new(
                line,
                format!("{what} this record, something fails: {error}"),
            ))
        };
        if is_run(record) {
            // Rows that wait run before anything could see that they are missing.
            if shape.segment(index) != segment {
                stage.flush().map_err(|error| failed("before", error))?;
            }
            segment = shape.segment(index);
            stage.take_turn(variation.turn(index));
        }
        runner
            .run_async(record.clone())
            .await
            .map_err(|error| Stop::Failed(error.into()))?;
        if is_run(record) {
            inserted[index] = stage.inserted();
            for event in variation.behind(index) {
                stage.happens(event).map_err(|error| failed("behind", error))?;
            }
        }
    }
    stage
        .flush()
        .map_err(|error| Stop::Failed(Failure::new(0, format!("at the end, something fails: {error}"))))?;
    Ok(inserted)
}
