//! `min` and `max` of floats in the order of SQL's ORDER BY: −∞ … ∞, then NaN. Everything else is DataFusion's own.
//!
//! DataFusion's own begin with the greatest and least finite numbers, so that of infinities alone they give those, and which of NaN
//! and a number they give depends on which came first.

use std::{
    fmt,
    mem::{size_of, size_of_val},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray},
    datatypes::{DataType, Field, FieldRef, Float16Type, Float32Type, Float64Type},
};
use datafusion::{
    common::{Result, ScalarValue},
    functions_aggregate::min_max::{Max, Min},
    logical_expr::{
        Accumulator, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
        Signature, StatisticsArgs,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::{AggregateOrderSensitivity, format_state_name},
    },
    physical_expr::NullState,
};

/// `min` or `max`: null over no values.
#[derive(Debug, PartialEq, Eq, Hash)]
pub enum Extreme {
    Least(Min),
    Greatest(Max),
}

impl Extreme {
    fn of_others(&self) -> &dyn AggregateUDFImpl {
        match self {
            Self::Least(min) => min,
            Self::Greatest(max) => max,
        }
    }

    fn is_least(&self) -> bool {
        matches!(self, Self::Least(_))
    }
}

/// A type of floats. Arrow compares them in their total order: −NaN, −∞ … −0.0, 0.0 … ∞, NaN.
trait Float: ArrowPrimitiveType + fmt::Debug + Send {
    const LEAST: Self::Native;
    /// Also the greatest value of all.
    const NAN: Self::Native;

    fn with_one_nan(value: Self::Native) -> Self::Native;

    /// What every other value takes the place of.
    fn worst(is_least: bool) -> Self::Native {
        if is_least { Self::NAN } else { Self::LEAST }
    }
}

macro_rules! float {
    ($type:ty) => {
        impl Float for $type {
            const LEAST: Self::Native = <Self::Native>::NEG_INFINITY;
            const NAN: Self::Native = <Self::Native>::NAN;

            fn with_one_nan(value: Self::Native) -> Self::Native {
                if value.is_nan() { Self::NAN } else { value }
            }
        }
    };
}

float!(Float16Type);
float!(Float32Type);
float!(Float64Type);

/// Calls a generic function for the float type at hand; `None` for every other type.
macro_rules! of_float {
    ($data_type:expr, $make:ident, $argument:expr) => {
        match $data_type {
            DataType::Float16 => Some($make::<Float16Type>($argument)),
            DataType::Float32 => Some($make::<Float32Type>($argument)),
            DataType::Float64 => Some($make::<Float64Type>($argument)),
            _ => None,
        }
    };
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.of_others().name()
    }

    fn signature(&self) -> &Signature {
        self.of_others().signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.of_others().return_type(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.of_others().coerce_types(arguments)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        fn make<T: Float>(is_least: bool) -> Box<dyn Accumulator> {
            Box::new(One::<T> { value: None, is_least })
        }
        match of_float!(args.return_field.data_type(), make, self.is_least()) {
            Some(accumulator) => Ok(accumulator),
            None => self.of_others().accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.of_others().create_sliding_accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let name = format_state_name(args.name, self.name());
        Ok(vec![Arc::new(Field::new(
            name,
            args.return_field.data_type().clone(),
            true,
        ))])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.of_others().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        fn make<T: Float>(is_least: bool) -> Box<dyn GroupsAccumulator> {
            Box::new(Groups::<T> {
                values: Vec::new(),
                seen: NullState::new(),
                is_least,
            })
        }
        match of_float!(args.return_field.data_type(), make, self.is_least()) {
            Some(accumulator) => Ok(accumulator),
            None => self.of_others().create_groups_accumulator(args),
        }
    }

    fn is_descending(&self) -> Option<bool> {
        self.of_others().is_descending()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    /// Statistics of floats know nothing of NaN.
    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        match args.return_type.is_floating() {
            true => None,
            false => self.of_others().value_from_stats(args),
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.of_others().documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.of_others().set_monotonicity(data_type)
    }
}

/// The one of two that is less, or greater; a NaN is greater than every number, whatever its sign.
fn better<T: Float>(value: T::Native, best: T::Native, is_least: bool) -> T::Native {
    let value = T::with_one_nan(value);
    let is_better = match is_least {
        true => value.is_lt(best),
        false => value.is_gt(best),
    };
    if is_better { value } else { best }
}

#[derive(Debug)]
struct One<T: Float> {
    value: Option<T::Native>,
    is_least: bool,
}

impl<T: Float> Accumulator for One<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<T>().iter().flatten() {
            let best = self.value.unwrap_or(T::worst(self.is_least));
            self.value = Some(better::<T>(value, best, self.is_least));
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::new_primitive::<T>(self.value, &T::DATA_TYPE)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

#[derive(Debug)]
struct Groups<T: Float> {
    values: Vec<T::Native>,
    /// Which groups have had a value.
    seen: NullState,
    is_least: bool,
}

impl<T: Float> GroupsAccumulator for Groups<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.values.resize(total_groups, T::worst(self.is_least));
        let (best, is_least) = (self.values.as_mut_slice(), self.is_least);
        let values = values[0].as_primitive::<T>();
        self.seen
            .accumulate(groups, values, filter, total_groups, |group, value| {
                best[group] = better::<T>(value, best[group], is_least);
            });
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.update_batch(states, groups, None, total_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let values = emit_to.take_needed(&mut self.values);
        Ok(Arc::new(PrimitiveArray::<T>::new(
            values.into(),
            self.seen.build(emit_to),
        )))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<T>();
        let counts = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        let states: PrimitiveArray<T> = (values.iter().enumerate())
            .map(|(row, value)| value.filter(|_| counts(row)))
            .collect();
        Ok(vec![Arc::new(states)])
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>() + self.seen.size()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;

    use super::*;

    fn groups(is_least: bool) -> Groups<Float64Type> {
        Groups {
            values: Vec::new(),
            seen: NullState::new(),
            is_least,
        }
    }

    fn of(is_least: bool, values: &[Option<f64>]) -> (Option<f64>, Option<f64>) {
        let array: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        let mut one = One::<Float64Type> { value: None, is_least };
        one.update_batch(std::slice::from_ref(&array)).unwrap();
        let ScalarValue::Float64(single) = one.evaluate().unwrap() else {
            unreachable!()
        };
        let mut grouped = groups(is_least);
        grouped.update_batch(&[array], &vec![0; values.len()], None, 1).unwrap();
        let grouped = grouped.evaluate(EmitTo::All).unwrap();
        let grouped = grouped.as_primitive::<Float64Type>();
        (single, grouped.is_valid(0).then(|| grouped.value(0)))
    }

    #[test]
    fn infinities_and_nan_have_their_place_in_any_order() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        for (values, least, greatest) in [
            (vec![Some(inf)], Some(inf), Some(inf)),
            (vec![Some(-inf)], Some(-inf), Some(-inf)),
            (vec![Some(nan)], Some(nan), Some(nan)),
            (vec![Some(-nan), Some(1.0)], Some(1.0), Some(nan)),
            (vec![Some(1.0), None, Some(nan), Some(-inf)], Some(-inf), Some(nan)),
            (vec![Some(inf), Some(nan)], Some(inf), Some(nan)),
            (vec![None], None, None),
        ] {
            let backwards: Vec<_> = values.iter().rev().copied().collect();
            for values in [values, backwards] {
                for (is_least, expected) in [(true, least), (false, greatest)] {
                    let (single, grouped) = of(is_least, &values);
                    let shown = |value: Option<f64>| {
                        value.map(|value| value.abs().to_string() + if value < 0.0 { "-" } else { "" })
                    };
                    assert_eq!(shown(single), shown(expected), "{values:?}");
                    assert_eq!(shown(grouped), shown(expected), "{values:?}");
                }
            }
        }
    }
}
