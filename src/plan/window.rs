//! `TUMBLE(table, column, interval)` in FROM: the table's columns, and `window_start` and `window_end` of each row.
//!
//! ```text
//! SQL ─▶ relation planner ─▶ node "Tumble" ─┬─▶ a dataflow reads size and column from the node
//!                                           └─▶ batch: lowered to a projection with date_bin
//! ```

use std::{cmp::Ordering, collections::BTreeMap, fmt, sync::Arc};

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::{
    catalog::TableProvider,
    common::{
        Column, DFSchema, DFSchemaRef, DataFusionError, Diagnostic, Result, ScalarValue, Span, config::ConfigOptions,
        tree_node::Transformed,
    },
    datasource::provider_as_source,
    functions::datetime::expr_fn::date_bin,
    logical_expr::{
        Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, Projection, UserDefinedLogicalNodeCore, cast,
        lit,
        planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning},
    },
    optimizer::AnalyzerRule,
    sql::sqlparser::ast::{self, FunctionArg, FunctionArgExpr, Spanned, TableFactor},
};

use crate::types::TumblingWindow;

const TIME: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

/// The columns of its input, then `window_start` and `window_end`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tumble {
    pub input: LogicalPlan,
    pub time: Column,
    /// In nanoseconds, more than 0.
    pub size_ns: i64,
    schema: DFSchemaRef,
}

impl PartialOrd for Tumble {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.size_ns.partial_cmp(&other.size_ns)
    }
}

impl Tumble {
    fn try_new(input: LogicalPlan, time: Column, size_ns: i64) -> Result<Self> {
        let is_nullable = input.schema().qualified_field_from_column(&time)?.1.is_nullable();
        let window = ["window_start", "window_end"].map(|name| (None, Arc::new(Field::new(name, TIME, is_nullable))));
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
            size_ns,
            schema: Arc::new(schema),
        })
    }

    pub fn window(&self) -> TumblingWindow {
        TumblingWindow { size_ns: self.size_ns }
    }

    /// The same as a projection, for batch.
    fn lower(&self) -> Result<LogicalPlan> {
        let size = ScalarValue::new_interval_mdn(0, 0, self.size_ns);
        let time = cast(Expr::Column(self.time.clone()), TIME);
        let start = date_bin(
            lit(size.clone()),
            time,
            lit(ScalarValue::TimestampNanosecond(Some(0), None)),
        );
        let end = cast(start.clone() + lit(size), TIME);
        let columns = self.input.schema().columns().into_iter().map(Expr::Column);
        let exprs = columns
            .chain([cast(start, TIME).alias("window_start"), end.alias("window_end")])
            .collect();
        Projection::try_new_with_schema(exprs, Arc::new(self.input.clone()), Arc::clone(&self.schema))
            .map(LogicalPlan::Projection)
    }
}

impl UserDefinedLogicalNodeCore for Tumble {
    fn name(&self) -> &str {
        "Tumble"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![Expr::Column(self.time.clone())]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Tumble: {}, size={}s", self.time, self.size_ns as f64 / 1e9)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Some(Expr::Column(time)), Some(input)) = (exprs.pop(), inputs.pop()) else {
            return Err(DataFusionError::Internal(
                "a window is made of one column and one input".into(),
            ));
        };
        Self::try_new(input, time, self.size_ns)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.input.schema().fields().len();
        let time = self.input.schema().index_of_column(&self.time).ok()?;
        let mut needed: Vec<usize> = output_columns
            .iter()
            .copied()
            .filter(|column| *column < width)
            .chain([time])
            .collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
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
            match node.as_any().downcast_ref::<Tumble>() {
                Some(tumble) => Ok(Transformed::yes(tumble.lower()?)),
                None => Ok(Transformed::no(plan)),
            }
        })
        .map(|transformed| transformed.data)
    }

    fn name(&self) -> &str {
        "lower_windows"
    }
}

/// Plans window functions in FROM.
#[derive(Debug)]
pub struct WindowFunctions {
    /// DataFusion's planner looks up only what stands as a table in FROM, and the table of a window is an argument.
    pub tables: BTreeMap<String, Arc<dyn TableProvider>>,
}

impl WindowFunctions {
    fn scan(&self, name: &ast::ObjectName, context: &mut dyn RelationPlannerContext) -> Option<Result<LogicalPlan>> {
        let reference = context.object_name_to_table_reference(name.clone()).ok()?;
        let table = self.tables.get(reference.table())?;
        let source = provider_as_source(Arc::clone(table));
        Some(LogicalPlanBuilder::scan(reference, source, None).and_then(|builder| builder.build()))
    }
}

impl RelationPlanner for WindowFunctions {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Table {
            name,
            alias,
            args: Some(arguments),
            ..
        } = &relation
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let function = name.to_string().to_ascii_lowercase();
        match function.as_str() {
            "tumble" => {}
            "hop" | "session" | "cumulate" => {
                return Err(mistake(
                    format!("{function} is not supported yet"),
                    Some(name.span()),
                    "use TUMBLE(table, column, INTERVAL '5 minutes')",
                ));
            }
            _ => return Ok(RelationPlanning::Original(Box::new(relation))),
        }
        let usage = "write TUMBLE(table, event-time column, INTERVAL '5 minutes')";
        let mut parts = Vec::new();
        for argument in &arguments.args {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => parts.push(expr.clone()),
                other => {
                    return Err(mistake(
                        "tumble takes its arguments by place",
                        Some(other.span()),
                        usage,
                    ));
                }
            }
        }
        let [table, time, size] = <[ast::Expr; 3]>::try_from(parts).map_err(|parts| {
            mistake(
                format!("tumble takes 3 arguments, not {}", parts.len()),
                Some(name.span()),
                usage,
            )
        })?;
        let table_name = match &table {
            ast::Expr::Identifier(ident) => ast::ObjectName::from(vec![ident.clone()]),
            ast::Expr::CompoundIdentifier(idents) => ast::ObjectName::from(idents.clone()),
            other => {
                return Err(mistake(
                    "the first argument of tumble is a table's name",
                    Some(other.span()),
                    usage,
                ));
            }
        };
        // A name that WITH gave comes first, as everywhere in FROM.
        let planned = context.plan(TableFactor::Table {
            name: table_name.clone(),
            alias: None,
            args: None,
            with_hints: vec![],
            version: None,
            with_ordinality: false,
            partitions: vec![],
            json_path: None,
            sample: None,
            index_hints: vec![],
        });
        let input = match planned {
            Ok(input) => input,
            Err(unknown) => self.scan(&table_name, context).unwrap_or(Err(unknown))?,
        };
        if let Some(twice) = ["window_start", "window_end"]
            .into_iter()
            .find(|name| input.schema().has_column_with_unqualified_name(name))
        {
            return Err(mistake(
                format!("`{table}` has a column `{twice}` already, and tumble adds it"),
                Some(table.span()),
                "tumble over the source itself, or give the column another name in a view",
            ));
        }
        let time_span = time.span();
        let Expr::Column(column) = context.sql_to_expr(time, input.schema())? else {
            return Err(mistake(
                "the second argument of tumble is a column",
                Some(time_span),
                usage,
            ));
        };
        let data_type = Expr::Column(column.clone()).get_type(input.schema().as_ref())?;
        if !matches!(data_type, DataType::Timestamp(..)) {
            let times: Vec<String> = input
                .schema()
                .fields()
                .iter()
                .filter(|field| matches!(field.data_type(), DataType::Timestamp(..)))
                .map(|field| format!("`{}`", field.name()))
                .collect();
            let help = match times.as_slice() {
                [] => format!("`{table}` has no TIMESTAMP column"),
                [only] => format!("`{table}` has one TIMESTAMP column: {only}"),
                many => format!("`{table}` has TIMESTAMP columns: {}", many.join(", ")),
            };
            let message = format!(
                "tumble needs an event-time column, but `{}` is {}",
                column.name(),
                crate::types::type_name(&data_type)
            );
            return Err(mistake_with_note(message, Some(time_span), "expected TIMESTAMP", help));
        }
        let size_span = size.span();
        let size_ns = match context.sql_to_expr(size, &DFSchema::empty())? {
            Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) if interval.months == 0 => {
                i64::from(interval.days)
                    .checked_mul(86_400_000_000_000)
                    .and_then(|days| days.checked_add(interval.nanoseconds))
            }
            Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(_)), _) => {
                return Err(mistake(
                    "windows of months are not supported yet",
                    Some(size_span),
                    "use days, e.g. INTERVAL '30 days'",
                ));
            }
            Expr::Literal(ScalarValue::IntervalDayTime(Some(interval)), _) => {
                Some(i64::from(interval.days) * 86_400_000_000_000 + i64::from(interval.milliseconds) * 1_000_000)
            }
            _ => {
                return Err(mistake(
                    "the size of a window is a constant interval",
                    Some(size_span),
                    "e.g. INTERVAL '5 minutes'",
                ));
            }
        };
        let Some(size_ns) = size_ns.filter(|size| 0 < *size) else {
            return Err(mistake(
                "the size of a window is more than 0",
                Some(size_span),
                "e.g. INTERVAL '5 minutes'",
            ));
        };
        let node = Tumble::try_new(input, column, size_ns)?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(
            plan,
            alias.clone(),
        ))))
    }
}

fn mistake(
    message: impl Into<String>,
    span: Option<datafusion::sql::sqlparser::tokenizer::Span>,
    help: impl Into<String>,
) -> DataFusionError {
    let message = message.into();
    let span = span.and_then(Span::try_from_sqlparser_span);
    let mut diagnostic = Diagnostic::new_error(message.clone(), span);
    diagnostic.add_help(help, None);
    DataFusionError::Plan(message).with_diagnostic(diagnostic)
}

/// With short words for under the caret.
fn mistake_with_note(
    message: String,
    span: Option<datafusion::sql::sqlparser::tokenizer::Span>,
    note: &str,
    help: String,
) -> DataFusionError {
    let span = span.and_then(Span::try_from_sqlparser_span);
    let mut diagnostic = Diagnostic::new_error(message.clone(), span);
    diagnostic.add_note(note, span);
    diagnostic.add_help(help, None);
    DataFusionError::Plan(message).with_diagnostic(diagnostic)
}
