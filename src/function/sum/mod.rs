//! `sum` that is exact: totals are kept in a type that no rows overflow, and have to fit when they are asked for.
//!
//! ```text
//! integers ─▶ totals of 128 bits ─┐
//! decimals ─▶ totals of 256 bits ─┴─▶ the result, or "the sum … does not fit …"
//! ```
//! So neither the order of rows nor how they are cut decides whether a sum overflows. Everything else is DataFusion's own `sum`.

mod total;

mod groups;

mod distinct;
mod one;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Field, FieldRef, Int64Type, UInt64Type,
};
use datafusion::{
    common::Result,
    functions_aggregate::sum::Sum,
    logical_expr::{
        Accumulator, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::{AggregateOrderSensitivity, format_state_name},
    },
};

use distinct::Distinct;
use groups::Groups;
use one::One;
use total::{Exact, of_type, total_type};

/// `sum` and `sum(DISTINCT …)`: null over no values, as many digits as DataFusion's.
///
/// # Errors
/// [`Error::User`](crate::types::Error::User) where a total does not fit, when it is asked for and not before. The
/// accumulators keep their state then.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct ExactSum {
    of_others: Sum,
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
