//! Rows that wait for their epoch.

use std::collections::BTreeMap;

use crate::types::{Anchors, PlannedRange, SplitId};

use super::{Bounds, intake::SplitRows};

/// Parts of splits, in the order in which they were read, until they are enough for an epoch.
pub struct Gathered {
    parts: Vec<SplitRows>,
    rows: usize,
    bytes: usize,
    rows_max: usize,
    bytes_max: usize,
}

impl Gathered {
    pub fn new(bounds: &Bounds) -> Self {
        Self {
            parts: Vec::new(),
            rows: 0,
            bytes: 0,
            rows_max: bounds.epoch_rows_max,
            bytes_max: bounds.epoch_bytes_max,
        }
    }

    pub fn push(&mut self, part: SplitRows) {
        self.rows += part.positions.len() + part.bad.len();
        self.bytes += part.memory_bytes();
        self.parts.push(part);
    }

    pub fn parts(&self) -> &[SplitRows] {
        &self.parts
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether more has to wait for the next epoch: the part that reached a bound was the last.
    pub fn is_full(&self) -> bool {
        self.rows_max <= self.rows || self.bytes_max <= self.bytes
    }

    /// All of it, for an epoch.
    pub fn take(&mut self) -> Vec<SplitRows> {
        (self.rows, self.bytes) = (0, 0);
        std::mem::take(&mut self.parts)
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

/// What a plan remembers of its rows.
pub fn anchors(input: &[SplitRows]) -> Anchors {
    let last = |part: &SplitRows| Some((part.split.clone(), part.anchor?));
    Anchors {
        identity: None,
        records: input.iter().filter_map(last).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, StringViewArray};

    use super::*;
    use crate::types::{BadRecord, Position};

    /// One row at `position` with a text of so many bytes.
    fn part(position: u64, bytes: usize) -> SplitRows {
        let text: ArrayRef = Arc::new(StringViewArray::from_iter_values(["x".repeat(bytes)]));
        SplitRows {
            split: SplitId::from(0),
            from: Position(position),
            to: Position(position + 1),
            rows: RecordBatch::try_from_iter([("text", text)]).unwrap(),
            positions: vec![position],
            bad: Vec::new(),
            anchor: None,
        }
    }

    fn gathered(rows_max: usize, bytes_max: usize) -> Gathered {
        Gathered::new(&Bounds {
            epoch_rows_max: rows_max,
            epoch_bytes_max: bytes_max,
            ..Bounds::default()
        })
    }

    #[test]
    fn an_epoch_takes_no_more_once_its_rows_are_enough() {
        let mut gathered = gathered(2, usize::MAX);
        gathered.push(part(0, 1));
        assert!(!gathered.is_full());
        gathered.push(part(1, 1));
        assert!(gathered.is_full());
        let taken = gathered.take();
        assert_eq!(
            ranges(&taken)[&SplitId::from(0)],
            PlannedRange {
                from: Position(0),
                to: Position(2)
            }
        );
        assert!(
            !gathered.is_full() && gathered.is_empty(),
            "what was taken counts no more"
        );
    }

    #[test]
    fn an_epoch_takes_no_more_once_its_bytes_are_enough() {
        let mut gathered = gathered(1_000_000, 100_000);
        gathered.push(part(0, 60_000));
        assert!(!gathered.is_full());
        gathered.push(part(1, 60_000));
        assert!(gathered.is_full(), "two rows of 60 kB");
        gathered.take();
        assert!(!gathered.is_full());
    }

    #[test]
    fn bad_records_have_bytes_too() {
        let mut bad = part(0, 0);
        bad.bad = vec![BadRecord {
            position: Position(0),
            reason: "no number".into(),
            first_bytes: vec![b'x'; 60_000],
        }];
        assert!(60_000 <= bad.memory_bytes());
    }
}
