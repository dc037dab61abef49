//! A sink into a topic: each transaction holds whole epochs and a marker that says which.
//!
//! ```text
//! recover   new producer ─▶ init_transactions (fences the one before) ─▶ read the newest marker, committed ones only
//! publish   begin ─▶ records of epochs e..=f ─▶ marker f ─▶ flush ─▶ commit
//! doubt     any error, any connection lost inside a transaction ─▶ the producer goes, recover decides
//! ```
//! A broker may carry out a commit long after it was asked, when the client has gone on: with the producer of then it would be let into
//! the next transaction. So a producer that met any trouble in a transaction is never used again, and its successor fences it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};

use super::{
    PROPERTY_PREFIXES, admin, config,
    connection::{Connection, Failure},
    drain::{BATCH_MAX, Bound, CALL_TIMEOUT, Deadline, Drain, Event},
};
use crate::{
    connector::{
        Marker, OptionKind, OptionSpec, Options, Publisher, Sink, SinkEpoch, SinkError, ToRecords, sink::hash_of,
    },
    types::Records,
};

/// See [`KafkaSink::waiting`].
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a full queue is served before it is tried again.
const BACKPRESSURE_WAIT: Duration = Duration::from_millis(20);
/// Records sent between two looks at what was delivered.
const SENDS_PER_POLL: u32 = 1024;
/// Offsets at the end of the marker topic that are read first; older ones where no marker is among them.
const MARKERS_READ_FIRST: i64 = 200;

/// What `CREATE SINK … WITH (connector = 'kafka', …)` takes beside the options of the connection.
pub const SINK_OPTIONS: &[OptionSpec] = &[
    OptionSpec::text("topic", "the topic to write")
        .aliases(&["kafka.topic"])
        .required(),
    super::BROKERS,
    OptionSpec::text(
        "delivery",
        "'exactly_once': readers of committed records see each epoch once and whole; 'at_least_once': some records twice after a crash",
    )
    .aliases(&["sink.delivery-guarantee"])
    .kind(OptionKind::Choice(&[
        "exactly_once",
        "at_least_once",
        "exactly-once",
        "at-least-once",
    ]))
    .default("exactly_once"),
    OptionSpec::text(
        "transactional_id",
        "how brokers know this sink; by default zeta-<source>-<sink>. Two sinks of one name would fence each other",
    )
    .aliases(&["properties.transactional.id"]),
    OptionSpec::text(
        "marker_topic",
        "the topic that says how far this sink is, one of its own; by default <transactional_id>-marker",
    ),
    super::SECURITY[0],
    super::SECURITY[1],
    super::SECURITY[2],
    super::SECURITY[3],
    super::SECURITY[4],
    super::SECURITY[5],
    super::SECURITY[6],
    super::SECURITY[7],
];

/// Writes one topic as one transactional id.
pub struct KafkaSink {
    topic: String,
    brokers: String,
    marker_topic: String,
    is_transactional: bool,
    client: ClientConfig,
    publisher: Publisher,
    encoder: Box<dyn ToRecords>,
    /// How long brokers may take to fence, to take a transaction's records, and to commit it.
    timeout: Duration,
    /// `None` until recovered, and after any doubt.
    producer: Option<BaseProducer<Deliveries>>,
}

impl KafkaSink {
    /// `publisher.sink` with its source names the transactional id, unless an option does.
    ///
    /// # Errors
    /// A sentence about a property that librdkafka does not take.
    pub fn new(
        source: &str,
        options: &Options,
        publisher: Publisher,
        encoder: Box<dyn ToRecords>,
    ) -> Result<Self, String> {
        let brokers = options.text("bootstrap.servers").to_owned();
        let transactional_id = match options.get("transactional_id") {
            Some(given) => given.to_owned(),
            None => format!("zeta-{source}-{}", publisher.sink),
        };
        let marker_topic = match options.get("marker_topic") {
            Some(given) => given.to_owned(),
            None => format!("{transactional_id}-marker"),
        };
        let is_transactional = options.text("delivery").starts_with("exactly");
        let mut client = config::client(&brokers);
        client
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "262144")
            .set("batch.num.messages", "100000");
        if is_transactional {
            client.set("transactional.id", &transactional_id);
            client.set("transaction.timeout.ms", "60000");
        }
        config::set_given(&mut client, options, PROPERTY_PREFIXES)?;
        Ok(Self {
            topic: options.text("topic").to_owned(),
            brokers,
            marker_topic,
            is_transactional,
            client,
            publisher,
            encoder,
            timeout: TRANSACTION_TIMEOUT,
            producer: None,
        })
    }

    /// Gives brokers less time, or more.
    pub fn waiting(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn connect(&self) -> Result<BaseProducer<Deliveries>, SinkError> {
        let deliveries = Deliveries {
            connection: Connection::new(&self.brokers),
            first_error: Mutex::default(),
        };
        self.client
            .create_with_context(deliveries)
            .map_err(|error: KafkaError| SinkError::Failed(config::sentence(&error)))
    }

    /// Sees that both topics are there.
    fn find_topics(&self) -> Result<(), SinkError> {
        let there = admin::topics_among(&self.brokers, &self.client, &[&self.topic, &self.marker_topic])?;
        if !there.contains(&self.topic) {
            return Err(Connection::new(&self.brokers).missing_topic(&self.topic).into());
        }
        if !there.contains(&self.marker_topic) {
            admin::create_marker_topic(&self.brokers, &self.client, &self.marker_topic)?;
        }
        // Now, and not when there are rows.
        admin::may_write(&self.brokers, &self.client, &[&self.topic, &self.marker_topic])?;
        Ok(())
    }

    /// The newest marker that is committed. With `is_fenced` no transaction of an earlier producer is open any more, and what one left is
    /// read to its end; without, up to where one may be open.
    fn newest_marker(&self, is_fenced: bool) -> Result<Option<Marker>, SinkError> {
        let topic = &self.marker_topic;
        let reader = |isolation: &str| {
            let mut config = config::consumer(&self.brokers);
            config::copy_security(&self.client, &mut config);
            config.set("isolation.level", isolation);
            Drain::connect(&config, Connection::new(&self.brokers))
                .map_err(|error| SinkError::Failed(config::sentence(&error)))
        };
        let bounds_of = |drain: &Drain, bound: Bound| {
            let ends = drain.bounds(topic, &[0], bound, CALL_TIMEOUT);
            drain.serve();
            ends.map(|ends| ends.get(&0).copied().unwrap_or(0))
                .map_err(|error| SinkError::from(drain.connection().explain_call(topic, &error)))
        };
        let mut committed = reader("read_committed")?;
        let high = match is_fenced {
            // All that was ever written, committed or not; behind it nobody but us writes.
            true => bounds_of(&reader("read_uncommitted")?, Bound::High)?,
            false => bounds_of(&committed, Bound::High)?,
        };
        let low = bounds_of(&committed, Bound::Low)?;
        let mut depth = MARKERS_READ_FIRST;
        loop {
            let from = (high - depth).max(low);
            if let Some(found) = self.newest_marker_in(&mut committed, from, high)? {
                return Ok(Some(found));
            }
            if from == low {
                return Ok(None);
            }
            depth = depth.saturating_mul(16);
        }
    }

    fn newest_marker_in(&self, drain: &mut Drain, from: i64, to: i64) -> Result<Option<Marker>, SinkError> {
        let topic = &self.marker_topic;
        if to <= from {
            return Ok(None);
        }
        drain
            .assign(topic, [(0, from)])
            .map_err(|error| SinkError::from(drain.connection().explain_call(topic, &error)))?;
        let deadline = Deadline::after(TRANSACTION_TIMEOUT);
        let (mut newest, mut is_read, mut trouble) = (None, false, None);
        while !is_read {
            drain.take(BATCH_MAX, Duration::from_millis(50), |event| match event {
                Event::Record(record) => {
                    is_read |= to <= record.offset + 1;
                    if record.key == Some(self.publisher.sink.as_bytes()) {
                        newest = record.value.map(<[u8]>::to_vec);
                    }
                }
                // What an open transaction holds is not handed out, and ends are told short of it.
                Event::End { position, .. } => is_read |= to <= position,
                Event::Trouble { error, detail, .. } => trouble = Some((error, detail)),
            });
            drain.serve();
            if let Some((error, detail)) = trouble.take() {
                return Err(drain.connection().explain(topic, error, &detail).into());
            }
            if !is_read && deadline.left().is_zero() {
                return Err(SinkError::Unreachable(format!(
                    "topic `{topic}` was not read to its end within {} s: a transaction may still be open",
                    TRANSACTION_TIMEOUT.as_secs()
                )));
            }
        }
        let Some(newest) = newest else { return Ok(None) };
        let marker = serde_json::from_slice(&newest).map_err(|_| {
            SinkError::Failed(format!(
                "topic `{topic}` holds something else than markers of sinks; choose another one with `marker_topic`"
            ))
        })?;
        Ok(Some(marker))
    }

    fn send_all(
        &mut self,
        producer: &BaseProducer<Deliveries>,
        epochs: &[SinkEpoch],
    ) -> Result<Option<Marker>, SinkError> {
        let mut last = None;
        let mut unpolled = 0;
        for epoch in epochs {
            let records = self.encoder.records(epoch)?;
            for index in 0..records.len() {
                let record = BaseRecord {
                    key: records.key(index),
                    payload: records.value(index),
                    ..BaseRecord::<[u8], [u8]>::to(&self.topic)
                };
                self.send(producer, record)?;
                unpolled += 1;
                if SENDS_PER_POLL <= unpolled {
                    unpolled = 0;
                    producer.poll(Duration::ZERO);
                    self.check(producer)?;
                }
            }
            last = Some(self.marker(epoch, &records));
        }
        Ok(last)
    }

    fn marker(&self, epoch: &SinkEpoch, records: &Records) -> Marker {
        Marker {
            sink: self.publisher.sink.clone(),
            state: self.publisher.state.clone(),
            generation: self.publisher.generation,
            epoch: epoch.epoch,
            records: records.len() as u64,
            hash: hash_of(records),
        }
    }

    fn send_marker(&self, producer: &BaseProducer<Deliveries>, marker: &Marker) -> Result<(), SinkError> {
        let value = serde_json::to_vec(marker).map_err(|e| SinkError::Failed(e.to_string()))?;
        let record = BaseRecord::<[u8], [u8]>::to(&self.marker_topic)
            .partition(0)
            .key(marker.sink.as_bytes())
            .payload(value.as_slice());
        self.send(producer, record)
    }

    fn send(
        &self,
        producer: &BaseProducer<Deliveries>,
        mut record: BaseRecord<'_, [u8], [u8]>,
    ) -> Result<(), SinkError> {
        let deadline = Deadline::after(TRANSACTION_TIMEOUT);
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if !deadline.left().is_zero() =>
                {
                    record = back;
                    producer.poll(BACKPRESSURE_WAIT);
                    self.check(producer)?;
                }
                Err((error, _)) => return Err(self.explain(producer, &error)),
            }
        }
    }

    /// Waits as long as brokers take records.
    fn flush(&self, producer: &BaseProducer<Deliveries>) -> Result<(), SinkError> {
        loop {
            let before = producer.in_flight_count();
            let flushed = producer.flush(self.timeout);
            self.check(producer)?;
            match flushed {
                Ok(()) => return Ok(()),
                Err(_) if producer.in_flight_count() < before => {}
                Err(error) => return Err(self.explain(producer, &error)),
            }
        }
    }

    /// The first record that was not taken.
    fn check(&self, producer: &BaseProducer<Deliveries>) -> Result<(), SinkError> {
        let deliveries = producer.client().context();
        let first = deliveries
            .first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        first.map_or(Ok(()), |error| Err(self.explain(producer, &error)))
    }

    /// A connection that was lost leaves it open what the broker still does.
    fn check_connection(&self, producer: &BaseProducer<Deliveries>) -> Result<(), SinkError> {
        let connection = &producer.client().context().connection;
        match connection.is_suspect() {
            true => Err(SinkError::Unreachable(format!(
                "a connection to Kafka at {} was lost while records were published; looking what it took",
                self.brokers
            ))),
            false => Ok(()),
        }
    }

    fn explain(&self, producer: &BaseProducer<Deliveries>, error: &KafkaError) -> SinkError {
        use RDKafkaErrorCode::*;
        // What librdkafka says of a producer that is of no use any more stands behind the error of the call.
        let code = match error {
            KafkaError::Transaction(error) => Some(error.code()),
            error => error.rdkafka_error_code(),
        };
        let fatal = producer.client().fatal_error().map(|(code, _)| code);
        let connection = &producer.client().context().connection;
        let topic = &self.topic;
        match fatal.or(code) {
            Some(Fenced | InvalidProducerEpoch | ProducerFenced) => SinkError::Fenced(format!(
                "another zeta publishes as sink `{}` (transactional id `{}`) now; stop one of them, or give one another `transactional_id`",
                self.publisher.sink,
                self.client.get("transactional.id").unwrap_or_default()
            )),
            Some(TopicAuthorizationFailed) => SinkError::Failed(format!(
                "Kafka does not let us write to topic `{topic}` or `{}`",
                self.marker_topic
            )),
            Some(TransactionalIdAuthorizationFailed) => SinkError::Failed(format!(
                "Kafka does not let us use the transactional id `{}`",
                self.client.get("transactional.id").unwrap_or_default()
            )),
            Some(MessageSizeTooLarge) => SinkError::Failed(format!(
                "a record is larger than topic `{topic}` takes (max.message.bytes)"
            )),
            Some(UnknownTopicOrPartition | UnknownTopic | UnknownPartition) => connection.missing_topic(topic).into(),
            Some(Authentication | SaslAuthenticationFailed) => connection.failure().into(),
            _ => {
                let reason = match connection.is_down() {
                    true => match connection.failure() {
                        Failure::Unreachable(reason) | Failure::Failed(reason) | Failure::MissingTopic(reason) => {
                            reason
                        }
                    },
                    false => format!("Kafka at {} did not publish: {error}", self.brokers),
                };
                SinkError::Unreachable(reason)
            }
        }
    }
}

impl Sink for KafkaSink {
    fn recover(&mut self) -> Result<Option<Marker>, SinkError> {
        // The one before goes first: two of one name in this process would only fence each other.
        self.producer = None;
        self.find_topics()?;
        let before = self.newest_marker(false)?;
        let is_foreign = |marker: &Marker| marker.state != self.publisher.state && !self.publisher.takes_over;
        if before.as_ref().is_some_and(is_foreign) {
            // Who publishes there is not to be fenced by a mistake of ours.
            return Ok(before);
        }
        let producer = self.connect()?;
        if self.is_transactional {
            producer
                .init_transactions(self.timeout)
                .map_err(|error| self.explain(&producer, &error))?;
        }
        serve(&producer);
        producer.client().context().connection.answered();
        let marker = self.newest_marker(true)?;
        self.producer = Some(producer);
        Ok(marker)
    }

    fn publish(&mut self, epochs: &[SinkEpoch]) -> Result<(), SinkError> {
        let Some(producer) = self.producer.take() else {
            return Err(SinkError::Unreachable("it has to recover first".into()));
        };
        // It may have lost a connection while there was nothing to do: then it begins anew.
        serve(&producer);
        self.check_connection(&producer)?;
        if self.is_transactional {
            producer
                .begin_transaction()
                .map_err(|error| self.explain(&producer, &error))?;
        }
        let Some(marker) = self.send_all(&producer, epochs)? else {
            return Err(SinkError::Failed(
                "internal error: nothing to publish; please report it".into(),
            ));
        };
        if !self.is_transactional {
            // The marker says that the records are there: it comes after them.
            self.flush(&producer)?;
        }
        self.send_marker(&producer, &marker)?;
        self.flush(&producer)?;
        if self.is_transactional {
            serve(&producer);
            self.check_connection(&producer)?;
            producer
                .commit_transaction(self.timeout)
                .map_err(|error| self.explain(&producer, &error))?;
        }
        // It is committed. What a lost connection may still bring belongs to a producer that is used no more.
        serve(&producer);
        if self.check_connection(&producer).is_ok() {
            self.producer = Some(producer);
        }
        Ok(())
    }

    fn digest(&mut self, epoch: &SinkEpoch) -> Result<(u64, u64), SinkError> {
        let records = self.encoder.records(epoch)?;
        Ok((records.len() as u64, hash_of(&records)))
    }
}

/// Hears what happened meanwhile: one call of librdkafka tells one event, so it is asked for a moment.
fn serve(producer: &BaseProducer<Deliveries>) {
    producer.poll(Duration::from_millis(2));
}

struct Deliveries {
    connection: Connection,
    first_error: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, kind: &str, line: &str) {
        self.connection.note_log(level, kind, line);
    }

    fn error(&self, error: KafkaError, detail: &str) {
        self.connection.error(error, detail);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| error.clone());
        }
    }
}

impl From<Failure> for SinkError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable(sentence) | Failure::MissingTopic(sentence) => Self::Unreachable(sentence),
            Failure::Failed(sentence) => Self::Failed(sentence),
        }
    }
}
