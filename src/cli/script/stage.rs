//! Where a script plays: an engine of its own, topics in memory, a clock that moves when it is told to.
//!
//! ```text
//! statement ─┬─ of scripts: SET CLOCK, ADVANCE …, CRASH AND RESTORE, … ─▶ epochs by hand
//!            └─ SQL ─▶ engine ── INSERT ─▶ inbox ─┬─▶ topic ─▶ the INSERT's own epoch
//!                                                 ├─▶ rows behind a cut: epochs of their own
//!                                                 └─▶ rows that wait: the epoch of the next INSERT
//! ```
//! Every connector is there with its options and fields, and reads a topic in memory: nothing asks the network.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::RecordBatch,
    compute::concat_batches,
    datatypes::{DataType, Schema, SchemaRef},
    util::display::{ArrayFormatter, FormatOptions},
};
use futures::TryStreamExt;
use sqllogictest::{DBOutput, DefaultColumnType};

use crate::{
    cli::{assemble, check, pipeline},
    connector::Source,
    plan::Registry,
    runtime::{
        Engine, EngineOptions, Mode, Problem, ProblemKind, SourceStatus, SqlRequest, StepEnd, clock::ManualClock,
        query_environment,
    },
    sql::{self, Color},
    types::{EventTime, RecordsBuilder, SplitId, parse_duration},
};

use super::{
    file::Script,
    shape::Inserted,
    variation::{Event, Turn},
};

/// Where the clock of a script stands unless it says `SET CLOCK` first.
const START: &str = "2030-01-01 00:00:00";

/// A query of a script has no reason to take longer.
const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Stage {
    engine: Engine,
    topics: assemble::MemoryTopics,
    clock: Arc<ManualClock>,
    clock_is_set: AtomicBool,
    inbox: Arc<Mutex<Inbox>>,
    _state: tempfile::TempDir,
}

/// What becomes of the rows of the statement that runs.
struct Inbox {
    split: SplitId,
    turn: Turn,
    inserted: Option<Inserted>,
    /// Rows of the statement that are behind its first epoch.
    rest: Vec<RecordBatch>,
    /// Rows of earlier statements that run with the next ones, by source, in the order of their statements.
    waiting: BTreeMap<String, Vec<(SplitId, RecordBatch)>>,
}

impl Stage {
    /// An engine that has the pipelines of the script, and no rows yet.
    ///
    /// # Errors
    /// What is wrong with a pipeline, with carets.
    pub async fn open(script: &Script) -> Result<Self, String> {
        let topics = assemble::MemoryTopics::default();
        let inbox = Arc::new(Mutex::new(Inbox {
            split: SplitId::from(0),
            turn: Turn::default(),
            inserted: None,
            rest: Vec::new(),
            waiting: BTreeMap::new(),
        }));
        let state = state_folder().map_err(|error| format!("cannot make a folder for state: {error}"))?;
        let clock = Arc::new(ManualClock::default());
        let options = EngineOptions {
            state: Some(state.path().into()),
            mode: Mode::Manual,
            overrides: vec![],
        };
        let registry = registry(&topics, &inbox);
        let stage = Self {
            engine: Engine::new(registry, options, Arc::clone(&clock) as _),
            topics,
            clock,
            clock_is_set: AtomicBool::new(false),
            inbox,
            _state: state,
        };
        for text in &script.pipelines {
            let parsed = pipeline::parse(text);
            if let Err(diagnostics) = stage.engine.apply(text, parsed).await {
                return Err(sql::render(text, &diagnostics, Color::Never).trim_end().to_owned());
            }
        }
        stage.engine.open().map_err(|error| error.to_string())?;
        Ok(stage)
    }

    /// Runs a statement; its INSERT does what `take_turn` said last.
    pub async fn statement(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, StageError> {
        let words: Vec<&str> = sql.split_whitespace().collect();
        let keywords: Vec<String> = words.iter().map(|word| word.to_uppercase()).collect();
        let keywords: Vec<&str> = keywords.iter().map(String::as_str).collect();
        let is_set = matches!(keywords[..], ["SET", "CLOCK", ..] | ["ADVANCE", "CLOCK", "TO", ..]);
        if !is_set && !self.clock_is_set.swap(true, Ordering::Relaxed) {
            self.clock.set(time_of(START)?);
        }
        match keywords[..] {
            ["SET", "CLOCK", ..] => self.set_clock(behind(sql, 2)),
            ["ADVANCE", "CLOCK", "TO", ..] => self.set_clock(behind(sql, 3)),
            ["ADVANCE", "CLOCK", "INTERVAL", ..] => {
                let duration = behind(sql, 3).trim_matches('\'');
                self.clock.advance(parse_duration(duration).map_err(StageError::of)?);
                self.step_all()
            }
            ["CRASH", "AND", "RESTORE"] => self.engine.crash_and_restore().map_err(StageError::of).map(done),
            ["CHECKPOINT"] => self.checkpoint(false).map(done),
            ["FINISH", _] => self.step(
                words[1],
                StepEnd {
                    is_last: true,
                    ..StepEnd::default()
                },
            ),
            ["STEP", _] => self.step(words[1], StepEnd::default()),
            ["IDLE", _, _] => self.step(
                words[1],
                StepEnd {
                    idle_splits: vec![SplitId::new(words[2])],
                    ..StepEnd::default()
                },
            ),
            ["NEW", "SPLIT", _, _] => {
                let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
                self.topics.of(words[2]).append(&SplitId::new(words[3]), nothing);
                self.step(words[2], StepEnd::default())
            }
            ["ADVANCE", "WATERMARK", _, "TO", ..] => self.step(
                words[2],
                StepEnd {
                    complete_below: Some(time_of(behind(sql, 4))?),
                    ..StepEnd::default()
                },
            ),
            ["STATUS", _] => self.status(words[1]),
            ["RECORD", _, "SPLIT", _, ..] => self.record(words[1], SplitId::new(words[3]), behind(sql, 4)),
            ["INSERT", "INTO", _, "SPLIT", _, ..] => {
                let insert = format!("INSERT INTO {} {}", words[2], behind(sql, 5));
                self.insert(&insert, SplitId::new(words[4])).await
            }
            ["INSERT", ..] => self.insert(sql, SplitId::from(0)).await,
            _ => self.sql(sql).await,
        }
    }

    /// What the next statement does with its rows.
    pub fn take_turn(&self, turn: Turn) {
        let mut inbox = self.inbox();
        inbox.turn = turn;
        inbox.inserted = None;
    }

    /// What the statement of this turn appended.
    pub fn inserted(&self) -> Option<Inserted> {
        self.inbox().inserted.clone()
    }

    /// Runs the rows that wait.
    pub fn flush(&self) -> Result<(), StageError> {
        let waiting = std::mem::take(&mut self.inbox().waiting);
        for (source, rows) in waiting {
            for (split, rows) in rows {
                self.topics.of(&source).append(&split, rows);
            }
            self.step(&source, StepEnd::default())?;
        }
        Ok(())
    }

    pub fn happens(&self, event: Event) -> Result<(), StageError> {
        if event != Event::Crash {
            // A source that has not begun takes new views, and one that has does not: its first epoch is the script's.
            self.checkpoint(true)?;
        }
        if event != Event::Checkpoint {
            self.engine.crash_and_restore().map_err(StageError::of)?;
        }
        Ok(())
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Who panicked while holding it has failed its run already.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn insert(&self, sql: &str, split: SplitId) -> Result<DBOutput<DefaultColumnType>, StageError> {
        self.inbox().split = split;
        let inserted = self.sql(sql).await;
        let (turn, rest, inserted_rows) = {
            let mut inbox = self.inbox();
            if inserted.is_err() {
                inbox.inserted = None;
            }
            (
                std::mem::take(&mut inbox.turn),
                std::mem::take(&mut inbox.rest),
                inbox.inserted.clone(),
            )
        };
        let inserted = inserted?;
        if let (
            Some(first),
            Some(Inserted {
                source, split, rows, ..
            }),
        ) = (rest.first(), inserted_rows)
        {
            let rest = concat_batches(&first.schema(), &rest).map_err(StageError::of)?;
            let begin = rows - rest.num_rows();
            let part = |from: usize, to: usize| rest.slice(from - begin, to - from);
            let end = turn.wait.unwrap_or(rows).min(rows);
            let cuts = turn.cuts.iter().filter(|(row, _)| *row < end);
            let ends = turn.cuts.iter().skip(1).map(|(row, _)| *row).chain([end]);
            for ((from, event), to) in cuts.zip(ends) {
                if let Some(event) = event {
                    self.happens(*event)?;
                }
                self.topics.of(&source).append(&split, part(*from, to.min(end)));
                self.step(&source, StepEnd::default())?;
            }
            if end < rows {
                let waiting = part(end, rows);
                self.inbox().waiting.entry(source).or_default().push((split, waiting));
            }
        }
        Ok(inserted)
    }

    /// A record as a broker would hold it; `NULL` is a tombstone.
    fn record(&self, source: &str, split: SplitId, value: &str) -> Result<DBOutput<DefaultColumnType>, StageError> {
        self.known(source)?;
        let topic = self.topics.of(source);
        for (split, rows) in self.inbox().waiting.remove(source).unwrap_or_default() {
            topic.append(&split, rows);
        }
        let bounds = topic.source().discover().map_err(StageError::of)?;
        let end = bounds.iter().find(|bounds| bounds.split == split);
        self.inbox().inserted = Some(Inserted {
            source: source.to_owned(),
            split: split.clone(),
            rows: 1,
            split_is_known: end.is_some(),
        });
        let mut records = RecordsBuilder::default();
        let position = end.map_or(0, |bounds| bounds.end.0);
        records.push(position, None, None, (value != "NULL").then_some(value.as_bytes()));
        topic.append_records(&split, records.finish());
        self.step(source, StepEnd::default())
    }

    async fn sql(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, StageError> {
        let is_query = ["SELECT", "WITH", "SHOW", "DESCRIBE", "EXPLAIN", "VALUES"]
            .iter()
            .any(|word| {
                sql.get(..word.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(word))
            });
        let request = SqlRequest {
            sql: sql.to_owned(),
            timeout: TIMEOUT,
            rows_max: None,
        };
        let answer = self.engine.execute(request).await?;
        let schema = Arc::clone(&answer.schema);
        let batches: Vec<RecordBatch> = answer.rows.try_collect().await.map_err(StageError::of)?;
        if !is_query {
            let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            return Ok(DBOutput::StatementComplete(rows));
        }
        Ok(DBOutput::Rows {
            types: types(&schema),
            rows: rows(&batches)?,
        })
    }

    fn set_clock(&self, time: &str) -> Result<DBOutput<DefaultColumnType>, StageError> {
        self.clock.set(time_of(time)?);
        self.clock_is_set.store(true, Ordering::Relaxed);
        self.step_all()
    }

    fn known(&self, source: &str) -> Result<SourceStatus, StageError> {
        let sources = self.engine.sources();
        let names: Vec<String> = sources.iter().map(|status| status.name.clone()).collect();
        let found = sources.into_iter().find(|status| status.name == source);
        found.ok_or_else(|| {
            let near = sql::suggest::nearest(source, names.iter().map(String::as_str));
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            StageError(format!("no source named {source}{hint}"))
        })
    }

    fn step(&self, source: &str, end: StepEnd) -> Result<DBOutput<DefaultColumnType>, StageError> {
        self.known(source)?;
        self.engine.step(source, end).map_err(StageError::of).map(done)
    }

    fn step_all(&self) -> Result<DBOutput<DefaultColumnType>, StageError> {
        for source in self.engine.sources() {
            self.step(&source.name, StepEnd::default())?;
        }
        Ok(done(()))
    }

    /// Of every source, or only of those that have begun.
    fn checkpoint(&self, only_begun: bool) -> Result<(), StageError> {
        for source in self.engine.sources() {
            if only_begun && source.epoch.0 == 0 {
                continue;
            }
            // Idle splits stay so: nothing but the checkpoint happens in its epoch.
            let idle = source.splits.iter().filter(|split| split.is_idle);
            let end = StepEnd {
                checkpoint: true,
                idle_splits: idle.map(|split| split.split.clone()).collect(),
                ..StepEnd::default()
            };
            self.step(&source.name, end)?;
        }
        Ok(())
    }

    /// Good rows, bad records, late rows, watermark, idle splits.
    fn status(&self, source: &str) -> Result<DBOutput<DefaultColumnType>, StageError> {
        let status = self.known(source)?;
        let idle: Vec<&str> = status
            .splits
            .iter()
            .filter(|split| split.is_idle)
            .map(|split| split.split.as_str())
            .collect();
        let row = vec![
            status.rows.to_string(),
            status.bad_rows.to_string(),
            status.late_rows.to_string(),
            status.watermark.to_string(),
            if idle.is_empty() { "none".into() } else { idle.join(",") },
        ];
        use DefaultColumnType::{Integer, Text};
        Ok(DBOutput::Rows {
            types: vec![Integer, Integer, Integer, Text, Text],
            rows: vec![row],
        })
    }
}

impl Inbox {
    /// Rows that the engine gives out: into the topic up to the first cut.
    fn take(&mut self, topics: &assemble::MemoryTopics, source: &str, rows: RecordBatch) {
        let topic = topics.of(source);
        for (split, rows) in self.waiting.remove(source).unwrap_or_default() {
            topic.append(&split, rows);
        }
        let inserted = self.inserted.get_or_insert_with(|| {
            let bounds = topic.source().discover().unwrap_or_default();
            Inserted {
                source: source.to_owned(),
                split: self.split.clone(),
                rows: 0,
                split_is_known: bounds.iter().any(|bounds| bounds.split == self.split),
            }
        });
        let first_cut = self.turn.cuts.first().map(|(row, _)| *row);
        let end = first_cut.or(self.turn.wait).unwrap_or(usize::MAX);
        let now = end.saturating_sub(inserted.rows).min(rows.num_rows());
        inserted.rows += rows.num_rows();
        topic.append(&self.split, rows.slice(0, now));
        if now < rows.num_rows() {
            self.rest.push(rows.slice(now, rows.num_rows() - now));
        }
    }
}

/// What the binary can read, all of it from topics in memory that INSERT fills.
fn registry(topics: &assemble::MemoryTopics, inbox: &Arc<Mutex<Inbox>>) -> Registry {
    let mut registry = assemble::registry(topics.clone(), query_environment());
    for connector in &mut registry.connectors {
        let topics = topics.clone();
        connector.make = Arc::new(move |source, _| Ok(Box::new(topics.of(source).source())));
        connector.takes_rows = true;
    }
    let (topics, inbox) = (topics.clone(), Arc::clone(inbox));
    registry.insert = Arc::new(move |source, rows| {
        inbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(&topics, source, rows);
        Ok(())
    });
    let open = Arc::clone(&registry.open_external);
    registry.open_external = Arc::new(move |table| {
        // A pipeline is tested where its history may not be: then queries over that say so.
        let (on_trust, is_remote) = (check::on_trust(&table), table.location.starts_with("hdfs://"));
        let opened = (!is_remote).then(|| open(table));
        Box::pin(async move {
            match opened {
                Some(opened) => Ok(opened.await.unwrap_or(on_trust)),
                None => Ok(on_trust),
            }
        })
    });
    registry
}

/// In memory where the system has such a place: a crash here is one of the engine, which loses nothing that was written.
fn state_folder() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("zeta-test-");
        builder
    };
    builder().tempdir_in(memory).or_else(|_| builder().tempdir())
}

fn done(_: ()) -> DBOutput<DefaultColumnType> {
    DBOutput::StatementComplete(0)
}

/// The text behind its first words.
fn behind(text: &str, words: usize) -> &str {
    let mut rest = text.trim_start();
    for _ in 0..words {
        rest = rest
            .split_once(char::is_whitespace)
            .map_or("", |(_, rest)| rest.trim_start());
    }
    rest.trim_end()
}

fn time_of(text: &str) -> Result<EventTime, StageError> {
    let text = text.trim_matches('\'');
    let nanos = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text)
        .map_err(|_| StageError(format!("'{text}' is no time; write '2024-01-01 00:01:00'")))?;
    Ok(EventTime(nanos))
}

fn types(schema: &SchemaRef) -> Vec<DefaultColumnType> {
    let of = |data_type: &DataType| match data_type {
        data_type if data_type.is_integer() => DefaultColumnType::Integer,
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => DefaultColumnType::FloatingPoint,
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Timestamp(..) | DataType::Date32 => {
            DefaultColumnType::Text
        }
        _ => DefaultColumnType::Any,
    };
    schema.fields().iter().map(|field| of(field.data_type())).collect()
}

fn rows(batches: &[RecordBatch]) -> Result<Vec<Vec<String>>, StageError> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(StageError::of)?;
        for row in 0..batch.num_rows() {
            let texts = columns.iter().map(|column| match column.value(row).to_string() {
                empty if empty.is_empty() => "(empty)".into(),
                text => text,
            });
            rows.push(texts.collect());
        }
    }
    Ok(rows)
}

/// An error as scripts match it, in one line: `[code] message at 'text': help; help`.
#[derive(Debug)]
pub struct StageError(String);

impl StageError {
    fn of(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl From<Problem> for StageError {
    fn from(problem: Problem) -> Self {
        Self(match problem.kind {
            ProblemKind::Text { text, diagnostics } => {
                let lines = diagnostics.iter().map(|diagnostic| {
                    let at = diagnostic
                        .span
                        .and_then(|span| text.text.get(span.start..span.end))
                        .unwrap_or_default();
                    let at = at.split_whitespace().collect::<Vec<_>>().join(" ");
                    let help = diagnostic.help.join("; ");
                    format!("[{}] {} at '{at}': {help}", diagnostic.code.code(), diagnostic.message)
                });
                lines.collect::<Vec<_>>().join(" | ")
            }
            ProblemKind::NotFound { detail, help } => format!("not found: {detail}: {}", help.join("; ")),
            ProblemKind::Parameter(detail) => format!("parameter: {detail}"),
            ProblemKind::Execution(detail) => format!("execution: {detail}"),
            ProblemKind::Unavailable(detail) => format!("unavailable: {detail}"),
            other => format!("{other:?}"),
        })
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StageError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_behind_words_is_as_it_stands() {
        for (text, words, expected) in [
            ("RECORD t SPLIT 0 {\"a\":  1} ", 4, "{\"a\":  1}"),
            ("SET  CLOCK\n'2024-01-01 00:00:00'", 2, "'2024-01-01 00:00:00'"),
            ("SET CLOCK", 2, ""),
            ("", 1, ""),
        ] {
            assert_eq!(behind(text, words), expected);
        }
    }
}
