//! `/api/v1/ws`: one task for each socket, which sends what its subscriptions ask for.
//!
//! ```text
//!            ┌── message ──▶ subscribe, unsubscribe, ping
//!  select ◀──┼── a subscription's view changed ──▶ feed: delta since the epoch it last sent ──▶ send, at most 30 s
//!            ├── ping every 20 s, silence for 60 s ends it
//!            └── shutdown
//! ```
//! While a send is blocked nothing is queued here: the view's log holds the changes, and they come merged when the reader is back.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code, rejection::WebSocketUpgradeRejection},
    },
    http::HeaderMap,
    response::Response,
};
use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Abortable, BoxFuture},
    stream::FuturesUnordered,
};
use prometheus::IntGauge;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::debug;

use crate::{
    runtime::{Published, ViewReader, clock::Stopwatch},
    types::{Epoch, Error, Result, Watermark, limits},
};

use super::{
    App,
    dto::{ClientMessage, Column, MessageId, ServerMessage, Subscribe},
    feed::{Delta, DeltaKey, Feed},
    filter::Filter,
    origin,
    problem::Refusal,
    token::Token,
};

const PROTOCOL: &str = "zeta.v1";
/// Changed rows from which encoding leaves the thread to others.
const ROWS_BESIDE: usize = 10_000;
/// How long a client may take to close what we close; one that takes nothing does not take this either.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

pub async fn upgrade(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    origin::check(&headers, &app.allowed_origins)?;
    let upgrade =
        upgrade.map_err(|error| Refusal::parameter(error.body_text()).help("this address speaks WebSocket"))?;
    let mut upgrade = upgrade
        .max_message_size(limits::SOCKET_MESSAGE_BYTES_MAX)
        .max_frame_size(limits::SOCKET_MESSAGE_BYTES_MAX);
    if upgrade.requested_protocols().next().is_some() {
        upgrade = upgrade.protocols([PROTOCOL]);
        if upgrade.selected_protocol().is_none() {
            return Err(
                Refusal::parameter("none of the sub-protocols is ours").help(format!("sub-protocol: {PROTOCOL}"))
            );
        }
    }
    let slot = Arc::clone(&app.sockets)
        .try_acquire_owned()
        .map_err(|_| Refusal::busy("too many sockets are open"))?;
    let task = app.tasks.token();
    Ok(upgrade
        .on_failed_upgrade(|error| debug!(%error, "socket not opened"))
        .on_upgrade(async move |socket| {
            let (_slot, _task) = (slot, task);
            Session::new(app, socket).run().await;
        }))
}

/// Why a session is over.
enum End {
    /// The client closed, or the connection broke.
    Gone,
    /// The client takes nothing.
    Stalled,
    /// The client says nothing, not even to a ping.
    Silent,
    /// The client sent what is no message of ours.
    Refused,
    Shutdown,
}

type Step = Result<(), End>;

struct Session {
    app: Arc<App>,
    socket: WebSocket,
    /// By the client's ids. A subscription itself lives in `waits` while it waits.
    subscriptions: HashMap<String, AbortHandle>,
    waits: FuturesUnordered<Abortable<BoxFuture<'static, (Subscription, bool)>>>,
    heard: Stopwatch,
}

struct Subscription {
    id: String,
    feed: Arc<Feed>,
    reader: ViewReader,
    snapshot_rows: Option<usize>,
    /// Up to where the client knows the view, or would if it were told.
    epoch: Epoch,
    watermark: Watermark,
    /// The client was not told of `epoch` and `watermark` yet, as no rows came with them.
    is_progress_due: bool,
    /// Since the last message.
    sent: Stopwatch,
    _counted: Counted,
}

/// A subscription in the gauge, for as long as it lives.
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Subscription {
    /// Waits for something to say; `false` when nothing will come any more.
    async fn wait(mut self) -> (Self, bool) {
        let is_alive = match self.is_progress_due {
            false => self.reader.changed().await,
            true => {
                let rest = limits::SOCKET_PROGRESS_INTERVAL.saturating_sub(self.sent.elapsed());
                tokio::select! {
                    is_alive = self.reader.changed() => is_alive,
                    () = tokio::time::sleep(rest) => true,
                }
            }
        };
        (self, is_alive)
    }

    fn told(&mut self) {
        self.is_progress_due = false;
        self.sent = Stopwatch::start();
    }
}

impl Session {
    fn new(app: Arc<App>, socket: WebSocket) -> Self {
        Self {
            app,
            socket,
            subscriptions: HashMap::new(),
            waits: FuturesUnordered::new(),
            heard: Stopwatch::start(),
        }
    }

    async fn run(mut self) {
        let Err(end) = self.converse().await;
        let close = match end {
            End::Gone => None,
            End::Stalled => Some((close_code::AGAIN, "you take nothing")),
            End::Silent => Some((close_code::AWAY, "you say nothing")),
            End::Refused => Some((close_code::SIZE, "text messages of at most 64 KiB")),
            End::Shutdown => Some((close_code::RESTART, "the server goes away")),
        };
        debug!(
            code = close.map(|(code, _)| code),
            subscriptions = self.subscriptions.len(),
            "socket closed"
        );
        if let Some((code, reason)) = close {
            let close = Message::Close(Some(CloseFrame {
                code,
                reason: reason.into(),
            }));
            let taken = timeout(CLOSE_WAIT, async move {
                self.socket.send(close).await?;
                // Until the client has closed too: leaving earlier may cost it what it has not read yet.
                while let Some(Ok(_)) = self.socket.recv().await {}
                Ok::<_, axum::Error>(())
            });
            if !matches!(taken.await, Ok(Ok(()))) {
                debug!(code, "close not taken");
            }
        }
    }

    async fn converse(&mut self) -> Result<Infallible, End> {
        let closing = self.app.closing.clone();
        let mut pings = interval(limits::SOCKET_PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        loop {
            tokio::select! {
                () = closing.cancelled() => {
                    let after = u64::try_from(limits::SOCKET_RECONNECT_AFTER.as_millis()).expect("a short time");
                    self.say(&ServerMessage::Shutdown { reconnect_after_ms: after }).await?;
                    return Err(End::Shutdown);
                }
                message = self.socket.recv() => {
                    self.heard = Stopwatch::start();
                    match message {
                        Some(Ok(message)) => self.take(message).await?,
                        // Too long, or not UTF-8: the connection cannot go on after it.
                        Some(Err(error)) => {
                            debug!(%error, "message not read");
                            return Err(End::Refused);
                        }
                        None => return Err(End::Gone),
                    }
                }
                Some(woken) = self.waits.next(), if !self.waits.is_empty() => {
                    // An aborted wait was unsubscribed.
                    if let Ok((subscription, is_alive)) = woken {
                        self.follow(subscription, is_alive).await?;
                    }
                }
                _ = pings.tick() => {
                    if limits::SOCKET_SILENCE_MAX < self.heard.elapsed() {
                        return Err(End::Silent);
                    }
                    self.send(Message::Ping(bytes::Bytes::new())).await?;
                }
            }
        }
    }

    async fn take(&mut self, message: Message) -> Step {
        let text = match message {
            Message::Text(text) => text,
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
            Message::Close(_) => return Err(End::Gone),
            Message::Binary(_) => return Err(End::Refused),
        };
        match serde_json::from_str(&text) {
            Ok(ClientMessage::Ping {}) => self.say(&ServerMessage::Pong).await,
            Ok(ClientMessage::Unsubscribe { id }) => {
                // It may have completed while the message was under way: then there is nothing to do.
                if let Some(wait) = self.subscriptions.remove(&id) {
                    wait.abort();
                }
                Ok(())
            }
            Ok(ClientMessage::Subscribe(request)) => {
                let id = request.id.clone();
                match self.subscribe(request) {
                    Ok((subscription, resume)) => self.begin(subscription, resume).await,
                    Err(refusal) => self.refuse(Some(&id), &refusal).await,
                }
            }
            Err(error) => {
                let id = serde_json::from_str::<MessageId>(&text)
                    .ok()
                    .and_then(|message| message.id);
                let refusal = Refusal::parameter(format!("the message cannot be read: {error}"))
                    .help("messages: subscribe, unsubscribe, ping");
                self.refuse(id.as_deref(), &refusal).await
            }
        }
    }

    /// Checks a request; the epoch to resume after, where the token is one of this view and run.
    fn subscribe(&self, request: Subscribe) -> Result<(Subscription, Resume), Refusal> {
        if limits::SUBSCRIPTION_ID_BYTES_MAX < request.id.len() {
            return Err(Refusal::parameter(format!(
                "an id has at most {} bytes",
                limits::SUBSCRIPTION_ID_BYTES_MAX
            )));
        }
        if self.subscriptions.contains_key(&request.id) {
            return Err(Refusal::parameter(format!("the id {} is in use", request.id))
                .help("unsubscribe first, or choose another"));
        }
        if limits::SUBSCRIPTIONS_PER_SOCKET_MAX <= self.subscriptions.len() {
            return Err(Refusal::busy(format!(
                "a socket has at most {} subscriptions",
                limits::SUBSCRIPTIONS_PER_SOCKET_MAX
            )));
        }
        let token = match &request.resume {
            None => None,
            Some(text) => Some(Token::parse(text).ok_or_else(|| Refusal::parameter("resume is not a token of ours"))?),
        };
        let reader = self.app.engine.follow(&request.view)?;
        let conditions: BTreeMap<&str, Vec<String>> = request
            .filter
            .iter()
            .map(|(name, values)| (name.as_str(), values.texts()))
            .collect();
        let filter_text = serde_json::to_string(&conditions).expect("texts by text");
        let feed = Feed {
            view: reader.name().to_owned(),
            generation: reader.generation(),
            schema: Arc::clone(reader.schema()),
            key: reader.key().to_vec(),
            time_column: reader.time(),
            filter: Filter::new(reader.schema(), conditions)?,
            filter_text,
            time: request.time,
        };
        let resume = match token {
            None => Resume::No,
            Some(token) if token.view == feed.view && token.generation == feed.generation => Resume::After(token.epoch),
            Some(_) => Resume::Impossible,
        };
        let gauge = self
            .app
            .engine
            .metrics()
            .ws_subscriptions
            .with_label_values(&[feed.view.as_str()]);
        let subscription = Subscription {
            id: request.id,
            feed: Arc::new(feed),
            reader,
            snapshot_rows: request.snapshot,
            epoch: Epoch::default(),
            watermark: Watermark::START,
            is_progress_due: false,
            sent: Stopwatch::start(),
            _counted: Counted::new(gauge),
        };
        Ok((subscription, resume))
    }

    /// Acknowledges, and brings the client to the newest epoch.
    async fn begin(&mut self, mut subscription: Subscription, resume: Resume) -> Step {
        let feed = Arc::clone(&subscription.feed);
        let name = |column: usize| feed.schema.field(column).name().as_str();
        self.say(&ServerMessage::Ack {
            id: &subscription.id,
            columns: Column::all_of(&feed.schema),
            key: feed.key.iter().map(|column| name(*column)).collect(),
            time: feed.time_column.map(name),
        })
        .await?;
        let outcome = match resume {
            Resume::No => self.snapshot(&mut subscription).await?,
            Resume::Impossible => self.reset(&mut subscription).await?,
            Resume::After(epoch) => {
                subscription.epoch = epoch;
                self.resume(&mut subscription).await?
            }
        };
        self.wait_or_end(subscription, outcome, true).await
    }

    /// Sends what happened since, where something did.
    async fn follow(&mut self, mut subscription: Subscription, is_alive: bool) -> Step {
        let outcome = self.advance(&mut subscription).await?;
        self.wait_or_end(subscription, outcome, is_alive).await
    }

    /// Puts a subscription back to its view, or ends it where nothing will come any more.
    async fn wait_or_end(&mut self, mut subscription: Subscription, outcome: Result<()>, is_alive: bool) -> Step {
        if let Err(error) = outcome {
            self.subscriptions.remove(&subscription.id);
            return self.refuse(Some(&subscription.id), &error.into()).await;
        }
        let is_complete = subscription.watermark == Watermark::END;
        if !is_alive || is_complete {
            if subscription.is_progress_due {
                self.tell_progress(&mut subscription).await?;
            }
            self.subscriptions.remove(&subscription.id);
            // An engine that stops is no end of its views: the shutdown follows, and the client comes back.
            if !is_complete && (self.app.closing.is_cancelled() || self.app.engine.stopping().now_or_never().is_some())
            {
                return Ok(());
            }
            return self.say(&ServerMessage::Complete { id: &subscription.id }).await;
        }
        let (handle, registration) = AbortHandle::new_pair();
        self.subscriptions.insert(subscription.id.clone(), handle);
        self.waits
            .push(Abortable::new(subscription.wait().boxed(), registration));
        Ok(())
    }

    /// The newest rows, in messages of a bounded size. The inner result is a failure of this subscription only.
    async fn snapshot(&mut self, subscription: &mut Subscription) -> Result<Result<()>, End> {
        let Published { epoch, watermark, rows } = subscription.reader.published();
        let feed = Arc::clone(&subscription.feed);
        let rows_max = subscription.snapshot_rows;
        let snapshot = match beside({
            let feed = Arc::clone(&feed);
            move || feed.snapshot(&rows, rows_max)
        })
        .await
        {
            Ok(snapshot) => snapshot,
            Err(error) => return Ok(Err(error)),
        };
        for index in 0..snapshot.messages() {
            match feed.snapshot_message(&subscription.id, &snapshot, index, epoch, watermark) {
                Ok(message) => self.send_text(message).await?,
                Err(error) => return Ok(Err(error)),
            }
        }
        (subscription.epoch, subscription.watermark) = (epoch, watermark);
        subscription.told();
        Ok(Ok(()))
    }

    async fn reset(&mut self, subscription: &mut Subscription) -> Result<Result<()>, End> {
        self.say(&ServerMessage::Reset { id: &subscription.id }).await?;
        self.snapshot(subscription).await
    }

    /// The changes after the client's token, as one delta, also where there are none.
    async fn resume(&mut self, subscription: &mut Subscription) -> Result<Result<()>, End> {
        let published = subscription.reader.published();
        if published.epoch < subscription.epoch {
            return self.reset(subscription).await;
        }
        match self.delta_to(subscription, &published).await {
            Ok(Some(delta)) => {
                self.send_text(subscription.feed.delta_message(&subscription.id, &delta))
                    .await?;
                (subscription.epoch, subscription.watermark) = (published.epoch, published.watermark);
                subscription.told();
                Ok(Ok(()))
            }
            Ok(None) => self.reset(subscription).await,
            Err(error) => Ok(Err(error)),
        }
    }

    /// The changes since the last message, merged where the client was slow; progress without rows only now and then.
    async fn advance(&mut self, subscription: &mut Subscription) -> Result<Result<()>, End> {
        let published = subscription.reader.published();
        if subscription.epoch < published.epoch {
            let delta = match self.delta_to(subscription, &published).await {
                Ok(Some(delta)) => delta,
                Ok(None) => return self.reset(subscription).await,
                Err(error) => return Ok(Err(error)),
            };
            (subscription.epoch, subscription.watermark) = (published.epoch, published.watermark);
            subscription.is_progress_due = true;
            if 0 < delta.merged {
                let count = delta.merged;
                self.app
                    .engine
                    .metrics()
                    .ws_merged_total
                    .with_label_values(&[subscription.feed.view.as_str()])
                    .inc_by(count as u64);
                self.say(&ServerMessage::Merged {
                    id: &subscription.id,
                    count,
                })
                .await?;
            }
            if 0 < delta.rows {
                self.send_text(subscription.feed.delta_message(&subscription.id, &delta))
                    .await?;
                subscription.told();
            }
        } else if subscription.watermark != published.watermark {
            subscription.watermark = published.watermark;
            subscription.is_progress_due = true;
        }
        if subscription.is_progress_due && limits::SOCKET_PROGRESS_INTERVAL <= subscription.sent.elapsed() {
            self.tell_progress(subscription).await?;
        }
        Ok(Ok(()))
    }

    async fn tell_progress(&mut self, subscription: &mut Subscription) -> Step {
        let progress = subscription.feed.progress(subscription.epoch, subscription.watermark);
        self.send_text(subscription.feed.delta_message(&subscription.id, &progress))
            .await?;
        subscription.told();
        Ok(())
    }

    /// From the subscription's epoch to the published one; `None` where a snapshot is the way: the changes are gone, or too many.
    async fn delta_to(&mut self, subscription: &Subscription, published: &Published) -> Result<Option<Arc<Delta>>> {
        let feed = &subscription.feed;
        let key = DeltaKey::new(feed, subscription.epoch, published.epoch);
        if let Some(delta) = self.app.shared_deltas.get(&key) {
            return Ok(Some(delta));
        }
        let Some(mut changes) = subscription.reader.changes_after(subscription.epoch) else {
            return Ok(None);
        };
        // What came since is for the next time: the token names this epoch.
        changes.retain(|change| change.epoch <= published.epoch);
        let rows: usize = changes
            .iter()
            .map(|change| change.added.num_rows() + change.removed.num_rows())
            .sum();
        if limits::SOCKET_DELTA_ROWS_MAX < rows {
            return Ok(None);
        }
        let (epoch, watermark) = (published.epoch, published.watermark);
        let delta = match rows < ROWS_BESIDE {
            true => feed.delta(&changes, epoch, watermark)?,
            false => {
                let feed = Arc::clone(feed);
                beside(move || feed.delta(&changes, epoch, watermark)).await?
            }
        };
        let delta = Arc::new(delta);
        self.app.shared_deltas.put(key, &delta);
        Ok(Some(delta))
    }

    async fn refuse(&mut self, id: Option<&str>, refusal: &Refusal) -> Step {
        self.say(&ServerMessage::Error {
            id,
            problem: refusal.problem(),
        })
        .await
    }

    async fn say(&mut self, message: &ServerMessage<'_>) -> Step {
        self.send_text(serde_json::to_vec(message).expect("a message is plain data"))
            .await
    }

    async fn send_text(&mut self, json: Vec<u8>) -> Step {
        let text = String::from_utf8(json).expect("JSON is text");
        self.send(Message::Text(text.into())).await
    }

    /// Blocks while the client takes nothing, but not for ever.
    async fn send(&mut self, message: Message) -> Step {
        match timeout(limits::SOCKET_STALL_MAX, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                debug!(%error, "message not sent");
                Err(End::Gone)
            }
            Err(_) => Err(End::Stalled),
        }
    }
}

/// Where a client wants to go on.
enum Resume {
    No,
    After(Epoch),
    /// The token is of another view or run.
    Impossible,
}

/// Runs what takes long beside the tasks that serve others.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::bug(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ClientMessage, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn messages_are_read_as_the_manual_writes_them() {
        let text = r#"{"op": "subscribe", "id": "c1", "view": "candles_5m", "where": {"symbol": ["ADA-USDT"], "n": 5, "ok": true},
            "snapshot": 500, "resume": "t", "time": "ms"}"#;
        let Ok(ClientMessage::Subscribe(request)) = read(text) else {
            panic!("{:?}", read(text))
        };
        assert_eq!(
            (request.id.as_str(), request.view.as_str(), request.snapshot),
            ("c1", "candles_5m", Some(500))
        );
        assert_eq!(request.filter["symbol"].texts(), ["ADA-USDT"]);
        assert_eq!(
            (request.filter["n"].texts(), request.filter["ok"].texts()),
            (vec!["5".to_owned()], vec!["true".to_owned()])
        );
        assert!(matches!(
            read(r#"{"op": "unsubscribe", "id": "c1"}"#),
            Ok(ClientMessage::Unsubscribe { .. })
        ));
        assert!(matches!(read(r#"{"op": "ping"}"#), Ok(ClientMessage::Ping {})));
    }

    #[test]
    fn a_message_that_says_too_much_or_too_little_is_refused() {
        for (text, expected) in [
            (r#"{"op": "subscribe", "id": "c1", "view": "v", "wher": {}}"#, "wher"),
            (r#"{"op": "subscribe", "id": "c1"}"#, "view"),
            (
                r#"{"op": "subscribe", "id": "c1", "view": "v", "time": "s"}"#,
                "rfc3339",
            ),
            (r#"{"op": "subscribe", "id": "c1", "view": "v", "snapshot": -1}"#, "-1"),
            (
                r#"{"op": "subscribe", "id": "c1", "view": "v", "where": {"a": null}}"#,
                "match",
            ),
            (r#"{"op": "sing"}"#, "sing"),
            ("[]", "op"),
            ("", "EOF"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn what_the_server_says_is_what_the_manual_writes() {
        let said = |message: &ServerMessage<'_>| serde_json::to_string(message).unwrap();
        assert_eq!(
            said(&ServerMessage::Ack {
                id: "c1",
                columns: vec![],
                key: vec!["symbol"],
                time: None
            }),
            r#"{"op":"ack","id":"c1","columns":[],"key":["symbol"],"time":null}"#
        );
        assert_eq!(
            said(&ServerMessage::Merged { id: "c1", count: 312 }),
            r#"{"op":"merged","id":"c1","count":312}"#
        );
        assert_eq!(said(&ServerMessage::Reset { id: "c1" }), r#"{"op":"reset","id":"c1"}"#);
        assert_eq!(
            said(&ServerMessage::Complete { id: "c1" }),
            r#"{"op":"complete","id":"c1"}"#
        );
        assert_eq!(said(&ServerMessage::Pong), r#"{"op":"pong"}"#);
        assert_eq!(
            said(&ServerMessage::Shutdown {
                reconnect_after_ms: 1_500
            }),
            r#"{"op":"shutdown","reconnect_after_ms":1500}"#
        );
    }
}
