//! DataFusion's group values and accumulators, held across epochs.
//!
//! ```text
//! batch ─▶ evaluate (group keys, arguments, filters) ─▶ GroupTable: key ─▶ group index ─▶ accumulators
//!                                                          ├─ into_results()   the values
//!                                                          └─ into_state()     rows that merge with those of others
//! ```

mod evaluated;
mod group_state;
mod group_table;
mod results;

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array, new_empty_array},
    compute::take_arrays,
    datatypes::{DataType, FieldRef, Schema, SchemaRef},
};
use datafusion::{
    common::{DataFusionError, ScalarValue, utils::normalize_float_zero},
    logical_expr::{EmitTo, GroupsAccumulator},
    physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr, aggregate::AggregateFunctionExpr},
    physical_plan::aggregates::{
        AggregateMode, aggregate_expressions,
        group_values::{GroupValues, new_group_values},
        order::GroupOrdering,
    },
};

use crate::types::{Error, Result, reason_of};

use super::{
    Output,
    failure::{FailedRows, compute, guarded},
    ordered_value,
};

pub use evaluated::Evaluated;
pub use group_state::GroupState;
pub use group_table::GroupTable;
pub use results::Results;

/// A function and the condition under which a row counts for it.
pub type FilteredFunction = (Arc<AggregateFunctionExpr>, Option<Arc<dyn PhysicalExpr>>);

/// Aggregates that keep of a group as much however many rows it has. Those that are not listed are taken to keep them all.
const SMALL_STATES: [&str; 33] = [
    "approx_distinct",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "approx_median",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "first_value",
    "grouping",
    "last_value",
    "max",
    "min",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

/// What to compute per group; compiled once, without state.
pub struct Aggregation {
    input_schema: SchemaRef,
    groups: Vec<Arc<dyn PhysicalExpr>>,
    group_schema: SchemaRef,
    functions: Vec<Arc<AggregateFunctionExpr>>,
    /// Per function its arguments, then its ordering columns.
    arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    argument_types: Vec<Vec<DataType>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    state_schema: SchemaRef,
    state_widths: Vec<usize>,
}

impl Aggregation {
    /// `groups` are the group expressions with the fields they give; `functions` with their FILTER.
    pub fn new(
        input_schema: SchemaRef,
        groups: Vec<(Arc<dyn PhysicalExpr>, FieldRef)>,
        functions: Vec<FilteredFunction>,
    ) -> Result<Self> {
        let (groups, group_fields): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
        let (functions, filters): (Vec<_>, Vec<_>) = functions.into_iter().unzip();
        let mut state_fields = group_fields.clone();
        let mut state_widths = Vec::new();
        for function in &functions {
            let fields = function.state_fields().map_err(failed)?;
            state_widths.push(fields.len());
            state_fields.extend(fields);
        }
        // Two functions may name their state alike; a checkpoint finds columns by their place.
        let state_fields: Vec<FieldRef> = state_fields
            .iter()
            .enumerate()
            .map(|(index, field)| {
                Arc::new(
                    field
                        .as_ref()
                        .clone()
                        .with_name(format!("{index}:{}", field.name()))
                        .with_nullable(true),
                )
            })
            .collect();
        let arguments = aggregate_expressions(&functions, &AggregateMode::Partial, 0).map_err(failed)?;
        let argument_types = arguments
            .iter()
            .map(|arguments| {
                arguments
                    .iter()
                    .map(|argument| argument.data_type(&input_schema))
                    .collect()
            })
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        Ok(Self {
            arguments,
            argument_types,
            input_schema,
            groups,
            group_schema: Arc::new(Schema::new(group_fields)),
            functions,
            filters,
            state_schema: Arc::new(Schema::new(state_fields)),
            state_widths,
        })
    }

    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    pub fn groups(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.groups
    }

    /// The functions, each with how many columns of the state it takes.
    pub fn calls(&self) -> impl Iterator<Item = (FilteredFunction, usize)> + '_ {
        let functions = self.functions.iter().cloned().zip(self.filters.iter().cloned());
        functions.zip(self.state_widths.iter().copied())
    }

    pub fn group_types(&self) -> Vec<DataType> {
        self.group_schema
            .fields()
            .iter()
            .map(|field| field.data_type().clone())
            .collect()
    }

    /// The types of [`Evaluated::inputs`].
    pub fn input_types(&self) -> Vec<DataType> {
        self.argument_types
            .iter()
            .flatten()
            .cloned()
            .chain(self.filters.iter().flatten().map(|_| DataType::Boolean))
            .collect()
    }

    /// The first function whose state of a group grows with its rows, as EXPLAIN calls it.
    pub fn collecting(&self) -> Option<String> {
        collecting(&self.functions).map(|function| function.human_display().unwrap_or(function.name()).to_owned())
    }

    pub fn state_schema(&self) -> &SchemaRef {
        &self.state_schema
    }

    /// The inputs of the rows that give them, and which those are; `None` where all do. The others are set aside.
    pub fn evaluate_good(
        &self,
        rows: &RecordBatch,
        weights: Option<&Int64Array>,
        out: &mut Output,
    ) -> Result<(Evaluated, Option<BooleanArray>)> {
        match guarded(|| self.evaluate(rows)) {
            Ok(evaluated) => return Ok((evaluated, None)),
            Err(Error::User(_)) => {}
            Err(error) => return Err(error),
        }
        let computed = compute(rows.num_rows(), |range| {
            let evaluated = self.evaluate(&rows.slice(range.start, range.len()))?;
            Ok(evaluated.groups.iter().cloned().chain(evaluated.inputs()).collect())
        })?;
        let count = rows.num_rows() - computed.failures.len();
        out.failed
            .extend(FailedRows::of("aggregate", rows, &computed.failures, weights)?);
        let is_good = computed.is_good();
        let mut groups = match count {
            0 => {
                let types = self.group_types().into_iter().chain(self.input_types());
                types.map(|data_type| new_empty_array(&data_type)).collect()
            }
            _ => computed.columns,
        };
        let inputs = groups.split_off(self.group_count());
        Ok((Evaluated::of(self, groups, inputs, count), is_good))
    }

    pub fn evaluate(&self, rows: &RecordBatch) -> Result<Evaluated> {
        let array = |expr: &Arc<dyn PhysicalExpr>| {
            expr.evaluate(rows)
                .and_then(|value| value.into_array(rows.num_rows()))
                .map_err(failed_value)
        };
        Ok(Evaluated {
            // −0.0 and 0.0 are one group, wherever groups are told apart.
            groups: self
                .groups
                .iter()
                .map(|group| Ok(normalize_float_zero(&array(group)?)))
                .collect::<Result<_>>()?,
            arguments: self
                .arguments
                .iter()
                .map(|arguments| arguments.iter().map(array).collect::<Result<_>>())
                .collect::<Result<_>>()?,
            filters: self
                .filters
                .iter()
                .map(|filter| {
                    filter
                        .as_ref()
                        .map(|expr| Ok(array(expr)?.as_boolean().clone()))
                        .transpose()
                })
                .collect::<Result<_>>()?,
            rows: rows.num_rows(),
        })
    }

    /// Groups without any of their rows.
    pub fn group_values(&self) -> Result<Option<Box<dyn GroupValues>>> {
        match self.groups.len() {
            0 => Ok(None),
            _ => new_group_values(Arc::clone(&self.group_schema), &GroupOrdering::None)
                .map(Some)
                .map_err(failed),
        }
    }

    /// The states of several rows per group as one: each part holds state columns and the group of each of its rows. What comes
    /// first was there first. Every group has a row in some part.
    pub fn merge_states(&self, parts: &[(&[ArrayRef], &[usize])], groups: usize) -> Result<Vec<ArrayRef>> {
        // Accumulators take a group that they have not met for one that has a value by the end of the batch, as it is where
        // groups are numbered as they come. So they are numbered so, and put back into their order behind it.
        let mut number_of = vec![usize::MAX; groups];
        let mut total = 0;
        let mut accumulators = self.accumulators()?;
        for (states, groups_of_rows) in parts {
            let numbers: Vec<usize> = groups_of_rows
                .iter()
                .map(|group| {
                    let number = &mut number_of[*group];
                    if *number == usize::MAX {
                        *number = total;
                        total += 1;
                    }
                    *number
                })
                .collect();
            self.merge_into(&mut accumulators, states, &numbers, total)?;
        }
        assert_eq!(total, groups, "every group has a row");
        let mut merged = Vec::with_capacity(self.state_schema.fields().len());
        for accumulator in &mut accumulators {
            merged.extend(accumulator.state(EmitTo::All).map_err(failed)?);
        }
        if number_of.is_sorted() {
            return Ok(merged);
        }
        let order = UInt32Array::from_iter_values(number_of.into_iter().map(|number| number as u32));
        take_arrays(&merged, &order, None).map_err(|e| Error::bug(e.to_string()))
    }

    fn merge_into(
        &self,
        accumulators: &mut [Box<dyn GroupsAccumulator>],
        states: &[ArrayRef],
        groups: &[usize],
        total: usize,
    ) -> Result<()> {
        let mut at = 0;
        for (accumulator, width) in accumulators.iter_mut().zip(&self.state_widths) {
            accumulator
                .merge_batch(&states[at..at + width], groups, total)
                .map_err(failed)?;
            at += width;
        }
        Ok(())
    }

    /// Takes two rows of it through everything that is done with rows: what a function refuses it refuses now.
    ///
    /// # Errors
    /// [`Error::User`] in the words of the function.
    pub fn rehearse(&self) -> Result<()> {
        let rehearse = || -> std::result::Result<(), DataFusionError> {
            for (function, types) in self.argument_types.iter().enumerate() {
                let arguments = types
                    .iter()
                    .map(|data_type| ScalarValue::new_default(data_type)?.to_array_of_size(2))
                    .collect::<std::result::Result<Vec<_>, _>>()?;
                let external = |error: Error| DataFusionError::External(Box::new(error));
                let mut first = self.accumulator(function).map_err(external)?;
                first.update_batch(&arguments, &[0, 1], None, 2)?;
                let state = first.state(EmitTo::All)?;
                let mut second = self.accumulator(function).map_err(external)?;
                second.merge_batch(&state, &[0, 0], 1)?;
                second.evaluate(EmitTo::All)?;
            }
            Ok(())
        };
        rehearse().map_err(failed_value)
    }

    pub fn accumulators(&self) -> Result<Vec<Box<dyn GroupsAccumulator>>> {
        (0..self.functions.len())
            .map(|function| self.accumulator(function))
            .collect()
    }

    fn accumulator(&self, function: usize) -> Result<Box<dyn GroupsAccumulator>> {
        if let Some(own) = ordered_value::accumulator(&self.functions[function], &self.argument_types[function]) {
            return Ok(own);
        }
        let function = &self.functions[function];
        if function.groups_accumulator_supported() {
            return function.create_groups_accumulator().map_err(failed);
        }
        let function = Arc::clone(function);
        Ok(Box::new(GroupsAccumulatorAdapter::new(move || {
            function.create_accumulator()
        })))
    }
}

/// The first function whose state of a group grows with its rows.
fn collecting(functions: &[Arc<AggregateFunctionExpr>]) -> Option<&AggregateFunctionExpr> {
    let mut functions = functions.iter().map(AsRef::as_ref);
    functions.find(|function: &&AggregateFunctionExpr| {
        let name = function.fun().name();
        !SMALL_STATES.contains(&name) || function.is_distinct() && !matches!(name, "min" | "max")
    })
}

/// A value that a function does not give, whatever it says about why, is the fault of its row.
pub(super) fn failed_value(error: DataFusionError) -> Error {
    Error::user(reason_of(&error))
}

/// A value that cannot be computed is the data's or the query's fault, and its own words say which.
pub(super) fn failed(error: DataFusionError) -> Error {
    match error.find_root() {
        DataFusionError::Internal(message) => Error::bug(message.clone()),
        _ => Error::user(reason_of(&error)),
    }
}
