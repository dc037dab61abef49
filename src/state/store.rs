//! The state folder of one source's timeline: locked by one process, numbered by generation.

use crate::types::{
    Epoch, EpochPlan, Result,
    planted::{Bug, has},
};

use super::{
    checkpoint::{self, Checkpoint, CheckpointWriter},
    claim::{self, Claim},
    journal::{self, Journal},
    place::{Created, Medium, Place, cannot, create},
};

pub(super) const DEFINITION: &str = "definition";
const IDENTITY: &str = "identity";

pub struct Store {
    journal: Journal,
    writer: CheckpointWriter,
    identity: String,
    _claim: Claim,
}

/// What a start finds.
pub struct Recovered {
    pub checkpoint: Option<Checkpoint>,
    /// Committed after the checkpoint, in order.
    pub plans: Vec<EpochPlan>,
}

impl Store {
    /// Opens or makes the folder, takes its lock and a new generation, and reads what is there.
    ///
    /// # Errors
    /// Where another process has the lock, or the state is damaged.
    pub fn open(place: &Place) -> Result<(Self, Recovered)> {
        for name in [journal::FOLDER, checkpoint::FOLDER] {
            let path = place.root.join(name);
            place.create_folder(&path).map_err(|e| cannot("create", &path, e))?;
        }
        let claim = claim::claim(place)?;
        let identity = identity(place)?;
        if !has(Bug::JournalNotSyncedAtStart) {
            journal::sync(place)?;
        }
        if let Medium::Disk(files) = &place.medium
            && !has(Bug::CheckpointsNotSyncedAtStart)
        {
            // So it is with the name of a checkpoint that a run published before it was killed.
            let folder = place.root.join(checkpoint::FOLDER);
            files.sync_folder(&folder).map_err(|e| cannot("sync", &folder, e))?;
        }
        checkpoint::remove_unfinished(place, claim.generation)?;
        journal::remove_unfinished(place)?;
        let store = Self {
            journal: Journal::new(place.clone(), claim.generation),
            writer: CheckpointWriter {
                place: place.clone(),
                generation: claim.generation,
            },
            identity,
            _claim: claim,
        };
        let recovered = store.recover(|_| true)?;
        Ok((store, recovered))
    }

    /// The newest checkpoint that `takes` takes, and the plans after it; all plans where there is none.
    ///
    /// # Errors
    /// Where what is needed is damaged or was removed.
    pub fn recover(&self, takes: impl Fn(&Checkpoint) -> bool) -> Result<Recovered> {
        let place = &self.writer.place;
        let checkpoint = checkpoint::newest(place, takes)?;
        let after = checkpoint.as_ref().map_or(Epoch(0), |checkpoint| checkpoint.epoch);
        let plans = journal::read(place, after)?;
        Ok(Recovered { checkpoint, plans })
    }

    /// Removes everything but the folder itself; what was committed is forgotten. `ours` is the generation of who has it; without one it is
    /// taken from whoever has.
    ///
    /// # Errors
    /// Where another process uses it.
    pub fn reset(place: &Place, ours: Option<u64>) -> Result<()> {
        let root = &place.root;
        if !place.has_folder(root)? {
            return Ok(());
        }
        let lock = claim::keep_out(place, ours)?;
        for name in [journal::FOLDER, checkpoint::FOLDER] {
            let path = root.join(name);
            if place.has_folder(&path)? {
                place.remove_folder(&path)?;
            }
        }
        for name in [DEFINITION, IDENTITY] {
            let path = root.join(name);
            if place.has_file(&path)? {
                place.remove_files(&[path])?;
            }
        }
        if let Medium::Disk(files) = &place.medium {
            files.sync_folder(root).map_err(|e| cannot("sync", root, e))?;
        }
        drop(lock);
        Ok(())
    }

    /// What the state is a state of, where that was ever said.
    pub fn definition(&self) -> Result<Option<String>> {
        read_text(&self.writer.place, DEFINITION)
    }

    /// Says what the state is a state of. Before the first epoch: a journal alone does not tell.
    pub fn define(&mut self, definition: &str) -> Result<()> {
        let place = &self.writer.place;
        place.replace(&place.root.join(DEFINITION), definition.as_bytes())
    }

    /// Of this state alone, from its beginning to its reset: its epochs are not those of another.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Whether another process may take it at any time.
    pub fn is_shared(&self) -> bool {
        self.writer.place.is_shared()
    }

    /// # Errors
    /// Where another process has taken it.
    pub fn check_claim(&self) -> Result<()> {
        claim::check(&self.writer.place, self.writer.generation)
    }

    /// Goes up with every start.
    pub fn generation(&self) -> u64 {
        self.writer.generation
    }

    /// Commits an epoch: when this returns, the plan survives a power cut. After an error it can be tried again.
    pub fn append(&mut self, plan: &EpochPlan) -> Result<()> {
        self.journal.append(plan)
    }

    /// Journal bytes since the last checkpoint began.
    pub fn journal_bytes(&self) -> u64 {
        self.journal.bytes()
    }

    /// The next plans go into a file of their own, so that those before can go once the checkpoint stands.
    pub fn begin_checkpoint(&mut self) -> CheckpointWriter {
        self.journal.roll();
        self.writer.clone()
    }
}

fn identity(place: &Place) -> Result<String> {
    if let Some(text) = read_text(place, IDENTITY)? {
        return Ok(text.trim().to_owned());
    }
    let identity = format!("{:032x}", place.nonce());
    let path = place.root.join(IDENTITY);
    match &place.medium {
        Medium::Disk(_) => place.replace(&path, format!("{identity}\n").as_bytes())?,
        Medium::Remote(folder) => {
            let made = create(folder, &path, format!("{identity}\n").as_bytes());
            // Of two that start at once, both have that of the first.
            if let Created::Others(there) = made.map_err(|e| cannot("write", &path, e))? {
                return Ok(String::from_utf8_lossy(&there).trim().to_owned());
            }
        }
    }
    Ok(identity)
}

/// `None` where there is no such file.
fn read_text(place: &Place, name: &str) -> Result<Option<String>> {
    let path = place.root.join(name);
    match place.read(&path) {
        // What is no text is no name and no number either: who reads it says so.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(cannot("read", &path, e)),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use arrow::{
        array::{Int64Array, RecordBatch},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;
    use crate::{
        state::Part,
        types::{Error, EventTime, Saved},
    };

    fn plan(number: u64) -> EpochPlan {
        EpochPlan {
            number: Epoch(number),
            ranges: Default::default(),
            epoch_time: EventTime(0),
            idle_splits: Default::default(),
            new_splits: Default::default(),
            complete_below: None,
            is_last: false,
            checkpoint: false,
            gaps: Default::default(),
            anchors: Default::default(),
        }
    }

    fn checkpoint(epoch: u64) -> Checkpoint {
        let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Int64, false)]));
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![epoch as i64; 100]))]).unwrap();
        let parts = vec![Part {
            name: "rows".into(),
            rows: Saved::now(vec![batch]),
        }];
        Checkpoint {
            epoch: Epoch(epoch),
            header: serde_json::json!({"rows": 1}),
            definition: "v1".into(),
            parts,
        }
    }

    #[test]
    fn a_restart_finds_the_newest_checkpoint_and_the_plans_after_it() {
        let folder = tempfile::tempdir().unwrap();
        {
            let (mut store, recovered) = Store::open(&Place::from(folder.path())).unwrap();
            assert!(recovered.checkpoint.is_none() && recovered.plans.is_empty());
            for number in 1..=10 {
                store.append(&plan(number)).unwrap();
                if number % 2 == 0 {
                    store.begin_checkpoint().write(checkpoint(number), None).unwrap();
                }
            }
            store.append(&plan(11)).unwrap();
        }
        let (store, recovered) = Store::open(&Place::from(folder.path())).unwrap();
        assert_eq!(recovered.checkpoint.unwrap().epoch, Epoch(10));
        assert_eq!(recovered.plans, [plan(11)]);
        assert_eq!(store.generation(), 2);
        assert_eq!(
            fs::read_dir(folder.path().join("checkpoints")).unwrap().count(),
            limits::CHECKPOINTS_KEPT
        );
    }

    use crate::types::limits;

    #[test]
    fn a_state_remembers_what_it_is_of_until_it_is_reset() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(&Place::from(folder.path())).unwrap();
        assert_eq!(store.definition().unwrap(), None);
        store.define("one").unwrap();
        store.define("two\nlines").unwrap();
        drop(store);
        let (store, _) = Store::open(&Place::from(folder.path())).unwrap();
        assert_eq!(store.definition().unwrap().as_deref(), Some("two\nlines"));
        drop(store);
        Store::reset(&Place::from(folder.path()), None).unwrap();
        assert_eq!(
            Store::open(&Place::from(folder.path()))
                .unwrap()
                .0
                .definition()
                .unwrap(),
            None
        );
    }

    #[test]
    fn a_damaged_checkpoint_is_passed_over_for_the_one_before_and_its_plans() {
        let folder = tempfile::tempdir().unwrap();
        {
            let (mut store, _) = Store::open(&Place::from(folder.path())).unwrap();
            for number in 1..=3 {
                store.append(&plan(number)).unwrap();
                store.begin_checkpoint().write(checkpoint(number), None).unwrap();
            }
        }
        let part = folder.path().join(format!("checkpoints/{:020}/0000.arrow", 3));
        let mut bytes = fs::read(&part).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&part, &bytes).unwrap();
        let (_store, recovered) = Store::open(&Place::from(folder.path())).unwrap();
        assert_eq!(recovered.checkpoint.unwrap().epoch, Epoch(2));
        assert_eq!(recovered.plans, [plan(3)]);
    }

    #[test]
    fn what_is_damaged_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let refused = || Store::open(&Place::from(folder.path())).err().unwrap().to_string();
        {
            let (mut store, _) = Store::open(&Place::from(folder.path())).unwrap();
            store.append(&plan(1)).unwrap();
            store.begin_checkpoint().write(checkpoint(1), None).unwrap();
        }
        fs::write(folder.path().join(format!("checkpoints/{:020}/MANIFEST", 1)), "?").unwrap();
        let error = refused();
        assert!(
            error.starts_with("no checkpoint can be read, so nothing was started"),
            "{error}"
        );
        assert!(
            error.ends_with("Restore the folder from a copy, or start over with --reset"),
            "{error}"
        );
        Store::reset(&Place::from(folder.path()), None).unwrap();
        assert!(Store::open(&Place::from(folder.path())).is_ok(), "what it says helps");

        fs::write(folder.path().join("generation"), "one").unwrap();
        let error = refused();
        assert!(error.contains("write a number into it"), "{error}");
        fs::write(folder.path().join("generation"), "1000000").unwrap();
        assert_eq!(
            Store::open(&Place::from(folder.path())).unwrap().0.generation(),
            1_000_001,
            "what it says helps"
        );
    }

    #[test]
    fn a_checkpoint_that_was_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("checkpoints/00000000000000000007.tmp");
        let (mut store, _) = Store::open(&Place::from(folder.path())).unwrap();
        let failing = Checkpoint {
            parts: vec![
                checkpoint(7).parts.pop().unwrap(),
                Part {
                    name: "more".into(),
                    rows: Saved::later(|| Err(Error::bug("cannot be told"))),
                },
            ],
            ..checkpoint(7)
        };
        assert!(store.begin_checkpoint().write(failing, None).is_err());
        assert!(!left.exists(), "a writer that fails cleans up");
        drop(store);
        fs::create_dir(&left).unwrap();
        fs::write(left.join("0000.arrow"), "half of it").unwrap();
        let (_store, recovered) = Store::open(&Place::from(folder.path())).unwrap();
        assert!(recovered.checkpoint.is_none());
        assert!(!left.exists(), "of one that was killed, the next start does");
    }

    #[test]
    fn another_format_is_refused_by_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(&Place::from(folder.path())).unwrap();
        store.begin_checkpoint().write(checkpoint(1), None).unwrap();
        drop(store);
        let manifest = folder.path().join("checkpoints/00000000000000000001/MANIFEST");
        let text = fs::read_to_string(&manifest).unwrap();
        let (_, body) = text.split_once('\n').unwrap();
        let later = body.replace("\"format_version\": 1", "\"format_version\": 2");
        assert_ne!(later, body);
        fs::write(&manifest, format!("{:08x}\n{later}", crc32c::crc32c(later.as_bytes()))).unwrap();
        let error = Store::open(&Place::from(folder.path())).err().unwrap().to_string();
        assert!(error.contains("written in format 2, this version reads 1"), "{error}");
    }

    #[test]
    fn a_second_process_is_told_who_has_the_state() {
        let folder = tempfile::tempdir().unwrap();
        let (_store, _) = Store::open(&Place::from(folder.path())).unwrap();
        let error = Store::open(&Place::from(folder.path())).err().unwrap().to_string();
        assert!(error.starts_with("another zeta uses the state in"), "{error}");
    }
}
