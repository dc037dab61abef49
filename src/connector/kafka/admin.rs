//! Topics themselves: which there are, what is in them, new ones, none any more.
//!
//! Every call makes a client of its own, asks, and returns within a few seconds: for the command line, not for pipelines.

use std::{collections::BTreeSet, ops::ControlFlow, time::Duration};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    config,
    connection::{Connection, Failure},
    drain::{BATCH_MAX, CALL_TIMEOUT, Deadline, Drain, Event, bounds_of, partitions_of},
};
use crate::types::{Error, Result};

/// One topic of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    pub name: String,
    pub partitions: usize,
    /// Copies of each partition.
    pub replication: usize,
}

/// One partition and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionSummary {
    pub partition: i32,
    /// The broker that leads it.
    pub leader: i32,
    pub replicas: Vec<i32>,
    /// The oldest offset that is still there, and the next one to be written.
    pub low: i64,
    pub high: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    pub name: String,
    /// In their order.
    pub partitions: Vec<PartitionSummary>,
}

/// A topic to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan<'a> {
    pub name: &'a str,
    pub partitions: i32,
    pub replication: i32,
    /// Kafka's own, e.g. `retention.ms` and `-1`.
    pub settings: &'a [(String, String)],
}

/// One record of a topic, as `tail` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailRecord {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// All topics but Kafka's own, by name.
///
/// # Errors
/// Where the brokers do not answer.
pub fn list(brokers: &str) -> Result<Vec<TopicSummary>> {
    let drain = connect(brokers)?;
    let metadata = drain
        .client()
        .fetch_metadata(None, CALL_TIMEOUT)
        .map_err(|error| failure(&drain, "", &error))?;
    let mut topics: Vec<TopicSummary> = metadata
        .topics()
        .iter()
        .filter(|topic| !topic.name().starts_with("__"))
        .map(|topic| TopicSummary {
            name: topic.name().to_owned(),
            partitions: topic.partitions().len(),
            replication: topic
                .partitions()
                .iter()
                .map(|partition| partition.replicas().len())
                .max()
                .unwrap_or(0),
        })
        .collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(topics)
}

/// Partitions of a topic with their offsets.
///
/// # Errors
/// Where the brokers do not answer, or there is no such topic.
pub fn describe(brokers: &str, topic: &str) -> Result<TopicDescription> {
    let drain = connect(brokers)?;
    let bounds = bounds_of(&drain, topic)?;
    let metadata = drain
        .client()
        .fetch_metadata(Some(topic), CALL_TIMEOUT)
        .map_err(|error| failure(&drain, topic, &error))?;
    let mut partitions: Vec<PartitionSummary> = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
        .map(|partition| {
            let (low, high) = bounds.get(&partition.id()).copied().unwrap_or_default();
            PartitionSummary {
                partition: partition.id(),
                leader: partition.leader(),
                replicas: partition.replicas().to_vec(),
                low,
                high,
            }
        })
        .collect();
    partitions.sort_by_key(|partition| partition.partition);
    Ok(TopicDescription {
        name: topic.to_owned(),
        partitions,
    })
}

/// Makes a topic, and waits until the brokers know it.
///
/// # Errors
/// Where it exists, its name or numbers are not allowed, or the brokers do not answer.
pub fn create(brokers: &str, plan: &TopicPlan<'_>) -> Result<()> {
    reach(brokers)?;
    let mut topic = NewTopic::new(plan.name, plan.partitions, TopicReplication::Fixed(plan.replication));
    for (name, value) in plan.settings {
        topic = topic.set(name, value);
    }
    let admin = admin(brokers)?;
    let answers = futures::executor::block_on(admin.create_topics([&topic], &options()));
    answer(brokers, plan.name, answers)?;
    // Other brokers may learn of it a moment later; a topic that was made is one that can be used.
    let drain = connect(brokers)?;
    let deadline = Deadline::after(CALL_TIMEOUT);
    loop {
        match bounds_of(&drain, plan.name) {
            Ok(_) => return Ok(()),
            Err(_) if !deadline.left().is_zero() => {}
            Err(failure) => return Err(failure.into()),
        }
    }
}

/// Which of these topics there are, asked as `client` logs in.
pub(super) fn topics_among(brokers: &str, client: &ClientConfig, names: &[&str]) -> Result<BTreeSet<String>, Failure> {
    let mut config = config::consumer(brokers);
    config::copy_common(client, &mut config);
    let drain =
        Drain::connect(&config, Connection::new(brokers)).map_err(|error| Failure::Failed(config::sentence(&error)))?;
    let mut found = BTreeSet::new();
    for name in names {
        match partitions_of(&drain, name, Deadline::after(CALL_TIMEOUT)) {
            Ok(_) => {
                found.insert((*name).to_owned());
            }
            Err(Failure::MissingTopic(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(found)
}

/// Whether `client` may write to all of these topics, which are there.
///
/// # Errors
/// With the first to which it may not.
pub(super) fn may_write(brokers: &str, client: &ClientConfig, names: &[&str]) -> Result<(), Failure> {
    let mut config = config::consumer(brokers);
    config::copy_common(client, &mut config);
    let drain =
        Drain::connect(&config, Connection::new(brokers)).map_err(|error| Failure::Failed(config::sentence(&error)))?;
    for name in names {
        if !drain.describe(name, CALL_TIMEOUT)?.is_writable {
            return Err(Failure::Failed(format!(
                "Kafka at {brokers} does not let us write to topic `{name}`: who logs in needs the operation Write on it"
            )));
        }
    }
    Ok(())
}

/// Makes the topic of a sink's markers, of one partition that keeps the newest of each.
pub(super) fn create_marker_topic(brokers: &str, client: &ClientConfig, name: &str) -> Result<(), Failure> {
    let mut config = config::client(brokers);
    config::copy_common(client, &mut config);
    let admin: AdminClient<Connection> = config
        .create_with_context(Connection::new(brokers))
        .map_err(|error| Failure::Failed(config::sentence(&error)))?;
    // As many copies as the brokers give a topic.
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(-1)).set("cleanup.policy", "compact");
    let answers = futures::executor::block_on(admin.create_topics([&topic], &options()));
    match answers.map(|answers| answers.into_iter().next()) {
        Ok(None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)))) => Ok(()),
        Ok(Some(Err((
            _,
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed,
        )))) => Err(Failure::Failed(format!(
            "Kafka at {brokers} does not let us create topic `{name}`, which holds how far the sink is; create it with one \
                 partition and cleanup.policy=compact, or name another with `marker_topic`"
        ))),
        Ok(Some(Err((_, code)))) => Err(Failure::Unreachable(format!(
            "Kafka at {brokers} did not make topic `{name}`: {code}"
        ))),
        Err(error) => Err(Failure::Unreachable(format!(
            "Kafka at {brokers} did not make topic `{name}`: {error}"
        ))),
    }
}

/// Removes a topic with everything in it.
///
/// # Errors
/// Where there is no such topic, it may not be removed, or the brokers do not answer.
pub fn delete(brokers: &str, topic: &str) -> Result<()> {
    reach(brokers)?;
    let admin = admin(brokers)?;
    let answers = futures::executor::block_on(admin.delete_topics(&[topic], &options()));
    answer(brokers, topic, answers)
}

/// Hands over the last `count` records of a topic, by time; then, with `is_following`, each new one as it comes,
/// until `each` breaks.
///
/// # Errors
/// Where there is no such topic, a partition cannot be read, or the brokers do not answer before the last records are there.
/// Following goes on through outages.
pub fn tail(
    brokers: &str,
    topic: &str,
    count: usize,
    is_following: bool,
    each: &mut dyn FnMut(&TailRecord) -> ControlFlow<()>,
) -> Result<()> {
    let mut drain = connect(brokers)?;
    let bounds = bounds_of(&drain, topic)?;
    let count_each = i64::try_from(count).unwrap_or(i64::MAX);
    drain
        .assign(
            topic,
            bounds
                .iter()
                .map(|(partition, (low, high))| (*partition, high.saturating_sub(count_each).max(*low))),
        )
        .map_err(|error| failure(&drain, topic, &error))?;

    let mut open: BTreeSet<i32> = bounds
        .iter()
        .filter(|(_, (low, high))| low < high && 0 < count)
        .map(|(partition, _)| *partition)
        .collect();
    let mut last: Vec<TailRecord> = Vec::new();
    let mut new: Vec<TailRecord> = Vec::new();
    let mut silence = Deadline::after(CALL_TIMEOUT);
    while !open.is_empty() {
        let mut trouble = None;
        let taken = drain.take(BATCH_MAX, Duration::from_millis(100), |event| match event {
            Event::Record(record) => {
                let high = bounds.get(&record.partition).map_or(0, |(_, high)| *high);
                if high <= record.offset + 1 {
                    open.remove(&record.partition);
                }
                let record = TailRecord::from(record);
                if record.offset < high {
                    last.push(record)
                } else if is_following {
                    new.push(record)
                }
            }
            Event::End { partition, .. } => {
                open.remove(&partition);
            }
            Event::Trouble { error, detail, .. } => trouble = Some((error, detail)),
        });
        drain.serve();
        if let Some((error, detail)) = trouble {
            return Err(drain.connection().explain(topic, error, &detail).into());
        }
        if 0 < taken {
            silence = Deadline::after(CALL_TIMEOUT);
        } else if silence.left().is_zero() {
            return Err(drain.connection().failure().into());
        }
    }
    last.sort_by_key(|record| (record.timestamp_ms, record.partition, record.offset));
    for record in last.iter().skip(last.len().saturating_sub(count)) {
        if each(record).is_break() {
            return Ok(());
        }
    }
    for record in &new {
        if each(record).is_break() {
            return Ok(());
        }
    }
    if is_following {
        follow(&mut drain, topic, each)
    } else {
        Ok(())
    }
}

fn follow(drain: &mut Drain, topic: &str, each: &mut dyn FnMut(&TailRecord) -> ControlFlow<()>) -> Result<()> {
    loop {
        let (mut flow, mut trouble) = (ControlFlow::Continue(()), None);
        drain.take(BATCH_MAX, Duration::from_millis(500), |event| match event {
            Event::Record(record) if flow.is_continue() => flow = each(&record.into()),
            Event::Record(_) | Event::End { .. } => {}
            Event::Trouble { error, detail, .. } => trouble = Some((error, detail)),
        });
        drain.serve();
        if flow.is_break() {
            return Ok(());
        }
        // Whatever passes by itself is waited for.
        if let Some((error, detail)) = trouble
            && let failed @ Failure::Failed(_) = drain.connection().explain(topic, error, &detail)
        {
            return Err(failed.into());
        }
    }
}

impl From<super::drain::Record<'_>> for TailRecord {
    fn from(record: super::drain::Record<'_>) -> Self {
        Self {
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
        }
    }
}

fn connect(brokers: &str) -> Result<Drain> {
    Drain::connect(&config::consumer(brokers), Connection::new(brokers))
        .map_err(|error| Error::user(config::sentence(&error)))
}

/// Says within a few seconds that nobody is there, which the admin client does not.
fn reach(brokers: &str) -> Result<()> {
    list(brokers).map(drop)
}

fn admin(brokers: &str) -> Result<AdminClient<Connection>> {
    config::client(brokers)
        .create_with_context(Connection::new(brokers))
        .map_err(|error| Error::user(config::sentence(&error)))
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(2 * CALL_TIMEOUT))
        .operation_timeout(Some(CALL_TIMEOUT))
}

fn failure(drain: &Drain, topic: &str, error: &KafkaError) -> Error {
    drain.serve();
    drain.connection().explain_call(topic, error).into()
}

/// The answer about one topic.
fn answer(brokers: &str, topic: &str, answers: Result<Vec<rdkafka::admin::TopicResult>, KafkaError>) -> Result<()> {
    use RDKafkaErrorCode::*;
    let connection = Connection::new(brokers);
    let answer = answers.map_err(|error| {
        Error::caused(
            format!("Kafka at {brokers} did not answer about topic `{topic}`"),
            error,
        )
    })?;
    match answer.into_iter().next() {
        None | Some(Ok(_)) => Ok(()),
        Some(Err((_, TopicAlreadyExists))) => Err(Error::user(format!("topic `{topic}` exists already on {brokers}"))),
        Some(Err((_, InvalidReplicationFactor))) => Err(Error::user(format!(
            "there are not enough brokers at {brokers} for so many copies of topic `{topic}`; ask for a smaller replication"
        ))),
        Some(Err((_, InvalidPartitions))) => Err(Error::user("a topic has at least one partition")),
        Some(Err((_, InvalidConfig))) => Err(Error::user(format!("Kafka does not take a setting of topic `{topic}`"))),
        Some(Err((_, code @ (InvalidTopic | UnknownTopicOrPartition)))) => {
            Err(match connection.explain(topic, code, "") {
                Failure::Failed(sentence) | Failure::MissingTopic(sentence) | Failure::Unreachable(sentence) => {
                    Error::user(sentence)
                }
            })
        }
        Some(Err((_, TopicAuthorizationFailed | ClusterAuthorizationFailed))) => Err(Error::external(format!(
            "Kafka at {brokers} does not let us change topic `{topic}`"
        ))),
        Some(Err((_, code))) => Err(Error::external(format!(
            "Kafka at {brokers} refused topic `{topic}`: {code}"
        ))),
    }
}
