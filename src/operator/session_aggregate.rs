//! Aggregates per session: rows of a key that follow each other within a gap.
//!
//! ```text
//! rows of an epoch ─▶ runs per key (sorted by time, cut at gaps) ─▶ accumulators, one state per run
//!                                                                       │ end of epoch
//! open sessions ──────────────────────── overlap? ─────────────────────▶ merged states ─▶ what changed | final rows
//! ```
//! A session is `[first row, last row + gap)`; a row at its end begins the next one. A row is late when its own time is below how far its
//! split was complete, less the lateness: then no accepted row ever meets a closed session. Raw rows are not kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ahash::HashMap;
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, TimestampNanosecondArray,
    },
    compute::{filter, filter_record_batch},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampNanosecondType},
    row::{RowConverter, SortField},
};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use crate::types::{
    Delta, Error, Result, Saved, Watermark,
    planted::{Bug, has},
};

use super::{
    Aggregation, EpochEnd, Flow, LateRows, OpenWindows, Operator, Output,
    aggregation::{Evaluated, Results, failed},
    state_table::StateRows,
    window_aggregate::{Emission, OutputColumn, WindowResult},
};

pub struct SessionAggregate {
    aggregation: Arc<Aggregation>,
    /// The input column with the event time.
    time: usize,
    gap_ns: i64,
    result: WindowResult,
    /// Sessions that end at or before it are closed.
    closed: Watermark,
    encoder: RowConverter,
    runs: Runs,
    open: HashMap<Box<[u8]>, Vec<Session>>,
    /// The slot of each open session by its end and key.
    by_end: BTreeMap<(i64, Box<[u8]>), usize>,
    /// Group and state columns by slot.
    states: StateRows,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    first: i64,
    last: i64,
    slot: usize,
}

/// The rows of the epoch at hand, as runs: of one key, each row within the gap of the one before.
struct Runs {
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// Group columns of the runs, in parts.
    groups: Vec<Vec<ArrayRef>>,
    bounds: Vec<(i64, i64)>,
}

impl SessionAggregate {
    /// `aggregation` is grouped by the session's key alone.
    pub fn new(aggregation: Arc<Aggregation>, time: usize, gap_ns: i64, result: WindowResult) -> Result<Self> {
        let fields = aggregation.state_schema().fields()[..aggregation.group_count()]
            .iter()
            .map(|field| SortField::new(field.data_type().clone()))
            .collect();
        Ok(Self {
            encoder: RowConverter::new(fields).map_err(Error::of_arrow)?,
            runs: Runs::new(&aggregation)?,
            aggregation,
            time,
            gap_ns,
            result,
            closed: Watermark::START,
            open: HashMap::default(),
            by_end: BTreeMap::new(),
            states: StateRows::default(),
        })
    }

    fn end_of(&self, last: i64) -> i64 {
        last.saturating_add(self.gap_ns)
    }

    /// Rows whose session may have ended for their split, set aside.
    fn set_late_aside(&self, rows: RecordBatch, watermarks: &Int64Array, out: &mut Output) -> Result<RecordBatch> {
        let times = rows.column(self.time).as_primitive::<TimestampNanosecondType>();
        let is_late: BooleanArray = times
            .iter()
            .zip(watermarks.values())
            .map(|(time, complete)| {
                Some(time.is_some_and(|time| time < complete.saturating_sub(self.result.lateness_ns)))
            })
            .collect();
        if is_late.true_count() == 0 {
            return Ok(rows);
        }
        let starts: Int64Array = filter(times, &is_late)
            .map_err(Error::of_arrow)?
            .as_primitive::<TimestampNanosecondType>()
            .reinterpret_cast();
        out.late.push(LateRows {
            rows: filter_record_batch(&rows, &is_late).map_err(Error::of_arrow)?,
            // The session that the row would be by itself.
            window_ends: starts.unary(|start| self.end_of(start)),
            window_starts: starts,
            watermarks: filter(watermarks, &is_late)
                .map_err(Error::of_arrow)?
                .as_primitive()
                .clone(),
        });
        filter_record_batch(&rows, &arrow::compute::not(&is_late).map_err(Error::of_arrow)?).map_err(Error::of_arrow)
    }

    /// Merges the runs of the epoch with the open sessions that they touch. Gives what was there and what is there now.
    fn merge(&mut self) -> Result<Option<Merged>> {
        let fresh = Runs::new(&self.aggregation)?;
        let runs = std::mem::replace(&mut self.runs, fresh);
        if runs.bounds.is_empty() {
            return Ok(None);
        }
        let bounds = runs.bounds.clone();
        let (groups, run_states) = runs.into_state()?;
        let width = self.aggregation.group_count();
        let keys: Vec<Box<[u8]>> = match width {
            0 => vec![Box::default(); bounds.len()],
            _ => {
                let encoded = self.encoder.convert_columns(&groups).map_err(Error::of_arrow)?;
                encoded.iter().map(|row| row.data().into()).collect()
            }
        };
        // Runs by key in the order of their first appearance, so that slots are handed out alike in every replay.
        let mut runs_of: HashMap<&[u8], Vec<usize>> = HashMap::default();
        let mut order: Vec<&[u8]> = Vec::new();
        for (run, key) in keys.iter().enumerate() {
            let of_key = runs_of.entry(key).or_default();
            if of_key.is_empty() {
                order.push(key);
            }
            of_key.push(run);
        }
        let mut before: Vec<Session> = Vec::new();
        // Of each old session and each run: which of the sessions of now it is part of.
        let (mut old_into, mut run_into) = (Vec::new(), vec![0; bounds.len()]);
        let mut now: Vec<(i64, i64, usize, &[u8])> = Vec::new();
        for key in order {
            enum Part {
                Old(Session),
                Run(usize),
            }
            let mut parts: Vec<(i64, i64, Part)> = runs_of[key]
                .iter()
                .map(|run| (bounds[*run].0, bounds[*run].1, Part::Run(*run)))
                .collect();
            let sessions = self.open.remove(key).unwrap_or_default();
            parts.extend(sessions.iter().map(|old| (old.first, old.last, Part::Old(*old))));
            // Old sessions first among equals: their rows were there first.
            parts.sort_by_key(|(first, last, part)| (*first, matches!(part, Part::Run(_)), *last));
            let mut kept = Vec::new();
            let mut at = 0;
            while at < parts.len() {
                let (first, mut last) = (parts[at].0, parts[at].1);
                let mut to = at + 1;
                while to < parts.len()
                    && (parts[to].0 < self.end_of(last)
                        || has(Bug::SessionSplitOffByOne) && parts[to].0 == self.end_of(last))
                {
                    last = last.max(parts[to].1);
                    to += 1;
                }
                if let [(_, _, Part::Old(old))] = &parts[at..to] {
                    kept.push(*old);
                } else {
                    for (_, _, part) in &parts[at..to] {
                        match part {
                            Part::Old(old) => {
                                before.push(*old);
                                old_into.push(now.len());
                            }
                            Part::Run(run) => run_into[*run] = now.len(),
                        }
                    }
                    let a_run = parts[at..to]
                        .iter()
                        .find_map(|(_, _, part)| match part {
                            Part::Run(run) => Some(*run),
                            Part::Old(_) => None,
                        })
                        .expect("sessions that are open do not touch each other");
                    now.push((first, last, a_run, key));
                }
                at = to;
            }
            if !kept.is_empty() {
                self.open.insert(key.into(), kept);
            }
        }

        let old_slots: Vec<usize> = before.iter().map(|old| old.slot).collect();
        let old_rows = self.states.gather(&old_slots, 0)?;
        let (old_groups, old_states) = match old_rows.is_empty() {
            true => (Vec::new(), Vec::new()),
            false => (old_rows[..width].to_vec(), old_rows[width..].to_vec()),
        };
        let states = match before.is_empty() {
            true => self.aggregation.merge_states(&[(&run_states, &run_into)], now.len())?,
            false => self
                .aggregation
                .merge_states(&[(&old_states, &old_into), (&run_states, &run_into)], now.len())?,
        };
        let representatives: arrow::array::UInt32Array = now.iter().map(|(_, _, run, _)| *run as u32).collect();
        let groups = arrow::compute::take_arrays(&groups, &representatives, None).map_err(Error::of_arrow)?;
        for (old, now_of_it) in before.iter().zip(&old_into) {
            self.by_end.remove(&(self.end_of(old.last), now[*now_of_it].3.into()));
            self.states.remove(old.slot);
        }
        let mut slots = Vec::with_capacity(now.len());
        for (first, last, _, key) in &now {
            let slot = self.states.allocate();
            slots.push(slot);
            let session = Session {
                first: *first,
                last: *last,
                slot,
            };
            self.open.entry((*key).into()).or_default().push(session);
            self.by_end.insert((self.end_of(*last), (*key).into()), slot);
        }
        let columns = groups.iter().chain(&states).cloned().collect();
        self.states.put(&slots, columns)?;
        Ok(Some(Merged {
            before: before.iter().map(|old| (old.first, old.last)).collect(),
            before_into: old_into,
            groups_before: old_groups,
            states_before: old_states,
            now: now.iter().map(|(first, last, ..)| (*first, *last)).collect(),
            groups,
            states,
        }))
    }

    /// The rows of these sessions, and which of them have none.
    fn rows_of(
        &self,
        bounds: &[(i64, i64)],
        groups: &[ArrayRef],
        states: &[ArrayRef],
    ) -> Result<(RecordBatch, Results)> {
        let results = match bounds.is_empty() {
            true => Results::default(),
            false => self
                .aggregation
                .evaluate_states(groups.to_vec(), states, bounds.len())?,
        };
        if results.count == 0 {
            return Ok((RecordBatch::new_empty(Arc::clone(&self.result.schema)), results));
        }
        let Results { groups, values, .. } = &results;
        let failed: BTreeSet<usize> = results.failures.iter().map(|(session, _)| *session).collect();
        let good = |session: &usize| !failed.contains(session);
        let bounds: Vec<(i64, i64)> = (0..bounds.len()).filter(good).map(|session| bounds[session]).collect();
        let columns = self
            .result
            .columns
            .iter()
            .map(|column| match column {
                OutputColumn::WindowStart => time_array(bounds.iter().map(|(first, _)| *first)),
                OutputColumn::WindowEnd => time_array(bounds.iter().map(|(_, last)| self.end_of(*last))),
                OutputColumn::Group(index) => Arc::clone(&groups[*index]),
                OutputColumn::Function(index) => Arc::clone(&values[*index]),
            })
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(bounds.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.result.schema), columns, &options)
            .map_err(|e| Error::bug(format!("a session's rows do not fit their schema: {e}")))?;
        Ok((rows, results))
    }

    /// Tells of the sessions that have no result.
    fn set_aside(&self, bounds: &[(i64, i64)], results: &Results, out: &mut Output) -> Result<()> {
        let of_failed = || results.failures.iter().map(|(session, _)| bounds[*session]);
        let starts = time_array(of_failed().map(|(first, _)| first));
        let ends = time_array(of_failed().map(|(_, last)| self.end_of(last)));
        let more = vec![("window_start", starts), ("window_end", ends)];
        out.failed.extend(self.aggregation.failed_groups(results, more)?);
        Ok(())
    }

    /// Forgets the sessions that the watermark closes, and gives their rows where they are wanted.
    fn close(&mut self, out: &mut Output) -> Result<Option<Delta>> {
        let mut bounds = Vec::new();
        let mut slots = Vec::new();
        while let Some(entry) = self.by_end.first_entry()
            && entry.key().0 <= self.closed.0
        {
            let ((_, key), slot) = entry.remove_entry();
            let sessions = self
                .open
                .get_mut(&key)
                .expect("an open session is listed under its key");
            let place = sessions
                .iter()
                .position(|session| session.slot == slot)
                .expect("listed twice, alike");
            let session = sessions.remove(place);
            if sessions.is_empty() {
                self.open.remove(&key);
            }
            bounds.push((session.first, session.last));
            slots.push(slot);
        }
        if slots.is_empty() {
            return Ok(None);
        }
        let delta = match self.result.emission {
            // It was handed on as it stands.
            Emission::Changes => None,
            Emission::OnWindowClose => {
                let rows = self.states.gather(&slots, 0)?;
                let (groups, states) = rows.split_at(self.aggregation.group_count());
                let (rows, results) = self.rows_of(&bounds, groups, states)?;
                self.set_aside(&bounds, &results, out)?;
                Some(Delta::append(rows))
            }
        };
        for slot in slots {
            self.states.remove(slot);
        }
        Ok(delta)
    }
}

/// Sessions that an epoch touched, as they were and as they are.
struct Merged {
    before: Vec<(i64, i64)>,
    /// Of each of these the session of now that it is part of.
    before_into: Vec<usize>,
    groups_before: Vec<ArrayRef>,
    states_before: Vec<ArrayRef>,
    now: Vec<(i64, i64)>,
    groups: Vec<ArrayRef>,
    states: Vec<ArrayRef>,
}

impl Runs {
    fn new(aggregation: &Aggregation) -> Result<Self> {
        Ok(Self {
            accumulators: aggregation.accumulators()?,
            groups: Vec::new(),
            bounds: Vec::new(),
        })
    }

    fn update(&mut self, aggregation: &Aggregation, times: &[i64], rows: &Evaluated, gap_ns: i64) -> Result<()> {
        let mut key_of_row = Vec::new();
        match aggregation.group_values()? {
            Some(mut groups) => groups.intern(rows.groups(), &mut key_of_row).map_err(failed)?,
            None => key_of_row.resize(times.len(), 0),
        }
        let keys = key_of_row.iter().max().map_or(0, |key| key + 1);
        // By key, then time, then arrival: a counting sort by key over rows in the order of time.
        let mut by_time: Vec<u32> = (0..times.len() as u32).collect();
        if !times.is_sorted() {
            by_time.sort_by_key(|row| times[*row as usize]);
        }
        // Per key, the run that is growing and its last row.
        let mut growing: Vec<Option<(usize, i64)>> = vec![None; keys];
        let mut run_of_row = vec![0; times.len()];
        let mut representatives = Vec::new();
        for row in by_time {
            let (row, time) = (row as usize, times[row as usize]);
            let slot = &mut growing[key_of_row[row]];
            match slot {
                Some((run, last)) if time < last.saturating_add(gap_ns) => {
                    *last = time;
                    self.bounds[*run].1 = time;
                    run_of_row[row] = *run;
                }
                _ => {
                    let run = self.bounds.len();
                    self.bounds.push((time, time));
                    representatives.push(row as u32);
                    run_of_row[row] = run;
                    *slot = Some((run, time));
                }
            }
        }
        let representatives = arrow::array::UInt32Array::from(representatives);
        self.groups
            .push(arrow::compute::take_arrays(rows.groups(), &representatives, None).map_err(Error::of_arrow)?);
        let total = self.bounds.len();
        rows.update(&mut self.accumulators, &run_of_row, total)
    }

    /// Group and state columns, a row per run.
    fn into_state(mut self) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let width = self.groups.first().map_or(0, Vec::len);
        let groups = (0..width)
            .map(|column| {
                let parts: Vec<&dyn Array> = self.groups.iter().map(|part| part[column].as_ref()).collect();
                let all = arrow::compute::concat(&parts).map_err(Error::of_arrow)?;
                // A view of text holds the text of all rows that came with it.
                Ok(match all.as_string_view_opt() {
                    Some(texts) => Arc::new(texts.gc()),
                    None => all,
                })
            })
            .collect::<Result<_>>()?;
        let mut states = Vec::new();
        for accumulator in &mut self.accumulators {
            states.extend(accumulator.state(EmitTo::All).map_err(failed)?);
        }
        Ok((groups, states))
    }
}

impl Operator for SessionAggregate {
    fn on_delta(&mut self, flow: Flow, out: &mut Output) -> Result<()> {
        if flow.delta.weights.is_some() {
            return Err(Error::bug("sessions over rows that change were planned"));
        }
        let mut rows = flow.delta.rows;
        if let Some(watermarks) = &flow.row_watermarks {
            rows = self.set_late_aside(rows, watermarks, out)?;
        }
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let (evaluated, is_good) = self.aggregation.evaluate_good(&rows, None, out)?;
        if let Some(is_good) = is_good {
            // A row that has no part in a result holds no session together.
            rows = filter_record_batch(&rows, &is_good).map_err(Error::of_arrow)?;
            if rows.num_rows() == 0 {
                return Ok(());
            }
        }
        let times = rows.column(self.time).as_primitive::<TimestampNanosecondType>().clone();
        self.runs
            .update(&self.aggregation, times.values(), &evaluated, self.gap_ns)
    }

    fn on_epoch_end(&mut self, end: EpochEnd, out: &mut Output) -> Result<Watermark> {
        let merged = self.merge()?;
        let closed = end.watermark.less(self.result.lateness_ns);
        assert!(self.closed <= closed, "the watermark went back to {closed}");
        self.closed = closed;
        if let Some(merged) = merged
            && self.result.emission == Emission::Changes
        {
            let (retracted, before) = self.rows_of(&merged.before, &merged.groups_before, &merged.states_before)?;
            let (added, mut now) = self.rows_of(&merged.now, &merged.groups, &merged.states)?;
            // A session that goes on without a result was told of.
            let known = before.failures.iter().map(|(old, _)| merged.before_into[*old]);
            now.forget_failures(&known.collect())?;
            self.set_aside(&merged.now, &now, out)?;
            out.push(Flow::of(Delta::change(&self.result.schema, &retracted, &added)));
        }
        if let Some(delta) = self.close(out)? {
            out.push(Flow::of(delta));
        }
        Ok(closed)
    }

    fn open_windows(&self) -> Option<OpenWindows> {
        let ((first_end, key), slot) = self.by_end.first_key_value()?;
        let ((last_end, _), _) = self.by_end.last_key_value()?;
        let mut sessions = self.open.get(key)?.iter();
        let closes_at = |end: i64| Watermark(end).plus(self.result.lateness_ns);
        Some(OpenWindows {
            first_start: sessions
                .find(|session| session.slot == *slot)
                .map(|session| session.first),
            first_end: *first_end,
            first_closes_at: closes_at(*first_end),
            all_close_at: closes_at(*last_end),
        })
    }

    fn input_watermark(&self, watermark: Watermark) -> Option<Watermark> {
        Some(watermark.plus(self.result.lateness_ns))
    }

    fn snapshot(&mut self) -> Result<Saved> {
        let head = Arc::new(Schema::new(vec![Field::new("closed", DataType::Int64, false)]));
        let head = RecordBatch::try_new(head, vec![Arc::new(Int64Array::from(vec![self.closed.0]))])
            .map_err(Error::of_arrow)?;
        let mut sessions: Vec<Session> = self.open.values().flatten().copied().collect();
        let own = ["first", "last"].map(|name| Arc::new(Field::new(name, DataType::Int64, false)));
        let fields = own
            .into_iter()
            .chain(self.aggregation.state_schema().fields().iter().cloned());
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let states = self.states.share();
        Ok(Saved::later(move || {
            sessions.sort_by_key(|session| session.slot);
            let slots = sessions.iter().map(|session| session.slot);
            let mut rest = sessions.as_slice();
            let mut parts = vec![head, RecordBatch::new_empty(Arc::clone(&schema))];
            for (states, count) in states.batches(slots)? {
                let rows;
                (rows, rest) = rest.split_at(count);
                let bound =
                    |of: fn(&Session) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) as ArrayRef;
                let bounds = [bound(|session| session.first), bound(|session| session.last)];
                let columns = bounds.into_iter().chain(states).collect();
                parts.push(RecordBatch::try_new(Arc::clone(&schema), columns).map_err(Error::of_arrow)?);
            }
            Ok(parts)
        }))
    }

    fn restore(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        let Some((head, batches)) = state.split_first() else {
            return Err(Error::state("the checkpoint of sessions has other parts than expected"));
        };
        self.closed = Watermark(head.column(0).as_primitive::<Int64Type>().value(0));
        let mut first_slot = 0;
        for rows in batches.iter().filter(|rows| 0 < rows.num_rows()) {
            self.restore_rows(rows, first_slot)?;
            first_slot += rows.num_rows();
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        let keys: usize = self
            .by_end
            .keys()
            .map(|(_, key)| 2 * (key.len() + size_of::<Session>()))
            .sum();
        self.states.memory_bytes() + keys
    }
}

impl SessionAggregate {
    /// Open sessions of a snapshot, which get the slots from `first_slot` on.
    fn restore_rows(&mut self, rows: &RecordBatch, first_slot: usize) -> Result<()> {
        if rows.num_columns() != 2 + self.aggregation.state_schema().fields().len() {
            return Err(Error::state(
                "the checkpoint of sessions has other columns than their definition",
            ));
        }
        let width = self.aggregation.group_count();
        let bounds = |column: usize| rows.column(column).as_primitive::<Int64Type>();
        let keys: Vec<Box<[u8]>> = match width {
            0 => vec![Box::default(); rows.num_rows()],
            _ => {
                let encoded = self
                    .encoder
                    .convert_columns(&rows.columns()[2..2 + width])
                    .map_err(Error::of_arrow)?;
                encoded.iter().map(|row| row.data().into()).collect()
            }
        };
        for (row, key) in keys.into_iter().enumerate() {
            let slot = first_slot + row;
            let session = Session {
                first: bounds(0).value(row),
                last: bounds(1).value(row),
                slot,
            };
            self.by_end.insert((self.end_of(session.last), key.clone()), slot);
            self.open.entry(key).or_default().push(session);
        }
        let slots: Vec<usize> = (first_slot..first_slot + rows.num_rows()).collect();
        self.states.put(&slots, rows.columns()[2..].to_vec())
    }
}

fn time_array(times: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampNanosecondArray::from_iter_values(times))
}
