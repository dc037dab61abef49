//! What was written to a table, in the order of writing: one record per statement, durable before the statement is answered.
//!
//! ```text
//! append(record) ─▶ length, checksums, bytes; synced ─▶ position      a source over the log reads record n at position n
//! ```
//! A torn last record is a statement that was never answered: it is cut off. A damaged record before it stops the start.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Source, SourceError, SplitBounds};
use crate::types::{
    Anchors, Chunk, Error, FRAME_BYTES, Framed, Payload, Position, RecordsBuilder, Result, SplitId, read_frame,
    write_frame,
};

const FILE: &str = "table.log";

/// The log of one table; clones share it.
#[derive(Clone)]
pub struct TableLog(Arc<Shared>);

struct Shared {
    content: Mutex<Content>,
    grew: Condvar,
}

enum Content {
    /// Lost with the process.
    Memory(Vec<Vec<u8>>),
    File {
        path: PathBuf,
        file: File,
        /// Where each record's frame begins, and where the next will.
        starts: Vec<u64>,
        end: u64,
        /// A write failed, and what it left behind `end` could not be cut off.
        is_torn: bool,
    },
}

impl TableLog {
    /// Takes up the log in `folder`, or makes one; without a folder nothing outlives the process. `check` says why a record cannot be read
    /// any more.
    ///
    /// # Errors
    /// [`Error::State`] where a record before the last is damaged, [`Error::User`] where one does not pass `check`; what the disk says.
    pub fn open(folder: Option<&Path>, check: impl Fn(&[u8]) -> Result<(), String>) -> Result<Self> {
        let content = match folder {
            None => Content::Memory(Vec::new()),
            Some(folder) => open_file(&folder.join(FILE), check)?,
        };
        Ok(Self(Arc::new(Shared {
            content: Mutex::new(content),
            grew: Condvar::new(),
        })))
    }

    /// Appends a record. Returns the position behind it, once it would survive a crash.
    pub fn append(&self, record: &[u8]) -> Result<Position> {
        let mut content = self.lock();
        let end = content.append(record)?;
        self.0.grew.notify_all();
        Ok(end)
    }

    pub fn end(&self) -> Position {
        self.lock().end()
    }

    /// Reads from the beginning.
    pub fn source(&self) -> Box<dyn Source> {
        Box::new(TableSource {
            log: self.clone(),
            position: None,
        })
    }

    /// Forgets what was written to the table of this folder.
    pub fn remove(folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(cannot("remove", &path, e)),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        // A reader that panicked has changed nothing.
        self.0.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_file(path: &Path, check: impl Fn(&[u8]) -> Result<(), String>) -> Result<Content> {
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(path)
        .map_err(|e| cannot("open", path, e))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| cannot("read", path, e))?;
    let (mut starts, mut end) = (Vec::new(), 0usize);
    loop {
        let (record, next) = match read_frame(&bytes, end) {
            Framed::Record(record, next) => (record, next),
            Framed::End | Framed::Torn => break,
            Framed::Damaged(what) => {
                return Err(Error::state(format!(
                    "{}: {what} behind {} good ones; restore the file from a copy, or remove it, and with it the rows of the table",
                    path.display(),
                    starts.len()
                )));
            }
        };
        if let Err(reason) = check(record) {
            return Err(Error::user(format!(
                "{}: record {} {reason}; put the definition of the table back, or remove the file, and with it the rows of the table",
                path.display(),
                starts.len()
            )));
        }
        starts.push(end as u64);
        end = next;
    }
    if end < bytes.len() {
        tracing::info!(file = %path.display(), "a torn record at the end is cut off");
        file.set_len(end as u64).map_err(|e| cannot("cut", path, e))?;
        file.sync_all().map_err(|e| cannot("sync", path, e))?;
    }
    if let Some(folder) = path.parent() {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|e| cannot("sync", folder, e))?;
    }
    Ok(Content::File {
        path: path.to_owned(),
        file,
        starts,
        end: end as u64,
        is_torn: false,
    })
}

impl Content {
    fn end(&self) -> Position {
        Position(match self {
            Self::Memory(records) => records.len() as u64,
            Self::File { starts, .. } => starts.len() as u64,
        })
    }

    fn append(&mut self, record: &[u8]) -> Result<Position> {
        match self {
            Self::Memory(records) => records.push(record.to_vec()),
            Self::File {
                path,
                file,
                starts,
                end,
                is_torn,
            } => {
                let frame = write_frame(record)
                    .ok_or_else(|| Error::user("a statement writes more than 4 GB; split it into several"))?;
                if *is_torn {
                    file.set_len(*end).map_err(|e| cannot("cut", path, e))?;
                    *is_torn = false;
                }
                // Until it is synced nobody may read it: after an error it counts as never written.
                *is_torn = true;
                file.write_all(&frame).map_err(|e| cannot("write", path, e))?;
                file.sync_data().map_err(|e| cannot("sync", path, e))?;
                *is_torn = false;
                starts.push(*end);
                *end += frame.len() as u64;
            }
        }
        Ok(self.end())
    }

    fn read(&self, position: usize) -> Result<Vec<u8>, SourceError> {
        match self {
            Self::Memory(records) => Ok(records[position].clone()),
            Self::File {
                path,
                file,
                starts,
                end,
                ..
            } => {
                let next = starts.get(position + 1).copied().unwrap_or(*end);
                let first = starts[position] + FRAME_BYTES as u64;
                let mut record = vec![0; usize::try_from(next - first).expect("a record fits into memory")];
                file.read_exact_at(&mut record, first)
                    .map_err(|e| SourceError::Unreachable(format!("cannot read {}: {e}", path.display())))?;
                Ok(record)
            }
        }
    }
}

struct TableSource {
    log: TableLog,
    /// The next record; `None` before the split is read.
    position: Option<usize>,
}

fn split() -> SplitId {
    SplitId::from(0)
}

impl Source for TableSource {
    fn discover(&mut self) -> Result<Vec<SplitBounds>, SourceError> {
        Ok(vec![SplitBounds {
            split: split(),
            first: Position(0),
            start: Position(0),
            end: self.log.end(),
        }])
    }

    /// A log is a part of the state itself, with checksums of its own.
    fn recognise(&mut self, _: &Anchors) -> Result<Option<String>, SourceError> {
        Ok(None)
    }

    fn seek(&mut self, positions: &BTreeMap<SplitId, Position>) -> Result<(), SourceError> {
        self.position = positions
            .get(&split())
            .map(|position| usize::try_from(position.0).expect("a log fits into memory"));
        let end = self.log.end();
        match positions.get(&split()) {
            Some(position) if end < *position => Err(SourceError::Failed(format!(
                "the log of changes ends at {end}, and {position} was read of it; start again with --reset"
            ))),
            _ => Ok(()),
        }
    }

    fn poll(&mut self, rows_max: usize, bytes_max: usize, wait: Duration) -> Result<Vec<Chunk>, SourceError> {
        let Some(position) = &mut self.position else {
            return Ok(Vec::new());
        };
        let mut content = self.log.lock();
        if content.end().0 <= *position as u64 && !wait.is_zero() {
            content = self
                .log
                .0
                .grew
                .wait_timeout(content, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let end = usize::try_from(content.end().0).expect("a log fits into memory");
        let from = *position;
        let mut records = RecordsBuilder::default();
        while *position < end && records.len() < rows_max && (records.is_empty() || records.bytes() < bytes_max) {
            let record = content.read(*position)?;
            records.push(*position as u64, None, None, Some(&record));
            *position += 1;
        }
        if records.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![Chunk {
            split: split(),
            from: Position(from as u64),
            to: Position(*position as u64),
            payload: Payload::Records(records.finish()),
        }])
    }

    fn ends(&self) -> BTreeMap<SplitId, Position> {
        BTreeMap::from([(split(), self.log.end())])
    }

    fn is_finished(&self) -> bool {
        false
    }
}

fn cannot(verb: &str, path: &Path, error: std::io::Error) -> Error {
    Error::state(format!("cannot {verb} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(_: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn read_all(log: &TableLog) -> Vec<Vec<u8>> {
        let mut source = log.source();
        source.seek(&BTreeMap::from([(split(), Position(0))])).unwrap();
        let mut found = Vec::new();
        for chunk in source.poll(usize::MAX, usize::MAX, Duration::ZERO).unwrap() {
            let Payload::Records(records) = chunk.payload else {
                panic!("a log holds records");
            };
            found.extend((0..records.len()).map(|index| records.value(index).unwrap().to_vec()));
        }
        found
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart_and_a_torn_end_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let log = TableLog::open(Some(folder.path()), any).unwrap();
        assert_eq!(log.append(b"one").unwrap(), Position(1));
        assert_eq!(log.append(b"").unwrap(), Position(2));
        assert_eq!(log.append(b"three").unwrap(), Position(3));
        drop(log);
        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for torn in [whole.len() - 1, whole.len() - 5, whole.len() - 12] {
            std::fs::write(&path, &whole[..torn]).unwrap();
            let log = TableLog::open(Some(folder.path()), any).unwrap();
            assert_eq!(read_all(&log), [b"one".to_vec(), b"".to_vec()], "cut at {torn}");
            assert_eq!(
                log.append(b"again").unwrap(),
                Position(3),
                "it goes on behind what is whole"
            );
            drop(log);
            let log = TableLog::open(Some(folder.path()), any).unwrap();
            assert_eq!(read_all(&log).len(), 3);
        }
    }

    #[test]
    fn a_damaged_byte_stops_the_start_and_cuts_nothing_off() {
        let folder = tempfile::tempdir().unwrap();
        let log = TableLog::open(Some(folder.path()), any).unwrap();
        log.append(b"one").unwrap();
        log.append(b"two").unwrap();
        drop(log);
        let path = folder.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            let Err(error) = TableLog::open(Some(folder.path()), any) else {
                panic!("byte {at} is damaged");
            };
            let good = usize::from(FRAME_BYTES + 3 <= at);
            assert!(
                error.to_string().contains(&format!("behind {good} good ones")),
                "{error}"
            );
            assert_eq!(std::fs::read(&path).unwrap(), flipped);
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_any_more_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let log = TableLog::open(Some(folder.path()), any).unwrap();
        log.append(b"one").unwrap();
        log.append(b"two").unwrap();
        drop(log);
        let check = |record: &[u8]| match record {
            b"two" => Err("is of another time".to_owned()),
            _ => Ok(()),
        };
        let Err(error) = TableLog::open(Some(folder.path()), check) else {
            panic!("the second record does not pass");
        };
        assert!(
            error.to_string().contains("record 1 is of another time; put the"),
            "{error}"
        );
        assert_eq!(
            read_all(&TableLog::open(Some(folder.path()), any).unwrap()).len(),
            2,
            "it is kept"
        );
    }

    #[test]
    fn a_poll_wakes_when_something_is_written() {
        let log = TableLog::open(None, any).unwrap();
        let mut source = log.source();
        source.seek(&BTreeMap::from([(split(), Position(0))])).unwrap();
        let writer = std::thread::spawn({
            let log = log.clone();
            move || log.append(b"row").unwrap()
        });
        let mut found = Vec::new();
        while found.is_empty() {
            found = source.poll(10, usize::MAX, Duration::from_secs(5)).unwrap();
        }
        assert_eq!(found[0].to, Position(1));
        writer.join().unwrap();
    }
}
