//! A view's snapshot as a table for queries.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::DataFusionError,
    datasource::{memory::MemorySourceConfig, source::DataSourceExec},
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
};

use super::RowsSnapshot;

/// Rows of one epoch: a query that reads two views of a source sees both at the same one.
#[derive(Debug)]
pub struct SnapshotTable {
    snapshot: RowsSnapshot,
}

impl SnapshotTable {
    pub fn new(snapshot: RowsSnapshot) -> Self {
        Self { snapshot }
    }
}

impl std::fmt::Debug for RowsSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowsSnapshot")
            .field("rows", &self.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.snapshot.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let batches = self
            .snapshot
            .batches()
            .map_err(|e| DataFusionError::External(Box::new(e)))?;
        let source = MemorySourceConfig::try_new(&[batches], self.schema(), projection.cloned())?;
        Ok(DataSourceExec::from_data_source(source))
    }
}
