//! The inputs of an aggregation, as columns.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array},
    compute::take,
};
use datafusion::logical_expr::GroupsAccumulator;

use crate::types::{Error, Result};

use super::{Aggregation, failed};

/// The inputs of an aggregation for some rows.
#[derive(Clone)]
pub struct Evaluated {
    pub(super) groups: Vec<ArrayRef>,
    pub(super) arguments: Vec<Vec<ArrayRef>>,
    pub(super) filters: Vec<Option<BooleanArray>>,
    pub(super) rows: usize,
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
