//! librdkafka's consumer queue, emptied in bulk: the only folder that calls the C library by itself.
//!
//! ```text
//! brokers ─▶ librdkafka's threads ─▶ consumer queue ─ rd_kafka_consume_batch_queue ─▶ Event: record, end, trouble
//!                                 └▶ main queue ───── rd_kafka_poll ────────────────▶ Connection: logs, errors
//! ```
//! A batch call gives two to three times the records per second of processor time that one call per record gives.
//! Records are lent to the caller and never copied here.

mod bare;
mod callbacks;
mod description;

pub use bare::{DrainReport, bare_drain};

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr::{self, NonNull},
    slice,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    client::Client,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    types::{RDKafkaRespErr, RDKafkaType},
};
use rdkafka_sys as sys;

use super::connection::{Connection, Failure};

/// Records taken by one call at most.
pub(super) const BATCH_MAX: usize = 8192;
/// How long one question to the brokers may take.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// One entry of the consumer queue.
pub(super) enum Event<'a> {
    Record(Record<'a>),
    /// Everything below `position` has been handed over, and nothing more is there for now.
    End {
        partition: i32,
        position: i64,
    },
    /// `partition` is negative where the error is about the whole topic.
    Trouble {
        partition: i32,
        error: RDKafkaErrorCode,
        detail: String,
    },
}

/// One record, lent.
pub(super) struct Record<'a> {
    pub partition: i32,
    pub offset: i64,
    /// Goes up when another broker leads the partition: `None` where the record does not say.
    pub leader_epoch: Option<i32>,
    pub timestamp_ms: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// Which end of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Low,
    High,
}

/// A client that reads partitions by position, without a group.
pub(super) struct Drain {
    // In the order in which they must be dropped.
    queue: Queue,
    client: Client<Connection>,
    /// Empty between calls: what a call leaves here is destroyed before it returns.
    slots: Vec<*mut sys::rd_kafka_message_t>,
}

// SAFETY: librdkafka's handles may be used from any thread. The pointers in `slots` are dead between calls, and every call that
// writes them takes `&mut self`.
unsafe impl Send for Drain {}

impl Drain {
    /// Makes a client; brokers are asked later.
    pub fn connect(config: &ClientConfig, connection: Connection) -> KafkaResult<Self> {
        let native = config.create_native_config()?;
        // SAFETY: `native` owns a live configuration. All callbacks read the opaque pointer as a `Connection`: `Client::new`
        // sets it to that of its context, and keeps the context until the client is destroyed.
        unsafe { callbacks::register(native.ptr()) };
        let client = Client::new(config, native, RDKafkaType::RD_KAFKA_CONSUMER, connection)?;
        // SAFETY: the client is alive. The queue is ours to destroy, which `Queue` does before the client goes.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(client.native_ptr()) };
        let queue = NonNull::new(queue).ok_or_else(|| KafkaError::ClientCreation("it has no consumer queue".into()))?;
        Ok(Self {
            queue: Queue(queue),
            client,
            slots: vec![ptr::null_mut(); BATCH_MAX],
        })
    }

    pub fn connection(&self) -> &Arc<Connection> {
        self.client.context()
    }

    pub fn client(&self) -> &Client<Connection> {
        &self.client
    }

    /// Hands logs and errors that came meanwhile to the [`Connection`].
    pub fn serve(&self) {
        // SAFETY: the client is alive; 0 means not to wait.
        unsafe { sys::rd_kafka_poll(self.client.native_ptr(), 0) };
    }

    /// From now on these partitions are read, each from its position, and nothing that was queued before is handed over.
    pub fn assign(&self, topic: &str, positions: impl IntoIterator<Item = (i32, i64)>) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (partition, position) in positions {
            list.add_partition_offset(topic, partition, Offset::Offset(position))?;
        }
        // SAFETY: client and list are alive, and the list is copied. The call returns after the fetchers of the old assignment were
        // told to stop, which marks what they had queued as outdated.
        let error = unsafe { sys::rd_kafka_assign(self.client.native_ptr(), list.ptr()) };
        match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            error => Err(KafkaError::Global(error.into())),
        }
    }

    /// The low or high end of each partition, asked of the brokers in one request per leader.
    pub fn bounds(
        &self,
        topic: &str,
        partitions: &[i32],
        bound: Bound,
        timeout: Duration,
    ) -> KafkaResult<BTreeMap<i32, i64>> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            // The protocol's own times for "the first" and "after the last".
            let time = if bound == Bound::Low {
                Offset::Beginning
            } else {
                Offset::End
            };
            list.add_partition_offset(topic, *partition, time)?;
        }
        // SAFETY: client and list are alive; the answer is written into the list before the call returns.
        let error = unsafe { sys::rd_kafka_offsets_for_times(self.client.native_ptr(), list.ptr(), millis(timeout)) };
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::OffsetFetch(error.into()));
        }
        list.elements()
            .iter()
            .map(|element| {
                element.error()?;
                match element.offset() {
                    Offset::Offset(offset) => Ok((element.partition(), offset)),
                    _ => Err(KafkaError::OffsetFetch(RDKafkaErrorCode::LeaderNotAvailable)),
                }
            })
            .collect()
    }

    /// The end of a partition as the last answer of its broker told it; asks nobody.
    pub fn known_end(&self, topic: &CStr, partition: i32) -> Option<i64> {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the client is alive, `topic` ends with a zero, and both numbers outlive the call.
        let error = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.client.native_ptr(),
                topic.as_ptr(),
                partition,
                &raw mut low,
                &raw mut high,
            )
        };
        (error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && 0 <= high).then_some(high)
    }

    /// Hands over at most `count_max` entries of the queue, waiting up to `wait` for the first. Returns how many there were.
    pub fn take(&mut self, count_max: usize, wait: Duration, mut each: impl FnMut(Event<'_>)) -> usize {
        let count_max = count_max.clamp(1, BATCH_MAX);
        let taken = self.batch(count_max, Duration::ZERO, &mut each);
        if 0 < taken || wait.is_zero() {
            return taken;
        }
        // A call returns when its batch is full or its whole time is over: so wait for one, then take what is there.
        match self.batch(1, wait, &mut each) {
            0 => 0,
            first if first == count_max => first,
            first => first + self.batch(count_max - first, Duration::ZERO, &mut each),
        }
    }

    fn batch(&mut self, count_max: usize, wait: Duration, each: &mut impl FnMut(Event<'_>)) -> usize {
        let slots = &mut self.slots[..count_max];
        // SAFETY: the queue is alive, and `slots` has room for as many pointers as the call is told.
        let taken = unsafe {
            sys::rd_kafka_consume_batch_queue(self.queue.0.as_ptr(), millis(wait), slots.as_mut_ptr(), slots.len())
        };
        // Negative only where the queue was not made for consuming, which it was.
        let taken = usize::try_from(taken).unwrap_or(0);
        let mut batch = Batch(slots[..taken].iter());
        while let Some(message) = batch.next() {
            match message.event() {
                // We join no group, so it does not matter who may.
                Event::Trouble {
                    error: RDKafkaErrorCode::GroupAuthorizationFailed,
                    ..
                } => {}
                event => each(event),
            }
        }
        taken
    }
}

/// The consumer queue, to be destroyed before its client.
struct Queue(NonNull<sys::rd_kafka_queue_t>);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_queue_get_consumer`, and destroyed once.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// Messages that a batch call gave us; those that are not looked at are destroyed too.
struct Batch<'a>(slice::Iter<'a, *mut sys::rd_kafka_message_t>);

impl Batch<'_> {
    fn next(&mut self) -> Option<OwnedMessage> {
        self.0.next().map(|message| OwnedMessage(*message))
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        while self.next().is_some() {}
    }
}

/// One message of a batch, destroyed with this.
struct OwnedMessage(*mut sys::rd_kafka_message_t);

impl OwnedMessage {
    fn event(&self) -> Event<'_> {
        let message = self.0;
        // SAFETY: `message` is alive until `self` is dropped. Its error is read as a number, because librdkafka may know
        // more errors than the bindings.
        let (error, partition, offset) = unsafe {
            (
                (&raw const (*message).err).cast::<c_int>().read(),
                (*message).partition,
                (*message).offset,
            )
        };
        match code(error) {
            RDKafkaErrorCode::NoError => {
                // SAFETY: as above.
                let leader_epoch = unsafe { sys::rd_kafka_message_leader_epoch(message) };
                let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
                // SAFETY: as above; `kind` outlives the call.
                let timestamp_ms = unsafe { sys::rd_kafka_message_timestamp(message, &raw mut kind) };
                // SAFETY: where a pointer is not null, as many bytes as the message says belong to it until it is destroyed.
                let (key, value) = unsafe {
                    (
                        bytes((*message).key, (*message).key_len),
                        bytes((*message).payload, (*message).len),
                    )
                };
                Event::Record(Record {
                    partition,
                    offset,
                    leader_epoch: (0 <= leader_epoch).then_some(leader_epoch),
                    timestamp_ms: (0 <= timestamp_ms).then_some(timestamp_ms),
                    key,
                    value,
                })
            }
            RDKafkaErrorCode::PartitionEOF => Event::End {
                partition,
                position: offset,
            },
            error => {
                // SAFETY: as above; the text lives as long as the message.
                let detail = unsafe { text(sys::rd_kafka_message_errstr(message)) };
                Event::Trouble {
                    partition,
                    error,
                    detail,
                }
            }
        }
    }
}

impl Drop for OwnedMessage {
    fn drop(&mut self) {
        // SAFETY: a message of a batch belongs to us and is destroyed once.
        unsafe { sys::rd_kafka_message_destroy(self.0) }
    }
}

/// # Safety
/// Where `data` is not null, `length` bytes stand there for `'a`.
unsafe fn bytes<'a>(data: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's.
    (!data.is_null()).then(|| unsafe { slice::from_raw_parts(data.cast::<u8>(), length) })
}

/// # Safety
/// `text` is null or ends with a zero.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn code(error: c_int) -> RDKafkaErrorCode {
    RDKafkaRespErr::try_from(error).map_or(RDKafkaErrorCode::Unknown, RDKafkaErrorCode::from)
}

fn millis(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis()).unwrap_or(c_int::MAX)
}

/// A topic as its brokers describe it: its partitions, in their order, each with its low and high end.
pub(super) fn bounds_of(drain: &Drain, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>, Failure> {
    let deadline = Deadline::after(CALL_TIMEOUT);
    let partitions = partitions_of(drain, topic, deadline)?;
    let ask = |bound| ends_of(drain, topic, &partitions, bound, deadline);
    // Low first: rows that come or go meanwhile make the range longer, never a lie.
    let low = ask(Bound::Low)?;
    let high = ask(Bound::High)?;
    drain.connection().answered();
    Ok(low
        .into_iter()
        .filter_map(|(partition, low)| Some((partition, (low, *high.get(&partition)?))))
        .collect())
}

/// The low or high ends of some partitions.
pub(super) fn bounds_among(
    drain: &Drain,
    topic: &str,
    partitions: &[i32],
    bound: Bound,
) -> Result<BTreeMap<i32, i64>, Failure> {
    ends_of(drain, topic, partitions, bound, Deadline::after(CALL_TIMEOUT))
}

fn ends_of(
    drain: &Drain,
    topic: &str,
    partitions: &[i32],
    bound: Bound,
    deadline: Deadline,
) -> Result<BTreeMap<i32, i64>, Failure> {
    drain
        .bounds(topic, partitions, bound, deadline.left())
        .map_err(|error| {
            drain.serve();
            drain.connection().explain_call(topic, &error)
        })
}

/// The partitions of a topic, in their order. Asking for them first is what brings the first record in 20 ms instead of 510.
pub(super) fn partitions_of(drain: &Drain, topic: &str, deadline: Deadline) -> Result<Vec<i32>, Failure> {
    let connection = drain.connection();
    loop {
        // In slices, because the call itself does not return early when every broker refuses.
        let answer = drain
            .client()
            .fetch_metadata(Some(topic), deadline.left().min(Duration::from_secs(1)));
        drain.serve();
        match answer {
            Ok(metadata) => {
                let found = metadata
                    .topics()
                    .iter()
                    .find(|found| found.name() == topic)
                    .ok_or_else(|| connection.missing_topic(topic))?;
                if let Some(error) = found.error() {
                    return Err(connection.explain(topic, error.into(), ""));
                }
                if found.partitions().is_empty() {
                    return Err(connection.missing_topic(topic));
                }
                let mut partitions: Vec<i32> = found.partitions().iter().map(|partition| partition.id()).collect();
                partitions.sort_unstable();
                return Ok(partitions);
            }
            Err(_) if connection.is_down() || deadline.left().is_zero() => return Err(connection.failure()),
            Err(error) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut) => {}
                _ => return Err(connection.explain_call(topic, &error)),
            },
        }
    }
}

/// Whether a broker answers and knows the topic, waiting at most `timeout`.
pub(super) fn probe(drain: &Drain, topic: &str, timeout: Duration) -> Result<(), Failure> {
    partitions_of(drain, topic, Deadline::after(timeout)).map(|_| drain.connection().answered())
}

/// The end of a wait for the world, which no plan and no row ever sees.
#[derive(Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    #[allow(
        clippy::disallowed_methods,
        reason = "a wait for brokers ends by the machine's clock, and is not data"
    )]
    pub fn after(duration: Duration) -> Self {
        Self(Instant::now() + duration)
    }

    #[allow(clippy::disallowed_methods, reason = "as above")]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// A topic's name for the C library.
pub(super) fn c_name(topic: &str) -> Result<CString, String> {
    CString::new(topic).map_err(|_| "the name of a topic holds no zero byte".to_owned())
}
