//! What a script expected and what came, for people.

use similar::{ChangeTag, TextDiff};
use sqllogictest::{TestError, TestErrorKind};

/// A record that did not do what it says.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Of the record, from 1.
    pub line: u32,
    pub sentence: String,
    /// The record's SQL, what differs, and a way out; without indentation.
    pub details: Vec<String>,
}

impl Failure {
    pub fn new(line: u32, sentence: impl Into<String>) -> Self {
        Self {
            line,
            sentence: sentence.into(),
            details: Vec::new(),
        }
    }
}

impl From<TestError> for Failure {
    fn from(error: TestError) -> Self {
        let line = error.location().line();
        let (sentence, sql, details) = match error.kind() {
            TestErrorKind::Ok { sql, .. } => ("an error is expected, but it works".to_owned(), sql, vec![]),
            TestErrorKind::Fail { sql, err, .. } => ("it fails".to_owned(), sql, vec![format!("error: {err}")]),
            TestErrorKind::ErrorMismatch {
                sql, err, expected_err, ..
            } => {
                let lines = vec![format!("- {expected_err}"), format!("+ {err}")];
                ("it fails with another error than expected".to_owned(), sql, lines)
            }
            TestErrorKind::StatementResultMismatch { sql, expected, actual } => {
                (format!("{expected} rows are expected, but it {actual}"), sql, vec![])
            }
            TestErrorKind::QueryResultMismatch { sql, expected, actual } => {
                let (expected, actual) = (lines(&expected), lines(&actual));
                (
                    "other rows than expected (-) came (+)".to_owned(),
                    sql,
                    diff(&expected, &actual),
                )
            }
            TestErrorKind::QueryResultColumnsMismatch { sql, expected, actual } => (
                format!("its columns are `query {actual}`, but `query {expected}` is expected"),
                sql,
                vec!["I is an integer, R another number, T a text or time, B or ? anything else".to_owned()],
            ),
            other => (other.to_string(), String::new(), vec![]),
        };
        Self {
            line,
            sentence,
            details: sql.lines().map(|line| format!("  {line}")).chain(details).collect(),
        }
    }
}

/// Rows as they are compared: how many blanks stand between values is no difference.
fn lines(rows: &str) -> Vec<String> {
    rows.lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

fn diff(expected: &[String], actual: &[String]) -> Vec<String> {
    let (expected_text, actual_text) = (text(expected), text(actual));
    let mut shown: Vec<String> = TextDiff::from_lines(&expected_text, &actual_text)
        .iter_all_changes()
        .map(|change| {
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            format!("{sign} {}", change.value().trim_end_matches('\n'))
        })
        .collect();
    let sorted = |rows: &[String]| {
        let mut rows = rows.to_vec();
        rows.sort();
        rows
    };
    if sorted(expected) == sorted(actual) {
        shown.push("help: the rows are the same, only their order differs: say it with ORDER BY, or write `rowsort` behind the types".into());
    }
    shown
}

fn text(rows: &[String]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_is_too_few_and_what_is_too_many() {
        let rows = |text: &str| lines(text);
        assert_eq!(
            diff(&rows("A  1\nB 2\nC 3"), &rows("A 1\nC 3\nD 4")),
            ["  A 1", "- B 2", "  C 3", "+ D 4"]
        );
        assert_eq!(diff(&rows(""), &rows("A 1")), ["+ A 1"]);
    }

    #[test]
    fn another_order_of_the_same_rows_is_called_so() {
        let shown = diff(&lines("A\nB"), &lines("B\nA"));
        assert!(shown.last().unwrap().contains("ORDER BY"), "{shown:?}");
    }
}
