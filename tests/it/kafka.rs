//! The Kafka connector against a real broker: what is promised when all is well, and when it is not.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};
use zeta::{
    cli::{MemoryTopics, registry},
    connector::{
        Options, Source, SourceError, conformance,
        kafka::{
            KafkaProducer, KafkaSource, OPTIONS,
            admin::{self, TopicPlan},
            bare_drain,
        },
    },
    runtime::{Engine, EngineOptions, Mode, SourceState, clock::SystemClock, query_environment},
    sql::SourceText,
    types::{Error, Payload, Position, RecordsBuilder, SplitId},
};

use crate::{services::Kafka, zeta::until};

const WAIT: Duration = Duration::from_millis(200);
const FLUSH: Duration = Duration::from_secs(60);
/// Polls after which a test gives up on what must come: a minute.
const POLLS_MAX: usize = 300;

pub fn source(brokers: &str, topic: &str, more: &[(&str, &str)]) -> KafkaSource {
    let given = [("topic", topic), ("bootstrap.servers", brokers)];
    let pairs = given
        .iter()
        .chain(more)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    KafkaSource::new(&Options::resolve(OPTIONS, pairs)).expect("valid options")
}

pub fn create(kafka: &Kafka, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let settings: Vec<(String, String)> = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    admin::create(
        &kafka.brokers,
        &TopicPlan {
            name: topic,
            partitions,
            replication: 1,
            settings: &settings,
        },
    )
    .expect("a topic is made");
}

/// Sends records `range`, keyed by one of 50 symbols.
pub fn send(kafka: &Kafka, topic: &str, range: std::ops::Range<u64>) {
    // A broker that was gone for a moment may not know yet whose partitions are whose.
    let mut producer = until("the topic is there", || {
        KafkaProducer::connect(&kafka.brokers, topic, &[]).map_err(|error| error.to_string())
    });
    for number in range.clone() {
        let value = format!("{{\"n\":{number}}}");
        producer
            .send(key(number).as_bytes(), value.as_bytes(), timestamp_ms(number))
            .expect("send");
    }
    producer.flush(FLUSH).expect("flush");
    assert_eq!(
        producer.delivered(),
        range.end - range.start,
        "every record was acknowledged"
    );
}

pub fn key(number: u64) -> String {
    format!("S{:02}-USDT", number % 50)
}

fn timestamp_ms(number: u64) -> i64 {
    1_600_000_000_000 + i64::try_from(number).expect("small")
}

#[derive(Debug, Default)]
pub struct Read {
    /// Per partition: position, time, key, number in the value.
    pub rows: BTreeMap<SplitId, Vec<(u64, Option<i64>, String, u64)>>,
    positions: BTreeMap<SplitId, Position>,
}

impl Read {
    /// Of a source that was told to begin there.
    pub fn from(positions: &BTreeMap<SplitId, Position>) -> Self {
        Self {
            positions: positions.clone(),
            ..Self::default()
        }
    }

    pub fn count(&self) -> usize {
        self.rows.values().map(Vec::len).sum()
    }

    pub fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.rows.values().flatten().map(|(.., number)| *number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// One poll; chunks must go on where the ones before ended.
    pub fn poll(&mut self, source: &mut KafkaSource) -> Result<(), SourceError> {
        for chunk in source.poll(5000, usize::MAX, WAIT)? {
            if let Some(position) = self.positions.get(&chunk.split) {
                assert_eq!(
                    *position, chunk.from,
                    "no row of partition {} is lost or repeated",
                    chunk.split
                );
            }
            self.positions.insert(chunk.split.clone(), chunk.to);
            let Payload::Records(records) = chunk.payload else {
                panic!("Kafka gives bytes")
            };
            let rows = self.rows.entry(chunk.split).or_default();
            for (index, position) in records.positions().iter().enumerate() {
                let value = std::str::from_utf8(records.value(index).expect("a value")).expect("text");
                let number = value
                    .trim_start_matches("{\"n\":")
                    .trim_end_matches('}')
                    .parse()
                    .expect("a number");
                let key = String::from_utf8(records.key(index).expect("a key").to_vec()).expect("text");
                rows.push((*position, records.timestamps_ms()[index], key, number));
            }
        }
        Ok(())
    }

    /// Polls through outages until there are `count` rows.
    pub fn until(&mut self, source: &mut KafkaSource, count: usize) {
        for _ in 0..POLLS_MAX {
            if count <= self.count() {
                return;
            }
            match self.poll(source) {
                Ok(()) | Err(SourceError::Unreachable(_)) => {}
                Err(failed) => panic!("{failed}"),
            }
        }
        panic!("only {} of {count} rows came", self.count());
    }
}

pub fn from_start(source: &mut KafkaSource) -> BTreeMap<SplitId, Position> {
    let starts = source
        .discover()
        .expect("discover")
        .into_iter()
        .map(|bounds| (bounds.split, bounds.start))
        .collect();
    source.seek(&starts).expect("seek");
    starts
}

#[test]
pub fn what_is_sent_is_read_once_and_in_order_per_partition() {
    let kafka = Kafka::shared();
    create(kafka, "ordered", 4, &[]);
    send(kafka, "ordered", 0..20_000);

    let mut source = source(&kafka.brokers, "ordered", &[]);
    let starts = from_start(&mut source);
    assert_eq!(starts.len(), 4);
    let mut read = Read::default();
    read.until(&mut source, 20_000);

    assert_eq!(read.numbers(), (0..20_000).collect::<Vec<_>>(), "each record once");
    let mut partition_of_key = BTreeMap::new();
    for (split, rows) in &read.rows {
        assert!(
            rows.is_sorted_by(|a, b| a.0 + 1 == b.0),
            "offsets of partition {split} have no gap"
        );
        assert!(
            rows.is_sorted_by(|a, b| a.3 < b.3),
            "partition {split} keeps the order of sending"
        );
        for (_, time, of_key, number) in rows {
            assert_eq!(
                (*time, of_key),
                (Some(timestamp_ms(*number)), &key(*number)),
                "time and key come along"
            );
            assert_eq!(
                partition_of_key.entry(of_key).or_insert(split),
                &split,
                "a key lives in one partition"
            );
        }
    }
    assert!(1 < read.rows.len(), "50 keys spread over partitions");
    assert_eq!(source.ends(), read.positions, "at the end, the ends are the positions");
    assert!(!source.is_finished(), "a live topic never ends");

    // New rows after the end are noticed, and show in the ends.
    send(kafka, "ordered", 20_000..20_010);
    read.until(&mut source, 20_010);
    assert_eq!(source.ends().values().map(|end| end.0).sum::<u64>(), 20_010);
}

#[test]
pub fn a_kafka_topic_keeps_the_contract_of_sources() {
    let kafka = Kafka::shared();
    create(kafka, "conformance", 3, &[]);
    send(kafka, "conformance", 0..3000);

    // What is expected comes from another reader, the one behind `zeta topics tail`.
    let mut expected: BTreeMap<SplitId, Vec<(i64, String)>> =
        (0..3).map(|partition| (SplitId::from(partition), Vec::new())).collect();
    admin::tail(&kafka.brokers, "conformance", 3000, false, &mut |record| {
        let mut records = RecordsBuilder::default();
        records.push(
            record.offset.cast_unsigned(),
            record.timestamp_ms,
            record.key.as_deref(),
            record.value.as_deref(),
        );
        let text = conformance::texts(&Payload::Records(records.finish())).remove(0);
        expected
            .get_mut(&SplitId::from(record.partition))
            .expect("three partitions")
            .push((record.offset, text));
        ControlFlow::Continue(())
    })
    .expect("tail");
    assert_eq!(expected.values().map(Vec::len).sum::<usize>(), 3000);
    let expected = expected
        .into_iter()
        .map(|(split, mut rows)| {
            rows.sort();
            (split, rows.into_iter().map(|(_, text)| text).collect())
        })
        .collect();

    conformance::check(&mut || Box::new(source(&kafka.brokers, "conformance", &[])), &expected);
    conformance::check(
        &mut || Box::new(source(&kafka.brokers, "conformance", &[("bounded", "true")])),
        &expected,
    );
}

#[test]
pub fn a_topic_that_does_not_exist_is_waited_for() {
    let kafka = Kafka::shared();
    let mut source = source(&kafka.brokers, "made-later", &[]);
    let sentence = format!(
        "topic `made-later` does not exist on {0}; create it with `zeta topics create made-later --brokers {0}`",
        kafka.brokers
    );
    assert_eq!(source.discover(), Err(SourceError::Unreachable(sentence.clone())));
    let refused = KafkaProducer::connect(&kafka.brokers, "made-later", &[])
        .err()
        .expect("nothing to send to");
    assert!(matches!(&refused, Error::User(said) if *said == sentence), "{refused}");

    create(kafka, "made-later", 2, &[]);
    send(kafka, "made-later", 0..10);
    from_start(&mut source);
    Read::default().until(&mut source, 10);
}

#[test]
pub fn latest_begins_behind_what_is_there_and_stays_there() {
    let kafka = Kafka::shared();
    create(kafka, "latest", 2, &[]);
    send(kafka, "latest", 0..100);
    let mut source = source(&kafka.brokers, "latest", &[("start", "latest")]);
    let starts = source.discover().expect("discover");
    assert!(starts.iter().all(|bounds| bounds.start == bounds.end));

    // Rows that come between the look and the read are new rows.
    send(kafka, "latest", 100..150);
    let again = source.discover().expect("discover");
    assert!(
        again
            .iter()
            .zip(&starts)
            .all(|(again, first)| again.start == first.start),
        "resolved once"
    );
    let mut read = Read::default();
    source
        .seek(&starts.into_iter().map(|bounds| (bounds.split, bounds.start)).collect())
        .expect("seek");
    read.until(&mut source, 50);
    assert_eq!(read.numbers(), (100..150).collect::<Vec<_>>());
}

/// Adds partitions until there are so many.
pub fn grow(kafka: &Kafka, topic: &str, partitions: usize) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .create()
        .expect("a client");
    let plan = NewPartitions::new(topic, partitions);
    let answers = futures::executor::block_on(admin.create_partitions([&plan], &AdminOptions::new()));
    assert!(
        answers.expect("an answer").iter().all(Result::is_ok),
        "partitions are added"
    );
}

/// Sends records `range` to one partition.
pub fn send_to(kafka: &Kafka, topic: &str, partition: i32, range: std::ops::Range<u64>) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        // It may have known the topic before it grew.
        .set("topic.metadata.refresh.interval.ms", "100")
        .create()
        .expect("a producer");
    for number in range {
        let (key, value) = (key(number), format!("{{\"n\":{number}}}"));
        producer
            .send(BaseRecord::to(topic).partition(partition).key(&key).payload(&value))
            .map_err(|(error, _)| error)
            .expect("send");
    }
    producer.flush(FLUSH).expect("flush");
}

#[test]
pub fn partitions_that_are_added_while_it_reads_are_read_from_their_first_row() {
    let kafka = Kafka::shared();
    create(kafka, "growing", 2, &[]);
    send(kafka, "growing", 0..100);
    let mut source = source(&kafka.brokers, "growing", &[("start", "latest")]).looking_every(Duration::ZERO);
    let mut starts = from_start(&mut source);
    assert_eq!(source.new_splits(), BTreeMap::new(), "nothing was added yet");
    send(kafka, "growing", 100..150);
    let mut read = Read::default();
    read.until(&mut source, 20);

    grow(kafka, "growing", 4);
    send_to(kafka, "growing", 2, 1_000..1_050);
    send_to(kafka, "growing", 3, 2_000..2_050);
    send_to(kafka, "growing", 0, 150..170);
    for _ in 0..POLLS_MAX {
        let new = source.new_splits();
        assert!(new.values().all(|position| *position == Position(0)), "{new:?}");
        starts.extend(new);
        read.poll(&mut source).expect("poll");
        assert!(
            read.rows.keys().all(|split| starts.contains_key(split)),
            "told before it is read"
        );
        if starts.len() == 4 {
            break;
        }
    }
    assert_eq!(starts.len(), 4, "both are found");
    read.until(&mut source, 170);
    let expected: Vec<u64> = (100..170).chain(1_000..1_050).chain(2_000..2_050).collect();
    assert_eq!(
        read.numbers(),
        expected,
        "no row is lost or repeated, in the old ones neither"
    );
    assert_eq!(source.new_splits(), BTreeMap::new(), "each is told once");
    assert_eq!(source.ends(), read.positions);
}

/// An engine over one topic, read from its end on, with a view of all its rows.
async fn growing_engine(kafka: &Kafka, topic: &str, state: &Path) -> Engine {
    let mut registry = registry(MemoryTopics::default(), query_environment());
    let spec = registry.connectors.iter_mut().find(|spec| spec.name == "kafka");
    spec.expect("it is there").make = Arc::new(|_, options| {
        let source = KafkaSource::new(options).map_err(Error::user)?;
        Ok(Box::new(source.looking_every(Duration::from_millis(100))))
    });
    let options = EngineOptions {
        state: Some(state.into()),
        mode: Mode::Live,
        overrides: vec![],
    };
    let engine = Engine::new(registry, options, Arc::new(SystemClock::default()));
    let text = SourceText::new(
        "growing.sql",
        format!(
            "CREATE SOURCE numbers (n BIGINT) INCLUDE partition WITH (connector = 'kafka', topic = '{topic}', \
             bootstrap.servers = '{}', start = 'latest');\n\
             CREATE MATERIALIZED VIEW seen AS SELECT n, partition FROM numbers;",
            kafka.brokers
        ),
    );
    engine
        .apply(&text, zeta::sql::parse(&text))
        .await
        .expect("a right file");
    engine.start().expect("it starts");
    engine
}

/// Waits until the view has so many rows.
async fn until_seen(engine: &Engine, rows: usize) {
    let mut reader = engine.follow("seen").expect("a view");
    let all = async {
        while reader.published().rows.len() < rows {
            let source = &engine.sources()[0];
            assert_ne!(source.state, SourceState::Failed, "{:?}", source.reason);
            assert!(reader.changed().await, "the engine stopped");
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all)
        .await
        .unwrap_or_else(|_| panic!("only {} of {rows} rows came", engine.sources()[0].rows));
}

#[test]
pub fn partitions_that_are_added_while_the_engine_runs_or_is_down_lose_no_row() {
    let kafka = Kafka::shared();
    let state = tempfile::tempdir().expect("a folder");
    create(kafka, "growing-engine", 1, &[]);
    send(kafka, "growing-engine", 0..100);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let engine = growing_engine(kafka, "growing-engine", state.path()).await;
        // Where `latest` begins is known once the first epoch has run.
        let mut reader = engine.follow("seen").expect("a view");
        while reader.published().epoch.0 == 0 {
            assert!(reader.changed().await);
        }
        grow(kafka, "growing-engine", 2);
        send_to(kafka, "growing-engine", 1, 1_000..1_100);
        until_seen(&engine, 100).await;
        engine.stop();

        grow(kafka, "growing-engine", 3);
        send_to(kafka, "growing-engine", 2, 2_000..2_100);
        send_to(kafka, "growing-engine", 0, 3_000..3_010);
        let engine = growing_engine(kafka, "growing-engine", state.path()).await;
        until_seen(&engine, 210).await;
        let status = &engine.sources()[0];
        assert_eq!(status.rows, 210, "and none of those that were there before it began");
        let positions: Vec<u64> = status.splits.iter().map(|split| split.position.0).collect();
        assert_eq!(positions, [110, 100, 100]);
        engine.stop();
    });
}

#[test]
pub fn a_bounded_source_ends_where_the_topic_ended() {
    let kafka = Kafka::shared();
    create(kafka, "bounded", 2, &[]);
    send(kafka, "bounded", 0..500);
    let mut source = source(&kafka.brokers, "bounded", &[("bounded", "true")]);
    from_start(&mut source);
    assert!(!source.is_finished());
    send(kafka, "bounded", 500..600);

    let mut read = Read::default();
    for _ in 0..POLLS_MAX {
        if source.is_finished() {
            break;
        }
        read.poll(&mut source).expect("poll");
    }
    assert!(source.is_finished());
    assert_eq!(read.numbers(), (0..500).collect::<Vec<_>>(), "and not one row more");
    assert_eq!(source.ends(), read.positions);
}

#[test]
pub fn a_position_behind_the_end_needs_a_person() {
    let kafka = Kafka::shared();
    create(kafka, "short", 1, &[]);
    send(kafka, "short", 0..5);
    let mut source = source(&kafka.brokers, "short", &[]);
    source.discover().expect("discover");
    source
        .seek(&BTreeMap::from([(SplitId::from(0), Position(900))]))
        .expect("seek");
    let failed = failure(&mut source);
    assert!(
        failed.starts_with("partition 0 of topic `short` ends at row 5, but 900 rows of it were read before"),
        "{failed}"
    );
    assert_eq!(failure(&mut source), failed, "it stays failed");

    from_start(&mut source);
    Read::default().until(&mut source, 5);
}

#[test]
pub fn rows_that_are_gone_need_a_person() {
    let kafka = Kafka::shared();
    create(kafka, "retained", 2, &[]);
    send(kafka, "retained", 0..1000);
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .create()
        .expect("a client");
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset("retained", 1, Offset::Offset(101))
        .expect("a position");
    // What retention does in its own time.
    futures::executor::block_on(admin.delete_records(&before, &AdminOptions::new())).expect("records are deleted");

    let mut source = source(&kafka.brokers, "retained", &[]);
    assert_eq!(
        source.discover().expect("discover")[1].start,
        Position(101),
        "reading from nothing starts at what is left"
    );
    source
        .seek(&BTreeMap::from([(SplitId::from(1), Position(7))]))
        .expect("seek");
    let sentence = "rows 7 to 100 of partition 1 of topic `retained` are gone from Kafka (retention?) and were not read; \
                    set on_lost_offsets = 'skip' to go on behind them, or start again with --reset to read all that is left";
    assert_eq!(failure(&mut source), sentence);
}

#[test]
pub fn a_seek_drops_what_was_read_ahead() {
    let kafka = Kafka::shared();
    create(kafka, "ahead", 4, &[]);
    send(kafka, "ahead", 0..200_000);
    let mut source = source(&kafka.brokers, "ahead", &[]);
    let bounds = source.discover().expect("discover");
    for round in 0..40_u64 {
        // Back and forth, with the queue of the client in any state.
        let positions: BTreeMap<SplitId, Position> = bounds
            .iter()
            .map(|bounds| (bounds.split.clone(), Position(round * 7919 % (bounds.end.0 / 2))))
            .collect();
        source.seek(&positions).expect("seek");
        let mut read = Read {
            positions: positions.clone(),
            ..Read::default()
        };
        read.until(&mut source, usize::try_from(1 + round * 100).expect("small"));
        for (split, rows) in &read.rows {
            assert_eq!(
                rows[0].0, positions[split].0,
                "round {round}: the first row is the one that was asked for"
            );
            assert!(
                rows.is_sorted_by(|a, b| a.0 + 1 == b.0),
                "round {round}: and no row of the seek before is among them"
            );
        }
    }
}

#[test]
pub fn markers_of_transactions_take_positions_but_are_no_rows() {
    let kafka = Kafka::shared();
    create(kafka, "transactions", 1, &[]);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("transactional.id", "markers")
        .create()
        .expect("a producer");
    producer.init_transactions(FLUSH).expect("transactions");
    for (value, is_committed) in [(Some("kept"), true), (Some("aborted"), false), (None, true)] {
        producer.begin_transaction().expect("begin");
        let record: BaseRecord<'_, [u8], str> = BaseRecord::to("transactions");
        producer
            .send(value.into_iter().fold(record, BaseRecord::payload))
            .map_err(|(error, _)| error)
            .expect("send");
        producer.flush(FLUSH).expect("flush");
        if is_committed {
            producer.commit_transaction(FLUSH)
        } else {
            producer.abort_transaction(FLUSH)
        }
        .expect("end of the transaction");
    }

    let mut source = source(&kafka.brokers, "transactions", &[("bounded", "true")]);
    from_start(&mut source);
    let mut values = Vec::new();
    for _ in 0..POLLS_MAX {
        if source.is_finished() {
            break;
        }
        for chunk in source.poll(100, usize::MAX, WAIT).expect("poll") {
            let Payload::Records(records) = chunk.payload else {
                panic!("Kafka gives bytes")
            };
            values.extend((0..records.len()).map(|index| records.value(index).map(<[u8]>::to_vec)));
        }
    }
    assert!(source.is_finished(), "the last marker is passed, too");
    assert_eq!(
        values,
        [Some(b"kept".to_vec()), None],
        "a tombstone is not an empty value"
    );
    assert_eq!(source.ends(), BTreeMap::from([(SplitId::from(0), Position(6))]));
}

#[test]
pub fn a_topic_that_is_deleted_while_it_is_read_shows() {
    let kafka = Kafka::shared();
    create(kafka, "deleted", 1, &[]);
    send(kafka, "deleted", 0..10);
    let mut source = source(&kafka.brokers, "deleted", &[]);
    from_start(&mut source);
    Read::default().until(&mut source, 10);
    admin::delete(&kafka.brokers, "deleted").expect("delete");
    let said = (0..POLLS_MAX)
        .find_map(|_| source.poll(100, usize::MAX, WAIT).err())
        .expect("it shows");
    assert!(
        matches!(&said, SourceError::Unreachable(sentence) if sentence.starts_with("topic `deleted` does not exist")),
        "{said}"
    );

    // A new topic of the same name does not go on where the old one stood.
    create(kafka, "deleted", 1, &[]);
    send(kafka, "deleted", 0..5);
    let failed = (0..POLLS_MAX).find_map(|_| match source.poll(100, usize::MAX, WAIT) {
        Err(SourceError::Failed(sentence)) => Some(sentence),
        Ok(chunks) => {
            assert!(chunks.is_empty(), "no row of the new topic may come");
            None
        }
        Err(SourceError::Unreachable(_)) => None,
    });
    assert!(
        failed
            .as_ref()
            .is_some_and(|failed| failed.starts_with("topic `deleted` was deleted and made anew since it was read")),
        "{failed:?}"
    );
}

#[test]
pub fn a_name_that_nobody_has_and_a_login_that_nobody_asked_for_are_told_apart() {
    let mut nowhere = source("nowhere.invalid:9092", "t", &[]);
    let said = nowhere.discover().unwrap_err().to_string();
    assert!(
        said.starts_with("Kafka at nowhere.invalid:9092 does not answer: failed to resolve 'nowhere.invalid:9092'"),
        "{said}"
    );

    let kafka = Kafka::shared();
    let login = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "u"),
        ("sasl.password", "hunter2"),
    ];
    let said = source(&kafka.brokers, "t", &login).discover().unwrap_err().to_string();
    assert!(
        said.starts_with(&format!("Kafka at {} does not ", kafka.brokers))
            && said.len() > 50
            && !said.contains("hunter2"),
        "{said}"
    );
}

#[test]
pub fn topics_are_listed_described_tailed_drained_and_deleted() {
    let kafka = Kafka::shared();
    create(kafka, "shown", 2, &[("retention.ms", "-1")]);
    send(kafka, "shown", 0..100);

    let again = admin::create(
        &kafka.brokers,
        &TopicPlan {
            name: "shown",
            partitions: 1,
            replication: 1,
            settings: &[],
        },
    )
    .unwrap_err();
    assert_eq!(
        again.to_string(),
        format!("topic `shown` exists already on {}", kafka.brokers)
    );
    let refused = admin::create(
        &kafka.brokers,
        &TopicPlan {
            name: "a b",
            partitions: 1,
            replication: 1,
            settings: &[],
        },
    )
    .unwrap_err();
    assert!(
        refused.to_string().starts_with("`a b` is not a name for a topic"),
        "{refused}"
    );
    let refused = admin::create(
        &kafka.brokers,
        &TopicPlan {
            name: "wide",
            partitions: 1,
            replication: 3,
            settings: &[],
        },
    )
    .unwrap_err();
    assert!(refused.to_string().contains("not enough brokers"), "{refused}");

    let listed = admin::list(&kafka.brokers).expect("list");
    assert!(
        listed
            .iter()
            .any(|topic| (topic.name.as_str(), topic.partitions, topic.replication) == ("shown", 2, 1))
    );
    let described = admin::describe(&kafka.brokers, "shown").expect("describe");
    assert_eq!(
        described
            .partitions
            .iter()
            .map(|partition| partition.high - partition.low)
            .sum::<i64>(),
        100
    );

    let mut last = Vec::new();
    admin::tail(&kafka.brokers, "shown", 3, false, &mut |record| {
        last.push(String::from_utf8(record.value.clone().expect("a value")).expect("text"));
        ControlFlow::Continue(())
    })
    .expect("tail");
    assert_eq!(
        last,
        ["{\"n\":97}", "{\"n\":98}", "{\"n\":99}"],
        "the last by time, over all partitions"
    );

    let mut followed = Vec::new();
    admin::tail(&kafka.brokers, "shown", 1, true, &mut |record| {
        followed.push(String::from_utf8(record.value.clone().expect("a value")).expect("text"));
        match followed.len() {
            1 => send(kafka, "shown", 100..101),
            _ => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    })
    .expect("tail");
    assert_eq!(
        followed,
        ["{\"n\":99}", "{\"n\":100}"],
        "the last one, then the new one"
    );

    let report = bare_drain(&kafka.brokers, "shown").expect("drain");
    assert_eq!(report.rows, 101);
    let sent: usize = (0..101)
        .map(|number| key(number).len() + format!("{{\"n\":{number}}}").len())
        .sum();
    assert_eq!(report.bytes, sent as u64);

    admin::delete(&kafka.brokers, "shown").expect("delete");
    let gone = admin::describe(&kafka.brokers, "shown").unwrap_err();
    assert!(gone.to_string().starts_with("topic `shown` does not exist"), "{gone}");
    let gone = admin::delete(&kafka.brokers, "shown").unwrap_err();
    assert!(gone.to_string().starts_with("topic `shown` does not exist"), "{gone}");
}

#[test]
pub fn a_broker_that_is_down_at_the_start_is_waited_for() {
    let mut kafka = Kafka::start();
    create(&kafka, "early", 1, &[]);
    send(&kafka, "early", 0..10);
    kafka.down();

    let mut source = source(&kafka.brokers, "early", &[]);
    let sentence = format!("Kafka at {} does not answer: connection refused", kafka.brokers);
    assert_eq!(source.discover(), Err(SourceError::Unreachable(sentence.clone())));
    assert_eq!(
        source.discover(),
        Err(SourceError::Unreachable(sentence.clone())),
        "the reason is kept"
    );
    assert_eq!(admin::list(&kafka.brokers).unwrap_err().to_string(), sentence);

    kafka.up();
    let discovered = (0..POLLS_MAX).any(|_| source.discover().is_ok());
    assert!(discovered, "it comes back by itself");
    from_start(&mut source);
    Read::default().until(&mut source, 10);
}

#[test]
pub fn a_broker_that_is_killed_while_it_is_read_loses_and_repeats_nothing() {
    let mut kafka = Kafka::start();
    create(&kafka, "killed", 4, &[]);
    send(&kafka, "killed", 0..20_000);
    let mut source = source(&kafka.brokers, "killed", &[]);
    from_start(&mut source);
    let mut read = Read::default();
    read.until(&mut source, 5000);

    kafka.kill();
    // What was fetched before still comes; then the source says that nobody is there.
    let unreachable = (0..POLLS_MAX)
        .find_map(|_| read.poll(&mut source).err())
        .expect("the outage shows");
    let SourceError::Unreachable(sentence) = unreachable else {
        panic!("{unreachable}")
    };
    assert!(
        sentence.starts_with(&format!("Kafka at {} does not answer", kafka.brokers)),
        "{sentence}"
    );
    assert!(read.count() <= 20_000);

    kafka.up();
    read.until(&mut source, 20_000);
    send(&kafka, "killed", 20_000..20_100);
    read.until(&mut source, 20_100);
    assert_eq!(read.numbers(), (0..20_100).collect::<Vec<_>>());
    assert_eq!(
        source.poll(100, usize::MAX, WAIT).map(|chunks| chunks.len()),
        Ok(0),
        "quiet and reachable"
    );
}

/// The sentence of the failure that must come.
fn failure(source: &mut KafkaSource) -> String {
    for _ in 0..POLLS_MAX {
        match source.poll(100, usize::MAX, WAIT) {
            Ok(chunks) => assert!(chunks.is_empty(), "no row may come"),
            Err(SourceError::Failed(sentence)) => return sentence,
            Err(SourceError::Unreachable(sentence)) => panic!("{sentence}"),
        }
    }
    panic!("nothing failed")
}
