//! Comparisons of a row's time with `now()`: from which time of the epochs on, and until when, a row is there.
//!
//! ```text
//! ts > now() - INTERVAL '1 hour' ─▶ now() < ts + 1 h  ─▶ until ts + 1 h
//! ts <= now()                    ─▶ now() >= ts       ─▶ from ts on
//! day = current_date             ─▶ now() truncated   ─▶ from day until the next
//! ```
//! What now() cannot be brought to one side of is refused: nothing is approximated.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    common::{DFSchemaRef, ScalarValue, tree_node::TreeNode},
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, Filter, Operator, cast,
        utils::{conjunction, split_conjunction},
    },
};

use crate::{
    operator::{IntervalEnd, Step, TimeBound},
    plan::window::{Cut, TIME},
};

use super::{
    Stage,
    build::{Builder, Built, Refusal, Role, RowCut, arrow_schema},
};

const DAY_NS: i64 = 86_400_000_000_000;
const POSSIBLE: &str = "in WHERE and HAVING a time of the row can be compared with it, with <, <=, >, >=, = or BETWEEN, and joined to \
     other conditions by AND: e.g. ts > now() - INTERVAL '1 hour'";

/// What to say where now() stands in a place that it cannot be followed in.
pub(super) fn possible() -> &'static str {
    POSSIBLE
}

/// Whether it is a function that gives the time of the epoch.
pub(super) fn is_now(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if ["now", "current_date"].contains(&function.func.name()))
}

fn names_now(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(is_now(expr))).expect("looking cannot fail")
}

impl Builder<'_> {
    /// The rows that a predicate keeps at the time of each epoch.
    pub(super) fn filter(&self, filter: &Filter) -> Result<Built, Refusal> {
        let mut built = self.build(&filter.input)?;
        let schema = filter.input.schema();
        self.note_use(&mut built, &filter.predicate, schema)?;
        if let Some(RowCut {
            cut: Cut::Sessions { .. },
            ..
        }) = built.cut
        {
            return Err(self.refuse(
                "WHERE over sessions is not supported yet: rows that it leaves out would still hold sessions together".into(),
                "filter below: SESSION((SELECT * FROM t WHERE …), time, gap, key), or use FILTER (WHERE …) in an aggregate",
            ));
        }
        let (timed, plain): (Vec<&Expr>, Vec<&Expr>) = split_conjunction(&filter.predicate)
            .into_iter()
            .partition(|expr| names_now(expr));
        if let Some(predicate) = conjunction(plain.into_iter().cloned()) {
            built.steps.push(Step::Filter(self.physical(&predicate, schema)?));
        }
        let mut bounds = Vec::new();
        for condition in timed {
            bounds.extend(self.bounds(condition, schema)?);
        }
        if bounds.is_empty() {
            return Ok(built);
        }
        // Each row goes by itself, in every window that it is in.
        self.assign(&mut built)?;
        let leaves = bounds.iter().any(|bound| bound.end == IntervalEnd::Until);
        built.push(Stage::TemporalFilter {
            bounds,
            schema: arrow_schema(schema),
        });
        // A row may come or go however far the watermark is: no time of it says any more what is complete.
        for role in &mut built.roles {
            *role = match role {
                Role::EventTime | Role::RowWindowStart | Role::WindowStart(_) | Role::Time => Role::Time,
                Role::Plain | Role::RowWindowEnd | Role::WindowEnd => Role::Plain,
            };
        }
        built.cut = None;
        built.windows = None;
        built.is_append_only &= !leaves;
        built.is_on_close = false;
        Ok(built)
    }

    /// One condition that names now().
    fn bounds(&self, condition: &Expr, schema: &DFSchemaRef) -> Result<Vec<TimeBound>, Refusal> {
        match condition {
            Expr::Alias(alias) => self.bounds(&alias.expr, schema),
            // BETWEEN became two comparisons when the plan was simplified.
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if !op.is_logic_operator() => {
                self.comparison(left, *op, right, schema)
            }
            _ => Err(self.not_followed()),
        }
    }

    fn comparison(
        &self,
        left: &Expr,
        operator: Operator,
        right: &Expr,
        schema: &DFSchemaRef,
    ) -> Result<Vec<TimeBound>, Refusal> {
        let (moment, operator, time, offset_ns) = match (names_now(left), names_now(right)) {
            (true, false) => self.isolated(left, operator, right)?,
            (false, true) => self.isolated(right, operator.swap().ok_or_else(|| self.not_followed())?, left)?,
            _ => {
                return Err(self.refuse(
                    "both sides of a comparison name now() in a materialized view".into(),
                    POSSIBLE,
                ));
            }
        };
        let time = match time.get_type(schema)? {
            DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Date32 => time,
            DataType::Timestamp(..) => cast(time, TIME),
            _ => return Err(self.not_followed()),
        };
        let far = || self.refuse("an interval beside now() is too long".into(), "at most 292 years");
        let difference = offset_ns.checked_sub(moment.plus_ns).ok_or_else(far)?;
        let time = self.physical(&time, schema)?;
        let bound = |end, is_after| TimeBound {
            end,
            time: Arc::clone(&time),
            plus_ns: difference,
            is_after,
            step_ns: moment.step_ns,
            minus_ns: moment.before_ns,
        };
        match operator {
            Operator::Lt => Ok(vec![bound(IntervalEnd::Until, false)]),
            Operator::LtEq => Ok(vec![bound(IntervalEnd::Until, true)]),
            Operator::Gt => Ok(vec![bound(IntervalEnd::From, true)]),
            Operator::GtEq => Ok(vec![bound(IntervalEnd::From, false)]),
            Operator::Eq => Ok(vec![bound(IntervalEnd::From, false), bound(IntervalEnd::Until, true)]),
            _ => Err(self.not_followed()),
        }
    }

    /// The comparison as `moment operator time + nanoseconds`, from one whose left side names now().
    fn isolated(
        &self,
        left: &Expr,
        operator: Operator,
        right: &Expr,
    ) -> Result<(Moment, Operator, Expr, i64), Refusal> {
        if let Some(moment) = self.moment(left)? {
            return Ok((moment, operator, right.clone(), 0));
        }
        let Expr::BinaryExpr(BinaryExpr {
            left: minuend,
            op: Operator::Minus,
            right: subtrahend,
        }) = without_casts(left)
        else {
            return Err(self.not_followed());
        };
        let length = self.nanoseconds(right)?.ok_or_else(|| self.not_followed())?;
        if !names_now(subtrahend)
            && let Some(moment) = self.moment(minuend)?
        {
            // now() - time < length
            return Ok((moment, operator, subtrahend.as_ref().clone(), length));
        }
        if !names_now(minuend)
            && let Some(moment) = self.moment(subtrahend)?
        {
            // time - now() < length
            let operator = operator.swap().ok_or_else(|| self.not_followed())?;
            let length = length.checked_neg().ok_or_else(|| self.not_followed())?;
            return Ok((moment, operator, minuend.as_ref().clone(), length));
        }
        Err(self.not_followed())
    }

    /// An expression of now() and constants alone; `None` where it is something else.
    fn moment(&self, expr: &Expr) -> Result<Option<Moment>, Refusal> {
        Ok(match expr {
            Expr::Alias(alias) => self.moment(&alias.expr)?,
            Expr::ScalarFunction(function) => match (function.func.name(), function.args.as_slice()) {
                ("now", _) => Some(Moment::NOW),
                ("current_date", _) => Moment::NOW.truncated(DAY_NS),
                ("date_trunc", [Expr::Literal(unit, _), time]) => {
                    let step = unit.try_as_str().flatten().and_then(step_of);
                    match (self.moment(time)?, step) {
                        (Some(moment), Some(step)) => moment.truncated(step),
                        _ => None,
                    }
                }
                _ => None,
            },
            Expr::Cast(cast) => match (self.moment(&cast.expr)?, cast.field.data_type()) {
                (Some(moment), DataType::Timestamp(TimeUnit::Nanosecond, _)) => Some(Moment {
                    is_date: false,
                    ..moment
                }),
                (Some(moment), DataType::Date32) => moment.truncated(DAY_NS),
                _ => None,
            },
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (of, length, sign) = match op {
                    Operator::Plus if names_now(left) => (left, right, 1),
                    Operator::Plus => (right, left, 1),
                    Operator::Minus if names_now(left) => (left, right, -1),
                    _ => return Ok(None),
                };
                if names_now(length) {
                    return Ok(None);
                }
                match (self.moment(of)?, self.nanoseconds(length)?) {
                    (Some(moment), Some(length)) if !moment.is_date || length % DAY_NS == 0 => {
                        let plus_ns = moment.plus_ns.checked_add(length.saturating_mul(sign));
                        plus_ns.map(|plus_ns| Moment { plus_ns, ..moment })
                    }
                    _ => None,
                }
            }
            _ => None,
        })
    }

    /// The length of an interval that is written out; `None` where it is something else.
    fn nanoseconds(&self, expr: &Expr) -> Result<Option<i64>, Refusal> {
        let Expr::Literal(value, _) = without_casts(expr) else {
            return Ok(None);
        };
        let months = || {
            self.refuse(
                "an interval of months beside now() has no fixed length".into(),
                "use days, or add the months to the time of the row: ts + INTERVAL '1 month' > now()",
            )
        };
        match value {
            ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => {
                let days = i64::from(interval.days).checked_mul(DAY_NS);
                Ok(days.and_then(|days| days.checked_add(interval.nanoseconds)))
            }
            ScalarValue::IntervalMonthDayNano(Some(_)) | ScalarValue::IntervalYearMonth(Some(_)) => Err(months()),
            ScalarValue::IntervalDayTime(Some(interval)) => {
                let millis = i64::from(interval.milliseconds) * 1_000_000;
                Ok(i64::from(interval.days)
                    .checked_mul(DAY_NS)
                    .and_then(|days| days.checked_add(millis)))
            }
            ScalarValue::DurationNanosecond(Some(nanos)) => Ok(Some(*nanos)),
            _ => Ok(None),
        }
    }

    fn not_followed(&self) -> Refusal {
        self.refuse(
            "now() is not supported in this condition of a materialized view".into(),
            POSSIBLE,
        )
    }
}

/// `truncate(now() + before_ns, step_ns) + plus_ns`.
#[derive(Clone, Copy)]
struct Moment {
    before_ns: i64,
    step_ns: i64,
    plus_ns: i64,
    /// A DATE, which takes whole days only.
    is_date: bool,
}

impl Moment {
    const NOW: Self = Self {
        before_ns: 0,
        step_ns: 1,
        plus_ns: 0,
        is_date: false,
    };

    /// Down to a multiple of a step; `None` where that is not one truncation of now().
    fn truncated(self, step_ns: i64) -> Option<Self> {
        let is_date = self.is_date || step_ns == DAY_NS;
        match self {
            Self {
                step_ns: 1, plus_ns, ..
            } => Some(Self {
                before_ns: plus_ns,
                step_ns,
                plus_ns: 0,
                is_date,
            }),
            Self {
                before_ns,
                step_ns: finer,
                plus_ns: 0,
                ..
            } => Some(Self {
                before_ns,
                step_ns: if finer < step_ns { step_ns } else { finer },
                plus_ns: 0,
                is_date,
            }),
            _ => None,
        }
    }
}

/// Steps that divide each other, all without a calendar.
fn step_of(unit: &str) -> Option<i64> {
    match unit.to_ascii_lowercase().as_str() {
        "second" => Some(1_000_000_000),
        "minute" => Some(60_000_000_000),
        "hour" => Some(3_600_000_000_000),
        "day" => Some(DAY_NS),
        _ => None,
    }
}

fn without_casts(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => without_casts(&cast.expr),
        Expr::Alias(alias) => without_casts(&alias.expr),
        other => other,
    }
}
