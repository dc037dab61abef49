//! Rows kept beside the views: `<source>$bad`, `<view>$late` and `<view>$errors`.

use std::sync::{Arc, Mutex};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, UInt64Array, new_null_array},
    compute::concat_batches,
    datatypes::{SchemaRef, TimestampNanosecondType},
};

use crate::{
    operator::{FailedRows, LateRows},
    plan::{bad_schema, errors_schema},
    types::{BadRecord, Epoch, Error, Result, SplitId, Watermark},
    view::{Change, ChangeLog, RowsSnapshot, SideRows},
};

use super::{Metrics, intake::values, shared::ViewFace};

/// The newest rows of one side output, and how many there ever were.
pub struct SideOutput {
    name: String,
    rows: SideRows,
}

impl SideOutput {
    pub fn new(name: String, schema: SchemaRef) -> Self {
        Self {
            name,
            rows: SideRows::new(schema),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn schema(&self) -> &SchemaRef {
        self.rows.schema()
    }

    pub fn total(&self) -> u64 {
        self.rows.total()
    }

    pub fn batches(&self) -> Vec<RecordBatch> {
        self.rows.batches()
    }

    pub fn snapshot(&self) -> RowsSnapshot {
        self.rows.snapshot()
    }

    /// Takes up the rows of a checkpoint, and how many there had ever been.
    pub fn restore(&mut self, batches: Vec<RecordBatch>, total: u64) {
        self.rows.restore(batches, total);
    }

    pub fn face(&self) -> ViewFace {
        ViewFace {
            schema: Arc::clone(self.schema()),
            key: vec![],
            time: self.schema().index_of("window_start").ok(),
            log: Mutex::new(ChangeLog::new(Epoch(0))),
        }
    }

    /// Adds what an epoch set aside, and says what its readers see of it; `None` where that is nothing.
    pub fn push(
        &mut self,
        batches: Vec<RecordBatch>,
        epoch: Epoch,
        watermark: Watermark,
        metrics: &Metrics,
    ) -> Result<Option<(String, Change)>> {
        if batches.is_empty() {
            return Ok(None);
        }
        let added = concat_batches(self.schema(), &batches).map_err(Error::of_arrow)?;
        for batch in batches {
            let evicted = self.rows.push(batch);
            metrics
                .rows_evicted_total
                .with_label_values(&[&self.name])
                .inc_by(evicted as u64);
        }
        let change = Change {
            epoch,
            watermark,
            added,
            removed: RecordBatch::new_empty(Arc::clone(self.schema())),
        };
        Ok(Some((self.name.clone(), change)))
    }
}

/// Bad records of a split as rows of `<source>$bad`.
pub fn bad_rows(split: &SplitId, bad: &[BadRecord]) -> Result<RecordBatch> {
    let splits = std::iter::repeat_n(split.as_str(), bad.len());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(splits)),
        Arc::new(UInt64Array::from_iter_values(bad.iter().map(|bad| bad.position.0))),
        Arc::new(StringViewArray::from_iter_values(bad.iter().map(|bad| &bad.reason))),
        Arc::new(StringViewArray::from_iter_values(
            bad.iter().map(|bad| String::from_utf8_lossy(&bad.first_bytes)),
        )),
    ];
    RecordBatch::try_new(bad_schema(), columns).map_err(Error::of_arrow)
}

/// Late rows of a window as rows of `<view>$late`.
pub fn late_rows(late: LateRows, schema: &SchemaRef) -> Result<RecordBatch> {
    let late_by_ms: Int64Array = late
        .watermarks
        .values()
        .iter()
        .zip(late.window_ends.values())
        .map(|(watermark, end)| Some(watermark.saturating_sub(*end) / 1_000_000))
        .collect();
    let time = |values: &Int64Array| Arc::new(values.reinterpret_cast::<TimestampNanosecondType>()) as ArrayRef;
    let columns = schema
        .fields()
        .iter()
        .map(|field| match field.name().as_str() {
            "window_start" => time(&late.window_starts),
            "window_end" => time(&late.window_ends),
            "late_by_ms" => Arc::new(late_by_ms.clone()),
            // Rows of another branch of a union have columns that these have not.
            name => late
                .rows
                .column_by_name(name)
                .map_or_else(|| new_null_array(field.data_type(), late.rows.num_rows()), Arc::clone),
        })
        .collect();
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(Error::of_arrow)
}

/// Rows and groups that could not be computed as rows of `<view>$errors`.
pub fn failed_rows(failed: &FailedRows, epoch: Epoch) -> Result<RecordBatch> {
    let count = failed.rows.num_rows();
    let texts = (0..count).map(|row| String::from_utf8_lossy(&values(&failed.rows, row)).into_owned());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(
            failed.operator,
            count,
        ))),
        Arc::new(StringViewArray::from_iter_values(&failed.reasons)),
        Arc::new(StringViewArray::from_iter_values(texts)),
        Arc::new(UInt64Array::from_value(epoch.0, count)),
    ];
    RecordBatch::try_new(errors_schema(), columns).map_err(Error::of_arrow)
}
