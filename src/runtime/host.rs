//! What a running timeline takes from the machine: time, threads, and waiting.
//!
//! ```text
//! epochs, reader, sinks, checkpoints ─▶ Host ─┬─ threads of the system and a clock
//!                                             └─ one at a time by a seed, in simulated time (simulation/)
//! ```
//! Nothing else in this room starts a thread or waits, so that a simulation decides who runs when.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use super::clock::{Clock, Stopwatch};
use crate::types::{Error, EventTime, Result};

pub trait Host: Clock {
    /// Waits for so long.
    fn sleep(&self, duration: Duration);

    /// Runs `work` beside the caller.
    ///
    /// # Errors
    /// Where the system gives no more threads; `work` is gone then.
    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> Result<Box<dyn Worker>>;

    /// A bell by which threads tell each other that something has changed.
    fn bell(&self) -> Arc<dyn Bell>;

    /// A number that nobody else draws.
    fn nonce(&self) -> u64;
}

/// Work that runs beside.
pub trait Worker: Send {
    fn is_finished(&self) -> bool;

    /// Waits for its end; the message of its panic where it ended by one.
    fn join(self: Box<Self>) -> Result<(), String>;
}

/// Rings are counted, so that one between a look and the wait for the next is not missed.
pub trait Bell: Send + Sync {
    fn rings(&self) -> u64;

    fn ring(&self);

    /// Waits until it has rung more than `heard` times, at most for so long; returns what is left of that.
    fn wait(&self, heard: u64, at_most: Duration) -> Duration;
}

/// Looks until `ready` has something, at each ring and at the latest after `at_most`; `None` where it has not by then.
pub fn wait_for<T>(bell: &dyn Bell, at_most: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let mut left = at_most;
    loop {
        let heard = bell.rings();
        if let Some(found) = ready() {
            return Some(found);
        }
        if left.is_zero() {
            return None;
        }
        left = bell.wait(heard, left);
    }
}

/// Threads of the system beside a clock.
pub struct SystemHost(pub Arc<dyn Clock>);

impl Clock for SystemHost {
    fn now(&self) -> EventTime {
        self.0.now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Host for SystemHost {
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn spawn(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> Result<Box<dyn Worker>> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        let thread = thread.map_err(|e| Error::caused(format!("cannot start the thread `{name}`"), e))?;
        Ok(Box::new(SystemWorker(thread)))
    }

    fn bell(&self) -> Arc<dyn Bell> {
        Arc::new(SystemBell::default())
    }

    fn nonce(&self) -> u64 {
        rand::random()
    }
}

struct SystemWorker(JoinHandle<()>);

impl Worker for SystemWorker {
    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    fn join(self: Box<Self>) -> Result<(), String> {
        self.0.join().map_err(|panic| panic_message(&*panic).to_owned())
    }
}

pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic")
}

#[derive(Default)]
struct SystemBell {
    rings: Mutex<u64>,
    rung: Condvar,
}

impl Bell for SystemBell {
    fn rings(&self) -> u64 {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.rung.notify_all();
    }

    fn wait(&self, heard: u64, at_most: Duration) -> Duration {
        // Not the host's clock: who sets that by hand waits all the same.
        let waited = Stopwatch::start();
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.rung.wait_timeout_while(rings, at_most, |rings| *rings <= heard));
        at_most.saturating_sub(waited.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::SystemClock;

    #[test]
    fn a_ring_between_a_look_and_the_wait_is_heard() {
        let host = SystemHost(Arc::new(SystemClock::default()));
        let bell = host.bell();
        let heard = bell.rings();
        bell.ring();
        bell.wait(heard, Duration::MAX);
        let (ringing, found) = (Arc::clone(&bell), Arc::new(Mutex::new(None)));
        let put = Arc::clone(&found);
        let worker = host.spawn(
            "a worker",
            Box::new(move || {
                *put.lock().unwrap() = Some(7);
                ringing.ring();
            }),
        );
        let worker = worker.unwrap();
        let long = Duration::from_secs(60);
        assert_eq!(wait_for(&*bell, long, || *found.lock().unwrap()), Some(7));
        worker.join().unwrap();
        assert_eq!(wait_for::<()>(&*bell, Duration::ZERO, || None), None);
    }

    #[test]
    fn the_message_of_a_panic_is_told() {
        let host = SystemHost(Arc::new(SystemClock::default()));
        let worker = host.spawn("a worker", Box::new(|| panic!("on purpose"))).unwrap();
        assert_eq!(worker.join(), Err("on purpose".to_owned()));
    }
}
