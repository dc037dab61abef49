//! Aggregates over rows that change: the rows of each group are kept, and groups that were touched are computed anew.
//!
//! ```text
//! +row, −row ─▶ rows by key, counted ── end of epoch ──▶ touched groups: aggregate all their rows ─▶ what changed
//! ```
//! Any aggregate works, in any order of input: rows of a group are aggregated in the order of their encoding, so the result depends
//! on nothing else. Groups of a window that the watermark closes are dropped.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use ahash::HashMap;
use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array},
    compute::filter,
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampNanosecondType},
    row::{RowConverter, SortField},
};

use crate::types::{
    Delta, Error, Result, Saved, Watermark, Windows,
    planted::{Bug, has},
};

use super::{
    Aggregation, Emission, EpochEnd, Flow, OpenWindows, Operator, Output,
    aggregation::{Evaluated, GroupTable, Results},
};

/// The group column that says when a group is final.
#[derive(Clone, Copy, Debug)]
pub enum ClosedBy {
    /// It holds the end of a window: final when the watermark reaches it.
    End(usize),
    /// It holds the start of one of these windows: final when no window that begins there is open.
    Start(usize, Windows),
}

pub struct RecomputeAggregate {
    aggregation: Arc<Aggregation>,
    closed_by: Option<ClosedBy>,
    emission: Emission,
    schema: SchemaRef,
    keys: RowConverter,
    inputs: RowConverter,
    results: RowConverter,
    groups: HashMap<Box<[u8]>, Group>,
    touched: BTreeSet<Box<[u8]>>,
    /// Keys by the time in their column of `closed_by`.
    open: BTreeMap<i64, BTreeSet<Box<[u8]>>>,
    closed: Watermark,
}

#[derive(Default)]
struct Group {
    /// How often each row is there, by its encoding; never 0.
    rows: BTreeMap<Box<[u8]>, i64>,
    /// The result as it was handed on.
    emitted: Option<Box<[u8]>>,
    /// It has none, and that was told.
    fails: bool,
}

impl RecomputeAggregate {
    /// `schema`: the group columns, then the functions.
    pub fn new(
        aggregation: Arc<Aggregation>,
        closed_by: Option<ClosedBy>,
        emission: Emission,
        schema: SchemaRef,
    ) -> Result<Self> {
        let fields = |types: Vec<DataType>| {
            RowConverter::new(types.into_iter().map(SortField::new).collect()).map_err(Error::of_arrow)
        };
        let mut operator = Self {
            keys: fields(aggregation.group_types())?,
            inputs: fields(aggregation.input_types())?,
            results: fields(schema.fields().iter().map(|field| field.data_type().clone()).collect())?,
            closed_by,
            emission,
            schema,
            groups: HashMap::default(),
            touched: BTreeSet::new(),
            open: BTreeMap::new(),
            closed: Watermark::START,
            aggregation,
        };
        if operator.is_global() {
            // The one row of a result without keys is there before any input.
            operator.groups.insert(Box::default(), Group::default());
            operator.touched.insert(Box::default());
        }
        Ok(operator)
    }

    fn is_global(&self) -> bool {
        self.aggregation.group_count() == 0
    }

    fn encode(encoder: &RowConverter, columns: &[ArrayRef], rows: usize) -> Result<Vec<Box<[u8]>>> {
        if columns.is_empty() {
            return Ok(vec![Box::default(); rows]);
        }
        let encoded = encoder.convert_columns(columns).map_err(Error::of_arrow)?;
        Ok(encoded.iter().map(|row| row.data().into()).collect())
    }

    fn decode<'a>(encoder: &RowConverter, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let parser = encoder.parser();
        encoder
            .convert_rows(rows.map(|row| parser.parse(row)))
            .map_err(Error::of_arrow)
    }

    fn update(&mut self, rows: &RecordBatch, weights: Option<&Int64Array>, out: &mut Output) -> Result<()> {
        let (evaluated, is_good) = self.aggregation.evaluate_good(rows, weights, out)?;
        let good_weights = weights
            .zip(is_good)
            .map(|(weights, is_good)| filter(weights, &is_good).map_err(Error::of_arrow))
            .transpose()?;
        let weights = good_weights.as_ref().map(|weights| weights.as_primitive()).or(weights);
        let keys = Self::encode(&self.keys, evaluated.groups(), evaluated.len())?;
        let inputs = Self::encode(&self.inputs, &evaluated.inputs(), evaluated.len())?;
        let times = self.closing_times(evaluated.groups());
        for (row, (key, input)) in keys.into_iter().zip(inputs).enumerate() {
            if let (Some(closed_by), Some(time)) = (self.closed_by, times.as_ref().map(|times| times[row])) {
                if closed_by.is_closed(time, self.closed) {
                    return Err(Error::bug("rows of a closed window changed"));
                }
                if !self.groups.contains_key(&key) {
                    self.open.entry(time).or_default().insert(key.clone());
                }
            }
            let group = self.groups.entry(key.clone()).or_default();
            let weight = weights.map_or(1, |weights| weights.value(row));
            match group.rows.entry(input) {
                Entry::Vacant(entry) => {
                    entry.insert(weight);
                }
                Entry::Occupied(mut entry) => {
                    *entry.get_mut() += weight;
                    if *entry.get() == 0 {
                        entry.remove();
                    }
                }
            }
            if !(weight < 0 && has(Bug::RetractionOfAMinIsIgnored)) {
                self.touched.insert(key);
            }
        }
        Ok(())
    }

    /// Per row the time that closes its group; a null time never does.
    fn closing_times(&self, groups: &[ArrayRef]) -> Option<Vec<i64>> {
        let (ClosedBy::End(column) | ClosedBy::Start(column, _)) = self.closed_by?;
        let times = groups[column].as_primitive::<TimestampNanosecondType>();
        Some(times.iter().map(|time| time.unwrap_or(i64::MAX)).collect())
    }

    /// The results of these groups, in any order, a row for each that has one, and the others. Groups without rows have none, but
    /// for the one without keys.
    fn compute(&self, keys: &[&[u8]]) -> Result<(RecordBatch, Results)> {
        if keys.is_empty() {
            // Some accumulators cannot tell the type of no results.
            return Ok((RecordBatch::new_empty(Arc::clone(&self.schema)), Results::default()));
        }
        let (mut inputs, mut key_of_input): (Vec<&[u8]>, Vec<u32>) = (Vec::new(), Vec::new());
        for (index, key) in keys.iter().enumerate() {
            for (row, count) in &self.groups[*key].rows {
                if *count < 0 {
                    return Err(Error::bug("a row was retracted that had not come"));
                }
                for _ in 0..*count {
                    inputs.push(row);
                    key_of_input.push(index as u32);
                }
            }
        }
        let groups = match self.is_global() {
            true => Vec::new(),
            false => {
                let groups = Self::decode(&self.keys, keys.iter().copied())?;
                arrow::compute::take_arrays(&groups, &UInt32Array::from(key_of_input), None).map_err(Error::of_arrow)?
            }
        };
        let count = inputs.len();
        let inputs = match self.aggregation.input_types().is_empty() {
            true => Vec::new(),
            false => Self::decode(&self.inputs, inputs.into_iter())?,
        };
        let mut table = GroupTable::new(Arc::clone(&self.aggregation))?;
        if 0 < count {
            table.update(&Evaluated::of(&self.aggregation, groups, inputs, count))?;
        }
        let results = table.into_results()?;
        let options = RecordBatchOptions::new().with_row_count(Some(results.count));
        let columns = results.groups.iter().chain(&results.values).cloned().collect();
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| Error::bug(format!("an aggregate's rows do not fit their schema: {e}")))?;
        Ok((rows, results))
    }

    /// Computes the touched groups anew.
    fn changes(&mut self, out: &mut Output) -> Result<Delta> {
        let touched = std::mem::take(&mut self.touched);
        // A group without rows has no row in the result, so results are those of the others.
        let (full, empty): (Vec<&[u8]>, Vec<&[u8]>) = touched
            .iter()
            .map(|key| key.as_ref())
            .partition(|key| self.is_global() || !self.groups[*key].rows.is_empty());
        let (now, mut results) = self.compute(&full)?;
        let mut retracted: Vec<Box<[u8]>> = Vec::new();
        let mut added = Vec::new();
        let mut is_told = BTreeSet::new();
        // Groups whose hashes are equal come in another order than their rows, so each result is told by its own key.
        let good = Self::encode(&self.keys, &results.groups, results.count)?;
        let failing = Self::encode(&self.keys, &results.failed_groups, results.failures.len())?;
        assert_eq!(
            good.len() + failing.len(),
            full.len(),
            "a row for each group with rows, or a reason"
        );
        for ((index, _), key) in results.failures.iter().zip(failing) {
            let group = self.groups.get_mut(&key).expect("touched groups are there");
            retracted.extend(group.emitted.take());
            if std::mem::replace(&mut group.fails, true) {
                is_told.insert(*index);
            }
        }
        results.forget_failures(&is_told)?;
        out.failed.extend(self.aggregation.failed_groups(&results, Vec::new())?);
        let encoded = Self::encode(&self.results, now.columns(), now.num_rows())?;
        for (row, (key, result)) in good.into_iter().zip(encoded).enumerate() {
            let group = self.groups.get_mut(&key).expect("touched groups are there");
            group.fails = false;
            if group.emitted.as_ref() != Some(&result) {
                retracted.extend(group.emitted.replace(result));
                added.push(row as u32);
            }
        }
        for key in empty {
            let group = self.groups.remove(key).expect("touched groups are there");
            retracted.extend(group.emitted);
            let column = match self.closed_by {
                Some(ClosedBy::End(column) | ClosedBy::Start(column, _)) => column,
                None => continue,
            };
            let times = Self::decode(&self.keys, [key].into_iter())?;
            let time = times[column].as_primitive::<TimestampNanosecondType>();
            let time = if time.is_null(0) { i64::MAX } else { time.value(0) };
            if let Some(keys) = self.open.get_mut(&time) {
                keys.remove(key);
                if keys.is_empty() {
                    self.open.remove(&time);
                }
            }
        }
        let added = arrow::compute::take_record_batch(&now, &UInt32Array::from(added)).map_err(Error::of_arrow)?;
        let columns = Self::decode(&self.results, retracted.iter().map(|row| row.as_ref()))?;
        let options = RecordBatchOptions::new().with_row_count(Some(retracted.len()));
        let retracted =
            RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(Error::of_arrow)?;
        Ok(Delta::change(&self.schema, &retracted, &added))
    }

    /// Forgets groups that are final, and gives their rows where nobody has them yet.
    fn close(&mut self, out: &mut Output) -> Result<Option<Delta>> {
        let Some(closed_by) = self.closed_by else {
            return Ok(None);
        };
        let mut closing = BTreeSet::new();
        while let Some(entry) = self.open.first_entry()
            && closed_by.is_closed(*entry.key(), self.closed)
        {
            closing.extend(entry.remove());
        }
        let delta = match self.emission {
            Emission::Changes => None,
            Emission::OnWindowClose => {
                let full: Vec<&[u8]> = closing
                    .iter()
                    .map(|key| key.as_ref())
                    .filter(|key: &&[u8]| !self.groups[*key].rows.is_empty())
                    .collect();
                match full.is_empty() {
                    true => None,
                    false => {
                        let (rows, results) = self.compute(&full)?;
                        out.failed.extend(self.aggregation.failed_groups(&results, Vec::new())?);
                        Some(Delta::append(rows))
                    }
                }
            }
        };
        for key in &closing {
            self.groups.remove(key);
            self.touched.remove(key);
        }
        Ok(delta)
    }
}

impl ClosedBy {
    fn is_closed(self, time: i64, watermark: Watermark) -> bool {
        match self {
            // At the end of the input everything is closed, also groups without a time.
            _ if watermark == Watermark::END => true,
            _ if time == i64::MAX => false,
            Self::End(_) => time <= watermark.0,
            Self::Start(_, windows) => time < windows.starts_complete_below(watermark).0,
        }
    }
}

impl Operator for RecomputeAggregate {
    fn on_delta(&mut self, flow: Flow, out: &mut Output) -> Result<()> {
        self.update(&flow.delta.rows, flow.delta.weights.as_ref(), out)
    }

    fn on_epoch_end(&mut self, end: EpochEnd, out: &mut Output) -> Result<Watermark> {
        if self.emission == Emission::Changes && !self.touched.is_empty() {
            let changes = self.changes(out)?;
            out.push(Flow::of(changes));
        }
        self.closed = end.watermark;
        if let Some(delta) = self.close(out)? {
            out.push(Flow::of(delta));
        }
        Ok(end.watermark)
    }

    fn open_windows(&self) -> Option<OpenWindows> {
        let closed_by = self.closed_by?;
        // A group without a time is closed by the end of the input alone.
        let mut times = self.open.range(..i64::MAX).map(|(time, _)| *time);
        let first = times.next()?;
        let last = times.next_back().unwrap_or(first);
        let (first_start, first_end) = match closed_by {
            ClosedBy::End(_) => (None, first),
            ClosedBy::Start(_, windows) => (Some(first), windows.starts_below_complete_at(first.saturating_add(1)).0),
        };
        let closes_at = |time: i64| match closed_by {
            ClosedBy::End(_) => Watermark(time),
            ClosedBy::Start(_, windows) => windows.starts_below_complete_at(time.saturating_add(1)),
        };
        Some(OpenWindows {
            first_start,
            first_end,
            first_closes_at: closes_at(first),
            all_close_at: closes_at(last),
        })
    }

    fn snapshot(&mut self) -> Result<Saved> {
        let head = Arc::new(Schema::new(vec![
            Field::new("closed", DataType::Int64, false),
            Field::new("has_emitted", DataType::Boolean, false),
        ]));
        let has_emitted = self.groups.values().any(|group| group.emitted.is_some() || group.fails);
        let head = RecordBatch::try_new(
            head,
            vec![
                Arc::new(Int64Array::from(vec![self.closed.0])),
                Arc::new(arrow::array::BooleanArray::from(vec![has_emitted])),
            ],
        )
        .map_err(Error::of_arrow)?;
        let mut keys: Vec<&Box<[u8]>> = self.groups.keys().collect();
        keys.sort_unstable();
        let (mut key_rows, mut inputs, mut counts): (Vec<&[u8]>, Vec<&[u8]>, Vec<i64>) = Default::default();
        for key in keys {
            for (row, count) in &self.groups[key].rows {
                key_rows.push(key);
                inputs.push(row);
                counts.push(*count);
            }
        }
        let decoded = |encoder: &RowConverter, types: Vec<DataType>, rows: Vec<&[u8]>| match types.is_empty() {
            true => Ok(Vec::new()),
            false => Self::decode(encoder, rows.into_iter()),
        };
        let columns: Vec<ArrayRef> = std::iter::once(Arc::new(Int64Array::from(counts)) as ArrayRef)
            .chain(decoded(&self.keys, self.aggregation.group_types(), key_rows)?)
            .chain(decoded(&self.inputs, self.aggregation.input_types(), inputs)?)
            .collect();
        let fields: Vec<Field> = columns
            .iter()
            .enumerate()
            .map(|(index, column)| Field::new(index.to_string(), column.data_type().clone(), true))
            .collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(Error::of_arrow)?;
        Ok(Saved::now(vec![head, rows]))
    }

    fn restore(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        let [head, rows] = state.as_slice() else {
            return Err(Error::state(
                "the checkpoint of an aggregate over changing rows has other parts than expected",
            ));
        };
        let width = self.aggregation.group_count();
        if rows.num_columns() != 1 + width + self.aggregation.input_types().len() {
            return Err(Error::state(
                "the checkpoint of an aggregate over changing rows has other columns than its definition",
            ));
        }
        let (counts, columns) = rows.columns().split_first().expect("counted above");
        let (groups, inputs) = columns.split_at(width);
        let keys = Self::encode(&self.keys, groups, rows.num_rows())?;
        let inputs = Self::encode(&self.inputs, inputs, rows.num_rows())?;
        let times = self.closing_times(groups);
        for (row, (key, input)) in keys.into_iter().zip(inputs).enumerate() {
            if let Some(times) = &times {
                self.open.entry(times[row]).or_default().insert(key.clone());
            }
            let count = counts.as_primitive::<Int64Type>().value(row);
            self.groups.entry(key).or_default().rows.insert(input, count);
        }
        self.closed = Watermark(head.column(0).as_primitive::<Int64Type>().value(0));
        if head.column(1).as_boolean().value(0) {
            // What was handed on is what the rows give: a checkpoint is taken at the end of an epoch.
            self.touched = self.groups.keys().cloned().collect();
            // What fails was told of too.
            self.changes(&mut Output::default())?;
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        let of = |group: &Group| {
            let rows: usize = group.rows.keys().map(|row| row.len() + 48).sum();
            96 + rows + group.emitted.as_ref().map_or(0, |row| row.len())
        };
        let keys: usize = self.groups.keys().map(|key| 2 * key.len()).sum();
        keys + self.groups.values().map(of).sum::<usize>()
    }
}
