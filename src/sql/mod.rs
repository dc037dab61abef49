//! Text to statements: parsing with spans, all mistakes of a file at once, and how mistakes are shown.
//!
//! ```text
//! file ── ${NAME} ──▶ text ── split ──▶ statements ── parse ──▶ Statement { kind, span } + diagnostics ──▶ render (carets)
//! ```
//! No catalog, no Arrow, no I/O: what a name means is decided in `plan`.

mod diagnostic;
mod parser;
mod render;
mod statement;
pub mod suggest;
mod text;

pub use diagnostic::{Diagnostic, Severity, SqlState};
pub use parser::{ParsedFile, parse};
pub use render::{Color, render};
pub use statement::*;
pub use text::{LineColumn, SourceText, Span};
