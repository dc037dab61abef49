//! The log of a sink of files: record after record, each under a number that one writer alone can take.
//!
//! ```text
//! _zeta/<sink>/log/…0041.json   marker of epoch 90, the files of epochs 88 to 90
//!                  …0042.json   marker of epoch 90, by another writer: whoever wrote 41 finds its next number taken
//!                  …0043.json   marker of epoch 91, its files, and the list of all before: what is older goes
//! ```
//! A number is taken by giving a staged file its name, which never takes another's place. Whatever the store answers, the record that has
//! the name tells by its `nonce` whose it is; and a number that is free for ever is decided by taking it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::store::Store;
use crate::{
    connector::{Marker, SinkError},
    types::limits,
};

pub const VERSION: u32 = 1;
/// How often the end of the log is looked for while another writer moves it.
const LOOKS: u32 = 5;

/// One commit: all that it names is published with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub sequence: u64,
    /// Of this attempt to write it.
    pub nonce: String,
    pub writer: Writer,
    /// Of the last epoch that is published; `None` where nothing is.
    pub marker: Option<Marker>,
    pub layout: Layout,
    /// The files of all records before this one; then those are not needed any more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<Committed>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub added: Vec<File>,
    /// Paths of files whose rows are in `added`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub removed: Vec<String>,
}

/// Who wrote a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    pub generation: u64,
    /// A number that no other opening of a sink has.
    pub instance: String,
    /// The record by which it became the writer.
    pub claim: u64,
}

/// What the files of a folder have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Name and type of each column in the files.
    pub columns: Vec<(String, String)>,
    /// Columns that stand in the names of folders.
    pub partition_by: Vec<String>,
}

/// A file that is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// In the sink's folder.
    pub path: String,
    /// Where it was written before it got its name; empty where that is long ago.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub staged: String,
    pub bytes: u64,
    pub crc32c: u32,
    pub rows: u64,
    /// The last epoch that it has rows of.
    pub epoch: u64,
}

/// Everything that is published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The newest ones, oldest first.
    pub files: Vec<File>,
    /// Those before them, which are too many to name.
    #[serde(skip_serializing_if = "Totals::is_empty", default)]
    pub unnamed: Totals,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub files: u64,
    pub rows: u64,
    pub bytes: u64,
}

impl Totals {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Committed {
    pub fn apply(&mut self, added: &[File], removed: &[String]) {
        if !removed.is_empty() {
            self.files.retain(|file| !removed.contains(&file.path));
        }
        self.files.extend(added.iter().map(|file| File {
            staged: String::new(),
            ..file.clone()
        }));
        let many = self.files.len().saturating_sub(limits::SINK_FILES_NAMED_MAX);
        for file in self.files.drain(..many) {
            self.unnamed.files += 1;
            self.unnamed.rows += file.rows;
            self.unnamed.bytes += file.bytes;
        }
    }

    /// After so many records one is due that holds all of this: the more it holds, the more seldom.
    pub fn records_until_whole(&self) -> u64 {
        (self.files.len() as u64 / 64).max(limits::SINK_LOG_RECORDS)
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Ours,
    /// Another writer has that number.
    Theirs,
}

/// The records of one sink, in its folder.
pub struct Log<'a> {
    pub store: &'a dyn Store,
    /// `_zeta/<sink>/log`
    pub folder: &'a str,
}

impl Log<'_> {
    fn path(&self, sequence: u64) -> String {
        format!("{}/{sequence:020}.json", self.folder)
    }

    /// The numbers that are there, in order.
    fn sequences(&self) -> Result<Vec<u64>, SinkError> {
        let entries = self.store.list(self.folder)?;
        let number = |name: &str| name.strip_suffix(".json")?.parse().ok();
        let mut sequences: Vec<u64> = entries.iter().filter_map(|entry| number(&entry.name)).collect();
        sequences.sort_unstable();
        Ok(sequences)
    }

    /// The record with the highest number.
    pub fn newest(&self) -> Result<Option<Record>, SinkError> {
        for _ in 0..LOOKS {
            let Some(last) = self.sequences()?.pop() else {
                return Ok(None);
            };
            // One that is gone by now was followed by many.
            if let Some(record) = self.read(last)? {
                return Ok(Some(record));
            }
        }
        Err(SinkError::Unreachable(format!(
            "the log in {} changes faster than it is read",
            self.folder
        )))
    }

    pub fn read(&self, sequence: u64) -> Result<Option<Record>, SinkError> {
        let path = self.path(sequence);
        let Some(bytes) = self.store.read(&path)? else {
            return Ok(None);
        };
        let record = decode(&bytes).filter(|record| record.sequence == sequence);
        let Some(record) = record else {
            return Err(SinkError::Failed(format!(
                "{path} is damaged: it says what is published; put it back as it was, or choose another path"
            )));
        };
        if record.version != VERSION {
            return Err(SinkError::Failed(format!(
                "{path} was written by another version of zeta (form {}, not {VERSION}); choose another path",
                record.version
            )));
        }
        Ok(Some(record))
    }

    /// Makes a record that was found survive a power cut.
    pub fn sync(&self, record: &Record) -> Result<(), SinkError> {
        self.store.sync(&self.path(record.sequence))
    }

    /// Whether it is not the newest one any more.
    pub fn is_followed(&self, record: &Record) -> Result<bool, SinkError> {
        Ok(self.sequences()?.last().is_some_and(|last| record.sequence < *last))
    }

    /// All files up to a record, itself included, and how many records were read for it.
    pub fn committed_at(&self, newest: &Record) -> Result<(Committed, u64), SinkError> {
        let mut later = vec![newest.clone()];
        while later.last().expect("it has one").before.is_none() {
            let sequence = later.last().expect("it has one").sequence - 1;
            if sequence == 0 {
                break;
            }
            let Some(record) = self.read(sequence)? else {
                return Err(SinkError::Failed(format!(
                    "{} is missing: it says what is published; put it back, or choose another path",
                    self.path(sequence)
                )));
            };
            later.push(record);
        }
        let read = later.len() as u64;
        let mut committed = later
            .last_mut()
            .and_then(|first| first.before.take())
            .unwrap_or_default();
        for record in later.iter().rev() {
            committed.apply(&record.added, &record.removed);
        }
        Ok((committed, read))
    }

    /// Writes `files`, and then takes a number, by way of a file in `staging` that nobody else writes.
    ///
    /// # Errors
    /// It is not known whether the number is taken, and by whom; it may still be taken later.
    pub fn commit(&self, record: &Record, mut files: Vec<(String, Bytes)>, staging: &str) -> Result<Taken, SinkError> {
        let (staged, path) = (format!("{staging}/{}.tmp", record.nonce), self.path(record.sequence));
        // What it says is not so before it has its number: it may be written beside the files that it names.
        files.push((staged.clone(), encode(record)?.into()));
        self.store.write(files)?;
        if let Err(error) = self.store.rename(&staged, &path) {
            match self.read(record.sequence)? {
                None => return Err(error),
                Some(found) if found.nonce == record.nonce => self.sync(record)?,
                Some(_) => return Ok(Taken::Theirs),
            }
        }
        // A number that was taken and is not needed any more can be taken a second time, by one who slept meanwhile: then others follow.
        match self.sequences()?.last() {
            Some(last) if *last == record.sequence => Ok(Taken::Ours),
            _ => Ok(Taken::Theirs),
        }
    }

    /// Removes the records that a whole one stands for.
    pub fn trim(&self, before: u64) -> Result<(), SinkError> {
        let sequences = self.sequences()?;
        let old = sequences.iter().filter(|sequence| **sequence < before);
        self.store
            .delete(&old.map(|sequence| self.path(*sequence)).collect::<Vec<_>>())
    }
}

/// `{"crc32c":…,"record":{…}}`: the checksum is of the bytes of the record.
fn encode(record: &Record) -> Result<Vec<u8>, SinkError> {
    let text = serde_json::to_string(record).map_err(|e| SinkError::Failed(e.to_string()))?;
    Ok(format!("{{\"crc32c\":{},\"record\":{text}}}\n", crc32c::crc32c(text.as_bytes())).into_bytes())
}

fn decode(bytes: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (checksum, record) = text.strip_prefix("{\"crc32c\":")?.split_once(",\"record\":")?;
    let record = record.strip_suffix("}\n")?;
    (checksum.parse() == Ok(crc32c::crc32c(record.as_bytes()))).then(|| serde_json::from_str(record).ok())?
}
