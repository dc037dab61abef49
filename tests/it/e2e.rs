//! The whole way, as in production: `zeta generate`, `zeta replay`, a real Kafka, `zeta run`, HTTP; and DuckDB has the last word.
//!
//! ```text
//! Parquet ─▶ zeta replay ─▶ Kafka, 4 partitions ─▶ zeta run sql/candles.sql ─▶ candles_5m ┐
//!    └────▶ DuckDB, in one go ────────────────────────────────────────────▶ the same rows ┘
//! ```

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use arrow::datatypes::Schema;
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use zeta::{
    connector::kafka::admin::{self, TopicPlan},
    types::format_event_time,
};

use crate::{
    oracle::{self, Table},
    services::Kafka,
    zeta::{Background, Start, Zeta, dataset, edited, folder, text, until, zeta},
};

const PARTITIONS: i32 = 4;
const PAIRS: u32 = 20;
const MINUTE_NS: i64 = 60_000_000_000;
const HOUR_NS: i64 = 60 * MINUTE_NS;
/// 2024-01-01, where the data begins.
const START_NS: i64 = 1_704_067_200_000_000_000;
const SELECT: &str = "SELECT * FROM candles_5m ORDER BY symbol, window_start";

/// Rows of the large tests, as whole days.
fn days() -> u32 {
    let rows = std::env::var("ZETA_E2E_ROWS").map_or(200_000, |rows| rows.parse().expect("ZETA_E2E_ROWS is a number"));
    u32::div_ceil(rows, PAIRS * 1_440)
}

fn rows() -> u64 {
    u64::from(PAIRS * 1_440 * days())
}

fn candles() -> &'static Path {
    static CANDLES: OnceLock<PathBuf> = OnceLock::new();
    CANDLES.get_or_init(|| dataset(PAIRS, days(), "2024-01-01"))
}

fn expected(like: &Schema) -> &'static Table {
    static EXPECTED: OnceLock<Table> = OnceLock::new();
    EXPECTED.get_or_init(|| oracle::ask(oracle::CANDLES, candles(), like))
}

fn create(brokers: &str, topic: &str, partitions: i32) {
    admin::create(
        brokers,
        &TopicPlan {
            name: topic,
            partitions,
            replication: 1,
            settings: &[],
        },
    )
    .expect("a topic is made");
}

fn replay(brokers: &str, topic: &str, dataset: &Path, more: &[&str]) {
    let arguments = ["replay", text(dataset), "--topic", topic, "--brokers", brokers];
    zeta(&[&arguments, more].concat()).expect(0);
}

/// `sql/candles.sql` on a topic of the test's own.
fn candles_of(topic: &str, more: &[(&str, &str)]) -> PathBuf {
    let of_topic = format!("topic = '{topic}'");
    edited(
        "sql/candles.sql",
        &[&[("topic = 'candles'", of_topic.as_str())], more].concat(),
    )
}

fn run(file: &Path, brokers: &str, history: &Path) -> Start {
    Zeta::run(file).env("KAFKA", brokers).env("HISTORY", text(history))
}

/// The view as it stands, which must be what DuckDB makes of the dataset.
#[track_caller]
fn assert_candles(zeta: &Zeta) {
    let batches = zeta.query(SELECT);
    let found = Table::of(&batches);
    assert_eq!(
        found.rows.len() as u64,
        rows() / 5,
        "a candle of five minutes is made of five"
    );
    found.assert_same(expected(&batches[0].schema()));
}

#[test]
fn candles_from_kafka_are_those_of_a_batch_over_the_same_rows() {
    let kafka = Kafka::shared();
    create(&kafka.brokers, "candles", PARTITIONS);
    replay(&kafka.brokers, "candles", candles(), &["--max"]);

    let zeta = run(Path::new("sql/candles.sql"), &kafka.brokers, candles())
        .state(&folder("state"))
        .start();
    let source = zeta.until_source("candles", "all rows", |source| rows() <= source.rows());
    assert_eq!(
        (source.rows(), source.number("bad_rows"), source.number("late_rows")),
        (rows(), 0, 0)
    );
    assert_eq!(source.0["splits"].as_array().expect("splits").len(), 4);
    assert_candles(&zeta);
    let first_and_last = zeta.rows("SELECT min(window_start), max(window_end) FROM candles_5m");
    let end = START_NS + i64::from(days()) * 24 * HOUR_NS;
    assert_eq!(
        first_and_last,
        [serde_json::json!([format_event_time(START_NS), format_event_time(end)])]
    );
    assert!(zeta.stop().success());
}

#[test]
fn candles_from_kafka_3_with_zookeeper_are_the_same() {
    let kafka = Kafka::start_with_zookeeper();
    let dataset = dataset(3, 1, "2024-01-01");
    replay(&kafka.brokers, "candles", &dataset, &["--max", "--create-topic", "4"]);

    let zeta = run(Path::new("sql/candles.sql"), &kafka.brokers, &dataset)
        .state(&folder("state"))
        .start();
    zeta.until_source("candles", "all rows", |source| source.rows() == 3 * 1_440);
    let batches = zeta.query(SELECT);
    Table::of(&batches).assert_same(&oracle::ask(oracle::CANDLES, &dataset, &batches[0].schema()));
}

/// The dataset in a topic, with things among its rows that should not be there.
struct Disturbed {
    topic: &'static str,
    /// Partition and offset of each malformed message.
    bad: BTreeSet<(i32, u64)>,
    /// Symbol and event time of each late row.
    late: BTreeSet<(String, i64)>,
}

/// Messages that are no rows of the source, and a word of the reason that must be given.
fn malformed() -> Vec<(Option<Vec<u8>>, &'static str)> {
    let row = |row: &str| Some(row.as_bytes().to_vec());
    vec![
        (row("not json"), "expected"),
        (row(""), "empty"),
        (None, "no value"),
        (
            row(r#"{"symbol":"ADA-USDT","open_time":"2024-01-01T00:00:00Z","open":1.0"#),
            "end",
        ),
        (row(r#"{"open_time":"2024-01-01T00:00:00Z","open":1.0}"#), "symbol"),
        (row(r#"{"symbol":null,"open_time":"2024-01-01T00:00:00Z"}"#), "symbol"),
        (row(r#"{"symbol":"ADA-USDT","open":1.0}"#), "open_time"),
        (row(r#"{"symbol":"ADA-USDT","open_time":"yesterday"}"#), "open_time"),
        (
            row(r#"{"symbol":"ADA-USDT","open_time":"2024-01-01T00:00:00Z","high":"much"}"#),
            "high",
        ),
        (
            row(r#"{"symbol":["ADA-USDT"],"open_time":"2024-01-01T00:00:00Z"}"#),
            "symbol",
        ),
        (
            row(r#"[{"symbol":"ADA-USDT","open_time":"2024-01-01T00:00:00Z"}]"#),
            "array",
        ),
        (
            Some(b"{\"symbol\":\"\xff\xfe\",\"open_time\":\"2024-01-01T00:00:00Z\"}".to_vec()),
            "UTF-8",
        ),
        (
            row(r#"{"symbol":"ADA-USDT","open_time":"2100-01-01T00:00:00Z"}"#),
            "ahead",
        ),
    ]
}

const MALFORMED: usize = 37;

fn disturbed() -> &'static Disturbed {
    static DISTURBED: OnceLock<Disturbed> = OnceLock::new();
    DISTURBED.get_or_init(|| {
        let kafka = Kafka::shared();
        let (brokers, topic) = (kafka.brokers.as_str(), "disturbed");
        create(brokers, topic, PARTITIONS);
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a producer");
        let send = |partition: i32, value: Option<&[u8]>| {
            let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition).key(b"anybody");
            producer.send(value.into_iter().fold(record, BaseRecord::payload)).map_err(|(error, _)| error).expect("send");
        };
        let mut disturbed = Disturbed { topic, bad: BTreeSet::new(), late: BTreeSet::new() };
        let mut kinds = malformed().into_iter().cycle();
        // The dataset in five parts; after each part, every partition gets its share of trouble.
        let parts = 5;
        let end = START_NS + i64::from(days()) * 24 * HOUR_NS;
        for part in 0..parts {
            let at = |part: i64| format_event_time(START_NS + (end - START_NS) / (parts * MINUTE_NS) * part * MINUTE_NS);
            let (from, to) = (at(part), if part + 1 == parts { format_event_time(end) } else { at(part + 1) });
            replay(brokers, topic, candles(), &["--max", "--from", &from, "--to", &to]);
            for partition in admin::describe(brokers, topic).expect("describe").partitions {
                let mut offset = partition.high.cast_unsigned();
                for _ in 0..2 {
                    if disturbed.bad.len() < MALFORMED {
                        send(partition.partition, kinds.next().expect("endless").0.as_deref());
                        disturbed.bad.insert((partition.partition, offset));
                        offset += 1;
                    }
                }
                // An hour before the rows that this partition just got: its five minutes are over.
                let symbol = format!("LATE{part}-{}", partition.partition);
                let event_time = oracle::nanos(&to) - HOUR_NS;
                let row = format!(
                    r#"{{"symbol":"{symbol}","open_time":"{}","open":1,"high":99999999,"low":0.00001,"close":1,"volume":1}}"#,
                    format_event_time(event_time)
                );
                send(partition.partition, Some(row.as_bytes()));
                disturbed.late.insert((symbol, event_time));
                // And one that would change a candle that is closed.
                send(partition.partition, Some(row.replace(&format!("LATE{part}-{}", partition.partition), "BTC-USDT").as_bytes()));
                disturbed.late.insert(("BTC-USDT".into(), event_time));
            }
            producer.flush(Duration::from_secs(30)).expect("flush");
        }
        assert_eq!(disturbed.bad.len(), MALFORMED);
        disturbed
    })
}

/// Late rows in all: one with a name of its own and one of a known pair after each part, in each partition.
const LATE: u64 = 5 * 4 * 2;

fn run_disturbed(edits: &[(&str, &str)]) -> Zeta {
    let disturbed = disturbed();
    let file = candles_of(disturbed.topic, edits);
    let zeta = run(&file, &Kafka::shared().brokers, candles())
        .state(&folder("state"))
        .start();
    zeta.until_source("candles", "all messages", |source| {
        rows() + LATE + MALFORMED as u64 <= source.read()
    });
    zeta
}

#[test]
fn a_malformed_message_costs_itself_and_is_kept_with_its_place_and_reason() {
    let disturbed = disturbed();
    let zeta = run_disturbed(&[]);
    let source = zeta.source("candles");
    assert_eq!(source.number("bad_rows"), MALFORMED as u64);
    assert_candles(&zeta);

    let bad = zeta.rows(r#"SELECT split, position, reason FROM "candles$bad" ORDER BY split, position"#);
    let places: BTreeSet<(i32, u64)> = bad
        .iter()
        .map(|row| {
            (
                row[0].as_str().expect("text").parse().expect("a partition"),
                row[1].as_u64().expect("an offset"),
            )
        })
        .collect();
    assert_eq!(bad.len(), MALFORMED, "each once");
    assert_eq!(places, disturbed.bad);
    for (_, word) in malformed() {
        assert!(
            bad.iter().any(|row| row[2].as_str().expect("text").contains(word)),
            "no reason says {word}: {bad:#?}"
        );
    }
    assert!(
        zeta.get("/metrics")
            .text()
            .contains(r#"bad_records_total{source="candles"} 37"#),
        "{}",
        zeta.get("/metrics").text()
    );
}

#[test]
fn late_rows_are_counted_and_kept_and_change_no_closed_candle_whatever_the_trigger() {
    let disturbed = disturbed();
    for trigger in ["", ", trigger = '0'", ", trigger = '2 seconds'"] {
        let option = format!("idle_timeout = '30 seconds'{trigger}");
        let zeta = run_disturbed(&[("idle_timeout = '30 seconds'", &option)]);
        let source = zeta.source("candles");
        assert_eq!(
            (source.rows(), source.number("late_rows")),
            (rows() + LATE, LATE),
            "trigger {trigger}"
        );
        assert_candles(&zeta);
        let late = Table::of(&zeta.query(r#"SELECT * FROM "candles_5m$late""#));
        let column = |name: &str| {
            late.columns
                .iter()
                .position(|column| column == name)
                .unwrap_or_else(|| panic!("no {name}: {late:?}"))
        };
        assert_eq!(late.rows.len() as u64, LATE, "each once");
        let (symbol, event_time, start, end) = (
            column("symbol"),
            column("open_time"),
            column("window_start"),
            column("window_end"),
        );
        let mut kept = BTreeSet::new();
        for row in &late.rows {
            let [
                oracle::Cell::Text(symbol),
                oracle::Cell::Time(at),
                oracle::Cell::Time(start),
                oracle::Cell::Time(end),
            ] = [symbol, event_time, start, end].map(|column| row[column].clone())
            else {
                panic!("a late row without symbol or times: {row:?}")
            };
            assert!(
                start <= at && at < end && end - start == 5 * MINUTE_NS,
                "the window that it missed: {row:?}"
            );
            kept.insert((symbol, at));
        }
        assert_eq!(kept, disturbed.late, "trigger {trigger}");
    }
}

#[test]
fn killed_again_and_again_it_goes_on_where_it_was_and_counts_nothing_twice() {
    let kafka = Kafka::shared();
    create(&kafka.brokers, "killed-zeta", PARTITIONS);
    let (file, state) = (candles_of("killed-zeta", &[]), folder("state"));
    // As long as it takes, but not so quick that nothing is left to kill.
    let rate = (rows() / 10).to_string();
    let arguments = [
        "replay",
        text(candles()),
        "--topic",
        "killed-zeta",
        "--brokers",
        &kafka.brokers,
        "--rate",
        &rate,
    ];
    let replay = Background::start(&arguments);
    let start = || run(&file, &kafka.brokers, candles()).state(&state).start();

    let mut zeta = start();
    let mut before = (0, 0);
    let mut at_checkpoint = 0;
    for (percent, is_clean) in [(20, false), (35, false), (45, true), (60, false)] {
        let seen = zeta.until_source("candles", &format!("{percent} % of the rows"), |source| {
            source.state() == "running" && before.0 <= source.epoch() && rows() * percent / 100 <= source.rows()
        });
        assert!(seen.rows() < rows() * 8 / 10, "killed in the middle: {}", seen.0);
        before = (seen.epoch(), seen.rows());
        if is_clean {
            assert!(zeta.stop().success());
            at_checkpoint = seen.rows();
        } else {
            zeta.kill();
        }
        zeta = start();
        let resumed = zeta.until_source("candles", "what was committed before", |source| {
            source.state() == "running"
        });
        assert!(
            before <= (resumed.epoch(), resumed.rows()),
            "what was shown before {before:?} stays: {}",
            resumed.0
        );
    }
    replay.finish().expect(0);
    let source = zeta.until_source("candles", "all rows", |source| rows() <= source.rows());
    assert_eq!(
        (source.rows(), source.number("bad_rows"), source.number("late_rows")),
        (rows(), 0, 0)
    );
    let positions: u64 = source.0["splits"]
        .as_array()
        .expect("splits")
        .iter()
        .map(|split| split["position"].as_u64().expect("a number"))
        .sum();
    assert_eq!(positions, rows());
    assert_candles(&zeta);
    // The last start took up the checkpoint of the clean stop: what was before it was not read again.
    let metrics = zeta.get("/metrics").expect(200);
    let read: f64 = metrics
        .text()
        .lines()
        .filter(|line| line.contains("source_rows_total{"))
        .map(|line| {
            line.rsplit(' ')
                .next()
                .expect("a value")
                .parse::<f64>()
                .expect("a number")
        })
        .sum();
    assert!(
        read <= (rows() - at_checkpoint) as f64,
        "{read} rows were read after a checkpoint at {at_checkpoint} of {}",
        rows()
    );
}

#[test]
fn the_number_of_trades_per_minute_and_in_all_is_the_same_by_micro_batch_and_by_event() {
    let kafka = Kafka::shared();
    // More trades than 16 bits count.
    let dataset = dataset(5, 2, "2024-01-01");
    let messages = 5 * 2 * 1_440;
    replay(
        &kafka.brokers,
        "test_topic_1",
        &dataset,
        &["--max", "--column", "number_of_trades", "--bare", "--create-topic", "1"],
    );
    let micro_batch = edited(
        "sql/trades_sum.sql",
        &[("trigger = '60 seconds'", "trigger = '2 seconds'")],
    );
    let started = [micro_batch.as_path(), Path::new("sql/trades_sum_per_event.sql")].map(|file| {
        Zeta::run(file)
            .env("KAFKA", &kafka.brokers)
            .state(&folder("state"))
            .start()
    });
    for zeta in &started {
        until("the last message in the total", || {
            let total = zeta.rows("SELECT messages FROM trades_total");
            if total == [serde_json::json!([messages])] {
                Ok(())
            } else {
                Err(format!("{total:?}"))
            }
        });
        for (found, expected) in [
            (
                "SELECT * FROM trades_per_minute ORDER BY window_start",
                "SELECT date_trunc('minute', open_time) AS window_start, window_start + INTERVAL 1 MINUTE AS window_end,
                    sum(number_of_trades::BIGINT)::BIGINT AS number_of_trades
                 FROM read_parquet(getvariable('dataset') || '/*.parquet') GROUP BY ALL ORDER BY window_start",
            ),
            (
                "SELECT * FROM trades_total",
                "SELECT sum(number_of_trades::BIGINT)::BIGINT AS number_of_trades, count(*) AS messages
                 FROM read_parquet(getvariable('dataset') || '/*.parquet')",
            ),
        ] {
            let batches = until("the last minute", || {
                let batches = zeta.query(found);
                let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
                if rows == 1 || rows == 2 * 1_440 { Ok(batches) } else { Err(format!("{rows} rows")) }
            });
            Table::of(&batches).assert_same(&oracle::ask(expected, &dataset, &batches[0].schema()));
        }
    }
    let total = started[0].rows("SELECT number_of_trades FROM trades_total");
    assert!(
        i64::from(u16::MAX) < total[0][0].as_i64().expect("a number"),
        "beyond 16 bits: {total:?}"
    );
}
