//! The thread that reads ahead: it polls a source, decodes what came, and hands it to the epochs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    connector::{LostRows, Source, SourceError},
    types::{Error, Position, SplitId, limits},
};

use super::{
    host::Host,
    intake::{Intake, SplitRows},
    read_ahead::Ahead,
    shared::Shared,
};

/// Bytes of records taken from a source at once.
pub const POLL_BYTES: usize = 16 << 20;
/// How long the threads of a source sleep at most before they look whether they should stop.
pub const TICK: Duration = Duration::from_millis(50);

/// What a reader tells the epochs.
pub enum Event {
    /// And how long it took to decode them.
    Rows(SplitRows, Duration),
    /// Rows of these splits may follow, each from its position on.
    NewSplits(BTreeMap<SplitId, Position>),
    /// An option lets these be left out; the rows behind them follow.
    Lost(LostRows),
    /// Comes again where the reason changes.
    Unreachable(String),
    Reachable,
    Failed(Error),
    Finished,
}

/// Reads a source until it ends, fails or is told to stop.
pub struct Reader {
    pub source: Box<dyn Source>,
    pub intake: Intake,
    pub ahead: Ahead<Event>,
    pub stop: Arc<AtomicBool>,
    pub shared: Arc<Shared>,
    pub host: Arc<dyn Host>,
}

impl Reader {
    pub fn run(mut self) {
        let mut unreachable: Option<String> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let new_splits = self.source.new_splits();
            if !new_splits.is_empty() && self.ahead.send(Event::NewSplits(new_splits), 0).is_err() {
                return;
            }
            let polled = self.source.poll(limits::CHUNK_ROWS, POLL_BYTES, TICK);
            *self.shared.ends.lock().expect("nobody panics while holding it") = self.source.ends();
            for lost in self.source.lost() {
                if self.ahead.send(Event::Lost(lost), 0).is_err() {
                    return;
                }
            }
            let events = match polled {
                Ok(chunks) => {
                    let mut events: Vec<Event> = Vec::new();
                    if unreachable.take().is_some() {
                        events.push(Event::Reachable);
                    }
                    for chunk in chunks {
                        let began = self.host.elapsed();
                        events.push(match self.intake.take(chunk) {
                            Ok(rows) => Event::Rows(rows, self.host.elapsed().saturating_sub(began)),
                            Err(error) => Event::Failed(error),
                        });
                    }
                    if self.source.is_finished() {
                        events.push(Event::Finished);
                    }
                    events
                }
                Err(SourceError::Unreachable(reason)) => match unreachable.replace(reason.clone()) {
                    Some(before) if before == reason => Vec::new(),
                    _ => vec![Event::Unreachable(reason)],
                },
                Err(SourceError::Failed(reason)) => vec![Event::Failed(Error::user(reason))],
            };
            for event in events {
                let bytes = match &event {
                    Event::Rows(rows, _) => rows.memory_bytes(),
                    _ => 0,
                };
                let is_over = matches!(event, Event::Finished | Event::Failed(_));
                if self.ahead.send(event, bytes).is_err() || is_over {
                    return;
                }
            }
        }
    }
}
