//! Views that come and go while their source runs.
//!
//! ```text
//! CREATE, DROP ─▶ command ─▶ between two epochs: the view takes up the rows of those below it, or is gone
//!                         ─▶ an epoch of no rows, with a checkpoint ─▶ answer
//! ```

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    plan::{MaterializedDefinition, SinkDefinition},
    types::{Error, Result},
};

use super::{
    engine::{Engine, Mode},
    shared::Shared,
};

#[derive(Clone)]
pub enum ViewChange {
    /// One over views that are there.
    Add(Arc<MaterializedDefinition>),
    /// One that no other reads.
    Remove(String),
    /// It begins with its view as it is, once it answers.
    AddSink(Arc<SinkDefinition>),
    RemoveSink(String),
}

impl ViewChange {
    /// Then it is final: it is carried out though nobody waits for it any more.
    pub fn is_removal(&self) -> bool {
        matches!(self, Self::Remove(_) | Self::RemoveSink(_))
    }
}

/// When a source carries a change out.
pub(super) enum Taken {
    Now,
    /// As soon as it takes one; why it took none so far. Only what is removed waits so long.
    Later(String),
}

/// For the thread that runs the epochs.
pub struct Command {
    pub change: ViewChange,
    pub done: oneshot::Sender<Result<()>>,
}

impl Engine {
    /// Adds a view to a source that runs, or removes one, and returns when readers see it. What is removed goes in any case: where the source
    /// takes no change for long, as soon as it does.
    pub(super) async fn change_views(&self, source: &str, change: ViewChange) -> Result<Taken> {
        if self.0.options.mode == Mode::Manual {
            return self.change_manual_views(source, change).map(|()| Taken::Now);
        }
        let removal = change.is_removal().then(|| change.clone());
        let answer = {
            let drivers = self.0.drivers.lock().expect("nobody panics while holding it");
            drivers.get(source).map(|driver| driver.change_views(change))
        };
        let Some(answer) = answer else {
            return Err(Error::bug("only views of a source that runs are changed"));
        };
        let timeout = self.0.bounds.view_change_timeout;
        let waited_s = timeout.as_secs();
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(done)) => done.map(|()| Taken::Now),
            Ok(Err(_)) => match (removal, self.shared_of(source)) {
                // What does not run is not asked; its state forgets at the next start what is gone.
                (Some(removal), Some(shared)) => {
                    shared.let_go(&removal);
                    Ok(Taken::Now)
                }
                _ => Err(Error::external(format!(
                    "source `{source}` does not run: {}",
                    self.state_of(source)
                ))),
            },
            Err(_) if removal.is_some() => Ok(Taken::Later(format!(
                "source `{source}` took no change for {waited_s} s ({}), and it goes as soon as that takes one",
                self.state_of(source)
            ))),
            Err(_) => Err(Error::external(format!(
                "source `{source}` took no change for {waited_s} s: {}; try again when it runs",
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
        self.forget_folder(source, Some(shared.generation))
    }
}

impl Shared {
    /// Of a timeline that does not run any more.
    fn let_go(&self, removal: &ViewChange) {
        match removal {
            ViewChange::Remove(view) => self.forget(view),
            ViewChange::RemoveSink(sink) => {
                let mut sinks = self.sinks.lock().expect("nobody panics while holding it");
                sinks.remove(sink);
            }
            ViewChange::Add(_) | ViewChange::AddSink(_) => {}
        }
    }
}
