//! A run: the engine over rows that come in random epochs, with checkpoints, crashes and idle splits between them.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::RecordBatch;
use proptest::prelude::*;
use zeta::{
    cli::MemoryTopics,
    runtime::{Engine, Mode, StepEnd, clock::ManualClock},
    types::{EventTime, SplitId},
};

use crate::engine::{Step, block_on, engine, sql, steps};

use super::{
    model::Model,
    query::Query,
    rows::{Row, SECOND, SOURCE, batch},
};

/// What an epoch more than the steps of the engine's own test does.
#[derive(Clone, Debug)]
pub enum Turn {
    Step(Step),
    /// An epoch in which every split that is caught up counts as idle.
    Idle {
        rows_max: Option<usize>,
    },
}

pub fn turns() -> impl Strategy<Value = Vec<Turn>> {
    // Most epochs are as they come, and in some every silent split counts as idle.
    let idle = proptest::option::weighted(0.1, proptest::option::weighted(0.7, 1usize..15));
    steps().prop_flat_map(move |steps| {
        let turns: Vec<_> = steps
            .into_iter()
            .map(|step| {
                idle.clone().prop_map(move |idle| match idle {
                    Some(rows_max) => Turn::Idle { rows_max },
                    None => Turn::Step(step.clone()),
                })
            })
            .collect();
        turns
    })
}

/// An engine that has read all rows, but does not know that they are all.
pub struct Ran {
    pub engine: Engine,
    /// All rows, each with how far its split was when it came.
    pub rows: RecordBatch,
    /// How far all splits are.
    pub combined: Option<i64>,
    pub _state: tempfile::TempDir,
}

pub fn run(query: &Query, splits: &[Vec<Row>], turns: &[Turn]) -> Ran {
    let state = tempfile::tempdir().unwrap();
    let topics = MemoryTopics::default();
    let clock = Arc::new(ManualClock::at(EventTime(1_000_000 * SECOND)));
    let engine = engine(&topics, state.path(), Mode::Manual, clock);
    let topic = topics.of("src");
    for split in 0..splits.len() {
        topic.append(&SplitId::from(split as i32), batch(&[]));
    }
    block_on(async {
        sql(&engine, SOURCE).await;
        for view in query.views() {
            sql(&engine, &view).await;
        }
    });
    let mut written = vec![0; splits.len()];
    let mut model = Model::new(splits);
    let mut epoch = |end: StepEnd, written: &[usize]| {
        let counts_idle = !end.idle_splits.is_empty();
        engine.step("src", end).unwrap();
        let status = engine.sources();
        let source = status.iter().find(|source| source.name == "src").unwrap();
        let positions: BTreeMap<_, _> = source
            .splits
            .iter()
            .map(|status| (status.split.clone(), status.position.0 as usize))
            .collect();
        let read: Vec<usize> = (0..splits.len())
            .map(|split| positions[&SplitId::from(split as i32)])
            .collect();
        model.epoch(&read, written, counts_idle);
    };
    let all: Vec<SplitId> = (0..splits.len()).map(|split| SplitId::from(split as i32)).collect();
    for turn in turns {
        let end = match turn {
            Turn::Step(Step::Append { split, rows }) => {
                let split = split % splits.len();
                let to = splits[split].len().min(written[split] + rows);
                topic.append(&SplitId::from(split as i32), batch(&splits[split][written[split]..to]));
                written[split] = to;
                continue;
            }
            Turn::Step(Step::Crash) => {
                engine.crash_and_restore().unwrap();
                continue;
            }
            Turn::Step(Step::Epoch { rows_max }) => StepEnd {
                rows_max: *rows_max,
                ..StepEnd::default()
            },
            Turn::Step(Step::Checkpoint) => StepEnd {
                checkpoint: true,
                ..StepEnd::default()
            },
            Turn::Idle { rows_max } => StepEnd {
                rows_max: *rows_max,
                idle_splits: all.clone(),
                ..StepEnd::default()
            },
        };
        epoch(end, &written);
    }
    for (split, rows) in splits.iter().enumerate() {
        topic.append(&SplitId::from(split as i32), batch(&rows[written[split]..]));
    }
    let written: Vec<usize> = splits.iter().map(Vec::len).collect();
    epoch(StepEnd::default(), &written);
    Ran {
        rows: model.rows(),
        combined: model.combined,
        engine,
        _state: state,
    }
}
