//! The only place that reads a clock.
#![allow(clippy::disallowed_methods)]

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use crate::types::EventTime;

/// Wall time for plans, monotonic time for waits. Tests and simulations bring their own.
pub trait Clock: Send + Sync {
    /// Wall time now.
    fn now(&self) -> EventTime;
    /// Time since some fixed moment; never goes back.
    fn elapsed(&self) -> Duration;
}

pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> EventTime {
        let since_1970 = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        EventTime(i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX))
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Time that moves when it is told to.
#[derive(Default)]
pub struct ManualClock {
    now_ns: AtomicI64,
}

impl ManualClock {
    pub fn at(time: EventTime) -> Self {
        Self {
            now_ns: AtomicI64::new(time.0),
        }
    }

    pub fn advance(&self, duration: Duration) {
        self.now_ns.fetch_add(duration.as_nanos() as i64, Ordering::SeqCst);
    }

    pub fn set(&self, time: EventTime) {
        self.now_ns.fetch_max(time.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> EventTime {
        EventTime(self.now_ns.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Ordering::SeqCst).max(0) as u64)
    }
}

/// A stopwatch for metrics and progress lines.
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
