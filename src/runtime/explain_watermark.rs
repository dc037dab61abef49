//! EXPLAIN WATERMARK: how far a source or a view has come, which split holds it back, and when its oldest window closes.
//!
//! ```text
//! split 0 ─▶ 12:07:31 ahead
//! split 1 ─▶ 12:04:10 holds back ─▶ watermark 12:04:10 ─▶ window 12:00 to 12:05 closes when split 1 reaches 12:05:05
//! split 2 ─▶ idle
//! ```
//! Answered from what the last epoch published; the clock only tells how long silence may still last.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, RecordBatch, StringViewArray, TimestampNanosecondArray, UInt64Array},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};

use crate::{
    operator::OpenWindows,
    plan::{Relation, SourceDefinition},
    types::{Error, EventTime, Position, Result, Watermark},
};

use super::{
    engine::Engine,
    face::SplitStatus,
    shared::{Progress, Status},
    watermark_rule::WatermarkRule,
};

/// A row of the answer.
struct Line {
    of: String,
    read: Option<(Position, Position)>,
    highest_event_time: Option<EventTime>,
    watermark: Option<EventTime>,
    state: String,
}

/// What is known at the moment of asking.
struct Known<'a> {
    source: &'a SourceDefinition,
    status: Status,
    watermark: Watermark,
    now: EventTime,
}

impl Engine {
    /// First how far the relation itself is, then a row for each split of its source.
    ///
    /// `name` is a source with a watermark or a materialized view of one.
    pub(super) fn explain_watermark(&self, name: &str) -> Result<(SchemaRef, RecordBatch)> {
        let catalog = self.catalog();
        let unknown = || Error::bug("a relation was bound that is not in the catalog");
        let relation = catalog.get(name).ok_or_else(unknown)?;
        let source = match relation {
            Relation::Materialized(view) => catalog.source(&view.source),
            other => catalog.source(other.name()),
        };
        let source = source.ok_or_else(unknown)?;
        let of = format!("{} {name}", relation.kind());
        let Some(shared) = self.shared_of(&source.name) else {
            return batch(&[Line {
                of,
                read: None,
                highest_event_time: None,
                watermark: None,
                state: "not started: no materialized view reads it".into(),
            }]);
        };
        let known = Known {
            source,
            status: shared.status(),
            watermark: shared.snapshot().watermark,
            now: self.0.clock.now(),
        };
        let mut lines = vec![match known.status.progress.get(name) {
            Some(progress) => known.of_view(of, progress),
            None => known.of_source(of),
        }];
        lines.extend(known.status.splits.iter().map(|split| known.of_split(split)));
        batch(&lines)
    }
}

impl Known<'_> {
    fn of_source(&self, of: String) -> Line {
        let splits = &self.status.splits;
        let state = match self.watermark {
            Watermark::END => "the input has ended: everything is complete".into(),
            _ if splits.is_empty() => "no split is known yet".into(),
            _ if splits.iter().all(|split| split.is_idle) => {
                let mut state = "every split is idle: it stays where it is".to_owned();
                state.extend(
                    self.closes_by_silence()
                        .map(|by| format!(", and open windows close {by}")),
                );
                state
            }
            _ => format!(
                "held back by {}",
                names(self.active().filter(|split| self.holds_back(split)))
            ),
        };
        Line {
            of,
            read: None,
            highest_event_time: splits.iter().filter_map(|split| split.highest_event_time).max(),
            watermark: self.watermark.time(),
            state,
        }
    }

    fn of_view(&self, of: String, progress: &Progress) -> Line {
        let state = match progress.open {
            _ if progress.watermark == Watermark::END => "the input has ended: everything is complete".into(),
            None => "no window is open".into(),
            Some(open) => {
                let begin = match open.first_start {
                    Some(start) => format!("{} to ", EventTime(start)),
                    None => "that ends at ".into(),
                };
                format!("window {begin}{} {}", EventTime(open.first_end), self.closes(&open))
            }
        };
        let highest = self
            .status
            .splits
            .iter()
            .filter_map(|split| split.highest_event_time)
            .max();
        Line {
            of,
            read: None,
            highest_event_time: highest,
            watermark: progress.watermark.time(),
            state,
        }
    }

    /// What has to happen for the oldest window to close.
    fn closes(&self, open: &OpenWindows) -> String {
        let needed = open.first_closes_at;
        if needed <= self.watermark {
            return "closes when the view below hands on what it holds back".into();
        }
        // Where the delay varies from row to row no event time can be named.
        let (whose, time) = match WatermarkRule::delay_ns(self.source) {
            Some(delay) => ("", EventTime(needed.0.saturating_add(delay))),
            None => ("the watermark of ", EventTime(needed.0)),
        };
        let blocking: Vec<&SplitStatus> = self.active().filter(|split| split.watermark < needed).collect();
        let mut ways = vec![match blocking.as_slice() {
            [] => format!("closes when {whose}any split reaches {time}; all are idle"),
            [one] => format!("closes when {whose}{} reaches {time}", names([*one].into_iter())),
            some => {
                let verb = if whose.is_empty() { "reach" } else { "reaches" };
                format!("closes when {whose}{} {verb} {time}", names(some.iter().copied()))
            }
        }];
        // Who is idle holds nothing back, as long as another goes on.
        if blocking.len() < self.active().count() && !blocking.is_empty() {
            let left = blocking
                .iter()
                .map(|split| self.idle_in(split))
                .collect::<Option<Vec<_>>>();
            ways.extend(
                left.and_then(|left| left.into_iter().max())
                    .map(|left| format!("{} by idle_timeout", after(left))),
            );
        }
        ways.extend(self.closes_by_silence());
        ways.join(", or ")
    }

    fn of_split(&self, split: &SplitStatus) -> Line {
        let mut words: Vec<String> = Vec::new();
        match () {
            () if self.watermark == Watermark::END => words.push("ended".into()),
            () if split.is_idle => words.push("idle".into()),
            () => {
                words.extend(split.highest_event_time.is_none().then(|| "empty".to_owned()));
                words.push(match self.holds_back(split) {
                    true => "holds back".into(),
                    false => "ahead".into(),
                });
                words.extend(self.idle_in(split).map(|left| format!("idle {}", after(left))));
            }
        }
        Line {
            of: format!("split {}", split.split),
            read: Some((split.position, split.end)),
            highest_event_time: split.highest_event_time,
            watermark: split.watermark.time(),
            state: words.join(", "),
        }
    }

    fn active(&self) -> impl Iterator<Item = &SplitStatus> {
        self.status.splits.iter().filter(|split| !split.is_idle)
    }

    fn holds_back(&self, split: &SplitStatus) -> bool {
        self.active().all(|other| split.watermark <= other.watermark)
    }

    /// How long a split may still be silent before it is idle; `None` while there is something to read.
    fn idle_in(&self, split: &SplitStatus) -> Option<Duration> {
        let is_read = split.position == split.end;
        is_read.then(|| self.left(split.silent_since, self.source.idle_timeout))
    }

    fn closes_by_silence(&self) -> Option<String> {
        let close_after = self.source.close_after?;
        let splits = &self.status.splits;
        let since = splits.iter().map(|split| split.silent_since).max()?;
        let is_read = splits.iter().all(|split| split.position == split.end);
        is_read.then(|| format!("{} by close_after", after(self.left(since, close_after))))
    }

    fn left(&self, since: EventTime, wait: Duration) -> Duration {
        let nanos = since.plus(wait).0.saturating_sub(self.now.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

/// Whole seconds, rounded up.
fn after(left: Duration) -> String {
    match left.as_nanos().div_ceil(1_000_000_000) {
        0 => "now".into(),
        seconds => format!("in {seconds} s"),
    }
}

fn names<'a>(splits: impl Iterator<Item = &'a SplitStatus>) -> String {
    let splits: Vec<&str> = splits.map(|split| split.split.as_str()).collect();
    match splits.as_slice() {
        [one] => format!("split {one}"),
        some => format!("splits {}", some.join(", ")),
    }
}

fn batch(lines: &[Line]) -> Result<(SchemaRef, RecordBatch)> {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let schema = Arc::new(Schema::new(vec![
        Field::new("of", DataType::Utf8View, false),
        Field::new("position", DataType::UInt64, true),
        Field::new("end", DataType::UInt64, true),
        Field::new("lag", DataType::UInt64, true),
        Field::new("highest_event_time", time.clone(), true),
        Field::new("watermark", time, true),
        Field::new("state", DataType::Utf8View, false),
    ]));
    let number = |of: fn((Position, Position)) -> u64| -> ArrayRef {
        Arc::new(lines.iter().map(|line| line.read.map(of)).collect::<UInt64Array>())
    };
    let times = |of: fn(&Line) -> Option<EventTime>| -> ArrayRef {
        let times = lines.iter().map(|line| of(line).map(|time| time.0));
        Arc::new(times.collect::<TimestampNanosecondArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(lines.iter().map(|line| &line.of))),
        number(|(position, _)| position.0),
        number(|(_, end)| end.0),
        number(|(position, end)| end.0 - position.0),
        times(|line| line.highest_event_time),
        times(|line| line.watermark),
        Arc::new(StringViewArray::from_iter_values(lines.iter().map(|line| &line.state))),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|e| Error::bug(e.to_string()))?;
    Ok((schema, batch))
}
