//! Rows of a state on their way into a checkpoint.

use arrow::array::RecordBatch;

use super::Result;

/// What a state was at one moment. Rows are made of it when they are asked for, also on another thread: what goes on meanwhile does not wait
/// for that, and changes nothing of it.
pub struct Saved(Box<dyn FnOnce() -> Result<Vec<RecordBatch>> + Send>);

impl Saved {
    /// Batches may differ in schema.
    pub fn now(rows: Vec<RecordBatch>) -> Self {
        Self(Box::new(|| Ok(rows)))
    }

    /// `rows` holds what it needs, shared with the state or copied.
    pub fn later(rows: impl FnOnce() -> Result<Vec<RecordBatch>> + Send + 'static) -> Self {
        Self(Box::new(rows))
    }

    pub fn rows(self) -> Result<Vec<RecordBatch>> {
        self.0()
    }
}

impl std::fmt::Debug for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Saved")
    }
}
