//! A second client beside the one that reads, which vouches that the topic is the one that was read.
//!
//! ```text
//! start                          id of the topic, and the last record read of each partition: as the state has them?
//! an answer about topics came    id of the topic, before one more row is handed over
//! rows under another leader      the last record read under the one before: still there?
//! ```
//! librdkafka goes on at the same offsets when a topic is made anew under its name, and tells nobody. No fetch waits before the questions
//! of this client, so that they take a millisecond or two.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::ClientConfig;

use super::{
    config,
    connection::{Connection, Failure},
    drain::{BATCH_MAX, Bound, CALL_TIMEOUT, Deadline, Drain, Event, bounds_among, partitions_of},
};
use crate::{
    connector::SourceError,
    types::{Anchor, Anchors, Position, SplitId},
};

pub(super) struct Witness {
    topic: String,
    brokers: String,
    client: ClientConfig,
    /// Made when it is first needed.
    drain: Option<Drain>,
    /// Of the topic that is read; `None` while it was not asked for, and where brokers have none.
    identity: Option<String>,
    /// Answers about topics that the reading client had when the id was last compared.
    vouched_at: u64,
    /// See [`Connection::let_in`].
    was_let_in: bool,
}

impl Witness {
    /// `client` is the configuration of the one that reads.
    pub fn new(topic: &str, brokers: &str, client: &ClientConfig) -> Self {
        let mut client = client.clone();
        client
            // It reads single records, and what is fetched beside them is thrown away.
            .set("queued.min.messages", "1")
            .set("fetch.message.max.bytes", "65536");
        Self {
            topic: topic.to_owned(),
            brokers: brokers.to_owned(),
            client,
            drain: None,
            identity: None,
            vouched_at: 0,
            was_let_in: false,
        }
    }

    pub fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    /// The partitions of the topic.
    pub fn partitions(&mut self, deadline: Deadline) -> Result<Vec<i32>, Failure> {
        partitions_of(
            connected(&mut self.drain, &self.client, &self.brokers, self.was_let_in)?,
            &self.topic,
            deadline,
        )
    }

    /// See [`Connection::let_in`].
    pub fn let_in(&mut self) {
        self.was_let_in = true;
        if let Some(drain) = &self.drain {
            drain.connection().let_in();
        }
    }

    /// Goes on with another client, beside another one that reads.
    pub fn renew(&mut self) {
        self.drain = None;
        // That one has had no answer yet, or the next that it has is to be looked at.
        self.vouched_at = u64::MAX;
    }

    /// Asks for the id of the topic that is read from now on, once.
    pub fn identify(&mut self) -> Result<(), Failure> {
        if self.identity.is_none() {
            self.identity = self.topic_id()?;
        }
        Ok(())
    }

    /// Whether the topic is still the one that was identified, where the reading client had so many answers about topics by now.
    /// Rows that it had before this was asked are rows of that topic then.
    pub fn vouch(&mut self, topic_answers: u64) -> Result<(), SourceError> {
        if topic_answers == self.vouched_at {
            return Ok(());
        }
        if let Some(identity) = self.identity.clone() {
            self.compare_identity(&identity)?;
        }
        self.vouched_at = topic_answers;
        Ok(())
    }

    /// Compares what a state remembers with what is there.
    pub fn recognise(&mut self, read: &Anchors) -> Result<(), SourceError> {
        self.identify()?;
        if let Some(identity) = &read.identity {
            self.compare_identity(identity)?;
        }
        self.compare(&read.records)
    }

    fn compare_identity(&mut self, identity: &str) -> Result<(), SourceError> {
        match self.topic_id()? {
            Some(found) if found != identity => Err(SourceError::Failed(format!(
                "topic `{}` was deleted and made anew since it was read: its id was {identity}, and is {found}; \
                 start again with --reset to read the new one from its beginning",
                self.topic
            ))),
            _ => Ok(()),
        }
    }

    fn topic_id(&mut self) -> Result<Option<String>, Failure> {
        let drain = connected(&mut self.drain, &self.client, &self.brokers, self.was_let_in)?;
        Ok(drain.describe(&self.topic, CALL_TIMEOUT)?.id)
    }

    /// Reads the records at these anchors again.
    ///
    /// # Errors
    /// [`SourceError::Failed`] where a partition ends before its anchor, or holds another record there. A record that retention or
    /// compaction has taken says nothing.
    pub fn compare(&mut self, anchors: &BTreeMap<SplitId, Anchor>) -> Result<(), SourceError> {
        let mut expected = BTreeMap::new();
        for (split, anchor) in anchors {
            let partition: i32 = split
                .as_str()
                .parse()
                .map_err(|_| SourceError::Failed(format!("`{split}` is no partition of topic `{}`", self.topic)))?;
            expected.insert(partition, *anchor);
        }
        if expected.is_empty() {
            return Ok(());
        }
        let partitions: Vec<i32> = expected.keys().copied().collect();
        let drain = connected(&mut self.drain, &self.client, &self.brokers, self.was_let_in)?;
        let topic = &self.topic;
        // A partition that is gone is told apart from a broker that does not answer.
        let there = partitions_of(drain, topic, Deadline::after(CALL_TIMEOUT))?;
        if let Some(gone) = partitions.iter().find(|partition| !there.contains(partition)) {
            return Err(SourceError::Failed(gone_partition(topic, *gone)));
        }
        let lows = bounds_among(drain, topic, &partitions, Bound::Low)?;
        let highs = bounds_among(drain, topic, &partitions, Bound::High)?;
        let mut readable = BTreeMap::new();
        for (partition, anchor) in expected {
            let offset = anchor.position.0.cast_signed();
            let (low, high) = (lows.get(&partition), highs.get(&partition));
            if high.is_some_and(|high| *high <= offset) {
                let high = high.copied().unwrap_or_default();
                return Err(SourceError::Failed(ends_before(
                    topic,
                    partition,
                    high,
                    anchor.position.0 + 1,
                )));
            }
            if low.is_some_and(|low| offset < *low) {
                tracing::debug!(
                    topic,
                    partition,
                    offset,
                    "the last record read is gone by retention, and was not compared"
                );
                continue;
            }
            readable.insert(partition, anchor);
        }
        let found = self.read(&readable)?;
        for (partition, anchor) in readable {
            match found.get(&partition).copied().flatten() {
                Some(found) if found != anchor => {
                    return Err(SourceError::Failed(format!(
                        "row {} of partition {partition} of topic `{}` is not the one that was read: the topic lost rows and got others in their place \
                         (an unclean leader election?), or was made anew; start again with --reset to read what is there now",
                        anchor.position, self.topic
                    )));
                }
                Some(_) => {}
                None => tracing::warn!(
                    topic = self.topic,
                    partition,
                    offset = anchor.position.0,
                    "the last record read is not there any more (compaction?), and was not compared"
                ),
            }
        }
        Ok(())
    }

    /// What stands at the offsets of these anchors; `None` where there is no record.
    fn read(&mut self, anchors: &BTreeMap<i32, Anchor>) -> Result<BTreeMap<i32, Option<Anchor>>, Failure> {
        let mut found = BTreeMap::new();
        if anchors.is_empty() {
            return Ok(found);
        }
        let drain = connected(&mut self.drain, &self.client, &self.brokers, self.was_let_in)?;
        let topic = self.topic.as_str();
        let assign = |drain: &Drain, positions: Vec<(i32, i64)>| {
            let assigned = drain.assign(topic, positions);
            assigned.map_err(|error| drain.connection().explain_call(topic, &error))
        };
        let offset_of = |anchor: &Anchor| anchor.position.0.cast_signed();
        assign(
            drain,
            anchors
                .iter()
                .map(|(partition, anchor)| (*partition, offset_of(anchor)))
                .collect(),
        )?;
        let deadline = Deadline::after(CALL_TIMEOUT);
        let mut trouble = None;
        while found.len() < anchors.len() && trouble.is_none() && !deadline.left().is_zero() {
            drain.take(
                BATCH_MAX,
                deadline.left().min(Duration::from_millis(100)),
                |event| match event {
                    Event::Record(record) if !found.contains_key(&record.partition) => {
                        let Some(wanted) = anchors.get(&record.partition) else {
                            return;
                        };
                        let is_there = record.offset == offset_of(wanted);
                        let anchor = Anchor::of(wanted.position.0, record.key, record.value);
                        found.insert(record.partition, is_there.then_some(anchor));
                    }
                    Event::Record(_) => {}
                    Event::End { partition, .. } => {
                        found.entry(partition).or_insert(None);
                    }
                    Event::Trouble { error, detail, .. } => trouble = Some((error, detail)),
                },
            );
            drain.serve();
        }
        // It is not to fetch on.
        assign(drain, Vec::new())?;
        match trouble {
            Some((error, detail)) => Err(drain.connection().explain(topic, error, &detail)),
            None if found.len() < anchors.len() => Err(drain.connection().failure()),
            None => Ok(found),
        }
    }
}

/// What was read lies behind the end.
pub(super) fn ends_before(topic: &str, partition: i32, end: i64, read: u64) -> String {
    format!(
        "partition {partition} of topic `{topic}` ends at row {end}, but {read} rows of it were read before: it was made again or lost data; \
         start again with --reset to read what is there now"
    )
}

pub(super) fn gone_partition(topic: &str, partition: i32) -> String {
    format!(
        "topic `{topic}` has no partition {partition} any more: it was made anew; start again with --reset to read what is there now"
    )
}

/// What retention took before it was read.
pub(super) fn gone_rows(topic: &str, partition: i32, from: Position, to: Position) -> String {
    format!(
        "rows {from} to {} of partition {partition} of topic `{topic}` are gone from Kafka (retention?) and were not read; \
         set on_lost_offsets = 'skip' to go on behind them, or start again with --reset to read all that is left",
        to.0 - 1
    )
}

fn connected<'a>(
    drain: &'a mut Option<Drain>,
    client: &ClientConfig,
    brokers: &str,
    was_let_in: bool,
) -> Result<&'a mut Drain, Failure> {
    match drain {
        Some(drain) => Ok(drain),
        None => {
            let connection = Connection::new(brokers);
            if was_let_in {
                connection.let_in();
            }
            let connected =
                Drain::connect(client, connection).map_err(|error| Failure::Failed(config::sentence(&error)))?;
            Ok(drain.insert(connected))
        }
    }
}
