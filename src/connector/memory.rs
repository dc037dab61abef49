//! A topic in memory: what was appended stays, so that a source over it can be made again after a crash and read again.
//!
//! ```text
//! append(split, rows), append_records(split, records) ─▶ MemoryTopic (shared) ─▶ MemorySource ─▶ chunks
//! ```
//! A poll that may not wait returns at once, which lets tests run on logical time; another one wakes when something is appended.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arrow::array::RecordBatch;

use super::{Source, SourceError, SplitBounds};
use crate::types::{Anchors, Chunk, Payload, Position, Records, RecordsBuilder, SplitId};

/// A handle on a topic; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryTopic(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    topic: Mutex<Topic>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Topic {
    splits: BTreeMap<SplitId, Split>,
    is_finished: bool,
    outage: Option<SourceError>,
}

#[derive(Debug, Default)]
struct Split {
    /// Positions below have been forgotten.
    start: u64,
    end: u64,
    /// In the order of their positions, which may leave gaps.
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    /// Positions `[from, to)`.
    from: u64,
    to: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Rows(RecordBatch),
    Records(Records),
}

impl MemoryTopic {
    /// A topic whose splits are known before they hold anything.
    pub fn with_splits(splits: impl IntoIterator<Item = SplitId>) -> Self {
        let topic = Self::default();
        topic
            .lock()
            .splits
            .extend(splits.into_iter().map(|split| (split, Split::default())));
        topic
    }

    /// Appends rows to a split, which is made where it is new. Returns the position after them.
    ///
    /// # Panics
    /// After [`finish`](Self::finish).
    pub fn append(&self, split: &SplitId, rows: RecordBatch) -> Position {
        let mut topic = self.lock();
        let split = topic.open(split);
        let from = split.end;
        split.end += rows.num_rows() as u64;
        if 0 < rows.num_rows() {
            split.pieces.push(Piece {
                from,
                to: split.end,
                content: Content::Rows(rows),
            });
        }
        self.0.changed.notify_all();
        Position(split.end)
    }

    /// Appends records at their own positions. Returns the position after them.
    ///
    /// # Panics
    /// Where the first position is below the end of the split; after [`finish`](Self::finish).
    pub fn append_records(&self, split: &SplitId, records: Records) -> Position {
        let mut topic = self.lock();
        let split = topic.open(split);
        if let (Some(first), Some(last)) = (records.positions().first(), records.positions().last()) {
            assert!(split.end <= *first, "records are appended behind what is there");
            let (from, to) = (split.end, last + 1);
            split.end = to;
            split.pieces.push(Piece {
                from,
                to,
                content: Content::Records(records),
            });
        }
        self.0.changed.notify_all();
        Position(split.end)
    }

    /// Nothing is appended any more.
    pub fn finish(&self) {
        self.lock().is_finished = true;
        self.0.changed.notify_all();
    }

    /// Every call of a source over this topic fails with `outage`, until this is called with `None`.
    pub fn interrupt(&self, outage: Option<SourceError>) {
        self.lock().outage = outage;
        self.0.changed.notify_all();
    }

    /// Retention: rows below `position` are gone.
    pub fn forget(&self, split: &SplitId, position: Position) {
        let mut topic = self.lock();
        let split = topic.splits.get_mut(split).expect("only a split that is there forgets");
        split.start = split.start.max(position.0.min(split.end));
        let start = split.start;
        split.pieces.retain(|piece| start < piece.to);
    }

    /// A source that reads this topic from its start.
    pub fn source(&self) -> MemorySource {
        MemorySource {
            topic: self.clone(),
            positions: BTreeMap::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Topic> {
        // A test that panicked while it appended has failed already.
        self.0.topic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topic {
    fn open(&mut self, split: &SplitId) -> &mut Split {
        assert!(!self.is_finished, "nothing is appended to a topic that is finished");
        self.splits.entry(split.clone()).or_default()
    }

    fn check(&self) -> Result<(), SourceError> {
        self.outage.clone().map_or(Ok(()), Err)
    }

    /// What is there from `positions` on, which go behind it.
    fn read(
        &self,
        positions: &mut BTreeMap<SplitId, u64>,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Chunk>, SourceError> {
        self.check()?;
        let mut chunks = Vec::new();
        let (mut rows_left, mut bytes_left) = (rows_max, bytes_max);
        for (split, position) in positions {
            let Some(content) = self.splits.get(split) else {
                continue;
            };
            if *position < content.start {
                return Err(SourceError::Failed(format!(
                    "rows {position} to {} of split {split} are gone",
                    content.start - 1
                )));
            }
            let first = content.pieces.partition_point(|piece| piece.to <= *position);
            for piece in &content.pieces[first..] {
                if rows_left == 0 || bytes_left == 0 {
                    return Ok(chunks);
                }
                let (payload, to, bytes) = piece.read(*position, rows_left, bytes_left);
                rows_left -= payload.len();
                bytes_left = bytes_left.saturating_sub(bytes);
                chunks.push(Chunk {
                    split: split.clone(),
                    from: Position(*position),
                    to: Position(to),
                    payload,
                });
                *position = to;
                if to < piece.to {
                    break;
                }
            }
        }
        Ok(chunks)
    }
}

/// Reads a [`MemoryTopic`].
#[derive(Debug)]
pub struct MemorySource {
    topic: MemoryTopic,
    /// Of the splits that are read.
    positions: BTreeMap<SplitId, u64>,
}

impl Source for MemorySource {
    fn discover(&mut self) -> Result<Vec<SplitBounds>, SourceError> {
        let topic = self.topic.lock();
        topic.check()?;
        Ok(topic
            .splits
            .iter()
            .map(|(split, content)| SplitBounds {
                split: split.clone(),
                first: Position(content.start),
                start: Position(content.start),
                end: Position(content.end),
            })
            .collect())
    }

    /// A topic in memory has no other name, and `seek` refuses positions that it never had.
    fn recognise(&mut self, _: &Anchors) -> Result<Option<String>, SourceError> {
        Ok(None)
    }

    fn seek(&mut self, positions: &BTreeMap<SplitId, Position>) -> Result<(), SourceError> {
        let topic = self.topic.lock();
        topic.check()?;
        for (split, position) in positions {
            let end = topic.splits.get(split).map_or(0, |content| content.end);
            if end < position.0 {
                return Err(SourceError::Failed(format!(
                    "rows up to {position} of split {split} were read, and it holds {end}: they were in the memory of another process; \
                     start again with --reset, or write to a table, which keeps its rows"
                )));
            }
        }
        drop(topic);
        self.positions = positions
            .iter()
            .map(|(split, position)| (split.clone(), position.0))
            .collect();
        Ok(())
    }

    fn poll(&mut self, rows_max: usize, bytes_max: usize, wait: Duration) -> Result<Vec<Chunk>, SourceError> {
        let topic = self.topic.lock();
        let chunks = topic.read(&mut self.positions, rows_max, bytes_max)?;
        if !chunks.is_empty() || wait.is_zero() || topic.is_finished {
            return Ok(chunks);
        }
        let changed = &self.topic.0.changed;
        let (topic, _) = changed
            .wait_timeout(topic, wait)
            .unwrap_or_else(PoisonError::into_inner);
        topic.read(&mut self.positions, rows_max, bytes_max)
    }

    fn ends(&self) -> BTreeMap<SplitId, Position> {
        self.topic
            .lock()
            .splits
            .iter()
            .map(|(split, content)| (split.clone(), Position(content.end)))
            .collect()
    }

    fn is_finished(&self) -> bool {
        let topic = self.topic.lock();
        topic.is_finished
            && topic
                .splits
                .iter()
                .all(|(split, content)| content.end <= self.positions.get(split).copied().unwrap_or(content.start))
    }
}

impl Piece {
    /// At most `rows_max` rows from `position` on, and at least one row where one is there; the position after them; their bytes.
    fn read(&self, position: u64, rows_max: usize, bytes_max: usize) -> (Payload, u64, usize) {
        assert!(
            (self.from..self.to).contains(&position),
            "a piece is read where it has rows"
        );
        match &self.content {
            Content::Rows(rows) => {
                let skipped = usize::try_from(position - self.from).expect("a batch is addressable");
                let row_bytes = (rows.get_array_memory_size() / rows.num_rows()).max(1);
                let length = (rows.num_rows() - skipped)
                    .min(rows_max)
                    .min((bytes_max / row_bytes).max(1));
                (
                    Payload::Rows(rows.slice(skipped, length)),
                    position + length as u64,
                    length * row_bytes,
                )
            }
            Content::Records(records) => {
                let first = records.positions().partition_point(|at| *at < position);
                let mut copy = RecordsBuilder::default();
                let mut next = position;
                for index in first..records.len() {
                    if copy.len() == rows_max || bytes_max <= copy.bytes() {
                        return (Payload::Records(take(&mut copy)), next, bytes_max);
                    }
                    let at = records.positions()[index];
                    copy.push(
                        at,
                        records.timestamps_ms()[index],
                        records.key(index),
                        records.value(index),
                    );
                    next = at + 1;
                }
                let bytes = copy.bytes();
                (Payload::Records(copy.finish()), self.to, bytes)
            }
        }
    }
}

fn take(builder: &mut RecordsBuilder) -> Records {
    std::mem::take(builder).finish()
}

#[cfg(test)]
mod tests {
    use arrow::{array::Int64Array, datatypes::Int64Type};

    use super::*;
    use crate::connector::conformance;

    fn numbers(values: &[i64]) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(values.to_vec())) as _)]).unwrap()
    }

    fn records(positions: &[u64]) -> Records {
        let mut records = RecordsBuilder::default();
        for position in positions {
            let value = format!("value {position}");
            records.push(
                *position,
                Some(1000 + *position as i64),
                None,
                (position % 3 != 0).then_some(value.as_bytes()),
            );
        }
        records.finish()
    }

    #[test]
    fn rows_keep_the_contract_of_sources() {
        let topic = MemoryTopic::default();
        let mut expected = BTreeMap::new();
        for (split, count) in [(0, 1), (1, 1000), (2, 0), (10, 77)] {
            let split = SplitId::from(split);
            let values: Vec<i64> = (0..count).collect();
            let mut texts = Vec::new();
            // Batches of many sizes, and an empty one.
            for part in values.chunks(100).chain([&[] as &[i64]]) {
                topic.append(&split, numbers(part));
                texts.extend(conformance::texts(&Payload::Rows(numbers(part))));
            }
            expected.insert(split, texts);
        }
        conformance::check(&mut || Box::new(topic.source()), &expected);
    }

    #[test]
    fn records_keep_the_contract_of_sources() {
        let topic = MemoryTopic::with_splits([SplitId::new("empty")]);
        let mut expected = BTreeMap::from([(SplitId::new("empty"), vec![])]);
        for (split, positions) in [
            ("dense", (0..300).collect::<Vec<u64>>()),
            ("gaps", (0..900).filter(|at| at % 7 == 3).collect()),
        ] {
            let split = SplitId::new(split);
            for part in positions.chunks(64) {
                topic.append_records(&split, records(part));
            }
            expected.insert(split, conformance::texts(&Payload::Records(records(&positions))));
        }
        conformance::check(&mut || Box::new(topic.source()), &expected);
    }

    #[test]
    fn a_source_made_after_a_crash_reads_the_same_rows() {
        let (topic, split) = (MemoryTopic::default(), SplitId::from(0));
        topic.append(&split, numbers(&[1, 2, 3]));
        let read_all = |from: u64| {
            let mut source = topic.source();
            source.seek(&BTreeMap::from([(split.clone(), Position(from))])).unwrap();
            let chunks = source.poll(100, usize::MAX, Duration::ZERO).unwrap();
            chunks
                .iter()
                .flat_map(|chunk| match &chunk.payload {
                    Payload::Rows(rows) => arrow::array::cast::as_primitive_array::<Int64Type>(rows.column(0))
                        .values()
                        .to_vec(),
                    Payload::Records(_) => panic!("rows were appended"),
                })
                .collect::<Vec<i64>>()
        };
        assert_eq!(read_all(0), [1, 2, 3]);
        assert_eq!(read_all(0), [1, 2, 3], "again");
        assert_eq!(read_all(2), [3], "from a position");
        topic.append(&split, numbers(&[4]));
        assert_eq!(read_all(2), [3, 4], "and what came since");
    }

    #[test]
    fn it_is_finished_once_all_was_read_and_nothing_can_come() {
        let (topic, split) = (MemoryTopic::default(), SplitId::from(0));
        topic.append(&split, numbers(&[1]));
        let mut source = topic.source();
        source.seek(&BTreeMap::from([(split, Position(0))])).unwrap();
        assert_eq!(source.poll(10, 1000, Duration::ZERO).unwrap().len(), 1);
        assert!(!source.is_finished(), "more may come");
        topic.finish();
        assert!(source.is_finished());
        assert!(!topic.source().is_finished(), "one that has read nothing is not");
    }

    #[test]
    fn an_outage_passes_and_loses_nothing() {
        let (topic, split) = (MemoryTopic::default(), SplitId::from(0));
        topic.append(&split, numbers(&[1]));
        let mut source = topic.source();
        source.seek(&BTreeMap::from([(split, Position(0))])).unwrap();
        let outage = SourceError::Unreachable("nobody is there".into());
        topic.interrupt(Some(outage.clone()));
        assert_eq!(source.poll(10, 1000, Duration::ZERO).unwrap_err(), outage);
        assert_eq!(source.discover().unwrap_err(), outage);
        topic.interrupt(None);
        assert_eq!(source.poll(10, 1000, Duration::ZERO).unwrap().len(), 1);
    }

    #[test]
    fn a_poll_wakes_when_something_is_appended() {
        let (topic, split) = (MemoryTopic::default(), SplitId::from(0));
        let mut source = topic.source();
        source.seek(&BTreeMap::from([(split.clone(), Position(0))])).unwrap();
        assert!(source.poll(10, 1000, Duration::ZERO).unwrap().is_empty(), "at once");
        let writer = std::thread::spawn(move || topic.append(&split, numbers(&[1])));
        let mut found = Vec::new();
        while found.is_empty() {
            found = source.poll(10, 1000, Duration::from_secs(5)).unwrap();
        }
        assert_eq!(found[0].to, Position(1));
        writer.join().unwrap();
    }

    #[test]
    fn rows_of_a_process_that_ended_are_an_error_and_not_a_wait() {
        let (topic, split) = (MemoryTopic::default(), SplitId::from(0));
        topic.append(&split, numbers(&[1]));
        let mut source = topic.source();
        source.seek(&BTreeMap::from([(split.clone(), Position(1))])).unwrap();
        let Err(SourceError::Failed(reason)) = source.seek(&BTreeMap::from([(split, Position(2))])) else {
            panic!("only one row is there");
        };
        assert!(
            reason.starts_with("rows up to 2 of split 0 were read, and it holds 1"),
            "{reason}"
        );
    }

    #[test]
    fn rows_that_retention_took_are_an_error_and_not_a_gap() {
        let (topic, split) = (MemoryTopic::default(), SplitId::from(0));
        topic.append(&split, numbers(&[1, 2, 3]));
        topic.forget(&split, Position(2));
        let mut source = topic.source();
        assert_eq!(source.discover().unwrap()[0].start, Position(2));
        source.seek(&BTreeMap::from([(split, Position(1))])).unwrap();
        assert_eq!(
            source.poll(10, 1000, Duration::ZERO).unwrap_err(),
            SourceError::Failed("rows 1 to 1 of split 0 are gone".into())
        );
    }
}
