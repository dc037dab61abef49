//! Waiting until what was written is seen: an epoch has read it, and every view of its source has the epoch.
//!
//! ```text
//! end of what was written ─▶ epochs ─▶ positions of the newest ─▶ behind it: seen
//!                                   └─ failed, dropped, stopping, too long: why, and the caller says what became of the rows
//! ```

use std::{sync::Arc, time::Duration};

use crate::{
    plan::Trigger,
    types::{Error, Position, Result, SplitId},
};

use super::{engine::Engine, face::SourceState};

/// How often one who waits looks whether the source still runs.
const LOOK: Duration = Duration::from_millis(200);

/// Why something is not seen.
pub enum Unread {
    /// It may be later.
    Not(String),
    /// What it was written to is gone.
    Gone(String),
}

impl Unread {
    /// `outcome` says what became of that which was written.
    pub fn told(self, outcome: &str) -> Error {
        match self {
            Self::Not(why) => Error::external(format!("{outcome}: {why}")),
            Self::Gone(why) => Error::user(why),
        }
    }
}

impl Engine {
    /// Before something is written: what is known not to run takes nothing.
    ///
    /// # Errors
    /// [`Error::External`] with the reason.
    pub(super) fn check_running(&self, source: &str) -> Result<()> {
        let status = self.shared_of(source).map(|shared| shared.status());
        match status {
            Some(status) if status.state == SourceState::Failed => Err(Error::external(format!(
                "nothing was written: `{source}` does not run: {}",
                status.reason.unwrap_or_default()
            ))),
            _ => Ok(()),
        }
    }

    /// Waits until an epoch has read a split of a source or table up to `end`. At once where no view reads the source.
    pub(super) async fn until_read(&self, source: &str, split: &SplitId, end: Position) -> Result<(), Unread> {
        let trigger = self.catalog().source(source).map(|source| source.trigger);
        // Who asked for an epoch every five minutes waits for it.
        let patience = self.0.bounds.write_visible_timeout
            + match trigger {
                Some(Trigger::Interval(interval)) => interval,
                _ => Duration::ZERO,
            };
        match tokio::time::timeout(patience, self.read(source, split, end)).await {
            Ok(read) => read,
            Err(_) => Err(Unread::Not(format!(
                "`{source}` took longer than {} s ({})",
                patience.as_secs(),
                self.state_of(source)
            ))),
        }
    }

    async fn read(&self, source: &str, split: &SplitId, end: Position) -> Result<(), Unread> {
        let Some(shared) = self.shared_of(source) else {
            return Ok(());
        };
        let mut epochs = shared.epochs();
        loop {
            let read = shared.snapshot().positions.get(split).copied();
            if end == Position(0) || read.is_some_and(|read| end <= read) {
                return Ok(());
            }
            let status = shared.status();
            if status.state == SourceState::Failed {
                let reason = status.reason.unwrap_or_default();
                return Err(Unread::Not(format!("`{source}` does not run: {reason}")));
            }
            let now = self.shared_of(source);
            if !now.is_some_and(|now| Arc::ptr_eq(&now, &shared)) {
                return Err(Unread::Gone(format!("`{source}` was dropped meanwhile")));
            }
            if self.0.stopping.is_cancelled() {
                return Err(Unread::Not("Zeta is stopping".to_owned()));
            }
            // An epoch wakes it, and so does time: a source may fail without one.
            if let Ok(Err(_)) = tokio::time::timeout(LOOK, epochs.changed()).await {
                return Err(Unread::Not("Zeta is stopping".to_owned()));
            }
        }
    }
}
