//! What a Kafka client tells about its brokers: logs without floods, and sentences for people.
//!
//! ```text
//! librdkafka ─ log lines ──▶ tracing (the first of a kind; the rest at debug until the brokers are back)
//!            └ errors ─────▶ down? refused? why? ──▶ Failure ──▶ SourceError, Error
//! ```

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::pulse::Pulse;
use crate::{connector::SourceError, types::Error};

/// The context of one client. Its callbacks come from whoever serves the client's queues.
#[derive(Debug)]
pub(super) struct Connection {
    brokers: String,
    pulse: Pulse,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Something failed since a broker last answered a question. librdkafka does not always say when the last broker goes,
    /// so whoever depends on it must ask.
    is_suspect: bool,
    /// No broker answers, says librdkafka.
    is_down: bool,
    /// Why the last attempt failed.
    reason: Option<String>,
    /// The brokers answer, and do not let us in.
    refusal: Option<String>,
    /// They did before: a refusal passes once somebody sets a password right, here or there.
    was_let_in: bool,
    /// Kinds of log lines that were shown since the brokers last answered.
    shown: BTreeSet<String>,
}

/// Why something could not be done, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Passes by itself.
    Unreachable(String),
    /// Passes once somebody makes the topic.
    MissingTopic(String),
    /// Needs a person.
    Failed(String),
}

impl Connection {
    pub fn new(brokers: &str) -> Self {
        Self {
            brokers: brokers.to_owned(),
            pulse: Pulse::default(),
            state: Mutex::default(),
        }
    }

    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// No broker that was asked has answered for so long, or longer.
    pub fn silent(&self, silence_max: Duration) -> Failure {
        let (brokers, seconds) = (&self.brokers, silence_max.as_secs());
        Failure::Unreachable(format!(
            "Kafka at {brokers} has not answered for {seconds} s, though connections to it stand"
        ))
    }

    /// A broker has answered a question that was asked just now.
    pub fn answered(&self) {
        let mut state = self.state();
        // One broker of several may go on failing, and was shown.
        let shown = if state.is_down {
            BTreeSet::new()
        } else {
            std::mem::take(&mut state.shown)
        };
        *state = State {
            shown,
            was_let_in: state.was_let_in,
            ..State::default()
        };
    }

    /// From now on it passes that brokers do not let us in.
    pub fn let_in(&self) {
        self.state().was_let_in = true;
    }

    fn refused(&self, refusal: &str, was_let_in: bool) -> Failure {
        let sentence = format!("Kafka at {} does not let us in: {refusal}", self.brokers);
        match was_let_in {
            true => Failure::Unreachable(sentence),
            false => Failure::Failed(sentence),
        }
    }

    /// Whether to ask if the brokers are still there.
    pub fn is_suspect(&self) -> bool {
        self.state().is_suspect
    }

    pub fn suspect(&self) {
        self.state().is_suspect = true;
    }

    pub fn is_down(&self) -> bool {
        let state = self.state();
        state.is_down || state.refusal.is_some()
    }

    /// Why the brokers cannot be read.
    pub fn failure(&self) -> Failure {
        let state = self.state();
        let brokers = &self.brokers;
        match (&state.refusal, &state.reason) {
            (Some(refusal), _) => self.refused(refusal, state.was_let_in),
            (None, Some(reason)) => Failure::Unreachable(format!("Kafka at {brokers} does not answer: {reason}")),
            (None, None) => Failure::Unreachable(format!("Kafka at {brokers} does not answer")),
        }
    }

    pub fn missing_topic(&self, topic: &str) -> Failure {
        let brokers = &self.brokers;
        // The command line asks this one unless it is told otherwise.
        let option = if brokers == "localhost:9092" {
            String::new()
        } else {
            format!(" --brokers {brokers}")
        };
        Failure::MissingTopic(format!(
            "topic `{topic}` does not exist on {brokers}; create it with `zeta topics create {topic}{option}`"
        ))
    }

    /// What an error about `topic` means.
    pub fn explain(&self, topic: &str, error: RDKafkaErrorCode, detail: &str) -> Failure {
        use RDKafkaErrorCode::*;
        let brokers = &self.brokers;
        let detail = if detail.is_empty() {
            error.to_string()
        } else {
            plain(detail)
        };
        match error {
            UnknownTopicOrPartition | UnknownTopic | UnknownPartition => self.missing_topic(topic),
            BrokerTransportFailure | AllBrokersDown | Resolve | OperationTimedOut | RequestTimedOut | TimedOutQueue => {
                self.failure()
            }
            Authentication | SaslAuthenticationFailed => self.refused(&detail, self.state().was_let_in),
            TopicAuthorizationFailed => {
                Failure::Failed(format!("Kafka at {brokers} does not let us read topic `{topic}`"))
            }
            ClusterAuthorizationFailed | GroupAuthorizationFailed => {
                Failure::Failed(format!("Kafka at {brokers} does not allow this: {detail}"))
            }
            InvalidTopic => Failure::Failed(format!(
                "`{topic}` is not a name for a topic: letters, digits, `.`, `_` and `-`, at most 249"
            )),
            BadMessage | InvalidMessage | BadCompression | NotImplemented | UnsupportedFeature => {
                Failure::Failed(format!("topic `{topic}` cannot be read: {detail}"))
            }
            // Leaders that move, disks that are slow, coordinators that load: the client tries again by itself.
            _ => Failure::Unreachable(format!("topic `{topic}` cannot be read for now: {detail}")),
        }
    }

    /// What an error of a call means.
    pub fn explain_call(&self, topic: &str, error: &KafkaError) -> Failure {
        match error.rdkafka_error_code() {
            Some(code) => self.explain(topic, code, ""),
            None => Failure::Failed(super::config::sentence(error)),
        }
    }

    pub fn note_error(&self, code: RDKafkaErrorCode, detail: &str) {
        let mut state = self.state();
        state.is_suspect = true;
        match code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                state.refusal = Some(plain(detail))
            }
            // It says how many brokers are down; the reason came before.
            RDKafkaErrorCode::AllBrokersDown => state.is_down = true,
            _ => state.reason = Some(plain(detail)),
        }
    }

    /// Shows one line of librdkafka's log. `kind` is its word for where the line comes from, e.g. `FAIL`.
    pub fn note_log(&self, level: RDKafkaLogLevel, kind: &str, line: &str) {
        let brokers = self.brokers.as_str();
        if kind == "FAIL" {
            // A connection that was cut is a line of the log, and only the next attempt may be an error.
            self.suspect();
        }
        // Brokers that are still ending what a producer of this name began.
        let is_waiting = kind == "GETPID" && line.contains("retrying");
        match level {
            _ if is_waiting => tracing::debug!(brokers, kind, line, "kafka client"),
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::debug!(brokers, kind, line, "kafka client")
            }
            // A broker that is down is reported again and again, in words that differ a little.
            _ if !self.state().shown.insert(kind.to_owned()) => tracing::debug!(brokers, kind, line, "kafka client"),
            _ => tracing::warn!(brokers, kind, line, "kafka client"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every field is right by itself, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Connection {
    fn log(&self, level: RDKafkaLogLevel, kind: &str, line: &str) {
        self.note_log(level, kind, line);
    }

    fn error(&self, error: KafkaError, detail: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.note_error(code, detail);
        }
    }
}

impl From<Failure> for SourceError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable(sentence) | Failure::MissingTopic(sentence) => Self::Unreachable(sentence),
            Failure::Failed(sentence) => Self::Failed(sentence),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::MissingTopic(sentence) => Self::user(sentence),
            Failure::Unreachable(sentence) | Failure::Failed(sentence) => Self::external(sentence),
        }
    }
}

/// librdkafka's reason without the name of its connection and the state of its socket,
/// e.g. of `sasl_plaintext://a:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)`.
fn plain(detail: &str) -> String {
    let reason = detail.split_once(" (after ").map_or(detail, |(before, _)| before);
    let reason = match reason.split_once(": ") {
        Some((connection, after)) if connection.contains('/') && !connection.contains(' ') => after,
        _ => reason,
    };
    if reason.ends_with("failed: Connection refused") {
        return "connection refused".to_owned();
    }
    let mut reason = reason.trim().trim_end_matches(['.', ':', ',', ' ']).to_owned();
    let is_acronym = reason.chars().nth(1).is_none_or(|second| !second.is_lowercase());
    if !is_acronym && let Some(first) = reason.get_mut(0..1) {
        first.make_ascii_lowercase();
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_without_the_names_of_sockets() {
        for (detail, expected) in [
            (
                "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
                "connection refused",
            ),
            (
                "nowhere:9092/bootstrap: Failed to resolve 'nowhere:9092': Name or service not known (after 3ms in state CONNECT)",
                "failed to resolve 'nowhere:9092': Name or service not known",
            ),
            (
                "127.0.0.1:9092/1: Disconnected: verify that security.protocol is correctly configured (after 3ms in state UP)",
                "disconnected: verify that security.protocol is correctly configured",
            ),
            ("SASL authentication error: no", "SASL authentication error: no"),
            ("", ""),
        ] {
            assert_eq!(plain(detail), expected);
        }
    }

    #[test]
    fn a_lost_broker_keeps_its_reason_until_one_answers() {
        let connection = Connection::new("k:9092");
        assert!(!connection.is_down());
        connection.note_error(
            RDKafkaErrorCode::BrokerTransportFailure,
            "k:9092/bootstrap: Connect to ipv4#1.2.3.4:9092 failed: Connection refused",
        );
        assert!(!connection.is_down(), "it may be one broker of several");
        assert!(connection.is_suspect(), "or the only one");
        connection.note_error(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        assert!(connection.is_down());
        assert_eq!(
            connection.failure(),
            Failure::Unreachable("Kafka at k:9092 does not answer: connection refused".into())
        );
        connection.answered();
        assert!(!connection.is_down() && !connection.is_suspect());
        assert_eq!(
            connection.failure(),
            Failure::Unreachable("Kafka at k:9092 does not answer".into())
        );
    }

    #[test]
    fn a_wrong_password_needs_a_person() {
        let connection = Connection::new("k:9092");
        connection.note_error(RDKafkaErrorCode::Authentication, "Invalid username or password");
        assert_eq!(
            connection.failure(),
            Failure::Failed("Kafka at k:9092 does not let us in: invalid username or password".into())
        );
        connection.answered();
        connection.let_in();
        connection.answered();
        connection.note_error(RDKafkaErrorCode::Authentication, "Invalid username or password");
        let changed = Failure::Unreachable("Kafka at k:9092 does not let us in: invalid username or password".into());
        assert_eq!(
            connection.failure(),
            changed,
            "a password that was right before is set right again"
        );
        assert_eq!(
            connection.explain("t", RDKafkaErrorCode::Authentication, "Invalid username or password"),
            changed
        );
    }

    #[test]
    fn a_missing_topic_comes_with_the_command_that_makes_it() {
        let sentence = |brokers: &str| match Connection::new(brokers).explain(
            "x",
            RDKafkaErrorCode::UnknownTopicOrPartition,
            "",
        ) {
            Failure::MissingTopic(sentence) => sentence,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            sentence("localhost:9092"),
            "topic `x` does not exist on localhost:9092; create it with `zeta topics create x`"
        );
        assert_eq!(
            sentence("k:1"),
            "topic `x` does not exist on k:1; create it with `zeta topics create x --brokers k:1`"
        );
    }
}
