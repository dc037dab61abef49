//! The journal: epoch plans in order, each sure to survive before anyone sees its epoch.
//!
//! ```text
//! file = "zeta-journal 2\n" frame*        types/frame.rs: lengths and checksums
//! frame of JSON: generation, plan
//! disk     a file has the plans from that of its name on; a torn last record is an epoch that never was
//! remote   a file for each plan, made by one alone; it counts once its writer has found behind it that the state is still his (claim.rs)
//! ```
//! Damage stops the start.

use std::path::{Path, PathBuf};

use crate::{
    remote::RemoteFolder,
    types::{
        Epoch, EpochPlan, Error, Framed, Result,
        planted::{Bug, has},
        read_frame, write_frame,
    },
};

use super::{
    claim,
    files::{Append, Files},
    place::{Created, Medium, Place, cannot, create},
};

pub const FOLDER: &str = "journal";
const HEADER: &[u8] = b"zeta-journal 2\n";

#[derive(serde::Serialize, serde::Deserialize)]
struct Record {
    generation: u64,
    plan: EpochPlan,
}

/// Appends plans.
pub struct Journal {
    /// Of the whole state.
    place: Place,
    generation: u64,
    /// On a disk.
    current: Option<Current>,
    /// Since the last `roll`.
    bytes: u64,
}

/// The file that is being written.
struct Current {
    path: PathBuf,
    file: Box<dyn Append>,
    /// Bytes that are known to be whole; a failed append is cut back to it.
    length: u64,
    is_torn: bool,
}

impl Journal {
    /// Of the state in `place`.
    pub fn new(place: Place, generation: u64) -> Self {
        Self {
            place,
            generation,
            current: None,
            bytes: 0,
        }
    }

    /// Appends a plan for good.
    ///
    /// # Errors
    /// [`Error::External`] where it can be tried again with the same plan, and nothing else may be: on a remote store it may be there.
    /// [`Error::User`] where another process has taken the state, [`Error::Overtaken`] where an earlier one committed another plan.
    pub fn append(&mut self, plan: &EpochPlan) -> Result<()> {
        let record = Record {
            generation: self.generation,
            plan: plan.clone(),
        };
        let payload = serde_json::to_vec(&record).map_err(|e| Error::bug(format!("a plan cannot be written: {e}")))?;
        let frame = write_frame(&payload).ok_or_else(|| Error::bug("a plan is longer than 4 GB"))?;
        let folder = self.place.root.join(FOLDER);
        match self.place.medium.clone() {
            Medium::Disk(files) => self.append_to_file(&*files, &folder, plan.number, &frame)?,
            Medium::Remote(remote) => self.create_record(&remote, &folder, plan.number, &frame)?,
        }
        self.bytes += frame.len() as u64;
        Ok(())
    }

    /// Since the next plan was to begin a new file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next plan begins a new file.
    pub fn roll(&mut self) {
        self.current = None;
        self.bytes = 0;
    }

    fn append_to_file(&mut self, files: &dyn Files, folder: &Path, number: Epoch, frame: &[u8]) -> Result<()> {
        let current = match &mut self.current {
            Some(current) => current,
            none => none.insert(Current::create(files, folder, number)?),
        };
        if current.is_torn {
            current
                .file
                .cut(current.length)
                .map_err(|e| cannot("truncate", &current.path, e))?;
            current.is_torn = false;
        }
        current.is_torn = true;
        current
            .file
            .append(frame)
            .map_err(|e| cannot("append to", &current.path, e))?;
        current.is_torn = false;
        current.length += frame.len() as u64;
        Ok(())
    }

    fn create_record(&self, remote: &RemoteFolder, folder: &Path, number: Epoch, frame: &[u8]) -> Result<()> {
        let path = path_of(folder, number);
        let bytes = [HEADER, frame].concat();
        match create(remote, &path, &bytes).map_err(|e| cannot("write", &path, e))? {
            Created::Ours => claim::check(&self.place, self.generation),
            Created::Others(there) => {
                let (records, _) = parse(&path, &there)?;
                let theirs = records.first().map_or(0, |record| record.generation);
                match self.generation < theirs {
                    true => Err(claim::fenced(&self.place.root, self.generation, theirs)),
                    false => Err(Error::Overtaken(format!(
                        "epoch {number} stands already in {}, as number {theirs} wrote it before this one, number {}, could",
                        folder.display(),
                        self.generation
                    ))),
                }
            }
        }
    }
}

impl Current {
    fn create(files: &dyn Files, folder: &Path, first: Epoch) -> Result<Self> {
        let path = path_of(folder, first);
        // A file of this name can only hold a torn first record: its epoch never was.
        files
            .write_synced(&path, HEADER)
            .map_err(|e| cannot("create", &path, e))?;
        if !has(Bug::FolderNotSynced) {
            files.sync_folder(folder).map_err(|e| cannot("sync", folder, e))?;
        }
        let file = files.append_to(&path).map_err(|e| cannot("open", &path, e))?;
        Ok(Self {
            path,
            file,
            length: HEADER.len() as u64,
            is_torn: false,
        })
    }
}

/// Makes sure what a run left that was killed: it may have written a record, and not have come to sync it. Whoever reads that record and
/// goes on behind it would lose it alone when the power goes.
pub fn sync(place: &Place) -> Result<()> {
    let Medium::Disk(files) = &place.medium else {
        return Ok(());
    };
    for (_, path) in journals(place)? {
        files.sync_file(&path).map_err(|e| cannot("sync", &path, e))?;
    }
    let folder = place.root.join(FOLDER);
    files.sync_folder(&folder).map_err(|e| cannot("sync", &folder, e))
}

/// All plans after `after`, in order and without a gap.
pub fn read(place: &Place, after: Epoch) -> Result<Vec<EpochPlan>> {
    let mut plans: Vec<EpochPlan> = Vec::new();
    let mut found = journals(place)?;
    if let Medium::Remote(_) = place.medium {
        // A file for each.
        found.retain(|(number, _)| after < *number);
    }
    let bytes = place.read_each(found.iter().map(|(_, path)| path.as_path()));
    for (index, ((_, path), bytes)) in found.iter().zip(bytes).enumerate() {
        let bytes = bytes.map_err(|e| cannot("read", path, e))?;
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
            whole_or_not_at_all(place, path)?;
            tracing::info!(file = %path.display(), is_last = index + 1 == found.len(), "a torn record at the end of the journal is ignored");
        }
    }
    Ok(plans)
}

/// The numbers of all epochs in the journal, as they stand, and the bytes of its files.
pub fn read_all(place: &Place) -> Result<(Vec<Epoch>, u64)> {
    let (mut epochs, mut total) = (Vec::new(), 0);
    let found = journals(place)?;
    let bytes = place.read_each(found.iter().map(|(_, path)| path.as_path()));
    for ((_, path), bytes) in found.iter().zip(bytes) {
        let bytes = bytes.map_err(|e| cannot("read", path, e))?;
        total += bytes.len() as u64;
        let (records, is_torn) = parse(path, &bytes)?;
        if is_torn {
            whole_or_not_at_all(place, path)?;
        }
        epochs.extend(records.into_iter().map(|record| record.plan.number));
    }
    Ok((epochs, total))
}

/// Removes files whose plans are all at or before `covered`; the newest stays.
pub fn remove_before(place: &Place, covered: Epoch) -> Result<()> {
    let found = journals(place)?;
    let pairs = found.windows(2);
    let is_old = |pair: &&[(Epoch, PathBuf)]| pair[1].0.0 <= covered.0 + 1;
    let old: Vec<PathBuf> = pairs.take_while(is_old).map(|pair| pair[0].1.clone()).collect();
    place.remove_files(&old)
}

/// Removes what writers left that were killed: only for who has the state to himself.
pub fn remove_unfinished(place: &Place) -> Result<()> {
    let folder = place.root.join(FOLDER);
    let mut paths = place.list(&folder).map_err(|e| cannot("list", &folder, e))?;
    let is_staged = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'))
    };
    paths.retain(is_staged);
    place.remove_files(&paths)
}

/// What a remote store has was written whole: that it ends too early is damage.
fn whole_or_not_at_all(place: &Place, path: &Path) -> Result<()> {
    match place.medium {
        Medium::Disk(_) => Ok(()),
        Medium::Remote(_) => Err(Error::state(format!(
            "{}: it ends too early; a committed epoch cannot be read, so nothing was started. Restore the file, or start over with --reset",
            path.display()
        ))),
    }
}

fn path_of(folder: &Path, first: Epoch) -> PathBuf {
    folder.join(format!("{:020}.jnl", first.0))
}

/// First epoch and path of each file, in order.
fn journals(place: &Place) -> Result<Vec<(Epoch, PathBuf)>> {
    let folder = place.root.join(FOLDER);
    let mut journals = Vec::new();
    for path in place.list(&folder).map_err(|e| cannot("list", &folder, e))? {
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
    use crate::types::EventTime;

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
            gaps: Default::default(),
            anchors: Default::default(),
        }
    }

    /// A state folder with room for a journal.
    fn place(folder: &tempfile::TempDir) -> Place {
        fs::create_dir(folder.path().join(FOLDER)).unwrap();
        folder.path().into()
    }

    fn numbers(plans: &[EpochPlan]) -> Vec<u64> {
        plans.iter().map(|plan| plan.number.0).collect()
    }

    #[test]
    fn plans_are_read_back_in_order_over_files_and_after_an_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(&folder);
        let mut journal = Journal::new(place.clone(), 1);
        for number in 1..=4 {
            journal.append(&plan(number)).unwrap();
            if number == 2 {
                journal.roll();
            }
        }
        assert_eq!(numbers(&read(&place, Epoch(0)).unwrap()), [1, 2, 3, 4]);
        assert_eq!(numbers(&read(&place, Epoch(3)).unwrap()), [4]);
        remove_before(&place, Epoch(2)).unwrap();
        assert_eq!(
            numbers(&read(&place, Epoch(2)).unwrap()),
            [3, 4],
            "files before a checkpoint go"
        );
        let error = read(&place, Epoch(0)).unwrap_err().to_string();
        assert!(
            error.contains("goes on at epoch 3 where 1 was expected"),
            "a gap is never jumped: {error}"
        );
        assert!(error.ends_with("or start over with --reset"), "{error}");
    }

    #[test]
    fn a_journal_cut_anywhere_gives_a_prefix_of_its_plans() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(&folder);
        let mut journal = Journal::new(place.clone(), 1);
        for number in 1..=3 {
            journal.append(&plan(number)).unwrap();
        }
        let path = path_of(&place.root.join(FOLDER), Epoch(1));
        let bytes = fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            let read = numbers(&read(&place, Epoch(0)).unwrap());
            assert!([1, 2, 3].starts_with(&read), "cut at {length}: {read:?}");
            assert!(read.len() < 3, "a cut loses at least the last plan");
        }
    }

    #[test]
    fn a_flipped_bit_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(&folder);
        let mut journal = Journal::new(place.clone(), 1);
        for number in 1..=3 {
            journal.append(&plan(number)).unwrap();
        }
        let path = path_of(&place.root.join(FOLDER), Epoch(1));
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            assert!(read(&place, Epoch(0)).is_err(), "flip at {at}");
        }
    }
}
