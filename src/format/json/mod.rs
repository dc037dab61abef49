//! JSON: one object per record to one row and back, strictly typed.
//!
//! ```text
//! record ──▶ laid out as the last one? ──▶ predict ──┐
//!              └─ no, or any surprise ──▶ general ───┴─▶ columns ──▶ rows
//!                                            └─ refused ──▶ bad record (position, reason, first bytes)
//! rows ──▶ encode ──▶ {"symbol":"ADA-USDT","open":1.5}          what an epoch did ──▶ changes ──▶ records with keys
//! ```
//! A value never changes on its way: `1.5` is not an integer, `"1"` not a number, `1e400` nothing at all. What is not
//! needed is checked as JSON and skipped. The result depends on the records alone, not on what was read before.
//!
//! | column | value |
//! | --- | --- |
//! | Boolean | `true`, `false` |
//! | Int8 … Int64, UInt8 … UInt64 | a number without point and exponent, in range |
//! | Float32, Float64 | a number, rounded once to the nearest; in range |
//! | Decimal128 | a number that fits exactly |
//! | Utf8, Utf8View | text |
//! | Timestamp without zone | RFC 3339 text, or by `timestamp_format` a whole number since 1970; in the range of nanoseconds |
//! | Date32 | `"2024-01-02"` |
//!
//! `null` and an absent key are null where the column may be. Names match exactly. No key stands twice.

mod changes;
mod columns;
mod encode;
mod general;
mod predict;
mod scan;
mod time;

#[cfg(test)]
mod tests;

use arrow::datatypes::SchemaRef;

pub use changes::{ChangeStyle, JsonChanges};
pub use encode::JsonEncoder;

use self::{
    columns::{Columns, Refusal, Shown, TimestampFormat, is_supported},
    general::General,
    predict::Layout,
};
use super::{Decoded, Decoder};
use crate::types::{
    BadRecord, Error, OptionKind, OptionSpec, Options, Position, Records, Result,
    limits::{BAD_RECORD_BYTES_KEPT, RECORD_BYTES_MAX},
};

/// The options of a source with `format = 'json'`.
pub const OPTIONS: &[OptionSpec] = &[OptionSpec::text(
    "timestamp_format",
    "how times stand in the records: RFC 3339 text, or whole numbers since 1970",
)
.kind(OptionKind::Choice(&[
    "rfc3339", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns",
]))
.default("rfc3339")];

/// Decodes JSON records into the columns of a schema.
pub struct JsonDecoder {
    schema: SchemaRef,
    timestamp_format: TimestampFormat,
    accepts_bare: bool,
    general: General,
    layout: Layout,
}

impl JsonDecoder {
    /// `schema` holds the needed columns only. If it is one column, records may also be bare scalars (`42` in
    /// place of `{"n":42}`); see [`Self::accept_bare`].
    ///
    /// # Errors
    /// A column's type is none that JSON records can hold.
    pub fn new(schema: SchemaRef, options: &Options) -> Result<Self> {
        if let Some(field) = schema.fields().iter().find(|field| !is_supported(field.data_type())) {
            return Err(Error::user(format!(
                "column {}: {} cannot be read from JSON",
                field.name(),
                field.data_type()
            )));
        }
        let timestamp_format = match options.get("timestamp_format").unwrap_or("rfc3339") {
            "rfc3339" => TimestampFormat::Rfc3339,
            "epoch_s" => TimestampFormat::Epoch { unit_ns: 1_000_000_000 },
            "epoch_ms" => TimestampFormat::Epoch { unit_ns: 1_000_000 },
            "epoch_us" => TimestampFormat::Epoch { unit_ns: 1_000 },
            "epoch_ns" => TimestampFormat::Epoch { unit_ns: 1 },
            other => return Err(Error::user(format!("`timestamp_format` does not know '{other}'"))),
        };
        let accepts_bare = schema.fields().len() == 1;
        Ok(Self {
            general: General::new(&schema),
            layout: Layout::default(),
            schema,
            timestamp_format,
            accepts_bare,
        })
    }

    /// Whether records may be bare scalars. Say so where the needed columns are not all that were declared: the
    /// source has one column, or it has not, whatever a query needs of it. Takes at most one column.
    pub fn accept_bare(mut self, accepts_bare: bool) -> Self {
        self.accepts_bare = accepts_bare && self.schema.fields().len() <= 1;
        self
    }

    /// Reads one record into an uncommitted row, or says why it is none.
    fn read<'a>(&mut self, record: &'a str, columns: &mut Columns) -> Result<(), Refusal<'a>> {
        if self.layout.read(record, columns).is_ok() {
            return Ok(());
        }
        columns.roll_back();
        if self.accepts_bare && is_bare_scalar(record) {
            return General::read_bare(record, columns);
        }
        self.general.read(record, columns, &mut self.layout)
    }

    fn reason(&self, refusal: &Refusal<'_>) -> String {
        match refusal {
            Refusal::Flaw(flaw) => flaw.to_string(),
            Refusal::Misfit { column, misfit } => format!("column {}: {misfit}", self.schema.field(*column).name()),
            Refusal::Duplicate(key) => format!("key {} stands twice", Shown(key)),
            Refusal::Whole(reason) => (*reason).to_owned(),
        }
    }
}

fn is_bare_scalar(record: &str) -> bool {
    let first = record
        .bytes()
        .find(|byte| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t'));
    matches!(first, Some(b'"' | b't' | b'f' | b'-' | b'0'..=b'9'))
}

impl Decoder for JsonDecoder {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn decode(&mut self, records: &Records) -> Decoded {
        let mut columns = Columns::new(self.schema.clone(), self.timestamp_format, records.len());
        let mut bad = Vec::new();
        // Written only once a record was bad.
        let mut record_of_row: Option<Vec<u32>> = None;

        for index in 0..records.len() {
            let value = records.value(index);
            let outcome = match value {
                None => Err("no value (tombstone)".to_owned()),
                Some(value) if RECORD_BYTES_MAX < value.len() => Err(format!("larger than {RECORD_BYTES_MAX} bytes")),
                Some(value) => match std::str::from_utf8(value) {
                    Err(error) => Err(format!("not UTF-8 at byte {}", error.valid_up_to())),
                    Ok(record) => match self.read(record, &mut columns) {
                        Ok(()) => {
                            columns.commit(record);
                            Ok(())
                        }
                        Err(refusal) => {
                            let reason = self.reason(&refusal);
                            columns.roll_back();
                            Err(reason)
                        }
                    },
                },
            };
            match outcome {
                Ok(()) => {
                    if let Some(record_of_row) = &mut record_of_row {
                        record_of_row.push(index as u32);
                    }
                }
                Err(reason) => {
                    record_of_row.get_or_insert_with(|| (0..index as u32).collect());
                    let value = value.unwrap_or_default();
                    bad.push(BadRecord {
                        position: Position(records.positions()[index]),
                        reason,
                        first_bytes: value[..value.len().min(BAD_RECORD_BYTES_KEPT)].to_vec(),
                    });
                }
            }
        }
        Decoded {
            rows: columns.finish(),
            record_of_row,
            bad,
        }
    }
}
