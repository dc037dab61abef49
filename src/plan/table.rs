//! CREATE TABLE, and what UPDATE and DELETE change of one.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::Schema;
use datafusion::{datasource::provider_as_source, logical_expr::LogicalPlanBuilder};

use crate::{
    format::changes,
    sql::{CreateTable, Delete, Diagnostic, Emit, Spanned, SqlState, Statement, Update},
    types::{Options, folder_name, limits},
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

/// Beside the columns of a table stand others: the weight of a change, the new values of UPDATE.
const RESERVED: char = '$';

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
        check_folder(&create.name, &mut mistakes);
        no_options(&create.options, &mut mistakes);
        let reserved = create
            .columns
            .iter()
            .filter(|column| column.name.value.starts_with(RESERVED));
        mistakes.extend(reserved.map(|column| {
            let message = format!(
                "column names that begin with `{RESERVED}` belong to Zeta, and `{}` is one",
                column.name.value
            );
            Diagnostic::error(SqlState::Invalid, message, column.name.span).help("choose another name")
        }));
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
            recovery_time_max: Duration::from_secs(2),
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
        self.check_updated(&table, &columns, &rows, update)?;
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

    /// The table whose rows may be changed.
    fn changeable(&self, name: &Spanned<String>, catalog: &Catalog) -> Result<Arc<TableDefinition>, Mistakes> {
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

/// The name of a source or table becomes that of a folder.
pub(super) fn check_folder(name: &Spanned<String>, mistakes: &mut Mistakes) {
    let bytes = folder_name(&name.value).len();
    if limits::FOLDER_NAME_BYTES_MAX < bytes {
        let message = format!(
            "the name is too long for a folder of its own: it takes {bytes} bytes, and {} are the most",
            limits::FOLDER_NAME_BYTES_MAX
        );
        let help = "choose a shorter one; what is no letter of ASCII, digit, `_` or `-` takes three bytes or more";
        mistakes.push(Diagnostic::error(SqlState::Invalid, message, name.span).help(help));
    }
}
