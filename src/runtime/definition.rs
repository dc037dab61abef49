//! The definition of a source and its views as text: kept with the state, which is of no use to another one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use crate::{
    plan::{MaterializedDefinition, SourceDefinition, functions_of},
    sql::{normalized, on_one_line},
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
    for function in functions_of(views.iter().map(|view| &view.plan)) {
        lines.push(format!("function {}: {}", function.name, on_one_line(&function.sql)));
    }
    for view in views {
        lines.push(format!("view {}: {}", view.name, on_one_line(&view.sql)));
    }
    lines.join("\n")
}

/// The views of `now` that are not in `before` as they are now; `None` where anything else differs but views that are gone.
pub fn views_made_anew(before: &str, now: &str) -> Option<BTreeSet<String>> {
    let (before, now) = (Parts::of(before), Parts::of(now));
    let is_same = |one: &str, other: &str| normalized(one) == normalized(other);
    let is_other_function =
        |(name, text): (&&str, &&str)| before.functions.get(name).is_some_and(|other| !is_same(other, text));
    if before.source != now.source || now.functions.iter().any(is_other_function) {
        return None;
    }
    let anew = now
        .views
        .iter()
        .filter(|(name, text)| before.views.get(*name) != Some(text));
    Some(anew.map(|(name, _)| (*name).to_owned()).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_may_come_go_and_change_and_nothing_else_may() {
        let before = "source s (kafka)\n  a Int64\nfunction f: x\nview v: 1\nview w: 2";
        for (now, expected) in [
            (before.to_owned(), Some(vec![])),
            (before.replace("\nview w: 2", ""), Some(vec![])),
            (
                before.replace("view w: 2", "view w: 3\nview x: 4"),
                Some(vec!["w", "x"]),
            ),
            (before.replace("function f: x\n", ""), Some(vec![])),
            (before.replace("f: x", "f: y"), None),
            (before.replace("a Int64", "a Int32"), None),
        ] {
            let found = views_made_anew(before, &now);
            let found: Option<Vec<&str>> = found.as_ref().map(|names| names.iter().map(String::as_str).collect());
            assert_eq!(found, expected, "{now}");
        }
    }
}
