//! One verb, one file; the composition root that names concrete connectors and formats.

pub mod arguments;
mod assemble;
pub mod check;
pub mod checkpoints;
pub mod demo;
pub mod diff;
pub mod generate;
pub mod pipeline;
pub mod progress;
pub mod replay;
pub mod run;
pub mod script;
pub mod test;
pub mod told;
pub mod topics;

pub use assemble::{MemoryTopics, registry};
pub use pipeline::EMBEDDED;

/// `1 statement`, `2 statements`.
fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
