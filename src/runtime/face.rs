//! What the outside sees of a running engine: relations, sources, answers, pages, views to follow.

use std::{sync::Arc, time::Duration};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::execution::SendableRecordBatchStream;

use crate::{
    sql::{Diagnostic, Emit, SourceText},
    types::{Epoch, Error, EventTime, Options, Position, SplitId, Watermark},
    view::RowsSnapshot,
};

/// Something that a query can name.
#[derive(Clone, Debug)]
pub struct RelationInfo {
    pub name: String,
    pub kind: RelationKind,
    /// The source whose epochs make this view; `None` for tables and plain views.
    pub source: Option<String>,
    pub schema: SchemaRef,
    /// The columns that name a row; empty when rows are only appended, or are named by all their columns.
    pub key: Vec<String>,
    /// Rows that are there stay as they are.
    pub is_append_only: bool,
    /// The column that charts and pages run along.
    pub time: Option<String>,
    /// The column that says when a row is final: once the watermark has reached it.
    pub window_end: Option<String>,
    pub window_ns: Option<i64>,
    pub emit: Option<Emit>,
    /// Rows at the newest epoch; `None` where they are not ours to count.
    pub rows: Option<usize>,
    pub epoch: Epoch,
    pub watermark: Watermark,
    /// The Parquet table that continues the view into the past.
    pub history: Option<String>,
    /// Those of WITH, of a materialized view: how it is to be drawn.
    pub options: Options,
    /// The statement that made it.
    pub sql: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    Source,
    Table,
    ExternalTable,
    View,
    MaterializedView,
    SideOutput,
}

impl std::fmt::Display for RelationKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Table => "table",
            Self::ExternalTable => "external table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::SideOutput => "side output",
        })
    }
}

#[derive(Clone, Debug)]
pub struct SourceStatus {
    pub name: String,
    pub connector: String,
    pub state: SourceState,
    /// Why it is unreachable or failed.
    pub reason: Option<String>,
    /// Good rows, bad records and late rows since the state began.
    pub rows: u64,
    pub bad_rows: u64,
    pub late_rows: u64,
    pub epoch: Epoch,
    pub watermark: Watermark,
    pub splits: Vec<SplitStatus>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    Starting,
    Running,
    /// Goes on by itself.
    Unreachable,
    /// A bounded source at its end.
    Finished,
    /// Stopped; needs a person.
    Failed,
}

impl std::fmt::Display for SourceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Unreachable => "unreachable",
            Self::Finished => "finished",
            Self::Failed => "failed",
        })
    }
}

#[derive(Clone, Debug)]
pub struct SinkStatus {
    pub state: SourceState,
    /// Why it is unreachable or failed.
    pub reason: Option<String>,
    /// The last epoch with rows that is published.
    pub published: Epoch,
}

#[derive(Clone, Debug)]
pub struct SplitStatus {
    pub split: SplitId,
    pub position: Position,
    pub end: Position,
    pub watermark: Watermark,
    /// The highest event time of its rows.
    pub highest_event_time: Option<EventTime>,
    /// By the clock of the engine: since its last row, or since it is known.
    pub silent_since: EventTime,
    pub is_idle: bool,
}

/// One statement to run.
#[derive(Clone, Debug)]
pub struct SqlRequest {
    pub sql: String,
    pub timeout: Duration,
    /// Rows after which the answer ends.
    pub rows_max: Option<usize>,
}

/// The rows of a statement. Dropping the stream ends the query.
pub struct Answer {
    pub query_id: String,
    pub schema: SchemaRef,
    pub rows: SendableRecordBatchStream,
}

/// A page of a view: the newest rows before a time.
#[derive(Clone, Debug, Default)]
pub struct PageRequest {
    pub view: String,
    /// Column and text of a value that it must equal.
    pub equals: Vec<(String, String)>,
    /// In nanoseconds since 1970; the bound itself is left out by `before` and taken by `after`.
    pub before: Option<i64>,
    pub after: Option<i64>,
    pub limit: usize,
}

#[derive(Debug)]
pub struct Page {
    pub query_id: String,
    pub schema: SchemaRef,
    /// In the order of time.
    pub rows: Vec<RecordBatch>,
    pub has_more: bool,
    /// The time of the oldest row, in nanoseconds.
    pub next_before: Option<i64>,
    /// The epoch that the view was read at.
    pub epoch: Epoch,
    pub watermark: Watermark,
}

/// A view at one epoch.
#[derive(Clone, Debug)]
pub struct Published {
    pub epoch: Epoch,
    pub watermark: Watermark,
    pub rows: RowsSnapshot,
}

/// Why a request was not answered.
#[derive(Debug)]
pub struct Problem {
    pub kind: ProblemKind,
    pub query_id: Option<String>,
}

#[derive(Debug)]
pub enum ProblemKind {
    /// The text is wrong; places are in this text.
    Text {
        text: SourceText,
        diagnostics: Vec<Diagnostic>,
    },
    /// There is no such view.
    NotFound { detail: String, help: Vec<String> },
    /// A parameter is wrong.
    Parameter(String),
    /// The query ran too long.
    Timeout(Duration),
    /// Too many queries at once.
    Busy,
    /// The query failed while it ran: a value that cannot be cast, too little memory.
    Execution(String),
    /// Something outside does not answer.
    Unavailable(String),
    /// Ours; the detail goes to the log, not to the reader.
    Internal(Error),
}

impl Problem {
    pub fn new(kind: ProblemKind) -> Self {
        Self { kind, query_id: None }
    }

    pub fn of_query(kind: ProblemKind, query_id: &str) -> Self {
        Self {
            kind,
            query_id: Some(query_id.to_owned()),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::new(match error {
            Error::User(message) => ProblemKind::Parameter(message),
            Error::External { message, .. } => ProblemKind::Unavailable(message),
            other => ProblemKind::Internal(other),
        })
    }
}

/// A handle on rows that are shared and never change; used where a trait object of a query's rows is built from memory.
pub(crate) fn stream_of(schema: SchemaRef, batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    let rows = futures::stream::iter(batches.into_iter().map(Ok));
    Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(
        Arc::clone(&schema),
        rows,
    ))
}
