//! The definition of a source and its views as text: kept with the state, which is of no use to another one.

use std::{path::Path, sync::Arc};

use crate::{
    plan::{MaterializedDefinition, SourceDefinition, functions_of},
    types::Error,
};

/// Options of connectors that decide which rows there are, and so what a position means. Others say where and when they come.
#[rustfmt::skip] // one line each would fill the page
const SELECTING: [&str; 12] = [
    "topic", "path", "from", "to", "limit",
    "table", "events", "events_per_second", "out_of_order", "base_time", "splits", "seed",
];

/// What the state depends on: everything but addresses and timing.
pub fn fingerprint(source: &SourceDefinition, views: &[Arc<MaterializedDefinition>]) -> String {
    let mut lines = vec![format!("source {} ({})", source.name, source.connector)];
    for field in source.schema.fields() {
        lines.push(format!(
            "  {} {}{}",
            field.name(),
            field.data_type(),
            if field.is_nullable() { "" } else { " not null" }
        ));
    }
    for name in SELECTING {
        lines.extend(
            source
                .connector_options
                .get(name)
                .map(|value| format!("  {name} = {value}")),
        );
    }
    lines.push(format!(
        "  format {} {:?}",
        source.format,
        source.format_options.iter().collect::<Vec<_>>()
    ));
    lines.extend(
        source
            .watermark
            .as_ref()
            .map(|watermark| format!("  watermark {}", watermark.text)),
    );
    let one_line = |sql: &str| sql.split_whitespace().collect::<Vec<_>>().join(" ");
    for function in functions_of(views.iter().map(|view| &view.plan)) {
        lines.push(format!("function {}: {}", function.name, one_line(&function.sql)));
    }
    for view in views {
        lines.push(format!("view {}: {}", view.name, one_line(&view.sql)));
    }
    lines.join("\n")
}

/// The refusal of a state that another definition made.
pub fn another_definition(folder: &Path, before: &str, now: &str) -> Error {
    Error::user(format!(
        "the state in {} was made by another definition:\n{}\nput the definition back, choose another folder with --state, or start over with --reset",
        folder.display(),
        difference(before, now)
    ))
}

/// Lines that are in one and not in the other.
fn difference(before: &str, now: &str) -> String {
    let gone = before
        .lines()
        .filter(|line| !now.lines().any(|other| other == *line))
        .map(|line| format!("  - {line}"));
    let new = now
        .lines()
        .filter(|line| !before.lines().any(|other| other == *line))
        .map(|line| format!("  + {line}"));
    gone.chain(new).collect::<Vec<_>>().join("\n")
}
