//! Where bytes come from, sources that seek and poll, and where rows go, sinks that publish. No decoding and no SQL in here.
//!
//! ```text
//! discover ──▶ recognise ──▶ seek(positions) ──▶ poll ──▶ poll ──▶ …      chunks of consecutive positions, per split
//! ```

pub mod conformance;
pub mod kafka;
pub mod memory;
pub mod nexmark;
pub mod parquet;
pub mod replay;
mod sink;
mod source;
mod table_log;

pub use crate::types::{OptionKind, OptionSpec, Options};
pub use sink::{Marker, Publisher, Sink, SinkEpoch, SinkError, ToRecords};
pub use source::{LostRows, Source, SourceError, SplitBounds};
pub use table_log::TableLog;
