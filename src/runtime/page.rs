//! Pages of a view along its time, continued into Parquet where its own rows end.
//!
//! ```text
//! view's rows, newest first ── not enough? ──▶ the same SELECT over its history, before the view's oldest row ──▶ one page, oldest first
//! ```
//! The seam is the oldest time that the view has for these keys: no hole, no row twice.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::{DataType, SchemaRef, TimestampNanosecondType},
};
use datafusion::{
    common::{Column, DataFusionError, ScalarValue},
    datasource::provider_as_source,
    functions_aggregate::expr_fn::min,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, cast, col, ident, lit},
};
use futures::TryStreamExt;

use crate::{
    plan::{ExternalDefinition, MaterializedDefinition, Relation, SourceDefinition, query_session, replace_scan},
    sql::suggest,
    types::{Epoch, Watermark, limits},
    view::{RowsSnapshot, SnapshotTable},
};

use super::{engine::Engine, face::*, query::problem_of};

/// How much further back the second look into history reaches than the first, when the first found too little.
const REACH_FACTOR: i64 = 16;

impl Engine {
    /// Reads a page of a view or side output, continued into its history.
    pub async fn page(&self, request: PageRequest) -> Result<Page, Problem> {
        let query_id = self.next_query_id();
        self.read_page(request, &query_id)
            .await
            .map_err(|kind| Problem::of_query(kind, &query_id))
    }

    async fn read_page(&self, request: PageRequest, query_id: &str) -> Result<Page, ProblemKind> {
        let catalog = self.catalog();
        let info = self.relation(&request.view).ok_or_else(|| {
            let relations = self.relations();
            let names = relations.iter().map(|relation| relation.name.as_str());
            let help = suggest::nearest(&request.view, names).map(|near| format!("did you mean {near}?"));
            ProblemKind::NotFound {
                detail: format!("no view named {}", request.view),
                help: help.into_iter().collect(),
            }
        })?;
        let pinned = self.pin().sources;
        let snapshot = info.source.as_ref().and_then(|source| pinned.get(source));
        let (epoch, watermark) = snapshot.map_or((Epoch(0), Watermark::START), |snapshot| {
            (snapshot.epoch, snapshot.watermark)
        });
        let base = match (
            catalog.get(&info.name),
            snapshot.and_then(|snapshot| snapshot.views.get(&info.name)),
        ) {
            (_, Some(rows)) => scan(&info.name, rows.clone()).map_err(problem_of)?,
            (Some(Relation::External(table)), None) => {
                LogicalPlanBuilder::scan(&info.name, provider_as_source(Arc::clone(&table.table)), None)
                    .and_then(|builder| builder.build())
                    .map_err(problem_of)?
            }
            (Some(Relation::View(view)), None) => view.plan.clone(),
            _ => scan(&info.name, RowsSnapshot::empty(Arc::clone(&info.schema))).map_err(problem_of)?,
        };
        let limit = request.limit.clamp(1, limits::PAGE_ROWS_MAX);
        let equals = conditions(&request, &info)?;
        let mut filters = equals.clone();
        if let Some(time) = &info.time {
            filters.extend(request.before.map(|before| ident(time).lt(nanos(before))));
            filters.extend(request.after.map(|after| ident(time).gt_eq(nanos(after))));
        }
        let mut rows = self.newest(base.clone(), &filters, &info, limit + 1).await?;
        if let (Some(time), Some(view)) = (&info.time, catalog.materialized(&info.name))
            && rows.num_rows() <= limit
            // Windows that overlap, or begin anywhere else than at multiples of their size, would need rows from beyond the seam.
            && view.stream.history_step_ns().is_some()
            && let (Some(history), Some(source)) = (catalog.history_of(view), catalog.source(&view.source))
        {
            let seam = self.oldest(base, &equals, time).await?;
            let past = Past {
                view,
                source,
                history,
                seam,
            };
            let missing = limit + 1 - rows.num_rows();
            let older = self.past_rows(&past, &request, &equals, &info, time, missing).await?;
            rows = concat_batches(&info.schema, [&rows, &conform(&older, &info.schema)?]).map_err(internal)?;
        }
        let has_more = limit < rows.num_rows();
        let rows = match (&info.time, has_more) {
            (Some(time), true) => whole_times(&rows, time, limit),
            _ => rows.slice(0, rows.num_rows().min(limit)),
        };
        let rows = match info.time {
            Some(_) => reversed(&rows)?,
            None => rows,
        };
        let next_before = info.time.as_ref().and_then(|time| {
            let times = rows
                .column_by_name(time)?
                .as_primitive_opt::<TimestampNanosecondType>()?;
            (!times.is_empty() && times.is_valid(0)).then(|| times.value(0))
        });
        Ok(Page {
            query_id: query_id.to_owned(),
            schema: Arc::clone(&info.schema),
            rows: vec![rows],
            has_more: has_more && info.time.is_some(),
            next_before,
            epoch,
            watermark,
        })
    }

    /// Rows that match, newest first; without a time as they stand.
    async fn newest(
        &self,
        plan: LogicalPlan,
        filters: &[Expr],
        info: &RelationInfo,
        limit: usize,
    ) -> Result<RecordBatch, ProblemKind> {
        let mut builder = LogicalPlanBuilder::from(plan);
        for filter in filters {
            builder = builder.filter(filter.clone()).map_err(problem_of)?;
        }
        if let Some(time) = &info.time {
            let mut order = vec![ident(time).sort(false, false)];
            order.extend(
                info.key
                    .iter()
                    .filter(|key| *key != time)
                    .map(|key| ident(key).sort(false, false)),
            );
            builder = builder.sort(order).map_err(problem_of)?;
        }
        let plan = builder
            .limit(0, Some(limit))
            .and_then(|builder| builder.build())
            .map_err(problem_of)?;
        let batches = self.collect(plan).await?;
        let batches = batches
            .iter()
            .map(|batch| conform(batch, &info.schema))
            .collect::<Result<Vec<_>, _>>()?;
        concat_batches(&info.schema, &batches).map_err(internal)
    }

    /// The oldest time among the rows that match.
    async fn oldest(&self, plan: LogicalPlan, filters: &[Expr], time: &str) -> Result<Option<i64>, ProblemKind> {
        let mut builder = LogicalPlanBuilder::from(plan);
        for filter in filters {
            builder = builder.filter(filter.clone()).map_err(problem_of)?;
        }
        let none: [Expr; 0] = [];
        let plan = builder
            .aggregate(none, [min(ident(time))])
            .and_then(|builder| builder.build())
            .map_err(problem_of)?;
        let batches = self.collect(plan).await?;
        Ok(batches.first().and_then(|batch| {
            let times = batch.column(0).as_primitive_opt::<TimestampNanosecondType>()?;
            (!times.is_empty() && times.is_valid(0)).then(|| times.value(0))
        }))
    }

    /// The newest rows of the view's SELECT over its history, before the seam.
    async fn past_rows(
        &self,
        past: &Past<'_>,
        request: &PageRequest,
        equals: &[Expr],
        info: &RelationInfo,
        time: &str,
        wanted: usize,
    ) -> Result<RecordBatch, ProblemKind> {
        let window = past.view.stream.history_step_ns().unwrap_or(1);
        let floor = |time: i64| time.saturating_sub(time.rem_euclid(window));
        let ceiling = |time: i64| {
            if time.rem_euclid(window) == 0 {
                time
            } else {
                floor(time).saturating_add(window)
            }
        };
        // Whole windows only: what is before the seam, and the window that `before` lies in.
        let upper = [past.seam, request.before.map(ceiling)].into_iter().flatten().min();
        let mut filters = equals.to_vec();
        filters.extend(request.before.map(|before| ident(time).lt(nanos(before))));
        filters.extend(request.after.map(|after| ident(time).gt_eq(nanos(after))));
        let reach_unit = if 1 < window { window } else { 60_000_000_000 };
        let mut reach = reach_unit.saturating_mul(wanted as i64).saturating_mul(2);
        loop {
            // Without an upper end there is nowhere to reach back from: look at everything.
            let lower = upper
                .and_then(|upper| upper.checked_sub(reach))
                .map(floor)
                .filter(|lower| 0 < *lower);
            let lower = [lower, request.after.map(floor)].into_iter().flatten().max();
            let plan = past.plan(lower, upper).map_err(problem_of)?;
            let rows = self.newest(plan, &filters, info, wanted).await?;
            let reaches_all = lower.is_none() || lower == request.after.map(floor);
            if wanted <= rows.num_rows() || reaches_all {
                return Ok(rows);
            }
            reach = reach.saturating_mul(REACH_FACTOR);
        }
    }

    async fn collect(&self, plan: LogicalPlan) -> Result<Vec<RecordBatch>, ProblemKind> {
        let session = query_session(&self.0.session, self.0.clock.now());
        self.0
            .queries
            .run(session, plan, page_timeout())
            .await?
            .try_collect()
            .await
            .map_err(problem_of)
    }
}

fn page_timeout() -> Duration {
    limits::QUERY_TIMEOUT
}

struct Past<'a> {
    view: &'a MaterializedDefinition,
    source: &'a SourceDefinition,
    history: &'a ExternalDefinition,
    /// The oldest time that the view itself has.
    seam: Option<i64>,
}

impl Past<'_> {
    /// The view's query with its source replaced by the history's rows with event time in `[lower, upper)`.
    fn plan(&self, lower: Option<i64>, upper: Option<i64>) -> Result<LogicalPlan, DataFusionError> {
        let event_time = self
            .source
            .watermark
            .as_ref()
            .map(|watermark| self.source.schema.field(watermark.column).name().clone());
        replace_scan(&self.view.plan, &self.source.name, &|scanned: &TableScan| {
            let table = provider_as_source(Arc::clone(&self.history.table));
            let mut builder = LogicalPlanBuilder::scan(&self.history.name, table, None)?;
            if let Some(event_time) = &event_time {
                let time = || {
                    cast(
                        col(Column::new(Some(self.history.name.clone()), event_time)),
                        DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None),
                    )
                };
                if let Some(lower) = lower {
                    builder = builder.filter(time().gt_eq(nanos(lower)))?;
                }
                if let Some(upper) = upper {
                    builder = builder.filter(time().lt(nanos(upper)))?;
                }
            }
            let in_history = self.history.table.schema();
            let columns = scanned.projected_schema.fields().iter().map(|field| {
                let value = match in_history.field_with_name(field.name()) {
                    Ok(_) => cast(
                        col(Column::new(Some(self.history.name.clone()), field.name())),
                        field.data_type().clone(),
                    ),
                    // A column that the view does not use.
                    Err(_) => cast(lit(ScalarValue::Null), field.data_type().clone()),
                };
                value.alias(field.name())
            });
            builder
                .project(columns.collect::<Vec<_>>())?
                .alias(scanned.table_name.clone())?
                .build()
        })
        .and_then(|plan| plan.recompute_schema())
    }
}

fn scan(name: &str, rows: RowsSnapshot) -> Result<LogicalPlan, DataFusionError> {
    // Names with `$` are no identifiers that a reference would parse.
    let reference = datafusion::common::TableReference::bare(name);
    LogicalPlanBuilder::scan(reference, provider_as_source(Arc::new(SnapshotTable::new(rows))), None)?.build()
}

/// `column = value` for each parameter; several values of one column mean any of them.
fn conditions(request: &PageRequest, info: &RelationInfo) -> Result<Vec<Expr>, ProblemKind> {
    let mut by_column: Vec<(&str, Vec<Expr>)> = Vec::new();
    for (column, text) in &request.equals {
        let field = info.schema.field_with_name(column).map_err(|_| {
            let names: Vec<&str> = info.schema.fields().iter().map(|field| field.name().as_str()).collect();
            let near = suggest::nearest(column, names.iter().copied())
                .map_or(String::new(), |near| format!("; did you mean {near}?"));
            ProblemKind::Parameter(format!("{} has no column {column}{near}", info.name))
        })?;
        let value = ScalarValue::try_from_string(text.clone(), field.data_type()).map_err(|_| {
            ProblemKind::Parameter(format!(
                "{column} is {}, and '{text}' is not",
                crate::types::type_name(field.data_type())
            ))
        })?;
        match by_column.iter_mut().find(|(known, _)| known == column) {
            Some((_, values)) => values.push(lit(value)),
            None => by_column.push((column, vec![lit(value)])),
        }
    }
    Ok(by_column
        .into_iter()
        .map(|(column, values)| ident(column).in_list(values, false))
        .collect())
}

fn nanos(time: i64) -> Expr {
    lit(ScalarValue::TimestampNanosecond(Some(time), None))
}

/// The rows in the view's own types: history may give wider ones, or other nullability.
fn conform(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ProblemKind> {
    let columns = rows
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| arrow::compute::cast(column, field.data_type()).map_err(internal))
        .collect::<Result<_, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(internal)
}

/// The first rows (newest first), at most `limit`, without a time that goes on behind them: the next page begins before a time.
/// A time that alone fills the page is cut.
fn whole_times(rows: &RecordBatch, time: &str, limit: usize) -> RecordBatch {
    let times = rows
        .column_by_name(time)
        .and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>().cloned());
    let whole = times.and_then(|times| (1..=limit).rev().find(|row| times.value(row - 1) != times.value(limit)));
    rows.slice(0, whole.unwrap_or(limit))
}

fn reversed(rows: &RecordBatch) -> Result<RecordBatch, ProblemKind> {
    let indices: arrow::array::UInt32Array = (0..rows.num_rows() as u32).rev().collect();
    arrow::compute::take_record_batch(rows, &indices).map_err(internal)
}

fn internal(error: arrow::error::ArrowError) -> ProblemKind {
    ProblemKind::Internal(crate::types::Error::of_arrow(error))
}
