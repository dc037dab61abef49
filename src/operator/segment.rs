//! A stateless stretch: filters, projections and windows, evaluated on whole batches.
//!
//! ```text
//! delta ─▶ step ─▶ step ─▶ … ─▶ delta      row watermarks and weights go along with their rows
//! ```
//! A weight of −1 goes through like any other: the steps look at one row at a time. Rows whose values cannot be computed are set aside.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, TimestampNanosecondArray,
        UInt32Array, UInt64Array, new_null_array,
    },
    compute::{
        cast, concat_batches, filter, filter_record_batch, is_not_null, prep_null_mask_filter, take, take_record_batch,
    },
    datatypes::{SchemaRef, TimestampNanosecondType},
};
use datafusion::physical_expr::PhysicalExpr;

use crate::types::{Delta, Error, Result, Watermark, Windows};

use super::{EpochEnd, FailedRows, Flow, Operator, Output, aggregation::failed, failure::compute};

#[derive(Clone)]
pub enum Step {
    /// Keeps rows for which it is true; not those for which it is null.
    Filter(Arc<dyn PhysicalExpr>),
    Project {
        columns: Vec<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    },
    /// Appends `window_start` and `window_end`: a row for every window that covers the time in column `time`, none without a time.
    Windows {
        time: usize,
        windows: Windows,
        schema: SchemaRef,
    },
    /// Appends the event time twice, in the place of `window_start` and `window_end`: an aggregate behind it finds the windows itself.
    CarryTime { time: usize, schema: SchemaRef },
    /// Appends columns and a number, a row for each set: the columns are null where the set says so, the number is the set's.
    EachSet {
        columns: Vec<Arc<dyn PhysicalExpr>>,
        sets: Vec<(Vec<bool>, u64)>,
        schema: SchemaRef,
    },
    /// Takes the last column off: each row's weight. `is_append_only`: all of them are 1.
    Weigh { is_append_only: bool, schema: SchemaRef },
    /// Columns by place, without computing anything.
    Select { columns: Vec<usize>, schema: SchemaRef },
}

pub struct Segment {
    steps: Vec<Step>,
}

impl Segment {
    pub fn new(steps: Vec<Step>) -> Self {
        Self { steps }
    }
}

impl Operator for Segment {
    fn on_delta(&mut self, flow: Flow, out: &mut Output) -> Result<()> {
        let Flow {
            delta: Delta { mut rows, mut weights },
            mut row_watermarks,
        } = flow;
        for step in &self.steps {
            if rows.num_rows() == 0 {
                return Ok(());
            }
            match step {
                Step::Filter(predicate) => {
                    let of = |rows: &RecordBatch| Ok(vec![evaluate(predicate, rows)?]);
                    let columns = computed("filter", &mut rows, &mut weights, &mut row_watermarks, of, out)?;
                    let [mask] = columns.as_slice() else {
                        return Ok(());
                    };
                    let mask = definite(mask.as_boolean());
                    if mask.true_count() == rows.num_rows() {
                        continue;
                    }
                    rows = filter_record_batch(&rows, &mask).map_err(Error::of_arrow)?;
                    weights = weights.map(|weights| filter_numbers(&weights, &mask)).transpose()?;
                    row_watermarks = row_watermarks
                        .map(|watermarks| filter_numbers(&watermarks, &mask))
                        .transpose()?;
                }
                Step::Project { columns, schema } => {
                    let of = |rows: &RecordBatch| columns.iter().map(|column| evaluate(column, rows)).collect();
                    let columns = computed("project", &mut rows, &mut weights, &mut row_watermarks, of, out)?;
                    let count = rows.num_rows();
                    if count == 0 {
                        return Ok(());
                    }
                    rows = batch(schema, columns, count)?;
                }
                Step::Windows { time, windows, schema } => {
                    let (indices, bounds) = assign(rows.column(*time), *windows)?;
                    if let Some(indices) = indices {
                        rows = take_record_batch(&rows, &indices).map_err(Error::of_arrow)?;
                        weights = weights.map(|weights| take_numbers(&weights, &indices)).transpose()?;
                        row_watermarks = row_watermarks
                            .map(|watermarks| take_numbers(&watermarks, &indices))
                            .transpose()?;
                    }
                    let columns = rows.columns().iter().cloned().chain(bounds).collect();
                    rows = batch(schema, columns, rows.num_rows())?;
                }
                Step::CarryTime { time, schema } => {
                    if 0 < rows.column(*time).null_count() {
                        // A row without a time is in no window.
                        let has_time = is_not_null(rows.column(*time)).map_err(Error::of_arrow)?;
                        rows = filter_record_batch(&rows, &has_time).map_err(Error::of_arrow)?;
                        weights = weights.map(|weights| filter_numbers(&weights, &has_time)).transpose()?;
                        row_watermarks = row_watermarks
                            .map(|watermarks| filter_numbers(&watermarks, &has_time))
                            .transpose()?;
                    }
                    let carried = Arc::clone(rows.column(*time));
                    let columns = rows.columns().iter().cloned().chain([Arc::clone(&carried), carried]);
                    rows = batch(schema, columns.collect(), rows.num_rows())?;
                }
                Step::EachSet { columns, sets, schema } => {
                    let of = |rows: &RecordBatch| columns.iter().map(|column| evaluate(column, rows)).collect();
                    let values = computed("aggregate", &mut rows, &mut weights, &mut row_watermarks, of, out)?;
                    if rows.num_rows() == 0 {
                        return Ok(());
                    }
                    let parts = sets
                        .iter()
                        .map(|set| of_set(&rows, &values, set, schema))
                        .collect::<Result<Vec<_>>>()?;
                    let repeat = |numbers: Int64Array| -> Int64Array {
                        let all = std::iter::repeat_n(numbers.values(), sets.len());
                        all.flat_map(|numbers| numbers.iter().copied()).collect()
                    };
                    rows = concat_batches(schema, &parts).map_err(Error::of_arrow)?;
                    weights = weights.map(repeat);
                    row_watermarks = row_watermarks.map(repeat);
                }
                Step::Weigh { is_append_only, schema } => {
                    let (columns, last) = (rows.columns(), rows.num_columns() - 1);
                    weights = (!is_append_only).then(|| columns[last].as_primitive().clone());
                    rows = batch(schema, columns[..last].to_vec(), rows.num_rows())?;
                }
                Step::Select { columns, schema } => {
                    let picked = columns.iter().map(|column| Arc::clone(rows.column(*column))).collect();
                    rows = batch(schema, picked, rows.num_rows())?;
                }
            }
        }
        out.push(Flow {
            delta: Delta { rows, weights },
            row_watermarks,
        });
        Ok(())
    }

    fn on_epoch_end(&mut self, end: EpochEnd, _out: &mut Output) -> Result<Watermark> {
        Ok(end.watermark)
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _state: Vec<RecordBatch>) -> Result<()> {
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}

/// Columns over the rows that give them; the others are set aside and leave.
pub(super) fn computed(
    operator: &'static str,
    rows: &mut RecordBatch,
    weights: &mut Option<Int64Array>,
    row_watermarks: &mut Option<Int64Array>,
    of: impl Fn(&RecordBatch) -> Result<Vec<ArrayRef>>,
    out: &mut Output,
) -> Result<Vec<ArrayRef>> {
    let computed = compute(rows.num_rows(), |range| of(&rows.slice(range.start, range.len())))?;
    if let Some(is_good) = computed.is_good() {
        out.failed
            .extend(FailedRows::of(operator, rows, &computed.failures, weights.as_ref())?);
        *rows = filter_record_batch(rows, &is_good).map_err(Error::of_arrow)?;
        for numbers in [weights, row_watermarks] {
            *numbers = numbers
                .take()
                .map(|numbers| filter_numbers(&numbers, &is_good))
                .transpose()?;
        }
    }
    Ok(computed.columns)
}

fn evaluate(column: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<ArrayRef> {
    column
        .evaluate(rows)
        .and_then(|value| value.into_array(rows.num_rows()))
        .map_err(failed)
}

/// The rows as they stand for one set.
fn of_set(
    rows: &RecordBatch,
    values: &[ArrayRef],
    (is_null, id): &(Vec<bool>, u64),
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let count = rows.num_rows();
    let own = values.iter().zip(is_null).map(|(value, is_null)| match is_null {
        true => new_null_array(value.data_type(), count),
        false => Arc::clone(value),
    });
    let id_type = schema.field(schema.fields().len() - 1).data_type();
    let id = cast(&UInt64Array::from_value(*id, count), id_type).map_err(Error::of_arrow)?;
    batch(
        schema,
        rows.columns().iter().cloned().chain(own).chain([id]).collect(),
        count,
    )
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(Error::of_arrow)
}

fn definite(mask: &BooleanArray) -> BooleanArray {
    if mask.null_count() == 0 {
        mask.clone()
    } else {
        prep_null_mask_filter(mask)
    }
}

fn filter_numbers(values: &Int64Array, mask: &BooleanArray) -> Result<Int64Array> {
    Ok(filter(values, mask).map_err(Error::of_arrow)?.as_primitive().clone())
}

fn take_numbers(values: &Int64Array, indices: &UInt32Array) -> Result<Int64Array> {
    Ok(take(values, indices, None)
        .map_err(Error::of_arrow)?
        .as_primitive()
        .clone())
}

/// Start and end of the windows of each time, and the row that each belongs to: `None` where that is one per row, in their order.
fn assign(times: &ArrayRef, windows: Windows) -> Result<(Option<UInt32Array>, [ArrayRef; 2])> {
    let times = times
        .as_primitive_opt::<TimestampNanosecondType>()
        .ok_or_else(|| Error::bug("a window column is a timestamp in nanoseconds"))?;
    if windows.is_tumbling() && times.null_count() == 0 {
        let bound = |panes: i64| -> TimestampNanosecondArray {
            times.unary(|time| windows.grid.start(windows.grid.index(time).saturating_add(panes)))
        };
        return Ok((None, [Arc::new(bound(0)), Arc::new(bound(1))]));
    }
    let (mut indices, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for (row, time) in times.iter().enumerate() {
        let Some(time) = time else { continue };
        for range in windows.covering(windows.grid.index(time)) {
            let window = windows.bounds(range);
            indices.push(row as u32);
            starts.push(window.start);
            ends.push(window.end);
        }
    }
    let bounds = [starts, ends].map(|times| Arc::new(TimestampNanosecondArray::from(times)) as ArrayRef);
    Ok((Some(UInt32Array::from(indices)), bounds))
}
