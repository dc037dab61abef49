//! How far time is complete when a row comes, and so which rows are late.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, TimestampNanosecondArray},
    datatypes::{DataType, Field, Schema, TimeUnit},
};

use super::rows::{DISORDER, Row, columns, schema};

/// How far time is complete, told by what was read when: a second reading of the rule, in other words.
pub struct Model<'a> {
    splits: &'a [Vec<Row>],
    read: Vec<usize>,
    complete: Vec<Option<i64>>,
    /// How far all splits are.
    pub combined: Option<i64>,
    /// By split and row: how far its split was when it came.
    met: Vec<Vec<Option<i64>>>,
}

impl<'a> Model<'a> {
    pub fn new(splits: &'a [Vec<Row>]) -> Self {
        Self {
            read: vec![0; splits.len()],
            complete: vec![None; splits.len()],
            combined: None,
            met: vec![Vec::new(); splits.len()],
            splits,
        }
    }

    /// An epoch has read up to `read`, of the rows up to `written`.
    pub fn epoch(&mut self, read: &[usize], written: &[usize], counts_idle: bool) {
        let mut active = Vec::new();
        let mut idle = Vec::new();
        for split in 0..self.splits.len() {
            for row in &self.splits[split][self.read[split]..read[split]] {
                self.met[split].push(self.complete[split]);
                self.complete[split] = self.complete[split].max(Some(row.ts - DISORDER));
            }
            let is_idle = counts_idle && read[split] == self.read[split] && read[split] == written[split];
            if is_idle {
                idle.push(split)
            } else {
                active.push(split)
            }
            self.read[split] = read[split];
        }
        let slowest = active.iter().map(|split| self.complete[*split]).min().flatten();
        self.combined = self.combined.max(slowest);
        for split in idle {
            self.complete[split] = self.complete[split].max(self.combined);
        }
    }

    pub fn rows(&self) -> RecordBatch {
        having_met(&self.splits.concat(), self.met.concat())
    }
}

/// All rows, each with the watermark of the lower positions of its own split.
pub fn with_met(splits: &[Vec<Row>]) -> RecordBatch {
    let mut met = Vec::new();
    for split in splits {
        let mut watermark = None::<i64>;
        for row in split {
            met.push(watermark);
            watermark = watermark.max(Some(row.ts - DISORDER));
        }
    }
    having_met(&splits.concat(), met)
}

pub fn never_late(rows: &[Row]) -> RecordBatch {
    having_met(rows, vec![None; rows.len()])
}

fn having_met(all: &[Row], met: Vec<Option<i64>>) -> RecordBatch {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let fields = schema()
        .fields()
        .iter()
        .cloned()
        .chain([Arc::new(Field::new("met", time, true))])
        .collect::<Vec<_>>();
    let met: ArrayRef = Arc::new(met.into_iter().collect::<TimestampNanosecondArray>());
    let columns = columns(all).into_iter().chain([met]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}
