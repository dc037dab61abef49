//! Names that are not there: columns, tables, functions, and the nearest that are.

use datafusion::{common::Column, execution::context::SessionState};

use crate::sql::{Diagnostic, QueryWords, Span, SqlState, suggest};

use super::{Scene, clean, quoted};

/// Windows, which stand in FROM.
const WINDOWS: [&str; 4] = ["tumble", "hop", "cumulate", "session"];

/// A column that no table of the query has, or none of the one before its point.
pub fn unknown_column(field: &Column, valid_fields: &[Column], scene: &Scene<'_>) -> Diagnostic {
    let table_of = |column: &Column| column.relation.as_ref().map(|relation| relation.table().to_owned());
    let table = table_of(field);
    let is_of_table = |column: &&Column| table.is_some() && table_of(column) == table;
    if let Some(table) = &table
        && !valid_fields.iter().any(|column| is_of_table(&column))
        && !QueryWords::of(scene.text, scene.statement).has_table(table)
    {
        let mut tables: Vec<String> = valid_fields.iter().filter_map(table_of).collect();
        tables.dedup();
        let diagnostic = Diagnostic::error(
            SqlState::UnknownTable,
            format!("`{table}` is no table of this query"),
            None,
        );
        let holds = |column: &&Column| column.name == field.name;
        return match valid_fields.iter().find(holds).and_then(table_of) {
            Some(other) => diagnostic.help(format!("did you mean `{other}.{}`?", field.name)),
            None if tables.is_empty() => diagnostic,
            None => diagnostic.help(format!("its tables: {}", tables.join(", "))),
        };
    }
    let mut of_table: Vec<&Column> = valid_fields.iter().filter(is_of_table).collect();
    if of_table.is_empty() {
        of_table = valid_fields.iter().collect();
    }
    let mut names: Vec<&str> = of_table.iter().map(|column| column.name.as_str()).collect();
    names.dedup();
    let diagnostic = Diagnostic::error(
        SqlState::UnknownColumn,
        format!("no column named `{}`", field.name),
        None,
    );
    // A name that is there already is no slip of this one.
    let near = suggest::nearest(&field.name, names.iter().copied()).filter(|near| *near != field.name);
    let diagnostic = match near {
        Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
        None => diagnostic,
    };
    match names.is_empty() {
        true => diagnostic,
        false => diagnostic.help(format!("columns: {}", names.join(", "))),
    }
}

/// A table or a function that is not there.
pub fn unknown_name(said: &str, full: &str, scene: &Scene<'_>) -> Option<Diagnostic> {
    let message = clean(said);
    let lower = message.to_lowercase();
    let name = quoted(&message)?;
    if lower.contains("table") && lower.contains("not found") {
        let name = name.rsplit('.').next().unwrap_or(name);
        let diagnostic = Diagnostic::error(SqlState::UnknownTable, format!("no table or view named `{name}`"), None);
        return Some(match suggest::nearest(name, scene.tables.iter().copied()) {
            Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
            None if scene.tables.is_empty() => diagnostic.help("nothing is defined before this statement"),
            None => diagnostic.help(format!("there are: {}", scene.tables.join(", "))),
        });
    }
    lower
        .starts_with("invalid function")
        .then(|| unknown_function(name, full, scene.session))
}

/// `full` is all that the planner says, which knows functions that were created too.
fn unknown_function(name: &str, full: &str, session: &SessionState) -> Diagnostic {
    let lower = name.to_lowercase();
    if lower == "descriptor" {
        return Diagnostic::error(SqlState::Syntax, "DESCRIPTOR names one column, the event time", None)
            .help("write DESCRIPTOR(event_time), or the column alone");
    }
    let diagnostic = Diagnostic::error(SqlState::UnknownFunction, format!("no function named `{name}`"), None);
    // `TUMBLE_START(ts, …)` and `GROUP BY TUMBLE(ts, …)` of other systems.
    let window = WINDOWS.into_iter().find(|window| {
        lower
            .strip_prefix(window)
            .is_some_and(|rest| ["", "_start", "_end"].contains(&rest))
    });
    if let Some(window) = window {
        let window = window.to_uppercase();
        return diagnostic.help(format!(
            "windows stand in FROM: write FROM {window}(table, time, …), which gives window_start and window_end"
        ));
    }
    let mut names: Vec<&str> = session
        .scalar_functions()
        .keys()
        .chain(session.aggregate_functions().keys())
        .chain(session.window_functions().keys())
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names.extend(
        full.split("Did you mean '")
            .nth(1)
            .and_then(|rest| rest.split('\'').next()),
    );
    match suggest::nearest(name, names) {
        Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
        None => diagnostic,
    }
}

/// `FROM tumbl(…)`: not a table is missing, but a function.
pub fn unknown_call_in_from(name: Span, scene: &Scene<'_>) -> Option<Diagnostic> {
    let written = scene.text.get(name.start..name.end)?;
    if !scene.text[name.end..].trim_start().starts_with('(') {
        return None;
    }
    let mut names: Vec<&str> = scene.session.table_functions().keys().map(String::as_str).collect();
    names.sort_unstable();
    let message = format!("no function named `{written}` for FROM");
    let diagnostic = Diagnostic::error(SqlState::UnknownFunction, message, name);
    Some(match suggest::nearest(written, WINDOWS.into_iter().chain(names)) {
        Some(near) => diagnostic.help(format!("did you mean `{}`?", near.to_uppercase())),
        None => diagnostic.help("windows are TUMBLE, HOP, CUMULATE and SESSION"),
    })
}
