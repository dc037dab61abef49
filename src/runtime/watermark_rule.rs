//! The watermark of a source as its definition says it: up to where a split is complete once a row is in.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    datatypes::TimestampNanosecondType,
};
use datafusion::{
    common::ScalarValue,
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, Column, Literal},
        utils::{collect_columns, reassign_expr_columns},
    },
};

use crate::{
    plan::SourceDefinition,
    types::{Error, EventTime, Result},
};

use super::intake::{SplitRows, values};

pub struct WatermarkRule {
    source: Arc<SourceDefinition>,
    /// The event time, among the needed columns. Never null.
    column: usize,
    expression: Arc<dyn PhysicalExpr>,
    /// The expression is the event time less so many nanoseconds: then it is a subtraction, not calendar arithmetic per row.
    delay_ns: Option<i64>,
}

impl WatermarkRule {
    /// The columns of the source that its watermark reads.
    pub fn columns(source: &SourceDefinition) -> BTreeSet<usize> {
        source
            .watermark
            .iter()
            .flat_map(|watermark| {
                let read = collect_columns(&watermark.expression);
                let read: Vec<usize> = read.iter().map(|column| column.index()).collect();
                std::iter::once(watermark.column).chain(read)
            })
            .collect()
    }

    /// Over rows of the `needed` columns of the source; `None` where it has no watermark.
    pub fn of(source: &Arc<SourceDefinition>, needed: &[usize]) -> Result<Option<Self>> {
        let Some(watermark) = &source.watermark else {
            return Ok(None);
        };
        let schema = source.schema.project(needed).map_err(|e| Error::bug(e.to_string()))?;
        let column = needed
            .iter()
            .position(|column| *column == watermark.column)
            .expect("the event time is needed");
        let expression =
            reassign_expr_columns(Arc::clone(&watermark.expression), &schema).map_err(|e| Error::bug(e.to_string()))?;
        let delay_ns = constant_delay(expression.as_ref(), column);
        Ok(Some(Self {
            source: Arc::clone(source),
            column,
            expression,
            delay_ns,
        }))
    }

    /// The highest event time of these rows.
    pub fn highest(&self, rows: &RecordBatch) -> Option<EventTime> {
        arrow::compute::max(rows.column(self.column).as_primitive::<TimestampNanosecondType>()).map(EventTime)
    }

    /// How far the watermark is behind the event time, in nanoseconds, where that is always as much.
    pub fn delay_ns(source: &SourceDefinition) -> Option<i64> {
        let watermark = source.watermark.as_ref()?;
        constant_delay(watermark.expression.as_ref(), watermark.column)
    }

    /// Rows further ahead of the epoch's time than the source allows become bad records.
    pub fn refuse_far_ahead(&self, rows: &mut SplitRows, epoch_time: EventTime) -> Result<()> {
        let latest = epoch_time.plus(self.source.event_time_ahead_max).0;
        let times = rows
            .rows
            .column(self.column)
            .as_primitive::<TimestampNanosecondType>()
            .clone();
        if arrow::compute::max(&times).is_none_or(|max| max <= latest) {
            return Ok(());
        }
        let is_good: BooleanArray = times.values().iter().map(|time| Some(*time <= latest)).collect();
        let reason = |row| {
            format!(
                "event time {} is more than {:?} ahead of now",
                EventTime(times.value(row)),
                self.source.event_time_ahead_max
            )
        };
        // Whether a row is too far ahead depends on the epoch's time, and by then its record is gone.
        rows.refuse(&is_good, reason, values)
    }

    /// The epoch time by which rows of this event time are not too far ahead, and later ones are.
    pub fn epoch_time_that_takes(&self, highest: EventTime) -> EventTime {
        let ahead = i64::try_from(self.source.event_time_ahead_max.as_nanos()).unwrap_or(i64::MAX);
        EventTime(highest.0.saturating_sub(ahead))
    }

    /// Per row, the event time up to which its split is complete once it is in, in nanoseconds.
    pub fn complete_until(&self, rows: &RecordBatch) -> Result<Vec<i64>> {
        if let Some(delay_ns) = self.delay_ns {
            let times = rows.column(self.column).as_primitive::<TimestampNanosecondType>();
            return Ok(times
                .values()
                .iter()
                .map(|time| time.saturating_sub(delay_ns))
                .collect());
        }
        let count = rows.num_rows();
        let complete = self
            .expression
            .evaluate(rows)
            .and_then(|value| value.into_array(count))
            .map_err(|e| {
                Error::user(format!(
                    "the watermark of {} cannot be computed: {}",
                    self.source.name,
                    e.strip_backtrace()
                ))
            })?;
        let complete = complete.as_primitive::<TimestampNanosecondType>();
        // A null says nothing about how far the split is.
        Ok((0..count)
            .map(|row| {
                if complete.is_null(row) {
                    i64::MIN
                } else {
                    complete.value(row)
                }
            })
            .collect())
    }
}

fn constant_delay(expression: &dyn PhysicalExpr, event_time: usize) -> Option<i64> {
    let is_event_time = |expr: &Arc<dyn PhysicalExpr>| {
        expr.downcast_ref::<Column>()
            .is_some_and(|column| column.index() == event_time)
    };
    if expression
        .downcast_ref::<Column>()
        .is_some_and(|column| column.index() == event_time)
    {
        return Some(0);
    }
    let difference = expression.downcast_ref::<BinaryExpr>()?;
    if *difference.op() != Operator::Minus || !is_event_time(difference.left()) {
        return None;
    }
    match difference.right().downcast_ref::<Literal>()?.value() {
        ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => i64::from(interval.days)
            .checked_mul(86_400_000_000_000)?
            .checked_add(interval.nanoseconds),
        _ => None,
    }
}
