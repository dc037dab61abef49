//! A query over a source or a view as a dataflow: what to decode, which operators in which order, what names a row.
//!
//! ```text
//! LogicalPlan (types coerced, unused columns pruned), from the scan upwards:
//!   scan ─▶ select columns ─▶ filter, project, window … ─▶ aggregate ─▶ filter, project … ─▶ emission
//! ```
//! Whatever has no operator is refused with the reason and the way out; nothing is ignored.

mod aggregate;
mod build;
mod grouping_sets;
mod growth;
mod refusal;
mod sorted;
mod temporal;
mod union;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::{
        DataFusionError,
        tree_node::{Transformed, TreeNode},
    },
    execution::context::SessionState,
    logical_expr::{LogicalPlan, TableScan},
    optimizer::{
        Analyzer, AnalyzerRule, Optimizer, optimize_projections::OptimizeProjections,
        simplify_expressions::SimplifyExpressions,
    },
};

use crate::{
    operator::{
        Aggregation, Assignment, ClosedBy, Dataflow, Emission, EmitEvery, Feed, GroupAggregate, MapWatermark, Mapping,
        Operator, RecomputeAggregate, Segment, SessionAggregate, Step, TemporalFilter, TimeBound, Upsert,
        WindowAggregate, WindowCloseGate, WindowResult,
    },
    sql::{Diagnostic, Emit, Span, SqlState},
    types::{Result, Windows},
};

use super::{
    catalog::Catalog,
    checked::CheckArithmetic,
    mistakes::{Places, Scene, diagnostics_of},
};

pub use build::Role;
use build::{Builder, Refusal};

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
    pub settings: ViewSettings,
}

/// Options of a view that its dataflow depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ViewSettings {
    /// How long after its end a window still takes rows, in nanoseconds.
    pub lateness_ns: i64,
    /// The user takes state that nothing bounds.
    pub allows_unbounded_state: bool,
}

/// How one materialized view is kept up to date.
#[derive(Clone)]
pub struct StreamPlan {
    /// What it reads, at least one.
    pub inputs: Vec<Input>,
    /// In the order of the rows; the last hands on the rows of the view. None where the only input is all of it.
    pub nodes: Vec<Node>,
    pub schema: SchemaRef,
    /// The columns that name a row; empty when equal rows may stand side by side.
    pub key: Vec<usize>,
    /// The column that charts run along.
    pub time: Option<usize>,
    pub window_end: Option<usize>,
    /// The windows that its rows are the results of, where they are aligned.
    pub windows: Option<Windows>,
    /// The windows that its rows are in, where no aggregate took them yet.
    pub row_windows: Option<Windows>,
    /// What each column stands for.
    pub roles: Vec<Role>,
    /// Which columns take ever more values as time goes on.
    pub grows: Vec<bool>,
    pub is_append_only: bool,
    /// Rows as the windowed aggregate takes them, for `<view>$late`.
    pub late_rows: Option<SchemaRef>,
}

/// A scan of a source or materialized view.
#[derive(Clone)]
pub struct Input {
    pub relation: String,
    pub is_source: bool,
    /// The columns that are needed, in the order in which the first stage takes them.
    pub columns: Vec<usize>,
}

/// A stage and where its rows come from.
#[derive(Clone)]
pub struct Node {
    pub stage: Stage,
    pub feeds: Vec<Feed>,
}

#[derive(Clone)]
pub enum Stage {
    Segment(Vec<Step>),
    /// Rows are there while the time of the epoch is within all these bounds.
    TemporalFilter {
        bounds: Vec<TimeBound>,
        schema: SchemaRef,
    },
    WindowAggregate {
        aggregation: Arc<Aggregation>,
        assignment: Assignment,
        windows: Windows,
        result: WindowResult,
    },
    SessionAggregate {
        aggregation: Arc<Aggregation>,
        /// The column with the event time.
        time: usize,
        gap_ns: i64,
        result: WindowResult,
    },
    GroupAggregate {
        aggregation: Arc<Aggregation>,
        schema: SchemaRef,
    },
    RecomputeAggregate {
        aggregation: Arc<Aggregation>,
        closed_by: Option<ClosedBy>,
        emission: Emission,
        schema: SchemaRef,
    },
    MapWatermark(Mapping),
    Upsert {
        schema: SchemaRef,
        key: Vec<usize>,
    },
    EmitEvery(std::time::Duration),
    WindowCloseGate {
        schema: SchemaRef,
        window_end: usize,
    },
}

impl Stage {
    /// What people call it.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Segment(_) => "filter and project",
            Self::TemporalFilter { .. } => "rows that come and go by time",
            Self::WindowAggregate { .. } => "aggregate per window and key",
            Self::SessionAggregate { .. } => "aggregate per session",
            Self::GroupAggregate { .. } => "aggregate per key",
            Self::RecomputeAggregate { .. } => "aggregate rows that change",
            Self::MapWatermark(_) => "the watermark of the column that windows are over",
            Self::Upsert { .. } => "a row replaces the one of its key",
            Self::EmitEvery(_) => "hold back until the next interval",
            Self::WindowCloseGate { .. } => "hold back until the window is closed",
        }
    }
}

impl StreamPlan {
    /// Fresh operators without any state.
    pub fn operators(&self) -> Result<Dataflow> {
        let operators = self
            .nodes
            .iter()
            .map(|node| {
                let operator = match node.stage.clone() {
                    Stage::Segment(steps) => Box::new(Segment::new(steps)) as Box<dyn Operator>,
                    Stage::TemporalFilter { bounds, schema } => Box::new(TemporalFilter::new(bounds, schema)?),
                    Stage::WindowAggregate {
                        aggregation,
                        assignment,
                        windows,
                        result,
                    } => Box::new(WindowAggregate::new(aggregation, assignment, windows, result)),
                    Stage::SessionAggregate {
                        aggregation,
                        time,
                        gap_ns,
                        result,
                    } => Box::new(SessionAggregate::new(aggregation, time, gap_ns, result)?),
                    Stage::GroupAggregate { aggregation, schema } => {
                        Box::new(GroupAggregate::new(aggregation, schema)?)
                    }
                    Stage::RecomputeAggregate {
                        aggregation,
                        closed_by,
                        emission,
                        schema,
                    } => Box::new(RecomputeAggregate::new(aggregation, closed_by, emission, schema)?),
                    Stage::Upsert { schema, key } => Box::new(Upsert::new(schema, key)?),
                    Stage::MapWatermark(mapping) => Box::new(MapWatermark::new(mapping)),
                    Stage::EmitEvery(interval) => Box::new(EmitEvery::new(interval)),
                    Stage::WindowCloseGate { schema, window_end } => {
                        Box::new(WindowCloseGate::new(schema, window_end)?)
                    }
                };
                Ok((operator, node.feeds.clone()))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Dataflow::new(self.inputs.len(), operators))
    }

    /// Whether it is the log of a table and nothing else: there is nothing to compute.
    pub fn is_table(&self) -> bool {
        let weighs = |step: &Step| matches!(step, Step::Weigh { .. });
        self.nodes
            .first()
            .is_some_and(|node| matches!(&node.stage, Stage::Segment(steps) if steps.iter().any(weighs)))
    }

    /// Whether its rows wait for the next multiple of an interval.
    pub fn is_held_back(&self) -> bool {
        let waits = |node: &Node| matches!(node.stage, Stage::EmitEvery(_));
        self.nodes.iter().any(waits)
    }

    /// The columns of the rows that a node keeps until they are handed on as they are; `None` for one that keeps none.
    pub fn waiting_rows(&self, node: usize) -> Option<&SchemaRef> {
        match &self.nodes[node].stage {
            // The last one: the rows are those of the view.
            Stage::EmitEvery(_) => Some(&self.schema),
            Stage::WindowCloseGate { schema, .. } => Some(schema),
            _ => None,
        }
    }

    /// Whether it reads nothing but sources.
    pub fn reads_sources_only(&self) -> bool {
        self.inputs.iter().all(|input| input.is_source)
    }

    /// The rows of a table, from its log of changes on: `schema` without the column of weights.
    pub(super) fn of_table(
        name: &str,
        schema: SchemaRef,
        key: Vec<usize>,
        event_time: Option<usize>,
        is_append_only: bool,
    ) -> Self {
        let width = schema.fields().len();
        let weigh = Step::Weigh {
            is_append_only,
            schema: Arc::clone(&schema),
        };
        let mut nodes = vec![Node {
            stage: Stage::Segment(vec![weigh]),
            feeds: vec![Feed::Input(0)],
        }];
        if !key.is_empty() {
            nodes.push(Node {
                stage: Stage::Upsert {
                    schema: Arc::clone(&schema),
                    key: key.clone(),
                },
                feeds: vec![Feed::Operator(0)],
            });
        }
        let role = |column| match Some(column) == event_time {
            true => Role::EventTime,
            false => Role::Plain,
        };
        Self {
            inputs: vec![Input {
                relation: name.to_owned(),
                is_source: true,
                columns: (0..=width).collect(),
            }],
            nodes,
            roles: (0..width).map(role).collect(),
            grows: (0..width).map(|column| Some(column) == event_time).collect(),
            schema,
            key,
            time: event_time,
            window_end: None,
            windows: None,
            row_windows: None,
            is_append_only,
            late_rows: None,
        }
    }

    /// Where rows stand for times that begin at multiples of so many nanoseconds, and rows of other times do not touch them: what
    /// history can be joined at.
    pub fn history_step_ns(&self) -> Option<i64> {
        match self.roles[self.time?] {
            Role::EventTime => Some(1),
            Role::WindowStart(windows) => windows?.tumbling_ns(),
            Role::RowWindowStart => self.row_windows?.tumbling_ns(),
            Role::Plain | Role::Time | Role::RowWindowEnd | Role::WindowEnd => None,
        }
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
            settings,
        } = *scope;
        let scene = Scene {
            places,
            statement,
            text,
            tables: &[],
            session,
        };
        let mistakes = |error: DataFusionError| diagnostics_of(&error, &scene);
        refusal::refuse_expressions(plan, &scene)?;
        let config = session.config_options();
        let plan = Analyzer::new()
            .execute_and_check(plan.clone(), config, |_, _| {})
            .map_err(mistakes)?;
        let plan = CheckArithmetic.analyze(plan, config).map_err(mistakes)?;
        let plan = sorted::nth_values_from_lists(plan).map_err(mistakes)?;
        let plan = grouping_sets::unfold(plan).map_err(mistakes)?;
        // Some functions are only names of other expressions (`coalesce` of CASE): simplifying puts these in their place.
        let prune = Optimizer::with_rules(vec![
            Arc::new(SimplifyExpressions::new()),
            Arc::new(OptimizeProjections::new()),
        ]);
        let plan = prune.optimize(plan, session, |_, _| {}).map_err(mistakes)?;
        let builder = Builder {
            session,
            catalog,
            statement,
            emission: emission_of(emit),
            lateness_ns: settings.lateness_ns,
            allows_unbounded_state: settings.allows_unbounded_state,
        };
        let built = builder.build(&plan).map_err(|refusal| match refusal {
            Refusal::Mistake(diagnostic) => refusal::with_all_others(*diagnostic, &plan, &scene),
            Refusal::Planner(error) => mistakes(error),
        })?;
        let stream = (built.finish(&builder, &plan, emit, emit_span)).map_err(|refused| {
            refused
                .into_iter()
                .map(|refused| refusal::placed(refused, &scene))
                .collect::<Vec<_>>()
        })?;
        let takes_lateness = |node: &Node| match &node.stage {
            Stage::WindowAggregate { result, .. } | Stage::SessionAggregate { result, .. } => 0 < result.lateness_ns,
            _ => false,
        };
        if 0 < settings.lateness_ns && !stream.nodes.iter().any(takes_lateness) {
            let message = "`allowed_lateness` is for views that aggregate windows of rows that do not change";
            return Err(vec![
                Diagnostic::error(SqlState::InvalidOption, message, statement)
                    .help("set it on the view whose windows take rows of the source"),
            ]);
        }
        Ok(stream)
    }
}

fn emission_of(emit: &Emit) -> Emission {
    match emit {
        Emit::OnWindowClose => Emission::OnWindowClose,
        Emit::Changes | Emit::Every(_) => Emission::Changes,
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
