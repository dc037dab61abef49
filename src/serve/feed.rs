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
        let mut places: Vec<(usize, usize)> = batches
            .iter()
            .enumerate()
            .flat_map(|(batch, rows)| (0..rows.num_rows()).map(move |row| (batch, row)))
            .collect();
        let rows_max = rows_max.unwrap_or(usize::MAX).min(places.len());
        let order = match self.time_column {
            _ if rows_max == 0 => Vec::new(),
            None => places.split_off(places.len() - rows_max),
            Some(column) => {
                let times: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(column).as_ref()).collect();
                let times = concat(&times).map_err(bug)?;
                let arrival: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..places.len() as u32));
                // Backwards, so that a limit keeps the newest; of one time the last to come is the newest.
                let backwards = Some(SortOptions {
                    descending: true,
                    nulls_first: false,
                });
                let by = [times, arrival].map(|values| SortColumn {
                    values,
                    options: backwards,
                });
                let newest = lexsort_to_indices(&by, Some(rows_max)).map_err(bug)?;
                newest
                    .values()
                    .iter()
                    .rev()
                    .map(|index| places[*index as usize])
                    .collect()
            }
        };
        Ok(Snapshot { batches, order })
    }

    /// The message with part `index` of a snapshot; there is always a first, also of no rows.
    pub fn snapshot_message(
        &self,
        id: &str,
        snapshot: &Snapshot,
        index: usize,
        epoch: Epoch,
        watermark: Watermark,
    ) -> Result<Vec<u8>> {
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
        out.extend_from_slice(if is_last {
            b"],\"last\":true"
        } else {
            b"],\"last\":false"
        });
        self.end(epoch, watermark, &mut out);
        Ok(out)
    }

    /// What the changes, all up to `epoch`, come to for this feed.
    pub fn delta(&self, changes: &[Arc<Change>], epoch: Epoch, watermark: Watermark) -> Result<Delta> {
        let mut relevant = Vec::with_capacity(changes.len());
        for change in changes {
            let (added, removed) = (self.filter.apply(&change.added)?, self.filter.apply(&change.removed)?);
            if 0 < added.num_rows() + removed.num_rows() {
                relevant.push(Arc::new(Change {
                    epoch: change.epoch,
                    watermark: change.watermark,
                    added,
                    removed,
                }));
            }
        }
        if relevant.is_empty() {
            return Ok(self.progress(epoch, watermark));
        }
        let (upsert, removed, merged) = consolidate(&self.schema, &self.key, &relevant)?;
        // With a key, a row that comes back under its key replaces the old one: only what is gone for good is deleted.
        let delete = if self.key.is_empty() {
            removed
        } else {
            without_keys_of(&self.key, &removed, &upsert)?
        };
        let mut tail = b",\"upsert\":[".to_vec();
        json_rows::rows_as_arrays(&upsert, self.time, &mut tail)?;
        tail.extend_from_slice(b"],\"delete\":[");
        json_rows::rows_as_arrays(&delete, self.time, &mut tail)?;
        tail.push(b']');
        self.end(epoch, watermark, &mut tail);
        Ok(Delta {
            tail,
            rows: upsert.num_rows() + delete.num_rows(),
            merged,
        })
    }

    /// A delta without rows: the view has come this far.
    pub fn progress(&self, epoch: Epoch, watermark: Watermark) -> Delta {
        let mut tail = b",\"upsert\":[],\"delete\":[]".to_vec();
        self.end(epoch, watermark, &mut tail);
        Delta {
            tail,
            rows: 0,
            merged: 0,
        }
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
        let token = Token {
            view: self.view.clone(),
            generation: self.generation,
            epoch,
        };
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
    let fields = key
        .iter()
        .map(|column| SortField::new(schema.field(*column).data_type().clone()))
        .collect();
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
        Self {
            view,
            generation: feed.generation,
            filter_text,
            time: feed.time,
            from,
            to,
        }
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

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Int64Array, StringArray, TimestampMillisecondArray},
        datatypes::{DataType, Field, Schema, TimeUnit},
    };
    use serde_json::{Value, json};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("symbol", DataType::Utf8, false),
            Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
            Field::new("price", DataType::Int64, false),
        ]))
    }

    type Row = (&'static str, i64, i64);

    fn rows(rows: &[Row]) -> RecordBatch {
        let symbols = StringArray::from_iter_values(rows.iter().map(|row| row.0));
        let times = TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1));
        let prices = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
        RecordBatch::try_new(schema(), vec![Arc::new(symbols), Arc::new(times), Arc::new(prices)]).unwrap()
    }

    fn change(epoch: u64, removed: &[Row], added: &[Row]) -> Arc<Change> {
        Arc::new(Change {
            epoch: Epoch(epoch),
            watermark: Watermark::START,
            added: rows(added),
            removed: rows(removed),
        })
    }

    fn feed(key: &[usize], symbols: &[&str]) -> Feed {
        let wanted = symbols.iter().map(|symbol| (*symbol).to_owned()).collect::<Vec<_>>();
        let conditions = (!symbols.is_empty()).then_some(("symbol", wanted));
        Feed {
            view: "prices".into(),
            generation: 3,
            schema: schema(),
            key: key.to_vec(),
            time_column: Some(1),
            filter: Filter::new(&schema(), conditions).unwrap(),
            filter_text: symbols.join(","),
            time: TimeFormat::Millis,
        }
    }

    fn message(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
    }

    /// Upserts and deletes, sorted: their order is nobody's business.
    fn delta(feed: &Feed, changes: &[Arc<Change>]) -> (Value, Value, usize) {
        let delta = feed.delta(changes, Epoch(9), Watermark(5_000_000)).unwrap();
        let message = message(&feed.delta_message("c\"1", &delta));
        assert_eq!(
            (&message["op"], &message["id"], &message["watermark"]),
            (&json!("delta"), &json!("c\"1"), &json!(5))
        );
        let token = Token::parse(message["token"].as_str().unwrap()).unwrap();
        assert_eq!(
            token,
            Token {
                view: "prices".into(),
                generation: 3,
                epoch: Epoch(9)
            }
        );
        let sorted = |rows: &Value| {
            let mut rows = rows.as_array().unwrap().clone();
            rows.sort_by_key(Value::to_string);
            Value::Array(rows)
        };
        (sorted(&message["upsert"]), sorted(&message["delete"]), delta.merged)
    }

    fn snapshot(feed: &Feed, batches: Vec<RecordBatch>, rows_max: Option<usize>) -> Vec<Value> {
        let snapshot = feed.snapshot(&RowsSnapshot::of(schema(), batches), rows_max).unwrap();
        (0..snapshot.messages())
            .map(|index| {
                message(
                    &feed
                        .snapshot_message("c1", &snapshot, index, Epoch(9), Watermark::START)
                        .unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn a_snapshot_is_the_newest_rows_in_the_order_of_time() {
        let batches = || {
            vec![
                rows(&[("a", 3, 1), ("b", 1, 2)]),
                rows(&[]),
                rows(&[("a", 2, 3), ("b", 3, 4), ("a", 0, 5)]),
            ]
        };
        for (symbols, rows_max, expected, why) in [
            (
                &[][..],
                None,
                json!([["a", 0, 5], ["b", 1, 2], ["a", 2, 3], ["a", 3, 1], ["b", 3, 4]]),
                "of one time as they came",
            ),
            (&[], Some(2), json!([["a", 3, 1], ["b", 3, 4]]), "the newest"),
            (&[], Some(1), json!([["b", 3, 4]]), "of one time the last to come"),
            (&[], Some(0), json!([]), "none were asked for"),
            (
                &["a"],
                Some(2),
                json!([["a", 2, 3], ["a", 3, 1]]),
                "the newest of those asked for",
            ),
            (&["c"], None, json!([]), "nothing is an answer too"),
        ] {
            let messages = snapshot(&feed(&[0, 1], symbols), batches(), rows_max);
            assert_eq!(messages.len(), 1);
            assert_eq!(
                (&messages[0]["rows"], &messages[0]["last"]),
                (&expected, &json!(true)),
                "{why}"
            );
        }
    }

    #[test]
    fn a_long_snapshot_comes_in_parts() {
        let all: Vec<Row> = (0..2_500).map(|index| ("a", index, index)).collect();
        let messages = snapshot(
            &feed(&[0, 1], &[]),
            vec![rows(&all[..1_200]), rows(&all[1_200..])],
            None,
        );
        let shape: Vec<_> = messages
            .iter()
            .map(|part| (part["rows"].as_array().unwrap().len(), part["last"].as_bool().unwrap()))
            .collect();
        assert_eq!(shape, [(1_000, false), (1_000, false), (500, true)]);
        assert_eq!(messages[2]["rows"][499], json!(["a", 2_499, 2_499]));
    }

    #[test]
    fn without_a_time_the_last_rows_to_come_are_the_newest() {
        let feed = Feed {
            time_column: None,
            ..feed(&[], &[])
        };
        let messages = snapshot(
            &feed,
            vec![rows(&[("a", 9, 1)]), rows(&[("b", 0, 2), ("c", 5, 3)])],
            Some(2),
        );
        assert_eq!(messages[0]["rows"], json!([["b", 0, 2], ["c", 5, 3]]));
    }

    #[test]
    fn a_row_that_comes_back_under_its_key_is_no_delete() {
        let changes = [change(8, &[("a", 1, 10), ("b", 1, 20)], &[("a", 1, 11)])];
        assert_eq!(
            delta(&feed(&[0, 1], &[]), &changes),
            (json!([["a", 1, 11]]), json!([["b", 1, 20]]), 0)
        );
        let whole = (json!([["a", 1, 11]]), json!([["a", 1, 10], ["b", 1, 20]]), 0);
        assert_eq!(
            delta(&feed(&[], &[]), &changes),
            whole,
            "without a key a row is only itself"
        );
    }

    #[test]
    fn changes_of_several_epochs_come_as_one() {
        let changes = [
            change(6, &[], &[("a", 1, 10), ("b", 1, 20)]),
            change(7, &[("a", 1, 10)], &[("a", 1, 11)]),
            change(8, &[("a", 1, 11), ("b", 1, 20), ("c", 1, 30)], &[("a", 1, 12)]),
        ];
        let (upsert, delete, merged) = delta(&feed(&[0, 1], &[]), &changes);
        assert_eq!((upsert, delete), (json!([["a", 1, 12]]), json!([["c", 1, 30]])));
        assert_eq!(merged, 6, "of eight changes two are left");
    }

    #[test]
    fn a_row_that_leaves_the_filter_is_deleted_and_one_that_enters_is_added() {
        let by_row = |symbols: &[&str]| delta(&feed(&[1], symbols), &[change(8, &[("a", 1, 10)], &[("b", 1, 10)])]);
        assert_eq!(by_row(&["a"]), (json!([]), json!([["a", 1, 10]]), 0));
        assert_eq!(by_row(&["b"]), (json!([["b", 1, 10]]), json!([]), 0));
        assert_eq!(by_row(&["c"]), (json!([]), json!([]), 0));
    }

    #[test]
    fn an_encoded_delta_serves_all_with_the_same_filter() {
        let shared = SharedDeltas::default();
        let (ours, others) = (feed(&[0, 1], &["a"]), feed(&[0, 1], &["b"]));
        let encoded = Arc::new(
            ours.delta(&[change(8, &[], &[("a", 1, 10)])], Epoch(8), Watermark::START)
                .unwrap(),
        );
        shared.put(DeltaKey::new(&ours, Epoch(7), Epoch(8)), &encoded);
        assert!(shared.get(&DeltaKey::new(&ours, Epoch(7), Epoch(8))).is_some());
        for (feed, from, to) in [(&others, 7, 8), (&ours, 6, 8), (&ours, 7, 9)] {
            assert!(shared.get(&DeltaKey::new(feed, Epoch(from), Epoch(to))).is_none());
        }
        for epoch in 0..2 * limits::SHARED_DELTAS as u64 {
            shared.put(DeltaKey::new(&ours, Epoch(epoch + 100), Epoch(epoch + 101)), &encoded);
        }
        assert_eq!(shared.lock().by_key.len(), limits::SHARED_DELTAS);
        assert!(
            shared.get(&DeltaKey::new(&ours, Epoch(7), Epoch(8))).is_none(),
            "the oldest made room"
        );
    }

    /// What a reader must be able to rely on: snapshot and deltas, applied by key, are the view, however epochs were merged.
    #[test]
    fn a_reader_who_applies_everything_has_the_view() {
        use rand::{Rng, SeedableRng};
        for seed in 0..50u64 {
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let symbols = ["a", "b", "c"];
            let feed = feed(&[0, 1], if seed % 2 == 0 { &[] } else { &["a", "c"] });
            let mut view = std::collections::BTreeMap::<(&str, i64), i64>::new();
            let mut known = std::collections::BTreeMap::<(String, i64), i64>::new();
            let mut pending = Vec::new();
            for epoch in 1..60 {
                let (mut removed, mut added) = (Vec::new(), std::collections::BTreeMap::new());
                for _ in 0..random.random_range(0..4) {
                    let key = (symbols[random.random_range(0..3)], random.random_range(0..5));
                    if added.contains_key(&key) || removed.iter().any(|row: &Row| (row.0, row.1) == key) {
                        continue;
                    }
                    if let Some(price) = view.remove(&key) {
                        removed.push((key.0, key.1, price));
                    }
                    if random.random_bool(0.7) {
                        added.insert(key, epoch);
                    }
                }
                view.extend(added.iter().map(|(key, price)| (*key, *price)));
                let added: Vec<Row> = added
                    .into_iter()
                    .map(|((symbol, at), price)| (symbol, at, price))
                    .collect();
                pending.push(change(epoch as u64, &removed, &added));
                if random.random_bool(0.4) || epoch == 59 {
                    let delta = feed.delta(&pending, Epoch(epoch as u64), Watermark::START).unwrap();
                    pending.clear();
                    let message = message(&feed.delta_message("c1", &delta));
                    let row = |row: &Value| {
                        (
                            (row[0].as_str().unwrap().to_owned(), row[1].as_i64().unwrap()),
                            row[2].as_i64().unwrap(),
                        )
                    };
                    for (key, _) in message["delete"].as_array().unwrap().iter().map(row) {
                        assert!(known.remove(&key).is_some(), "seed {seed}: deleted what was not there");
                    }
                    known.extend(message["upsert"].as_array().unwrap().iter().map(row));
                }
            }
            let wanted = view.iter().filter(|((symbol, _), _)| seed % 2 == 0 || *symbol != "b");
            let expected: std::collections::BTreeMap<_, _> = wanted
                .map(|((symbol, at), price)| (((*symbol).to_owned(), *at), *price))
                .collect();
            assert_eq!(known, expected, "seed {seed}");
        }
    }
}
