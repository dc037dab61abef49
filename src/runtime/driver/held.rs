//! Chunks of a source that is read again, until it is their turn: plans want splits in their order, and a source gives them as they come.
//!
//! ```text
//! poll ─▶ held, by split ─▶ the split whose turn it is        too much held: that split is read alone, the others once more later
//! ```

use std::collections::{BTreeMap, VecDeque};

use crate::{
    connector::LostRows,
    types::{Chunk, PlannedRange, Position, SplitId},
};

pub struct Held {
    chunks: BTreeMap<SplitId, VecDeque<Chunk>>,
    bytes: usize,
    bytes_max: usize,
    /// The first position of each split that was not taken.
    next: BTreeMap<SplitId, Position>,
    /// Of each split, from where on nothing is needed.
    until: BTreeMap<SplitId, Position>,
    /// What plans passed over before that.
    gaps: BTreeMap<SplitId, Vec<PlannedRange>>,
    /// The source was told to give this split alone.
    alone: Option<SplitId>,
}

impl Held {
    /// The source stands at `next`.
    pub fn new(
        next: BTreeMap<SplitId, Position>,
        until: BTreeMap<SplitId, Position>,
        gaps: BTreeMap<SplitId, Vec<PlannedRange>>,
        bytes_max: usize,
    ) -> Self {
        Self {
            chunks: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            next,
            until,
            gaps,
            alone: None,
        }
    }

    /// Whether some of the rows that are gone were there when they were read.
    pub fn needs(&self, lost: &LostRows) -> bool {
        let Some(until) = self.until.get(&lost.split) else {
            return false;
        };
        let mut from = lost.from;
        // In the order in which they were passed over, which is that of positions.
        for gap in self.gaps.get(&lost.split).into_iter().flatten() {
            if gap.from <= from {
                from = from.max(gap.to);
            }
        }
        from < lost.to.min(*until)
    }

    /// What came behind all that is needed is dropped.
    pub fn push(&mut self, chunk: Chunk) {
        if self.until.get(&chunk.split).is_some_and(|until| chunk.from < *until) {
            self.bytes += chunk.payload.memory_bytes();
            self.chunks.entry(chunk.split.clone()).or_default().push_back(chunk);
        }
    }

    /// The next chunk of a split, cut at `to`.
    pub fn take(&mut self, split: &SplitId, to: Position) -> Option<Chunk> {
        let waiting = self.chunks.get_mut(split)?;
        let mut chunk = waiting.pop_front()?;
        self.bytes -= chunk.payload.memory_bytes();
        if chunk.from <= to && to < chunk.to {
            let rest = chunk.split_off(to);
            self.bytes += rest.payload.memory_bytes();
            waiting.push_front(rest);
        }
        self.next.insert(split.clone(), chunk.to);
        Some(chunk)
    }

    /// Where the source has to seek before it gives more of `split`, where it has to. What is held is forgotten then, and read again.
    pub fn seek_for(&mut self, split: &SplitId) -> Option<BTreeMap<SplitId, Position>> {
        let positions = match &self.alone {
            Some(alone) if alone == split => return None,
            Some(_) => {
                self.alone = None;
                self.next.clone()
            }
            None if self.bytes <= self.bytes_max => return None,
            None => {
                self.alone = Some(split.clone());
                let position = self.next.get(split);
                BTreeMap::from([(split.clone(), *position.expect("all splits of the plans are read"))])
            }
        };
        self.chunks.clear();
        self.bytes = 0;
        Some(positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Payload, RecordsBuilder};

    fn positions(given: &[(i32, u64)]) -> BTreeMap<SplitId, Position> {
        let position = |(split, position): &(i32, u64)| (SplitId::from(*split), Position(*position));
        given.iter().map(position).collect()
    }

    /// Records of 100 bytes at `from..to`.
    fn chunk(split: i32, from: u64, to: u64) -> Chunk {
        let mut records = RecordsBuilder::default();
        (from..to).for_each(|position| records.push(position, None, None, Some(&[b'x'; 100])));
        Chunk {
            split: SplitId::from(split),
            from: Position(from),
            to: Position(to),
            payload: Payload::Records(records.finish()),
        }
    }

    fn held() -> Held {
        let until = positions(&[(0, 10), (1, 10)]);
        Held::new(positions(&[(0, 0), (1, 0)]), until, BTreeMap::new(), 1_000)
    }

    #[test]
    fn a_chunk_is_cut_where_a_plan_ends_and_its_rest_comes_next() {
        let mut held = held();
        held.push(chunk(0, 0, 4));
        let ranges: Vec<_> = [3, 9]
            .iter()
            .map(|to| held.take(&SplitId::from(0), Position(*to)).unwrap())
            .map(|chunk| (chunk.from.0, chunk.to.0, chunk.payload.len()))
            .collect();
        assert_eq!(ranges, [(0, 3, 3), (3, 4, 1)]);
        assert!(held.take(&SplitId::from(0), Position(9)).is_none());
        assert_eq!(held.bytes, 0);
    }

    #[test]
    fn what_no_plan_needs_is_not_held() {
        let mut held = held();
        for from in 10..1_000 {
            held.push(chunk(1, from, from + 1));
        }
        held.push(chunk(2, 0, 1));
        assert_eq!((held.bytes, held.chunks.len()), (0, 0));
        assert_eq!(held.seek_for(&SplitId::from(0)), None);
    }

    #[test]
    fn a_split_is_read_alone_where_others_bring_too_much_meanwhile() {
        let (silent, loud) = (SplitId::from(0), SplitId::from(1));
        let mut held = held();
        held.push(chunk(1, 0, 2));
        assert!(held.take(&loud, Position(2)).is_some());
        held.push(chunk(1, 2, 9));
        held.push(chunk(1, 9, 10));
        assert_eq!(held.seek_for(&silent), Some(positions(&[(0, 0)])));
        assert_eq!(held.bytes, 0, "what is held is read again");
        held.push(chunk(0, 0, 3));
        assert!(held.take(&silent, Position(3)).is_some());
        assert_eq!(held.seek_for(&silent), None, "it goes on alone");
        assert_eq!(
            held.seek_for(&loud),
            Some(positions(&[(0, 3), (1, 2)])),
            "now all of them"
        );
        assert_eq!(held.seek_for(&loud), None);
    }

    #[test]
    fn a_chunk_behind_a_gap_stays_whole() {
        let mut held = held();
        held.push(chunk(0, 5, 7));
        let found = held.take(&SplitId::from(0), Position(2)).unwrap();
        assert_eq!((found.from, found.to), (Position(5), Position(7)));
    }

    #[test]
    fn what_was_gone_when_it_was_read_may_be_gone_again_and_nothing_else() {
        let gap = |from: u64, to: u64| PlannedRange {
            from: Position(from),
            to: Position(to),
        };
        let split = SplitId::from(0);
        let gaps = BTreeMap::from([(split.clone(), vec![gap(3, 5), gap(5, 6), gap(8, 9)])]);
        let held = Held::new(positions(&[(0, 0)]), positions(&[(0, 10)]), gaps, 1_000);
        for (from, to, expected, why) in [
            (3, 6, false, "the same, in two parts"),
            (3, 7, true, "one more behind"),
            (2, 6, true, "one more before"),
            (8, 9, false, "another"),
            (10, 20, false, "behind all that is needed"),
            (9, 20, true, "the last that is needed"),
        ] {
            let lost = LostRows {
                split: split.clone(),
                from: Position(from),
                to: Position(to),
            };
            assert_eq!(held.needs(&lost), expected, "{from} to {to}: {why}");
        }
    }
}
