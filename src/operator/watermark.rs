//! How far event time is complete: per split from its own rows, and over all splits that are not idle.
//!
//! ```text
//! rows of a split ─▶ running maximum ─▶ the watermark each row met (before itself)
//! end of epoch    ─▶ minimum over active splits ─▶ the watermark that closes windows
//! ```
//! Neither ever goes back. What a row met depends on lower positions of its own split alone, so lateness does not depend on
//! how rows were cut into epochs. A split that was idle, or is new, starts from the watermark that went on without it.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{
    EventTime, SplitId, Watermark,
    planted::{Bug, has},
};

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SplitWatermarks {
    splits: BTreeMap<SplitId, SplitWatermark>,
    combined: Option<Watermark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct SplitWatermark {
    watermark: Watermark,
    is_idle: bool,
    /// The highest event time of its rows.
    #[serde(default)]
    highest: Option<EventTime>,
}

impl SplitWatermarks {
    /// From now on the split counts. Its rows are late from where the others are.
    pub fn add_split(&mut self, split: &SplitId) {
        let floor = self.combined();
        self.splits.entry(split.clone()).or_insert(SplitWatermark {
            watermark: floor,
            is_idle: false,
            highest: None,
        });
    }

    /// Takes, per row, the event time up to which the split is complete once the row is in, and replaces it by what the row met.
    pub fn observe(&mut self, split: &SplitId, times: &mut [i64]) {
        self.add_split(split);
        let state = self.splits.get_mut(split).expect("added above");
        if !times.is_empty() {
            state.is_idle = false;
        }
        let mut running = state.watermark.0;
        for time in times {
            let met = if has(Bug::LatenessByEpoch) {
                state.watermark.0
            } else {
                running
            };
            running = match has(Bug::WatermarkGoesBack) {
                true => *time,
                false => running.max(*time),
            };
            *time = met;
        }
        state.watermark = Watermark(running);
    }

    /// Notes the highest event time of rows of a split, for people: nothing is decided by it.
    pub fn saw(&mut self, split: &SplitId, event_time: EventTime) {
        self.add_split(split);
        let state = self.splits.get_mut(split).expect("added above");
        state.highest = state.highest.max(Some(event_time));
    }

    /// Every split is complete up to here, behind the rows of the epoch at hand, and so is the whole, also where all splits are idle.
    pub fn raise(&mut self, watermark: Watermark) {
        self.combined = self.combined.max(Some(watermark));
        for state in self.splits.values_mut() {
            state.watermark = state.watermark.max(watermark);
        }
    }

    /// The watermark after an epoch: the minimum over splits that are not idle. Where all are idle it stays.
    pub fn end_epoch(&mut self, idle: &BTreeSet<SplitId>, is_last: bool) -> Watermark {
        for (split, state) in &mut self.splits {
            state.is_idle = idle.contains(split);
        }
        let minimum = self
            .splits
            .values()
            .filter(|state| !state.is_idle)
            .map(|state| state.watermark)
            .min();
        let before = self.combined();
        let combined = match is_last {
            true => Watermark::END,
            false => minimum.map_or(before, |minimum| minimum.max(before)),
        };
        assert!(
            before <= combined || has(Bug::WatermarkGoesBack),
            "the watermark never goes back"
        );
        self.combined = Some(combined);
        // A row that comes behind the end of its source is late for every window.
        for state in self.splits.values_mut().filter(|state| state.is_idle || is_last) {
            state.watermark = state.watermark.max(combined);
        }
        combined
    }

    pub fn combined(&self) -> Watermark {
        self.combined.unwrap_or(Watermark::START)
    }

    /// The highest event time of a split's rows so far.
    pub fn highest(&self, split: &SplitId) -> Option<EventTime> {
        self.splits.get(split)?.highest
    }

    /// Watermark and idleness of a split.
    pub fn of(&self, split: &SplitId) -> (Watermark, bool) {
        self.splits
            .get(split)
            .map_or((self.combined(), false), |state| (state.watermark, state.is_idle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(name: &str) -> SplitId {
        SplitId::new(name)
    }

    fn observe(watermarks: &mut SplitWatermarks, name: &str, times: &[i64]) -> Vec<i64> {
        let mut times = times.to_vec();
        watermarks.observe(&split(name), &mut times);
        times
    }

    #[test]
    fn a_row_meets_the_highest_time_before_it_in_its_own_split() {
        let mut watermarks = SplitWatermarks::default();
        assert_eq!(observe(&mut watermarks, "0", &[5, 3, 9, 9]), [i64::MIN, 5, 5, 9]);
        assert_eq!(observe(&mut watermarks, "0", &[1]), [9], "also across epochs");
        assert_eq!(
            observe(&mut watermarks, "1", &[1]),
            [i64::MIN],
            "other splits do not matter"
        );
    }

    #[test]
    fn the_slowest_active_split_holds_the_watermark_and_an_idle_one_does_not() {
        let mut watermarks = SplitWatermarks::default();
        observe(&mut watermarks, "0", &[100]);
        observe(&mut watermarks, "1", &[40]);
        watermarks.add_split(&split("2"));
        assert_eq!(
            watermarks.end_epoch(&BTreeSet::new(), false),
            Watermark::START,
            "an empty split holds it"
        );
        let idle = BTreeSet::from([split("2")]);
        assert_eq!(watermarks.end_epoch(&idle, false), Watermark(40));
        let idle = BTreeSet::from([split("1"), split("2")]);
        assert_eq!(watermarks.end_epoch(&idle, false), Watermark(100));
        assert_eq!(
            observe(&mut watermarks, "2", &[50]),
            [100],
            "who was idle is measured by the others"
        );
        assert_eq!(
            watermarks.end_epoch(&BTreeSet::new(), false),
            Watermark(100),
            "it never goes back"
        );
    }

    #[test]
    fn a_raised_watermark_holds_for_every_split_also_where_all_are_idle() {
        let mut watermarks = SplitWatermarks::default();
        observe(&mut watermarks, "0", &[7]);
        observe(&mut watermarks, "1", &[70]);
        watermarks.raise(Watermark(50));
        assert_eq!(
            watermarks.end_epoch(&BTreeSet::from([split("0"), split("1")]), false),
            Watermark(50)
        );
        assert_eq!(
            observe(&mut watermarks, "0", &[8]),
            [50],
            "its rows are late from there"
        );
        assert_eq!(observe(&mut watermarks, "1", &[8]), [70], "who was further stays");
        watermarks.add_split(&split("2"));
        assert_eq!(observe(&mut watermarks, "2", &[8]), [50], "and who is new begins there");
        assert_eq!(watermarks.end_epoch(&BTreeSet::new(), false), Watermark(50));
    }

    #[test]
    fn all_idle_keeps_the_watermark_and_the_end_closes_everything() {
        let mut watermarks = SplitWatermarks::default();
        observe(&mut watermarks, "0", &[7]);
        assert_eq!(watermarks.end_epoch(&BTreeSet::new(), false), Watermark(7));
        assert_eq!(watermarks.end_epoch(&BTreeSet::from([split("0")]), false), Watermark(7));
        assert_eq!(watermarks.end_epoch(&BTreeSet::new(), true), Watermark::END);
        assert_eq!(
            observe(&mut watermarks, "0", &[8]),
            [i64::MAX],
            "and what comes behind it meets the end"
        );
    }
}
