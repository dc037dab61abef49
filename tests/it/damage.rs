//! Damage to the state folder, and panics: whatever byte is changed or cut off, the rows are right or the start is refused.
//!
//! ```text
//! a state with journal, checkpoints, a table's log ─▶ one flip, cut, swap or removal ─▶ start ─▶ refused, or the same rows
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema},
};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use zeta::{
    cli::{MemoryTopics, registry},
    connector::{Source, SourceError, SplitBounds},
    runtime::{
        Engine, EngineOptions, Mode, SourceState, StepEnd,
        clock::{ManualClock, SystemClock},
        query_environment,
    },
    sql::{self, SourceText},
    types::{Anchors, Chunk, EventTime, Position, SplitId, limits},
};

use super::engine::{block_on, copy_folder, defined, sql};

const PIPELINE: &str = "
CREATE SOURCE trades (k BIGINT, v BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '5 seconds') WITH (connector = 'memory');
CREATE TABLE limits (k BIGINT PRIMARY KEY, most BIGINT);
CREATE MATERIALIZED VIEW per_minute AS SELECT k, window_start, count(*) AS n, sum(v) AS v, max(v) AS high
  FROM TUMBLE(trades, at, INTERVAL '1 minute') GROUP BY k, window_start;
CREATE MATERIALIZED VIEW highest AS SELECT k, max(high) AS high FROM per_minute GROUP BY k;
CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(most) AS most FROM limits;";

const QUERIES: [&str; 4] = [
    "SELECT * FROM per_minute ORDER BY k, window_start",
    "SELECT * FROM highest ORDER BY k",
    "SELECT * FROM limits ORDER BY k",
    "SELECT * FROM total",
];

/// Starts on a state, as a script does.
fn open(state: &Path, topics: &MemoryTopics) -> Result<Engine, String> {
    let clock = Arc::new(ManualClock::at(EventTime(1_700_000_000_000_000_000)));
    let engine = defined(PIPELINE, topics, state, &clock);
    engine.open().map_err(|error| error.to_string())?;
    Ok(engine)
}

fn rows(engine: &Engine) -> Vec<String> {
    // What is not committed is read again.
    for source in ["trades", "limits"] {
        engine.step(source, StepEnd::default()).expect("an epoch");
    }
    let text = |query: &&str| arrow::util::pretty::pretty_format_batches(&block_on(sql(engine, query)));
    (QUERIES.iter().map(text))
        .map(|text| text.expect("rows").to_string())
        .collect()
}

/// A state of two checkpoints and a journal behind them, and what its views hold.
fn state(folder: &Path, topics: &MemoryTopics) -> Vec<String> {
    let engine = open(folder, topics).expect("a new state");
    for round in 0..6i64 {
        let values: Vec<String> = (0..40i64)
            .map(|row| {
                let (second, minute) = (row % 60, round * 2 + row / 20);
                format!(
                    "({}, {}, '2023-11-14 20:{minute:02}:{second:02}')",
                    row % 5,
                    round * 1_000 + row * 7
                )
            })
            .collect();
        block_on(sql(
            &engine,
            &format!("INSERT INTO trades VALUES {}", values.join(", ")),
        ));
        engine
            .step(
                "trades",
                StepEnd {
                    checkpoint: round == 1 || round == 3,
                    ..StepEnd::default()
                },
            )
            .expect("an epoch");
        block_on(sql(
            &engine,
            &format!("INSERT INTO limits VALUES ({round}, {}), (100, {round})", round * 10),
        ));
    }
    rows(&engine)
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => files(&path, found),
            false if path.file_name().is_some_and(|name| name != "LOCK") => found.push(path),
            false => {}
        }
    }
    found.sort();
}

/// Does one thing to one file, and says what.
fn damage(files: &[PathBuf], random: &mut ChaCha8Rng) -> String {
    let file = files.choose(random).expect("files");
    let mut bytes = fs::read(file).expect("a file");
    let at = random.random_range(0..bytes.len().max(1));
    let what = match random.random_range(0..20) {
        0..14 if !bytes.is_empty() => {
            let bit = random.random_range(0..8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        14..17 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        17 => {
            bytes.clear();
            "emptied".to_owned()
        }
        18 => {
            fs::remove_file(file).expect("a file goes");
            return format!("{}: removed", file.display());
        }
        _ => {
            let other = files.choose(random).expect("files");
            bytes = fs::read(other).expect("a file");
            format!("replaced by {}", other.display())
        }
    };
    fs::write(file, bytes).expect("a file is written");
    format!("{}: {what}", file.display())
}

#[test]
fn no_damage_to_the_state_passes_for_right() {
    let runs: u32 = std::env::var("ZETA_FLIPS").map_or(300, |runs| runs.parse().expect("ZETA_FLIPS is a number"));
    let seed: u64 = std::env::var("ZETA_SEED").map_or(2024, |seed| seed.parse().expect("ZETA_SEED is a number"));
    println!("ZETA_SEED={seed} ZETA_FLIPS={runs}");
    let (topics, whole) = (MemoryTopics::default(), tempfile::tempdir().unwrap());
    let expected = state(whole.path(), &topics);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut refused, mut right) = (0, 0);
    for _ in 0..runs {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(whole.path(), folder.path());
        let mut all = Vec::new();
        files(folder.path(), &mut all);
        let what = damage(&all, &mut random);
        match open(folder.path(), &topics) {
            Err(_) => refused += 1,
            Ok(engine) => {
                assert_eq!(rows(&engine), expected, "{what}");
                right += 1;
            }
        }
    }
    println!("{runs} times damaged: {refused} refused, {right} right all the same, 0 wrong");
}

/// Reads as the real one, until its life ends by a panic.
struct Fragile {
    source: Box<dyn Source>,
    life: u32,
}

impl Source for Fragile {
    fn discover(&mut self) -> Result<Vec<SplitBounds>, SourceError> {
        assert!(self.life != 1, "the thread of the epochs dies");
        self.source.discover()
    }

    fn recognise(&mut self, read: &Anchors) -> Result<Option<String>, SourceError> {
        self.source.recognise(read)
    }

    fn seek(&mut self, positions: &BTreeMap<SplitId, Position>) -> Result<(), SourceError> {
        self.source.seek(positions)
    }

    fn poll(&mut self, rows_max: usize, bytes_max: usize, wait: Duration) -> Result<Vec<Chunk>, SourceError> {
        let chunks = self.source.poll(rows_max, bytes_max, wait)?;
        assert!(self.life != 2 || chunks.is_empty(), "the reader dies");
        Ok(chunks)
    }

    fn ends(&self) -> BTreeMap<SplitId, Position> {
        self.source.ends()
    }

    fn is_finished(&self) -> bool {
        self.source.is_finished()
    }
}

/// A running engine over one source, whose lives count from 0: the second and the third end by a panic, or all where `always`.
async fn fragile(state: &Path, topics: &MemoryTopics, lives: &Arc<AtomicU32>, always: bool) -> Engine {
    let mut registry = registry(topics.clone(), query_environment());
    for connector in &mut registry.connectors {
        let (make, lives) = (Arc::clone(&connector.make), Arc::clone(lives));
        connector.make = Arc::new(move |name, options| {
            let life = lives.fetch_add(1, Ordering::Relaxed);
            let source = make(name, options)?;
            let life = if always { 1 } else { life };
            Ok(Box::new(Fragile { source, life }))
        });
    }
    let options = EngineOptions {
        state: Some(state.into()),
        mode: Mode::Live,
        overrides: vec![],
    };
    let engine = Engine::new(registry, options, Arc::new(SystemClock::default()));
    let text = "CREATE SOURCE s (n BIGINT) WITH (connector = 'memory', trigger = '0');
        CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(n) AS s FROM s;
        CREATE TABLE other (n BIGINT);
        CREATE MATERIALIZED VIEW others AS SELECT count(*) AS n FROM other;";
    let text = SourceText::new("live.sql", text);
    engine
        .apply(&text, sql::parse(&text))
        .await
        .expect("the pipeline is right");
    engine.start().expect("it starts");
    engine
}

async fn until(engine: &Engine, what: &str, is_so: impl Fn(&zeta::runtime::SourceStatus) -> bool) {
    let there = async {
        while !engine
            .sources()
            .iter()
            .any(|source| source.name == "s" && is_so(source))
        {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), there).await;
    assert!(waited.is_ok(), "{what}: {:?}", engine.sources());
}

#[test]
fn a_source_that_panics_begins_again_from_its_last_commit() {
    let (state, topics, lives) = (tempfile::tempdir().unwrap(), MemoryTopics::default(), Arc::default());
    block_on(async {
        let engine = fragile(state.path(), &topics, &lives, false).await;
        for n in 1..=5 {
            sql(&engine, &format!("INSERT INTO s VALUES ({n})")).await;
        }
        engine.stop();
        // The second life dies before it reads, the third when it does; the fourth lives.
        let engine = fragile(state.path(), &topics, &lives, false).await;
        let topic = topics.of("s");
        until(&engine, "its third life", |_| 2 < lives.load(Ordering::Relaxed)).await;
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let row = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![6]))]).expect("a row");
        topic.append(&SplitId::from(0), row);
        until(&engine, "all six rows", |source| source.rows == 6).await;
        assert_eq!(lives.load(Ordering::Relaxed), 4);
        let rows = sql(&engine, "SELECT n, s FROM total").await;
        let text = arrow::util::pretty::pretty_format_batches(&rows)
            .expect("rows")
            .to_string();
        assert!(text.contains("| 6 | 21 |"), "{text}");
        engine.stop();
    });
}

#[test]
fn a_source_that_panics_again_and_again_stops_and_others_go_on() {
    let (state, topics, lives) = (tempfile::tempdir().unwrap(), MemoryTopics::default(), Arc::default());
    block_on(async {
        let engine = fragile(state.path(), &topics, &lives, true).await;
        until(&engine, "it gives up", |source| source.state == SourceState::Failed).await;
        assert_eq!(lives.load(Ordering::Relaxed), limits::RESTARTS_MAX + 1);
        let reason = engine
            .sources()
            .into_iter()
            .find(|source| source.name == "s")
            .and_then(|source| source.reason);
        assert!(reason.is_some_and(|reason| reason.contains("the thread of the epochs dies")));
        sql(&engine, "INSERT INTO other VALUES (1)").await;
        let rows = sql(&engine, "SELECT n FROM others").await;
        let text = arrow::util::pretty::pretty_format_batches(&rows)
            .expect("rows")
            .to_string();
        assert!(text.contains("| 1 |"), "{text}");
        engine.stop();
    });
}

#[test]
fn the_state_can_be_looked_at_and_verified() {
    let (topics, folder) = (MemoryTopics::default(), tempfile::tempdir().unwrap());
    state(folder.path(), &topics);
    let path = folder.path().to_str().expect("text");
    let told = crate::zeta::zeta(&["checkpoints", "ls", "--state", path]).expect(0);
    assert!(
        told.out.contains("trades") && told.out.contains("limits"),
        "{}",
        told.out
    );
    let told = crate::zeta::zeta(&["checkpoints", "show", "trades", "--state", path]).expect(0);
    assert!(
        told.out.contains("per_minute/operator/") && told.out.contains("positions"),
        "{}",
        told.out
    );
    let told = crate::zeta::zeta(&["checkpoints", "verify", "--state", path]).expect(0);
    assert!(told.err.contains("every byte is right"), "{}", told.err);
    let told = crate::zeta::zeta(&["checkpoints", "verify", "trade", "--state", path]).expect(1);
    assert!(told.err.contains("there are limits, trades"), "{}", told.err);
    let mut all = Vec::new();
    files(&folder.path().join("trades"), &mut all);
    let has_rows = |path: &&PathBuf| fs::metadata(path).is_ok_and(|file| 0 < file.len());
    let part = all
        .iter()
        .filter(has_rows)
        .find(|path| path.extension().is_some_and(|end| end == "arrow"))
        .expect("a part");
    let mut bytes = fs::read(part).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(part, bytes).expect("a file");
    let told = crate::zeta::zeta(&["checkpoints", "verify", "--state", path]).expect(1);
    assert!(told.err.contains("is damaged"), "{}", told.err);
}
