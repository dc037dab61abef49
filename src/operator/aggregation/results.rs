//! The values of functions over states, and the groups that have none.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_empty_array},
    compute::{filter, take_arrays},
    datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, FieldRef, Schema},
};
use datafusion::{logical_expr::EmitTo, physical_expr::aggregate::AggregateFunctionExpr};

use crate::{
    operator::failure::{Computed, FailedRows, compute},
    types::{Error, Result},
};

use super::{Aggregation, failed};

/// The group columns and the value of every function, a row per group that has them.
#[derive(Default)]
pub struct Results {
    pub groups: Vec<ArrayRef>,
    pub values: Vec<ArrayRef>,
    /// How many groups: there may be no column to tell.
    pub count: usize,
    /// The groups without a result: their place among all that were asked for, ascending, and the reason.
    pub failures: Vec<(usize, String)>,
    /// Their group columns.
    pub failed_groups: Vec<ArrayRef>,
}

impl Results {
    /// Leaves out the failures of these groups.
    pub fn forget_failures(&mut self, groups: &BTreeSet<usize>) -> Result<()> {
        let is_kept: BooleanArray = self
            .failures
            .iter()
            .map(|(group, _)| Some(!groups.contains(group)))
            .collect();
        for column in &mut self.failed_groups {
            *column = filter(column, &is_kept).map_err(Error::of_arrow)?;
        }
        self.failures.retain(|(group, _)| !groups.contains(group));
        Ok(())
    }
}

impl Aggregation {
    /// The value of every function over state columns of a row per group.
    pub fn evaluate_states(&self, groups: Vec<ArrayRef>, states: &[ArrayRef], count: usize) -> Result<Results> {
        let computed = self.evaluate_states_from(0, states, count)?;
        self.results(groups, Vec::new(), computed, count)
    }

    /// The values of the functions from number `from` on, over their state columns of a row per group; groups are left out where one
    /// of them cannot be computed.
    pub(super) fn evaluate_states_from(&self, from: usize, states: &[ArrayRef], groups: usize) -> Result<Computed> {
        if groups == 0 {
            // Some accumulators have no result of no groups.
            let empty = |function: &Arc<AggregateFunctionExpr>| new_empty_array(function.field().data_type());
            return Ok(Computed::all(self.functions[from..].iter().map(empty).collect(), 0));
        }
        compute(groups, |range| {
            let length = range.len();
            let states: Vec<ArrayRef> = states.iter().map(|state| state.slice(range.start, length)).collect();
            let numbers: Vec<usize> = (0..length).collect();
            let mut at = 0;
            (from..self.functions.len())
                .map(|function| {
                    let mut accumulator = self.accumulator(function)?;
                    let to = at + self.state_widths[function];
                    accumulator
                        .merge_batch(&states[at..to], &numbers, length)
                        .map_err(failed)?;
                    at = to;
                    accumulator.evaluate(EmitTo::All).map_err(failed)
                })
                .collect()
        })
    }

    /// Puts the first values, of all groups, beside the others, of those that have them.
    pub(super) fn results(
        &self,
        groups: Vec<ArrayRef>,
        first_values: Vec<ArrayRef>,
        computed: Computed,
        count: usize,
    ) -> Result<Results> {
        let Some(is_good) = computed.is_good() else {
            return Ok(Results {
                groups,
                values: first_values.into_iter().chain(computed.columns).collect(),
                count,
                failures: Vec::new(),
                failed_groups: Vec::new(),
            });
        };
        let failing = UInt32Array::from_iter_values(computed.failures.iter().map(|(group, _)| *group as u32));
        let keep = |columns: &[ArrayRef]| -> Result<Vec<ArrayRef>> {
            columns
                .iter()
                .map(|column| filter(column, &is_good).map_err(Error::of_arrow))
                .collect()
        };
        let failed_groups = take_arrays(&groups, &failing, None).map_err(Error::of_arrow)?;
        let mut values = keep(&first_values)?;
        values.extend(match is_good.true_count() {
            0 => self.functions[first_values.len()..]
                .iter()
                .map(|function| new_empty_array(function.field().data_type()))
                .collect(),
            _ => computed.columns,
        });
        Ok(Results {
            groups: keep(&groups)?,
            values,
            count: is_good.true_count(),
            failures: computed.failures,
            failed_groups,
        })
    }

    /// The groups of `results` without a result, as rows of `more` and their columns.
    pub fn failed_groups(&self, results: &Results, more: Vec<(&'static str, ArrayRef)>) -> Result<Option<FailedRows>> {
        if results.failures.is_empty() {
            return Ok(None);
        }
        let more_fields = more
            .iter()
            .map(|(name, column)| Arc::new(Field::new(*name, column.data_type().clone(), true)));
        let fields: Vec<FieldRef> = more_fields.chain(self.group_schema.fields().iter().cloned()).collect();
        let more_columns = more.iter().map(|(_, column)| column);
        let columns = more_columns.chain(&results.failed_groups).cloned().collect();
        let options = RecordBatchOptions::new().with_row_count(Some(results.failures.len()));
        Ok(Some(FailedRows {
            operator: "aggregate",
            rows: RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
                .map_err(Error::of_arrow)?,
            reasons: results.failures.iter().map(|(_, reason)| reason.clone()).collect(),
        }))
    }

    /// Whether a function that fails on one group loses the state of the others: then it is asked over a copy of its state.
    pub(super) fn fails_for_good(&self, function: usize) -> bool {
        let function = &self.functions[function];
        let data_type = function.field().data_type().clone();
        match function.fun().name() {
            "sum" => function.is_distinct() && (data_type.is_integer() || data_type.is_decimal()),
            // The digits that it adds are there for all but the longest decimals.
            "avg" => matches!(
                data_type,
                DataType::Decimal128(DECIMAL128_MAX_PRECISION, _) | DataType::Decimal256(DECIMAL256_MAX_PRECISION, _)
            ),
            _ => false,
        }
    }
}
