//! `CREATE SINK`: whose changes go where.

use std::sync::Arc;

use crate::{
    connector::Publisher,
    sql::{CreateSink, Diagnostic, SqlState, Statement},
};

use super::{
    binder::{Binder, Bound},
    catalog::{Catalog, Relation, SinkDefinition},
    mistakes::Mistakes,
    options::SinkOptions,
    registry::OpenSink,
};

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
        let mut text = &statement.text;
        if let Some(own) = &create.own_view {
            let of_view = Statement {
                text: own.view_text.clone(),
                ..statement.clone()
            };
            if let Err(more) = self.create_materialized_view(&own.create, &of_view, catalog).await {
                mistakes.extend(more);
                return Err(mistakes);
            }
            text = &own.sink_text;
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
                    },
                    schema: Arc::clone(&stream.schema),
                    key: &stream.key,
                    format: &options.format,
                    options: &options.of_connector,
                };
                if mistakes.is_empty()
                    && let Err(error) = (connector.make)(open)
                {
                    mistakes.push(Diagnostic::error(
                        SqlState::Invalid,
                        error.to_string(),
                        create.name.span,
                    ));
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
            sql: text.clone(),
        };
        self.created(Relation::Sink(Arc::new(definition)), mistakes, catalog)
    }
}
