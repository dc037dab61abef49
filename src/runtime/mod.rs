//! The epoch loop and everything that touches tasks, threads and time.
//!
//! ```text
//! Engine ─┬─ catalog (files and statements, bound by plan)
//!         ├─ Driver per source: reader ─▶ Timeline (epochs) ─▶ Shared (one epoch of all its views)
//!         └─ queries: pinned snapshots + Parquet tables ─▶ stock DataFusion, with limits
//! ```

mod bounds;
pub mod clock;
mod definition;
mod driver;
mod engine;
mod explain_watermark;
mod face;
mod fitting;
mod functions;
mod gathered;
mod host;
mod insert;
mod intake;
mod kept;
mod maintained;
mod manual;
mod metrics;
mod outlet;
mod outlets;
mod page;
mod query;
mod read_ahead;
mod reader;
mod rebuild;
mod shared;
mod side_output;
mod silence;
#[cfg(test)]
mod simulation;
mod statement;
mod table;
mod timeline;
mod view_change;
mod watermark_rule;
mod written;

pub use bounds::Bounds;
pub use definition::{Rebuild, SourceChanges};
pub use engine::{Engine, EngineOptions, Mode, SourceOverride, ViewReader};
pub use face::*;
pub use kept::Recalled;
pub use manual::StepEnd;
pub use metrics::Metrics;
pub use query::{environment as query_environment, problem_of};
