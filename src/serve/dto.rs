//! Every type that the API writes or reads as JSON; `docs/api.md` describes them. Rows are written by `json_rows`.

use std::collections::BTreeMap;

use arrow::datatypes::Schema;
use serde::{Deserialize, Serialize};

use crate::types::type_name;

use super::json_rows::TimeFormat;

#[derive(Debug, Serialize)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub type_name: String,
    pub nullable: bool,
}

impl Column {
    pub fn all_of(schema: &Schema) -> Vec<Self> {
        let column = |field: &arrow::datatypes::FieldRef| Self {
            name: field.name().clone(),
            type_name: type_name(field.data_type()),
            nullable: field.is_nullable(),
        };
        schema.fields().iter().map(column).collect()
    }
}

/// What follows the rows of an answer.
#[derive(Debug, Serialize)]
pub struct AnswerEnd {
    pub row_count: usize,
    pub truncated: bool,
    pub elapsed_ms: u64,
    pub query_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlBody {
    pub sql: String,
    pub limit: Option<usize>,
    pub timeout_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct Views {
    pub views: Vec<View>,
}

#[derive(Debug, Serialize)]
pub struct View {
    pub name: String,
    pub kind: String,
    pub source: Option<String>,
    pub columns: Vec<Column>,
    pub key: Vec<String>,
    /// `None` of what cannot be subscribed.
    pub append_only: Option<bool>,
    pub time: Option<String>,
    pub panel: Panel,
    pub panel_title: Option<String>,
    pub panel_unit: Option<String>,
    pub emit: Option<String>,
    pub rows: Option<usize>,
    /// `None` where no epochs make it.
    pub epoch: Option<u64>,
    pub watermark: Option<String>,
    pub history: Option<String>,
    pub window_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Panel {
    Candlestick,
    Series,
    Stat,
    Table,
}

#[derive(Debug, Serialize)]
pub struct Sources {
    pub sources: Vec<Source>,
}

#[derive(Debug, Serialize)]
pub struct Source {
    pub name: String,
    pub connector: String,
    pub state: String,
    pub reason: Option<String>,
    pub rows: u64,
    pub bad_rows: u64,
    pub late_rows: u64,
    pub epoch: u64,
    pub watermark: Option<String>,
    pub splits: Vec<Split>,
}

#[derive(Debug, Serialize)]
pub struct Split {
    pub split: String,
    pub position: u64,
    pub end: u64,
    pub lag: u64,
    pub watermark: Option<String>,
    pub idle: bool,
}

#[derive(Debug, Serialize)]
pub struct Ready {
    pub ready: bool,
    pub checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    pub detail: String,
}

/// RFC 9457.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub sqlstate: Option<&'static str>,
    pub detail: String,
    pub position: Option<TextPosition>,
    pub help: Vec<String>,
    pub query_id: Option<String>,
}

/// Lines and columns from 1, in characters; `offset` from 0, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TextPosition {
    pub line: usize,
    pub column: usize,
    pub offset: usize,
    pub end_line: usize,
    pub end_column: usize,
}

/// The last line of an NDJSON answer that failed after its first rows.
#[derive(Debug, Serialize)]
pub struct ErrorLine<'a> {
    pub error: &'a Problem,
}

/// What a client says over a WebSocket.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum ClientMessage {
    Subscribe(Subscribe),
    Unsubscribe { id: String },
    Ping {},
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    pub id: String,
    pub view: String,
    #[serde(default, rename = "where")]
    pub filter: BTreeMap<String, OneOrMany>,
    /// Rows of the first snapshot; all where it is absent.
    pub snapshot: Option<usize>,
    pub resume: Option<String>,
    #[serde(default)]
    pub time: TimeFormat,
}

/// For the answer to a message that could not be read otherwise.
#[derive(Debug, Deserialize)]
pub struct MessageId {
    pub id: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(Scalar),
    Many(Vec<Scalar>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    Text(String),
    Number(serde_json::Number),
    Flag(bool),
}

impl OneOrMany {
    /// As text, the way a query parameter would say it.
    pub fn texts(&self) -> Vec<String> {
        let text = |scalar: &Scalar| match scalar {
            Scalar::Text(text) => text.clone(),
            Scalar::Number(number) => number.to_string(),
            Scalar::Flag(flag) => flag.to_string(),
        };
        match self {
            Self::One(one) => vec![text(one)],
            Self::Many(many) => many.iter().map(text).collect(),
        }
    }
}

/// What the server says over a WebSocket, rows excepted.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum ServerMessage<'a> {
    Ack {
        id: &'a str,
        columns: Vec<Column>,
        key: Vec<&'a str>,
        time: Option<&'a str>,
    },
    Merged {
        id: &'a str,
        count: usize,
    },
    Reset {
        id: &'a str,
    },
    Complete {
        id: &'a str,
    },
    Error {
        id: Option<&'a str>,
        problem: &'a Problem,
    },
    Pong,
    Shutdown {
        reconnect_after_ms: u64,
    },
}
