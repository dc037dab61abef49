//! What SQL calls the types of columns, in mistakes, DESCRIBE and the API alike.

use arrow::datatypes::DataType;

/// The SQL name of a type, or Arrow's own where SQL has none.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INTEGER".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::UInt8 => "TINYINT UNSIGNED".into(),
        DataType::UInt16 => "SMALLINT UNSIGNED".into(),
        DataType::UInt32 => "INTEGER UNSIGNED".into(),
        DataType::UInt64 => "BIGINT UNSIGNED".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR".into(),
        // Times are UTC here, whether or not the type says so.
        DataType::Timestamp(..) => "TIMESTAMP".into(),
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Dictionary(_, values) => type_name(values),
        other => other.to_string(),
    }
}

/// A sentence in which types of values have the names that SQL gives them: `Int64` is `BIGINT`. What stands in quotes stays.
pub fn sql_types_in(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    let mut open_quote = None;
    while let Some(first) = rest.chars().next() {
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        if end == 0 {
            // `isn't`
            let is_inside_word =
                told.ends_with(char::is_alphanumeric) && rest[first.len_utf8()..].starts_with(char::is_alphanumeric);
            open_quote = match open_quote {
                None if first == '\'' && is_inside_word => None,
                None if matches!(first, '\'' | '`' | '"') => Some(first),
                Some(quote) if quote == first => None,
                open => open,
            };
            told.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, behind) = rest.split_at(end);
        // `Timestamp(ns, "UTC")`, `Decimal128(10, 2)`
        let arguments = behind
            .strip_prefix('(')
            .and_then(|behind| behind.split_once(')'))
            .map(|(arguments, _)| arguments);
        match (sql_word(word), arguments) {
            (Some(name), Some(arguments)) if open_quote.is_none() && takes_arguments(word) => {
                told.push_str(name);
                if word.starts_with("Decimal") {
                    told.push_str(&format!("({arguments})"));
                }
                rest = &behind[arguments.len() + 2..];
            }
            (Some(name), _) if open_quote.is_none() => {
                told.push_str(name);
                rest = behind;
            }
            _ => {
                told.push_str(word);
                rest = behind;
            }
        }
    }
    told
}

fn takes_arguments(word: &str) -> bool {
    ["Timestamp", "Time32", "Time64", "Interval", "Duration", "Decimal"]
        .iter()
        .any(|name| word.starts_with(name))
}

/// The name of a type that Arrow calls so.
fn sql_word(word: &str) -> Option<&'static str> {
    Some(match word {
        "Boolean" => "BOOLEAN",
        "Int8" => "TINYINT",
        "Int16" => "SMALLINT",
        "Int32" => "INTEGER",
        "Int64" => "BIGINT",
        "UInt8" => "TINYINT UNSIGNED",
        "UInt16" => "SMALLINT UNSIGNED",
        "UInt32" => "INTEGER UNSIGNED",
        "UInt64" => "BIGINT UNSIGNED",
        "Float16" | "Float32" => "REAL",
        "Float64" => "DOUBLE",
        "Utf8" | "LargeUtf8" | "Utf8View" => "VARCHAR",
        "Timestamp" => "TIMESTAMP",
        "Date32" | "Date64" => "DATE",
        "Time32" | "Time64" => "TIME",
        "Interval" | "Duration" => "INTERVAL",
        "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => "DECIMAL",
        "Binary" | "LargeBinary" | "BinaryView" => "BINARY",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn a_sentence_names_types_as_sql_does() {
        for (text, expected, why) in [
            ("", "", "nothing is said"),
            ("Utf8View and Int64", "VARCHAR and BIGINT", "plain names"),
            (
                "from Timestamp(ns, \"+TZ\") on",
                "from TIMESTAMP on",
                "units and zones are left out",
            ),
            ("Decimal128(10, 2)(", "DECIMAL(10, 2)(", "precision and scale are not"),
            (
                "Interval(MonthDayNano)), Interval",
                "INTERVAL), INTERVAL",
                "with and without its kind",
            ),
            (
                "column 'Int64' of Int32",
                "column 'Int64' of INTEGER",
                "a name of the user stays",
            ),
            (
                "MyInt64 größer Int64x",
                "MyInt64 größer Int64x",
                "parts of words are none",
            ),
            (
                "it isn't Int64, or 'Int64'",
                "it isn't BIGINT, or 'Int64'",
                "an apostrophe quotes nothing",
            ),
            ("Timestamp(", "TIMESTAMP(", "what is not closed stays"),
        ] {
            assert_eq!(sql_types_in(text), expected, "{why}");
        }
    }

    #[test]
    fn types_have_the_names_that_sql_gives_them() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        for (data_type, expected) in [
            (DataType::Utf8View, "VARCHAR"),
            (dictionary, "VARCHAR"),
            (DataType::Int64, "BIGINT"),
            (DataType::Int32, "INTEGER"),
            (DataType::Int16, "SMALLINT"),
            (DataType::UInt32, "INTEGER UNSIGNED"),
            (DataType::Float32, "REAL"),
            (DataType::Float64, "DOUBLE"),
            (
                DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
                "TIMESTAMP",
            ),
            (DataType::Boolean, "BOOLEAN"),
            (DataType::Decimal128(18, 4), "DECIMAL(18, 4)"),
            (DataType::Date32, "DATE"),
            (DataType::Binary, "Binary"),
        ] {
            assert_eq!(type_name(&data_type), expected);
        }
    }
}
