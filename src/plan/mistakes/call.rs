//! A call whose arguments do not fit: what was given, and what the function takes.

use crate::{
    sql::{Diagnostic, SqlState},
    types::sql_types_in,
};

/// How many ways to call a function are listed.
const WAYS_MAX: usize = 4;

/// The mistake that the planner tells of as `… the given name and argument types 'sum(Utf8View)'. … Candidate functions:\n\tsum(Int64)`.
pub fn wrong_arguments(message: &str) -> Option<Diagnostic> {
    let (_, given) = message.split_once("given name and argument types '")?;
    let (given, candidates) = given.split_once("'. ")?;
    let (name, given) = given.strip_suffix(')')?.split_once('(')?;
    let given: Vec<String> = parts(given).into_iter().map(sql_types_in).collect();
    let what = match given.as_slice() {
        [] => format!("`{name}` needs arguments"),
        [only] => format!("`{name}` does not take {only}"),
        all => format!("`{name}` does not take ({})", all.join(", ")),
    };
    let mistake = Diagnostic::error(SqlState::TypeMismatch, what, None);
    let mut ways: Vec<String> = Vec::new();
    let listed = candidates
        .split_once("Candidate functions:")
        .map_or("", |(_, listed)| listed);
    for candidate in listed.lines().map(str::trim).filter(|line| line.starts_with(name)) {
        let way = candidate
            .strip_prefix(name)
            .and_then(|arguments| arguments.strip_prefix('(')?.strip_suffix(')'))
            .and_then(|arguments| parts(arguments).into_iter().map(parameter).collect::<Option<Vec<_>>>());
        if let Some(way) = way.map(|way| format!("{name}({})", way.join(", ")))
            && !ways.contains(&way)
        {
            ways.push(way);
        }
    }
    let more = if WAYS_MAX < ways.len() { ", …" } else { "" };
    ways.truncate(WAYS_MAX);
    Some(match ways.is_empty() {
        true => mistake,
        false => mistake.help(format!("it is called as {}{more}", ways.join(", "))),
    })
}

/// `start_pos: Int64`, `Float64/Float32`, `Any`; `None` where nothing is said.
fn parameter(text: &str) -> Option<String> {
    let (name, data_type) = match text.split_once(": ") {
        Some((name, data_type)) => (Some(name), data_type),
        None => (None, text),
    };
    let data_type = match data_type.split('/').next().unwrap_or(data_type) {
        "UserDefined" | "..." | "VariadicAny" => return None,
        "Any" => "any value".to_owned(),
        "String" => "VARCHAR".to_owned(),
        // Of integers of all kinds one is told.
        "Integer" | "UInt64" => "BIGINT".to_owned(),
        "Float" => "DOUBLE".to_owned(),
        "Numeric" => "a number".to_owned(),
        "Decimal" => "DECIMAL".to_owned(),
        "Timestamp" => "TIMESTAMP".to_owned(),
        other => sql_types_in(other),
    };
    Some(match name {
        Some(name) => format!("{name} {data_type}"),
        None => data_type,
    })
}

/// Cut at commas outside of brackets.
fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0usize;
    let is_border = |c: char| {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    text.split(is_border)
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_fits_nothing_says_what_was_given_and_what_is_taken() {
        let message = |given: &str, candidates: &str| {
            format!(
                "Internal error: … bug in DataFusion's code. No function matches the given name and argument types '{given}'. \
                 You might need to add explicit type casts.\n\tCandidate functions:{candidates}"
            )
        };
        for (given, candidates, expected, help) in [
            (
                "sum(Utf8View)",
                "\n\tsum(Decimal)\n\tsum(UInt64)\n\tsum(Int64)\n\tsum(Interval)",
                "`sum` does not take VARCHAR",
                "it is called as sum(DECIMAL), sum(BIGINT), sum(INTERVAL)",
            ),
            (
                "substr(Utf8, Interval(MonthDayNano))",
                "\n\tsubstr(str: String, start_pos: Int64)",
                "`substr` does not take (VARCHAR, INTERVAL)",
                "it is called as substr(str VARCHAR, start_pos BIGINT)",
            ),
            (
                "coalesce()",
                "\n\tcoalesce(UserDefined)",
                "`coalesce` needs arguments",
                "",
            ),
            (
                "f(Date32)",
                "\n\tf(Int8)\n\tf(Int16)\n\tf(Int32)\n\tf(Int64)\n\tf(Float64)",
                "`f` does not take DATE",
                "it is called as f(TINYINT), f(SMALLINT), f(INTEGER), f(BIGINT), …",
            ),
        ] {
            let mistake = wrong_arguments(&message(given, candidates)).expect("it is one");
            assert_eq!(mistake.message, expected);
            assert_eq!(mistake.help.join("; "), help);
        }
        assert_eq!(wrong_arguments("no column named x"), None);
    }
}
