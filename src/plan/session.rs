//! DataFusion's planner as Zeta uses it: its functions, our window functions, our names.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::{
    catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, Session, TableProvider},
    common::DataFusionError,
    execution::{FunctionRegistry, SessionStateBuilder, context::SessionState, runtime_env::RuntimeEnv},
    functions_aggregate::min_max::{Max, Min},
    logical_expr::{AggregateUDF, Expr, TableType},
    physical_plan::ExecutionPlan,
    prelude::SessionConfig,
};

use crate::{
    function::{ExactSum, Extreme, Xor},
    types::EventTime,
};

use super::{checked::CheckArithmetic, window::LowerWindows, window_call::WindowFunctions};

const CATALOG: &str = "zeta";
const SCHEMA: &str = "public";

/// Functions, window functions and settings; without any table.
pub fn base_session(environment: Arc<RuntimeEnv>) -> SessionState {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.catalog.create_default_catalog_and_schema = false;
    options.execution.collect_statistics = true;
    // A pair of millions of rows is filtered by its pages, not read whole.
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(environment)
        .with_default_features()
        .with_analyzer_rule(Arc::new(LowerWindows))
        .with_analyzer_rule(Arc::new(CheckArithmetic))
        .build();
    // In the place of those of the same names.
    for function in [
        AggregateUDF::from(ExactSum::default()),
        AggregateUDF::from(Extreme::Least(Min::new())),
        AggregateUDF::from(Extreme::Greatest(Max::new())),
        AggregateUDF::from(Xor::default()),
    ] {
        state
            .register_udaf(Arc::new(function))
            .expect("a function is always taken");
    }
    state
}

/// The same session over these tables.
pub fn session_over(base: &SessionState, tables: BTreeMap<String, Arc<dyn TableProvider>>) -> SessionState {
    let windows = WindowFunctions { tables: tables.clone() };
    let names = Names {
        schema: Arc::new(Tables(tables)),
    };
    let mut state = SessionStateBuilder::new_from_existing(base.clone())
        .with_catalog_list(Arc::new(names))
        .build();
    state
        .register_relation_planner(Arc::new(windows))
        .expect("a planner is always taken");
    state
}

/// For one query whose plan has its tables already: `now` is its time.
pub fn query_session(base: &SessionState, now: EventTime) -> SessionState {
    let mut state = session_over(base, BTreeMap::new());
    state.mark_start_execution();
    state.execution_props_mut().query_execution_start_time = Some(DateTime::from_timestamp_nanos(now.0));
    state
}

#[derive(Debug)]
struct Names {
    schema: Arc<Tables>,
}

impl CatalogProviderList for Names {
    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.into()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| {
            Arc::new(One {
                schema: Arc::clone(&self.schema),
            }) as Arc<dyn CatalogProvider>
        })
    }
}

#[derive(Debug)]
struct One {
    schema: Arc<Tables>,
}

impl CatalogProvider for One {
    fn schema_names(&self) -> Vec<String> {
        vec![SCHEMA.into()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        (name == SCHEMA).then(|| Arc::clone(&self.schema) as Arc<dyn SchemaProvider>)
    }
}

#[derive(Debug)]
struct Tables(BTreeMap<String, Arc<dyn TableProvider>>);

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(self.0.get(name).cloned())
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// Something whose rows only a dataflow reads.
#[derive(Debug)]
pub struct StreamRelation {
    pub name: String,
    schema: SchemaRef,
    /// What to say to a query that wants its rows.
    refusal: String,
}

impl StreamRelation {
    pub fn new(name: &str, schema: SchemaRef, refusal: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            schema,
            refusal: refusal.into(),
        }
    }
}

#[async_trait]
impl TableProvider for StreamRelation {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Err(DataFusionError::Plan(self.refusal.clone()))
    }
}
