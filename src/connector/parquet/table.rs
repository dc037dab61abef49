//! A folder of Parquet files as a table for queries, on any object store.
//!
//! ```text
//! scan ─▶ list the folder (never cached) ─▶ prune by file name ─▶ DataFusion's Parquet reader (statistics, page index)
//! ```
//! With a file-name column, `ADA-USDT.parquet` gives its rows the value `ADA-USDT`.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, RecordBatch, StringViewArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{DFSchema, DataFusionError, ScalarValue, cast::as_boolean_array},
    datasource::{
        file_format::{FileFormat, parquet::ParquetFormat},
        listing::PartitionedFile,
        object_store::ObjectStoreUrl,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource},
        table_schema::TableSchema,
    },
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, utils::conjunction},
    physical_plan::{ExecutionPlan, empty::EmptyExec},
};
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};

use crate::types::{Error, Result};

/// How long listing a folder or reading a footer may take: some stores never give up by themselves.
const STORE_DEADLINE: Duration = Duration::from_secs(20);

/// A folder or a single file, with the columns that its first file had when the table was opened.
#[derive(Debug)]
pub struct ParquetTable {
    location: String,
    store: Arc<dyn ObjectStore>,
    store_url: ObjectStoreUrl,
    path: Path,
    table_schema: TableSchema,
    file_name_column: Option<String>,
}

impl ParquetTable {
    /// Opens the table and reads its columns from the newest-named file.
    ///
    /// # Errors
    /// Where the folder cannot be listed, has no Parquet file, or the file cannot be read: a sentence with the location.
    pub async fn open(
        location: &str,
        store: Arc<dyn ObjectStore>,
        store_url: ObjectStoreUrl,
        path: Path,
        file_name_column: Option<String>,
        session: &dyn Session,
    ) -> Result<Self> {
        let files = list(location, &store, &path).await?;
        let Some(first) = files.iter().max_by(|a, b| a.location.cmp(&b.location)) else {
            return Err(Error::user(format!(
                "no Parquet file in {location}; make some with `zeta generate --pairs 3 --days 7 --seed 1 --out DIR`, or see dataset/README.md"
            )));
        };
        let format = ParquetFormat::default().with_force_view_types(true);
        let schema = within(
            location,
            format.infer_schema(session, &store, std::slice::from_ref(first)),
        )
        .await?
        .map_err(|e| {
            Error::user(format!(
                "{} is not a readable Parquet file: {}",
                first.location,
                e.strip_backtrace()
            ))
        })?;
        // Times are nanoseconds everywhere, and the files' key-value metadata is no part of a table.
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_metadata(Default::default()))
            .collect();
        if let Some(name) = &file_name_column
            && fields.iter().any(|field| field.name() == name)
        {
            return Err(Error::user(format!(
                "the files of {location} have a column `{name}` of their own; include the file's name AS another"
            )));
        }
        let partition = file_name_column
            .iter()
            .map(|name| Arc::new(Field::new(name, DataType::Utf8View, false)))
            .collect();
        let partition: Vec<_> = partition;
        let table_schema = TableSchema::builder(Arc::new(Schema::new(fields)))
            .with_table_partition_cols(partition)
            .build();
        Ok(Self {
            location: location.to_owned(),
            store,
            store_url,
            path,
            table_schema,
            file_name_column,
        })
    }

    /// Keeps the files whose name can match the filters.
    fn prune(
        &self,
        files: Vec<ObjectMeta>,
        filters: &[Expr],
        state: &dyn Session,
    ) -> Result<Vec<ObjectMeta>, DataFusionError> {
        let Some(column) = &self.file_name_column else {
            return Ok(files);
        };
        let own: Vec<Expr> = filters
            .iter()
            .filter(|filter| is_about(filter, column))
            .cloned()
            .collect();
        let Some(predicate) = conjunction(own) else {
            return Ok(files);
        };
        let schema = Arc::new(Schema::new(vec![Field::new(column, DataType::Utf8View, false)]));
        let predicate = state.create_physical_expr(predicate, &DFSchema::try_from(schema.as_ref().clone())?)?;
        let names: ArrayRef = Arc::new(StringViewArray::from_iter_values(
            files.iter().map(|file| stem(&file.location)),
        ));
        let batch = RecordBatch::try_new(schema, vec![names])?;
        let keep = predicate.evaluate(&batch)?.into_array(batch.num_rows())?;
        let keep = as_boolean_array(&keep)?;
        Ok(files
            .into_iter()
            .zip(keep)
            .filter(|(_, keep)| *keep == Some(true))
            .map(|(file, _)| file)
            .collect())
    }
}

#[async_trait]
impl TableProvider for ParquetTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.table_schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        let of = |filter: &&Expr| match &self.file_name_column {
            Some(column) if is_about(filter, column) => TableProviderFilterPushDown::Exact,
            _ => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(of).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let external = |error: Error| DataFusionError::External(Box::new(error));
        // Listed anew for every query: a file that was added is seen, one that was removed is not missed.
        let files = list(&self.location, &self.store, &self.path).await.map_err(external)?;
        if let Some(empty) = files.iter().find(|file| file.size == 0) {
            return Err(external(Error::user(format!(
                "{} is empty: not a Parquet file",
                empty.location
            ))));
        }
        let files = self.prune(files, filters, state)?;
        if files.is_empty() {
            let schema = self.schema();
            let schema = match projection {
                Some(columns) => Arc::new(schema.project(columns)?),
                None => schema,
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let partitions = state.config().target_partitions().clamp(1, files.len());
        let mut groups: Vec<Vec<PartitionedFile>> = vec![Vec::new(); partitions];
        for (index, file) in files.into_iter().enumerate() {
            let mut part = PartitionedFile::from(file);
            if self.file_name_column.is_some() {
                part.partition_values = vec![ScalarValue::Utf8View(Some(stem(&part.object_meta.location)))];
            }
            groups[index % partitions].push(part);
        }
        let mut source = ParquetSource::new(self.table_schema.clone())
            .with_table_parquet_options(state.config_options().execution.parquet.clone().into_options())
            .with_enable_page_index(true);
        let others: Vec<Expr> = filters
            .iter()
            .filter(|filter| {
                self.file_name_column
                    .as_ref()
                    .is_none_or(|column| !is_about(filter, column))
            })
            .cloned()
            .collect();
        if let Some(predicate) = conjunction(others) {
            let schema = DFSchema::try_from(self.schema().as_ref().clone())?;
            source = source.with_predicate(state.create_physical_expr(predicate, &schema)?);
        }
        let config = FileScanConfigBuilder::new(self.store_url.clone(), Arc::new(source))
            .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        ParquetFormat::default()
            .with_force_view_types(true)
            .create_physical_plan(state, config)
            .await
    }
}

trait IntoOptions {
    fn into_options(self) -> datafusion::config::TableParquetOptions;
}

impl IntoOptions for datafusion::config::ParquetOptions {
    fn into_options(self) -> datafusion::config::TableParquetOptions {
        datafusion::config::TableParquetOptions {
            global: self,
            ..Default::default()
        }
    }
}

/// Whether a filter speaks of the file's name alone.
fn is_about(filter: &Expr, column: &str) -> bool {
    let columns = filter.column_refs();
    !columns.is_empty() && columns.iter().all(|reference| reference.name == column) && !filter.is_volatile()
}

/// `dataset/ADA-USDT.parquet` is `ADA-USDT`.
fn stem(path: &Path) -> String {
    let name = path.filename().unwrap_or_default();
    name.strip_suffix(".parquet").unwrap_or(name).to_owned()
}

/// The Parquet files of a folder (or the one file), in the order of their names. Names that begin with `_` or `.` are not data.
async fn list(location: &str, store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Vec<ObjectMeta>> {
    if path.as_ref().ends_with(".parquet") {
        let file = within(location, store.head(path))
            .await?
            .map_err(|e| Error::external(format!("cannot read {location}: {e}")))?;
        return Ok(vec![file]);
    }
    let listed: std::result::Result<Vec<ObjectMeta>, _> =
        within(location, store.list(Some(path)).try_collect()).await?;
    let mut files = listed.map_err(|e| Error::external(format!("cannot list {location}: {e}")))?;
    files.retain(|file| {
        let name = file.location.filename().unwrap_or_default();
        name.ends_with(".parquet") && !name.starts_with(['_', '.'])
    });
    files.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(files)
}

async fn within<T>(location: &str, work: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(STORE_DEADLINE, work).await.map_err(|_| {
        Error::external(format!(
            "{location} did not answer within {} s; is it running and reachable?",
            STORE_DEADLINE.as_secs()
        ))
    })
}
