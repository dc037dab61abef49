//! Kafka topics: read by position, written at speed, made and looked at from the command line.
//!
//! ```text
//! topic ─ partitions ─▶ librdkafka's queue ─▶ drain (in bulk) ─▶ source: one buffer per partition ─▶ chunks
//! zeta replay ─▶ producer ─▶ topic            zeta topics ─▶ admin ─▶ topic
//! ```
//! A split is a partition, a position is an offset. No consumer group is joined and no offset is ever committed to Kafka:
//! where reading stands is kept with the state that was made of it.

mod source;
mod witness;

mod broker;
mod producer;
mod sink;

pub mod admin;

mod config;
mod connection;
mod drain;
mod pulse;

pub use broker::Cluster;
pub use config::check_property;
pub use drain::{DrainReport, bare_drain};
pub use producer::KafkaProducer;
pub use sink::{Broker, KafkaSink, Producing, SINK_OPTIONS, Target};
pub use source::KafkaSource;

use arrow::datatypes::{DataType, TimeUnit};

use super::{OptionKind, OptionSpec};

const BROKERS: OptionSpec = OptionSpec::text(
    "bootstrap.servers",
    "brokers to ask first, e.g. 'localhost:9092' or 'a:9092,b:9092'",
)
.aliases(&[
    "properties.bootstrap.servers",
    "properties.bootstrap.server",
    "kafka.bootstrap.servers",
    "bootstrap_servers",
    "brokers",
])
.required();

/// How a source or sink talks to its brokers.
const SECURITY: [OptionSpec; 8] = [
    OptionSpec::text("security.protocol", "how to talk to the brokers")
        .aliases(&["properties.security.protocol", "kafka.security.protocol"])
        .kind(OptionKind::Choice(&[
            "plaintext",
            "ssl",
            "sasl_plaintext",
            "sasl_ssl",
            "PLAINTEXT",
            "SSL",
            "SASL_PLAINTEXT",
            "SASL_SSL",
        ])),
    OptionSpec::text("sasl.mechanism", "how to log in, e.g. 'PLAIN' or 'SCRAM-SHA-512'").aliases(&[
        "sasl.mechanisms",
        "properties.sasl.mechanism",
        "kafka.sasl.mechanism",
    ]),
    OptionSpec::text("sasl.username", "who logs in").aliases(&["properties.sasl.username", "kafka.sasl.username"]),
    OptionSpec::text("sasl.password", "the password, best as '${NAME}' from the environment")
        .aliases(&["properties.sasl.password", "kafka.sasl.password"]),
    OptionSpec::text("ssl.ca.location", "file with the certificates to trust")
        .aliases(&["properties.ssl.ca.location", "kafka.ssl.ca.location"]),
    OptionSpec::text("ssl.certificate.location", "file with the client's certificate")
        .aliases(&["properties.ssl.certificate.location", "kafka.ssl.certificate.location"]),
    OptionSpec::text("ssl.key.location", "file with the client's key")
        .aliases(&["properties.ssl.key.location", "kafka.ssl.key.location"]),
    OptionSpec::text("ssl.key.password", "the password of that key")
        .aliases(&["properties.ssl.key.password", "kafka.ssl.key.password"]),
];

/// What `CREATE SOURCE … WITH (connector = 'kafka', …)` takes. Beyond these, any property of librdkafka with one of [`PROPERTY_PREFIXES`].
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec::text("topic", "the topic to read")
        .aliases(&["kafka.topic"])
        .required(),
    BROKERS,
    OptionSpec::text(
        "start",
        "where a new source begins; one that has state goes on where it stood",
    )
    .aliases(&["scan.startup.mode"])
    .kind(OptionKind::Choice(&[
        "earliest",
        "latest",
        "earliest-offset",
        "latest-offset",
    ]))
    .default("earliest"),
    OptionSpec::text(
        "on_lost_offsets",
        "where rows are gone before they were read: 'stop' says which, 'skip' goes on behind them and counts them",
    )
    .kind(OptionKind::Choice(&["stop", "skip"]))
    .default("stop"),
    OptionSpec::text("bounded", "end where the topic ends now, instead of waiting for more")
        .kind(OptionKind::Boolean)
        .default("false"),
    SECURITY[0],
    SECURITY[1],
    SECURITY[2],
    SECURITY[3],
    SECURITY[4],
    SECURITY[5],
    SECURITY[6],
    SECURITY[7],
];

/// `properties.fetch.max.bytes = '…'` reaches librdkafka as `fetch.max.bytes`, once [`check_property`] has taken it.
pub const PROPERTY_PREFIXES: &[&str] = &["properties.", "kafka."];

/// What `INCLUDE` can name: the field, its type, whether it may be null, what it is.
pub struct Field {
    pub name: &'static str,
    pub data_type: DataType,
    pub is_nullable: bool,
    pub help: &'static str,
}

pub const FIELDS: &[Field] = &[
    Field {
        name: "timestamp",
        data_type: DataType::Timestamp(TimeUnit::Nanosecond, None),
        is_nullable: true,
        help: "when the record was made or appended, as the topic says; null where the record carries no time",
    },
    Field {
        name: "partition",
        data_type: DataType::Int32,
        is_nullable: false,
        help: "the partition of the record",
    },
    Field {
        name: "offset",
        data_type: DataType::Int64,
        is_nullable: false,
        help: "the place of the record in its partition",
    },
    Field {
        name: "key",
        data_type: DataType::Utf8,
        is_nullable: true,
        help: "the key of the record; null where it has none or where it is not UTF-8",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_answers_to_its_spellings_and_to_no_other() {
        let name_of = |given: &str| OPTIONS.iter().find(|spec| spec.answers_to(given)).map(|spec| spec.name);
        for (given, expected) in [
            ("topic", Some("topic")),
            ("properties.bootstrap.server", Some("bootstrap.servers")),
            ("PROPERTIES.BOOTSTRAP.SERVERS", Some("bootstrap.servers")),
            ("scan.startup.mode", Some("start")),
            ("properties.sasl.mechanism", Some("sasl.mechanism")),
            ("properties.fetch.max.bytes", None),
        ] {
            assert_eq!(name_of(given), expected, "{given}");
        }
        for (index, spec) in OPTIONS.iter().enumerate() {
            for name in std::iter::once(&spec.name).chain(spec.aliases) {
                assert_eq!(
                    OPTIONS.iter().position(|other| other.answers_to(name)),
                    Some(index),
                    "{name} means one option only"
                );
            }
            assert!(
                spec.default.is_none_or(|default| spec.check(default).is_ok()),
                "the default of {} is valid",
                spec.name
            );
        }
    }
}
