//! One total, as rows come and, in a frame that slides, go.

use std::mem::size_of_val;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::DataType,
};
use datafusion::{
    common::{Result, ScalarValue},
    logical_expr::Accumulator,
};

use super::total::{Exact, Native, fitting, total_type};

/// One total, from which rows may be taken back.
#[derive(Debug)]
pub struct One<V: Exact> {
    total: Native<V>,
    /// How many values are in it.
    count: u64,
    data_type: DataType,
    total_type: DataType,
}

impl<V: Exact> One<V> {
    pub fn new(data_type: &DataType) -> Self {
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
