//! Rows kept aside: bad records of a source, late rows of a view. The newest are kept, the rest are counted.

use std::{collections::VecDeque, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use crate::types::limits;

use super::RowsSnapshot;

/// At most [`limits::SIDE_ROWS_MAX`] rows, in the order of arrival.
pub struct SideRows {
    schema: SchemaRef,
    batches: VecDeque<RecordBatch>,
    rows: usize,
    /// All rows that ever came.
    total: u64,
}

impl SideRows {
    pub fn new(schema: SchemaRef) -> Self {
        Self {
            schema,
            batches: VecDeque::new(),
            rows: 0,
            total: 0,
        }
    }

    /// Adds rows and says how many old ones made room.
    pub fn push(&mut self, batch: RecordBatch) -> usize {
        assert_eq!(batch.schema(), self.schema, "a side output has one schema");
        if batch.num_rows() == 0 {
            return 0;
        }
        self.total += batch.num_rows() as u64;
        self.rows += batch.num_rows();
        self.batches.push_back(batch);
        let mut evicted = 0;
        while limits::SIDE_ROWS_MAX < self.rows {
            let excess = self.rows - limits::SIDE_ROWS_MAX;
            let oldest = self.batches.pop_front().expect("over a limit means not empty");
            let gone = excess.min(oldest.num_rows());
            if gone < oldest.num_rows() {
                self.batches.push_front(oldest.slice(gone, oldest.num_rows() - gone));
            }
            self.rows -= gone;
            evicted += gone;
        }
        evicted
    }

    /// Takes up the rows of a checkpoint, and how many there had ever been.
    pub fn restore(&mut self, batches: Vec<RecordBatch>, total: u64) {
        for batch in batches {
            self.push(batch);
        }
        self.total = total;
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn batches(&self) -> Vec<RecordBatch> {
        self.batches.iter().cloned().collect()
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn snapshot(&self) -> RowsSnapshot {
        RowsSnapshot::of(Arc::clone(&self.schema), self.batches())
    }
}
