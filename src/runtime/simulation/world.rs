//! One seed: a pipeline that lives several lives in a world that fails, and in the end has to have everything once.
//!
//! ```text
//! start ─▶ records come, disk, brokers and network fail, the process stands still ─▶ kill, power cut or stop ─▶ start …
//! heal ─▶ start ─▶ within a minute: each row once in the sinks, views equal to what was sent
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampNanosecondType},
};
use serde_json::Value;

use crate::{
    runtime::{
        Bounds, Metrics,
        clock::Clock,
        definition::Rebuild,
        driver::Driver,
        face::SourceState,
        host::panic_message,
        shared::{Shared, Snapshot},
        timeline::Timeline,
    },
    state::Place,
    types::{Epoch, Result},
};

use super::{
    brokers::{Brokers, Counts, Written},
    disk::Disk,
    pipeline::{ROWS, SOURCE, Surroundings, TOTALS, catalog, registry},
    scheduler::{Life, Scheduler},
    topic::Topic,
};

const LIVES_MAX: u64 = 6;
const CHECKPOINTS: &str = "state/checkpoints";
/// In a world that does not fail any more, everything is there after so long.
const HEALED: Duration = Duration::from_secs(90);
const KEYS: u64 = 5;
const WINDOW: i64 = 5_000_000_000;

/// What a seed met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub rows: u64,
    pub epochs: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub stops: u64,
    pub pauses: u64,
    pub refused_starts: u64,
    pub brokers: Counts,
}

pub struct Outcome {
    pub trace: u64,
    pub lines: Vec<String>,
    /// What is wrong, where something is.
    pub verdict: Result<Figures, String>,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        for (sum, one) in [
            (&mut self.rows, other.rows),
            (&mut self.epochs, other.epochs),
            (&mut self.kills, other.kills),
            (&mut self.power_cuts, other.power_cuts),
            (&mut self.stops, other.stops),
            (&mut self.pauses, other.pauses),
            (&mut self.refused_starts, other.refused_starts),
            (&mut self.brokers.aborted, other.brokers.aborted),
            (&mut self.brokers.fenced, other.brokers.fenced),
            (&mut self.brokers.late, other.brokers.late),
            (&mut self.brokers.unanswered, other.brokers.unanswered),
        ] {
            *sum += one;
        }
    }
}

/// A record that was sent.
#[derive(Clone, Debug)]
struct Sent {
    id: i64,
    key: String,
    value: i64,
    at: i64,
    partition: usize,
}

/// How a life ends.
enum Ending {
    Stop,
    Kill(Aim),
    PowerCut(Aim),
}

/// What it is in the middle of, if it comes to that.
enum Aim {
    Commit,
    Checkpoint,
    Publishing,
    /// Right behind it.
    Published,
    None,
}

/// One start of the engine.
struct Running {
    life: Life,
    slot: Arc<Mutex<Slot>>,
}

#[derive(Default)]
struct Slot {
    driver: Option<Driver>,
    shared: Option<Arc<Shared>>,
    refused: Option<String>,
}

struct World {
    scheduler: Scheduler,
    disk: Disk,
    topic: Topic,
    brokers: Brokers,
    clock: Arc<dyn Clock>,
    bounds: Bounds,
    sent: Vec<Sent>,
    bad: u64,
    /// Rows of a new partition may stand in windows that were closed before it was known.
    has_grown: bool,
    lives: Life,
    /// The newest epoch that a reader saw.
    seen: Epoch,
    figures: Figures,
}

pub fn run(seed: u64) -> Outcome {
    let scheduler = Scheduler::new(seed);
    let lived = catch_unwind(AssertUnwindSafe(|| World::new(&scheduler).live()));
    let verdict = lived.unwrap_or_else(|panic| Err(panic_message(&*panic).to_owned()));
    let (trace, lines) = scheduler.trace();
    Outcome { trace, lines, verdict }
}

impl World {
    fn new(scheduler: &Scheduler) -> Self {
        let checkpoint_interval = Duration::from_millis(100 + scheduler.draw(4_000));
        Self {
            scheduler: scheduler.clone(),
            disk: Disk::new(scheduler),
            topic: Topic::new(scheduler, 1 + scheduler.draw(3) as usize, scheduler.chance(0.3)),
            brokers: Brokers::new(scheduler),
            clock: scheduler.host(0),
            bounds: Bounds {
                epoch_rows_max: 1 + scheduler.draw(60) as usize,
                checkpoint_interval,
                ..Bounds::default()
            },
            sent: Vec::new(),
            bad: 0,
            has_grown: false,
            lives: 0,
            seen: Epoch(0),
            figures: Figures::default(),
        }
    }

    fn live(mut self) -> Result<Figures, String> {
        if self.scheduler.chance(0.5) {
            self.send(30);
        }
        if self.scheduler.chance(0.1) {
            // What is there from the first checkpoint on is nowhere else before the second.
            for ending in [Ending::Kill(Aim::Checkpoint), Ending::PowerCut(Aim::Published)] {
                let running = self.start();
                self.end(running, ending);
            }
        }
        for _ in 0..1 + self.scheduler.draw(LIVES_MAX) {
            let running = self.start();
            // Some end before they have come far.
            let most = match self.scheduler.chance(0.3) {
                true => Duration::from_millis(500),
                false => Duration::from_secs(8),
            };
            let until = self.scheduler.now() + self.scheduler.delay(most);
            while self.scheduler.now() < until {
                self.scheduler.sleep(self.scheduler.delay(Duration::from_millis(800)));
                self.act(&running);
                self.look(&running)?;
            }
            let ending = self.ending();
            self.end(running, ending);
        }
        self.heal();
        self.send(10);
        let mut running = self.start();
        // What a failure did to a life must not pass only because another one begins.
        for _ in 0..self.scheduler.draw(6) {
            self.scheduler.sleep(self.scheduler.delay(Duration::from_millis(800)));
            self.act(&running);
            self.look(&running)?;
        }
        self.heal();
        if running.slot().refused.is_some() {
            // It came while the disk failed, and nobody but a person starts it again.
            self.scheduler.kill(running.life);
            running = self.start();
        }
        let until = self.scheduler.now() + HEALED;
        let mut is_complete = false;
        while self.scheduler.now() < until && !is_complete {
            self.scheduler.sleep(Duration::from_millis(500));
            self.look(&running)?;
            is_complete = self.is_complete(&running);
        }
        let state = running.state();
        if !is_complete {
            return Err(format!(
                "not everything is there {} s after the world was healed: {state}",
                HEALED.as_secs()
            ));
        }
        // What comes late comes now.
        self.scheduler.sleep(Duration::from_secs(12));
        self.check(&running)?;
        self.figures.rows = self.sent.len() as u64;
        self.figures.brokers = self.brokers.counts();
        self.figures.epochs = self.seen.0;
        self.scheduler.kill(running.life);
        Ok(self.figures)
    }

    fn start(&mut self) -> Running {
        self.lives += 1;
        let life = self.lives;
        let slot = Arc::new(Mutex::new(Slot::default()));
        let running = Running {
            life,
            slot: Arc::clone(&slot),
        };
        let surroundings = Surroundings {
            topic: self.topic.clone(),
            brokers: self.brokers.clone(),
            life,
        };
        let place = Place::on_disk("state", self.disk.files(life));
        let (host, bounds) = (self.scheduler.host(life), self.bounds.clone());
        let engine = Arc::clone(&host);
        let work = move || {
            let catalog = catalog();
            let source = Arc::clone(catalog.source(SOURCE).expect("the pipeline has it"));
            let opened = Timeline::open(source, catalog, Some(place), metrics(), &bounds, Rebuild::default());
            match opened {
                Ok(timeline) => {
                    let shared = Arc::clone(timeline.shared());
                    let registry = registry(Some(surroundings));
                    let make = Arc::clone(&registry.connectors[0].make);
                    let sinks = catalog.sinks_of(SOURCE);
                    let driver = Driver::start(timeline, make, sinks, false, registry, engine);
                    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                    (slot.driver, slot.shared) = (Some(driver), Some(shared));
                }
                Err(error) => {
                    slot.lock().unwrap_or_else(PoisonError::into_inner).refused = Some(error.to_string());
                }
            }
        };
        drop(host.spawn("start", Box::new(work)));
        self.scheduler.note(|| format!("life {life} starts"));
        running
    }

    /// Something happens.
    fn act(&mut self, running: &Running) {
        match self.scheduler.draw(14) {
            0..6 => {
                let count = 1 + self.scheduler.draw(40);
                self.send(count);
            }
            6 => {
                self.topic.append(0, "{oops".into());
                self.bad += 1;
            }
            7 => {
                let (fails, is_full) = (self.rate(0.2), self.scheduler.chance(0.2));
                let is_slow = self.scheduler.chance(0.2);
                self.disk.set_faults(fails, is_full, is_slow);
            }
            8 => {
                let (fails, is_down) = (self.rate(0.5), self.scheduler.chance(0.2));
                self.topic.set_faults(fails, is_down);
            }
            9 | 10 => {
                let (fails, is_down) = (self.rate(0.5), self.scheduler.chance(0.2));
                self.brokers.set_faults(fails, is_down, true);
            }
            11 if self.scheduler.chance(0.5) => {
                // In the middle of a transaction, and longer than brokers wait for its end.
                self.wait_until(Duration::from_secs(1), |world| world.brokers.is_publishing());
                let duration = self.scheduler.delay(Duration::from_secs(12));
                self.stand_still(running.life, duration);
            }
            11 => {
                let duration = self.scheduler.delay(Duration::from_secs(20));
                self.stand_still(running.life, duration);
            }
            12 if self.topic.partitions() < 5 => {
                self.topic.add_partition();
                self.has_grown = true;
            }
            _ => self.heal(),
        }
    }

    fn stand_still(&mut self, life: Life, duration: Duration) {
        self.scheduler.pause(life, duration);
        self.scheduler
            .note(|| format!("life {life} stands still for {duration:?}"));
        self.figures.pauses += 1;
    }

    fn wait_until(&self, at_most: Duration, is_so: impl Fn(&Self) -> bool) {
        let until = self.scheduler.now() + at_most;
        while !is_so(self) && self.scheduler.now() < until {
            self.scheduler.sleep(Duration::from_millis(2));
        }
    }

    fn rate(&self, most: f64) -> f64 {
        most * self.scheduler.draw(1_000) as f64 / 1_000.0
    }

    fn heal(&mut self) {
        self.disk.set_faults(0.0, false, false);
        self.topic.set_faults(0.0, false);
        self.brokers.set_faults(0.0, false, false);
    }

    fn send(&mut self, count: u64) {
        for _ in 0..count {
            let id = self.sent.len() as i64;
            let jitter = self.scheduler.draw(3_000_000) as i64 * 1_000;
            let sent = Sent {
                id,
                key: format!("k{}", self.scheduler.draw(KEYS)),
                // Equal rows are as good as others.
                value: self.scheduler.draw(50) as i64 - 25,
                at: self.clock.now().0 - jitter,
                partition: self.scheduler.draw(self.topic.partitions() as u64) as usize,
            };
            let time = arrow::temporal_conversions::timestamp_ns_to_datetime(sent.at).expect("a time of today");
            let record = format!(
                r#"{{"id":{id},"k":"{}","v":{},"at":"{}Z"}}"#,
                sent.key,
                sent.value,
                time.format("%Y-%m-%dT%H:%M:%S%.9f")
            );
            self.topic.append(sent.partition, record);
            self.sent.push(sent);
        }
    }

    /// What a reader sees never goes back.
    fn look(&mut self, running: &Running) -> Result<(), String> {
        let Some(shared) = running.shared() else {
            return Ok(());
        };
        let (snapshot, status) = shared.snapshot_and_status();
        if status.state != SourceState::Running {
            return Ok(());
        }
        if snapshot.epoch < self.seen {
            return Err(format!(
                "readers saw epoch {} and see {} now",
                self.seen, snapshot.epoch
            ));
        }
        self.seen = snapshot.epoch;
        Ok(())
    }

    fn ending(&self) -> Ending {
        let kind = self.scheduler.draw(10);
        // Where it hurts most.
        let aim = match self.scheduler.draw(5) {
            0 => Aim::Commit,
            1 => Aim::Checkpoint,
            2 => Aim::Publishing,
            _ => Aim::None,
        };
        match kind {
            0..3 => Ending::Stop,
            3..7 => Ending::Kill(aim),
            _ => Ending::PowerCut(aim),
        }
    }

    fn end(&mut self, running: Running, ending: Ending) {
        match &ending {
            Ending::Stop => {
                self.figures.stops += 1;
                self.scheduler
                    .note(|| format!("life {} is asked to stop", running.life));
                if let Some(driver) = &running.slot().driver {
                    driver.stop();
                }
                // Who asks may lose patience.
                let patience = match self.scheduler.chance(0.3) {
                    true => self.scheduler.delay(Duration::from_secs(1)),
                    false => Duration::from_secs(40),
                };
                let until = self.scheduler.now() + patience;
                while !self.scheduler.is_over(running.life) && self.scheduler.now() < until {
                    self.scheduler.sleep(Duration::from_millis(100));
                }
            }
            Ending::Kill(aim) | Ending::PowerCut(aim) => match aim {
                Aim::Commit => self.wait_until(Duration::from_secs(2), |world| world.disk.is_syncing(".jnl")),
                Aim::Checkpoint => {
                    self.wait_until(Duration::from_secs(4), |world| {
                        let names = world.disk.names_in(Path::new(CHECKPOINTS));
                        // It has its name, and who knows for how long.
                        names.iter().any(|name| !name.ends_with(".tmp")) && world.disk.is_syncing("/checkpoints")
                    });
                }
                Aim::Publishing => {
                    self.wait_until(Duration::from_secs(4), |world| world.brokers.is_publishing());
                    self.scheduler.sleep(self.scheduler.delay(Duration::from_millis(100)));
                }
                Aim::Published => {
                    self.wait_until(Duration::from_secs(4), |world| {
                        !world.brokers.committed(ROWS).is_empty()
                    });
                    self.scheduler.sleep(self.scheduler.delay(Duration::from_millis(100)));
                }
                Aim::None => {}
            },
        }
        match ending {
            Ending::Stop => {}
            Ending::Kill(_) => self.figures.kills += 1,
            Ending::PowerCut(_) => self.figures.power_cuts += 1,
        }
        self.scheduler.note(|| format!("life {} ends", running.life));
        self.scheduler.kill(running.life);
        if running.slot().refused.is_some() {
            self.figures.refused_starts += 1;
        }
        // After a kill the system still has what was not synced.
        if matches!(ending, Ending::PowerCut(_)) {
            self.disk.crash();
        }
    }

    /// Whether all that was sent is read and published.
    fn is_complete(&self, running: &Running) -> bool {
        let Some(shared) = running.shared() else { return false };
        let (snapshot, status) = shared.snapshot_and_status();
        let ends = shared.ends.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = self.topic.source().ends();
        let views = self.expected(&snapshot);
        status.state == SourceState::Running
            && ends == all
            && snapshot.positions == all
            && self.brokers.committed(ROWS).len() >= views.len()
            && last_totals(&self.brokers.committed(TOTALS)) == totals_of(&views)
    }

    /// All; those that were sent behind where reading began, where it began with the latest.
    fn expected(&self, snapshot: &Snapshot) -> Vec<Sent> {
        if !self.topic.is_from_latest {
            return self.sent.clone();
        }
        let ids: BTreeSet<i64> = integers(snapshot, "every", 0).into_iter().collect();
        let mut first: BTreeMap<usize, i64> = BTreeMap::new();
        for sent in self.sent.iter().filter(|sent| ids.contains(&sent.id)) {
            first.entry(sent.partition).or_insert(sent.id);
        }
        let is_behind = |sent: &&Sent| first.get(&sent.partition).is_some_and(|first| *first <= sent.id);
        self.sent.iter().filter(is_behind).cloned().collect()
    }

    fn check(&self, running: &Running) -> Result<(), String> {
        let shared = running.shared().ok_or("it does not run")?;
        let (snapshot, status) = shared.snapshot_and_status();
        let expected = self.expected(&snapshot);
        let ids: Vec<i64> = expected.iter().map(|sent| sent.id).collect();

        let mut in_view = integers(&snapshot, "every", 0);
        in_view.sort_unstable();
        if in_view != ids {
            return Err(difference("view `every`", &in_view, &ids));
        }
        let published = self.brokers.committed(ROWS);
        let mut published_ids: Vec<i64> = Vec::new();
        for row in &published {
            let value = json(row)?;
            let id = value["id"].as_i64().ok_or("a row without an id was published")?;
            let sent = &self.sent[usize::try_from(id).map_err(|_| "an id that was never sent")?];
            if value["k"].as_str() != Some(&sent.key) || value["v"].as_i64() != Some(sent.value) {
                return Err(format!("row {id} was published as {value}"));
            }
            published_ids.push(id);
        }
        published_ids.sort_unstable();
        if published_ids != ids {
            return Err(difference("sink of rows", &published_ids, &ids));
        }
        let totals = totals_of(&expected);
        let written = self.brokers.committed(TOTALS);
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for row in &written {
            let value = json(row)?;
            let (key, n) = (value["k"].as_str().unwrap_or_default().to_owned(), value["n"].as_i64());
            if row.key.as_deref() != Some(format!(r#"{{"k":"{key}"}}"#).as_bytes()) {
                return Err(format!(
                    "the key of {value} is {:?}",
                    row.key.as_deref().map(String::from_utf8_lossy)
                ));
            }
            let before = counts.insert(key.clone(), n.unwrap_or_default());
            if before >= n {
                return Err(format!("total of {key}: {n:?} rows were published after {before:?}"));
            }
        }
        if last_totals(&written) != totals {
            return Err(format!("totals: published {:?}, not {totals:?}", last_totals(&written)));
        }
        if status.late_rows != 0 && !self.has_grown {
            return Err(format!("{} rows are late, and none was", status.late_rows));
        }
        if status.rows != expected.len() as u64 {
            return Err(format!("{} rows are counted of {}", status.rows, expected.len()));
        }
        let checkpoints = self.disk.names_in(Path::new(CHECKPOINTS));
        // The next one removes it.
        let newest = checkpoints.iter().rfind(|name| !name.ends_with(".tmp"));
        if checkpoints
            .iter()
            .any(|name| name.ends_with(".tmp") && Some(name) < newest)
        {
            return Err(format!("checkpoints are left unfinished: {checkpoints:?}"));
        }
        // A source that begins at the end did not see those before.
        let bad_is_right = match self.topic.is_from_latest {
            true => status.bad_rows <= self.bad,
            false => status.bad_rows == self.bad,
        };
        if !bad_is_right {
            return Err(format!("{} bad records are counted of {}", status.bad_rows, self.bad));
        }
        match status.late_rows {
            0 => self.check_windows(&snapshot, &expected),
            _ => Ok(()),
        }
    }

    fn check_windows(&self, snapshot: &Snapshot, expected: &[Sent]) -> Result<(), String> {
        let mut windows: BTreeMap<(String, i64), (i64, i64)> = BTreeMap::new();
        for sent in expected {
            let start = sent.at.div_euclid(WINDOW) * WINDOW;
            let is_closed = snapshot.watermark.time().is_some_and(|time| start + WINDOW <= time.0);
            if is_closed {
                let entry = windows.entry((sent.key.clone(), start)).or_default();
                *entry = (entry.0 + 1, entry.1 + sent.value);
            }
        }
        let mut found: BTreeMap<(String, i64), (i64, i64)> = BTreeMap::new();
        for batch in batches(snapshot, "closed") {
            let (keys, starts) = (
                batch.column(0).as_string_view(),
                batch.column(1).as_primitive::<TimestampNanosecondType>(),
            );
            let (counts, sums) = (
                batch.column(3).as_primitive::<Int64Type>(),
                batch.column(4).as_primitive::<Int64Type>(),
            );
            for row in 0..batch.num_rows() {
                let window = (keys.value(row).to_owned(), starts.value(row));
                if found
                    .insert(window.clone(), (counts.value(row), sums.value(row)))
                    .is_some()
                {
                    return Err(format!("window {window:?} stands twice"));
                }
            }
        }
        match found == windows {
            true => Ok(()),
            false => Err(format!("closed windows are {found:?}, not {windows:?}")),
        }
    }
}

impl Running {
    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        self.slot().shared.clone()
    }

    fn state(&self) -> String {
        let slot = self.slot();
        if let Some(reason) = &slot.refused {
            return format!("the start was refused: {reason}");
        }
        let Some(shared) = &slot.shared else {
            return "it is still starting".into();
        };
        let status = shared.status();
        let sinks = shared.sinks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sinks = sinks
            .iter()
            .map(|(name, sink)| format!("; {name} {} {:?} at epoch {}", sink.state, sink.reason, sink.published));
        format!(
            "{} {:?}, epoch {}{}",
            status.state,
            status.reason,
            status.epoch,
            sinks.collect::<String>()
        )
    }
}

fn metrics() -> Arc<Metrics> {
    static METRICS: OnceLock<Arc<Metrics>> = OnceLock::new();
    Arc::clone(METRICS.get_or_init(Arc::default))
}

fn batches(snapshot: &Snapshot, view: &str) -> Vec<RecordBatch> {
    let rows = snapshot.views.get(view);
    rows.map_or_else(Vec::new, |rows| rows.batches().expect("rows of a view can be read"))
}

fn integers(snapshot: &Snapshot, view: &str, column: usize) -> Vec<i64> {
    let batches = batches(snapshot, view);
    let columns = batches
        .iter()
        .map(|batch| batch.column(column).as_primitive::<Int64Type>());
    columns.flat_map(|column| column.values().to_vec()).collect()
}

fn json(row: &Written) -> Result<Value, String> {
    let value = row.value.as_deref().ok_or("a tombstone was published")?;
    serde_json::from_slice(value).map_err(|e| format!("what was published is no JSON: {e}"))
}

/// Count, ids, sum, least and greatest value by key.
type Totals = BTreeMap<String, (i64, i64, i64, i64, i64)>;

fn totals_of(sent: &[Sent]) -> Totals {
    let mut totals = Totals::new();
    for sent in sent {
        let total = totals.entry(sent.key.clone()).or_insert((0, 0, 0, i64::MAX, i64::MIN));
        *total = (
            total.0 + 1,
            total.1 + sent.id,
            total.2 + sent.value,
            total.3.min(sent.value),
            total.4.max(sent.value),
        );
    }
    totals
}

/// The newest of each key.
fn last_totals(published: &[Written]) -> Totals {
    let mut totals = Totals::new();
    for value in published.iter().filter_map(|row| json(row).ok()) {
        let number = |name: &str| value[name].as_i64().unwrap_or_default();
        let total = (number("n"), number("ids"), number("s"), number("low"), number("high"));
        totals.insert(value["k"].as_str().unwrap_or_default().to_owned(), total);
    }
    totals
}

fn difference(what: &str, found: &[i64], expected: &[i64]) -> String {
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    for id in found {
        *counts.entry(*id).or_default() += 1;
    }
    let missing: Vec<i64> = expected.iter().copied().filter(|id| !counts.contains_key(id)).collect();
    let twice: Vec<i64> = counts
        .iter()
        .filter(|(_, count)| 1 < **count)
        .map(|(id, _)| *id)
        .collect();
    format!(
        "{what}: {missing:?} are missing, {twice:?} stand more than once, of {}",
        expected.len()
    )
}
