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

    async fn collect(
        self,
        mut answer: Answer,
        limit: Option<usize>,
        watch: Stopwatch,
    ) -> Result<(Vec<u8>, bool), Refusal> {
        let mut rows = JsonRows::new(
            &answer.schema,
            self.shape,
            self.time,
            limit.unwrap_or(usize::MAX),
            limits::JSON_BYTES_MAX,
        );
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
        let first = answer
            .rows
            .next()
            .await
            .transpose()
            .map_err(|error| Refusal::of_stream(error, &answer.query_id))?;
        let mut encoder = StreamEncoder::new(self.format, self.time, &answer.schema)?;
        let mut head = encoder.start()?;
        let mut first = first.map(|batch| (batch.slice(0, batch.num_rows().min(STEP_ROWS)), batch));
        if let Some((step, _)) = &first {
            head.extend(encoder.rows(step)?);
        }
        let rest = first
            .take()
            .map(|(step, batch)| batch.slice(step.num_rows(), batch.num_rows() - step.num_rows()));
        let (sender, mut receiver) = mpsc::channel(1);
        let rows = stream::iter(rest.map(Ok)).chain(answer.rows);
        tokio::spawn(pump(
            Box::pin(rows),
            encoder,
            Bytes::from(head),
            answer.query_id,
            sender,
        ));
        Ok(Body::from_stream(stream::poll_fn(move |context| {
            receiver.poll_recv(context)
        })))
    }
}

/// Encodes batch after batch until the rows end, the reader leaves or takes nothing for too long. Dropping `rows` ends the query.
async fn pump<S>(
    mut rows: S,
    mut encoder: StreamEncoder,
    head: Bytes,
    query_id: String,
    sender: mpsc::Sender<io::Result<Bytes>>,
) where
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
        let parts = if shape == Shape::Columns {
            schema.fields().len()
        } else {
            1
        };
        let schema = Arc::clone(schema);
        Self {
            shape,
            time,
            rows_max,
            bytes_max,
            schema,
            parts: vec![Vec::new(); parts],
            row_count: 0,
            is_truncated: false,
        }
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
        let end = dto::AnswerEnd {
            row_count: self.row_count,
            truncated: self.is_truncated,
            elapsed_ms,
            query_id,
        };
        let end = serde_json::to_vec(&end).expect(plain);
        let mut out = Vec::with_capacity(self.parts.iter().map(Vec::len).sum::<usize>() + 1_024);
        out.extend_from_slice(b"{\"columns\":");
        out.extend(serde_json::to_vec(&dto::Column::all_of(&self.schema)).expect(plain));
        out.extend_from_slice(if self.shape == Shape::Columns {
            b",\"data\":["
        } else {
            b",\"rows\":["
        });
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
    Ndjson {
        time: TimeFormat,
    },
    Csv {
        time: TimeFormat,
        schema: SchemaRef,
        is_started: bool,
    },
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl StreamEncoder {
    fn new(format: Format, time: TimeFormat, schema: &SchemaRef) -> Result<Self> {
        Ok(match format {
            Format::Ndjson => Self::Ndjson { time },
            Format::Csv => Self::Csv {
                time,
                schema: Arc::clone(schema),
                is_started: false,
            },
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
    let columns = batch
        .schema_ref()
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, array)| {
            let data_type = array.data_type();
            let needs_text = data_type.is_nested()
                || data_type.is_temporal()
                || data_type.is_binary()
                || matches!(data_type, DataType::FixedSizeBinary(_));
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

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Float64Array, Int64Array, ListArray, StringArray, TimestampMillisecondArray},
        datatypes::Int32Type,
        error::ArrowError,
        ipc::reader::StreamReader,
    };
    use axum::http::StatusCode;
    use datafusion::{common::DataFusionError, physical_plan::stream::RecordBatchStreamAdapter};
    use serde_json::{Value, json};

    use super::*;

    fn batch(numbers: &[i64]) -> RecordBatch {
        let names = StringArray::from_iter_values(numbers.iter().map(|number| format!("n\"{number}")));
        let times = TimestampMillisecondArray::from_iter_values(numbers.iter().copied());
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("number", Arc::new(Int64Array::from(numbers.to_vec()))),
            ("name", Arc::new(names)),
            ("at", Arc::new(times)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn answer(rows: Vec<datafusion::common::Result<RecordBatch>>) -> Answer {
        let schema = batch(&[]).schema();
        let rows = RecordBatchStreamAdapter::new(Arc::clone(&schema), stream::iter(rows));
        Answer {
            query_id: "q-000001".into(),
            schema,
            rows: Box::pin(rows),
        }
    }

    fn rendering(format: Format) -> Rendering {
        Rendering {
            format,
            shape: Shape::Arrays,
            time: TimeFormat::Rfc3339,
        }
    }

    fn failure() -> DataFusionError {
        DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None)
    }

    async fn bytes(response: Response) -> Result<Vec<u8>, axum::Error> {
        let mut all = Vec::new();
        let mut chunks = response.into_body().into_data_stream();
        while let Some(chunk) = chunks.next().await {
            all.extend_from_slice(&chunk?);
        }
        Ok(all)
    }

    async fn json_of(rendering: Rendering, rows: &[&[i64]], limit: Option<usize>) -> (Value, String) {
        let rows = rows.iter().map(|numbers| Ok(batch(numbers))).collect();
        let response = rendering
            .respond(answer(rows), limit, Stopwatch::start())
            .await
            .unwrap();
        let truncated = response.headers()["zeta-truncated"].to_str().unwrap().to_owned();
        assert_eq!(response.headers()["zeta-query-id"], "q-000001");
        assert_eq!(response.headers()[header::VARY], "Accept, Accept-Encoding");
        let mut body: Value = serde_json::from_slice(&bytes(response).await.unwrap()).unwrap();
        assert!(body.as_object_mut().unwrap().remove("elapsed_ms").unwrap().is_u64());
        (body, truncated)
    }

    #[tokio::test]
    async fn a_json_answer_has_the_shape_that_was_asked_for() {
        let columns = json!([{"name": "number", "type": "BIGINT", "nullable": false}, {"name": "name", "type": "VARCHAR", "nullable": false},
            {"name": "at", "type": "TIMESTAMP", "nullable": false}]);
        let end = |rows: Value, name: &str, count: usize| {
            let mut body = json!({"columns": columns, "row_count": count, "truncated": false, "query_id": "q-000001"});
            body[name] = rows;
            body
        };
        let arrays = json!([
            [1, "n\"1", "1970-01-01T00:00:00.001Z"],
            [2, "n\"2", "1970-01-01T00:00:00.002Z"]
        ]);
        let (body, _) = json_of(rendering(Format::Json), &[&[1], &[], &[2]], None).await;
        assert_eq!(body, end(arrays, "rows", 2));
        let objects = Rendering {
            shape: Shape::Objects,
            time: TimeFormat::Millis,
            ..rendering(Format::Json)
        };
        let (body, _) = json_of(objects, &[&[1]], None).await;
        assert_eq!(body, end(json!([{"number": 1, "name": "n\"1", "at": 1}]), "rows", 1));
        let data = Rendering {
            shape: Shape::Columns,
            time: TimeFormat::Millis,
            ..rendering(Format::Json)
        };
        let (body, _) = json_of(data, &[&[1], &[2]], None).await;
        assert_eq!(body, end(json!([[1, 2], ["n\"1", "n\"2"], [1, 2]]), "data", 2));
        let (body, _) = json_of(data, &[], None).await;
        assert_eq!(
            body,
            end(json!([[], [], []]), "data", 0),
            "a column without rows is there too"
        );
    }

    #[tokio::test]
    async fn an_answer_says_whether_it_was_cut() {
        for (rows, limit, count, truncated) in [
            (&[&[1, 2][..], &[3]][..], 3, 3, "false"),
            (&[&[1, 2], &[3]], 2, 2, "true"),
            (&[&[1]], 0, 0, "true"),
            (&[], 0, 0, "false"),
        ] {
            let (body, header) = json_of(rendering(Format::Json), rows, Some(limit)).await;
            assert_eq!(
                (body["row_count"].as_u64(), header.as_str()),
                (Some(count), truncated),
                "{rows:?} {limit}"
            );
            assert_eq!(body["truncated"], json!(truncated == "true"));
        }
    }

    #[test]
    fn an_answer_is_bounded_in_bytes() {
        let mut rows = JsonRows::new(&batch(&[]).schema(), Shape::Arrays, TimeFormat::Millis, usize::MAX, 20);
        rows.push(&batch(&[1, 2, 3, 4, 5])).unwrap();
        assert_eq!((rows.row_count, rows.is_truncated), (2, true));
    }

    #[tokio::test]
    async fn streamed_formats_carry_all_rows() {
        let many: Vec<i64> = (0..20_000).collect();
        let rows = || answer(vec![Ok(batch(&many)), Ok(batch(&[])), Ok(batch(&[-1]))]);
        let response = rendering(Format::Ndjson)
            .respond(rows(), None, Stopwatch::start())
            .await
            .unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/x-ndjson");
        let text = String::from_utf8(bytes(response).await.unwrap()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 20_001);
        assert_eq!(
            lines[20_000],
            json!({"number": -1, "name": "n\"-1", "at": "1969-12-31T23:59:59.999Z"})
        );

        let response = rendering(Format::Csv)
            .respond(rows(), None, Stopwatch::start())
            .await
            .unwrap();
        let text = String::from_utf8(bytes(response).await.unwrap()).unwrap();
        assert_eq!(text.lines().next(), Some("number,name,at"));
        assert_eq!(text.lines().last(), Some("-1,\"n\"\"-1\",1969-12-31T23:59:59.999Z"));
        assert_eq!(text.lines().count(), 20_002, "one header");

        let response = rendering(Format::Arrow)
            .respond(rows(), None, Stopwatch::start())
            .await
            .unwrap();
        let reader = StreamReader::try_new(std::io::Cursor::new(bytes(response).await.unwrap()), None).unwrap();
        assert_eq!(reader.schema(), batch(&[]).schema());
        let count: usize = reader.map(|batch| batch.unwrap().num_rows()).sum();
        assert_eq!(count, 20_001);
    }

    #[tokio::test]
    async fn an_empty_answer_still_says_its_columns() {
        let response = rendering(Format::Csv)
            .respond(answer(vec![]), None, Stopwatch::start())
            .await
            .unwrap();
        assert_eq!(bytes(response).await.unwrap(), b"number,name,at\n");
        let response = rendering(Format::Arrow)
            .respond(answer(vec![]), None, Stopwatch::start())
            .await
            .unwrap();
        let reader = StreamReader::try_new(std::io::Cursor::new(bytes(response).await.unwrap()), None).unwrap();
        assert_eq!((reader.schema(), reader.count()), (batch(&[]).schema(), 0));
    }

    #[tokio::test]
    async fn a_query_that_fails_at_once_fails_with_a_status() {
        for format in [Format::Json, Format::Ndjson, Format::Csv, Format::Arrow] {
            let refusal = rendering(format)
                .respond(answer(vec![Err(failure())]), None, Stopwatch::start())
                .await
                .unwrap_err();
            assert_eq!(
                refusal.into_response().status(),
                StatusCode::UNPROCESSABLE_ENTITY,
                "{format:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_query_that_fails_later_ends_ndjson_with_a_line_and_breaks_off_the_others() {
        let failing = || answer(vec![Ok(batch(&[1])), Err(failure())]);
        let response = rendering(Format::Ndjson)
            .respond(failing(), None, Stopwatch::start())
            .await
            .unwrap();
        let text = String::from_utf8(bytes(response).await.unwrap()).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(
            (&last["error"]["status"], &last["error"]["query_id"]),
            (&json!(422), &json!("q-000001"))
        );
        for format in [Format::Csv, Format::Arrow] {
            let response = rendering(format)
                .respond(failing(), None, Stopwatch::start())
                .await
                .unwrap();
            assert!(bytes(response).await.is_err(), "{format:?}");
        }
        let refusal = rendering(Format::Json)
            .respond(failing(), None, Stopwatch::start())
            .await
            .unwrap_err();
        assert_eq!(refusal.status(), 422, "nothing was sent yet");
    }

    #[tokio::test]
    async fn a_reader_that_leaves_ends_the_query() {
        struct Dropped(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.take().expect("dropped once").send(()).expect("the test waits");
            }
        }
        let (sender, dropped) = tokio::sync::oneshot::channel();
        let guard = Dropped(Some(sender));
        let endless = stream::unfold(guard, |guard| async move { Some((Ok(batch(&[1])), guard)) });
        let schema = batch(&[]).schema();
        let rows = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), endless));
        let answer = Answer {
            query_id: "q-1".into(),
            schema,
            rows,
        };
        let response = rendering(Format::Ndjson)
            .respond(answer, None, Stopwatch::start())
            .await
            .unwrap();
        drop(response);
        dropped.await.expect("the rows are dropped");
    }

    #[test]
    fn csv_has_text_for_what_it_has_no_form_for() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            (
                "list",
                Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
                    Some(vec![Some(1), None]),
                    None,
                ])),
            ),
            (
                "bytes",
                Arc::new(arrow::array::BinaryArray::from(vec![b"\xff".as_slice(), b""])),
            ),
            ("number", Arc::new(Float64Array::from(vec![0.5, 2.0]))),
        ];
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
                .unwrap();
        let mut encoder = StreamEncoder::new(Format::Csv, TimeFormat::Rfc3339, &batch.schema()).unwrap();
        let text = String::from_utf8(encoder.rows(&batch).unwrap()).unwrap();
        assert_eq!(text, "list,bytes,number\n\"[1,null]\",/w==,0.5\n,,2.0\n");
    }
}
