//! When an epoch is due, and which splits are silent: read off the host's clock, and journalled with the plan.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    plan::Trigger,
    runtime::{gathered::Gathered, reader::TICK},
    types::{EventTime, Position, SplitId},
};

use super::Run;

impl Run {
    /// How long to gather more rows.
    pub(super) fn patience(&self, last_epoch: Duration) -> Duration {
        match self.timeline.source().trigger {
            Trigger::EachRow => Duration::ZERO,
            Trigger::AtMostEvery(interval) => (last_epoch + interval).saturating_sub(self.host.elapsed()).min(TICK),
            Trigger::Interval(_) => TICK,
        }
    }

    /// The next multiple of a trigger's interval.
    pub(super) fn next_boundary(&self) -> Option<EventTime> {
        match self.timeline.source().trigger {
            Trigger::Interval(interval) => {
                let interval = i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX);
                Some(EventTime(
                    (self.host.now().0.div_euclid(interval) + 1).saturating_mul(interval),
                ))
            }
            Trigger::EachRow | Trigger::AtMostEvery(_) => None,
        }
    }

    /// What was before does not count as silence.
    pub(super) fn silence_begins(&mut self) {
        self.silence.restart(self.host.elapsed());
        self.timeline.silence_begins(self.host.now());
    }

    /// Splits that are caught up and were silent for the timeout. While the source does not answer none becomes idle.
    pub(super) fn idle_splits(&mut self, gathered: &Gathered, now: Duration) -> BTreeSet<SplitId> {
        if !self.timeline.has_watermark() {
            return BTreeSet::new();
        }
        for part in gathered.parts() {
            self.silence.heard(&part.split, now);
        }
        let has_rows = |split: &SplitId| gathered.parts().iter().any(|part| part.split == *split);
        if self.unreachable_since.is_some() {
            let idle = self.timeline.idle_splits_now();
            return idle.into_iter().filter(|split| !has_rows(split)).collect();
        }
        let shared = Arc::clone(self.timeline.shared());
        let ends = shared.ends.lock().expect("nobody panics while holding it");
        let timeout = self.timeline.source().idle_timeout;
        let silence = &mut self.silence;
        self.timeline
            .positions()
            .iter()
            .filter(|(split, position)| {
                let is_caught_up = ends.get(*split).is_some_and(|end| *end <= **position);
                let silent_for = silence.of(split, now);
                is_caught_up && !has_rows(split) && timeout <= silent_for
            })
            .map(|(split, _)| split.clone())
            .collect()
    }

    /// What closes all windows, once no split has brought a row for `close_after` and there is none to read.
    pub(super) fn closes_below(&self, now: Duration) -> Option<EventTime> {
        let close_after = self.timeline.source().close_after?;
        if self.unreachable_since.is_some() || self.silence.of_all(now) < close_after {
            return None;
        }
        let shared = self.timeline.shared();
        let ends = shared.ends.lock().expect("nobody panics while holding it");
        let positions = self.timeline.positions();
        let is_read =
            |(split, end): (&SplitId, &Position)| positions.get(split).is_some_and(|position| end <= position);
        if !ends.iter().all(is_read) {
            return None;
        }
        self.timeline.closes_all_at()
    }
}
