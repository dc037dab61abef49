//! One total of the values that differ.

use std::{collections::BTreeMap, mem::size_of_val, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, PrimitiveArray},
    datatypes::DataType,
};
use datafusion::{
    common::{Result, ScalarValue, utils::SingleRowListArrayBuilder},
    logical_expr::Accumulator,
};

use super::total::{Exact, Native, fitting};

/// Each value once, however often it is there.
#[derive(Debug)]
pub struct Distinct<V: Exact> {
    /// How often each is there, in their order: states are the same bytes in every run.
    values: BTreeMap<V::Native, u64>,
    data_type: DataType,
}

impl<V: Exact> Distinct<V>
where
    V::Native: Ord,
{
    pub fn new(data_type: &DataType) -> Self {
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
