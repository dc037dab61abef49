//! Which operator keeps an aggregate up to date: by windows, by sessions, per key, or from rows that are kept.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use chrono_tz::Tz;
use datafusion::{
    common::{DFSchemaRef, ScalarValue},
    logical_expr::{Aggregate, Expr, physical_planning_context::PhysicalPlanningContext},
    physical_expr::{PhysicalExpr, aggregate::LoweredAggregateBuilder},
};

use crate::{
    operator::{Aggregation, Assignment, ClosedBy, Emission, FilteredFunction, OutputColumn, WindowResult},
    plan::window::Cut,
    types::{Calendar, CalendarUnit, Error, Grid, Shape, Windows},
};

use super::{
    Stage,
    build::{Builder, Built, Refusal, Role, RowCut, arrow_schema, origin},
    grouping_sets::left_out,
    growth::growing,
};

/// What a group column of the query is.
enum GroupColumn {
    Start,
    End,
    Key(Expr),
}

impl Builder<'_> {
    pub(super) fn aggregate(&self, aggregate: &Aggregate) -> Result<Built, Refusal> {
        let mut built = self.build(&aggregate.input)?;
        let input = aggregate.input.schema();
        self.bin_event_time(&mut built, aggregate, input)?;
        let groups: Vec<GroupColumn> = aggregate
            .group_expr
            .iter()
            .map(|expr| {
                if binned(expr, input, &built).is_some() {
                    return GroupColumn::Start;
                }
                match origin(expr, input).map(|column| built.roles[column]) {
                    Some(Role::RowWindowStart) => GroupColumn::Start,
                    Some(Role::RowWindowEnd) => GroupColumn::End,
                    _ => GroupColumn::Key(expr.clone()),
                }
            })
            .collect();
        let is_windowed = groups.iter().any(|group| !matches!(group, GroupColumn::Key(_)));
        let arguments = aggregate.aggr_expr.iter();
        let keys = groups.iter().filter_map(|group| match group {
            GroupColumn::Key(expr) if origin(expr, input).is_none() => Some(expr),
            _ => None,
        });
        for expr in arguments.chain(keys) {
            self.note_use_of(&mut built, expr, input)?;
        }
        match (built.cut.clone(), is_windowed && built.is_append_only) {
            (Some(cut), true) => self.per_window(built, cut, aggregate, &groups),
            _ => self.per_key(built, aggregate),
        }
    }

    /// `GROUP BY date_bin(…, event time)` and `date_trunc(…, event time)` are tumbling windows.
    fn bin_event_time(&self, built: &mut Built, aggregate: &Aggregate, input: &DFSchemaRef) -> Result<(), Refusal> {
        if built.cut.is_some() || !built.is_append_only {
            return Ok(());
        }
        let found = aggregate
            .group_expr
            .iter()
            .find_map(|expr| bin(expr, input, &built.roles));
        if let Some((_, windows)) = found {
            built.cut = Some(RowCut {
                cut: Cut::Aligned(windows),
                session_key: Vec::new(),
                is_assigned: false,
                is_complete: true,
                is_binned: true,
            });
            built.forget_row_windows();
        }
        Ok(())
    }

    fn per_window(
        &self,
        mut built: Built,
        cut: RowCut,
        aggregate: &Aggregate,
        groups: &[GroupColumn],
    ) -> Result<Built, Refusal> {
        let input = aggregate.input.schema();
        let schema = arrow_schema(&aggregate.schema);
        let mut keys = Vec::new();
        let mut columns = Vec::new();
        let mut roles = Vec::new();
        let windows = match &cut.cut {
            Cut::Aligned(windows) => Some(*windows),
            Cut::Sessions { .. } => None,
        };
        // A window that nothing closes is never final.
        let final_or_plain = |role| if cut.is_complete { role } else { Role::Plain };
        for (index, group) in groups.iter().enumerate() {
            match group {
                GroupColumn::Start => {
                    columns.push(OutputColumn::WindowStart);
                    roles.push(final_or_plain(Role::WindowStart(windows)));
                }
                GroupColumn::End => {
                    columns.push(OutputColumn::WindowEnd);
                    roles.push(final_or_plain(Role::WindowEnd));
                }
                GroupColumn::Key(expr) => {
                    columns.push(OutputColumn::Group(keys.len()));
                    keys.push((self.physical(expr, input)?, Arc::clone(&schema.fields()[index])));
                    roles.push(Role::Plain);
                }
            }
        }
        let has_start = columns.contains(&OutputColumn::WindowStart);
        let is_told_by_start = !matches!(
            windows,
            Some(Windows {
                shape: Shape::Cumulate { .. },
                ..
            })
        );
        // The end of a window mostly says nothing that its start does not.
        let key = (0..columns.len())
            .filter(|column| !(has_start && is_told_by_start && columns[*column] == OutputColumn::WindowEnd))
            .collect();
        if windows.is_some_and(|windows| !windows.is_tumbling()) && !self.names_each_window(windows, &columns) {
            return Err(self.refuse(
                "windows that begin together are told apart by window_end".into(),
                "add window_end to GROUP BY",
            ));
        }
        let functions = self.functions(aggregate)?;
        columns.extend((0..functions.len()).map(OutputColumn::Function));
        roles.resize(columns.len(), Role::Plain);
        let input_schema = arrow_schema(input);
        let aggregation = self.aggregation(&input_schema, keys, functions)?;
        let result = WindowResult {
            emission: self.emission,
            lateness_ns: match &built.late_rows {
                None => self.lateness_ns,
                // The aggregate below waited already.
                Some(_) => 0,
            },
            columns,
            schema,
        };
        let place = |role: Role| built.roles.iter().position(|other| *other == role);
        let carried = place(Role::RowWindowStart)
            .or_else(|| place(Role::RowWindowEnd))
            .or_else(|| {
                aggregate
                    .group_expr
                    .iter()
                    .find_map(|expr| Some(bin(expr, input, &built.roles)?.0))
            });
        let stage = match cut.cut {
            Cut::Aligned(windows) => {
                let assignment = match (cut.is_assigned, place(Role::RowWindowStart), place(Role::RowWindowEnd)) {
                    // A start lies in its window, and where windows do not overlap in no other.
                    (true, Some(start), None) if windows.is_tumbling() => Assignment::Time(start),
                    (true, start, end) => Assignment::Bounds { start, end },
                    (false, ..) => Assignment::Time(carried.expect("a window column is grouped by")),
                };
                Stage::WindowAggregate {
                    aggregation: Arc::new(aggregation),
                    assignment,
                    windows,
                    result,
                }
            }
            Cut::Sessions { gap_ns, .. } => {
                self.check_session_key(&cut.session_key, groups, input)?;
                Stage::SessionAggregate {
                    aggregation: Arc::new(aggregation),
                    time: carried.expect("a window column is grouped by"),
                    gap_ns,
                    result,
                }
            }
        };
        built.push(stage);
        built.windows = windows;
        built.cut = None;
        built.is_append_only = self.emission == Emission::OnWindowClose;
        built.is_on_close = self.emission == Emission::OnWindowClose;
        // Behind an aggregate nothing is late any more: what an inner one set aside has its columns. Windows that nothing closes have
        // late rows too, once the input has ended.
        if built.late_rows.is_none() {
            built.late_rows = Some(input_schema);
        }
        built.roles = roles;
        built.grows = built.growing_of(&aggregate.group_expr, input);
        built.grows.resize(built.roles.len(), false);
        built.key = Some(key);
        Ok(built)
    }

    /// Whether no two windows look the same by the bounds that are grouped by.
    fn names_each_window(&self, windows: Option<Windows>, columns: &[OutputColumn]) -> bool {
        let has = |column| columns.contains(&column);
        match windows.map(|windows| windows.shape) {
            Some(Shape::Cumulate { .. }) => has(OutputColumn::WindowEnd),
            _ => true,
        }
    }

    /// A session belongs to one value of its key, so results are grouped by exactly that.
    fn check_session_key(
        &self,
        session_key: &[Option<usize>],
        groups: &[GroupColumn],
        input: &DFSchemaRef,
    ) -> Result<(), Refusal> {
        let grouped: Vec<Option<usize>> = groups
            .iter()
            .filter_map(|group| match group {
                GroupColumn::Key(expr) => Some(origin(expr, input)),
                GroupColumn::Start | GroupColumn::End => None,
            })
            .collect();
        let is_same = session_key
            .iter()
            .all(|column| column.is_some() && grouped.contains(column))
            && grouped.iter().all(|column| session_key.contains(column));
        if is_same {
            return Ok(());
        }
        Err(self.refuse(
            "sessions are grouped by their own key and bounds, and by nothing else".into(),
            "give SESSION the columns of GROUP BY as its key: SESSION(table, time, gap, key, …)",
        ))
    }

    fn per_key(&self, mut built: Built, aggregate: &Aggregate) -> Result<Built, Refusal> {
        self.assign(&mut built)?;
        let input = aggregate.input.schema();
        let schema = arrow_schema(&aggregate.schema);
        let mut roles = Vec::new();
        let keys = aggregate
            .group_expr
            .iter()
            .enumerate()
            .map(|(index, expr)| {
                roles.push(origin(expr, input).map_or(Role::Plain, |column| built.roles[column]));
                Ok((self.physical(expr, input)?, Arc::clone(&schema.fields()[index])))
            })
            .collect::<Result<Vec<_>, Refusal>>()?;
        let aligned = match &built.cut {
            Some(RowCut {
                cut: Cut::Aligned(windows),
                ..
            }) => Some(*windows),
            _ => None,
        };
        // Rows of windows over rows that change are final as their windows are.
        let is_complete = built.cut.as_ref().is_none_or(|cut| cut.is_complete);
        for role in &mut roles {
            *role = match *role {
                Role::RowWindowStart | Role::RowWindowEnd if !is_complete => Role::Plain,
                Role::RowWindowStart => Role::WindowStart(aligned),
                Role::RowWindowEnd => Role::WindowEnd,
                Role::EventTime => Role::Plain,
                // Nothing of an aggregate over rows that stay ever leaves.
                Role::Time if built.is_append_only => Role::Plain,
                kept => kept,
            };
        }
        let closed_by = roles.iter().enumerate().find_map(|(column, role)| match role {
            Role::WindowEnd => Some(ClosedBy::End(column)),
            _ => None,
        });
        let closed_by = closed_by.or_else(|| {
            roles.iter().enumerate().find_map(|(column, role)| match role {
                Role::WindowStart(Some(windows)) => Some(ClosedBy::Start(column, *windows)),
                _ => None,
            })
        });
        let functions = self.functions(aggregate)?;
        let width = keys.len();
        roles.resize(width + functions.len(), Role::Plain);
        let aggregation = Arc::new(self.aggregation(&arrow_schema(input), keys, functions)?);
        if built.is_append_only && built.inputs.iter().any(|input| input.is_source) {
            self.check_bounded(&built, aggregate, &aggregation, closed_by.is_some())?;
        }
        let emission = match closed_by {
            Some(_) => self.emission,
            None => Emission::Changes,
        };
        let stage = match (built.is_append_only, closed_by) {
            (true, None) => Stage::GroupAggregate { aggregation, schema },
            _ => Stage::RecomputeAggregate {
                aggregation,
                closed_by,
                emission,
                schema,
            },
        };
        built.push(stage);
        built.is_append_only = emission == Emission::OnWindowClose;
        built.is_on_close = emission == Emission::OnWindowClose;
        built.windows = aligned.or(built.windows).filter(|_| closed_by.is_some());
        built.cut = None;
        built.roles = roles;
        built.grows = built.growing_of(&aggregate.group_expr, input);
        // What an aggregate computes of a group is no more values than there are groups.
        built.grows.resize(built.roles.len(), false);
        built.key = Some((0..width).collect());
        Ok(built)
    }

    fn aggregation(
        &self,
        input: &SchemaRef,
        keys: Vec<(Arc<dyn PhysicalExpr>, FieldRef)>,
        functions: Vec<FilteredFunction>,
    ) -> Result<Aggregation, Refusal> {
        let refuse = |error: Error| self.refuse(error.to_string(), "use another aggregate, or cast its arguments");
        let dictionary = keys
            .iter()
            .find(|(_, field)| matches!(field.data_type(), DataType::Dictionary(..)));
        if let Some((_, field)) = dictionary {
            let name = field.name();
            return Err(self.refuse(
                format!("`{name}` is a dictionary, by which a stream cannot be grouped"),
                "cast it to the type of its values, e.g. CAST(… AS VARCHAR)",
            ));
        }
        let aggregation = Aggregation::new(Arc::clone(input), keys, functions).map_err(refuse)?;
        aggregation.rehearse().map_err(refuse)?;
        Ok(aggregation)
    }

    /// Groups of a source that nothing ever closes may be as many as their keys are, and no more; and what is kept of each does not grow.
    fn check_bounded(
        &self,
        built: &Built,
        aggregate: &Aggregate,
        aggregation: &Aggregation,
        is_closed: bool,
    ) -> Result<(), Refusal> {
        if self.allows_unbounded_state {
            return Ok(());
        }
        let input = aggregate.input.schema();
        let allow = "or accept that with WITH (unbounded_state = 'allow')";
        let mut groups = aggregate.group_expr.iter();
        if let Some(time) = groups.find_map(|group| growing(group, input, &built.grows))
            && !is_closed
        {
            if let Some(name) = left_out(time, &aggregate.input) {
                return Err(self.refuse(
                    format!(
                        "groups by `{name}` become more for ever: `{name}` is not in every grouping set, so its groups are never complete"
                    ),
                    format!("put it into each set, or make a view of each set; {allow}"),
                ));
            }
            return Err(self.refuse(
                format!(
                    "groups by `{}` become more for ever: nothing says when one is complete",
                    time.name()
                ),
                format!("group by window_start and window_end of TUMBLE(…), {allow}"),
            ));
        }
        match aggregation.collecting() {
            None => Ok(()),
            Some(function) => Err(self.refuse(
                format!("what {function} keeps of a group grows with its rows, for ever"),
                format!("compute it in windows, e.g. over TUMBLE(…), {allow}"),
            )),
        }
    }

    fn functions(&self, aggregate: &Aggregate) -> Result<Vec<FilteredFunction>, Refusal> {
        let input = aggregate.input.schema();
        let context = PhysicalPlanningContext::default();
        let properties = self.session.execution_props();
        aggregate
            .aggr_expr
            .iter()
            .map(|expr| {
                let lowered =
                    LoweredAggregateBuilder::new(expr, input, input.as_arrow(), properties, &context).build()?;
                let name = lowered.aggregate.fun().name();
                let needs_order = ["first_value", "last_value", "nth_value"].contains(&name);
                if needs_order && lowered.order_bys.is_empty() {
                    return Err(self.refuse(
                        format!("{name} needs an order: rows of a stream come in any"),
                        format!("write {name}(x ORDER BY t) with the event time as t"),
                    ));
                }
                Ok((lowered.aggregate, lowered.filter))
            })
            .collect()
    }
}

/// Whether an expression bins the event time into the windows at hand.
fn binned(expr: &Expr, input: &DFSchemaRef, built: &Built) -> Option<usize> {
    let (column, windows) = bin(expr, input, &built.roles)?;
    let cut = built.cut.as_ref()?;
    (cut.cut == Cut::Aligned(windows) && cut.is_binned).then_some(column)
}

/// The event-time column that `date_bin` or `date_trunc` takes, and the windows that it makes.
pub(super) fn bin(expr: &Expr, input: &DFSchemaRef, roles: &[Role]) -> Option<(usize, Windows)> {
    let function = match expr {
        Expr::Alias(alias) => return bin(&alias.expr, input, roles),
        Expr::ScalarFunction(function) => function,
        _ => return None,
    };
    let column = |expr: &Expr| origin(expr, input).filter(|column| roles[*column] == Role::EventTime);
    let tumble = |grid| Windows {
        grid,
        shape: Shape::Tumble,
    };
    match (function.func.name(), function.args.as_slice()) {
        (
            "date_bin",
            [
                Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _),
                time,
                origin @ ..,
            ],
        ) => {
            let origin_ns = match origin {
                [] => 0,
                [Expr::Literal(ScalarValue::TimestampNanosecond(Some(origin), None), _)] => *origin,
                _ => return None,
            };
            let nanos = i64::from(interval.days)
                .checked_mul(86_400_000_000_000)?
                .checked_add(interval.nanoseconds)?;
            if interval.months != 0 || nanos <= 0 {
                return None;
            }
            let grid = Grid::Fixed {
                step_ns: nanos,
                origin_ns,
            };
            Some((column(time)?, tumble(grid)))
        }
        ("date_trunc", [Expr::Literal(unit, _), time]) => {
            let seconds = |seconds: i64| Grid::Fixed {
                step_ns: seconds * 1_000_000_000,
                origin_ns: 0,
            };
            let months = |count| {
                Grid::Calendar(Calendar {
                    unit: CalendarUnit::Months,
                    count,
                    offset_ns: 0,
                    zone: Tz::UTC,
                })
            };
            let grid = match unit.try_as_str()??.to_ascii_lowercase().as_str() {
                "second" => seconds(1),
                "minute" => seconds(60),
                "hour" => seconds(3_600),
                "day" => seconds(86_400),
                "month" => months(1),
                "quarter" => months(3),
                "year" => months(12),
                _ => return None,
            };
            Some((column(time)?, tumble(grid)))
        }
        _ => None,
    }
}
