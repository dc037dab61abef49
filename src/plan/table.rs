//! CREATE TABLE, and what UPDATE and DELETE change of one.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::Schema;
use datafusion::{
    datasource::provider_as_source,
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
};

use crate::{
    format::changes,
    sql::{CreateTable, Delete, Diagnostic, Emit, SqlState, Statement, Update},
    types::{Options, type_name},
};

use super::{
    binder::{Binder, Bound, Write},
    catalog::{Catalog, MaterializedDefinition, Relation, SourceDefinition, TableDefinition, Trigger},
    columns::{self, unknown_column},
    mistakes::Mistakes,
    options::no_options,
    session::StreamRelation,
    stream::StreamPlan,
    watermark::watermark,
};

/// The connector of what was written to a table.
pub const TABLE_CONNECTOR: &str = "table";

impl Binder<'_> {
    pub(super) fn create_table(
        &self,
        create: &CreateTable,
        statement: &Statement,
        catalog: &mut Catalog,
    ) -> Result<Bound, Mistakes> {
        let mut mistakes = Vec::new();
        if let Some(done) = self.taken(&create.name, create.if_not_exists, catalog, &mut mistakes) {
            return done;
        }
        no_options(&create.options, &mut mistakes);
        let (mut fields, are_known) = columns::declared(&create.columns, &mut mistakes);
        if fields.is_empty() && are_known {
            let message = format!("`{}` has no columns", create.name.value);
            mistakes.push(
                Diagnostic::error(SqlState::Invalid, message, create.name.span)
                    .help("declare what a row holds, e.g. (symbol VARCHAR PRIMARY KEY, price DOUBLE)"),
            );
        }
        let mut key = Vec::new();
        for column in &create.key {
            match fields.iter().position(|field| *field.name() == column.value) {
                Some(index) if key.contains(&index) => {
                    let message = format!("`{}` stands twice in the key", column.value);
                    mistakes.push(Diagnostic::error(SqlState::Duplicate, message, column.span).help("name it once"));
                }
                Some(index) => {
                    fields[index] = fields[index].clone().with_nullable(false);
                    key.push(index);
                }
                None if are_known => {
                    mistakes.push(unknown_column(column, fields.iter().map(|field| field.name().as_str())));
                }
                None => {}
            }
        }
        if let (Some(span), Some(_)) = (create.append_only, create.key.first()) {
            mistakes.push(
                Diagnostic::error(
                    SqlState::Invalid,
                    "a table with a primary key is not APPEND ONLY: a row replaces the one of its key",
                    span,
                )
                .help("leave one of them out"),
            );
        }
        let event_time = create.watermark.as_ref().and_then(|clause| {
            if create.append_only.is_none() {
                mistakes.push(
                    Diagnostic::error(
                        SqlState::Unsupported,
                        "rows of a table change at any time, so no watermark says that they are complete",
                        clause.column.span,
                    )
                    .help("write APPEND ONLY behind the columns if rows are only inserted, or leave WATERMARK out"),
                );
            }
            watermark(clause, &mut fields, are_known, statement, self, &mut mistakes)
        });
        let schema = Arc::new(Schema::new(fields.clone()));
        fields.push(changes::weight());
        let is_append_only = create.append_only.is_some();
        let name = create.name.value.clone();
        let source = SourceDefinition {
            name: name.clone(),
            declared: fields.len(),
            schema: Arc::new(Schema::new(fields)),
            includes: Vec::new(),
            connector: TABLE_CONNECTOR.to_owned(),
            connector_options: Options::default(),
            format: "changes".to_owned(),
            format_options: Options::default(),
            trigger: Trigger::EachRow,
            idle_timeout: Duration::from_secs(30),
            close_after: None,
            // Who writes a time that is far ahead means it.
            event_time_ahead_max: Duration::MAX,
            sql: statement.text.clone(),
            watermark: event_time,
        };
        let column = source.watermark.as_ref().map(|watermark| watermark.column);
        let relation = StreamRelation::new(&name, Arc::clone(&schema), String::new());
        let plan = LogicalPlanBuilder::scan(name.as_str(), provider_as_source(Arc::new(relation)), None)
            .and_then(LogicalPlanBuilder::build)
            .map_err(|error| self.mistakes(&error, statement.span, &[]))?;
        let view = MaterializedDefinition {
            name: name.clone(),
            plan,
            stream: StreamPlan::of_table(&name, schema, key, column, is_append_only),
            source: name.clone(),
            emit: Emit::Changes,
            options: Options::default(),
            reads: Vec::new(),
            sql: statement.text.clone(),
        };
        let table = TableDefinition {
            name,
            is_append_only,
            source: Arc::new(source),
            view: Arc::new(view),
            sql: statement.text.clone(),
        };
        self.created(Relation::Table(Arc::new(table)), mistakes, catalog)
    }

    pub(super) async fn update(
        &self,
        update: &Update,
        statement: &Statement,
        catalog: &Catalog,
    ) -> Result<Bound, Mistakes> {
        let table = self.changeable(&update.table, catalog)?;
        let mut mistakes = Vec::new();
        let mut columns = Vec::new();
        for column in &update.columns {
            let names = || table.schema().fields().iter().map(|field| field.name().as_str());
            match table.schema().index_of(&column.value) {
                Ok(index) if columns.contains(&index) => {
                    let message = format!("column `{}` is set twice", column.value);
                    mistakes.push(Diagnostic::error(SqlState::Duplicate, message, column.span).help("set it once"));
                }
                Ok(index) => columns.push(index),
                Err(_) => mistakes.push(unknown_column(column, names())),
            }
        }
        let rows = match self.query(&update.rows, statement.span, catalog).await {
            Ok(rows) => rows,
            Err(more) => {
                mistakes.extend(more);
                return Err(mistakes);
            }
        };
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        self.check_values(&table, &columns, &rows, update)?;
        Ok(Bound::Write(Write { table, rows, columns }))
    }

    pub(super) async fn delete(
        &self,
        delete: &Delete,
        statement: &Statement,
        catalog: &Catalog,
    ) -> Result<Bound, Mistakes> {
        let table = self.changeable(&delete.table, catalog)?;
        let rows = self.query(&delete.rows, statement.span, catalog).await?;
        Ok(Bound::Write(Write {
            table,
            rows,
            columns: Vec::new(),
        }))
    }

    /// New values must be of a type that their column can take.
    fn check_values(
        &self,
        table: &TableDefinition,
        columns: &[usize],
        rows: &LogicalPlan,
        update: &Update,
    ) -> Result<(), Mistakes> {
        let width = table.schema().fields().len();
        let mut mistakes = Vec::new();
        for (index, column) in columns.iter().enumerate() {
            let field = table.schema().field(*column);
            let given = rows.schema().field(width + index).data_type();
            if !arrow::compute::can_cast_types(given, field.data_type()) {
                let message = format!(
                    "`{}` is {}, and the new value is {}",
                    field.name(),
                    type_name(field.data_type()),
                    type_name(given)
                );
                mistakes.push(
                    Diagnostic::error(SqlState::TypeMismatch, message, update.columns[index].span).help("CAST it"),
                );
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    /// The table whose rows may be changed.
    fn changeable(
        &self,
        name: &crate::sql::Spanned<String>,
        catalog: &Catalog,
    ) -> Result<Arc<TableDefinition>, Mistakes> {
        self.known(name, catalog)?;
        let refuse = |message: String, help: &str| {
            Err(vec![
                Diagnostic::error(SqlState::Unsupported, message, name.span).help(help),
            ])
        };
        match catalog.get(&name.value) {
            Some(Relation::Table(table)) if table.is_append_only => refuse(
                format!("`{}` is APPEND ONLY: its rows stay as they are", name.value),
                "INSERT adds some",
            ),
            Some(Relation::Table(table)) => Ok(Arc::clone(table)),
            other => refuse(
                format!(
                    "`{}` is a {}, whose rows are not changed by hand",
                    name.value,
                    other.map_or("side output", Relation::kind)
                ),
                "UPDATE, DELETE and TRUNCATE are for tables of CREATE TABLE",
            ),
        }
    }
}
