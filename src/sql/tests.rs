//! What is written and what it means, mistakes and how they are shown.

use std::collections::HashMap;

use super::*;

mod characters;
mod errors;
mod statements;
mod variables;

mod soup;

fn text(sql: &str) -> SourceText {
    SourceText::new("sql/test.sql", sql)
}

/// The diagnostics of a text as a terminal shows them.
fn rendered(sql: &str) -> String {
    let text = text(sql);
    render(&text, &parse(&text).diagnostics, Color::Never)
}

/// The only statement of a text without mistakes.
fn one(sql: &str) -> Statement {
    let text = text(sql);
    let parsed = parse(&text);
    assert!(
        parsed.diagnostics.is_empty(),
        "{sql}\n{}",
        render(&text, &parsed.diagnostics, Color::Never)
    );
    assert_eq!(parsed.statements.len(), 1, "{sql}");
    parsed.statements.into_iter().next().expect("there is one")
}

fn parse_with(sql: &str, variables: &[(&str, &str)], files: &[(&str, &str)]) -> (SourceText, ParsedFile) {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let files: HashMap<_, _> = files.iter().copied().collect();
    let text = text(sql);
    let parsed = parse_file(
        &text,
        &|name| variables.get(name).map(|value| (*value).to_owned()),
        &|path| {
            files
                .get(path)
                .map(|content| (*content).to_owned())
                .ok_or_else(|| "no such file".to_owned())
        },
    );
    (text, parsed)
}
