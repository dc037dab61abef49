//! stub

use super::{Diagnostic, SourceText, Statement};

/// The statements of a text and everything that is wrong with it.
pub struct ParsedFile {
    pub statements: Vec<Statement>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses all statements; one that cannot be parsed costs only itself.
pub fn parse(_text: &SourceText) -> ParsedFile {
    todo!()
}
