//! `CREATE SINK`: whose changes go where.

use std::sync::Arc;

use crate::{
    connector::Publisher,
    sql::{CreateSink, Diagnostic, SqlState, Statement},
    types::type_name,
};

use super::{
    binder::{Binder, Bound},
    catalog::{Catalog, MaterializedDefinition, Relation, SinkDefinition},
    columns::declared,
    mistakes::Mistakes,
    options::SinkOptions,
    registry::OpenSink,
};

/// Compares the columns that a sink declares with those of its rows.
fn check_columns(create: &CreateSink, view: &MaterializedDefinition, mistakes: &mut Mistakes) {
    let (declared, are_known) = declared(&create.columns, mistakes);
    if declared.is_empty() || !are_known {
        return;
    }
    let given = view.stream.schema.fields();
    let rows = match create.own_view {
        Some(_) => "its query".to_owned(),
        None => format!("`{}`", view.name),
    };
    for (index, (column, field)) in std::iter::zip(&create.columns, &declared).enumerate() {
        let name = field.name();
        let number = index + 1;
        let (message, help) = match given.get(index) {
            None => (
                format!(
                    "{rows} gives {} columns, and `{name}` is column {number} of the sink",
                    given.len()
                ),
                format!("give it in the query: SELECT …, … AS {name}"),
            ),
            Some(found) if found.name() != name => (
                format!(
                    "column {number} of the sink is `{name}`, and {rows} gives `{}` there",
                    found.name()
                ),
                match given.iter().position(|other| other.name() == name) {
                    Some(place) => format!("`{name}` is column {} there: bring them into the same order", place + 1),
                    None => format!("name it in the query: SELECT … AS {name}"),
                },
            ),
            Some(found) if type_name(found.data_type()) != type_name(field.data_type()) => {
                let (wanted, found) = (type_name(field.data_type()), type_name(found.data_type()));
                (
                    format!("`{name}` is {wanted} in the sink, and {rows} gives {found}"),
                    format!("write CAST({name} AS {wanted}) AS {name} in the query, or {found} in the sink"),
                )
            }
            Some(_) => continue,
        };
        mistakes.push(Diagnostic::error(SqlState::TypeMismatch, message, column.name.span).help(help));
        return;
    }
    if let Some(more) = given.get(declared.len()) {
        let message = format!(
            "{rows} gives {} columns, and the sink has {}",
            given.len(),
            declared.len()
        );
        let help = format!(
            "`{}` is left over: leave it out of the query, or add it to the sink",
            more.name()
        );
        mistakes.push(Diagnostic::error(SqlState::TypeMismatch, message, create.name.span).help(help));
    }
}

impl Binder<'_> {
    pub(super) async fn create_sink(
        &self,
        create: &CreateSink,
        statement: &Statement,
        catalog: &mut Catalog,
    ) -> Result<Bound, Mistakes> {
        let mut mistakes = Vec::new();
        if let Some(done) = self.taken(&create.name, create.if_not_exists, catalog, &mut mistakes) {
            return done;
        }
        let options = SinkOptions::of(create, statement, self.registry, &mut mistakes);
        if let Some(own) = &create.own_view {
            let of_view = Statement {
                text: own.view_text.clone(),
                ..statement.clone()
            };
            if let Err(more) = self.create_materialized_view(&own.create, &of_view, catalog).await {
                mistakes.extend(more);
                return Err(mistakes);
            }
        }
        let view = match self.known(&create.view, catalog) {
            Ok(name) => catalog.materialized(name),
            Err(more) => {
                mistakes.extend(more);
                return Err(mistakes);
            }
        };
        let Some(view) = view.map(Arc::clone) else {
            let kind = catalog.get(&create.view.value).map_or("side output", Relation::kind);
            let message = format!(
                "`{}` is a {kind}, and a sink publishes a materialized view or a table",
                create.view.value
            );
            let help = format!(
                "write CREATE MATERIALIZED VIEW name AS SELECT … FROM {}, and FROM name here",
                create.view.value
            );
            mistakes.push(Diagnostic::error(SqlState::Unsupported, message, create.view.span).help(help));
            return Err(mistakes);
        };
        check_columns(create, &view, &mut mistakes);
        let mut schemas = Vec::new();
        if let Some(connector) = options.connector {
            let stream = &view.stream;
            let is_named = !stream.key.is_empty() || stream.is_append_only;
            if !stream.is_append_only && !connector.takes_changes {
                let message = format!(
                    "rows of `{}` change, and connector '{}' takes none back: what it published stays as it is",
                    view.name, connector.name
                );
                mistakes.push(
                    Diagnostic::error(SqlState::Unsupported, message, create.view.span).help(
                        "publish a view with EMIT ON WINDOW CLOSE, whose rows are final, or one that only adds rows; or use connector = 'kafka'",
                    ),
                );
            } else if !is_named && !(connector.takes_changes_without_key)(&options.format) {
                let message = format!(
                    "rows of `{}` change and have no key: a record could not say which row it takes back",
                    view.name
                );
                mistakes.push(
                    Diagnostic::error(SqlState::Unsupported, message, create.view.span).help(
                        "group by something in the view, or use format = 'debezium', whose records hold the whole row",
                    ),
                );
            } else {
                // What cannot be written is known before anything runs; no broker is asked.
                let open = OpenSink {
                    source: &view.source,
                    publisher: Publisher {
                        sink: create.name.value.clone(),
                        state: String::new(),
                        generation: 0,
                        instance: 0,
                        takes_over: false,
                        shares_state: false,
                    },
                    schema: Arc::clone(&stream.schema),
                    key: &stream.key,
                    format: &options.format,
                    options: &options.of_connector,
                    format_options: &options.of_format,
                };
                if mistakes.is_empty() {
                    match (connector.make)(open) {
                        Ok(sink) => schemas = sink.schemas(),
                        Err(error) => mistakes.push(Diagnostic::error(
                            SqlState::Invalid,
                            error.to_string(),
                            create.name.span,
                        )),
                    }
                }
            }
        }
        let definition = SinkDefinition {
            name: create.name.value.clone(),
            reads: vec![view.name.clone()],
            view,
            connector: options
                .connector
                .map_or_else(String::new, |connector| connector.name.to_owned()),
            format: options.format,
            connector_options: options.of_connector,
            format_options: options.of_format,
            schemas,
            // All of it: without its query nobody could make it again.
            sql: statement.text.clone(),
        };
        self.created(Relation::Sink(Arc::new(definition)), mistakes, catalog)
    }
}
