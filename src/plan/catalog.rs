//! Everything that has a name: sources, tables, views, and what they were made of.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::{catalog::TableProvider, logical_expr::LogicalPlan, physical_expr::PhysicalExpr};

use crate::{
    connector::Options,
    sql::{Emit, OWN_VIEW_SUFFIX},
    types::RecordSchema,
};

use super::{function::Functions, stream::StreamPlan, table::TABLE_CONNECTOR};

/// In the order of creation: what a statement names stands before it.
#[derive(Clone, Default)]
pub struct Catalog {
    relations: Vec<Relation>,
    /// Functions have names of their own.
    pub functions: Functions,
}

#[derive(Clone)]
pub enum Relation {
    Source(Arc<SourceDefinition>),
    Table(Arc<TableDefinition>),
    External(Arc<ExternalDefinition>),
    View(Arc<ViewDefinition>),
    Materialized(Arc<MaterializedDefinition>),
    /// Nothing reads it.
    Sink(Arc<SinkDefinition>),
}

pub struct SourceDefinition {
    pub name: String,
    /// Declared columns, then those of INCLUDE.
    pub schema: SchemaRef,
    /// How many columns are declared: the record gives them.
    pub declared: usize,
    /// Field of the connector for each column of INCLUDE, in their order.
    pub includes: Vec<String>,
    pub watermark: Option<WatermarkDefinition>,
    pub connector: String,
    pub connector_options: Options,
    pub format: String,
    pub format_options: Options,
    pub trigger: Trigger,
    pub idle_timeout: Duration,
    /// After so long without any row all open windows are closed.
    pub close_after: Option<Duration>,
    /// How long epochs since the last checkpoint may take to run again.
    pub recovery_time_max: Duration,
    pub event_time_ahead_max: Duration,
    pub sql: String,
}

#[derive(Clone)]
pub struct WatermarkDefinition {
    /// The event-time column, in the source's schema.
    pub column: usize,
    /// Over the source's schema: up to where the split is complete once the row is in. Timestamp in nanoseconds.
    pub expression: Arc<dyn PhysicalExpr>,
    /// The expression as written.
    pub text: String,
}

/// When an epoch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// As soon as a row is there.
    EachRow,
    /// As soon as rows are there, at most this often.
    AtMostEvery(Duration),
    /// At multiples of this wall-clock interval.
    Interval(Duration),
}

impl Trigger {
    /// Up to a second an interval only gathers rows; a longer one is a clock of its own.
    pub fn of(interval: Duration) -> Self {
        match interval {
            Duration::ZERO => Self::EachRow,
            short if short < Duration::from_secs(1) => Self::AtMostEvery(short),
            long => Self::Interval(long),
        }
    }
}

/// A table that takes rows: a source of what was written to it, and a view of what that comes to. All have its name.
pub struct TableDefinition {
    pub name: String,
    /// Rows are only inserted.
    pub is_append_only: bool,
    /// Its declared columns are those of the table and the weights of changes.
    pub source: Arc<SourceDefinition>,
    pub view: Arc<MaterializedDefinition>,
    pub sql: String,
}

impl SourceDefinition {
    /// Whether its rows are what was written to a table.
    pub fn is_table(&self) -> bool {
        self.connector == TABLE_CONNECTOR
    }
}

impl TableDefinition {
    pub fn schema(&self) -> &SchemaRef {
        &self.view.stream.schema
    }

    /// The columns that name a row; empty where nothing does.
    pub fn key(&self) -> &[usize] {
        &self.view.stream.key
    }
}

pub struct ExternalDefinition {
    pub name: String,
    pub location: String,
    pub table: Arc<dyn TableProvider>,
    pub sql: String,
}

pub struct ViewDefinition {
    pub name: String,
    pub plan: LogicalPlan,
    /// How many parts it has with everything unfolded.
    pub parts: usize,
    /// The relations that it reads, by name.
    pub reads: Vec<String>,
    pub sql: String,
}

pub struct MaterializedDefinition {
    pub name: String,
    /// The query, for history: the same meaning, over other rows.
    pub plan: LogicalPlan,
    pub stream: StreamPlan,
    /// The source at the bottom of it.
    pub source: String,
    pub emit: Emit,
    pub options: Options,
    /// The relations that it reads, by name.
    pub reads: Vec<String>,
    pub sql: String,
}

/// Where the changes of a view go.
pub struct SinkDefinition {
    pub name: String,
    /// The materialized view or table whose changes it publishes.
    pub view: Arc<MaterializedDefinition>,
    pub connector: String,
    pub format: String,
    pub connector_options: Options,
    pub format_options: Options,
    /// What readers of its records need; empty where its format has no schemas.
    pub schemas: Vec<RecordSchema>,
    /// The relations that it reads, by name.
    pub reads: Vec<String>,
    pub sql: String,
}

impl SinkDefinition {
    /// The view of the sink's own query, which goes with it.
    pub fn own_view(&self) -> Option<&str> {
        let name = self.view.name.strip_suffix(OWN_VIEW_SUFFIX)?;
        (name == self.name).then_some(&self.view.name)
    }
}

impl Relation {
    pub fn name(&self) -> &str {
        match self {
            Self::Source(source) => &source.name,
            Self::Table(table) => &table.name,
            Self::External(table) => &table.name,
            Self::View(view) => &view.name,
            Self::Materialized(view) => &view.name,
            Self::Sink(sink) => &sink.name,
        }
    }

    pub fn sql(&self) -> &str {
        match self {
            Self::Source(source) => &source.sql,
            Self::Table(table) => &table.sql,
            Self::External(table) => &table.sql,
            Self::View(view) => &view.sql,
            Self::Materialized(view) => &view.sql,
            Self::Sink(sink) => &sink.sql,
        }
    }

    pub fn schema(&self) -> SchemaRef {
        match self {
            Self::Source(source) => Arc::clone(&source.schema),
            Self::Table(table) => Arc::clone(table.schema()),
            Self::External(table) => table.table.schema(),
            Self::View(view) => Arc::clone(view.plan.schema().inner()),
            Self::Materialized(view) => Arc::clone(&view.stream.schema),
            Self::Sink(sink) => Arc::clone(&sink.view.stream.schema),
        }
    }

    /// What people call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Source(_) => "source",
            Self::Table(_) => "table",
            Self::External(_) => "external table",
            Self::View(_) => "view",
            Self::Materialized(_) => "materialized view",
            Self::Sink(_) => "sink",
        }
    }

    fn reads(&self) -> &[String] {
        match self {
            Self::Source(_) | Self::Table(_) | Self::External(_) => &[],
            Self::View(view) => &view.reads,
            Self::Materialized(view) => &view.reads,
            Self::Sink(sink) => &sink.reads,
        }
    }
}

impl Catalog {
    pub fn get(&self, name: &str) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.name() == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Relation> {
        self.relations.iter()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.relations.iter().map(Relation::name)
    }

    /// # Panics
    /// Where the name is taken: checked before.
    pub fn add(&mut self, relation: Relation) {
        assert!(self.get(relation.name()).is_none(), "a name is used once");
        self.relations.push(relation);
    }

    pub fn remove(&mut self, name: &str) {
        self.relations.retain(|relation| relation.name() != name);
    }

    pub fn readers_of(&self, name: &str) -> Vec<&str> {
        self.relations
            .iter()
            .filter(|relation| relation.reads().iter().any(|read| read == name))
            .map(Relation::name)
            .collect()
    }

    pub fn source(&self, name: &str) -> Option<&Arc<SourceDefinition>> {
        match self.get(name)? {
            Relation::Source(source) => Some(source),
            Relation::Table(table) => Some(&table.source),
            _ => None,
        }
    }

    pub fn materialized(&self, name: &str) -> Option<&Arc<MaterializedDefinition>> {
        match self.get(name)? {
            Relation::Materialized(view) => Some(view),
            Relation::Table(table) => Some(&table.view),
            _ => None,
        }
    }

    /// The source whose rows a source or materialized view is made of.
    pub fn source_below(&self, relation: &str) -> Option<&str> {
        match self.get(relation)? {
            Relation::Source(source) => Some(&source.name),
            Relation::Table(table) => Some(&table.name),
            Relation::Materialized(view) => Some(&view.source),
            Relation::External(_) | Relation::View(_) | Relation::Sink(_) => None,
        }
    }

    /// The sinks of a source's views, in the order of creation.
    pub fn sinks_of(&self, source: &str) -> Vec<Arc<SinkDefinition>> {
        let sinks = self.relations.iter().filter_map(|relation| match relation {
            Relation::Sink(sink) if sink.view.source == source => Some(Arc::clone(sink)),
            _ => None,
        });
        sinks.collect()
    }

    /// The materialized views of a source, in the order of creation.
    pub fn views_of(&self, source: &str) -> Vec<Arc<MaterializedDefinition>> {
        self.relations
            .iter()
            .filter_map(|relation| match relation {
                Relation::Materialized(view) if view.source == source => Some(Arc::clone(view)),
                Relation::Table(table) if table.name == source => Some(Arc::clone(&table.view)),
                _ => None,
            })
            .collect()
    }

    /// The Parquet table that has every column which this view reads of its source, in a type that fits: its past.
    pub fn history_of(&self, view: &MaterializedDefinition) -> Option<&Arc<ExternalDefinition>> {
        let source = self.source(&view.source)?;
        self.relations.iter().find_map(|relation| {
            let Relation::External(table) = relation else {
                return None;
            };
            let schema = table.table.schema();
            let fits = view
                .stream
                .inputs
                .iter()
                .flat_map(|input| &input.columns)
                .all(|column| {
                    let wanted = source.schema.field(*column);
                    schema
                        .field_with_name(wanted.name())
                        .is_ok_and(|found| arrow::compute::can_cast_types(found.data_type(), wanted.data_type()))
                });
            (fits && view.stream.reads_sources_only()).then_some(table)
        })
    }
}

/// `<source>$bad`.
pub fn bad_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("split", DataType::Utf8View, false),
        Field::new("position", DataType::UInt64, false),
        Field::new("reason", DataType::Utf8View, false),
        Field::new("first_bytes", DataType::Utf8View, false),
    ]))
}

/// `<view>$errors`: what was to be computed, why it could not be, of which values, in which epoch.
pub fn errors_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("operator", DataType::Utf8View, false),
        Field::new("reason", DataType::Utf8View, false),
        Field::new("row", DataType::Utf8View, false),
        Field::new("epoch", DataType::UInt64, false),
    ]))
}

/// The columns of `<view>$late` that say why a row is there; those of the row stand before them.
pub const OF_LATENESS: [&str; 3] = ["window_start", "window_end", "late_by_ms"];

/// `<view>$late`: the row as the window would have taken it, its window, and how much too late it was.
pub fn late_schema(rows: &SchemaRef) -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let own = OF_LATENESS;
    let fields = rows
        .fields()
        .iter()
        .filter(|field| !own.contains(&field.name().as_str()))
        .cloned();
    Arc::new(Schema::new(
        fields
            .chain([
                Arc::new(Field::new(own[0], time.clone(), false)),
                Arc::new(Field::new(own[1], time, false)),
                Arc::new(Field::new(own[2], DataType::Int64, false)),
            ])
            .collect::<Vec<_>>(),
    ))
}
