//! When rows appear: at most every interval, or once their window is closed.
//!
//! ```text
//! deltas ─▶ EmitEvery ── epoch time reaches the next interval ──▶ all that gathered
//! deltas ─▶ WindowCloseGate ── watermark reaches window_end ──▶ what is left of them, once
//! ```
//! Both take any weights. Neither changes which rows there are in the end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ahash::HashMap;
use arrow::{
    array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch},
    compute::{concat_batches, filter_record_batch},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampNanosecondType},
    row::{RowConverter, SortField},
};

use crate::types::{Delta, Error, EventTime, Result, Watermark};

use super::{EpochEnd, Flow, OpenWindows, Operator, Output};

/// Hands deltas on at multiples of an interval of epoch time, counted from 1970.
pub struct EmitEvery {
    interval_ns: i64,
    pending: Vec<Delta>,
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
            pending: Vec::new(),
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
        self.pending.push(flow.delta);
        Ok(())
    }

    fn on_epoch_end(&mut self, end: EpochEnd, out: &mut Output) -> Result<Watermark> {
        let is_due = self.due.is_some_and(|due| due <= end.epoch_time) || end.watermark == Watermark::END;
        if is_due {
            self.due = None;
            for delta in self.pending.drain(..) {
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

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let head = Schema::new(vec![
            Field::new("due", DataType::Int64, true),
            Field::new("watermark", DataType::Int64, false),
        ]);
        let due = Int64Array::from(vec![self.due.map(|due| due.0)]);
        let watermark = Int64Array::from(vec![self.watermark.0]);
        let head = RecordBatch::try_new(Arc::new(head), vec![Arc::new(due), Arc::new(watermark)]);
        std::iter::once(head.map_err(bug))
            .chain(self.pending.iter().map(with_weights))
            .collect()
    }

    fn restore(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        let mut state = state.into_iter();
        let head = state
            .next()
            .ok_or_else(|| Error::state("the checkpoint of an interval is empty"))?;
        let due = head.column(0).as_primitive::<Int64Type>();
        self.due = due.is_valid(0).then(|| EventTime(due.value(0)));
        self.watermark = Watermark(head.column(1).as_primitive::<Int64Type>().value(0));
        let pending = state.map(without_weights).map(|delta| {
            let mut delta = delta?;
            // Append-only deltas stay so: who takes them may know no others.
            if delta
                .weights
                .as_ref()
                .is_some_and(|weights| weights.values().iter().all(|weight| *weight == 1))
            {
                delta.weights = None;
            }
            Ok(delta)
        });
        self.pending = pending.collect::<Result<_>>()?;
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.pending
            .iter()
            .map(|delta| delta.rows.get_array_memory_size())
            .sum()
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
        let encoder = RowConverter::new(fields).map_err(bug)?;
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
        let parts = deltas.iter().map(with_weights).collect::<Result<Vec<_>>>()?;
        let all = concat_batches(&parts[0].schema(), &parts).map_err(bug)?;
        let delta = without_weights(all)?;
        let rows = self.encoder.convert_columns(delta.rows.columns()).map_err(bug)?;
        let weights = delta.weights.expect("made with weights");
        let mut open: HashMap<&[u8], Vec<usize>> = HashMap::default();
        let mut is_left = vec![false; rows.num_rows()];
        for (index, row) in rows.iter().enumerate() {
            let places = open.entry(row.data()).or_default();
            if 0 < weights.value(index) {
                is_left[index] = true;
                places.push(index);
            } else {
                let retracted = places.pop().ok_or_else(|| Error::bug("a retracted row was not held"))?;
                is_left[retracted] = false;
            }
        }
        filter_record_batch(&delta.rows, &BooleanArray::from(is_left)).map_err(bug)
    }
}

impl Operator for WindowCloseGate {
    fn on_delta(&mut self, flow: Flow, _out: &mut Output) -> Result<()> {
        let ends = flow
            .delta
            .rows
            .column(self.window_end)
            .as_primitive::<TimestampNanosecondType>()
            .clone();
        let mut distinct: Vec<i64> = ends.iter().flatten().collect();
        distinct.sort_unstable();
        distinct.dedup();
        for end in distinct {
            assert!(self.watermark.0 < end, "a closed window does not change");
            let mask: BooleanArray = ends.iter().map(|other| Some(other == Some(end))).collect();
            let rows = filter_record_batch(&flow.delta.rows, &mask).map_err(bug)?;
            let weights = match &flow.delta.weights {
                Some(weights) => Some(
                    arrow::compute::filter(weights, &mask)
                        .map_err(bug)?
                        .as_primitive()
                        .clone(),
                ),
                None => None,
            };
            let held = self.held.entry(end).or_default();
            held.push(Delta { rows, weights });
            if DELTAS_PER_SETTLING <= held.len() {
                let settled = self.settle(&self.held[&end])?;
                self.held.insert(end, vec![Delta::append(settled)]);
            }
        }
        Ok(())
    }

    fn on_epoch_end(&mut self, end: EpochEnd, out: &mut Output) -> Result<Watermark> {
        self.watermark = end.watermark;
        while let Some(entry) = self.held.first_entry()
            && *entry.key() <= end.watermark.0
        {
            let deltas = entry.remove();
            out.push(Flow::of(Delta::append(self.settle(&deltas)?)));
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

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let watermark = Schema::new(vec![Field::new("watermark", DataType::Int64, false)]);
        let watermark = RecordBatch::try_new(
            Arc::new(watermark),
            vec![Arc::new(Int64Array::from(vec![self.watermark.0]))],
        );
        std::iter::once(watermark.map_err(bug))
            .chain(self.held.values().flatten().map(with_weights))
            .collect()
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
    RecordBatch::try_new(schema, columns).map_err(bug)
}

fn without_weights(batch: RecordBatch) -> Result<Delta> {
    let last = batch
        .num_columns()
        .checked_sub(1)
        .ok_or_else(|| Error::state("a checkpoint's delta has no weights"))?;
    let weights = batch.column(last).as_primitive::<Int64Type>().clone();
    let rows = batch.project(&(0..last).collect::<Vec<_>>()).map_err(bug)?;
    Ok(Delta {
        rows,
        weights: Some(weights),
    })
}

fn bug(error: arrow::error::ArrowError) -> Error {
    Error::bug(error.to_string())
}
