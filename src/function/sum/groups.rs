//! A total per group, for many groups at a time.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray},
    datatypes::DataType,
};
use datafusion::{
    common::Result,
    logical_expr::{EmitTo, GroupsAccumulator},
    physical_expr::NullState,
};

use crate::types::planted::{Bug, has};

use super::total::{Exact, Native, misfit, total_type};

/// A total per group.
#[derive(Debug)]
pub struct Groups<V: Exact> {
    lows: Vec<V::Native>,
    /// Of the groups that have one.
    carries: BTreeMap<usize, i64>,
    /// Which groups have had a value.
    seen: NullState,
    data_type: DataType,
    total_type: DataType,
}

impl<V: Exact> Groups<V> {
    pub fn new(data_type: &DataType) -> Self {
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

fn carry_over(carries: &mut BTreeMap<usize, i64>, group: usize, carry: i64) {
    let total = carries.entry(group).or_default();
    *total += carry;
    if *total == 0 {
        carries.remove(&group);
    }
}
