//! `bit_xor` that knows DISTINCT. DataFusion's own takes all values where it has many groups, whether they are to be distinct or not.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::{
    common::Result,
    functions_aggregate::bit_and_or_xor::bit_xor_udaf,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, Signature,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
};

/// `bit_xor` of integers: null over no values.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Xor {
    of_all: Arc<AggregateUDF>,
}

impl Default for Xor {
    fn default() -> Self {
        Self { of_all: bit_xor_udaf() }
    }
}

impl AggregateUDFImpl for Xor {
    fn name(&self) -> &str {
        self.of_all.name()
    }

    fn signature(&self) -> &Signature {
        self.of_all.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.of_all.return_type(arguments)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.of_all.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.of_all.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.of_all.create_groups_accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.of_all.documentation()
    }
}
