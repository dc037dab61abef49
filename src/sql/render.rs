//! stub

use super::{Diagnostic, SourceText};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    Always,
    Never,
}

/// Diagnostics as people read them in a terminal: sentence, place, line with carets, help.
pub fn render(_text: &SourceText, _diagnostics: &[Diagnostic], _color: Color) -> String {
    todo!()
}
