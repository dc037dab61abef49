//! A stateless stretch: filters, projections and windows, evaluated on whole batches.
//!
//! ```text
//! delta ─▶ step ─▶ step ─▶ … ─▶ delta      row watermarks and weights go along with their rows
//! ```
//! A weight of −1 goes through like any other: the steps look at one row at a time.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, TimestampNanosecondArray,
    },
    compute::{filter, filter_record_batch, prep_null_mask_filter},
    datatypes::{SchemaRef, TimestampNanosecondType},
};
use datafusion::physical_expr::PhysicalExpr;

use crate::types::{Delta, Error, Result, TumblingWindow, Watermark};

use super::{EpochEnd, Flow, Operator, Output, aggregation::failed};

#[derive(Clone)]
pub enum Step {
    /// Keeps rows for which it is true; not those for which it is null.
    Filter(Arc<dyn PhysicalExpr>),
    Project {
        columns: Vec<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    },
    /// Appends `window_start` and `window_end` of the window that holds the time in column `time`; null where the time is.
    Window {
        time: usize,
        window: TumblingWindow,
        schema: SchemaRef,
    },
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
                    let mask = predicate
                        .evaluate(&rows)
                        .and_then(|value| value.into_array(rows.num_rows()))
                        .map_err(failed)?;
                    let mask = definite(mask.as_boolean());
                    if mask.true_count() == rows.num_rows() {
                        continue;
                    }
                    rows = filter_record_batch(&rows, &mask).map_err(bug)?;
                    weights = weights.map(|weights| filter_numbers(&weights, &mask)).transpose()?;
                    row_watermarks = row_watermarks
                        .map(|watermarks| filter_numbers(&watermarks, &mask))
                        .transpose()?;
                }
                Step::Project { columns, schema } => {
                    let count = rows.num_rows();
                    let columns = columns
                        .iter()
                        .map(|column| {
                            column
                                .evaluate(&rows)
                                .and_then(|value| value.into_array(count))
                                .map_err(failed)
                        })
                        .collect::<Result<Vec<_>>>()?;
                    rows = batch(schema, columns, count)?;
                }
                Step::Window { time, window, schema } => {
                    let (starts, ends) = windows(rows.column(*time), *window)?;
                    let columns = rows.columns().iter().cloned().chain([starts, ends]).collect();
                    rows = batch(schema, columns, rows.num_rows())?;
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

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(bug)
}

fn definite(mask: &BooleanArray) -> BooleanArray {
    if mask.null_count() == 0 {
        mask.clone()
    } else {
        prep_null_mask_filter(mask)
    }
}

fn filter_numbers(values: &Int64Array, mask: &BooleanArray) -> Result<Int64Array> {
    Ok(filter(values, mask).map_err(bug)?.as_primitive().clone())
}

/// Start and end of each time's window. A time below the first whole window has none: null.
fn windows(times: &ArrayRef, window: TumblingWindow) -> Result<(ArrayRef, ArrayRef)> {
    let times = times
        .as_primitive_opt::<TimestampNanosecondType>()
        .ok_or_else(|| Error::bug("a window column is a timestamp in nanoseconds"))?;
    let size = window.size_ns;
    let is_safe = |time: i64| time.checked_sub(size).is_some() && time.checked_add(size).is_some();
    let (low, high) = (arrow::compute::min(times), arrow::compute::max(times));
    if low.is_none_or(is_safe) && high.is_none_or(is_safe) {
        let starts: TimestampNanosecondArray = times.unary(|time| time - time.rem_euclid(size));
        let ends: TimestampNanosecondArray = starts.unary(|start| start + size);
        return Ok((Arc::new(starts), Arc::new(ends)));
    }
    let starts: TimestampNanosecondArray = times.iter().map(|time| window.start(time?)).collect();
    let ends: TimestampNanosecondArray = starts.iter().map(|start| Some(window.at(start?).end)).collect();
    Ok((Arc::new(starts), Arc::new(ends)))
}

fn bug(error: arrow::error::ArrowError) -> Error {
    Error::bug(error.to_string())
}
