//! `zeta topics`: look at Kafka topics and make them, without Kafka's own tools.

use std::{
    io::{self, ErrorKind, Write},
    ops::ControlFlow,
};

use clap::{Args, Subcommand};

use crate::{
    connector::kafka::{
        admin::{self, TailRecord, TopicPlan},
        bare_drain,
    },
    types::{Error, Result, format_event_time},
};

use super::told::complain;

/// Look at Kafka topics and make them
#[derive(Args, Debug)]
pub struct TopicsArgs {
    /// Brokers to ask first
    #[arg(
        long,
        env = "KAFKA",
        default_value = "localhost:9092",
        global = true,
        value_name = "HOST:PORT"
    )]
    brokers: String,
    #[command(subcommand)]
    command: TopicsCommand,
}

#[derive(Subcommand, Debug)]
enum TopicsCommand {
    /// List the topics
    #[command(visible_alias = "list")]
    Ls,
    /// Make a topic
    Create {
        /// Name of the topic
        topic: String,
        /// Parts that can be read and written side by side
        #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: i32,
        /// Copies of each partition, on as many brokers
        #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
        replication: i32,
        /// A setting of the topic, e.g. retention.ms=-1
        #[arg(long = "config", value_name = "NAME=VALUE", value_parser = setting)]
        settings: Vec<(String, String)>,
    },
    /// Show the partitions of a topic and their offsets
    Describe {
        /// Name of the topic
        topic: String,
    },
    /// Show the last messages of a topic
    Tail {
        /// Name of the topic
        topic: String,
        /// How many
        #[arg(long, short = 'n', default_value_t = 10)]
        lines: usize,
        /// Go on with new messages as they come
        #[arg(long, short)]
        follow: bool,
    },
    /// Read a topic as fast as this machine can, and say how fast
    Drain {
        /// Name of the topic
        topic: String,
    },
    /// Remove a topic and everything in it
    #[command(visible_alias = "rm")]
    Delete {
        /// Name of the topic
        topic: String,
    },
}

/// Data goes to stdout, everything else to stderr.
///
/// # Errors
/// [`Error::User`] where the topic exists, does not exist or cannot be made as asked; [`Error::External`] where Kafka does not answer.
pub fn run(args: &TopicsArgs) -> Result<()> {
    let brokers = args.brokers.as_str();
    match &args.command {
        TopicsCommand::Ls => {
            let topics = admin::list(brokers)?;
            let mut table = vec![["topic", "partitions", "replication"].map(str::to_owned)];
            table.extend(topics.iter().map(|topic| {
                [
                    topic.name.clone(),
                    topic.partitions.to_string(),
                    topic.replication.to_string(),
                ]
            }));
            print(&aligned(&table))
        }
        TopicsCommand::Create {
            topic,
            partitions,
            replication,
            settings,
        } => {
            admin::create(
                brokers,
                &TopicPlan {
                    name: topic,
                    partitions: *partitions,
                    replication: *replication,
                    settings,
                },
            )?;
            complain(format_args!(
                "created topic `{topic}` with {partitions} {}",
                if *partitions == 1 { "partition" } else { "partitions" }
            ));
            Ok(())
        }
        TopicsCommand::Describe { topic } => {
            let description = admin::describe(brokers, topic)?;
            let mut table = vec![["partition", "leader", "replicas", "low", "high", "rows"].map(str::to_owned)];
            table.extend(description.partitions.iter().map(|partition| {
                let replicas = partition
                    .replicas
                    .iter()
                    .map(i32::to_string)
                    .collect::<Vec<_>>()
                    .join(",");
                [
                    partition.partition.to_string(),
                    partition.leader.to_string(),
                    replicas,
                    partition.low.to_string(),
                    partition.high.to_string(),
                    (partition.high - partition.low).to_string(),
                ]
            }));
            print(&aligned(&table))
        }
        TopicsCommand::Tail { topic, lines, follow } => {
            let mut written = Ok(());
            admin::tail(brokers, topic, *lines, *follow, &mut |record| {
                written = print(&line(record));
                if written.is_ok() {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
            written
        }
        TopicsCommand::Drain { topic } => {
            let report = bare_drain(brokers, topic)?;
            let per_second = |count: u64| {
                if 0.0 < report.seconds {
                    count as f64 / report.seconds
                } else {
                    0.0
                }
            };
            print(&format!(
                "{} rows, {:.1} MB in {:.3} s: {:.3} M rows/s, {:.0} MB/s, first row after {:.0} ms\n",
                report.rows,
                report.bytes as f64 / 1e6,
                report.seconds,
                per_second(report.rows) / 1e6,
                per_second(report.bytes) / 1e6,
                report.first_row_seconds * 1e3,
            ))
        }
        TopicsCommand::Delete { topic } => {
            admin::delete(brokers, topic)?;
            complain(format_args!("deleted topic `{topic}`"));
            Ok(())
        }
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        _ => Err("expected NAME=VALUE, e.g. retention.ms=-1".to_owned()),
    }
}

/// Columns as wide as their widest cell, the last one ragged.
pub(super) fn aligned<const N: usize>(table: &[[String; N]]) -> String {
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in table {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Partition, offset, time, key, value, with tabs between: one line whatever is in them.
fn line(record: &TailRecord) -> String {
    let time = record
        .timestamp_ms
        .and_then(|millis| millis.checked_mul(1_000_000))
        .map_or("-".to_owned(), format_event_time);
    let text = |bytes: &Option<Vec<u8>>| match bytes {
        None => "-".to_owned(),
        Some(bytes) => printable(&String::from_utf8_lossy(bytes)),
    };
    format!(
        "{}\t{}\t{time}\t{}\t{}\n",
        record.partition,
        record.offset,
        text(&record.key),
        text(&record.value)
    )
}

/// Control characters as escapes: a message must not move the cursor of who looks at it.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}

pub(super) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(|error| Error::caused("stdout cannot be written", error)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        topics: TopicsArgs,
    }

    #[test]
    fn a_message_is_one_line_whatever_is_in_it() {
        let record = TailRecord {
            partition: 2,
            offset: 41,
            timestamp_ms: Some(1_704_164_645_500),
            key: Some(b"ADA-USDT".to_vec()),
            value: Some(b"{\n\x1b[2J\xff}".to_vec()),
        };
        assert_eq!(
            line(&record),
            "2\t41\t2024-01-02T03:04:05.5Z\tADA-USDT\t{\\n\\u{1b}[2J\u{fffd}}\n"
        );
        let empty = TailRecord {
            timestamp_ms: None,
            key: None,
            value: None,
            ..record
        };
        assert_eq!(line(&empty), "2\t41\t-\t-\t-\n", "a tombstone without key and time");
    }

    #[test]
    fn columns_line_up() {
        let table = [["topic", "partitions"], ["a-long-name", "4"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&table), "topic        partitions\na-long-name  4\n");
    }

    #[test]
    fn settings_of_a_topic_are_pairs() {
        let parse = |arguments: &[&str]| {
            Command::try_parse_from(["zeta", "create", "t"].iter().chain(arguments)).map(|it| it.topics.command)
        };
        let Ok(TopicsCommand::Create {
            settings, partitions, ..
        }) = parse(&["--config", "retention.ms=-1", "-p", "4"])
        else {
            panic!("valid arguments")
        };
        assert_eq!(settings, [("retention.ms".to_owned(), "-1".to_owned())]);
        assert_eq!(partitions, 4);
        for (arguments, why) in [
            (["--config", "retention"], "no value"),
            (["--config", "=1"], "no name"),
            (["-p", "0"], "no partition"),
        ] {
            assert!(parse(&arguments).is_err(), "{why}");
        }
    }
}
