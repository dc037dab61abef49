//! Scripts of statements on logical time, each against an engine of its own.
//!
//! ```text
//! tests/slt/**.slt ─▶ statement ─▶ one epoch ─▶ what queries see
//!                        └─ once as written, once with a crash behind every statement, once with a checkpoint and a crash
//! ```
//! Nothing waits and nothing is retried. `SLT=late/` runs the scripts whose path contains it; `SLT_UPDATE=1` writes what the
//! engine answers into the scripts, to be read before it is believed.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
    util::display::{ArrayFormatter, FormatOptions},
};
use async_trait::async_trait;
use futures::TryStreamExt;
use sqllogictest::{
    AsyncDB, DBOutput, DefaultColumnType, Record, Runner, default_normalizer, default_validator,
    strict_column_validator,
};
use zeta::{
    cli::{MemoryTopics, registry},
    connector::Source,
    runtime::{
        Engine, EngineOptions, Mode, Problem, ProblemKind, SourceStatus, SqlRequest, StepEnd, clock::ManualClock,
        query_environment,
    },
    types::{EventTime, RecordsBuilder, SplitId, parse_duration},
};

/// Where the clock of a script stands unless it says `SET CLOCK` first.
const START: &str = "2030-01-01 00:00:00";

/// What happens behind every statement of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Nothing,
    Crash,
    CheckpointAndCrash,
}

#[test]
fn scripts_give_what_they_say_also_when_the_engine_crashes_behind_every_statement() {
    let wanted = std::env::var("SLT").unwrap_or_default();
    let scripts: Vec<PathBuf> = scripts()
        .into_iter()
        .filter(|path| path.to_string_lossy().contains(&wanted))
        .collect();
    assert!(!scripts.is_empty(), "no script matches {wanted}");
    if std::env::var_os("SLT_UPDATE").is_some() {
        scripts.iter().for_each(|path| update(path));
        return;
    }
    let jobs: Vec<(&Path, Behind)> = scripts
        .iter()
        .flat_map(|path| {
            [Behind::Nothing, Behind::Crash, Behind::CheckpointAndCrash].map(|behind| (path.as_path(), behind))
        })
        .collect();
    let next = AtomicUsize::new(0);
    let records = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism()
            .map_or(2, |count| count.get())
            .min(8)
        {
            scope.spawn(|| {
                while let Some((path, behind)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match std::panic::catch_unwind(|| run(path, *behind)) {
                        Ok(Ok(count)) => {
                            records.fetch_add(count, Ordering::Relaxed);
                        }
                        Ok(Err(reason)) => failures
                            .lock()
                            .unwrap()
                            .push(format!("{} ({behind:?})\n{reason}", path.display())),
                        Err(_) => failures
                            .lock()
                            .unwrap()
                            .push(format!("{} ({behind:?}): a panic, see above", path.display())),
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    println!("{} scripts, {} records run", scripts.len(), records.into_inner());
    assert!(
        failures.is_empty(),
        "{} of {} runs failed:\n\n{}",
        failures.len(),
        jobs.len(),
        failures.join("\n\n")
    );
}

#[test]
fn a_script_that_expects_something_else_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.slt");
    for (text, why) in [
        ("query I\nSELECT 1\n----\n2\n", "another value"),
        ("query T\nSELECT 1\n----\n1\n", "another type"),
        ("query I\nSELECT 1 WHERE false\n----\n1\n", "a missing row"),
        ("statement ok\nSELECT nothing\n", "an error"),
        ("statement error unknown thing\nSELECT nothing\n", "another error"),
        ("statement error\nSELECT 1\n", "no error"),
    ] {
        fs::write(&path, text).unwrap();
        assert!(run(&path, Behind::Nothing).is_err(), "{why}");
    }
}

fn scripts() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the folder of scripts") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "slt") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("tests/slt"), &mut found);
    found.sort();
    found
}

/// Runs a script and says how many statements and queries it had.
fn run(path: &Path, behind: Behind) -> Result<usize, String> {
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let name = path.to_string_lossy().into_owned();
    let records =
        sqllogictest::parse_with_name::<DefaultColumnType>(&text, name.as_str()).map_err(|e| e.to_string())?;
    let counts = |record: &Record<_>| matches!(record, Record::Statement { .. } | Record::Query { .. });
    let count = records.iter().filter(|record| counts(record)).count();
    let script = Arc::new(Script::new(behind));
    let mut runner = Runner::new(move || std::future::ready(Ok(Connection(Arc::clone(&script)))));
    runner.with_column_validator(strict_column_validator);
    runtime()
        .block_on(runner.run_multi_async(records))
        .map_err(|e| e.display(false).to_string())?;
    Ok(count)
}

fn update(path: &Path) {
    let script = Arc::new(Script::new(Behind::Nothing));
    let mut runner = Runner::new(move || std::future::ready(Ok(Connection(Arc::clone(&script)))));
    let update = runner.update_test_file(
        path,
        " ",
        default_validator,
        default_normalizer,
        strict_column_validator,
    );
    runtime().block_on(update).expect("the script can be written");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// An engine, its topics and its clock.
struct Script {
    engine: Engine,
    topics: MemoryTopics,
    clock: Arc<ManualClock>,
    clock_is_set: AtomicBool,
    /// The split that an INSERT appends to.
    split: Arc<Mutex<SplitId>>,
    behind: Behind,
    _state: tempfile::TempDir,
}

struct Connection(Arc<Script>);

#[async_trait]
impl AsyncDB for Connection {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let output = self.0.statement(sql.trim()).await;
        self.0.after()?;
        output
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "zeta"
    }
}

impl Script {
    fn new(behind: Behind) -> Self {
        let topics = MemoryTopics::default();
        let state = tempfile::tempdir().expect("a folder for state");
        let clock = Arc::new(ManualClock::default());
        let split = Arc::new(Mutex::new(SplitId::from(0)));
        let mut registry = registry(topics.clone(), query_environment());
        let (inserted, into) = (topics.clone(), Arc::clone(&split));
        registry.insert = Arc::new(move |source, rows| {
            inserted.of(source).append(&into.lock().unwrap(), rows);
            Ok(())
        });
        let options = EngineOptions {
            state: Some(state.path().into()),
            mode: Mode::Manual,
            overrides: vec![],
        };
        let engine = Engine::new(registry, options, Arc::clone(&clock) as _);
        Self {
            engine,
            topics,
            clock,
            clock_is_set: AtomicBool::new(false),
            split,
            behind,
            _state: state,
        }
    }

    async fn statement(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let words: Vec<&str> = sql.split_whitespace().collect();
        let text = |word: &str| word.trim_matches('\'').to_owned();
        if let ["SET", "CLOCK", ..] = words[..] {
            self.clock.set(time_of(&sql["SET CLOCK".len()..])?);
            self.clock_is_set.store(true, Ordering::Relaxed);
            return self.step_all();
        }
        if !self.clock_is_set.swap(true, Ordering::Relaxed) {
            self.clock.set(time_of(START)?);
        }
        match words[..] {
            ["CRASH", "AND", "RESTORE"] => self.engine.crash_and_restore().map_err(Failure::of).map(done),
            ["CHECKPOINT"] => self.checkpoint().map(done),
            ["FINISH", source] => self.step(
                source,
                StepEnd {
                    is_last: true,
                    ..StepEnd::default()
                },
            ),
            ["STEP", source] => self.step(source, StepEnd::default()),
            ["IDLE", source, split] => self.step(
                source,
                StepEnd {
                    idle_splits: vec![SplitId::new(split)],
                    ..StepEnd::default()
                },
            ),
            ["NEW", "SPLIT", source, split] => {
                let schema = Arc::new(arrow::datatypes::Schema::empty());
                self.topics
                    .of(source)
                    .append(&SplitId::new(split), RecordBatch::new_empty(schema));
                self.step(source, StepEnd::default())
            }
            ["ADVANCE", "CLOCK", "INTERVAL", ..] => {
                let duration = text(sql["ADVANCE CLOCK INTERVAL".len()..].trim());
                self.clock.advance(parse_duration(&duration).map_err(Failure::of)?);
                self.step_all()
            }
            ["ADVANCE", "WATERMARK", source, "TO", ..] => {
                let at = sql.find("TO").expect("matched") + "TO".len();
                let time = time_of(&sql[at..])?;
                self.step(
                    source,
                    StepEnd {
                        complete_below: Some(time),
                        ..StepEnd::default()
                    },
                )
            }
            ["STATUS", source] => self.status(source),
            ["RECORD", source, "SPLIT", split, ..] => {
                let at = sql.find("SPLIT").expect("matched") + "SPLIT".len();
                let rest = sql[at..].trim_start();
                let value = rest[split.len()..].trim();
                self.record(source, &SplitId::new(split), value);
                self.step(source, StepEnd::default())
            }
            ["INSERT", "INTO", source, "SPLIT", split, ..] => {
                let at = sql.find("SPLIT").expect("matched") + "SPLIT".len();
                let rest = &sql[at..].trim_start()[split.len()..];
                *self.split.lock().unwrap() = SplitId::new(split);
                let inserted = self.sql(&format!("INSERT INTO {source} {rest}")).await;
                *self.split.lock().unwrap() = SplitId::from(0);
                inserted
            }
            _ => self.sql(sql).await,
        }
    }

    async fn sql(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let is_query = ["SELECT", "WITH", "SHOW", "DESCRIBE", "EXPLAIN", "VALUES"]
            .iter()
            .any(|word| {
                sql.get(..word.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(word))
            });
        let request = SqlRequest {
            sql: sql.to_owned(),
            timeout: Duration::from_secs(60),
            rows_max: None,
        };
        let answer = self.engine.execute(request).await?;
        let schema = Arc::clone(&answer.schema);
        let batches: Vec<RecordBatch> = answer.rows.try_collect().await.map_err(Failure::of)?;
        if !is_query {
            let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            return Ok(DBOutput::StatementComplete(rows));
        }
        Ok(DBOutput::Rows {
            types: types(&schema),
            rows: rows(&batches)?,
        })
    }

    fn step(&self, source: &str, end: StepEnd) -> Result<DBOutput<DefaultColumnType>, Failure> {
        if !self.engine.sources().iter().any(|status| status.name == source) {
            return Err(Failure(format!("no source named {source}")));
        }
        self.engine.step(source, end).map_err(Failure::of).map(done)
    }

    fn step_all(&self) -> Result<DBOutput<DefaultColumnType>, Failure> {
        for source in self.engine.sources() {
            self.step(&source.name, StepEnd::default())?;
        }
        Ok(done(()))
    }

    fn checkpoint(&self) -> Result<(), Failure> {
        self.engine
            .sources()
            .iter()
            .try_for_each(|source| self.checkpoint_of(source))
    }

    /// Idle splits stay so: nothing but the checkpoint happens in its epoch.
    fn checkpoint_of(&self, source: &SourceStatus) -> Result<(), Failure> {
        let idle_splits = source
            .splits
            .iter()
            .filter(|split| split.is_idle)
            .map(|split| split.split.clone())
            .collect();
        self.step(
            &source.name,
            StepEnd {
                checkpoint: true,
                idle_splits,
                ..StepEnd::default()
            },
        )
        .map(|_| ())
    }

    /// What the way of running wants behind each statement.
    fn after(&self) -> Result<(), Failure> {
        match self.behind {
            Behind::Nothing => return Ok(()),
            Behind::Crash => {}
            // A source that has not begun takes new views, and one that has does not: its first epoch is the script's.
            Behind::CheckpointAndCrash => {
                for source in self.engine.sources().iter().filter(|source| 0 < source.epoch.0) {
                    self.checkpoint_of(source)?;
                }
            }
        }
        self.engine.crash_and_restore().map_err(Failure::of)
    }

    /// A record as a broker would hold it; `NULL` is a tombstone.
    fn record(&self, source: &str, split: &SplitId, value: &str) {
        let topic = self.topics.of(source);
        let bounds = topic.source().discover().expect("a topic in memory answers");
        let end = bounds
            .iter()
            .find(|bounds| bounds.split == *split)
            .map_or(0, |bounds| bounds.end.0);
        let mut records = RecordsBuilder::default();
        records.push(end, None, None, (value != "NULL").then_some(value.as_bytes()));
        topic.append_records(split, records.finish());
    }

    /// Good rows, bad records, late rows, watermark, idle splits.
    fn status(&self, source: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let sources = self.engine.sources();
        let status = sources.iter().find(|status| status.name == source);
        let status = status.ok_or_else(|| Failure(format!("no source named {source}")))?;
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

fn done(_: ()) -> DBOutput<DefaultColumnType> {
    DBOutput::StatementComplete(0)
}

fn time_of(text: &str) -> Result<EventTime, Failure> {
    let text = text.trim().trim_matches('\'');
    let nanos = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text).map_err(Failure::of)?;
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

fn rows(batches: &[RecordBatch]) -> Result<Vec<Vec<String>>, Failure> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(Failure::of)?;
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
struct Failure(String);

impl Failure {
    fn of(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl From<Problem> for Failure {
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Scripts by folder, so that a folder that lost its scripts is seen.
#[test]
fn every_folder_of_scripts_has_some() {
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    for path in scripts() {
        let folder = path
            .parent()
            .and_then(Path::file_name)
            .expect("a script is in a folder");
        *folders.entry(folder.to_string_lossy().into_owned()).or_default() += 1;
    }
    for folder in [
        "emit",
        "errors",
        "late",
        "plan",
        "recovery",
        "time",
        "views",
        "watermark",
        "window",
    ] {
        assert!(folders.contains_key(folder), "tests/slt/{folder} has no script");
    }
}
