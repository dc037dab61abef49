//! Aggregates per key over everything that came so far.
//!
//! ```text
//! rows ─▶ accumulators of their keys ── end of epoch ──▶ what changed: the old row retracted, the new one added
//! ```
//! Without keys there is one row, from the first epoch on. Input is append-only: a weight of −1 is refused when the view is created.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions},
    compute::{filter_record_batch, kernels::cmp::distinct},
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use crate::types::{Delta, Error, Result, Watermark};

use super::{Aggregation, EpochEnd, Flow, Operator, Output, aggregation::GroupTable};

pub struct GroupAggregate {
    table: GroupTable,
    schema: SchemaRef,
    /// The result as it was last handed on, a row per group.
    emitted: Option<RecordBatch>,
    is_touched: bool,
}

impl GroupAggregate {
    /// `schema`: the group columns, then the functions.
    pub fn new(aggregation: Arc<Aggregation>, schema: SchemaRef) -> Result<Self> {
        let is_global = aggregation.group_count() == 0;
        // The one row of a result without keys is there before any input.
        Ok(Self {
            table: GroupTable::new(aggregation)?,
            schema,
            emitted: None,
            is_touched: is_global,
        })
    }

    fn rows(&mut self) -> Result<RecordBatch> {
        let (groups, values) = self.table.results()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.table.len()));
        RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            groups.into_iter().chain(values).collect(),
            &options,
        )
        .map_err(|e| Error::bug(format!("an aggregate's rows do not fit their schema: {e}")))
    }
}

impl Operator for GroupAggregate {
    fn on_delta(&mut self, flow: Flow, _out: &mut Output) -> Result<()> {
        if flow.delta.weights.is_some() {
            return Err(Error::bug("an aggregate over rows that change was planned"));
        }
        let rows = self.table.aggregation().evaluate(&flow.delta.rows)?;
        self.is_touched = true;
        self.table.update(&rows)
    }

    fn on_epoch_end(&mut self, end: EpochEnd, out: &mut Output) -> Result<Watermark> {
        if std::mem::take(&mut self.is_touched) {
            let rows = self.rows()?;
            let delta = changed_rows(&self.schema, self.emitted.as_ref(), &rows)?;
            self.emitted = Some(rows);
            out.push(Flow::of(delta));
        }
        Ok(end.watermark)
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        let emitted = Schema::new(vec![Field::new("has_emitted", DataType::Int64, false)]);
        let emitted = RecordBatch::try_new(
            Arc::new(emitted),
            vec![Arc::new(Int64Array::from(vec![self.emitted.is_some() as i64]))],
        );
        Ok(vec![emitted.map_err(bug)?, self.table.state()?])
    }

    fn restore(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        let [has_emitted, groups] = state.as_slice() else {
            return Err(Error::state(
                "the checkpoint of an aggregate has other parts than expected",
            ));
        };
        self.table.restore(groups)?;
        let has_emitted =
            arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(has_emitted.column(0)).value(0) == 1;
        if has_emitted {
            self.emitted = Some(self.rows()?);
            self.is_touched = false;
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.table.memory_bytes() + self.emitted.as_ref().map_or(0, RecordBatch::get_array_memory_size)
    }
}

/// From a result to its next version: groups keep their place and are only ever added behind.
pub(super) fn changed_rows(schema: &SchemaRef, before: Option<&RecordBatch>, after: &RecordBatch) -> Result<Delta> {
    let Some(before) = before else {
        return Ok(Delta::append(after.clone()));
    };
    let common = before.num_rows();
    assert!(common <= after.num_rows(), "a group does not go away");
    let mut is_changed = vec![false; common];
    for (old, new) in before.columns().iter().zip(after.columns()) {
        let new = new.slice(0, common);
        let differs = match distinct(old, &new) {
            Ok(differs) => differs,
            // Lists and structs have no kernel of their own.
            Err(_) => nested_distinct(old, &new)?,
        };
        for (is_changed, differs) in is_changed.iter_mut().zip(differs.values()) {
            *is_changed |= differs;
        }
    }
    let retracted = filter_record_batch(before, &BooleanArray::from(is_changed.clone())).map_err(bug)?;
    is_changed.resize(after.num_rows(), true);
    let added = filter_record_batch(after, &BooleanArray::from(is_changed)).map_err(bug)?;
    Ok(Delta::change(schema, &retracted, &added))
}

fn nested_distinct(old: &ArrayRef, new: &ArrayRef) -> Result<BooleanArray> {
    let encoder =
        arrow::row::RowConverter::new(vec![arrow::row::SortField::new(old.data_type().clone())]).map_err(bug)?;
    let old = encoder.convert_columns(&[Arc::clone(old)]).map_err(bug)?;
    let new = encoder.convert_columns(&[Arc::clone(new)]).map_err(bug)?;
    Ok(old.iter().zip(new.iter()).map(|(old, new)| Some(old != new)).collect())
}

fn bug(error: arrow::error::ArrowError) -> Error {
    Error::bug(error.to_string())
}
