//! A pipeline at full rate for a long time, with a fault every ten seconds: what it holds of the machine does not grow.
//!
//! ```text
//! sender ─▶ topic ─▶ zeta run ─▶ totals ─▶ topic        freeze the broker ▸ freeze Zeta ▸ kill the broker ▸ …
//!                       └─ every few seconds: memory, file descriptors, threads, disk
//! ```

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use zeta::{
    connector::kafka::{
        KafkaProducer,
        admin::{self, TopicPlan},
    },
    runtime::clock::{Clock, SystemClock},
};

use crate::{
    fault::number_of,
    services::Kafka,
    sink::until_published,
    zeta::{Zeta, folder, now, signal, until, written},
};

const FAULT_EVERY: Duration = Duration::from_secs(10);
const FROZEN_FOR: Duration = Duration::from_secs(3);
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// Rows that are sent and not read yet, at most: what retention takes was read long before.
const LAG_MAX: u64 = 300_000;
const BATCH: u64 = 20_000;
const KEYS: usize = 17;

#[derive(Clone, Copy, Debug)]
struct Sample {
    memory_mb: u64,
    files: u64,
    threads: u64,
    disk_mb: u64,
}

impl Sample {
    fn of(zeta: &Zeta, state: &Path) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", zeta.pid())).expect("it runs");
        let number = |name: &str| -> u64 {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .expect("a line of the status");
            line.split_whitespace()
                .next()
                .expect("a number")
                .parse()
                .expect("a number")
        };
        Self {
            memory_mb: number("VmRSS:") >> 10,
            files: fs::read_dir(format!("/proc/{}/fd", zeta.pid()))
                .expect("it runs")
                .count() as u64,
            threads: number("Threads:"),
            disk_mb: size_of_folder(state) >> 20,
        }
    }
}

fn size_of_folder(folder: &Path) -> u64 {
    // What is removed meanwhile has no size.
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    (entries.flatten())
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of_folder(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The middle of a figure over some samples.
fn median(samples: &[Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// What was sent of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    rows: u64,
    ids: u64,
    highest: u64,
}

/// Sends ids from 0 on, of the time at which they are sent, and never more than a lag before `read`.
fn send_until(brokers: &str, topic: &str, read: &AtomicU64, is_over: &AtomicBool) -> [Total; KEYS] {
    let clock = SystemClock::default();
    let mut totals = [Total::default(); KEYS];
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        if read.load(Ordering::Relaxed) + LAG_MAX < sent {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let mut producer = until("a broker", || {
            KafkaProducer::connect(brokers, topic, &[]).map_err(|error| error.to_string())
        });
        let now = clock.now();
        for id in sent..sent + BATCH {
            let number = id as usize % KEYS;
            let (key, value) = (format!("k{number}"), id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40);
            let record = format!(r#"{{"id":{id},"k":"{key}","v":{value},"at":"{now}"}}"#);
            producer
                .send(key.as_bytes(), record.as_bytes(), now.0 / 1_000_000)
                .expect("send");
            let total = &mut totals[number];
            (total.rows, total.ids, total.highest) = (total.rows + 1, total.ids + id, total.highest.max(value));
        }
        producer.flush(Duration::from_secs(120)).expect("brokers come back");
        sent += BATCH;
    }
    totals
}

#[test]
fn what_a_pipeline_holds_does_not_grow_however_long_it_runs_under_faults() {
    let minutes = number_of("ZETA_SOAK_MINUTES", 0);
    let mut kafka = Kafka::start();
    let (name, state) = ("soak", folder("state"));
    let settings = [("segment.bytes", "52428800"), ("retention.bytes", "314572800")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for topic in [name.to_owned(), format!("{name}-totals")] {
        let plan = TopicPlan {
            name: &topic,
            partitions: 3,
            replication: 1,
            settings: &settings,
        };
        admin::create(&kafka.brokers, &plan).expect("a topic is made");
    }
    let brokers = &kafka.brokers;
    let pipeline = format!(
        "CREATE SOURCE {name} (id BIGINT, k VARCHAR, v BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '5 seconds')
         WITH (connector = 'kafka', topic = '{name}', 'bootstrap.servers' = '{brokers}', 'properties.socket.timeout.ms' = '6000');
         CREATE MATERIALIZED VIEW totals AS SELECT k, count(*) AS n, sum(id) AS ids, max(v) AS high FROM {name} GROUP BY k;
         CREATE MATERIALIZED VIEW recent AS SELECT id, k FROM {name} WHERE at > now() - INTERVAL '2 seconds' AND id % 100 = 0;
         CREATE MATERIALIZED VIEW windows AS SELECT k, window_end, count(*) AS n, max(v) AS high
         FROM HOP({name}, at, INTERVAL '1 second', INTERVAL '30 seconds') GROUP BY k, window_start, window_end
         EMIT ON WINDOW CLOSE;
         CREATE SINK totals_out FROM totals
         WITH (connector = 'kafka', topic = '{name}-totals', 'bootstrap.servers' = '{brokers}');"
    );
    let zeta = Zeta::run(&written(&pipeline)).state(&state).start();

    let (read, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let sender = {
        let (read, is_over, brokers) = (Arc::clone(&read), Arc::clone(&is_over), kafka.brokers.clone());
        std::thread::spawn(move || send_until(&brokers, name, &read, &is_over))
    };
    let rows_read = || {
        let source = zeta.source(name);
        assert_ne!(source.state(), "failed", "{}", source.reason());
        read.store(source.rows(), Ordering::Relaxed);
        source.rows()
    };
    match minutes {
        0 => fault_each(&mut kafka, &zeta, &state, &rows_read),
        minutes => soak(minutes, &mut kafka, &zeta, &state, &rows_read),
    }
    is_over.store(true, Ordering::Relaxed);
    let totals = loop {
        read.store(zeta.source(name).rows(), Ordering::Relaxed);
        if sender.is_finished() {
            break sender.join().expect("the sender ends");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let sent: u64 = totals.iter().map(|total| total.rows).sum();
    zeta.until_source(name, "all rows", |source| sent <= source.rows());
    until_published(&zeta);
    for (number, total) in totals.iter().enumerate() {
        let found = zeta.rows(&format!("SELECT n, ids, high FROM totals WHERE k = 'k{number}'"));
        let expected = serde_json::json!([[total.rows, total.ids, total.highest]]);
        assert_eq!(serde_json::json!(found), expected, "rows of key {number}");
    }
}

/// What comes over brokers and Zeta by turns.
fn fault(number: u32, kafka: &mut Kafka, zeta: &Zeta, frozen_for: Duration) {
    match number % 3 {
        0 => {
            kafka.pause();
            std::thread::sleep(frozen_for);
            kafka.resume();
        }
        1 => {
            signal(zeta, "STOP");
            std::thread::sleep(frozen_for);
            signal(zeta, "CONT");
        }
        _ => {
            kafka.kill();
            kafka.up();
        }
    }
}

/// One fault of each kind, and rows go on after each: then as many handles are open as before.
fn fault_each(kafka: &mut Kafka, zeta: &Zeta, state: &Path, rows_read: &dyn Fn() -> u64) {
    let more_rows = || {
        let before = rows_read();
        until("more rows", || match rows_read() {
            rows if before < rows => Ok(()),
            rows => Err(format!("{rows} rows")),
        });
    };
    more_rows();
    until_published(zeta);
    let before = Sample::of(zeta, state);
    for number in 0..3 {
        fault(number, kafka, zeta, Duration::ZERO);
        more_rows();
    }
    until("no more handles than before", || {
        rows_read();
        match Sample::of(zeta, state) {
            after if has_no_more_handles(&before, &after) => Ok(()),
            after => Err(format!("{before:?}, then {after:?}")),
        }
    });
}

fn has_no_more_handles(before: &Sample, after: &Sample) -> bool {
    after.files <= before.files + 4 && after.threads <= before.threads + 4
}

/// A fault every ten seconds, for so long.
fn soak(minutes: u64, kafka: &mut Kafka, zeta: &Zeta, state: &Path, rows_read: &dyn Fn() -> u64) {
    let length = Duration::from_secs(60 * minutes);
    let (began, mut faults, mut samples) = (now(), 0u32, Vec::new());
    while began.elapsed() < length {
        if FAULT_EVERY * (faults + 1) < began.elapsed() {
            fault(faults, kafka, zeta, FROZEN_FOR);
            faults += 1;
        }
        let (rows, sample) = (rows_read(), Sample::of(zeta, state));
        println!("{:>5} s {rows:>11} rows, {sample:?}", began.elapsed().as_secs());
        samples.push(sample);
        std::thread::sleep(SAMPLE_EVERY);
    }

    // The first quarter fills what has a limit.
    let quarter = samples.len() / 4;
    let (early, late) = (&samples[quarter..2 * quarter], &samples[samples.len() - quarter..]);
    let figures = |samples: &[Sample]| Sample {
        memory_mb: median(samples, |sample| sample.memory_mb),
        files: median(samples, |sample| sample.files),
        threads: median(samples, |sample| sample.threads),
        disk_mb: median(samples, |sample| sample.disk_mb),
    };
    let (before, after) = (figures(early), figures(late));
    let rows = rows_read();
    println!(
        "{} s, {faults} faults, {rows} rows, {:.0} rows/s; second quarter {before:?}; last quarter {after:?}",
        length.as_secs(),
        rows as f64 / length.as_secs_f64()
    );
    assert!(
        after.memory_mb <= before.memory_mb + before.memory_mb / 10 + 32,
        "memory grows"
    );
    assert!(
        after.disk_mb <= before.disk_mb + before.disk_mb / 2 + 32,
        "the state grows"
    );
    assert!(has_no_more_handles(&before, &after), "handles leak");
}
