//! Bytes to rows: decoders that turn records into Arrow columns, and encoders that turn rows into records.
//!
//! ```text
//! Records ──▶ Decoder ──▶ rows (only the needed columns) + bad records (position, reason, first bytes)
//! ```
//! One bad record costs one record. No network, no clock.

pub mod avro;
mod change_records;
pub mod changes;
pub mod json;

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use crate::types::{BadRecord, RecordSchema, Records, Result};

/// Rows of a run of records.
#[derive(Debug)]
pub struct Decoded {
    /// The columns of the decoder's schema; one row for each good record, in their order.
    pub rows: RecordBatch,
    /// For each row the index of its record; `None` when every record became a row.
    pub record_of_row: Option<Vec<u32>>,
    /// In the order of their positions.
    pub bad: Vec<BadRecord>,
}

/// Records to rows. The result depends on the records alone, not on what was decoded before.
pub trait Decoder: Send {
    /// Only the columns that are needed; their types are the declared ones.
    fn schema(&self) -> SchemaRef;

    /// Never fails as a whole: what cannot be read is in [`Decoded::bad`].
    fn decode(&mut self, records: &Records) -> Decoded;
}

/// What an epoch did to rows, to records: each names its row by its key, where rows have one.
pub trait ChangeEncoder: Send {
    /// With a key, an added row takes the place of a removed one of the same key, and a record says so.
    fn records(&mut self, added: &RecordBatch, removed: &RecordBatch) -> Result<Records>;

    /// What readers need to read the records; empty where a record says itself what it holds.
    fn schemas(&self) -> Vec<RecordSchema> {
        Vec::new()
    }
}

/// Rows to records, one each. The bytes of a row depend on that row alone.
pub trait Encoder: Send {
    /// Appends each row's bytes to `out` and its end to `ends`.
    fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<u8>, ends: &mut Vec<usize>);
}
