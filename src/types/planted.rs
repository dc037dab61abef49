//! Bugs that a test plants to see that others find them: built in only with the feature `planted-bugs`.

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
