//! DataFusion's async entry points behind boxed, never inlined functions.
//!
//! An `async fn` is compiled in every crate that awaits it, and with these come the planner and the SQL parser: more than a
//! hundred CPU seconds of a release build for each crate and binary. Behind these functions they are compiled once, here.

use std::{future::Future, pin::Pin, sync::Arc};

use datafusion::{
    arrow::array::RecordBatch,
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext, context::SessionState},
    logical_expr::LogicalPlan,
    physical_plan::{ExecutionPlan, execute_stream},
    sql::parser::Statement,
};
use futures::TryStreamExt;

pub type Boxed<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// A parsed statement to a logical plan that is not optimized yet.
#[inline(never)]
pub fn logical_plan(state: &SessionState, statement: Statement) -> Boxed<LogicalPlan> {
    let state = state.clone();
    Box::pin(async move { state.statement_to_plan(statement).await })
}

/// Optimizes a logical plan and makes it executable.
#[inline(never)]
pub fn physical_plan(state: &SessionState, plan: LogicalPlan) -> Boxed<Arc<dyn ExecutionPlan>> {
    let state = state.clone();
    Box::pin(async move { state.create_physical_plan(&plan).await })
}

/// Starts a plan; all its partitions in one stream.
#[inline(never)]
pub fn stream(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
    execute_stream(plan, context)
}

/// Runs a plan to its end.
#[inline(never)]
pub fn collect(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Boxed<Vec<RecordBatch>> {
    Box::pin(async move { execute_stream(plan, context)?.try_collect().await })
}
