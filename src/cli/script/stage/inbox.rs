//! The inbox: what INSERT brings, until it is in its topic.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::array::RecordBatch;

use crate::{
    cli::{
        assemble, check,
        script::{shape::Inserted, variation::Turn},
    },
    connector::Source,
    plan::Registry,
    runtime::query_environment,
    types::{Position, SplitId},
};

/// What becomes of the rows of the statement that runs.
pub struct Inbox {
    pub split: SplitId,
    pub turn: Turn,
    pub inserted: Option<Inserted>,
    /// Rows of the statement that are behind its first epoch.
    pub rest: Vec<RecordBatch>,
    /// Rows of earlier statements that run with the next ones, by source, in the order of their statements.
    pub waiting: BTreeMap<String, Vec<(SplitId, RecordBatch)>>,
}

impl Inbox {
    /// Rows that the engine gives out: into the topic up to the first cut.
    fn take(&mut self, topics: &assemble::MemoryTopics, source: &str, rows: RecordBatch) -> (SplitId, Position) {
        let topic = topics.of(source);
        for (split, rows) in self.waiting.remove(source).unwrap_or_default() {
            topic.append(&split, rows);
        }
        let inserted = self.inserted.get_or_insert_with(|| {
            let bounds = topic.source().discover().unwrap_or_default();
            Inserted {
                source: source.to_owned(),
                split: self.split.clone(),
                rows: 0,
                split_is_known: bounds.iter().any(|bounds| bounds.split == self.split),
            }
        });
        let first_cut = self.turn.cuts.first().map(|(row, _)| *row);
        let end = first_cut.or(self.turn.wait).unwrap_or(usize::MAX);
        let now = end.saturating_sub(inserted.rows).min(rows.num_rows());
        inserted.rows += rows.num_rows();
        let end = topic.append(&self.split, rows.slice(0, now));
        if now < rows.num_rows() {
            self.rest.push(rows.slice(now, rows.num_rows() - now));
        }
        (self.split.clone(), end)
    }
}

/// What the binary can read, all of it from topics in memory that INSERT fills.
pub fn registry(topics: &assemble::MemoryTopics, inbox: &Arc<Mutex<Inbox>>) -> Registry {
    let mut registry = assemble::registry(topics.clone(), query_environment());
    for connector in &mut registry.connectors {
        let topics = topics.clone();
        connector.make = Arc::new(move |source, _| Ok(Box::new(topics.of(source).source())));
        connector.takes_rows = true;
    }
    let (topics, inbox) = (topics.clone(), Arc::clone(inbox));
    registry.insert = Arc::new(move |source, rows| {
        let mut inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(inbox.take(&topics, source, rows))
    });
    let open = Arc::clone(&registry.open_external);
    registry.open_external = Arc::new(move |table| {
        // A pipeline is tested where its history may not be: then queries over that say so.
        let (on_trust, is_remote) = (check::on_trust(&table), table.location.starts_with("hdfs://"));
        let opened = (!is_remote).then(|| open(table));
        Box::pin(async move {
            match opened {
                Some(opened) => Ok(opened.await.unwrap_or(on_trust)),
                None => Ok(on_trust),
            }
        })
    });
    registry
}
