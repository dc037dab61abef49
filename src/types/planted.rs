//! Bugs that a test plants to see that others find them: built in only with the feature `planted-bugs`, and into no release.

/// What other streaming engines got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A row that comes behind the end of its window is taken all the same.
    LateRowReopensAWindow,
    /// The watermark follows the newest rows, also back.
    WatermarkGoesBack,
    /// A row that stands on the end of a session goes into it.
    SessionSplitOffByOne,
    /// A state that is restored misses its last group.
    KeyLostOnRestore,
    /// Where a row goes, the result of its group stays.
    RetractionOfAMinIsIgnored,
    /// What is late is judged by what was there when the epoch began.
    LatenessByEpoch,
    /// A sum beyond its type goes round.
    WrappedSum,
    /// A split without rows in an epoch counts as idle, though rows wait in it.
    SlowSplitCountsAsIdle,
    /// A sink commits its rows, and then its marker.
    MarkerOutsideTransaction,
    /// A sink asks what is published before it fences who may still publish.
    MarkerReadBeforeFence,
    /// Sinks get an epoch before the journal has it.
    PublishedBeforeCommit,
    /// A checkpoint has the last position read in place of the next one to read.
    PositionOffByOne,
    /// Rows are late by the time at which they are read.
    LateByWallClock,
    /// A start reads the journal, and does not make sure of it.
    JournalNotSyncedAtStart,
    /// A start takes up a checkpoint, and does not make sure of it.
    CheckpointsNotSyncedAtStart,
    /// Checkpoints go that a sink still needs.
    CheckpointGoneTooEarly,
    /// After a doubt the same producer goes on.
    ProducerUsedAfterDoubt,
    /// Where a new split starts is not journalled.
    StartNotJournalled,
    /// The name of a new journal is not synced.
    FolderNotSynced,
    /// A counter is not in the checkpoint.
    CounterNotKept,
    /// A sink takes a second record of a key for a repetition.
    RepetitionByKey,
    /// A sink that was fenced by the time-out of its own transaction gives up.
    FenceIsFinal,
}

impl Bug {
    pub const ALL: [Self; 8] = [
        Self::LateRowReopensAWindow,
        Self::WatermarkGoesBack,
        Self::SessionSplitOffByOne,
        Self::KeyLostOnRestore,
        Self::RetractionOfAMinIsIgnored,
        Self::LatenessByEpoch,
        Self::WrappedSum,
        Self::SlowSplitCountsAsIdle,
    ];

    /// Those that show where something fails.
    pub const OF_FAULTS: [Self; 14] = [
        Self::MarkerOutsideTransaction,
        Self::MarkerReadBeforeFence,
        Self::PublishedBeforeCommit,
        Self::PositionOffByOne,
        Self::LateByWallClock,
        Self::JournalNotSyncedAtStart,
        Self::CheckpointsNotSyncedAtStart,
        Self::CheckpointGoneTooEarly,
        Self::ProducerUsedAfterDoubt,
        Self::StartNotJournalled,
        Self::FolderNotSynced,
        Self::CounterNotKept,
        Self::RepetitionByKey,
        Self::FenceIsFinal,
    ];
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use std::sync::Mutex;

    use super::Bug;

    static PLANTED: Mutex<Option<Bug>> = Mutex::new(None);

    /// From now on the engine has this bug, in all threads.
    pub fn plant(bug: Option<Bug>) {
        *PLANTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = bug;
    }

    pub fn has(bug: Bug) -> bool {
        *PLANTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub use switch::{has, plant};

#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn has(_bug: Bug) -> bool {
    false
}
