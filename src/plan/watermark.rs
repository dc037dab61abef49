//! The event time of a source: `WATERMARK FOR column AS expression`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, TimestampNanosecondArray, new_null_array},
    datatypes::{DataType, Field, Schema, TimeUnit, TimestampNanosecondType},
};
use datafusion::{
    common::{DFSchema, DataFusionError},
    logical_expr::{ExprSchemable, cast},
    physical_expr::PhysicalExpr,
    sql::sqlparser::ast,
};

use crate::{
    sql::{Diagnostic, Spanned, SqlState, Statement, WatermarkClause},
    types::type_name,
};

use super::{
    binder::Binder,
    catalog::{Catalog, Relation, WatermarkDefinition},
    columns::{is_time, unknown_column},
    mistakes::Mistakes,
};

/// Binds the clause, and makes its column NOT NULL: a row without an event time would be in no window and in no history, it is a bad
/// record. Where not all columns are known (`are_known`), one that is missing is not told.
pub fn watermark(
    clause: &WatermarkClause,
    fields: &mut [Field],
    are_known: bool,
    statement: &Statement,
    binder: &Binder<'_>,
    mistakes: &mut Mistakes,
) -> Option<WatermarkDefinition> {
    let Some(column) = fields.iter().position(|field| *field.name() == clause.column.value) else {
        if are_known {
            let names = fields.iter().map(|field| field.name().as_str());
            mistakes.push(unknown_column(&clause.column, names));
        }
        return None;
    };
    if !is_time(fields[column].data_type()) {
        let message = format!(
            "a watermark needs a TIMESTAMP column, but `{}` is {}",
            clause.column.value,
            type_name(fields[column].data_type())
        );
        let times: Vec<&str> = fields
            .iter()
            .filter(|field| is_time(field.data_type()))
            .map(|field| field.name().as_str())
            .collect();
        let mut mistake =
            Diagnostic::error(SqlState::TypeMismatch, message, clause.column.span).label("expected TIMESTAMP");
        if !times.is_empty() {
            mistake = mistake.help(format!("TIMESTAMP columns: {}", times.join(", ")));
        }
        mistakes.push(mistake);
        return None;
    }
    fields[column] = fields[column].clone().with_nullable(false);
    let schema = Schema::new(fields.to_vec());
    bound(clause, column, &schema, statement, binder)
        .map_err(|more| mistakes.extend(more))
        .ok()
}

/// Refuses to tell of a watermark where there is none.
pub fn check_has_watermark(name: &Spanned<String>, catalog: &Catalog) -> Result<(), Mistakes> {
    let (source, is_table) = match catalog.get(&name.value) {
        Some(Relation::Source(source)) => (source, false),
        Some(Relation::Table(table)) => (&table.source, true),
        Some(Relation::Materialized(view)) => (
            catalog.source(&view.source).expect("a view's source is there"),
            matches!(catalog.get(&view.source), Some(Relation::Table(_))),
        ),
        other => {
            let kind = other.map_or("side output", Relation::kind);
            let message = format!("`{}` is a {kind}, and has no watermark", name.value);
            return Err(vec![
                Diagnostic::error(SqlState::Invalid, message, name.span).help("name a source or a materialized view"),
            ]);
        }
    };
    if source.watermark.is_some() {
        return Ok(());
    }
    let times = source.schema.fields().iter().filter(|field| is_time(field.data_type()));
    let (kind, create) = match is_table {
        true => ("table", "CREATE TABLE, with APPEND ONLY behind the columns"),
        false => ("source", "CREATE SOURCE"),
    };
    let help = match times.map(|field| field.name()).next() {
        Some(time) => format!("add to {create}: WATERMARK FOR {time} AS {time} - INTERVAL '5 seconds'"),
        None => format!("add a TIMESTAMP column and WATERMARK FOR it to {create}"),
    };
    Err(vec![
        Diagnostic::error(
            SqlState::Invalid,
            format!("{kind} `{}` has no watermark", source.name),
            name.span,
        )
        .help(help),
    ])
}

/// Its expression over the schema of the source, whose event time is `column`.
fn bound(
    clause: &WatermarkClause,
    column: usize,
    schema: &Schema,
    statement: &Statement,
    binder: &Binder<'_>,
) -> Result<WatermarkDefinition, Mistakes> {
    let name = &clause.column.value;
    let df_schema = DFSchema::try_from(schema.clone()).map_err(|e| binder.mistakes(&e, statement.span, &[]))?;
    let (expression, text) = match &clause.expression {
        None => (
            datafusion::logical_expr::Expr::Column(datafusion::common::Column::from_name(name)),
            name.clone(),
        ),
        Some(written) => {
            let aliased = ast::ExprWithAlias {
                expr: written.value.clone(),
                alias: None,
            };
            let expression = binder
                .base
                .create_logical_expr_from_sql_expr(aliased, &df_schema)
                .map_err(|e| binder.mistakes(&e, written.span, &[]))?;
            (expression, written.value.to_string())
        }
    };
    let span = clause
        .expression
        .as_ref()
        .map_or(clause.column.span, |written| written.span);
    let data_type = expression
        .get_type(&df_schema)
        .map_err(|e| binder.mistakes(&e, span, &[]))?;
    if !matches!(data_type, DataType::Timestamp(..)) {
        let message = format!("a watermark is a TIMESTAMP, but this is {}", type_name(&data_type));
        return Err(vec![
            Diagnostic::error(SqlState::TypeMismatch, message, span)
                .help(format!("e.g. WATERMARK FOR {name} AS {name} - INTERVAL '5 seconds'")),
        ]);
    }
    let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let expression = if data_type == nanoseconds {
        expression
    } else {
        cast(expression, nanoseconds)
    };
    let expression = binder
        .base
        .create_physical_expr(expression, &df_schema)
        .map_err(|e| binder.mistakes(&e, span, &[]))?;
    if is_later(expression.as_ref(), column, schema) {
        let message = format!("a watermark is never later than its row, and this is later than `{name}`");
        return Err(vec![Diagnostic::error(SqlState::Invalid, message, span).help(format!(
            "say how late rows may be: WATERMARK FOR {name} AS {name} - INTERVAL '5 seconds'"
        ))]);
    }
    Ok(WatermarkDefinition {
        column,
        expression,
        text,
    })
}

/// Whether the watermark of a row is later than its event time, in column `column`, so that rows in order would be late.
///
/// Tried on a few times. Where it depends on other columns nothing is known before rows come.
fn is_later(expression: &dyn PhysicalExpr, column: usize, schema: &Schema) -> bool {
    // 1969-12-31T23:59:59.999, 1970, 2024-02-29T12:34:56.789
    let times = TimestampNanosecondArray::from(vec![-1_000_000, 0, 1_709_210_096_789_000_000]);
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    let columns = fields.iter().enumerate().map(|(index, field)| match index == column {
        true => arrow::compute::cast(&times, field.data_type()),
        false => Ok(new_null_array(field.data_type(), times.len())),
    });
    let watermarks = columns
        .collect::<Result<Vec<ArrayRef>, _>>()
        .and_then(|columns| RecordBatch::try_new(Arc::new(Schema::new(fields)), columns))
        .map_err(DataFusionError::from)
        .and_then(|rows| expression.evaluate(&rows)?.into_array(rows.num_rows()));
    // What cannot be computed here may well be with other columns.
    let Ok(watermarks) = watermarks else { return false };
    let Some(watermarks) = watermarks.as_primitive_opt::<TimestampNanosecondType>() else {
        return false;
    };
    let later = |(watermark, time): (Option<i64>, &i64)| watermark.is_some_and(|watermark| *time < watermark);
    watermarks.iter().zip(times.values()).any(later)
}
