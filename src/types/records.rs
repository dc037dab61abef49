//! What a source hands over: undecoded records in one buffer, or rows that need no decoding.

use std::ops::Range;

use arrow::array::RecordBatch;

use super::{Position, SplitId};

/// Consecutive rows of one split, in the order of their positions.
#[derive(Debug)]
pub struct Chunk {
    pub split: SplitId,
    /// Positions in `[from, to)` are covered, though some of them may hold no record.
    pub from: Position,
    pub to: Position,
    pub payload: Payload,
}

#[derive(Debug)]
pub enum Payload {
    /// Bytes for a decoder.
    Records(Records),
    /// Rows with the columns of the source, matched by name. Row `i` stands at `from + i`.
    Rows(RecordBatch),
}

impl Chunk {
    /// Cuts the chunk in two at a position inside it: what is before stays, what is from there on is returned.
    pub fn split_off(&mut self, position: Position) -> Self {
        assert!(
            self.from <= position && position <= self.to,
            "a chunk is cut inside itself"
        );
        let payload = match &mut self.payload {
            Payload::Records(records) => Payload::Records(records.split_off(position)),
            Payload::Rows(rows) => {
                let before = usize::try_from(position.0 - self.from.0).expect("rows fit into memory");
                let after = rows.slice(before, rows.num_rows() - before);
                *rows = rows.slice(0, before);
                Payload::Rows(after)
            }
        };
        let after = Self {
            split: self.split.clone(),
            from: position,
            to: self.to,
            payload,
        };
        self.to = position;
        after
    }
}

impl Payload {
    pub fn len(&self) -> usize {
        match self {
            Self::Records(records) => records.len(),
            Self::Rows(rows) => rows.num_rows(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it takes in memory, about: buffers that are shared with other parts are counted here too.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Records(records) => records.bytes() + records.len() * RECORD_BYTES,
            Self::Rows(rows) => rows.get_array_memory_size(),
        }
    }
}

/// What a record takes beside its key and value.
const RECORD_BYTES: usize = size_of::<u64>() + size_of::<Option<i64>>() + 2 * size_of::<usize>() + 2;

/// Records of one split: all payloads in one buffer, all keys in another.
#[derive(Debug, Default)]
pub struct Records {
    positions: Vec<u64>,
    /// Milliseconds since 1970; `None` where the record carries no time.
    timestamps_ms: Vec<Option<i64>>,
    values: Vec<u8>,
    value_ends: Vec<usize>,
    /// A record without a value (a tombstone) is not the same as one with an empty value.
    value_is_null: Vec<bool>,
    keys: Vec<u8>,
    key_ends: Vec<usize>,
    key_is_null: Vec<bool>,
}

impl Records {
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.values.len() + self.keys.len()
    }

    pub fn positions(&self) -> &[u64] {
        &self.positions
    }

    pub fn timestamps_ms(&self) -> &[Option<i64>] {
        &self.timestamps_ms
    }

    /// The value of record `index`; `None` is a tombstone.
    #[inline]
    pub fn value(&self, index: usize) -> Option<&[u8]> {
        (!self.value_is_null[index]).then(|| &self.values[range(&self.value_ends, index)])
    }

    #[inline]
    pub fn key(&self, index: usize) -> Option<&[u8]> {
        (!self.key_is_null[index]).then(|| &self.keys[range(&self.key_ends, index)])
    }
}

impl Records {
    fn split_off(&mut self, position: Position) -> Self {
        let first = self.positions.partition_point(|other| *other < position.0);
        let mut after = RecordsBuilder::default();
        let mut before = RecordsBuilder::default();
        for index in 0..self.len() {
            let side = if index < first { &mut before } else { &mut after };
            side.push(
                self.positions[index],
                self.timestamps_ms[index],
                self.key(index),
                self.value(index),
            );
        }
        *self = before.finish();
        after.finish()
    }
}

#[inline]
fn range(ends: &[usize], index: usize) -> Range<usize> {
    (if index == 0 { 0 } else { ends[index - 1] })..ends[index]
}

/// Fills [`Records`] one by one, without an allocation per record.
#[derive(Debug, Default)]
pub struct RecordsBuilder(Records);

impl RecordsBuilder {
    /// # Panics
    /// Where `position` is not above the one before.
    #[inline]
    pub fn push(&mut self, position: u64, timestamp_ms: Option<i64>, key: Option<&[u8]>, value: Option<&[u8]>) {
        let records = &mut self.0;
        assert!(
            records.positions.last().is_none_or(|last| *last < position),
            "positions of a split go up"
        );
        records.positions.push(position);
        records.timestamps_ms.push(timestamp_ms);
        records.values.extend_from_slice(value.unwrap_or_default());
        records.value_ends.push(records.values.len());
        records.value_is_null.push(value.is_none());
        records.keys.extend_from_slice(key.unwrap_or_default());
        records.key_ends.push(records.keys.len());
        records.key_is_null.push(key.is_none());
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// What was filled in by now.
    pub fn records(&self) -> &Records {
        &self.0
    }

    pub fn finish(self) -> Records {
        self.0
    }
}

/// How one part of a sink's records is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSchema {
    /// `key` or `value`.
    pub part: &'static str,
    /// As the format writes schemas: of Avro it is JSON.
    pub text: String,
}

/// A record that could not become a row: kept in `<source>$bad`, never dropped unseen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    pub position: Position,
    /// A sentence without a full stop, e.g. `column number_of_trades: 1.5 is not an integer`.
    pub reason: String,
    /// The beginning of the record, at most [`super::limits::BAD_RECORD_BYTES_KEPT`]; of its decoded values, as `name=value …`, where
    /// there were no bytes (an inserted row) or they were gone when it was found bad (an event time too far ahead).
    pub first_bytes: Vec<u8>,
}
