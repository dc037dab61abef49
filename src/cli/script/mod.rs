//! Scripts that test pipelines: as they are written, then again where nothing that is varied may show.
//!
//! ```text
//! *.slt ─▶ file: records ─▶ run as written ─▶ shape: rows, splits, who may change places
//!                              │                └─▶ variation: cuts, waits, order, checkpoints, crashes (from a seed)
//!                              ▼                         └─▶ run again … ── fails ─▶ shrink ─▶ what is left, in words
//!                           stage: an engine, topics in memory, a clock that stands
//! ```
//! Nothing waits, nothing is retried, and no wall clock is read: a seed gives the same runs everywhere.

mod file;
mod find;
mod trial;

mod run;
mod shape;
mod stage;
mod variation;

mod failure;
mod shrink;
mod update;

pub use find::scripts_below;
pub use trial::{Broken, End, Outcome, Plan, try_script, try_scripts};
pub use update::update;
