//! A sink into a topic: each transaction holds whole epochs and a marker that says which.
//!
//! ```text
//! recover   new producer ─▶ fence those before ─▶ read the newest marker, committed ones only ─▶ the first time: claim
//! publish   begin ─▶ records of epochs e..=f ─▶ marker f ─▶ flush ─▶ commit
//! doubt     any error, any connection lost inside a transaction ─▶ the producer goes, recover decides
//! ```
//! A broker may carry out a commit long after it was asked, when the client has gone on: with the producer of then it would be let into
//! the next transaction. So a producer that met any trouble in a transaction is never used again, and its successor fences it.
//!
//! A *claim* is a marker that says again what the newest one said, with the number of the writer that starts. Who is fenced looks at the
//! newest marker: where it is its own, only its transaction had taken too long; where it is another's, that one came later, and it is over.

use std::collections::BTreeSet;

use crate::{
    connector::{Marker, OptionKind, OptionSpec, Publisher, Sink, SinkEpoch, SinkError, ToRecords, sink::hash_of},
    types::{
        Epoch, RecordSchema, Records,
        planted::{Bug, has},
    },
};

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

/// Where a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Rows,
    Markers,
}

/// What the protocol asks of brokers. Each question has a deadline of at most half a minute, and a call may ask several.
pub trait Broker: Send {
    type Producer: Producing;

    /// Sees that both topics are there.
    fn find_topics(&mut self) -> Result<(), SinkError>;

    /// A new producer. With transactions no earlier one can write any more, and what it left open is aborted.
    fn producer(&mut self) -> Result<Self::Producer, SinkError>;

    /// The newest marker that is committed. With `is_fenced` no transaction of an earlier producer is open any more, and what one left is
    /// read to its end; without, up to where one may be open.
    fn newest_marker(&mut self, is_fenced: bool) -> Result<Option<Vec<u8>>, SinkError>;
}

/// One producer. After any error it is of no use any more.
pub trait Producing: Send {
    fn begin(&mut self) -> Result<(), SinkError>;

    /// Brokers may have it later.
    fn send(&mut self, to: Target, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), SinkError>;

    /// Waits until brokers have all that was sent.
    fn flush(&mut self) -> Result<(), SinkError>;

    fn commit(&mut self) -> Result<(), SinkError>;

    /// # Errors
    /// Where a connection was lost since it was made: then it is open what brokers still do.
    fn doubt(&mut self) -> Result<(), SinkError>;
}

/// Writes one topic as one transactional id.
pub struct KafkaSink<B: Broker> {
    pub(super) broker: B,
    is_transactional: bool,
    publisher: Publisher,
    encoder: Box<dyn ToRecords>,
    /// `None` until recovered, and after any doubt.
    producer: Option<B::Producer>,
    has_claimed: bool,
}

impl<B: Broker> KafkaSink<B> {
    pub fn over(broker: B, is_transactional: bool, publisher: Publisher, encoder: Box<dyn ToRecords>) -> Self {
        Self {
            broker,
            is_transactional,
            publisher,
            encoder,
            producer: None,
            has_claimed: false,
        }
    }

    fn newest_marker(&mut self, is_fenced: bool) -> Result<Option<Marker>, SinkError> {
        let Some(bytes) = self.broker.newest_marker(is_fenced)? else {
            return Ok(None);
        };
        let marker = serde_json::from_slice(&bytes).map_err(|_| {
            SinkError::Failed(
                "its marker topic holds something else than markers of sinks; choose another one with `marker_topic`"
                    .into(),
            )
        })?;
        Ok(Some(marker))
    }

    fn is_foreign(&self, marker: &Option<Marker>) -> bool {
        let is_foreign = |marker: &Marker| marker.state != self.publisher.state;
        !self.publisher.takes_over && marker.as_ref().is_some_and(is_foreign)
    }

    /// # Errors
    /// Where another writer claimed the sink after this one did.
    fn check_claim(&self, marker: &Option<Marker>) -> Result<(), SinkError> {
        let is_ours = |marker: &Marker| marker.instance == self.publisher.instance;
        let is_later = |marker: &Marker| self.publisher.is_outdone_by(&marker.state, marker.generation);
        let is_over = marker.as_ref().is_some_and(is_later);
        match !is_over && (!self.has_claimed || marker.as_ref().is_some_and(is_ours)) {
            true => Ok(()),
            false => Err(SinkError::Fenced(format!(
                "another zeta publishes as sink `{}` now; stop one of them, or give one another `transactional_id`",
                self.publisher.sink
            ))),
        }
    }

    /// What is published already, in the name of this writer.
    fn claim(&mut self, found: Option<Marker>) -> Result<Marker, SinkError> {
        let of_this_state = found.filter(|marker| marker.state == self.publisher.state);
        let (epoch, records, hash) =
            of_this_state.map_or((Epoch(0), 0, 0), |marker| (marker.epoch, marker.records, marker.hash));
        let claim = self.marker(epoch, records, hash);
        self.transaction(&[], Some(claim.clone()))?;
        Ok(claim)
    }

    /// Publishes the records of epochs and the marker of the last of them, or one that is given.
    fn transaction(&mut self, epochs: &[SinkEpoch], marker: Option<Marker>) -> Result<(), SinkError> {
        let Some(mut producer) = self.producer.take() else {
            return Err(SinkError::Unreachable("it has to recover first".into()));
        };
        // It may have lost a connection while there was nothing to do: then it begins anew.
        if !has(Bug::ProducerUsedAfterDoubt) {
            producer.doubt()?;
        }
        producer.begin()?;
        let mut marker = marker;
        let mut keys = BTreeSet::new();
        for epoch in epochs {
            let records = self.encoder.records(epoch)?;
            for index in 0..records.len() {
                if has(Bug::RepetitionByKey) && records.key(index).is_some_and(|key| !keys.insert(key.to_vec())) {
                    continue;
                }
                producer.send(Target::Rows, records.key(index), records.value(index))?;
            }
            marker = Some(self.marker(epoch.epoch, records.len() as u64, hash_of(&records)));
        }
        let Some(marker) = marker else {
            return Err(SinkError::Failed(
                "internal error: nothing to publish; please report it".into(),
            ));
        };
        if !self.is_transactional {
            // The marker says that the records are there: it comes after them.
            producer.flush()?;
        }
        if has(Bug::MarkerOutsideTransaction) {
            producer.flush()?;
            producer.commit()?;
            producer.begin()?;
        }
        let value = serde_json::to_vec(&marker).map_err(|e| SinkError::Failed(e.to_string()))?;
        producer.send(Target::Markers, Some(marker.sink.as_bytes()), Some(&value))?;
        producer.flush()?;
        if self.is_transactional {
            if !has(Bug::ProducerUsedAfterDoubt) {
                producer.doubt()?;
            }
            if let Err(error) = producer.commit() {
                if has(Bug::ProducerUsedAfterDoubt) {
                    self.producer = Some(producer);
                }
                return Err(error);
            }
        }
        // It is committed. What a lost connection may still bring belongs to a producer that is used no more.
        if producer.doubt().is_ok() {
            self.producer = Some(producer);
        }
        Ok(())
    }

    fn marker(&self, epoch: Epoch, records: u64, hash: u64) -> Marker {
        Marker {
            sink: self.publisher.sink.clone(),
            state: self.publisher.state.clone(),
            generation: self.publisher.generation,
            instance: self.publisher.instance,
            epoch,
            records,
            hash,
        }
    }
}

impl<B: Broker> Sink for KafkaSink<B> {
    fn recover(&mut self) -> Result<Option<Marker>, SinkError> {
        // The one before goes first: two of one name in this process would only fence each other.
        if has(Bug::ProducerUsedAfterDoubt) && self.producer.is_some() {
            return self.newest_marker(false);
        }
        self.producer = None;
        self.broker.find_topics()?;
        // Who publishes there is not to be fenced by a mistake of ours, nor by one that is over.
        let before = self.newest_marker(false)?;
        if self.is_foreign(&before) {
            return Ok(before);
        }
        self.check_claim(&before)?;
        self.producer = Some(self.broker.producer().map_err(passing)?);
        let marker = match has(Bug::MarkerReadBeforeFence) {
            true => before,
            false => self.newest_marker(true)?,
        };
        if self.is_foreign(&marker) {
            self.producer = None;
            return Ok(marker);
        }
        self.check_claim(&marker)?;
        if self.has_claimed {
            return Ok(marker);
        }
        let claim = match marker {
            // A claim that seemed to fail.
            Some(marker) if marker.instance == self.publisher.instance => marker,
            found => self.claim(found).map_err(passing)?,
        };
        self.has_claimed = true;
        Ok(Some(claim))
    }

    fn publish(&mut self, epochs: &[SinkEpoch]) -> Result<(), SinkError> {
        self.transaction(epochs, None)
    }

    fn digest(&mut self, epoch: &SinkEpoch) -> Result<(u64, u64), SinkError> {
        let records: Records = self.encoder.records(epoch)?;
        Ok((records.len() as u64, hash_of(&records)))
    }

    fn schemas(&self) -> Vec<RecordSchema> {
        self.encoder.schemas()
    }
}

/// Who is fenced while it recovers tries again: the newest marker says whether it is over.
fn passing(error: SinkError) -> SinkError {
    match error {
        SinkError::Fenced(reason) => SinkError::Unreachable(reason),
        other => other,
    }
}
