//! Groups whose states are kept as rows, so that an epoch costs what it touched and not what there is.
//!
//! ```text
//! rows of the epoch ─▶ recent: accumulators ── fold ─┬─▶ state of touched groups, old and new: what changed
//!                                                    └─▶ runs of state rows, one live row per group
//! ```
//! Runs of like size are merged, so a state is copied O(log n) times; a checkpoint is the live rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array},
    compute::{interleave, take_arrays},
};
use datafusion::physical_plan::aggregates::group_values::GroupValues;

use crate::types::{
    Error, Result,
    planted::{Bug, has},
};

use super::{
    Aggregation,
    aggregation::{Evaluated, GroupState, GroupTable, Results, failed},
};

/// How many runs of like size are merged into one.
const RUNS_PER_MERGE: usize = 8;
/// Runs below this length are not worth rewriting for their dead rows.
const RUN_ROWS_MIN: usize = 4_096;
/// Rows of one batch of a snapshot: few enough that no column of strings is too long for its offsets.
const SAVED_ROWS_MAX: usize = 1 << 20;

pub struct StateTable {
    aggregation: Arc<Aggregation>,
    /// Key to index of all groups in `states`; `None` without group columns.
    groups: Option<Box<dyn GroupValues>>,
    states: StateRows,
    /// What came since the last fold, aggregated by itself.
    recent: GroupTable,
    is_touched: bool,
}

/// The groups that an epoch touched.
pub struct Touched {
    /// As they are now. Of those without a result, the ones that had none before are not told again.
    pub now: Results,
    /// Which of these groups had a result before, ascending, and their values then; no column where none had.
    pub known: Vec<u32>,
    pub values_before: Vec<ArrayRef>,
    /// Groups that had a result before and have none now.
    pub gone: Option<Gone>,
}

/// Group columns, values before, and how many.
pub struct Gone {
    pub groups: Vec<ArrayRef>,
    pub values: Vec<ArrayRef>,
    pub count: usize,
}

impl StateTable {
    /// Without group columns there is one group, touched from the start.
    pub fn new(aggregation: Arc<Aggregation>) -> Result<Self> {
        Ok(Self {
            groups: aggregation.group_values()?,
            states: StateRows::default(),
            recent: GroupTable::new(Arc::clone(&aggregation))?,
            is_touched: aggregation.group_count() == 0,
            aggregation,
        })
    }

    pub fn aggregation(&self) -> &Aggregation {
        &self.aggregation
    }

    /// Whether some of its groups were handed on before.
    pub fn has_been_taken(&self) -> bool {
        0 < self.states.len()
    }

    pub fn update(&mut self, rows: &Evaluated) -> Result<()> {
        self.is_touched = true;
        self.recent.update(rows)
    }

    /// As [`update`](Self::update), of rows that were aggregated elsewhere.
    pub fn update_states(&mut self, state: &GroupState) -> Result<()> {
        self.is_touched = true;
        self.recent.update_states(state)
    }

    /// What changed since the last time; `None` where nothing came.
    pub fn take_touched(&mut self) -> Result<Option<Touched>> {
        let Some(folded) = self.fold()? else {
            return Ok(None);
        };
        let known: Vec<u32> = folded.known.iter().map(|row| *row as u32).collect();
        let of_known = match known.len() == folded.count || known.is_empty() {
            true => folded.groups.clone(),
            false => take_arrays(&folded.groups, &UInt32Array::from(known.clone()), None).map_err(Error::of_arrow)?,
        };
        let now = self
            .aggregation
            .evaluate_states(folded.groups, &folded.after, folded.count)?;
        if known.is_empty() {
            return Ok(Some(Touched {
                now,
                known,
                values_before: Vec::new(),
                gone: None,
            }));
        }
        let before = self
            .aggregation
            .evaluate_states(of_known, &folded.before, known.len())?;
        Touched::of(now, before, known, folded.count).map(Some)
    }

    /// All groups, for the last time.
    pub fn into_results(mut self) -> Result<Results> {
        if !self.has_been_taken() {
            return self.recent.into_results();
        }
        self.results()
    }

    /// All groups, as they are.
    pub fn results(&mut self) -> Result<Results> {
        self.fold()?;
        let GroupState { groups, states, count } = self.all()?;
        self.aggregation.evaluate_states(groups, &states, count)
    }

    /// The state as it is now.
    pub fn state(&mut self) -> Result<SharedState> {
        self.fold()?;
        Ok(SharedState {
            aggregation: Arc::clone(&self.aggregation),
            rows: self.states.share(),
        })
    }

    /// Takes up what [`SharedState::rows`] gave, batch by batch, into a fresh table.
    pub fn restore(&mut self, state: &RecordBatch) -> Result<()> {
        let lost = usize::from(has(Bug::KeyLostOnRestore)).min(state.num_rows());
        let state = GroupState::of_rows(&state.slice(0, state.num_rows() - lost), &self.aggregation)?;
        if state.count == 0 {
            return Ok(());
        }
        let indices = self.intern(&state.groups, state.count)?;
        let columns = state.groups.into_iter().chain(state.states).collect();
        self.states.put(&indices, columns)?;
        self.is_touched = false;
        Ok(())
    }

    pub fn memory_bytes(&self) -> usize {
        let groups = self.groups.as_ref().map_or(0, |groups| groups.size());
        groups + self.states.memory_bytes() + self.recent.memory_bytes()
    }

    fn all(&self) -> Result<GroupState> {
        let places: Vec<Place> = self.states.places.iter().flatten().copied().collect();
        let mut groups = self.states.pick(&places, 0)?;
        let states = groups.split_off(self.aggregation.group_count());
        Ok(GroupState {
            groups,
            states,
            count: self.states.len(),
        })
    }

    fn fold(&mut self) -> Result<Option<Folded>> {
        if !std::mem::take(&mut self.is_touched) {
            return Ok(None);
        }
        let fresh = GroupTable::new(Arc::clone(&self.aggregation))?;
        let recent = std::mem::replace(&mut self.recent, fresh);
        let count = recent.len();
        let GroupState { groups, states, .. } = recent.into_state()?;
        let known_before = self.states.len();
        let indices = self.intern(&groups, count)?;
        let known: Vec<usize> = (0..count).filter(|row| indices[*row] < known_before).collect();
        let of_known: Vec<usize> = known.iter().map(|row| indices[*row]).collect();
        let before = self.states.gather(&of_known, self.aggregation.group_count())?;
        let after = if known.is_empty() {
            states
        } else {
            let rows: Vec<usize> = (0..count).collect();
            self.aggregation
                .merge_states(&[(&before, &known), (&states, &rows)], count)?
        };
        let columns = groups.iter().chain(&after).cloned().collect();
        self.states.put(&indices, columns)?;
        Ok(Some(Folded {
            groups,
            before,
            known,
            after,
            count,
        }))
    }

    fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<usize>> {
        let mut indices = Vec::with_capacity(rows);
        match &mut self.groups {
            Some(groups) => groups.intern(keys, &mut indices).map_err(failed)?,
            None => indices.resize(rows, 0),
        }
        Ok(indices)
    }
}

impl Touched {
    /// `known` are the places among all `count` groups of those that were there `before`.
    fn of(mut now: Results, before: Results, known: Vec<u32>, count: usize) -> Result<Self> {
        if now.failures.is_empty() && before.failures.is_empty() {
            return Ok(Self {
                now,
                known,
                values_before: before.values,
                gone: None,
            });
        }
        // Of each group its row among the results of now, and of then.
        let row_now = rows_of(count, now.failures.iter().map(|(group, _)| *group));
        let row_before = rows_of(known.len(), before.failures.iter().map(|(group, _)| *group));
        let (mut stays, mut stays_before, mut goes_before) = (Vec::new(), Vec::new(), Vec::new());
        let mut failed_before = BTreeSet::new();
        for (group, row_before) in known.iter().zip(row_before) {
            match (row_now[*group as usize], row_before) {
                (Some(row), Some(row_before)) => {
                    stays.push(row);
                    stays_before.push(row_before);
                }
                (None, Some(row_before)) => goes_before.push(row_before),
                (_, None) => {
                    failed_before.insert(*group as usize);
                }
            }
        }
        let pick = |columns: &[ArrayRef], rows: &[u32]| {
            take_arrays(columns, &UInt32Array::from(rows.to_vec()), None).map_err(Error::of_arrow)
        };
        now.forget_failures(&failed_before)?;
        Ok(Self {
            values_before: pick(&before.values, &stays_before)?,
            gone: match goes_before.is_empty() {
                true => None,
                false => Some(Gone {
                    groups: pick(&before.groups, &goes_before)?,
                    values: pick(&before.values, &goes_before)?,
                    count: goes_before.len(),
                }),
            },
            known: stays,
            now,
        })
    }
}

/// The row of each of `count` groups where these have none.
fn rows_of(count: usize, missing: impl Iterator<Item = usize>) -> Vec<Option<u32>> {
    let mut rows = vec![Some(0); count];
    for group in missing {
        rows[group] = None;
    }
    for (number, row) in (0..).zip(rows.iter_mut().flatten()) {
        *row = number;
    }
    rows
}

/// States before and after what was recent was merged in.
struct Folded {
    groups: Vec<ArrayRef>,
    known: Vec<usize>,
    before: Vec<ArrayRef>,
    after: Vec<ArrayRef>,
    count: usize,
}

/// A row per group, replaced as a whole.
///
/// Invariant: `places[group]` names the one live row of that group, and a run counts its live rows.
#[derive(Default)]
pub(super) struct StateRows {
    runs: BTreeMap<u32, Run>,
    next_run: u32,
    /// By group number; `None` for a number that is free or just handed out.
    places: Vec<Option<Place>>,
    free: BTreeSet<usize>,
}

/// Cheap to clone: what is shared is copied before it is changed.
#[derive(Clone)]
struct Run {
    columns: Vec<ArrayRef>,
    /// The group of each row.
    groups: Arc<[u32]>,
    is_live: Arc<Vec<bool>>,
    live: usize,
}

impl Run {
    fn new(columns: Vec<ArrayRef>, groups: Vec<u32>) -> Self {
        Self {
            columns,
            is_live: Arc::new(vec![true; groups.len()]),
            live: groups.len(),
            groups: groups.into(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    run: u32,
    row: u32,
}

impl StateRows {
    /// One more than the highest group number.
    fn len(&self) -> usize {
        self.places.len()
    }

    /// A number for a new group: the lowest free one.
    pub fn allocate(&mut self) -> usize {
        self.free.pop_first().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        })
    }

    /// Forgets a group; its number is free then.
    pub fn remove(&mut self, group: usize) {
        let place = self.places[group].take().expect("a group that is removed is there");
        let run = self.runs.get_mut(&place.run).expect("a place names a run");
        Arc::make_mut(&mut run.is_live)[place.row as usize] = false;
        run.live -= 1;
        if run.live == 0 {
            self.runs.remove(&place.run);
        }
        self.free.insert(group);
    }

    /// Rows of these groups, each named once.
    pub fn put(&mut self, groups: &[usize], columns: Vec<ArrayRef>) -> Result<()> {
        let run = self.next_run;
        self.next_run += 1;
        {
            // Once for all rows: whether a run is shared is not asked row by row.
            let mut runs: Vec<_> = (self.runs.iter_mut())
                .map(|(id, run)| (*id, Arc::make_mut(&mut run.is_live), &mut run.live))
                .collect();
            for (row, group) in groups.iter().enumerate() {
                let place = Place { run, row: row as u32 };
                if self.places.len() <= *group {
                    self.places.resize(*group + 1, None);
                }
                if let Some(old) = self.places[*group].replace(place) {
                    let index = runs.binary_search_by_key(&old.run, |(id, ..)| *id);
                    let (_, is_live, live) = &mut runs[index.expect("a place names a run")];
                    is_live[old.row as usize] = false;
                    **live -= 1;
                }
            }
        }
        let of_rows = groups.iter().map(|group| *group as u32).collect();
        self.runs.insert(run, Run::new(columns, of_rows));
        self.runs.retain(|_, run| 0 < run.live);
        self.tidy()
    }

    /// The columns from `first` on of these groups' rows, in their order.
    pub fn gather(&self, groups: &[usize], first: usize) -> Result<Vec<ArrayRef>> {
        let place = |group: &usize| self.places[*group].expect("only groups with rows are asked for");
        let places: Vec<Place> = groups.iter().map(place).collect();
        self.pick(&places, first)
    }

    fn pick(&self, places: &[Place], first: usize) -> Result<Vec<ArrayRef>> {
        let mut numbers: BTreeMap<u32, usize> = places.iter().map(|place| (place.run, 0)).collect();
        for (number, slot) in numbers.values_mut().enumerate() {
            *slot = number;
        }
        let indices: Vec<(usize, usize)> = places
            .iter()
            .map(|place| (numbers[&place.run], place.row as usize))
            .collect();
        let runs: Vec<&Run> = numbers.keys().map(|run| &self.runs[run]).collect();
        let width = runs.first().map_or(0, |run| run.columns.len());
        (first..width)
            .map(|column| {
                let arrays: Vec<&dyn Array> = runs.iter().map(|run| run.columns[column].as_ref()).collect();
                interleave(&arrays, &indices).map_err(|e| Error::bug(e.to_string()))
            })
            .collect()
    }

    /// Keeps runs few and mostly live.
    fn tidy(&mut self) -> Result<()> {
        loop {
            let tier = |run: &Run| run.groups.len().max(1).ilog(RUNS_PER_MERGE);
            let Some((_, last)) = self.runs.last_key_value() else {
                return Ok(());
            };
            let last_tier = tier(last);
            let like: Vec<u32> = self
                .runs
                .iter()
                .rev()
                .take_while(|(_, run)| tier(run) <= last_tier)
                .map(|(id, _)| *id)
                .collect();
            if RUNS_PER_MERGE <= like.len() {
                self.rewrite(&like)?;
                continue;
            }
            let half_dead = self
                .runs
                .iter()
                .find(|(_, run)| RUN_ROWS_MIN <= run.groups.len() && run.live * 2 < run.groups.len())
                .map(|(id, _)| *id);
            match half_dead {
                Some(id) => self.rewrite(&[id])?,
                None => return Ok(()),
            }
        }
    }

    /// The live rows of these runs as one run.
    fn rewrite(&mut self, ids: &[u32]) -> Result<()> {
        let mut places = Vec::new();
        let mut groups = Vec::new();
        for id in ids {
            let run = &self.runs[id];
            for (row, group) in run.groups.iter().enumerate().filter(|(row, _)| run.is_live[*row]) {
                places.push(Place {
                    run: *id,
                    row: row as u32,
                });
                groups.push(*group);
            }
        }
        let columns = self.pick(&places, 0)?;
        let run = self.next_run;
        self.next_run += 1;
        for (row, group) in groups.iter().enumerate() {
            self.places[*group as usize] = Some(Place { run, row: row as u32 });
        }
        for id in ids {
            self.runs.remove(id);
        }
        self.runs.insert(run, Run::new(columns, groups));
        Ok(())
    }

    /// The rows as they are now; costs a pointer per run, and a byte per row at the next change.
    pub fn share(&self) -> SharedRows {
        SharedRows {
            runs: self.runs.values().cloned().collect(),
            groups: self.places.len(),
        }
    }

    pub fn memory_bytes(&self) -> usize {
        let of = |run: &Run| {
            let columns: usize = run.columns.iter().map(|column| column.get_array_memory_size()).sum();
            columns + run.groups.len() * (size_of::<u32>() + size_of::<bool>())
        };
        self.runs.values().map(of).sum::<usize>() + self.places.len() * size_of::<Place>()
    }
}

/// The live rows of groups at one moment.
pub(super) struct SharedRows {
    runs: Vec<Run>,
    /// One more than the highest group number.
    groups: usize,
}

impl SharedRows {
    /// All columns of these groups' rows, in their order, in batches of bounded length, and how many rows each has. Groups that have no row
    /// are left out.
    pub fn batches(&self, groups: impl Iterator<Item = usize>) -> Result<Vec<(Vec<ArrayRef>, usize)>> {
        let mut places: Vec<Option<(u32, u32)>> = vec![None; self.groups];
        for (number, run) in (0..).zip(&self.runs) {
            for (row, group) in (0..).zip(run.groups.iter()) {
                if run.is_live[row as usize] {
                    places[*group as usize] = Some((number, row));
                }
            }
        }
        let indices: Vec<(usize, usize)> = groups
            .filter_map(|group| places[group])
            .map(|(run, row)| (run as usize, row as usize))
            .collect();
        let width = self.runs.first().map_or(0, |run| run.columns.len());
        let column = |index: usize, rows: &[(usize, usize)]| {
            let arrays: Vec<&dyn Array> = self.runs.iter().map(|run| run.columns[index].as_ref()).collect();
            interleave(&arrays, rows).map_err(|e| Error::bug(e.to_string()))
        };
        indices
            .chunks(SAVED_ROWS_MAX)
            .map(|rows| {
                let columns = (0..width).map(|index| column(index, rows)).collect::<Result<_>>()?;
                Ok((columns, rows.len()))
            })
            .collect()
    }
}

/// The state of a [`StateTable`] at one moment.
pub struct SharedState {
    aggregation: Arc<Aggregation>,
    rows: SharedRows,
}

impl SharedState {
    /// Rows of [`Aggregation::state_schema`] in the order of their groups, in batches of bounded length; one at least.
    pub fn rows(&self) -> Result<Vec<RecordBatch>> {
        let schema = self.aggregation.state_schema();
        let batches = self.rows.batches(0..self.rows.groups)?;
        if batches.is_empty() {
            return Ok(vec![RecordBatch::new_empty(Arc::clone(schema))]);
        }
        let rows = |(columns, count)| {
            // There may be no column.
            let options = RecordBatchOptions::new().with_row_count(Some(count));
            RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(Error::of_arrow)
        };
        batches.into_iter().map(rows).collect()
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{AsArray, Int64Array},
        datatypes::{DataType, Field, Int64Type, Schema},
    };
    use datafusion::{
        functions_aggregate::sum::sum_udaf,
        physical_expr::{PhysicalExpr, aggregate::AggregateExprBuilder, expressions::Column},
    };

    use super::*;

    fn rows(keys: &[i64], values: &[i64]) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("key", DataType::Int64, true),
            Field::new("value", DataType::Int64, true),
        ]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(keys.to_vec())),
            Arc::new(Int64Array::from(values.to_vec())),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    /// `SELECT key, sum(value) … GROUP BY key`
    fn sums() -> Arc<Aggregation> {
        let schema = rows(&[], &[]).schema();
        let column = |index: usize| Arc::new(Column::new(schema.field(index).name(), index)) as Arc<dyn PhysicalExpr>;
        let sum = AggregateExprBuilder::new(sum_udaf(), vec![column(1)])
            .schema(Arc::clone(&schema))
            .alias("sum")
            .build()
            .unwrap();
        let key = (column(0), Arc::new(schema.field(0).clone()));
        Arc::new(Aggregation::new(schema, vec![key], vec![(Arc::new(sum), None)]).unwrap())
    }

    fn add(table: &mut StateTable, keys: &[i64], values: &[i64]) {
        let rows = table.aggregation().evaluate(&rows(keys, values)).unwrap();
        table.update(&rows).unwrap();
    }

    fn numbers(column: &ArrayRef) -> Vec<i64> {
        column.as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn an_epoch_tells_what_it_touched_and_what_that_was() {
        let mut table = StateTable::new(sums()).unwrap();
        add(&mut table, &[1, 2, 1], &[10, 20, 1]);
        let touched = table.take_touched().unwrap().unwrap();
        assert_eq!(numbers(&touched.now.groups[0]), [1, 2]);
        assert_eq!(numbers(&touched.now.values[0]), [11, 20]);
        assert!(touched.known.is_empty());

        add(&mut table, &[3, 2], &[5, 5]);
        let touched = table.take_touched().unwrap().unwrap();
        assert_eq!(numbers(&touched.now.groups[0]), [3, 2]);
        assert_eq!(numbers(&touched.now.values[0]), [5, 25]);
        assert_eq!((touched.known, numbers(&touched.values_before[0])), (vec![1], vec![20]));
        assert!(table.take_touched().unwrap().is_none(), "nothing came since");
    }

    #[test]
    fn many_epochs_leave_few_runs_and_the_right_states_also_through_a_checkpoint() {
        let mut table = StateTable::new(sums()).unwrap();
        let mut expected = BTreeMap::new();
        for epoch in 0..5_000i64 {
            let key = (epoch * 7_919) % 613;
            add(&mut table, &[key], &[epoch]);
            table.take_touched().unwrap();
            *expected.entry(key).or_insert(0) += epoch;
            if epoch == 2_500 {
                let state = table.state().unwrap();
                // What comes later changes nothing of it.
                add(&mut table, &[key, 10_000], &[1, 1]);
                table.take_touched().unwrap();
                table = StateTable::new(sums()).unwrap();
                for rows in state.rows().unwrap() {
                    table.restore(&rows).unwrap();
                }
            }
        }
        assert!(table.states.runs.len() < 60, "{} runs", table.states.runs.len());
        let Results { groups, values, .. } = table.into_results().unwrap();
        let found: BTreeMap<i64, i64> = std::iter::zip(numbers(&groups[0]), numbers(&values[0])).collect();
        assert_eq!(found, expected);
    }
}
