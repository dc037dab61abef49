//! Writing to tables: what a statement changes goes into the table's log, and is answered when every view has it.
//!
//! ```text
//! INSERT ─▶ rows ──────────────────────┐
//! UPDATE, DELETE ─▶ rows of now ─▶ ± ──┴▶ log (synced) ─▶ an epoch ─▶ views ─▶ answer
//! ```
//! A statement is one record of the log, so an epoch has all of it or nothing.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{Array, RecordBatch},
    compute::concat_batches,
    datatypes::SchemaRef,
};
use tokio::sync::MutexGuard;

use crate::{
    connector::TableLog,
    format::changes,
    plan::TableDefinition,
    types::{Error, Position, Result, SplitId},
};

use super::{
    engine::{Engine, Mode},
    face::SourceState,
    insert::fitting,
    manual::StepEnd,
};

/// How often a writer that waits looks whether the table still runs.
const LOOK: Duration = Duration::from_millis(200);

impl Engine {
    /// Adds rows; with a key they replace those of the same key. Returns how many.
    ///
    /// # Errors
    /// [`Error::User`] for a null where none may be; then nothing was added.
    pub(super) async fn add(&self, table: &TableDefinition, rows: Vec<RecordBatch>) -> Result<usize> {
        let added = all_of(table.schema(), &rows)?;
        let writing = self.0.writing.lock().await;
        let end = self.log(table, &RecordBatch::new_empty(Arc::clone(table.schema())), &added)?;
        drop(writing);
        self.until_visible(&table.name, end).await?;
        Ok(added.num_rows())
    }

    /// Retracts rows, and adds them again with new values of `columns`, which stand behind their own. Returns how many.
    pub(super) async fn change(
        &self,
        table: &TableDefinition,
        columns: &[usize],
        rows: &[RecordBatch],
        writing: MutexGuard<'_, ()>,
    ) -> Result<usize> {
        let width = table.schema().fields().len();
        let own: Vec<usize> = (0..width).collect();
        let old: Vec<RecordBatch> = rows
            .iter()
            .map(|batch| batch.project(&own).map_err(Error::of_arrow))
            .collect::<Result<_>>()?;
        let retracted = all_of(table.schema(), &old)?;
        let added = if columns.is_empty() {
            RecordBatch::new_empty(Arc::clone(table.schema()))
        } else {
            let new = |batch: &RecordBatch| {
                let values = own.iter().map(|column| {
                    let set = columns.iter().position(|set| set == column);
                    match set {
                        Some(set) => fitting(batch.column(width + set), table.schema().field(*column)),
                        None => Ok(Arc::clone(batch.column(*column))),
                    }
                });
                let values = values.collect::<Result<Vec<_>>>()?;
                RecordBatch::try_new(nullable(table.schema()), values).map_err(Error::of_arrow)
            };
            all_of(table.schema(), &rows.iter().map(new).collect::<Result<Vec<_>>>()?)?
        };
        if retracted.num_rows() == 0 {
            return Ok(0);
        }
        let end = self.log(table, &retracted, &added)?;
        drop(writing);
        self.until_visible(&table.name, end).await?;
        Ok(retracted.num_rows())
    }

    /// Returns when all that was written to tables before is in every view.
    pub(super) async fn flush(&self) -> Result<()> {
        let ends: Vec<(String, Position)> = self
            .0
            .table_logs
            .lock()
            .expect("nobody panics while holding it")
            .iter()
            .map(|(name, log)| (name.clone(), log.end()))
            .collect();
        if self.0.options.mode == Mode::Live {
            for (name, end) in ends {
                self.until_visible(&name, end).await?;
            }
        }
        Ok(())
    }

    /// The log of a table: the one that is open where it is only in memory.
    pub(super) fn open_log(&self, table: &str) -> Result<TableLog> {
        let folder = self.folder(table);
        let mut logs = self.0.table_logs.lock().expect("nobody panics while holding it");
        if let (None, Some(log)) = (&folder, logs.get(table)) {
            return Ok(log.clone());
        }
        let log = TableLog::open(folder.as_deref())?;
        logs.insert(table.to_owned(), log.clone());
        Ok(log)
    }

    fn log(&self, table: &TableDefinition, retracted: &RecordBatch, added: &RecordBatch) -> Result<Position> {
        let log = self
            .0
            .table_logs
            .lock()
            .expect("nobody panics while holding it")
            .get(&table.name)
            .cloned()
            .ok_or_else(|| Error::user(format!("table `{}` has not started yet", table.name)))?;
        log.append(&changes::encode(retracted, added)?)
    }

    async fn until_visible(&self, table: &str, end: Position) -> Result<()> {
        if self.0.options.mode == Mode::Manual {
            return self.step(table, StepEnd::default());
        }
        let Some(shared) = self.shared_of(table) else {
            return Ok(());
        };
        let mut epochs = shared.epochs();
        loop {
            let read = shared.snapshot().positions.get(&SplitId::from(0)).copied();
            if read.is_some_and(|read| end <= read) || end == Position(0) {
                return Ok(());
            }
            let status = shared.status();
            if status.state == SourceState::Failed {
                return Err(Error::external(format!(
                    "what was written is kept, but table `{table}` does not run: {}",
                    status.reason.unwrap_or_default()
                )));
            }
            if !self
                .shared_of(table)
                .is_some_and(|current| Arc::ptr_eq(&current, &shared))
            {
                return Err(Error::user(format!("table `{table}` was dropped meanwhile")));
            }
            if self.0.stopping.is_cancelled() {
                return Err(Error::external(
                    "what was written is kept and will be seen after the next start: Zeta is stopping",
                ));
            }
            // An epoch wakes it, and so does time: a table may fail without one.
            if let Ok(Err(_)) = tokio::time::timeout(LOOK, epochs.changed()).await {
                return Err(Error::external("Zeta is stopping"));
            }
        }
    }
}

/// All rows as one batch of the table's schema.
///
/// # Errors
/// [`Error::User`] for a null where none may be.
fn all_of(schema: &SchemaRef, rows: &[RecordBatch]) -> Result<RecordBatch> {
    let rows = concat_batches(
        &nullable(schema),
        rows.iter()
            .map(|batch| batch.clone().with_schema(nullable(schema)))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(Error::of_arrow)?
            .iter(),
    )
    .map_err(Error::of_arrow)?;
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        if !field.is_nullable()
            && let Some(row) = (0..column.len()).find(|row| column.is_null(*row))
        {
            return Err(Error::user(format!(
                "column `{}` is NOT NULL, and has none in row {}",
                field.name(),
                row + 1
            )));
        }
    }
    RecordBatch::try_new(Arc::clone(schema), rows.columns().to_vec()).map_err(Error::of_arrow)
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    Arc::new(arrow::datatypes::Schema::new(fields))
}
