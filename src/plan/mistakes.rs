//! DataFusion's errors as diagnostics with places and suggestions.

use datafusion::{
    common::{DataFusionError, Location, SchemaError},
    sql::sqlparser::tokenizer::{Location as AstLocation, Span as AstSpan},
};

use crate::sql::{Diagnostic, Span, SqlState, suggest};

use super::function_call::WrongArgument;

/// Where a place of the syntax tree stands in the user's text.
pub type Places<'a> = &'a (dyn Fn(AstSpan) -> Option<Span> + Sync);

/// All that is wrong with a statement.
pub type Mistakes = Vec<Diagnostic>;

/// Every mistake that an error stands for. `statement` is where to point when the error names no place.
pub fn diagnostics_of(
    error: &DataFusionError,
    places: Places,
    statement: Span,
    text: &str,
    tables: &[&str],
) -> Mistakes {
    match error {
        DataFusionError::Collection(errors) => errors
            .iter()
            .flat_map(|error| diagnostics_of(error, places, statement, text, tables))
            .collect(),
        DataFusionError::Context(_, inner) => diagnostics_of(inner, places, statement, text, tables),
        _ => vec![diagnostic_of(error, places, statement, text, tables)],
    }
}

fn diagnostic_of(error: &DataFusionError, places: Places, statement: Span, text: &str, tables: &[&str]) -> Diagnostic {
    let noted = error.diagnostic();
    let span_of = |span: datafusion::common::Span| {
        let at = |location: Location| AstLocation::new(location.line, location.column);
        places(AstSpan::new(at(span.start), at(span.end)))
    };
    let span = noted.and_then(|noted| noted.span).and_then(span_of);
    let root = error.find_root();
    let mut diagnostic = match root {
        _ if let Some(wrong) = WrongArgument::of(error) => wrong.diagnostic(),
        DataFusionError::SchemaError(schema_error, _) => schema_mistake(schema_error),
        _ => {
            let message = match noted {
                Some(noted) => noted.message.clone(),
                None => root.strip_backtrace(),
            };
            plain_mistake(&clean(&message), &root.strip_backtrace(), tables)
        }
    };
    diagnostic.span = span
        .or_else(|| named_in(&diagnostic.message, statement, text))
        .or(Some(statement));
    // Of columns we say it all: the planner's notes would say it twice, and in other words.
    let is_said = matches!(root, DataFusionError::SchemaError(..));
    if let Some(noted) = noted
        && !is_said
    {
        if diagnostic.label.is_none() {
            diagnostic.label = noted
                .notes
                .first()
                .map(|note| note.message.clone())
                .filter(|note| note.len() < 60);
        }
        if diagnostic.help.is_empty() {
            diagnostic.help = noted.helps.iter().map(|help| clean(&help.message)).collect();
        }
    }
    diagnostic
}

fn schema_mistake(error: &SchemaError) -> Diagnostic {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let mut names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
            names.dedup();
            let diagnostic = Diagnostic::error(
                SqlState::UnknownColumn,
                format!("no column named `{}`", field.name),
                None,
            );
            let diagnostic = match suggest::nearest(&field.name, names.iter().copied()) {
                Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                None => diagnostic,
            };
            match names.is_empty() {
                true => diagnostic,
                false => diagnostic.help(format!("columns: {}", names.join(", "))),
            }
        }
        SchemaError::AmbiguousReference { field } => Diagnostic::error(
            SqlState::AmbiguousColumn,
            format!("`{}` could be a column of two tables", field.name),
            None,
        )
        .help(format!("write the table before it, e.g. t.{}", field.name)),
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            Diagnostic::error(SqlState::Duplicate, format!("two columns are named `{name}`"), None)
                .help("give one another name with AS")
        }
    }
}

/// `full` is the planner's whole text, which names what is near where `message` does not.
fn plain_mistake(message: &str, full: &str, tables: &[&str]) -> Diagnostic {
    let lower = message.to_lowercase();
    if let Some(name) = quoted(message).filter(|_| lower.contains("table") && lower.contains("not found")) {
        let name = name.rsplit('.').next().unwrap_or(name);
        let diagnostic = Diagnostic::error(SqlState::UnknownTable, format!("no table or view named `{name}`"), None);
        return match suggest::nearest(name, tables.iter().copied()) {
            Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
            None if tables.is_empty() => diagnostic.help("nothing is defined before this statement"),
            None => diagnostic.help(format!("there are: {}", tables.join(", "))),
        };
    }
    if lower.starts_with("invalid function") {
        let name = quoted(message).unwrap_or_default();
        let diagnostic = Diagnostic::error(SqlState::UnknownFunction, format!("no function named `{name}`"), None);
        return match full
            .split("Did you mean '")
            .nth(1)
            .and_then(|rest| rest.split('\'').next())
        {
            Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
            None => diagnostic,
        };
    }
    if lower.starts_with("projections require unique expression names") {
        // `… the expression "count(Int64(1)) AS n" at position 0 and …`
        let name = quoted(message)
            .and_then(|expression| expression.rsplit(" AS ").next())
            .unwrap_or_default();
        return Diagnostic::error(SqlState::Duplicate, format!("two columns are named `{name}`"), None)
            .help("give one another name with AS");
    }
    let state = if lower.contains("coerc") || lower.contains("type") || lower.contains("cast") {
        SqlState::TypeMismatch
    } else if lower.contains("not implemented") || lower.contains("unsupported") || lower.contains("not supported") {
        SqlState::Unsupported
    } else {
        SqlState::Invalid
    };
    Diagnostic::error(state, message, None)
}

/// One sentence that starts in lower case, without the names of our parts.
fn clean(message: &str) -> String {
    let mut text = message.trim();
    for prefix in [
        "Error during planning: ",
        "This feature is not implemented: ",
        "Execution error: ",
        "Schema error: ",
        "SQL error: ",
        "Invalid or Unsupported Configuration: ",
        "type_coercion\ncaused by\n",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    let text = text
        .split("\n\nbacktrace")
        .next()
        .unwrap_or(text)
        .replace('\n', " ")
        .replace("zeta.public.", "");
    let text = text.trim_end_matches('.').to_owned();
    // An acronym keeps its capitals.
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text,
    }
}

fn quoted(message: &str) -> Option<&str> {
    ['\'', '`', '"']
        .into_iter()
        .find_map(|quote| message.split(quote).nth(1))
}

/// The place in the statement of the first name that the message quotes.
fn named_in(message: &str, statement: Span, text: &str) -> Option<Span> {
    let name = quoted(message).filter(|name| !name.is_empty())?;
    let own = text.get(statement.start..statement.end)?;
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    own.match_indices(name).map(|(at, _)| at).find_map(|at| {
        let before = own[..at].chars().next_back();
        let after = own[at + name.len()..].chars().next();
        let alone = before.is_none_or(|c| !is_word(c)) && after.is_none_or(|c| !is_word(c));
        alone.then(|| Span::new(statement.start + at, statement.start + at + name.len()))
    })
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::{
        super::session::{base_session, session_over},
        *,
    };

    #[tokio::test]
    async fn what_is_said_of_a_column_is_said_once() {
        let session = session_over(&base_session(Default::default()), Default::default());
        for (text, help) in [
            (
                "SELECT symbl FROM (SELECT 1 AS symbol) AS t",
                vec!["did you mean `symbol`?", "columns: symbol"],
            ),
            (
                "SELECT symbol FROM (SELECT 1 AS symbol) AS a, (SELECT 1 AS symbol) AS b",
                vec!["write the table before it, e.g. t.symbol"],
            ),
        ] {
            let statement = DFParser::parse_sql(text).unwrap().pop_front().expect("one statement");
            let error = datafusion_entry::logical_plan(&session, statement)
                .await
                .expect_err("it is wrong");
            let noted = error.diagnostic().expect("the planner says something too");
            assert!(
                noted.notes.iter().any(|note| note.message.contains("possible column")),
                "else there is nothing to leave out of {noted:?}"
            );
            let found = diagnostics_of(&error, &|_| None, Span::new(0, text.len()), text, &[]);
            let [mistake] = found.as_slice() else {
                panic!("{found:?}")
            };
            assert_eq!(mistake.label, None, "{text}");
            assert_eq!(mistake.help, help, "{text}");
        }
    }
}
