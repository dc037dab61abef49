//! What one subscriber is sent of a view, as JSON text: the newest rows, then what each stretch of epochs changed.
//!
//! ```text
//! Published ── where ── newest N by time ──▶ Snapshot ──▶ {"op":"snapshot","rows":[…]}  a thousand rows a message
//! changes after the last epoch sent ── where ── consolidate ──▶ {"op":"delta","upsert":[…],"delete":[…]}
//! ```
//! No sockets and no waiting here. Nothing is queued: who falls behind takes a longer stretch of the view's own log at once.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex},
};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array},
    compute::{SortColumn, SortOptions, concat, filter_record_batch, interleave_record_batch, lexsort_to_indices},
    datatypes::SchemaRef,
    error::ArrowError,
    row::{RowConverter, SortField},
};

use crate::{
    types::{Epoch, Error, Result, Watermark, limits},
    view::{Change, RowsSnapshot, consolidate},
};

use super::{
    filter::Filter,
    json_rows::{self, TimeFormat},
    token::Token,
};

/// The part of a view that is followed, and how its rows are written.
pub struct Feed {
    pub view: String,
    pub generation: u64,
    pub schema: SchemaRef,
    pub key: Vec<usize>,
    pub time_column: Option<usize>,
    pub filter: Filter,
    /// The filter as it was asked for: equal texts are equal filters.
    pub filter_text: String,
    pub time: TimeFormat,
}

/// What changed in a stretch of epochs, encoded for anyone who follows the same.
pub struct Delta {
    /// What follows the subscription's id in the message.
    tail: Vec<u8>,
    /// Upserts and deletes.
    pub rows: usize,
    /// Changes that later ones of the stretch made needless.
    pub merged: usize,
}

/// The rows of a snapshot in the order in which they are sent.
pub struct Snapshot {
    batches: Vec<RecordBatch>,
    /// Batch and row.
    order: Vec<(usize, usize)>,
}

impl Feed {
    /// The newest `rows_max` rows, oldest first. Without a time column the newest are those that came last.
    pub fn snapshot(&self, rows: &RowsSnapshot, rows_max: Option<usize>) -> Result<Snapshot> {
        let mut batches = Vec::new();
        for batch in rows.batches()? {
            let batch = self.filter.apply(&batch)?;
            if 0 < batch.num_rows() {
                batches.push(batch);
            }
        }
        let mut places: Vec<(usize, usize)> =
            batches.iter().enumerate().flat_map(|(batch, rows)| (0..rows.num_rows()).map(move |row| (batch, row))).collect();
        let rows_max = rows_max.unwrap_or(usize::MAX).min(places.len());
        let order = match self.time_column {
            _ if rows_max == 0 => Vec::new(),
            None => places.split_off(places.len() - rows_max),
            Some(column) => {
                let times: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(column).as_ref()).collect();
                let times = concat(&times).map_err(bug)?;
                let arrival: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..places.len() as u32));
                // Backwards, so that a limit keeps the newest; of one time the last to come is the newest.
                let backwards = Some(SortOptions { descending: true, nulls_first: false });
                let by = [times, arrival].map(|values| SortColumn { values, options: backwards });
                let newest = lexsort_to_indices(&by, Some(rows_max)).map_err(bug)?;
                newest.values().iter().rev().map(|index| places[*index as usize]).collect()
            }
        };
        Ok(Snapshot { batches, order })
    }

    /// The message with part `index` of a snapshot; there is always a first, also of no rows.
    pub fn snapshot_message(&self, id: &str, snapshot: &Snapshot, index: usize, epoch: Epoch, watermark: Watermark) -> Result<Vec<u8>> {
        let from = index * limits::SNAPSHOT_MESSAGE_ROWS;
        let to = (from + limits::SNAPSHOT_MESSAGE_ROWS).min(snapshot.order.len());
        let mut out = self.begin("snapshot", id);
        out.extend_from_slice(b",\"rows\":[");
        if from < to {
            let batches: Vec<&RecordBatch> = snapshot.batches.iter().collect();
            let rows = interleave_record_batch(&batches, &snapshot.order[from..to]).map_err(bug)?;
            json_rows::rows_as_arrays(&rows, self.time, &mut out)?;
        }
        let is_last = snapshot.messages() == index + 1;
        out.extend_from_slice(if is_last { b"],\"last\":true" } else { b"],\"last\":false" });
        self.end(epoch, watermark, &mut out);
        Ok(out)
    }

    /// What the changes, all up to `epoch`, come to for this feed.
    pub fn delta(&self, changes: &[Arc<Change>], epoch: Epoch, watermark: Watermark) -> Result<Delta> {
        let mut relevant = Vec::with_capacity(changes.len());
        for change in changes {
            let (added, removed) = (self.filter.apply(&change.added)?, self.filter.apply(&change.removed)?);
            if 0 < added.num_rows() + removed.num_rows() {
                relevant.push(Arc::new(Change { epoch: change.epoch, watermark: change.watermark, added, removed }));
            }
        }
        if relevant.is_empty() {
            return Ok(self.progress(epoch, watermark));
        }
        let (upsert, removed, merged) = consolidate(&self.schema, &self.key, &relevant)?;
        // With a key, a row that comes back under its key replaces the old one: only what is gone for good is deleted.
        let delete = if self.key.is_empty() { removed } else { without_keys_of(&self.key, &removed, &upsert)? };
        let mut tail = b",\"upsert\":[".to_vec();
        json_rows::rows_as_arrays(&upsert, self.time, &mut tail)?;
        tail.extend_from_slice(b"],\"delete\":[");
        json_rows::rows_as_arrays(&delete, self.time, &mut tail)?;
        tail.push(b']');
        self.end(epoch, watermark, &mut tail);
        Ok(Delta { tail, rows: upsert.num_rows() + delete.num_rows(), merged })
    }

    /// A delta without rows: the view has come this far.
    pub fn progress(&self, epoch: Epoch, watermark: Watermark) -> Delta {
        let mut tail = b",\"upsert\":[],\"delete\":[]".to_vec();
        self.end(epoch, watermark, &mut tail);
        Delta { tail, rows: 0, merged: 0 }
    }

    pub fn delta_message(&self, id: &str, delta: &Delta) -> Vec<u8> {
        let mut out = self.begin("delta", id);
        out.extend_from_slice(&delta.tail);
        out
    }

    fn begin(&self, op: &str, id: &str) -> Vec<u8> {
        let mut out = format!("{{\"op\":\"{op}\",\"id\":").into_bytes();
        json_rows::string(id, &mut out);
        out
    }

    fn end(&self, epoch: Epoch, watermark: Watermark, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"watermark\":");
        json_rows::watermark(watermark, self.time, out);
        let token = Token { view: self.view.clone(), generation: self.generation, epoch };
        out.extend_from_slice(format!(",\"token\":\"{token}\"}}").as_bytes());
    }
}

impl Snapshot {
    /// How many messages it takes: at least one.
    pub fn messages(&self) -> usize {
        self.order.len().div_ceil(limits::SNAPSHOT_MESSAGE_ROWS).max(1)
    }
}

/// The rows whose key none of `others` has.
fn without_keys_of(key: &[usize], rows: &RecordBatch, others: &RecordBatch) -> Result<RecordBatch> {
    if rows.num_rows() == 0 || others.num_rows() == 0 {
        return Ok(rows.clone());
    }
    let schema = rows.schema_ref();
    let fields = key.iter().map(|column| SortField::new(schema.field(*column).data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(bug)?;
    let keys_of = |rows: &RecordBatch| {
        let columns: Vec<ArrayRef> = key.iter().map(|column| Arc::clone(rows.column(*column))).collect();
        converter.convert_columns(&columns).map_err(bug)
    };
    let (keys, others) = (keys_of(rows)?, keys_of(others)?);
    let others: HashSet<&[u8], ahash::RandomState> = others.iter().map(|row| row.data()).collect();
    let is_gone: BooleanArray = keys.iter().map(|row| Some(!others.contains(row.data()))).collect();
    filter_record_batch(rows, &is_gone).map_err(bug)
}

fn bug(error: ArrowError) -> Error {
    Error::bug(format!("a view's rows cannot be sent: {error}"))
}

/// Deltas that somebody already encoded, for the others who follow the same with the same filter.
#[derive(Default)]
pub struct SharedDeltas(Mutex<Shared>);

#[derive(Default)]
struct Shared {
    by_key: HashMap<Arc<DeltaKey>, Arc<Delta>>,
    /// Oldest first, the same keys.
    order: VecDeque<Arc<DeltaKey>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DeltaKey {
    view: String,
    generation: u64,
    filter_text: String,
    time: TimeFormat,
    from: Epoch,
    to: Epoch,
}

impl DeltaKey {
    pub fn new(feed: &Feed, from: Epoch, to: Epoch) -> Self {
        let (view, filter_text) = (feed.view.clone(), feed.filter_text.clone());
        Self { view, generation: feed.generation, filter_text, time: feed.time, from, to }
    }
}

impl SharedDeltas {
    pub fn get(&self, key: &DeltaKey) -> Option<Arc<Delta>> {
        self.lock().by_key.get(key).cloned()
    }

    /// Keeps a delta for the others; the oldest makes room.
    pub fn put(&self, key: DeltaKey, delta: &Arc<Delta>) {
        if limits::SHARED_DELTA_BYTES_MAX < delta.tail.len() {
            return;
        }
        let mut shared = self.lock();
        let key = Arc::new(key);
        if shared.by_key.insert(Arc::clone(&key), Arc::clone(delta)).is_none() {
            shared.order.push_back(key);
        }
        if limits::SHARED_DELTAS < shared.order.len()
            && let Some(oldest) = shared.order.pop_front()
        {
            shared.by_key.remove(&oldest);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        // Nothing that can panic runs under it.
        self.0.lock().expect("never poisoned")
    }
}
