//! Drives a timeline on a live source: one thread reads and decodes (`reader.rs`), this one runs epochs.
//!
//! ```text
//! reader: poll ─▶ decode ─▶ read_ahead ─▶ epochs: gather ─▶ plan ─▶ run ─▶ commit ─▶ publish ─▶ checkpoint
//! ```
//! Backpressure is one rule: the next epoch does not start, what was read ahead fills its room, the reader waits.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::Duration,
};

use arrow::array::RecordBatch;
use tokio::sync::oneshot;

use crate::{
    connector::{LostRows, SinkEpoch, Source, SourceError, SplitBounds},
    plan::{MakeSource, Registry, SinkDefinition, Trigger},
    types::{Chunk, Epoch, EpochPlan, Error, EventTime, PlannedRange, Position, Result, SplitId, limits},
};

use super::{
    clock::Clock,
    face::SourceState,
    gathered::{Gathered, ranges},
    intake::{Intake, SplitRows},
    outlet::Outlet,
    outlets::{Outlets, SinkProgresses, definition_of},
    read_ahead::{Waiting, read_ahead},
    reader::{Event, POLL_BYTES, Reader, TICK},
    silence::Silence,
    timeline::Timeline,
    view_change::{Command, ViewChange},
};

/// Chunks between the reader and the epochs.
const CHUNKS_AHEAD: usize = limits::READ_AHEAD_ROWS / limits::CHUNK_ROWS;
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A running timeline.
pub struct Driver {
    stop: Arc<AtomicBool>,
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// `resets_sinks`: what another state published through them does not count.
    pub fn start(
        timeline: Timeline,
        make: MakeSource,
        sinks: Vec<Arc<SinkDefinition>>,
        resets_sinks: bool,
        registry: Registry,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (commands, waiting) = mpsc::channel();
        let name = format!("epochs {}", timeline.source().name);
        let stopping = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                let shared = Arc::clone(timeline.shared());
                let source = timeline.source().name.clone();
                let mut run = Run {
                    timeline,
                    make,
                    registry,
                    silence: Silence::new(clock.elapsed()),
                    clock,
                    unreachable_since: None,
                    stop: stopping,
                    commands: waiting,
                    waiting: VecDeque::new(),
                    checkpoint: None,
                    outlets: Outlets::default(),
                    sinks,
                    resets_sinks,
                    failures: 0,
                    failed_at: Epoch(0),
                };
                let reason = loop {
                    let (reason, may_pass) = match catch_unwind(AssertUnwindSafe(|| run.whole_life())) {
                        Ok(Ok(())) => return,
                        // What is wrong with what was asked for does not pass.
                        Ok(Err(error)) => (
                            error.to_string(),
                            matches!(error, Error::Bug(_) | Error::External { .. }),
                        ),
                        Err(panic) => {
                            let message = panic_message(&*panic);
                            (format!("internal error: {message}; please report it"), true)
                        }
                    };
                    match run.begin_again(&reason, may_pass) {
                        Ok(true) => {}
                        Ok(false) => break reason,
                        Err(error) => break format!("{reason}; and it cannot begin again: {error}"),
                    }
                };
                tracing::error!(source, reason, "source stopped");
                shared.set_state(SourceState::Failed, Some(reason));
            })
            .expect("the system can start a thread");
        Self {
            stop,
            commands,
            thread: Some(thread),
        }
    }

    /// Asks it to add or remove a view between two epochs. The answer is gone where the timeline does not run any more.
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
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a source ended by a panic");
        }
    }
}

pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic")
}

struct Run {
    timeline: Timeline,
    make: MakeSource,
    registry: Registry,
    clock: Arc<dyn Clock>,
    silence: Silence,
    /// The source does not answer, so that it is silent says nothing.
    unreachable_since: Option<EventTime>,
    stop: Arc<AtomicBool>,
    commands: mpsc::Receiver<Command>,
    /// Views to come, while the source does not answer yet.
    waiting: VecDeque<Command>,
    checkpoint: Option<WrittenCheckpoint>,
    outlets: Outlets,
    sinks: Vec<Arc<SinkDefinition>>,
    resets_sinks: bool,
    /// Failures in a row, and the epoch that was committed when the last of them came.
    failures: u32,
    failed_at: Epoch,
}

/// Ends the reading of one life, also where that ends by a panic.
struct Reading(Arc<AtomicBool>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A checkpoint that is being written: the thread says whether it stands.
struct WrittenCheckpoint {
    thread: JoinHandle<bool>,
    epoch: Epoch,
    sinks: SinkProgresses,
}

impl Run {
    fn whole_life(&mut self) -> Result<()> {
        let definition = Arc::clone(self.timeline.source());
        let mut source = (self.make)(&definition.name, &definition.connector_options)?;
        let mut intake = Intake::new(&definition, self.timeline.needed(), &self.registry)?;
        self.timeline.publish_state();
        let Some(bounds) = self.patiently(|| source.discover())? else {
            return Ok(());
        };
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

        let (ahead, events) = read_ahead(CHUNKS_AHEAD, self.timeline.bounds().read_ahead_bytes);
        let reading = Reading(Arc::new(AtomicBool::new(false)));
        let reader = Reader {
            source,
            intake,
            ahead,
            stop: Arc::clone(&reading.0),
            shared: Arc::clone(self.timeline.shared()),
        };
        let reader = std::thread::Builder::new()
            .name(format!("reader {}", definition.name))
            .spawn(move || reader.run())
            .expect("the system can start a thread");
        let outcome = self.epochs(&events, new_splits);
        // The reader may wait for room: nobody takes anything any more.
        drop(reading);
        drop(events);
        match reader.join() {
            Err(panic) if outcome.is_ok() => Err(Error::bug(panic_message(&*panic))),
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
        self.outlets.all.clear();
        self.wait_for_checkpoint();
        self.unreachable_since = None;
        self.timeline.begin_again()?;
        Ok(true)
    }

    /// Calls the world until it answers; `None` when the engine stops meanwhile.
    fn patiently<T>(&mut self, mut call: impl FnMut() -> Result<T, SourceError>) -> Result<Option<T>> {
        let mut backoff = BACKOFF_FIRST;
        let mut since = None;
        while !self.stop.load(Ordering::Relaxed) {
            match call() {
                Ok(answer) => return Ok(Some(answer)),
                Err(SourceError::Failed(reason)) => return Err(Error::user(reason)),
                Err(SourceError::Unreachable(reason)) => {
                    let since = *since.get_or_insert_with(|| self.clock.now());
                    tracing::warn!(
                        source = self.timeline.source().name,
                        reason,
                        retry_ms = backoff.as_millis() as u64,
                        "source unreachable"
                    );
                    let reason = format!("unreachable since {since}: {reason}; trying again");
                    self.timeline.shared().set_state(SourceState::Unreachable, Some(reason));
                    let until = self.clock.elapsed() + backoff;
                    while self.clock.elapsed() < until && !self.stop.load(Ordering::Relaxed) {
                        self.let_views_go();
                        self.sleep(TICK);
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
                ViewChange::Remove(name) if !done.is_closed() => {
                    self.timeline.remove_view(&name);
                    self.timeline.publish_state();
                    drop(done.send(Ok(())));
                }
                ViewChange::RemoveSink(name) if !done.is_closed() => {
                    self.remove_sink(&name);
                    drop(done.send(Ok(())));
                }
                ViewChange::Remove(_) | ViewChange::RemoveSink(_) => {}
                ViewChange::Add(_) | ViewChange::AddSink(_) => self.waiting.push_back(Command { change, done }),
            }
        }
    }

    fn sleep(&self, duration: Duration) {
        let until = self.clock.elapsed() + duration;
        while self.clock.elapsed() < until && !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(TICK.min(duration));
        }
    }

    /// Splits that the state does not know, and where they start: those that came after the others did, with their first row.
    fn new_splits(&self, bounds: &[SplitBounds]) -> Result<BTreeMap<SplitId, Position>> {
        let known = self.timeline.replay_positions();
        for split in known.keys() {
            if !bounds.iter().any(|bounds| bounds.split == *split) {
                return Err(Error::user(format!(
                    "split {split} of source `{}` is gone: was it made anew? start over with --reset",
                    self.timeline.source().name
                )));
            }
        }
        let new = bounds.iter().filter(|bounds| !known.contains_key(&bounds.split));
        let start = |bounds: &SplitBounds| if known.is_empty() { bounds.start } else { bounds.first };
        Ok(new.map(|bounds| (bounds.split.clone(), start(bounds))).collect())
    }

    /// Runs the committed plans after the checkpoint again, on the same rows.
    fn replay(&mut self, source: &mut dyn Source, intake: &mut Intake) -> Result<()> {
        let positions = self.timeline.replay_positions();
        let Some(mut plan) = self.timeline.next_replay() else {
            self.timeline.publish_state();
            return Ok(());
        };
        if self.patiently(|| source.seek(&positions))?.is_none() {
            return Ok(());
        }
        let committed = self.timeline.committed_positions();
        let mut epochs = 0u64;
        let mut held: BTreeMap<SplitId, VecDeque<Chunk>> = BTreeMap::new();
        loop {
            let mut rows = Vec::new();
            for (split, range) in &plan.ranges {
                let Some(chunks) = self.read_range(source, split, *range, &mut held)? else {
                    return Ok(());
                };
                for chunk in chunks {
                    rows.push(intake.take(chunk)?);
                }
            }
            let is_needed = |lost: &LostRows| committed.get(&lost.split).is_some_and(|to| lost.from < *to);
            if let Some(LostRows { split, from, to }) = source.lost().into_iter().find(is_needed) {
                return Err(Error::user(format!(
                    "rows {from} to {} of split {split} of source `{}` are gone, and some of them were read since the last checkpoint and \
                     would have to be read again; start over with --reset",
                    to.0 - 1,
                    self.timeline.source().name
                )));
            }
            let ran = self.timeline.run(&plan, rows)?;
            let is_checkpoint = plan.checkpoint;
            self.stage(&ran);
            self.timeline.publish(ran);
            if is_checkpoint {
                drop(self.timeline.checkpoint()?);
            }
            while !self.sinks_have_room()? {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                self.let_views_go();
                self.sleep(TICK);
            }
            epochs += 1;
            match self.timeline.next_replay() {
                Some(next) => plan = next,
                None => break,
            }
        }
        tracing::info!(
            source = self.timeline.source().name,
            epochs,
            epoch = self.timeline.epoch().0,
            "journal replayed"
        );
        Ok(())
    }

    /// All chunks of `range`, cut at its end; `None` when the engine stops meanwhile.
    fn read_range(
        &mut self,
        source: &mut dyn Source,
        split: &SplitId,
        range: PlannedRange,
        held: &mut BTreeMap<SplitId, VecDeque<Chunk>>,
    ) -> Result<Option<Vec<Chunk>>> {
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut next = range.from;
        loop {
            while let Some(mut chunk) = held.entry(split.clone()).or_default().pop_front() {
                if chunk.from != next {
                    return Err(Error::user(format!(
                        "rows {next} to {} of split {split} of source `{}` are gone; start over with --reset",
                        chunk.from,
                        self.timeline.source().name
                    )));
                }
                if range.to < chunk.to {
                    let rest = chunk.split_off(range.to);
                    held.entry(split.clone()).or_default().push_front(rest);
                }
                next = chunk.to;
                chunks.push(chunk);
                if next == range.to {
                    return Ok(Some(chunks));
                }
            }
            let Some(polled) = self.patiently(|| source.poll(limits::CHUNK_ROWS, POLL_BYTES, TICK * 4))? else {
                return Ok(None);
            };
            for chunk in polled {
                held.entry(chunk.split.clone()).or_default().push_back(chunk);
            }
        }
    }

    /// The epoch loop, until the engine stops or the source ends.
    fn epochs(&mut self, events: &Waiting<Event>, new_splits: BTreeMap<SplitId, Position>) -> Result<()> {
        let mut gathered = Gathered::new(self.timeline.bounds());
        let mut new_splits = new_splits;
        self.silence_begins();
        let mut last_epoch = self.clock.elapsed();
        let mut last_checkpoint = self.clock.elapsed();
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
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) if is_finished => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
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
            let now = self.clock.now().max(self.timeline.epoch_time());
            let elapsed = self.clock.elapsed();
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
                || (self.timeline.is_durable() && last_checkpoint + limits::CHECKPOINT_INTERVAL <= elapsed);
            let plan = EpochPlan {
                number: self.timeline.epoch().next(),
                ranges: ranges(&input),
                anchors: self.timeline.anchors_of(&input),
                epoch_time: now,
                idle_splits: idle,
                new_splits: std::mem::take(&mut new_splits),
                complete_below,
                is_last,
                checkpoint: is_last && self.timeline.is_durable() || checkpoint_is_due && self.checkpoint_is_free(),
            };
            self.run(plan, input)?;
            last_epoch = elapsed;
            if checkpoint_is_due {
                last_checkpoint = elapsed;
            }
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

    /// Changes the views, and answers once the state knows.
    fn obey(&mut self, Command { change, done }: Command) -> Result<()> {
        if done.is_closed() {
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
        self.run_empty()?;
        if let (Err(_), Some(name)) = (done.send(Ok(())), added) {
            // Nobody waited so long: the catalog has no such view.
            self.timeline.remove_view(&name);
            self.run_empty()?;
        }
        Ok(())
    }

    /// Returns whether its checkpoint stands.
    fn run_empty(&mut self) -> Result<bool> {
        let plan = self.timeline.empty_plan(self.clock.now());
        self.run(plan, Vec::new())?;
        Ok(self.wait_for_checkpoint())
    }

    fn start_sink(&mut self, definition: Arc<SinkDefinition>) -> Result<()> {
        let Some(state) = self.timeline.identity().map(str::to_owned) else {
            return Err(Error::user(format!(
                "sink `{}` needs a state folder, which says after a crash what is published; start without --no-state",
                definition.name
            )));
        };
        let before = self.timeline.sinks().get(&definition.name);
        if before.is_some_and(|progress| progress.definition != definition_of(&definition)) {
            // Another sink of this name: it begins with all rows.
            self.timeline.forget_sink(&definition.name);
        }
        let outlet = Outlet::start(
            definition,
            &self.registry,
            &state,
            self.resets_sinks,
            Arc::clone(self.timeline.shared()),
            self.timeline.metrics(),
            Arc::clone(&self.clock),
        )?;
        self.outlets.all.push(outlet);
        Ok(())
    }

    fn remove_sink(&mut self, name: &str) {
        self.sinks.retain(|sink| sink.name != name);
        self.outlets.all.retain(|outlet| outlet.name() != name);
        self.timeline.forget_sink(name);
        let shared = self.timeline.shared();
        shared
            .sinks
            .lock()
            .expect("nobody panics while holding it")
            .remove(name);
    }

    /// Goes back to where all can be made again that the sinks of before did not publish; `false` when the engine stops meanwhile.
    fn stand_where_sinks_do(&mut self) -> Result<bool> {
        let published = loop {
            match self.outlets.published_of(self.timeline.sinks())? {
                Some(published) => break published,
                None if self.stop.load(Ordering::Relaxed) => return Ok(false),
                None => {
                    self.let_views_go();
                    self.sleep(TICK);
                }
            }
        };
        self.timeline.go_back_for(&published)?;
        self.outlets
            .note_checkpoint(self.timeline.epoch(), self.timeline.sinks());
        let epoch = self.timeline.epoch();
        let beginning: Vec<String> = (self.timeline.sinks().iter())
            .filter(|(sink, progress)| Epoch(0) < epoch && progress.since == epoch && published[*sink] < epoch)
            .map(|(sink, _)| sink.clone())
            .collect();
        self.stage_views(&beginning)?;
        Ok(true)
    }

    /// What is published was committed: where the journal does not know it, a part of it was lost.
    fn check_journal(&self, sink: &str, published: Epoch) -> Result<()> {
        let epoch = self.timeline.epoch();
        if published <= epoch {
            return Ok(());
        }
        Err(Error::user(format!(
            "sink `{sink}` has published epoch {published}, and the state ends at epoch {epoch}: a part of its journal is gone, and other rows \
             would be published under the numbers of those; restore the state from a copy, or start over with --reset, which publishes all rows anew"
        )))
    }

    /// Lets new sinks begin, with their views as they are; `false` where that waits for others.
    fn begin_sinks(&mut self) -> Result<bool> {
        let is_new = |outlet: &&Outlet| !self.timeline.sinks().contains_key(outlet.name());
        let mut new = Vec::new();
        for outlet in self.outlets.all.iter().filter(is_new) {
            // One that does not answer yet begins later.
            if let Some(published) = outlet.published()? {
                self.check_journal(outlet.name(), published)?;
                new.push(Arc::clone(&outlet.definition));
            }
        }
        if new.is_empty() {
            return Ok(true);
        }
        // Its first checkpoint must do for the others too.
        if !self.outlets.are_drained(self.timeline.sinks()) {
            // Epochs go on where the others do not answer: then it begins later.
            return Ok(!self.sinks_are_running());
        }
        let epoch = self.timeline.epoch().next();
        for sink in &new {
            self.timeline.begin_sink(sink, epoch);
        }
        if !self.run_empty()? {
            // Nothing was published: it begins at a later epoch.
            for sink in &new {
                self.timeline.forget_sink(&sink.name);
            }
            return Ok(false);
        }
        // That epoch may have changed the views of others.
        while !self.outlets.are_drained(self.timeline.sinks()) {
            self.sinks_have_room()?;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(true);
            }
            self.sleep(TICK);
        }
        self.stage_views(&new.iter().map(|sink| sink.name.clone()).collect::<Vec<_>>())?;
        Ok(true)
    }

    /// All rows of their views, as this epoch left them.
    fn stage_views(&self, sinks: &[String]) -> Result<()> {
        for name in sinks {
            let outlet = self.outlets.of(name).expect("asked above");
            let added = self.timeline.rows_of(&outlet.definition.view.name)?;
            let removed = RecordBatch::new_empty(added.schema());
            let epoch = self.timeline.epoch();
            tracing::info!(
                sink = name,
                epoch = epoch.0,
                rows = added.num_rows(),
                "sink begins with its view"
            );
            outlet.stage_epoch(SinkEpoch { epoch, added, removed });
        }
        Ok(())
    }

    /// What a committed epoch did to the views of sinks is theirs to publish.
    fn stage(&mut self, ran: &super::timeline::Ran) {
        for outlet in &self.outlets.all {
            let change = self
                .timeline
                .change_for_sink(outlet.name(), &outlet.definition.view.name, ran);
            if let Some(change) = change {
                outlet.stage(change);
            }
        }
    }

    fn sinks_are_running(&self) -> bool {
        let sinks = self
            .timeline
            .shared()
            .sinks
            .lock()
            .expect("nobody panics while holding it");
        sinks.values().all(|sink| sink.state == SourceState::Running)
    }

    /// # Errors
    /// Where a sink will publish nothing any more.
    fn sinks_have_room(&self) -> Result<bool> {
        for outlet in &self.outlets.all {
            outlet.published()?;
        }
        Ok(self.outlets.have_room())
    }

    fn on_event(
        &mut self,
        event: Event,
        gathered: &mut Gathered,
        new_splits: &mut BTreeMap<SplitId, Position>,
        is_finished: &mut bool,
    ) -> Result<()> {
        match event {
            Event::Rows(rows) => gathered.push(rows),
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
                let since = *self.unreachable_since.get_or_insert_with(|| self.clock.now());
                let reason = format!("unreachable since {since}: {reason}; trying again");
                self.timeline.shared().set_state(SourceState::Unreachable, Some(reason));
            }
        }
        Ok(())
    }

    /// How long to gather more rows.
    fn patience(&self, last_epoch: Duration) -> Duration {
        match self.timeline.source().trigger {
            Trigger::EachRow => Duration::ZERO,
            Trigger::AtMostEvery(interval) => (last_epoch + interval).saturating_sub(self.clock.elapsed()).min(TICK),
            Trigger::Interval(_) => TICK,
        }
    }

    /// The next multiple of a trigger's interval.
    fn next_boundary(&self) -> Option<EventTime> {
        match self.timeline.source().trigger {
            Trigger::Interval(interval) => {
                let interval = i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX);
                Some(EventTime(
                    (self.clock.now().0.div_euclid(interval) + 1).saturating_mul(interval),
                ))
            }
            Trigger::EachRow | Trigger::AtMostEvery(_) => None,
        }
    }

    /// What was before does not count as silence.
    fn silence_begins(&mut self) {
        self.silence.restart(self.clock.elapsed());
        self.timeline.silence_begins(self.clock.now());
    }

    /// Splits that are caught up and were silent for the timeout. While the source does not answer none becomes idle.
    fn idle_splits(&mut self, gathered: &Gathered, now: Duration) -> BTreeSet<SplitId> {
        if !self.timeline.has_watermark() {
            return BTreeSet::new();
        }
        for part in gathered.parts() {
            self.silence.heard(&part.split, now);
        }
        let has_rows = |split: &SplitId| gathered.parts().iter().any(|part| part.split == *split);
        if self.unreachable_since.is_some() {
            let idle = self.timeline.idle_splits_now();
            return idle.into_iter().filter(|split| !has_rows(split)).collect();
        }
        let shared = Arc::clone(self.timeline.shared());
        let ends = shared.ends.lock().expect("nobody panics while holding it");
        let timeout = self.timeline.source().idle_timeout;
        let silence = &mut self.silence;
        self.timeline
            .positions()
            .iter()
            .filter(|(split, position)| {
                let is_caught_up = ends.get(*split).is_some_and(|end| *end <= **position);
                let silent_for = silence.of(split, now);
                is_caught_up && !has_rows(split) && timeout <= silent_for
            })
            .map(|(split, _)| split.clone())
            .collect()
    }

    /// What closes all windows, once no split has brought a row for `close_after` and there is none to read.
    fn closes_below(&self, now: Duration) -> Option<EventTime> {
        let close_after = self.timeline.source().close_after?;
        if self.unreachable_since.is_some() || self.silence.of_all(now) < close_after {
            return None;
        }
        let shared = self.timeline.shared();
        let ends = shared.ends.lock().expect("nobody panics while holding it");
        let positions = self.timeline.positions();
        let is_read =
            |(split, end): (&SplitId, &Position)| positions.get(split).is_some_and(|position| end <= position);
        if !ends.iter().all(is_read) {
            return None;
        }
        self.timeline.closes_all_at()
    }

    fn run(&mut self, plan: EpochPlan, input: Vec<SplitRows>) -> Result<()> {
        let is_checkpoint = plan.checkpoint;
        let ran = self.timeline.run(&plan, input)?;
        self.commit(&ran)?;
        self.stage(&ran);
        self.timeline.publish(ran);
        if is_checkpoint && let Some((writer, checkpoint)) = self.timeline.checkpoint()? {
            let metrics = self.timeline.metrics();
            let source = self.timeline.source().name.clone();
            self.wait_for_checkpoint();
            let needed = self.outlets.needed_checkpoint();
            let epoch = checkpoint.epoch;
            let thread = std::thread::spawn(move || {
                let stopwatch = super::clock::Stopwatch::start();
                match writer.write(&checkpoint, needed) {
                    Ok(bytes) => {
                        let seconds = stopwatch.elapsed().as_secs_f64();
                        metrics
                            .checkpoint_duration_seconds
                            .with_label_values(&[&source])
                            .observe(seconds);
                        tracing::info!(source, epoch = checkpoint.epoch.0, bytes, seconds, "checkpoint written");
                        true
                    }
                    // The journal still has everything since the one before.
                    Err(error) => {
                        tracing::warn!(source, epoch = checkpoint.epoch.0, %error, "checkpoint not written");
                        false
                    }
                }
            });
            self.checkpoint = Some(WrittenCheckpoint {
                thread,
                epoch,
                sinks: self.timeline.sinks().clone(),
            });
        }
        Ok(())
    }

    /// Appends the plan to the journal, however long the disk refuses: until then nothing goes on and nothing is shown.
    fn commit(&mut self, ran: &super::timeline::Ran) -> Result<()> {
        let mut backoff = BACKOFF_FIRST;
        let mut has_failed = false;
        loop {
            match self.timeline.commit(ran) {
                Ok(()) => {
                    if has_failed {
                        self.timeline.shared().set_state(SourceState::Running, None);
                    }
                    return Ok(());
                }
                Err(error) if self.stop.load(Ordering::Relaxed) => return Err(error),
                Err(error) => {
                    tracing::warn!(source = self.timeline.source().name, %error, retry_ms = backoff.as_millis() as u64, "epoch not committed");
                    let reason =
                        format!("{error}; reading waits, nothing is lost, and it goes on as soon as the disk takes it");
                    self.timeline.shared().set_state(SourceState::Unreachable, Some(reason));
                    has_failed = true;
                    self.sleep(backoff);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    fn checkpoint_is_free(&self) -> bool {
        (self.checkpoint.as_ref()).is_none_or(|checkpoint| checkpoint.thread.is_finished())
    }

    /// Returns whether the last one stands.
    fn wait_for_checkpoint(&mut self) -> bool {
        let Some(WrittenCheckpoint { thread, epoch, sinks }) = self.checkpoint.take() else {
            return false;
        };
        let stands = thread.join().unwrap_or_else(|_| {
            tracing::error!("writing a checkpoint ended by a panic");
            false
        });
        if stands {
            self.outlets.note_checkpoint(epoch, &sinks);
        }
        stands
    }

    /// A clean stop leaves nothing to replay.
    fn last_checkpoint(&mut self) -> Result<()> {
        if self.timeline.has_uncheckpointed_epochs() {
            self.run_empty()?;
        }
        self.wait_for_checkpoint();
        let until = self.clock.elapsed() + limits::SINK_DRAIN_MAX;
        while !self.outlets.are_drained(self.timeline.sinks()) && self.clock.elapsed() < until {
            if self.sinks_have_room().is_err() {
                break;
            }
            std::thread::sleep(TICK / 4);
        }
        self.outlets.end(limits::SINK_END_MAX, &*self.clock);
        Ok(())
    }
}
