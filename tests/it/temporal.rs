//! `now()` in WHERE: at each epoch a view holds what the query would give with the time of the epoch in place of `now()`.
//!
//! ```text
//! random rows, clock steps, epochs, checkpoints, crashes ─▶ view    ─┐
//!                                  all rows, now() := epoch time ─▶ query ─┴─ the same rows, at every epoch
//! ```

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray},
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use proptest::{prelude::*, test_runner::RngSeed};
use zeta::{
    cli::MemoryTopics,
    runtime::{
        Engine, Mode, StepEnd,
        clock::{Clock, ManualClock},
    },
    types::{EventTime, SplitId},
};

use super::engine::{block_on, engine, sql};

const SECOND: i64 = 1_000_000_000;
/// 2024-01-01 23:59:00: days end while a script runs.
const START: i64 = 1_704_153_540 * SECOND;

const SOURCE: &str = "CREATE SOURCE trades (symbol VARCHAR, price BIGINT, ends TIMESTAMP, traded_at TIMESTAMP, \
     WATERMARK FOR traded_at AS traded_at - INTERVAL '5 seconds') WITH (connector = 'memory')";

/// Queries over `all_trades` or `latest`; as views the first reads the source.
const QUERIES: [&str; 13] = [
    "SELECT * FROM all_trades WHERE traded_at > now() - INTERVAL '10 seconds'",
    "SELECT * FROM all_trades WHERE traded_at + INTERVAL '10 seconds' >= current_timestamp AND price > 0",
    "SELECT symbol, price FROM all_trades WHERE now() - INTERVAL '20 seconds' < traded_at AND now() >= traded_at",
    "SELECT price FROM all_trades WHERE traded_at BETWEEN now() - INTERVAL '30 seconds' AND now() - INTERVAL '10 seconds'",
    "SELECT price FROM all_trades WHERE now() BETWEEN traded_at AND ends",
    "SELECT symbol FROM all_trades WHERE ends <= now()",
    "SELECT price, traded_at FROM all_trades WHERE now() - traded_at < INTERVAL '15 seconds'",
    "SELECT price FROM all_trades WHERE CAST(traded_at AS DATE) = current_date",
    "SELECT price FROM all_trades WHERE date_trunc('minute', now() - INTERVAL '5 seconds') - INTERVAL '1 minute' <= traded_at",
    "SELECT symbol, count(*) AS n, sum(price) AS total, max(traded_at) AS last FROM all_trades \
     WHERE traded_at > now() - INTERVAL '20 seconds' GROUP BY symbol",
    "SELECT window_start, count(*) AS n, min(price) AS low FROM TUMBLE((SELECT * FROM all_trades \
     WHERE traded_at > now() - INTERVAL '60 seconds'), traded_at, INTERVAL '10 seconds') GROUP BY window_start",
    "SELECT window_end, count(*) AS n FROM HOP(all_trades, traded_at, INTERVAL '10 seconds', INTERVAL '20 seconds') \
     WHERE window_end > now() - INTERVAL '15 seconds' GROUP BY window_end",
    // Its input takes rows back.
    "SELECT symbol, trades, at FROM latest WHERE at > now() - INTERVAL '10 seconds' AND at <= now()",
];

const LATEST: &str = "CREATE MATERIALIZED VIEW latest AS SELECT symbol, count(*) AS trades, max(traded_at) AS at FROM trades GROUP BY symbol";

#[derive(Clone, Debug)]
struct Trade {
    symbol: Option<u8>,
    price: Option<i64>,
    /// In seconds from the clock when it is written.
    traded_at: i64,
    lasts: Option<i64>,
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        split: i32,
        trades: Vec<Trade>,
    },
    Epoch {
        rows_max: Option<usize>,
    },
    /// In milliseconds.
    Advance(u64),
    Checkpoint,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let trade = (
        proptest::option::weighted(0.9, 0u8..3),
        proptest::option::weighted(0.9, -3i64..6),
        prop_oneof![6 => -12i64..2, 2 => -40i64..30, 1 => Just(0i64)],
        proptest::option::weighted(0.8, -5i64..25),
    );
    let trade = trade.prop_map(|(symbol, price, traded_at, lasts)| Trade {
        symbol,
        price,
        traded_at,
        lasts,
    });
    let step = prop_oneof![
        5 => (0i32..2, proptest::collection::vec(trade, 1..8)).prop_map(|(split, trades)| Step::Append { split, trades }),
        4 => proptest::option::weighted(0.4, 1usize..6).prop_map(|rows_max| Step::Epoch { rows_max }),
        4 => prop_oneof![Just(1_000u64), Just(10_000), 0u64..30_000].prop_map(Step::Advance),
        1 => Just(Step::Checkpoint),
        2 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..24)
}

fn batch(trades: &[Trade], now: i64) -> RecordBatch {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let fields = [
        ("symbol", DataType::Utf8View),
        ("price", DataType::Int64),
        ("ends", time.clone()),
        ("traded_at", time),
    ];
    let at = |trade: &Trade| now + trade.traded_at * SECOND;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            (trades
                .iter()
                .map(|trade| trade.symbol.map(|symbol| format!("S{symbol}"))))
            .collect::<StringViewArray>(),
        ),
        Arc::new(trades.iter().map(|trade| trade.price).collect::<Int64Array>()),
        Arc::new(
            (trades
                .iter()
                .map(|trade| trade.lasts.map(|lasts| at(trade) + lasts * SECOND)))
            .collect::<TimestampNanosecondArray>(),
        ),
        Arc::new(TimestampNanosecondArray::from_iter_values(trades.iter().map(at))),
    ];
    let fields = fields.map(|(name, data_type)| Field::new(name, data_type, true));
    RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns).unwrap()
}

/// Rows as lines, in an order of their own.
fn lines(engine: &Engine, query: &str) -> Vec<String> {
    let rows = block_on(sql(engine, query));
    let text = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    lines.sort();
    lines
}

/// The query at a fixed time.
fn at_time(query: &str, now: EventTime) -> String {
    let text = now.to_string();
    let moment = format!("TIMESTAMP '{}'", text.trim_end_matches('Z'));
    let day = format!("DATE '{}'", &text[..10]);
    (query.replace("now()", &moment).replace("current_timestamp", &moment)).replace("current_date", &day)
}

fn check(engine: &Engine, now: EventTime, what: &str) {
    for (index, query) in QUERIES.iter().enumerate() {
        let found = lines(engine, &format!("SELECT * FROM view_{index}"));
        let expected = lines(engine, &at_time(query, now));
        assert_eq!(found, expected, "{what}, at {now}: {query}");
    }
}

fn run(steps: &[Step]) {
    let state = tempfile::tempdir().unwrap();
    let topics = MemoryTopics::default();
    let clock = Arc::new(ManualClock::at(EventTime(START)));
    let engine = engine(&topics, state.path(), Mode::Manual, Arc::clone(&clock) as _);
    block_on(async {
        sql(&engine, SOURCE).await;
        sql(&engine, "CREATE MATERIALIZED VIEW all_trades AS SELECT * FROM trades").await;
        sql(&engine, LATEST).await;
        for (index, query) in QUERIES.iter().enumerate() {
            let query = query.replace("all_trades", "trades");
            sql(&engine, &format!("CREATE MATERIALIZED VIEW view_{index} AS {query}")).await;
        }
    });
    let step = |end: StepEnd| {
        engine.step("trades", end).unwrap();
        clock.now()
    };
    let mut epoch_time = None;
    for taken in steps {
        match taken {
            Step::Append { split, trades } => {
                (topics.of("trades")).append(&SplitId::from(*split), batch(trades, clock.now().0));
                continue;
            }
            Step::Advance(millis) => {
                clock.advance(Duration::from_millis(*millis));
                continue;
            }
            Step::Epoch { rows_max } => {
                epoch_time = Some(step(StepEnd {
                    rows_max: *rows_max,
                    ..StepEnd::default()
                }));
            }
            Step::Checkpoint => {
                epoch_time = Some(step(StepEnd {
                    checkpoint: true,
                    ..StepEnd::default()
                }));
            }
            Step::Crash => engine.crash_and_restore().unwrap(),
        }
        if let Some(epoch_time) = epoch_time {
            check(&engine, epoch_time, &format!("after {taken:?}"));
        }
    }
    // A source that has ended has more epochs: time goes on, and rows leave.
    let last = step(StepEnd {
        is_last: true,
        ..StepEnd::default()
    });
    check(&engine, last, "at the end");
    clock.advance(Duration::from_secs(25));
    let after = step(StepEnd::default());
    check(&engine, after, "after the end");
    clock.advance(Duration::from_secs(100_000));
    let empty = step(StepEnd::default());
    check(&engine, empty, "long after");
}

/// `ZETA_SEED=…` repeats a run.
fn cases(count: u32) -> ProptestConfig {
    let given = std::env::var("ZETA_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random::<u64>);
    println!("ZETA_SEED={seed}");
    ProptestConfig {
        cases: count,
        failure_persistence: None,
        max_shrink_iters: 200,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn a_view_with_now_is_the_query_at_the_time_of_its_epoch(steps in steps()) {
        run(&steps);
    }
}
