//! Writing to tables: what a statement changes goes into the table's log, and is answered when every view has it.
//!
//! ```text
//! INSERT ─▶ rows ──────────────────────┐
//! UPDATE, DELETE ─▶ rows of now ─▶ ± ──┴▶ log (synced) ─▶ an epoch ─▶ views ─▶ answer
//! ```
//! A statement is one record of the log, so an epoch has all of it or nothing. Tables do not wait for each other.

use std::sync::Arc;

use ahash::{HashMap, HashMapExt, HashSet};
use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::SchemaRef,
    row::{RowConverter, SortField},
    util::display::array_value_to_string,
};
use datafusion::common::utils::normalize_float_zero;
use tokio::sync::OwnedMutexGuard;

use crate::{
    connector::TableLog,
    format::changes,
    plan::{Relation, TableDefinition},
    types::{Error, Position, Result, SplitId},
};

use super::{
    engine::{Engine, Mode},
    fitting::fitting,
    manual::StepEnd,
};

impl Engine {
    /// Who holds it decides alone what a table holds next.
    pub(super) async fn writing(&self, table: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.writing.lock().expect("nobody panics while holding it");
            Arc::clone(locks.entry(table.to_owned()).or_default())
        };
        lock.lock_owned().await
    }

    /// Like [`writing`](Self::writing), behind all that was written to the table before.
    ///
    /// # Errors
    /// [`Error::External`] where that is not seen in time.
    pub(super) async fn changing(&self, table: &str) -> Result<OwnedMutexGuard<()>> {
        let writing = self.writing(table).await;
        if let (Mode::Live, Some(end)) = (self.0.options.mode, self.end_of_log(table)) {
            let read = self.until_read(table, &log_split(), end).await;
            read.map_err(|unread| unread.told("nothing was changed, for what was written before is not read yet"))?;
        }
        Ok(writing)
    }

    /// Adds rows; with a key they replace those of the same key. Returns how many.
    ///
    /// # Errors
    /// [`Error::User`] for a null where none may be, and for more rows than a table may hold; then nothing was added.
    pub(super) async fn add(&self, table: &TableDefinition, rows: Vec<RecordBatch>) -> Result<usize> {
        let added = all_of(table.schema(), &rows)?;
        if added.num_rows() == 0 {
            return Ok(0);
        }
        let writing = self.writing(&table.name).await;
        self.check_room(table, &added).await?;
        let end = self.log(table, &RecordBatch::new_empty(Arc::clone(table.schema())), &added)?;
        drop(writing);
        self.until_visible(&table.name, end).await?;
        Ok(added.num_rows())
    }

    /// Retracts rows, and adds them again with new values of `columns`, which stand behind their own. Returns how many.
    ///
    /// # Errors
    /// [`Error::User`] for a value that its column cannot hold, and for a key that another row has; then nothing was changed.
    pub(super) async fn change(
        &self,
        table: &TableDefinition,
        columns: &[usize],
        rows: &[RecordBatch],
        writing: OwnedMutexGuard<()>,
    ) -> Result<usize> {
        let width = table.schema().fields().len();
        let own: Vec<usize> = (0..width).collect();
        let old: Vec<RecordBatch> = rows
            .iter()
            .map(|batch| batch.project(&own).map_err(Error::of_arrow))
            .collect::<Result<_>>()?;
        let retracted = all_of(table.schema(), &old)?;
        if retracted.num_rows() == 0 {
            return Ok(0);
        }
        let added = if columns.is_empty() {
            RecordBatch::new_empty(Arc::clone(table.schema()))
        } else {
            let new = |batch: &RecordBatch| {
                let values = own.iter().map(|column| {
                    let set = columns.iter().position(|set| set == column);
                    match set {
                        Some(set) => fitting(batch.column(width + set), table.schema().field(*column), None),
                        None => Ok(Arc::clone(batch.column(*column))),
                    }
                });
                let values = values.collect::<Result<Vec<_>>>()?;
                RecordBatch::try_new(nullable(table.schema()), values).map_err(Error::of_arrow)
            };
            all_of(table.schema(), &rows.iter().map(new).collect::<Result<Vec<_>>>()?)?
        };
        let count = retracted.num_rows();
        let sets_key = table.key().iter().any(|column| columns.contains(column));
        if sets_key {
            self.check_keys(table, &retracted, &added)?;
        }
        // A row that keeps its key replaces the one before without a word about that.
        let is_replaced = !table.key().is_empty() && !columns.is_empty() && !sets_key;
        let retracted = match is_replaced {
            true => RecordBatch::new_empty(Arc::clone(table.schema())),
            false => retracted,
        };
        let end = self.log(table, &retracted, &added)?;
        drop(writing);
        self.until_visible(&table.name, end).await?;
        Ok(count)
    }

    /// Returns when all that was written to tables, and inserted into sources, before is in every view.
    pub(super) async fn flush(&self) -> Result<()> {
        if self.0.options.mode == Mode::Manual {
            return Ok(());
        }
        let mut ends: Vec<(String, SplitId, Position)> = Vec::new();
        {
            let logs = self.0.table_logs.lock().expect("nobody panics while holding it");
            ends.extend(logs.iter().map(|(name, log)| (name.clone(), log_split(), log.end())));
            let inserted = self.0.inserted.lock().expect("nobody panics while holding it");
            let inserted = inserted
                .iter()
                .map(|(name, (split, end))| (name.clone(), split.clone(), *end));
            ends.extend(inserted);
        }
        let reads = ends.iter().map(|(name, split, end)| self.until_read(name, split, *end));
        let read = futures::future::try_join_all(reads).await;
        read.map_err(|unread| unread.told("what was written is kept, and not all of it is in every view yet"))?;
        Ok(())
    }

    /// The log of a table: the one that is open where it is only in memory.
    pub(super) fn open_log(&self, table: &str) -> Result<TableLog> {
        let folder = self.folder(table);
        let mut logs = self.0.table_logs.lock().expect("nobody panics while holding it");
        if let (None, Some(log)) = (&folder, logs.get(table)) {
            return Ok(log.clone());
        }
        let catalog = self.catalog();
        let Some(Relation::Table(definition)) = catalog.get(table) else {
            return Err(Error::bug("a log is that of a table"));
        };
        let fits = |record: &[u8]| changes::fits(record, definition.schema(), definition.is_append_only);
        let folder = match &folder {
            None => None,
            Some(folder) => Some(folder.on_this_machine().ok_or_else(|| {
                Error::user(format!(
                    "table `{table}` cannot be kept in {}: what is written to a table needs a folder of this machine; give one with --state, \
                     or keep the rows in a topic and read it with CREATE SOURCE",
                    folder.root.display()
                ))
            })?),
        };
        let log = TableLog::open(folder, fits)?;
        logs.insert(table.to_owned(), log.clone());
        Ok(log)
    }

    fn end_of_log(&self, table: &str) -> Option<Position> {
        let logs = self.0.table_logs.lock().expect("nobody panics while holding it");
        logs.get(table).map(TableLog::end)
    }

    fn log(&self, table: &TableDefinition, retracted: &RecordBatch, added: &RecordBatch) -> Result<Position> {
        self.check_running(&table.name)?;
        // The statement was bound before it had its turn.
        let is_there = matches!(self.catalog().get(&table.name), Some(Relation::Table(now)) if Arc::ptr_eq(&now.view, &table.view));
        let log = {
            let logs = self.0.table_logs.lock().expect("nobody panics while holding it");
            logs.get(&table.name).cloned().filter(|_| is_there)
        };
        let gone = || {
            Error::user(format!(
                "nothing was written: table `{}` was dropped meanwhile",
                table.name
            ))
        };
        log.ok_or_else(gone)?.append(&changes::encode(retracted, added)?)
    }

    /// Returns when every view has what was written up to `end`.
    async fn until_visible(&self, table: &str, end: Position) -> Result<()> {
        if self.0.options.mode == Mode::Manual {
            return self.step(table, StepEnd::default());
        }
        let read = self.until_read(table, &log_split(), end).await;
        read.map_err(|unread| unread.told("what was written is kept, and is in no view yet"))
    }

    /// No two rows may come to have one key.
    ///
    /// # Errors
    /// [`Error::User`] where they would.
    fn check_keys(&self, table: &TableDefinition, retracted: &RecordBatch, added: &RecordBatch) -> Result<()> {
        let keys = KeyEncoder::new(table)?;
        let (old, new) = (keys.of(retracted)?, keys.of(added)?);
        let old: HashSet<&[u8]> = old.iter().map(|key| key.data()).collect();
        let mut rows_of: HashMap<&[u8], usize> = HashMap::with_capacity(new.num_rows());
        let refused = |row: usize, who: &str| {
            let key = keys.shown(table, added, row)?;
            Err(Error::user(format!(
                "nothing was changed: {who} of `{}` would have the key {key}; a key names one row",
                table.name
            )))
        };
        for (row, key) in new.iter().enumerate() {
            if rows_of.insert(key.data(), row).is_some() {
                return refused(row, "several rows");
            }
        }
        for batch in self.rows_of(&table.name)? {
            for key in &keys.of(&batch)? {
                if let Some(row) = rows_of.get(key.data())
                    && !old.contains(key.data())
                {
                    return refused(*row, "a row beside another");
                }
            }
        }
        Ok(())
    }

    /// A table that held too many rows could never be made smaller again: it would not start.
    ///
    /// # Errors
    /// [`Error::User`] where it would.
    async fn check_room(&self, table: &TableDefinition, added: &RecordBatch) -> Result<()> {
        let rows_max = self.0.bounds.view_rows_max;
        let rows = |engine: &Self| {
            let snapshot = engine.shared_of(&table.name).map(|shared| shared.snapshot());
            snapshot.map_or(0, |snapshot| {
                snapshot.views.get(&table.name).map_or(0, |rows| rows.len())
            })
        };
        // What others wrote and no epoch has read yet is far less than a tenth.
        if rows(self) + added.num_rows() <= rows_max - rows_max / 10 {
            return Ok(());
        }
        if let (Mode::Live, Some(end)) = (self.0.options.mode, self.end_of_log(&table.name)) {
            let read = self.until_read(&table.name, &log_split(), end).await;
            read.map_err(|unread| unread.told("nothing was written, for what was written before is not read yet"))?;
        }
        let mut would_be = rows(self) + added.num_rows();
        if rows_max < would_be && !table.key().is_empty() {
            let keys = KeyEncoder::new(table)?;
            let new = keys.of(added)?;
            let mut new: HashSet<&[u8]> = new.iter().map(|key| key.data()).collect();
            for batch in self.rows_of(&table.name)? {
                for key in &keys.of(&batch)? {
                    new.remove(key.data());
                }
            }
            would_be = rows(self) + new.len();
        }
        if would_be <= rows_max {
            return Ok(());
        }
        Err(Error::user(format!(
            "nothing was written: table `{}` would hold {would_be} rows, and {rows_max} are the most that a table may hold; DELETE some first",
            table.name
        )))
    }

    /// The rows of a table as everybody sees them.
    fn rows_of(&self, table: &str) -> Result<Vec<RecordBatch>> {
        let Some(shared) = self.shared_of(table) else {
            return Ok(Vec::new());
        };
        let snapshot = shared.snapshot();
        snapshot.views.get(table).map_or(Ok(Vec::new()), |rows| rows.batches())
    }
}

/// A log is one split.
fn log_split() -> SplitId {
    SplitId::from(0)
}

/// Keys of a table as bytes: equal where they are.
struct KeyEncoder {
    columns: Vec<usize>,
    encoder: RowConverter,
}

impl KeyEncoder {
    fn new(table: &TableDefinition) -> Result<Self> {
        let columns = table.key().to_vec();
        let field = |column: &usize| SortField::new(table.schema().field(*column).data_type().clone());
        let encoder = RowConverter::new(columns.iter().map(field).collect()).map_err(Error::of_arrow)?;
        Ok(Self { columns, encoder })
    }

    fn of(&self, rows: &RecordBatch) -> Result<arrow::row::Rows> {
        let columns: Vec<ArrayRef> = self
            .columns
            .iter()
            .map(|column| normalize_float_zero(rows.column(*column)))
            .collect();
        self.encoder.convert_columns(&columns).map_err(Error::of_arrow)
    }

    /// For people: `symbol = c, day = 2024-01-31`.
    fn shown(&self, table: &TableDefinition, rows: &RecordBatch, row: usize) -> Result<String> {
        let column = |column: &usize| {
            let value = array_value_to_string(rows.column(*column), row).map_err(Error::of_arrow)?;
            Ok(format!("{} = {value}", table.schema().field(*column).name()))
        };
        Ok(self.columns.iter().map(column).collect::<Result<Vec<_>>>()?.join(", "))
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
            .map(|batch| RecordBatch::try_new(nullable(schema), batch.columns().iter().map(owned).collect()))
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

/// Texts of a query are views into the buffers of the whole table, and each part of it would bring them all along.
fn owned(column: &ArrayRef) -> ArrayRef {
    match column.as_string_view_opt() {
        Some(texts) => Arc::new(texts.gc()),
        None => Arc::clone(column),
    }
}

fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    Arc::new(arrow::datatypes::Schema::new(fields))
}
