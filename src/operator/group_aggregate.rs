//! Aggregates per key over everything that came so far.
//!
//! ```text
//! rows ─▶ accumulators of their keys ── end of epoch ──▶ what changed: the old row retracted, the new one added
//! ```
//! Without keys there is one row, from the first epoch on. Input is append-only: a weight of −1 is refused when the view is created.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array},
    compute::{filter_record_batch, kernels::cmp::distinct, take_record_batch},
    datatypes::SchemaRef,
};

use crate::types::{Delta, Error, Result, Saved, Watermark};

use super::{
    Aggregation, EpochEnd, Flow, Operator, Output,
    aggregation::Results,
    state_table::{StateTable, Touched},
};

pub struct GroupAggregate {
    table: StateTable,
    schema: SchemaRef,
}

impl GroupAggregate {
    /// `schema`: the group columns, then the functions.
    pub fn new(aggregation: Arc<Aggregation>, schema: SchemaRef) -> Result<Self> {
        Ok(Self {
            table: StateTable::new(aggregation)?,
            schema,
        })
    }

    fn rows(&self, groups: &[ArrayRef], values: &[ArrayRef], count: usize) -> Result<RecordBatch> {
        let columns = groups.iter().chain(values).cloned().collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| Error::bug(format!("an aggregate's rows do not fit their schema: {e}")))
    }
}

impl Operator for GroupAggregate {
    fn on_delta(&mut self, flow: Flow, out: &mut Output) -> Result<()> {
        if flow.delta.weights.is_some() {
            return Err(Error::bug("an aggregate over rows that change was planned"));
        }
        let (rows, _) = self.table.aggregation().evaluate_good(&flow.delta.rows, None, out)?;
        match rows.len() {
            0 => Ok(()),
            _ => self.table.update(&rows),
        }
    }

    fn on_epoch_end(&mut self, end: EpochEnd, out: &mut Output) -> Result<Watermark> {
        if let Some(touched) = self.table.take_touched()? {
            let rows = |groups: &[ArrayRef], values: &[ArrayRef], count: usize| self.rows(groups, values, count);
            out.push(Flow::of(touched.delta(&self.schema, rows)?));
            out.failed
                .extend(self.table.aggregation().failed_groups(&touched.now, Vec::new())?);
        }
        Ok(end.watermark)
    }

    fn hand_on_all(&mut self, out: &mut Output) -> Result<bool> {
        if self.table.has_been_taken() {
            let Results {
                groups, values, count, ..
            } = self.table.results()?;
            out.push(Flow::of(Delta::append(self.rows(&groups, &values, count)?)));
        }
        Ok(true)
    }

    fn snapshot(&mut self) -> Result<Saved> {
        let state = self.table.state()?;
        Ok(Saved::later(move || state.rows()))
    }

    fn restore(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        state.iter().try_for_each(|groups| self.table.restore(groups))
    }

    fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
    }
}

impl Touched {
    /// What changed of a result whose rows `rows` makes of group columns and values: groups whose row is as it was are left out.
    pub(super) fn delta(
        &self,
        schema: &SchemaRef,
        rows: impl Fn(&[ArrayRef], &[ArrayRef], usize) -> Result<RecordBatch>,
    ) -> Result<Delta> {
        let Results {
            groups, values, count, ..
        } = &self.now;
        let after = rows(groups, values, *count)?;
        if let Some(gone) = &self.gone {
            let retracted = rows(&gone.groups, &gone.values, gone.count)?;
            let retracted = Delta::change(schema, &retracted, &RecordBatch::new_empty(Arc::clone(schema)));
            return Delta::concat(schema, &[retracted, self.delta_of_known(schema, after, rows)?]);
        }
        self.delta_of_known(schema, after, rows)
    }

    fn delta_of_known(
        &self,
        schema: &SchemaRef,
        after: RecordBatch,
        rows: impl Fn(&[ArrayRef], &[ArrayRef], usize) -> Result<RecordBatch>,
    ) -> Result<Delta> {
        let Results { groups, count, .. } = &self.now;
        if self.known.is_empty() {
            return Ok(Delta::append(after));
        }
        let known = UInt32Array::from(self.known.clone());
        let groups = arrow::compute::take_arrays(groups, &known, None).map_err(Error::of_arrow)?;
        let before = rows(&groups, &self.values_before, known.len())?;
        let differs = differing_rows(&before, &take_record_batch(&after, &known).map_err(Error::of_arrow)?)?;
        let mut is_added = vec![true; *count];
        for (row, differs) in self.known.iter().zip(&differs) {
            is_added[*row as usize] = *differs;
        }
        let retracted = filter_record_batch(&before, &BooleanArray::from(differs)).map_err(Error::of_arrow)?;
        let added = filter_record_batch(&after, &BooleanArray::from(is_added)).map_err(Error::of_arrow)?;
        Ok(Delta::change(schema, &retracted, &added))
    }
}

/// Per row whether any of its values is another one; null equals null, and NaN itself.
fn differing_rows(before: &RecordBatch, after: &RecordBatch) -> Result<Vec<bool>> {
    let mut is_changed = vec![false; before.num_rows()];
    for (old, new) in before.columns().iter().zip(after.columns()) {
        let differs = match distinct(old, new) {
            Ok(differs) => differs,
            // Lists and structs have no kernel of their own.
            Err(_) => nested_distinct(old, new)?,
        };
        for (is_changed, differs) in is_changed.iter_mut().zip(differs.values()) {
            *is_changed |= differs;
        }
    }
    Ok(is_changed)
}

fn nested_distinct(old: &ArrayRef, new: &ArrayRef) -> Result<BooleanArray> {
    let encoder = arrow::row::RowConverter::new(vec![arrow::row::SortField::new(old.data_type().clone())])
        .map_err(Error::of_arrow)?;
    let old = encoder.convert_columns(&[Arc::clone(old)]).map_err(Error::of_arrow)?;
    let new = encoder.convert_columns(&[Arc::clone(new)]).map_err(Error::of_arrow)?;
    Ok(old.iter().zip(new.iter()).map(|(old, new)| Some(old != new)).collect())
}
