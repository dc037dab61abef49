//! Groups by their keys, each with its accumulators.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_empty_array, new_null_array};
use datafusion::{
    logical_expr::{EmitTo, GroupsAccumulator},
    physical_plan::aggregates::group_values::GroupValues,
};

use crate::types::{Error, Result};

use super::{Aggregation, Evaluated, GroupState, Results, failed};

/// Groups and their accumulators. Without group columns there is one group, from the start.
pub struct GroupTable {
    aggregation: Arc<Aggregation>,
    groups: Option<Box<dyn GroupValues>>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// Group of each row of the batch at hand; kept to save the allocation.
    indices: Vec<usize>,
}

impl GroupTable {
    pub fn new(aggregation: Arc<Aggregation>) -> Result<Self> {
        let groups = aggregation.group_values()?;
        let accumulators = aggregation.accumulators()?;
        let mut table = Self {
            aggregation,
            groups,
            accumulators,
            indices: Vec::new(),
        };
        if table.groups.is_none() {
            // The one group exists before any row. Accumulators learn of it by a row that their filter leaves out: without any
            // row some of them would give 0 or the lowest number in place of null.
            let mut none = table
                .aggregation
                .evaluate(&RecordBatch::new_empty(Arc::clone(&table.aggregation.input_schema)))?;
            none.rows = 1;
            for array in none.arguments.iter_mut().flatten() {
                *array = new_null_array(array.data_type(), 1);
            }
            none.filters.fill(Some(BooleanArray::from(vec![false])));
            table.update(&none)?;
        }
        Ok(table)
    }

    pub fn len(&self) -> usize {
        self.groups.as_ref().map_or(1, |groups| groups.len())
    }

    pub fn update(&mut self, rows: &Evaluated) -> Result<()> {
        match &mut self.groups {
            Some(groups) => groups.intern(&rows.groups, &mut self.indices).map_err(failed)?,
            None => {
                self.indices.clear();
                self.indices.resize(rows.rows, 0);
            }
        }
        let total = self.len();
        rows.update(&mut self.accumulators, &self.indices, total)
    }

    /// Takes states in, as [`into_state`](Self::into_state) of another table gave them: those rows came later than what is here.
    pub fn update_states(&mut self, state: &GroupState) -> Result<()> {
        match &mut self.groups {
            Some(groups) => groups.intern(&state.groups, &mut self.indices).map_err(failed)?,
            None => {
                self.indices.clear();
                self.indices.resize(state.count, 0);
            }
        }
        let total = self.len();
        let aggregation = Arc::clone(&self.aggregation);
        aggregation.merge_into(&mut self.accumulators, &state.states, &self.indices, total)
    }

    /// In the order of the groups' first rows, but for groups of equal hashes.
    pub fn into_results(mut self) -> Result<Results> {
        let count = self.len();
        let groups = self.take_keys()?;
        let mut values = Vec::with_capacity(self.accumulators.len());
        for (function, accumulator) in self.accumulators.iter_mut().enumerate() {
            // Some accumulators have nothing to say of no groups.
            if count == 0 || self.aggregation.fails_for_good(function) {
                break;
            }
            match accumulator.evaluate(EmitTo::All).map_err(failed) {
                Ok(column) => values.push(column),
                // Some groups have no value: they are told apart by the states.
                Err(Error::User(_)) => break,
                Err(error) => return Err(error),
            }
        }
        let from = values.len();
        if from == self.accumulators.len() || count == 0 {
            let empty = self.aggregation.functions[from..].iter();
            values.extend(empty.map(|function| new_empty_array(function.field().data_type())));
            return Ok(Results {
                groups,
                values,
                count,
                failures: Vec::new(),
                failed_groups: Vec::new(),
            });
        }
        let mut states = Vec::new();
        for accumulator in &mut self.accumulators[from..] {
            states.extend(accumulator.state(EmitTo::All).map_err(failed)?);
        }
        assert!(
            states.iter().all(|state| state.len() == count),
            "a function that fails keeps its state"
        );
        let computed = self.aggregation.evaluate_states_from(from, &states, count)?;
        self.aggregation.results(groups, values, computed, count)
    }

    /// In the order of the groups' first rows, but for groups of equal hashes.
    pub fn into_state(mut self) -> Result<GroupState> {
        let count = self.len();
        let groups = self.take_keys()?;
        if count == 0 {
            let fields = self.aggregation.state_schema.fields()[self.aggregation.group_count()..].iter();
            let states = fields.map(|field| new_empty_array(field.data_type())).collect();
            return Ok(GroupState { groups, states, count });
        }
        let mut states = Vec::with_capacity(self.aggregation.state_schema.fields().len());
        for accumulator in &mut self.accumulators {
            states.extend(accumulator.state(EmitTo::All).map_err(failed)?);
        }
        Ok(GroupState { groups, states, count })
    }

    pub fn memory_bytes(&self) -> usize {
        let groups = self.groups.as_ref().map_or(0, |groups| groups.size());
        groups
            + self
                .accumulators
                .iter()
                .map(|accumulator| accumulator.size())
                .sum::<usize>()
    }

    fn take_keys(&mut self) -> Result<Vec<ArrayRef>> {
        match &mut self.groups {
            Some(groups) => groups.emit(EmitTo::All).map_err(failed),
            None => Ok(Vec::new()),
        }
    }
}
