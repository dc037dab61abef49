//! What connectors and formats there are, as the composition root registered them.

use std::{future::Future, pin::Pin, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
};
use datafusion::{catalog::TableProvider, execution::runtime_env::RuntimeEnv};

use crate::{
    connector::{OptionSpec, Options, Publisher, Sink, Source},
    format::Decoder,
    types::{Position, Result, SplitId},
};

/// A field that a connector knows of each record, for INCLUDE.
#[derive(Clone, Debug)]
pub struct FieldSpec {
    pub name: &'static str,
    pub data_type: DataType,
    pub is_nullable: bool,
}

pub type MakeSource = Arc<dyn Fn(&str, &Options) -> Result<Box<dyn Source>> + Send + Sync>;
pub type MakeDecoder = Arc<dyn Fn(SchemaRef, usize, &Options) -> Result<Box<dyn Decoder>> + Send + Sync>;
/// Takes the source's name and rows; returns their split, and the position behind them.
pub type InsertRows = Arc<dyn Fn(&str, RecordBatch) -> Result<(SplitId, Position)> + Send + Sync>;
pub type ExternalFuture = Pin<Box<dyn Future<Output = Result<Arc<dyn TableProvider>>> + Send>>;

#[derive(Clone)]
pub struct ConnectorSpec {
    pub name: &'static str,
    pub options: &'static [OptionSpec],
    /// Options that begin so are the connector's own business.
    pub open_prefixes: &'static [&'static str],
    pub fields: Vec<FieldSpec>,
    /// Whether INSERT appends to its sources.
    pub takes_rows: bool,
    /// Takes the source's name and checked options.
    pub make: MakeSource,
}

/// What a sink is opened for.
pub struct OpenSink<'a> {
    /// Whose epochs are published.
    pub source: &'a str,
    pub publisher: Publisher,
    /// Of the view.
    pub schema: SchemaRef,
    /// The columns that name a row; empty where rows are only added.
    pub key: &'a [usize],
    pub format: &'a str,
    pub options: &'a Options,
    pub format_options: &'a Options,
}

pub type MakeSink = Arc<dyn Fn(OpenSink<'_>) -> Result<Box<dyn Sink>> + Send + Sync>;

/// A connector that rows are written to.
#[derive(Clone)]
pub struct SinkSpec {
    pub name: &'static str,
    pub options: &'static [OptionSpec],
    /// Options that begin so are the connector's own business.
    pub open_prefixes: &'static [&'static str],
    /// The first one is taken where none is named.
    pub formats: &'static [&'static str],
    /// What a format takes beside the connector's options.
    pub format_options: fn(format: &str) -> &'static [OptionSpec],
    /// Whether rows without a key can be taken back in this format.
    pub takes_changes_without_key: fn(format: &str) -> bool,
    /// Whether rows can be taken back at all.
    pub takes_changes: bool,
    pub make: MakeSink,
}

#[derive(Clone)]
pub struct FormatSpec {
    pub name: &'static str,
    pub options: &'static [OptionSpec],
    /// Takes the needed columns, how many columns the source declares, and checked options.
    pub make: MakeDecoder,
}

/// How an external table is opened.
#[derive(Clone, Debug)]
pub struct OpenExternal {
    pub name: String,
    pub location: String,
    /// The name of the column that holds the file's name without folder and ending.
    pub file_name_column: Option<String>,
}

/// All of them.
#[derive(Clone)]
pub struct Registry {
    /// Memory and object stores of queries: external tables register their stores in it.
    pub environment: Arc<RuntimeEnv>,
    pub connectors: Vec<ConnectorSpec>,
    pub formats: Vec<FormatSpec>,
    pub sinks: Vec<SinkSpec>,
    /// Appends rows to a source whose connector takes them, by its name.
    pub insert: InsertRows,
    /// Reads the schema of a Parquet table; the only thing in binding that may ask the world.
    pub open_external: Arc<dyn Fn(OpenExternal) -> ExternalFuture + Send + Sync>,
}

impl Registry {
    pub fn connector(&self, name: &str) -> Option<&ConnectorSpec> {
        self.connectors.iter().find(|connector| connector.name == name)
    }

    pub fn sink(&self, name: &str) -> Option<&SinkSpec> {
        self.sinks.iter().find(|sink| sink.name == name)
    }

    pub fn format(&self, name: &str) -> Option<&FormatSpec> {
        self.formats.iter().find(|format| format.name == name)
    }
}
