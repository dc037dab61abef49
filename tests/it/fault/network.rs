//! A network that is slow, thin, cut, reset, silent or wrong, between real brokers and sources and sinks.
//!
//! ```text
//! source ─▶ proxy ─▶ listener of its own ─▶ broker ◀─ senders, and readers of committed records, without a proxy
//! sink   ─▶ proxy ─▶ listener of its own ─┘
//! ```

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch},
    datatypes::Int64Type,
};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use zeta::{
    connector::{
        Marker, Options, Publisher, Sink, SinkEpoch, SinkError, Source, SourceError, ToRecords,
        kafka::{Cluster, KafkaSink, SINK_OPTIONS, admin},
    },
    types::{Epoch, Records, RecordsBuilder, Result},
};

use crate::{
    kafka::{Read, create, from_start, send, source},
    proxy::{END_TXN, Flip, Proxy, Rules, Way},
    services::{Kafka, free_port},
    sink,
    zeta::{folder, now, until, written},
};

/// One broker, and proxies each of which a single test talks through.
struct Lanes {
    kafka: Kafka,
    proxies: Vec<Proxy>,
}

const OF_SOURCE: usize = 0;
const OF_SINK: usize = 1;
const OF_FLIPS: usize = 2;
const OF_SILENCE: usize = 3;
const OF_HOLDS: std::ops::Range<usize> = 4..8;

fn lanes() -> &'static Lanes {
    static LANES: OnceLock<Lanes> = OnceLock::new();
    LANES.get_or_init(|| {
        let ports: Vec<u16> = (0..OF_HOLDS.end).map(|_| free_port()).collect();
        let proxies: Vec<Proxy> = ports.iter().map(|port| Proxy::start(*port)).collect();
        let listeners: Vec<String> = (ports.iter().zip(&proxies).enumerate())
            .map(|(lane, (port, proxy))| format!("LANE{lane}=PLAINTEXT:{port}:{}", proxy.port))
            .collect();
        Lanes {
            kafka: Kafka::start_with(vec![("KAFKA_LISTENERS", listeners.join(" "))]),
            proxies,
        }
    })
}

pub fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| {
        value.parse().unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// What a network does to both ways of every connection.
///
/// Where connections are cut, `rate` bytes per second fit through them, and where they are reset `reset_after_bytes`: what has to go in one
/// piece must fit into their lives.
fn bad_networks(rate: u64, reset_after_bytes: u64) -> [(&'static str, Rules); 4] {
    let fine = Rules::default();
    [
        (
            "200 ms each way",
            Rules {
                delay: Duration::from_millis(200),
                ..fine
            },
        ),
        (
            "1 Mbit/s",
            Rules {
                rate: Some(125_000),
                ..fine
            },
        ),
        (
            "cut every 2 s",
            Rules {
                cut_after: Some(Duration::from_secs(2)),
                rate: Some(rate),
                ..fine
            },
        ),
        (
            "reset in the middle of messages",
            Rules {
                reset_after_bytes: Some(reset_after_bytes),
                ..fine
            },
        ),
    ]
}

#[test]
fn every_row_is_read_once_and_in_order_over_a_bad_network() {
    let Lanes { kafka, proxies } = lanes();
    let proxy = &proxies[OF_SOURCE];
    create(kafka, "bad-network", 2, &[]);
    // In batches that fit into the life of a connection, and so do answers.
    for batch in 0..40 {
        send(kafka, "bad-network", batch * 1_000..(batch + 1) * 1_000);
    }
    let options = [
        ("properties.fetch.message.max.bytes", "32768"),
        ("properties.socket.timeout.ms", "2000"),
    ];
    for (network, rules) in bad_networks(100_000, 150_000) {
        proxy.set(rules);
        let before = proxy.done();
        let mut source = source(&proxy.address(), "bad-network", &options);
        let began = now();
        until("it is discovered", || {
            source.discover().map_err(|error| error.to_string())
        });
        from_start(&mut source);
        let mut read = Read::default();
        read.until(&mut source, 40_000);
        assert_eq!(read.numbers(), (0..40_000).collect::<Vec<_>>(), "{network}");
        assert!(
            read.rows.values().all(|rows| rows.is_sorted_by(|a, b| a.0 < b.0)),
            "{network}"
        );
        let done = proxy.done();
        let (cut, reset) = (done.cut - before.cut, done.reset - before.reset);
        println!(
            "{network}: 40,000 rows in {:.1} s, {cut} cut, {reset} reset",
            began.elapsed().as_secs_f64()
        );
        assert_eq!(
            (0 < cut, 0 < reset),
            (rules.cut_after.is_some(), rules.reset_after_bytes.is_some()),
            "{network}"
        );
    }
    proxy.set(Rules::default());
}

#[test]
fn a_network_that_swallows_answers_shows_as_unreachable_and_loses_nothing() {
    let Lanes { kafka, proxies } = lanes();
    let proxy = &proxies[OF_SILENCE];
    create(kafka, "silent", 1, &[]);
    send(kafka, "silent", 0..1_000);
    let mut source = source(&proxy.address(), "silent", &[("properties.socket.timeout.ms", "3000")])
        .silent_after(Duration::from_secs(1));
    from_start(&mut source);
    let mut read = Read::default();
    read.until(&mut source, 1_000);
    for (round, way) in (1..=4).zip([Way::ToClient, Way::ToBroker].into_iter().cycle()) {
        proxy.set(Rules {
            black_hole: Some(way),
            ..Rules::default()
        });
        send(kafka, "silent", round * 1_000..(round + 1) * 1_000);
        let said = until("it says that nobody answers", || match read.poll(&mut source) {
            Err(SourceError::Unreachable(said)) => Ok(said),
            other => Err(format!("{other:?}")),
        });
        assert!(
            said.contains("has not answered for") || said.contains("does not answer"),
            "{way:?}: {said}"
        );
        if 2 < round {
            // Longer than the client waits for an answer: it gives the connection up.
            let connections = proxy.done().connections;
            until("another connection", || {
                drop(read.poll(&mut source));
                let count = proxy.done().connections;
                if connections < count {
                    Ok(())
                } else {
                    Err(format!("{count} connections"))
                }
            });
        }
        proxy.set(Rules::default());
        read.until(&mut source, usize::try_from(round + 1).expect("small") * 1_000);
        assert_eq!(read.numbers(), (0..(round + 1) * 1_000).collect::<Vec<_>>(), "{way:?}");
    }
}

#[test]
fn bytes_that_came_damaged_are_no_rows_and_are_read_again() {
    let Lanes { kafka, proxies } = lanes();
    let proxy = &proxies[OF_FLIPS];
    let flips = number_of("ZETA_WIRE_FLIPS", 12);
    create(kafka, "damaged", 1, &[]);
    // One batch: between batches stand numbers that no checksum of Kafka guards.
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("linger.ms", "60000")
        .set("batch.num.messages", "100000")
        .create()
        .expect("a producer");
    for number in 0..5_000 {
        let (key, value) = (crate::kafka::key(number), format!("{{\"n\":{number}}}"));
        let record = BaseRecord::to("damaged").partition(0).key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| error).expect("send");
    }
    producer.flush(Duration::from_secs(60)).expect("flush");
    let mut source = source(&proxy.address(), "damaged", &[]);
    let starts = from_start(&mut source);
    let mut told = 0;
    for flip in 0..flips {
        proxy.set(Rules {
            flip: Some(Flip {
                behind: 400,
                bit: flip.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            }),
            ..Rules::default()
        });
        source.seek(&starts).expect("seek");
        let mut read = Read::from(&starts);
        let mut has_told = false;
        until("all rows", || {
            match read.poll(&mut source) {
                Ok(()) => {}
                Err(SourceError::Unreachable(said)) => has_told |= said.contains("came damaged"),
                Err(error) => panic!("{error}"),
            }
            if read.count() < 5_000 {
                Err(format!("{} rows", read.count()))
            } else {
                Ok(())
            }
        });
        assert_eq!(read.numbers(), (0..5_000).collect::<Vec<_>>(), "flip {flip}");
        told += u64::from(has_told);
    }
    let flipped = proxy.done().flipped;
    println!("{flipped} bits flipped in answers, {told} times told, 0 wrong rows");
    // A length that was hit ends the connection: then it is read again over another.
    assert_eq!(flipped, flips);
    assert!(flips <= 2 * told, "they are told");
}

#[test]
fn sinks_publish_each_row_once_over_a_bad_network() {
    let Lanes { kafka, proxies } = lanes();
    let proxy = &proxies[OF_SINK];
    let (name, state) = ("sink_network", folder("state"));
    sink::create(kafka, name);
    sink::outputs(kafka, name);
    let more = ", 'properties.socket.timeout.ms' = '3000'";
    let zeta = sink::start(
        &written(&sink::pipeline(&kafka.brokers, &proxy.address(), name, more)),
        &state,
    );
    sink::send(&kafka.brokers, name, 0..1_000);
    sink::until_read(&zeta, name, 1_000);
    let mut sent = 1_000;
    let mut publish = |network: &str, count: u64| {
        let began = now();
        sink::send(&kafka.brokers, name, sent..sent + count);
        sent += count;
        zeta.until_source(name, "all rows", |source| sent <= source.rows());
        sink::until_published(&zeta);
        println!(
            "{network}: {count} rows published after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        sent
    };
    for (network, rules) in bad_networks(400_000, 600_000) {
        proxy.set(rules);
        let before = proxy.done();
        let is_reset = rules.reset_after_bytes.is_some();
        for _ in 0..2 {
            publish(network, if is_reset { 3_000 } else { 10_000 });
        }
        // How many bytes a transaction has is not told beforehand.
        while is_reset && proxy.done().reset <= before.reset + 1 {
            publish(network, 3_000);
        }
        let done = proxy.done();
        println!(
            "{network}: {} cut, {} reset",
            done.cut - before.cut,
            done.reset - before.reset
        );
    }
    // Where nothing arrives, one time-out after another passes: a campaign does both.
    let ways = [Way::ToClient, Way::ToBroker];
    for way in ways.into_iter().take(number_of("ZETA_BLACK_HOLES", 1) as usize) {
        proxy.set(Rules {
            black_hole: Some(way),
            ..Rules::default()
        });
        let began = now();
        sink::send(&kafka.brokers, name, sent..sent + 2_000);
        sent += 2_000;
        until("a sink says that nobody answers", || {
            let sinks = zeta.rows("SHOW SINKS");
            match sinks.iter().any(|sink| sink[3] == "unreachable") {
                true => Ok(()),
                false => Err(format!("{sinks:?}")),
            }
        });
        proxy.set(Rules::default());
        sink::until_read(&zeta, name, sent);
        println!(
            "nothing arrives {way:?}: 2,000 rows published after {:.1} s",
            began.elapsed().as_secs_f64()
        );
    }
    let [every, totals] = sink::assert_right(&kafka.brokers, name, sent);
    let aborted = every.with_aborted - every.records.len() + totals.with_aborted - totals.records.len();
    println!(
        "{sent} rows, 0 lost, 0 duplicated, 0 wrong; {aborted} records of aborted transactions; {:?}",
        proxy.done()
    );
}

/// When the end of a transaction arrives that was held until its sink had given it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    BeforeTheFence,
    AfterTheFence,
    InTheNextTransaction,
    AfterTheNextTransaction,
}

const ARRIVALS: [Arrival; 4] = [
    Arrival::BeforeTheFence,
    Arrival::AfterTheFence,
    Arrival::InTheNextTransaction,
    Arrival::AfterTheNextTransaction,
];

/// Rows of an epoch as records, each of which says of how many it is one.
struct Numbered {
    proxy: &'static Proxy,
    /// Before the records of this epoch are made, what is held is let through.
    release_at: Arc<AtomicU64>,
}

impl ToRecords for Numbered {
    fn records(&mut self, epoch: &SinkEpoch) -> Result<Records> {
        if epoch.epoch.0 == self.release_at.load(Ordering::SeqCst) {
            self.release_at.store(0, Ordering::SeqCst);
            let_through(self.proxy);
        }
        let numbers = epoch.added.column(0).as_primitive::<Int64Type>();
        let mut records = RecordsBuilder::default();
        for (index, number) in numbers.values().iter().enumerate() {
            let value = format!(r#"{{"epoch":{},"i":{number},"of":{}}}"#, epoch.epoch, numbers.len());
            records.push(index as u64, None, None, Some(value.as_bytes()));
        }
        Ok(records.finish())
    }
}

/// Lets go on what is held, and waits until the broker has answered to it.
fn let_through(proxy: &Proxy) {
    let held = proxy.done().held;
    proxy.release();
    until("the held request is answered", || {
        let done = proxy.done();
        if done.let_through == held {
            Ok(())
        } else {
            Err(format!("{done:?}"))
        }
    });
}

/// An epoch of some rows: its number decides how many.
fn epoch_of_rows(number: u64) -> SinkEpoch {
    let count = 1 + (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as i64;
    let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    let added = RecordBatch::try_from_iter([("i", rows)]).expect("one column");
    SinkEpoch {
        epoch: Epoch(number),
        removed: RecordBatch::new_empty(added.schema()),
        added,
    }
}

/// A sink, and what it published last.
struct Held {
    sink: KafkaSink<Cluster>,
    published: u64,
}

impl Held {
    /// As the runtime does it: until it is known what is there.
    fn recover(&mut self) {
        self.published = until("it recovers", || match self.sink.recover() {
            Ok(marker) => Ok(marker.map_or(0, |marker| marker.epoch.0)),
            Err(SinkError::Unreachable(reason)) => Err(reason),
            Err(error) => panic!("{error}"),
        });
    }

    fn epochs_to(&self, last: u64) -> Vec<SinkEpoch> {
        (self.published + 1..=last).map(epoch_of_rows).collect()
    }

    fn publish_to(&mut self, last: u64) {
        while self.published < last {
            match self.sink.publish(&self.epochs_to(last)) {
                Ok(()) => self.published = last,
                Err(SinkError::Unreachable(_)) => self.recover(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Holds so many ends of transactions until their sink has given them up. Returns the sink's name and its last epoch.
fn hold_ends(lane: usize, holds: u64) -> (String, u64) {
    let Lanes { kafka, proxies } = lanes();
    let proxy = &proxies[lane];
    let (name, topic) = (format!("held{lane}"), format!("held-{lane}"));
    sink::create(kafka, &topic);
    let options = [("topic", topic.as_str()), ("bootstrap.servers", &proxy.address())]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let publisher = Publisher {
        sink: name.clone(),
        state: "state".into(),
        generation: 1,
        takes_over: false,
        shares_state: false,
        instance: 1,
    };
    let release_at = Arc::new(AtomicU64::new(0));
    let numbered = Numbered {
        proxy,
        release_at: Arc::clone(&release_at),
    };
    let options = Options::resolve(SINK_OPTIONS, options);
    let sink = KafkaSink::new("network", &options, publisher, Box::new(numbered)).expect("valid options");
    let mut held = Held {
        sink: sink.waiting(Duration::from_secs(1)),
        published: 0,
    };
    held.recover();
    for round in 0..holds {
        let arrival = ARRIVALS[(usize::try_from(round).expect("small") + lane) % ARRIVALS.len()];
        held.publish_to(held.published + 1 + round % 3);
        proxy.set(Rules {
            hold: Some(END_TXN),
            ..Rules::default()
        });
        let last = held.published + 2;
        let before = proxy.done().held;
        let given_up = held.sink.publish(&held.epochs_to(last));
        assert!(matches!(given_up, Err(SinkError::Unreachable(_))), "{given_up:?}");
        assert_eq!(proxy.done().held, before + 1, "its end is under way");
        proxy.set(Rules::default());
        if arrival == Arrival::BeforeTheFence {
            let_through(proxy);
        }
        held.recover();
        if arrival == Arrival::AfterTheFence {
            let_through(proxy);
        }
        if arrival == Arrival::InTheNextTransaction {
            // Behind the first records of it.
            release_at.store(held.published + 2, Ordering::SeqCst);
        }
        held.publish_to(held.published.max(last) + 2);
        if arrival == Arrival::AfterTheNextTransaction {
            let_through(proxy);
        }
    }
    held.publish_to(held.published + 1);
    (name, held.published)
}

#[test]
fn the_end_of_a_transaction_that_comes_late_tears_no_other() {
    let holds = number_of("ZETA_HOLDS", 16);
    let Lanes { kafka, proxies } = lanes();
    let count = OF_HOLDS.len() as u64;
    let sinks: Vec<(String, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (OF_HOLDS.zip(0..))
            .map(|(lane, index)| scope.spawn(move || hold_ends(lane, (holds + index) / count)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    let (mut torn, mut aborted, mut rows, mut markers_seen) = (0, 0, 0, 0);
    for ((name, last), lane) in sinks.into_iter().zip(OF_HOLDS) {
        let published = sink::published(&kafka.brokers, &format!("held-{lane}"));
        aborted += published.with_aborted - published.records.len();
        rows += published.records.len();
        let mut epochs: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut order = Vec::new();
        for (_, row) in &published.records {
            let row = row.as_ref().expect("rows are only added");
            let number = |name: &str| row[name].as_u64().expect("a number");
            epochs.entry(number("epoch")).or_default().push(number("i"));
            order.push(number("epoch"));
        }
        for number in 1..=last {
            let mut found = epochs.remove(&number).unwrap_or_default();
            found.sort_unstable();
            let expected: Vec<u64> = (0..epoch_of_rows(number).added.num_rows() as u64).collect();
            torn += u64::from(found != expected);
        }
        assert!(epochs.is_empty(), "no epoch behind the last: {epochs:?}");
        // Each partition begins anew, and in each they come in their order.
        assert!(order.windows(2).filter(|pair| pair[1] < pair[0]).count() <= 2);
        let mut newest = None;
        admin::tail(
            &kafka.brokers,
            &format!("zeta-network-{name}-marker"),
            usize::MAX,
            false,
            &mut |record| {
                let marker: Marker =
                    serde_json::from_slice(record.value.as_ref().expect("a marker")).expect("a marker");
                if marker.epoch == Epoch(0) {
                    // A claim.
                    return ControlFlow::Continue(());
                }
                assert_eq!(
                    marker.records,
                    epoch_of_rows(marker.epoch.0).added.num_rows() as u64,
                    "rows of epoch {}",
                    marker.epoch
                );
                assert!(newest < Some(marker.epoch), "markers go up");
                newest = Some(marker.epoch);
                markers_seen += 1;
                ControlFlow::Continue(())
            },
        )
        .expect("the markers");
        assert_eq!(newest, Some(Epoch(last)));
    }
    let mut answers: BTreeMap<i16, u64> = BTreeMap::new();
    let mut held = 0;
    for lane in OF_HOLDS {
        let done = proxies[lane].done();
        held += done.held;
        done.answers
            .iter()
            .for_each(|answer| *answers.entry(*answer).or_default() += 1);
    }
    println!(
        "{held} ends held, {rows} rows, {markers_seen} transactions seen, {aborted} records of aborted ones, {torn} epochs torn, lost or twice; answers {answers:?}"
    );
    assert_eq!((held, torn), (holds, 0));
    assert!(holds < 4 || 0 < aborted, "windows were hit");
}
