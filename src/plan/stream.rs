//! A query over a source or a view as a dataflow: what to decode, which operators in which order, what names a row.
//!
//! ```text
//! LogicalPlan (types coerced, unused columns pruned), from the scan upwards:
//!   scan ─▶ select columns ─▶ filter, project, window … ─▶ aggregate ─▶ filter, project … ─▶ emission
//! ```
//! Whatever has no operator is refused with the reason and the way out; nothing is ignored.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::{
    catalog::TableProvider,
    common::{
        DFSchemaRef, DataFusionError,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::source_as_provider,
    execution::context::SessionState,
    logical_expr::{
        Aggregate, Distinct, Expr, Extension, LogicalPlan, TableScan, Volatility,
        physical_planning_context::PhysicalPlanningContext, utils::conjunction,
    },
    optimizer::{Analyzer, Optimizer, optimize_projections::OptimizeProjections},
    physical_expr::{PhysicalExpr, aggregate::LoweredAggregateBuilder, create_physical_expr},
};

use crate::{
    operator::{
        Aggregation, Chain, Emission, EmitEvery, GroupAggregate, Operator, OutputColumn, Segment, Step,
        WindowAggregate, WindowCloseGate,
    },
    sql::{Diagnostic, Emit, Span, SqlState},
    types::{Result, TumblingWindow},
};

use super::{
    catalog::{Catalog, Relation},
    mistakes::{Places, diagnostics_of},
    session::StreamRelation,
    window::Tumble,
};

/// Where a query stands, and what it can name.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub session: &'a SessionState,
    pub catalog: &'a Catalog,
    pub places: Places<'a>,
    pub text: &'a str,
    pub statement: Span,
    /// Of the EMIT clause, or of the query where there is none.
    pub emit_span: Span,
}

/// How one materialized view is kept up to date.
#[derive(Clone)]
pub struct StreamPlan {
    /// The source or materialized view whose rows it takes.
    pub upstream: String,
    pub reads_source_directly: bool,
    /// The columns of the upstream that are needed, in the order in which the first stage takes them.
    pub source_columns: Vec<usize>,
    pub stages: Vec<Stage>,
    pub schema: SchemaRef,
    /// The columns that name a row; empty when equal rows may stand side by side.
    pub key: Vec<usize>,
    /// The column that charts run along.
    pub time: Option<usize>,
    pub window_end: Option<usize>,
    pub window: Option<TumblingWindow>,
    pub is_append_only: bool,
    /// Rows as the windowed aggregate takes them, for `<view>$late`.
    pub late_rows: Option<SchemaRef>,
}

#[derive(Clone)]
pub enum Stage {
    Segment(Vec<Step>),
    WindowAggregate {
        aggregation: Arc<Aggregation>,
        window_start: usize,
        window: TumblingWindow,
        emission: Emission,
        output: Vec<OutputColumn>,
        schema: SchemaRef,
    },
    GroupAggregate {
        aggregation: Arc<Aggregation>,
        schema: SchemaRef,
    },
    EmitEvery(std::time::Duration),
    WindowCloseGate {
        schema: SchemaRef,
        window_end: usize,
    },
}

/// What a column stands for, beyond its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Plain,
    /// The column that the watermark is about.
    EventTime,
    WindowStart,
    WindowEnd,
}

impl StreamPlan {
    /// Fresh operators without any state.
    pub fn operators(&self) -> Result<Chain> {
        let operators = self
            .stages
            .iter()
            .map(|stage| {
                Ok(match stage.clone() {
                    Stage::Segment(steps) => Box::new(Segment::new(steps)) as Box<dyn Operator>,
                    Stage::WindowAggregate {
                        aggregation,
                        window_start,
                        window,
                        emission,
                        output,
                        schema,
                    } => Box::new(WindowAggregate::new(
                        aggregation,
                        window_start,
                        window,
                        emission,
                        output,
                        schema,
                    )),
                    Stage::GroupAggregate { aggregation, schema } => {
                        Box::new(GroupAggregate::new(aggregation, schema)?)
                    }
                    Stage::EmitEvery(interval) => Box::new(EmitEvery::new(interval)),
                    Stage::WindowCloseGate { schema, window_end } => {
                        Box::new(WindowCloseGate::new(schema, window_end)?)
                    }
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Chain::new(operators))
    }

    /// Turns the query of a materialized view into a dataflow.
    pub(super) fn of(plan: &LogicalPlan, emit: &Emit, scope: &Scope<'_>) -> Result<Self, Vec<Diagnostic>> {
        let Scope {
            session,
            catalog,
            places,
            text,
            statement,
            emit_span,
        } = *scope;
        let mistakes = |error: DataFusionError| diagnostics_of(&error, places, statement, text, &[]);
        refuse_expressions(plan, statement)?;
        let config = session.config_options();
        let plan = Analyzer::new()
            .execute_and_check(plan.clone(), config, |_, _| {})
            .map_err(mistakes)?;
        let prune = Optimizer::with_rules(vec![Arc::new(OptimizeProjections::new())]);
        let plan = prune.optimize(plan, session, |_, _| {}).map_err(mistakes)?;
        let builder = Builder {
            session,
            catalog,
            statement,
            emission: emission_of(emit),
        };
        let built = builder.build(&plan).map_err(|refusal| match refusal {
            Refusal::Mistake(diagnostic) => vec![*diagnostic],
            Refusal::Planner(error) => mistakes(error),
        })?;
        built.finish(&plan, emit, emit_span)
    }
}

fn emission_of(emit: &Emit) -> Emission {
    match emit {
        Emit::OnWindowClose => Emission::OnWindowClose,
        Emit::Changes | Emit::Every(_) => Emission::Changes,
    }
}

/// The dataflow so far, from the scan up to some node.
struct Built {
    upstream: String,
    reads_source_directly: bool,
    source_columns: Vec<usize>,
    /// Stages before the open segment.
    stages: Vec<Stage>,
    /// Steps of the segment that is still growing.
    steps: Vec<Step>,
    roles: Vec<Role>,
    key: Option<Vec<usize>>,
    window: Option<TumblingWindow>,
    is_append_only: bool,
    has_watermark: bool,
    /// Rows are handed on only when their window is closed.
    is_on_close: bool,
    late_rows: Option<SchemaRef>,
}

enum Refusal {
    Mistake(Box<Diagnostic>),
    Planner(DataFusionError),
}

impl From<DataFusionError> for Refusal {
    fn from(error: DataFusionError) -> Self {
        Self::Planner(error)
    }
}

struct Builder<'a> {
    session: &'a SessionState,
    catalog: &'a Catalog,
    statement: Span,
    emission: Emission,
}

impl Builder<'_> {
    fn build(&self, plan: &LogicalPlan) -> Result<Built, Refusal> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.build(&alias.input),
            LogicalPlan::Projection(projection) => {
                let mut built = self.build(&projection.input)?;
                let input = projection.input.schema();
                let columns = projection
                    .expr
                    .iter()
                    .map(|expr| self.physical(expr, input))
                    .collect::<Result<_, _>>()?;
                let origins: Vec<Option<usize>> = projection.expr.iter().map(|expr| origin(expr, input)).collect();
                built.steps.push(Step::Project {
                    columns,
                    schema: arrow_schema(&projection.schema),
                });
                built.rearrange(&origins);
                Ok(built)
            }
            LogicalPlan::Filter(filter) => {
                let mut built = self.build(&filter.input)?;
                built
                    .steps
                    .push(Step::Filter(self.physical(&filter.predicate, filter.input.schema())?));
                Ok(built)
            }
            LogicalPlan::Extension(Extension { node }) => match node.as_any().downcast_ref::<Tumble>() {
                Some(tumble) => self.tumble(tumble),
                None => Err(self.refuse(
                    format!("{} is not supported over a stream", node.name()),
                    "use SELECT … FROM a source or view",
                )),
            },
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let groups = input.schema().columns().into_iter().map(Expr::Column).collect();
                self.aggregate(&Aggregate::try_new(Arc::clone(input), groups, vec![])?)
            }
            other => {
                let (what, instead) = unsupported(other);
                Err(self.refuse(format!("{what} in a materialized view is not supported yet"), instead))
            }
        }
    }

    fn scan(&self, scan: &TableScan) -> Result<Built, Refusal> {
        let provider = source_as_provider(&scan.source)?;
        let provider: &dyn TableProvider = provider.as_ref();
        let Some(relation) = (provider as &dyn std::any::Any).downcast_ref::<StreamRelation>() else {
            return Err(self.refuse(
                format!(
                    "`{}` is a table, and a materialized view needs a source",
                    scan.table_name.table()
                ),
                "use CREATE VIEW for a query over tables; it is computed when it is read",
            ));
        };
        let Some(upstream) = self.catalog.get(&relation.name) else {
            return Err(self.refuse(
                format!(
                    "a materialized view of the side output `{}` is not supported yet",
                    relation.name
                ),
                "use CREATE VIEW: it is computed when it is read",
            ));
        };
        let width = upstream.schema().fields().len();
        let source_columns = scan.projection.clone().unwrap_or_else(|| (0..width).collect());
        let mut built = match upstream {
            Relation::Source(source) => {
                let event_time = source.watermark.as_ref().map(|watermark| watermark.column);
                Built {
                    upstream: source.name.clone(),
                    reads_source_directly: true,
                    roles: (0..width)
                        .map(|column| {
                            if Some(column) == event_time {
                                Role::EventTime
                            } else {
                                Role::Plain
                            }
                        })
                        .collect(),
                    source_columns: Vec::new(),
                    stages: Vec::new(),
                    steps: Vec::new(),
                    key: None,
                    window: None,
                    is_append_only: true,
                    has_watermark: event_time.is_some(),
                    is_on_close: false,
                    late_rows: None,
                }
            }
            Relation::Materialized(view) => {
                let role = |column| {
                    if view.stream.window_end == Some(column) {
                        Role::WindowEnd
                    } else if view.stream.window.is_some() && view.stream.time == Some(column) {
                        Role::WindowStart
                    } else {
                        Role::Plain
                    }
                };
                Built {
                    upstream: view.name.clone(),
                    reads_source_directly: false,
                    roles: (0..width).map(role).collect(),
                    source_columns: Vec::new(),
                    stages: Vec::new(),
                    steps: Vec::new(),
                    key: (!view.stream.key.is_empty()).then(|| view.stream.key.clone()),
                    window: view.stream.window,
                    is_append_only: view.stream.is_append_only,
                    has_watermark: view.stream.window_end.is_some(),
                    is_on_close: view.emit == Emit::OnWindowClose,
                    late_rows: None,
                }
            }
            other => unreachable!(
                "a stream relation is a source or a materialized view, not a {}",
                other.kind()
            ),
        };
        let origins: Vec<Option<usize>> = source_columns.iter().copied().map(Some).collect();
        built.rearrange(&origins);
        built.source_columns = source_columns;
        // The runtime hands over the columns that are needed; filters that were pushed into the scan are its own first step.
        if let Some(predicate) = conjunction(scan.filters.clone()) {
            built
                .steps
                .push(Step::Filter(self.physical(&predicate, &scan.projected_schema)?));
        }
        Ok(built)
    }

    fn tumble(&self, tumble: &Tumble) -> Result<Built, Refusal> {
        let mut built = self.build(&tumble.input)?;
        let time = tumble.input.schema().index_of_column(&tumble.time)?;
        if built.roles[time] != Role::EventTime {
            let name = &tumble.time.name;
            return Err(match (built.reads_source_directly, built.has_watermark) {
                (true, false) => self.refuse(
                    format!(
                        "`{}` has no watermark, so no window over it could ever close",
                        built.upstream
                    ),
                    format!("add to CREATE SOURCE: WATERMARK FOR {name} AS {name} - INTERVAL '5 seconds'"),
                ),
                (true, true) => self.refuse(
                    format!("`{name}` is not the event time of `{}`", built.upstream),
                    "tumble over the column that WATERMARK FOR names",
                ),
                (false, _) => self.refuse(
                    format!(
                        "windows over the materialized view `{}` are not supported yet",
                        built.upstream
                    ),
                    "tumble over the source itself",
                ),
            });
        }
        use datafusion::logical_expr::UserDefinedLogicalNodeCore;
        built.steps.push(Step::Window {
            time,
            window: tumble.window(),
            schema: arrow_schema(tumble.schema()),
        });
        built.roles.extend([Role::WindowStart, Role::WindowEnd]);
        built.window = Some(tumble.window());
        Ok(built)
    }

    fn aggregate(&self, aggregate: &Aggregate) -> Result<Built, Refusal> {
        let mut built = self.build(&aggregate.input)?;
        if !built.is_append_only {
            return Err(self.refuse(
                format!(
                    "an aggregate over `{}`, whose rows change, is not supported yet",
                    built.upstream
                ),
                format!(
                    "make `{}` EMIT ON WINDOW CLOSE: then its rows are final",
                    built.upstream
                ),
            ));
        }
        let input = aggregate.input.schema();
        let schema = arrow_schema(&aggregate.schema);
        let context = PhysicalPlanningContext::default();
        let properties = self.session.execution_props();
        let functions = aggregate
            .aggr_expr
            .iter()
            .map(|expr| {
                let lowered =
                    LoweredAggregateBuilder::new(expr, input, input.as_arrow(), properties, &context).build()?;
                let ordered = ["first_value", "last_value", "nth_value"];
                if ordered.contains(&lowered.aggregate.fun().name()) && lowered.order_bys.is_empty() {
                    let name = lowered.aggregate.fun().name();
                    return Err(self.refuse(
                        format!("{name} needs an order: rows of a stream come in any"),
                        format!("write {name}(x ORDER BY t) with the event time as t"),
                    ));
                }
                Ok((lowered.aggregate, lowered.filter))
            })
            .collect::<Result<Vec<_>, Refusal>>()?;

        let mut window_start = None;
        let mut groups = Vec::new();
        let mut output = Vec::new();
        let mut roles = Vec::new();
        for (index, expr) in aggregate.group_expr.iter().enumerate() {
            if matches!(expr, Expr::GroupingSet(_)) {
                return Err(self.refuse(
                    "GROUPING SETS, CUBE and ROLLUP in a materialized view are not supported yet".into(),
                    "make a view for each grouping",
                ));
            }
            let role = origin(expr, input).map_or(Role::Plain, |column| built.roles[column]);
            match role {
                Role::WindowStart | Role::WindowEnd if built.reads_source_directly => {
                    let start = built.roles.iter().position(|other| *other == Role::WindowStart);
                    window_start = start.or(window_start);
                    output.push(if role == Role::WindowStart {
                        OutputColumn::WindowStart
                    } else {
                        OutputColumn::WindowEnd
                    });
                    roles.push(role);
                }
                _ => {
                    output.push(OutputColumn::Group(groups.len()));
                    groups.push((self.physical(expr, input)?, Arc::clone(&schema.fields()[index])));
                    roles.push(Role::Plain);
                }
            }
        }
        let group_width = output.len();
        output.extend((0..functions.len()).map(OutputColumn::Function));
        roles.resize(output.len(), Role::Plain);
        let windowed = output
            .iter()
            .any(|column| matches!(column, OutputColumn::WindowStart | OutputColumn::WindowEnd));
        let has_start = output.contains(&OutputColumn::WindowStart);
        // The end of a window says nothing that its start does not.
        let key = (0..group_width)
            .filter(|column| !(has_start && output[*column] == OutputColumn::WindowEnd))
            .collect();

        let input_schema = arrow_schema(input);
        let aggregation = Aggregation::new(Arc::clone(&input_schema), groups, functions)
            .map_err(|error| self.refuse(error.to_string(), "use another aggregate"))?;
        built.close_segment();
        if windowed {
            let Some(window_start) = window_start else {
                return Err(self.refuse(
                    "a window is grouped by its end alone, but its start was projected away".into(),
                    "keep window_start in the sub-query",
                ));
            };
            // Checked above: the window comes from a Tumble node below.
            let window = built.window.expect("a window column comes from a window");
            // A window that was assigned on a null time is none; a column of the result is never null then.
            built.stages.push(Stage::WindowAggregate {
                aggregation: Arc::new(aggregation),
                window_start,
                window,
                emission: self.emission,
                output,
                schema,
            });
            built.is_append_only = self.emission == Emission::OnWindowClose;
            built.is_on_close = self.emission == Emission::OnWindowClose;
            built.late_rows = Some(input_schema);
        } else {
            built.stages.push(Stage::GroupAggregate {
                aggregation: Arc::new(aggregation),
                schema,
            });
            built.is_append_only = false;
            built.window = None;
            built.is_on_close = false;
        }
        built.roles = roles;
        built.key = Some(key);
        Ok(built)
    }

    fn physical(&self, expr: &Expr, schema: &DFSchemaRef) -> Result<Arc<dyn PhysicalExpr>, Refusal> {
        Ok(create_physical_expr(
            expr,
            schema,
            self.session.execution_props(),
            &PhysicalPlanningContext::default(),
        )?)
    }

    fn refuse(&self, message: String, help: impl Into<String>) -> Refusal {
        Refusal::Mistake(Box::new(
            Diagnostic::error(SqlState::Unsupported, message, self.statement).help(help),
        ))
    }
}

impl Built {
    /// The columns are now these of before; `None` is a computed one.
    fn rearrange(&mut self, origins: &[Option<usize>]) {
        self.roles = origins
            .iter()
            .map(|origin| origin.map_or(Role::Plain, |column| self.roles[column]))
            .collect();
        self.key = self.key.take().and_then(|key| {
            key.iter()
                .map(|column| origins.iter().position(|origin| *origin == Some(*column)))
                .collect::<Option<Vec<_>>>()
        });
    }

    fn close_segment(&mut self) {
        if !self.steps.is_empty() {
            self.stages.push(Stage::Segment(std::mem::take(&mut self.steps)));
        }
    }

    fn finish(mut self, plan: &LogicalPlan, emit: &Emit, emit_span: Span) -> Result<StreamPlan, Vec<Diagnostic>> {
        let schema = arrow_schema(plan.schema());
        let place = |role: Role| self.roles.iter().position(|other| *other == role);
        let (window_start, window_end, event_time) =
            (place(Role::WindowStart), place(Role::WindowEnd), place(Role::EventTime));
        self.close_segment();
        match emit {
            Emit::Changes => {}
            Emit::Every(interval) => self.stages.push(Stage::EmitEvery(*interval)),
            Emit::OnWindowClose if self.is_on_close => {}
            Emit::OnWindowClose => match window_end {
                Some(window_end) if !self.reads_source_directly => {
                    self.stages.push(Stage::WindowCloseGate {
                        schema: Arc::clone(&schema),
                        window_end,
                    });
                    self.is_append_only = true;
                }
                _ => {
                    let message = "EMIT ON WINDOW CLOSE needs rows that belong to a window";
                    let help = match self.has_watermark {
                        true => "group by window_start and window_end of TUMBLE(…), and keep window_end in the result",
                        false => "give the source a WATERMARK and group by window_start and window_end of TUMBLE(…)",
                    };
                    return Err(vec![
                        Diagnostic::error(SqlState::Unsupported, message, emit_span).help(help),
                    ]);
                }
            },
        }
        let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
        if let Some(twice) = names
            .iter()
            .enumerate()
            .find_map(|(index, name)| names[..index].contains(name).then_some(*name))
        {
            return Err(vec![
                Diagnostic::error(SqlState::Duplicate, format!("two columns are named `{twice}`"), None)
                    .help("give one another name with AS"),
            ]);
        }
        Ok(StreamPlan {
            upstream: self.upstream,
            reads_source_directly: self.reads_source_directly,
            source_columns: self.source_columns,
            stages: self.stages,
            schema,
            key: self.key.unwrap_or_default(),
            time: window_start.or(event_time),
            window_end,
            window: self.window.filter(|_| window_start.is_some()),
            is_append_only: self.is_append_only,
            late_rows: self.late_rows,
        })
    }
}

/// The input column that an expression hands through unchanged.
fn origin(expr: &Expr, input: &DFSchemaRef) -> Option<usize> {
    match expr {
        Expr::Column(column) => input.index_of_column(column).ok(),
        Expr::Alias(alias) => origin(&alias.expr, input),
        _ => None,
    }
}

/// Field names without their tables.
fn arrow_schema(schema: &DFSchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().clone()))
}

/// What cannot mean the same on a stream, wherever it stands in an expression.
fn refuse_expressions(plan: &LogicalPlan, statement: Span) -> Result<(), Vec<Diagnostic>> {
    let mut found = None;
    let refused = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found = match expr {
                    Expr::ScalarFunction(function) if function.func.signature().volatility != Volatility::Immutable => {
                        let name = function.func.name();
                        let help = match name {
                            "now" | "current_timestamp" | "current_date" | "current_time" => {
                                "compare with the event time of the rows instead; it is supported in queries over HTTP"
                            }
                            _ => "its value would change when the stream is read again",
                        };
                        Some(
                            Diagnostic::error(
                                SqlState::Unsupported,
                                format!("{name}() is not supported in a materialized view"),
                                statement,
                            )
                            .help(help),
                        )
                    }
                    Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => Some(
                        Diagnostic::error(
                            SqlState::Unsupported,
                            "sub-queries in expressions of a materialized view are not supported yet",
                            statement,
                        )
                        .help("compute it in a view of its own"),
                    ),
                    _ => None,
                };
                Ok(if found.is_some() {
                    TreeNodeRecursion::Stop
                } else {
                    TreeNodeRecursion::Continue
                })
            })
        })
    });
    match (refused, found) {
        (_, Some(diagnostic)) => Err(vec![diagnostic]),
        (Err(error), None) => Err(vec![Diagnostic::error(
            SqlState::Invalid,
            error.strip_backtrace(),
            statement,
        )]),
        (Ok(_), None) => Ok(()),
    }
}

fn unsupported(plan: &LogicalPlan) -> (&'static str, &'static str) {
    match plan {
        LogicalPlan::Join(_) => ("a join", "join the view with tables in the query that reads it"),
        LogicalPlan::Union(_) => (
            "UNION",
            "make a view for each part, and unite them in the query that reads them",
        ),
        LogicalPlan::Sort(_) => ("ORDER BY", "order in the query that reads the view"),
        LogicalPlan::Limit(_) => ("LIMIT", "limit in the query that reads the view"),
        LogicalPlan::Window(_) => ("OVER", "use it in the query that reads the view"),
        LogicalPlan::Distinct(_) => ("DISTINCT ON", "use first_value(x ORDER BY t) and GROUP BY"),
        LogicalPlan::RecursiveQuery(_) => ("a recursive query", "use it in the query that reads the view"),
        LogicalPlan::Unnest(_) => ("UNNEST", "use it in the query that reads the view"),
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => ("a query without a source", "use CREATE VIEW"),
        _ => ("this", "use it in the query that reads the view"),
    }
}

/// The plan over other rows: every scan of `relation` becomes `replacement`, which has the same columns.
pub fn replace_scan(
    plan: &LogicalPlan,
    relation: &str,
    replacement: &dyn Fn(&TableScan) -> Result<LogicalPlan, DataFusionError>,
) -> Result<LogicalPlan, DataFusionError> {
    plan.clone()
        .transform_up(|node| match &node {
            LogicalPlan::TableScan(scan) if scan.table_name.table() == relation => {
                Ok(Transformed::yes(replacement(scan)?))
            }
            _ => Ok(Transformed::no(node)),
        })
        .map(|transformed| transformed.data)
}
