//! The engine against a closed form: whatever the cuts, the crashes and the order of splits, the same rows.
//!
//! ```text
//! random rows per split ─┬─▶ closed form: late by the own split's rows, then plain sums per window
//!                        └─▶ engine: random epochs, checkpoints, crashes ─▶ views            (both must agree)
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray,
    },
    datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimeUnit, TimestampNanosecondType},
};
use futures::TryStreamExt;
use proptest::{prelude::*, test_runner::RngSeed};
use zeta::{
    cli::{MemoryTopics, registry},
    connector::memory::MemoryTopic,
    runtime::{
        Bounds, Engine, EngineOptions, Mode, SourceState, SqlRequest, StepEnd,
        clock::{Clock, ManualClock, SystemClock},
        query_environment,
    },
    types::{EventTime, SplitId},
};

const SECOND: i64 = 1_000_000_000;
const LATENESS: i64 = 5 * SECOND;
const WINDOW: i64 = 60 * SECOND;

const SOURCE: &str = "CREATE SOURCE trades (symbol VARCHAR, price BIGINT, quantity DOUBLE, traded_at TIMESTAMP, \
    WATERMARK FOR traded_at AS traded_at - INTERVAL '5 seconds') WITH (connector = 'memory', trigger = '0')";

const AGGREGATES: &str = "SELECT symbol, window_start, count(*) AS trades, count(price) AS priced, sum(price) AS total, \
    min(price) AS low, max(price) AS high, first_value(price ORDER BY traded_at) AS open, \
    last_value(price ORDER BY traded_at) AS close, avg(quantity) AS quantity, stddev(quantity) AS spread, window_end \
    FROM TUMBLE(trades, traded_at, INTERVAL '1 minute') GROUP BY symbol, window_start, window_end";

#[derive(Clone, Debug, PartialEq)]
struct Trade {
    symbol: Option<u8>,
    price: Option<i64>,
    quantity: Option<f64>,
    /// Unique over all rows, so that the first and the last are known.
    traded_at: i64,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// So many of the split's next rows are written.
    Append {
        split: usize,
        rows: usize,
    },
    Epoch {
        rows_max: Option<usize>,
    },
    Checkpoint,
    Crash,
}

/// Rows by split, in the order in which they are written.
fn trades() -> impl Strategy<Value = Vec<Vec<Trade>>> {
    let trade = (
        // How far event time goes on, in seconds; back is disorder within lateness and beyond.
        prop_oneof![4 => 0i64..8, 2 => -4i64..1, 1 => -150i64..-4, 1 => 30i64..90],
        proptest::option::weighted(0.9, 0u8..3),
        proptest::option::weighted(0.8, -1000i64..1000),
        proptest::option::weighted(0.8, -100.0f64..100.0),
    );
    let split = proptest::collection::vec(trade, 0..40);
    (1usize..4, -400i64..400).prop_flat_map(move |(splits, start)| {
        proptest::collection::vec(split.clone(), splits).prop_map(move |splits| {
            let mut unique = 0;
            let rows = |split: Vec<(i64, Option<u8>, Option<i64>, Option<f64>)>, unique: &mut i64| {
                let mut now = start * SECOND;
                let rows = split.into_iter().map(|(step, symbol, price, quantity)| {
                    let traded_at = now + step * SECOND;
                    now = now.max(traded_at);
                    *unique += 1;
                    // Whole seconds are edges of windows: most rows stand a little behind them, some on them.
                    let behind = if *unique % 5 == 0 { *unique } else { *unique * 1_000 };
                    Trade {
                        symbol,
                        price,
                        quantity,
                        traded_at: traded_at + behind,
                    }
                });
                rows.collect()
            };
            splits.into_iter().map(|split| rows(split, &mut unique)).collect()
        })
    })
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0usize..3, 1usize..12).prop_map(|(split, rows)| Step::Append { split, rows }),
        4 => proptest::option::weighted(0.7, 1usize..15).prop_map(|rows_max| Step::Epoch { rows_max }),
        1 => Just(Step::Checkpoint),
        2 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 0..40)
}

/// What the window of a key must show.
#[derive(Debug, PartialEq)]
struct Expected {
    trades: i64,
    priced: i64,
    total: Option<i64>,
    low: Option<i64>,
    high: Option<i64>,
    open: Option<i64>,
    close: Option<i64>,
    quantity: Option<f64>,
}

type Key = (Option<String>, i64);

fn name(symbol: Option<u8>) -> Option<String> {
    symbol.map(|symbol| format!("S{symbol}"))
}

/// Rows that count and late rows, by the rule: a row is late when its window's end is at or below the watermark of the lower
/// positions of its own split.
fn by_lateness(splits: &[Vec<Trade>]) -> (Vec<Trade>, Vec<Trade>) {
    let (mut counted, mut late) = (Vec::new(), Vec::new());
    for split in splits {
        let mut watermark = i64::MIN;
        for trade in split {
            let end = trade.traded_at.div_euclid(WINDOW) * WINDOW + WINDOW;
            if end <= watermark {
                late.push(trade.clone())
            } else {
                counted.push(trade.clone())
            }
            watermark = watermark.max(trade.traded_at - LATENESS);
        }
    }
    (counted, late)
}

fn watermark(splits: &[Vec<Trade>]) -> Option<i64> {
    let of = |split: &Vec<Trade>| split.iter().map(|trade| trade.traded_at - LATENESS).max();
    splits.iter().map(of).min().flatten()
}

fn closed_form(trades: &[Trade]) -> BTreeMap<Key, Expected> {
    let mut groups: BTreeMap<Key, Vec<&Trade>> = BTreeMap::new();
    for trade in trades {
        let start = trade.traded_at.div_euclid(WINDOW) * WINDOW;
        groups.entry((name(trade.symbol), start)).or_default().push(trade);
    }
    let expected = |trades: Vec<&Trade>| {
        let prices: Vec<i64> = trades.iter().filter_map(|trade| trade.price).collect();
        let quantities: Vec<f64> = trades.iter().filter_map(|trade| trade.quantity).collect();
        Expected {
            trades: trades.len() as i64,
            priced: prices.len() as i64,
            total: (!prices.is_empty()).then(|| prices.iter().sum()),
            low: prices.iter().min().copied(),
            high: prices.iter().max().copied(),
            open: trades
                .iter()
                .min_by_key(|trade| trade.traded_at)
                .and_then(|trade| trade.price),
            close: trades
                .iter()
                .max_by_key(|trade| trade.traded_at)
                .and_then(|trade| trade.price),
            quantity: (!quantities.is_empty()).then(|| quantities.iter().sum::<f64>() / quantities.len() as f64),
        }
    };
    groups
        .into_iter()
        .map(|(key, trades)| (key, expected(trades)))
        .collect()
}

fn batch(trades: &[Trade]) -> RecordBatch {
    let fields = [
        ("symbol", DataType::Utf8View),
        ("price", DataType::Int64),
        ("quantity", DataType::Float64),
        ("traded_at", DataType::Timestamp(TimeUnit::Nanosecond, None)),
    ];
    let schema = Schema::new(
        fields
            .map(|(name, data_type)| Field::new(name, data_type, true))
            .to_vec(),
    );
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            trades
                .iter()
                .map(|trade| name(trade.symbol))
                .collect::<StringViewArray>(),
        ),
        Arc::new(trades.iter().map(|trade| trade.price).collect::<Int64Array>()),
        Arc::new(trades.iter().map(|trade| trade.quantity).collect::<Float64Array>()),
        Arc::new(TimestampNanosecondArray::from_iter_values(
            trades.iter().map(|trade| trade.traded_at),
        )),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

pub fn engine(topics: &MemoryTopics, state: &Path, mode: Mode, clock: Arc<dyn Clock>) -> Engine {
    let options = EngineOptions {
        state: Some(state.into()),
        mode,
        overrides: vec![],
    };
    Engine::new(registry(topics.clone(), query_environment()), options, clock)
}

/// A pipeline whose epochs run by hand; its state is not opened yet.
pub fn defined(text: &str, topics: &MemoryTopics, state: &Path, clock: &Arc<ManualClock>) -> Engine {
    let engine = engine(topics, state, Mode::Manual, Arc::clone(clock) as _);
    let text = zeta::sql::SourceText::new("pipeline.sql", text);
    if let Err(diagnostics) = block_on(engine.apply(&text, zeta::sql::parse(&text))) {
        panic!("{}", zeta::sql::render(&text, &diagnostics, zeta::sql::Color::Never));
    }
    engine
}

pub async fn sql(engine: &Engine, sql: &str) -> Vec<RecordBatch> {
    try_sql(engine, sql)
        .await
        .unwrap_or_else(|problem| panic!("{sql}: {problem}"))
}

/// The rows, or the problem as text.
pub async fn try_sql(engine: &Engine, sql: &str) -> Result<Vec<RecordBatch>, String> {
    let request = SqlRequest {
        sql: sql.into(),
        timeout: Duration::from_secs(60),
        rows_max: None,
    };
    let answer = engine
        .execute(request)
        .await
        .map_err(|problem| format!("{problem:?}"))?;
    answer.rows.try_collect().await.map_err(|error| error.to_string())
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn view(engine: &Engine, name: &str) -> RecordBatch {
    let rows = engine.follow(name).unwrap().published().rows;
    arrow::compute::concat_batches(rows.schema(), &rows.batches().unwrap()).unwrap()
}

/// A view's rows by key; a key stands once.
fn by_key(rows: &RecordBatch) -> BTreeMap<Key, Expected> {
    let integers = |column: usize| rows.column(column).as_primitive::<Int64Type>();
    let integer = |column: usize, row: usize| integers(column).is_valid(row).then(|| integers(column).value(row));
    let mut found = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let symbols = rows.column(0).as_string_view();
        let symbol = symbols.is_valid(row).then(|| symbols.value(row).to_owned());
        let start = rows.column(1).as_primitive::<TimestampNanosecondType>().value(row);
        let quantities = rows.column(9).as_primitive::<Float64Type>();
        let expected = Expected {
            trades: integer(2, row).unwrap(),
            priced: integer(3, row).unwrap(),
            total: integer(4, row),
            low: integer(5, row),
            high: integer(6, row),
            open: integer(7, row),
            close: integer(8, row),
            quantity: quantities.is_valid(row).then(|| quantities.value(row)),
        };
        assert!(found.insert((symbol, start), expected).is_none(), "a key stands twice");
    }
    found
}

fn assert_alike(found: &BTreeMap<Key, Expected>, expected: &BTreeMap<Key, Expected>, what: &str) {
    let keys = |rows: &BTreeMap<Key, Expected>| rows.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(found), keys(expected), "{what}: other windows");
    for (key, expected) in expected {
        let mut found = Expected {
            quantity: found[key].quantity,
            ..copy(&found[key])
        };
        if let (Some(a), Some(b)) = (found.quantity, expected.quantity) {
            assert!(
                (a - b).abs() <= 1e-9 * b.abs().max(1.0),
                "{what}: {key:?}: {a} is not {b}"
            );
            found.quantity = expected.quantity;
        }
        assert_eq!(&found, expected, "{what}: {key:?}");
    }
}

fn copy(row: &Expected) -> Expected {
    Expected { ..*row }
}

/// What a run showed in the end, as text in the order of the views' keys: equal texts are equal bytes.
#[derive(Debug, PartialEq)]
struct Shown {
    changing: String,
    closed: String,
    late: String,
    finished: String,
}

/// Runs the steps, then everything that is left, and checks it against the closed form.
fn run(splits: &[Vec<Trade>], steps: &[Step], with_crashes: bool) -> Shown {
    let state = tempfile::tempdir().unwrap();
    let topics = MemoryTopics::default();
    let clock = Arc::new(ManualClock::at(EventTime(1_000_000 * SECOND)));
    let engine = engine(&topics, state.path(), Mode::Manual, clock);
    let topic = topics.of("trades");
    // All splits are known before the first epoch: where a new one begins depends on when it was found.
    for split in 0..splits.len() {
        topic.append(&SplitId::from(split as i32), batch(&[]));
    }
    block_on(async {
        sql(&engine, SOURCE).await;
        sql(&engine, &format!("CREATE MATERIALIZED VIEW changing AS {AGGREGATES}")).await;
        sql(
            &engine,
            &format!("CREATE MATERIALIZED VIEW closed AS {AGGREGATES} EMIT ON WINDOW CLOSE"),
        )
        .await;
    });
    let mut written = vec![0; splits.len()];
    for step in steps {
        match step {
            Step::Append { split, rows } => {
                let split = split % splits.len();
                let to = splits[split].len().min(written[split] + rows);
                topic.append(&SplitId::from(split as i32), batch(&splits[split][written[split]..to]));
                written[split] = to;
            }
            Step::Epoch { rows_max } => engine
                .step(
                    "trades",
                    StepEnd {
                        rows_max: *rows_max,
                        ..StepEnd::default()
                    },
                )
                .unwrap(),
            Step::Checkpoint => engine
                .step(
                    "trades",
                    StepEnd {
                        checkpoint: true,
                        ..StepEnd::default()
                    },
                )
                .unwrap(),
            Step::Crash if with_crashes => engine.crash_and_restore().unwrap(),
            Step::Crash => {}
        }
    }
    for (split, rows) in splits.iter().enumerate() {
        topic.append(&SplitId::from(split as i32), batch(&rows[written[split]..]));
    }
    engine.step("trades", StepEnd::default()).unwrap();

    let (counted, late) = by_lateness(splits);
    let expected = closed_form(&counted);
    assert_alike(&by_key(&view(&engine, "changing")), &expected, "EMIT CHANGES");
    let watermark = watermark(splits);
    let is_closed = |(_, start): &Key| watermark.is_some_and(|watermark| start + WINDOW <= watermark);
    let closed = closed_form(&counted)
        .into_iter()
        .filter(|(key, _)| is_closed(key))
        .collect();
    assert_alike(&by_key(&view(&engine, "closed")), &closed, "EMIT ON WINDOW CLOSE");
    let late_rows = block_on(sql(&engine, "SELECT traded_at FROM changing$late"));
    let late_times = |batch: &RecordBatch| {
        batch
            .column(0)
            .as_primitive::<TimestampNanosecondType>()
            .values()
            .to_vec()
    };
    let found: BTreeSet<i64> = late_rows.iter().flat_map(late_times).collect();
    assert_eq!(
        late_rows.iter().map(RecordBatch::num_rows).sum::<usize>(),
        late.len(),
        "late rows are kept once"
    );
    assert_eq!(found, late.iter().map(|trade| trade.traded_at).collect(), "late rows");
    assert_eq!(
        engine.sources()[0].late_rows,
        2 * late.len() as u64,
        "late rows are counted, for each view"
    );

    let changing = shown(&engine, "SELECT * FROM changing ORDER BY symbol, window_start");
    let closed = shown(&engine, "SELECT * FROM closed ORDER BY symbol, window_start");
    let late = shown(&engine, "SELECT * FROM changing$late ORDER BY traded_at");
    engine
        .step(
            "trades",
            StepEnd {
                is_last: true,
                ..StepEnd::default()
            },
        )
        .unwrap();
    assert_alike(
        &by_key(&view(&engine, "closed")),
        &expected,
        "all windows are closed at the end",
    );
    let finished = shown(&engine, "SELECT * FROM closed ORDER BY symbol, window_start");
    Shown {
        changing,
        closed,
        late,
        finished,
    }
}

fn shown(engine: &Engine, query: &str) -> String {
    let rows = block_on(sql(engine, query));
    arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()
}

/// `ZETA_SEED=…` repeats a run.
fn cases(count: u32) -> ProptestConfig {
    let given = std::env::var("ZETA_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random::<u64>);
    println!("ZETA_SEED={seed}");
    ProptestConfig {
        cases: count,
        failure_persistence: None,
        max_shrink_iters: 400,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn windows_and_late_rows_do_not_depend_on_cuts_or_crashes(splits in trades(), steps in steps()) {
        run(&splits, &steps, true);
    }

    #[test]
    fn the_same_epochs_give_the_same_bytes_with_and_without_crashes(splits in trades(), steps in steps()) {
        prop_assert_eq!(run(&splits, &steps, true), run(&splits, &steps, false));
    }
}

const LIVE_ROWS: usize = 100_000;

/// Rows of two splits, in order of time, of three symbols.
fn live_rows() -> Vec<Vec<Trade>> {
    let trade = |index: usize| Trade {
        symbol: Some((index % 3) as u8),
        price: (!index.is_multiple_of(7)).then_some(index as i64 % 1_000),
        quantity: Some((index % 11) as f64),
        traded_at: index as i64 * 10_000_000,
    };
    (0..2)
        .map(|split| (0..LIVE_ROWS / 2).map(|index| trade(2 * index + split)).collect())
        .collect()
}

fn append(topic: &MemoryTopic, splits: &[Vec<Trade>], rows: std::ops::Range<usize>) {
    for part in rows.collect::<Vec<_>>().chunks(777) {
        for (split, trades) in splits.iter().enumerate() {
            topic.append(
                &SplitId::from(split as i32),
                batch(&trades[part[0]..part[0] + part.len()]),
            );
        }
    }
}

/// Follows the view until all trades that were written are in it, or the source has ended.
async fn wait_for(engine: &Engine, is_there: impl Fn(&Engine) -> bool) {
    let mut reader = engine.follow("changing").unwrap();
    let all = async {
        while !is_there(engine) {
            assert_ne!(
                engine.sources()[0].state,
                SourceState::Failed,
                "{:?}",
                engine.sources()[0].reason
            );
            assert!(reader.changed().await, "the engine stopped");
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all)
        .await
        .expect("the rows come within two minutes");
}

async fn start(topics: &MemoryTopics, state: &Path) -> Engine {
    let engine = engine(topics, state, Mode::Live, Arc::new(SystemClock::default()));
    let text = format!(
        "{SOURCE};\nCREATE MATERIALIZED VIEW changing AS {AGGREGATES};\n\
         CREATE MATERIALIZED VIEW closed AS {AGGREGATES} EMIT ON WINDOW CLOSE;"
    );
    let text = zeta::sql::SourceText::new("live.sql", text);
    let parsed = zeta::sql::parse(&text);
    engine.apply(&text, parsed).await.unwrap();
    engine.start().unwrap();
    engine
}

fn assert_complete(engine: &Engine, splits: &[Vec<Trade>]) {
    let (counted, late) = by_lateness(splits);
    assert!(late.is_empty(), "these rows come in order");
    let expected = closed_form(&counted);
    assert_alike(
        &by_key(&view(engine, "changing")),
        &expected,
        "nothing lost, nothing twice",
    );
    assert_alike(&by_key(&view(engine, "closed")), &expected, "every window once");
    assert_eq!(engine.sources()[0].rows, LIVE_ROWS as u64);
}

#[test]
fn a_live_source_loses_nothing_and_repeats_nothing_over_a_stop_and_over_a_kill() {
    let (state, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let topics = MemoryTopics::default();
    let splits = live_rows();
    let topic = topics.of("trades");
    let half = LIVE_ROWS / 4;
    append(&topic, &splits, 0..half / 2);
    block_on(async {
        let engine = start(&topics, state.path()).await;
        append(&topic, &splits, half / 2..half);
        wait_for(&engine, |engine| half as u64 <= engine.sources()[0].rows).await;
        // What a kill at this moment would leave: the journal is synced epoch by epoch, and no checkpoint is due yet.
        copy_folder(state.path(), killed.path());
        append(&topic, &splits, half..half + 1_000);
        engine.stop();

        let again = start(&topics, state.path()).await;
        append(&topic, &splits, half + 1_000..LIVE_ROWS / 2);
        topic.finish();
        wait_for(&again, |engine| {
            engine.sources()[0].watermark == zeta::types::Watermark::END
        })
        .await;
        assert_complete(&again, &splits);
        again.stop();

        let revived = start(&topics, killed.path()).await;
        wait_for(&revived, |engine| {
            engine.sources()[0].watermark == zeta::types::Watermark::END
        })
        .await;
        assert_complete(&revived, &splits);
        revived.stop();

        let last = start(&topics, state.path()).await;
        wait_for(&last, |engine| {
            engine.sources()[0].watermark == zeta::types::Watermark::END
        })
        .await;
        assert_complete(&last, &splits);
        last.stop();
    });
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_view_that_would_hold_too_many_rows_stops_its_source_and_drops_none() {
    let state = tempfile::tempdir().unwrap();
    let topics = MemoryTopics::default();
    let topic = topics.of("trades");
    let rows = &live_rows()[0];
    let start = async |view_rows_max| {
        let options = EngineOptions {
            state: Some(state.path().into()),
            mode: Mode::Live,
            overrides: vec![],
        };
        let bounds = Bounds {
            view_rows_max,
            ..Bounds::default()
        };
        let registry = registry(topics.clone(), query_environment());
        let engine = Engine::with_bounds(registry, options, Arc::new(SystemClock::default()), bounds);
        let text = format!("{SOURCE};\nCREATE MATERIALIZED VIEW all_of_them AS SELECT price, traded_at FROM trades");
        let text = zeta::sql::SourceText::new("live.sql", text);
        engine.apply(&text, zeta::sql::parse(&text)).await.unwrap();
        engine.start().unwrap();
        engine
    };
    let until = async |engine: &Engine, is_there: &dyn Fn(&Engine) -> bool| {
        let there = async {
            while !is_there(engine) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), there)
            .await
            .expect("it comes within a minute");
    };
    block_on(async {
        topic.append(&SplitId::from(0), batch(&rows[..3]));
        let engine = start(3).await;
        until(&engine, &|engine| view(engine, "all_of_them").num_rows() == 3).await;
        assert_ne!(engine.sources()[0].state, SourceState::Failed, "as many as may be");
        topic.append(&SplitId::from(0), batch(&rows[3..4]));
        until(&engine, &|engine| engine.sources()[0].state == SourceState::Failed).await;
        let reason = engine.sources()[0].reason.clone().unwrap();
        for part in [
            "view `all_of_them` would hold 4 rows",
            "3 are the most",
            "longer window",
            "--reset",
        ] {
            assert!(reason.contains(part), "{reason}");
        }
        assert_eq!(view(&engine, "all_of_them").num_rows(), 3, "nobody sees half an epoch");
        engine.stop();

        let engine = start(4).await;
        until(&engine, &|engine| view(engine, "all_of_them").num_rows() == 4).await;
        assert_eq!(engine.sources()[0].rows, 4, "the row was not lost");
        engine.stop();
    });
}

#[test]
fn the_state_of_a_replay_belongs_to_its_range_and_not_to_its_speed() {
    let state = tempfile::tempdir().unwrap();
    let dataset = crate::zeta::dataset(1, 1, "2024-01-01");
    let started = |options: &str| {
        block_on(async {
            let topics = MemoryTopics::default();
            let engine = engine(&topics, state.path(), Mode::Live, Arc::new(SystemClock::default()));
            let text = format!(
                "CREATE SOURCE candles (close DOUBLE) WITH (connector = 'replay', path = '{}'{options});\n\
                 CREATE MATERIALIZED VIEW closes AS SELECT close FROM candles;",
                dataset.display()
            );
            let text = zeta::sql::SourceText::new("replay.sql", text);
            engine.apply(&text, zeta::sql::parse(&text)).await.unwrap();
            let started = engine.start().map_err(|error| error.to_string());
            if started.is_ok() {
                // A definition binds once something is committed under it.
                let mut reader = engine.follow("closes").unwrap();
                let committed = async {
                    while reader.published().epoch.0 == 0 {
                        assert!(reader.changed().await, "the engine stopped");
                    }
                };
                tokio::time::timeout(Duration::from_secs(60), committed)
                    .await
                    .unwrap_or_else(|_| panic!("{:?}", engine.sources()));
            }
            engine.stop();
            started
        })
    };
    let range = ", \"from\" = '2024-01-01', \"to\" = '2024-02-01', \"limit\" = '10'";
    assert_eq!(started(range), Ok(()));
    assert_eq!(started(&format!("{range}, speed = 'max'")), Ok(()));
    for (other, expected) in [
        (
            range.replace("2024-01-01", "2024-01-02"),
            "from of source `candles` was `2024-01-01`, is `2024-01-02`",
        ),
        (
            range.replace("2024-02-01", "2024-03-01"),
            "to of source `candles` was `2024-02-01`, is `2024-03-01`",
        ),
        (
            range.replace("'10'", "'20'"),
            "limit of source `candles` was `10`, is `20`",
        ),
        (String::new(), "limit of source `candles` was `10`, is not set"),
    ] {
        let refused = started(&other).unwrap_err();
        assert!(refused.lines().any(|line| line.trim() == expected), "{refused}");
        assert!(!refused.contains("speed"), "{refused}");
    }
}
