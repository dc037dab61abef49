//! From what a source hands over to rows of the needed columns.
//!
//! ```text
//! Chunk (bytes) ─▶ decoder ─▶ declared columns ─┐
//!       └─ position, timestamp, key ─▶ INCLUDE ─┴─▶ rows + positions + bad records
//! Chunk (rows) ─▶ columns by name, cast ────────▶ rows + positions
//! ```

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray,
        TimestampNanosecondArray,
    },
    compute::{cast, concat_batches, filter_record_batch, is_not_null},
    datatypes::{Schema, SchemaRef},
};

use crate::{
    format::{Decoded, Decoder},
    plan::{Registry, SourceDefinition},
    types::{BadRecord, Chunk, Error, Payload, Position, Records, Result, SplitId, limits},
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
        let format = registry
            .format(&source.format)
            .ok_or_else(|| Error::bug("a format was bound that is not registered"))?;
        let columns = needed
            .iter()
            .map(|column| match column.checked_sub(source.declared) {
                None => Origin::Decoded(declared.iter().position(|other| other == column).expect("listed above")),
                Some(include) => Origin::Field(source.includes[include].clone()),
            })
            .collect();
        Ok(Self {
            schema,
            decoder: (format.make)(decoded, source.declared, &source.format_options)?,
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
        let (rows, positions, bad) = match payload {
            Payload::Records(records) => self.decode(&records, &split)?,
            Payload::Rows(rows) => {
                let positions = (from.0..).take(rows.num_rows()).collect();
                (self.adopt(&rows)?, positions, Vec::new())
            }
        };
        let mut taken = SplitRows {
            split,
            from,
            to,
            rows,
            positions,
            bad,
        };
        taken.refuse_nulls()?;
        Ok(taken)
    }

    fn decode(&mut self, records: &Records, split: &SplitId) -> Result<(RecordBatch, Vec<u64>, Vec<BadRecord>)> {
        let Decoded {
            rows,
            record_of_row,
            bad,
        } = self.decoder.decode(records);
        let record_of = |row: usize| record_of_row.as_ref().map_or(row, |records| records[row] as usize);
        let count = rows.num_rows();
        let positions: Vec<u64> = (0..count).map(|row| records.positions()[record_of(row)]).collect();
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
                    "partition" => Arc::new(Int32Array::from_value(split.as_str().parse().unwrap_or(0), count)),
                    "offset" => Arc::new(Int64Array::from_iter_values(
                        positions.iter().map(|position| *position as i64),
                    )),
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
        // Nulls of columns that must not have any are found afterwards, so they are allowed for a moment.
        let fields: Vec<_> = self
            .schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
            .map_err(|e| Error::bug(format!("decoded columns do not fit: {e}")))?;
        Ok((self.with_schema(rows)?, positions, bad))
    }

    /// Columns by name, in the declared types.
    fn adopt(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns = self
            .schema
            .fields()
            .iter()
            .map(|field| {
                let column = rows
                    .column_by_name(field.name())
                    .ok_or_else(|| Error::user(format!("rows have no column `{}`", field.name())))?;
                cast(column, field.data_type()).map_err(|e| Error::user(format!("column `{}`: {e}", field.name())))
            })
            .collect::<Result<Vec<_>>>()?;
        let fields: Vec<_> = self
            .schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
            .map_err(|e| Error::bug(e.to_string()))?;
        self.with_schema(rows)
    }

    /// The declared schema where no column breaks it, else the lenient one, which `refuse_nulls` settles.
    fn with_schema(&self, rows: RecordBatch) -> Result<RecordBatch> {
        let is_kept = self
            .schema
            .fields()
            .iter()
            .zip(rows.columns())
            .all(|(field, column)| field.is_nullable() || column.null_count() == 0);
        if !is_kept {
            let schema = Schema::new_with_metadata(
                rows.schema().fields().clone(),
                [("strict".to_owned(), self.strict_names())].into(),
            );
            return rows
                .with_schema(Arc::new(schema))
                .map_err(|e| Error::bug(e.to_string()));
        }
        strict(&rows, &self.schema)
    }

    fn strict_names(&self) -> String {
        self.schema
            .fields()
            .iter()
            .filter(|field| !field.is_nullable())
            .map(|field| field.name().as_str())
            .collect::<Vec<_>>()
            .join("\u{1f}")
    }
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

    /// Rows with a null where none may be become bad records.
    fn refuse_nulls(&mut self) -> Result<()> {
        let Some(names) = self.rows.schema().metadata().get("strict").cloned() else {
            return Ok(());
        };
        let mut is_good = BooleanArray::from(vec![true; self.rows.num_rows()]);
        let mut reasons: Vec<Option<String>> = vec![None; self.rows.num_rows()];
        for name in names.split('\u{1f}') {
            let column = self.rows.column_by_name(name).expect("named after its own schema");
            for (row, reason) in reasons.iter_mut().enumerate().filter(|(row, _)| column.is_null(*row)) {
                debug_assert!(row < self.positions.len());
                reason.get_or_insert_with(|| format!("column {name}: missing"));
            }
            let present = is_not_null(column).map_err(|e| Error::bug(e.to_string()))?;
            is_good = arrow::compute::and(&is_good, &present).map_err(|e| Error::bug(e.to_string()))?;
        }
        self.refuse(&is_good, |row| reasons[row].clone().unwrap_or_default())?;
        let fields: Vec<_> = self
            .rows
            .schema()
            .fields()
            .iter()
            .map(|field| {
                field
                    .as_ref()
                    .clone()
                    .with_nullable(!names.split('\u{1f}').any(|name| name == field.name()))
            })
            .collect();
        self.rows = strict(&self.rows, &Arc::new(Schema::new(fields)))?;
        Ok(())
    }

    /// Keeps the rows where `is_good`; the others become bad records.
    pub fn refuse(&mut self, is_good: &BooleanArray, reason: impl Fn(usize) -> String) -> Result<()> {
        if is_good.true_count() == self.rows.num_rows() {
            return Ok(());
        }
        for row in (0..self.rows.num_rows()).filter(|row| !is_good.value(*row)) {
            let shown = shown(&self.rows, row);
            self.bad.push(BadRecord {
                position: Position(self.positions[row]),
                reason: reason(row),
                first_bytes: shown,
            });
        }
        self.bad.sort_by_key(|bad| bad.position);
        self.rows = filter_record_batch(&self.rows, is_good).map_err(|e| Error::bug(e.to_string()))?;
        let mut keep = is_good.values().iter();
        self.positions.retain(|_| keep.next().expect("one flag per row"));
        Ok(())
    }
}

/// A decoded row, for people: its record's bytes are gone by now.
fn shown(rows: &RecordBatch, row: usize) -> Vec<u8> {
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
