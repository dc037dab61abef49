//! DataFusion's errors as diagnostics with places and suggestions.

mod call;
mod name;

use datafusion::{
    common::{DataFusionError, Diagnostic as Noted, Location, SchemaError},
    execution::context::SessionState,
    sql::sqlparser::tokenizer::{Location as AstLocation, Span as AstSpan},
};

use crate::{
    sql::{Diagnostic, Span, SqlState},
    types::{reason_of, sql_types_in},
};

use super::function_call::WrongArgument;

use call::wrong_arguments;
use name::{unknown_call_in_from, unknown_column, unknown_name};

/// Where a place of the syntax tree stands in the user's text.
pub type Places<'a> = &'a (dyn Fn(AstSpan) -> Option<Span> + Sync);

/// All that is wrong with a statement.
pub type Mistakes = Vec<Diagnostic>;

/// What a mistake can name and point at.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    pub places: Places<'a>,
    /// Where to point when the error names no place.
    pub statement: Span,
    /// The whole text that the statement stands in.
    pub text: &'a str,
    pub tables: &'a [&'a str],
    /// Whose functions there are.
    pub session: &'a SessionState,
}

/// Every mistake that an error stands for.
pub fn diagnostics_of(error: &DataFusionError, scene: &Scene<'_>) -> Mistakes {
    match error {
        DataFusionError::Collection(errors) => errors.iter().flat_map(|error| diagnostics_of(error, scene)).collect(),
        DataFusionError::Context(_, inner) => diagnostics_of(inner, scene),
        _ => vec![diagnostic_of(error, scene)],
    }
}

fn diagnostic_of(error: &DataFusionError, scene: &Scene<'_>) -> Diagnostic {
    let noted = error.diagnostic();
    let root = error.find_root();
    let full = root.strip_backtrace();
    let said = noted.map_or(full.as_str(), |noted| noted.message.as_str());
    let mut diagnostic = match root {
        _ if let Some(wrong) = WrongArgument::of(error) => wrong.diagnostic(),
        DataFusionError::SchemaError(schema_error, _) => schema_mistake(schema_error, scene),
        DataFusionError::ArrowError(..) => value_mistake(reason_of(error)),
        _ => None
            .or_else(|| wrong_arguments(said).or_else(|| wrong_arguments(&full)))
            .or_else(|| unknown_name(said, &full, scene))
            .or_else(|| reworded(said, noted))
            .unwrap_or_else(|| as_said(said, noted)),
    };
    diagnostic.span = noted
        .and_then(|noted| place_of(noted, scene))
        .or_else(|| named_in(&diagnostic.message, scene))
        .or(Some(scene.statement));
    if let (SqlState::UnknownTable, Some(span)) = (diagnostic.code, diagnostic.span)
        && let Some(unknown) = unknown_call_in_from(span, scene)
    {
        diagnostic = unknown;
    }
    diagnostic
}

/// Where the planner points, or where the first of its notes does.
fn place_of(noted: &Noted, scene: &Scene<'_>) -> Option<Span> {
    let at = |location: Location| AstLocation::new(location.line, location.column);
    let notes = noted.notes.iter().filter_map(|note| note.span);
    let mut spans = noted.span.into_iter().chain(notes);
    spans.find_map(|span| (scene.places)(AstSpan::new(at(span.start), at(span.end))))
}

fn schema_mistake(error: &SchemaError, scene: &Scene<'_>) -> Diagnostic {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => unknown_column(field, valid_fields, scene),
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

/// A text that does not stand for a value of the type that is wanted, and other refusals to compute constants.
fn value_mistake(reason: String) -> Diagnostic {
    let help = match () {
        () if reason.ends_with(" is no INTERVAL") => Some("e.g. INTERVAL '5 minutes'"),
        () if reason.ends_with(" is no TIMESTAMP") => Some("e.g. '2024-01-02T03:04:05'"),
        () => None,
    };
    let diagnostic = Diagnostic::error(SqlState::TypeMismatch, reason, None);
    match help {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

/// What the planner says in words for those who made it, in ours.
fn reworded(said: &str, noted: Option<&Noted>) -> Option<Diagnostic> {
    let message = clean(said);
    let plain = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    if message.starts_with("projections require unique expression names") {
        // `… the expression "count(Int64(1)) AS n" at position 0 and …`
        let name = quoted(&message)?.rsplit(" AS ").next()?;
        return Some(
            Diagnostic::error(SqlState::Duplicate, format!("two columns are named `{name}`"), None)
                .help("give one another name with AS"),
        );
    }
    if message.contains("must appear in GROUP BY") {
        let name = plain(quoted(&message)?);
        return Some(
            Diagnostic::error(
                SqlState::Invalid,
                format!("`{name}` stands neither in GROUP BY nor in an aggregate"),
                None,
            )
            .help(format!(
                "add it to GROUP BY, or say which one of the group: max({name})"
            )),
        );
    }
    if message == "expressions have incompatible types"
        && let [one, other] = noted?.notes.as_slice()
    {
        let of = |note: &str| sql_types_in(note.strip_prefix("has type ").unwrap_or(note));
        let message = format!("{} and {} do not go together", of(&one.message), of(&other.message));
        return Some(
            Diagnostic::error(SqlState::TypeMismatch, message, None).help("make them alike with CAST(… AS …)"),
        );
    }
    if let Some((name, data_type)) = message
        .strip_prefix("cannot create filter with non-boolean predicate '")
        .and_then(|rest| rest.split_once("' returning "))
    {
        let message = format!("a condition is true or false, but `{}` is {data_type}", plain(name));
        return Some(Diagnostic::error(SqlState::TypeMismatch, message, None).help("compare it, e.g. with <> 0"));
    }
    if message.starts_with("UNION queries have different number of columns") {
        let message = "both sides of UNION have the same number of columns";
        return Some(Diagnostic::error(SqlState::Invalid, message, None).help("put NULL where one side has no value"));
    }
    if let Some(name) = message.strip_prefix("unsupported SQL type ") {
        return Some(Diagnostic::error(
            SqlState::Unsupported,
            format!("there is no type `{name}`"),
            None,
        ));
    }
    None
}

/// The planner's own words: the first sentence is the mistake, what follows it says what to do.
fn as_said(said: &str, noted: Option<&Noted>) -> Diagnostic {
    let message = clean(said);
    let (message, advice) = match message.split_once(['.', '!']) {
        Some((message, advice)) if advice.starts_with(' ') && advice.trim().starts_with(char::is_uppercase) => {
            (message, Some(lower_first(advice.trim())))
        }
        _ => (message.as_str(), None),
    };
    let lower = message.to_lowercase();
    let state = if lower.contains("coerc") || lower.contains("type") || lower.contains("cast") {
        SqlState::TypeMismatch
    } else if lower.contains("not implemented") || lower.contains("unsupported") || lower.contains("not supported") {
        SqlState::Unsupported
    } else {
        SqlState::Invalid
    };
    let mut diagnostic = Diagnostic::error(state, message.trim_end_matches(['.', '!']), None);
    diagnostic.label = noted
        .and_then(|noted| noted.notes.first())
        .map(|note| sql_types_in(&note.message))
        .filter(|note| note.len() < 60);
    diagnostic.help = noted
        .into_iter()
        .flat_map(|noted| &noted.helps)
        .map(|help| clean(&help.message))
        .collect();
    if diagnostic.help.is_empty() {
        diagnostic.help.extend(advice);
    }
    diagnostic
}

/// One sentence that starts in lower case, without the names of our parts, and with types as SQL calls them.
fn clean(message: &str) -> String {
    let mut text = message.trim();
    for prefix in [
        "Internal error: ",
        "Error during planning: ",
        "This feature is not implemented: ",
        "Execution error: ",
        "Schema error: ",
        "SQL error: ",
        "Invalid or Unsupported Configuration: ",
        "type_coercion\ncaused by\n",
        "Error during planning: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    // To whom a bug is to be reported is not for those who wrote the query.
    for end in ["\n\nbacktrace", "This issue was likely caused by a bug"] {
        text = text.split(end).next().unwrap_or(text);
    }
    let text = text.trim().replace('\n', " ").replace("zeta.public.", "");
    lower_first(&sql_types_in(text.trim_end_matches(['.', '!'])))
}

/// An acronym keeps its capitals.
fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

fn quoted(message: &str) -> Option<&str> {
    ['\'', '`', '"']
        .into_iter()
        .find_map(|quote| message.split(quote).nth(1))
}

/// The place in the statement of the first name that the message quotes.
fn named_in(message: &str, scene: &Scene<'_>) -> Option<Span> {
    let name = quoted(message).filter(|name| !name.is_empty())?;
    let own = scene.text.get(scene.statement.start..scene.statement.end)?;
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let (at, before, after) = own.match_indices(name).find_map(|(at, _)| {
        let before = own[..at].chars().next_back();
        let after = own[at + name.len()..].chars().next();
        let alone = before.is_none_or(|c| !is_word(c)) && after.is_none_or(|c| !is_word(c));
        alone.then_some((at, before, after))
    })?;
    let quotes = usize::from(before == Some('\'') && after == Some('\''));
    let start = scene.statement.start + at;
    Some(Span::new(start - quotes, start + name.len() + quotes))
}

#[cfg(test)]
mod tests {
    use datafusion::{optimizer::Analyzer, sql::parser::DFParser};

    use super::{
        super::session::{base_session, session_over},
        *,
    };

    fn scene<'a>(text: &'a str, session: &'a SessionState) -> Scene<'a> {
        Scene {
            places: &|_| None,
            statement: Span::new(0, text.len()),
            text,
            tables: &[],
            session,
        }
    }

    #[tokio::test]
    async fn no_mistake_is_told_in_words_of_the_planner() {
        let session = session_over(&base_session(Default::default()), Default::default());
        let from = "FROM (SELECT 'a' AS symbol, 1 AS volume, 1.5 AS price) AS sums";
        for (select, expected, place, help) in [
            (
                "sum(symbol)",
                "`sum` does not take VARCHAR",
                "sum",
                "it is called as sum(DECIMAL), sum(BIGINT), sum(DOUBLE), sum(INTERVAL)",
            ),
            (
                "substr(symbol, 'x')",
                "`substr` does not take (VARCHAR, VARCHAR)",
                "substr",
                "it is called as substr(str VARCHAR, start_pos BIGINT), substr(str VARCHAR, start_pos BIGINT, length BIGINT)",
            ),
            (
                "date_bin(INTERVAL '1 minute', price)",
                "`date_bin` does not take (INTERVAL, DOUBLE)",
                "date_bin",
                "it is called as date_bin(INTERVAL, TIMESTAMP, TIMESTAMP), date_bin(INTERVAL, TIMESTAMP), date_bin(INTERVAL, TIME, TIME), date_bin(INTERVAL, TIME)",
            ),
            ("min(volume, 2)", "`min` does not take (BIGINT, BIGINT)", "min", ""),
            (
                "now() - INTERVAL '1 minut'",
                "'1 minut' is no INTERVAL",
                "'1 minut'",
                "e.g. INTERVAL '5 minutes'",
            ),
            (
                "cuont(*)",
                "no function named `cuont`",
                "cuont",
                "did you mean `count`?",
            ),
            (
                "row_numbr() OVER ()",
                "no function named `row_numbr`",
                "row_numbr",
                "did you mean `row_number`?",
            ),
            (
                "nothing_like_it(volume)",
                "no function named `nothing_like_it`",
                "nothing_like_it",
                "",
            ),
            (
                "tumble_start(volume)",
                "no function named `tumble_start`",
                "tumble_start",
                "windows stand in FROM: write FROM TUMBLE(table, time, …), which gives window_start and window_end",
            ),
            (
                "x.symbol",
                "`x` is no table of this query",
                "x",
                "did you mean `sums.symbol`?",
            ),
            ("x.nothing", "`x` is no table of this query", "x", "its tables: sums"),
            (
                "sums.symbl",
                "no column named `symbl`",
                "symbl",
                "did you mean `symbol`?; columns: symbol, volume, price",
            ),
            (
                "symbol, count(*)",
                "`symbol` stands neither in GROUP BY nor in an aggregate",
                "symbol",
                "add it to GROUP BY, or say which one of the group: max(symbol)",
            ),
            (
                "volume + INTERVAL '1 day'",
                "cannot automatically convert BIGINT to INTERVAL",
                "",
                "",
            ),
            (
                "volume AND true",
                "BIGINT and BOOLEAN do not go together",
                "",
                "make them alike with CAST(… AS …)",
            ),
            ("CAST(symbol AS NOTYPE)", "there is no type `NOTYPE`", "NOTYPE", ""),
        ] {
            let text = format!("SELECT {select} {from}");
            let statement = DFParser::parse_sql(&text).unwrap().pop_front().expect("one statement");
            let wrong = match datafusion_entry::logical_plan(&session, statement).await {
                Ok(plan) => Analyzer::new()
                    .execute_and_check(plan, session.config_options(), |_, _| {})
                    .expect_err("it is wrong"),
                Err(error) => error,
            };
            let found = diagnostics_of(&wrong, &scene(&text, &session));
            let [mistake] = found.as_slice() else {
                panic!("{found:?}")
            };
            assert_eq!(mistake.message, expected, "{select}");
            assert_eq!(mistake.help.join("; "), help, "{select}");
            let at = mistake.span.map(|span| &text[span.start..span.end]);
            assert_eq!(
                at,
                Some(if place.is_empty() { text.as_str() } else { place }),
                "{select}"
            );
        }
    }

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
            let found = diagnostics_of(&error, &scene(text, &session));
            let [mistake] = found.as_slice() else {
                panic!("{found:?}")
            };
            assert_eq!(mistake.label, None, "{text}");
            assert_eq!(mistake.help, help, "{text}");
        }
    }
}
