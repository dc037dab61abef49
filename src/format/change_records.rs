//! What an epoch did to rows, as records, whatever the bytes of a row are.
//!
//! ```text
//! removed  a 1 │ b 5 ─┐ paired by the bytes     b ─▶ key b, no value                 first: what goes without a successor
//! added    a 2 │ c 1 ─┘ of their keys           a ─▶ key a, row a 2   c ─▶ key c, row c 1
//! ```
//! Where an envelope is given it makes the values: of the row before, the row after, or both.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};

use super::Encoder;
use crate::types::{Error, Records, RecordsBuilder, Result};

/// Puts into `out`, in place of what it holds, a value that tells the row before and the row after; at least one is there.
pub type Envelope = fn(before: Option<&[u8]>, after: Option<&[u8]>, out: &mut Vec<u8>);

pub struct ChangeRecords<E> {
    key: Vec<usize>,
    keys: Option<E>,
    rows: E,
    envelope: Option<Envelope>,
}

/// The columns that name a row; `None` where none do.
pub fn key_schema(schema: &Schema, key: &[usize]) -> Result<Option<SchemaRef>> {
    if key.is_empty() {
        return Ok(None);
    }
    let projected = schema
        .project(key)
        .map_err(|e| Error::bug(format!("a key is not in its rows: {e}")))?;
    Ok(Some(Arc::new(projected)))
}

impl<E: Encoder> ChangeRecords<E> {
    /// `keys` writes the columns `key`, whose schema is [`key_schema`]; without it records have no key. Without an envelope a value
    /// is the row itself, and a row that goes is a record without a value.
    pub fn new(key: &[usize], keys: Option<E>, rows: E, envelope: Option<Envelope>) -> Self {
        Self {
            key: key.to_vec(),
            keys,
            rows,
            envelope,
        }
    }

    fn encoded_keys(&mut self, rows: &RecordBatch) -> Result<Encoded> {
        match &mut self.keys {
            None => Ok(Encoded::default()),
            Some(keys) => {
                let rows = rows.project(&self.key).map_err(Error::of_arrow)?;
                Ok(Encoded::of(keys, &rows))
            }
        }
    }

    /// # Errors
    /// Rows go, and neither a key nor an envelope could say which.
    pub fn records(&mut self, added: &RecordBatch, removed: &RecordBatch) -> Result<Records> {
        let (added_keys, removed_keys) = (self.encoded_keys(added)?, self.encoded_keys(removed)?);
        let added_rows = Encoded::of(&mut self.rows, added);
        let removed_rows = match self.envelope {
            // A record without a value says it all.
            None => Encoded::default(),
            Some(_) => Encoded::of(&mut self.rows, removed),
        };
        if self.keys.is_none() && self.envelope.is_none() && 0 < removed.num_rows() {
            return Err(Error::bug("a sink without a key got a retraction"));
        }
        // By key: the row that a new one replaces.
        let mut replaced: HashMap<&[u8], usize> = match self.keys {
            Some(_) => (0..removed.num_rows())
                .map(|row| (removed_keys.get(row), row))
                .collect(),
            None => HashMap::new(),
        };
        let mut out = RecordsBuilder::default();
        let mut push = |key: Option<&[u8]>, value: Option<&[u8]>| {
            out.push(out.len() as u64, None, key, value);
        };
        let mut value = Vec::new();
        let has_keys = self.keys.is_some();
        // What goes without a successor leaves first.
        let stays: Vec<bool> = {
            let mut stays = vec![false; removed.num_rows()];
            if has_keys {
                for row in 0..added.num_rows() {
                    if let Some(old) = replaced.get(added_keys.get(row)) {
                        stays[*old] = true;
                    }
                }
            }
            stays
        };
        for row in (0..removed.num_rows()).filter(|row| !stays[*row]) {
            let key = has_keys.then(|| removed_keys.get(row));
            match self.envelope {
                None => push(key, None),
                Some(envelope) => {
                    envelope(Some(removed_rows.get(row)), None, &mut value);
                    push(key, Some(&value));
                }
            }
        }
        for row in 0..added.num_rows() {
            let key = has_keys.then(|| added_keys.get(row));
            match self.envelope {
                None => push(key, Some(added_rows.get(row))),
                Some(envelope) => {
                    let before = key
                        .and_then(|key| replaced.remove(key))
                        .map(|row| removed_rows.get(row));
                    envelope(before, Some(added_rows.get(row)), &mut value);
                    push(key, Some(&value));
                }
            }
        }
        Ok(out.finish())
    }
}

/// Encoded rows in one buffer.
#[derive(Default)]
struct Encoded {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Encoded {
    fn of(encoder: &mut impl Encoder, rows: &RecordBatch) -> Self {
        let mut encoded = Self::default();
        encoder.encode(rows, &mut encoded.bytes, &mut encoded.ends);
        encoded
    }

    fn get(&self, row: usize) -> &[u8] {
        let from = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[from..self.ends[row]]
    }
}
