//! Pipeline files: those given, or those that the binary carries.

use std::{io::Read, path::Path};

use crate::{
    sql::{self, Color, Diagnostic, ParsedFile, SourceText, SqlState},
    types::{Error, Result},
};

use super::told::complain;

/// What became of pipelines; what is wrong with them is on standard error. In the order of what comes first to be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Right,
    Wrong,
    /// Something outside does not answer, so that not everything could be judged.
    Unavailable,
}

impl Verdict {
    pub fn of(diagnostics: &[Diagnostic]) -> Self {
        let of = |diagnostic: &Diagnostic| match diagnostic.code {
            _ if !diagnostic.is_error() => Self::Right,
            SqlState::Unavailable => Self::Unavailable,
            _ => Self::Wrong,
        };
        diagnostics.iter().map(of).max().unwrap_or(Self::Right)
    }
}

/// Carried by the binary, so that it runs from any folder: the same bytes that production uses.
pub const EMBEDDED: &[(&str, &str)] = &[
    ("sql/candles.sql", include_str!("../../sql/candles.sql")),
    ("sql/trades_sum.sql", include_str!("../../sql/trades_sum.sql")),
    (
        "sql/trades_sum_per_event.sql",
        include_str!("../../sql/trades_sum_per_event.sql"),
    ),
];

/// Reads a pipeline file, or standard input for `-`; a name of [`EMBEDDED`] is found without a file.
pub fn read(path: &Path) -> Result<SourceText> {
    let name = path.to_string_lossy();
    let bytes = match name.as_ref() {
        "-" => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
        }
        _ => std::fs::read(path),
    };
    let text = match bytes {
        Ok(bytes) => String::from_utf8(bytes).map_err(|e| {
            let line = e.as_bytes()[..e.utf8_error().valid_up_to()]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
                + 1;
            Error::user(format!("{name} is not UTF-8 text: see line {line}"))
        })?,
        Err(error) => match EMBEDDED.iter().find(|(embedded, _)| *embedded == name) {
            Some((_, text)) => (*text).to_owned(),
            None => {
                let near = sql::suggest::nearest(&name, EMBEDDED.iter().map(|(embedded, _)| *embedded));
                let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                return Err(Error::user(format!("cannot read {name}: {error}{hint}")));
            }
        },
    };
    // Columns of the first line count from what people see.
    let text = text
        .strip_prefix(sql::BYTE_ORDER_MARK)
        .map(str::to_owned)
        .unwrap_or(text);
    Ok(SourceText::new(name, text))
}

/// Fills in the variables of the environment and parses.
pub fn parse(text: &SourceText) -> ParsedFile {
    let read_file = |path: &str| std::fs::read_to_string(path).map_err(|error| error.to_string());
    sql::parse_file(text, &|name| std::env::var(name).ok(), &read_file)
}

/// Writes diagnostics to standard error, in colour where a person looks.
pub fn show(text: &SourceText, diagnostics: &[Diagnostic]) {
    use std::io::IsTerminal;
    if diagnostics.is_empty() {
        return;
    }
    let is_colourful = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let color = if is_colourful { Color::Always } else { Color::Never };
    complain(sql::render(text, diagnostics, color).trim_end());
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    if 0 < errors {
        complain(format_args!(
            "\n{errors} {}",
            if errors == 1 { "error" } else { "errors" }
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_says_what_is_to_be_mended_first() {
        let warning = || Diagnostic::warning(SqlState::Invalid, "unusual", None);
        let wrong = || Diagnostic::error(SqlState::UnknownColumn, "no column named `x`", None);
        let away = || Diagnostic::error(SqlState::Unavailable, "no answer", None);
        for (diagnostics, expected, why) in [
            (vec![], Verdict::Right, "nothing to say"),
            (vec![warning()], Verdict::Right, "a warning stops nobody"),
            (vec![warning(), wrong()], Verdict::Wrong, "one mistake"),
            (vec![away()], Verdict::Unavailable, "the text may be right"),
            (
                vec![away(), wrong()],
                Verdict::Unavailable,
                "a mistake may come from what is not there",
            ),
        ] {
            assert_eq!(Verdict::of(&diagnostics), expected, "{why}");
        }
    }
}
