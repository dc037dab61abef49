//! The state of groups as columns, and as rows of a checkpoint.

use arrow::array::{Array, ArrayRef, RecordBatch};

use crate::types::{Error, Result};

use super::Aggregation;

/// The group columns and the state columns of every function, a row per group.
#[derive(Clone)]
pub struct GroupState {
    pub groups: Vec<ArrayRef>,
    pub states: Vec<ArrayRef>,
    pub count: usize,
}

impl GroupState {
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
