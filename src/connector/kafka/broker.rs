//! Brokers as the protocol of a sink asks them, through librdkafka.

use std::{
    sync::{Arc, Mutex, PoisonError},
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
    sink::{Broker, KafkaSink, Producing, Target},
};
use crate::connector::{Options, Publisher, SinkError, ToRecords};

/// See [`Cluster::timeout`]; and how long an open transaction may keep the newest marker from being read.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a full queue is served before it is tried again.
const BACKPRESSURE_WAIT: Duration = Duration::from_millis(20);
/// How long a flush goes on between two looks at what became of its connections.
const FLUSH_STEP: Duration = Duration::from_millis(250);
/// Records sent between two looks at what was delivered.
const SENDS_PER_POLL: u32 = 1024;
/// Offsets at the end of the marker topic that are read first; older ones where no marker is among them.
const MARKERS_READ_FIRST: i64 = 200;

/// A cluster of brokers, as one sink talks to it.
pub struct Cluster {
    shared: Arc<Shared>,
    /// How long brokers may take to fence, to take the next of a transaction's records, and to commit it.
    timeout: Duration,
}

/// Who writes where.
struct Shared {
    sink: String,
    topic: String,
    marker_topic: String,
    brokers: String,
    transactional_id: String,
    is_transactional: bool,
    client: ClientConfig,
}

impl KafkaSink<Cluster> {
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
        config::set_given(&mut client, options, PROPERTY_PREFIXES, config::OF_SINKS)?;
        let cluster = Cluster {
            shared: Arc::new(Shared {
                sink: publisher.sink.clone(),
                topic: options.text("topic").to_owned(),
                marker_topic,
                brokers,
                transactional_id,
                is_transactional,
                client,
            }),
            timeout: TRANSACTION_TIMEOUT,
        };
        Ok(Self::over(cluster, is_transactional, publisher, encoder))
    }

    /// Gives brokers less time to fence, to take the next of a transaction's records, and to commit it, or more. How long its markers may
    /// take to be read stays as it is.
    pub fn waiting(mut self, timeout: Duration) -> Self {
        self.broker.timeout = timeout;
        self
    }
}

impl Cluster {
    fn newest_marker_in(&self, drain: &mut Drain, from: i64, to: i64) -> Result<Option<Vec<u8>>, SinkError> {
        let topic = &self.shared.marker_topic;
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
                    if record.key == Some(self.shared.sink.as_bytes()) {
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
        Ok(newest)
    }
}

impl Broker for Cluster {
    type Producer = TopicProducer;

    fn find_topics(&mut self) -> Result<(), SinkError> {
        let Shared {
            brokers,
            client,
            topic,
            marker_topic,
            ..
        } = &*self.shared;
        let there = admin::topics_among(brokers, client, &[topic, marker_topic])?;
        if !there.contains(topic) {
            return Err(Connection::new(brokers).missing_topic(topic).into());
        }
        if !there.contains(marker_topic) {
            admin::create_marker_topic(brokers, client, marker_topic)?;
        }
        // Now, and not when there are rows.
        admin::may_write(brokers, client, &[topic, marker_topic])?;
        Ok(())
    }

    fn producer(&mut self) -> Result<TopicProducer, SinkError> {
        let deliveries = Deliveries {
            connection: Connection::new(&self.shared.brokers),
            first_error: Mutex::default(),
        };
        let producer = (self.shared.client)
            .create_with_context(deliveries)
            .map_err(|error: KafkaError| SinkError::Failed(config::sentence(&error)))?;
        let producer = TopicProducer {
            shared: Arc::clone(&self.shared),
            timeout: self.timeout,
            producer,
            unpolled: 0,
        };
        if self.shared.is_transactional {
            (producer.producer)
                .init_transactions(self.timeout)
                .map_err(|error| producer.explain(&error))?;
        }
        producer.serve();
        producer.producer.client().context().connection.answered();
        Ok(producer)
    }

    fn newest_marker(&mut self, is_fenced: bool) -> Result<Option<Vec<u8>>, SinkError> {
        let topic = &self.shared.marker_topic;
        let reader = |isolation: &str| {
            let mut config = config::consumer(&self.shared.brokers);
            config::copy_common(&self.shared.client, &mut config);
            config.set("isolation.level", isolation);
            Drain::connect(&config, Connection::new(&self.shared.brokers))
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
}

/// Writes rows and markers.
pub struct TopicProducer {
    shared: Arc<Shared>,
    timeout: Duration,
    producer: BaseProducer<Deliveries>,
    unpolled: u32,
}

impl Producing for TopicProducer {
    fn begin(&mut self) -> Result<(), SinkError> {
        match self.shared.is_transactional {
            true => self.producer.begin_transaction().map_err(|error| self.explain(&error)),
            false => Ok(()),
        }
    }

    fn send(&mut self, to: Target, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), SinkError> {
        let mut record = BaseRecord::<[u8], [u8]> {
            key,
            payload: value,
            ..BaseRecord::to(match to {
                Target::Rows => &self.shared.topic,
                Target::Markers => &self.shared.marker_topic,
            })
        };
        if to == Target::Markers {
            record = record.partition(0);
        }
        let deadline = Deadline::after(self.timeout);
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if !deadline.left().is_zero() =>
                {
                    record = back;
                    self.producer.poll(BACKPRESSURE_WAIT);
                    self.check()?;
                }
                Err((error, _)) => return Err(self.explain(&error)),
            }
        }
        self.unpolled += 1;
        if SENDS_PER_POLL <= self.unpolled {
            self.unpolled = 0;
            self.producer.poll(Duration::ZERO);
            self.check()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        // Counts from when they last took a record.
        let mut deadline = Deadline::after(self.timeout);
        loop {
            let before = self.producer.in_flight_count();
            let flushed = self.producer.flush(FLUSH_STEP);
            self.check()?;
            let Err(error) = flushed else { return Ok(()) };
            if self.shared.is_transactional {
                // After a lost connection it is not committed any more, so there is nothing to wait for.
                self.doubt()?;
            }
            if self.producer.in_flight_count() < before {
                deadline = Deadline::after(self.timeout);
            } else if deadline.left().is_zero() {
                return Err(self.explain(&error));
            }
        }
    }

    fn commit(&mut self) -> Result<(), SinkError> {
        match self.shared.is_transactional {
            true => (self.producer)
                .commit_transaction(self.timeout)
                .map_err(|error| self.explain(&error)),
            false => Ok(()),
        }
    }

    fn doubt(&mut self) -> Result<(), SinkError> {
        self.serve();
        let connection = &self.producer.client().context().connection;
        match connection.is_suspect() {
            true => Err(SinkError::Unreachable(format!(
                "a connection to Kafka at {} was lost while records were published; looking what it took",
                self.shared.brokers
            ))),
            false => Ok(()),
        }
    }
}

impl TopicProducer {
    /// Hears what happened meanwhile: one call of librdkafka tells one event, so it is asked for a moment.
    fn serve(&self) {
        self.producer.poll(Duration::from_millis(2));
    }

    /// The first record that was not taken.
    fn check(&self) -> Result<(), SinkError> {
        let deliveries = self.producer.client().context();
        let first = deliveries
            .first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        first.map_or(Ok(()), |error| Err(self.explain(&error)))
    }

    fn explain(&self, error: &KafkaError) -> SinkError {
        let producer = &self.producer;
        let Shared {
            sink,
            topic,
            marker_topic,
            brokers,
            transactional_id,
            ..
        } = &*self.shared;
        use RDKafkaErrorCode::*;
        // What librdkafka says of a producer that is of no use any more stands behind the error of the call.
        let code = match error {
            KafkaError::Transaction(error) => Some(error.code()),
            error => error.rdkafka_error_code(),
        };
        let fatal = producer.client().fatal_error().map(|(code, _)| code);
        let connection = &producer.client().context().connection;
        match fatal.or(code) {
            Some(Fenced | InvalidProducerEpoch | ProducerFenced) => SinkError::Fenced(format!(
                "another producer took over the transactional id `{transactional_id}` of sink `{sink}`, or its transaction took too long"
            )),
            Some(TopicAuthorizationFailed) => SinkError::Failed(format!(
                "Kafka does not let us write to topic `{topic}` or `{marker_topic}`"
            )),
            Some(TransactionalIdAuthorizationFailed) => SinkError::Failed(format!(
                "Kafka does not let us use the transactional id `{transactional_id}`"
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
                    false => format!("Kafka at {brokers} did not publish: {error}"),
                };
                SinkError::Unreachable(reason)
            }
        }
    }
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
