//! History replayed as if it happened now: the merged rows of a directory of Parquet files, as encoded records.
//!
//! ```text
//! MergedReader ─▶ rows in event-time order ─▶ due by now? ─▶ encode ─▶ records (key = symbol, time = event time)
//!                                               └─ event time - first event time <= time passed * speed
//! ```
//! A position is the number of a row in the merged order. The rows and their bytes depend on the files and the range
//! alone; the speed decides only when they come.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use super::{
    OptionKind, OptionSpec, Options, Source, SourceError, SplitBounds,
    parquet::merged::{MergeOptions, MergedReader, MergedRows},
};
use crate::types::{Anchors, Chunk, Error, Payload, Position, RecordsBuilder, Result, SplitId};

/// The options of a source with `connector = 'replay'`.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec::text("path", "a directory with one Parquet file per pair, or one such file").required(),
    OptionSpec::text(
        "speed",
        "how much faster than it happened: '60x' gives an hour per minute, 'max' does not wait",
    )
    .default("1x"),
    OptionSpec::text(
        "from",
        "the first event time, e.g. '2024-01-02T00:00:00Z' or '2024-01-02'",
    ),
    OptionSpec::text("to", "the event time to stop before"),
    OptionSpec::text("limit", "rows after which to stop").kind(OptionKind::Integer),
];

/// Rows merged ahead of what is due: over a thousand files, fewer at once cost more per row.
const ROWS_HELD: usize = 16_384;
/// Rows encoded between two looks at the bytes.
const ROWS_ENCODED: usize = 256;
/// Rows stepped over between two looks at the time.
const ROWS_SKIPPED: u64 = 65_536;

/// Appends each row's record to the bytes, and its end to the ends. The composition root gives a format's encoder.
pub type EncodeRows = Box<dyn FnMut(&RecordBatch, &mut Vec<u8>, &mut Vec<usize>) + Send>;

/// Takes records out of the process, in the order they are sent: a topic, or a test.
pub trait RecordSink {
    /// # Errors
    /// The record cannot be sent; earlier ones may not have arrived either.
    fn send(&mut self, key: Option<&[u8]>, value: &[u8], timestamp_ms: i64) -> Result<()>;

    /// Returns when all that was sent has arrived.
    ///
    /// # Errors
    /// Something did not arrive.
    fn flush(&mut self) -> Result<()>;
}

/// How fast event time passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// Nothing waits.
    Max,
    /// So many seconds of event time per second; above 0.
    Times(f64),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.strip_suffix('x').unwrap_or(text).parse::<f64>() {
            Ok(times) if (1e-6..=1e9).contains(&times) => Ok(Self::Times(times)),
            _ => Err(format!(
                "'{text}' is not a speed: expected a factor such as '60x' or '0.5x', or 'max'"
            )),
        }
    }
}

/// Reads RFC 3339, or a date, which stands for its beginning in UTC, as nanoseconds since 1970.
///
/// # Errors
/// A sentence about what was expected.
pub fn parse_time(text: &str) -> Result<i64, String> {
    let time = chrono::DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .ok();
    let date = || {
        text.parse::<chrono::NaiveDate>()
            .ok()?
            .and_hms_opt(0, 0, 0)
            .map(|time| time.and_utc())
    };
    let time = time
        .or_else(date)
        .ok_or_else(|| format!("'{text}' is not a time: expected e.g. 2024-01-02T03:04:05Z or 2024-01-02"))?;
    time.timestamp_nanos_opt()
        .ok_or_else(|| format!("'{text}' is out of range: years 1678 to 2262"))
}

/// Time passing outside, to be replaced in tests.
pub trait Wall: Send {
    /// Since some fixed moment; never goes back.
    fn elapsed(&self) -> Duration;
    fn sleep(&self, duration: Duration);
}

pub struct SystemWall(Instant);

impl Default for SystemWall {
    // Pacing is a wait by its nature, and decides only when rows come.
    #[allow(clippy::disallowed_methods)]
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Wall for SystemWall {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    #[allow(clippy::disallowed_methods)]
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// Which event times are due by now.
pub struct Pace {
    speed: Speed,
    /// When pacing began, and the event time that was due then.
    start: Option<(Duration, i64)>,
}

impl Pace {
    pub fn new(speed: Speed) -> Self {
        Self { speed, start: None }
    }

    /// The next question fixes the start again.
    pub fn restart(&mut self) {
        self.start = None;
    }

    /// Fixes the start, if it is not: `event_time` is due at `elapsed`.
    pub fn start(&mut self, elapsed: Duration, event_time: i64) {
        self.start.get_or_insert((elapsed, event_time));
    }

    /// The last event time that is due at `elapsed`; none before the start.
    pub fn due_until(&self, elapsed: Duration) -> i64 {
        match (self.speed, self.start) {
            (Speed::Max, _) => i64::MAX,
            (_, None) => i64::MIN,
            // Beyond what an i64 holds the cast saturates, as the sum does.
            (Speed::Times(times), Some((began, event_time))) => {
                event_time.saturating_add((elapsed.saturating_sub(began).as_nanos() as f64 * times) as i64)
            }
        }
    }

    /// How long after `elapsed` an event time is due.
    pub fn wait_for(&self, elapsed: Duration, event_time: i64) -> Duration {
        match (self.speed, self.start) {
            (Speed::Times(times), Some(_)) => {
                let ahead = i128::from(event_time) - i128::from(self.due_until(elapsed));
                // Rounded up, so that the time has come after the wait.
                Duration::from_nanos((ahead.max(0) as f64 / times).ceil() as u64)
            }
            _ => Duration::ZERO,
        }
    }
}

/// One split, "0", of records in event-time order.
pub struct ReplaySource {
    path: PathBuf,
    options: MergeOptions,
    encode: EncodeRows,
    split: SplitId,
    reader: MergedReader,
    /// The row that the reader gives next.
    reader_position: u64,
    /// Whether the split is read; the position of the first row that is not given yet.
    is_read: bool,
    position: u64,
    /// Merged, from `held_at` on not yet given.
    held: Option<MergedRows>,
    held_at: usize,
    pace: Pace,
    wall: Box<dyn Wall>,
    is_finished: bool,
}

impl ReplaySource {
    /// Reads the footers of the files. `encoder` makes the encoder of their rows.
    ///
    /// # Errors
    /// A wrong option, or files that cannot be read.
    pub fn open(options: &Options, encoder: impl FnOnce(SchemaRef) -> Result<EncodeRows>) -> Result<Self> {
        let named = |name: &'static str| move |reason: String| Error::user(format!("`{name}`: {reason}"));
        let time = |name: &'static str| options.get(name).map(parse_time).transpose().map_err(named(name));
        let speed = options.get("speed").unwrap_or("1x").parse().map_err(named("speed"))?;
        let limit = options.integer("limit").map(u64::try_from).transpose();
        let merge = MergeOptions {
            from_ns: time("from")?,
            to_ns: time("to")?,
            limit: limit.map_err(|_| Error::user("`limit` is a number of rows, not below 0"))?,
            ..MergeOptions::default()
        };
        let path = PathBuf::from(options.get("path").ok_or_else(|| Error::user("`path` is required"))?);
        let reader = MergedReader::open(&path, &merge)?;
        Ok(Self {
            encode: encoder(reader.schema())?,
            path,
            options: merge,
            split: SplitId::from(0),
            reader,
            reader_position: 0,
            is_read: false,
            position: 0,
            held: None,
            held_at: 0,
            pace: Pace::new(speed),
            wall: Box::new(SystemWall::default()),
            is_finished: false,
        })
    }

    /// Another time than the system's.
    pub fn with_wall(mut self, wall: Box<dyn Wall>) -> Self {
        self.wall = wall;
        self
    }

    /// Event times of the rows held and not given.
    fn waiting(&self) -> &[i64] {
        self.held.as_ref().map_or(&[], |held| &held.event_times[self.held_at..])
    }

    fn due(&self) -> usize {
        let due_until = self.pace.due_until(self.wall.elapsed());
        self.waiting().partition_point(|event_time| *event_time <= due_until)
    }

    /// Holds rows, unless there are no more; false while rows are still to be stepped over.
    fn hold(&mut self, deadline: Duration) -> Result<bool, SourceError> {
        while self.reader_position < self.position && self.held.is_none() {
            let rows = (self.position - self.reader_position).min(ROWS_SKIPPED);
            let skipped = self.reader.skip_rows(rows).map_err(failed)?;
            self.reader_position += skipped;
            if skipped < rows {
                return Err(SourceError::Failed(format!(
                    "position {} lies beyond the {} rows of {}",
                    self.position,
                    self.reader_position,
                    self.path.display()
                )));
            }
            if deadline <= self.wall.elapsed() && self.reader_position < self.position {
                return Ok(false);
            }
        }
        if self.waiting().is_empty() && !self.is_finished {
            self.held = self.reader.next_rows(ROWS_HELD).map_err(failed)?;
            self.held_at = 0;
            self.reader_position += self.held.as_ref().map_or(0, |held| held.event_times.len() as u64);
            self.is_finished = self.held.is_none();
        }
        if let Some(event_time) = self.waiting().first().copied() {
            self.pace.start(self.wall.elapsed(), event_time);
        }
        Ok(true)
    }
}

fn failed(error: Error) -> SourceError {
    SourceError::Failed(error.to_string())
}

impl Source for ReplaySource {
    fn discover(&mut self) -> Result<Vec<SplitBounds>, SourceError> {
        let end = self.ends()[&self.split];
        Ok(vec![SplitBounds {
            split: self.split.clone(),
            first: Position(0),
            start: Position(0),
            end,
        }])
    }

    /// Files have no id, and one that was exchanged for another is not noticed.
    fn recognise(&mut self, _: &Anchors) -> Result<Option<String>, SourceError> {
        Ok(None)
    }

    fn seek(&mut self, positions: &BTreeMap<SplitId, Position>) -> Result<(), SourceError> {
        if let Some(split) = positions.keys().find(|split| **split != self.split) {
            return Err(SourceError::Failed(format!(
                "a replay has the split {}, and no split {split}",
                self.split
            )));
        }
        self.is_read = positions.contains_key(&self.split);
        self.position = positions.get(&self.split).map_or(0, |position| position.0);
        if self.reader_position != 0 {
            self.reader = MergedReader::open(&self.path, &self.options).map_err(failed)?;
            self.reader_position = 0;
        }
        self.held = None;
        self.is_finished = false;
        self.pace.restart();
        Ok(())
    }

    fn poll(&mut self, rows_max: usize, bytes_max: usize, wait: Duration) -> Result<Vec<Chunk>, SourceError> {
        let deadline = self.wall.elapsed().saturating_add(wait);
        if !self.is_read || rows_max == 0 || !self.hold(deadline)? {
            return Ok(Vec::new());
        }
        while self.due() == 0 {
            let Some(event_time) = self.waiting().first().copied() else {
                return Ok(Vec::new());
            };
            let elapsed = self.wall.elapsed();
            if deadline <= elapsed {
                return Ok(Vec::new());
            }
            self.wall
                .sleep(self.pace.wait_for(elapsed, event_time).min(deadline - elapsed));
        }

        let from = Position(self.position);
        let mut records = RecordsBuilder::default();
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        loop {
            let rows = self.due().min(rows_max - records.len()).min(ROWS_ENCODED);
            if rows == 0 || (bytes_max <= records.bytes() && !records.is_empty()) {
                break;
            }
            let held = self.held.as_ref().expect("due rows are held");
            bytes.clear();
            ends.clear();
            (self.encode)(&held.rows.slice(self.held_at, rows), &mut bytes, &mut ends);
            assert_eq!(ends.len(), rows, "a record per row");
            let mut start = 0;
            for (row, end) in (self.held_at..).zip(&ends) {
                let symbol = self.reader.symbol(held.files[row]);
                let timestamp_ms = held.event_times[row].div_euclid(1_000_000);
                records.push(
                    self.position,
                    Some(timestamp_ms),
                    Some(symbol.as_bytes()),
                    Some(&bytes[start..*end]),
                );
                self.position += 1;
                start = *end;
            }
            self.held_at += rows;
            // Also says whether this was the last row. A failure comes again at the next poll, behind the rows before it.
            if self.hold(deadline).is_err() {
                break;
            }
        }
        let chunk = Chunk {
            split: self.split.clone(),
            from,
            to: Position(self.position),
            payload: Payload::Records(records.finish()),
        };
        Ok(vec![chunk])
    }

    /// The rows that are due by now, as far as they are merged already: a replay at its pace is caught up.
    fn ends(&self) -> BTreeMap<SplitId, Position> {
        let is_whole = self.options.from_ns.is_none() && self.options.to_ns.is_none();
        let end = match self.pace.speed {
            // All is due, and the files say how much that is.
            Speed::Max if is_whole => (self.reader_position + self.reader.rows_at_most()).max(self.position),
            _ => self.position + self.due() as u64,
        };
        BTreeMap::from([(self.split.clone(), Position(end))])
    }

    fn is_finished(&self) -> bool {
        self.is_read && self.is_finished
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use arrow::{
        array::{ArrayRef, AsArray, Int64Array, TimestampNanosecondArray},
        datatypes::{Int64Type, TimestampNanosecondType},
    };
    use parquet::arrow::ArrowWriter;

    use super::*;
    use crate::types::Records;

    const SECOND_NS: i64 = 1_000_000_000;

    /// Time that passes only while somebody sleeps, or when it is told to.
    #[derive(Clone, Default)]
    struct ManualWall(Arc<Mutex<Duration>>);

    impl ManualWall {
        fn pass(&self, duration: Duration) {
            *self.0.lock().unwrap() += duration;
        }
    }

    impl Wall for ManualWall {
        fn elapsed(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn sleep(&self, duration: Duration) {
            self.pass(duration);
        }
    }

    /// Two pairs, a row each per minute of event time.
    fn directory(minutes: i64) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for symbol in ["A", "B"] {
            let times = TimestampNanosecondArray::from_iter_values((0..minutes).map(|minute| minute * 60 * SECOND_NS));
            let values = Int64Array::from_iter_values(0..minutes);
            let rows = RecordBatch::try_from_iter([
                ("n", Arc::new(values) as ArrayRef),
                ("open_time", Arc::new(times) as ArrayRef),
            ])
            .unwrap();
            let file = std::fs::File::create(directory.path().join(format!("{symbol}.parquet"))).unwrap();
            let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
            writer.write(&rows).unwrap();
            writer.close().unwrap();
        }
        directory
    }

    /// Writes `A 0 7` for symbol, seconds and `n`.
    fn encoder(_: SchemaRef) -> Result<EncodeRows> {
        Ok(Box::new(|rows, out, ends| {
            let symbols = rows.column_by_name("symbol").unwrap().as_string_view();
            let times = rows
                .column_by_name("open_time")
                .unwrap()
                .as_primitive::<TimestampNanosecondType>();
            let numbers = rows.column_by_name("n").unwrap().as_primitive::<Int64Type>();
            for row in 0..rows.num_rows() {
                let text = format!(
                    "{} {} {}",
                    symbols.value(row),
                    times.value(row) / SECOND_NS,
                    numbers.value(row)
                );
                out.extend_from_slice(text.as_bytes());
                ends.push(out.len());
            }
        }))
    }

    fn source(directory: &tempfile::TempDir, options: &[(&str, &str)]) -> (ReplaySource, ManualWall) {
        let path = ("path".to_owned(), directory.path().to_str().unwrap().to_owned());
        let options = options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let wall = ManualWall::default();
        let source = ReplaySource::open(&Options::resolve(OPTIONS, options.chain([path])), encoder).unwrap();
        (source.with_wall(Box::new(wall.clone())), wall)
    }

    fn seek(source: &mut ReplaySource, position: u64) {
        source
            .seek(&BTreeMap::from([(SplitId::from(0), Position(position))]))
            .unwrap();
    }

    fn texts(records: &Records) -> Vec<String> {
        (0..records.len())
            .map(|index| String::from_utf8(records.value(index).unwrap().to_vec()).unwrap())
            .collect()
    }

    /// All rows that come without waiting, checked for contiguous positions from `position` on.
    fn poll_all(source: &mut ReplaySource, position: u64, rows_max: usize, bytes_max: usize) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let chunks = source.poll(rows_max, bytes_max, Duration::ZERO).unwrap();
            if chunks.is_empty() {
                return all;
            }
            for chunk in chunks {
                assert_eq!(
                    chunk.from.0,
                    position + all.len() as u64,
                    "a chunk begins where the one before ended"
                );
                let Payload::Records(records) = &chunk.payload else {
                    panic!("a replay gives records")
                };
                assert!(records.len() <= rows_max && !records.is_empty());
                assert_eq!(records.positions(), (chunk.from.0..chunk.to.0).collect::<Vec<_>>());
                for (index, text) in texts(records).into_iter().enumerate() {
                    let mut parts = text.split(' ');
                    assert_eq!(
                        records.key(index),
                        parts.next().map(str::as_bytes),
                        "the key is the symbol"
                    );
                    assert_eq!(
                        records.timestamps_ms()[index]
                            .map(|millis| (millis / 1000).to_string())
                            .as_deref(),
                        parts.next()
                    );
                    all.push(text);
                }
            }
        }
    }

    #[test]
    fn at_full_speed_all_rows_come_and_it_is_finished() {
        let directory = directory(5_000);
        let (mut source, _) = source(&directory, &[("speed", "max")]);
        let bounds = source.discover().unwrap();
        assert_eq!(
            bounds,
            [SplitBounds {
                split: SplitId::from(0),
                first: Position(0),
                start: Position(0),
                end: Position(10_000)
            }]
        );
        assert!(
            source.poll(10, 1 << 20, Duration::ZERO).unwrap().is_empty(),
            "nothing is read before a seek"
        );
        assert!(!source.is_finished());
        seek(&mut source, 0);
        let all = poll_all(&mut source, 0, 700, 1 << 20);
        assert_eq!(all.len(), 10_000);
        assert_eq!(&all[..3], ["A 0 0", "B 0 0", "A 60 1"]);
        assert!(source.is_finished());
        assert_eq!(source.ends()[&SplitId::from(0)], Position(10_000));
    }

    #[test]
    fn what_was_read_is_read_again_from_any_position() {
        let directory = directory(9_000);
        let (mut source, _) = source(&directory, &[("speed", "max")]);
        seek(&mut source, 0);
        let all = poll_all(&mut source, 0, 20_000, 1 << 20);
        assert_eq!(all.len(), 18_000);
        for position in [0, 1, ROWS_HELD as u64 - 1, ROWS_HELD as u64, 17_999, 18_000] {
            for (rows_max, bytes_max) in [(20_000, 1 << 20), (333, 1 << 20), (20_000, 1)] {
                seek(&mut source, position);
                assert_eq!(
                    poll_all(&mut source, position, rows_max, bytes_max),
                    all[position as usize..],
                    "from {position}"
                );
                assert!(source.is_finished());
            }
        }
        seek(&mut source, 18_001);
        let error = source.poll(1, 1, Duration::ZERO).unwrap_err().to_string();
        assert!(
            error.starts_with("position 18001 lies beyond the 18000 rows of"),
            "{error}"
        );
    }

    #[test]
    fn rows_come_when_their_time_has_come() {
        let directory = directory(10);
        let (mut source, wall) = source(&directory, &[("speed", "60x")]);
        wall.pass(Duration::from_secs(100));
        seek(&mut source, 0);
        wall.pass(Duration::from_secs(100));
        assert_eq!(
            poll_all(&mut source, 0, 100, 1 << 20),
            ["A 0 0", "B 0 0"],
            "the first poll is the start"
        );
        assert_eq!(source.ends()[&SplitId::from(0)], Position(2), "caught up");

        wall.pass(Duration::from_millis(999));
        assert!(source.poll(100, 1 << 20, Duration::ZERO).unwrap().is_empty());
        wall.pass(Duration::from_millis(1));
        assert_eq!(source.ends()[&SplitId::from(0)], Position(4), "two rows are due");
        assert_eq!(poll_all(&mut source, 2, 100, 1 << 20), ["A 60 1", "B 60 1"]);

        let before = wall.elapsed();
        assert!(
            source
                .poll(100, 1 << 20, Duration::from_millis(300))
                .unwrap()
                .is_empty()
        );
        assert_eq!(
            wall.elapsed() - before,
            Duration::from_millis(300),
            "waits no longer than it may"
        );
        let chunks = source.poll(100, 1 << 20, Duration::from_secs(10)).unwrap();
        assert_eq!(
            wall.elapsed() - before,
            Duration::from_secs(1),
            "and no longer than it must"
        );
        assert_eq!(chunks[0].payload.len(), 2);

        wall.pass(Duration::from_secs(3600));
        assert_eq!(
            poll_all(&mut source, 6, 5, 1 << 20).len(),
            14,
            "all that is overdue comes at once"
        );
        assert!(source.is_finished());
    }

    #[test]
    fn after_a_seek_pacing_begins_at_the_row_of_the_position() {
        let directory = directory(10);
        let (mut source, wall) = source(&directory, &[("speed", "1x")]);
        seek(&mut source, 9);
        assert_eq!(poll_all(&mut source, 9, 100, 1 << 20), ["B 240 4"]);
        wall.pass(Duration::from_secs(60));
        assert_eq!(poll_all(&mut source, 10, 100, 1 << 20), ["A 300 5", "B 300 5"]);
        seek(&mut source, 2);
        assert_eq!(poll_all(&mut source, 2, 100, 1 << 20), ["A 60 1", "B 60 1"]);
    }

    #[test]
    fn positions_count_from_the_start_of_the_range() {
        let directory = directory(10);
        let range = [
            ("speed", "max"),
            ("from", "1970-01-01T00:02:00Z"),
            ("to", "1970-01-01T00:04:00Z"),
        ];
        let (mut source, _) = source(&directory, &range);
        seek(&mut source, 0);
        assert_eq!(
            poll_all(&mut source, 0, 100, 1 << 20),
            ["A 120 2", "B 120 2", "A 180 3", "B 180 3"]
        );
        assert_eq!(source.ends()[&SplitId::from(0)], Position(4));
        let (mut limited, _) = self::source(&directory, &[("speed", "max"), ("limit", "3")]);
        seek(&mut limited, 1);
        assert_eq!(poll_all(&mut limited, 1, 100, 1 << 20), ["B 0 0", "A 60 1"]);
        assert!(limited.is_finished());
    }

    #[test]
    fn a_split_that_is_not_there_is_refused_and_one_not_asked_for_not_read() {
        let directory = directory(1);
        let (mut source, _) = source(&directory, &[("speed", "max")]);
        source.seek(&BTreeMap::new()).unwrap();
        assert!(source.poll(10, 10, Duration::ZERO).unwrap().is_empty());
        assert!(source.seek(&BTreeMap::from([(SplitId::from(1), Position(0))])).is_err());
    }

    #[test]
    fn wrong_options_are_named() {
        let directory = directory(1);
        for (name, value, expected) in [
            (
                "speed",
                "fast",
                "`speed`: 'fast' is not a speed: expected a factor such as '60x' or '0.5x', or 'max'",
            ),
            (
                "speed",
                "0",
                "`speed`: '0' is not a speed: expected a factor such as '60x' or '0.5x', or 'max'",
            ),
            (
                "from",
                "today",
                "`from`: 'today' is not a time: expected e.g. 2024-01-02T03:04:05Z or 2024-01-02",
            ),
            (
                "to",
                "3000-01-01",
                "`to`: '3000-01-01' is out of range: years 1678 to 2262",
            ),
            ("limit", "-1", "`limit` is a number of rows, not below 0"),
            (
                "path",
                "/nowhere",
                "cannot read the directory /nowhere: No such file or directory (os error 2)",
            ),
        ] {
            let path = ("path".to_owned(), directory.path().to_str().unwrap().to_owned());
            let options = Options::resolve(OPTIONS, [path, (name.to_owned(), value.to_owned())]);
            assert_eq!(
                ReplaySource::open(&options, encoder).err().unwrap().to_string(),
                expected
            );
        }
    }

    #[test]
    fn the_wait_for_a_row_ends_when_it_is_due() {
        for speed in [0.001, 1.0, 60.0, 1234.567] {
            let mut pace = Pace::new(Speed::Times(speed));
            pace.start(Duration::from_secs(5), 1_704_067_200_000_000_000);
            for ahead in [0, 1, 999, 60_000_000_000, 86_400_000_000_000] {
                let event_time = 1_704_067_200_000_000_000 + ahead;
                let mut elapsed = Duration::from_secs(6);
                let mut waits = 0;
                while pace.due_until(elapsed) < event_time {
                    elapsed += pace.wait_for(elapsed, event_time);
                    waits += 1;
                    assert!(waits < 5, "{speed} {ahead}");
                }
            }
        }
    }
}
