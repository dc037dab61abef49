//! A proxy that does to a connection what networks do, and holds a request that a test chooses.
//!
//! ```text
//! client ─▶ pump: delay ▸ rate ▸ black hole ▸ hold by API key ─▶ broker
//! client ◀─ pump: delay ▸ rate ▸ black hole ▸ flip ▸ cut or reset after so many bytes ◀─ broker
//! ```
//! Two threads per connection. What a black hole keeps comes later, as by TCP, if the connection still stands then. A request that is held
//! goes on to the broker also when its client is gone by then, as one that is under way does.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::zeta::now;

/// Kafka's number for the request that ends a transaction.
pub const END_TXN: i16 = 26;

const BUFFER_BYTES: usize = 64 << 10;
/// How soon a connection hears of new rules.
const TICK: Duration = Duration::from_millis(20);
/// How long the answer to a request that was held is waited for.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToBroker,
    ToClient,
}

/// What is done to all connections; the default does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Of each piece, each way.
    pub delay: Duration,
    /// Bytes per second of each connection, each way.
    pub rate: Option<u64>,
    /// How long a connection lives.
    pub cut_after: Option<Duration>,
    /// Bytes of both ways after which a connection is reset, in the middle of a message.
    pub reset_after_bytes: Option<u64>,
    /// What goes this way does not arrive.
    pub black_hole: Option<Way>,
    /// A bit of an answer that is larger than this is flipped, behind its first so many bytes: its number counts from there.
    pub flip: Option<Flip>,
    /// Requests with this API key wait until they are let through.
    pub hold: Option<i16>,
}

#[derive(Clone, Copy, Debug)]
pub struct Flip {
    pub behind: usize,
    pub bit: u64,
}

/// What the rules did.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub connections: u64,
    pub cut: u64,
    pub reset: u64,
    pub flipped: u64,
    /// Requests that were held, and those of them that are through.
    pub held: u64,
    pub let_through: u64,
    /// What the broker answered to them: Kafka's number of the error, 0 for none.
    pub answers: Vec<i16>,
}

pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    to_port: u16,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rules: Rules,
    done: Done,
    /// How often all that is held was let through.
    releases: u64,
}

impl Proxy {
    /// Listens at a port of its own, for a broker that listens at another one.
    pub fn start(to_port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            to_port,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.connect(client.expect("a connection")));
            }
        });
        Self { port, shared }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on, for connections that stand too.
    pub fn set(&self, rules: Rules) {
        self.shared.state().rules = rules;
        self.shared.changed.notify_all();
    }

    /// Lets go on what is held at this moment.
    pub fn release(&self) {
        self.shared.state().releases += 1;
        self.shared.changed.notify_all();
    }

    pub fn done(&self) -> Done {
        self.shared.state().done.clone()
    }
}

/// One connection; once both of its threads let go of it, it is closed.
struct Connection {
    client: TcpStream,
    broker: TcpStream,
    began: Instant,
    /// What answers to a request that was held are known by.
    held: Mutex<Option<[u8; 4]>>,
    /// Of both ways.
    passed_bytes: AtomicU64,
    /// Nobody is to read from the client any more.
    is_resetting: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }

    fn rules(&self) -> Rules {
        self.state().rules
    }

    fn connect(self: Arc<Self>, client: TcpStream) {
        // A broker that is down refuses; so does the proxy, by closing.
        let Ok(broker) = TcpStream::connect(("127.0.0.1", self.to_port)) else {
            return;
        };
        for stream in [&client, &broker] {
            stream.set_nodelay(true).expect("a TCP stream");
            // Rules that change and lives that end are looked at in between.
            stream.set_read_timeout(Some(TICK)).expect("a TCP stream");
        }
        self.state().done.connections += 1;
        let connection = Arc::new(Connection {
            client,
            broker,
            began: now(),
            held: Mutex::default(),
            passed_bytes: AtomicU64::new(0),
            is_resetting: AtomicBool::new(false),
        });
        let (shared, answers) = (Arc::clone(&self), Arc::clone(&connection));
        std::thread::spawn(move || shared.to_client(&answers));
        self.to_broker(&connection);
    }

    /// Waits as the rules say before so many bytes go on; `false` where the connection is to be cut.
    fn pass(&self, way: Way, bytes: usize, connection: &Connection) -> bool {
        let rules = self.rules();
        let rate = rules.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(bytes as f64 / rate as f64)
        });
        let until = now() + rules.delay + rate;
        let mut state = self.state();
        loop {
            if self.is_cut(&mut state, connection) {
                return false;
            }
            let is_swallowed = state.rules.black_hole == Some(way);
            let left = until.saturating_duration_since(now());
            if !is_swallowed && left.is_zero() {
                return true;
            }
            let wait = if is_swallowed { TICK } else { left };
            state = self.changed.wait_timeout(state, wait.min(TICK)).expect("no panic").0;
        }
    }

    fn is_cut(&self, state: &mut State, connection: &Connection) -> bool {
        let is_over = (state.rules.cut_after).is_some_and(|life| life <= connection.began.elapsed());
        state.done.cut += u64::from(is_over);
        is_over
    }

    /// Requests, one after another.
    fn to_broker(&self, connection: &Connection) {
        let mut to = &connection.broker;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut frames = Frames::default();
        while let Some(count) = self.read(&connection.client, &mut buffer, connection) {
            if !self.pass(Way::ToBroker, count, connection) {
                break;
            }
            if self.is_reset(count, connection) {
                // A part of a request stays here for ever.
                return self.reset(connection);
            }
            let mut rest = &buffer[..count];
            while let Some(frame) = frames.next(&mut rest) {
                let key = i16::from_be_bytes([frame[4], frame[5]]);
                let is_held = self.rules().hold == Some(key);
                if is_held {
                    self.hold();
                    *connection.held.lock().expect("no panic") = Some([frame[8], frame[9], frame[10], frame[11]]);
                }
                if to.write_all(&frame).is_err() {
                    return close(connection);
                }
                if is_held {
                    self.await_answer(connection);
                }
            }
        }
        if !connection.is_resetting.load(Ordering::SeqCst) {
            close(connection);
        }
    }

    /// Until it is let through. The client may be gone by then, which changes nothing about what is under way.
    fn hold(&self) {
        let mut state = self.state();
        state.done.held += 1;
        let before = state.releases;
        drop(
            self.changed
                .wait_while(state, |state| state.releases == before)
                .expect("no panic"),
        );
    }

    /// Until the broker has answered to what was held; its connection is not closed before.
    fn await_answer(&self, connection: &Connection) {
        let end = now() + ANSWER_WAIT;
        let is_open = || connection.held.lock().expect("no panic").is_some();
        let mut state = self.state();
        while is_open() && now() < end {
            state = self.changed.wait_timeout(state, TICK).expect("no panic").0;
        }
        state.done.let_through += 1;
    }

    /// Notes what the broker says to a request that was held.
    fn note_answers(&self, frames: &mut Frames, mut bytes: &[u8], connection: &Connection) {
        while let Some(frame) = frames.next(&mut bytes) {
            // Length, correlation, throttle time, error.
            let Some(error) = frame.get(12..14) else { continue };
            let is_awaited = (connection.held.lock().expect("no panic")).take_if(|held| frame[4..8] == *held);
            if is_awaited.is_some() {
                self.state().done.answers.push(i16::from_be_bytes([error[0], error[1]]));
                self.changed.notify_all();
            }
        }
    }

    /// Answers, as bytes.
    fn to_client(&self, connection: &Connection) {
        let mut to = &connection.client;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut frames = Frames::default();
        let mut message = Message::default();
        while let Some(count) = self.read(&connection.broker, &mut buffer, connection) {
            self.note_answers(&mut frames, &buffer[..count], connection);
            if !self.pass(Way::ToClient, count, connection) {
                break;
            }
            let rules = self.rules();
            let mut bytes = &mut buffer[..count];
            if message.flip(rules.flip, bytes) {
                let mut state = self.state();
                state.done.flipped += 1;
                state.rules.flip = None;
            }
            let is_reset = self.is_reset(count, connection);
            if is_reset {
                // In the middle of a message, wherever it is.
                bytes = &mut bytes[..count / 2];
            }
            if to.write_all(bytes).is_err() {
                break;
            }
            if is_reset {
                return self.reset(connection);
            }
        }
        if !connection.is_resetting.load(Ordering::SeqCst) {
            close(connection);
        }
    }

    fn is_reset(&self, bytes: usize, connection: &Connection) -> bool {
        let before = connection.passed_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
        let limit = self.rules().reset_after_bytes;
        limit.is_some_and(|limit| limit < before + bytes as u64)
    }

    /// A reset is what the kernel sends for a socket that is closed with bytes in it that nobody read.
    fn reset(&self, connection: &Connection) {
        connection.is_resetting.store(true, Ordering::SeqCst);
        let end = now() + Duration::from_secs(2);
        while connection.client.peek(&mut [0]).is_err() && now() < end {}
        self.state().done.reset += 1;
        // The other thread lets go of the client, too, and then it is closed.
        shut(&connection.broker, Shutdown::Both);
        self.changed.notify_all();
    }

    /// Some bytes; `None` where there will be none any more.
    fn read(&self, mut from: &TcpStream, buffer: &mut [u8], connection: &Connection) -> Option<usize> {
        while !connection.is_resetting.load(Ordering::SeqCst) {
            match from.read(buffer) {
                Ok(0) => return None,
                Ok(count) => return Some(count),
                Err(error) if is_slow(&error) && !self.is_cut(&mut self.state(), connection) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

fn is_slow(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

fn close(connection: &Connection) {
    shut(&connection.client, Shutdown::Both);
    shut(&connection.broker, Shutdown::Both);
}

fn shut(stream: &TcpStream, how: Shutdown) {
    // It may be closed already.
    drop(stream.shutdown(how));
}

/// Where a stream of answers stands.
#[derive(Default)]
struct Message {
    /// The length of the message, as far as it came.
    head: Vec<u8>,
    /// Bytes of it behind its length, so far and still to come.
    passed: usize,
    left: usize,
}

impl Message {
    /// Goes on by these bytes, and flips a bit where the one that is wanted lies among them.
    fn flip(&mut self, flip: Option<Flip>, bytes: &mut [u8]) -> bool {
        let mut has_flipped = false;
        for byte in bytes {
            if self.left == 0 {
                self.head.push(*byte);
                if let Ok(length) = <[u8; 4]>::try_from(self.head.as_slice()) {
                    self.head.clear();
                    (self.passed, self.left) = (0, u32::from_be_bytes(length) as usize);
                }
                continue;
            }
            let total = self.passed + self.left;
            if let Some(flip) = flip.filter(|flip| !has_flipped && flip.behind + 64 < total) {
                let bytes = (total - flip.behind - 16) as u64;
                if self.passed as u64 == flip.behind as u64 + flip.bit / 8 % bytes {
                    *byte ^= 1 << (flip.bit % 8);
                    has_flipped = true;
                }
            }
            self.passed += 1;
            self.left -= 1;
        }
        has_flipped
    }
}

/// Cuts a stream of bytes into messages, each behind its length in four bytes.
#[derive(Default)]
struct Frames(Vec<u8>);

impl Frames {
    /// The next whole message with its length; what is left of a part of one is kept.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Vec<u8>> {
        let mut take = |until: usize, kept: &mut Vec<u8>| {
            let count = until.saturating_sub(kept.len()).min(bytes.len());
            kept.extend_from_slice(&bytes[..count]);
            *bytes = &bytes[count..];
            until <= kept.len()
        };
        if !take(4, &mut self.0) {
            return None;
        }
        let length = u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]) as usize;
        take(length + 4, &mut self.0).then(|| std::mem::take(&mut self.0))
    }
}

#[test]
fn messages_are_whole_however_their_bytes_come() {
    let stream = [&[0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0], &[0, 0, 0, 1], b"d"].concat();
    for size in 1..=stream.len() {
        let mut frames = Frames::default();
        let mut found = Vec::new();
        for mut piece in stream.chunks(size) {
            while let Some(frame) = frames.next(&mut piece) {
                found.push(frame[4..].to_vec());
            }
        }
        assert_eq!(
            found,
            [b"abc".to_vec(), Vec::new(), b"d".to_vec()],
            "in pieces of {size}"
        );
    }
}
