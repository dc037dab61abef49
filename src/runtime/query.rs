//! Ad-hoc queries: at most so many at once, for so long, with so much memory, on threads of their own.

use std::{sync::Arc, time::Duration};

use datafusion::{
    common::DataFusionError,
    execution::{
        SendableRecordBatchStream,
        context::SessionState,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::GreedyMemoryPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    logical_expr::LogicalPlan,
    physical_plan::stream::RecordBatchReceiverStreamBuilder,
};
use futures::StreamExt;
use tokio::sync::Semaphore;

use crate::types::{Error, limits, reason_of};

use super::{Metrics, clock::Stopwatch, face::ProblemKind};

/// Threads for queries, and the gate before them.
pub struct QueryPool {
    /// `None` only while the pool is dropped.
    runtime: Option<tokio::runtime::Runtime>,
    running: Arc<Semaphore>,
    waiting: Semaphore,
    metrics: Arc<Metrics>,
}

/// Memory shared by all queries; no list of files is ever remembered, so a file that was added is seen.
pub fn environment() -> Arc<RuntimeEnv> {
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits::QUERY_MEMORY_BYTES)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .with_object_list_cache_limit(0)
        .build_arc()
        .expect("these settings are always possible")
}

impl QueryPool {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let threads = std::thread::available_parallelism()
            .map_or(2, |count| count.get())
            .clamp(1, limits::QUERIES_AT_ONCE);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("query")
            // Plans nest deeper than the default stack of a thread allows.
            .thread_stack_size(16 << 20)
            .enable_all()
            .build()
            .expect("the system can start threads");
        Self {
            runtime: Some(runtime),
            running: Arc::new(Semaphore::new(limits::QUERIES_AT_ONCE)),
            waiting: Semaphore::new(limits::QUERIES_AT_ONCE + limits::QUERIES_WAITING),
            metrics,
        }
    }

    /// Plans and starts a query; its rows come through a bounded channel. Dropping the stream ends it.
    pub async fn run(
        &self,
        session: SessionState,
        plan: LogicalPlan,
        timeout: Duration,
    ) -> Result<SendableRecordBatchStream, ProblemKind> {
        let _place = self.waiting.try_acquire().map_err(|_| ProblemKind::Busy)?;
        let stopwatch = Stopwatch::start();
        let permit = tokio::time::timeout(timeout, Arc::clone(&self.running).acquire_owned())
            .await
            .map_err(|_| ProblemKind::Busy)?
            .expect("the gate is never closed");
        let handle = self.runtime.as_ref().expect("the pool is alive").handle().clone();
        let metrics = Arc::clone(&self.metrics);

        let planned = handle.spawn(async move {
            let physical = datafusion_entry::physical_plan(&session, plan).await?;
            Ok::<_, DataFusionError>((
                datafusion_entry::stream(Arc::clone(&physical), session.task_ctx())?,
                physical.schema(),
            ))
        });
        let abort = planned.abort_handle();
        let planned = tokio::time::timeout(timeout.saturating_sub(stopwatch.elapsed()), planned)
            .await
            .map_err(|_| {
                abort.abort();
                ProblemKind::Timeout(timeout)
            })?;
        let (mut stream, schema) = planned
            .map_err(|panic| ProblemKind::Internal(Error::bug(panic.to_string())))?
            .map_err(problem_of)?;

        let mut builder = RecordBatchReceiverStreamBuilder::new(schema, 2);
        let sender = builder.tx();
        builder.spawn_on(
            async move {
                let _running = permit;
                loop {
                    let left = timeout.saturating_sub(stopwatch.elapsed());
                    let next = tokio::time::timeout(left, stream.next()).await;
                    let (batch, outcome) = match next {
                        Err(_) => (Some(Err(deadline(timeout))), Some("timeout")),
                        Ok(None) => (None, Some("ok")),
                        Ok(Some(Err(error))) => (Some(Err(error)), Some("error")),
                        Ok(Some(Ok(batch))) => (Some(Ok(batch)), None),
                    };
                    if let Some(batch) = batch
                        && sender.send(batch).await.is_err()
                    {
                        // Nobody reads any more.
                        metrics
                            .query_duration_seconds
                            .with_label_values(&["left"])
                            .observe(stopwatch.elapsed().as_secs_f64());
                        return Ok(());
                    }
                    if let Some(outcome) = outcome {
                        metrics
                            .query_duration_seconds
                            .with_label_values(&[outcome])
                            .observe(stopwatch.elapsed().as_secs_f64());
                        return Ok(());
                    }
                }
            },
            &handle,
        );
        Ok(builder.build())
    }
}

impl Drop for QueryPool {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Also from inside another runtime, where waiting is not allowed.
            runtime.shutdown_background();
        }
    }
}

/// Marks the end of a query's time among the errors of a stream.
#[derive(Debug, thiserror::Error)]
#[error("the query ran longer than {0:?}")]
pub struct Deadline(pub Duration);

fn deadline(timeout: Duration) -> DataFusionError {
    DataFusionError::External(Box::new(Deadline(timeout)))
}

/// Whose fault an error of a running query is.
pub fn problem_of(error: DataFusionError) -> ProblemKind {
    match error.find_root() {
        DataFusionError::External(cause) => match (cause.downcast_ref::<Deadline>(), cause.downcast_ref::<Error>()) {
            (Some(Deadline(timeout)), _) => ProblemKind::Timeout(*timeout),
            (_, Some(Error::External { message, .. })) => ProblemKind::Unavailable(message.clone()),
            (_, Some(Error::User(message))) => ProblemKind::Execution(message.clone()),
            _ => ProblemKind::Execution(cause.to_string()),
        },
        DataFusionError::ObjectStore(cause) => ProblemKind::Unavailable(cause.to_string()),
        DataFusionError::ResourcesExhausted(_) => {
            let limit = limits::QUERY_MEMORY_BYTES >> 20;
            ProblemKind::Execution(format!(
                "the query needs more than the {limit} MiB that all queries share; ask for fewer rows or groups"
            ))
        }
        DataFusionError::Internal(message) => ProblemKind::Internal(Error::bug(message.clone())),
        _ => ProblemKind::Execution(reason_of(&error)),
    }
}
