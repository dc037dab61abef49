//! Records into a topic, as fast as the brokers take them.
//!
//! ```text
//! send ─▶ librdkafka's queue (full: wait) ─▶ brokers, acks = all ─▶ delivery: counted, the first error kept ─▶ next send or flush
//! ```
//! A record is either delivered once, or its error is returned: never lost in silence, as long as `flush` is called at the end.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};

use super::{
    admin, config,
    connection::{Connection, Failure},
};
use crate::types::{Error, Result};

/// How long a full queue is served before it is tried again.
const BACKPRESSURE_WAIT: Duration = Duration::from_millis(50);
/// Records sent between two looks at what was delivered.
const SENDS_PER_POLL: u32 = 1024;

/// Sends to one topic; keys choose the partition as Java clients do.
pub struct KafkaProducer {
    producer: BaseProducer<Deliveries>,
    topic: String,
    partitions: usize,
    unpolled: u32,
}

impl KafkaProducer {
    /// Asks the brokers for the topic. `properties` are librdkafka's own, e.g. for a login.
    ///
    /// # Errors
    /// Where the brokers do not answer, the topic does not exist, or a property is wrong.
    pub fn connect(brokers: &str, topic: &str, properties: &[(String, String)]) -> Result<Self> {
        let partitions = admin::describe(brokers, topic)?.partitions.len();
        let mut config = config::client(brokers);
        config
            // A retry neither repeats nor reorders a record.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "10")
            .set("compression.type", "lz4")
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "262144")
            // A broker that restarts is waited for; one that stays away is an error within a minute.
            .set("message.timeout.ms", "60000");
        for (name, value) in properties {
            config::check_property(name, value).map_err(Error::user)?;
            config.set(name, value);
        }
        let deliveries = Deliveries {
            connection: Connection::new(brokers),
            tally: Mutex::default(),
        };
        let producer = config
            .create_with_context(deliveries)
            .map_err(|error: KafkaError| Error::user(config::sentence(&error)))?;
        Ok(Self {
            producer,
            topic: topic.to_owned(),
            partitions,
            unpolled: 0,
        })
    }

    /// Partitions of the topic when it was connected to.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// Records that brokers have taken so far.
    pub fn delivered(&self) -> u64 {
        self.deliveries().delivered
    }

    /// Queues one record; waits while the queue is full.
    ///
    /// # Errors
    /// The first delivery that failed, of this or an earlier record. No record is taken after that.
    pub fn send(&mut self, key: &[u8], value: &[u8], timestamp_ms: i64) -> Result<()> {
        self.unpolled += 1;
        if SENDS_PER_POLL <= self.unpolled {
            self.unpolled = 0;
            self.producer.poll(Duration::ZERO);
            self.check()?;
        }
        let mut record = BaseRecord::to(&self.topic)
            .key(key)
            .payload(value)
            .timestamp(timestamp_ms);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(BACKPRESSURE_WAIT);
                    self.check()?;
                }
                Err((error, _)) => return Err(self.refused(&error, "").into()),
            }
        }
    }

    /// Waits until everything that was sent is delivered, at most `timeout`.
    ///
    /// # Errors
    /// The first delivery that failed, or how much is still under way after `timeout`.
    pub fn flush(&mut self, timeout: Duration) -> Result<()> {
        let flushed = self.producer.flush(timeout);
        self.check()?;
        flushed.map_err(|_| {
            let (count, brokers) = (self.producer.in_flight_count(), &self.context().connection);
            match brokers.is_down() {
                true => brokers.failure().into(),
                false => Error::external(format!(
                    "{count} records of topic `{}` are not delivered after {} s",
                    self.topic,
                    timeout.as_secs()
                )),
            }
        })
    }

    fn context(&self) -> &Deliveries {
        self.producer.client().context()
    }

    fn deliveries(&self) -> Tally {
        self.context()
            .tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn check(&self) -> Result<()> {
        match self.deliveries().first_error {
            None => Ok(()),
            Some(error) => Err(self.refused(&error, "").into()),
        }
    }

    fn refused(&self, error: &KafkaError, detail: &str) -> Failure {
        use RDKafkaErrorCode::*;
        let connection = &self.context().connection;
        match error.rdkafka_error_code() {
            // Nobody acknowledged it within the time that a message has.
            Some(MessageTimedOut) => connection.failure(),
            Some(TopicAuthorizationFailed) => {
                Failure::Failed(format!("Kafka does not let us write to topic `{}`", self.topic))
            }
            Some(MessageSizeTooLarge) => Failure::Failed(format!(
                "a record is larger than topic `{}` takes (max.message.bytes)",
                self.topic
            )),
            Some(code @ (UnknownTopicOrPartition | UnknownTopic | UnknownPartition | Authentication)) => {
                connection.explain(&self.topic, code, detail)
            }
            _ => Failure::Failed(format!(
                "Kafka did not take a record of topic `{}`: {error}",
                self.topic
            )),
        }
    }
}

/// What became of the records.
#[derive(Clone, Debug, Default)]
struct Tally {
    delivered: u64,
    first_error: Option<KafkaError>,
}

struct Deliveries {
    connection: Connection,
    tally: Mutex<Tally>,
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

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        match delivery {
            Ok(_) => tally.delivered += 1,
            Err((error, _)) => {
                tally.first_error.get_or_insert_with(|| error.clone());
            }
        }
        drop(tally);
    }
}
