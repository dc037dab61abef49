//! A mistake in a text: what is wrong, where, and what to do.

use super::Span;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub code: SqlState,
    /// Lower case, no full stop, no names of types or functions of ours.
    pub message: String,
    pub span: Option<Span>,
    /// Short words under the caret, e.g. `expected TIMESTAMP`.
    pub label: Option<String>,
    pub help: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// The kinds of mistakes that a program may want to tell apart, by SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlState {
    Syntax,
    UnknownColumn,
    UnknownTable,
    AmbiguousColumn,
    Duplicate,
    TypeMismatch,
    UnknownFunction,
    InvalidOption,
    Unsupported,
    /// Larger or deeper than is taken.
    TooComplex,
    /// The text may be right: something outside that it names does not answer.
    Unavailable,
    /// A text that is wrong in another way.
    Invalid,
}

impl SqlState {
    /// The five letters of the standard.
    pub fn code(self) -> &'static str {
        match self {
            Self::Syntax => "42601",
            Self::UnknownColumn => "42703",
            Self::UnknownTable => "42P01",
            Self::AmbiguousColumn => "42702",
            Self::Duplicate => "42710",
            Self::TypeMismatch => "42804",
            Self::UnknownFunction => "42883",
            Self::InvalidOption => "22023",
            Self::Unsupported => "0A000",
            Self::TooComplex => "54001",
            Self::Unavailable => "58030",
            Self::Invalid => "42000",
        }
    }

    /// For the type of a problem: `/problems/unknown-column`.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::UnknownColumn => "unknown-column",
            Self::UnknownTable => "unknown-table",
            Self::AmbiguousColumn => "ambiguous-column",
            Self::Duplicate => "duplicate",
            Self::TypeMismatch => "type-mismatch",
            Self::UnknownFunction => "unknown-function",
            Self::InvalidOption => "invalid-option",
            Self::Unsupported => "unsupported",
            Self::TooComplex => "too-complex",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
        }
    }
}

impl Diagnostic {
    pub fn error(code: SqlState, message: impl Into<String>, span: impl Into<Option<Span>>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            span: span.into(),
            label: None,
            help: Vec::new(),
        }
    }

    pub fn warning(code: SqlState, message: impl Into<String>, span: impl Into<Option<Span>>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, message, span)
        }
    }

    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
