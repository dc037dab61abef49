//! What the committed plans after a checkpoint ask of their source, which have to run again.

use std::collections::BTreeMap;

use crate::types::{Anchors, EpochPlan, PlannedRange, Position, SplitId};

use super::Timeline;

impl Timeline {
    /// Where reading has to start so that the committed plans can run again, and goes on behind them.
    pub fn replay_positions(&self) -> BTreeMap<SplitId, Position> {
        let mut positions = self.positions.clone();
        for plan in self.plans_to_replay.as_slice() {
            for (split, start) in &plan.new_splits {
                positions.entry(split.clone()).or_insert(*start);
            }
        }
        positions
    }

    /// First unread row of each split once all committed plans ran again.
    pub fn committed_positions(&self) -> BTreeMap<SplitId, Position> {
        let mut positions = self.replay_positions();
        for plan in self.plans_to_replay.as_slice() {
            positions.extend(plan.ranges.iter().map(|(split, range)| (split.clone(), range.to)));
        }
        positions
    }

    /// What committed plans passed over, because it was gone before they could read it.
    pub fn committed_gaps(&self) -> BTreeMap<SplitId, Vec<PlannedRange>> {
        let mut gaps: BTreeMap<SplitId, Vec<PlannedRange>> = BTreeMap::new();
        for (split, of_plan) in self.plans_to_replay.as_slice().iter().flat_map(|plan| &plan.gaps) {
            gaps.entry(split.clone()).or_default().extend(of_plan);
        }
        gaps
    }

    /// What was read last, also by committed plans that have to run again.
    pub fn committed_anchors(&self) -> Anchors {
        let mut anchors = self.anchors.clone();
        for plan in self.plans_to_replay.as_slice() {
            anchors.add(&plan.anchors);
        }
        anchors
    }

    /// The next committed plan that has to run again before anything new.
    pub fn next_replay(&mut self) -> Option<EpochPlan> {
        self.plans_to_replay.next()
    }
}
