//! An epoch and its plan: everything that a run depends on.

use std::collections::{BTreeMap, BTreeSet};

use super::{Anchors, EventTime, Position, SplitId};

/// The number of a micro-batch: the first is 1, and 0 stands for "nothing ran yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The rows of one split that an epoch reads: positions in `[from, to)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PlannedRange {
    pub from: Position,
    pub to: Position,
}

/// Fixed before the epoch runs, appended to the journal after it: repeating it gives the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EpochPlan {
    pub number: Epoch,
    /// Splits without rows in this epoch are absent.
    pub ranges: BTreeMap<SplitId, PlannedRange>,
    /// Positions of the ranges whose rows were gone before they were read, and passed over.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gaps: BTreeMap<SplitId, Vec<PlannedRange>>,
    /// What `now()` means, and what decides timers. Never before the epoch before.
    pub epoch_time: EventTime,
    /// Splits that are caught up and silent: they do not hold the watermark back.
    pub idle_splits: BTreeSet<SplitId>,
    /// Splits known since this epoch, and where reading each of them starts.
    pub new_splits: BTreeMap<SplitId, Position>,
    /// Input is taken as complete below this event time, in every split, whatever its rows say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_below: Option<EventTime>,
    /// The input has ended: the watermark goes to END.
    pub is_last: bool,
    /// A checkpoint follows this epoch: replay repeats what taking it does to the state.
    pub checkpoint: bool,
    /// The last record of each range, and what the source is told from another by, where that was learned since the plan before.
    #[serde(default, skip_serializing_if = "Anchors::is_empty")]
    pub anchors: Anchors,
}
