//! Publishes the epochs of a view through a sink, on a thread of its own, beside the epochs that run.
//!
//! ```text
//! epochs ─ stage ─▶ queue, bounded: without room no epoch starts ─▶ publish ─▶ published
//!                     sink unreachable, or in doubt: recover, then go on behind its marker
//! ```

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus::IntGauge;

use crate::{
    connector::{Marker, Publisher, Sink, SinkEpoch, SinkError},
    plan::{OpenSink, Registry, SinkDefinition},
    types::{
        Epoch, Error, Result, limits,
        planted::{Bug, has},
    },
    view::Change,
};

use super::{
    Metrics,
    face::{SinkStatus, SourceState},
    host::{Bell, Host, Worker, panic_message, wait_for},
    shared::Shared,
};

const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// One sink of a timeline, as the thread of its epochs sees it.
pub struct Outlet {
    pub definition: Arc<SinkDefinition>,
    desk: Arc<Desk>,
    worker: Option<Box<dyn Worker>>,
}

/// What both threads see.
struct Desk {
    state: Mutex<State>,
    changed: Arc<dyn Bell>,
    staged: IntGauge,
}

struct State {
    queue: VecDeque<SinkEpoch>,
    /// Of the queue and of what is being published.
    epochs: usize,
    bytes: usize,
    /// The last epoch that is published; `None` until the sink was asked.
    published: Option<Epoch>,
    failure: Option<String>,
    is_over: bool,
}

/// Everything that the publishing thread needs.
struct Run {
    name: String,
    state: String,
    sink: Box<dyn Sink>,
    desk: Arc<Desk>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    host: Arc<dyn Host>,
    takes_over: bool,
    /// The threads of outlets of its name that were told to end.
    before: Vec<Box<dyn Worker>>,
    /// What the sink had when it was first asked: replayed rows must come to the same.
    first_marker: Option<Marker>,
}

impl Outlet {
    /// Starts to ask the sink how far it is, once the outlets of its name that were `before` it are at their end.
    pub fn start(
        definition: Arc<SinkDefinition>,
        before: Vec<Box<dyn Worker>>,
        registry: &Registry,
        publisher: Publisher,
        shared: Arc<Shared>,
        metrics: Arc<Metrics>,
        host: Arc<dyn Host>,
    ) -> Result<Self> {
        let spec = registry.sink(&definition.connector);
        let spec = spec.ok_or_else(|| Error::bug("a sink was bound whose connector is not registered"))?;
        let stream = &definition.view.stream;
        let (state, takes_over) = (publisher.state.clone(), publisher.takes_over);
        let sink = (spec.make)(OpenSink {
            source: &definition.view.source,
            publisher,
            schema: Arc::clone(&stream.schema),
            key: &stream.key,
            format: &definition.format,
            options: &definition.connector_options,
            format_options: &definition.format_options,
        })?;
        let desk = Arc::new(Desk {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                epochs: 0,
                bytes: 0,
                published: None,
                failure: None,
                is_over: false,
            }),
            changed: host.bell(),
            staged: metrics.sink_staged_epochs.with_label_values(&[&definition.name]),
        });
        let run = Run {
            name: definition.name.clone(),
            state,
            sink,
            desk: Arc::clone(&desk),
            shared,
            metrics,
            host: Arc::clone(&host),
            takes_over,
            before,
            first_marker: None,
        };
        run.show(SourceState::Starting, None);
        run.desk.staged.set(0);
        let worker = host.spawn(&format!("sink {}", definition.name), Box::new(move || run.whole_life()))?;
        Ok(Self {
            definition,
            desk,
            worker: Some(worker),
        })
    }

    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// The last epoch that is published; `None` until the sink was asked.
    ///
    /// # Errors
    /// Why nothing will be published any more.
    pub fn published(&self) -> Result<Option<Epoch>> {
        let state = self.desk.lock();
        match &state.failure {
            Some(reason) => Err(Error::user(format!(
                "sink `{name}`: {reason}; to go on without it, drop it (DROP SINK {name}, or --forget {name} at a start) or take it out of its \
                 file, and start again",
                name = self.name()
            ))),
            None => Ok(state.published),
        }
    }

    /// Whether another epoch may be staged.
    pub fn has_room(&self) -> bool {
        let state = self.desk.lock();
        state.epochs < limits::SINK_EPOCHS_STAGED_MAX && state.bytes < limits::SINK_BYTES_STAGED_MAX
    }

    /// Whether everything that was staged is published.
    pub fn is_drained(&self) -> bool {
        let state = self.desk.lock();
        state.epochs == 0 && state.published.is_some()
    }

    /// What a committed epoch did to the view.
    pub fn stage(&self, change: &Change) {
        self.stage_epoch(SinkEpoch {
            epoch: change.epoch,
            added: change.added.clone(),
            removed: change.removed.clone(),
        });
    }

    pub fn stage_epoch(&self, epoch: SinkEpoch) {
        let mut state = self.desk.lock();
        state.epochs += 1;
        state.bytes += epoch.bytes();
        state.queue.push_back(epoch);
        self.desk.staged.set(state.epochs as i64);
        self.desk.changed.ring();
    }

    /// Nothing more is published.
    pub fn ask_to_end(&self) {
        self.desk.lock().is_over = true;
        self.desk.changed.ring();
    }

    /// Nothing more is published; the thread that may still be at it.
    pub fn leave(mut self) -> Option<Box<dyn Worker>> {
        self.ask_to_end();
        self.worker.take()
    }

    /// What is under way is not waited for longer than `wait`.
    pub fn end(&mut self, wait: Duration, host: &dyn Host) {
        self.ask_to_end();
        let Some(worker) = self.worker.take() else { return };
        let until = host.elapsed() + wait;
        while !worker.is_finished() && host.elapsed() < until {
            host.sleep(Duration::from_millis(5));
        }
        match worker.is_finished() {
            true => {
                if let Err(reason) = worker.join() {
                    tracing::error!(sink = self.name(), reason, "the thread of a sink ended by a panic");
                }
            }
            // It waits for brokers that do not answer, holds nothing that anyone waits for, and its sink knows what it took.
            false => tracing::warn!(sink = self.name(), "the sink does not answer and is left alone"),
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.ask_to_end();
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// Waits; less long where it is over.
    fn sleep(&self, duration: Duration) {
        wait_for(&*self.changed, duration, || self.is_over().then_some(()));
    }
}

impl Run {
    fn whole_life(mut self) {
        // One that claimed the sink after this one did would fence it for good. It is waited for where this one is over meanwhile, too:
        // who comes then waits for this one alone.
        for worker in self.before.drain(..) {
            if let Err(reason) = worker.join() {
                tracing::error!(sink = self.name, reason, "the thread of a sink ended by a panic");
            }
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| self.publish_all()));
        let reason = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(reason)) => reason,
            Err(panic) => format!("internal error: {}; please report it", panic_message(&*panic)),
        };
        if self.desk.is_over() {
            // Another one may publish by this name already, and it fenced this one.
            tracing::debug!(sink = self.name, reason, "sink ended");
            return;
        }
        tracing::error!(sink = self.name, reason, "sink stopped");
        self.show(SourceState::Failed, Some(reason.clone()));
        self.desk.lock().failure = Some(reason);
        self.desk.changed.ring();
    }

    fn publish_all(&mut self) -> Result<(), String> {
        let Some(marker) = self.recover()? else { return Ok(()) };
        let mut published = self.ours(&marker)?;
        self.first_marker = marker.filter(|marker| marker.state == self.state);
        self.note_published(published);
        self.show(SourceState::Running, None);
        while let Some(mut epochs) = self.next() {
            let (count, bytes) = (epochs.len(), epochs.iter().map(SinkEpoch::bytes).sum::<usize>());
            self.compare_with_first_marker(&epochs)?;
            epochs.retain(|epoch| published < epoch.epoch);
            while let Some(last) = epochs.last() {
                let last = last.epoch;
                match self.sink.publish(&epochs) {
                    Ok(()) => {
                        self.count(&epochs);
                        published = last;
                        break;
                    }
                    Err(SinkError::Failed(reason)) => return Err(reason),
                    Err(SinkError::Fenced(reason)) if has(Bug::FenceIsFinal) => return Err(reason),
                    Err(error @ (SinkError::Unreachable(_) | SinkError::Fenced(_))) => {
                        tracing::warn!(
                            sink = self.name,
                            epoch = last.0,
                            reason = error.to_string(),
                            "not published, asking the sink what it took"
                        );
                        if matches!(error, SinkError::Fenced(_)) {
                            // Who fenced it needs a moment to say so.
                            self.desk.sleep(limits::SINK_CLAIM_WAIT);
                        }
                        self.metrics
                            .sink_recoveries_total
                            .with_label_values(&[&self.name])
                            .inc();
                        let Some(marker) = self.recover()? else { return Ok(()) };
                        let before = published;
                        published = self.ours(&marker)?;
                        if published < before || last < published {
                            return Err(format!(
                                "it has epoch {published}, where epochs {before} to {last} were being published: does another zeta with a copy \
                                 of this state write to it, or was its marker topic changed?"
                            ));
                        }
                        self.show(SourceState::Running, None);
                        let (done, rest): (Vec<_>, Vec<_>) =
                            epochs.into_iter().partition(|epoch| epoch.epoch <= published);
                        self.count(&done);
                        epochs = rest;
                    }
                }
            }
            self.done(count, bytes, published);
        }
        Ok(())
    }

    /// Asks until there is an answer; `None` where it is over meanwhile.
    fn recover(&mut self) -> Result<Option<Option<Marker>>, String> {
        let mut backoff = BACKOFF_FIRST;
        let mut since = None;
        while !self.desk.is_over() {
            match self.sink.recover() {
                Ok(marker) => return Ok(Some(marker)),
                Err(SinkError::Failed(reason) | SinkError::Fenced(reason)) => return Err(reason),
                Err(SinkError::Unreachable(reason)) => {
                    let since = *since.get_or_insert_with(|| self.host.now());
                    tracing::warn!(
                        sink = self.name,
                        reason,
                        retry_ms = backoff.as_millis() as u64,
                        "sink unreachable"
                    );
                    let reason = format!("unreachable since {since}: {reason}; trying again");
                    self.show(SourceState::Unreachable, Some(reason));
                    self.desk.sleep(backoff);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
        Ok(None)
    }

    /// The last published epoch of this state.
    fn ours(&self, marker: &Option<Marker>) -> Result<Epoch, String> {
        match marker {
            None => Ok(Epoch(0)),
            Some(marker) if marker.state == self.state => Ok(marker.epoch),
            Some(_) if self.takes_over => Ok(Epoch(0)),
            Some(marker) => Err(format!(
                "epoch {} of another state is published there: this state would publish its rows a second time; put that state back, \
                 choose another topic and `transactional_id`, or start over with --reset, which publishes all rows anew",
                marker.epoch
            )),
        }
    }

    /// A replay of what is published must come to the same records: else they were computed by other rules, or are of other rows.
    fn compare_with_first_marker(&mut self, epochs: &[SinkEpoch]) -> Result<(), String> {
        let Some(marker) = &self.first_marker else {
            return Ok(());
        };
        let Some(epoch) = epochs.iter().find(|epoch| epoch.epoch == marker.epoch) else {
            return Ok(());
        };
        let digest = self.sink.digest(epoch).map_err(|error| error.to_string())?;
        if digest != (marker.records, marker.hash) {
            return Err(format!(
                "epoch {} was published with {} records, and computed again it has {} or others: what follows would not fit to it; \
                 start over with --reset, which publishes all rows anew",
                marker.epoch, marker.records, digest.0
            ));
        }
        self.first_marker = None;
        Ok(())
    }

    /// The next epochs to publish together; `None` where it is over.
    fn next(&self) -> Option<Vec<SinkEpoch>> {
        let is_due = || {
            let state = self.desk.lock();
            (state.is_over || !state.queue.is_empty()).then_some(())
        };
        wait_for(&*self.desk.changed, Duration::MAX, is_due);
        let mut state = self.desk.lock();
        if state.is_over {
            return None;
        }
        let (mut epochs, mut rows) = (Vec::new(), 0);
        while let Some(next) = state.queue.front() {
            if !epochs.is_empty() && limits::SINK_TRANSACTION_ROWS < rows + next.rows() {
                break;
            }
            rows += next.rows();
            epochs.extend(state.queue.pop_front());
        }
        Some(epochs)
    }

    fn count(&self, epochs: &[SinkEpoch]) {
        let rows: usize = epochs.iter().map(SinkEpoch::rows).sum();
        let counted = self.metrics.sink_rows_total.with_label_values(&[&self.name]);
        counted.inc_by(rows as u64);
    }

    fn done(&self, epochs: usize, bytes: usize, published: Epoch) {
        {
            let mut state = self.desk.lock();
            state.epochs -= epochs;
            state.bytes -= bytes;
            self.desk.staged.set(state.epochs as i64);
        }
        self.note_published(published);
    }

    fn note_published(&self, published: Epoch) {
        self.desk.lock().published = Some(published);
        self.desk.changed.ring();
        let metric = self.metrics.sink_published_epoch.with_label_values(&[&self.name]);
        metric.set(published.0 as i64);
        let mut sinks = self.shared.sinks.lock().expect("nobody panics while holding it");
        if let Some(status) = sinks.get_mut(&self.name) {
            status.published = published;
        }
    }

    fn show(&self, state: SourceState, reason: Option<String>) {
        if self.desk.is_over() {
            // Another one may have its name by now.
            return;
        }
        let published = self.desk.lock().published.unwrap_or_default();
        let mut sinks = self.shared.sinks.lock().expect("nobody panics while holding it");
        sinks.insert(
            self.name.clone(),
            SinkStatus {
                state,
                reason,
                published,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::runtime::{clock::SystemClock, host::SystemHost};

    /// Notes when it is asked.
    struct Noting(Arc<Mutex<Vec<&'static str>>>);

    impl Sink for Noting {
        fn recover(&mut self) -> Result<Option<Marker>, SinkError> {
            self.0.lock().unwrap().push("the one behind it is asked");
            Ok(None)
        }

        fn publish(&mut self, _: &[SinkEpoch]) -> Result<(), SinkError> {
            Ok(())
        }

        fn digest(&mut self, _: &SinkEpoch) -> Result<(u64, u64), SinkError> {
            Ok((0, 0))
        }
    }

    #[test]
    fn a_sink_is_asked_once_the_one_of_its_name_before_it_is_at_its_end() {
        let host: Arc<dyn Host> = Arc::new(SystemHost(Arc::new(SystemClock::default())));
        let events = Arc::new(Mutex::new(Vec::new()));
        let gate = host.bell();
        let (waiting, noted) = (Arc::clone(&gate), Arc::clone(&events));
        let ends = move || {
            waiting.wait(0, Duration::MAX);
            noted.lock().unwrap().push("the one before ends");
        };
        let before = host.spawn("before", Box::new(ends)).unwrap();
        let metrics = Arc::new(Metrics::default());
        let desk = Arc::new(Desk {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                epochs: 0,
                bytes: 0,
                published: None,
                failure: None,
                is_over: false,
            }),
            changed: host.bell(),
            staged: metrics.sink_staged_epochs.with_label_values(&["s"]),
        });
        let run = Run {
            name: "s".to_owned(),
            state: "a".to_owned(),
            sink: Box::new(Noting(Arc::clone(&events))),
            desk: Arc::clone(&desk),
            shared: Arc::new(Shared::new("source", "none", 1, BTreeMap::new())),
            metrics,
            host: Arc::clone(&host),
            takes_over: false,
            before: vec![before],
            first_marker: None,
        };
        let worker = host.spawn("behind", Box::new(move || run.whole_life())).unwrap();
        gate.ring();
        let published = wait_for(&*desk.changed, Duration::from_secs(60), || desk.lock().published);
        assert_eq!(published, Some(Epoch(0)));
        desk.lock().is_over = true;
        desk.changed.ring();
        worker.join().unwrap();
        assert_eq!(
            *events.lock().unwrap(),
            ["the one before ends", "the one behind it is asked"]
        );
    }
}
