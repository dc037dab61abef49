//! DataFusion's group values and accumulators, held across epochs.
//!
//! ```text
//! batch ─▶ evaluate (group keys, arguments, filters) ─▶ GroupTable: key ─▶ group index ─▶ accumulators
//!                                                          ├─ into_results()   the values
//!                                                          └─ into_state()     rows that merge with those of others
//! ```

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array,
        new_empty_array, new_null_array,
    },
    compute::{filter, take, take_arrays},
    datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, FieldRef, Schema, SchemaRef},
};
use datafusion::{
    common::{DataFusionError, utils::normalize_float_zero},
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
    Output, bug,
    failure::{Computed, FailedRows, compute},
    ordered_value,
};

/// A function and the condition under which a row counts for it.
pub type FilteredFunction = (Arc<AggregateFunctionExpr>, Option<Arc<dyn PhysicalExpr>>);

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

/// The inputs of an aggregation for some rows.
#[derive(Clone)]
pub struct Evaluated {
    groups: Vec<ArrayRef>,
    arguments: Vec<Vec<ArrayRef>>,
    filters: Vec<Option<BooleanArray>>,
    rows: usize,
}

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
            *column = filter(column, &is_kept).map_err(bug)?;
        }
        self.failures.retain(|(group, _)| !groups.contains(group));
        Ok(())
    }
}

/// The group columns and the state columns of every function, a row per group.
#[derive(Clone)]
pub struct GroupState {
    pub groups: Vec<ArrayRef>,
    pub states: Vec<ArrayRef>,
    pub count: usize,
}

impl GroupState {
    /// As rows of [`Aggregation::state_schema`].
    pub fn to_rows(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let columns = self.groups.iter().chain(&self.states).cloned().collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.count));
        RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
            .map_err(|e| Error::bug(format!("a state does not fit its own schema: {e}")))
    }

    pub fn of_rows(rows: &RecordBatch, aggregation: &Aggregation) -> Result<Self> {
        if rows.num_columns() != aggregation.state_schema.fields().len() {
            return Err(Error::state(
                "the checkpoint of an aggregate has other columns than its definition",
            ));
        }
        let (groups, states) = rows.columns().split_at(aggregation.group_count());
        Ok(Self {
            groups: groups.to_vec(),
            states: states.to_vec(),
            count: rows.num_rows(),
        })
    }

    pub fn memory_bytes(&self) -> usize {
        self.groups
            .iter()
            .chain(&self.states)
            .map(|column| column.get_array_memory_size())
            .sum()
    }
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
        match self.evaluate(rows) {
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
                .map_err(failed)
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

    /// The values of the functions from number `from` on, over their state columns of a row per group; groups are left out where one
    /// of them cannot be computed.
    fn evaluate_states_from(&self, from: usize, states: &[ArrayRef], groups: usize) -> Result<Computed> {
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

    /// The value of every function over state columns of a row per group.
    pub fn evaluate_states(&self, groups: Vec<ArrayRef>, states: &[ArrayRef], count: usize) -> Result<Results> {
        let computed = self.evaluate_states_from(0, states, count)?;
        self.results(groups, Vec::new(), computed, count)
    }

    /// Puts the first values, of all groups, beside the others, of those that have them.
    fn results(
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
                .map(|column| filter(column, &is_good).map_err(bug))
                .collect()
        };
        let failed_groups = take_arrays(&groups, &failing, None).map_err(bug)?;
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
            rows: RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(bug)?,
            reasons: results.failures.iter().map(|(_, reason)| reason.clone()).collect(),
        }))
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

    /// Whether a function that fails on one group loses the state of the others: then it is asked over a copy of its state.
    fn fails_for_good(&self, function: usize) -> bool {
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

impl Evaluated {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn groups(&self) -> &[ArrayRef] {
        &self.groups
    }

    /// Arguments and filters as one list of columns.
    pub fn inputs(&self) -> Vec<ArrayRef> {
        let filters = self
            .filters
            .iter()
            .flatten()
            .map(|filter| Arc::new(filter.clone()) as ArrayRef);
        self.arguments.iter().flatten().cloned().chain(filters).collect()
    }

    /// Of group columns and [`inputs`](Self::inputs).
    pub fn of(aggregation: &Aggregation, groups: Vec<ArrayRef>, inputs: Vec<ArrayRef>, rows: usize) -> Self {
        let mut inputs = inputs.into_iter();
        let arguments = aggregation
            .arguments
            .iter()
            .map(|arguments| inputs.by_ref().take(arguments.len()).collect())
            .collect();
        let filters = aggregation
            .filters
            .iter()
            .map(|filter| {
                let column = filter.as_ref().and_then(|_| inputs.next());
                column.map(|column| column.as_boolean().clone())
            })
            .collect();
        Self {
            groups,
            arguments,
            filters,
            rows,
        }
    }

    /// Adds the rows to these accumulators, each to its group of `total`.
    pub fn update(
        &self,
        accumulators: &mut [Box<dyn GroupsAccumulator>],
        groups: &[usize],
        total: usize,
    ) -> Result<()> {
        for ((accumulator, arguments), filter) in accumulators.iter_mut().zip(&self.arguments).zip(&self.filters) {
            accumulator
                .update_batch(arguments, groups, filter.as_ref(), total)
                .map_err(failed)?;
        }
        Ok(())
    }

    /// The rows at these places, in this order.
    pub fn take(&self, rows: Vec<u32>) -> Result<Self> {
        let indices: &ArrayRef = &(Arc::new(UInt32Array::from(rows)) as _);
        let pick = |array: &ArrayRef| take(array, indices, None).map_err(|e| Error::bug(e.to_string()));
        Ok(Self {
            groups: self.groups.iter().map(pick).collect::<Result<_>>()?,
            arguments: self
                .arguments
                .iter()
                .map(|columns| columns.iter().map(pick).collect())
                .collect::<Result<_>>()?,
            filters: self
                .filters
                .iter()
                .map(|filter| {
                    filter
                        .as_ref()
                        .map(|mask| Ok(pick(&(Arc::new(mask.clone()) as ArrayRef))?.as_boolean().clone()))
                        .transpose()
                })
                .collect::<Result<_>>()?,
            rows: indices.len(),
        })
    }

    /// `length` rows from `offset` on, without copying.
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        let pick = |array: &ArrayRef| array.slice(offset, length);
        Self {
            groups: self.groups.iter().map(pick).collect(),
            arguments: self
                .arguments
                .iter()
                .map(|columns| columns.iter().map(pick).collect())
                .collect(),
            filters: self
                .filters
                .iter()
                .map(|filter| filter.as_ref().map(|mask| mask.slice(offset, length)))
                .collect(),
            rows: length,
        }
    }
}

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

    /// In the order of the groups' first rows.
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

    /// In the order of the groups' first rows.
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

/// A value that cannot be computed is the data's or the query's fault, and its own words say which.
pub(super) fn failed(error: DataFusionError) -> Error {
    match error.find_root() {
        DataFusionError::Internal(message) => Error::bug(message.clone()),
        _ => Error::user(reason_of(&error)),
    }
}
