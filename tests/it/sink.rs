//! Sinks against a real broker: what they publish is each row once, whoever is killed when.
//!
//! ```text
//! known rows ─▶ topic ─▶ zeta run, killed again and again ─▶ rows, totals ─▶ a reader of committed records ─▶ lost, twice, wrong
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow::{array::RecordBatch, util::display::array_value_to_string};
use arrow_avro::{
    reader::ReaderBuilder,
    schema::{AvroSchema, SchemaStore},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use serde_json::Value;
use zeta::connector::kafka::{
    KafkaProducer,
    admin::{self, TopicPlan},
};

use crate::{
    services::Kafka,
    zeta::{PATIENCE, Zeta, folder, now, signal, until, written},
};

const PARTITIONS: i32 = 3;
const KEYS: u64 = 17;
const FLUSH: Duration = Duration::from_secs(60);

pub fn create(kafka: &Kafka, topic: &str) {
    let plan = TopicPlan {
        name: topic,
        partitions: PARTITIONS,
        replication: 1,
        settings: &[],
    };
    admin::create(&kafka.brokers, &plan).expect("a topic is made");
}

fn key(id: u64) -> String {
    format!("k{}", id % KEYS)
}

/// A number that says much about its id.
fn value(id: u64) -> i64 {
    (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as i64 - (1 << 23)
}

fn record(id: u64) -> String {
    let second = id / 1000 % 3600;
    let time = format!(
        "2024-01-01T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        id % 1000
    );
    format!(r#"{{"id":{id},"k":"{}","v":{},"at":"{time}"}}"#, key(id), value(id))
}

pub fn send(brokers: &str, topic: &str, ids: std::ops::Range<u64>) {
    let mut producer = KafkaProducer::connect(brokers, topic, &[]).expect("the topic is there");
    for id in ids {
        producer
            .send(key(id).as_bytes(), record(id).as_bytes(), 1_704_067_200_000)
            .expect("send");
    }
    producer.flush(FLUSH).expect("flush");
}

/// All rows as they are, and totals per key; `more` are options of both sinks.
pub fn pipeline(input: &str, output: &str, name: &str, more: &str) -> String {
    let source = format!(
        "CREATE SOURCE {name} (id BIGINT, k VARCHAR, v BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '5 seconds')
         WITH (connector = 'kafka', topic = '{name}', 'bootstrap.servers' = '{input}', trigger = '20 ms', idle_timeout = '1 hour');
         CREATE MATERIALIZED VIEW every AS SELECT id, k, v, at FROM {name};
         CREATE MATERIALIZED VIEW totals AS SELECT k, count(*) AS n, sum(id) AS ids, sum(v) AS s, min(v) AS low, max(v) AS high
         FROM {name} GROUP BY k;"
    );
    let sink = |view: &str| {
        format!(
            "CREATE SINK {view}_out FROM {view}
             WITH (connector = 'kafka', topic = '{name}-{view}', 'bootstrap.servers' = '{output}'{more});"
        )
    };
    format!("{source}\n{}\n{}", sink("every"), sink("totals"))
}

/// Committed records of a topic, per partition in their order, and how many there are with those of aborted transactions.
pub struct Published {
    pub records: Vec<(Option<String>, Option<Value>)>,
    pub with_aborted: usize,
}

pub fn published(brokers: &str, topic: &str) -> Published {
    let records = read(brokers, topic, "read_committed");
    Published {
        with_aborted: read(brokers, topic, "read_uncommitted").len(),
        records,
    }
}

fn read(brokers: &str, topic: &str, isolation: &str) -> Vec<(Option<String>, Option<Value>)> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let json = |bytes: Vec<u8>| serde_json::from_slice(&bytes).expect("JSON");
    read_bytes(brokers, topic, isolation)
        .into_iter()
        .map(|(key, value)| (key.map(text), value.map(json)))
        .collect()
}

fn read_bytes(brokers: &str, topic: &str, isolation: &str) -> Vec<(Option<Vec<u8>>, Option<Vec<u8>>)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("a partition");
    }
    consumer.assign(&list).expect("assigned");
    let (mut records, mut ended) = (BTreeMap::<i32, Vec<_>>::new(), BTreeSet::new());
    let began = now();
    while ended.len() < PARTITIONS as usize {
        assert!(began.elapsed() < PATIENCE, "topic {topic} is read to its end");
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let of_partition = records.entry(message.partition()).or_default();
                of_partition.push((message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec)));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => panic!("{topic}: {error}"),
            None => {}
        }
    }
    records.into_values().flatten().collect()
}

/// What is wrong with the published rows of ids `0..count`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    lost: usize,
    duplicated: usize,
    wrong: usize,
}

fn verdict_of_every(published: &Published, count: u64) -> Verdict {
    let mut verdict = Verdict::default();
    let mut seen = vec![0u32; count as usize];
    for (record_key, row) in &published.records {
        let row = row.as_ref().expect("rows are only added");
        let id = row["id"].as_u64().expect("an id");
        let expected: Value = serde_json::from_str(&record(id)).expect("JSON");
        let is_right = record_key.is_none() && id < count && row["k"] == expected["k"] && row["v"] == expected["v"];
        verdict.wrong += usize::from(!is_right);
        if let Some(seen) = seen.get_mut(id as usize) {
            *seen += 1;
        }
    }
    verdict.lost = seen.iter().filter(|times| **times == 0).count();
    verdict.duplicated = seen.iter().filter(|times| 1 < **times).count();
    verdict
}

/// Every update of a key says more than the one before, and the last one says all.
fn verdict_of_totals(published: &Published, count: u64) -> Verdict {
    let mut verdict = Verdict::default();
    let mut last: BTreeMap<String, Value> = BTreeMap::new();
    for (key, row) in &published.records {
        let key = key.clone().expect("updates have keys");
        let row = row.clone().expect("no group goes");
        let before = last.get(&key).map_or(0, |row| row["n"].as_u64().expect("a count"));
        match row["n"].as_u64().expect("a count") {
            n if n == before => verdict.duplicated += 1,
            n if n < before => verdict.wrong += 1,
            _ => {}
        }
        last.insert(key, row);
    }
    for of_key in 0..KEYS.min(count) {
        let ids: Vec<u64> = (of_key..count).step_by(KEYS as usize).collect();
        let values = ids.iter().map(|id| value(*id));
        let expected = serde_json::json!({
            "k": key(of_key),
            "n": ids.len(),
            "ids": ids.iter().sum::<u64>(),
            "s": values.clone().sum::<i64>(),
            "low": values.clone().min(),
            "high": values.max(),
        });
        match last.get(&serde_json::json!({"k": key(of_key)}).to_string()) {
            None => verdict.lost += 1,
            Some(found) if *found != expected => verdict.wrong += 1,
            Some(_) => {}
        }
    }
    verdict
}

#[track_caller]
pub fn assert_right(brokers: &str, name: &str, count: u64) -> [Published; 2] {
    let every = published(brokers, &format!("{name}-every"));
    let totals = published(brokers, &format!("{name}-totals"));
    assert_eq!(verdict_of_every(&every, count), Verdict::default(), "rows as they are");
    assert_eq!(verdict_of_totals(&totals, count), Verdict::default(), "totals");
    [every, totals]
}

#[track_caller]
pub fn until_published(zeta: &Zeta) {
    let source_epoch = || {
        let sinks = zeta.rows("SHOW SINKS");
        let sources = zeta.get("/metrics").expect(200);
        let staged: f64 = (sources.text().lines())
            .filter(|line| line.starts_with("zeta_sink_staged_epochs{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        (sinks, staged)
    };
    until("all is published", || {
        let (sinks, staged) = source_epoch();
        // A sink that has begun has published an epoch, if only that it begins.
        let is_running =
            (sinks.iter()).all(|sink| sink[3] == "running" && sink[4].as_u64().is_some_and(|epoch| 0 < epoch));
        match is_running && staged == 0.0 {
            true => Ok(()),
            false => Err(format!("{staged} epochs staged, {sinks:?}")),
        }
    });
}

pub fn outputs(kafka: &Kafka, name: &str) {
    create(kafka, &format!("{name}-every"));
    create(kafka, &format!("{name}-totals"));
}

pub fn start(file: &Path, state: &Path) -> Zeta {
    Zeta::run(file).state(state).start()
}

#[track_caller]
pub fn until_read(zeta: &Zeta, name: &str, count: u64) {
    zeta.until_source(name, "all rows", |source| count <= source.rows());
    until_published(zeta);
}

#[test]
fn rows_and_updates_are_published_once_over_clean_stops_and_kills() {
    let kafka = Kafka::shared();
    let (name, state) = ("sink_once", folder("state"));
    create(kafka, name);
    outputs(kafka, name);
    let file = written(&pipeline(&kafka.brokers, &kafka.brokers, name, ""));
    send(&kafka.brokers, name, 0..10_000);
    let zeta = start(&file, &state);
    until_read(&zeta, name, 10_000);
    assert_right(&kafka.brokers, name, 10_000);
    send(&kafka.brokers, name, 10_000..11_000);
    let began = now();
    assert!(zeta.stop().success());
    assert!(began.elapsed() < Duration::from_secs(10), "a stop drains and ends");
    let zeta = start(&file, &state);
    let running = zeta.until_source(name, "it runs", |source| source.state() == "running");
    assert!(
        !zeta.log().contains("journal replayed"),
        "a clean stop leaves nothing to replay"
    );
    assert!(running.rows() <= 11_000);
    send(&kafka.brokers, name, 11_000..12_000);
    until_read(&zeta, name, 12_000);
    zeta.kill();
    let zeta = start(&file, &state);
    until_read(&zeta, name, 12_000);
    send(&kafka.brokers, name, 12_000..12_010);
    until_read(&zeta, name, 12_010);
    assert_right(&kafka.brokers, name, 12_010);
}

#[test]
fn killed_at_any_moment_it_publishes_each_row_once() {
    let kafka = Kafka::shared();
    let kills: u32 = std::env::var("ZETA_KILLS").map_or(15, |kills| kills.parse().expect("ZETA_KILLS is a number"));
    let seed: u64 = std::env::var("ZETA_SEED").map_or(2024, |seed| seed.parse().expect("ZETA_SEED is a number"));
    println!("ZETA_SEED={seed} ZETA_KILLS={kills}");
    // Campaigns add to what is there: each has topics of its own.
    let (name, state) = (format!("sink_killed_{seed}"), folder("state"));
    create(kafka, &name);
    outputs(kafka, &name);
    let file = written(&pipeline(&kafka.brokers, &kafka.brokers, &name, ""));

    let is_over = Arc::new(AtomicBool::new(false));
    let sender = {
        let (is_over, brokers, name) = (Arc::clone(&is_over), kafka.brokers.clone(), name.clone());
        std::thread::spawn(move || {
            let mut sent = 0;
            while !is_over.load(Ordering::Relaxed) {
                send(&brokers, &name, sent..sent + 500);
                sent += 500;
                std::thread::sleep(Duration::from_millis(50));
            }
            sent
        })
    };
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..kills {
        let zeta = start(&file, &state);
        // Some die while they recover, which takes brokers a second or two where a transaction was open, some in the middle of their work.
        std::thread::sleep(Duration::from_millis(random.random_range(0..4000)));
        zeta.kill();
    }
    is_over.store(true, Ordering::Relaxed);
    let count = sender.join().expect("the sender ends");
    let zeta = start(&file, &state);
    until_read(&zeta, &name, count);
    let every = published(&kafka.brokers, &format!("{name}-every"));
    let totals = published(&kafka.brokers, &format!("{name}-totals"));
    let verdicts = [verdict_of_every(&every, count), verdict_of_totals(&totals, count)];
    let aborted = every.with_aborted - every.records.len() + totals.with_aborted - totals.records.len();
    let sum = |of: fn(&Verdict) -> usize| verdicts.iter().map(of).sum::<usize>();
    let (lost, duplicated, wrong) = (sum(|v| v.lost), sum(|v| v.duplicated), sum(|v| v.wrong));
    let line = format!(
        "{seed},{kills},{count},{},{lost},{duplicated},{wrong},{aborted}",
        every.records.len()
    );
    println!("seed,kills,rows_in,rows_out,lost,duplicated,wrong,aborted\n{line}");
    if let Some(path) = std::env::var_os("ZETA_CHAOS_CSV").map(PathBuf::from) {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("the campaign's file");
        writeln!(file, "{line}").expect("a line is written");
    }
    assert_eq!((lost, duplicated, wrong), (0, 0, 0), "{verdicts:?}");
}

#[test]
fn a_sink_that_is_added_later_begins_with_all_rows_of_its_view() {
    let kafka = Kafka::shared();
    let (name, state) = ("sink_later", folder("state"));
    create(kafka, name);
    outputs(kafka, name);
    let whole = pipeline(&kafka.brokers, &kafka.brokers, name, "");
    let at = whole.find("CREATE SINK").expect("sinks stand last");
    send(&kafka.brokers, name, 0..3_000);
    let zeta = start(&written(&whole[..at]), &state);
    zeta.until_source(name, "all rows", |source| 3_000 <= source.rows());
    zeta.kill();
    send(&kafka.brokers, name, 3_000..4_000);
    let zeta = start(&written(&whole), &state);
    until_read(&zeta, name, 4_000);
    zeta.kill();
    send(&kafka.brokers, name, 4_000..5_000);
    let zeta = start(&written(&whole), &state);
    until_read(&zeta, name, 5_000);
    assert_right(&kafka.brokers, name, 5_000);
}

#[test]
fn of_two_zetas_with_one_state_the_older_stops_publishing() {
    let kafka = Kafka::shared();
    let (name, state) = ("sink_fenced", folder("state"));
    create(kafka, name);
    outputs(kafka, name);
    let file = written(&pipeline(&kafka.brokers, &kafka.brokers, name, ""));
    send(&kafka.brokers, name, 0..1_000);
    let older = start(&file, &state);
    until_read(&older, name, 1_000);
    // It sleeps while the other takes over.
    signal(&older, "STOP");
    // A copy of the state, which the lock of the other cannot guard.
    let copy = folder("copy").join("state");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(&state)
        .arg(&copy)
        .status();
    assert!(copied.expect("cp runs").success());
    let newer = start(&file, &copy);
    until_published(&newer);
    send(&kafka.brokers, name, 1_000..2_000);
    until_read(&newer, name, 2_000);
    signal(&older, "CONT");
    let failed = until("the older one is told", || {
        let source = older.source(name);
        match source.state() {
            "failed" => Ok(source),
            _ => Err(source.0.to_string()),
        }
    });
    let reason = failed.reason().to_owned();
    assert!(reason.contains("another zeta publishes as sink"), "{reason}");
    assert_right(&kafka.brokers, name, 2_000);
}

#[test]
fn what_another_state_published_is_not_published_twice_unless_asked_for() {
    let kafka = Kafka::shared();
    let (name, state) = ("sink_anew", folder("state"));
    create(kafka, name);
    outputs(kafka, name);
    let file = written(&pipeline(&kafka.brokers, &kafka.brokers, name, ""));
    send(&kafka.brokers, name, 0..500);
    let zeta = start(&file, &state);
    until_read(&zeta, name, 500);
    zeta.kill();
    let zeta = start(&file, &folder("another"));
    let failed = until("it says why it does not publish", || {
        let source = zeta.source(name);
        match source.state() {
            "failed" => Ok(source),
            _ => Err(source.0.to_string()),
        }
    });
    let reason = failed.reason().to_owned();
    assert!(
        reason.contains("of another state is published there") && reason.contains("--reset"),
        "{reason}"
    );
    assert_right(&kafka.brokers, name, 500);
    zeta.kill();
    let zeta = Zeta::run(&file).state(&state).arg("--reset").start();
    until_read(&zeta, name, 500);
    zeta.kill();
    let zeta = start(&file, &state);
    until_read(&zeta, name, 500);
    let every = published(&kafka.brokers, &format!("{name}-every"));
    assert_eq!(every.records.len(), 1_000, "all rows anew, as asked for");
}

#[test]
fn while_the_brokers_of_a_sink_are_down_its_epochs_wait_and_then_come_in_order() {
    let input = Kafka::shared();
    let mut output = Kafka::start();
    let (name, state) = ("sink_outage", folder("state"));
    create(input, name);
    outputs(&output, name);
    let file = written(&pipeline(&input.brokers, &output.brokers, name, ""));
    let zeta = start(&file, &state);
    send(&input.brokers, name, 0..2_000);
    until_read(&zeta, name, 2_000);
    for round in 1..=2 {
        output.kill();
        send(&input.brokers, name, round * 2_000..(round + 1) * 2_000);
        zeta.until_source(name, "views go on", |source| (round + 1) * 2_000 <= source.rows());
        until("the sink says that nobody answers", || {
            let sinks = zeta.rows("SHOW SINKS");
            match sinks
                .iter()
                .any(|sink| sink[3] == "unreachable" && sink[5].to_string().contains("unreachable since"))
            {
                true => Ok(()),
                false => Err(format!("{sinks:?}")),
            }
        });
        output.up();
        until_read(&zeta, name, (round + 1) * 2_000);
    }
    assert_right(&output.brokers, name, 6_000);
}

#[test]
fn debezium_records_tell_what_was_before() {
    let kafka = Kafka::shared();
    let (name, state) = ("sink_debezium", folder("state"));
    create(kafka, name);
    outputs(kafka, name);
    let file = written(&pipeline(&kafka.brokers, &kafka.brokers, name, ", format = 'debezium'"));
    send(&kafka.brokers, name, 0..KEYS);
    let zeta = start(&file, &state);
    until_read(&zeta, name, KEYS);
    send(&kafka.brokers, name, KEYS..2 * KEYS);
    until_read(&zeta, name, 2 * KEYS);
    let totals = published(&kafka.brokers, &format!("{name}-totals"));
    let mut last: BTreeMap<String, Value> = BTreeMap::new();
    for (key, value) in totals.records {
        let (key, value) = (key.expect("a key"), value.expect("a value"));
        let before = last.get(&key).map_or(Value::Null, |last| last["after"].clone());
        assert_eq!(value["before"], before, "{key}");
        assert_eq!(value["op"], if before.is_null() { "c" } else { "u" });
        last.insert(key, value);
    }
    assert_eq!(last.len() as u64, KEYS);
    assert!(last.values().all(|last| last["after"]["n"] == 2), "{last:?}");
}

/// The row of a record, as a reader sees it who has the schema.
fn of_avro(schema: &str, record: &[u8]) -> RecordBatch {
    let mut store = SchemaStore::new();
    store.register(AvroSchema::new(schema.to_owned())).expect("a schema");
    let decoder = ReaderBuilder::new().with_writer_schema_store(store).build_decoder();
    let mut decoder = decoder.expect("a decoder");
    assert_eq!(decoder.decode(record).expect("a record of this schema"), record.len());
    let row = decoder.flush().expect("a row").expect("a row");
    assert_eq!(row.num_rows(), 1);
    row
}

#[test]
fn avro_records_are_read_by_the_schemas_that_describe_shows() {
    let kafka = Kafka::shared();
    let (name, state) = ("sink_avro", folder("state"));
    create(kafka, name);
    outputs(kafka, name);
    let file = written(&pipeline(&kafka.brokers, &kafka.brokers, name, ", format = 'avro'"));
    send(&kafka.brokers, name, 0..KEYS);
    let zeta = start(&file, &state);
    until_read(&zeta, name, KEYS);
    send(&kafka.brokers, name, KEYS..2 * KEYS);
    until_read(&zeta, name, 2 * KEYS);
    let schema_of = |sink: &str, part: &str| {
        let described = zeta.rows(&format!("DESCRIBE {sink}"));
        let row = described.iter().find(|row| row[0] == part);
        row.and_then(|row| row[1].as_str()).map(str::to_owned)
    };
    assert_eq!(
        schema_of("every_out", "key"),
        None,
        "rows that are only added have no key"
    );
    let of_every = schema_of("every_out", "value").expect("a schema");
    let every = read_bytes(&kafka.brokers, &format!("{name}-every"), "read_committed");
    let cell = |row: &RecordBatch, column: &str| {
        let column = row.column_by_name(column).expect("a column");
        array_value_to_string(column, 0).expect("text")
    };
    let ids: BTreeSet<String> = every
        .iter()
        .map(|(_, value)| cell(&of_avro(&of_every, value.as_ref().expect("a row")), "id"))
        .collect();
    assert_eq!(every.len(), ids.len(), "each once");
    assert_eq!(ids, (0..2 * KEYS).map(|id| id.to_string()).collect());

    let of_key = schema_of("totals_out", "key").expect("a schema");
    let of_value = schema_of("totals_out", "value").expect("a schema");
    let mut last = BTreeMap::new();
    for (key, value) in read_bytes(&kafka.brokers, &format!("{name}-totals"), "read_committed") {
        let key = of_avro(&of_key, &key.expect("updates have keys"));
        let row = of_avro(&of_value, &value.expect("no group goes"));
        assert_eq!(cell(&key, "k"), cell(&row, "k"));
        last.insert(cell(&key, "k"), ["n", "ids", "s"].map(|column| cell(&row, column)));
    }
    let expected: BTreeMap<String, [String; 3]> = (0..KEYS)
        .map(|id| {
            let of_ids = [2, id + id + KEYS].map(|number| number.to_string());
            let [n, ids] = of_ids;
            (key(id), [n, ids, (value(id) + value(id + KEYS)).to_string()])
        })
        .collect();
    assert_eq!(last, expected);
}
