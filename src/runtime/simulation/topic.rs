//! A topic that grows, and a source that reads it over a connection that fails.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::scheduler::Scheduler;
use crate::{
    connector::{Source, SourceError, SplitBounds},
    types::{Anchor, Anchors, Chunk, Payload, Position, RecordsBuilder, SplitId},
};

#[derive(Default)]
struct Contents {
    /// The records of each partition.
    partitions: Vec<Vec<String>>,
    is_down: bool,
    /// How likely a call fails.
    fails: f64,
}

#[derive(Clone)]
pub struct Topic {
    scheduler: Scheduler,
    contents: Arc<Mutex<Contents>>,
    /// Where reading from nothing starts: at what is there, or behind it.
    pub is_from_latest: bool,
}

impl Topic {
    pub fn new(scheduler: &Scheduler, partitions: usize, is_from_latest: bool) -> Self {
        let contents = Contents {
            partitions: vec![Vec::new(); partitions],
            ..Contents::default()
        };
        Self {
            scheduler: scheduler.clone(),
            contents: Arc::new(Mutex::new(contents)),
            is_from_latest,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn partitions(&self) -> usize {
        self.lock().partitions.len()
    }

    pub fn add_partition(&self) {
        self.lock().partitions.push(Vec::new());
    }

    pub fn append(&self, partition: usize, record: String) {
        self.lock().partitions[partition].push(record);
    }

    pub fn set_faults(&self, fails: f64, is_down: bool) {
        let mut contents = self.lock();
        (contents.fails, contents.is_down) = (fails, is_down);
    }

    pub fn source(&self) -> Box<dyn Source> {
        Box::new(SimulatedSource {
            topic: self.clone(),
            known: 0,
            positions: BTreeMap::new(),
        })
    }

    /// A call takes a moment and may find nobody.
    fn call(&self, what: &str) -> Result<(), SourceError> {
        self.scheduler.sleep(self.scheduler.delay(Duration::from_millis(30)));
        self.scheduler.note(|| format!("source {what}"));
        let (fails, is_down) = {
            let contents = self.lock();
            (contents.fails, contents.is_down)
        };
        match is_down || self.scheduler.chance(fails) {
            true => Err(SourceError::Unreachable("the simulated brokers do not answer".into())),
            false => Ok(()),
        }
    }
}

struct SimulatedSource {
    topic: Topic,
    /// Partitions that were told.
    known: usize,
    positions: BTreeMap<SplitId, Position>,
}

fn split(partition: usize) -> SplitId {
    SplitId::from(partition as i32)
}

impl Source for SimulatedSource {
    fn discover(&mut self) -> Result<Vec<SplitBounds>, SourceError> {
        self.topic.call("discovers")?;
        let contents = self.topic.lock();
        self.known = contents.partitions.len();
        let bounds = contents.partitions.iter().enumerate().map(|(partition, records)| {
            let end = Position(records.len() as u64);
            SplitBounds {
                split: split(partition),
                first: Position(0),
                start: if self.topic.is_from_latest { end } else { Position(0) },
                end,
            }
        });
        Ok(bounds.collect())
    }

    fn recognise(&mut self, read: &Anchors) -> Result<Option<String>, SourceError> {
        self.topic.call("is recognised")?;
        let contents = self.topic.lock();
        let is_there = |(split_read, anchor): (&SplitId, &Anchor)| {
            let place = anchor.position.0 as usize;
            let mut partitions = contents.partitions.iter().enumerate();
            let records = partitions.find(|(partition, _)| split(*partition) == *split_read);
            records
                .and_then(|(_, records)| records.get(place))
                .is_some_and(|record| Anchor::of(anchor.position.0, None, Some(record.as_bytes())) == *anchor)
        };
        match read.records.iter().all(is_there) {
            true => Ok(Some("simulated".into())),
            false => Err(SourceError::Failed("what was read is not what is there".into())),
        }
    }

    fn seek(&mut self, positions: &BTreeMap<SplitId, Position>) -> Result<(), SourceError> {
        self.topic.call("seeks")?;
        self.positions.clone_from(positions);
        Ok(())
    }

    fn new_splits(&mut self) -> BTreeMap<SplitId, Position> {
        let partitions = self.topic.partitions();
        let new: BTreeMap<_, _> = (self.known..partitions)
            .map(|partition| (split(partition), Position(0)))
            .collect();
        self.known = partitions;
        self.positions.extend(new.clone());
        new
    }

    fn poll(&mut self, rows_max: usize, _bytes_max: usize, wait: Duration) -> Result<Vec<Chunk>, SourceError> {
        self.topic.call("polls")?;
        let mut chunks = Vec::new();
        {
            let contents = self.topic.lock();
            for (partition, records) in contents.partitions.iter().enumerate() {
                let Some(position) = self.positions.get_mut(&split(partition)) else {
                    continue;
                };
                let from = position.0 as usize;
                let left = records.len() - from;
                // Some partitions answer with little, and some not at all.
                let count = (self.topic.scheduler.draw(2 * left as u64 + 1) as usize)
                    .min(left)
                    .min(rows_max);
                if count == 0 {
                    continue;
                }
                let mut builder = RecordsBuilder::default();
                for (index, record) in records.iter().enumerate().skip(from).take(count) {
                    builder.push(index as u64, None, None, Some(record.as_bytes()));
                }
                *position = Position((from + count) as u64);
                chunks.push(Chunk {
                    split: split(partition),
                    from: Position(from as u64),
                    to: *position,
                    payload: Payload::Records(builder.finish()),
                });
            }
        }
        if chunks.is_empty() {
            self.topic.scheduler.sleep(wait);
        }
        Ok(chunks)
    }

    fn ends(&self) -> BTreeMap<SplitId, Position> {
        let contents = self.topic.lock();
        let ends = contents.partitions.iter().enumerate();
        ends.map(|(partition, records)| (split(partition), Position(records.len() as u64)))
            .collect()
    }

    fn is_finished(&self) -> bool {
        false
    }
}
