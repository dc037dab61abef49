//! What went wrong with a statement, in one line.

use std::fmt;

use crate::runtime::{Problem, ProblemKind};

/// An error as scripts match it, in one line: `[code] message at 'text': help; help`.
#[derive(Debug)]
pub struct StageError(pub(super) String);

impl StageError {
    pub(super) fn of(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl From<Problem> for StageError {
    fn from(problem: Problem) -> Self {
        Self(match problem.kind {
            ProblemKind::Text { text, diagnostics } => {
                let lines = diagnostics.iter().map(|diagnostic| {
                    let at = diagnostic
                        .span
                        .and_then(|span| text.text.get(span.start..span.end))
                        .unwrap_or_default();
                    let at = at.split_whitespace().collect::<Vec<_>>().join(" ");
                    let help = diagnostic.help.join("; ");
                    format!("[{}] {} at '{at}': {help}", diagnostic.code.code(), diagnostic.message)
                });
                lines.collect::<Vec<_>>().join(" | ")
            }
            ProblemKind::NotFound { detail, help } => format!("not found: {detail}: {}", help.join("; ")),
            ProblemKind::Parameter(detail) => format!("parameter: {detail}"),
            ProblemKind::Execution(detail) => format!("execution: {detail}"),
            ProblemKind::Unavailable(detail) => format!("unavailable: {detail}"),
            other => format!("{other:?}"),
        })
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StageError {}
