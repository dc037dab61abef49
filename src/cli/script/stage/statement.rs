//! A statement of a script: what scripts say beside SQL, INSERT by turns, and the SQL itself.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arrow::{array::RecordBatch, compute::concat_batches, datatypes::Schema};
use futures::TryStreamExt;
use sqllogictest::{DBOutput, DefaultColumnType};

use crate::{
    cli::script::shape::Inserted,
    connector::Source,
    runtime::{Problem, SqlRequest, StepEnd, clock::Clock, problem_of},
    types::{EventTime, RecordsBuilder, SplitId, Watermark, parse_duration},
};

use super::{
    Stage, StageError,
    answer::{done, rows, types},
};

/// Where the clock of a script stands unless it says `SET CLOCK` first.
const START: &str = "2030-01-01 00:00:00";

/// A query of a script has no reason to take longer.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Stage {
    /// Runs a statement; its INSERT does what `take_turn` said last.
    pub async fn statement(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, StageError> {
        let words: Vec<&str> = sql.split_whitespace().collect();
        let keywords: Vec<String> = words.iter().map(|word| word.to_uppercase()).collect();
        let keywords: Vec<&str> = keywords.iter().map(String::as_str).collect();
        let is_set = matches!(keywords[..], ["SET", "CLOCK", ..] | ["ADVANCE", "CLOCK", "TO", ..]);
        if !is_set && !self.clock_is_set.swap(true, Ordering::Relaxed) {
            self.clock.set(time_of(START)?);
        }
        match keywords[..] {
            ["SET", "CLOCK", ..] => self.set_clock(behind(sql, 2)),
            ["ADVANCE", "CLOCK", "TO", ..] => self.set_clock(behind(sql, 3)),
            ["ADVANCE", "CLOCK", "INTERVAL", ..] => {
                let duration = behind(sql, 3).trim_matches('\'');
                self.clock.advance(parse_duration(duration).map_err(StageError::of)?);
                self.step_all()
            }
            ["CRASH", "AND", "RESTORE"] => self.engine.crash_and_restore().map_err(StageError::of).map(done),
            ["CHECKPOINT"] => self.checkpoint(false).map(done),
            ["FINISH", _] => self.step(
                words[1],
                StepEnd {
                    is_last: true,
                    ..StepEnd::default()
                },
            ),
            ["STEP", _] => self.step(words[1], StepEnd::default()),
            ["IDLE", _, _] => {
                let split = SplitId::new(words[2]);
                self.check_split(words[1], &split)?;
                self.step(
                    words[1],
                    StepEnd {
                        idle_splits: vec![split],
                        ..StepEnd::default()
                    },
                )
            }
            ["NEW", "SPLIT", _, _] => {
                let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
                self.topics.of(words[2]).append(&SplitId::new(words[3]), nothing);
                self.step(words[2], StepEnd::default())
            }
            ["ADVANCE", "WATERMARK", _, "TO", _, ..] => {
                let time = time_of(behind(sql, 4))?;
                self.check_watermark(words[2], time)?;
                self.step(
                    words[2],
                    StepEnd {
                        complete_below: Some(time),
                        ..StepEnd::default()
                    },
                )
            }
            ["STATUS", _] => self.status(words[1]),
            ["RECORD", _, "SPLIT", _, ..] => self.record(words[1], SplitId::new(words[3]), behind(sql, 4)),
            ["INSERT", "INTO", _, "SPLIT", _, ..] => {
                let insert = format!("INSERT INTO {} {}", words[2], behind(sql, 5));
                self.insert(&insert, SplitId::new(words[4])).await
            }
            ["INSERT", ..] => self.insert(sql, SplitId::from(0)).await,
            [first, ..] => match forms(first) {
                [] => self.sql(sql).await,
                forms => Err(StageError(format!(
                    "no statement of scripts: {sql}; write {}",
                    forms.join(", or ")
                ))),
            },
            [] => self.sql(sql).await,
        }
    }

    /// A split that has no rows and never had any is none.
    fn check_split(&self, source: &str, split: &SplitId) -> Result<(), StageError> {
        let status = self.known(source)?;
        let bounds = self.topics.of(source).source().discover().map_err(StageError::of)?;
        let mut splits: BTreeSet<SplitId> = bounds.into_iter().map(|bounds| bounds.split).collect();
        splits.extend(status.splits.into_iter().map(|status| status.split));
        let waiting = self.inbox().waiting.get(source).cloned().unwrap_or_default();
        splits.extend(waiting.into_iter().map(|(split, _)| split));
        if splits.contains(split) {
            return Ok(());
        }
        let names: Vec<&str> = splits.iter().map(SplitId::as_str).collect();
        Err(StageError(match names.as_slice() {
            [] => format!("{source} has no split yet: write NEW SPLIT {source} {split} before"),
            some => format!(
                "{source} has no split {split}: it has {}; write NEW SPLIT {source} {split} before",
                some.join(", ")
            ),
        }))
    }

    fn check_watermark(&self, source: &str, time: EventTime) -> Result<(), StageError> {
        let watermark = self.known(source)?.watermark;
        if Watermark(time.0) < watermark {
            return Err(StageError(format!(
                "the watermark of {source} is at {watermark} already, and never goes back to {time}"
            )));
        }
        Ok(())
    }

    async fn insert(&self, sql: &str, split: SplitId) -> Result<DBOutput<DefaultColumnType>, StageError> {
        self.inbox().split = split;
        let inserted = self.sql(sql).await;
        let (turn, rest, inserted_rows) = {
            let mut inbox = self.inbox();
            if inserted.is_err() {
                inbox.inserted = None;
            }
            (
                std::mem::take(&mut inbox.turn),
                std::mem::take(&mut inbox.rest),
                inbox.inserted.clone(),
            )
        };
        let inserted = inserted?;
        if let (
            Some(first),
            Some(Inserted {
                source, split, rows, ..
            }),
        ) = (rest.first(), inserted_rows)
        {
            let rest = concat_batches(&first.schema(), &rest).map_err(StageError::of)?;
            let begin = rows - rest.num_rows();
            let part = |from: usize, to: usize| rest.slice(from - begin, to - from);
            let end = turn.wait.unwrap_or(rows).min(rows);
            let cuts = turn.cuts.iter().filter(|(row, _)| *row < end);
            let ends = turn.cuts.iter().skip(1).map(|(row, _)| *row).chain([end]);
            for ((from, event), to) in cuts.zip(ends) {
                if let Some(event) = event {
                    self.happens(*event)?;
                }
                self.topics.of(&source).append(&split, part(*from, to.min(end)));
                self.step(&source, StepEnd::default())?;
            }
            if end < rows {
                let waiting = part(end, rows);
                self.inbox().waiting.entry(source).or_default().push((split, waiting));
            }
        }
        Ok(inserted)
    }

    /// A record as a broker would hold it; `NULL` is a tombstone.
    fn record(&self, source: &str, split: SplitId, value: &str) -> Result<DBOutput<DefaultColumnType>, StageError> {
        self.known(source)?;
        let topic = self.topics.of(source);
        for (split, rows) in self.inbox().waiting.remove(source).unwrap_or_default() {
            topic.append(&split, rows);
        }
        let bounds = topic.source().discover().map_err(StageError::of)?;
        let end = bounds.iter().find(|bounds| bounds.split == split);
        self.inbox().inserted = Some(Inserted {
            source: source.to_owned(),
            split: split.clone(),
            rows: 1,
            split_is_known: end.is_some(),
        });
        let mut records = RecordsBuilder::default();
        let position = end.map_or(0, |bounds| bounds.end.0);
        records.push(position, None, None, (value != "NULL").then_some(value.as_bytes()));
        topic.append_records(&split, records.finish());
        self.step(source, StepEnd::default())
    }

    async fn sql(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, StageError> {
        let is_query = ["SELECT", "WITH", "SHOW", "DESCRIBE", "EXPLAIN", "VALUES"]
            .iter()
            .any(|word| {
                sql.get(..word.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(word))
            });
        let request = SqlRequest {
            sql: sql.to_owned(),
            timeout: TIMEOUT,
            rows_max: None,
        };
        let answer = self.engine.execute(request).await?;
        let schema = Arc::clone(&answer.schema);
        let batches: Vec<RecordBatch> = answer
            .rows
            .try_collect()
            .await
            .map_err(|error| Problem::of_query(problem_of(error), &answer.query_id))?;
        if !is_query {
            let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            return Ok(DBOutput::StatementComplete(rows));
        }
        Ok(DBOutput::Rows {
            types: types(&schema),
            rows: rows(&batches)?,
        })
    }

    fn set_clock(&self, time: &str) -> Result<DBOutput<DefaultColumnType>, StageError> {
        let (time, now) = (time_of(time)?, self.clock.now());
        if time < now {
            return Err(StageError(format!(
                "the clock stands at {now}, and never goes back to {time}"
            )));
        }
        self.clock.set(time);
        self.clock_is_set.store(true, Ordering::Relaxed);
        self.step_all()
    }

    /// Good rows, bad records, late rows, watermark, idle splits.
    fn status(&self, source: &str) -> Result<DBOutput<DefaultColumnType>, StageError> {
        let status = self.known(source)?;
        let idle: Vec<&str> = status
            .splits
            .iter()
            .filter(|split| split.is_idle)
            .map(|split| split.split.as_str())
            .collect();
        let row = vec![
            status.rows.to_string(),
            status.bad_rows.to_string(),
            status.late_rows.to_string(),
            status.watermark.to_string(),
            if idle.is_empty() { "none".into() } else { idle.join(",") },
        ];
        use DefaultColumnType::{Integer, Text};
        Ok(DBOutput::Rows {
            types: vec![Integer, Integer, Integer, Text, Text],
            rows: vec![row],
        })
    }
}

/// How the statements of scripts that begin with a word are written; none where it is a word of SQL.
fn forms(first: &str) -> &'static [&'static str] {
    match first {
        "SET" => &["SET CLOCK '2024-01-01 00:01:00'"],
        "ADVANCE" => &[
            "ADVANCE WATERMARK source TO '2024-01-01 00:02:00'",
            "ADVANCE CLOCK INTERVAL '10 seconds'",
            "ADVANCE CLOCK TO '2024-01-01 00:01:00'",
        ],
        "CRASH" => &["CRASH AND RESTORE"],
        "CHECKPOINT" => &["CHECKPOINT"],
        "FINISH" => &["FINISH source"],
        "STEP" => &["STEP source"],
        "IDLE" => &["IDLE source 1"],
        "NEW" => &["NEW SPLIT source 1"],
        "STATUS" => &["STATUS source"],
        "RECORD" => &["RECORD source SPLIT 0 {…}"],
        _ => &[],
    }
}

/// The text behind its first words.
fn behind(text: &str, words: usize) -> &str {
    let mut rest = text.trim_start();
    for _ in 0..words {
        rest = rest
            .split_once(char::is_whitespace)
            .map_or("", |(_, rest)| rest.trim_start());
    }
    rest.trim_end()
}

fn time_of(text: &str) -> Result<EventTime, StageError> {
    let text = text.trim_matches('\'');
    let nanos = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text)
        .map_err(|_| StageError(format!("'{text}' is no time; write '2024-01-01 00:01:00'")))?;
    Ok(EventTime(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_behind_words_is_as_it_stands() {
        for (text, words, expected) in [
            ("RECORD t SPLIT 0 {\"a\":  1} ", 4, "{\"a\":  1}"),
            ("SET  CLOCK\n'2024-01-01 00:00:00'", 2, "'2024-01-01 00:00:00'"),
            ("SET CLOCK", 2, ""),
            ("", 1, ""),
        ] {
            assert_eq!(behind(text, words), expected);
        }
    }
}
