//! What survives a crash: the journal of epoch plans, and checkpoints of the state.
//!
//! ```text
//! <state>/LOCK, generation     one process at a time; goes up with every start (claim.rs)
//! <state>/journal/<epoch>.jnl  plans from that epoch on, one synced record each: appending one is the commit
//! <state>/checkpoints/<epoch>/ parts (Arrow IPC) and MANIFEST (lengths, checksums), published by rename
//! ```
//! It lies on a disk or in a remote store (place.rs). Recovery is the newest good checkpoint and a replay of the plans after it. Every byte is verified before it is decoded.
//! What the state means is known elsewhere.

mod catalog;
mod checkpoint;
mod claim;
mod codec;
mod files;
mod inspect;
mod journal;
mod place;
#[cfg(test)]
mod remote_tests;
mod store;

pub use catalog::{KeptCatalog, KeptStatement};
pub use checkpoint::{Checkpoint, CheckpointWriter, Part};
pub use files::{Append, Files};
pub use inspect::{InspectedCheckpoint, Inspection, definition_of, folders, inspection_of};
pub use place::Place;
pub use store::{Recovered, Store};
