//! Calls of window functions in FROM: `TUMBLE(t, ts, size)`, `HOP(t, ts, slide, size)`, `CUMULATE(t, ts, step, size)`, `SESSION(t, ts, gap, key)`.
//!
//! The first argument is the name of a table, source or view, or a sub-query in parentheses. Aligned windows take an offset and a time zone as last arguments.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use chrono_tz::Tz;
use datafusion::{
    catalog::TableProvider,
    common::{Column, DFSchema, DataFusionError, Diagnostic, Result, ScalarValue, Span},
    datasource::provider_as_source,
    logical_expr::{
        Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder,
        planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning},
    },
    sql::sqlparser::{
        ast::{self, FunctionArg, FunctionArgExpr, Spanned, TableFactor},
        tokenizer::Span as TextSpan,
    },
};

use crate::{
    sql::suggest::nearest,
    types::{Calendar, CalendarUnit, Grid, Shape, Windows, limits, type_name},
};

use super::window::{Cut, WINDOW_COLUMNS, Windowed};

const NANOS_PER_DAY: i64 = 86_400_000_000_000;

/// Plans window functions in FROM.
#[derive(Debug)]
pub struct WindowFunctions {
    /// DataFusion's planner looks up only what stands as a table in FROM, and the table of a window is an argument.
    pub tables: BTreeMap<String, Arc<dyn TableProvider>>,
}

/// One of the functions, and how it is written.
struct Call {
    name: &'static str,
    usage: &'static str,
    intervals: usize,
}

const CALLS: [Call; 4] = [
    Call {
        name: "tumble",
        usage: "write TUMBLE(table, event-time column, INTERVAL '5 minutes')",
        intervals: 1,
    },
    Call {
        name: "hop",
        usage: "write HOP(table, event-time column, INTERVAL '1 minute', INTERVAL '5 minutes'): slide, then size",
        intervals: 2,
    },
    Call {
        name: "cumulate",
        usage: "write CUMULATE(table, event-time column, INTERVAL '1 hour', INTERVAL '1 day'): step, then size",
        intervals: 2,
    },
    Call {
        name: "session",
        usage: "write SESSION(table, event-time column, INTERVAL '30 minutes', key column)",
        intervals: 1,
    },
];

/// A length of windows.
#[derive(Clone, Copy, PartialEq)]
enum Length {
    Months(i32),
    /// By the clocks of a time zone.
    Days(i32),
    Nanos(i64),
}

#[derive(Clone, Copy, PartialEq)]
enum LengthKind {
    Months,
    Days,
    Time,
}

impl Length {
    fn kind(self) -> LengthKind {
        match self {
            Self::Months(_) => LengthKind::Months,
            Self::Days(_) => LengthKind::Days,
            Self::Nanos(_) => LengthKind::Time,
        }
    }

    fn count(self) -> i64 {
        match self {
            Self::Months(count) | Self::Days(count) => i64::from(count),
            Self::Nanos(count) => count,
        }
    }

    /// Time as days, where it is whole days.
    fn in_days(self) -> Option<Self> {
        match self {
            Self::Nanos(nanos) if nanos % NANOS_PER_DAY == 0 => Some(Self::Days((nanos / NANOS_PER_DAY) as i32)),
            Self::Nanos(_) => None,
            Self::Months(_) | Self::Days(_) => Some(self),
        }
    }
}

/// What may follow the lengths of aligned windows.
struct Alignment {
    offset_ns: i64,
    zone: Option<Tz>,
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
        let Some(call) = CALLS.iter().find(|call| call.name == function) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let mut parts = Vec::new();
        for argument in &arguments.args {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => parts.push(expr.clone()),
                other => {
                    let message = format!("{} takes its arguments by place", call.name);
                    return Err(mistake(message, Some(other.span()), call.usage));
                }
            }
        }
        let least = 2 + call.intervals;
        if parts.len() < least {
            let message = format!("{} takes {least} arguments, not {}", call.name, parts.len());
            return Err(mistake(message, Some(name.span()), call.usage));
        }
        let mut parts = parts.into_iter();
        let (table, time) = (parts.next().expect("counted"), parts.next().expect("counted"));
        let input = self.input(&table, call, context)?;
        let time = time_column(&table, time, &input, call, context)?;
        let lengths = parts
            .by_ref()
            .take(call.intervals)
            .map(|length| positive_length(length, call, context))
            .collect::<Result<Vec<_>>>()?;
        let cut = match call.name {
            "session" => sessions(lengths[0], parts, &input, call, context)?,
            _ => {
                let alignment = alignment(parts, call, context)?;
                Cut::Aligned(aligned(&lengths, &alignment, name.span(), call)?)
            }
        };
        let node = Windowed::try_new(input, time, cut)?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(
            plan,
            alias.clone(),
        ))))
    }
}

impl WindowFunctions {
    fn input(&self, table: &ast::Expr, call: &Call, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let input = match table {
            ast::Expr::Identifier(ident) => self.named(&ast::ObjectName::from(vec![ident.clone()]), context)?,
            ast::Expr::CompoundIdentifier(idents) => self.named(&ast::ObjectName::from(idents.clone()), context)?,
            ast::Expr::Subquery(query) => context.plan(TableFactor::Derived {
                lateral: false,
                subquery: query.clone(),
                alias: None,
                sample: None,
            })?,
            other => {
                let message = format!("the first argument of {} is a table's name or a sub-query", call.name);
                return Err(mistake(message, Some(other.span()), call.usage));
            }
        };
        match WINDOW_COLUMNS
            .into_iter()
            .find(|name| input.schema().has_column_with_unqualified_name(name))
        {
            Some(twice) => Err(mistake(
                format!("`{table}` has a column `{twice}` already, and {} adds it", call.name),
                Some(table.span()),
                "give the column another name in a sub-query: (SELECT window_end AS time, … FROM …)",
            )),
            None => Ok(input),
        }
    }

    fn named(&self, name: &ast::ObjectName, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        // A name that WITH gave comes first, as everywhere in FROM.
        let planned = context.plan(TableFactor::Table {
            name: name.clone(),
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
        planned.or_else(|unknown| self.scan(name, context).unwrap_or(Err(unknown)))
    }

    fn scan(&self, name: &ast::ObjectName, context: &mut dyn RelationPlannerContext) -> Option<Result<LogicalPlan>> {
        let reference = context.object_name_to_table_reference(name.clone()).ok()?;
        let table = self.tables.get(reference.table())?;
        let source = provider_as_source(Arc::clone(table));
        Some(LogicalPlanBuilder::scan(reference, source, None).and_then(|builder| builder.build()))
    }
}

fn time_column(
    table: &ast::Expr,
    time: ast::Expr,
    input: &LogicalPlan,
    call: &Call,
    context: &mut dyn RelationPlannerContext,
) -> Result<Column> {
    let span = time.span();
    let Expr::Column(column) = context.sql_to_expr(time, input.schema())? else {
        let message = format!("the second argument of {} is a column", call.name);
        return Err(mistake(message, Some(span), call.usage));
    };
    let data_type = Expr::Column(column.clone()).get_type(input.schema().as_ref())?;
    if matches!(data_type, DataType::Timestamp(..)) {
        return Ok(column);
    }
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
        "{} needs an event-time column, but `{}` is {}",
        call.name,
        column.name(),
        type_name(&data_type)
    );
    Err(mistake_with_note(message, Some(span), "expected TIMESTAMP", help))
}

fn positive_length(length: ast::Expr, call: &Call, context: &mut dyn RelationPlannerContext) -> Result<Length> {
    let span = length.span();
    let what = match call.name {
        "tumble" => "the size of a window",
        "session" => "the gap of a session",
        _ => "each length of a window",
    };
    let refuse = |rule: &str, help: &str| mistake(format!("{what} is {rule}"), Some(span), help);
    let interval = interval(context.sql_to_expr(length, &DFSchema::empty())?)
        .ok_or_else(|| refuse("a constant interval", "e.g. INTERVAL '5 minutes'"))?;
    match interval {
        Some(Length::Months(months)) if 0 < months => Ok(Length::Months(months)),
        Some(Length::Nanos(nanos)) if 0 < nanos => Ok(Length::Nanos(nanos)),
        Some(_) => Err(refuse("more than 0", "e.g. INTERVAL '5 minutes'")),
        None => Err(refuse(
            "either months or time, not both",
            "e.g. INTERVAL '1 month' or INTERVAL '30 days'",
        )),
    }
}

/// `None` where it is no constant; `Some(None)` where months and time are mixed, or it is beyond all time.
fn interval(expr: Expr) -> Option<Option<Length>> {
    let Expr::Literal(value, _) = expr else { return None };
    let interval = match value {
        ScalarValue::IntervalMonthDayNano(interval) => interval?,
        ScalarValue::IntervalDayTime(interval) => {
            let interval = interval?;
            IntervalMonthDayNano::new(0, interval.days, i64::from(interval.milliseconds) * 1_000_000)
        }
        ScalarValue::IntervalYearMonth(months) => IntervalMonthDayNano::new(months?, 0, 0),
        _ => return None,
    };
    let nanos = i64::from(interval.days)
        .checked_mul(NANOS_PER_DAY)
        .and_then(|days| days.checked_add(interval.nanoseconds));
    Some(match (interval.months, nanos) {
        (0, nanos) => nanos.map(Length::Nanos),
        (months, Some(0)) => Some(Length::Months(months)),
        _ => None,
    })
}

/// An offset, a time zone, or both in this order.
fn alignment(
    parts: impl Iterator<Item = ast::Expr>,
    call: &Call,
    context: &mut dyn RelationPlannerContext,
) -> Result<Alignment> {
    let (mut offset_ns, mut zone) = (None, None);
    for part in parts {
        let span = Some(part.span());
        let value = context.sql_to_expr(part, &DFSchema::empty())?;
        let text = match &value {
            Expr::Literal(value, _) => value.try_as_str().flatten(),
            _ => None,
        };
        match (text, interval(value.clone()).flatten()) {
            (Some(name), _) if zone.is_none() => zone = Some(time_zone(name, span)?),
            (None, Some(Length::Nanos(nanos))) if offset_ns.is_none() && zone.is_none() => offset_ns = Some(nanos),
            _ => {
                let message = format!(
                    "behind its lengths {} takes an offset of time, then a time zone, each once",
                    call.name
                );
                return Err(mistake(message, span, "e.g. INTERVAL '8 hours', 'Europe/Berlin'"));
            }
        }
    }
    Ok(Alignment {
        offset_ns: offset_ns.unwrap_or(0),
        zone,
    })
}

fn time_zone(name: &str, span: Option<TextSpan>) -> Result<Tz> {
    name.parse::<Tz>().map_err(|_| {
        let zones = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        let help = match nearest(name, zones) {
            Some(near) => format!("did you mean '{near}'?"),
            None => "use a name of the time zone database, e.g. 'Europe/Berlin' or 'UTC'".into(),
        };
        mistake(format!("there is no time zone '{name}'"), span, help)
    })
}

fn aligned(lengths: &[Length], alignment: &Alignment, span: TextSpan, call: &Call) -> Result<Windows> {
    let lengths = match alignment.zone {
        None => lengths.to_vec(),
        Some(_) => (lengths.iter())
            .map(|length| length.in_days().ok_or_else(|| part_of_a_day(span)))
            .collect::<Result<_>>()?,
    };
    let kind = lengths[0].kind();
    if lengths.iter().any(|length| length.kind() != kind) {
        let message = format!("both lengths of {} are months, or both are time", call.name);
        return Err(mistake(message, Some(span), call.usage));
    }
    let units: Vec<i64> = lengths.iter().map(|length| length.count()).collect();
    let (pane, shape) = match (call.name, units.as_slice()) {
        ("hop", [slide, size]) => {
            let pane = greatest_common_divisor(*slide, *size);
            let (slide, size) = (slide / pane, size / pane);
            let shape = match (slide, size) {
                (1, 1) => Shape::Tumble,
                _ => Shape::Hop { slide, size },
            };
            (pane, shape)
        }
        ("cumulate", [step, size]) => {
            if size % step != 0 {
                let message = "the size of a cumulating window is a multiple of its step";
                return Err(mistake(message, Some(span), call.usage));
            }
            (*step, Shape::Cumulate { size: size / step })
        }
        (_, units) => (units[0], Shape::Tumble),
    };
    let windows_per_row = match shape {
        Shape::Tumble => 1,
        Shape::Hop { slide, size } => (size - 1) / slide + 1,
        Shape::Cumulate { size } => size,
    };
    if limits::WINDOWS_PER_ROW_MAX < windows_per_row {
        let message = format!(
            "a row would be in {windows_per_row} windows, at most {} are possible",
            limits::WINDOWS_PER_ROW_MAX
        );
        return Err(mistake(
            message,
            Some(span),
            "make the windows shorter, or let them start less often",
        ));
    }
    let panes = match shape {
        Shape::Tumble => 1,
        Shape::Hop { slide, size } => size.max(slide),
        Shape::Cumulate { size } => size,
    };
    if limits::PANES_PER_WINDOW_MAX < panes {
        let message = format!(
            "a window would be made of {panes} parts of {} each, at most {} are possible",
            match kind {
                LengthKind::Time => format!("{} s", pane as f64 / 1e9),
                LengthKind::Days => format!("{pane} days"),
                LengthKind::Months => format!("{pane} months"),
            },
            limits::PANES_PER_WINDOW_MAX
        );
        return Err(mistake(
            message,
            Some(span),
            "choose lengths with a longer common part, e.g. a size that is a multiple of the slide",
        ));
    }
    let calendar = |unit| {
        Grid::Calendar(Calendar {
            unit,
            count: pane as i32,
            offset_ns: alignment.offset_ns,
            zone: alignment.zone.unwrap_or(Tz::UTC),
        })
    };
    let grid = match kind {
        LengthKind::Time => Grid::Fixed {
            step_ns: pane,
            origin_ns: alignment.offset_ns,
        },
        LengthKind::Days => calendar(CalendarUnit::Days),
        LengthKind::Months => calendar(CalendarUnit::Months),
    };
    Ok(Windows { grid, shape })
}

fn part_of_a_day(span: TextSpan) -> DataFusionError {
    mistake(
        "windows in a time zone are of whole days or months",
        Some(span),
        "leave the time zone out: hours and minutes begin everywhere alike; an offset moves them",
    )
}

fn sessions(
    gap: Length,
    key: impl Iterator<Item = ast::Expr>,
    input: &LogicalPlan,
    call: &Call,
    context: &mut dyn RelationPlannerContext,
) -> Result<Cut> {
    let key = key
        .map(|part| {
            let span = part.span();
            match context.sql_to_expr(part, input.schema())? {
                Expr::Column(column) => Ok(column),
                _ => Err(mistake("the key of a session is a column", Some(span), call.usage)),
            }
        })
        .collect::<Result<_>>()?;
    match gap {
        Length::Nanos(gap_ns) => Ok(Cut::Sessions { gap_ns, key }),
        Length::Months(_) | Length::Days(_) => {
            Err(mistake("the gap of a session is time, not months", None, call.usage))
        }
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn mistake(message: impl Into<String>, span: Option<TextSpan>, help: impl Into<String>) -> DataFusionError {
    let message = message.into();
    let span = span.and_then(Span::try_from_sqlparser_span);
    let mut diagnostic = Diagnostic::new_error(message.clone(), span);
    diagnostic.add_help(help, None);
    DataFusionError::Plan(message).with_diagnostic(diagnostic)
}

/// With short words for under the caret.
fn mistake_with_note(message: String, span: Option<TextSpan>, note: &str, help: String) -> DataFusionError {
    let span = span.and_then(Span::try_from_sqlparser_span);
    let mut diagnostic = Diagnostic::new_error(message.clone(), span);
    diagnostic.add_note(note, span);
    diagnostic.add_help(help, None);
    DataFusionError::Plan(message).with_diagnostic(diagnostic)
}
