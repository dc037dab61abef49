//! Brokers that carry out transactions by the rules of the protocol that librdkafka speaks.
//!
//! ```text
//! producer ─ send, flush ─▶ log: open ─ EndTxn ─▶ committed | aborted        fence: a new epoch of the producer, what is open is aborted
//! ```
//! An EndTxn may be carried out long after it was asked. It is for the producer's epoch, not for one transaction: where that producer
//! has begun another one meanwhile, it ends that one (KAFKA-17754).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::scheduler::{Life, Scheduler};
use crate::connector::{
    SinkError,
    kafka::{Broker, Producing, Target},
};

/// After which brokers abort a transaction that nobody ended.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(4);
/// How late an EndTxn may come.
const LATE: Duration = Duration::from_secs(6);
/// How long a request takes at most where nothing is wrong.
const CALL: Duration = Duration::from_millis(50);
/// How long a client waits for an answer.
const ANSWER: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

#[derive(Clone)]
pub struct Written {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    transaction: usize,
}

/// What happened to one sink.
#[derive(Default)]
struct Log {
    rows: Vec<Written>,
    markers: Vec<Written>,
    transactions: Vec<Fate>,
    open: Option<(usize, Duration)>,
    /// Of the producer that may write.
    epoch: u64,
    /// Asked and not carried out yet: when, by which epoch.
    late: Vec<(Duration, u64)>,
    counts: Counts,
}

/// That faults were really met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub aborted: u64,
    pub fenced: u64,
    pub late: u64,
    pub unanswered: u64,
}

#[derive(Default)]
struct Contents {
    logs: BTreeMap<String, Log>,
    is_down: bool,
    fails: f64,
    is_late: bool,
}

#[derive(Clone)]
pub struct Brokers {
    scheduler: Scheduler,
    contents: Arc<Mutex<Contents>>,
}

impl Brokers {
    pub fn new(scheduler: &Scheduler) -> Self {
        Self {
            scheduler: scheduler.clone(),
            contents: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_faults(&self, fails: f64, is_down: bool, is_late: bool) {
        let mut contents = self.lock();
        (contents.fails, contents.is_down, contents.is_late) = (fails, is_down, is_late);
    }

    pub fn of(&self, sink: &str, life: Life) -> SimulatedBroker {
        SimulatedBroker {
            brokers: self.clone(),
            sink: sink.to_owned(),
            life,
        }
    }

    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for log in self.lock().logs.values() {
            sum.aborted += log.counts.aborted;
            sum.fenced += log.counts.fenced;
            sum.late += log.counts.late;
            sum.unanswered += log.counts.unanswered;
        }
        sum
    }

    /// What a reader of committed records has: each transaction's records of a sink.
    pub fn committed(&self, sink: &str) -> Vec<Written> {
        let now = self.scheduler.now();
        let mut contents = self.lock();
        let Some(log) = contents.logs.get_mut(sink) else {
            return Vec::new();
        };
        log.settle(now);
        let rows = log.rows.iter();
        rows.filter(|row| log.transactions[row.transaction] == Fate::Committed)
            .cloned()
            .collect()
    }

    /// Whether a transaction is open now.
    pub fn is_publishing(&self) -> bool {
        self.lock().logs.values().any(|log| log.open.is_some())
    }

    /// A call takes a moment and may find nobody, or lose its answer.
    fn call(&self, sink: &str, what: &str) -> Result<Call, SinkError> {
        self.scheduler.sleep(self.scheduler.delay(CALL));
        self.scheduler.note(|| format!("sink {sink} {what}"));
        match self.fate(sink) {
            None => {
                self.scheduler.sleep(ANSWER);
                Err(unreachable())
            }
            Some(Call::Late) => Ok(Call::Unanswered),
            Some(call) => Ok(call),
        }
    }

    /// What becomes of a request; `None`: it never arrives.
    fn fate(&self, sink: &str) -> Option<Call> {
        let now = self.scheduler.now();
        let (fails, is_down, is_late) = {
            let mut contents = self.lock();
            contents.logs.entry(sink.to_owned()).or_default().settle(now);
            (contents.fails, contents.is_down, contents.is_late)
        };
        if is_down {
            return None;
        }
        if !self.scheduler.chance(fails) {
            return Some(Call::Answered);
        }
        match self.scheduler.draw(3) {
            0 => None,
            1 if is_late => Some(Call::Late),
            _ => Some(Call::Unanswered),
        }
    }
}

enum Call {
    Answered,
    /// Carried out now, and the client does not hear of it.
    Unanswered,
    /// Carried out later.
    Late,
}

fn unreachable() -> SinkError {
    SinkError::Unreachable("the simulated brokers do not answer".into())
}

fn fenced() -> SinkError {
    SinkError::Fenced("the simulated producer is fenced".into())
}

impl Log {
    /// Carries out what is due by now, in its order.
    fn settle(&mut self, now: Duration) {
        let (mut due, later): (Vec<_>, Vec<_>) = self.late.drain(..).partition(|(at, _)| *at <= now);
        self.late = later;
        due.sort_unstable();
        for (at, epoch) in due {
            self.time_out(at);
            if epoch == self.epoch
                && let Some((transaction, _)) = self.open.take()
            {
                self.transactions[transaction] = Fate::Committed;
            }
        }
        self.time_out(now);
    }

    fn time_out(&mut self, now: Duration) {
        if self.open.is_some_and(|(_, since)| since + TRANSACTION_TIMEOUT <= now) {
            self.abort();
            self.epoch += 1;
        }
    }

    fn abort(&mut self) {
        if let Some((transaction, _)) = self.open.take() {
            self.transactions[transaction] = Fate::Aborted;
            self.counts.aborted += 1;
        }
    }
}

pub struct SimulatedBroker {
    brokers: Brokers,
    sink: String,
    life: Life,
}

impl Broker for SimulatedBroker {
    type Producer = SimulatedProducer;

    fn find_topics(&mut self) -> Result<(), SinkError> {
        match self.brokers.call(&self.sink, "looks for topics")? {
            Call::Answered => Ok(()),
            _ => Err(unreachable()),
        }
    }

    fn producer(&mut self) -> Result<SimulatedProducer, SinkError> {
        let call = self.brokers.call(&self.sink, "fences")?;
        let epoch = {
            let mut contents = self.brokers.lock();
            let log = contents.logs.get_mut(&self.sink).expect("made by the call");
            log.abort();
            log.epoch += 1;
            log.epoch
        };
        match call {
            Call::Answered => Ok(SimulatedProducer {
                brokers: self.brokers.clone(),
                sink: self.sink.clone(),
                epoch,
                life: self.life,
                unsent: Vec::new(),
                is_in_doubt: false,
            }),
            _ => Err(unreachable()),
        }
    }

    fn newest_marker(&mut self, is_fenced: bool) -> Result<Option<Vec<u8>>, SinkError> {
        let Call::Answered = self.brokers.call(&self.sink, "reads the marker")? else {
            return Err(unreachable());
        };
        let comes_now = self.brokers.scheduler.chance(0.5);
        let now = self.brokers.scheduler.now();
        let mut contents = self.brokers.lock();
        let log = contents.logs.get_mut(&self.sink).expect("made by the call");
        if comes_now {
            // What is on its way arrives right behind this look.
            log.late.iter_mut().for_each(|(at, _)| *at = now);
        }
        let mut newest = None;
        for marker in &log.markers {
            match log.transactions[marker.transaction] {
                Fate::Committed => newest.clone_from(&marker.value),
                Fate::Aborted => {}
                // A reader of committed records does not come past an open transaction; who fenced waits for its end.
                Fate::Open if is_fenced => return Err(unreachable()),
                Fate::Open => break,
            }
        }
        Ok(newest)
    }
}

pub struct SimulatedProducer {
    brokers: Brokers,
    sink: String,
    epoch: u64,
    life: Life,
    unsent: Vec<(Target, Written)>,
    is_in_doubt: bool,
}

impl SimulatedProducer {
    /// # Errors
    /// Where another producer took its place.
    fn log<'c>(&self, contents: &'c mut Contents) -> Result<&'c mut Log, SinkError> {
        let log = contents.logs.get_mut(&self.sink).expect("made by the first call");
        match log.epoch == self.epoch {
            true => Ok(log),
            false => {
                log.counts.fenced += 1;
                Err(fenced())
            }
        }
    }
}

impl Producing for SimulatedProducer {
    fn begin(&mut self) -> Result<(), SinkError> {
        self.unsent.clear();
        Ok(())
    }

    fn send(&mut self, to: Target, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), SinkError> {
        let written = Written {
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            transaction: usize::MAX,
        };
        self.unsent.push((to, written));
        // Brokers get some of it before the flush.
        match self.brokers.scheduler.chance(0.02) {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let call = self.brokers.call(&self.sink, "sends")?;
        let now = self.brokers.scheduler.now();
        let sent = match call {
            Call::Answered => self.unsent.len(),
            Call::Unanswered | Call::Late => self.brokers.scheduler.draw(self.unsent.len() as u64 + 1) as usize,
        };
        {
            let mut contents = self.brokers.lock();
            let log = self.log(&mut contents)?;
            let transaction = match log.open {
                Some((transaction, _)) => transaction,
                None => {
                    log.transactions.push(Fate::Open);
                    log.open = Some((log.transactions.len() - 1, now));
                    log.transactions.len() - 1
                }
            };
            for (to, mut written) in self.unsent.drain(..sent) {
                written.transaction = transaction;
                match to {
                    Target::Rows => log.rows.push(written),
                    Target::Markers => log.markers.push(written),
                }
            }
            if !matches!(call, Call::Answered) {
                log.counts.unanswered += 1;
            }
        }
        match call {
            Call::Answered => Ok(()),
            Call::Unanswered | Call::Late => {
                self.is_in_doubt = true;
                Err(unreachable())
            }
        }
    }

    fn commit(&mut self) -> Result<(), SinkError> {
        let scheduler = self.brokers.scheduler.clone();
        scheduler.note(|| format!("sink {} commits in life {}", self.sink, self.life));
        let Some(call) = self.brokers.fate(&self.sink) else {
            self.is_in_doubt = true;
            scheduler.sleep(ANSWER);
            return Err(unreachable());
        };
        // It is on its way: also where nobody waits for its answer any more.
        let takes = match call {
            // About when whoever waited for it looks what became of it, or long after.
            Call::Late if scheduler.chance(0.5) => ANSWER + scheduler.delay(4 * CALL),
            Call::Late => scheduler.delay(LATE),
            Call::Answered | Call::Unanswered => scheduler.delay(CALL),
        };
        {
            let due = scheduler.now() + takes;
            let mut contents = self.brokers.lock();
            let log = contents.logs.get_mut(&self.sink).expect("made by the first call");
            log.late.push((due, self.epoch));
            if !matches!(call, Call::Answered) {
                log.counts.unanswered += 1;
            }
            if matches!(call, Call::Late) {
                log.counts.late += 1;
            }
        }
        match call {
            Call::Answered => {
                scheduler.sleep(takes);
                let mut contents = self.brokers.lock();
                contents
                    .logs
                    .get_mut(&self.sink)
                    .expect("made by the first call")
                    .settle(scheduler.now());
                self.log(&mut contents).map(drop)
            }
            Call::Unanswered | Call::Late => {
                self.is_in_doubt = true;
                scheduler.sleep(ANSWER);
                Err(unreachable())
            }
        }
    }

    fn doubt(&mut self) -> Result<(), SinkError> {
        match self.is_in_doubt {
            true => Err(unreachable()),
            false => Ok(()),
        }
    }
}
