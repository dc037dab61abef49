//! The journal: epoch plans in order, each synced before anyone sees its epoch.
//!
//! ```text
//! file = "zeta-journal 2\n" frame*        types/frame.rs: lengths and checksums
//! frame of JSON: generation, plan
//! ```
//! A torn last record is an epoch that never was. Damage stops the start.

use std::path::{Path, PathBuf};

use crate::types::{
    Epoch, EpochPlan, Error, Framed, Result,
    planted::{Bug, has},
    read_frame, write_frame,
};

use super::files::{Append, Files, Place, cannot};

const HEADER: &[u8] = b"zeta-journal 2\n";

#[derive(serde::Serialize, serde::Deserialize)]
struct Record {
    generation: u64,
    plan: EpochPlan,
}

/// The file that is being written.
pub struct Journal {
    place: Place,
    generation: u64,
    current: Option<Current>,
}

struct Current {
    path: PathBuf,
    file: Box<dyn Append>,
    /// Bytes that are known to be whole; a failed append is cut back to it.
    length: u64,
    is_torn: bool,
}

impl Journal {
    /// In the folder of `place`.
    pub fn new(place: Place, generation: u64) -> Self {
        Self {
            place,
            generation,
            current: None,
        }
    }

    /// Appends a plan and syncs it. After an error nothing was committed, and it can be tried again.
    pub fn append(&mut self, plan: &EpochPlan) -> Result<()> {
        if self.current.is_none() {
            self.current = Some(self.create(plan.number)?);
        }
        let current = self.current.as_mut().expect("made above");
        if current.is_torn {
            current
                .file
                .cut(current.length)
                .map_err(|e| cannot("truncate", &current.path, e))?;
            current.is_torn = false;
        }
        let record = Record {
            generation: self.generation,
            plan: plan.clone(),
        };
        let payload = serde_json::to_vec(&record).map_err(|e| Error::bug(format!("a plan cannot be written: {e}")))?;
        let bytes = write_frame(&payload).ok_or_else(|| Error::bug("a plan is longer than 4 GB"))?;
        current.is_torn = true;
        current
            .file
            .append(&bytes)
            .map_err(|e| cannot("append to", &current.path, e))?;
        current.is_torn = false;
        current.length += bytes.len() as u64;
        Ok(())
    }

    /// Bytes in the file that is being written.
    pub fn bytes(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.length)
    }

    /// The next plan begins a new file.
    pub fn roll(&mut self) {
        self.current = None;
    }

    fn create(&self, first: Epoch) -> Result<Current> {
        let Place { root, files } = &self.place;
        let path = root.join(format!("{:020}.jnl", first.0));
        // A file of this name can only hold a torn first record: its epoch never was.
        files
            .write_synced(&path, HEADER)
            .map_err(|e| cannot("create", &path, e))?;
        if !has(Bug::FolderNotSynced) {
            files.sync_folder(root).map_err(|e| cannot("sync", root, e))?;
        }
        let file = files.append_to(&path).map_err(|e| cannot("open", &path, e))?;
        Ok(Current {
            path,
            file,
            length: HEADER.len() as u64,
            is_torn: false,
        })
    }
}

/// Makes sure what a run left that was killed: it may have written a record, and not have come to sync it. Whoever reads that record and
/// goes on behind it would lose it alone when the power goes.
pub fn sync(files: &dyn Files, folder: &Path) -> Result<()> {
    for (_, path) in journals(files, folder)? {
        files.sync_file(&path).map_err(|e| cannot("sync", &path, e))?;
    }
    files.sync_folder(folder).map_err(|e| cannot("sync", folder, e))
}

/// All plans after `after`, in order and without a gap.
pub fn read(files: &dyn Files, folder: &Path, after: Epoch) -> Result<Vec<EpochPlan>> {
    let mut plans: Vec<EpochPlan> = Vec::new();
    let found = journals(files, folder)?;
    for (index, (_, path)) in found.iter().enumerate() {
        let bytes = files.read(path).map_err(|e| cannot("read", path, e))?;
        let (records, is_torn) = parse(path, &bytes)?;
        for record in records {
            let plan = record.plan;
            if plan.number <= after {
                continue;
            }
            let expected = plans.last().map_or(after, |last| last.number).next();
            if plan.number != expected {
                return Err(Error::state(format!(
                    "{}: the journal goes on at epoch {} where {expected} was expected: a file is missing or was changed, so nothing was started. \
                     Restore the folder from a copy, or start over with --reset",
                    path.display(),
                    plan.number
                )));
            }
            plans.push(plan);
        }
        // A torn end is the crash of that run; the next run's file goes on where it stopped, which the numbers above prove.
        if is_torn {
            tracing::info!(file = %path.display(), is_last = index + 1 == found.len(), "a torn record at the end of the journal is ignored");
        }
    }
    Ok(plans)
}

/// The numbers of all epochs in the journal, as they stand, and the bytes of its files.
pub fn read_all(files: &dyn Files, folder: &Path) -> Result<(Vec<Epoch>, u64)> {
    let (mut epochs, mut total) = (Vec::new(), 0);
    for (_, path) in journals(files, folder)? {
        let bytes = files.read(&path).map_err(|e| cannot("read", &path, e))?;
        total += bytes.len() as u64;
        let (records, _) = parse(&path, &bytes)?;
        epochs.extend(records.into_iter().map(|record| record.plan.number));
    }
    Ok((epochs, total))
}

/// Removes files whose plans are all at or before `covered`.
pub fn remove_before(files: &dyn Files, folder: &Path, covered: Epoch) -> Result<()> {
    for pair in journals(files, folder)?.windows(2) {
        let ((_, path), (next_first, _)) = (&pair[0], &pair[1]);
        if next_first.0 <= covered.0 + 1 {
            files.remove_file(path).map_err(|e| cannot("remove", path, e))?;
        }
    }
    Ok(())
}

/// First epoch and path of each file, in order.
fn journals(files: &dyn Files, folder: &Path) -> Result<Vec<(Epoch, PathBuf)>> {
    let mut journals = Vec::new();
    for path in files.list(folder).map_err(|e| cannot("list", folder, e))? {
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let first = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse().ok());
            let first = first.ok_or_else(|| {
                Error::state(format!(
                    "{} is not a journal's name: remove it, if it is not yours to keep there",
                    path.display()
                ))
            })?;
            journals.push((Epoch(first), path));
        }
    }
    journals.sort();
    Ok(journals)
}

/// The whole records of a file, and whether something incomplete follows them.
fn parse(path: &Path, bytes: &[u8]) -> Result<(Vec<Record>, bool)> {
    let damaged = |at: usize, what: &str| {
        Error::state(format!(
            "{}: {what} at byte {at}; committed epochs cannot be read, so nothing was started. Restore the file, or start over with --reset",
            path.display()
        ))
    };
    if !bytes.starts_with(HEADER) {
        // A crash while the file was made leaves a part of the header.
        let is_unwritten = bytes.len() <= HEADER.len() && bytes.iter().all(|byte| *byte == 0);
        return if is_unwritten || HEADER.starts_with(bytes) {
            Ok((Vec::new(), true))
        } else {
            Err(damaged(0, "not a journal of this version"))
        };
    }
    let (mut records, mut at) = (Vec::new(), HEADER.len());
    loop {
        match read_frame(bytes, at) {
            Framed::Record(payload, next) => {
                let record = serde_json::from_slice(payload).map_err(|_| damaged(at, "a record of another version"))?;
                records.push(record);
                at = next;
            }
            Framed::End => return Ok((records, false)),
            Framed::Torn => return Ok((records, true)),
            Framed::Damaged(what) => return Err(damaged(at, what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs,
    };

    use super::*;
    use crate::{state::files::LocalFiles, types::EventTime};

    fn plan(number: u64) -> EpochPlan {
        EpochPlan {
            number: Epoch(number),
            ranges: BTreeMap::new(),
            epoch_time: EventTime(number as i64),
            idle_splits: BTreeSet::new(),
            new_splits: BTreeMap::new(),
            complete_below: None,
            is_last: false,
            checkpoint: false,
            anchors: Default::default(),
        }
    }

    fn numbers(plans: &[EpochPlan]) -> Vec<u64> {
        plans.iter().map(|plan| plan.number.0).collect()
    }

    #[test]
    fn plans_are_read_back_in_order_over_files_and_after_an_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(Place::local(folder.path()), 1);
        for number in 1..=4 {
            journal.append(&plan(number)).unwrap();
            if number == 2 {
                journal.roll();
            }
        }
        assert_eq!(
            numbers(&read(&LocalFiles, folder.path(), Epoch(0)).unwrap()),
            [1, 2, 3, 4]
        );
        assert_eq!(numbers(&read(&LocalFiles, folder.path(), Epoch(3)).unwrap()), [4]);
        remove_before(&LocalFiles, folder.path(), Epoch(2)).unwrap();
        assert_eq!(
            numbers(&read(&LocalFiles, folder.path(), Epoch(2)).unwrap()),
            [3, 4],
            "files before a checkpoint go"
        );
        let error = read(&LocalFiles, folder.path(), Epoch(0)).unwrap_err().to_string();
        assert!(
            error.contains("goes on at epoch 3 where 1 was expected"),
            "a gap is never jumped: {error}"
        );
        assert!(error.ends_with("or start over with --reset"), "{error}");
    }

    #[test]
    fn a_journal_cut_anywhere_gives_a_prefix_of_its_plans() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(Place::local(folder.path()), 1);
        for number in 1..=3 {
            journal.append(&plan(number)).unwrap();
        }
        let path = folder.path().join(format!("{:020}.jnl", 1));
        let bytes = fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            let read = numbers(&read(&LocalFiles, folder.path(), Epoch(0)).unwrap());
            assert!([1, 2, 3].starts_with(&read), "cut at {length}: {read:?}");
            assert!(read.len() < 3, "a cut loses at least the last plan");
        }
    }

    #[test]
    fn a_flipped_bit_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(Place::local(folder.path()), 1);
        for number in 1..=3 {
            journal.append(&plan(number)).unwrap();
        }
        let path = folder.path().join(format!("{:020}.jnl", 1));
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            assert!(read(&LocalFiles, folder.path(), Epoch(0)).is_err(), "flip at {at}");
        }
    }
}
