//! `sum` that is exact: totals are kept in a type that no rows overflow, and have to fit when they are asked for.
//!
//! ```text
//! integers ─▶ totals of 128 bits ─┐
//! decimals ─▶ totals of 256 bits ─┴─▶ the result, or "the sum … does not fit …"
//! ```
//! So neither the order of rows nor how they are cut decides whether a sum overflows. Everything else is DataFusion's own `sum`.

use std::{collections::BTreeMap, fmt::Debug, mem::size_of_val, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowNumericType, AsArray, BooleanArray, PrimitiveArray},
    datatypes::{
        ArrowPrimitiveType, DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Field,
        FieldRef, Int64Type, UInt64Type, i256,
    },
};
use datafusion::{
    common::{DataFusionError, Result, ScalarValue, utils::SingleRowListArrayBuilder},
    functions_aggregate::sum::Sum,
    logical_expr::{
        Accumulator, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
        Signature,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::{AggregateOrderSensitivity, format_state_name},
    },
    physical_expr::NullState,
};

use crate::types::{
    Error,
    planted::{Bug, has},
    type_name,
};

/// `sum` and `sum(DISTINCT …)`: null over no values, as many digits as DataFusion's.
///
/// # Errors
/// [`Error::User`] where a total does not fit, when it is asked for and not before. The accumulators keep their state then.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct ExactSum {
    of_others: Sum,
}

/// A type of numbers and what holds their totals.
///
/// A total is also `low + carry * 2^bits`, where `low` has the numbers' own type: a carry is rare, and adding to `low` is fast.
trait Exact: ArrowNumericType + Debug + Send {
    type Total: DecimalType + Debug + Send;

    fn widen(value: Self::Native) -> Native<Self>;

    /// Adds to `low`, and gives what is to be carried.
    fn add(low: &mut Self::Native, value: Self::Native) -> i64;

    fn split(total: Native<Self>) -> (Self::Native, i64);

    fn join(low: Self::Native, carry: i64) -> Native<Self>;

    /// Whether a number of this type has as many digits as the type of the result.
    fn fits(value: Self::Native, data_type: &DataType) -> bool;

    fn plus(total: Native<Self>, other: Native<Self>) -> Native<Self> {
        total.add_wrapping(other)
    }

    fn minus(total: Native<Self>, other: Native<Self>) -> Native<Self> {
        total.sub_wrapping(other)
    }
}

type Native<V> = <<V as Exact>::Total as ArrowPrimitiveType>::Native;

// 2^63 rows of 64 bits stay below 2^127, so totals of 128 bits do not wrap.
macro_rules! exact_in_128_bits {
    ($of:ty, $native:ty, $fits:expr) => {
        impl Exact for $of {
            type Total = Decimal128Type;

            fn widen(value: $native) -> i128 {
                value.into()
            }

            fn add(low: &mut $native, value: $native) -> i64 {
                let (sum, wraps) = low.overflowing_add(value);
                // Only numbers of one sign wrap, and then the sum is on the other side.
                let carry = if sum < value { 1 } else { -1 };
                *low = sum;
                if wraps { carry } else { 0 }
            }

            fn split(total: i128) -> ($native, i64) {
                let low = total as $native;
                (low, ((total - i128::from(low)) >> <$native>::BITS) as i64)
            }

            fn join(low: $native, carry: i64) -> i128 {
                i128::from(low) + (i128::from(carry) << <$native>::BITS)
            }

            fn fits(value: $native, data_type: &DataType) -> bool {
                let fits: fn($native, &DataType) -> bool = $fits;
                fits(value, data_type)
            }
        }
    };
}

exact_in_128_bits!(Int64Type, i64, |_, _| true);
exact_in_128_bits!(UInt64Type, u64, |_, _| true);
exact_in_128_bits!(Decimal32Type, i32, within::<Decimal32Type>);
exact_in_128_bits!(Decimal64Type, i64, within::<Decimal64Type>);

// 2^63 rows of 38 digits stay far below 2^255.
impl Exact for Decimal128Type {
    type Total = Decimal256Type;

    fn widen(value: i128) -> i256 {
        i256::from_i128(value)
    }

    fn add(low: &mut i128, value: i128) -> i64 {
        let (sum, wraps) = low.overflowing_add(value);
        let carry = if sum < value { 1 } else { -1 };
        *low = sum;
        if wraps { carry } else { 0 }
    }

    fn split(total: i256) -> (i128, i64) {
        let (low, high) = total.to_parts();
        let low = low as i128;
        // What `low` lacks where its highest bit is taken for a sign.
        (low, (high + i128::from(low < 0)) as i64)
    }

    fn join(low: i128, carry: i64) -> i256 {
        i256::from_parts(0, carry.into()).wrapping_add(i256::from_i128(low))
    }

    fn fits(value: i128, data_type: &DataType) -> bool {
        within::<Self>(value, data_type)
    }
}

/// There is nothing wider: a total that leaves 256 bits, five times what any result may be, is out for good once it is saved.
impl Exact for Decimal256Type {
    type Total = Decimal256Type;

    fn widen(value: i256) -> i256 {
        value
    }

    fn add(low: &mut i256, value: i256) -> i64 {
        match low.checked_add(value) {
            Some(sum) => {
                *low = sum;
                0
            }
            None => {
                *low = low.wrapping_add(value);
                if value < i256::ZERO { -1 } else { 1 }
            }
        }
    }

    fn split(total: i256) -> (i256, i64) {
        (total, 0)
    }

    fn join(low: i256, carry: i64) -> i256 {
        if carry == 0 { low } else { i256::MAX }
    }

    fn fits(value: i256, data_type: &DataType) -> bool {
        within::<Self>(value, data_type)
    }

    fn plus(total: i256, other: i256) -> i256 {
        match total == i256::MAX || other == i256::MAX {
            true => i256::MAX,
            false => total.checked_add(other).unwrap_or(i256::MAX),
        }
    }

    fn minus(total: i256, other: i256) -> i256 {
        match total == i256::MAX || other == i256::MAX {
            true => i256::MAX,
            false => total.checked_sub(other).unwrap_or(i256::MAX),
        }
    }
}

fn within<T: DecimalType>(value: T::Native, data_type: &DataType) -> bool {
    T::is_valid_decimal_precision(value, digits(data_type).0)
}

/// Precision and scale; integers have no digits behind the point.
fn digits(data_type: &DataType) -> (u8, i8) {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => (*precision, *scale),
        _ => (38, 0),
    }
}

/// The types of what is summed up and of the result; DataFusion gives both the same, but for digits.
macro_rules! of_type {
    ($data_type:expr, $make:ident, $arguments:tt) => {
        match $data_type {
            DataType::Int64 => Some($make::<Int64Type>$arguments),
            DataType::UInt64 => Some($make::<UInt64Type>$arguments),
            DataType::Decimal32(..) => Some($make::<Decimal32Type>$arguments),
            DataType::Decimal64(..) => Some($make::<Decimal64Type>$arguments),
            DataType::Decimal128(..) => Some($make::<Decimal128Type>$arguments),
            DataType::Decimal256(..) => Some($make::<Decimal256Type>$arguments),
            _ => None,
        }
    };
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        self.of_others.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.of_others.return_type(arguments)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match one_group(args.return_field.data_type(), args.is_distinct) {
            Some(accumulator) => Ok(accumulator),
            None => self.of_others.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match one_group(args.return_field.data_type(), args.is_distinct) {
            Some(accumulator) => Ok(accumulator),
            None => self.of_others.create_sliding_accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match total_type(args.return_field.data_type()) {
            Some(total) if !args.is_distinct => {
                let name = format_state_name(args.name, "sum");
                Ok(vec![Arc::new(Field::new(name, total, true))])
            }
            _ => self.of_others.state_fields(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.of_others.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        fn make<V: Exact>(data_type: &DataType) -> Box<dyn GroupsAccumulator> {
            Box::new(Groups::<V>::new(data_type))
        }
        let data_type = args.return_field.data_type();
        match of_type!(data_type, make, (data_type)) {
            Some(accumulator) => Ok(accumulator),
            None => self.of_others.create_groups_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.of_others.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.of_others.set_monotonicity(data_type)
    }
}

fn one_group(data_type: &DataType, is_distinct: bool) -> Option<Box<dyn Accumulator>> {
    fn all<V: Exact>(data_type: &DataType) -> Box<dyn Accumulator> {
        Box::new(One::<V>::new(data_type))
    }
    fn distinct<V: Exact>(data_type: &DataType) -> Box<dyn Accumulator>
    where
        V::Native: Ord,
    {
        Box::new(Distinct::<V>::new(data_type))
    }
    match is_distinct {
        true => of_type!(data_type, distinct, (data_type)),
        false => of_type!(data_type, all, (data_type)),
    }
}

/// What a total is kept and saved as, of a result of this type; `None` where DataFusion sums up.
fn total_type(data_type: &DataType) -> Option<DataType> {
    fn of<V: Exact>(data_type: &DataType) -> DataType {
        V::Total::TYPE_CONSTRUCTOR(V::Total::MAX_PRECISION, digits(data_type).1)
    }
    of_type!(data_type, of, (data_type))
}

fn fitting<V: Exact>(total: Native<V>, data_type: &DataType) -> Result<V::Native> {
    let (low, carry) = V::split(total);
    match carry == 0 && V::fits(low, data_type) {
        true => Ok(low),
        false => Err(misfit::<V>(total, data_type)),
    }
}

fn misfit<V: Exact>(total: Native<V>, data_type: &DataType) -> DataFusionError {
    let (_, scale) = digits(data_type);
    let shown = V::Total::format_decimal(total, V::Total::MAX_PRECISION, scale);
    let sentence = format!("the sum {shown} does not fit {}", type_name(data_type));
    DataFusionError::External(Box::new(Error::user(sentence)))
}

/// A total per group.
#[derive(Debug)]
struct Groups<V: Exact> {
    lows: Vec<V::Native>,
    /// Of the groups that have one.
    carries: BTreeMap<usize, i64>,
    /// Which groups have had a value.
    seen: NullState,
    data_type: DataType,
    total_type: DataType,
}

impl<V: Exact> Groups<V> {
    fn new(data_type: &DataType) -> Self {
        Self {
            lows: Vec::new(),
            carries: BTreeMap::new(),
            seen: NullState::new(),
            data_type: data_type.clone(),
            total_type: total_type(data_type).expect("made for types that have one"),
        }
    }

    /// Takes the totals of the first groups, or of all; those behind them move up.
    fn take(&mut self, emit_to: EmitTo) -> (Vec<V::Native>, BTreeMap<usize, i64>) {
        let lows = emit_to.take_needed(&mut self.lows);
        let behind = self.carries.split_off(&lows.len());
        let moved = behind.into_iter().map(|(group, carry)| (group - lows.len(), carry));
        let carries = std::mem::replace(&mut self.carries, moved.collect());
        (lows, carries)
    }
}

fn carry_over(carries: &mut BTreeMap<usize, i64>, group: usize, carry: i64) {
    let total = carries.entry(group).or_default();
    *total += carry;
    if *total == 0 {
        carries.remove(&group);
    }
}

impl<V: Exact> GroupsAccumulator for Groups<V> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.lows.resize(total_groups, V::Native::default());
        let (lows, carries) = (self.lows.as_mut_slice(), &mut self.carries);
        let values = values[0].as_primitive::<V>();
        self.seen
            .accumulate(groups, values, filter, total_groups, |group, value| {
                let carry = V::add(&mut lows[group], value);
                if carry != 0 {
                    carry_over(carries, group, carry);
                }
            });
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.lows.resize(total_groups, V::Native::default());
        let (lows, carries) = (self.lows.as_mut_slice(), &mut self.carries);
        let states = states[0].as_primitive::<V::Total>();
        self.seen
            .accumulate(groups, states, None, total_groups, |group, total| {
                let (low, carry) = V::split(total);
                let carry = carry + V::add(&mut lows[group], low);
                if carry != 0 {
                    carry_over(carries, group, carry);
                }
            });
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let count = match emit_to {
            EmitTo::All => self.lows.len(),
            EmitTo::First(count) => count,
        };
        // Nothing is taken before all of them fit; a group without values has 0.
        let carried = match has(Bug::WrappedSum) {
            true => None,
            false => self.carries.range(..count).next().map(|(group, _)| *group),
        };
        let too_long = || {
            self.lows[..count]
                .iter()
                .position(|low| !V::fits(*low, &self.data_type))
        };
        if let Some(group) = carried.or_else(too_long) {
            let carry = self.carries.get(&group).copied().unwrap_or_default();
            return Err(misfit::<V>(V::join(self.lows[group], carry), &self.data_type));
        }
        let (values, _) = self.take(emit_to);
        let values = PrimitiveArray::<V>::new(values.into(), self.seen.build(emit_to));
        Ok(Arc::new(values.with_data_type(self.data_type.clone())))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (lows, carries) = self.take(emit_to);
        let mut totals: Vec<Native<V>> = lows.iter().map(|low| V::widen(*low)).collect();
        for (group, carry) in carries {
            totals[group] = V::join(lows[group], carry);
        }
        let totals = PrimitiveArray::<V::Total>::new(totals.into(), self.seen.build(emit_to));
        Ok(vec![Arc::new(totals.with_data_type(self.total_type.clone()))])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<V>();
        let counts = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        let totals: PrimitiveArray<V::Total> = values
            .iter()
            .enumerate()
            .map(|(row, value)| value.filter(|_| counts(row)).map(V::widen))
            .collect();
        Ok(vec![Arc::new(totals.with_data_type(self.total_type.clone()))])
    }

    fn size(&self) -> usize {
        let carries = self.carries.len() * size_of::<(usize, i64)>();
        self.lows.capacity() * size_of::<V::Native>() + carries + self.seen.size()
    }
}

/// One total, from which rows may be taken back.
#[derive(Debug)]
struct One<V: Exact> {
    total: Native<V>,
    /// How many values are in it.
    count: u64,
    data_type: DataType,
    total_type: DataType,
}

impl<V: Exact> One<V> {
    fn new(data_type: &DataType) -> Self {
        Self {
            total: Native::<V>::default(),
            count: 0,
            data_type: data_type.clone(),
            total_type: total_type(data_type).expect("made for types that have one"),
        }
    }
}

impl<V: Exact> Accumulator for One<V> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<V>();
        self.count += (values.len() - values.null_count()) as u64;
        self.total = match values.null_count() {
            0 => values
                .values()
                .iter()
                .fold(self.total, |total, value| V::plus(total, V::widen(*value))),
            _ => values
                .iter()
                .flatten()
                .fold(self.total, |total, value| V::plus(total, V::widen(value))),
        };
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<V>();
        self.count -= (values.len() - values.null_count()) as u64;
        self.total = values
            .iter()
            .flatten()
            .fold(self.total, |total, value| V::minus(total, V::widen(value)));
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let total = (0 < self.count).then_some(self.total);
        Ok(vec![ScalarValue::new_primitive::<V::Total>(total, &self.total_type)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states = states[0].as_primitive::<V::Total>();
        self.count += (states.len() - states.null_count()) as u64;
        self.total = states.iter().flatten().fold(self.total, V::plus);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let total = match self.count {
            0 => None,
            _ => Some(fitting::<V>(self.total, &self.data_type)?),
        };
        ScalarValue::new_primitive::<V>(total, &self.data_type)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// Each value once, however often it is there.
#[derive(Debug)]
struct Distinct<V: Exact> {
    /// How often each is there, in their order: states are the same bytes in every run.
    values: BTreeMap<V::Native, u64>,
    data_type: DataType,
}

impl<V: Exact> Distinct<V>
where
    V::Native: Ord,
{
    fn new(data_type: &DataType) -> Self {
        Self {
            values: BTreeMap::new(),
            data_type: data_type.clone(),
        }
    }
}

impl<V: Exact> Accumulator for Distinct<V>
where
    V::Native: Ord,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<V>().iter().flatten() {
            *self.values.entry(value).or_default() += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<V>().iter().flatten() {
            let count = self.values.get_mut(&value).expect("what is taken back has come");
            *count -= 1;
            if *count == 0 {
                self.values.remove(&value);
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = PrimitiveArray::<V>::from_iter_values(self.values.keys().copied());
        let values = Arc::new(values.with_data_type(self.data_type.clone()));
        Ok(vec![SingleRowListArrayBuilder::new(values).build_list_scalar()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.update_batch(&[values])?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let zero = Native::<V>::default();
        let total = match self.values.is_empty() {
            true => None,
            false => {
                let total = self
                    .values
                    .keys()
                    .fold(zero, |total, value| V::plus(total, V::widen(*value)));
                Some(fitting::<V>(total, &self.data_type)?)
            }
        };
        ScalarValue::new_primitive::<V>(total, &self.data_type)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.len() * (size_of::<V::Native>() + size_of::<u64>() + 8)
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Decimal128Array, Int64Array, UInt64Array},
        datatypes::Schema,
    };
    use datafusion::{
        logical_expr::AggregateUDF,
        physical_expr::{
            PhysicalExpr,
            aggregate::{AggregateExprBuilder, AggregateFunctionExpr},
            expressions::Column,
        },
    };

    use super::*;
    use crate::types::reason_of;

    const NO_FILTER: Option<&BooleanArray> = None;

    fn sum(data_type: &DataType, is_distinct: bool) -> AggregateFunctionExpr {
        let schema = Arc::new(Schema::new(vec![Field::new("x", data_type.clone(), true)]));
        let column = Arc::new(Column::new("x", 0)) as Arc<dyn PhysicalExpr>;
        let function = Arc::new(AggregateUDF::from(ExactSum::default()));
        let builder = AggregateExprBuilder::new(function, vec![column])
            .schema(schema)
            .alias("s");
        let builder = if is_distinct { builder.distinct() } else { builder };
        builder.build().unwrap()
    }

    fn integers(values: &[Option<i64>]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    fn decimals(values: &[i128], precision: u8, scale: i8) -> ArrayRef {
        let values = Decimal128Array::from(values.to_vec());
        Arc::new(values.with_precision_and_scale(precision, scale).unwrap())
    }

    /// Of one group, by both kinds of accumulator.
    fn total(values: &[ArrayRef], data_type: &DataType, is_distinct: bool) -> Result<ScalarValue, String> {
        let function = sum(data_type, is_distinct);
        let mut one = function.create_accumulator().unwrap();
        for values in values {
            one.update_batch(std::slice::from_ref(values)).unwrap();
        }
        let found = one.evaluate().map_err(|error| reason_of(&error));
        // A group is met by a row of its own.
        let has_rows = values.iter().any(|values| !values.is_empty());
        if function.groups_accumulator_supported() && has_rows {
            let mut groups = function.create_groups_accumulator().unwrap();
            for values in values {
                let of_rows = vec![0; values.len()];
                groups
                    .update_batch(std::slice::from_ref(values), &of_rows, NO_FILTER, 1)
                    .unwrap();
            }
            let of_groups = groups.evaluate(EmitTo::All).map_err(|error| reason_of(&error));
            let of_groups = of_groups.map(|array| ScalarValue::try_from_array(&array, 0).unwrap());
            assert_eq!(of_groups, found);
        }
        found
    }

    #[test]
    fn only_the_whole_sum_has_to_fit() {
        let (least, most) = (Some(i64::MIN), Some(i64::MAX));
        for (parts, expected) in [
            (vec![integers(&[most]), integers(&[Some(1), Some(-1)])], Ok(i64::MAX)),
            (vec![integers(&[Some(1), most, Some(-1)])], Ok(i64::MAX)),
            (vec![integers(&[least, least, most, most])], Ok(-2)),
            (
                vec![integers(&[most]), integers(&[Some(1)])],
                Err("the sum 9223372036854775808 does not fit BIGINT"),
            ),
            (
                vec![integers(&[least, Some(-1)])],
                Err("the sum -9223372036854775809 does not fit BIGINT"),
            ),
        ] {
            let expected = expected.map(|sum| ScalarValue::Int64(Some(sum))).map_err(str::to_owned);
            assert_eq!(total(&parts, &DataType::Int64, false), expected);
        }
    }

    #[test]
    fn nulls_count_for_nothing() {
        for (values, expected) in [
            (vec![], None),
            (vec![None, None], None),
            (vec![None, Some(3), None], Some(3)),
            (vec![Some(0)], Some(0)),
        ] {
            let found = total(&[integers(&values)], &DataType::Int64, false);
            assert_eq!(found, Ok(ScalarValue::Int64(expected)), "{values:?}");
        }
    }

    #[test]
    fn unsigned_numbers_and_decimals_have_their_own_bounds() {
        let most: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 1]));
        assert_eq!(
            total(&[most], &DataType::UInt64, false),
            Err("the sum 18446744073709551616 does not fit BIGINT UNSIGNED".to_owned())
        );
        let widest = 10_i128.pow(38) - 1;
        let data_type = DataType::Decimal128(38, 2);
        assert_eq!(
            total(&[decimals(&[widest, widest], 38, 2)], &data_type, false),
            Err("the sum 1999999999999999999999999999999999999.98 does not fit DECIMAL(38, 2)".to_owned())
        );
        assert_eq!(
            total(&[decimals(&[widest, widest, -widest], 38, 2)], &data_type, false),
            Ok(ScalarValue::Decimal128(Some(widest), 38, 2))
        );
        // Ten digits more than what is summed up.
        assert_eq!(
            total(&[decimals(&[99, 2], 2, 1)], &DataType::Decimal128(2, 1), false),
            Ok(ScalarValue::Decimal128(Some(101), 12, 1))
        );
    }

    #[test]
    fn a_value_is_in_a_distinct_sum_once() {
        let most = Some(i64::MAX);
        for (values, expected) in [
            (vec![most, most, Some(-1), None], Ok(Some(i64::MAX - 1))),
            (
                vec![most, most, Some(1)],
                Err("the sum 9223372036854775808 does not fit BIGINT"),
            ),
            (vec![None], Ok(None)),
        ] {
            let expected = expected.map(ScalarValue::Int64).map_err(str::to_owned);
            assert_eq!(
                total(&[integers(&values)], &DataType::Int64, true),
                expected,
                "{values:?}"
            );
        }
    }

    #[test]
    fn states_merge_in_any_order_and_a_group_that_fails_keeps_its_state() {
        let function = sum(&DataType::Int64, false);
        let state = |values: &[Option<i64>]| {
            let mut groups = function.create_groups_accumulator().unwrap();
            let of_rows: Vec<usize> = (0..values.len()).collect();
            groups
                .update_batch(&[integers(values)], &of_rows, NO_FILTER, values.len())
                .unwrap();
            groups.state(EmitTo::All).unwrap()
        };
        let parts = [
            state(&[Some(i64::MAX), None, Some(1)]),
            state(&[Some(1), None, None]),
            state(&[Some(-1), None, Some(2)]),
        ];
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let mut groups = function.create_groups_accumulator().unwrap();
            for part in order {
                groups.merge_batch(&parts[part], &[0, 1, 2], 3).unwrap();
            }
            let expected = integers(&[Some(i64::MAX), None, Some(3)]);
            assert_eq!(&groups.evaluate(EmitTo::All).unwrap(), &expected, "{order:?}");
        }
        let mut groups = function.create_groups_accumulator().unwrap();
        groups.merge_batch(&parts[0], &[0, 1, 2], 3).unwrap();
        groups.merge_batch(&parts[1], &[0, 1, 2], 3).unwrap();
        assert!(
            groups.evaluate(EmitTo::All).is_err(),
            "the first group is one too large"
        );
        groups.merge_batch(&parts[2], &[0, 1, 2], 3).unwrap();
        assert_eq!(
            &groups.evaluate(EmitTo::First(1)).unwrap(),
            &integers(&[Some(i64::MAX)])
        );
        assert_eq!(&groups.evaluate(EmitTo::All).unwrap(), &integers(&[None, Some(3)]));
    }

    #[test]
    fn what_left_a_frame_is_in_no_sum() {
        for is_distinct in [false, true] {
            let function = sum(&DataType::Int64, is_distinct);
            let mut frame = function.create_sliding_accumulator().unwrap();
            frame
                .update_batch(&[integers(&[Some(i64::MAX), Some(7), None])])
                .unwrap();
            assert!(frame.evaluate().is_err());
            frame.retract_batch(&[integers(&[Some(i64::MAX)])]).unwrap();
            assert_eq!(frame.evaluate().unwrap(), ScalarValue::Int64(Some(7)));
            frame.retract_batch(&[integers(&[Some(7), None])]).unwrap();
            assert_eq!(frame.evaluate().unwrap(), ScalarValue::Int64(None));
        }
    }

    #[test]
    fn a_total_is_the_same_in_two_parts() {
        for total in [
            0,
            1,
            -1,
            i128::from(i64::MAX) + 1,
            i128::from(i64::MIN) - 1,
            5 << 64,
            -(5 << 64),
            (1 << 100) + 7,
        ] {
            let (low, carry) = Int64Type::split(total);
            assert_eq!(Int64Type::join(low, carry), total);
            let (low, carry) = UInt64Type::split(total);
            assert_eq!(UInt64Type::join(low, carry), total);
        }
        for total in [
            i256::ZERO,
            i256::MINUS_ONE,
            i256::from_i128(i128::MAX) + i256::ONE,
            i256::from_i128(i128::MIN) - i256::ONE,
            i256::from_parts(u128::MAX, 3),
            i256::from_parts(1 << 127, -3),
        ] {
            let (low, carry) = Decimal128Type::split(total);
            assert_eq!(Decimal128Type::join(low, carry), total);
        }
    }

    #[test]
    fn carries_stay_with_their_groups() {
        let function = sum(&DataType::Int64, false);
        let mut groups = function.create_groups_accumulator().unwrap();
        let values = integers(&[
            Some(1),
            Some(i64::MIN),
            Some(i64::MIN),
            Some(2),
            Some(i64::MAX),
            Some(1),
        ]);
        groups
            .update_batch(&[values], &[0, 1, 1, 2, 3, 3], NO_FILTER, 4)
            .unwrap();
        assert_eq!(&groups.evaluate(EmitTo::First(1)).unwrap(), &integers(&[Some(1)]));
        let back = integers(&[Some(i64::MAX), Some(1), Some(-2)]);
        groups.update_batch(&[back], &[0, 0, 2], NO_FILTER, 3).unwrap();
        let expected = integers(&[Some(i64::MIN), Some(2), Some(i64::MAX - 1)]);
        assert_eq!(&groups.evaluate(EmitTo::All).unwrap(), &expected);
    }
}
