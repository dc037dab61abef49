//! How long the splits of a source have been silent, by the clock of who drives it.
//!
//! ```text
//! rows of a split ─▶ heard ─▶ silent for: idle_timeout (one split), close_after (all of them)
//! ```
//! Time in which the source could not be asked is no silence.

use std::{collections::BTreeMap, time::Duration};

use crate::types::SplitId;

pub struct Silence {
    /// When each split was heard last, or became known.
    since: BTreeMap<SplitId, Duration>,
    /// Nothing is said about the time before.
    started: Duration,
}

impl Silence {
    pub fn new(now: Duration) -> Self {
        Self {
            since: BTreeMap::new(),
            started: now,
        }
    }

    /// The split brought rows.
    pub fn heard(&mut self, split: &SplitId, now: Duration) {
        self.since.insert(split.clone(), now);
    }

    /// All silence begins anew.
    pub fn restart(&mut self, now: Duration) {
        *self = Self::new(now);
    }

    /// A split that was not known begins to be silent now.
    pub fn of(&mut self, split: &SplitId, now: Duration) -> Duration {
        now.saturating_sub(*self.since.entry(split.clone()).or_insert(now))
    }

    /// Since any split brought a row.
    pub fn of_all(&self, now: Duration) -> Duration {
        let last = self.since.values().copied().max().unwrap_or(self.started);
        now.saturating_sub(last.max(self.started))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_silent_since_its_last_row_and_the_source_since_that_of_any() {
        let second = Duration::from_secs;
        let (a, b) = (SplitId::new("0"), SplitId::new("1"));
        let mut silence = Silence::new(second(10));
        assert_eq!(silence.of_all(second(12)), second(2), "counted from the start");
        assert_eq!(silence.of(&a, second(12)), second(0), "known since now");
        silence.heard(&b, second(15));
        assert_eq!(silence.of(&a, second(20)), second(8));
        assert_eq!(silence.of(&b, second(20)), second(5));
        assert_eq!(silence.of_all(second(20)), second(5));
        silence.restart(second(21));
        assert_eq!(silence.of_all(second(22)), second(1), "what was before does not count");
        assert_eq!(silence.of(&a, second(22)), second(0));
    }
}
