//! Where a script plays: an engine of its own, topics in memory, a clock that moves when it is told to.
//!
//! ```text
//! statement ─┬─ of scripts: SET CLOCK, ADVANCE …, CRASH AND RESTORE, … ─▶ epochs by hand
//!            └─ SQL ─▶ engine ── INSERT ─▶ inbox ─┬─▶ topic ─▶ the INSERT's own epoch
//!                                                 ├─▶ rows behind a cut: epochs of their own
//!                                                 └─▶ rows that wait: the epoch of the next INSERT
//! ```
//! Every connector is there with its options and fields, and reads a topic in memory: nothing asks the network.

mod answer;
mod error;
mod inbox;
mod statement;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use sqllogictest::{DBOutput, DefaultColumnType};

use crate::{
    cli::{assemble, pipeline},
    runtime::{Engine, EngineOptions, Mode, SourceStatus, StepEnd, clock::ManualClock},
    sql::{self, Color},
    types::SplitId,
};

use super::{
    file::Script,
    shape::Inserted,
    variation::{Event, Turn},
};

use answer::done;
use inbox::{Inbox, registry};

pub use error::StageError;

pub struct Stage {
    engine: Engine,
    topics: assemble::MemoryTopics,
    clock: Arc<ManualClock>,
    clock_is_set: AtomicBool,
    inbox: Arc<Mutex<Inbox>>,
    _state: tempfile::TempDir,
}

impl Stage {
    /// An engine that has the pipelines of the script, and no rows yet.
    ///
    /// # Errors
    /// What is wrong with a pipeline, with carets.
    pub async fn open(script: &Script) -> Result<Self, String> {
        let topics = assemble::MemoryTopics::default();
        let inbox = Arc::new(Mutex::new(Inbox {
            split: SplitId::from(0),
            turn: Turn::default(),
            inserted: None,
            rest: Vec::new(),
            waiting: BTreeMap::new(),
        }));
        let state = state_folder().map_err(|error| format!("cannot make a folder for state: {error}"))?;
        let clock = Arc::new(ManualClock::default());
        let options = EngineOptions {
            state: Some(state.path().into()),
            mode: Mode::Manual,
            overrides: vec![],
        };
        let registry = registry(&topics, &inbox);
        let stage = Self {
            engine: Engine::new(registry, options, Arc::clone(&clock) as _),
            topics,
            clock,
            clock_is_set: AtomicBool::new(false),
            inbox,
            _state: state,
        };
        for text in &script.pipelines {
            let parsed = pipeline::parse(text);
            if let Err(diagnostics) = stage.engine.apply(text, parsed).await {
                return Err(sql::render(text, &diagnostics, Color::Never).trim_end().to_owned());
            }
        }
        stage.engine.open().map_err(|error| error.to_string())?;
        Ok(stage)
    }

    /// What the next statement does with its rows.
    pub fn take_turn(&self, turn: Turn) {
        let mut inbox = self.inbox();
        inbox.turn = turn;
        inbox.inserted = None;
    }

    /// What the statement of this turn appended.
    pub fn inserted(&self) -> Option<Inserted> {
        self.inbox().inserted.clone()
    }

    /// Runs the rows that wait.
    pub fn flush(&self) -> Result<(), StageError> {
        let waiting = std::mem::take(&mut self.inbox().waiting);
        for (source, rows) in waiting {
            for (split, rows) in rows {
                self.topics.of(&source).append(&split, rows);
            }
            self.step(&source, StepEnd::default())?;
        }
        Ok(())
    }

    pub fn happens(&self, event: Event) -> Result<(), StageError> {
        if event != Event::Crash {
            // A source that has not begun takes new views, and one that has does not: its first epoch is the script's.
            self.checkpoint(true)?;
        }
        if event != Event::Checkpoint {
            self.engine.crash_and_restore().map_err(StageError::of)?;
        }
        Ok(())
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Who panicked while holding it has failed its run already.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, source: &str) -> Result<SourceStatus, StageError> {
        let sources = self.engine.sources();
        let names: Vec<String> = sources.iter().map(|status| status.name.clone()).collect();
        let found = sources.into_iter().find(|status| status.name == source);
        found.ok_or_else(|| {
            let near = sql::suggest::nearest(source, names.iter().map(String::as_str));
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            StageError(format!("no source named {source}{hint}"))
        })
    }

    fn step(&self, source: &str, end: StepEnd) -> Result<DBOutput<DefaultColumnType>, StageError> {
        self.known(source)?;
        self.engine.step(source, end).map_err(StageError::of).map(done)
    }

    fn step_all(&self) -> Result<DBOutput<DefaultColumnType>, StageError> {
        for source in self.engine.sources() {
            self.step(&source.name, StepEnd::default())?;
        }
        Ok(done(()))
    }

    /// Of every source, or only of those that have begun.
    fn checkpoint(&self, only_begun: bool) -> Result<(), StageError> {
        for source in self.engine.sources() {
            if only_begun && source.epoch.0 == 0 {
                continue;
            }
            // Idle splits stay so: nothing but the checkpoint happens in its epoch.
            let idle = source.splits.iter().filter(|split| split.is_idle);
            let end = StepEnd {
                checkpoint: true,
                idle_splits: idle.map(|split| split.split.clone()).collect(),
                ..StepEnd::default()
            };
            self.step(&source.name, end)?;
        }
        Ok(())
    }
}

/// In memory where the system has such a place: a crash here is one of the engine, which loses nothing that was written.
fn state_folder() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("zeta-test-");
        builder
    };
    builder().tempdir_in(memory).or_else(|_| builder().tempdir())
}
