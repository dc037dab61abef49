//! Statements against the catalog: each either becomes a definition or yields all that is wrong with it.
//!
//! Binding goes on after a mistake with whatever the broken statement declared, so that one mistake is reported once.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::{
    common::DataFusionError,
    execution::context::SessionState,
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
    sql::{parser::Statement as PlannerStatement, sqlparser::ast},
};

use crate::{
    sql::{
        CreateExternalTable, CreateMaterializedView, CreateSource, CreateView, Diagnostic, Drop, DropKind, Emit, Span,
        Spanned, SqlState, Statement, StatementKind, nothing_inserted, suggest,
    },
    types::{Error, parse_duration},
};

use super::{
    catalog::{
        Catalog, ExternalDefinition, MaterializedDefinition, Relation, SourceDefinition, TableDefinition, Trigger,
        ViewDefinition,
    },
    columns,
    function::FunctionDefinition,
    function_call::{WrongArgument, check_calls, with_calls},
    mistakes::{Mistakes, Places, Scene, diagnostics_of},
    options::{SourceOptions, check_close_after, check_panel, no_options, view_options},
    registry::{OpenExternal, Registry},
    session::session_over,
    stream::{Scope, StreamPlan, ViewSettings},
    table::check_folder,
    tables::{self, SIDE_SUFFIXES, Tables, scanned},
    unfolded::{parts_of_query, too_many},
    watermark::{check_has_watermark, watermark},
};

/// What a statement does.
pub enum Bound {
    /// Adds to the catalog.
    Create(Relation),
    /// There already: IF NOT EXISTS.
    Nothing,
    Drop(String),
    CreateFunction(Arc<FunctionDefinition>),
    DropFunction(String),
    DescribeFunction(Arc<FunctionDefinition>),
    /// Checked and planned; not executed.
    Query(LogicalPlan),
    Explain {
        relation: String,
        is_verbose: bool,
    },
    ExplainQuery(LogicalPlan, bool),
    /// A view with what its operators did and hold.
    Analyze(Arc<MaterializedDefinition>),
    ExplainCreate(Relation, bool),
    Show(String),
    Describe(String),
    /// How far a source or a materialized view with a watermark has come.
    ExplainWatermark(String),
    Insert {
        table: String,
        columns: Vec<String>,
        query: LogicalPlan,
    },
    Write(Write),
    /// Waits until what was written to tables is in every view.
    Flush,
}

/// What a statement changes of a table.
pub struct Write {
    pub table: Arc<TableDefinition>,
    /// Rows to retract with all their columns, then the new values of `columns`.
    pub rows: LogicalPlan,
    /// Columns of the table that get new values; empty: rows go.
    pub columns: Vec<usize>,
}

/// Calls of created functions that are tried one after the other to find a wrong one.
const CALLS_TRIED_MAX: usize = 50;

pub struct Binder<'a> {
    pub registry: &'a Registry,
    pub base: &'a SessionState,
    /// The whole text that the statement stands in.
    pub text: &'a str,
    pub places: Places<'a>,
    /// Tables for queries by name: views at one epoch. Names that are absent are bound by their definitions.
    pub snapshots: Tables,
}

impl Binder<'_> {
    /// Binds one statement. On mistakes, `catalog` may hold what the statement declared as far as it was understood, so that those
    /// after it are bound too; the caller throws such a catalog away.
    pub async fn bind(&self, statement: &Statement, catalog: &mut Catalog) -> Result<Bound, Mistakes> {
        match &statement.kind {
            StatementKind::CreateSource(create) => self.create_source(create, statement, catalog),
            StatementKind::CreateTable(create) => self.create_table(create, statement, catalog),
            StatementKind::CreateExternalTable(create) => self.create_external_table(create, statement, catalog).await,
            StatementKind::CreateView(create) => self.create_view(create, statement, catalog).await,
            StatementKind::CreateMaterializedView(create) => {
                self.create_materialized_view(create, statement, catalog).await
            }
            StatementKind::CreateSink(create) => self.create_sink(create, statement, catalog).await,
            StatementKind::CreateSinkWithoutRows(sink) => Err(vec![nothing_inserted(sink)]),
            StatementKind::CreateFunction(create) => self.create_function(create, statement, catalog),
            StatementKind::Drop(drop) if drop.kind == DropKind::Function => {
                self.drop_function(&drop.name, drop.if_exists, catalog)
            }
            StatementKind::Drop(drop) => self.drop(drop, catalog),
            StatementKind::Query(query) => Ok(Bound::Query(self.query(query, statement.span, catalog).await?)),
            StatementKind::Show(what) => Ok(Bound::Show(what.value.clone())),
            StatementKind::Describe(name) if let Some(function) = self.only_function(name, catalog) => {
                Ok(Bound::DescribeFunction(function))
            }
            StatementKind::Describe(name) => self.known(name, catalog).map(|name| Bound::Describe(name.to_owned())),
            StatementKind::Explain(explain) => match &explain.target {
                crate::sql::ExplainTarget::Name(name) => {
                    let relation = self.known(name, catalog)?.to_owned();
                    Ok(Bound::Explain {
                        relation,
                        is_verbose: explain.is_verbose,
                    })
                }
                crate::sql::ExplainTarget::Analyze(name) => {
                    self.known(name, catalog)?;
                    match catalog.get(&name.value) {
                        Some(Relation::Materialized(view)) => Ok(Bound::Analyze(Arc::clone(view))),
                        other => Err(vec![
                            Diagnostic::error(
                                SqlState::Unsupported,
                                format!(
                                    "`{}` is a {}, which has no operators",
                                    name.value,
                                    other.map_or("side output", Relation::kind)
                                ),
                                name.span,
                            )
                            .help("EXPLAIN ANALYZE takes a materialized view or a SELECT"),
                        ]),
                    }
                }
                crate::sql::ExplainTarget::AnalyzeQuery(query) => {
                    let plan = self.query(query, statement.span, catalog).await?;
                    let analyzed = LogicalPlanBuilder::from(plan)
                        .explain(false, true)
                        .and_then(LogicalPlanBuilder::build)
                        .map_err(|error| self.mistakes(&error, statement.span, &[]))?;
                    Ok(Bound::Query(analyzed))
                }
                crate::sql::ExplainTarget::Watermark(name) => {
                    let relation = self.known(name, catalog)?.to_owned();
                    check_has_watermark(name, catalog)?;
                    Ok(Bound::ExplainWatermark(relation))
                }
                crate::sql::ExplainTarget::Statement(inner) => {
                    let mut scratch = catalog.clone();
                    match Box::pin(self.bind(inner, &mut scratch)).await? {
                        Bound::Query(plan) => Ok(Bound::ExplainQuery(plan, explain.is_verbose)),
                        Bound::Create(relation) => Ok(Bound::ExplainCreate(relation, explain.is_verbose)),
                        _ => Err(vec![Diagnostic::error(
                            SqlState::Unsupported,
                            "EXPLAIN takes a view, a query or a CREATE",
                            inner.span,
                        )]),
                    }
                }
            },
            StatementKind::Insert(insert) => {
                let table = self.known(&insert.table, catalog)?.to_owned();
                self.takes_rows(&insert.table, catalog)?;
                let query = self.query(&insert.source, statement.span, catalog).await?;
                self.check_inserted(insert, &query, catalog)?;
                Ok(Bound::Insert {
                    table,
                    columns: insert.columns.iter().map(|column| column.value.clone()).collect(),
                    query,
                })
            }
            StatementKind::Update(update) => self.update(update, statement, catalog).await,
            StatementKind::Delete(delete) => self.delete(delete, statement, catalog).await,
            StatementKind::Flush => Ok(Bound::Flush),
        }
    }

    fn takes_rows(&self, name: &Spanned<String>, catalog: &Catalog) -> Result<(), Mistakes> {
        let takes = match catalog.get(&name.value) {
            Some(Relation::Table(_)) => true,
            Some(Relation::Source(source)) => {
                let connector = self.registry.connector(&source.connector);
                connector.is_some_and(|connector| connector.takes_rows)
            }
            _ => false,
        };
        if takes {
            return Ok(());
        }
        let message = format!("`{}` does not take INSERT", name.value);
        Err(vec![Diagnostic::error(SqlState::Unsupported, message, name.span).help(
            "tables of CREATE TABLE do; rows of a topic are written with `zeta replay`",
        )])
    }

    fn create_source(
        &self,
        create: &CreateSource,
        statement: &Statement,
        catalog: &mut Catalog,
    ) -> Result<Bound, Mistakes> {
        let mut mistakes = Vec::new();
        if let Some(done) = self.taken(&create.name, create.if_not_exists, catalog, &mut mistakes) {
            return done;
        }
        check_folder(&create.name, &mut mistakes);
        let options = SourceOptions::of(create, statement, self.registry, &mut mistakes);
        let (mut fields, are_known) = columns::declared(&create.columns, &mut mistakes);
        let declared = fields.len();
        let mut includes = Vec::new();
        for include in &create.includes {
            let Some(connector) = options.connector else { continue };
            if let Some(field) = columns::included(include, connector, &fields, &mut mistakes) {
                includes.push(include.field.value.clone());
                fields.push(field);
            }
        }
        if declared == 0 && are_known {
            let message = format!("`{}` has no columns", create.name.value);
            mistakes.push(
                Diagnostic::error(SqlState::Invalid, message, create.name.span)
                    .help("declare what a record holds, e.g. (symbol VARCHAR, price DOUBLE)"),
            );
        }

        let watermark = create
            .watermark
            .as_ref()
            .and_then(|clause| watermark(clause, &mut fields, are_known, statement, self, &mut mistakes));

        check_close_after(create, &mut mistakes);
        let definition = SourceDefinition {
            name: create.name.value.clone(),
            schema: Arc::new(Schema::new(fields)),
            declared,
            includes,
            watermark,
            connector: options
                .connector
                .map_or_else(String::new, |connector| connector.name.to_owned()),
            connector_options: options.of_connector,
            format: options.general.get("format").unwrap_or("json").to_owned(),
            format_options: options.of_format,
            trigger: Trigger::of(
                parse_duration(options.general.get("trigger").unwrap_or("100 ms")).unwrap_or_default(),
            ),
            idle_timeout: parse_duration(options.general.get("idle_timeout").unwrap_or("30 seconds"))
                .unwrap_or_default(),
            close_after: options
                .general
                .get("close_after")
                .and_then(|after| parse_duration(after).ok()),
            recovery_time_max: parse_duration(options.general.get("recovery_time_max").unwrap_or("2 seconds"))
                .unwrap_or_default(),
            event_time_ahead_max: parse_duration(options.general.get("event_time_ahead_max").unwrap_or("1 hour"))
                .unwrap_or_default(),
            sql: statement.text.clone(),
        };
        self.created(Relation::Source(Arc::new(definition)), mistakes, catalog)
    }

    async fn create_external_table(
        &self,
        create: &CreateExternalTable,
        statement: &Statement,
        catalog: &mut Catalog,
    ) -> Result<Bound, Mistakes> {
        let mut mistakes = Vec::new();
        if let Some(done) = self.taken(&create.name, create.if_not_exists, catalog, &mut mistakes) {
            return done;
        }
        if !create.format.value.eq_ignore_ascii_case("parquet") {
            let message = format!("files stored as {} cannot be read", create.format.value);
            mistakes.push(
                Diagnostic::error(SqlState::Unsupported, message, create.format.span)
                    .help("STORED AS PARQUET is supported"),
            );
        }
        no_options(&create.options, &mut mistakes);
        if let Some(first) = create.columns.first() {
            mistakes.push(
                Diagnostic::error(
                    SqlState::Unsupported,
                    "declared columns of an external table are not supported",
                    first.name.span,
                )
                .help("leave the list out: Parquet files say what they hold"),
            );
        }
        let mut file_name_column = None;
        for include in &create.includes {
            if include.field.value == "file_name" {
                file_name_column = Some(include.name.value.clone());
            } else {
                let message = format!("an external table has no field `{}` to include", include.field.value);
                mistakes.push(
                    Diagnostic::error(SqlState::UnknownColumn, message, include.field.span).help("fields: file_name"),
                );
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let open = OpenExternal {
            name: create.name.value.clone(),
            location: create.location.value.clone(),
            file_name_column,
        };
        match (self.registry.open_external)(open).await {
            Ok(table) => {
                let definition = ExternalDefinition {
                    name: create.name.value.clone(),
                    location: create.location.value.clone(),
                    table,
                    sql: statement.text.clone(),
                };
                self.created(Relation::External(Arc::new(definition)), mistakes, catalog)
            }
            Err(error) => {
                let state = match error {
                    Error::External { .. } => SqlState::Unavailable,
                    _ => SqlState::Invalid,
                };
                let mistake = Diagnostic::error(state, error.to_string(), create.location.span);
                Err(vec![mistake])
            }
        }
    }

    async fn create_view(
        &self,
        create: &CreateView,
        statement: &Statement,
        catalog: &mut Catalog,
    ) -> Result<Bound, Mistakes> {
        let mut mistakes = Vec::new();
        if let Some(done) = self.taken(&create.name, create.if_not_exists, catalog, &mut mistakes) {
            return done;
        }
        // Bound to names, not to rows: the view is computed anew over what they hold when it is read.
        let session = self.session(tables::definitions_and_sides(catalog), catalog);
        let plan = self.plan(&session, &create.query, create.query_span, catalog).await?;
        let definition = ViewDefinition {
            name: create.name.value.clone(),
            reads: scanned(&plan),
            plan,
            parts: parts_of_query(&create.query, catalog),
            sql: statement.text.clone(),
        };
        self.created(Relation::View(Arc::new(definition)), mistakes, catalog)
    }

    pub(super) async fn create_materialized_view(
        &self,
        create: &CreateMaterializedView,
        statement: &Statement,
        catalog: &mut Catalog,
    ) -> Result<Bound, Mistakes> {
        let mut mistakes = Vec::new();
        if let Some(done) = self.taken(&create.name, create.if_not_exists, catalog, &mut mistakes) {
            return done;
        }
        let options = view_options(&create.options, &mut mistakes);
        let session = self.session(tables::definitions(catalog), catalog);
        let plan = match self.plan(&session, &create.query, create.query_span, catalog).await {
            Ok(plan) => plan,
            Err(more) => {
                mistakes.extend(more);
                return Err(mistakes);
            }
        };
        let emit = create.emit.as_ref().map_or(Emit::Changes, |emit| emit.value.clone());
        let emit_span = create.emit.as_ref().map_or(create.query_span, |emit| emit.span);
        let scope = Scope {
            session: &session,
            catalog,
            places: self.places,
            text: self.text,
            statement: create.query_span,
            emit_span,
            settings: ViewSettings {
                lateness_ns: options
                    .get("allowed_lateness")
                    .and_then(|lateness| parse_duration(lateness).ok())
                    .map_or(0, |lateness| i64::try_from(lateness.as_nanos()).unwrap_or(i64::MAX)),
                allows_unbounded_state: options.get("unbounded_state") == Some("allow"),
            },
        };
        let stream = StreamPlan::of(&plan, &emit, &scope);
        let stream = match stream {
            Ok(stream) => stream,
            Err(more) => {
                mistakes.extend(more.into_iter().map(|mut mistake| {
                    mistake.span = mistake.span.or(Some(create.query_span));
                    mistake
                }));
                return Err(mistakes);
            }
        };
        let has_time = stream.time.is_some();
        check_panel(&create.options, &stream.schema, has_time, &mut mistakes);
        let input = stream.inputs.first().expect("a dataflow has an input");
        let source = catalog.source_below(&input.relation).expect("bound above").to_owned();
        let definition = MaterializedDefinition {
            name: create.name.value.clone(),
            reads: scanned(&plan),
            plan,
            stream,
            source,
            emit,
            options,
            sql: statement.text.clone(),
        };
        self.created(Relation::Materialized(Arc::new(definition)), mistakes, catalog)
    }

    fn drop(&self, drop: &Drop, catalog: &mut Catalog) -> Result<Bound, Mistakes> {
        let Some(relation) = catalog.get(&drop.name.value) else {
            return if drop.if_exists {
                Ok(Bound::Nothing)
            } else {
                self.known(&drop.name, catalog).map(|_| Bound::Nothing)
            };
        };
        let fits = matches!(
            (drop.kind, relation),
            (DropKind::Source, Relation::Source(_))
                | (DropKind::Table, Relation::External(_) | Relation::Table(_))
                | (DropKind::View, Relation::View(_))
                | (DropKind::MaterializedView, Relation::Materialized(_))
                | (DropKind::Sink, Relation::Sink(_))
        );
        if !fits {
            let message = format!("`{}` is a {}", drop.name.value, relation.kind());
            let words = match relation {
                Relation::Source(_) => "SOURCE",
                Relation::External(_) | Relation::Table(_) => "TABLE",
                Relation::View(_) => "VIEW",
                Relation::Materialized(_) => "MATERIALIZED VIEW",
                Relation::Sink(_) => "SINK",
            };
            return Err(vec![
                Diagnostic::error(SqlState::Invalid, message, drop.name.span)
                    .help(format!("write DROP {words} {}", drop.name.value)),
            ]);
        }
        // A sink goes with the view of its own query.
        let own_view = match relation {
            Relation::Sink(sink) => sink.own_view().map(str::to_owned),
            _ => None,
        };
        let going: Vec<&String> = std::iter::once(&drop.name.value).chain(&own_view).collect();
        for name in &going {
            let mut readers = catalog.readers_of(name);
            readers.retain(|reader| *reader != drop.name.value);
            if !readers.is_empty() {
                let message = format!("`{name}` is read by {}", readers.join(", "));
                return Err(vec![
                    Diagnostic::error(SqlState::Invalid, message, drop.name.span).help("drop those first"),
                ]);
            }
        }
        going.into_iter().for_each(|name| catalog.remove(name));
        Ok(Bound::Drop(drop.name.value.clone()))
    }

    pub(super) async fn query(
        &self,
        query: &ast::Query,
        span: Span,
        catalog: &Catalog,
    ) -> Result<LogicalPlan, Mistakes> {
        let session = self.session(tables::rows_of_now(catalog, &self.snapshots), catalog);
        self.plan(&session, query, span, catalog).await
    }

    async fn plan(
        &self,
        session: &SessionState,
        query: &ast::Query,
        span: Span,
        catalog: &Catalog,
    ) -> Result<LogicalPlan, Mistakes> {
        let wrong_calls = check_calls(query, &catalog.functions, self.places);
        if !wrong_calls.is_empty() {
            return Err(wrong_calls);
        }
        if let Some(mistake) = too_many(parts_of_query(query, catalog), span) {
            return Err(vec![mistake]);
        }
        match checked_plan(session, query).await {
            Ok(plan) => Ok(plan),
            Err(error) => {
                let place = self.place_of_argument(session, query, &error, catalog).await;
                let names: Vec<&str> = catalog.names().collect();
                let scene = Scene {
                    session,
                    ..self.scene(place.unwrap_or(span), &names)
                };
                Err(diagnostics_of(&error, &scene))
            }
        }
    }

    /// Where the argument stands that an error is about, where it is about one.
    async fn place_of_argument(
        &self,
        session: &SessionState,
        query: &ast::Query,
        error: &DataFusionError,
        catalog: &Catalog,
    ) -> Option<Span> {
        WrongArgument::of(error)?;
        for real in 1..=CALLS_TRIED_MAX {
            let (query, call) = with_calls(query, &catalog.functions, real)?;
            if let Err(error) = checked_plan(session, &query).await
                && let Some(wrong) = WrongArgument::of(&error)
                && wrong.is_about(&call)
            {
                return (self.places)(wrong.place(&call)).map(|place| self.closed(place));
            }
        }
        None
    }

    /// A place that ends inside brackets, up to where they are closed: the tree knows no place of the last one.
    fn closed(&self, place: Span) -> Span {
        let text = self.text.get(place.start..place.end).unwrap_or_default();
        let open = text.matches('(').count().saturating_sub(text.matches(')').count());
        let behind = self.text.get(place.end..).unwrap_or_default();
        let closing = behind.match_indices(')').take(open).last();
        Span::new(place.start, place.end + closing.map_or(0, |(at, _)| at + 1))
    }

    /// The tables, and the functions that were created.
    fn session(&self, tables: Tables, catalog: &Catalog) -> SessionState {
        let mut session = session_over(self.base, tables);
        catalog.functions.register_in(&mut session);
        session
    }

    /// The function of a name that no relation has.
    fn only_function(&self, name: &Spanned<String>, catalog: &Catalog) -> Option<Arc<FunctionDefinition>> {
        let is_relation = catalog.get(&name.value).is_some() || self.snapshots.contains_key(&name.value);
        catalog.functions.get(&name.value).filter(|_| !is_relation).cloned()
    }

    pub(super) fn created(
        &self,
        relation: Relation,
        mistakes: Mistakes,
        catalog: &mut Catalog,
    ) -> Result<Bound, Mistakes> {
        if catalog.get(relation.name()).is_none() {
            catalog.add(relation.clone());
        }
        if mistakes.is_empty() {
            Ok(Bound::Create(relation))
        } else {
            Err(mistakes)
        }
    }

    /// Whether the name can be used: `Some` ends the statement.
    pub(super) fn taken(
        &self,
        name: &Spanned<String>,
        if_not_exists: bool,
        catalog: &Catalog,
        mistakes: &mut Mistakes,
    ) -> Option<Result<Bound, Mistakes>> {
        if let Some(suffix) = SIDE_SUFFIXES.iter().find(|suffix| name.value.ends_with(**suffix)) {
            let message = format!("names that end in `{suffix}` belong to side outputs");
            mistakes.push(Diagnostic::error(SqlState::Invalid, message, name.span).help("choose another name"));
        }
        let existing = catalog.get(&name.value)?;
        if if_not_exists {
            return Some(Ok(Bound::Nothing));
        }
        let message = format!("`{}` exists already: a {}", name.value, existing.kind());
        Some(Err(vec![
            Diagnostic::error(SqlState::Duplicate, message, name.span)
                .help("choose another name, or add IF NOT EXISTS"),
        ]))
    }

    pub(super) fn known<'b>(&self, name: &'b Spanned<String>, catalog: &Catalog) -> Result<&'b str, Mistakes> {
        if catalog.get(&name.value).is_some() || self.snapshots.contains_key(&name.value) {
            return Ok(&name.value);
        }
        let names: Vec<&str> = catalog.names().collect();
        let mistake = Diagnostic::error(
            SqlState::UnknownTable,
            format!("no table or view named `{}`", name.value),
            name.span,
        );
        Err(vec![match suggest::nearest(&name.value, names.iter().copied()) {
            Some(near) => mistake.help(format!("did you mean `{near}`?")),
            None if names.is_empty() => mistake.help("nothing is defined yet"),
            None => mistake.help(format!("there are: {}", names.join(", "))),
        }])
    }

    pub(super) fn mistakes(&self, error: &DataFusionError, span: Span, tables: &[&str]) -> Mistakes {
        diagnostics_of(error, &self.scene(span, tables))
    }

    fn scene<'b>(&'b self, statement: Span, tables: &'b [&'b str]) -> Scene<'b> {
        Scene {
            places: self.places,
            statement,
            text: self.text,
            tables,
            session: self.base,
        }
    }
}

async fn checked_plan(session: &SessionState, query: &ast::Query) -> Result<LogicalPlan, DataFusionError> {
    let statement = PlannerStatement::Statement(Box::new(ast::Statement::Query(Box::new(query.clone()))));
    let plan = datafusion_entry::logical_plan(session, statement).await?;
    // Types are checked here, so that a mistake is found before anything runs.
    let analyzer = datafusion::optimizer::Analyzer::new();
    analyzer.execute_and_check(plan.clone(), session.config_options(), |_, _| {})?;
    Ok(plan)
}
