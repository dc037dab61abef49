//! The rows of one view: immutable runs, which rows of them are live, and where each key stands.
//!
//! ```text
//! epoch 7  ─▶ run: 3 rows      every epoch appends a run of its new rows and marks the replaced ones dead;
//! epoch 8  ─▶ run: 2 rows      neighbouring runs of like size are merged, so a row is copied O(log n) times
//! ```
//! A snapshot shares the runs; it costs a pointer per run and never changes.

use std::sync::Arc;

use ahash::{HashMap, HashSet};
use arrow::{
    array::{BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
    compute::{concat_batches, filter_record_batch},
    datatypes::SchemaRef,
    row::{RowConverter, SortField},
};

use smallvec::{SmallVec, smallvec};

use crate::types::{Delta, Error, Result};

/// Rows that a run must have before merging it with its neighbours stops paying.
const RUN_ROWS_MAX: usize = 262_144;
/// How many runs of like size are merged into one.
const RUNS_PER_MERGE: usize = 8;

/// The writer's side of a view.
///
/// Invariants: every key of `places` names a live row of a run; every live row is named once; `len` is the number of live rows.
pub struct Rows {
    schema: SchemaRef,
    /// The columns that name a row. Empty: rows are a multiset, named by all their columns.
    key: Vec<usize>,
    encoder: RowConverter,
    runs: Vec<Run>,
    next_run: u64,
    /// Encoded key to places; more than one only in a multiset. Not kept while rows are only ever appended and have no key.
    places: Option<HashMap<Box<[u8]>, PlacesOfKey>>,
    len: usize,
}

#[derive(Clone)]
struct Run {
    id: u64,
    batch: RecordBatch,
    /// `None`: all rows live.
    live: Option<Arc<Vec<bool>>>,
    live_count: usize,
}

type PlacesOfKey = SmallVec<[Place; 1]>;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    run: u64,
    row: u32,
}

/// What a delta did: the rows that came and those that went, as the view held them.
pub struct Applied {
    pub added: RecordBatch,
    pub removed: RecordBatch,
}

/// A run as a snapshot shares it: its rows, and which of them are live where not all are.
type SharedRun = (RecordBatch, Option<Arc<Vec<bool>>>);

/// The rows of a view at one epoch.
#[derive(Clone)]
pub struct RowsSnapshot {
    schema: SchemaRef,
    runs: Arc<[SharedRun]>,
    len: usize,
}

impl Rows {
    /// `is_append_only`: no delta will ever retract, so rows without a key need no index.
    pub fn new(schema: SchemaRef, key: Vec<usize>, is_append_only: bool) -> Result<Self> {
        let named_by: Vec<usize> = if key.is_empty() {
            (0..schema.fields().len()).collect()
        } else {
            key.clone()
        };
        let fields = named_by
            .iter()
            .map(|column| SortField::new(schema.field(*column).data_type().clone()))
            .collect();
        let encoder =
            RowConverter::new(fields).map_err(|e| Error::bug(format!("a view's key cannot be encoded: {e}")))?;
        let places = (!key.is_empty() || !is_append_only).then(HashMap::default);
        Ok(Self {
            schema,
            key,
            encoder,
            runs: Vec::new(),
            next_run: 0,
            places,
            len: 0,
        })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Applies a delta. With a key, an added row replaces the one of the same key.
    ///
    /// # Errors
    /// [`Error::Bug`] where a retracted row is not there.
    pub fn apply(&mut self, delta: &Delta) -> Result<Applied> {
        let (added, retracted) = delta.split();
        let mut removed_places = Vec::new();
        if 0 < retracted.num_rows() {
            let keys = self.encode(&retracted)?;
            let places = self
                .places
                .as_mut()
                .ok_or_else(|| Error::bug("an append-only view got a retraction"))?;
            for key in &keys {
                let Some(found) = places.get_mut(key.as_ref()) else {
                    return Err(Error::bug("a retracted row is not in its view"));
                };
                removed_places.push(found.pop().expect("a key is kept only with a place"));
                if found.is_empty() {
                    places.remove(key.as_ref());
                }
            }
        }
        let run = self.next_run;
        if 0 < added.num_rows() {
            let keys = if self.places.is_some() {
                Some(self.encode(&added)?)
            } else {
                None
            };
            let is_unique = !self.key.is_empty();
            if let (Some(places), Some(keys)) = (&mut self.places, keys) {
                for (row, key) in keys.iter().enumerate() {
                    let place = Place { run, row: row as u32 };
                    match places.get_mut(key.as_ref()) {
                        Some(found) if is_unique => removed_places.push(std::mem::replace(&mut found[0], place)),
                        Some(found) => found.push(place),
                        None => {
                            places.insert(key.as_ref().into(), smallvec![place]);
                        }
                    }
                }
            }
            self.next_run += 1;
            self.runs.push(Run {
                id: run,
                live_count: added.num_rows(),
                batch: added.clone(),
                live: None,
            });
            self.len += added.num_rows();
        }
        let removed = self.remove(removed_places)?;
        self.merge_runs()?;
        Ok(Applied { added, removed })
    }

    /// Of these rows, those whose key (or whole row, in a multiset) is here as often, and the others.
    pub fn partition_known(&self, rows: &RecordBatch) -> Result<(RecordBatch, RecordBatch)> {
        let places = self
            .places
            .as_ref()
            .ok_or_else(|| Error::bug("a view without an index was asked for a row"))?;
        let mut taken: HashMap<Box<[u8]>, usize> = HashMap::default();
        let keys = self.encode(rows)?;
        let known: BooleanArray = keys
            .iter()
            .map(|key| {
                let taken = taken.entry(key.as_ref().into()).or_default();
                *taken += 1;
                Some(places.get(key.as_ref()).is_some_and(|found| *taken <= found.len()))
            })
            .collect();
        let unknown = arrow::compute::not(&known).map_err(Error::of_arrow)?;
        Ok((
            filter_record_batch(rows, &known).map_err(Error::of_arrow)?,
            filter_record_batch(rows, &unknown).map_err(Error::of_arrow)?,
        ))
    }

    pub fn snapshot(&self) -> RowsSnapshot {
        RowsSnapshot {
            schema: Arc::clone(&self.schema),
            runs: self
                .runs
                .iter()
                .map(|run| (run.batch.clone(), run.live.clone()))
                .collect(),
            len: self.len,
        }
    }

    /// Takes up the rows of a checkpoint; only into an empty view.
    pub fn restore(&mut self, batches: &[RecordBatch]) -> Result<()> {
        assert!(self.is_empty(), "a view is restored before it gets deltas");
        if let Some(places) = &mut self.places {
            // Rows of one key are one row, or few.
            places.reserve(batches.iter().map(RecordBatch::num_rows).sum());
        }
        for batch in batches {
            self.apply(&Delta::append(batch.clone()))?;
        }
        Ok(())
    }

    /// Bytes of runs and index, about.
    pub fn memory_bytes(&self) -> usize {
        let runs: usize = self.runs.iter().map(|run| run.batch.get_array_memory_size()).sum();
        let places = self.places.as_ref().map_or(0, |places| places.capacity() * 80);
        runs + places
    }

    fn encode(&self, rows: &RecordBatch) -> Result<arrow::row::Rows> {
        let columns: Vec<_> = match self.key.is_empty() {
            true => rows.columns().to_vec(),
            false => self.key.iter().map(|column| Arc::clone(rows.column(*column))).collect(),
        };
        self.encoder
            .convert_columns(&columns)
            .map_err(|e| Error::bug(format!("a view's key cannot be encoded: {e}")))
    }

    fn remove(&mut self, mut places: Vec<Place>) -> Result<RecordBatch> {
        if places.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        }
        places.sort_unstable_by_key(|place| (place.run, place.row));
        let mut removed = Vec::new();
        for group in places.chunk_by(|a, b| a.run == b.run) {
            let index = self
                .runs
                .binary_search_by_key(&group[0].run, |run| run.id)
                .expect("a place names a run");
            let run = &mut self.runs[index];
            let live = run
                .live
                .get_or_insert_with(|| Arc::new(vec![true; run.batch.num_rows()]));
            // Copied only where a reader still holds the older one.
            let live = Arc::make_mut(live);
            let rows: Vec<u32> = group.iter().map(|place| place.row).collect();
            for row in &rows {
                assert!(std::mem::replace(&mut live[*row as usize], false), "a row dies once");
            }
            run.live_count -= rows.len();
            self.len -= rows.len();
            let indices = arrow::array::UInt32Array::from(rows);
            removed.push(arrow::compute::take_record_batch(&run.batch, &indices).map_err(Error::of_arrow)?);
        }
        self.runs.retain(|run| 0 < run.live_count);
        concat_batches(&self.schema, &removed).map_err(Error::of_arrow)
    }

    /// Merges the newest runs while enough of them are of like size.
    fn merge_runs(&mut self) -> Result<()> {
        loop {
            let Some(newest) = self.runs.last() else { return Ok(()) };
            let tier = tier(newest.live_count);
            let count = self.runs.iter().rev().take_while(|run| tier_of(run) <= tier).count();
            if count < RUNS_PER_MERGE || RUN_ROWS_MAX <= newest.live_count {
                return Ok(());
            }
            let from = self.runs.len() - count;
            let merged: Vec<Run> = self.runs.drain(from..).collect();
            let parts = merged.iter().map(Run::live_rows).collect::<Result<Vec<_>>>()?;
            let batch = compact(&concat_batches(&self.schema, &parts).map_err(Error::of_arrow)?)?;
            let id = self.next_run;
            self.next_run += 1;
            if self.places.is_some() {
                let keys = self.encode(&batch)?;
                self.rename(&merged, id, &keys);
            }
            self.runs.push(Run {
                id,
                live_count: batch.num_rows(),
                batch,
                live: None,
            });
        }
    }

    /// The places of the live rows of merged runs, the newest, in the run that they became; `keys` are those of its rows.
    fn rename(&mut self, merged: &[Run], id: u64, keys: &arrow::row::Rows) {
        let places = self.places.as_mut().expect("only what is kept is renamed");
        let mut next = 0..;
        let rows: Vec<Vec<u32>> = merged
            .iter()
            .map(|run| {
                let mut rows = vec![u32::MAX; run.batch.num_rows()];
                for row in run.live_indices() {
                    rows[row as usize] = next.next().expect("a run has no more rows than this counts");
                }
                rows
            })
            .collect();
        let mut visited: HashSet<&[u8]> = HashSet::default();
        for key in keys {
            let found = places.get_mut(key.data()).expect("a live row has a place");
            // Equal rows are all renamed at the first of them.
            if 1 < found.len() && !visited.insert(key.data()) {
                continue;
            }
            // Places of one key are in the order of their runs, so those of the newest runs come last.
            for place in found.iter_mut().rev().take_while(|place| merged[0].id <= place.run) {
                let run = merged
                    .binary_search_by_key(&place.run, |run| run.id)
                    .expect("a place names a run");
                let row = rows[run][place.row as usize];
                assert_ne!(row, u32::MAX, "only a live row has a place");
                *place = Place { run: id, row };
            }
        }
    }
}

fn tier_of(run: &Run) -> u32 {
    tier(run.live_count)
}

/// Runs of one tier differ in size by less than [`RUNS_PER_MERGE`].
fn tier(rows: usize) -> u32 {
    rows.max(1).ilog(RUNS_PER_MERGE)
}

/// Strings as views keep the whole buffer of the batch they came from alive; a kept run must own only what it shows.
fn compact(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch
        .columns()
        .iter()
        .map(|column| match arrow::array::AsArray::as_string_view_opt(column) {
            Some(view) => Arc::new(view.gc()) as arrow::array::ArrayRef,
            None => Arc::clone(column),
        })
        .collect();
    RecordBatch::try_new(batch.schema(), columns).map_err(Error::of_arrow)
}

impl Run {
    fn live_rows(&self) -> Result<RecordBatch> {
        live_rows(&self.batch, self.live.as_deref().map(Vec::as_slice))
    }

    fn live_indices(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.batch.num_rows() as u32).filter(|row| self.live.as_ref().is_none_or(|live| live[*row as usize]))
    }
}

fn live_rows(batch: &RecordBatch, live: Option<&[bool]>) -> Result<RecordBatch> {
    match live {
        None => Ok(batch.clone()),
        Some(live) => {
            filter_record_batch(batch, &BooleanArray::new(BooleanBuffer::from(live), None)).map_err(Error::of_arrow)
        }
    }
}

impl RowsSnapshot {
    pub fn empty(schema: SchemaRef) -> Self {
        Self {
            schema,
            runs: Arc::new([]),
            len: 0,
        }
    }

    /// Rows as they stand, for tables whose rows are kept elsewhere.
    pub fn of(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        let len = batches.iter().map(RecordBatch::num_rows).sum();
        Self {
            schema,
            runs: batches.into_iter().map(|batch| (batch, None)).collect(),
            len,
        }
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The live rows, oldest run first.
    pub fn batches(&self) -> Result<Vec<RecordBatch>> {
        self.runs
            .iter()
            .map(|(batch, live)| live_rows(batch, live.as_deref().map(Vec::as_slice)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Int64Array, StringArray},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Int64, true),
        ]))
    }

    fn rows(values: &[(&str, i64)]) -> RecordBatch {
        let keys = StringArray::from_iter_values(values.iter().map(|(key, _)| key));
        let numbers = Int64Array::from_iter_values(values.iter().map(|(_, value)| *value));
        RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(numbers)]).unwrap()
    }

    fn sorted(snapshot: &RowsSnapshot) -> Vec<(String, i64)> {
        let mut all = Vec::new();
        for batch in snapshot.batches().unwrap() {
            let keys = batch.column(0).as_any().downcast_ref::<StringArray>().unwrap().clone();
            let values = batch.column(1).as_any().downcast_ref::<Int64Array>().unwrap().clone();
            all.extend((0..batch.num_rows()).map(|row| (keys.value(row).to_owned(), values.value(row))));
        }
        all.sort();
        all
    }

    #[test]
    fn an_upsert_replaces_the_row_of_its_key_and_an_old_snapshot_keeps_its_own() {
        let mut view = Rows::new(schema(), vec![0], false).unwrap();
        view.apply(&Delta::append(rows(&[("a", 1), ("b", 2)]))).unwrap();
        let before = view.snapshot();
        let applied = view
            .apply(&Delta::change(
                &schema(),
                &rows(&[("a", 1)]),
                &rows(&[("a", 10), ("c", 3)]),
            ))
            .unwrap();
        assert_eq!(applied.removed.num_rows(), 1);
        assert_eq!(
            sorted(&view.snapshot()),
            [("a".into(), 10), ("b".into(), 2), ("c".into(), 3)]
        );
        assert_eq!(
            sorted(&before),
            [("a".into(), 1), ("b".into(), 2)],
            "a snapshot never changes"
        );
    }

    #[test]
    fn many_epochs_keep_few_runs_and_the_right_rows() {
        let mut view = Rows::new(schema(), vec![0], false).unwrap();
        let mut expected = std::collections::BTreeMap::new();
        for epoch in 0..5_000i64 {
            let key = format!("k{}", (epoch * 7919) % 613);
            view.apply(&Delta::append(rows(&[(&key, epoch)]))).unwrap();
            expected.insert(key, epoch);
        }
        assert_eq!(sorted(&view.snapshot()), expected.into_iter().collect::<Vec<_>>());
        assert!(view.runs.len() < 60, "{} runs", view.runs.len());
    }

    #[test]
    fn a_multiset_retracts_one_of_equal_rows() {
        let mut view = Rows::new(schema(), vec![], false).unwrap();
        for _ in 0..20 {
            view.apply(&Delta::append(rows(&[("a", 1), ("a", 1)]))).unwrap();
        }
        view.apply(&Delta::change(
            &schema(),
            &rows(&[("a", 1), ("a", 1), ("a", 1)]),
            &rows(&[]),
        ))
        .unwrap();
        assert_eq!(view.len(), 37);
        assert!(
            view.apply(&Delta::change(&schema(), &rows(&[("b", 1)]), &rows(&[])))
                .is_err(),
            "it was never there"
        );
    }

    #[test]
    fn equal_rows_are_counted_over_many_epochs_and_merges() {
        let mut view = Rows::new(schema(), vec![], false).unwrap();
        let keys = ["a", "b", "c", "d", "e"];
        let mut counts = [0usize; 5];
        // Steps that visit the keys in no order, and take away about half of what they bring.
        let mut random = 1u64;
        let mut next = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for _ in 0..3_000 {
            let (come, go) = (next(5) as usize, next(5) as usize);
            let added = vec![(keys[come], 1); 1 + next(4) as usize];
            let gone = vec![(keys[go], 1); counts[go].min(next(5) as usize)];
            view.apply(&Delta::change(&schema(), &rows(&gone), &rows(&added)))
                .unwrap();
            counts[go] -= gone.len();
            counts[come] += added.len();
        }
        assert!(1_000 < view.len(), "{} rows were merged often", view.len());
        let expected: Vec<_> = (keys.iter().zip(counts))
            .flat_map(|(key, count)| std::iter::repeat_n(((*key).to_owned(), 1), count))
            .collect();
        assert_eq!(sorted(&view.snapshot()), expected);
    }
}
