//! When rows appear: at most every interval, or once their window is closed.
//!
//! ```text
//! deltas ─▶ EmitEvery ── epoch time reaches the next interval ──▶ all that gathered
//! deltas ─▶ WindowCloseGate ── watermark reaches window_end ──▶ what is left of them, once
//! ```
//! Both take any weights. Neither changes which rows there are in the end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::{
    array::{Array, AsArray, Int64Array, RecordBatch, UInt32Array},
    compute::{concat_batches, take, take_record_batch},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampNanosecondType},
    row::{RowConverter, SortField},
};

use crate::types::{Delta, Error, EventTime, Result, Saved, Watermark};

use super::{
    EpochEnd, Flow, OpenWindows, Operator, Output,
    pending::{Net, Pending},
};

/// Hands deltas on at multiples of an interval of epoch time, counted from 1970; what cancels out of them is not handed on.
pub struct EmitEvery {
    interval_ns: i64,
    pending: Pending,
    /// The multiple at which what is pending goes on.
    due: Option<EventTime>,
    /// What was handed on is complete up to here: it waits with what is pending.
    watermark: Watermark,
}

impl EmitEvery {
    pub fn new(interval: Duration) -> Self {
        let interval_ns = i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX).max(1);
        Self {
            interval_ns,
            pending: Pending::default(),
            due: None,
            watermark: Watermark::START,
        }
    }

    fn next_multiple(&self, time: EventTime) -> EventTime {
        EventTime((time.0.div_euclid(self.interval_ns) + 1).saturating_mul(self.interval_ns))
    }
}

impl Operator for EmitEvery {
    fn on_delta(&mut self, flow: Flow, _out: &mut Output) -> Result<()> {
        self.pending.push(flow.delta)
    }

    fn on_epoch_end(&mut self, end: EpochEnd, out: &mut Output) -> Result<Watermark> {
        let is_due = self.due.is_some_and(|due| due <= end.epoch_time) || end.watermark == Watermark::END;
        if is_due {
            self.due = None;
            for delta in self.pending.take()? {
                out.push(Flow::of(delta));
            }
        } else if self.due.is_none() && !self.pending.is_empty() {
            self.due = Some(self.next_multiple(end.epoch_time));
        }
        if self.pending.is_empty() {
            self.watermark = end.watermark;
        }
        Ok(self.watermark)
    }

    fn wakes_at(&self) -> Option<EventTime> {
        self.due
    }

    fn snapshot(&mut self) -> Result<Saved> {
        let head = Schema::new(vec![
            Field::new("due", DataType::Int64, true),
            Field::new("watermark", DataType::Int64, false),
        ]);
        let due = Int64Array::from(vec![self.due.map(|due| due.0)]);
        let watermark = Int64Array::from(vec![self.watermark.0]);
        let head = RecordBatch::try_new(Arc::new(head), vec![Arc::new(due), Arc::new(watermark)]);
        let head = head.map_err(Error::of_arrow)?;
        let pending = self.pending.settled()?.to_vec();
        Ok(Saved::later(move || {
            std::iter::once(Ok(head))
                .chain(pending.iter().map(with_weights))
                .collect()
        }))
    }

    fn restore(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        let mut state = state.into_iter();
        let head = state
            .next()
            .ok_or_else(|| Error::state("the checkpoint of an interval is empty"))?;
        let due = head.column(0).as_primitive::<Int64Type>();
        self.due = due.is_valid(0).then(|| EventTime(due.value(0)));
        self.watermark = Watermark(head.column(1).as_primitive::<Int64Type>().value(0));
        for batch in state {
            let mut delta = without_weights(batch)?;
            // Append-only deltas stay so: who takes them may know no others.
            if delta
                .weights
                .as_ref()
                .is_some_and(|weights| weights.values().iter().all(|weight| *weight == 1))
            {
                delta.weights = None;
            }
            self.pending.push(delta)?;
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.pending.memory_bytes()
    }
}

/// After so many changes of a window what cancels out of them is dropped, so that rows are held and not their history.
const DELTAS_PER_SETTLING: usize = 64;

/// Holds rows back until the window that they belong to is closed.
pub struct WindowCloseGate {
    schema: SchemaRef,
    /// The column with the end of the window.
    window_end: usize,
    encoder: RowConverter,
    watermark: Watermark,
    /// By the end of their windows, all above `watermark`.
    held: BTreeMap<i64, Vec<Delta>>,
}

impl WindowCloseGate {
    pub fn new(schema: SchemaRef, window_end: usize) -> Result<Self> {
        let fields = schema
            .fields()
            .iter()
            .map(|field| SortField::new(field.data_type().clone()))
            .collect();
        let encoder = RowConverter::new(fields).map_err(Error::of_arrow)?;
        Ok(Self {
            schema,
            window_end,
            encoder,
            watermark: Watermark::START,
            held: BTreeMap::new(),
        })
    }

    /// Adds and retractions of the same row cancel; what is left stands in the order of arrival.
    fn settle(&self, deltas: &[Delta]) -> Result<RecordBatch> {
        if deltas.iter().all(|delta| delta.weights.is_none()) {
            return concat_batches(&self.schema, deltas.iter().map(|delta| &delta.rows)).map_err(Error::of_arrow);
        }
        let parts = deltas.iter().map(with_weights).collect::<Result<Vec<_>>>()?;
        let all = concat_batches(&parts[0].schema(), &parts).map_err(Error::of_arrow)?;
        let delta = without_weights(all)?;
        let net = Net::of(&self.encoder, &delta)?;
        if !net.retracted.is_empty() {
            return Err(Error::bug("a retracted row was not held"));
        }
        take_record_batch(&delta.rows, &UInt32Array::from(net.added)).map_err(Error::of_arrow)
    }
}

impl Operator for WindowCloseGate {
    fn on_delta(&mut self, flow: Flow, _out: &mut Output) -> Result<()> {
        let ends = flow.delta.rows.column(self.window_end);
        let ends = ends.as_primitive::<TimestampNanosecondType>().clone();
        // Stable: rows of one window stay in the order in which they came. One without an end is in no window.
        let mut rows: Vec<u32> = (0..ends.len() as u32)
            .filter(|row| ends.is_valid(*row as usize))
            .collect();
        rows.sort_by_key(|row| ends.value(*row as usize));
        for rows in rows.chunk_by(|a, b| ends.value(*a as usize) == ends.value(*b as usize)) {
            let end = ends.value(rows[0] as usize);
            assert!(self.watermark.0 < end, "a closed window does not change");
            let delta = match rows.len() == flow.delta.rows.num_rows() {
                true => flow.delta.clone(),
                // Copied, so that a window does not hold the rows of others.
                false => picked(&flow.delta, rows)?,
            };
            let held = self.held.entry(end).or_default();
            held.push(delta);
            if DELTAS_PER_SETTLING <= held.len() {
                let settled = self.settle(&self.held[&end])?;
                self.held.insert(end, vec![Delta::append(settled)]);
            }
        }
        Ok(())
    }

    fn on_epoch_end(&mut self, end: EpochEnd, out: &mut Output) -> Result<Watermark> {
        self.watermark = end.watermark;
        let mut closed = Vec::new();
        while let Some(entry) = self.held.first_entry()
            && *entry.key() <= end.watermark.0
        {
            closed.extend(entry.remove());
        }
        if !closed.is_empty() {
            // Rows of different windows differ in its end, so that all of them settle at once.
            out.push(Flow::of(Delta::append(self.settle(&closed)?)));
        }
        Ok(end.watermark)
    }

    fn open_windows(&self) -> Option<OpenWindows> {
        let (first, _) = self.held.first_key_value()?;
        let (last, _) = self.held.last_key_value()?;
        Some(OpenWindows {
            first_start: None,
            first_end: *first,
            first_closes_at: Watermark(*first),
            all_close_at: Watermark(*last),
        })
    }

    fn snapshot(&mut self) -> Result<Saved> {
        let watermark = Schema::new(vec![Field::new("watermark", DataType::Int64, false)]);
        let watermark = RecordBatch::try_new(
            Arc::new(watermark),
            vec![Arc::new(Int64Array::from(vec![self.watermark.0]))],
        );
        let watermark = watermark.map_err(Error::of_arrow)?;
        let held: Vec<Delta> = self.held.values().flatten().cloned().collect();
        Ok(Saved::later(move || {
            std::iter::once(Ok(watermark))
                .chain(held.iter().map(with_weights))
                .collect()
        }))
    }

    fn restore(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        let mut state = state.into_iter();
        let watermark = state
            .next()
            .ok_or_else(|| Error::state("the checkpoint of held windows is empty"))?;
        self.watermark = Watermark(watermark.column(0).as_primitive::<Int64Type>().value(0));
        for batch in state {
            self.on_delta(Flow::of(without_weights(batch)?), &mut Output::default())?;
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.held
            .values()
            .flatten()
            .map(|delta| delta.rows.get_array_memory_size())
            .sum::<usize>()
            + self.schema.fields().len()
    }
}

/// These rows of a delta.
fn picked(delta: &Delta, rows: &[u32]) -> Result<Delta> {
    let rows = UInt32Array::from(rows.to_vec());
    let weights = delta.weights.as_ref().map(|weights| take(weights, &rows, None));
    Ok(Delta {
        weights: match weights {
            Some(weights) => Some(weights.map_err(Error::of_arrow)?.as_primitive().clone()),
            None => None,
        },
        rows: take_record_batch(&delta.rows, &rows).map_err(Error::of_arrow)?,
    })
}

/// The rows with their weights as a last column.
fn with_weights(delta: &Delta) -> Result<RecordBatch> {
    let weights = delta
        .weights
        .clone()
        .unwrap_or_else(|| Int64Array::from_value(1, delta.rows.num_rows()));
    let schema = delta.rows.schema();
    let fields = schema
        .fields()
        .iter()
        .cloned()
        .chain([Arc::new(Field::new("$weight", DataType::Int64, false))]);
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = delta
        .rows
        .columns()
        .iter()
        .cloned()
        .chain([Arc::new(weights) as _])
        .collect();
    RecordBatch::try_new(schema, columns).map_err(Error::of_arrow)
}

fn without_weights(batch: RecordBatch) -> Result<Delta> {
    let last = batch
        .num_columns()
        .checked_sub(1)
        .ok_or_else(|| Error::state("a checkpoint's delta has no weights"))?;
    let weights = batch.column(last).as_primitive::<Int64Type>().clone();
    let rows = batch.project(&(0..last).collect::<Vec<_>>()).map_err(Error::of_arrow)?;
    Ok(Delta {
        rows,
        weights: Some(weights),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, TimestampNanosecondArray};

    use super::*;

    fn delta(rows: &[(i64, i64, i64)]) -> Flow {
        let time = DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None);
        let schema = Arc::new(Schema::new(vec![
            Field::new("window_end", time, true),
            Field::new("value", DataType::Int64, true),
        ]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampNanosecondArray::from_iter_values(
                rows.iter().map(|(end, ..)| *end),
            )),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, value, _)| *value))),
        ];
        let weights: Int64Array = rows.iter().map(|(.., weight)| Some(*weight)).collect();
        Flow::of(Delta {
            rows: RecordBatch::try_new(schema, columns).unwrap(),
            weights: weights.values().contains(&-1).then_some(weights),
        })
    }

    fn closed(gate: &mut WindowCloseGate, watermark: i64) -> Vec<(i64, i64)> {
        let mut out = Output::default();
        let end = EpochEnd {
            watermark: Watermark(watermark),
            epoch_time: EventTime(0),
        };
        gate.on_epoch_end(end, &mut out).unwrap();
        let rows = out.flows.into_iter().flat_map(|flow| {
            assert!(flow.delta.weights.is_none(), "rows of closed windows are only added");
            let ends = flow
                .delta
                .rows
                .column(0)
                .as_primitive::<TimestampNanosecondType>()
                .clone();
            let values = flow.delta.rows.column(1).as_primitive::<Int64Type>().clone();
            std::iter::zip(ends.values().to_vec(), values.values().to_vec())
        });
        rows.collect()
    }

    #[test]
    fn rows_come_once_their_window_is_closed_and_without_what_was_taken_back() {
        let schema = delta(&[]).delta.rows.schema();
        let mut gate = WindowCloseGate::new(Arc::clone(&schema), 0).unwrap();
        let push = |gate: &mut WindowCloseGate, rows: &[(i64, i64, i64)]| {
            gate.on_delta(delta(rows), &mut Output::default()).unwrap();
        };
        push(&mut gate, &[(30, 1, 1), (10, 2, 1), (20, 3, 1), (10, 4, 1), (10, 2, 1)]);
        assert_eq!(closed(&mut gate, 9), [], "no window is closed");
        push(&mut gate, &[(10, 2, -1), (10, 5, 1), (30, 1, -1)]);
        let state = gate.snapshot().unwrap().rows().unwrap();
        let mut gate = WindowCloseGate::new(schema, 0).unwrap();
        gate.restore(state).unwrap();
        let rows = closed(&mut gate, 20);
        assert_eq!(
            rows,
            [(10, 2), (10, 4), (10, 5), (20, 3)],
            "by their ends, then as they came"
        );
        assert_eq!(closed(&mut gate, 30), [], "what was taken back was never there");
    }
}
