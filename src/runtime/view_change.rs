//! Views that come and go while their source runs.
//!
//! ```text
//! CREATE, DROP ─▶ command ─▶ between two epochs: the view takes up the rows of those below it, or is gone
//!                         ─▶ an epoch of no rows, with a checkpoint ─▶ answer
//! ```

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    connector::TableLog,
    plan::{MaterializedDefinition, SinkDefinition},
    state::Store,
    types::{Error, Result, limits},
};

use super::{
    engine::{Engine, Mode},
    shared::Shared,
};

pub enum ViewChange {
    /// One over views that are there.
    Add(Arc<MaterializedDefinition>),
    /// One that no other reads.
    Remove(String),
    /// It begins with its view as it is, once it answers.
    AddSink(Arc<SinkDefinition>),
    RemoveSink(String),
}

/// For the thread that runs the epochs.
pub struct Command {
    pub change: ViewChange,
    pub done: oneshot::Sender<Result<()>>,
}

impl Engine {
    /// Adds a view to a source that runs, or removes one, and returns when readers see it.
    pub(super) async fn change_views(&self, source: &str, change: ViewChange) -> Result<()> {
        if self.0.options.mode == Mode::Manual {
            return self.change_manual_views(source, change);
        }
        let removed = match &change {
            ViewChange::Remove(name) => Some(name.clone()),
            ViewChange::Add(_) | ViewChange::AddSink(_) | ViewChange::RemoveSink(_) => None,
        };
        let answer = {
            let drivers = self.0.drivers.lock().expect("nobody panics while holding it");
            drivers.get(source).map(|driver| driver.change_views(change))
        };
        let Some(answer) = answer else {
            return Err(Error::bug("only views of a source that runs are changed"));
        };
        match tokio::time::timeout(limits::VIEW_CHANGE_TIMEOUT, answer).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) if let (Some(name), Some(shared)) = (&removed, self.shared_of(source)) => {
                // What does not run is not asked; its state forgets the view at the next start.
                shared.forget(name);
                Ok(())
            }
            Ok(Err(_)) => Err(Error::external(format!(
                "source `{source}` does not run: {}",
                self.state_of(source)
            ))),
            Err(_) => Err(Error::external(format!(
                "source `{source}` took no change for {} s: {}; try again when it runs",
                limits::VIEW_CHANGE_TIMEOUT.as_secs(),
                self.state_of(source)
            ))),
        }
    }

    /// How a source does, for people.
    pub(super) fn state_of(&self, source: &str) -> String {
        let status = self.shared_of(source).map(|shared| shared.status());
        status.map_or_else(String::new, |status| match status.reason {
            Some(reason) => format!("{}, {reason}", status.state),
            None => status.state.to_string(),
        })
    }

    /// Ends a source or table that no view reads, and forgets its state.
    pub(super) async fn remove_source(&self, source: &str) -> Result<()> {
        // A statement that changes its rows comes before or after.
        let _writing = self.writing(source).await;
        let driver = self
            .0
            .drivers
            .lock()
            .expect("nobody panics while holding it")
            .remove(source);
        if let Some(mut driver) = driver {
            driver.stop();
            tokio::task::spawn_blocking(move || driver.join())
                .await
                .map_err(|e| Error::bug(format!("waiting for the end of a source failed: {e}")))?;
        }
        self.0
            .manual
            .lock()
            .expect("nobody panics while holding it")
            .remove(source);
        let shared: Option<Arc<Shared>> = {
            let mut timelines = self.0.timelines.write().expect("nobody panics while holding it");
            timelines.remove(source)
        };
        self.0
            .table_logs
            .lock()
            .expect("nobody panics while holding it")
            .remove(source);
        let Some(shared) = shared else {
            return Ok(());
        };
        shared.end();
        if let Some(folder) = self.folder(source) {
            Store::reset(&folder)?;
            if let Some(folder) = folder.on_this_machine() {
                TableLog::remove(folder)?;
            }
        }
        Ok(())
    }
}
