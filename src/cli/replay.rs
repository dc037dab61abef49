//! `zeta replay`: history into a Kafka topic, at the pace it happened, faster, or as fast as it goes.
//!
//! ```text
//! Parquet directory ─▶ MergedReader ─▶ due by now? ─▶ JSON ─▶ RecordSink (key = symbol, time = event time)
//! ```
//! The same rows give the same bytes as the source `connector = 'replay'`: [`open_source`] joins it with the same encoder.

use std::{path::PathBuf, time::Duration};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, TimestampNanosecondArray},
    datatypes::{DataType, SchemaRef, TimestampNanosecondType},
};
use clap::Args;

use super::progress::Progress;
use crate::{
    connector::{
        Options,
        kafka::{KafkaProducer, admin},
        parquet::merged::{MergeOptions, MergedReader, MergedRows},
        replay::{EncodeRows, Pace, RecordSink, ReplaySource, Speed, SystemWall, Wall, parse_time},
    },
    format::{Encoder, json::JsonEncoder},
    types::{Error, EventTime, Result},
};

/// Rows merged at once: over a thousand files, fewer cost more per row.
const ROWS_READ: usize = 16_384;
/// The longest wait without a look at the time.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How long the last records may take to arrive.
const FLUSH_MAX: Duration = Duration::from_secs(60);
/// Between two loops over history without two different event times.
const LOOP_GAP_NS: i64 = 60_000_000_000;

/// Send history to a Kafka topic as JSON records, keyed by symbol
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// A directory with one Parquet file per pair, or one such file
    pub path: PathBuf,
    /// Topic to send to
    #[arg(long)]
    pub topic: String,
    /// Kafka brokers to ask first
    #[arg(long, env = "KAFKA", value_name = "HOST:PORT,…", default_value = "localhost:9092")]
    pub brokers: String,
    /// How much faster than it happened, e.g. 60x, or 'max'
    #[arg(long, default_value = "60x", value_parser = |text: &str| text.parse::<Speed>(), conflicts_with_all = ["rate", "max"])]
    pub speed: Speed,
    /// Rows per second, whenever they happened
    #[arg(long, value_name = "N", conflicts_with = "max", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// As fast as it goes
    #[arg(long)]
    pub max: bool,
    /// Rows after which to stop
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Columns beside the symbol; all by default
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', conflicts_with = "column")]
    pub columns: Option<Vec<String>>,
    /// The only column, without the symbol
    #[arg(long, value_name = "NAME", requires = "bare")]
    pub column: Option<String>,
    /// Send the value of --column alone in place of a JSON object
    #[arg(long, requires = "column")]
    pub bare: bool,
    /// Begin again at the end; event times go on rising
    #[arg(long = "loop")]
    pub is_loop: bool,
    /// Make the topic with so many partitions, if it does not exist
    #[arg(long, value_name = "PARTITIONS", value_parser = clap::value_parser!(i32).range(1..))]
    pub create_topic: Option<i32>,
    /// First event time to send, e.g. 2024-01-02 or 2024-01-02T03:04:05Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub from: Option<i64>,
    /// Event time to stop before
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub to: Option<i64>,
}

/// Replays into the sink that `connect` makes; it is asked only once the files are found good.
///
/// # Errors
/// Files that cannot be read, a column that is not there, or a sink that fails.
pub fn run<S: RecordSink>(args: &ReplayArgs, connect: impl FnOnce(&ReplayArgs) -> Result<S>) -> Result<()> {
    if !args.path.exists() {
        let path = args.path.display();
        return Err(Error::user(format!(
            "there is no {path}; `zeta generate --out {path}` makes some history"
        )));
    }
    let reader = MergedReader::open(&args.path, &args.merge_options())?;
    let rows_total = match args.is_loop {
        true => args.limit,
        false => Some(reader.rows_at_most()),
    };
    let mut sink = connect(args)?;
    let mut progress = Progress::start("replay", rows_total);
    replay(args, reader, &mut sink, &SystemWall::default(), |rows, event_time| {
        progress.advance(rows, Some(event_time))
    })?;
    progress.finish();
    Ok(())
}

/// A producer for the topic, which is made first where that is asked for.
///
/// # Errors
/// Brokers that do not answer, or a topic that does not exist.
pub fn connect(args: &ReplayArgs) -> Result<KafkaProducer> {
    if let Some(partitions) = args.create_topic {
        let exists = admin::list(&args.brokers)?.iter().any(|topic| topic.name == args.topic);
        if !exists {
            admin::create(
                &args.brokers,
                &admin::TopicPlan {
                    name: &args.topic,
                    partitions,
                    replication: 1,
                    settings: &[],
                },
            )?;
        }
    }
    KafkaProducer::connect(&args.brokers, &args.topic, &[])
}

impl RecordSink for KafkaProducer {
    fn send(&mut self, key: Option<&[u8]>, value: &[u8], timestamp_ms: i64) -> Result<()> {
        Self::send(self, key.unwrap_or_default(), value, timestamp_ms)
    }

    fn flush(&mut self) -> Result<()> {
        Self::flush(self, FLUSH_MAX)
    }
}

/// A source for `connector = 'replay'` whose records are those that `zeta replay` sends.
///
/// # Errors
/// A wrong option, or files that cannot be read.
pub fn open_source(options: &Options) -> Result<ReplaySource> {
    ReplaySource::open(options, |schema| encoder(schema, false))
}

fn encoder(schema: SchemaRef, is_bare: bool) -> Result<EncodeRows> {
    let mut encoder = if is_bare {
        JsonEncoder::bare(schema)?
    } else {
        JsonEncoder::new(schema)?
    };
    Ok(Box::new(move |rows, out, ends| encoder.encode(rows, out, ends)))
}

impl ReplayArgs {
    fn merge_options(&self) -> MergeOptions {
        MergeOptions {
            columns: self.columns.clone().or_else(|| Some(vec![self.column.clone()?])),
            with_symbol: self.column.is_none(),
            from_ns: self.from,
            to_ns: self.to,
            // A loop counts over all its rounds.
            limit: self.limit.filter(|_| !self.is_loop),
        }
    }

    fn pacing(&self) -> Pacing {
        match self.rate {
            Some(rows_per_second) => Pacing::Rate {
                rows_per_second,
                began: None,
                sent: 0,
            },
            None => Pacing::EventTime(Pace::new(if self.max { Speed::Max } else { self.speed })),
        }
    }
}

enum Pacing {
    EventTime(Pace),
    Rate {
        rows_per_second: u32,
        began: Option<Duration>,
        sent: u64,
    },
}

impl Pacing {
    /// How many of the rows with these event times are due, and how long to wait where none is.
    fn due(&mut self, elapsed: Duration, event_times: &[i64]) -> (usize, Duration) {
        match self {
            Self::EventTime(pace) => {
                pace.start(elapsed, event_times[0]);
                let due_until = pace.due_until(elapsed);
                let due = event_times.partition_point(|event_time| *event_time <= due_until);
                (
                    due,
                    if due == 0 {
                        pace.wait_for(elapsed, event_times[0])
                    } else {
                        Duration::ZERO
                    },
                )
            }
            Self::Rate {
                rows_per_second,
                began,
                sent,
            } => {
                let began = *began.get_or_insert(elapsed);
                // The first row is due at once.
                let nanos_of = |rows: u64| u128::from(rows) * 1_000_000_000 / u128::from(*rows_per_second);
                let passed = (elapsed - began).as_nanos();
                let due_in_all =
                    (passed * u128::from(*rows_per_second) / 1_000_000_000).min(u128::from(u64::MAX / 2)) as u64 + 1;
                let due = usize::try_from(due_in_all.saturating_sub(*sent))
                    .unwrap_or(usize::MAX)
                    .min(event_times.len());
                let wait = if due == 0 {
                    (nanos_of(*sent) + 1).saturating_sub(passed)
                } else {
                    0
                };
                *sent += due as u64;
                (due, Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)))
            }
        }
    }
}

fn replay(
    args: &ReplayArgs,
    mut reader: MergedReader,
    sink: &mut dyn RecordSink,
    wall: &dyn Wall,
    mut on_rows: impl FnMut(u64, EventTime),
) -> Result<()> {
    let mut encode = encoder(reader.schema(), args.bare)?;
    let mut pacing = args.pacing();
    let mut rows_left = args.limit.unwrap_or(u64::MAX);
    let mut round = Round::default();
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    while 0 < rows_left {
        let Some(merged) = reader.next_rows(ROWS_READ)? else {
            if !args.is_loop || !round.has_rows() {
                break;
            }
            round = round.next();
            reader = MergedReader::open(&args.path, &args.merge_options())?;
            continue;
        };
        let merged = round.take(merged)?;
        bytes.clear();
        ends.clear();
        encode(&merged.rows, &mut bytes, &mut ends);

        let rows = usize::try_from(rows_left).unwrap_or(usize::MAX).min(ends.len());
        let mut at = 0;
        while at < rows {
            let (due, wait) = pacing.due(wall.elapsed(), &merged.event_times[at..rows]);
            if due == 0 {
                // What was sent goes out before a wait.
                if WAIT_MAX < wait {
                    sink.flush()?;
                }
                wall.sleep(wait.min(WAIT_MAX));
                on_rows(0, EventTime(merged.event_times[at]));
                continue;
            }
            for row in at..at + due {
                let start = if row == 0 { 0 } else { ends[row - 1] };
                let key = reader.symbol(merged.files[row]).as_bytes();
                sink.send(
                    Some(key),
                    &bytes[start..ends[row]],
                    merged.event_times[row].div_euclid(1_000_000),
                )?;
            }
            at += due;
            on_rows(due as u64, EventTime(merged.event_times[at - 1]));
        }
        rows_left -= rows as u64;
    }
    sink.flush()
}

/// One pass over history in a loop: each is as far behind the one before as history is long.
#[derive(Default)]
struct Round {
    shift_ns: i64,
    /// Event times of this pass, not shifted.
    first: Option<i64>,
    last: i64,
    /// The smallest step between two event times.
    step_ns: Option<i64>,
}

impl Round {
    fn has_rows(&self) -> bool {
        self.first.is_some()
    }

    fn next(&self) -> Self {
        let length = self.first.map_or(0, |first| self.last.saturating_sub(first));
        let gap = self.step_ns.unwrap_or(LOOP_GAP_NS);
        Self {
            shift_ns: self.shift_ns.saturating_add(length).saturating_add(gap),
            ..Self::default()
        }
    }

    /// The rows as they stand in this round: all their times shifted.
    fn take(&mut self, mut merged: MergedRows) -> Result<MergedRows> {
        for &event_time in &merged.event_times {
            if self.first.is_some() && self.last < event_time {
                let step = event_time - self.last;
                self.step_ns = Some(self.step_ns.map_or(step, |smallest| smallest.min(step)));
            }
            self.first.get_or_insert(event_time);
            self.last = event_time;
        }
        if self.shift_ns == 0 {
            return Ok(merged);
        }
        let too_far = || Error::user("event times are out of range after so many loops");
        for event_time in &mut merged.event_times {
            *event_time = event_time.checked_add(self.shift_ns).ok_or_else(too_far)?;
        }
        let columns = merged.rows.columns().iter().map(|column| -> Result<ArrayRef> {
            let DataType::Timestamp(_, _) = column.data_type() else {
                return Ok(column.clone());
            };
            let times = column.as_primitive::<TimestampNanosecondType>().iter();
            let shifted = times.map(|time| {
                time.map(|time| time.checked_add(self.shift_ns).ok_or_else(too_far))
                    .transpose()
            });
            Ok(std::sync::Arc::new(
                shifted.collect::<Result<TimestampNanosecondArray>>()?,
            ))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        merged.rows = RecordBatch::try_new(merged.rows.schema(), columns)
            .map_err(|cause| Error::bug(format!("shifted rows do not fit their schema: {cause}")))?;
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    use clap::Parser;

    use super::*;
    use crate::{
        connector::{
            Source,
            parquet::generate::{History, generate},
        },
        types::{Payload, Position, SplitId},
    };

    const START_NS: i64 = 1_704_067_200_000_000_000;
    const MINUTE_NS: i64 = 60_000_000_000;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ReplayArgs,
    }

    fn parse(line: &str) -> Result<ReplayArgs, String> {
        let line = Line::try_parse_from(std::iter::once("replay").chain(line.split(' ')));
        line.map(|line| line.args).map_err(|error| error.to_string())
    }

    #[derive(Clone, Default)]
    struct ManualWall(Arc<Mutex<Duration>>);

    impl Wall for ManualWall {
        fn elapsed(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn sleep(&self, duration: Duration) {
            *self.0.lock().unwrap() += duration;
        }
    }

    struct Sent {
        key: String,
        value: String,
        timestamp_ms: i64,
        elapsed: Duration,
    }

    #[derive(Default)]
    struct ListSink {
        wall: ManualWall,
        sent: Vec<Sent>,
        flushed: usize,
    }

    impl RecordSink for ListSink {
        fn send(&mut self, key: Option<&[u8]>, value: &[u8], timestamp_ms: i64) -> Result<()> {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            self.sent.push(Sent {
                key: text(key.unwrap()),
                value: text(value),
                timestamp_ms,
                elapsed: self.wall.elapsed(),
            });
            Ok(())
        }

        fn flush(&mut self) -> Result<()> {
            self.flushed = self.sent.len();
            Ok(())
        }
    }

    fn history(minutes: i64) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let history = History {
            pairs: 3,
            start_ns: START_NS,
            end_ns: START_NS + minutes * MINUTE_NS,
            seed: 7,
        };
        generate(&history, directory.path(), |_| ()).unwrap();
        directory
    }

    fn sent(directory: &tempfile::TempDir, flags: &str) -> Vec<Sent> {
        let args = parse(&format!("{} --topic t {flags}", directory.path().display())).unwrap();
        let mut sink = ListSink::default();
        let wall = sink.wall.clone();
        let reader = MergedReader::open(&args.path, &args.merge_options()).unwrap();
        let mut rows = 0;
        replay(&args, reader, &mut sink, &wall, |more, _| rows += more).unwrap();
        assert_eq!(
            (sink.flushed, rows),
            (sink.sent.len(), sink.sent.len() as u64),
            "all has arrived and was counted"
        );
        sink.sent
    }

    #[test]
    fn flags_that_exclude_each_other_are_refused() {
        for (line, expected) in [
            ("x --topic t --max --rate 5", "cannot be used with"),
            ("x --topic t --speed 2x --max", "cannot be used with"),
            ("x --topic t --bare", "--column <NAME>"),
            ("x --topic t --column close", "--bare"),
            ("x --topic t --bare --column a --columns b", "cannot be used with"),
            ("x --topic t --speed fast", "'fast' is not a speed"),
            ("x --topic t --rate 0", "0 is not in"),
            ("x", "--topic"),
        ] {
            let message = parse(line).unwrap_err();
            assert!(message.contains(expected), "{line}: {message}");
        }
        let args = parse("x --topic t").unwrap();
        assert_eq!(
            (args.speed, args.brokers.as_str()),
            (Speed::Times(60.0), "localhost:9092")
        );
    }

    #[test]
    fn rows_are_sent_in_event_time_order_keyed_by_symbol() {
        let sent = sent(&history(2), "--max");
        let keys: Vec<&str> = sent.iter().map(|record| record.key.as_str()).collect();
        assert_eq!(
            keys,
            ["ADA-USDT", "BTC-USDT", "ETH-USDT", "ADA-USDT", "BTC-USDT", "ETH-USDT"]
        );
        assert_eq!(sent[3].timestamp_ms, 1_704_067_260_000);
        let candle: serde_json::Value = serde_json::from_str(&sent[4].value).unwrap();
        assert_eq!(candle["symbol"], "BTC-USDT");
        assert_eq!(candle["open_time"], "2024-01-01T00:01:00Z");
        assert!(candle["number_of_trades"].is_u64());
        let names: Vec<&String> = candle.as_object().unwrap().keys().collect();
        assert_eq!(
            names,
            [
                "symbol",
                "open_time",
                "open",
                "high",
                "low",
                "close",
                "volume",
                "quote_asset_volume",
                "number_of_trades",
                "taker_buy_base_asset_volume",
                "taker_buy_quote_asset_volume"
            ]
        );
    }

    #[test]
    fn chosen_columns_stand_behind_the_symbol_and_a_bare_one_alone() {
        let directory = history(1);
        for record in sent(&directory, "--max --columns close,open_time") {
            let candle: serde_json::Value = serde_json::from_str(&record.value).unwrap();
            assert_eq!(
                candle.as_object().unwrap().keys().collect::<Vec<_>>(),
                ["symbol", "close", "open_time"]
            );
        }
        for record in sent(&directory, "--max --column number_of_trades --bare") {
            assert!(record.value.parse::<u16>().is_ok(), "{}", record.value);
            assert!(record.key.ends_with("-USDT"));
        }
    }

    #[test]
    fn a_limit_and_a_range_cut_the_rows() {
        let directory = history(5);
        assert_eq!(sent(&directory, "--max --limit 4").len(), 4);
        assert_eq!(sent(&directory, "--max --limit 0").len(), 0);
        let range = sent(
            &directory,
            "--max --from 2024-01-01T00:01:00Z --to 2024-01-01T00:03:00Z",
        );
        assert_eq!(
            range.iter().map(|record| record.timestamp_ms).max(),
            Some(1_704_067_320_000)
        );
        assert_eq!(range.len(), 6);
    }

    #[test]
    fn rows_wait_for_their_event_time() {
        for record in sent(&history(4), "--speed 60x") {
            let happened = Duration::from_millis((record.timestamp_ms - 1_704_067_200_000) as u64);
            assert_eq!(record.elapsed, happened / 60);
        }
    }

    #[test]
    fn a_rate_counts_rows_and_not_event_time() {
        for (row, record) in sent(&history(4), "--rate 8").iter().enumerate() {
            let due = Duration::from_millis(125) * row as u32;
            assert!(
                (due..due + Duration::from_nanos(2)).contains(&record.elapsed),
                "row {row} at {:?}",
                record.elapsed
            );
        }
    }

    #[test]
    fn a_loop_goes_on_in_event_time() {
        let sent = sent(&history(2), "--max --loop --limit 17");
        assert_eq!(sent.len(), 17);
        for (row, record) in sent.iter().enumerate() {
            let minute = row as i64 / 3;
            assert_eq!(record.timestamp_ms, 1_704_067_200_000 + minute * 60_000);
            let candle: serde_json::Value = serde_json::from_str(&record.value).unwrap();
            assert_eq!(candle["open_time"], format!("2024-01-01T00:{minute:02}:00Z"));
            let first: serde_json::Value = serde_json::from_str(&sent[row % 6].value).unwrap();
            assert_eq!(candle["close"], first["close"], "each round has the same candles");
        }
    }

    #[test]
    fn the_replay_source_gives_the_records_that_the_verb_sends() {
        let directory = history(100);
        let options = [("path", directory.path().to_str().unwrap()), ("speed", "max")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut source = open_source(&Options::resolve(crate::connector::replay::OPTIONS, options)).unwrap();
        source.seek(&BTreeMap::from([(SplitId::from(0), Position(0))])).unwrap();
        let chunks = source.poll(1_000, 1 << 20, Duration::ZERO).unwrap();
        let Payload::Records(records) = &chunks[0].payload else {
            panic!("a replay gives records")
        };
        let sent = sent(&directory, "--max");
        assert_eq!(records.len(), sent.len());
        for (index, record) in sent.iter().enumerate() {
            assert_eq!(records.value(index), Some(record.value.as_bytes()));
            assert_eq!(records.key(index), Some(record.key.as_bytes()));
            assert_eq!(records.timestamps_ms()[index], Some(record.timestamp_ms));
        }
    }

    #[test]
    fn files_are_looked_at_before_the_sink_is_made() {
        let args = parse("/nowhere --topic t").unwrap();
        let result = run(&args, |_| -> Result<ListSink> { panic!("nothing to send") });
        assert!(result.unwrap_err().to_string().starts_with("there is no /nowhere"));
    }
}
