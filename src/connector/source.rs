//! The contract of a source.

use std::{collections::BTreeMap, time::Duration};

use crate::types::{Anchors, Chunk, Position, SplitId};

/// What is known of a split: reading from nothing starts at `start`, `first` holds the oldest record that is still there, and `end`
/// is the first position that holds no record yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitBounds {
    pub split: SplitId,
    pub first: Position,
    pub start: Position,
    pub end: Position,
}

/// Rows of a split that were not read because they are gone: positions in `[from, to)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRows {
    pub split: SplitId,
    pub from: Position,
    pub to: Position,
}

/// Splits of records with positions, read by one thread.
///
/// Every call may block, but none for longer than a few seconds: a world that does not answer is [`SourceError::Unreachable`].
/// What was read once is read again, the same bytes at the same positions, unless the error says that it is gone.
pub trait Source: Send {
    /// All splits that exist now, with where each would start (an option of the source decides) and where it ends.
    fn discover(&mut self) -> Result<Vec<SplitBounds>, SourceError>;

    /// Compares what was read before with what is there, and answers what this source is told from another of its name by, e.g. the id
    /// of a topic. `None` where the connector knows no such thing: then it may have compared nothing.
    ///
    /// Asked after a discovery, before the seek. From then on the source sees to it by itself that it is not changed for another.
    ///
    /// # Errors
    /// [`SourceError::Failed`] where what is there now is not what was read: the world was made anew, or has lost rows that it gave.
    fn recognise(&mut self, read: &Anchors) -> Result<Option<String>, SourceError>;

    /// From now on [`poll`](Self::poll) gives each of these splits from its position on, and no other split.
    /// What was polled ahead before is forgotten.
    fn seek(&mut self, positions: &BTreeMap<SplitId, Position>) -> Result<(), SourceError>;

    /// Splits that came into being since the discovery, or since they were last asked for: from now on [`poll`](Self::poll) gives
    /// each of these, too, from its position on, which is that of its first row.
    ///
    /// Asked between polls: a source looks at the world only now and then, not for long, and again later where it does not answer.
    fn new_splits(&mut self) -> BTreeMap<SplitId, Position> {
        BTreeMap::new()
    }

    /// Rows that are gone and that [`poll`](Self::poll) passed over since this was last asked. Only where an option said so: else they are
    /// an error of the poll. The chunk behind them covers their positions.
    fn lost(&mut self) -> Vec<LostRows> {
        Vec::new()
    }

    /// At most about `rows_max` rows and `bytes_max` bytes, waiting up to `wait` for the first.
    /// Per split, each chunk begins where the one before ended. Empty when nothing came.
    fn poll(&mut self, rows_max: usize, bytes_max: usize, wait: Duration) -> Result<Vec<Chunk>, SourceError>;

    /// The newest known ends of the splits, without asking the world: for lag and idleness.
    fn ends(&self) -> BTreeMap<SplitId, Position>;

    /// Whether no split will ever have more than is read by now: a bounded source at its end.
    fn is_finished(&self) -> bool;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Passes by itself: try again later, and show the sentence meanwhile.
    #[error("{0}")]
    Unreachable(String),
    /// Needs a person: a topic that does not exist any more, rows that are gone, an option that is wrong.
    #[error("{0}")]
    Failed(String),
}
