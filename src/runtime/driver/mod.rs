//! Drives a timeline on a live source: one thread reads and decodes (`reader.rs`), this one runs epochs.
//!
//! ```text
//! reader: poll ─▶ decode ─▶ read_ahead ─▶ epochs: gather ─▶ plan ─▶ run ─▶ commit ─▶ publish ─▶ checkpoint
//! ```
//! Backpressure is one rule: the next epoch does not start, what was read ahead fills its room, the reader waits.

mod checkpointing;
mod held;
mod publishing;
mod recovery;
mod timing;

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    connector::{LostRows, SourceError},
    plan::{MakeSource, Registry, SinkDefinition, Trigger},
    types::{
        Epoch, EpochPlan, Error, EventTime, PlannedRange, Position, Result, SplitId, limits,
        planted::{Bug, has},
    },
};

use super::{
    face::SourceState,
    gathered::{Gathered, ranges},
    host::{Host, Worker, panic_message},
    intake::{Intake, SplitRows},
    outlets::Outlets,
    read_ahead::{Nothing, Waiting, read_ahead},
    reader::{Event, Reader, TICK},
    silence::Silence,
    timeline::Timeline,
    view_change::{Command, ViewChange},
};
use checkpointing::WrittenCheckpoint;

/// Chunks between the reader and the epochs.
const CHUNKS_AHEAD: usize = limits::READ_AHEAD_ROWS / limits::CHUNK_ROWS;
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A running timeline.
pub struct Driver {
    stop: Arc<AtomicBool>,
    commands: mpsc::Sender<Command>,
    worker: Option<Box<dyn Worker>>,
}

impl Driver {
    /// `resets_sinks`: what another state published through them does not count. Where there is no thread for it, it is shown as failed.
    pub fn start(
        timeline: Timeline,
        make: MakeSource,
        sinks: Vec<Arc<SinkDefinition>>,
        resets_sinks: bool,
        registry: Registry,
        host: Arc<dyn Host>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (commands, waiting) = mpsc::channel();
        let name = format!("epochs {}", timeline.source().name);
        let stopping = Arc::clone(&stop);
        let run = Run {
            timeline,
            make,
            registry,
            silence: Silence::new(host.elapsed()),
            host: Arc::clone(&host),
            unreachable_since: None,
            stop: stopping,
            commands: waiting,
            waiting: VecDeque::new(),
            checkpoint: None,
            checkpoint_failure: None,
            sinks_begin_from: Duration::ZERO,
            outlets: Outlets::default(),
            sinks,
            resets_sinks,
            failures: 0,
            failed_at: Epoch(0),
            passed_over: BTreeMap::new(),
            effort: Duration::ZERO,
        };
        let shared = Arc::clone(run.timeline.shared());
        let worker = host.spawn(&name, Box::new(move || run.until_it_stops()));
        let worker = worker
            .inspect_err(|error| {
                tracing::error!(source = shared.source, %error, "source not started");
                shared.set_state(SourceState::Failed, Some(error.to_string()));
            })
            .ok();
        Self { stop, commands, worker }
    }

    /// Asks it to add or remove a view between two epochs. The answer is gone where the timeline does not run any more. Who drops it is not
    /// waited for: nothing is added then, and what is to be removed goes all the same.
    pub fn change_views(&self, change: ViewChange) -> oneshot::Receiver<Result<()>> {
        let (done, answer) = oneshot::channel();
        // A thread that has ended answers nothing.
        drop(self.commands.send(Command { change, done }));
        answer
    }

    /// Asks it to finish its epoch and take a checkpoint.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until it has.
    pub fn join(&mut self) {
        if let Some(worker) = self.worker.take()
            && let Err(reason) = worker.join()
        {
            tracing::error!(reason, "the thread of a source ended by a panic");
        }
    }
}

struct Run {
    timeline: Timeline,
    make: MakeSource,
    registry: Registry,
    host: Arc<dyn Host>,
    silence: Silence,
    /// The source does not answer, so that it is silent says nothing.
    unreachable_since: Option<EventTime>,
    stop: Arc<AtomicBool>,
    commands: mpsc::Receiver<Command>,
    /// Views to come, while the source does not answer yet.
    waiting: VecDeque<Command>,
    checkpoint: Option<WrittenCheckpoint>,
    /// Why the last one that was waited for was not written.
    checkpoint_failure: Option<String>,
    /// Sinks that are new begin from this time on: each needs a checkpoint, and the last try for one has failed.
    sinks_begin_from: Duration,
    outlets: Outlets,
    sinks: Vec<Arc<SinkDefinition>>,
    resets_sinks: bool,
    /// Failures in a row, and the epoch that was committed when the last of them came.
    failures: u32,
    failed_at: Epoch,
    /// Rows that the source did not have any more, until the plan of those behind them says it.
    passed_over: BTreeMap<SplitId, Vec<PlannedRange>>,
    /// Time that decoding and computing took since the last checkpoint, about: a restart takes it again.
    effort: Duration,
}

/// Ends the reading of one life, also where that ends by a panic.
struct Reading(Arc<AtomicBool>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Run {
    fn until_it_stops(mut self) {
        let shared = Arc::clone(self.timeline.shared());
        let source = self.timeline.source().name.clone();
        let reason = loop {
            let (reason, may_pass) = match catch_unwind(AssertUnwindSafe(|| self.whole_life())) {
                Ok(Ok(())) => {
                    // Nobody writes below what may be removed next.
                    self.wait_for_checkpoint();
                    return;
                }
                // What is wrong with what was asked for does not pass.
                Ok(Err(error)) => (
                    error.to_string(),
                    matches!(error, Error::Bug(_) | Error::External { .. } | Error::Overtaken(_)),
                ),
                Err(panic) => {
                    let message = panic_message(&*panic);
                    (format!("internal error: {message}; please report it"), true)
                }
            };
            let again = catch_unwind(AssertUnwindSafe(|| self.begin_again(&reason, may_pass)));
            match again.unwrap_or_else(|panic| Err(Error::bug(panic_message(&*panic)))) {
                Ok(true) => {}
                Ok(false) => break reason,
                Err(error) => break format!("{reason}; and it cannot begin again: {error}"),
            }
        };
        self.wait_for_checkpoint();
        tracing::error!(source, reason, "source stopped");
        shared.set_state(SourceState::Failed, Some(reason));
    }

    fn whole_life(&mut self) -> Result<()> {
        let definition = Arc::clone(self.timeline.source());
        let mut source = (self.make)(&definition.name, &definition.connector_options)?;
        let mut intake = Intake::new(&definition, self.timeline.needed(), &self.registry)?;
        self.timeline.publish_state();
        let Some(bounds) = self.patiently(|| source.discover())? else {
            return Ok(());
        };
        // Who waited for long may have lost the state, and would fence the sinks of who has it.
        if self.until_answered(|timeline| timeline.check_claim())?.is_none() {
            return Ok(());
        }
        for sink in self.sinks.clone() {
            self.start_sink(sink)?;
        }
        if !self.stand_where_sinks_do()? {
            return Ok(());
        }
        let read = self.timeline.committed_anchors();
        let Some(identity) = self.patiently(|| source.recognise(&read))? else {
            return Ok(());
        };
        self.timeline.recognised(identity);
        let new_splits = self.new_splits(&bounds)?;
        self.replay(&mut *source, &mut intake)?;
        if self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        for (sink, published) in self.outlets.published_of(self.timeline.sinks())?.unwrap_or_default() {
            self.check_journal(&sink, published)?;
        }
        if !self.rebuild(&mut *source, &mut intake, &bounds)? {
            return Ok(());
        }
        let mut positions = self.timeline.positions().clone();
        positions.extend(new_splits.clone());
        if self.patiently(|| source.seek(&positions))?.is_none() {
            return Ok(());
        }
        *self
            .timeline
            .shared()
            .ends
            .lock()
            .expect("nobody panics while holding it") =
            bounds.iter().map(|bounds| (bounds.split.clone(), bounds.end)).collect();
        self.timeline.shared().set_state(SourceState::Running, None);
        tracing::info!(
            source = definition.name,
            epoch = self.timeline.epoch().0,
            splits = positions.len(),
            "source running"
        );

        let (ahead, events) = read_ahead(CHUNKS_AHEAD, self.timeline.bounds().read_ahead_bytes, &*self.host);
        let reading = Reading(Arc::new(AtomicBool::new(false)));
        let reader = Reader {
            source,
            intake,
            ahead,
            stop: Arc::clone(&reading.0),
            shared: Arc::clone(self.timeline.shared()),
            host: Arc::clone(&self.host),
        };
        let reader = (self.host).spawn(&format!("reader {}", definition.name), Box::new(move || reader.run()))?;
        let outcome = self.epochs(&events, new_splits);
        // The reader may wait for room: nobody takes anything any more.
        drop(reading);
        drop(events);
        match reader.join() {
            Err(panic) if outcome.is_ok() => Err(Error::bug(panic)),
            _ => outcome,
        }
    }

    /// After a failure that may pass: goes back to the last commit and waits a little; `false` where it has failed too often, or nothing is kept.
    fn begin_again(&mut self, reason: &str, may_pass: bool) -> Result<bool> {
        let committed = self.timeline.committed();
        if self.failed_at.0 + limits::RESTART_EPOCHS < committed.0 {
            self.failures = 0;
        }
        (self.failures, self.failed_at) = (self.failures + 1, committed);
        let is_over = self.stop.load(Ordering::Relaxed) || limits::RESTARTS_MAX < self.failures;
        if !may_pass || is_over || !self.timeline.is_durable() {
            return Ok(false);
        }
        let source = &self.timeline.source().name;
        let metrics = self.timeline.metrics();
        metrics.source_restarts_total.with_label_values(&[source]).inc();
        let (failures, max) = (self.failures, limits::RESTARTS_MAX);
        tracing::error!(
            source,
            reason,
            failures,
            "source failed, it begins again from its last commit"
        );
        let shown = format!("{reason}; beginning again from the last commit, attempt {failures} of {max}");
        self.timeline.shared().set_state(SourceState::Unreachable, Some(shown));
        self.sleep(BACKOFF_FIRST * 4u32.pow(failures - 1));
        self.outlets.let_go(|_| true);
        self.wait_for_checkpoint();
        self.unreachable_since = None;
        self.passed_over.clear();
        let begun = self.until_answered(Timeline::begin_again)?;
        Ok(begun.is_some())
    }

    /// Asks the state until whatever it lies on answers; `None` when the engine stops meanwhile.
    fn until_answered<T>(&mut self, mut ask: impl FnMut(&mut Timeline) -> Result<T>) -> Result<Option<T>> {
        let mut backoff = BACKOFF_FIRST;
        while !self.stop.load(Ordering::Relaxed) {
            match ask(&mut self.timeline) {
                Err(error @ Error::External { .. }) => {
                    tracing::warn!(source = self.timeline.source().name, %error, "state unreachable");
                    let reason = format!("{error}; trying again");
                    self.timeline.shared().set_state(SourceState::Unreachable, Some(reason));
                    self.sleep(backoff);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                answer => return answer.map(Some),
            }
        }
        Ok(None)
    }

    /// Calls the world until it answers; `None` when the engine stops meanwhile.
    fn patiently<T>(&mut self, mut call: impl FnMut() -> Result<T, SourceError>) -> Result<Option<T>> {
        let mut backoff = BACKOFF_FIRST;
        let mut since = None;
        while !self.stop.load(Ordering::Relaxed) {
            match call() {
                Ok(answer) => {
                    if since.is_some() {
                        self.timeline.shared().set_state(SourceState::Starting, None);
                    }
                    return Ok(Some(answer));
                }
                Err(SourceError::Failed(reason)) => return Err(Error::user(reason)),
                Err(SourceError::Unreachable(reason)) => {
                    let since = *since.get_or_insert_with(|| self.host.now());
                    tracing::warn!(
                        source = self.timeline.source().name,
                        reason,
                        retry_ms = backoff.as_millis() as u64,
                        "source unreachable"
                    );
                    let reason = format!("unreachable since {since}: {reason}; trying again");
                    self.timeline.shared().set_state(SourceState::Unreachable, Some(reason));
                    let mut left = backoff;
                    while !left.is_zero() && !self.stop.load(Ordering::Relaxed) {
                        self.let_views_go();
                        let step = TICK.min(left);
                        self.sleep(step);
                        left -= step;
                    }
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
        Ok(None)
    }

    /// Removes views and sinks at once, without an epoch: the state forgets them at the next start. Those to come wait.
    fn let_views_go(&mut self) {
        while let Ok(Command { change, done }) = self.commands.try_recv() {
            match change {
                ViewChange::Remove(name) => {
                    self.timeline.remove_view(&name);
                    self.timeline.publish_state();
                    drop(done.send(Ok(())));
                }
                ViewChange::RemoveSink(name) => {
                    self.remove_sink(&name);
                    drop(done.send(Ok(())));
                }
                ViewChange::Add(_) | ViewChange::AddSink(_) => self.waiting.push_back(Command { change, done }),
            }
        }
    }

    fn sleep(&self, duration: Duration) {
        let mut left = duration;
        while !left.is_zero() && !self.stop.load(Ordering::Relaxed) {
            let step = TICK.min(left);
            self.host.sleep(step);
            left -= step;
        }
    }

    /// The epoch loop, until the engine stops or the source ends.
    fn epochs(&mut self, events: &Waiting<Event>, new_splits: BTreeMap<SplitId, Position>) -> Result<()> {
        let mut gathered = Gathered::new(self.timeline.bounds());
        let mut new_splits = new_splits;
        self.silence_begins();
        let mut last_epoch = self.host.elapsed();
        let mut last_checkpoint = self.host.elapsed();
        let mut due_at = self.next_boundary();
        let mut is_finished = false;
        let mut has_ended = false;
        while !self.stop.load(Ordering::Relaxed) {
            while let Some(command) = self.waiting.pop_front().or_else(|| self.commands.try_recv().ok()) {
                self.obey(command)?;
            }
            if !self.sinks_have_room()? || !self.begin_sinks()? {
                self.sleep(TICK);
                continue;
            }
            if !gathered.is_full() && !has_ended {
                match events.recv_timeout(if gathered.is_empty() {
                    TICK
                } else {
                    self.patience(last_epoch)
                }) {
                    Ok(event) => self.on_event(event, &mut gathered, &mut new_splits, &mut is_finished)?,
                    Err(Nothing::Yet) => {}
                    Err(Nothing::AnyMore) if is_finished => {}
                    Err(Nothing::AnyMore) => return Ok(()),
                }
                while !gathered.is_full() {
                    match events.try_recv() {
                        Ok(event) => self.on_event(event, &mut gathered, &mut new_splits, &mut is_finished)?,
                        Err(_) => break,
                    }
                }
            } else if has_ended {
                self.sleep(TICK);
                continue;
            }
            let now = self.host.now().max(self.timeline.epoch_time());
            let elapsed = self.host.elapsed();
            let idle = self.idle_splits(&gathered, elapsed);
            let is_last = is_finished && gathered.is_empty();
            let rows_are_due = !gathered.is_empty()
                && (gathered.is_full()
                    || is_finished
                    || match self.timeline.source().trigger {
                        Trigger::EachRow => true,
                        Trigger::AtMostEvery(interval) => last_epoch + interval <= elapsed,
                        Trigger::Interval(_) => due_at.is_some_and(|due| due <= now),
                    });
            // Rows may leave one by one, each at a time of its own: an epoch takes those of a while.
            let timer_is_due =
                self.timeline.wakes_at().is_some_and(|at| at <= now) && last_epoch + limits::TIMER_INTERVAL <= elapsed;
            let complete_below = match gathered.is_empty() && !is_last {
                true => self.closes_below(elapsed),
                false => None,
            };
            let idle_changed = gathered.is_empty() && idle != self.timeline.idle_splits_now();
            let time_is_due = timer_is_due || idle_changed || complete_below.is_some();
            if !(rows_are_due || time_is_due || is_last || !new_splits.is_empty()) {
                continue;
            }
            if due_at.is_some_and(|due| due <= now) {
                due_at = self.next_boundary();
            }
            let input = if rows_are_due { gathered.take() } else { Vec::new() };
            let checkpoint_is_due = self.timeline.wants_checkpoint()
                || (self.timeline.is_durable()
                    && (last_checkpoint + self.timeline.bounds().checkpoint_interval <= elapsed
                        || self.would_recover_too_long()));
            let ranges = ranges(&input);
            let plan = EpochPlan {
                number: self.timeline.epoch().next(),
                gaps: self.gaps_in(&ranges),
                ranges,
                anchors: self.timeline.anchors_of(&input),
                epoch_time: now,
                idle_splits: idle,
                new_splits: std::mem::take(&mut new_splits),
                complete_below,
                is_last,
                checkpoint: is_last && self.timeline.is_durable() || checkpoint_is_due && self.checkpoint_is_free(),
            };
            if plan.checkpoint {
                last_checkpoint = elapsed;
            }
            self.run(plan, input)?;
            last_epoch = elapsed;
            if is_last {
                has_ended = true;
                self.timeline.shared().set_state(SourceState::Finished, None);
                tracing::info!(
                    source = self.timeline.source().name,
                    epoch = self.timeline.epoch().0,
                    "source finished"
                );
            }
        }
        self.last_checkpoint()
    }

    /// What was passed over before the rows of these ranges.
    fn gaps_in(&mut self, ranges: &BTreeMap<SplitId, PlannedRange>) -> BTreeMap<SplitId, Vec<PlannedRange>> {
        let mut gaps = BTreeMap::new();
        for (split, range) in ranges {
            if let Some(waiting) = self.passed_over.get_mut(split) {
                let of_range: Vec<PlannedRange> = waiting.extract_if(.., |gap| gap.from < range.to).collect();
                if !of_range.is_empty() {
                    gaps.insert(split.clone(), of_range);
                }
            }
        }
        gaps
    }

    /// Changes the views, and answers once the state knows.
    fn obey(&mut self, Command { change, done }: Command) -> Result<()> {
        if done.is_closed() && !change.is_removal() {
            return Ok(());
        }
        let added = match change {
            ViewChange::Add(definition) => {
                let name = definition.name.clone();
                if let Err(error) = self.timeline.add_view(definition) {
                    drop(done.send(Err(error)));
                    return Ok(());
                }
                Some(name)
            }
            ViewChange::Remove(name) => {
                self.timeline.remove_view(&name);
                None
            }
            ViewChange::AddSink(definition) => {
                let name = definition.name.clone();
                let started = self.start_sink(Arc::clone(&definition));
                if started.is_ok() {
                    self.sinks.push(definition);
                }
                if done.send(started).is_err() {
                    // Nobody waited so long: the catalog has no such sink.
                    self.remove_sink(&name);
                }
                return Ok(());
            }
            ViewChange::RemoveSink(name) => {
                self.remove_sink(&name);
                None
            }
        };
        if let Err(error) = self.run_empty() {
            // Nobody is told that it is there.
            if let Some(name) = added {
                self.timeline.remove_view(&name);
            }
            return Err(error);
        }
        if let (Err(_), Some(name)) = (done.send(Ok(())), added) {
            // Nobody waited so long: the catalog has no such view.
            self.timeline.remove_view(&name);
            self.run_empty()?;
        }
        Ok(())
    }

    /// Returns whether its checkpoint stands.
    fn run_empty(&mut self) -> Result<bool> {
        let plan = self.timeline.empty_plan(self.host.now());
        self.run(plan, Vec::new())?;
        Ok(self.wait_for_checkpoint())
    }

    fn on_event(
        &mut self,
        event: Event,
        gathered: &mut Gathered,
        new_splits: &mut BTreeMap<SplitId, Position>,
        is_finished: &mut bool,
    ) -> Result<()> {
        match event {
            Event::Rows(rows, decoding) => {
                self.effort += decoding;
                gathered.push(rows);
            }
            Event::NewSplits(splits) => new_splits.extend(splits),
            Event::Lost(LostRows { split, from, to }) => {
                let source = &self.timeline.source().name;
                tracing::warn!(
                    source,
                    split = split.as_str(),
                    from = from.0,
                    to = to.0,
                    "rows were gone, and are left out"
                );
                let metrics = self.timeline.metrics();
                let lost = metrics
                    .source_rows_lost_total
                    .with_label_values(&[source, split.as_str()]);
                lost.inc_by(to.0 - from.0);
                let gap = PlannedRange { from, to };
                self.passed_over.entry(split).or_default().push(gap);
            }
            Event::Finished => *is_finished = true,
            Event::Failed(error) => return Err(error),
            Event::Reachable => {
                tracing::info!(source = self.timeline.source().name, "source reachable again");
                self.timeline.shared().set_state(SourceState::Running, None);
                self.unreachable_since = None;
                self.silence_begins();
            }
            Event::Unreachable(reason) => {
                let source = &self.timeline.source().name;
                match self.unreachable_since {
                    None => tracing::warn!(source, reason, "source unreachable"),
                    Some(_) => tracing::debug!(source, reason, "source unreachable"),
                }
                let since = *self.unreachable_since.get_or_insert_with(|| self.host.now());
                let reason = format!("unreachable since {since}: {reason}; trying again");
                self.timeline.shared().set_state(SourceState::Unreachable, Some(reason));
            }
        }
        Ok(())
    }

    fn run(&mut self, plan: EpochPlan, input: Vec<SplitRows>) -> Result<()> {
        let is_checkpoint = plan.checkpoint;
        let began = self.host.elapsed();
        let ran = self.timeline.run(&plan, input)?;
        self.effort += self.host.elapsed().saturating_sub(began);
        if has(Bug::PublishedBeforeCommit) {
            self.stage(&ran);
        }
        self.commit(&ran)?;
        if !has(Bug::PublishedBeforeCommit) {
            self.stage(&ran);
        }
        self.timeline.publish(ran);
        if is_checkpoint {
            self.effort = Duration::ZERO;
            self.write_checkpoint()?;
        }
        Ok(())
    }

    /// Appends the plan to the journal, however long the disk refuses: until then nothing goes on and nothing is shown.
    fn commit(&mut self, ran: &super::timeline::Ran) -> Result<()> {
        let mut backoff = BACKOFF_FIRST;
        // As it was shown before.
        let mut before = None;
        loop {
            match self.timeline.commit(ran) {
                Ok(()) => {
                    if let Some((state, reason)) = before {
                        self.timeline.shared().set_state(state, reason);
                    }
                    return Ok(());
                }
                Err(error) if self.stop.load(Ordering::Relaxed) => return Err(error),
                // The state is another's, has moved on, or is damaged.
                Err(error) if !matches!(error, Error::External { .. }) => return Err(error),
                Err(error) => {
                    tracing::warn!(source = self.timeline.source().name, %error, retry_ms = backoff.as_millis() as u64, "epoch not committed");
                    let reason = format!(
                        "{error}; reading waits, nothing is lost, and it goes on as soon as the state can be written"
                    );
                    before.get_or_insert_with(|| {
                        let status = self.timeline.shared().status();
                        (status.state, status.reason)
                    });
                    self.timeline.shared().set_state(SourceState::Unreachable, Some(reason));
                    self.sleep(backoff);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }
}
