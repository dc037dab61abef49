//! Which columns take ever more values as time goes on: groups by them become more for ever where nothing closes them.
//!
//! ```text
//! event time, window bounds ─▶ expressions, windows, unions, grouping sets ─▶ grows, until an expression has only so many values
//! ```

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        Column, DFSchemaRef,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, ExprSchemable},
};

/// Parts of a time that come again.
const PARTS_THAT_RETURN: [&str; 11] = [
    "second", "minute", "hour", "day", "dow", "isodow", "doy", "week", "month", "quarter", "qtr",
];

/// Codes of `to_char` for such parts, and the percent sign itself.
const CODES_THAT_RETURN: &str = "aAbBdehHIjklmMpPrRSTuUVwWX%";

/// The column that makes an expression take ever more values; `grows` says it of each column of `input`.
pub(super) fn growing<'a>(expr: &'a Expr, input: &DFSchemaRef, grows: &[bool]) -> Option<&'a Column> {
    let data_type = expr.get_type(input.as_ref());
    if data_type.is_ok_and(|data_type| data_type == DataType::Boolean) {
        return None;
    }
    match expr {
        Expr::Column(column) => {
            let index = input.index_of_column(column);
            index.is_ok_and(|index| grows[index]).then_some(column)
        }
        Expr::ScalarFunction(function) if returns(function.name(), &function.args, input) => None,
        // Its conditions only choose.
        Expr::Case(case) => {
            let values = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            values.into_iter().find_map(|value| growing(value, input, grows))
        }
        other => {
            let mut found = None;
            let looked = other.apply_children(|part| {
                found = growing(part, input, grows);
                Ok(match found {
                    Some(_) => TreeNodeRecursion::Stop,
                    None => TreeNodeRecursion::Continue,
                })
            });
            looked.expect("looking at an expression cannot fail");
            found
        }
    }
}

/// Whether a function of a time has the same values again and again.
fn returns(function: &str, arguments: &[Expr], input: &DFSchemaRef) -> bool {
    let is_moment = |expr: &Expr| {
        // The days of an interval, say since a fixed time, go on and on.
        let data_type = expr.get_type(input.as_ref());
        data_type.is_ok_and(|data_type| {
            matches!(
                data_type,
                DataType::Timestamp(..)
                    | DataType::Date32
                    | DataType::Date64
                    | DataType::Time32(_)
                    | DataType::Time64(_)
            )
        })
    };
    match (function, arguments) {
        ("date_part", [Expr::Literal(part, _), time]) => {
            let part = part.try_as_str().flatten().unwrap_or_default();
            let part = part.trim_matches(['\'', '"']).to_ascii_lowercase();
            let singular = part.strip_suffix('s').unwrap_or(&part);
            is_moment(time) && PARTS_THAT_RETURN.contains(&singular)
        }
        ("to_char", [time, Expr::Literal(format, _)]) => {
            let format = format.try_as_str().flatten();
            is_moment(time) && format.is_some_and(format_returns)
        }
        _ => false,
    }
}

/// Whether a format of `to_char` leaves out all that tells one week, month or year from another.
fn format_returns(format: &str) -> bool {
    let mut chars = format.chars();
    while chars.by_ref().any(|c| c == '%') {
        if !chars.next().is_some_and(|code| CODES_THAT_RETURN.contains(code)) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_returns_where_no_code_tells_the_year() {
        for (format, expected, why) in [
            ("%H:%M", true, "1440 of them"),
            ("", true, "one"),
            ("100%%Y", true, "a percent sign and a letter"),
            ("%Y-%m", false, "a month of a year"),
            ("%s", false, "seconds since 1970"),
            ("%H %F", false, "the last code counts too"),
            ("%", false, "no code at all"),
            ("%-d", false, "what is not known may be anything"),
        ] {
            assert_eq!(format_returns(format), expected, "{format}: {why}");
        }
    }
}
