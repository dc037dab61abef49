//! One thread at a time, chosen by a seed, in simulated time.
//!
//! ```text
//! thread A ─ sleeps, waits for a bell, or calls the world ─▶ who is next? (seed) ─▶ thread B …      nobody can: time goes on to the next who will
//! ```
//! The threads are real, but only the one with the turn runs, so that a seed decides all that happens and the same seed does it again.
//! A life is killed by taking the turn away from its threads for ever: each unwinds where it waits.

use std::{
    cell::Cell,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    runtime::{
        clock::Clock,
        host::{Bell, Host, Worker, panic_message},
    },
    types::EventTime,
};

/// When simulated time begins: 2024-01-01.
const BEGINNING: i64 = 1_704_067_200_000_000_000;
/// Turns of a seed; one that needs more turns in a circle.
const TURNS_MAX: u64 = 3_000_000;
/// Lines of the end of a trace that are kept.
const TRACE_KEPT: usize = 4_000;

type Id = u64;

/// Which start of the engine a thread belongs to; 0 is the world around.
pub type Life = u64;

/// What a thread that was killed unwinds with.
struct Killed;

thread_local! {
    static OWN: Cell<Id> = const { Cell::new(0) };
}

enum State {
    Ready,
    Sleeping(Duration),
    Listening { bell: usize, heard: u64, until: Duration },
    Done(Result<(), String>),
}

struct Thread {
    name: String,
    life: Life,
    state: State,
    turn: Arc<Condvar>,
}

struct Schedule {
    rng: ChaCha8Rng,
    now: Duration,
    threads: BTreeMap<Id, Thread>,
    next_id: Id,
    running: Id,
    bells: Vec<u64>,
    killed: Vec<Life>,
    /// Threads of a life do not run before.
    paused: BTreeMap<Life, Duration>,
    turns: u64,
    /// Why it cannot go on.
    is_stuck: Option<&'static str>,
    trace: u64,
    lines: std::collections::VecDeque<String>,
}

/// The schedule of one seed.
#[derive(Clone)]
pub struct Scheduler(Arc<Mutex<Schedule>>);

impl Scheduler {
    /// The caller has the first turn, as a thread of the world.
    pub fn new(seed: u64) -> Self {
        OWN.set(0);
        let world = Thread {
            name: "world".into(),
            life: 0,
            state: State::Ready,
            turn: Arc::default(),
        };
        Self(Arc::new(Mutex::new(Schedule {
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: Duration::ZERO,
            threads: BTreeMap::from([(0, world)]),
            next_id: 1,
            running: 0,
            bells: Vec::new(),
            killed: Vec::new(),
            paused: BTreeMap::new(),
            turns: 0,
            is_stuck: None,
            trace: 0,
            lines: std::collections::VecDeque::new(),
        })))
    }

    pub fn host(&self, life: Life) -> Arc<dyn Host> {
        Arc::new(SimulatedHost {
            scheduler: self.clone(),
            life,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> Duration {
        self.lock().now
    }

    /// A number below `bound`.
    pub fn draw(&self, bound: u64) -> u64 {
        self.lock().rng.random_range(0..bound.max(1))
    }

    pub fn chance(&self, probability: f64) -> bool {
        self.lock().rng.random_bool(probability.clamp(0.0, 1.0))
    }

    /// Up to `most`, rather short than long.
    pub fn delay(&self, most: Duration) -> Duration {
        let part: f64 = self.lock().rng.random();
        most.mul_f64(part * part * part)
    }

    /// Notes what happened.
    pub fn note(&self, what: impl FnOnce() -> String) {
        let mut schedule = self.lock();
        let line = format!(
            "{:>12.6} {} {}",
            schedule.now.as_secs_f64(),
            schedule.threads[&schedule.running].name,
            what()
        );
        schedule.trace = (schedule.trace.rotate_left(5) ^ u64::from(crc32c::crc32c(line.as_bytes())))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        if schedule.lines.len() == TRACE_KEPT {
            schedule.lines.pop_front();
        }
        schedule.lines.push_back(line);
    }

    /// A number for everything that happened, and the end of it.
    pub fn trace(&self) -> (u64, Vec<String>) {
        let schedule = self.lock();
        (schedule.trace, schedule.lines.iter().cloned().collect())
    }

    /// Waits for so long; others run.
    pub fn sleep(&self, duration: Duration) {
        let until = self.lock().now.saturating_add(duration);
        self.give_turn(State::Sleeping(until));
    }

    /// Threads of a life do not run for so long.
    pub fn pause(&self, life: Life, duration: Duration) {
        let mut schedule = self.lock();
        let until = schedule.now + duration;
        schedule.paused.insert(life, until);
    }

    /// Ends a life wherever it is, and returns once all its threads are gone.
    pub fn kill(&self, life: Life) {
        self.lock().killed.push(life);
        loop {
            {
                let mut schedule = self.lock();
                schedule.paused.remove(&life);
                let mut left = schedule.threads.values_mut().filter(|thread| thread.life == life);
                if left.all(|thread| matches!(thread.state, State::Done(_))) {
                    schedule.threads.retain(|_, thread| thread.life != life);
                    return;
                }
            }
            self.sleep(Duration::ZERO);
        }
    }

    /// Whether a life has no thread any more that will run.
    pub fn is_over(&self, life: Life) -> bool {
        let schedule = self.lock();
        let mut threads = schedule.threads.values().filter(|thread| thread.life == life);
        threads.all(|thread| matches!(thread.state, State::Done(_)))
    }

    /// Lets another thread run until this one may again.
    fn give_turn(&self, state: State) {
        if std::thread::panicking() {
            return;
        }
        let own = OWN.get();
        let mut schedule = self.lock();
        assert_eq!(schedule.running, own, "only the thread with the turn runs");
        let thread = schedule.threads.get_mut(&own).expect("this thread is known");
        thread.state = state;
        let turn = Arc::clone(&thread.turn);
        schedule.choose();
        while schedule.running != own {
            schedule = turn.wait(schedule).unwrap_or_else(PoisonError::into_inner);
        }
        let life = schedule.threads[&own].life;
        let is_killed = schedule.killed.contains(&life);
        let is_stuck = schedule.is_stuck;
        drop(schedule);
        if let Some(reason) = is_stuck {
            panic!("{reason}");
        }
        if is_killed {
            resume_unwind(Box::new(Killed));
        }
    }

    fn spawn(&self, name: &str, life: Life, work: Box<dyn FnOnce() + Send>) -> Id {
        let id = {
            let mut schedule = self.lock();
            let id = schedule.next_id;
            schedule.next_id += 1;
            let thread = Thread {
                name: format!("{life} {name}"),
                life,
                state: State::Ready,
                turn: Arc::default(),
            };
            schedule.threads.insert(id, thread);
            id
        };
        let scheduler = self.clone();
        let run = move || {
            OWN.set(id);
            let is_killed = {
                let mut schedule = scheduler.lock();
                let turn = Arc::clone(&schedule.threads[&id].turn);
                while schedule.running != id {
                    schedule = turn.wait(schedule).unwrap_or_else(PoisonError::into_inner);
                }
                schedule.killed.contains(&life)
            };
            let outcome = match is_killed {
                true => Ok(()),
                false => catch_unwind(AssertUnwindSafe(work)),
            };
            let mut schedule = scheduler.lock();
            let outcome = outcome.map_err(|panic| match panic.is::<Killed>() {
                true => "killed".to_owned(),
                false => panic_message(&*panic).to_owned(),
            });
            schedule.threads.get_mut(&id).expect("this thread is known").state = State::Done(outcome);
            schedule.choose();
        };
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        drop(started.expect("the system can start a thread"));
        id
    }
}

impl Schedule {
    /// The world has the last turn.
    fn give_up(&mut self, reason: &'static str) {
        self.is_stuck = Some(reason);
        self.running = 0;
        self.threads[&0].turn.notify_all();
    }

    /// Gives the turn to one of those that can run.
    fn choose(&mut self) {
        self.turns += 1;
        if TURNS_MAX <= self.turns {
            return self.give_up("there is no end: it turns in a circle");
        }
        loop {
            let (mut ready, mut next) = (Vec::new(), Duration::MAX);
            for (id, thread) in &self.threads {
                let is_killed = self.killed.contains(&thread.life);
                let mut from = match &thread.state {
                    State::Done(_) => continue,
                    _ if is_killed => self.now,
                    State::Ready => self.now,
                    State::Sleeping(until) => *until,
                    State::Listening { bell, heard, until } => match *heard < self.bells[*bell] {
                        true => self.now,
                        false => *until,
                    },
                };
                if let Some(paused) = self.paused.get(&thread.life) {
                    from = from.max(*paused);
                }
                match from <= self.now {
                    true => ready.push(*id),
                    false => next = next.min(from),
                }
            }
            if let Some(chosen) = ready.choose(&mut self.rng) {
                self.running = *chosen;
                let thread = self.threads.get_mut(chosen).expect("chosen above");
                thread.state = State::Ready;
                thread.turn.notify_all();
                return;
            }
            if next == Duration::MAX {
                return self.give_up("every thread waits for another");
            }
            self.now = next;
        }
    }
}

struct SimulatedHost {
    scheduler: Scheduler,
    life: Life,
}

impl Clock for SimulatedHost {
    fn now(&self) -> EventTime {
        EventTime(BEGINNING + self.scheduler.now().as_nanos() as i64)
    }

    fn elapsed(&self) -> Duration {
        self.scheduler.now()
    }
}

impl Host for SimulatedHost {
    fn sleep(&self, duration: Duration) {
        self.scheduler.sleep(duration);
    }

    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> crate::types::Result<Box<dyn Worker>> {
        let id = self.scheduler.spawn(name, self.life, work);
        Ok(Box::new(SimulatedWorker {
            scheduler: self.scheduler.clone(),
            id,
        }))
    }

    fn bell(&self) -> Arc<dyn Bell> {
        let mut schedule = self.scheduler.lock();
        schedule.bells.push(0);
        Arc::new(SimulatedBell {
            scheduler: self.scheduler.clone(),
            number: schedule.bells.len() - 1,
        })
    }

    fn nonce(&self) -> u64 {
        self.scheduler.draw(u64::MAX)
    }
}

struct SimulatedWorker {
    scheduler: Scheduler,
    id: Id,
}

impl Worker for SimulatedWorker {
    fn is_finished(&self) -> bool {
        let schedule = self.scheduler.lock();
        (schedule.threads.get(&self.id)).is_none_or(|thread| matches!(thread.state, State::Done(_)))
    }

    fn join(self: Box<Self>) -> Result<(), String> {
        loop {
            match self.scheduler.lock().threads.get(&self.id).map(|thread| &thread.state) {
                Some(State::Done(outcome)) => return outcome.clone(),
                None => return Ok(()),
                Some(_) => {}
            }
            self.scheduler.sleep(Duration::from_millis(1));
        }
    }
}

struct SimulatedBell {
    scheduler: Scheduler,
    number: usize,
}

impl Bell for SimulatedBell {
    fn rings(&self) -> u64 {
        self.scheduler.lock().bells[self.number]
    }

    fn ring(&self) {
        self.scheduler.lock().bells[self.number] += 1;
    }

    fn wait(&self, heard: u64, at_most: Duration) -> Duration {
        let until = self.scheduler.now().saturating_add(at_most);
        self.scheduler.give_turn(State::Listening {
            bell: self.number,
            heard,
            until,
        });
        until.saturating_sub(self.scheduler.now())
    }
}
