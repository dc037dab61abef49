//! The rows of a statement or page as a response.
//!
//! ```text
//! Answer.rows ─┬─ JSON: collected up to a limit, then sent with its length ────────────▶ 200, Zeta-Truncated
//!              └─ NDJSON, CSV, Arrow: first batch, then status, then a batch at a time ▶ 200, chunked
//! ```
//! A streamed answer holds one batch and waits for its reader; a reader that leaves, or takes nothing for long, ends the query.

use std::{io, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    csv,
    datatypes::{DataType, Field, Schema, SchemaRef},
    ipc::writer::StreamWriter,
};
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tracing::debug;

use crate::{
    runtime::{Answer, clock::Stopwatch},
    serve::{
        dto,
        json_rows::{Encoder, TimeFormat, text_column},
        negotiate::Format,
        params::Shape,
        problem::Refusal,
    },
    types::{Error, Result, limits},
};

/// Rows that are encoded, and wait to be sent, at once.
const STEP_ROWS: usize = 8_192;

/// How the asker wants the rows.
#[derive(Clone, Copy, Debug)]
pub struct Rendering {
    pub format: Format,
    pub shape: Shape,
    pub time: TimeFormat,
}

impl Rendering {
    /// Shows at most `limit` rows of a JSON answer, and says whether there are more; streamed formats end where `answer` ends.
    pub async fn respond(self, answer: Answer, limit: Option<usize>, watch: Stopwatch) -> Result<Response, Refusal> {
        let query_id = answer.query_id.clone();
        let (body, is_truncated) = match self.format.is_streamed() {
            true => (self.stream(answer).await?, None),
            false => {
                let (body, is_truncated) = self.collect(answer, limit, watch).await?;
                (Body::from(body), Some(is_truncated))
            }
        };
        let mut response = body.into_response();
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        };
        set("content-type", self.format.content_type());
        set("zeta-query-id", &query_id);
        if let Some(is_truncated) = is_truncated {
            set("zeta-truncated", if is_truncated { "true" } else { "false" });
        }
        set("cache-control", "no-store");
        set(header::VARY.as_str(), "Accept, Accept-Encoding");
        Ok(response)
    }

    async fn collect(self, mut answer: Answer, limit: Option<usize>, watch: Stopwatch) -> Result<(Vec<u8>, bool), Refusal> {
        let mut rows = JsonRows::new(&answer.schema, self.shape, self.time, limit.unwrap_or(usize::MAX), limits::JSON_BYTES_MAX);
        while !rows.is_truncated
            && let Some(batch) = answer.rows.next().await
        {
            rows.push(&batch.map_err(|error| Refusal::of_stream(error, &answer.query_id))?)?;
        }
        // The query ends here, not after the answer was read.
        drop(answer.rows);
        let is_truncated = rows.is_truncated;
        let elapsed_ms = u64::try_from(watch.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok((rows.finish(elapsed_ms, answer.query_id), is_truncated))
    }

    /// Runs up to the first batch, so that a query that fails at once fails with a status.
    async fn stream(self, mut answer: Answer) -> Result<Body, Refusal> {
        let first = answer.rows.next().await.transpose().map_err(|error| Refusal::of_stream(error, &answer.query_id))?;
        let mut encoder = StreamEncoder::new(self.format, self.time, &answer.schema)?;
        let mut head = encoder.start()?;
        let mut first = first.map(|batch| (batch.slice(0, batch.num_rows().min(STEP_ROWS)), batch));
        if let Some((step, _)) = &first {
            head.extend(encoder.rows(step)?);
        }
        let rest = first.take().map(|(step, batch)| batch.slice(step.num_rows(), batch.num_rows() - step.num_rows()));
        let (sender, mut receiver) = mpsc::channel(1);
        let rows = stream::iter(rest.map(Ok)).chain(answer.rows);
        tokio::spawn(pump(Box::pin(rows), encoder, Bytes::from(head), answer.query_id, sender));
        Ok(Body::from_stream(stream::poll_fn(move |context| receiver.poll_recv(context))))
    }
}

/// Encodes batch after batch until the rows end, the reader leaves or takes nothing for too long. Dropping `rows` ends the query.
async fn pump<S>(mut rows: S, mut encoder: StreamEncoder, head: Bytes, query_id: String, sender: mpsc::Sender<io::Result<Bytes>>)
where
    S: stream::Stream<Item = datafusion::common::Result<RecordBatch>> + Send + Unpin + 'static,
{
    let send = async |part: io::Result<Bytes>| {
        let sent = tokio::time::timeout(limits::SOCKET_STALL_MAX, sender.send(part)).await;
        let is_taken = matches!(sent, Ok(Ok(())));
        if !is_taken {
            debug!(query_id, "the reader of an answer is gone");
        }
        is_taken
    };
    if !send(Ok(head)).await {
        return;
    }
    loop {
        let next = tokio::select! {
            biased;
            () = sender.closed() => return,
            next = rows.next() => next,
        };
        let failed: Refusal = match next {
            Some(Ok(batch)) => {
                let mut encoded = Ok(());
                for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
                    match encoder.rows(&batch.slice(start, STEP_ROWS.min(batch.num_rows() - start))) {
                        Ok(part) => {
                            if !send(Ok(part.into())).await {
                                return;
                            }
                        }
                        Err(error) => {
                            encoded = Err(error);
                            break;
                        }
                    }
                }
                match encoded {
                    Ok(()) => continue,
                    Err(error) => error.into(),
                }
            }
            None => match encoder.finish() {
                Ok(end) => {
                    send(Ok(end.into())).await;
                    return;
                }
                Err(error) => error.into(),
            },
            Some(Err(error)) => Refusal::of_stream(error, &query_id),
        };
        // The status is long sent: only a line of its own, or a body that breaks off, can still say so.
        let last = match &encoder {
            StreamEncoder::Ndjson { .. } => Ok(error_line(failed.problem())),
            _ => Err(io::Error::other("the query failed")),
        };
        send(last).await;
        return;
    }
}

fn error_line(problem: &dto::Problem) -> Bytes {
    let mut line = serde_json::to_vec(&dto::ErrorLine { error: problem }).expect("a problem is plain data");
    line.push(b'\n');
    line.into()
}

/// One JSON object, rows added as they come.
struct JsonRows {
    shape: Shape,
    time: TimeFormat,
    rows_max: usize,
    bytes_max: usize,
    schema: SchemaRef,
    /// One for all rows, or one for each column.
    parts: Vec<Vec<u8>>,
    row_count: usize,
    /// There was a row that is not shown.
    is_truncated: bool,
}

impl JsonRows {
    fn new(schema: &SchemaRef, shape: Shape, time: TimeFormat, rows_max: usize, bytes_max: usize) -> Self {
        let parts = if shape == Shape::Columns { schema.fields().len() } else { 1 };
        let schema = Arc::clone(schema);
        Self { shape, time, rows_max, bytes_max, schema, parts: vec![Vec::new(); parts], row_count: 0, is_truncated: false }
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let encoder = Encoder::new(batch, self.time)?;
        let mut bytes: usize = self.parts.iter().map(Vec::len).sum();
        for row in 0..batch.num_rows() {
            if self.row_count == self.rows_max || self.bytes_max <= bytes {
                self.is_truncated = true;
                return Ok(());
            }
            for (index, part) in self.parts.iter_mut().enumerate() {
                let before = part.len();
                if 0 < self.row_count {
                    part.push(b',');
                }
                match self.shape {
                    Shape::Arrays => encoder.array(row, part),
                    Shape::Objects => encoder.object(row, part),
                    Shape::Columns => encoder.cell(index, row, part),
                }
                bytes += part.len() - before;
            }
            self.row_count += 1;
        }
        Ok(())
    }

    fn finish(self, elapsed_ms: u64, query_id: String) -> Vec<u8> {
        let plain = "plain data";
        let end = dto::AnswerEnd { row_count: self.row_count, truncated: self.is_truncated, elapsed_ms, query_id };
        let end = serde_json::to_vec(&end).expect(plain);
        let mut out = Vec::with_capacity(self.parts.iter().map(Vec::len).sum::<usize>() + 1_024);
        out.extend_from_slice(b"{\"columns\":");
        out.extend(serde_json::to_vec(&dto::Column::all_of(&self.schema)).expect(plain));
        out.extend_from_slice(if self.shape == Shape::Columns { b",\"data\":[" } else { b",\"rows\":[" });
        for (index, part) in self.parts.iter().enumerate() {
            if self.shape != Shape::Columns {
                out.extend_from_slice(part);
                continue;
            }
            if 0 < index {
                out.push(b',');
            }
            out.push(b'[');
            out.extend_from_slice(part);
            out.push(b']');
        }
        out.extend_from_slice(b"],");
        // The rest of the object, without its own opening brace.
        out.extend_from_slice(&end[1..]);
        out
    }
}

/// Bytes of the streamed formats, part by part.
enum StreamEncoder {
    Ndjson { time: TimeFormat },
    Csv { time: TimeFormat, schema: SchemaRef, is_started: bool },
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl StreamEncoder {
    fn new(format: Format, time: TimeFormat, schema: &SchemaRef) -> Result<Self> {
        Ok(match format {
            Format::Ndjson => Self::Ndjson { time },
            Format::Csv => Self::Csv { time, schema: Arc::clone(schema), is_started: false },
            Format::Arrow => Self::Arrow(Box::new(StreamWriter::try_new(Vec::new(), schema).map_err(bug)?)),
            Format::Json => return Err(Error::bug("JSON is not streamed")),
        })
    }

    /// What comes before the first row, also where none follows.
    fn start(&mut self) -> Result<Vec<u8>> {
        match self {
            Self::Csv { schema, .. } => {
                let empty = RecordBatch::new_empty(Arc::clone(schema));
                self.rows(&empty)
            }
            Self::Ndjson { .. } => Ok(Vec::new()),
            Self::Arrow(writer) => Ok(std::mem::take(writer.get_mut())),
        }
    }

    fn rows(&mut self, batch: &RecordBatch) -> Result<Vec<u8>> {
        match self {
            Self::Ndjson { time } => {
                let encoder = Encoder::new(batch, *time)?;
                let mut out = Vec::new();
                for row in 0..batch.num_rows() {
                    encoder.object(row, &mut out);
                    out.push(b'\n');
                }
                Ok(out)
            }
            Self::Csv { time, is_started, .. } => {
                let mut out = Vec::new();
                let mut writer = csv::WriterBuilder::new().with_header(!*is_started).build(&mut out);
                writer.write(&as_csv_columns(batch, *time)?).map_err(bug)?;
                drop(writer);
                *is_started = true;
                Ok(out)
            }
            Self::Arrow(writer) => {
                writer.write(batch).map_err(bug)?;
                Ok(std::mem::take(writer.get_mut()))
            }
        }
    }

    fn finish(&mut self) -> Result<Vec<u8>> {
        match self {
            Self::Arrow(writer) => {
                writer.finish().map_err(bug)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// Columns that CSV has no form for, or another one than our JSON, become text: times, binary, lists, structs.
fn as_csv_columns(batch: &RecordBatch, time: TimeFormat) -> Result<RecordBatch> {
    let columns = batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, array)| {
        let data_type = array.data_type();
        let needs_text = data_type.is_nested() || data_type.is_temporal() || data_type.is_binary() || matches!(data_type, DataType::FixedSizeBinary(_));
        if !needs_text {
            return Ok((Arc::clone(field), Arc::clone(array)));
        }
        let text: ArrayRef = Arc::new(text_column(array, time)?);
        Ok((Arc::new(Field::new(field.name(), DataType::Utf8, true)), text))
    });
    let (fields, columns): (Vec<_>, Vec<_>) = columns.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(bug)
}

fn bug(error: arrow::error::ArrowError) -> Error {
    Error::bug(format!("rows cannot be written: {error}"))
}
