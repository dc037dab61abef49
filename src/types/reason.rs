//! Why a value could not be computed, as a sentence.

use datafusion::common::DataFusionError;

use super::{Error, sql_types_in};

/// The words of the error's root, in lower case and without the names of the parts that it went through.
pub fn reason_of(error: &DataFusionError) -> String {
    let root = error.find_root();
    if let DataFusionError::External(cause) = root
        && let Some(Error::User(sentence)) = cause.downcast_ref::<Error>()
    {
        return sentence.clone();
    }
    let text = root.strip_backtrace();
    let mut text = text.as_str();
    let parts = [
        "Arrow error: ",
        "Execution error: ",
        "Cast error: ",
        "Parser error: ",
        "Compute error: ",
        "Arithmetic overflow: ",
        "Invalid argument error: ",
        "Error during planning: ",
    ];
    while let Some(rest) = parts.iter().find_map(|part| text.strip_prefix(part)) {
        text = rest;
    }
    if let Some(sentence) = no_such_value(text) {
        return sentence;
    }
    let text = sql_types_in(text.trim_end_matches('.'));
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        // An acronym keeps its capitals.
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        (Some(first), _) => std::iter::once(first).chain(letters).collect(),
        (None, _) => "a value could not be computed".to_owned(),
    }
}

/// What Arrow says of a text that does not stand for a value.
fn no_such_value(text: &str) -> Option<String> {
    let cast = text.strip_prefix("Cannot cast string '").and_then(|rest| {
        let (value, data_type) = rest.rsplit_once("' to value of ")?;
        Some((value, sql_types_in(data_type.strip_suffix(" type")?)))
    });
    let interval = || {
        let value = text.strip_prefix("Invalid input syntax for type interval: \"")?;
        Some((value.strip_suffix('"')?, "INTERVAL".to_owned()))
    };
    let time = || {
        let (value, _) = text
            .strip_prefix("Error parsing timestamp from '")?
            .rsplit_once("': ")?;
        Some((value, "TIMESTAMP".to_owned()))
    };
    let (value, data_type) = cast.or_else(interval).or_else(time)?;
    Some(format!("'{value}' is no {data_type}"))
}

#[cfg(test)]
mod tests {
    use arrow::error::ArrowError;

    use super::*;

    #[test]
    fn a_reason_says_nothing_of_the_parts_that_it_went_through() {
        let cast = ArrowError::CastError("Cannot cast string 'x' to value of Int64 type".into());
        let interval = ArrowError::ParseError("Invalid input syntax for type interval: \"1 minut\"".into());
        let time = ArrowError::ParseError("Error parsing timestamp from 'it's': error parsing date".into());
        for (error, expected) in [
            (DataFusionError::from(cast), "'x' is no BIGINT"),
            (DataFusionError::from(interval), "'1 minut' is no INTERVAL"),
            (DataFusionError::from(time), "'it's' is no TIMESTAMP"),
            (
                DataFusionError::Execution("Cannot compare Utf8View with Int64".into()),
                "cannot compare VARCHAR with BIGINT",
            ),
            (
                DataFusionError::External(Box::new(Error::user("1 / 0 divides by zero"))),
                "1 / 0 divides by zero",
            ),
            (
                DataFusionError::Execution("UTC is no number.".into()),
                "UTC is no number",
            ),
        ] {
            assert_eq!(reason_of(&error), expected);
        }
    }
}
