//! The bounds of a running engine, as values: the named limits, unless a test wants to reach them.

use std::time::Duration;

use crate::types::limits;

#[derive(Clone, Debug)]
pub struct Bounds {
    pub epoch_rows_max: usize,
    pub epoch_bytes_max: usize,
    pub read_ahead_bytes: usize,
    pub view_rows_max: usize,
    pub operator_state_bytes_max: usize,
    pub write_visible_timeout: Duration,
    pub view_change_timeout: Duration,
    /// How long, and for how many rows, epochs run until a checkpoint follows one.
    pub checkpoint_interval: Duration,
    pub checkpoint_rows: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            epoch_rows_max: limits::EPOCH_ROWS_MAX,
            epoch_bytes_max: limits::EPOCH_BYTES_MAX,
            read_ahead_bytes: limits::READ_AHEAD_BYTES,
            view_rows_max: limits::VIEW_ROWS_MAX,
            operator_state_bytes_max: limits::OPERATOR_STATE_BYTES_MAX,
            write_visible_timeout: limits::WRITE_VISIBLE_TIMEOUT,
            view_change_timeout: limits::VIEW_CHANGE_TIMEOUT,
            checkpoint_interval: limits::CHECKPOINT_INTERVAL,
            checkpoint_rows: limits::CHECKPOINT_ROWS,
        }
    }
}
