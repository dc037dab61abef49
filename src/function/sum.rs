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

use crate::types::{Error, type_name};

/// `sum` and `sum(DISTINCT …)`: null over no values, as many digits as DataFusion's.
///
/// # Errors
/// [`Error::User`] where a total does not fit, when it is asked for and not before. The accumulators keep their state then.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct ExactSum {
    of_others: Sum,
}

/// A type of numbers and what holds their totals.
trait Exact: ArrowNumericType + Debug + Send {
    type Total: DecimalType + Debug + Send;

    fn widen(value: Self::Native) -> Native<Self>;

    /// `None` where it does not fit.
    fn narrow(total: Native<Self>, data_type: &DataType) -> Option<Self::Native>;

    fn plus(total: Native<Self>, other: Native<Self>) -> Native<Self> {
        total.add_wrapping(other)
    }

    fn minus(total: Native<Self>, other: Native<Self>) -> Native<Self> {
        total.sub_wrapping(other)
    }
}

type Native<V> = <<V as Exact>::Total as ArrowPrimitiveType>::Native;

// 2^63 rows of 64 bits stay below 2^127, so these totals do not wrap.
impl Exact for Int64Type {
    type Total = Decimal128Type;

    fn widen(value: i64) -> i128 {
        value.into()
    }

    fn narrow(total: i128, _data_type: &DataType) -> Option<i64> {
        total.try_into().ok()
    }
}

impl Exact for UInt64Type {
    type Total = Decimal128Type;

    fn widen(value: u64) -> i128 {
        value.into()
    }

    fn narrow(total: i128, _data_type: &DataType) -> Option<u64> {
        total.try_into().ok()
    }
}

impl Exact for Decimal32Type {
    type Total = Decimal128Type;

    fn widen(value: i32) -> i128 {
        value.into()
    }

    fn narrow(total: i128, data_type: &DataType) -> Option<i32> {
        within::<Self>(total.try_into().ok()?, data_type)
    }
}

impl Exact for Decimal64Type {
    type Total = Decimal128Type;

    fn widen(value: i64) -> i128 {
        value.into()
    }

    fn narrow(total: i128, data_type: &DataType) -> Option<i64> {
        within::<Self>(total.try_into().ok()?, data_type)
    }
}

// 2^63 rows of 38 digits stay far below 2^255.
impl Exact for Decimal128Type {
    type Total = Decimal256Type;

    fn widen(value: i128) -> i256 {
        i256::from_i128(value)
    }

    fn narrow(total: i256, data_type: &DataType) -> Option<i128> {
        within::<Self>(total.to_i128()?, data_type)
    }
}

impl Exact for Decimal256Type {
    type Total = Decimal256Type;

    fn widen(value: i256) -> i256 {
        value
    }

    fn narrow(total: i256, data_type: &DataType) -> Option<i256> {
        within::<Self>(total, data_type)
    }

    /// There is nothing wider: a total that left 256 bits, five times what any result may be, stays out for good.
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

fn within<T: DecimalType>(value: T::Native, data_type: &DataType) -> Option<T::Native> {
    T::is_valid_decimal_precision(value, digits(data_type).0).then_some(value)
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
    V::narrow(total, data_type).ok_or_else(|| {
        let (_, scale) = digits(data_type);
        let shown = V::Total::format_decimal(total, V::Total::MAX_PRECISION, scale);
        let sentence = format!("the sum {shown} does not fit {}", type_name(data_type));
        DataFusionError::External(Box::new(Error::user(sentence)))
    })
}

/// A total per group.
#[derive(Debug)]
struct Groups<V: Exact> {
    totals: Vec<Native<V>>,
    /// Which groups have had a value.
    seen: NullState,
    data_type: DataType,
    total_type: DataType,
}

impl<V: Exact> Groups<V> {
    fn new(data_type: &DataType) -> Self {
        Self {
            totals: Vec::new(),
            seen: NullState::new(),
            data_type: data_type.clone(),
            total_type: total_type(data_type).expect("made for types that have one"),
        }
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
        self.totals.resize(total_groups, Native::<V>::default());
        let totals = self.totals.as_mut_slice();
        let values = values[0].as_primitive::<V>();
        self.seen
            .accumulate(groups, values, filter, total_groups, |group, value| {
                totals[group] = V::plus(totals[group], V::widen(value));
            });
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.totals.resize(total_groups, Native::<V>::default());
        let totals = self.totals.as_mut_slice();
        let states = states[0].as_primitive::<V::Total>();
        self.seen
            .accumulate(groups, states, None, total_groups, |group, total| {
                totals[group] = V::plus(totals[group], total);
            });
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let count = match emit_to {
            EmitTo::All => self.totals.len(),
            EmitTo::First(count) => count,
        };
        // A group without values has 0, which fits. Nothing is taken before all of them do.
        let values: Vec<V::Native> = self.totals[..count]
            .iter()
            .map(|total| fitting::<V>(*total, &self.data_type))
            .collect::<Result<_>>()?;
        emit_to.take_needed(&mut self.totals);
        let values = PrimitiveArray::<V>::new(values.into(), self.seen.build(emit_to));
        Ok(Arc::new(values.with_data_type(self.data_type.clone())))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let totals = emit_to.take_needed(&mut self.totals);
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
        self.totals.capacity() * size_of::<Native<V>>() + self.seen.size()
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
            0 => values.values().iter().fold(self.total, |total, value| V::plus(total, V::widen(*value))),
            _ => values.iter().flatten().fold(self.total, |total, value| V::plus(total, V::widen(value))),
        };
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<V>();
        self.count -= (values.len() - values.null_count()) as u64;
        self.total = values.iter().flatten().fold(self.total, |total, value| V::minus(total, V::widen(value)));
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
                let total = self.values.keys().fold(zero, |total, value| V::plus(total, V::widen(*value)));
                Some(fitting::<V>(total, &self.data_type)?)
            }
        };
        ScalarValue::new_primitive::<V>(total, &self.data_type)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.len() * (size_of::<V::Native>() + size_of::<u64>() + 8)
    }
}
