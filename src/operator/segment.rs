//! A stateless stretch: filters, projections and windows, evaluated on whole batches.
//!
//! ```text
//! delta ─▶ step ─▶ step ─▶ … ─▶ delta      row watermarks and weights go along with their rows
//! ```
//! A weight of −1 goes through like any other: the steps look at one row at a time. Rows whose values cannot be computed are set aside.
//! Where a row becomes many, a few rows at a time go on: see [`Operator::go_on`].

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, TimestampNanosecondArray,
        UInt32Array, UInt64Array,
    },
    buffer::{BooleanBuffer, NullBuffer},
    compute::{cast, filter, filter_record_batch, is_not_null, prep_null_mask_filter, take, take_record_batch},
    datatypes::{SchemaRef, TimestampNanosecondType},
};
use datafusion::physical_expr::PhysicalExpr;

use crate::types::{Delta, Error, Result, Saved, Shape, Watermark, Windows, limits};

use super::{EpochEnd, FailedRows, Flow, Operator, Output, aggregation::failed_value, failure::compute};

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
    /// Rows that wait before a step that makes many of one; those that came last go on first.
    waiting: Vec<(usize, Flow)>,
}

impl Step {
    /// How many rows a row becomes at most.
    fn rows_per_row(&self) -> usize {
        let rows = match self {
            Self::Windows { windows, .. } => match windows.shape {
                Shape::Tumble => 1,
                Shape::Hop { slide, size } => (size - 1) / slide + 1,
                Shape::Cumulate { size } => size,
            },
            Self::EachSet { sets, .. } => sets.len() as i64,
            Self::Filter(_)
            | Self::Project { .. }
            | Self::CarryTime { .. }
            | Self::Weigh { .. }
            | Self::Select { .. } => 1,
        };
        usize::try_from(rows).unwrap_or(1).max(1)
    }
}

impl Segment {
    pub fn new(steps: Vec<Step>) -> Self {
        Self {
            steps,
            waiting: Vec::new(),
        }
    }

    /// Sends rows through the steps from `first` on. Of rows that would become too many at once the rest waits.
    fn run(&mut self, first: usize, flow: Flow, out: &mut Output) -> Result<()> {
        let Flow {
            delta: Delta { mut rows, mut weights },
            mut row_watermarks,
        } = flow;
        for (index, step) in self.steps.iter().enumerate().skip(first) {
            if rows.num_rows() == 0 {
                return Ok(());
            }
            let at_once = (limits::CHUNK_ROWS / step.rows_per_row()).max(1);
            if at_once < rows.num_rows() && 1 < step.rows_per_row() {
                let later = at_once..rows.num_rows();
                let cut = |numbers: &mut Option<Int64Array>| {
                    let whole = numbers.take()?;
                    *numbers = Some(whole.slice(0, at_once));
                    Some(whole.slice(later.start, later.len()))
                };
                let rest = Flow {
                    delta: Delta {
                        rows: rows.slice(later.start, later.len()),
                        weights: cut(&mut weights),
                    },
                    row_watermarks: cut(&mut row_watermarks),
                };
                rows = rows.slice(0, at_once);
                self.waiting.push((index, rest));
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
                    let repeated = repeated(rows.num_rows(), sets.len());
                    let repeat = |numbers: Int64Array| take_numbers(&numbers, &repeated);
                    weights = weights.map(repeat).transpose()?;
                    row_watermarks = row_watermarks.map(repeat).transpose()?;
                    rows = for_each_set(&rows, &values, sets, &repeated, schema)?;
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
}

impl Operator for Segment {
    fn on_delta(&mut self, flow: Flow, out: &mut Output) -> Result<()> {
        assert!(self.waiting.is_empty(), "the last delta went on to its end");
        self.run(0, flow, out)
    }

    fn go_on(&mut self, out: &mut Output) -> Result<bool> {
        let Some((step, flow)) = self.waiting.pop() else {
            return Ok(false);
        };
        self.run(step, flow, out)?;
        Ok(true)
    }

    fn on_epoch_end(&mut self, end: EpochEnd, _out: &mut Output) -> Result<Watermark> {
        Ok(end.watermark)
    }

    fn snapshot(&mut self) -> Result<Saved> {
        assert!(self.waiting.is_empty(), "nothing waits between epochs");
        Ok(Saved::now(Vec::new()))
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
        .map_err(failed_value)
}

/// The places of `count` rows, over again for each of `times`.
fn repeated(count: usize, times: usize) -> UInt32Array {
    (0..times).flat_map(|_| 0..count as u32).collect()
}

/// The rows as they stand for the sets, one set after another. `repeated` are the places that they come from.
fn for_each_set(
    rows: &RecordBatch,
    values: &[ArrayRef],
    sets: &[(Vec<bool>, u64)],
    repeated: &UInt32Array,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let count = rows.num_rows();
    let pick = |column: &ArrayRef, places: &UInt32Array| take(column, places, None).map_err(Error::of_arrow);
    let mut columns = Vec::with_capacity(schema.fields().len());
    for column in rows.columns() {
        columns.push(pick(column, repeated)?);
    }
    for (index, value) in values.iter().enumerate() {
        let is_held = sets
            .iter()
            .flat_map(|(is_null, _)| std::iter::repeat_n(!is_null[index], count));
        let held = NullBuffer::from(is_held.collect::<BooleanBuffer>());
        let places = UInt32Array::new(repeated.values().clone(), Some(held));
        columns.push(pick(value, &places)?);
    }
    let ids = UInt64Array::from_iter_values(sets.iter().flat_map(|(_, id)| std::iter::repeat_n(*id, count)));
    let id_type = schema.field(schema.fields().len() - 1).data_type();
    columns.push(cast(&ids, id_type).map_err(Error::of_arrow)?);
    batch(schema, columns, repeated.len())
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

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, UInt8Type};
    use datafusion::physical_expr::expressions::Column;

    use crate::types::Grid;

    use super::*;

    const ROWS: i64 = 30;

    /// Rows 0, 1, 2 … with their number as time, weight and watermark.
    fn flow() -> Flow {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let schema = Arc::new(Schema::new(vec![Field::new("at", time, true)]));
        let times = TimestampNanosecondArray::from_iter_values(0..ROWS);
        Flow {
            delta: Delta {
                rows: RecordBatch::try_new(schema, vec![Arc::new(times)]).unwrap(),
                weights: Some(Int64Array::from_iter_values(0..ROWS)),
            },
            row_watermarks: Some(Int64Array::from_iter_values(0..ROWS)),
        }
    }

    fn with(more: Vec<Field>) -> SchemaRef {
        let fields = flow().delta.rows.schema();
        let fields = fields.fields().iter().map(|field| field.as_ref().clone());
        Arc::new(Schema::new(fields.chain(more).collect::<Vec<_>>()))
    }

    /// All parts of a delta, none of which is large.
    fn parts(steps: Vec<Step>) -> Vec<Flow> {
        let mut segment = Segment::new(steps);
        let mut flows = Vec::new();
        let mut out = Output::default();
        segment.on_delta(flow(), &mut out).unwrap();
        loop {
            let rows: usize = out.flows.iter().map(|flow| flow.delta.rows.num_rows()).sum();
            assert!(rows <= limits::CHUNK_ROWS, "{rows} rows at once");
            flows.append(&mut out.flows);
            if !segment.go_on(&mut out).unwrap() {
                return flows;
            }
        }
    }

    #[test]
    fn rows_in_many_windows_come_in_parts_and_in_their_order() {
        let size = 10_000;
        let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let windows = Step::Windows {
            time: 0,
            windows: Windows {
                grid: Grid::Fixed {
                    step_ns: 1,
                    origin_ns: 0,
                },
                shape: Shape::Hop { slide: 1, size },
            },
            schema: with(vec![
                Field::new("window_start", time.clone(), true),
                Field::new("window_end", time, true),
            ]),
        };
        let parts = parts(vec![windows]);
        assert_eq!(parts.len(), 10, "three rows at once");
        let mut expected = (0..ROWS).flat_map(|row| (row - size + 1..=row).map(move |start| (row, start)));
        for part in parts {
            let columns = part.delta.rows.columns();
            let [rows, starts] = [0, 1].map(|at| columns[at].as_primitive::<TimestampNanosecondType>());
            let (weights, watermarks) = (part.delta.weights.unwrap(), part.row_watermarks.unwrap());
            for place in 0..rows.len() {
                let row = rows.value(place);
                assert_eq!(Some((row, starts.value(place))), expected.next());
                assert_eq!((weights.value(place), watermarks.value(place)), (row, row));
            }
        }
        assert_eq!(expected.next(), None, "nothing is left out");
    }

    #[test]
    fn each_set_has_all_rows_and_those_of_its_columns_alone() {
        let sets = vec![(vec![false], 0), (vec![true], 1), (vec![false], 2)];
        let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let each_set = Step::EachSet {
            columns: vec![Arc::new(Column::new("at", 0))],
            sets,
            schema: with(vec![
                Field::new("group", time, true),
                Field::new("id", DataType::UInt8, false),
            ]),
        };
        let parts = parts(vec![each_set]);
        let [part] = parts.as_slice() else {
            panic!("so few rows come at once");
        };
        let columns = part.delta.rows.columns();
        let groups = columns[1]
            .as_primitive::<TimestampNanosecondType>()
            .reinterpret_cast::<Int64Type>();
        let ids = columns[2].as_primitive::<UInt8Type>();
        let weights = part.delta.weights.as_ref().unwrap();
        let found: Vec<_> = (0..ids.len())
            .map(|row| {
                (
                    ids.value(row),
                    weights.value(row),
                    groups.is_valid(row).then(|| groups.value(row)),
                )
            })
            .collect();
        let of_set = |id: u8| (0..ROWS).map(move |row| (id, row, (id != 1).then_some(row)));
        assert_eq!(found, (0..3).flat_map(of_set).collect::<Vec<_>>());
    }
}
