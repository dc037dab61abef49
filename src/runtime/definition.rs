//! The definition of a source and its views as text: kept with the state, which is of no use to another one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

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

/// The views that are in `now` and not in `before`; `None` where anything differs but which views there are.
pub fn added_views(before: &str, now: &str) -> Option<BTreeSet<String>> {
    let (before, now) = (Parts::of(before), Parts::of(now));
    let changed = |before: &BTreeMap<&str, &str>, now: &BTreeMap<&str, &str>| {
        (now.iter()).any(|(name, text)| before.get(name).is_some_and(|other| other != text))
    };
    let is_other =
        before.source != now.source || changed(&before.functions, &now.functions) || changed(&before.views, &now.views);
    if is_other {
        return None;
    }
    let added = now.views.keys().filter(|name| !before.views.contains_key(*name));
    Some(added.map(|name| (*name).to_owned()).collect())
}

/// A definition's text, taken apart. Functions and views by name.
#[derive(Default)]
struct Parts<'a> {
    source: Vec<&'a str>,
    functions: BTreeMap<&'a str, &'a str>,
    views: BTreeMap<&'a str, &'a str>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let mut parts = Self::default();
        for line in text.lines() {
            let named = |kind| line.strip_prefix(kind).and_then(|rest: &str| rest.split_once(": "));
            if let Some((name, sql)) = named("view ") {
                parts.views.insert(name, sql);
            } else if let Some((name, sql)) = named("function ") {
                parts.functions.insert(name, sql);
            } else {
                parts.source.push(line);
            }
        }
        parts
    }
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
