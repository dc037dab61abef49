//! Watermarks on a live source whose clock a test moves: silence, lag, outages, and what a restart makes of them.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, TimestampNanosecondArray},
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use zeta::{
    cli::{MemoryTopics, registry},
    connector::{Source, SourceError, SplitBounds},
    runtime::{Engine, EngineOptions, Mode, SourceState, SourceStatus, clock::ManualClock, query_environment},
    types::{Anchors, Chunk, EventTime, Position, SplitId, Watermark},
};

use super::engine::{block_on, sql};

const SECOND: i64 = 1_000_000_000;
/// 2024-01-01 12:00:00
const NOON: i64 = 1_704_110_400 * SECOND;

const VIEWS: &str = "CREATE MATERIALIZED VIEW closed AS SELECT window_end, sum(n) AS total \
     FROM TUMBLE(numbers, at, INTERVAL '1 minute') GROUP BY window_end EMIT ON WINDOW CLOSE;\n\
     CREATE MATERIALIZED VIEW recent AS SELECT n FROM numbers WHERE at > now() - INTERVAL '1 hour';";

/// A source in memory whose split 1 is not given, however many rows it has, while `is_withheld`.
struct Lagging {
    inner: Box<dyn Source>,
    is_withheld: Arc<AtomicBool>,
    held: Vec<Chunk>,
}

impl Source for Lagging {
    fn discover(&mut self) -> Result<Vec<SplitBounds>, SourceError> {
        self.inner.discover()
    }

    fn recognise(&mut self, read: &Anchors) -> Result<Option<String>, SourceError> {
        self.inner.recognise(read)
    }

    fn seek(&mut self, positions: &BTreeMap<SplitId, Position>) -> Result<(), SourceError> {
        self.held.clear();
        self.inner.seek(positions)
    }

    fn new_splits(&mut self) -> BTreeMap<SplitId, Position> {
        self.inner.new_splits()
    }

    fn poll(&mut self, rows_max: usize, bytes_max: usize, wait: Duration) -> Result<Vec<Chunk>, SourceError> {
        // The poll may wait: what holds is what was asked for by its end.
        let polled = self.inner.poll(rows_max, bytes_max, wait)?;
        let is_withheld = self.is_withheld.load(Ordering::SeqCst);
        let mut given = match is_withheld {
            true => Vec::new(),
            false => std::mem::take(&mut self.held),
        };
        for chunk in polled {
            match is_withheld && chunk.split == SplitId::from(1) {
                true => self.held.push(chunk),
                false => given.push(chunk),
            }
        }
        Ok(given)
    }

    fn ends(&self) -> BTreeMap<SplitId, Position> {
        self.inner.ends()
    }

    fn is_finished(&self) -> bool {
        self.held.is_empty() && self.inner.is_finished()
    }
}

/// An engine on a clock that stands still, and what a test does with it.
struct Live {
    engine: Engine,
    topics: MemoryTopics,
    clock: Arc<ManualClock>,
    is_withheld: Arc<AtomicBool>,
}

impl Live {
    async fn start(state: &Path, topics: &MemoryTopics, clock: &Arc<ManualClock>, options: &str) -> Self {
        let is_withheld = Arc::new(AtomicBool::new(false));
        let mut registry = registry(topics.clone(), query_environment());
        let memory = (registry.connectors.iter_mut()).find(|connector| connector.name == "memory");
        let memory = memory.expect("it is registered");
        let (make, withheld) = (Arc::clone(&memory.make), Arc::clone(&is_withheld));
        memory.make = Arc::new(move |source, options| {
            Ok(Box::new(Lagging {
                inner: make(source, options)?,
                is_withheld: Arc::clone(&withheld),
                held: Vec::new(),
            }))
        });
        let mode = EngineOptions {
            state: Some(state.into()),
            mode: Mode::Live,
            overrides: vec![],
        };
        let engine = Engine::new(registry, mode, Arc::clone(clock) as _);
        let text = format!(
            "CREATE SOURCE numbers (n BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '5 seconds') \
             WITH (connector = 'memory', trigger = '0', idle_timeout = '30 seconds'{options});\n{VIEWS}"
        );
        let text = zeta::sql::SourceText::new("live.sql", text);
        engine.apply(&text, zeta::sql::parse(&text)).await.unwrap();
        engine.start().unwrap();
        Self {
            engine,
            topics: topics.clone(),
            clock: Arc::clone(clock),
            is_withheld,
        }
    }

    /// A row, so many seconds from noon.
    fn append(&self, split: i32, n: i64, seconds: i64) {
        append(&self.topics, split, &[(n, seconds)]);
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn status(&self) -> SourceStatus {
        self.engine.sources().remove(0)
    }

    async fn until(&self, what: &str, is_there: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        let there = async {
            loop {
                let status = self.status();
                assert_ne!(status.state, SourceState::Failed, "{:?}", status.reason);
                if is_there(&status) {
                    return status;
                }
                tokio::task::yield_now().await;
            }
        };
        let there = tokio::time::timeout(Duration::from_secs(60), there).await;
        there.unwrap_or_else(|_| panic!("{what}: {:?}", self.status()))
    }

    /// Waits until a query gives these rows: what is counted is told a moment before everybody sees it.
    async fn until_rows(&self, query: &str, expected: &str) {
        let there = async {
            while self.rows(query).await != expected {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), there).await.is_err() {
            assert_eq!(self.rows(query).await, expected, "{query}: {:?}", self.status());
        }
    }

    async fn rows(&self, query: &str) -> String {
        let rows = sql(&self.engine, query).await;
        let text = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
        let lines = text.lines().filter(|line| line.starts_with('|')).skip(1);
        let words = lines.map(|line| line.replace('|', " ").split_whitespace().collect::<Vec<_>>().join(" "));
        words.collect::<Vec<_>>().join("; ")
    }

    async fn closed(&self) -> String {
        self.rows("SELECT window_end, total FROM closed ORDER BY window_end")
            .await
    }
}

fn append(topics: &MemoryTopics, split: i32, rows: &[(i64, i64)]) {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let schema = Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("at", time, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(n, _)| *n))),
        Arc::new(TimestampNanosecondArray::from_iter_values(
            rows.iter().map(|(_, seconds)| NOON + seconds * SECOND),
        )),
    ];
    let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    topics.of("numbers").append(&SplitId::from(split), batch);
}

/// Of all splits, idle or not: what is counted and they are told together.
fn lowest(status: &SourceStatus) -> Watermark {
    let watermarks = status.splits.iter().map(|split| split.watermark);
    watermarks.min().expect("there are splits")
}

fn at(seconds: i64) -> Watermark {
    Watermark(NOON + seconds * SECOND)
}

fn fixture() -> (tempfile::TempDir, MemoryTopics, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(EventTime(NOON)));
    (tempfile::tempdir().unwrap(), MemoryTopics::default(), clock)
}

#[test]
fn silence_closes_the_last_window_and_a_restart_keeps_it_closed() {
    let (state, topics, clock) = fixture();
    append(&topics, 0, &[(1, 10)]);
    append(&topics, 1, &[(2, 20)]);
    block_on(async {
        let live = Live::start(state.path(), &topics, &clock, ", close_after = '10 seconds'").await;
        live.until("both rows", |status| status.rows == 2).await;
        assert_eq!(live.closed().await, "");
        live.advance(9);
        live.append(0, 4, 30);
        // An epoch ran behind the nine seconds: the window was open still, and silence begins anew.
        let status = live
            .until("the row behind nine seconds", |status| status.rows == 3)
            .await;
        assert_eq!(lowest(&status), at(15));
        live.advance(10);
        live.until("the closing", |status| status.watermark == at(60)).await;
        assert_eq!(live.closed().await, "2024-01-01T12:01:00 7");

        live.append(1, 100, 59);
        let status = live.until("the late row", |status| status.late_rows == 1).await;
        assert!(
            status.splits.iter().all(|split| at(60) <= split.watermark),
            "{status:?}"
        );
        live.until_rows("SELECT n, late_by_ms FROM closed$late", "100 0").await;

        // What a kill at this moment leaves: plans in the journal, no checkpoint.
        let killed = tempfile::tempdir().unwrap();
        super::engine::copy_folder(state.path(), killed.path());
        live.engine.stop();
        for folder in [state.path(), killed.path()] {
            let topics = topics.clone();
            let again = Live::start(folder, &topics, &clock, ", close_after = '10 seconds'").await;
            let status = again
                .until("the state", |status| status.state == SourceState::Running)
                .await;
            assert_eq!((status.watermark, status.late_rows), (at(60), 1));
            assert_eq!(again.closed().await, "2024-01-01T12:01:00 7");
            again.engine.stop();
        }
    });
}

#[test]
fn a_split_that_lags_is_not_idle_however_long_it_is_silent_and_a_read_one_is() {
    let (state, topics, clock) = fixture();
    append(&topics, 0, &[(1, 10)]);
    append(&topics, 1, &[(1, 5)]);
    block_on(async {
        let live = Live::start(state.path(), &topics, &clock, ", close_after = '10 seconds'").await;
        live.until("both rows", |status| status.rows == 2).await;
        live.is_withheld.store(true, Ordering::SeqCst);
        live.append(1, 2, 20);
        // Whoever read this row has seen the end of the other split.
        live.append(0, 1, 100);
        live.until("a row", |status| status.rows == 3).await;
        live.advance(3_600);
        // An epoch behind the hour sees how silent the split was.
        live.append(0, 1, 200);
        let status = live.until("the row of the other", |status| status.rows == 4).await;
        assert_eq!(lowest(&status), at(0), "it has a row that nobody read");
        assert!(status.splits.iter().all(|split| !split.is_idle), "{status:?}");
        live.advance(3_600);
        live.append(0, 1, 201);
        let status = live.until("another row of the other", |status| status.rows == 5).await;
        assert_eq!(lowest(&status), at(0), "close_after waits for it too");

        live.is_withheld.store(false, Ordering::SeqCst);
        live.until("its row", |status| status.rows == 6).await;
        live.append(0, 1, 202);
        live.until("a row", |status| status.rows == 7).await;
        assert_eq!(live.status().late_rows, 0, "its row was not late");
        live.engine.stop();
    });
}

#[test]
fn the_others_go_on_without_a_split_that_is_read_and_silent() {
    let (state, topics, clock) = fixture();
    append(&topics, 0, &[(1, 10)]);
    append(&topics, 1, &[(2, 20)]);
    block_on(async {
        let live = Live::start(state.path(), &topics, &clock, "").await;
        live.until("both rows", |status| status.rows == 2).await;
        live.advance(29);
        live.append(0, 4, 100);
        let status = live.until("a row before its time", |status| status.rows == 3).await;
        assert_eq!(lowest(&status), at(15), "it holds the others back");
        let explained = live.rows("EXPLAIN WATERMARK closed").await;
        let closes = "closes when split 1 reaches 2024-01-01T12:01:05Z, or in 1 s by idle_timeout";
        assert!(explained.contains(closes), "{explained}");
        assert!(explained.contains("holds back, idle in 1 s"), "{explained}");
        live.advance(1);
        let status = live.until("the idle split", |status| status.watermark == at(95)).await;
        let idle: Vec<bool> = status.splits.iter().map(|split| split.is_idle).collect();
        assert_eq!(idle, [false, true]);
        assert_eq!(live.closed().await, "2024-01-01T12:01:00 3");
        live.append(1, 100, 30);
        live.until("the late row", |status| status.late_rows == 1).await;
        live.until_rows("SELECT n, late_by_ms FROM closed$late", "100 35000")
            .await;
        live.engine.stop();
    });
}

#[test]
fn while_a_source_does_not_answer_nobody_becomes_idle_and_no_window_closes() {
    let (state, topics, clock) = fixture();
    append(&topics, 0, &[(1, 10)]);
    append(&topics, 1, &[(2, 20)]);
    block_on(async {
        let live = Live::start(state.path(), &topics, &clock, ", close_after = '10 seconds'").await;
        live.until("both rows", |status| status.rows == 2).await;
        let outage = SourceError::Unreachable("no route".into());
        topics.of("numbers").interrupt(Some(outage));
        live.until("the outage", |status| status.state == SourceState::Unreachable)
            .await;
        live.advance(3_600);
        live.advance(60);
        // A timer of the other view starts an epoch: its rows leave.
        live.until_rows("SELECT n FROM recent", "").await;
        let status = live.status();
        assert_eq!(lowest(&status), at(5));
        assert!(status.splits.iter().all(|split| !split.is_idle), "{status:?}");
        assert_eq!(live.closed().await, "");

        topics.of("numbers").interrupt(None);
        live.until("the end of it", |status| status.state == SourceState::Running)
            .await;
        live.append(0, 1, 3_600);
        let status = live.until("a row", |status| status.rows == 3).await;
        assert_eq!(lowest(&status), at(15), "silence begins anew");
        live.advance(10);
        live.until("the closing", |status| at(3_660) <= status.watermark).await;
        assert_eq!(live.closed().await, "2024-01-01T12:01:00 3; 2024-01-01T13:01:00 1");
        live.engine.stop();
    });
}

#[test]
fn rows_leave_by_the_clock_alone() {
    let (state, topics, clock) = fixture();
    append(&topics, 0, &[(1, -3_590), (2, -3_580), (3, 0)]);
    block_on(async {
        let live = Live::start(state.path(), &topics, &clock, "").await;
        live.until("the rows", |status| status.rows == 3).await;
        live.until_rows("SELECT n FROM recent ORDER BY n", "1; 2; 3").await;
        for (seconds, left) in [(10, "2; 3"), (10, "3"), (3_580, "")] {
            live.advance(seconds);
            live.until_rows("SELECT n FROM recent ORDER BY n", left).await;
        }
        live.engine.stop();
    });
}
