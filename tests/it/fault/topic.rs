//! Topics that change behind a state: made anew, truncated, shortened by retention, grown.

use std::{collections::BTreeMap, fs::OpenOptions, path::PathBuf, time::Duration};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};
use zeta::{
    connector::{LostRows, Source, SourceError, kafka::admin},
    types::{Anchors, Position, SplitId},
};

use super::{metric, numbers, seen, until_failed, until_logged, until_rows};
use crate::{
    kafka::{Read, create, grow, send, send_to, source},
    services::Kafka,
    zeta::{Zeta, folder, now, written},
};

const FLUSH: Duration = Duration::from_secs(60);

/// The new topic holds so many rows where 10 of the old one were read.
const MADE_ANEW: [(u64, &str); 3] = [(5, "fewer"), (10, "equal"), (25, "more")];

/// A topic of 10 rows in one partition, and a pipeline over it.
fn read_topic(kafka: &Kafka, name: &str, more: &str) -> PathBuf {
    create(kafka, name, 1, &[]);
    send(kafka, name, 0..10);
    written(&numbers(&kafka.brokers, name, more))
}

fn make_anew(kafka: &Kafka, name: &str, rows: u64) {
    admin::delete(&kafka.brokers, name).expect("delete");
    create(kafka, name, 1, &[]);
    send(kafka, name, 1_000..1_000 + rows);
}

#[track_caller]
fn assert_made_anew(reason: &str, name: &str, why: &str) {
    assert!(
        reason.starts_with(&format!("topic `{name}` was deleted and made anew since it was read"))
            && reason.contains("--reset"),
        "{why}: {reason}"
    );
}

#[test]
fn a_topic_that_was_made_anew_while_zeta_was_down_stops_its_source() {
    let kafka = Kafka::shared();
    for (rows, why) in MADE_ANEW {
        let (name, state) = (format!("anew_down_{why}"), folder("state"));
        let file = read_topic(kafka, &name, "");
        let zeta = Zeta::run(&file).state(&state).start();
        until_rows(&zeta, &name, 10);
        // With a checkpoint, and with the journal alone.
        match why {
            "equal" => zeta.kill(),
            _ => assert!(zeta.stop().success()),
        }
        make_anew(kafka, &name, rows);
        let zeta = Zeta::run(&file).state(&state).start();
        assert_made_anew(&until_failed(&zeta, &name), &name, why);
        assert!(seen(&zeta).iter().all(|n| *n < 10), "{why}: no row of the new one");
        drop(zeta);
        let zeta = Zeta::run(&file).state(&state).arg("--reset").start();
        until_rows(&zeta, &name, rows);
        assert_eq!(seen(&zeta), (1_000..1_000 + rows).collect::<Vec<_>>(), "{why}");
    }
}

#[test]
fn a_topic_that_is_made_anew_while_it_is_read_stops_its_source() {
    let kafka = Kafka::shared();
    for (rows, why) in MADE_ANEW {
        let (name, state) = (format!("anew_up_{why}"), folder("state"));
        let file = read_topic(kafka, &name, "");
        let zeta = Zeta::run(&file).state(&state).start();
        until_rows(&zeta, &name, 10);
        make_anew(kafka, &name, rows);
        assert_made_anew(&until_failed(&zeta, &name), &name, why);
        assert_eq!(seen(&zeta), (0..10).collect::<Vec<_>>(), "{why}: no row of the new one");
    }
}

/// Cuts the log of partition 0, as a leader has it that never got the last rows.
fn truncate(kafka: &Kafka, topic: &str) {
    let path = kafka
        .log_folder()
        .join(format!("{topic}-0"))
        .join("00000000000000000000.log");
    let log = OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("the log of a partition");
    let bytes = log.metadata().expect("a file").len();
    // In the middle of a batch, of which the broker then takes nothing.
    log.set_len(bytes / 2).expect("a shorter log");
}

/// Ten batches of 100.
fn send_in_batches(kafka: &Kafka, topic: &str) {
    for batch in 0..10 {
        send(kafka, topic, batch * 100..(batch + 1) * 100);
    }
}

#[test]
fn a_log_that_lost_rows_and_got_others_in_their_place_stops_its_source() {
    let mut kafka = Kafka::start();
    let name = "truncated";
    create(&kafka, name, 1, &[]);
    send_in_batches(&kafka, name);
    let file = written(&numbers(&kafka.brokers, name, ""));

    // While it is read.
    let state = folder("state");
    let running = Zeta::run(&file).state(&state).start();
    until_rows(&running, name, 1_000);
    // A state that stands at the same place and does not see it happen.
    let (down, state_down) = (written(&numbers(&kafka.brokers, name, "")), folder("state"));
    let zeta = Zeta::run(&down).state(&state_down).start();
    until_rows(&zeta, name, 1_000);
    zeta.kill();

    kafka.kill();
    truncate(&kafka, name);
    kafka.up();
    send(&kafka, name, 5_000..7_000);
    let is_told = |reason: &str| {
        (reason.contains("of partition 0 of topic `truncated` is not the one that was read")
            || reason.starts_with("partition 0 of topic `truncated` ends at row"))
            && reason.contains("--reset")
    };
    let reason = until_failed(&running, name);
    assert!(is_told(&reason), "{reason}");
    assert_eq!(seen(&running).len(), 1_000, "no row that took the place of another");

    let zeta = Zeta::run(&down).state(&state_down).start();
    let reason = until_failed(&zeta, name);
    assert!(
        reason.starts_with("row 999 of partition 0 of topic `truncated` is not the one that was read"),
        "{reason}"
    );
}

/// Removes the rows of partition 0 before `offset`, as retention does in its own time.
fn delete_before(kafka: &Kafka, topic: &str, offset: i64) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .create()
        .expect("a client");
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(topic, 0, Offset::Offset(offset))
        .expect("a position");
    futures::executor::block_on(admin.delete_records(&before, &AdminOptions::new())).expect("records are deleted");
}

#[test]
fn rows_that_are_gone_before_they_were_read_stop_the_source_or_are_counted_where_that_was_asked_for() {
    let kafka = Kafka::shared();
    let (name, state) = ("lost", folder("state"));
    let stop = read_topic(kafka, name, "");
    let zeta = Zeta::run(&stop).state(&state).start();
    until_rows(&zeta, name, 10);
    assert!(zeta.stop().success());
    send(kafka, name, 10..1_000);
    delete_before(kafka, name, 901);

    let zeta = Zeta::run(&stop).state(&state).start();
    assert_eq!(
        until_failed(&zeta, name),
        "rows 10 to 900 of partition 0 of topic `lost` are gone from Kafka (retention?) and were not read; \
         set on_lost_offsets = 'skip' to go on behind them, or start again with --reset to read all that is left"
    );
    drop(zeta);

    let skip = written(&numbers(&kafka.brokers, name, ", on_lost_offsets = 'skip'"));
    let expected: Vec<u64> = (0..10).chain(901..1_000).collect();
    let zeta = Zeta::run(&skip).state(&state).start();
    until_rows(&zeta, name, 109);
    assert_eq!(seen(&zeta), expected);
    assert_eq!(metric(&zeta, "zeta_source_rows_lost_total"), 891.0, "exactly the gap");
    until_logged(&zeta, &["rows were gone, and are left out", "from=10", "to=901"]);

    // The gap is in the journal: a replay passes it again, and counts nothing.
    zeta.kill();
    let zeta = Zeta::run(&skip).state(&state).start();
    until_rows(&zeta, name, 109);
    assert_eq!(seen(&zeta), expected);
    assert_eq!(metric(&zeta, "zeta_source_rows_lost_total"), 0.0);

    // While it runs, and without rows behind the gap.
    send(kafka, name, 1_000..1_010);
    until_rows(&zeta, name, 119);
    zeta.kill();
    // What was read after the last checkpoint has to be read again: there nothing is passed over.
    delete_before(kafka, name, 1_005);
    let zeta = Zeta::run(&skip).state(&state).start();
    let reason = until_failed(&zeta, name);
    assert!(
        reason.contains("are gone, and some of them were read since the last checkpoint") && reason.contains("--reset"),
        "{reason}"
    );
}

#[test]
fn a_source_that_skips_goes_on_at_the_first_row_there_is_while_it_runs() {
    let kafka = Kafka::shared();
    create(kafka, "lost-running", 1, &[]);
    send(kafka, "lost-running", 0..100);
    for (option, is_stopped) in [("stop", true), ("skip", false)] {
        let mut source = source(&kafka.brokers, "lost-running", &[("on_lost_offsets", option)]);
        source.discover().expect("discover");
        source.recognise(&Anchors::default()).expect("nothing was read");
        let from = BTreeMap::from([(SplitId::from(0), Position(7))]);
        delete_before(kafka, "lost-running", 60);
        source.seek(&from).expect("seek");
        let mut read = Read::from(&from);
        if is_stopped {
            let failed = std::iter::repeat_with(|| read.poll(&mut source))
                .take(100)
                .find_map(Result::err);
            let Some(SourceError::Failed(sentence)) = failed else {
                panic!("{failed:?}")
            };
            assert!(
                sentence.starts_with("rows 7 to 59 of partition 0 of topic `lost-running` are gone"),
                "{sentence}"
            );
            assert_eq!(source.lost(), []);
            continue;
        }
        read.until(&mut source, 40);
        assert_eq!(read.numbers(), (60..100).collect::<Vec<_>>());
        let lost = LostRows {
            split: SplitId::from(0),
            from: Position(7),
            to: Position(60),
        };
        assert_eq!(source.lost(), [lost]);
        assert_eq!(source.lost(), [], "told once");
    }
}

#[test]
fn latest_is_resolved_once_for_all_partitions_whatever_dies_before_their_first_rows() {
    let kafka = Kafka::shared();
    for round in 0..3 {
        let (name, state) = (format!("latest_killed_{round}"), folder("state"));
        create(kafka, &name, 4, &[]);
        for partition in 0..4 {
            send_to(kafka, &name, partition, 0..5);
        }
        let file = written(&numbers(&kafka.brokers, &name, ", start = 'latest'"));
        let zeta = Zeta::run(&file).state(&state).start();
        // Where it begins is journalled with the first epoch, which no row brings.
        zeta.until_source(&name, "the first epoch", |source| 0 < source.epoch());
        if round == 1 {
            send_to(kafka, &name, 0, 100..110);
            until_rows(&zeta, &name, 10);
        }
        zeta.kill();
        for partition in 0..4_u64 {
            let first = 1_000 * (partition + 1);
            send_to(
                kafka,
                &name,
                i32::try_from(partition).expect("small"),
                first..first + 10,
            );
        }
        let zeta = Zeta::run(&file).state(&state).start();
        let before = if round == 1 { 100..110 } else { 0..0 };
        let expected: Vec<u64> = before
            .chain((1..=4).flat_map(|part| 1_000 * part..1_000 * part + 10))
            .collect();
        until_rows(&zeta, &name, expected.len() as u64);
        assert_eq!(seen(&zeta), expected, "round {round}");
    }
}

#[test]
fn a_partition_that_is_added_is_read_within_ten_seconds() {
    let kafka = Kafka::shared();
    let name = "grown";
    create(kafka, name, 1, &[]);
    let zeta = Zeta::run(&written(&numbers(&kafka.brokers, name, ", start = 'latest'")))
        .state(&folder("state"))
        .start();
    zeta.until_source(name, "the first epoch", |source| 0 < source.epoch());
    grow(kafka, name, 2);
    let grown = now();
    send_to(kafka, name, 1, 0..100);
    until_rows(&zeta, name, 100);
    let seconds = grown.elapsed().as_secs_f64();
    println!("a new partition was read after {seconds:.1} s");
    assert_eq!(seen(&zeta), (0..100).collect::<Vec<_>>(), "from its first row on");
    // Twice as much for a machine that is busy.
    assert!(seconds < 20.0, "{seconds}");
}

#[test]
fn records_that_are_no_rows_take_positions_and_leave_no_lag() {
    let kafka = Kafka::shared();
    let (name, state) = ("no_rows", folder("state"));
    create(kafka, name, 1, &[]);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("transactional.id", name)
        .create()
        .expect("a producer");
    producer.init_transactions(FLUSH).expect("transactions");
    let mut number = 0;
    for round in 0..30 {
        producer.begin_transaction().expect("begin");
        let is_committed = round % 3 != 1;
        for kind in 0..3 {
            let value = format!("{{\"n\":{number}}}");
            let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(name).key(b"k");
            let record = match kind {
                0 => record.payload(value.as_bytes()),
                1 => record.payload(b"".as_slice()),
                // A tombstone.
                _ => record,
            };
            producer.send(record).map_err(|(error, _)| error).expect("send");
            number += u64::from(kind == 0 && is_committed);
        }
        producer.flush(FLUSH).expect("flush");
        match is_committed {
            true => producer.commit_transaction(FLUSH),
            false => producer.abort_transaction(FLUSH),
        }
        .expect("end of the transaction");
    }
    let file = written(&numbers(&kafka.brokers, name, ""));
    for _ in 0..2 {
        let zeta = Zeta::run(&file).state(&state).start();
        // Three records and a marker of each transaction, the last of which is a marker.
        let source = zeta.until_source(name, "the end", |source| {
            source.0["splits"][0]["position"] == 120 && source.0["splits"][0]["lag"] == 0
        });
        assert_eq!(seen(&zeta), (0..20).collect::<Vec<_>>(), "committed rows only");
        assert_eq!(
            source.number("bad_rows"),
            40,
            "without a value, or with an empty one, it is no row"
        );
        zeta.kill();
    }
}

#[test]
fn large_records_and_very_many_small_ones_fit_into_bounded_memory() {
    let kafka = Kafka::shared();
    let (name, state) = ("sizes", folder("state"));
    create(kafka, name, 2, &[("max.message.bytes", "20000000")]);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("message.max.bytes", "20000000")
        .create()
        .expect("a producer");
    let large = format!("{{\"n\":-1,\"text\":\"{}\"}}", "x".repeat(10 << 20));
    for part in 0..20 {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(name).partition(0).payload(large.as_bytes());
        producer.send(record).map_err(|(error, _)| error).expect("send");
        producer.flush(FLUSH).expect("flush");
        send_to(kafka, name, 1, part * 10_000..(part + 1) * 10_000);
    }
    let zeta = Zeta::run(&written(&numbers(&kafka.brokers, name, "")))
        .state(&state)
        .start();
    let all = |source: &crate::zeta::Source| source.rows() == 200_000 && source.number("bad_rows") == 20;
    zeta.until_source(name, "all of them", all);
    let status = std::fs::read_to_string(format!("/proc/{}/status", zeta.pid())).expect("it runs");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("a peak");
    let peak_mb = peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024;
    println!("20 records of 10 MB beside 200,000 small ones: at most {peak_mb} MB of memory");
    assert!(peak_mb < 700, "{peak_mb} MB, where 200 MB of records were read");
}
