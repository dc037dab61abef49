//! Text to statements: parsing with spans, all mistakes of a file at once, and how mistakes are shown.
//!
//! ```text
//! file ── ${NAME} ──▶ text ── split ──▶ statements ── parse ──▶ Statement { kind, span } + diagnostics ──▶ render (carets)
//! ```
//! No catalog, no Arrow, no I/O: what a name means is decided in `plan`.

mod text;

mod diagnostic;
mod statement;

mod parser;
mod variables;

mod clauses;
mod columns;
mod create;
mod cursor;
mod function;
mod table;

mod dialect;
mod flink;
mod grouping_sets;
mod guard;
mod normal;
mod query_words;
mod shapes;
mod syntax;
mod token;

mod render;
pub mod suggest;

pub use diagnostic::{Diagnostic, Severity, SqlState};
pub use guard::guard;
pub use normal::{normalized, on_one_line};
pub use parser::{ParsedFile, byte_span, nothing_inserted, parse, parse_file};
pub use query_words::QueryWords;
pub use render::{Color, render};
pub use shapes::check_query;
pub use statement::*;
pub use text::{LineColumn, SourceText, Span};
pub use token::BYTE_ORDER_MARK;
pub use variables::{Lookup, ReadFile, substitute};

#[cfg(test)]
mod tests;
