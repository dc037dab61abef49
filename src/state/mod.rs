//! What survives a crash: the journal of epoch plans, and checkpoints of the state.
//!
//! ```text
//! <state>/LOCK                 one process at a time
//! <state>/generation           who wrote last; goes up with every start
//! <state>/journal/<epoch>.jnl  plans from that epoch on, one synced record each: appending one is the commit
//! <state>/checkpoints/<epoch>/ parts (Arrow IPC) and MANIFEST (lengths, checksums), published by rename
//! ```
//! Recovery is the newest good checkpoint and a replay of the plans after it. Every byte is verified before it is decoded.
//! What the state means is known elsewhere.

mod catalog;
mod checkpoint;
mod codec;
mod files;
mod inspect;
mod journal;
mod store;

pub use catalog::{KeptCatalog, KeptStatement};
pub use checkpoint::{Checkpoint, CheckpointWriter, Part};
pub use files::{Append, Files, Place};
pub use inspect::{InspectedCheckpoint, Inspection, definition_of, folders, inspection_of};
pub use store::{Recovered, Store};
