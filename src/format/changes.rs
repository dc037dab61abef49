//! Changes of a table as records: Arrow IPC of the rows that one statement retracts and adds.
//!
//! The last column is [`WEIGHT`]: −1 retracts its row, 1 adds it. Bytes of our own, so nothing in them is ever bad but by damage.

use std::{io::Cursor, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch},
    compute::concat_batches,
    datatypes::{DataType, Field, Schema, SchemaRef},
    ipc::{reader::StreamReader, writer::StreamWriter},
};

use crate::types::{BadRecord, Error, Position, Records, Result};

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
                    .map(|field| Ok(Arc::clone(batch.column(batch.schema().index_of(field.name())?))))
                    .collect::<std::result::Result<Vec<_>, arrow::error::ArrowError>>()?;
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
