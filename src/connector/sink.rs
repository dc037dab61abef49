//! The contract of a sink: epochs go out whole, in order, each once.
//!
//! ```text
//! recover (fence, then ask what is there) ─▶ publish ─▶ publish ─▶ …      after any error: recover
//! ```

use arrow::array::RecordBatch;

use crate::types::{Epoch, Error, RecordSchema, Records, Result};

/// What one epoch did to the rows of a view.
#[derive(Clone, Debug)]
pub struct SinkEpoch {
    pub epoch: Epoch,
    /// With a key: the new rows, of which some replace those of the same key in `removed`.
    pub added: RecordBatch,
    pub removed: RecordBatch,
}

impl SinkEpoch {
    pub fn rows(&self) -> usize {
        self.added.num_rows() + self.removed.num_rows()
    }

    /// As they lie in memory, about.
    pub fn bytes(&self) -> usize {
        self.added.get_array_memory_size() + self.removed.get_array_memory_size()
    }
}

/// What a sink published last; it lies where the rows lie, and became visible with them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Marker {
    pub sink: String,
    /// Which state the epochs are of: another one counts from 1 anew.
    pub state: String,
    pub generation: u64,
    /// Which start of it wrote this: one that came later has another number.
    #[serde(default)]
    pub instance: u64,
    pub epoch: Epoch,
    /// Records of that epoch.
    pub records: u64,
    /// Of that epoch's records, whatever their order.
    pub hash: u64,
}

/// Who publishes: written into markers.
#[derive(Clone, Debug)]
pub struct Publisher {
    pub sink: String,
    pub state: String,
    pub generation: u64,
    /// Of this start alone.
    pub instance: u64,
    /// What another state published does not count.
    pub takes_over: bool,
    /// Nothing but its generation keeps another process from the state: who finds a higher one is over.
    pub shares_state: bool,
}

impl Publisher {
    /// Whether a later start on the same state publishes by now.
    pub fn is_outdone_by(&self, state: &str, generation: u64) -> bool {
        self.shares_state && self.state == state && self.generation < generation
    }
}

/// Rows of epochs to where others read them.
///
/// A call may ask the world many things, and blocks for as long as it gets answers. No answer within about half a minute ends it with
/// [`SinkError::Unreachable`]; only a disk of this machine may keep it longer.
pub trait Sink: Send {
    /// From now on no earlier writer of this sink can publish anything, and the answer is what is published; `None` is nothing.
    /// Where that is of another state, which is not to be taken over, it is left alone. One that is to be taken over counts as epoch 0.
    ///
    /// # Errors
    /// [`SinkError::Fenced`] where a later writer has taken this one's place.
    fn recover(&mut self) -> Result<Option<Marker>, SinkError>;

    /// Publishes epochs that follow what is published: readers see all of them, or none and no part of them.
    ///
    /// # Errors
    /// After an error it is not known what became of them: [`recover`](Self::recover) tells.
    fn publish(&mut self, epochs: &[SinkEpoch]) -> Result<(), SinkError>;

    /// How many records the rows of an epoch make, and their hash as a marker has it.
    fn digest(&mut self, epoch: &SinkEpoch) -> Result<(u64, u64), SinkError>;

    /// What readers need to read what it publishes; empty where that says itself what it holds. Asks nobody.
    fn schemas(&self) -> Vec<RecordSchema> {
        Vec::new()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Passes by itself.
    #[error("{0}")]
    Unreachable(String),
    /// Needs a person.
    #[error("{0}")]
    Failed(String),
    /// Somebody else may write as this sink now: of [`Sink::publish`] a reason to recover, of [`Sink::recover`] the end.
    #[error("{0}")]
    Fenced(String),
}

impl From<Error> for SinkError {
    fn from(error: Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Turns what an epoch did into records: their positions count from 0.
pub trait ToRecords: Send {
    fn records(&mut self, epoch: &SinkEpoch) -> Result<Records>;

    /// What readers need to read the records; empty where a record says itself what it holds.
    fn schemas(&self) -> Vec<RecordSchema> {
        Vec::new()
    }
}

/// Of records, whatever their order.
pub fn hash_of(records: &Records) -> u64 {
    (0..records.len()).fold(0, |sum: u64, index| {
        let part = |bytes: Option<&[u8]>| bytes.map_or(0, |bytes| u64::from(crc32c::crc32c(bytes)) + 1);
        // One number of a record, in which key and value do not stand for each other.
        let (key, value) = (part(records.key(index)), part(records.value(index)));
        sum.wrapping_add((key << 32 | value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29) ^ key)
    })
}
