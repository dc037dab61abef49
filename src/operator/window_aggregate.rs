//! Aggregates per window: rows in, one row per key and window out.
//!
//! ```text
//! rows ─▶ pane ─▶ late? ─┬─▶ a table per window ── end of epoch ──▶ what changed (EMIT CHANGES)
//!                        └─▶ panes (overlapping) ── watermark ────▶ final rows (ON WINDOW CLOSE)
//! late for a window: its end <= how far the row's own split was complete ─▶ kept as a late row
//! ```
//! A closed window never opens again. Input is append-only: a weight of −1 is refused when the view is created.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, TimestampNanosecondArray,
        UInt32Array,
    },
    compute::{filter_record_batch, take, take_record_batch},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampNanosecondType},
};

use crate::types::{
    Delta, Error, PaneRange, Result, Saved, Watermark, Window, Windows,
    planted::{Bug, has},
};

use super::{
    Aggregation, EpochEnd, Flow, LateRows, OpenWindows, Operator, Output,
    aggregation::{Evaluated, GroupTable, Results},
    merging::table_at,
    panes::Panes,
    state_table::StateTable,
};

/// Shorter runs of rows of a pane are gathered in place of being cut as slices.
const SLICE_ROWS_MIN: usize = 256;
/// So many rows at once are asked whether all of them are in one pane.
const BLOCK_ROWS: usize = 1_024;

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

/// Where a row's window stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// In all windows that cover the time in this column.
    Time(usize),
    /// In the one window whose start and end stand in these columns; one is enough where it tells windows apart.
    Bounds { start: Option<usize>, end: Option<usize> },
}

/// What a windowed aggregate hands on, and when.
#[derive(Clone)]
pub struct WindowResult {
    pub emission: Emission,
    /// How long after its end a window still takes rows.
    pub lateness_ns: i64,
    pub columns: Vec<OutputColumn>,
    pub schema: SchemaRef,
}

pub struct WindowAggregate {
    aggregation: Arc<Aggregation>,
    assignment: Assignment,
    windows: Windows,
    result: WindowResult,
    /// Windows that end at or before it are closed: the watermark less the lateness.
    closed: Watermark,
    state: State,
}

enum State {
    PerWindow {
        /// All of them end after `closed`.
        tables: BTreeMap<PaneRange, StateTable>,
        /// Rows of the epoch at hand, where windows overlap: by pane and the end of the first window that takes them.
        recent: BTreeMap<(i64, i64), GroupTable>,
    },
    Shared(Box<Panes>),
}

/// A pane, and the end of the first of its windows that takes the row.
type Class = (i64, i64);
/// Consecutive rows of one class.
type Runs = Vec<(Class, Range<usize>)>;

fn extend(runs: &mut Runs, class: Class, rows: Range<usize>) {
    match runs.last_mut() {
        Some((last, range)) if *last == class && range.end == rows.start => range.end = rows.end,
        _ => runs.push((class, rows)),
    }
}

/// The pane at hand: its number, where it begins and ends, its first window and when that one is over.
struct Pane {
    index: i64,
    bounds: Range<i64>,
    first: PaneRange,
    first_ends: i64,
}

impl Pane {
    /// `None` between two hops.
    fn of(time: i64, windows: Windows) -> Option<Self> {
        let index = windows.grid.index(time);
        let first = windows.next_covering(index, i64::MIN)?;
        Some(Self {
            index,
            bounds: windows.grid.start(index)..windows.grid.start(index + 1),
            first,
            first_ends: windows.bounds(first).end,
        })
    }

    fn class(&self) -> Class {
        (self.index, self.first.end)
    }
}

/// The runs of the good rows alone.
fn of_good_rows(runs: Runs, is_good: &BooleanArray) -> Runs {
    let mut at = 0;
    let shrunk = runs.into_iter().map(|(class, range)| {
        let length = is_good.slice(range.start, range.len()).true_count();
        at += length;
        (class, at - length..at)
    });
    shrunk.filter(|(_, range)| !range.is_empty()).collect()
}

impl WindowAggregate {
    pub fn new(aggregation: Arc<Aggregation>, assignment: Assignment, windows: Windows, result: WindowResult) -> Self {
        let state = match (result.emission, assignment) {
            (Emission::OnWindowClose, Assignment::Time(_)) if !windows.is_tumbling() => {
                State::Shared(Box::new(Panes::new(Arc::clone(&aggregation), windows)))
            }
            _ => State::PerWindow {
                tables: BTreeMap::new(),
                recent: BTreeMap::new(),
            },
        };
        Self {
            aggregation,
            assignment,
            windows,
            result,
            closed: Watermark::START,
            state,
        }
    }

    /// Where each row goes; rows that some window no longer takes as late ones; rows that none takes out.
    fn classify(&self, rows: RecordBatch, watermarks: Option<&Int64Array>, out: &mut Output) -> Result<Classified> {
        let (mut runs, late) = match self.assignment {
            Assignment::Time(time) => self.by_time(rows.column(time), watermarks),
            Assignment::Bounds { start, end } => {
                let column = |bound: Option<usize>| bound.map(|bound| rows.column(bound));
                self.by_bounds(column(start), column(end), watermarks)
            }
        };
        if !late.is_empty() {
            let watermarks = watermarks.expect("only a row with a watermark is late");
            let indices = UInt32Array::from_iter_values(late.iter().map(|(row, _)| *row as u32));
            out.late.push(LateRows {
                rows: take_record_batch(&rows, &indices).map_err(Error::of_arrow)?,
                window_starts: late.iter().map(|(_, window)| Some(window.start)).collect(),
                window_ends: late.iter().map(|(_, window)| Some(window.end)).collect(),
                watermarks: take(watermarks, &indices, None)
                    .map_err(Error::of_arrow)?
                    .as_primitive()
                    .clone(),
            });
        }
        let taken: usize = runs.iter().map(|(_, range)| range.len()).sum();
        if taken == rows.num_rows() {
            return Ok(Classified { rows, runs });
        }
        // Rows that no window takes are not evaluated: an expression may fail on them.
        let mut mask = vec![false; rows.num_rows()];
        let mut at = 0;
        for (_, range) in &mut runs {
            mask[range.clone()].fill(true);
            *range = at..at + range.len();
            at = range.end;
        }
        Ok(Classified {
            rows: filter_record_batch(&rows, &BooleanArray::from(mask)).map_err(Error::of_arrow)?,
            runs,
        })
    }

    fn by_time(&self, times: &ArrayRef, watermarks: Option<&Int64Array>) -> (Runs, Vec<(usize, Window)>) {
        let times = times.as_primitive::<TimestampNanosecondType>();
        let (mut runs, mut late) = (Runs::new(), Vec::new());
        let mut pane: Option<Pane> = None;
        for from in (0..times.len()).step_by(BLOCK_ROWS) {
            let block = from..times.len().min(from + BLOCK_ROWS);
            if self.is_in_one_pane(times, watermarks, block.clone(), &mut pane) {
                let class = pane.as_ref().expect("the pane that all are in").class();
                extend(&mut runs, class, block);
                continue;
            }
            for row in block {
                if times.is_null(row) {
                    // A row without a time is in no window.
                    continue;
                }
                let time = times.value(row);
                if !pane.as_ref().is_some_and(|pane| pane.bounds.contains(&time)) {
                    pane = Pane::of(time, self.windows);
                }
                let Some(pane) = &pane else { continue };
                let complete = self.complete(watermarks, row);
                if complete < pane.first_ends {
                    extend(&mut runs, pane.class(), row..row + 1);
                    continue;
                }
                let open = self.windows.first_open(pane.index, Watermark(complete));
                let missed = self
                    .windows
                    .covering(pane.index)
                    .take_while(|range| open.is_none_or(|open| range.end < open.end))
                    .last()
                    .expect("the first window was missed");
                late.push((row, self.windows.bounds(missed)));
                if let Some(open) = open {
                    extend(&mut runs, (pane.index, open.end), row..row + 1);
                }
            }
        }
        (runs, late)
    }

    /// Whether all these rows have a time in one pane, all of whose windows take them. `pane` becomes it.
    fn is_in_one_pane(
        &self,
        times: &TimestampNanosecondArray,
        watermarks: Option<&Int64Array>,
        rows: Range<usize>,
        pane: &mut Option<Pane>,
    ) -> bool {
        if 0 < times.null_count() {
            return false;
        }
        let times = &times.values()[rows.clone()];
        let (mut least, mut most) = (i64::MAX, i64::MIN);
        for time in times {
            least = least.min(*time);
            most = most.max(*time);
        }
        if !pane.as_ref().is_some_and(|pane| pane.bounds.contains(&least)) {
            *pane = Pane::of(least, self.windows);
        }
        let Some(pane) = pane else { return false };
        // Those that are complete furthest decide.
        let complete = watermarks
            .and_then(|watermarks| watermarks.values()[rows].iter().copied().max())
            .map_or(i64::MIN, |most| Watermark(most).less(self.result.lateness_ns).0);
        pane.bounds.contains(&most) && complete < pane.first_ends
    }

    fn by_bounds(
        &self,
        starts: Option<&ArrayRef>,
        ends: Option<&ArrayRef>,
        watermarks: Option<&Int64Array>,
    ) -> (Runs, Vec<(usize, Window)>) {
        let times =
            |bounds: Option<&ArrayRef>| bounds.map(|bounds| bounds.as_primitive::<TimestampNanosecondType>().clone());
        let (starts, ends) = (times(starts), times(ends));
        let (mut runs, mut late) = (Runs::new(), Vec::new());
        let count = starts.as_ref().or(ends.as_ref()).map_or(0, Array::len);
        for row in 0..count {
            let time = |times: &Option<TimestampNanosecondArray>| {
                times
                    .as_ref()
                    .map(|times| times.is_valid(row).then(|| times.value(row)))
            };
            let (start, end) = (time(&starts), time(&ends));
            if start == Some(None) || end == Some(None) {
                continue;
            }
            let Some(panes) = self.windows.told_by(start.flatten(), end.flatten()) else {
                continue;
            };
            let window = self.windows.bounds(panes);
            if window.end <= self.complete(watermarks, row) {
                late.push((row, window));
                continue;
            }
            extend(&mut runs, (panes.first, panes.end), row..row + 1);
        }
        (runs, late)
    }

    /// Windows that end at or before it do not take this row.
    fn complete(&self, watermarks: Option<&Int64Array>, row: usize) -> i64 {
        if has(Bug::LateRowReopensAWindow) {
            return i64::MIN;
        }
        watermarks.map_or(i64::MIN, |watermarks| {
            Watermark(watermarks.value(row)).less(self.result.lateness_ns).0
        })
    }

    /// Whether a class is the panes of one window, not a pane of many.
    fn is_one_window_per_class(&self) -> bool {
        self.windows.is_tumbling() || matches!(self.assignment, Assignment::Bounds { .. })
    }

    fn update(&mut self, (pane, first_end): Class, rows: &Evaluated) -> Result<()> {
        let is_one_window = self.is_one_window_per_class();
        let (windows, closed) = (self.windows, self.closed);
        let takes = |range: PaneRange| {
            assert!(
                closed.0 < windows.bounds(range).end,
                "an accepted row never meets a closed window"
            );
        };
        match &mut self.state {
            State::PerWindow { tables, .. } if is_one_window => {
                let range = PaneRange {
                    first: pane,
                    end: first_end,
                };
                takes(range);
                window_at(tables, range, &self.aggregation)?.update(rows)
            }
            State::PerWindow { recent, .. } => {
                let range = windows.next_covering(pane, first_end).expect("classified as covered");
                takes(range);
                table_at(recent, (pane, first_end), &self.aggregation)?.update(rows)
            }
            State::Shared(panes) => panes.update(pane, first_end, rows),
        }
    }

    fn rows_of(&self, range: PaneRange, groups: &[ArrayRef], values: &[ArrayRef], count: usize) -> Result<RecordBatch> {
        let window = self.windows.bounds(range);
        let constant = |time: i64| Arc::new(TimestampNanosecondArray::from_value(time, count)) as ArrayRef;
        let columns = self
            .result
            .columns
            .iter()
            .map(|column| match column {
                OutputColumn::WindowStart => constant(window.start),
                OutputColumn::WindowEnd => constant(window.end),
                OutputColumn::Group(index) => Arc::clone(&groups[*index]),
                OutputColumn::Function(index) => Arc::clone(&values[*index]),
            })
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::clone(&self.result.schema), columns, &options)
            .map_err(|e| Error::bug(format!("a window's rows do not fit their schema: {e}")))
    }

    fn final_rows(&self, range: PaneRange, results: &Results, out: &mut Output) -> Result<Delta> {
        self.set_aside(range, results, out)?;
        self.rows_of(range, &results.groups, &results.values, results.count)
            .map(Delta::append)
    }

    /// Tells of the groups that have no result.
    fn set_aside(&self, range: PaneRange, results: &Results, out: &mut Output) -> Result<()> {
        if results.failures.is_empty() {
            return Ok(());
        }
        let window = self.windows.bounds(range);
        let constant = |time: i64| TimestampNanosecondArray::from_value(time, results.failures.len());
        let bounds: Vec<(_, ArrayRef)> = vec![
            ("window_start", Arc::new(constant(window.start))),
            ("window_end", Arc::new(constant(window.end))),
        ];
        out.failed.extend(self.aggregation.failed_groups(results, bounds)?);
        Ok(())
    }

    fn changes_of(&self, range: PaneRange, table: &mut StateTable, out: &mut Output) -> Result<Option<Delta>> {
        let Some(touched) = table.take_touched()? else {
            return Ok(None);
        };
        self.set_aside(range, &touched.now, out)?;
        let rows = |groups: &[ArrayRef], values: &[ArrayRef], count| self.rows_of(range, groups, values, count);
        touched.delta(&self.result.schema, rows).map(Some)
    }

    /// Closes what the watermark closes, and hands on what an epoch changed.
    fn changes(&self, state: &mut State, out: &mut Output) -> Result<Vec<Delta>> {
        let mut changes = Vec::new();
        let (tables, recent) = match state {
            State::Shared(panes) => {
                while let Some((range, results)) = panes.close_next(self.closed.0)? {
                    changes.push(self.final_rows(range, &results, out)?);
                }
                return Ok(changes);
            }
            State::PerWindow { tables, recent } => (tables, recent),
        };
        for ((pane, first_end), table) in std::mem::take(recent) {
            let state = table.into_state()?;
            for range in self.windows.covering(pane).filter(|range| first_end <= range.end) {
                window_at(tables, range, &self.aggregation)?.update_states(&state)?;
            }
        }
        // Ordered by their ends: the windows to close come first.
        while let Some(entry) = tables.first_entry()
            && self.windows.bounds(*entry.key()).end <= self.closed.0
        {
            let (range, mut table) = entry.remove_entry();
            changes.extend(match self.result.emission {
                Emission::Changes if table.has_been_taken() => self.changes_of(range, &mut table, out)?,
                Emission::Changes | Emission::OnWindowClose => {
                    Some(self.final_rows(range, &table.into_results()?, out)?)
                }
            });
        }
        if self.result.emission == Emission::Changes {
            for (range, table) in tables {
                changes.extend(self.changes_of(*range, table, out)?);
            }
        }
        Ok(changes)
    }

    fn snapshot_schema(&self) -> SchemaRef {
        let own = ["end_pane", "first_pane"].map(|name| Arc::new(Field::new(name, DataType::Int64, false)));
        let fields = own
            .into_iter()
            .chain(self.aggregation.state_schema().fields().iter().cloned());
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// Rows that some window takes, and what consecutive ones of them go into.
struct Classified {
    rows: RecordBatch,
    runs: Runs,
}

fn window_at<'a>(
    tables: &'a mut BTreeMap<PaneRange, StateTable>,
    range: PaneRange,
    aggregation: &Arc<Aggregation>,
) -> Result<&'a mut StateTable> {
    use std::collections::btree_map::Entry;
    Ok(match tables.entry(range) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(StateTable::new(Arc::clone(aggregation))?),
    })
}

impl Operator for WindowAggregate {
    fn on_delta(&mut self, flow: Flow, out: &mut Output) -> Result<()> {
        if flow.delta.weights.is_some() {
            return Err(Error::bug("a windowed aggregate over rows that change was planned"));
        }
        let Classified { rows, mut runs } = self.classify(flow.delta.rows, flow.row_watermarks.as_ref(), out)?;
        if runs.is_empty() {
            return Ok(());
        }
        let (evaluated, is_good) = self.aggregation.evaluate_good(&rows, None, out)?;
        if let Some(is_good) = is_good {
            runs = of_good_rows(runs, &is_good);
        }
        if let [(class, _)] = runs.as_slice() {
            return self.update(*class, &evaluated);
        }
        // Rows mostly come in the order of time: then most rows of a pane are a slice, and only those around its edges are copied.
        let mut scattered: BTreeMap<Class, Vec<u32>> = BTreeMap::new();
        for (class, range) in runs {
            if range.len() < SLICE_ROWS_MIN {
                let rows = scattered.entry(class).or_default();
                rows.extend(range.start as u32..range.end as u32);
                continue;
            }
            // Those that came before go before.
            if let Some(rows) = scattered.remove(&class) {
                self.update(class, &evaluated.take(rows)?)?;
            }
            self.update(class, &evaluated.slice(range.start, range.len()))?;
        }
        for (class, rows) in scattered {
            self.update(class, &evaluated.take(rows)?)?;
        }
        Ok(())
    }

    fn on_epoch_end(&mut self, end: EpochEnd, out: &mut Output) -> Result<Watermark> {
        let closed = end.watermark.less(self.result.lateness_ns);
        assert!(self.closed <= closed, "the watermark went back to {closed}");
        self.closed = closed;
        let empty = State::PerWindow {
            tables: BTreeMap::new(),
            recent: BTreeMap::new(),
        };
        let mut state = std::mem::replace(&mut self.state, empty);
        let changes = self.changes(&mut state, out);
        self.state = state;
        // A row's key names its window, so the changes of all windows fit into one delta.
        out.push(Flow::of(Delta::concat(&self.result.schema, &changes?)?));
        // A row that is emitted from now on carries its window's end, so the watermark holds for it too.
        Ok(closed)
    }

    fn open_windows(&self) -> Option<OpenWindows> {
        let (first, last_end) = match &self.state {
            State::PerWindow { tables, .. } => {
                let (first, _) = tables.first_key_value()?;
                let (last, _) = tables.last_key_value()?;
                (self.windows.bounds(*first), self.windows.bounds(*last).end)
            }
            State::Shared(panes) => {
                let (first, last) = panes.open_windows()?;
                (self.windows.bounds(first), self.windows.bounds(last).end)
            }
        };
        let closes_at = |end: i64| Watermark(end).plus(self.result.lateness_ns);
        Some(OpenWindows {
            first_start: Some(first.start),
            first_end: first.end,
            first_closes_at: closes_at(first.end),
            all_close_at: closes_at(last_end),
        })
    }

    fn input_watermark(&self, watermark: Watermark) -> Option<Watermark> {
        Some(watermark.plus(self.result.lateness_ns))
    }

    fn snapshot(&mut self) -> Result<Saved> {
        let closed = Arc::new(Schema::new(vec![Field::new("closed", DataType::Int64, false)]));
        let closed = RecordBatch::try_new(closed, vec![Arc::new(Int64Array::from(vec![self.closed.0]))])
            .map_err(Error::of_arrow)?;
        let schema = self.snapshot_schema();
        let tables = match &mut self.state {
            State::Shared(panes) => {
                let panes = panes.snapshot()?;
                return Ok(Saved::later(move || Ok([vec![closed], panes.rows()?].concat())));
            }
            State::PerWindow { tables, .. } => (tables.iter_mut())
                .map(|(range, table)| Ok((*range, table.state()?)))
                .collect::<Result<Vec<_>>>()?,
        };
        Ok(Saved::later(move || {
            let mut parts = vec![closed, RecordBatch::new_empty(Arc::clone(&schema))];
            for (range, table) in tables {
                for state in table.rows()? {
                    let own = [range.end, range.first]
                        .map(|pane| Arc::new(Int64Array::from_value(pane, state.num_rows())) as ArrayRef);
                    let columns = own.into_iter().chain(state.columns().iter().cloned()).collect();
                    parts.push(RecordBatch::try_new(Arc::clone(&schema), columns).map_err(Error::of_arrow)?);
                }
            }
            Ok(parts)
        }))
    }

    fn restore(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        let other = || Error::state("the checkpoint of a windowed aggregate has other parts than expected");
        let (closed, parts) = state.split_first().ok_or_else(other)?;
        self.closed = Watermark(closed.column(0).as_primitive::<Int64Type>().value(0));
        let tables = match &mut self.state {
            State::Shared(panes) => return panes.restore(parts),
            State::PerWindow { tables, .. } => tables,
        };
        for rows in parts {
            let column = |index: usize| rows.column(index).as_primitive::<Int64Type>().values().to_vec();
            let ranges: Vec<(i64, i64)> = std::iter::zip(column(0), column(1)).collect();
            let states = rows
                .project(&(2..rows.num_columns()).collect::<Vec<_>>())
                .map_err(Error::of_arrow)?;
            let mut from = 0;
            for run in ranges.chunk_by(|a, b| a == b) {
                let (end, first) = run[0];
                // A checkpoint is taken at the end of an epoch, where everything had been handed on.
                window_at(tables, PaneRange { end, first }, &self.aggregation)?
                    .restore(&states.slice(from, run.len()))?;
                from += run.len();
            }
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        match &self.state {
            State::PerWindow { tables, .. } => tables.values().map(StateTable::memory_bytes).sum(),
            State::Shared(panes) => panes.memory_bytes(),
        }
    }
}
