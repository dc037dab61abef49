//! Windows as a node of the plan: the columns of its input, and `window_start` and `window_end` of each row.
//!
//! ```text
//! SQL ─▶ window_call.rs ─▶ node "Windowed" ─┬─▶ a dataflow reads windows and column from the node
//!                                           └─▶ batch: lowered to projections, UNNEST and OVER
//! ```
//! A row stands once for every window that it is in; a row without a time is in none.

use std::{cmp::Ordering, fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray, StructArray, TimestampNanosecondArray},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, Fields, TimeUnit, TimestampNanosecondType},
};
use chrono_tz::Tz;
use datafusion::{
    common::{
        Column, DFSchema, DFSchemaRef, DataFusionError, Result, ScalarValue, config::ConfigOptions,
        tree_node::Transformed,
    },
    functions::{core::expr_fn::get_field, datetime::expr_fn::date_bin},
    functions_aggregate::{
        min_max::{max_udaf, min_udaf},
        sum::sum_udaf,
    },
    functions_window::expr_fn::lag,
    logical_expr::{
        ColumnarValue, Expr, ExprFunctionExt, Extension, LogicalPlan, LogicalPlanBuilder, Projection,
        ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, UserDefinedLogicalNodeCore, Volatility,
        WindowFunctionDefinition, cast, expr::WindowFunction, ident, lit, when,
    },
    optimizer::AnalyzerRule,
};

use crate::types::{CalendarUnit, Grid, Shape, Windows};

pub const TIME: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);
pub const WINDOW_COLUMNS: [&str; 2] = ["window_start", "window_end"];

/// What cuts time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cut {
    Aligned(Windows),
    /// Rows of one key that follow each other in less than `gap_ns`, which is more than 0.
    Sessions {
        gap_ns: i64,
        key: Vec<Column>,
    },
}

/// The columns of its input, then `window_start` and `window_end`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Windowed {
    pub input: LogicalPlan,
    pub time: Column,
    pub cut: Cut,
    schema: DFSchemaRef,
}

impl PartialOrd for Windowed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.time.partial_cmp(&other.time)
    }
}

impl Windowed {
    pub fn try_new(input: LogicalPlan, time: Column, cut: Cut) -> Result<Self> {
        let window = WINDOW_COLUMNS.map(|name| (None, Arc::new(Field::new(name, TIME, false))));
        let fields = input
            .schema()
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)))
            .chain(window)
            .collect();
        let schema = DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?;
        Ok(Self {
            input,
            time,
            cut,
            schema: Arc::new(schema),
        })
    }

    /// The same rows by nodes that batch knows.
    fn lower(&self) -> Result<LogicalPlan> {
        let input = LogicalPlanBuilder::from(self.input.clone())
            .filter(Expr::Column(self.time.clone()).is_not_null())?
            .build()?;
        let columns: Vec<Expr> = self.input.schema().columns().into_iter().map(Expr::Column).collect();
        let time = cast(Expr::Column(self.time.clone()), TIME);
        let (below, start, end) = match &self.cut {
            Cut::Aligned(Windows {
                grid: Grid::Fixed { step_ns, origin_ns },
                shape: Shape::Tumble,
            }) => {
                // Not our own function: the optimizer knows this one, and filters by it reach the files.
                let size = lit(ScalarValue::new_interval_mdn(0, 0, *step_ns));
                let origin = lit(ScalarValue::TimestampNanosecond(Some(*origin_ns), None));
                let start = date_bin(size.clone(), time, origin);
                let end = start.clone() + size;
                (input, start, end)
            }
            Cut::Aligned(windows) => {
                let bounds = ScalarUDF::from(WindowBounds::new(*windows));
                let listed = columns
                    .iter()
                    .cloned()
                    .chain([bounds.call(vec![time]).alias("$windows")]);
                let unnested = LogicalPlanBuilder::from(input)
                    .project(listed)?
                    .unnest_column("$windows")?
                    .build()?;
                let bound = |name: &str| get_field(ident("$windows"), name);
                (unnested, bound(WINDOW_COLUMNS[0]), bound(WINDOW_COLUMNS[1]))
            }
            Cut::Sessions { gap_ns, key } => {
                let key: Vec<Expr> = key.iter().cloned().map(Expr::Column).collect();
                let number = |time: Expr| cast(time, DataType::Int64);
                let previous = lag(time.clone(), Some(1), None)
                    .partition_by(key.clone())
                    .order_by(vec![time.clone().sort(true, false)])
                    .build()?
                    .alias("$previous");
                let begins = when(
                    ident("$previous")
                        .is_null()
                        .or((number(time.clone()) - number(ident("$previous"))).gt_eq(lit(*gap_ns))),
                    lit(1i64),
                )
                .otherwise(lit(0i64))?
                .alias("$begins");
                let session = over(sum_udaf(), ident("$begins"))
                    .partition_by(key.clone())
                    .order_by(vec![time.clone().sort(true, false)])
                    .build()?
                    .alias("$session");
                let of_session: Vec<Expr> = key.into_iter().chain([ident("$session")]).collect();
                let edge = |function, name: &str| {
                    over(function, time.clone())
                        .partition_by(of_session.clone())
                        .build()
                        .map(|expr| expr.alias(name))
                };
                let plan = LogicalPlanBuilder::from(input)
                    .window([previous])?
                    .project(columns.iter().cloned().chain([begins]))?
                    .window([session])?
                    .window([edge(min_udaf(), "$first")?, edge(max_udaf(), "$last")?])?
                    .build()?;
                let gap = lit(ScalarValue::new_interval_mdn(0, 0, *gap_ns));
                (plan, ident("$first"), ident("$last") + gap)
            }
        };
        let bounds = [
            cast(start, TIME).alias(WINDOW_COLUMNS[0]),
            cast(end, TIME).alias(WINDOW_COLUMNS[1]),
        ];
        let exprs = columns.into_iter().chain(bounds).collect();
        Projection::try_new_with_schema(exprs, Arc::new(below), Arc::clone(&self.schema)).map(LogicalPlan::Projection)
    }
}

fn over(function: Arc<datafusion::logical_expr::AggregateUDF>, argument: Expr) -> Expr {
    Expr::from(WindowFunction::new(
        WindowFunctionDefinition::AggregateUDF(function),
        vec![argument],
    ))
}

impl UserDefinedLogicalNodeCore for Windowed {
    fn name(&self) -> &str {
        "Windowed"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let key = match &self.cut {
            Cut::Aligned(_) => &[],
            Cut::Sessions { key, .. } => key.as_slice(),
        };
        std::iter::once(&self.time)
            .chain(key)
            .cloned()
            .map(Expr::Column)
            .collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Windowed: {}, {}", self.time, self.cut)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let wrong = || DataFusionError::Internal("a window is made of columns and one input".into());
        let mut columns = exprs.into_iter().map(|expr| match expr {
            Expr::Column(column) => Ok(column),
            _ => Err(wrong()),
        });
        let time = columns.next().ok_or_else(wrong)??;
        let cut = match &self.cut {
            Cut::Aligned(windows) => Cut::Aligned(*windows),
            Cut::Sessions { gap_ns, .. } => Cut::Sessions {
                gap_ns: *gap_ns,
                key: columns.collect::<Result<_>>()?,
            },
        };
        Self::try_new(inputs.pop().ok_or_else(wrong)?, time, cut)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let input = self.input.schema();
        let width = input.fields().len();
        let own = self.expressions().into_iter().map(|expr| match expr {
            Expr::Column(column) => input.index_of_column(&column).ok(),
            _ => None,
        });
        let mut needed: Vec<usize> = output_columns
            .iter()
            .copied()
            .filter(|column| *column < width)
            .chain(own.collect::<Option<Vec<_>>>()?)
            .collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sessions { gap_ns, .. } => write!(f, "sessions with a gap of {}", length(*gap_ns)),
            Self::Aligned(Windows { grid, shape }) => {
                let panes = |count: i64| match grid {
                    Grid::Fixed { step_ns, .. } => length(step_ns.saturating_mul(count)),
                    Grid::Calendar(calendar) => {
                        let units = i64::from(calendar.count).saturating_mul(count);
                        match calendar.unit {
                            CalendarUnit::Days => format!("{units} days"),
                            CalendarUnit::Months => format!("{units} months"),
                        }
                    }
                };
                match shape {
                    Shape::Tumble => write!(f, "windows of {}", panes(1))?,
                    Shape::Hop { slide, size } => write!(f, "windows of {} every {}", panes(*size), panes(*slide))?,
                    Shape::Cumulate { size } => {
                        write!(f, "windows that grow by {} up to {}", panes(1), panes(*size))?;
                    }
                }
                match grid {
                    Grid::Calendar(calendar) if calendar.zone != Tz::UTC => write!(f, " in {}", calendar.zone),
                    Grid::Calendar(_) | Grid::Fixed { .. } => Ok(()),
                }
            }
        }
    }
}

fn length(nanos: i64) -> String {
    format!("{} s", nanos as f64 / 1e9)
}

/// Lowers windows for batch plans. Dataflows are made before it runs.
#[derive(Debug)]
pub struct LowerWindows;

impl AnalyzerRule for LowerWindows {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let LogicalPlan::Extension(Extension { node }) = &plan else {
                return Ok(Transformed::no(plan));
            };
            match node.as_any().downcast_ref::<Windowed>() {
                Some(windowed) => Ok(Transformed::yes(windowed.lower()?)),
                None => Ok(Transformed::no(plan)),
            }
        })
        .map(|transformed| transformed.data)
    }

    fn name(&self) -> &str {
        "lower_windows"
    }
}

/// The windows that a time is in, as a list of their bounds; of no time an empty list.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowBounds {
    windows: Windows,
    signature: Signature,
}

impl WindowBounds {
    fn new(windows: Windows) -> Self {
        Self {
            windows,
            signature: Signature::exact(vec![TIME], Volatility::Immutable),
        }
    }

    fn fields() -> Fields {
        WINDOW_COLUMNS
            .map(|name| Field::new(name, TIME, false))
            .into_iter()
            .collect()
    }

    fn item() -> Arc<Field> {
        Arc::new(Field::new_list_field(DataType::Struct(Self::fields()), true))
    }
}

impl ScalarUDFImpl for WindowBounds {
    fn name(&self) -> &str {
        "window_bounds"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Self::item()))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = arguments.args[0].to_array(arguments.number_rows)?;
        let times = times.as_primitive::<TimestampNanosecondType>();
        let (mut starts, mut ends, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for time in times {
            let before = starts.len();
            for range in time
                .into_iter()
                .flat_map(|time| self.windows.covering(self.windows.grid.index(time)))
            {
                let window = self.windows.bounds(range);
                starts.push(window.start);
                ends.push(window.end);
            }
            lengths.push(starts.len() - before);
        }
        let bounds = [starts, ends].map(|times| Arc::new(TimestampNanosecondArray::from(times)) as ArrayRef);
        let windows = StructArray::try_new(Self::fields(), bounds.into(), None)?;
        let lists = ListArray::try_new(
            Self::item(),
            OffsetBuffer::from_lengths(lengths),
            Arc::new(windows) as Arc<dyn Array>,
            None,
        )?;
        Ok(ColumnarValue::Array(Arc::new(lists)))
    }
}
