//! The vocabulary that all rooms share: times, epochs, positions, deltas, records, names of types, limits, errors.

mod anchor;
mod calendar;
mod delta;
mod epoch;
mod error;
mod folder;
mod frame;
pub mod limits;
mod options;
pub mod planted;
mod position;
mod reason;
mod records;
mod saved;
mod sql_type;
mod time;
mod window;

pub use anchor::{Anchor, Anchors};
pub use calendar::{Calendar, CalendarUnit};
pub use delta::Delta;
pub use epoch::{Epoch, EpochPlan, PlannedRange};
pub use error::{Error, Result};
pub use folder::folder_name;
pub use frame::{FRAME_BYTES, Framed, read_frame, write_frame};
pub use options::{OptionKind, OptionSpec, Options, one_of, parse_size};
pub use position::{Position, SplitId};
pub use reason::reason_of;
pub use records::{BadRecord, Chunk, Payload, RecordSchema, Records, RecordsBuilder};
pub use saved::Saved;
pub use sql_type::{sql_types_in, type_name};
pub use time::{EventTime, Watermark, format_event_time, parse_duration};
pub use window::{Grid, PaneRange, Shape, Window, Windows};
