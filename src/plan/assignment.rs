//! What INSERT and UPDATE may write into a column: checked by type when a statement is bound, by value when it runs.
//!
//! ```text
//! text ─▶ any column ◀─ null         numbers ─▶ numbers, text      times ─▶ times, text      booleans ─▶ booleans, text
//! ```
//! Nothing else is meant by itself: a number is no time and no truth.

use arrow::{compute::can_cast_types, datatypes::DataType};
use datafusion::{
    common::{ScalarValue, tree_node::TreeNode, tree_node::TreeNodeRecursion},
    logical_expr::{Expr, LogicalPlan},
};

use crate::{
    sql::{Diagnostic, Insert, Span, SqlState, Update},
    types::type_name,
};

use super::{
    binder::Binder,
    catalog::{Catalog, Relation, TableDefinition},
    mistakes::Mistakes,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Text,
    Boolean,
    Number,
    Time,
    Other,
}

/// Whether values of a type may be written into a column. One of them may still not fit.
pub fn takes(column: &DataType, given: &DataType) -> bool {
    match (kind_of(column), kind_of(given)) {
        (_, Kind::Null) => true,
        (Kind::Text, _) | (_, Kind::Text) => can_cast_types(given, column),
        (column_kind, given_kind) => column_kind == given_kind && can_cast_types(given, column),
    }
}

fn kind_of(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Null => Kind::Null,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
        DataType::Boolean => Kind::Boolean,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => Kind::Time,
        DataType::Dictionary(_, values) => kind_of(values),
        number if number.is_numeric() => Kind::Number,
        _ => Kind::Other,
    }
}

impl Binder<'_> {
    /// The rows of INSERT must be of types that their columns take.
    pub(super) fn check_inserted(
        &self,
        insert: &Insert,
        rows: &LogicalPlan,
        catalog: &Catalog,
    ) -> Result<(), Mistakes> {
        let (schema, declared) = match catalog.get(&insert.table.value) {
            Some(Relation::Table(table)) => (table.schema(), table.schema().fields().len()),
            Some(Relation::Source(source)) => (&source.schema, source.declared),
            _ => return Ok(()),
        };
        let mut mistakes = too_large(rows, insert.table.span);
        for (index, given) in rows.schema().fields().iter().enumerate() {
            // Columns that are not there, or too few of them, are told when their number is known.
            let (field, span) = match insert.columns.get(index) {
                Some(column) => (schema.field_with_name(&column.value).ok(), column.span),
                None if insert.columns.is_empty() && index < declared => (Some(schema.field(index)), insert.table.span),
                None => (None, insert.table.span),
            };
            if let Some(field) = field {
                mistakes.extend(mismatch(field, given.data_type(), span));
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    /// The new values of UPDATE, which stand behind the columns of the table, must be of types that their columns take.
    pub(super) fn check_updated(
        &self,
        table: &TableDefinition,
        columns: &[usize],
        rows: &LogicalPlan,
        update: &Update,
    ) -> Result<(), Mistakes> {
        let width = table.schema().fields().len();
        let mut mistakes = too_large(rows, update.table.span);
        for (index, column) in columns.iter().enumerate() {
            let given = rows.schema().field(width + index).data_type();
            mistakes.extend(mismatch(
                table.schema().field(*column),
                given,
                update.columns[index].span,
            ));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }
}

fn mismatch(field: &arrow::datatypes::Field, given: &DataType, span: Span) -> Option<Diagnostic> {
    if takes(field.data_type(), given) {
        return None;
    }
    let message = format!(
        "`{}` is {}, and the new value is {}",
        field.name(),
        type_name(field.data_type()),
        type_name(given)
    );
    let help = match (kind_of(field.data_type()), kind_of(given)) {
        (Kind::Time, Kind::Number) => "write '2024-01-31 12:00:00', or to_timestamp_seconds(…) and the like",
        (Kind::Boolean, Kind::Number) => "write TRUE or FALSE, or a comparison",
        _ => "CAST it",
    };
    Some(Diagnostic::error(SqlState::TypeMismatch, message, span).help(help))
}

/// Numbers that were written with more than a DOUBLE holds: they were read as infinite.
fn too_large(rows: &LogicalPlan, span: Span) -> Mistakes {
    let mut is_too_large = false;
    let mut look = |expr: &Expr| {
        expr.apply(|part| {
            is_too_large |=
                matches!(part, Expr::Literal(ScalarValue::Float64(Some(number)), _) if number.is_infinite());
            Ok(TreeNodeRecursion::Continue)
        })
    };
    rows.apply_with_subqueries(|node| node.apply_expressions(&mut look))
        .expect("looking does not fail");
    if !is_too_large {
        return Vec::new();
    }
    vec![
        Diagnostic::error(SqlState::Invalid, "a number in it is beyond DOUBLE", span)
            .help("the largest is about 1.8e308; 'Infinity' as text is infinite"),
    ]
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn a_column_takes_its_kind_text_and_null() {
        let (timestamp, date) = (DataType::Timestamp(TimeUnit::Nanosecond, None), DataType::Date32);
        for (column, given, expected, why) in [
            (&DataType::Int8, &DataType::Float64, true, "1.0 is an integer"),
            (&DataType::Decimal128(5, 2), &DataType::Float64, true, "1.5 fits"),
            (&timestamp, &date, true, "its midnight"),
            (&date, &timestamp, true, "a midnight"),
            (&timestamp, &DataType::Utf8, true, "it is read"),
            (&DataType::Utf8View, &timestamp, true, "anything has a text"),
            (&DataType::Boolean, &DataType::Null, true, "null is of any type"),
            (&timestamp, &DataType::Int64, false, "of which unit, since when?"),
            (&DataType::Boolean, &DataType::Int64, false, "2 is not true"),
            (&DataType::Int64, &DataType::Boolean, false, "nor is true 1"),
            (&DataType::Int64, &timestamp, false, "of which unit?"),
            (
                &timestamp,
                &DataType::Time64(TimeUnit::Nanosecond),
                false,
                "of which day?",
            ),
            (
                &DataType::Float64,
                &DataType::Duration(TimeUnit::Second),
                false,
                "of which unit?",
            ),
        ] {
            assert_eq!(takes(column, given), expected, "{column} <- {given}: {why}");
        }
    }
}
