//! Rows that are there only while the time of the epochs lies between two times of their own: what `now()` in WHERE means.
//!
//! ```text
//! row ─▶ [from, until) ─┬─ epoch time < from ──────────▶ waits          ── from reached ───▶ +row
//!                       ├─ from <= epoch time < until ─▶ +row, is valid ── until reached ──▶ −row
//!                       └─ until <= epoch time ────────▶ never appears
//! ```
//! A weight of −1 takes back a row that waits or is valid, and does nothing to one that has left. A row whose bound is null never
//! appears; one whose bound cannot be computed is set aside, and a weight of −1 for it passes in silence. Nothing here follows the watermark: what is handed on may leave again however complete the input is.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, TimestampNanosecondArray,
    },
    datatypes::{DataType, Date32Type, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType},
    row::{RowConverter, SortField},
};
use datafusion::physical_expr::PhysicalExpr;

use crate::types::{Delta, Error, EventTime, Result, Saved, Watermark};

use super::{EpochEnd, Flow, Operator, Output, aggregation::failed, segment::computed};

const DAY_NS: i128 = 86_400_000_000_000;

/// One end of the interval in which a row is there: `time + plus_ns`, rounded up to multiples of `step_ns` since 1970, less `minus_ns`.
///
/// So it compares `truncate(now() + minus_ns, step_ns)` with `time + plus_ns`.
#[derive(Clone, Debug)]
pub struct TimeBound {
    pub end: IntervalEnd,
    /// Over the row; a TIMESTAMP in nanoseconds, or a DATE.
    pub time: Arc<dyn PhysicalExpr>,
    pub plus_ns: i64,
    /// The end is not `time + plus_ns` but the nanosecond after it.
    pub is_after: bool,
    /// 1 where the time of the epoch is not truncated.
    pub step_ns: i64,
    pub minus_ns: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalEnd {
    /// The row is there from it on.
    From,
    /// The row is there until just before it.
    Until,
}

impl TimeBound {
    /// Per row, in nanoseconds since 1970. Beyond what a TIMESTAMP can say it is the nearest that it can.
    fn edges(&self, rows: &RecordBatch) -> Result<Int64Array> {
        let times = self
            .time
            .evaluate(rows)
            .and_then(|value| value.into_array(rows.num_rows()))
            .map_err(failed)?;
        let edge = |nanos: i128| {
            let (step, shifted) = (
                i128::from(self.step_ns),
                nanos + i128::from(self.plus_ns) + i128::from(self.is_after),
            );
            let rounded = shifted.div_euclid(step) * step;
            let rounded = if rounded < shifted { rounded + step } else { rounded };
            saturated(rounded - i128::from(self.minus_ns))
        };
        match times.data_type() {
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                let times = times.as_primitive::<TimestampNanosecondType>();
                Ok(times.unary(|time| edge(i128::from(time))))
            }
            DataType::Date32 => {
                let days = times.as_primitive::<Date32Type>();
                Ok(days.unary(|day| edge(i128::from(day) * DAY_NS)))
            }
            other => Err(Error::bug(format!("a time filter over {other} was planned"))),
        }
    }
}

fn saturated(nanos: i128) -> i64 {
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// A row by its encoding; equal rows are one, counted.
type RowKey = Box<[u8]>;

#[derive(Clone, Copy, Debug)]
struct Held {
    until: i64,
    /// How often the row is there; never 0 between epochs.
    weight: i64,
}

/// Rows by the time at which something happens to them.
type Due = BTreeMap<i64, BTreeMap<RowKey, Held>>;

/// Rows of the epoch at hand: where their interval begins and ends, and how often they came more than they went.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    from: i64,
    until: i64,
    weight: i64,
}

pub struct TemporalFilter {
    bounds: Vec<TimeBound>,
    schema: SchemaRef,
    encoder: RowConverter,
    /// By the time from which they are there, all above the time of the last epoch.
    waiting: Due,
    /// Those that will leave, by the time when they do: also above.
    valid: Due,
    arrived: BTreeMap<RowKey, Arrived>,
}

impl TemporalFilter {
    /// All `bounds` hold for a row that is there. `schema` is that of the rows, which come out as they went in.
    pub fn new(bounds: Vec<TimeBound>, schema: SchemaRef) -> Result<Self> {
        let fields = schema.fields().iter();
        let fields = fields.map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self {
            encoder: RowConverter::new(fields).map_err(Error::of_arrow)?,
            bounds,
            schema,
            waiting: Due::new(),
            valid: Due::new(),
            arrived: BTreeMap::new(),
        })
    }

    fn encode(&self, rows: &RecordBatch) -> Result<Vec<RowKey>> {
        if rows.num_columns() == 0 {
            return Ok(vec![RowKey::default(); rows.num_rows()]);
        }
        let encoded = self.encoder.convert_columns(rows.columns()).map_err(Error::of_arrow)?;
        Ok(encoded.iter().map(|row| row.data().into()).collect())
    }

    fn decode<'a>(&self, rows: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let count = rows.len();
        let columns = match self.schema.fields().is_empty() {
            true => Vec::new(),
            false => {
                let parser = self.encoder.parser();
                let rows = rows.map(|row| parser.parse(row));
                self.encoder.convert_rows(rows).map_err(Error::of_arrow)?
            }
        };
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(Error::of_arrow)
    }

    /// What the time of an epoch and the rows that came in it change of what is there, by row.
    fn changes(&mut self, epoch_time: EventTime) -> Result<BTreeMap<RowKey, i64>> {
        let mut changes: BTreeMap<RowKey, i64> = BTreeMap::new();
        let mut change = |row: &RowKey, weight: i64| *changes.entry(row.clone()).or_default() += weight;
        for rows in reached(&mut self.waiting, epoch_time) {
            for (row, held) in rows {
                if held.until <= epoch_time.0 {
                    // It was there between two epochs only.
                    continue;
                }
                change(&row, held.weight);
                add(&mut self.valid, held.until, row, held)?;
            }
        }
        for rows in reached(&mut self.valid, epoch_time) {
            for (row, held) in rows {
                change(&row, -held.weight);
            }
        }
        for (row, arrived) in std::mem::take(&mut self.arrived) {
            let Arrived { from, until, weight } = arrived;
            if weight == 0 || until <= epoch_time.0 {
                continue;
            }
            let held = Held { until, weight };
            if epoch_time.0 < from {
                add(&mut self.waiting, from, row, held)?;
                continue;
            }
            change(&row, weight);
            add(&mut self.valid, until, row, held)?;
        }
        changes.retain(|_, weight| *weight != 0);
        Ok(changes)
    }

    fn delta(&self, changes: &BTreeMap<RowKey, i64>) -> Result<Delta> {
        let rows = |sign: i64| {
            let of_sign = changes.iter().filter(move |(_, weight)| 0 < **weight * sign);
            let rows: Vec<&[u8]> = of_sign
                .flat_map(|(row, weight)| std::iter::repeat_n(row.as_ref(), weight.unsigned_abs() as usize))
                .collect();
            self.decode(rows.into_iter())
        };
        Ok(Delta::change(&self.schema, &rows(-1)?, &rows(1)?))
    }
}

/// Takes out what is due at `time` or before.
fn reached(due: &mut Due, time: EventTime) -> Vec<BTreeMap<RowKey, Held>> {
    match time.0.checked_add(1) {
        Some(after) => {
            let later = due.split_off(&after);
            std::mem::replace(due, later).into_values().collect()
        }
        None => std::mem::take(due).into_values().collect(),
    }
}

/// Counts a row in. One that never leaves is not kept: nothing happens to it any more.
fn add(due: &mut Due, at: i64, row: RowKey, held: Held) -> Result<()> {
    if at == i64::MAX {
        return Ok(());
    }
    let rows = due.entry(at).or_default();
    let left = match rows.entry(row) {
        Entry::Vacant(entry) => entry.insert(held).weight,
        Entry::Occupied(mut entry) => {
            entry.get_mut().weight += held.weight;
            let left = entry.get().weight;
            if left == 0 {
                entry.remove();
            }
            left
        }
    };
    if left < 0 {
        return Err(Error::bug("a row was retracted that had not come"));
    }
    if rows.is_empty() {
        due.remove(&at);
    }
    Ok(())
}

impl Operator for TemporalFilter {
    fn on_delta(&mut self, flow: Flow, out: &mut Output) -> Result<()> {
        let Flow {
            delta: Delta { mut rows, mut weights },
            mut row_watermarks,
        } = flow;
        let of = |rows: &RecordBatch| {
            let edges = self.bounds.iter().map(|bound| bound.edges(rows));
            edges.map(|edges| Ok(Arc::new(edges?) as ArrayRef)).collect()
        };
        let columns = computed("filter", &mut rows, &mut weights, &mut row_watermarks, of, out)?;
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let ends = self.bounds.iter().map(|bound| bound.end);
        let edges: Vec<(IntervalEnd, &Int64Array)> =
            std::iter::zip(ends, columns.iter().map(|edges| edges.as_primitive())).collect();
        for (row, key) in self.encode(&rows)?.into_iter().enumerate() {
            if edges.iter().any(|(_, edges)| edges.is_null(row)) {
                continue;
            }
            let of_end = |wanted: IntervalEnd| {
                edges
                    .iter()
                    .filter(move |(end, _)| *end == wanted)
                    .map(move |(_, edges)| edges.value(row))
            };
            let from = of_end(IntervalEnd::From).max().unwrap_or(i64::MIN);
            let until = of_end(IntervalEnd::Until).min().unwrap_or(i64::MAX);
            if until <= from {
                continue;
            }
            let arrived = self.arrived.entry(key).or_insert(Arrived { from, until, weight: 0 });
            arrived.weight += weights.as_ref().map_or(1, |weights| weights.value(row));
        }
        Ok(())
    }

    fn on_epoch_end(&mut self, end: EpochEnd, out: &mut Output) -> Result<Watermark> {
        let changes = self.changes(end.epoch_time)?;
        if !changes.is_empty() {
            out.push(Flow::of(self.delta(&changes)?));
        }
        let is_later = |due: &Due| due.first_key_value().is_none_or(|(at, _)| end.epoch_time.0 < *at);
        assert!(
            is_later(&self.waiting) && is_later(&self.valid),
            "a row is not where the time of the epoch puts it"
        );
        Ok(end.watermark)
    }

    fn wakes_at(&self) -> Option<EventTime> {
        let next = |due: &Due| due.first_key_value().map(|(at, _)| EventTime(*at));
        [next(&self.waiting), next(&self.valid)].into_iter().flatten().min()
    }

    fn snapshot(&mut self) -> Result<Saved> {
        let held: Vec<(bool, i64, &RowKey, Held)> = [(true, &self.waiting), (false, &self.valid)]
            .into_iter()
            .flat_map(|(is_waiting, due)| due.iter().map(move |(at, rows)| (is_waiting, *at, rows)))
            .flat_map(|(is_waiting, at, rows)| rows.iter().map(move |(row, held)| (is_waiting, at, row, *held)))
            .collect();
        let rows = self.decode(held.iter().map(|(_, _, row, _)| row.as_ref()))?;
        let own: [ArrayRef; 4] = [
            Arc::new(held.iter().map(|held| Some(held.0)).collect::<BooleanArray>()),
            Arc::new(TimestampNanosecondArray::from_iter_values(
                held.iter().map(|held| held.1),
            )),
            Arc::new(TimestampNanosecondArray::from_iter_values(
                held.iter().map(|held| held.3.until),
            )),
            Arc::new(Int64Array::from_iter_values(held.iter().map(|held| held.3.weight))),
        ];
        let columns: Vec<ArrayRef> = own.into_iter().chain(rows.columns().iter().cloned()).collect();
        let fields = columns
            .iter()
            .enumerate()
            .map(|(index, column)| Field::new(index.to_string(), column.data_type().clone(), true))
            .collect::<Vec<_>>();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(Error::of_arrow)?;
        Ok(Saved::now(vec![rows]))
    }

    fn restore(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        let other = || Error::state("the checkpoint of a time filter has other parts than expected");
        let [state] = state.as_slice() else {
            return Err(other());
        };
        if state.num_columns() != 4 + self.schema.fields().len() {
            return Err(other());
        }
        let (own, columns) = state.columns().split_at(4);
        let options = RecordBatchOptions::new().with_row_count(Some(state.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns.to_vec(), &options)
            .map_err(|_| other())?;
        let is_waiting = own[0].as_boolean();
        let times = [&own[1], &own[2]].map(|times| times.as_primitive::<TimestampNanosecondType>());
        let weights = own[3].as_primitive::<Int64Type>();
        for (row, key) in self.encode(&rows)?.into_iter().enumerate() {
            let held = Held {
                until: times[1].value(row),
                weight: weights.value(row),
            };
            let due = if is_waiting.value(row) {
                &mut self.waiting
            } else {
                &mut self.valid
            };
            add(due, times[0].value(row), key, held)?;
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        let of = |due: &Due| -> usize {
            due.values()
                .flat_map(BTreeMap::keys)
                .map(|row| row.len() + size_of::<(RowKey, Held)>())
                .sum()
        };
        of(&self.waiting) + of(&self.valid)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::physical_expr::expressions::Column;

    use super::*;

    /// `now() - 10 ns < at`, and where `waits` is said `at <= now()`.
    fn filter(waits: bool) -> TemporalFilter {
        let schema = schema();
        let bound = |end, plus_ns| TimeBound {
            end,
            time: Arc::new(Column::new("at", 0)),
            plus_ns,
            is_after: false,
            step_ns: 1,
            minus_ns: 0,
        };
        let mut bounds = vec![bound(IntervalEnd::Until, 10)];
        bounds.extend(waits.then(|| bound(IntervalEnd::From, 0)));
        TemporalFilter::new(bounds, schema).unwrap()
    }

    fn schema() -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
        Arc::new(Schema::new(vec![Field::new("at", time, true)]))
    }

    fn rows(times: &[Option<i64>]) -> RecordBatch {
        let times = TimestampNanosecondArray::from(times.to_vec());
        RecordBatch::try_new(schema(), vec![Arc::new(times)]).unwrap()
    }

    /// One epoch: rows with weights in, rows with weights out, each in order.
    fn epoch(filter: &mut TemporalFilter, time: i64, input: &[(Option<i64>, i64)]) -> Vec<(i64, i64)> {
        let mut out = Output::default();
        let (times, weights): (Vec<_>, Vec<_>) = input.iter().copied().unzip();
        let delta = Delta {
            rows: rows(&times),
            weights: Some(Int64Array::from(weights)),
        };
        filter.on_delta(Flow::of(delta), &mut out).unwrap();
        let end = EpochEnd {
            watermark: Watermark::START,
            epoch_time: EventTime(time),
        };
        filter.on_epoch_end(end, &mut out).unwrap();
        let mut found = Vec::new();
        for flow in out.flows {
            let times = flow.delta.rows.column(0).as_primitive::<TimestampNanosecondType>();
            for row in 0..times.len() {
                let weight = flow.delta.weights.as_ref().map_or(1, |weights| weights.value(row));
                found.push((times.value(row), weight));
            }
        }
        found
    }

    #[test]
    fn a_row_is_there_from_its_first_to_just_before_its_last_instant() {
        for (at, why) in [(0, "in the middle"), (-100, "before 1970")] {
            let mut filter = filter(true);
            assert_eq!(epoch(&mut filter, at - 1, &[(Some(at), 1)]), [], "{why}: it waits");
            assert_eq!(filter.wakes_at(), Some(EventTime(at)), "{why}");
            assert_eq!(
                epoch(&mut filter, at, &[]),
                [(at, 1)],
                "{why}: its first instant is inside"
            );
            assert_eq!(filter.wakes_at(), Some(EventTime(at + 10)), "{why}");
            assert_eq!(epoch(&mut filter, at + 9, &[]), [], "{why}: the last instant is inside");
            assert_eq!(
                epoch(&mut filter, at + 10, &[]),
                [(at, -1)],
                "{why}: the end is outside"
            );
            assert_eq!(filter.wakes_at(), None, "{why}: nothing is kept");
            assert_eq!(filter.memory_bytes(), 0, "{why}: nothing is kept");
        }
    }

    #[test]
    fn a_row_that_comes_when_it_is_over_never_appears_and_neither_does_one_that_no_epoch_meets() {
        let mut late = filter(true);
        assert_eq!(epoch(&mut late, 10, &[(Some(0), 1), (None, 1)]), []);
        assert_eq!(late.wakes_at(), None);
        let mut between = filter(true);
        assert_eq!(epoch(&mut between, 0, &[(Some(5), 1)]), []);
        assert_eq!(
            epoch(&mut between, 100, &[]),
            [],
            "from 5 to 15, and there was no epoch"
        );
    }

    #[test]
    fn a_retraction_takes_back_a_row_that_waits_or_is_there_and_passes_by_one_that_left() {
        let mut filter = filter(true);
        assert_eq!(epoch(&mut filter, 0, &[(Some(5), 1), (Some(0), 2)]), [(0, 1), (0, 1)]);
        assert_eq!(epoch(&mut filter, 1, &[(Some(5), -1), (Some(0), -1)]), [(0, -1)]);
        assert_eq!(
            epoch(&mut filter, 10, &[]),
            [(0, -1)],
            "once, for the one that was left"
        );
        assert_eq!(epoch(&mut filter, 11, &[(Some(0), -1)]), []);
        assert_eq!(filter.wakes_at(), None);
    }

    #[test]
    fn a_row_that_begins_and_is_taken_back_in_one_epoch_is_not_seen() {
        let mut filter = filter(true);
        assert_eq!(epoch(&mut filter, 0, &[(Some(5), 1)]), []);
        assert_eq!(epoch(&mut filter, 5, &[(Some(5), -1)]), []);
        assert_eq!(epoch(&mut filter, 6, &[(Some(6), 1), (Some(6), -1)]), []);
        assert_eq!(filter.wakes_at(), None);
    }

    #[test]
    fn what_a_checkpoint_holds_goes_on_as_if_nothing_had_happened() {
        let mut filter_before = filter(true);
        epoch(&mut filter_before, 0, &[(Some(5), 1), (Some(0), 3), (Some(-4), 1)]);
        let state = filter_before.snapshot().unwrap().rows().unwrap();
        let mut after = filter(true);
        after.restore(state.clone()).unwrap();
        assert_eq!(
            after.snapshot().unwrap().rows().unwrap(),
            state,
            "nothing is lost and nothing is added"
        );
        for time in [5, 6, 10, 15] {
            assert_eq!(
                epoch(&mut filter_before, time, &[]),
                epoch(&mut after, time, &[]),
                "{time}"
            );
        }
        assert_eq!(after.wakes_at(), None);
    }

    #[test]
    fn times_at_the_edge_of_what_a_timestamp_can_say_do_not_wrap() {
        let mut filter = filter(false);
        let found = epoch(&mut filter, 0, &[(Some(i64::MAX - 3), 1), (Some(i64::MIN), 1)]);
        assert_eq!(found, [(i64::MAX - 3, 1)]);
        assert_eq!(filter.wakes_at(), None, "it never leaves");
    }

    #[test]
    fn a_truncated_time_rounds_the_bound_up() {
        let bound = TimeBound {
            end: IntervalEnd::From,
            time: Arc::new(Column::new("at", 0)),
            plus_ns: 0,
            is_after: false,
            step_ns: 60,
            minus_ns: 0,
        };
        for (at, expected, why) in [
            (0, 0, "a multiple stays"),
            (1, 60, "up"),
            (60, 60, "a multiple stays"),
            (-1, 0, "up, before 1970 too"),
            (-60, -60, "a multiple stays"),
        ] {
            let edges = bound.edges(&rows(&[Some(at)])).unwrap();
            assert_eq!(edges.value(0), expected, "{why}");
        }
    }
}
