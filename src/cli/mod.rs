//! One verb, one file; the composition root that names concrete connectors and formats.

pub mod generate;
pub mod progress;
pub mod replay;
