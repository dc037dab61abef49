//! When brokers were asked and when they answered, as librdkafka's own threads tell it.
//!
//! ```text
//! request for records sent ─▶ asked[broker]           answer ─▶ life: somebody is there
//! answer about topics ─▶ one more: the client may know another topic under this name now
//! ```
//! A broker that is frozen breaks no connection, and librdkafka says nothing for a minute: only this tells.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Numbers of requests in Kafka's protocol.
const FETCH: i16 = 1;
const METADATA: i16 = 3;

#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Answers about topics. Each may tell the client another id of a topic, and nothing else does.
    topic_answers: AtomicU64,
    beats: Mutex<Beats>,
}

#[derive(Debug, Default)]
struct Beats {
    /// Brokers that were asked for records and have not answered, by their ids, and when.
    asked: BTreeMap<i32, Instant>,
    /// When a broker answered last.
    life: Option<Instant>,
}

impl Pulse {
    pub fn note_request(&self, broker: i32, api: i16) {
        if api == FETCH {
            self.beats().asked.insert(broker, now());
        }
    }

    /// `is_good`: the broker answered; else the request failed, by a connection that was lost, say.
    pub fn note_answer(&self, broker: i32, api: i16, is_good: bool) {
        if !is_good {
            return;
        }
        if api == METADATA {
            self.topic_answers.fetch_add(1, Ordering::SeqCst);
        }
        let mut beats = self.beats();
        if api == FETCH {
            beats.asked.remove(&broker);
        }
        beats.life = Some(now());
    }

    pub fn topic_answers(&self) -> u64 {
        self.topic_answers.load(Ordering::SeqCst)
    }

    /// For how long every broker that was asked for records has been silent; zero where one answered just now, or none was asked.
    pub fn silence(&self) -> Duration {
        let beats = self.beats();
        // One that was asked later may still answer in time.
        let Some(asked_last) = beats.asked.values().max() else {
            return Duration::ZERO;
        };
        let since = beats.life.map_or(*asked_last, |life| life.max(*asked_last));
        now().saturating_duration_since(since)
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        // Both fields are right by themselves.
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "whether a broker answers is a matter of the machine's clock, and is not data"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_that_of_all_brokers_that_were_asked_for_records() {
        let pulse = Pulse::default();
        assert_eq!(pulse.silence(), Duration::ZERO, "nobody was asked");
        pulse.note_request(1, METADATA);
        assert_eq!(pulse.silence(), Duration::ZERO, "nobody was asked for records");
        pulse.note_request(1, FETCH);
        let first = silence_of(&pulse);
        pulse.note_answer(1, FETCH, false);
        assert!(first < silence_of(&pulse), "a lost connection is no answer");
        pulse.note_request(2, FETCH);
        pulse.note_answer(2, FETCH, true);
        assert!(
            pulse.beats().asked.contains_key(&1),
            "one of two goes on, and the other is asked still"
        );
        pulse.note_answer(1, FETCH, true);
        assert_eq!(pulse.silence(), Duration::ZERO);
    }

    #[test]
    fn answers_about_topics_are_counted_and_failed_ones_are_not() {
        let pulse = Pulse::default();
        pulse.note_answer(1, METADATA, true);
        pulse.note_answer(1, METADATA, false);
        pulse.note_answer(1, FETCH, true);
        assert_eq!(pulse.topic_answers(), 1);
    }

    /// Longer than at the call before, whatever the clock's grain.
    fn silence_of(pulse: &Pulse) -> Duration {
        let before = pulse.silence();
        loop {
            let silence = pulse.silence();
            if before < silence {
                return silence;
            }
        }
    }
}
