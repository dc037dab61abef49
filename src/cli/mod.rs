//! One verb, one file; the composition root that names concrete connectors and formats.

pub mod arguments;
mod assemble;
pub mod check;
pub mod demo;
pub mod generate;
pub mod pipeline;
pub mod progress;
pub mod replay;
pub mod run;
pub mod script;
pub mod test;
pub mod topics;

pub use assemble::{MemoryTopics, registry};
pub use pipeline::EMBEDDED;
