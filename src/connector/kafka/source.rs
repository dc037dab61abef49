//! A topic as a source: partitions are splits, offsets are positions.
//!
//! ```text
//! discover: partitions, low and high ends ─▶ seek: assign ─▶ poll: queue ─▶ one buffer per partition ─▶ chunks in partition order
//!             └▶ recognise: the topic that was read?                  └ position is gone ─▶ Failed, or passed over where that was asked for
//!                                                                    └ all brokers down or silent ─▶ Unreachable, until one answers
//!                                                                    └ another topic or leader? ─▶ the witness vouches, or Failed
//! now and then: which partitions are there? ─▶ new ones are assigned beside the others, from their first row
//! ```
//! A record below the position of its partition is never handed over twice, and one above it is never passed over in silence.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    time::Duration,
};

use rdkafka::error::RDKafkaErrorCode;

use super::{
    config::{Settings, Start},
    connection::{Connection, Failure},
    drain::{BATCH_MAX, Bound, Deadline, Drain, Event, bounds_of, c_name, partitions_of, probe},
    witness::{Witness, ends_before, gone_partition, gone_rows},
};
use crate::{
    connector::{LostRows, Options, Source, SourceError, SplitBounds},
    types::{Anchor, Anchors, Chunk, Payload, Position, RecordsBuilder, SplitId, limits},
};

/// One wait for a record is at most this long, so that a broker that is lost shows.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How long a poll asks whether the brokers are back.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a look for new partitions may take. Where there are some it is three questions more, and on a quiet topic each waits for the
/// fetch before it, half a second; records are fetched meanwhile.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon brokers that did not answer about new partitions are asked again.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// After how long without brokers other clients look for them.
const RENEW_AFTER: Duration = Duration::from_secs(15);
/// What a record is taken to weigh before any was seen.
const RECORD_BYTES_GUESS: usize = 4096;

pub struct KafkaSource {
    settings: Settings,
    topic: CString,
    drain: Drain,
    witness: Witness,
    /// When to try with other clients, while brokers are unreachable.
    renew_at: Option<Deadline>,
    /// How long brokers that were asked may be silent.
    silence_max: Duration,
    /// The last records that the state read, as `recognise` was told.
    anchors: BTreeMap<SplitId, Anchor>,
    /// Partitions whose leader changed, with the last record of before: to be compared before more is handed over.
    doubtful: BTreeMap<SplitId, Anchor>,
    /// Partitions that are not fetched, because their position is not among what there is, and brokers did not answer why.
    unplaced: BTreeSet<i32>,
    /// Partitions whose rows came damaged: the position, and how often in a row.
    damaged: BTreeMap<i32, (u64, u32)>,
    /// What was passed over since it was last told.
    lost: Vec<LostRows>,
    /// How often to look for new partitions, and when next.
    look_interval: Duration,
    next_look: Deadline,
    /// Partitions as of the last discovery or look.
    known: BTreeMap<i32, Known>,
    /// Partitions that are read.
    reading: BTreeMap<i32, Reading>,
    /// Bytes of an average record of the last poll that had any; at least 1.
    record_bytes: usize,
    /// What went wrong after the rows that were handed over last. Holds until the next seek.
    failed: Option<SourceError>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    low: u64,
    /// Where the options let a source without state begin.
    start: u64,
    end: u64,
}

struct Reading {
    split: SplitId,
    /// The first position that is in no chunk yet.
    from: u64,
    /// The first position that is not in `records`.
    to: u64,
    /// A bounded source stops here.
    limit: u64,
    records: RecordsBuilder,
    /// The last record that was handed over, and what its leader's epoch was.
    anchor: Option<Anchor>,
    leader_epoch: Option<i32>,
}

impl KafkaSource {
    /// Makes a client; the brokers are asked by `discover`.
    ///
    /// # Errors
    /// A sentence about an option that the client does not take.
    pub fn new(options: &Options) -> Result<Self, String> {
        let settings = Settings::new(options)?;
        let topic = c_name(&settings.topic)?;
        let drain = Drain::connect(&settings.client, Connection::new(&settings.brokers))
            .map_err(|error| super::config::sentence(&error))?;
        Ok(Self {
            witness: Witness::new(&settings.topic, &settings.brokers, &settings.client),
            renew_at: None,
            silence_max: settings.silence_max(),
            settings,
            topic,
            drain,
            anchors: BTreeMap::new(),
            doubtful: BTreeMap::new(),
            unplaced: BTreeSet::new(),
            damaged: BTreeMap::new(),
            lost: Vec::new(),
            look_interval: limits::NEW_SPLITS_INTERVAL,
            next_look: Deadline::after(limits::NEW_SPLITS_INTERVAL),
            known: BTreeMap::new(),
            reading: BTreeMap::new(),
            record_bytes: RECORD_BYTES_GUESS,
            failed: None,
        })
    }

    /// Looks for new partitions more often, or less.
    pub fn looking_every(mut self, interval: Duration) -> Self {
        self.look_interval = interval;
        self.next_look = Deadline::after(interval);
        self
    }

    /// Takes brokers that were asked for records for unreachable sooner, or later.
    pub fn silent_after(mut self, silence: Duration) -> Self {
        self.silence_max = silence;
        self
    }

    fn refresh(&mut self) -> Result<(), SourceError> {
        let is_first = self.known.is_empty();
        for (partition, (low, high)) in bounds_of(&self.drain, &self.settings.topic)? {
            let (low, high) = (offset(low), offset(high));
            match self.known.get_mut(&partition) {
                Some(known) => {
                    known.low = low;
                    // What retention has taken cannot be where anyone begins.
                    known.start = known.start.max(low);
                    if !self.settings.is_bounded {
                        known.end = known.end.max(high);
                    }
                }
                // The end was fixed at the first look.
                None if self.settings.is_bounded && !is_first => {}
                None => {
                    // A partition that was added later has only new rows.
                    let start = if is_first && self.settings.start == Start::Latest {
                        high
                    } else {
                        low
                    };
                    self.known.insert(partition, Known { low, start, end: high });
                }
            }
        }
        Ok(())
    }

    /// Asks for new partitions, and reads them beside the others.
    fn look(&mut self) -> Result<BTreeMap<SplitId, Position>, Failure> {
        let topic = &self.settings.topic;
        let deadline = Deadline::after(LOOK_TIMEOUT);
        let mut new = self.witness.partitions(deadline)?;
        new.retain(|partition| !self.known.contains_key(partition));
        if new.is_empty() {
            return Ok(BTreeMap::new());
        }
        // The client that reads has to know them, too.
        partitions_of(&self.drain, topic, deadline)?;
        let connection = self.drain.connection();
        let ask = |bound| {
            let answer = self.drain.bounds(topic, &new, bound, deadline.left());
            answer.map_err(|error| connection.explain_call(topic, &error))
        };
        let (lows, highs) = (ask(Bound::Low)?, ask(Bound::High)?);
        // What was queued is fetched again: nobody adds partitions often.
        let positions = self.reading.iter().map(|(partition, reading)| (*partition, reading.to));
        let firsts = lows.iter().map(|(partition, low)| (*partition, offset(*low)));
        self.drain
            .assign(
                topic,
                positions
                    .chain(firsts)
                    .map(|(partition, position)| (partition, position.cast_signed())),
            )
            .map_err(|error| connection.explain_call(topic, &error))?;
        let mut found = BTreeMap::new();
        for (partition, low) in lows {
            let low = offset(low);
            let end = highs.get(&partition).copied().map_or(low, offset);
            self.known.insert(partition, Known { low, start: low, end });
            let reading = Reading::at(SplitId::from(partition), low);
            found.insert(reading.split.clone(), Position(low));
            self.reading.insert(partition, reading);
        }
        tracing::info!(topic, partitions = ?found.keys().map(SplitId::as_str).collect::<Vec<_>>(), "new partitions found");
        Ok(found)
    }

    /// Finds the positions that were not among what there is; the first error ends it.
    fn find_positions(&mut self) -> Result<(), SourceError> {
        while let Some(partition) = self.unplaced.first().copied() {
            self.find_position(partition)?;
            self.unplaced.remove(&partition);
        }
        Ok(())
    }

    /// What became of the position of a partition that is not among what there is: an error, or reading goes on.
    fn find_position(&mut self, partition: i32) -> Result<(), SourceError> {
        let Some(reading) = self.reading.get(&partition) else {
            return Ok(());
        };
        let (topic, split, position) = (&self.settings.topic, reading.split.clone(), reading.to);
        let Some((low, high)) = bounds_of(&self.drain, topic)?.get(&partition).copied() else {
            return Err(SourceError::Failed(gone_partition(topic, partition)));
        };
        let low = offset(low);
        // Of another topic that was given this name, nothing is gone.
        self.witness.vouch(self.drain.connection().pulse().topic_answers())?;
        if offset(high) < position {
            return Err(SourceError::Failed(ends_before(topic, partition, high, position)));
        }
        if position < low {
            let (from, to) = (Position(position), Position(low));
            if !self.settings.skips_lost {
                return Err(SourceError::Failed(gone_rows(topic, partition, from, to)));
            }
            if let Some(reading) = self.reading.get_mut(&partition) {
                reading.to = low.min(reading.limit);
            }
            self.lost.push(LostRows { split, from, to });
        } else if let Some(anchor) = self.reading.get(&partition).and_then(Reading::last) {
            // Another leader has fewer rows, or had.
            self.witness.compare(&BTreeMap::from([(split, anchor)]))?;
        }
        self.read_on()
    }

    /// Fetches again, from what was taken out of the queue on.
    fn read_on(&self) -> Result<(), SourceError> {
        let positions = self
            .reading
            .iter()
            .map(|(partition, reading)| (*partition, reading.to.cast_signed()));
        let assigned = self.drain.assign(&self.settings.topic, positions);
        assigned.map_err(|error| {
            self.drain
                .connection()
                .explain_call(&self.settings.topic, &error)
                .into()
        })
    }

    /// Tries with other clients where brokers are unreachable for long: librdkafka may forget its brokers while they are frozen, and then
    /// connects to none any more.
    fn watch<T>(&mut self, answer: Result<T, SourceError>) -> Result<T, SourceError> {
        if !matches!(answer, Err(SourceError::Unreachable(_))) {
            self.renew_at = None;
            return answer;
        }
        let renew_at = *self.renew_at.get_or_insert_with(|| Deadline::after(RENEW_AFTER));
        if renew_at.left().is_zero() {
            self.renew_at = None;
            let connection = Connection::new(&self.settings.brokers);
            if !self.reading.is_empty() {
                connection.let_in();
            }
            self.drain = Drain::connect(&self.settings.client, connection)
                .map_err(|error| SourceError::Failed(super::config::sentence(&error)))?;
            self.witness.renew();
            tracing::info!(topic = self.settings.topic, "trying with another Kafka client");
            self.read_on()?;
        }
        answer
    }

    /// Whether what came out of the queue by now is of the topic that was read before, and follows it.
    fn vouch(&mut self) -> Result<(), SourceError> {
        self.witness.vouch(self.drain.connection().pulse().topic_answers())?;
        if !self.doubtful.is_empty() {
            self.witness.compare(&self.doubtful)?;
            let splits: Vec<&str> = self.doubtful.keys().map(SplitId::as_str).collect();
            tracing::info!(topic = self.settings.topic, partitions = ?splits, "another leader has the rows that were read");
            self.doubtful.clear();
        }
        Ok(())
    }

    /// Notes an error that holds until the next seek, and drops what nobody vouches for.
    fn note(&mut self, error: SourceError) -> SourceError {
        if matches!(error, SourceError::Failed(_)) {
            self.failed = Some(error.clone());
            for reading in self.reading.values_mut() {
                (reading.records, reading.to) = (RecordsBuilder::default(), reading.from);
            }
        }
        error
    }

    /// What is wrong when nothing came; `None` where nothing is.
    fn trouble(&self) -> Option<SourceError> {
        if self.silence_max <= self.drain.connection().pulse().silence() {
            return Some(self.drain.connection().silent(self.silence_max).into());
        }
        if !self.drain.connection().is_suspect() {
            return None;
        }
        probe(&self.drain, &self.settings.topic, PROBE_TIMEOUT)
            .err()
            .map(SourceError::from)
    }

    /// One poll, by whichever client there is.
    fn take(&mut self, rows_max: usize, bytes_max: usize, wait: Duration) -> Result<Vec<Chunk>, SourceError> {
        self.drain.serve();
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        // What the poll before could not compare or find.
        if let Err(error) = self.vouch().and_then(|()| self.find_positions()) {
            return Err(self.note(error));
        }
        let deadline = Deadline::after(wait.min(WAIT_MAX));
        let (mut rows, mut bytes) = (0, 0);
        let mut troubles: BTreeMap<i32, (RDKafkaErrorCode, String)> = BTreeMap::new();
        let (reading, doubtful) = (&mut self.reading, &mut self.doubtful);
        while rows < rows_max && bytes < bytes_max && troubles.is_empty() {
            let count_max = (rows_max - rows)
                .min((bytes_max - bytes) / self.record_bytes + 1)
                .min(BATCH_MAX);
            let wait = if rows == 0 { deadline.left() } else { Duration::ZERO };
            let taken = self.drain.take(count_max, wait, |event| match event {
                Event::Record(record) => {
                    let Some(reading) = reading.get_mut(&record.partition) else {
                        return;
                    };
                    if troubles.contains_key(&record.partition) {
                        // What comes behind what could not be read is fetched again.
                        return;
                    }
                    let position = offset(record.offset);
                    if position < reading.to || reading.limit <= position {
                        // librdkafka may hand a record over again after a leader moved; and a bounded source has an end.
                        reading.to = reading.to.max(position.saturating_add(1).min(reading.limit));
                        return;
                    }
                    let before = reading.leader_epoch;
                    reading.leader_epoch = record.leader_epoch.or(before);
                    if before.is_some_and(|before| Some(before) != reading.leader_epoch)
                        && let Some(last) = reading.last()
                    {
                        doubtful.entry(reading.split.clone()).or_insert(last);
                    }
                    reading
                        .records
                        .push(position, record.timestamp_ms, record.key, record.value);
                    reading.to = position + 1;
                    rows += 1;
                    bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
                }
                // Markers of transactions and records that compaction removed take positions, too.
                Event::End { partition, position } => {
                    if let Some(reading) = reading.get_mut(&partition)
                        && !troubles.contains_key(&partition)
                    {
                        reading.to = reading.to.max(offset(position).min(reading.limit));
                    }
                }
                Event::Trouble {
                    partition,
                    error,
                    detail,
                } => {
                    troubles.entry(partition).or_insert((error, detail));
                }
            });
            let took_all = taken < count_max;
            if took_all && (0 < rows || deadline.left().is_zero()) {
                break;
            }
        }
        if let Some(mean) = bytes.checked_div(rows) {
            self.record_bytes = mean.max(1);
        }

        self.drain.serve();
        self.unplaced
            .extend(troubles.keys().filter(|partition| 0 <= **partition));
        let failure = troubles
            .into_iter()
            .find_map(|(partition, (error, detail))| match error {
                // Which of the things that may have become of a position it is has to be found.
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::LogTruncation => None,
                RDKafkaErrorCode::BadMessage => {
                    let (topic, brokers) = (&self.settings.topic, &self.settings.brokers);
                    let position = self.reading.get(&partition).map_or(0, |reading| reading.to);
                    let (damaged_at, times) = self.damaged.entry(partition).or_default();
                    if *damaged_at != position {
                        (*damaged_at, *times) = (position, 0);
                    }
                    *times += 1;
                    Some(match *times < limits::DAMAGED_READS_MAX {
                        true => SourceError::Unreachable(format!(
                            "rows of partition {partition} of topic `{topic}` from {position} on came damaged from {brokers}, and are read \
                             again: {detail}"
                        )),
                        false => SourceError::Failed(format!(
                            "rows of partition {partition} of topic `{topic}` from {position} on came damaged from {brokers} {times} times, so \
                             they are damaged there: {detail}; let another replica lead the partition, or delete its records up to the \
                             damaged ones with theirs and set on_lost_offsets = 'skip'"
                        )),
                    })
                }
                _ => {
                    let failure = self.drain.connection().explain(&self.settings.topic, error, &detail);
                    if !matches!(failure, Failure::Failed(_)) {
                        // The next poll asks whether it is over.
                        self.drain.connection().suspect();
                    }
                    Some(failure.into())
                }
            });
        // librdkafka says what is wrong only once.
        let failure = match (failure, self.vouch()) {
            (failed @ Some(SourceError::Failed(_)), Err(_)) | (failed, Ok(())) => failed,
            (_, Err(error)) => return Err(self.note(error)),
        };
        let failure = failure.or_else(|| self.find_positions().err());
        let chunks: Vec<Chunk> = self.reading.values_mut().filter_map(Reading::cut).collect();
        match failure {
            Some(SourceError::Failed(sentence)) => {
                let failed = SourceError::Failed(sentence);
                self.failed = Some(failed.clone());
                if chunks.is_empty() { Err(failed) } else { Ok(chunks) }
            }
            Some(unreachable) if chunks.is_empty() => Err(unreachable),
            // Rows may still come out of the queue after the last broker is gone, so they prove nothing.
            _ if chunks.is_empty() => self.trouble().map_or(Ok(chunks), Err),
            _ => Ok(chunks),
        }
    }
}

impl Source for KafkaSource {
    fn discover(&mut self) -> Result<Vec<SplitBounds>, SourceError> {
        self.drain.serve();
        let found = self.refresh().and_then(|()| Ok(self.witness.identify()?));
        self.watch(found)?;
        Ok(self
            .known
            .iter()
            .map(|(partition, known)| SplitBounds {
                split: SplitId::from(*partition),
                first: Position(known.low.min(known.start).min(known.end)),
                start: Position(known.start.min(known.end)),
                end: Position(known.end),
            })
            .collect())
    }

    fn recognise(&mut self, read: &Anchors) -> Result<Option<String>, SourceError> {
        self.witness.recognise(read)?;
        self.anchors.clone_from(&read.records);
        Ok(self.witness.identity().map(str::to_owned))
    }

    fn seek(&mut self, positions: &BTreeMap<SplitId, Position>) -> Result<(), SourceError> {
        let topic = &self.settings.topic;
        let mut reading = BTreeMap::new();
        for (split, position) in positions {
            let partition: i32 = split
                .as_str()
                .parse()
                .map_err(|_| SourceError::Failed(format!("`{split}` is no partition of topic `{topic}`")))?;
            let from = position.0;
            if i64::try_from(from).is_err() {
                return Err(SourceError::Failed(format!(
                    "{from} is no position in partition {partition} of topic `{topic}`"
                )));
            }
            let mut at = Reading::at(split.clone(), from);
            at.anchor = self
                .anchors
                .get(split)
                .copied()
                .filter(|anchor| anchor.position < *position);
            reading.insert(partition, at);
        }
        // The brokers must have been asked before partitions are assigned, or the first record takes half a second.
        if self.known.is_empty() && !reading.is_empty() {
            self.refresh()?;
        }
        if self.settings.is_bounded {
            for (partition, reading) in &mut reading {
                reading.limit = self.known.get(partition).map_or(reading.from, |known| known.end);
            }
        }
        self.drain
            .assign(
                &self.settings.topic,
                reading
                    .iter()
                    .map(|(partition, reading)| (*partition, reading.from.cast_signed())),
            )
            .map_err(|error| self.drain.connection().explain_call(&self.settings.topic, &error))?;
        self.drain.connection().let_in();
        self.witness.let_in();
        self.reading = reading;
        self.doubtful.clear();
        self.unplaced.clear();
        self.damaged.clear();
        self.lost.clear();
        self.failed = None;
        Ok(())
    }

    fn lost(&mut self) -> Vec<LostRows> {
        std::mem::take(&mut self.lost)
    }

    fn new_splits(&mut self) -> BTreeMap<SplitId, Position> {
        let is_time = self.next_look.left().is_zero();
        // A bounded source has its end, and brokers that are lost are asked for by `poll`.
        if !is_time || self.settings.is_bounded || self.failed.is_some() || self.drain.connection().is_suspect() {
            return BTreeMap::new();
        }
        self.next_look = Deadline::after(self.look_interval);
        self.look().unwrap_or_else(|failure| {
            let topic = &self.settings.topic;
            tracing::debug!(topic, ?failure, "no answer about new partitions");
            // Leaders of new partitions are being elected, or the broker is busy: it answers soon.
            self.next_look = Deadline::after(self.look_interval.min(LOOK_AGAIN));
            BTreeMap::new()
        })
    }

    fn poll(&mut self, rows_max: usize, bytes_max: usize, wait: Duration) -> Result<Vec<Chunk>, SourceError> {
        let polled = self.take(rows_max, bytes_max, wait);
        self.watch(polled)
    }

    fn ends(&self) -> BTreeMap<SplitId, Position> {
        let partitions: BTreeSet<i32> = self.known.keys().chain(self.reading.keys()).copied().collect();
        partitions
            .into_iter()
            .map(|partition| {
                let known = self.known.get(&partition).map_or(0, |known| known.end);
                let read = self.reading.get(&partition).map_or(0, |reading| reading.to);
                let end = match self.settings.is_bounded {
                    true => known,
                    false => self
                        .drain
                        .known_end(&self.topic, partition)
                        .map_or(0, offset)
                        .max(known)
                        .max(read),
                };
                (SplitId::from(partition), Position(end))
            })
            .collect()
    }

    fn is_finished(&self) -> bool {
        self.settings.is_bounded
            && !self.known.is_empty()
            && self.known.iter().all(|(partition, known)| {
                known.end <= self.reading.get(partition).map_or(known.start, |reading| reading.from)
            })
    }
}

impl Reading {
    /// From a position on, without an end.
    fn at(split: SplitId, position: u64) -> Self {
        Self {
            split,
            from: position,
            to: position,
            limit: u64::MAX,
            records: RecordsBuilder::default(),
            anchor: None,
            leader_epoch: None,
        }
    }

    /// The last record before `to`, where it is known.
    fn last(&self) -> Option<Anchor> {
        Anchor::of_last(self.records.records()).or(self.anchor)
    }

    /// What was gathered since the last cut; `None` where the partition did not move.
    fn cut(&mut self) -> Option<Chunk> {
        if self.from == self.to {
            return None;
        }
        assert!(self.from < self.to, "a position never goes back");
        self.anchor = self.last();
        let chunk = Chunk {
            split: self.split.clone(),
            from: Position(self.from),
            to: Position(self.to),
            payload: Payload::Records(std::mem::take(&mut self.records).finish()),
        };
        self.from = self.to;
        Some(chunk)
    }
}

/// An offset of a broker, which is never negative where it names a record or an end.
fn offset(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}
