//! Changes of a table as records: Arrow IPC of the rows that one statement retracts and adds.
//!
//! The last column is [`WEIGHT`]: −1 retracts its row, 1 adds it. Bytes of our own, so nothing in them is ever bad but by damage.

use std::{io::Cursor, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, new_null_array},
    compute::concat_batches,
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
    ipc::{reader::StreamReader, writer::StreamWriter},
};

use crate::types::{BadRecord, Error, Position, Records, Result, type_name};

use super::{Decoded, Decoder};

/// The column that says whether a row is added or retracted.
pub const WEIGHT: &str = "$weight";

/// One record for all rows, `retracted` first; both have the columns of the table.
pub fn encode(retracted: &RecordBatch, added: &RecordBatch) -> Result<Vec<u8>> {
    let bug = |e: arrow::error::ArrowError| Error::bug(format!("changes cannot be encoded: {e}"));
    let rows = concat_batches(&retracted.schema(), [retracted, added]).map_err(bug)?;
    let weights: Int64Array = std::iter::repeat_n(-1, retracted.num_rows())
        .chain(std::iter::repeat_n(1, added.num_rows()))
        .collect();
    let fields = rows
        .schema()
        .fields()
        .iter()
        .cloned()
        .chain([Arc::new(weight())])
        .collect::<Vec<_>>();
    let columns = rows
        .columns()
        .iter()
        .cloned()
        .chain([Arc::new(weights) as ArrayRef])
        .collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(bug)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).map_err(bug)?;
    writer.write(&batch).map_err(bug)?;
    writer.finish().map_err(bug)?;
    writer.into_inner().map_err(bug)
}

pub fn weight() -> Field {
    Field::new(WEIGHT, DataType::Int64, false)
}

/// Whether a record holds the rows of a table that has this schema now: columns that it lacks are null, and others are left out.
///
/// # Errors
/// Why not, behind "the record".
pub fn fits(record: &[u8], schema: &SchemaRef, is_append_only: bool) -> std::result::Result<(), String> {
    let of_arrow = |e: arrow::error::ArrowError| format!("is no record of changes: {e}");
    let reader = StreamReader::try_new(Cursor::new(record), None).map_err(of_arrow)?;
    let written = reader.schema();
    for field in schema.fields() {
        let (name, now) = (field.name(), type_name(field.data_type()));
        match written.field_with_name(name) {
            Ok(column) if column.data_type() != field.data_type() => {
                let before = type_name(column.data_type());
                return Err(format!("has column `{name}` as {before}, and it is {now} now"));
            }
            Ok(column) if column.is_nullable() && !field.is_nullable() => {
                return Err(format!(
                    "has a column `{name}` that may be null, and it is NOT NULL now"
                ));
            }
            Err(_) if !field.is_nullable() => {
                return Err(format!("has no column `{name}`, which is NOT NULL now"));
            }
            _ => {}
        }
    }
    if written.field_with_name(WEIGHT).is_err() {
        return Err("does not say whether its rows come or go".to_owned());
    }
    if is_append_only {
        for batch in reader {
            let batch = batch.map_err(of_arrow)?;
            let weights = batch
                .column_by_name(WEIGHT)
                .and_then(|weights| weights.as_primitive_opt::<Int64Type>());
            if weights.is_none_or(|weights| weights.values().iter().any(|weight| *weight < 0)) {
                return Err("takes rows away, and the table is APPEND ONLY now".to_owned());
            }
        }
    }
    Ok(())
}

pub struct ChangesDecoder {
    schema: SchemaRef,
}

impl ChangesDecoder {
    /// `schema`: the needed columns, by name.
    pub fn new(schema: SchemaRef) -> Self {
        // Rows are checked when they are written; here nulls are the reader's business.
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        Self {
            schema: Arc::new(Schema::new(fields)),
        }
    }

    fn rows(&self, record: &[u8]) -> std::result::Result<Vec<RecordBatch>, arrow::error::ArrowError> {
        StreamReader::try_new(Cursor::new(record), None)?
            .map(|batch| {
                let batch = batch?;
                let columns = self
                    .schema
                    .fields()
                    .iter()
                    .map(|field| match batch.column_by_name(field.name()) {
                        Some(column) => Arc::clone(column),
                        None => new_null_array(field.data_type(), batch.num_rows()),
                    })
                    .collect();
                RecordBatch::try_new(Arc::clone(&self.schema), columns)
            })
            .collect()
    }
}

impl Decoder for ChangesDecoder {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn decode(&mut self, records: &Records) -> Decoded {
        let (mut batches, mut record_of_row, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..records.len() {
            let record = records.value(index).unwrap_or_default();
            match self.rows(record) {
                Ok(rows) => {
                    let count = rows.iter().map(RecordBatch::num_rows).sum();
                    record_of_row.extend(std::iter::repeat_n(index as u32, count));
                    batches.extend(rows);
                }
                Err(error) => bad.push(BadRecord {
                    position: Position(records.positions()[index]),
                    reason: error.to_string(),
                    first_bytes: Vec::new(),
                }),
            }
        }
        Decoded {
            rows: concat_batches(&self.schema, &batches).expect("all have this schema"),
            record_of_row: Some(record_of_row),
            bad,
        }
    }
}
