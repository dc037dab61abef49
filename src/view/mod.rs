//! Rows of a view at a committed epoch, and the changes of the last epochs.
//!
//! ```text
//! deltas ──▶ Rows (runs + key index) ── publish ──▶ Published { epoch, watermark, snapshot } ──▶ readers
//!                                              └──▶ changes of the last epochs ──▶ subscribers
//! ```
//! Publishing swaps one pointer; readers never block the engine, and the engine never waits for a reader.

mod changes;
mod provider;
mod rows;
mod side;

pub use changes::{Change, ChangeLog, consolidate};
pub use provider::SnapshotTable;
pub use rows::{Applied, Rows, RowsSnapshot};
pub use side::SideRows;
