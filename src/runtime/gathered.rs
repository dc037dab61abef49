//! Rows that wait for their epoch.

use std::collections::{BTreeMap, VecDeque};

use crate::types::{PlannedRange, SplitId, limits};

use super::intake::SplitRows;

/// Parts of splits, in the order in which they were read.
#[derive(Default)]
pub struct Gathered {
    pub parts: VecDeque<SplitRows>,
    pub rows: usize,
}

impl Gathered {
    pub fn push(&mut self, part: SplitRows) {
        self.rows += part.positions.len() + part.bad.len();
        self.parts.push_back(part);
    }

    pub fn is_full(&self) -> bool {
        limits::EPOCH_ROWS_MAX <= self.rows
    }

    /// The oldest parts, up to about so many rows.
    pub fn take(&mut self, rows_max: usize, is_wanted: bool) -> Vec<SplitRows> {
        let mut taken = Vec::new();
        let mut rows = 0;
        while is_wanted
            && rows < rows_max
            && let Some(part) = self.parts.pop_front()
        {
            rows += part.positions.len() + part.bad.len();
            taken.push(part);
        }
        self.rows -= rows;
        taken
    }
}

/// What a plan says of its rows.
pub fn ranges(input: &[SplitRows]) -> BTreeMap<SplitId, PlannedRange> {
    let mut ranges: BTreeMap<SplitId, PlannedRange> = BTreeMap::new();
    for part in input {
        ranges
            .entry(part.split.clone())
            .and_modify(|range| range.to = part.to)
            .or_insert(PlannedRange {
                from: part.from,
                to: part.to,
            });
    }
    ranges
}
