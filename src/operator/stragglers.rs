//! Rows that came when the first windows over their pane had closed for their split: they count in the later ones alone.
//!
//! ```text
//! waiting, by the end of the first window that takes them ── it closes ──▶ settled: one state per pane, as all later windows take it
//!
//! settled     4   5   6   7   8       a block of 2, 4, 8 … panes is merged once, until one of its panes changes
//!            [4 . 5) [6 . 7)
//!            [4 . . . . . 7)          window [5, 9) = 5 + [6 . 7) + 8
//! ```
//! So a window merges a few states for each straggler that came since the last one, and the logarithm of its panes, however many
//! stragglers it holds.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use ahash::HashMap;

use crate::types::{PaneRange, Result, Windows, limits};

use super::{
    Aggregation,
    aggregation::{Evaluated, GroupState, GroupTable},
    merging::{merge, seal, table_at},
};

/// A block of the largest level is no larger than a window.
const LEVEL_MAX: u32 = limits::PANES_PER_WINDOW_MAX.ilog2();

pub struct Stragglers {
    aggregation: Arc<Aggregation>,
    windows: Windows,
    /// By the end of the first window that takes them, which is not closed, and pane.
    waiting: BTreeMap<(i64, i64), GroupTable>,
    /// By pane; every window over the pane that is not closed takes them.
    settled: BTreeMap<i64, GroupState>,
    /// States of `2^level` panes from `index * 2^level` on, where two of them or more are settled and it was asked for.
    blocks: HashMap<(u32, i64), GroupState>,
}

impl Stragglers {
    pub fn new(aggregation: Arc<Aggregation>, windows: Windows) -> Self {
        Self {
            aggregation,
            windows,
            waiting: BTreeMap::new(),
            settled: BTreeMap::new(),
            blocks: HashMap::default(),
        }
    }

    /// Rows of one pane, of which windows that end before `first_end` take none.
    pub fn update(&mut self, pane: i64, first_end: i64, rows: &Evaluated) -> Result<()> {
        table_at(&mut self.waiting, (first_end, pane), &self.aggregation)?.update(rows)
    }

    /// Adds the rows of a window to `merged`. The window closes, and those that end before it are closed.
    pub fn merge_into(&mut self, range: PaneRange, merged: &mut GroupTable) -> Result<()> {
        self.settle(range.end)?;
        if self.settled.is_empty() {
            return Ok(());
        }
        let mut from = range.first;
        while from < range.end {
            // The largest block that begins here and is inside.
            let level = (range.end - from).ilog2().min(from.trailing_zeros()).min(LEVEL_MAX);
            if let Some(state) = self.block(level, from >> level)? {
                merged.update_states(&state)?;
            }
            from += 1 << level;
        }
        Ok(())
    }

    /// Rows that the window which ends with pane `closed` took, or one before it, are settled.
    pub fn settle(&mut self, closed: i64) -> Result<()> {
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 <= closed
        {
            let ((_, pane), table) = entry.remove_entry();
            let state = table.into_state()?;
            self.forget_blocks(pane);
            match self.settled.entry(pane) {
                Entry::Occupied(mut entry) => {
                    let both = merge(&self.aggregation, entry.get(), &state)?;
                    entry.insert(both);
                }
                Entry::Vacant(entry) => {
                    entry.insert(state);
                }
            }
        }
        Ok(())
    }

    /// Drops panes whose last window ends before pane `from`.
    pub fn forget_covered(&mut self, from: i64) {
        while let Some((pane, _)) = self.settled.first_key_value()
            && self.windows.next_covering(*pane, from).is_none()
        {
            let pane = *pane;
            self.settled.remove(&pane);
            self.forget_blocks(pane);
        }
    }

    /// The window with rows that ends first, at pane `from` or later. All that end before are closed.
    pub fn next_window(&self, from: i64) -> Option<PaneRange> {
        let waiting = self
            .waiting
            .first_key_value()
            .and_then(|((first_end, pane), _)| self.windows.next_covering(*pane, *first_end));
        // Of two panes, the earlier one is in the earlier window, as long as a window is left for it.
        let settled = self
            .settled
            .keys()
            .find_map(|pane| self.windows.next_covering(*pane, from));
        [waiting, settled].into_iter().flatten().min()
    }

    pub fn last_pane(&self) -> Option<i64> {
        let waiting = self.waiting.keys().map(|(_, pane)| *pane).max();
        waiting.max(self.settled.keys().next_back().copied())
    }

    /// First end, pane and state of what waits.
    pub fn waiting(&mut self) -> impl Iterator<Item = Result<(i64, i64, GroupState)>> {
        let aggregation = &self.aggregation;
        (self.waiting.iter_mut())
            .map(move |((first_end, pane), table)| Ok((*first_end, *pane, seal(table, aggregation)?)))
    }

    pub fn settled(&self) -> impl Iterator<Item = (i64, &GroupState)> {
        self.settled.iter().map(|(pane, state)| (*pane, state))
    }

    /// Takes up what [`waiting`](Self::waiting) gave.
    pub fn restore_waiting(&mut self, first_end: i64, pane: i64, state: &GroupState) -> Result<()> {
        table_at(&mut self.waiting, (first_end, pane), &self.aggregation)?.update_states(state)
    }

    /// Takes up what [`settled`](Self::settled) gave.
    pub fn restore_settled(&mut self, pane: i64, state: GroupState) {
        self.settled.insert(pane, state);
    }

    pub fn memory_bytes(&self) -> usize {
        let states = self.settled.values().chain(self.blocks.values());
        self.waiting.values().map(GroupTable::memory_bytes).sum::<usize>()
            + states.map(GroupState::memory_bytes).sum::<usize>()
    }

    /// The state of the settled panes of a block; `None` where it has none.
    fn block(&mut self, level: u32, index: i64) -> Result<Option<GroupState>> {
        let first = index << level;
        let mut inside = self.settled.range(first..=first + ((1 << level) - 1));
        let Some((_, only)) = inside.next() else {
            return Ok(None);
        };
        if inside.next().is_none() {
            return Ok(Some(only.clone()));
        }
        if let Some(state) = self.blocks.get(&(level, index)) {
            return Ok(Some(state.clone()));
        }
        let halves = [self.block(level - 1, 2 * index)?, self.block(level - 1, 2 * index + 1)?];
        Ok(match halves {
            [Some(earlier), Some(later)] => {
                let both = merge(&self.aggregation, &earlier, &later)?;
                self.blocks.insert((level, index), both.clone());
                Some(both)
            }
            [earlier, later] => earlier.or(later),
        })
    }

    /// A pane changes or goes: so do the blocks that it is in.
    fn forget_blocks(&mut self, pane: i64) {
        if self.blocks.is_empty() {
            return;
        }
        for level in 1..=LEVEL_MAX {
            self.blocks.remove(&(level, pane >> level));
        }
    }
}
