//! Statements against a running engine: definitions go into the catalog, queries run, the rest is answered from what is known.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, StringViewArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use futures::TryStreamExt;

use crate::{
    plan::{Binder, Bound, Catalog, Relation, SinkDefinition, analyze, explain, query_session},
    sql::{
        self, Diagnostic, Effect, ParsedFile, SourceText, Span, Spanned, SqlOption, SqlState, Statement, StatementKind,
    },
    types::{Error, Result},
};

use super::{
    engine::{Engine, Mode},
    face::*,
    functions,
    query::problem_of,
    view_change::{Taken, ViewChange},
};

/// Whether a statement is of use only while a pipeline runs.
fn needs_what_runs(kind: &StatementKind) -> bool {
    kind.effect() != Effect::Defines && !matches!(kind, StatementKind::Query(_))
}

impl Engine {
    /// Takes the definitions of a file. Nothing of it is taken when anything in it is wrong.
    ///
    /// Queries in it are checked; those that nobody would ever see are told by a warning among the returned diagnostics.
    pub async fn apply(
        &self,
        text: &SourceText,
        parsed: ParsedFile,
    ) -> std::result::Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        let _defining = self.0.defining.lock().await;
        let mut catalog = self.catalog();
        let mut diagnostics = parsed.diagnostics.clone();
        if parsed.statements.is_empty() && parsed.diagnostics.is_empty() {
            let nothing = Diagnostic::warning(SqlState::Invalid, "there is nothing in this file", None);
            diagnostics.push(nothing.help("a pipeline begins with CREATE SOURCE or CREATE TABLE"));
        }
        for statement in &parsed.statements {
            if needs_what_runs(&statement.kind) {
                let written = text.text.get(statement.span.start..).unwrap_or_default();
                let end = written
                    .find(|c: char| !c.is_ascii_alphabetic())
                    .unwrap_or(written.len());
                let word = &written[..end];
                let message = format!("a pipeline file defines what runs, and {word} defines nothing");
                let place = Span::new(statement.span.start, statement.span.start + end);
                diagnostics.push(Diagnostic::error(SqlState::Unsupported, message, place).help(
                    "send it over HTTP while the pipeline runs (POST /api/v1/sql), or put it into a script of `zeta test`",
                ));
                continue;
            }
            let statement = self.overridden(statement);
            match self.bind(&statement, text, &mut catalog, BTreeMap::new()).await {
                Ok(Bound::Query(_)) => diagnostics.push(
                    Diagnostic::warning(
                        SqlState::Invalid,
                        "nobody sees the rows of a bare query in a pipeline file",
                        statement.span,
                    )
                    .help("give it a name: CREATE MATERIALIZED VIEW name AS …"),
                ),
                Ok(bound) => diagnostics.extend(self.allowed(&bound, &statement)),
                Err(mistakes) => diagnostics.extend(mistakes),
            }
        }
        // What a broken statement would have made is not unknown: its own mistake is told already.
        diagnostics.retain(|diagnostic| {
            !matches!(diagnostic.code, SqlState::UnknownTable | SqlState::UnknownFunction)
                || !parsed
                    .unfinished
                    .iter()
                    .any(|name| diagnostic.message.contains(&format!("`{name}`")))
        });
        diagnostics.sort_by_key(|diagnostic| diagnostic.span.map(|span| span.start));
        if diagnostics.iter().any(Diagnostic::is_error) {
            return Err(diagnostics);
        }
        *self.0.catalog.write().expect("nobody panics while holding it") = catalog;
        Ok(diagnostics)
    }

    /// Runs one statement, a query or a definition.
    pub async fn execute(&self, request: SqlRequest) -> Result<Answer, Problem> {
        let query_id = self.next_query_id();
        self.answer(request, &query_id)
            .await
            .map_err(|kind| Problem::of_query(kind, &query_id))
    }

    async fn answer(&self, request: SqlRequest, query_id: &str) -> Result<Answer, ProblemKind> {
        let text = SourceText::new("query", request.sql);
        let wrong = |diagnostics: Vec<Diagnostic>| ProblemKind::Text {
            text: text.clone(),
            diagnostics,
        };
        sql::guard(&text.text).map_err(|diagnostic| wrong(vec![diagnostic]))?;
        let parsed = sql::parse(&text);
        if parsed.diagnostics.iter().any(Diagnostic::is_error) {
            return Err(wrong(parsed.diagnostics));
        }
        let [statement] = parsed.statements.as_slice() else {
            let message = match parsed.statements.is_empty() {
                true => "there is no statement in the text",
                false => "one statement at a time",
            };
            let span = parsed.statements.get(1).map(|second| second.span);
            return Err(wrong(vec![Diagnostic::error(SqlState::Syntax, message, span)]));
        };
        let answer = |schema: SchemaRef, batches: Vec<RecordBatch>| Answer {
            query_id: query_id.to_owned(),
            rows: stream_of(Arc::clone(&schema), batches),
            schema,
        };
        let told = |column: &str, lines: Vec<String>| {
            let schema = Arc::new(Schema::new(vec![Field::new(column, DataType::Utf8View, false)]));
            let rows = RecordBatch::try_new(
                Arc::clone(&schema),
                vec![Arc::new(StringViewArray::from_iter_values(lines))],
            );
            answer(schema, vec![rows.expect("one column of text")])
        };
        // Who changes rows of a table sees all that was written to it before, and nobody writes in between.
        let changed = match &statement.kind {
            StatementKind::Update(update) => Some(&update.table.value),
            StatementKind::Delete(delete) => Some(&delete.table.value),
            _ => None,
        };
        let writing = match changed {
            Some(table) if matches!(self.catalog().get(table), Some(Relation::Table(_))) => {
                let writing = self.changing(table).await;
                Some(writing.map_err(|error| Problem::from(error).kind)?)
            }
            _ => None,
        };
        // Definitions follow each other; queries run beside them on the catalog as it is.
        let _defining = if statement.kind.effect() == Effect::Defines {
            Some(self.0.defining.lock().await)
        } else {
            None
        };
        let snapshots = self.pin().tables;
        let mut catalog = self.catalog();
        let before = catalog.clone();
        let statement = self.overridden(statement);
        let bound = self
            .bind(&statement, &text, &mut catalog, snapshots)
            .await
            .map_err(&wrong)?;
        if let Some(refused) = self.allowed(&bound, &statement) {
            return Err(wrong(vec![refused]));
        }
        match bound {
            Bound::Query(plan) => {
                let session = query_session(&self.0.session, self.0.clock.now());
                let stream = self.0.queries.run(session, plan, request.timeout).await?;
                let schema = stream.schema();
                let rows = match request.rows_max {
                    Some(rows_max) => first_rows(stream, rows_max),
                    None => stream,
                };
                Ok(Answer {
                    query_id: query_id.to_owned(),
                    schema,
                    rows,
                })
            }
            Bound::Create(relation) => {
                self.create(&relation, catalog)
                    .await
                    .map_err(|error| Problem::from(error).kind)?;
                if let Err(error) = self.keep_made(relation.name(), false, relation.sql()) {
                    // A restart would not know it: then it is not there now either.
                    if let Err(error) = self.remove(relation.name(), before).await {
                        tracing::error!(name = relation.name(), %error, "what could not be kept could not be removed");
                    }
                    return Err(Problem::from(error).kind);
                }
                Ok(told(
                    "result",
                    vec![format!("created {} {}", relation.kind(), relation.name())],
                ))
            }
            Bound::Drop(name) => {
                // First forgotten, then removed: a crash in between leaves nothing that comes back without its rows.
                let kept = self
                    .keep_gone(&name, false)
                    .map_err(|error| Problem::from(error).kind)?;
                match self.remove(&name, catalog).await {
                    Ok(Taken::Now) => Ok(told("result", vec![format!("dropped {name}")])),
                    Ok(Taken::Later(why)) => Ok(told("result", vec![format!("dropped {name}: {why}")])),
                    Err(error) => {
                        if let Some(kept) = kept {
                            let again = self.keep_made(&kept.name, false, &kept.sql);
                            again.map_err(|error| Problem::from(error).kind)?;
                        }
                        Err(Problem::from(error).kind)
                    }
                }
            }
            Bound::CreateFunction(function) => {
                self.keep_made(&function.name, true, &function.sql)
                    .map_err(|error| Problem::from(error).kind)?;
                *self.0.catalog.write().expect("nobody panics while holding it") = catalog;
                Ok(told("result", vec![format!("created function {}", function.name)]))
            }
            Bound::DropFunction(name) => {
                self.keep_gone(&name, true).map_err(|error| Problem::from(error).kind)?;
                *self.0.catalog.write().expect("nobody panics while holding it") = catalog;
                Ok(told("result", vec![format!("dropped {name}")]))
            }
            Bound::Nothing => Ok(told("result", vec!["nothing to do".into()])),
            Bound::Explain { relation, is_verbose } => {
                let text = match catalog.get(&relation) {
                    Some(relation) => explain(&catalog, relation, is_verbose),
                    None => format!("{relation}: a side output"),
                };
                Ok(told("plan", text.lines().map(str::to_owned).collect()))
            }
            Bound::Analyze(view) => {
                let status = self.shared_of(&view.source).map(|shared| shared.status());
                let figures = status.and_then(|status| status.figures.get(&view.name).cloned());
                let text = analyze(&catalog, &view, &figures.unwrap_or_default());
                Ok(told("plan", text.lines().map(str::to_owned).collect()))
            }
            Bound::ExplainCreate(relation, is_verbose) => {
                let mut catalog = before;
                if catalog.get(relation.name()).is_none() {
                    catalog.add(relation.clone());
                }
                Ok(told(
                    "plan",
                    explain(&catalog, &relation, is_verbose)
                        .lines()
                        .map(str::to_owned)
                        .collect(),
                ))
            }
            Bound::ExplainQuery(plan, is_verbose) => {
                let session = query_session(&self.0.session, self.0.clock.now());
                let optimized = session.optimize(&plan).map_err(problem_of)?;
                let mut text = optimized.display_indent().to_string();
                if is_verbose {
                    let physical = datafusion_entry::physical_plan(&session, plan)
                        .await
                        .map_err(problem_of)?;
                    text.push_str(&format!(
                        "\n\n{}",
                        datafusion::physical_plan::displayable(physical.as_ref()).indent(false)
                    ));
                }
                Ok(told("plan", text.lines().map(str::to_owned).collect()))
            }
            Bound::ExplainWatermark(name) => {
                let (schema, rows) = self.explain_watermark(&name).map_err(ProblemKind::Internal)?;
                Ok(answer(schema, vec![rows]))
            }
            Bound::Show(what) if what == "SINKS" => {
                let (schema, rows) = self.show_sinks(&catalog).map_err(ProblemKind::Internal)?;
                Ok(answer(schema, vec![rows]))
            }
            Bound::Show(what) if what == "FUNCTIONS" => {
                let (schema, rows) = functions::show(&catalog).map_err(ProblemKind::Internal)?;
                Ok(answer(schema, vec![rows]))
            }
            Bound::Show(what) => {
                let (schema, rows) = self.show(&what).map_err(ProblemKind::Internal)?;
                Ok(answer(schema, vec![rows]))
            }
            Bound::Describe(name) => {
                if let Some(Relation::Sink(sink)) = catalog.get(&name) {
                    let (schema, rows) = schemas_of(sink).map_err(ProblemKind::Internal)?;
                    return Ok(answer(schema, vec![rows]));
                }
                let relation = self.relation(&name).ok_or_else(|| ProblemKind::NotFound {
                    detail: format!("no table or view named {name}"),
                    help: vec![],
                })?;
                let (schema, rows) = describe(&relation.schema).map_err(ProblemKind::Internal)?;
                Ok(answer(schema, vec![rows]))
            }
            Bound::DescribeFunction(function) => {
                let (schema, rows) = functions::describe(&function).map_err(ProblemKind::Internal)?;
                Ok(answer(schema, vec![rows]))
            }
            Bound::Insert { table, columns, query } => {
                let session = query_session(&self.0.session, self.0.clock.now());
                let rows: Vec<RecordBatch> = self
                    .0
                    .queries
                    .run(session, query, request.timeout)
                    .await?
                    .try_collect()
                    .await
                    .map_err(problem_of)?;
                let count = self
                    .insert(&table, &columns, rows)
                    .await
                    .map_err(|error| Problem::from(error).kind)?;
                Ok(told("result", vec![format!("inserted {count}")]))
            }
            Bound::Write(write) => {
                let session = query_session(&self.0.session, self.0.clock.now());
                let rows: Vec<RecordBatch> = self
                    .0
                    .queries
                    .run(session, write.rows, request.timeout)
                    .await?
                    .try_collect()
                    .await
                    .map_err(problem_of)?;
                // It was made between the two looks into the catalog.
                let Some(writing) = writing else {
                    let name = &write.table.name;
                    return Err(ProblemKind::Unavailable(format!(
                        "table `{name}` is being created; try again"
                    )));
                };
                let count = self
                    .change(&write.table, &write.columns, &rows, writing)
                    .await
                    .map_err(|error| Problem::from(error).kind)?;
                let did = if write.columns.is_empty() { "deleted" } else { "updated" };
                Ok(told("result", vec![format!("{did} {count}")]))
            }
            Bound::Flush => {
                self.flush().await.map_err(|error| Problem::from(error).kind)?;
                Ok(told("result", vec!["flushed".into()]))
            }
        }
    }

    async fn bind(
        &self,
        statement: &Statement,
        text: &SourceText,
        catalog: &mut Catalog,
        snapshots: BTreeMap<String, Arc<dyn datafusion::catalog::TableProvider>>,
    ) -> Result<Bound, Vec<Diagnostic>> {
        let places = |span| sql::byte_span(text, span);
        let binder = Binder {
            registry: &self.0.registry,
            base: &self.0.session,
            text: &text.text,
            places: &places,
            snapshots,
        };
        binder.bind(statement, catalog).await
    }

    /// Takes a relation into the catalog, and sees to it that it is kept up to date.
    async fn create(&self, relation: &Relation, catalog: Catalog) -> Result<()> {
        let before = self.set_catalog(catalog);
        let outcome = match relation {
            Relation::Materialized(view) if self.has_started(&view.source) => {
                let added = self.change_views(&view.source, ViewChange::Add(Arc::clone(view)));
                added.await.map(drop)
            }
            Relation::Sink(sink) if self.has_started(&sink.view.source) => {
                let is_own = before.get(&sink.view.name).is_none();
                self.add_sink(sink, is_own).await
            }
            Relation::Sink(sink) if sink.own_view().is_some() => {
                let view = Relation::Materialized(Arc::clone(&sink.view));
                self.start().and_then(|()| self.open_manual(&view))
            }
            _ => self.start().and_then(|()| self.open_manual(relation)),
        };
        if outcome.is_err() {
            self.set_catalog(before);
        }
        outcome
    }

    /// Adds a sink to a source that runs, and its view before where that is its own.
    async fn add_sink(&self, sink: &Arc<SinkDefinition>, is_own: bool) -> Result<()> {
        let source = &sink.view.source;
        if is_own {
            self.change_views(source, ViewChange::Add(Arc::clone(&sink.view)))
                .await?;
        }
        let added = self.change_views(source, ViewChange::AddSink(Arc::clone(sink))).await;
        if is_own && added.is_err() {
            self.change_views(source, ViewChange::Remove(sink.view.name.clone()))
                .await?;
        }
        added.map(drop)
    }

    /// Forgets a relation that no other reads.
    async fn remove(&self, name: &str, catalog: Catalog) -> Result<Taken> {
        let before = self.set_catalog(catalog);
        let Some(relation) = before.get(name) else {
            return Ok(Taken::Now);
        };
        let outcome = match relation {
            Relation::Materialized(view) if self.has_started(&view.source) => {
                self.change_views(&view.source, ViewChange::Remove(name.to_owned()))
                    .await
            }
            Relation::Sink(sink) => {
                let source = &sink.view.source;
                let own_view = sink.own_view().filter(|view| self.catalog().get(view).is_none());
                let removed = match self.has_started(source) {
                    true => self.change_views(source, ViewChange::RemoveSink(name.to_owned())).await,
                    false => Ok(Taken::Now),
                };
                match own_view {
                    Some(view) if removed.is_ok() && self.has_started(source) => {
                        self.change_views(source, ViewChange::Remove(view.to_owned())).await
                    }
                    Some(_) if removed.is_ok() => {
                        let view = Relation::Materialized(Arc::clone(&sink.view));
                        self.close_manual(&view).map(|()| Taken::Now)
                    }
                    _ => removed,
                }
            }
            Relation::Source(_) | Relation::Table(_) => self.remove_source(name).await.map(|()| Taken::Now),
            relation => self.close_manual(relation).map(|()| Taken::Now),
        };
        if outcome.is_err() {
            self.set_catalog(before);
        }
        outcome
    }

    /// Returns the catalog of before.
    fn set_catalog(&self, catalog: Catalog) -> Catalog {
        std::mem::replace(
            &mut *self.0.catalog.write().expect("nobody panics while holding it"),
            catalog,
        )
    }

    /// Whether epochs of a source may have run.
    fn has_started(&self, source: &str) -> bool {
        let timelines = self.0.timelines.read().expect("nobody panics while holding it");
        timelines
            .get(source)
            .is_some_and(|shared| self.0.options.mode == Mode::Live || 0 < shared.snapshot().epoch.0)
    }

    /// Definitions that a running source cannot take up any more.
    fn allowed(&self, bound: &Bound, statement: &Statement) -> Option<Diagnostic> {
        let view = match bound {
            Bound::Create(Relation::Materialized(view)) => view,
            Bound::Create(Relation::Sink(sink)) if self.catalog().get(&sink.view.name).is_none() => &sink.view,
            _ => return None,
        };
        let is_over_source = view.stream.inputs.iter().any(|input| input.is_source);
        if !is_over_source || !self.has_started(&view.source) {
            return None;
        }
        let message = format!(
            "source `{}` is running: a view of it that is added now would miss the rows before",
            view.source
        );
        let help = format!(
            "let it read a materialized view that is there, or add it to the pipeline file and start again with --rebuild {}; \
             queries and plain views need no restart",
            view.name
        );
        Some(Diagnostic::error(SqlState::Unsupported, message, statement.span).help(help))
    }

    /// The statement with the connector that the command line wants for its source.
    fn overridden(&self, statement: &Statement) -> Statement {
        let mut statement = statement.clone();
        if let StatementKind::CreateSource(create) = &mut statement.kind
            && let Some(wanted) = self
                .0
                .options
                .overrides
                .iter()
                .find(|wanted| wanted.source == create.name.value)
        {
            let general = |key: &str| {
                key != "connector"
                    && (crate::plan::SOURCE_OPTIONS.iter().any(|spec| spec.answers_to(key))
                        || self
                            .0
                            .registry
                            .formats
                            .iter()
                            .any(|format| format.options.iter().any(|spec| spec.answers_to(key))))
            };
            create.options.retain(|option| {
                general(&option.key.value) && !wanted.options.iter().any(|(key, _)| *key == option.key.value)
            });
            let at = create.name.span;
            create
                .options
                .extend(wanted.options.iter().map(|(key, value)| SqlOption {
                    key: Spanned {
                        value: key.clone(),
                        span: at,
                    },
                    value: Spanned {
                        value: value.clone(),
                        span: at,
                    },
                }));
        }
        statement
    }

    /// A row for each sink, in the order of creation.
    fn show_sinks(&self, catalog: &Catalog) -> Result<(SchemaRef, RecordBatch)> {
        let sinks: Vec<_> = (catalog.iter())
            .filter_map(|relation| match relation {
                Relation::Sink(sink) => Some(sink),
                _ => None,
            })
            .collect();
        let statuses: Vec<_> = (sinks.iter())
            .map(|sink| {
                let shared = self.shared_of(&sink.view.source)?;
                let statuses = shared.sinks.lock().expect("nobody panics while holding it");
                statuses.get(&sink.name).cloned()
            })
            .collect();
        let text = |values: Vec<String>| Arc::new(StringViewArray::from_iter_values(values)) as ArrayRef;
        let field = |name: &str, data_type: DataType, is_nullable| Field::new(name, data_type, is_nullable);
        let schema = Arc::new(Schema::new(vec![
            field("name", DataType::Utf8View, false),
            field("view", DataType::Utf8View, false),
            field("connector", DataType::Utf8View, false),
            field("state", DataType::Utf8View, false),
            field("published_epoch", DataType::UInt64, true),
            field("reason", DataType::Utf8View, true),
        ]));
        let state = |status: &Option<SinkStatus>| match status {
            Some(status) => status.state.to_string(),
            None => "not started".to_owned(),
        };
        let columns: Vec<ArrayRef> = vec![
            text(sinks.iter().map(|sink| sink.name.clone()).collect()),
            text(sinks.iter().map(|sink| sink.view.name.clone()).collect()),
            text(sinks.iter().map(|sink| sink.connector.clone()).collect()),
            text(statuses.iter().map(state).collect()),
            Arc::new(
                (statuses.iter())
                    .map(|status| status.as_ref().map(|status| status.published.0))
                    .collect::<arrow::array::UInt64Array>(),
            ),
            Arc::new(
                (statuses.iter())
                    .map(|status| status.as_ref().and_then(|status| status.reason.clone()))
                    .collect::<StringViewArray>(),
            ),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|e| Error::bug(e.to_string()))?;
        Ok((schema, batch))
    }

    fn show(&self, what: &str) -> Result<(SchemaRef, RecordBatch)> {
        let wanted = |kind: RelationKind| match what {
            "SOURCES" => kind == RelationKind::Source,
            "TABLES" => matches!(kind, RelationKind::Table | RelationKind::ExternalTable),
            "VIEWS" => matches!(kind, RelationKind::View | RelationKind::MaterializedView),
            "MATERIALIZED VIEWS" => kind == RelationKind::MaterializedView,
            _ => true,
        };
        let relations: Vec<RelationInfo> = self
            .relations()
            .into_iter()
            .filter(|relation| wanted(relation.kind))
            .collect();
        let text = |values: Vec<String>| Arc::new(StringViewArray::from_iter_values(values)) as ArrayRef;
        let schema = Arc::new(Schema::new(vec![
            Field::new("name", DataType::Utf8View, false),
            Field::new("kind", DataType::Utf8View, false),
            Field::new("rows", DataType::UInt64, true),
        ]));
        let rows: arrow::array::UInt64Array = relations
            .iter()
            .map(|relation| relation.rows.map(|rows| rows as u64))
            .collect();
        let columns = vec![
            text(relations.iter().map(|relation| relation.name.clone()).collect()),
            text(relations.iter().map(|relation| relation.kind.to_string()).collect()),
            Arc::new(rows),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|e| Error::bug(e.to_string()))?;
        Ok((schema, batch))
    }
}

/// Ends a stream behind so many rows.
fn first_rows(
    stream: datafusion::execution::SendableRecordBatchStream,
    rows_max: usize,
) -> datafusion::execution::SendableRecordBatchStream {
    use futures::StreamExt;
    let schema = stream.schema();
    let rows = stream.scan(rows_max, |left, batch| {
        let next = match batch {
            _ if *left == 0 => None,
            Ok(batch) => {
                let taken = batch.num_rows().min(*left);
                *left -= taken;
                Some(Ok(batch.slice(0, taken)))
            }
            Err(error) => Some(Err(error)),
        };
        futures::future::ready(next)
    });
    Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(
        schema, rows,
    ))
}

/// A row for each part of a sink's records that needs a schema to be read.
fn schemas_of(sink: &SinkDefinition) -> Result<(SchemaRef, RecordBatch)> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("part", DataType::Utf8View, false),
        Field::new("schema", DataType::Utf8View, false),
    ]));
    let parts = sink.schemas.iter().map(|schema| schema.part);
    let texts = sink.schemas.iter().map(|schema| schema.text.as_str());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(parts)),
        Arc::new(StringViewArray::from_iter_values(texts)),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|e| Error::bug(e.to_string()))?;
    Ok((schema, batch))
}

fn describe(of: &SchemaRef) -> Result<(SchemaRef, RecordBatch)> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("column", DataType::Utf8View, false),
        Field::new("type", DataType::Utf8View, false),
        Field::new("nullable", DataType::Boolean, false),
    ]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(
            of.fields().iter().map(|field| field.name()),
        )),
        Arc::new(StringViewArray::from_iter_values(
            of.fields()
                .iter()
                .map(|field| crate::types::type_name(field.data_type())),
        )),
        Arc::new(
            of.fields()
                .iter()
                .map(|field| Some(field.is_nullable()))
                .collect::<BooleanArray>(),
        ),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|e| Error::bug(e.to_string()))?;
    Ok((schema, batch))
}
