//! From what a source hands over to rows of the needed columns.
//!
//! ```text
//! Chunk (bytes) ─▶ decoder ─▶ declared columns ─┐
//!       └─ position, timestamp, key ─▶ INCLUDE ─┴─▶ rows + positions + bad records
//! Chunk (rows) ─▶ columns by name, cast ────────▶ rows + positions; INCLUDE that they leave out: their split and position
//! ```

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray,
        TimestampNanosecondArray, new_null_array,
    },
    compute::{cast, concat_batches, filter_record_batch},
    datatypes::{Schema, SchemaRef},
};

use crate::{
    format::{Decoded, Decoder, changes::ChangesDecoder},
    plan::{Registry, SourceDefinition},
    types::{Anchor, BadRecord, Chunk, Error, Payload, Position, Records, Result, SplitId, limits},
};

/// Decoded rows of consecutive positions of one split.
pub struct SplitRows {
    pub split: SplitId,
    pub from: Position,
    pub to: Position,
    /// The needed columns of the source.
    pub rows: RecordBatch,
    /// The position of each row.
    pub positions: Vec<u64>,
    pub bad: Vec<BadRecord>,
    /// Of the last record; `None` where the source gives none, or there was none at these positions.
    pub anchor: Option<Anchor>,
}

pub struct Intake {
    /// The needed columns, in the order of the source's schema.
    schema: SchemaRef,
    decoder: Box<dyn Decoder>,
    columns: Vec<Origin>,
}

enum Origin {
    /// Column of the decoder.
    Decoded(usize),
    /// Field of the connector.
    Field(String),
}

impl Intake {
    /// `needed` are columns of the source's schema, ascending.
    pub fn new(source: &SourceDefinition, needed: &[usize], registry: &Registry) -> Result<Self> {
        let schema = Arc::new(source.schema.project(needed).map_err(|e| Error::bug(e.to_string()))?);
        let declared: Vec<usize> = needed
            .iter()
            .copied()
            .filter(|column| *column < source.declared)
            .collect();
        let decoded = Arc::new(
            source
                .schema
                .project(&declared)
                .map_err(|e| Error::bug(e.to_string()))?,
        );
        let decoder: Box<dyn Decoder> = match source.is_table() {
            true => Box::new(ChangesDecoder::new(decoded)),
            false => {
                let format = registry
                    .format(&source.format)
                    .ok_or_else(|| Error::bug("a format was bound that is not registered"))?;
                (format.make)(decoded, source.declared, &source.format_options)?
            }
        };
        let columns = needed
            .iter()
            .map(|column| match column.checked_sub(source.declared) {
                None => Origin::Decoded(declared.iter().position(|other| other == column).expect("listed above")),
                Some(include) => Origin::Field(source.includes[include].clone()),
            })
            .collect();
        Ok(Self {
            schema,
            decoder,
            columns,
        })
    }

    pub fn take(&mut self, chunk: Chunk) -> Result<SplitRows> {
        let Chunk {
            split,
            from,
            to,
            payload,
        } = chunk;
        match payload {
            Payload::Records(records) => {
                let Decoded {
                    rows,
                    record_of_row,
                    bad,
                } = self.decoder.decode(&records);
                let record_of = |row: usize| record_of_row.as_ref().map_or(row, |records| records[row] as usize);
                let mut taken = SplitRows {
                    from,
                    to,
                    anchor: Anchor::of_last(&records),
                    positions: (0..rows.num_rows())
                        .map(|row| records.positions()[record_of(row)])
                        .collect(),
                    rows: self.complete(&rows, &records, record_of, &split)?,
                    split,
                    bad,
                };
                let first_bytes = |_: &RecordBatch, row| {
                    let value = records.value(record_of(row)).unwrap_or_default();
                    value[..value.len().min(limits::BAD_RECORD_BYTES_KEPT)].to_vec()
                };
                taken.refuse_nulls(&self.schema, first_bytes)?;
                Ok(taken)
            }
            Payload::Rows(rows) => {
                let mut taken = SplitRows {
                    from,
                    to,
                    positions: (from.0..).take(rows.num_rows()).collect(),
                    rows: self.adopt(&rows, &split, from)?,
                    split,
                    bad: Vec::new(),
                    anchor: None,
                };
                taken.refuse_nulls(&self.schema, values)?;
                Ok(taken)
            }
        }
    }

    /// Decoded columns, and the fields of their records.
    fn complete(
        &self,
        rows: &RecordBatch,
        records: &Records,
        record_of: impl Fn(usize) -> usize,
        split: &SplitId,
    ) -> Result<RecordBatch> {
        let count = rows.num_rows();
        let position = |row| records.positions()[record_of(row)];
        let columns = self
            .columns
            .iter()
            .map(|origin| match origin {
                Origin::Decoded(column) => Ok(Arc::clone(rows.column(*column))),
                Origin::Field(field) => Ok(match field.as_str() {
                    "timestamp" => {
                        let time = |row| {
                            records.timestamps_ms()[record_of(row)].and_then(|millis| millis.checked_mul(1_000_000))
                        };
                        Arc::new((0..count).map(time).collect::<TimestampNanosecondArray>()) as ArrayRef
                    }
                    "partition" => partition_of(split, count),
                    "offset" => Arc::new(Int64Array::from_iter_values((0..count).map(|row| position(row) as i64))),
                    "key" => {
                        let key = |row| {
                            records
                                .key(record_of(row))
                                .and_then(|key| std::str::from_utf8(key).ok())
                        };
                        Arc::new((0..count).map(key).collect::<StringViewArray>())
                    }
                    other => return Err(Error::bug(format!("field {other} was bound, but nothing gives it"))),
                }),
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        self.lenient(columns, count)
    }

    /// Columns by name, in the declared types.
    fn adopt(&self, rows: &RecordBatch, split: &SplitId, from: Position) -> Result<RecordBatch> {
        let count = rows.num_rows();
        let columns =
            self.schema
                .fields()
                .iter()
                .zip(&self.columns)
                .map(|(field, origin)| match (rows.column_by_name(field.name()), origin) {
                    (Some(column), _) => cast(column, field.data_type())
                        .map_err(|e| Error::user(format!("column `{}`: {e}", field.name()))),
                    (None, Origin::Field(name)) => Ok(match name.as_str() {
                        "partition" => partition_of(split, count),
                        "offset" => Arc::new(Int64Array::from_iter_values((from.0..).take(count).map(|at| at as i64))),
                        _ => new_null_array(field.data_type(), count),
                    }),
                    (None, Origin::Decoded(_)) => Err(Error::user(format!("rows have no column `{}`", field.name()))),
                })
                .collect::<Result<Vec<_>>>()?;
        self.lenient(columns, rows.num_rows())
    }

    /// Nulls are allowed everywhere for a moment: `refuse_nulls` settles it.
    fn lenient(&self, columns: Vec<ArrayRef>, count: usize) -> Result<RecordBatch> {
        let fields: Vec<_> = self
            .schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
            .map_err(|e| Error::bug(format!("columns do not fit their source: {e}")))
    }
}

fn partition_of(split: &SplitId, count: usize) -> ArrayRef {
    Arc::new(Int32Array::from_value(split.as_str().parse().unwrap_or(0), count))
}

fn strict(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), rows.columns().to_vec(), &options)
        .map_err(|e| Error::bug(e.to_string()))
}

impl SplitRows {
    /// Consecutive parts of a split as one.
    pub fn join(mut parts: Vec<Self>) -> Result<Self> {
        if parts.len() == 1 {
            return Ok(parts.pop().expect("one"));
        }
        assert!(
            parts.windows(2).all(|pair| pair[0].to == pair[1].from),
            "parts of a split follow each other"
        );
        let schema = parts[0].rows.schema();
        Ok(Self {
            split: parts[0].split.clone(),
            from: parts[0].from,
            to: parts[parts.len() - 1].to,
            anchor: parts.iter().rev().find_map(|part| part.anchor),
            rows: concat_batches(&schema, parts.iter().map(|part| &part.rows))
                .map_err(|e| Error::bug(e.to_string()))?,
            positions: parts.iter().flat_map(|part| part.positions.iter().copied()).collect(),
            bad: parts.into_iter().flat_map(|part| part.bad).collect(),
        })
    }

    /// What it takes in memory, about: buffers that are shared with other parts are counted here too.
    pub fn memory_bytes(&self) -> usize {
        let bad = |bad: &BadRecord| size_of::<BadRecord>() + bad.reason.len() + bad.first_bytes.len();
        self.rows.get_array_memory_size()
            + size_of_val(self.positions.as_slice())
            + self.bad.iter().map(bad).sum::<usize>()
    }

    /// Rows with a null where `schema` allows none become bad records.
    fn refuse_nulls(&mut self, schema: &SchemaRef, first_bytes: impl Fn(&RecordBatch, usize) -> Vec<u8>) -> Result<()> {
        let broken: Vec<(String, ArrayRef)> = schema
            .fields()
            .iter()
            .zip(self.rows.columns())
            .filter(|(field, column)| !field.is_nullable() && 0 < column.null_count())
            .map(|(field, column)| (field.name().clone(), Arc::clone(column)))
            .collect();
        if !broken.is_empty() {
            let missing = |row| broken.iter().find(|(_, column)| column.is_null(row));
            let is_good: BooleanArray = (0..self.rows.num_rows())
                .map(|row| Some(missing(row).is_none()))
                .collect();
            let reason = |row| missing(row).map_or_else(String::new, |(name, _)| format!("column {name}: missing"));
            self.refuse(&is_good, reason, first_bytes)?;
        }
        self.rows = strict(&self.rows, schema)?;
        Ok(())
    }

    /// Keeps the rows where `is_good`; the others become bad records, shown by the beginning of their record, or by [`values`]
    /// where that is gone.
    pub fn refuse(
        &mut self,
        is_good: &BooleanArray,
        reason: impl Fn(usize) -> String,
        first_bytes: impl Fn(&RecordBatch, usize) -> Vec<u8>,
    ) -> Result<()> {
        if is_good.true_count() == self.rows.num_rows() {
            return Ok(());
        }
        for row in (0..self.rows.num_rows()).filter(|row| !is_good.value(*row)) {
            self.bad.push(BadRecord {
                position: Position(self.positions[row]),
                reason: reason(row),
                first_bytes: first_bytes(&self.rows, row),
            });
        }
        self.bad.sort_by_key(|bad| bad.position);
        self.rows = filter_record_batch(&self.rows, is_good).map_err(|e| Error::bug(e.to_string()))?;
        let mut keep = is_good.values().iter();
        self.positions.retain(|_| keep.next().expect("one flag per row"));
        Ok(())
    }
}

/// The beginning of a row's values, for people: what stands in place of a record's bytes where there are none any more.
pub fn values(rows: &RecordBatch, row: usize) -> Vec<u8> {
    let options = arrow::util::display::FormatOptions::default().with_null("null");
    let values = rows
        .schema()
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, column)| {
            let value = arrow::util::display::ArrayFormatter::try_new(column, &options)
                .map(|formatter| formatter.value(row).to_string());
            format!("{}={}", field.name(), value.unwrap_or_default())
        })
        .collect::<Vec<_>>();
    let mut text = values.join(" ").into_bytes();
    text.truncate(limits::BAD_RECORD_BYTES_KEPT);
    text
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, TimeUnit};

    use super::*;
    use crate::{
        format::json::JsonDecoder,
        types::{Options, RecordsBuilder},
    };

    #[test]
    fn a_record_without_its_time_keeps_its_first_bytes_and_its_place() {
        let number = Field::new("n", DataType::Int64, true);
        let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let decoded = Arc::new(Schema::new(vec![number.clone()]));
        let mut intake = Intake {
            schema: Arc::new(Schema::new(vec![number, Field::new("at", time, false)])),
            decoder: Box::new(JsonDecoder::new(decoded, &Options::default()).unwrap()),
            columns: vec![Origin::Decoded(0), Origin::Field("timestamp".into())],
        };
        let long = format!("{{\"n\":5,\"text\":\"{}\"}}", "x".repeat(1_000));
        let mut records = RecordsBuilder::default();
        records.push(4, Some(1_000), None, Some(b"{\"n\":1}"));
        records.push(5, Some(1_000), None, Some(b"no json"));
        records.push(7, None, None, Some(b"{ \"n\": 3 }"));
        records.push(8, Some(2_000), None, Some(b"{\"n\":4}"));
        records.push(9, None, None, Some(long.as_bytes()));
        let taken = intake
            .take(Chunk {
                split: SplitId::from(0),
                from: Position(4),
                to: Position(10),
                payload: Payload::Records(records.finish()),
            })
            .unwrap();
        assert_eq!(taken.positions, [4, 8]);
        assert_eq!(taken.rows.num_rows(), 2);
        assert_eq!(taken.rows.schema(), intake.schema, "no null is left where none may be");
        let bad: Vec<(u64, &[u8])> = taken
            .bad
            .iter()
            .map(|bad| (bad.position.0, bad.first_bytes.as_slice()))
            .collect();
        let kept = &long.as_bytes()[..limits::BAD_RECORD_BYTES_KEPT];
        assert_eq!(bad, [(5, b"no json".as_slice()), (7, b"{ \"n\": 3 }"), (9, kept)]);
        assert_eq!(taken.bad[1].reason, "column at: missing");
    }
}
