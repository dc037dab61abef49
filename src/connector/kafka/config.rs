//! What a person may set, and what reading by position needs of librdkafka.

use std::time::Duration;

use rdkafka::{
    config::{ClientConfig, RDKafkaLogLevel},
    error::KafkaError,
    types::RDKafkaConfRes,
};

use super::PROPERTY_PREFIXES;
use crate::{connector::Options, types::limits};

/// Properties that would break what the source promises, and what to do instead.
const OURS: &[(&str, &str)] = &[
    ("auto.offset.reset", "set `start` instead"),
    ("bootstrap.servers", "set `bootstrap.servers` itself"),
    ("enable.auto.commit", "positions are kept with the state, not in Kafka"),
    (
        "enable.auto.offset.store",
        "positions are kept with the state, not in Kafka",
    ),
    (
        "enable.partition.eof",
        "the source needs to know where a partition ends",
    ),
    ("log.queue", "logs of the client go to the log of zeta"),
    ("metadata.broker.list", "set `bootstrap.servers` instead"),
];

/// Properties that would break what a sink promises, and what to do instead.
pub(super) const OF_SINKS: &[(&str, &str)] = &[
    ("acks", "a sink waits for all replicas"),
    (
        "enable.gapless.guarantee",
        "a record that is not taken ends its transaction",
    ),
    (
        "enable.idempotence",
        "set `delivery = 'at_least_once'` where some records may come twice",
    ),
    ("isolation.level", "readers of a sink choose it, the sink has none"),
    ("max.in.flight", "brokers would take records out of order"),
    (
        "max.in.flight.requests.per.connection",
        "brokers would take records out of order",
    ),
    ("request.required.acks", "a sink waits for all replicas"),
    ("transactional.id", "set `transactional_id` instead"),
];

/// What only producers or only consumers know, and the sizes of messages, which have to fit to those.
const OF_ONE_KIND: &[&str] = &[
    "acks",
    "auto.commit.enable",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "batch.num.messages",
    "batch.size",
    "check.crcs",
    "compression.codec",
    "compression.level",
    "compression.type",
    "consume.callback.max.messages",
    "coordinator.query.interval.ms",
    "delivery.report.only.error",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.protocol.type",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "linger.ms",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "offset.store.method",
    "offset.store.path",
    "offset.store.sync.interval.ms",
    "partition.assignment.strategy",
    "partitioner",
    "produce.offset.report",
    "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "queuing.strategy",
    "receive.message.max.bytes",
    "request.required.acks",
    "request.timeout.ms",
    "retries",
    "session.timeout.ms",
    "sticky.partitioning.linger.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Checks one property of librdkafka, by its name without prefix.
///
/// # Errors
/// A sentence that names the property.
pub fn check_property(name: &str, value: &str) -> Result<(), String> {
    refuse_ours(name, OURS)?;
    let mut config = ClientConfig::new();
    config.set(name, value);
    config
        .create_native_config()
        .map(drop)
        .map_err(|error| sentence(&error))
}

fn refuse_ours(name: &str, ours: &[(&str, &str)]) -> Result<(), String> {
    match ours.iter().find(|(ours, _)| *ours == name) {
        Some((_, instead)) => Err(format!("`{name}` cannot be set: {instead}")),
        None => Ok(()),
    }
}

/// Where a source without state begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Earliest,
    Latest,
}

/// The options of a source, understood.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub topic: String,
    pub brokers: String,
    pub start: Start,
    pub is_bounded: bool,
    /// Rows that are gone before they were read are passed over.
    pub skips_lost: bool,
    pub client: ClientConfig,
}

impl Settings {
    /// # Errors
    /// A sentence about the property that librdkafka does not take.
    pub fn new(options: &Options) -> Result<Self, String> {
        let brokers = options.text("bootstrap.servers").to_owned();
        let mut client = consumer(&brokers);
        set_given(&mut client, options, PROPERTY_PREFIXES, &[])?;
        Ok(Self {
            topic: options.text("topic").to_owned(),
            brokers,
            start: if options.text("start").starts_with("latest") {
                Start::Latest
            } else {
                Start::Earliest
            },
            is_bounded: options.boolean("bounded").unwrap_or(false),
            skips_lost: options.text("on_lost_offsets") == "skip",
            client,
        })
    }
}

impl Settings {
    /// How long brokers that were asked for records may be silent: they may be told to wait for rows for a while.
    pub fn silence_max(&self) -> Duration {
        let wait_ms = self.client.get("fetch.wait.max.ms").and_then(|wait| wait.parse().ok());
        limits::BROKER_SILENCE_MAX + Duration::from_millis(wait_ms.unwrap_or_default())
    }
}

/// Sets what a person gave: a login, and properties by their prefix; those of `ours` are refused beside those that always are.
///
/// # Errors
/// A sentence about the property that librdkafka does not take.
pub(super) fn set_given(
    client: &mut ClientConfig,
    options: &Options,
    prefixes: &[&str],
    ours: &[(&str, &str)],
) -> Result<(), String> {
    for (name, value) in options.iter() {
        let property = match name {
            "sasl.mechanism" => "sasl.mechanisms",
            _ if is_security(name) => name,
            _ => match prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)) {
                Some(property) => property,
                // Options of the format or of the runtime.
                None => continue,
            },
        };
        refuse_ours(property, ours)?;
        check_property(property, value)?;
        client.set(property, value);
    }
    // Some values are refused only beside others.
    client
        .create_native_config()
        .map(drop)
        .map_err(|error| sentence(&error))
}

fn is_security(property: &str) -> bool {
    property.starts_with("sasl.") || property.starts_with("ssl.") || property == "security.protocol"
}

/// A client beside another talks to the brokers as that one does: it takes all that both kinds of clients know.
pub(super) fn copy_common(from: &ClientConfig, to: &mut ClientConfig) {
    // The map itself tells no secrets.
    for property in from
        .config_map()
        .into_keys()
        .filter(|property| !OF_ONE_KIND.contains(property))
    {
        if let Some(value) = from.get(property) {
            to.set(property, value);
        }
    }
}

/// A client that reads partitions by position.
pub(super) fn consumer(brokers: &str) -> ClientConfig {
    let mut config = client(brokers);
    config
        // librdkafka assigns partitions only to a client with a group, even where nobody joins it.
        .set("group.id", "zeta")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position that is gone must be an error: any other place would lose or repeat rows in silence.
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("enable.partition.eof", "true")
        // By default the fetcher sleeps for a second when 100,000 records are queued: 190 k rows/s instead of 840 k.
        .set("fetch.queue.backoff.ms", "10");
    config
}

/// What every client of ours has.
pub(super) fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "zeta")
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("socket.connection.setup.timeout.ms", "5000")
        // A broker that comes back is found within a second, not within ten.
        .set("reconnect.backoff.max.ms", "1000")
        // A cluster whose only broker was frozen tells of no broker for a moment. Then the client knows none and connects to nobody, until
        // it begins with the given ones again: by default after five minutes.
        .set("metadata.recovery.rebootstrap.trigger.ms", "5000")
        .set_log_level(RDKafkaLogLevel::Info);
    config
}

/// What librdkafka holds against a configuration, without values that may be secret.
pub(super) fn sentence(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
            format!("Kafka clients have no property `{name}`")
        }
        KafkaError::ClientConfig(_, reason, name, value) => {
            let is_secret = ["password", "secret", "key.pem", "jaas"]
                .iter()
                .any(|part| name.contains(part));
            let value = if is_secret {
                String::new()
            } else {
                format!(" '{value}'")
            };
            match reason.contains("not available at build time") {
                true => format!("`{name}` needs TLS or a login method that this zeta was built without"),
                false => format!("`{name}` does not take{value}: {}", reason.trim_end_matches('.')),
            }
        }
        KafkaError::ClientCreation(reason) => {
            format!("the Kafka client refuses its options: {}", reason.trim_end_matches('.'))
        }
        other => format!("the Kafka client refuses its options: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::kafka::OPTIONS;

    fn settings(given: &[(&str, &str)]) -> Result<Settings, String> {
        let required = [("topic", "t"), ("brokers", "localhost:9092")];
        let pairs = required
            .iter()
            .chain(given)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::new(&Options::resolve(OPTIONS, pairs))
    }

    #[test]
    fn options_reach_the_client_under_any_spelling() {
        let settings = settings(&[
            ("scan.startup.mode", "latest-offset"),
            ("properties.fetch.max.bytes", "1000000"),
            ("kafka.client.rack", "r1"),
            ("properties.group.id", "mine"),
            ("format", "json"),
        ])
        .unwrap();
        assert_eq!(settings.start, Start::Latest);
        assert_eq!(settings.client.get("bootstrap.servers"), Some("localhost:9092"));
        assert_eq!(settings.client.get("fetch.max.bytes"), Some("1000000"));
        assert_eq!(settings.client.get("client.rack"), Some("r1"));
        assert_eq!(
            settings.client.get("group.id"),
            Some("mine"),
            "a cluster may allow only some names"
        );
        assert_eq!(
            settings.client.get("format"),
            None,
            "other rooms' options stay away from the client"
        );
        assert!(!settings.is_bounded);
    }

    #[test]
    fn a_client_beside_another_talks_to_the_brokers_as_that_one_does() {
        let given = [
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "u"),
            ("sasl.password", "hunter2"),
            ("properties.broker.address.family", "v4"),
            (
                "properties.client.dns.lookup",
                "resolve_canonical_bootstrap_servers_only",
            ),
            ("properties.enable.ssl.certificate.verification", "false"),
            ("properties.fetch.max.bytes", "1000000"),
            ("properties.group.id", "mine"),
        ];
        let mut beside = client("localhost:9092");
        copy_common(&settings(&given).unwrap().client, &mut beside);
        assert_eq!(
            beside.get("sasl.password"),
            Some("hunter2"),
            "as it is, not as it is shown"
        );
        assert_eq!(beside.get("security.protocol"), Some("sasl_plaintext"));
        assert_eq!(beside.get("broker.address.family"), Some("v4"));
        assert_eq!(
            beside.get("client.dns.lookup"),
            Some("resolve_canonical_bootstrap_servers_only")
        );
        assert_eq!(beside.get("enable.ssl.certificate.verification"), Some("false"));
        for of_consumers in ["fetch.max.bytes", "group.id", "enable.partition.eof"] {
            assert_eq!(beside.get(of_consumers), None);
        }
    }

    #[test]
    fn what_a_client_beside_another_does_not_take_is_a_property() {
        for property in OF_ONE_KIND {
            let known = match check_property(property, "no such value") {
                Ok(()) => true,
                Err(reason) => !reason.contains("have no property"),
            };
            assert!(known, "{property}");
        }
    }

    #[test]
    fn a_property_that_does_not_exist_is_named() {
        assert_eq!(
            settings(&[("properties.fetch.max.byte", "1")]).unwrap_err(),
            "Kafka clients have no property `fetch.max.byte`"
        );
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_with_its_property() {
        let error = settings(&[("properties.fetch.max.bytes", "many")]).unwrap_err();
        assert!(error.starts_with("`fetch.max.bytes` does not take 'many'"), "{error}");
    }

    #[test]
    fn properties_that_would_lose_rows_are_refused() {
        for (name, _) in OURS {
            let error = check_property(name, "true").unwrap_err();
            assert!(error.starts_with(&format!("`{name}` cannot be set: ")), "{error}");
        }
    }

    #[test]
    fn properties_that_would_break_the_promise_of_a_sink_are_refused() {
        for (name, _) in OF_SINKS {
            let pairs = [
                ("brokers".to_owned(), "a:1".to_owned()),
                (format!("properties.{name}"), "1".to_owned()),
            ];
            let options = Options::resolve(OPTIONS, pairs);
            let error = set_given(&mut client("a:1"), &options, PROPERTY_PREFIXES, OF_SINKS).unwrap_err();
            assert!(error.starts_with(&format!("`{name}` cannot be set: ")), "{error}");
        }
    }

    #[test]
    fn a_secret_is_never_repeated() {
        let error = KafkaError::ClientConfig(
            RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "Invalid value.".into(),
            "sasl.password".into(),
            "hunter2".into(),
        );
        assert_eq!(sentence(&error), "`sasl.password` does not take: Invalid value");
    }
}
