//! Statements against the catalog: each either becomes a definition or yields all that is wrong with it.
//!
//! Binding goes on after a mistake with whatever the broken statement declared, so that one mistake is reported once.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::{
    catalog::{TableProvider, view::ViewTable},
    common::{
        DFSchema,
        tree_node::{Transformed, TreeNodeRecursion},
    },
    datasource::provider_as_source,
    execution::context::SessionState,
    logical_expr::{ExprSchemable, LogicalPlan, TableScan, cast},
    sql::{
        parser::Statement as PlannerStatement,
        sqlparser::ast::{self, ExactNumberInfo},
    },
};

use crate::{
    sql::{
        Column, CreateExternalTable, CreateMaterializedView, CreateSource, CreateView, Diagnostic, Drop, DropKind,
        Emit, Include, Span, Spanned, SqlOption, SqlState, Statement, StatementKind, suggest,
    },
    types::{OptionKind, OptionSpec, Options, one_of, parse_duration},
};

use super::{
    catalog::{
        Catalog, ExternalDefinition, MaterializedDefinition, Relation, SourceDefinition, Trigger, ViewDefinition,
        WatermarkDefinition, bad_schema, late_schema,
    },
    mistakes::{Places, diagnostics_of, type_name},
    registry::{ConnectorSpec, OpenExternal, Registry, SOURCE_OPTIONS},
    session::{StreamRelation, session_over},
    stream::{Scope, StreamPlan},
};

/// Options of a materialized view: how the dashboard draws it.
pub const VIEW_OPTIONS: &[OptionSpec] = &[
    OptionSpec::text("panel", "how the dashboard draws it").kind(OptionKind::Choice(&[
        "candlestick",
        "series",
        "stat",
        "table",
    ])),
    OptionSpec::text("panel.title", "what stands above it"),
    OptionSpec::text("panel.unit", "the unit of its numbers"),
];

const SIDE_SUFFIXES: [&str; 3] = ["$bad", "$late", "$errors"];

/// What a statement does.
pub enum Bound {
    /// Adds to the catalog.
    Create(Relation),
    /// There already: IF NOT EXISTS.
    Nothing,
    Drop(String),
    /// Checked and planned; not executed.
    Query(LogicalPlan),
    Explain {
        relation: String,
        is_verbose: bool,
    },
    ExplainQuery(LogicalPlan, bool),
    ExplainCreate(Relation, bool),
    Show(String),
    Describe(String),
    Insert {
        table: String,
        columns: Vec<String>,
        query: LogicalPlan,
    },
}

pub struct Binder<'a> {
    pub registry: &'a Registry,
    pub base: &'a SessionState,
    /// The whole text that the statement stands in.
    pub text: &'a str,
    pub places: Places<'a>,
    /// Tables for queries by name: views at one epoch. Names that are absent are bound by their definitions.
    pub snapshots: BTreeMap<String, Arc<dyn TableProvider>>,
}

type Mistakes = Vec<Diagnostic>;

/// What plain views are computed over.
#[derive(Clone, Copy)]
enum Rows {
    None,
    Snapshots,
}

impl Binder<'_> {
    /// Binds one statement. On mistakes, `catalog` may hold what the statement declared as far as it was understood, so that those
    /// after it are bound too; the caller throws such a catalog away.
    pub async fn bind(&self, statement: &Statement, catalog: &mut Catalog) -> Result<Bound, Mistakes> {
        match &statement.kind {
            StatementKind::CreateSource(create) => self.create_source(create, statement, catalog),
            StatementKind::CreateExternalTable(create) => self.create_external_table(create, statement, catalog).await,
            StatementKind::CreateView(create) => self.create_view(create, statement, catalog).await,
            StatementKind::CreateMaterializedView(create) => {
                self.create_materialized_view(create, statement, catalog).await
            }
            StatementKind::Drop(drop) => self.drop(drop, catalog),
            StatementKind::Query(query) => Ok(Bound::Query(self.query(query, statement.span, catalog).await?)),
            StatementKind::Show(what) => Ok(Bound::Show(what.value.clone())),
            StatementKind::Describe(name) => self.known(name, catalog).map(|name| Bound::Describe(name.to_owned())),
            StatementKind::Explain(explain) => match &explain.target {
                crate::sql::ExplainTarget::Name(name) => {
                    let relation = self.known(name, catalog)?.to_owned();
                    Ok(Bound::Explain {
                        relation,
                        is_verbose: explain.is_verbose,
                    })
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
                let is_memory = catalog
                    .source(&table)
                    .is_some_and(|source| source.connector == "memory");
                if !is_memory {
                    return Err(vec![
                        Diagnostic::error(
                            SqlState::Unsupported,
                            format!("`{table}` does not take INSERT"),
                            insert.table.span,
                        )
                        .help("only sources with connector = 'memory' do; write to the topic with `zeta replay`"),
                    ]);
                }
                let query = self.query(&insert.source, statement.span, catalog).await?;
                Ok(Bound::Insert {
                    table,
                    columns: insert.columns.iter().map(|column| column.value.clone()).collect(),
                    query,
                })
            }
        }
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
        let (connector, settings) = self.source_options(create, statement, &mut mistakes);

        let mut fields: Vec<Field> = Vec::new();
        let mut columns_are_known = true;
        for column in &create.columns {
            if fields.iter().any(|field| *field.name() == column.name.value) {
                let message = format!("two columns are named `{}`", column.name.value);
                mistakes
                    .push(Diagnostic::error(SqlState::Duplicate, message, column.name.span).help("rename one of them"));
                continue;
            }
            match column_type(column) {
                Ok(data_type) => fields.push(Field::new(&column.name.value, data_type, column.is_nullable)),
                Err(mistake) => {
                    mistakes.push(*mistake);
                    columns_are_known = false;
                }
            }
        }
        let declared = fields.len();
        let mut includes = Vec::new();
        for include in &create.includes {
            let Some(connector) = connector else { continue };
            if let Some(field) = self.include(include, connector, &fields, &mut mistakes) {
                includes.push(include.field.value.clone());
                fields.push(field);
            }
        }
        if declared == 0 && columns_are_known {
            let message = format!("`{}` has no columns", create.name.value);
            mistakes.push(
                Diagnostic::error(SqlState::Invalid, message, create.name.span)
                    .help("declare what a record holds, e.g. (symbol VARCHAR, price DOUBLE)"),
            );
        }

        let mut watermark = None;
        if let Some(clause) = &create.watermark {
            let column = fields.iter().position(|field| *field.name() == clause.column.value);
            match column {
                Some(column) if is_time(fields[column].data_type()) => {
                    // A row without an event time would be in no window and in no history: it is a bad record.
                    fields[column] = fields[column].clone().with_nullable(false);
                    let schema = Arc::new(Schema::new(fields.clone()));
                    match self.watermark(clause, column, &schema, statement) {
                        Ok(definition) => watermark = Some(definition),
                        Err(more) => mistakes.extend(more),
                    }
                }
                Some(column) => {
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
                    let mut mistake = Diagnostic::error(SqlState::TypeMismatch, message, clause.column.span)
                        .label("expected TIMESTAMP");
                    if !times.is_empty() {
                        mistake = mistake.help(format!("TIMESTAMP columns: {}", times.join(", ")));
                    }
                    mistakes.push(mistake);
                }
                None if columns_are_known => mistakes.push(unknown_column(
                    &clause.column,
                    fields.iter().map(|field| field.name().as_str()),
                )),
                None => {}
            }
        }

        let (general, connector_options, format_options) = settings;
        let definition = SourceDefinition {
            name: create.name.value.clone(),
            schema: Arc::new(Schema::new(fields)),
            declared,
            includes,
            watermark,
            connector: connector.map_or_else(String::new, |connector| connector.name.to_owned()),
            connector_options,
            format: general.get("format").unwrap_or("json").to_owned(),
            format_options,
            trigger: Trigger::of(parse_duration(general.get("trigger").unwrap_or("100 ms")).unwrap_or_default()),
            idle_timeout: parse_duration(general.get("idle_timeout").unwrap_or("30 seconds")).unwrap_or_default(),
            event_time_ahead_max: parse_duration(general.get("event_time_ahead_max").unwrap_or("1 hour"))
                .unwrap_or_default(),
            sql: statement.text.clone(),
        };
        self.created(Relation::Source(Arc::new(definition)), mistakes, catalog)
    }

    /// Checks all options of a source and sorts them by who takes them.
    fn source_options(
        &self,
        create: &CreateSource,
        statement: &Statement,
        mistakes: &mut Mistakes,
    ) -> (Option<&ConnectorSpec>, (Options, Options, Options)) {
        let value = |name: &str| {
            create
                .options
                .iter()
                .find(|option| option.key.value.eq_ignore_ascii_case(name))
                .map(|option| &option.value)
        };
        let names = |names: &[&'static str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let connector_names: Vec<&'static str> = self
            .registry
            .connectors
            .iter()
            .map(|connector| connector.name)
            .collect();
        let connector = value("connector").and_then(|given| {
            let found = self.registry.connector(&given.value);
            if found.is_none() {
                mistakes.push(unknown_choice("connector", given, &names(&connector_names)));
            }
            found
        });
        let format_names: Vec<&'static str> = self.registry.formats.iter().map(|format| format.name).collect();
        let format = match value("format") {
            None => self.registry.format("json"),
            Some(given) => {
                let found = self.registry.format(&given.value);
                if found.is_none() {
                    mistakes.push(unknown_choice("format", given, &names(&format_names)));
                }
                found
            }
        };
        let connector_specs = connector.map_or(&[] as &[OptionSpec], |connector| connector.options);
        let format_specs = format.map_or(&[] as &[OptionSpec], |format| format.options);
        let known: Vec<&OptionSpec> = SOURCE_OPTIONS
            .iter()
            .chain(connector_specs)
            .chain(format_specs)
            .collect();
        let prefixes = connector.map_or(&[] as &[&str], |connector| connector.open_prefixes);
        let is_open = |key: &str| prefixes.iter().any(|prefix| key.starts_with(prefix));
        // Without its connector an option cannot be told wrong.
        let is_judged = connector.is_some() && format.is_some();
        check_options(&create.options, &known, is_judged, &is_open, mistakes);
        for spec in known.iter().filter(|spec| spec.is_required) {
            let is_given = create.options.iter().any(|option| spec.answers_to(&option.key.value));
            if !is_given && (spec.name == "connector" || connector.is_some()) {
                let message = format!(
                    "source `{}` has no option `{}`: {}",
                    create.name.value, spec.name, spec.help
                );
                let help = match spec.name {
                    "connector" => format!("add to WITH: connector = {}", one_of(&connector_names)),
                    name => format!("add to WITH: '{name}' = '…'"),
                };
                let span = if create.options.is_empty() {
                    statement.span
                } else {
                    create.name.span
                };
                mistakes.push(Diagnostic::error(SqlState::InvalidOption, message, span).help(help));
            }
        }
        let of = |specs: &'static [OptionSpec], takes_open: bool| {
            let given = create
                .options
                .iter()
                .filter(|option| {
                    specs.iter().any(|spec| spec.answers_to(&option.key.value))
                        || (takes_open && is_open(&option.key.value))
                })
                .map(|option| (option.key.value.clone(), option.value.value.clone()));
            Options::resolve(specs, given)
        };
        (
            connector,
            (
                of(SOURCE_OPTIONS, false),
                of(connector_specs_static(connector), true),
                of(format_specs_static(format), false),
            ),
        )
    }

    fn include(
        &self,
        include: &Include,
        connector: &ConnectorSpec,
        fields: &[Field],
        mistakes: &mut Mistakes,
    ) -> Option<Field> {
        let Some(spec) = connector.fields.iter().find(|field| field.name == include.field.value) else {
            let names: Vec<&str> = connector.fields.iter().map(|field| field.name).collect();
            let message = format!("{} has no field `{}` to include", connector.name, include.field.value);
            let mut mistake = Diagnostic::error(SqlState::UnknownColumn, message, include.field.span);
            if let Some(near) = suggest::nearest(&include.field.value, names.iter().copied()) {
                mistake = mistake.help(format!("did you mean `{near}`?"));
            }
            mistakes.push(match names.is_empty() {
                true => mistake.help(format!("connector '{}' has no such fields", connector.name)),
                false => mistake.help(format!("fields: {}", names.join(", "))),
            });
            return None;
        };
        if fields.iter().any(|field| *field.name() == include.name.value) {
            let message = format!("two columns are named `{}`", include.name.value);
            mistakes.push(
                Diagnostic::error(SqlState::Duplicate, message, include.name.span)
                    .help("give the field another name with AS"),
            );
            return None;
        }
        Some(Field::new(
            &include.name.value,
            spec.data_type.clone(),
            spec.is_nullable,
        ))
    }

    fn watermark(
        &self,
        clause: &crate::sql::WatermarkClause,
        column: usize,
        schema: &SchemaRef,
        statement: &Statement,
    ) -> Result<WatermarkDefinition, Mistakes> {
        let name = &clause.column.value;
        let df_schema =
            DFSchema::try_from(schema.as_ref().clone()).map_err(|e| self.mistakes(&e, statement.span, &[]))?;
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
                let expression = self
                    .base
                    .create_logical_expr_from_sql_expr(aliased, &df_schema)
                    .map_err(|e| self.mistakes(&e, written.span, &[]))?;
                (expression, written.value.to_string())
            }
        };
        let span = clause
            .expression
            .as_ref()
            .map_or(clause.column.span, |written| written.span);
        let data_type = expression
            .get_type(&df_schema)
            .map_err(|e| self.mistakes(&e, span, &[]))?;
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
        let expression = self
            .base
            .create_physical_expr(expression, &df_schema)
            .map_err(|e| self.mistakes(&e, span, &[]))?;
        Ok(WatermarkDefinition {
            column,
            expression,
            text,
        })
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
        check_options(&create.options, &[], true, &|_| false, &mut mistakes);
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
            Err(error) => Err(vec![Diagnostic::error(
                SqlState::Invalid,
                error.to_string(),
                create.location.span,
            )]),
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
        let mut tables = self.definitions(catalog, Rows::None);
        tables.extend(side_outputs(catalog));
        let session = session_over(self.base, tables);
        let plan = self.plan(&session, &create.query, create.query_span, catalog).await?;
        let definition = ViewDefinition {
            name: create.name.value.clone(),
            reads: scanned(&plan),
            plan,
            sql: statement.text.clone(),
        };
        self.created(Relation::View(Arc::new(definition)), mistakes, catalog)
    }

    async fn create_materialized_view(
        &self,
        create: &CreateMaterializedView,
        statement: &Statement,
        catalog: &mut Catalog,
    ) -> Result<Bound, Mistakes> {
        let mut mistakes = Vec::new();
        if let Some(done) = self.taken(&create.name, create.if_not_exists, catalog, &mut mistakes) {
            return done;
        }
        let known: Vec<&OptionSpec> = VIEW_OPTIONS.iter().collect();
        check_options(&create.options, &known, true, &|_| false, &mut mistakes);
        let session = session_over(self.base, self.definitions(catalog, Rows::None));
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
        let source = match catalog.get(&stream.upstream).expect("bound above") {
            Relation::Materialized(view) => view.source.clone(),
            other => other.name().to_owned(),
        };
        let definition = MaterializedDefinition {
            name: create.name.value.clone(),
            reads: scanned(&plan),
            plan,
            stream,
            source,
            emit,
            options: create
                .options
                .iter()
                .map(|option| (option.key.value.clone(), option.value.value.clone()))
                .collect(),
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
                | (DropKind::Table, Relation::External(_))
                | (DropKind::View, Relation::View(_))
                | (DropKind::MaterializedView, Relation::Materialized(_))
        );
        if !fits {
            let message = format!("`{}` is a {}", drop.name.value, relation.kind());
            let words = match relation {
                Relation::Source(_) => "SOURCE",
                Relation::External(_) => "TABLE",
                Relation::View(_) => "VIEW",
                Relation::Materialized(_) => "MATERIALIZED VIEW",
            };
            return Err(vec![
                Diagnostic::error(SqlState::Invalid, message, drop.name.span)
                    .help(format!("write DROP {words} {}", drop.name.value)),
            ]);
        }
        let readers = catalog.readers_of(&drop.name.value);
        if !readers.is_empty() {
            let message = format!("`{}` is read by {}", drop.name.value, readers.join(", "));
            return Err(vec![
                Diagnostic::error(SqlState::Invalid, message, drop.name.span).help("drop those first"),
            ]);
        }
        catalog.remove(&drop.name.value);
        Ok(Bound::Drop(drop.name.value.clone()))
    }

    async fn query(&self, query: &ast::Query, span: Span, catalog: &Catalog) -> Result<LogicalPlan, Mistakes> {
        let mut tables = self.definitions(catalog, Rows::Snapshots);
        tables.extend(
            self.snapshots
                .iter()
                .map(|(name, table)| (name.clone(), Arc::clone(table))),
        );
        let session = session_over(self.base, tables);
        self.plan(&session, query, span, catalog).await
    }

    async fn plan(
        &self,
        session: &SessionState,
        query: &ast::Query,
        span: Span,
        catalog: &Catalog,
    ) -> Result<LogicalPlan, Mistakes> {
        let statement = PlannerStatement::Statement(Box::new(ast::Statement::Query(Box::new(query.clone()))));
        let names: Vec<&str> = catalog.names().collect();
        let plan = datafusion_entry::logical_plan(session, statement)
            .await
            .map_err(|e| self.mistakes(&e, span, &names))?;
        // Types are checked here, so that a mistake is found before anything runs.
        let analyzer = datafusion::optimizer::Analyzer::new();
        analyzer
            .execute_and_check(plan.clone(), session.config_options(), |_, _| {})
            .map_err(|e| self.mistakes(&e, span, &names))?;
        Ok(plan)
    }

    /// Every relation by its definition: sources and materialized views without rows, plain views over what `rows` says.
    fn definitions(&self, catalog: &Catalog, rows: Rows) -> BTreeMap<String, Arc<dyn TableProvider>> {
        catalog
            .iter()
            .map(|relation| {
                let table: Arc<dyn TableProvider> = match relation {
                    Relation::Source(source) => {
                        let views: Vec<&str> = catalog.readers_of(&source.name);
                        let refusal = match views.as_slice() {
                            [] => format!(
                                "`{}` is a source and keeps no rows: make a materialized view of it",
                                source.name
                            ),
                            views => format!(
                                "`{}` is a source and keeps no rows: query {}",
                                source.name,
                                views.join(" or ")
                            ),
                        };
                        Arc::new(StreamRelation::new(&source.name, Arc::clone(&source.schema), refusal))
                    }
                    Relation::Materialized(view) => {
                        let refusal = format!("`{}` has not started yet", view.name);
                        Arc::new(StreamRelation::new(
                            &view.name,
                            Arc::clone(&view.stream.schema),
                            refusal,
                        ))
                    }
                    Relation::External(table) => Arc::clone(&table.table),
                    Relation::View(view) => {
                        let plan = match rows {
                            Rows::None => view.plan.clone(),
                            Rows::Snapshots => self.over_snapshots(&view.plan),
                        };
                        Arc::new(ViewTable::new(plan, Some(view.sql.clone())))
                    }
                };
                (relation.name().to_owned(), table)
            })
            .collect()
    }

    /// The plan of a plain view over the rows of now.
    fn over_snapshots(&self, plan: &LogicalPlan) -> LogicalPlan {
        let bound = plan.clone().transform_up_with_subqueries(|node| {
            let LogicalPlan::TableScan(scan) = &node else {
                return Ok(Transformed::no(node));
            };
            let Some(table) = self.snapshots.get(scan.table_name.table()) else {
                return Ok(Transformed::no(node));
            };
            let scan = TableScan {
                source: provider_as_source(Arc::clone(table)),
                ..scan.clone()
            };
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        });
        bound.expect("the function cannot fail").data
    }

    fn created(&self, relation: Relation, mistakes: Mistakes, catalog: &mut Catalog) -> Result<Bound, Mistakes> {
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
    fn taken(
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

    fn known<'b>(&self, name: &'b Spanned<String>, catalog: &Catalog) -> Result<&'b str, Mistakes> {
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

    fn mistakes(&self, error: &datafusion::common::DataFusionError, span: Span, tables: &[&str]) -> Mistakes {
        diagnostics_of(error, self.places, span, self.text, tables)
    }
}

/// `<source>$bad` and `<view>$late`, without rows.
fn side_outputs(catalog: &Catalog) -> BTreeMap<String, Arc<dyn TableProvider>> {
    let table = |name: String, schema: SchemaRef| {
        let refusal = format!("`{name}` has not started yet");
        let table: Arc<dyn TableProvider> = Arc::new(StreamRelation::new(&name, schema, refusal));
        (name, table)
    };
    let of = |relation: &Relation| match relation {
        Relation::Source(source) => Some(table(format!("{}$bad", source.name), bad_schema())),
        Relation::Materialized(view) => {
            let rows = view.stream.late_rows.as_ref()?;
            Some(table(format!("{}$late", view.name), late_schema(rows)))
        }
        Relation::External(_) | Relation::View(_) => None,
    };
    catalog.iter().filter_map(of).collect()
}

fn connector_specs_static(connector: Option<&ConnectorSpec>) -> &'static [OptionSpec] {
    connector.map_or(&[], |connector| connector.options)
}

fn format_specs_static(format: Option<&super::registry::FormatSpec>) -> &'static [OptionSpec] {
    format.map_or(&[], |format| format.options)
}

fn check_options(
    given: &[SqlOption],
    known: &[&OptionSpec],
    is_judged: bool,
    is_open: &dyn Fn(&str) -> bool,
    mistakes: &mut Mistakes,
) {
    for (index, option) in given.iter().enumerate() {
        let key = &option.key.value;
        let spec = known.iter().find(|spec| spec.answers_to(key));
        match spec {
            Some(spec) => {
                let is_twice = given[..index].iter().any(|earlier| spec.answers_to(&earlier.key.value));
                if is_twice {
                    let message = format!("option `{}` is given twice", spec.name);
                    mistakes.push(
                        Diagnostic::error(SqlState::InvalidOption, message, option.key.span).help("remove one of them"),
                    );
                }
                if let Err(reason) = spec.check(&option.value.value) {
                    let mistake = Diagnostic::error(SqlState::InvalidOption, reason, option.value.span);
                    let words = match spec.kind {
                        OptionKind::Choice(words) => words,
                        _ => &[],
                    };
                    mistakes.push(match suggest::nearest(&option.value.value, words.iter().copied()) {
                        Some(near) => mistake.help(format!("did you mean '{near}'?")),
                        None => mistake.help(format!("`{}`: {}", spec.name, spec.help)),
                    });
                }
            }
            None if is_open(key) || !is_judged => {}
            None => {
                let names: Vec<&str> = known.iter().map(|spec| spec.name).collect();
                let mistake = Diagnostic::error(
                    SqlState::InvalidOption,
                    format!("no option named `{key}`"),
                    option.key.span,
                );
                mistakes.push(match suggest::nearest(key, names.iter().copied()) {
                    Some(near) => mistake.help(format!("did you mean `{near}`?")),
                    None if names.is_empty() => mistake.help("this statement takes no options"),
                    None => mistake.help(format!("options: {}", names.join(", "))),
                });
            }
        }
    }
}

fn unknown_choice(what: &str, given: &Spanned<String>, names: &[String]) -> Diagnostic {
    let mistake = Diagnostic::error(
        SqlState::InvalidOption,
        format!("no {what} named '{}'", given.value),
        given.span,
    );
    match suggest::nearest(&given.value, names.iter().map(String::as_str)) {
        Some(near) => mistake.help(format!("did you mean '{near}'?")),
        None => mistake.help(format!("there are: {}", names.join(", "))),
    }
}

fn unknown_column<'a>(name: &Spanned<String>, columns: impl Iterator<Item = &'a str>) -> Diagnostic {
    let columns: Vec<&str> = columns.collect();
    let mistake = Diagnostic::error(
        SqlState::UnknownColumn,
        format!("no column named `{}`", name.value),
        name.span,
    );
    let mistake = match suggest::nearest(&name.value, columns.iter().copied()) {
        Some(near) => mistake.help(format!("did you mean `{near}`?")),
        None => mistake,
    };
    mistake.help(format!("columns: {}", columns.join(", ")))
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Nanosecond, None))
}

/// Names of the relations that a plan scans, views unfolded or not.
fn scanned(plan: &LogicalPlan) -> Vec<String> {
    let mut names = Vec::new();
    let visited = plan.apply_with_subqueries(|node| {
        let name = match node {
            LogicalPlan::TableScan(scan) => Some(scan.table_name.table()),
            // A plain view stands in a plan as its query under its name.
            LogicalPlan::SubqueryAlias(alias) => Some(alias.alias.table()),
            _ => None,
        };
        // Who reads a side output reads what it belongs to.
        let name = name.map(|name| {
            SIDE_SUFFIXES
                .iter()
                .find_map(|suffix| name.strip_suffix(*suffix))
                .unwrap_or(name)
        });
        if let Some(name) = name
            && !names.iter().any(|known| known == name)
        {
            names.push(name.to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor cannot fail");
    names
}

/// The Arrow type of a declared column.
fn column_type(column: &Column) -> Result<DataType, Box<Diagnostic>> {
    use ast::DataType as Sql;
    let data_type = match &column.data_type.value {
        Sql::Boolean | Sql::Bool => DataType::Boolean,
        Sql::TinyInt(_) => DataType::Int8,
        Sql::SmallInt(_) | Sql::Int2(_) => DataType::Int16,
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) => DataType::Int32,
        Sql::BigInt(_) | Sql::Int8(_) => DataType::Int64,
        Sql::TinyIntUnsigned(_) => DataType::UInt8,
        Sql::SmallIntUnsigned(_) => DataType::UInt16,
        Sql::IntUnsigned(_) | Sql::IntegerUnsigned(_) => DataType::UInt32,
        Sql::BigIntUnsigned(_) => DataType::UInt64,
        Sql::Real | Sql::Float4 | Sql::Float(_) => DataType::Float32,
        Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 => DataType::Float64,
        Sql::Varchar(_)
        | Sql::Text
        | Sql::String(_)
        | Sql::Char(_)
        | Sql::CharVarying(_)
        | Sql::CharacterVarying(_) => DataType::Utf8View,
        Sql::Timestamp(_, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone) | Sql::Datetime(_) => {
            DataType::Timestamp(TimeUnit::Nanosecond, None)
        }
        // An instant in UTC is what TIMESTAMP holds here; an offset in the text is taken into account.
        Sql::Timestamp(..) => DataType::Timestamp(TimeUnit::Nanosecond, None),
        Sql::Date => DataType::Date32,
        Sql::Decimal(info) | Sql::Numeric(info) => match info {
            ExactNumberInfo::None => DataType::Decimal128(38, 10),
            ExactNumberInfo::Precision(precision) if (1..=38).contains(precision) => {
                DataType::Decimal128(*precision as u8, 0)
            }
            ExactNumberInfo::PrecisionAndScale(precision, scale)
                if (1..=38).contains(precision) && 0 <= *scale && *scale as u64 <= *precision =>
            {
                DataType::Decimal128(*precision as u8, *scale as i8)
            }
            _ => {
                return Err(Box::new(
                    Diagnostic::error(
                        SqlState::TypeMismatch,
                        "a DECIMAL has 1 to 38 digits",
                        column.data_type.span,
                    )
                    .help("e.g. DECIMAL(18, 4)"),
                ));
            }
        },
        other => {
            let message = format!("columns of type {other} are not supported");
            let names = [
                "BOOLEAN",
                "SMALLINT",
                "INT",
                "BIGINT",
                "REAL",
                "DOUBLE",
                "DECIMAL(18, 4)",
                "VARCHAR",
                "DATE",
                "TIMESTAMP",
            ];
            let mistake = Diagnostic::error(SqlState::TypeMismatch, message, column.data_type.span);
            return Err(Box::new(
                match suggest::nearest(&other.to_string().to_uppercase(), names) {
                    Some(near) => mistake.help(format!("did you mean {near}?")),
                    None => mistake.help(format!("types: {}", names.join(", "))),
                },
            ));
        }
    };
    Ok(data_type)
}
