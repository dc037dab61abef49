//! A source that starts again, on threads: what it reads again, and what happens meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema},
    util::display::array_value_to_string,
};
use zeta::{
    cli::{MemoryTopics, registry},
    connector::{Source, SourceError, SplitBounds},
    runtime::{
        Bounds, Engine, EngineOptions, Mode, Rebuild, SourceState, SourceStatus, clock::SystemClock, query_environment,
    },
    sql::{self, SourceText},
    types::{Anchors, Chunk, Position, SplitId},
};

use super::engine::{block_on, copy_folder, sql};

const PIPELINE: &str = "CREATE SOURCE s (n BIGINT) WITH (connector = 'memory', trigger = '0');
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM s;
    CREATE MATERIALIZED VIEW summed AS SELECT sum(n) AS n FROM s;
    CREATE MATERIALIZED VIEW large AS SELECT sum(n) AS n FROM s WHERE 3 <= n;
    CREATE MATERIALIZED VIEW above AS SELECT max(n) AS n FROM large;";

/// Gives no rows while it is held.
struct Holding {
    source: Box<dyn Source>,
    is_held: Arc<AtomicBool>,
}

impl Source for Holding {
    fn discover(&mut self) -> Result<Vec<SplitBounds>, SourceError> {
        self.source.discover()
    }

    fn recognise(&mut self, read: &Anchors) -> Result<Option<String>, SourceError> {
        self.source.recognise(read)
    }

    fn seek(&mut self, positions: &BTreeMap<SplitId, Position>) -> Result<(), SourceError> {
        self.source.seek(positions)
    }

    fn poll(&mut self, rows_max: usize, bytes_max: usize, wait: Duration) -> Result<Vec<Chunk>, SourceError> {
        match self.is_held.load(Ordering::Relaxed) {
            true => Err(SourceError::Unreachable("it is held".to_owned())),
            false => self.source.poll(rows_max, bytes_max, wait),
        }
    }

    fn ends(&self) -> BTreeMap<SplitId, Position> {
        self.source.ends()
    }

    fn is_finished(&self) -> bool {
        self.source.is_finished()
    }
}

async fn start(state: &Path, topics: &MemoryTopics, is_held: &Arc<AtomicBool>, rebuild: Rebuild) -> Engine {
    let mut registry = registry(topics.clone(), query_environment());
    for connector in &mut registry.connectors {
        let (make, is_held) = (Arc::clone(&connector.make), Arc::clone(is_held));
        connector.make = Arc::new(move |name, options| {
            let source = make(name, options)?;
            let is_held = Arc::clone(&is_held);
            Ok(Box::new(Holding { source, is_held }))
        });
    }
    let options = EngineOptions {
        state: Some(state.into()),
        mode: Mode::Live,
        overrides: vec![],
    };
    // What is read again comes in many steps.
    let bounds = Bounds {
        epoch_rows_max: 2,
        ..Bounds::default()
    };
    let engine = Engine::with_bounds(registry, options, Arc::new(SystemClock::default()), bounds);
    let text = SourceText::new("live.sql", PIPELINE);
    engine
        .apply(&text, sql::parse(&text))
        .await
        .expect("the pipeline is right");
    engine.rebuild(rebuild).expect("its views are there");
    engine.start().expect("it starts");
    engine
}

async fn until(engine: &Engine, what: &str, is_so: impl Fn(&SourceStatus) -> bool) {
    let there = async {
        while !is_so(&engine.sources()[0]) {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), there).await;
    assert!(waited.is_ok(), "{what}: {:?}", engine.sources());
}

async fn value(engine: &Engine, view: &str) -> String {
    let batches = sql(engine, &format!("SELECT n FROM {view}")).await;
    let batch = batches.iter().find(|batch| batch.num_rows() == 1).expect("one row");
    array_value_to_string(batch.column(0), 0).expect("a number")
}

fn numbers(range: std::ops::RangeInclusive<i64>) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(range))]).expect("one column")
}

#[test]
fn a_view_is_computed_anew_though_one_before_it_is_dropped_meanwhile() {
    let (state, topics, is_held) = (tempfile::tempdir().unwrap(), MemoryTopics::default(), Arc::default());
    block_on(async {
        let engine = start(state.path(), &topics, &is_held, Rebuild::default()).await;
        for n in 1..=5 {
            topics.of("s").append(&SplitId::from(0), numbers(n..=n));
        }
        until(&engine, "five rows", |source| source.rows == 5).await;
        engine.stop();

        is_held.store(true, Ordering::Relaxed);
        let rebuild = Rebuild {
            views: BTreeSet::from(["large".to_owned()]),
            takes_what_is_left: false,
        };
        let engine = start(state.path(), &topics, &is_held, rebuild).await;
        until(&engine, "it reads again", |source| {
            source.state == SourceState::Unreachable
        })
        .await;
        sql(&engine, "DROP MATERIALIZED VIEW counted").await;
        is_held.store(false, Ordering::Relaxed);
        until(&engine, "it has read again", |source| {
            source.state == SourceState::Running
        })
        .await;
        for (view, expected) in [("summed", "15"), ("large", "12"), ("above", "12")] {
            assert_eq!(value(&engine, view).await, expected, "{view}");
        }
        topics.of("s").append(&SplitId::from(0), numbers(6..=6));
        until(&engine, "it goes on", |source| source.rows == 6).await;
        assert_eq!(value(&engine, "above").await, "18");
        engine.stop();
    });
}

#[test]
fn a_bounded_source_that_ends_before_its_plans_says_which_rows_are_gone() {
    let (state, topics, is_held) = (tempfile::tempdir().unwrap(), MemoryTopics::default(), Arc::default());
    let copy = tempfile::tempdir().unwrap();
    block_on(async {
        let engine = start(state.path(), &topics, &is_held, Rebuild::default()).await;
        topics.of("s").append(&SplitId::from(0), numbers(1..=5));
        until(&engine, "five rows", |source| source.rows == 5).await;
        // As a crash leaves it: its plans have to run again.
        copy_folder(state.path(), copy.path());
        engine.stop();

        let shorter = MemoryTopics::default();
        shorter.of("s").append(&SplitId::from(0), numbers(1..=2));
        shorter.of("s").finish();
        let engine = start(copy.path(), &shorter, &is_held, Rebuild::default()).await;
        until(&engine, "it says so", |source| source.state == SourceState::Failed).await;
        let reason = engine.sources()[0].reason.clone().unwrap_or_default();
        assert!(
            reason.contains("rows 2 to 5 of split 0 of source `s` are gone"),
            "{reason}"
        );
        engine.stop();
    });
}
