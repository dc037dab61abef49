//! Nexmark: the files of `sql/nexmark`, live, against stock DataFusion over the same bids.
//!
//! ```text
//! q*.sql ─▶ engine: connector 'nexmark', random epochs, checkpoints, a crash ─▶ view
//! Generator ─▶ bids in memory ─▶ stock DataFusion, windows written as date_bin and OVER ─▶ rows      (both must agree)
//! ```

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray},
    datatypes::{DataType, Float64Type},
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{datasource::MemTable, prelude::SessionContext};
use rand::{Rng, SeedableRng, rngs::StdRng};
use zeta::{
    cli::MemoryTopics,
    connector::nexmark::{Bid, Config, Generator, Table},
    runtime::{Mode, StepEnd, clock::ManualClock},
    sql::{SourceText, parse_file},
    types::EventTime,
};

use super::engine::{block_on, engine, sql};

const SECOND: i64 = 1_000_000_000;
/// 2015-07-15T17:59:00Z, so that bids come by day, in the evening and at night.
const BASE: &str = "2015-07-15T17:59:00Z";
const BASE_NS: i64 = 1_436_983_140 * SECOND;

/// A query file, how fast event time passes in it, and the same query for batch.
struct Case {
    name: &'static str,
    events: u64,
    events_per_second: u64,
    batch: &'static str,
}

/// In the order of the files.
const CASES: &[Case] = &[
    Case {
        name: "q0",
        events: 20_000,
        events_per_second: 10_000,
        batch: "SELECT auction, bidder, price, date_time, extra FROM bid",
    },
    Case {
        name: "q1",
        events: 20_000,
        events_per_second: 10_000,
        batch: "SELECT auction, bidder, 0.908 * price, date_time, extra FROM bid",
    },
    Case {
        name: "q2",
        events: 20_000,
        events_per_second: 10_000,
        batch: "SELECT auction, price FROM bid WHERE auction % 123 = 0",
    },
    Case {
        name: "q7",
        events: 20_000,
        events_per_second: 20,
        batch: "SELECT date_bin(INTERVAL '10 seconds', date_time), date_bin(INTERVAL '10 seconds', date_time) + INTERVAL '10 seconds',
                price, auction, bidder, date_time, extra
            FROM (SELECT *, row_number() OVER (PARTITION BY date_bin(INTERVAL '10 seconds', date_time)
                                               ORDER BY price DESC, date_time DESC) AS place FROM bid) WHERE place = 1",
    },
    Case {
        name: "q11",
        events: 20_000,
        events_per_second: 5,
        batch: "SELECT bidder, count(*), min(date_time), max(date_time) + INTERVAL '10 seconds'
            FROM (SELECT bidder, date_time, sum(begins) OVER (PARTITION BY bidder ORDER BY date_time) AS session
                  FROM (SELECT bidder, date_time,
                               CASE WHEN date_time - lag(date_time) OVER (PARTITION BY bidder ORDER BY date_time)
                                         < INTERVAL '10 seconds' THEN 0 ELSE 1 END AS begins FROM bid))
            GROUP BY bidder, session",
    },
    Case {
        name: "q12",
        events: 20_000,
        events_per_second: 20,
        batch: "SELECT bidder, count(*), date_bin(INTERVAL '10 seconds', arrived_at),
                date_bin(INTERVAL '10 seconds', arrived_at) + INTERVAL '10 seconds'
            FROM bid GROUP BY bidder, date_bin(INTERVAL '10 seconds', arrived_at)",
    },
    Case {
        name: "q14",
        events: 20_000,
        events_per_second: 1,
        batch: "SELECT auction, bidder, 0.908 * price,
                CASE WHEN date_part('hour', date_time) BETWEEN 8 AND 18 THEN 'dayTime'
                     WHEN date_part('hour', date_time) BETWEEN 7 AND 19 THEN 'otherTime' ELSE 'nightTime' END,
                date_time, extra, length(translate(extra, 'abdefghijklmnopqrstuvwxyz', ''))
            FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000",
    },
    Case {
        name: "q15",
        events: 40_000,
        events_per_second: 1,
        batch: STATISTICS,
    },
    Case {
        name: "q16",
        events: 40_000,
        events_per_second: 1,
        batch: CHANNEL_STATISTICS,
    },
    Case {
        name: "q17",
        events: 40_000,
        events_per_second: 1,
        batch: "SELECT auction, CAST(CAST(date_time AS DATE) AS VARCHAR) AS day, count(*), sum(CASE WHEN price < 10000 THEN 1 ELSE 0 END),
                sum(CASE WHEN price >= 10000 AND price < 1000000 THEN 1 ELSE 0 END),
                sum(CASE WHEN price >= 1000000 THEN 1 ELSE 0 END), min(price), max(price), avg(price), sum(price)
            FROM bid GROUP BY auction, day",
    },
    Case {
        name: "q21",
        events: 20_000,
        events_per_second: 10_000,
        batch: "SELECT auction, bidder, price, channel,
                CASE channel WHEN 'Apple' THEN '0' WHEN 'Google' THEN '1' WHEN 'Facebook' THEN '2' WHEN 'Baidu' THEN '3'
                     ELSE split_part(url, 'channel_id=', 2) END
            FROM bid WHERE channel IN ('Apple', 'Google', 'Facebook', 'Baidu') OR url LIKE '%&channel_id=%'",
    },
    Case {
        name: "q22",
        events: 20_000,
        events_per_second: 10_000,
        batch: "SELECT auction, bidder, price, channel, parts[4], parts[5], parts[6]
            FROM (SELECT *, string_to_array(url, '/') AS parts FROM bid)",
    },
];

macro_rules! statistics {
    ($keys:literal, $groups:literal) => {
        concat!(
            "SELECT ", $keys, ", count(*), count(low), count(middle), count(high),
            count(DISTINCT bidder), count(DISTINCT CASE WHEN low THEN bidder END),
            count(DISTINCT CASE WHEN middle THEN bidder END), count(DISTINCT CASE WHEN high THEN bidder END),
            count(DISTINCT auction), count(DISTINCT CASE WHEN low THEN auction END),
            count(DISTINCT CASE WHEN middle THEN auction END), count(DISTINCT CASE WHEN high THEN auction END)
            FROM (SELECT *, CAST(CAST(date_time AS DATE) AS VARCHAR) AS day, nullif(price < 10000, false) AS low,
                         nullif(price BETWEEN 10000 AND 999999, false) AS middle, nullif(price > 999999, false) AS high FROM bid)
            GROUP BY ", $groups
        )
    };
}
const STATISTICS: &str = statistics!("day", "day");
const CHANNEL_STATISTICS: &str = statistics!(
    "channel, day, substr(CAST(max(date_time) AS VARCHAR), 12, 5)",
    "channel, day"
);

#[test]
fn every_query_file_is_tested() {
    let mut files: Vec<String> = std::fs::read_dir("sql/nexmark")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".sql").map(str::to_owned))
        .collect();
    files.sort_by_key(|name| name[1..].parse::<u32>().unwrap());
    let cases: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(files, cases);
    let read_me = std::fs::read_to_string("sql/nexmark/README.md").unwrap();
    for name in cases {
        assert!(read_me.contains(&format!("| `{name}.sql` |")), "{name} is explained");
    }
}

#[test]
fn live_results_of_all_queries_are_those_of_batch() {
    let seed = std::env::var("ZETA_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("ZETA_SEED={seed} repeats this");
    std::thread::scope(|scope| {
        for part in 0..2 {
            scope.spawn(move || {
                for case in CASES.iter().skip(part).step_by(2) {
                    // One split, and some: the same rows dealt anew.
                    for splits in [1, 3] {
                        compare(case, splits, seed);
                    }
                }
            });
        }
    });
}

fn compare(case: &Case, splits: u64, seed: u64) {
    let live = live(case, splits, seed);
    let batch = block_on(batch(case));
    assert!(!batch.is_empty(), "{}: nothing to compare", case.name);
    assert_eq!(
        live.len(),
        batch.len(),
        "{} in {splits} splits: number of rows",
        case.name
    );
    for (live, batch) in live.iter().zip(&batch) {
        let are_alike = live.len() == batch.len() && live.iter().zip(batch).all(|(live, batch)| live.is_like(batch));
        assert!(
            are_alike,
            "{} in {splits} splits:\n live  {live:?}\n batch {batch:?}",
            case.name
        );
    }
}

/// The rows of the view that the file makes, sorted.
fn live(case: &Case, splits: u64, seed: u64) -> Vec<Vec<Value>> {
    let path = format!("sql/nexmark/{}.sql", case.name);
    let text = SourceText::new(&path, std::fs::read_to_string(&path).unwrap());
    let variables = BTreeMap::from([
        ("EVENTS", case.events.to_string()),
        ("EVENTS_PER_SECOND", case.events_per_second.to_string()),
        ("BASE_TIME", BASE.to_owned()),
    ]);
    let parsed = parse_file(&text, &|name| variables.get(name).cloned(), &|path| {
        panic!("{path} is not to be read")
    });
    assert!(parsed.diagnostics.is_empty(), "{path}: {:?}", parsed.diagnostics);

    let state = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(EventTime(BASE_NS + 100_000 * SECOND)));
    let engine = engine(&MemoryTopics::default(), state.path(), Mode::Manual, clock);
    for statement in &parsed.statements {
        let dealt = format!("table = 'bid', splits = '{splits}'");
        block_on(sql(&engine, &statement.text.replace("table = 'bid'", &dealt)));
    }
    let mut random = StdRng::seed_from_u64(seed);
    for epoch in 0..12 {
        let end = StepEnd {
            rows_max: Some(random.random_range(1..2_000)),
            checkpoint: random.random_bool(0.3),
            ..StepEnd::default()
        };
        engine.step("bid", end).unwrap();
        if epoch == 6 || random.random_bool(0.2) {
            engine.crash_and_restore().unwrap();
        }
    }
    engine.step("bid", StepEnd::default()).unwrap();
    engine.crash_and_restore().unwrap();
    engine
        .step(
            "bid",
            StepEnd {
                is_last: true,
                ..StepEnd::default()
            },
        )
        .unwrap();
    let status = &engine.sources()[0];
    assert_eq!(
        (status.late_rows, status.bad_rows),
        (0, 0),
        "{}: every row counts",
        case.name
    );
    let rows = block_on(sql(&engine, &format!("SELECT * FROM {}", case.name)));
    sorted(&rows)
}

/// The rows that stock DataFusion gives for the same bids, sorted.
async fn batch(case: &Case) -> Vec<Vec<Value>> {
    let generator = Generator::new(Config {
        seed: 1,
        base_ns: BASE_NS,
        events_per_second: case.events_per_second,
        out_of_order: 5,
    });
    let rows = Table::Bid.rows(case.events, 0, 1);
    let events: Vec<u64> = (0..rows).map(|row| Table::Bid.event(row, 0, 1)).collect();
    let bids: Vec<Bid> = events.iter().map(|event| generator.bid(*event)).collect();
    let number =
        |of: &dyn Fn(&Bid) -> u64| Arc::new(bids.iter().map(|bid| of(bid) as i64).collect::<Int64Array>()) as ArrayRef;
    let text = |of: &dyn Fn(&Bid) -> String| {
        Arc::new(bids.iter().map(|bid| Some(of(bid))).collect::<StringViewArray>()) as ArrayRef
    };
    let arrived = events
        .iter()
        .map(|event| generator.arrival(*event) / 1_000_000 * 1_000_000);
    let table = RecordBatch::try_from_iter([
        ("auction", number(&|bid| bid.auction)),
        ("bidder", number(&|bid| bid.bidder)),
        ("price", number(&|bid| bid.price)),
        ("channel", text(&|bid| bid.channel.clone())),
        ("url", text(&|bid| bid.url.clone())),
        (
            "date_time",
            Arc::new(
                bids.iter()
                    .map(|bid| Some(bid.date_time))
                    .collect::<TimestampNanosecondArray>(),
            ) as ArrayRef,
        ),
        ("extra", text(&|bid| bid.extra.clone())),
        (
            "arrived_at",
            Arc::new(TimestampNanosecondArray::from_iter_values(arrived)) as ArrayRef,
        ),
    ])
    .unwrap();
    let context = SessionContext::new();
    let table = MemTable::try_new(table.schema(), vec![vec![table]]).unwrap();
    context.register_table("bid", Arc::new(table)).unwrap();
    let rows = context
        .sql(case.batch)
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    sorted(&rows.collect().await.unwrap())
}

#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Value {
    Float(f64),
    Text(String),
}

impl Value {
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a == b || (a - b).abs() <= 1e-9 * b.abs(),
            _ => self == other,
        }
    }
}

fn sorted(batches: &[RecordBatch]) -> Vec<Vec<Value>> {
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let column = |column: &ArrayRef| -> Vec<Value> {
            let texts = ArrayFormatter::try_new(column, &options).unwrap();
            let is_float = *column.data_type() == DataType::Float64;
            (0..column.len())
                .map(|row| match is_float && column.is_valid(row) {
                    true => Value::Float(column.as_primitive::<Float64Type>().value(row)),
                    false => Value::Text(texts.value(row).to_string()),
                })
                .collect()
        };
        let columns: Vec<Vec<Value>> = batch.columns().iter().map(column).collect();
        rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()));
    }
    rows.sort_by(|a: &Vec<Value>, b| a.partial_cmp(b).expect("no NaN"));
    rows
}
