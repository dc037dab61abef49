//! A LogicalPlan, node by node, as stages of operators.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::{
    catalog::TableProvider,
    common::{DFSchemaRef, DataFusionError},
    datasource::source_as_provider,
    execution::context::SessionState,
    logical_expr::{
        Aggregate, Distinct, Expr, Extension, LogicalPlan, TableScan,
        physical_planning_context::PhysicalPlanningContext, utils::conjunction,
    },
    physical_expr::{PhysicalExpr, create_physical_expr},
};

use crate::{
    operator::{Emission, Feed, Mapping, Step},
    plan::{
        catalog::{Catalog, Relation},
        session::StreamRelation,
        window::{Cut, TIME, Windowed},
    },
    sql::{Diagnostic, Emit, Span, SqlState},
    types::Windows,
};

use super::{
    Input, Node, Stage, StreamPlan,
    aggregate::bin,
    grouping_sets::EachSet,
    growth::growing,
    refusal::{not_yet, unsupported},
};

/// What a column stands for, beyond its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Plain,
    /// The column that the watermark is about.
    EventTime,
    /// A time that charts can run along, and that says nothing about what is complete: rows come and go by now().
    Time,
    /// Bounds of a window that this row is in; late rows are among the others still.
    RowWindowStart,
    RowWindowEnd,
    /// Bounds of the window that this row is the result of: final once it is closed. `None` for sessions, which begin anywhere.
    WindowStart(Option<Windows>),
    WindowEnd,
}

/// The dataflow so far, from the scan up to some node.
pub(super) struct Built {
    pub inputs: Vec<Input>,
    /// Stages before the open segment.
    pub nodes: Vec<Node>,
    /// Where the rows of the open segment come from.
    pub feeds: Vec<Feed>,
    /// Steps of the segment that is still growing.
    pub steps: Vec<Step>,
    pub roles: Vec<Role>,
    /// Which columns take ever more values as time goes on.
    pub grows: Vec<bool>,
    pub key: Option<Vec<usize>>,
    /// What cut the windows that rows or results stand for.
    pub cut: Option<RowCut>,
    /// Of the windows of the result, for pages and charts.
    pub windows: Option<Windows>,
    pub is_append_only: bool,
    pub has_watermark: bool,
    /// Rows are handed on only when their window is closed.
    pub is_on_close: bool,
    pub late_rows: Option<SchemaRef>,
    /// All rows come from tables: their users delete what is not needed any more.
    pub is_of_tables: bool,
}

/// Windows of rows that no aggregate took yet.
#[derive(Clone, PartialEq)]
pub(super) struct RowCut {
    pub cut: Cut,
    /// Where the key of a session stands now; `None` where it was projected away.
    pub session_key: Vec<Option<usize>>,
    /// The bounds stand in their columns, a row for each window; else the event time stands there.
    pub is_assigned: bool,
    /// The event time is binned by an expression of GROUP BY: no column carries the windows.
    pub is_binned: bool,
    /// Rows of a closed window do not come any more, but for late ones, which are told by what their split had met.
    pub is_complete: bool,
}

pub(super) enum Refusal {
    Mistake(Box<Diagnostic>),
    Planner(DataFusionError),
}

impl From<DataFusionError> for Refusal {
    fn from(error: DataFusionError) -> Self {
        Self::Planner(error)
    }
}

pub(super) struct Builder<'a> {
    pub session: &'a SessionState,
    pub catalog: &'a Catalog,
    pub statement: Span,
    pub emission: Emission,
    pub lateness_ns: i64,
    /// The user takes state that nothing bounds.
    pub allows_unbounded_state: bool,
}

impl Builder<'_> {
    pub fn build(&self, plan: &LogicalPlan) -> Result<Built, Refusal> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.build(&alias.input),
            LogicalPlan::Projection(projection) => {
                let mut built = self.build(&projection.input)?;
                let input = projection.input.schema();
                for expr in &projection.expr {
                    self.note_use(&mut built, expr, input)?;
                }
                let columns = projection
                    .expr
                    .iter()
                    .map(|expr| self.physical(expr, input))
                    .collect::<Result<_, _>>()?;
                let binned = built.bin_of(&projection.expr, input);
                let origins: Vec<Option<usize>> = projection.expr.iter().map(|expr| origin(expr, input)).collect();
                let grows = built.growing_of(&projection.expr, input);
                built.steps.push(Step::Project {
                    columns,
                    schema: arrow_schema(&projection.schema),
                });
                built.rearrange(&origins);
                built.grows = grows;
                if let Some((column, windows)) = binned {
                    built.begin_windows_at(column, windows);
                }
                Ok(built)
            }
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Extension(Extension { node }) => match (
                node.as_any().downcast_ref::<Windowed>(),
                node.as_any().downcast_ref::<EachSet>(),
            ) {
                (Some(windowed), _) => self.windowed(windowed),
                (_, Some(sets)) => self.each_set(sets),
                (None, None) => Err(self.refuse(
                    format!("{} is not supported over a stream", node.name()),
                    "use SELECT … FROM a source or view",
                )),
            },
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let groups = input.schema().columns().into_iter().map(Expr::Column).collect();
                self.aggregate(&Aggregate::try_new(Arc::clone(input), groups, vec![])?)
            }
            LogicalPlan::Union(union) => self.union(union),
            other => {
                let (what, instead) = unsupported(other);
                Err(self.refuse(not_yet(what), instead))
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
        let is_of_tables = matches!(upstream, Relation::Table(_));
        let of_table;
        let upstream = match upstream {
            Relation::Table(table) => {
                of_table = Relation::Materialized(Arc::clone(&table.view));
                &of_table
            }
            other => other,
        };
        let mut built = match upstream {
            Relation::Source(source) => {
                let event_time = source.watermark.as_ref().map(|watermark| watermark.column);
                let role = |column| match Some(column) == event_time {
                    true => Role::EventTime,
                    false => Role::Plain,
                };
                Built {
                    inputs: Vec::new(),
                    nodes: Vec::new(),
                    feeds: vec![Feed::Input(0)],
                    steps: Vec::new(),
                    roles: (0..width).map(role).collect(),
                    grows: (0..width).map(|column| Some(column) == event_time).collect(),
                    key: None,
                    cut: None,
                    windows: None,
                    is_append_only: true,
                    has_watermark: event_time.is_some(),
                    is_on_close: false,
                    late_rows: None,
                    is_of_tables,
                }
            }
            Relation::Materialized(view) => Built {
                inputs: Vec::new(),
                nodes: Vec::new(),
                feeds: vec![Feed::Input(0)],
                steps: Vec::new(),
                roles: view.stream.roles.clone(),
                grows: view.stream.grows.clone(),
                key: (!view.stream.key.is_empty()).then(|| view.stream.key.clone()),
                cut: view.stream.row_windows.map(|windows| RowCut {
                    cut: Cut::Aligned(windows),
                    session_key: Vec::new(),
                    is_assigned: true,
                    is_complete: true,
                    is_binned: false,
                }),
                windows: view.stream.windows,
                is_append_only: view.stream.is_append_only,
                has_watermark: (view.stream.roles.iter()).any(|role| !matches!(role, Role::Plain | Role::Time)),
                is_on_close: view.emit == Emit::OnWindowClose,
                late_rows: None,
                is_of_tables,
            },
            other => unreachable!(
                "a stream relation is a source, a table or a materialized view, not a {}",
                other.kind()
            ),
        };
        let origins: Vec<Option<usize>> = source_columns.iter().copied().map(Some).collect();
        built.rearrange(&origins);
        built.inputs.push(Input {
            relation: upstream.name().to_owned(),
            is_source: matches!(upstream, Relation::Source(_)),
            columns: source_columns,
        });
        // The runtime hands over the columns that are needed; filters that were pushed into the scan are its own first step.
        if let Some(predicate) = conjunction(scan.filters.clone()) {
            built
                .steps
                .push(Step::Filter(self.physical(&predicate, &scan.projected_schema)?));
        }
        Ok(built)
    }

    fn windowed(&self, windowed: &Windowed) -> Result<Built, Refusal> {
        use datafusion::logical_expr::UserDefinedLogicalNodeCore;
        let mut built = self.build(&windowed.input)?;
        built.assign_windows();
        let time = windowed.input.schema().index_of_column(&windowed.time)?;
        let data_type = windowed.input.schema().field(time).data_type();
        if *data_type != TIME {
            let name = &windowed.time.name;
            return Err(self.refuse(
                format!(
                    "`{name}` is {data_type}, and windows of a stream are over TIMESTAMP in nanoseconds, without a zone"
                ),
                format!("cast it in a sub-query: (SELECT CAST({name} AS TIMESTAMP) AS {name}, … FROM …)"),
            ));
        }
        let is_complete = self.follow_time(&mut built, time, &windowed.time.name)?;
        let session_key = match &windowed.cut {
            Cut::Aligned(_) => Vec::new(),
            Cut::Sessions { key, .. } => key
                .iter()
                .map(|column| windowed.input.schema().index_of_column(column).map(Some))
                .collect::<Result<_, _>>()?,
        };
        built.steps.push(Step::CarryTime {
            time,
            schema: arrow_schema(windowed.schema()),
        });
        // Windows over windows: only the outer ones are told by their columns from here on.
        built.forget_row_windows();
        built.roles.extend(match is_complete || built.is_append_only {
            true => [Role::RowWindowStart, Role::RowWindowEnd],
            // Rows that change in windows that nothing closes.
            false => [Role::Time, Role::Plain],
        });
        built.grows.extend([true, true]);
        built.cut = Some(RowCut {
            cut: windowed.cut.clone(),
            session_key,
            is_assigned: false,
            is_complete,
            is_binned: false,
        });
        built.windows = None;
        if !built.is_append_only {
            if let Cut::Sessions { .. } = windowed.cut {
                return Err(self.refuse(
                    format!(
                        "sessions over `{}`, whose rows change, are not supported yet",
                        built.names_of_inputs()
                    ),
                    format!(
                        "make `{}` EMIT ON WINDOW CLOSE: then its rows are final",
                        built.names_of_inputs()
                    ),
                ));
            }
            // Each row changes by itself, in every window that it is in.
            built.assign_windows();
        }
        built.key = None;
        Ok(built)
    }

    fn each_set(&self, sets: &EachSet) -> Result<Built, Refusal> {
        use datafusion::logical_expr::UserDefinedLogicalNodeCore;
        let mut built = self.build(&sets.input)?;
        let input = sets.input.schema();
        for column in &sets.columns {
            self.note_use_of(&mut built, column, input)?;
        }
        let columns = sets
            .columns
            .iter()
            .map(|column| self.physical(column, input))
            .collect::<Result<_, _>>()?;
        built.steps.push(Step::EachSet {
            columns,
            sets: sets.sets.clone(),
            schema: arrow_schema(sets.schema()),
        });
        built.roles.resize(sets.schema().fields().len(), Role::Plain);
        let grows = built.growing_of(&sets.columns, input);
        built.grows.extend(grows);
        // The id of the set.
        built.grows.push(false);
        built.key = None;
        Ok(built)
    }

    /// Makes the watermark speak of a column. Whether it says anything: without, no window over it ever closes.
    fn follow_time(&self, built: &mut Built, time: usize, name: &str) -> Result<bool, Refusal> {
        match built.roles[time] {
            Role::EventTime | Role::WindowEnd => return Ok(true),
            Role::WindowStart(Some(windows)) => {
                built.push(Stage::MapWatermark(Mapping::StartsOf(windows)));
                return Ok(true);
            }
            // Its rows leave by themselves, and what is kept of them with them.
            Role::Time if !built.is_append_only && self.emission == Emission::Changes => return Ok(false),
            Role::Plain | Role::Time | Role::RowWindowStart | Role::RowWindowEnd | Role::WindowStart(None) => {}
        }
        let is_bounded_by_rows = built.is_of_tables && !built.is_append_only;
        if (self.allows_unbounded_state || is_bounded_by_rows) && self.emission == Emission::Changes {
            built.push(Stage::MapWatermark(Mapping::Unknown));
            built.roles.fill(Role::Plain);
            return Ok(false);
        }
        let upstream = built.names_of_inputs();
        if is_bounded_by_rows {
            return Err(self.refuse(
                format!("rows of `{upstream}` change at any time, so no window over it is ever final"),
                "leave EMIT ON WINDOW CLOSE out, or create the table APPEND ONLY with a WATERMARK",
            ));
        }
        let allow = "or accept that with EMIT CHANGES and WITH (unbounded_state = 'allow')";
        Err(match (built.inputs.iter().all(|input| input.is_source), built.has_watermark) {
            (true, false) => self.refuse(
                format!("`{upstream}` has no watermark, so no window over it could ever close"),
                format!("add to CREATE SOURCE: WATERMARK FOR {name} AS {name} - INTERVAL '5 seconds'; {allow}"),
            ),
            (true, true) => self.refuse(
                format!("`{name}` is not the event time of `{upstream}`, so no window over it could ever close"),
                format!("use the column that WATERMARK FOR names; {allow}"),
            ),
            (false, _) => self.refuse(
                format!("nothing says when `{upstream}` is complete up to some `{name}`, so no window over it could ever close"),
                format!("{}; {allow}", self.times_to_use(built, name)),
            ),
        })
    }

    /// An expression that computes with the bounds of a window needs them in their columns.
    pub fn note_use(&self, built: &mut Built, expr: &Expr, input: &DFSchemaRef) -> Result<(), Refusal> {
        match origin(expr, input) {
            Some(_) => Ok(()),
            None => self.note_use_of(built, expr, input),
        }
    }

    /// As [`note_use`](Self::note_use), also where the expression is nothing but the bound.
    pub fn note_use_of(&self, built: &mut Built, expr: &Expr, input: &DFSchemaRef) -> Result<(), Refusal> {
        if built.cut.as_ref().is_none_or(|cut| cut.is_assigned) {
            return Ok(());
        }
        let uses_bounds = expr.column_refs().into_iter().any(|column| {
            let role = input.index_of_column(column).map(|index| built.roles[index]);
            matches!(role, Ok(Role::RowWindowStart | Role::RowWindowEnd))
        });
        if uses_bounds { self.assign(built) } else { Ok(()) }
    }

    /// Puts the bounds of windows into their columns.
    pub fn assign(&self, built: &mut Built) -> Result<(), Refusal> {
        if let Some(RowCut {
            cut: Cut::Sessions { .. },
            is_assigned: false,
            ..
        }) = built.cut
        {
            return Err(self.refuse(
                "the bounds of a session are known only behind GROUP BY".into(),
                "group by the key, window_start and window_end, and compute with them around that",
            ));
        }
        built.assign_windows();
        Ok(())
    }

    pub fn physical(&self, expr: &Expr, schema: &DFSchemaRef) -> Result<Arc<dyn PhysicalExpr>, Refusal> {
        Ok(create_physical_expr(
            expr,
            schema,
            self.session.execution_props(),
            &PhysicalPlanningContext::default(),
        )?)
    }

    pub fn refuse(&self, message: String, help: impl Into<String>) -> Refusal {
        Refusal::Mistake(Box::new(
            Diagnostic::error(SqlState::Unsupported, message, self.statement).help(help),
        ))
    }
}

impl Built {
    /// The columns are now these of before; `None` is a computed one.
    fn rearrange(&mut self, origins: &[Option<usize>]) {
        let now = |column: usize| origins.iter().position(|origin| *origin == Some(column));
        self.roles = origins
            .iter()
            .map(|origin| origin.map_or(Role::Plain, |column| self.roles[column]))
            .collect();
        self.grows = origins
            .iter()
            .map(|origin| origin.is_some_and(|column| self.grows[column]))
            .collect();
        self.key = self
            .key
            .take()
            .and_then(|key| key.iter().map(|column| now(*column)).collect::<Option<Vec<_>>>());
        if let Some(cut) = &mut self.cut {
            cut.session_key = cut.session_key.iter().map(|column| column.and_then(now)).collect();
        }
    }

    /// Which of these take ever more values.
    pub fn growing_of(&self, exprs: &[Expr], input: &DFSchemaRef) -> Vec<bool> {
        let grows = |expr| growing(expr, input, &self.grows).is_some();
        exprs.iter().map(grows).collect()
    }

    /// The first of these that bins the event time into windows, of rows that are in none yet.
    fn bin_of(&self, exprs: &[Expr], input: &DFSchemaRef) -> Option<(usize, Windows)> {
        if self.cut.is_some() || !self.is_append_only {
            return None;
        }
        let bins = exprs.iter().map(|expr| bin(expr, input, &self.roles));
        bins.enumerate()
            .find_map(|(column, found)| found.map(|(_, windows)| (column, windows)))
    }

    /// A column has the starts of tumbling windows.
    fn begin_windows_at(&mut self, column: usize, windows: Windows) {
        self.roles[column] = Role::RowWindowStart;
        self.cut = Some(RowCut {
            cut: Cut::Aligned(windows),
            session_key: Vec::new(),
            is_assigned: true,
            is_complete: true,
            is_binned: false,
        });
    }

    pub fn forget_row_windows(&mut self) {
        for role in &mut self.roles {
            if matches!(role, Role::RowWindowStart | Role::RowWindowEnd) {
                *role = Role::Plain;
            }
        }
    }

    /// Appends a stage behind the open segment.
    pub fn push(&mut self, stage: Stage) {
        self.close_segment();
        self.nodes.push(Node {
            stage,
            feeds: std::mem::replace(&mut self.feeds, vec![Feed::Operator(self.nodes.len())]),
        });
    }

    pub fn close_segment(&mut self) {
        if !self.steps.is_empty() || 1 < self.feeds.len() {
            let steps = std::mem::take(&mut self.steps);
            self.nodes.push(Node {
                stage: Stage::Segment(steps),
                feeds: std::mem::replace(&mut self.feeds, vec![Feed::Operator(self.nodes.len())]),
            });
        }
    }

    pub fn names_of_inputs(&self) -> String {
        let mut names: Vec<&str> = self.inputs.iter().map(|input| input.relation.as_str()).collect();
        names.dedup();
        names.join("` and `")
    }

    /// Turns the step that carries the time into the one that makes a row for each window.
    fn assign_windows(&mut self) {
        let Some(RowCut {
            cut: Cut::Aligned(windows),
            is_assigned,
            ..
        }) = &mut self.cut
        else {
            return;
        };
        if std::mem::replace(is_assigned, true) {
            return;
        }
        let windows = *windows;
        let segments = self.nodes.iter_mut().filter_map(|node| match &mut node.stage {
            Stage::Segment(steps) => Some(steps),
            _ => None,
        });
        let carrying = segments
            .chain([&mut self.steps])
            .flatten()
            .filter(|step| matches!(step, Step::CarryTime { .. }))
            .last()
            .expect("windows that are not assigned are carried");
        if let Step::CarryTime { time, schema } = carrying {
            *carrying = Step::Windows {
                time: *time,
                windows,
                schema: Arc::clone(schema),
            };
        }
    }

    pub fn finish(
        mut self,
        builder: &Builder<'_>,
        plan: &LogicalPlan,
        emit: &Emit,
        emit_span: Span,
    ) -> Result<StreamPlan, Vec<Diagnostic>> {
        builder.assign(&mut self).map_err(|refusal| match refusal {
            Refusal::Mistake(mistake) => vec![*mistake],
            Refusal::Planner(error) => vec![Diagnostic::error(SqlState::Invalid, error.strip_backtrace(), None)],
        })?;
        let schema = arrow_schema(plan.schema());
        let place = |is: &dyn Fn(Role) -> bool| self.roles.iter().position(|role| is(*role));
        let window_end = place(&|role| role == Role::WindowEnd);
        let row_start = place(&|role| role == Role::RowWindowStart);
        let time = place(&|role| matches!(role, Role::WindowStart(_)))
            .or_else(|| row_start.filter(|_| self.roles.contains(&Role::RowWindowEnd)))
            .or_else(|| place(&|role| matches!(role, Role::EventTime | Role::Time)))
            .or(row_start);
        self.close_segment();
        match emit {
            Emit::Changes => {}
            Emit::Every(interval) => {
                self.push(Stage::EmitEvery(*interval));
                // What each row met is not kept while it waits.
                for role in &mut self.roles {
                    if matches!(role, Role::EventTime | Role::RowWindowStart | Role::RowWindowEnd) {
                        *role = Role::Plain;
                    }
                }
            }
            Emit::OnWindowClose if self.is_on_close => {}
            Emit::OnWindowClose => match window_end {
                Some(window_end) => {
                    self.push(Stage::WindowCloseGate {
                        schema: Arc::clone(&schema),
                        window_end,
                    });
                    self.is_append_only = true;
                }
                None => {
                    let message = "EMIT ON WINDOW CLOSE needs rows that belong to a window";
                    let is_timed = |node: &Node| matches!(node.stage, Stage::TemporalFilter { .. });
                    let help = match self.has_watermark {
                        _ if self.nodes.iter().any(is_timed) => {
                            "rows that come and go by now() are never final: use EMIT CHANGES"
                        }
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
        let row_windows = match self.cut {
            Some(RowCut {
                cut: Cut::Aligned(windows),
                is_complete: true,
                ..
            }) if (self.roles.iter()).any(|role| matches!(role, Role::RowWindowStart | Role::RowWindowEnd)) => {
                Some(windows)
            }
            _ => None,
        };
        Ok(StreamPlan {
            inputs: self.inputs,
            nodes: self.nodes,
            windows: self.windows.filter(|_| time.is_some()),
            row_windows,
            schema,
            key: self.key.unwrap_or_default(),
            time,
            window_end,
            roles: self.roles,
            grows: self.grows,
            is_append_only: self.is_append_only,
            late_rows: self.late_rows,
        })
    }
}

/// The input column that an expression hands through unchanged.
pub(super) fn origin(expr: &Expr, input: &DFSchemaRef) -> Option<usize> {
    match expr {
        Expr::Column(column) => input.index_of_column(column).ok(),
        Expr::Alias(alias) => origin(&alias.expr, input),
        _ => None,
    }
}

/// Field names without their tables.
pub(super) fn arrow_schema(schema: &DFSchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().clone()))
}
