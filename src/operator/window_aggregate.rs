//! Aggregates per window: deltas in, one row per key and window out.
//!
//! ```text
//! rows ─▶ late? ─▶ pane of its window ─▶ accumulators     touched panes ── end of epoch ──▶ what changed (EMIT CHANGES)
//!          └ end <= row watermark ─▶ kept as late rows     ended panes ── watermark ──────▶ final rows (ON WINDOW CLOSE), gone
//! ```
//! A closed window never opens again. Input is append-only: a weight of −1 is refused when the view is created.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, TimestampNanosecondArray,
        UInt32Array,
    },
    compute::{concat_batches, filter, filter_record_batch},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampNanosecondType},
};

use crate::types::{Delta, Error, Result, TumblingWindow, Watermark};

use super::{
    Aggregation, EpochEnd, Flow, LateRows, Operator, Output,
    aggregation::{Evaluated, Results},
    state_table::StateTable,
};

/// When a window's rows are handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emission {
    /// Every epoch that changed them: the old row retracted, the new one added.
    Changes,
    /// Once, when the window is closed.
    OnWindowClose,
}

/// Where a column of the result comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputColumn {
    WindowStart,
    WindowEnd,
    /// A group column other than the window's.
    Group(usize),
    Function(usize),
}

pub struct WindowAggregate {
    aggregation: Arc<Aggregation>,
    /// The input column with the start of the row's window.
    window_start: usize,
    window: TumblingWindow,
    emission: Emission,
    output: Vec<OutputColumn>,
    schema: SchemaRef,
    /// Windows that end at or before it are closed.
    watermark: Watermark,
    /// By start; all of them end after `watermark`.
    panes: BTreeMap<i64, StateTable>,
}

impl WindowAggregate {
    /// `schema` is that of the result, `output` says where each of its columns comes from.
    pub fn new(
        aggregation: Arc<Aggregation>,
        window_start: usize,
        window: TumblingWindow,
        emission: Emission,
        output: Vec<OutputColumn>,
        schema: SchemaRef,
    ) -> Self {
        Self {
            aggregation,
            window_start,
            window,
            emission,
            output,
            schema,
            watermark: Watermark::START,
            panes: BTreeMap::new(),
        }
    }

    fn update(&mut self, starts: &TimestampNanosecondArray, rows: &Evaluated) -> Result<()> {
        if starts.null_count() == starts.len() {
            // A row without a time is in no window.
            return Ok(());
        }
        let (low, high) = (arrow::compute::min(starts), arrow::compute::max(starts));
        if starts.null_count() == 0 && low == high {
            return self.pane(low.expect("not empty"))?.update(rows);
        }
        // Rows mostly come in the order of time: then the rows of a pane are a slice, and nothing is copied.
        if starts.null_count() == 0 && starts.values().is_sorted() {
            let mut from = 0;
            for run in starts.values().chunk_by(|a, b| a == b) {
                let part = rows.slice(from, run.len());
                self.pane(run[0])?.update(&part)?;
                from += run.len();
            }
            return Ok(());
        }
        let mut by_start: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (row, start) in starts.iter().enumerate() {
            let Some(start) = start else { continue };
            by_start.entry(start).or_default().push(row as u32);
        }
        for (start, rows_of_pane) in by_start {
            let indices: ArrayRef = Arc::new(UInt32Array::from(rows_of_pane));
            let part = rows.take(&indices)?;
            self.pane(start)?.update(&part)?;
        }
        Ok(())
    }

    fn pane(&mut self, start: i64) -> Result<&mut StateTable> {
        assert!(
            self.watermark.0 < self.window.at(start).end,
            "an accepted row never meets a closed window"
        );
        match self.panes.entry(start) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                Ok(entry.insert(StateTable::new(Arc::clone(&self.aggregation))?))
            }
        }
    }

    fn rows_of(&self, start: i64, groups: &[ArrayRef], values: &[ArrayRef], count: usize) -> Result<RecordBatch> {
        let constant = |time: i64| Arc::new(TimestampNanosecondArray::from_value(time, count)) as ArrayRef;
        let columns = self
            .output
            .iter()
            .map(|column| match column {
                OutputColumn::WindowStart => constant(start),
                OutputColumn::WindowEnd => constant(self.window.at(start).end),
                OutputColumn::Group(index) => Arc::clone(&groups[*index]),
                OutputColumn::Function(index) => Arc::clone(&values[*index]),
            })
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| Error::bug(format!("a window's rows do not fit their schema: {e}")))
    }

    fn changes_of(&self, start: i64, pane: &mut StateTable) -> Result<Option<Delta>> {
        let Some(touched) = pane.take_touched()? else {
            return Ok(None);
        };
        let rows = |groups: &[ArrayRef], values: &[ArrayRef], count| self.rows_of(start, groups, values, count);
        touched.delta(&self.schema, rows).map(Some)
    }

    fn snapshot_schema(&self) -> SchemaRef {
        let start = Field::new("window_start", DataType::Timestamp(TimeUnit::Nanosecond, None), false);
        let fields = std::iter::once(Arc::new(start)).chain(self.aggregation.state_schema().fields().iter().cloned());
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

impl Operator for WindowAggregate {
    fn on_delta(&mut self, flow: Flow, out: &mut Output) -> Result<()> {
        if flow.delta.weights.is_some() {
            return Err(Error::bug("a windowed aggregate over rows that change was planned"));
        }
        let mut rows = flow.delta.rows;
        let starts = |rows: &RecordBatch| {
            rows.column(self.window_start)
                .as_primitive::<TimestampNanosecondType>()
                .clone()
        };
        let mut window_starts = starts(&rows);
        if let Some(watermarks) = &flow.row_watermarks {
            let size = self.window.size_ns;
            let is_late: BooleanArray = window_starts
                .iter()
                .zip(watermarks.values())
                .map(|(start, watermark)| Some(start.is_some_and(|start| start.saturating_add(size) <= *watermark)))
                .collect();
            if 0 < is_late.true_count() {
                let late_starts: Int64Array = filter(&window_starts, &is_late)
                    .map_err(bug)?
                    .as_primitive::<TimestampNanosecondType>()
                    .reinterpret_cast();
                out.late.push(LateRows {
                    rows: filter_record_batch(&rows, &is_late).map_err(bug)?,
                    window_ends: late_starts.unary(|start| self.window.at(start).end),
                    window_starts: late_starts,
                    watermarks: filter(watermarks, &is_late).map_err(bug)?.as_primitive().clone(),
                });
                rows = filter_record_batch(&rows, &arrow::compute::not(&is_late).map_err(bug)?).map_err(bug)?;
                window_starts = starts(&rows);
            }
        }
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let evaluated = self.aggregation.evaluate(&rows)?;
        self.update(&window_starts, &evaluated)
    }

    fn on_epoch_end(&mut self, end: EpochEnd, out: &mut Output) -> Result<Watermark> {
        assert!(
            self.watermark <= end.watermark,
            "the watermark went back to {}",
            end.watermark
        );
        self.watermark = end.watermark;

        let mut changes = Vec::new();
        // Ordered by start, and windows of one size end in the order of their starts: the panes to close come first.
        while let Some(entry) = self.panes.first_entry()
            && self.window.at(*entry.key()).end <= self.watermark.0
        {
            let (start, mut pane) = entry.remove_entry();
            let delta = match self.emission {
                Emission::Changes if pane.has_been_taken() => self.changes_of(start, &mut pane)?,
                Emission::Changes | Emission::OnWindowClose => {
                    let Results { groups, values, count } = pane.into_results()?;
                    Some(Delta::append(self.rows_of(start, &groups, &values, count)?))
                }
            };
            changes.extend(delta);
        }

        if self.emission == Emission::Changes {
            let mut panes = std::mem::take(&mut self.panes);
            for (start, pane) in &mut panes {
                changes.extend(self.changes_of(*start, pane)?);
            }
            self.panes = panes;
        }
        // A row's key names its pane, so the changes of all panes fit into one delta.
        out.push(Flow::of(Delta::concat(&self.schema, &changes)?));
        assert!(
            self.panes
                .keys()
                .all(|start| self.watermark.0 < self.window.at(*start).end),
            "a closed pane stayed open"
        );
        // A row that is emitted from now on carries its window's end, so the watermark holds for it too.
        Ok(end.watermark)
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let schema = self.snapshot_schema();
        let mut parts = Vec::new();
        for (start, pane) in &mut self.panes {
            let state = pane.state()?;
            let starts = Arc::new(TimestampNanosecondArray::from_value(*start, state.num_rows())) as ArrayRef;
            let columns = std::iter::once(starts).chain(state.columns().iter().cloned()).collect();
            parts.push(RecordBatch::try_new(Arc::clone(&schema), columns).map_err(bug)?);
        }
        let watermark = Arc::new(Schema::new(vec![Field::new("watermark", DataType::Int64, false)]));
        let watermark =
            RecordBatch::try_new(watermark, vec![Arc::new(Int64Array::from(vec![self.watermark.0]))]).map_err(bug)?;
        Ok(vec![watermark, concat_batches(&schema, &parts).map_err(bug)?])
    }

    fn restore(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        let [watermark, panes] = state.as_slice() else {
            return Err(Error::state(
                "the checkpoint of a windowed aggregate has other parts than expected",
            ));
        };
        self.watermark = Watermark(
            watermark
                .column(0)
                .as_primitive::<arrow::datatypes::Int64Type>()
                .value(0),
        );
        let starts = panes
            .column(0)
            .as_primitive::<TimestampNanosecondType>()
            .values()
            .to_vec();
        let mut from = 0;
        for run in starts.chunk_by(|a, b| a == b) {
            let columns: Vec<usize> = (1..panes.num_columns()).collect();
            let state = panes.slice(from, run.len()).project(&columns).map_err(bug)?;
            from += run.len();
            // A checkpoint is taken at the end of an epoch, where everything had been handed on.
            let mut pane = StateTable::new(Arc::clone(&self.aggregation))?;
            pane.restore(&state)?;
            self.panes.insert(run[0], pane);
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.panes.values().map(StateTable::memory_bytes).sum()
    }
}

fn bug(error: arrow::error::ArrowError) -> Error {
    Error::bug(error.to_string())
}
