//! The changes of the last epochs, for readers that follow a view.

use std::{collections::VecDeque, sync::Arc};

use arrow::{array::RecordBatch, compute::concat_batches, datatypes::SchemaRef};

use crate::types::{Delta, Epoch, Error, Result, Watermark, limits};

use super::Rows;

/// What one epoch did to a view.
#[derive(Clone, Debug)]
pub struct Change {
    pub epoch: Epoch,
    pub watermark: Watermark,
    pub added: RecordBatch,
    pub removed: RecordBatch,
}

impl Change {
    fn rows(&self) -> usize {
        self.added.num_rows() + self.removed.num_rows()
    }
}

/// Changes in the order of their epochs. Epochs that changed nothing leave none.
///
/// Invariant: every change after `since` is here.
#[derive(Debug)]
pub struct ChangeLog {
    since: Epoch,
    changes: VecDeque<Arc<Change>>,
    rows: usize,
}

impl ChangeLog {
    /// Holds everything after `since`, which is nothing yet.
    pub fn new(since: Epoch) -> Self {
        Self {
            since,
            changes: VecDeque::new(),
            rows: 0,
        }
    }

    pub fn push(&mut self, change: Change) {
        assert!(
            self.changes.back().is_none_or(|last| last.epoch < change.epoch),
            "epochs go up"
        );
        self.rows += change.rows();
        self.changes.push_back(Arc::new(change));
        while limits::CHANGES_KEPT_MAX < self.changes.len() || limits::CHANGE_ROWS_KEPT_MAX < self.rows {
            let oldest = self.changes.pop_front().expect("over a limit means not empty");
            self.rows -= oldest.rows();
            self.since = oldest.epoch;
        }
    }

    /// All changes after `epoch`, or `None` where some of them are not kept any more.
    pub fn after(&self, epoch: Epoch) -> Option<Vec<Arc<Change>>> {
        (self.since <= epoch).then(|| {
            let first = self.changes.partition_point(|change| change.epoch <= epoch);
            self.changes.iter().skip(first).cloned().collect()
        })
    }
}

/// Several changes as one: what is in the end added and removed. With a key, rows of one key become one row.
/// Also says how many rows fell away.
pub fn consolidate(
    schema: &SchemaRef,
    key: &[usize],
    changes: &[Arc<Change>],
) -> Result<(RecordBatch, RecordBatch, usize)> {
    if let [only] = changes {
        return Ok((only.added.clone(), only.removed.clone(), 0));
    }
    let all = |side: fn(&Change) -> &RecordBatch| {
        concat_batches(schema, changes.iter().map(|change| side(change))).map_err(|e| Error::bug(e.to_string()))
    };
    if key.is_empty() && changes.iter().all(|change| change.removed.num_rows() == 0) {
        return Ok((
            all(|change| &change.added)?,
            RecordBatch::new_empty(Arc::clone(schema)),
            0,
        ));
    }
    // Play the changes on an empty view that first holds what they remove without having added it.
    let mut before = Rows::new(Arc::clone(schema), key.to_vec(), false)?;
    let mut rows = Rows::new(Arc::clone(schema), key.to_vec(), false)?;
    let mut total = 0;
    for change in changes {
        total += change.rows();
        let (known, unknown) = rows.partition_known(&change.removed)?;
        before.apply(&Delta::append(unknown))?;
        rows.apply(&Delta::change(schema, &known, &change.added))?;
    }
    let flat = |rows: &Rows| concat_batches(schema, &rows.snapshot().batches()?).map_err(|e| Error::bug(e.to_string()));
    let (added, removed) = (flat(&rows)?, flat(&before)?);
    let merged = total - added.num_rows() - removed.num_rows();
    Ok((added, removed, merged))
}
