//! A disk that keeps at a crash what was synced, and of the rest as much as it likes.
//!
//! ```text
//! write ─▶ cache ─ sync ─▶ kept        make, rename, remove ─▶ cache ─ sync the folder ─▶ kept
//! crash: of a file's unsynced bytes some sectors stay, of a folder's unsynced changes the first few
//! ```

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::scheduler::{Life, Scheduler};
use crate::state::{Append, Files};

const SECTOR: usize = 512;
/// How long a sync takes at most.
const SYNC: Duration = Duration::from_millis(20);
/// And on a disk that has trouble.
const SLOW_SYNC: Duration = Duration::from_secs(2);

type Id = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    File(Id),
    Folder(Id),
}

#[derive(Clone, Default)]
struct File {
    now: Vec<u8>,
    kept: Vec<u8>,
}

#[derive(Clone, Default)]
struct Folder {
    now: BTreeMap<String, Node>,
    kept: BTreeMap<String, Node>,
    /// What leads from `kept` to `now`, in order.
    changes: Vec<BTreeMap<String, Option<Node>>>,
}

#[derive(Default)]
struct Contents {
    files: Vec<File>,
    folders: Vec<Folder>,
    locks: BTreeMap<PathBuf, Life>,
    /// How likely an operation that changes something fails.
    fails: f64,
    is_full: bool,
    is_slow: bool,
    /// What is being synced, by the number of the call.
    syncing: BTreeMap<u64, PathBuf>,
    calls: u64,
}

/// One disk; each life sees it through files of its own.
#[derive(Clone)]
pub struct Disk {
    scheduler: Scheduler,
    contents: Arc<Mutex<Contents>>,
}

impl Disk {
    pub fn new(scheduler: &Scheduler) -> Self {
        let contents = Contents {
            folders: vec![Folder::default()],
            ..Contents::default()
        };
        Self {
            scheduler: scheduler.clone(),
            contents: Arc::new(Mutex::new(contents)),
        }
    }

    pub fn files(&self, life: Life) -> Arc<dyn Files> {
        Arc::new(SimulatedFiles {
            disk: self.clone(),
            life,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on so many of the operations that change something fail, or all do for lack of room, or syncs take long.
    pub fn set_faults(&self, fails: f64, is_full: bool, is_slow: bool) {
        let mut contents = self.lock();
        (contents.fails, contents.is_full, contents.is_slow) = (fails, is_full, is_slow);
    }

    /// The names in a folder; none where it is not there.
    pub fn names_in(&self, folder: &Path) -> Vec<String> {
        let contents = self.lock();
        let found = contents.folder(folder);
        found.map_or_else(|_| Vec::new(), |id| contents.folders[id].now.keys().cloned().collect())
    }

    /// Whether a file or folder whose name ends so is being synced at this moment.
    pub fn is_syncing(&self, ending: &str) -> bool {
        let contents = self.lock();
        let mut syncing = contents.syncing.values();
        syncing.any(|path| path.to_string_lossy().ends_with(ending))
    }

    /// The power goes: what a life held is free, and what was not synced is as the disk likes.
    pub fn crash(&self) {
        let mut contents = self.lock();
        contents.locks.clear();
        for index in 0..contents.files.len() {
            let File { now, kept } = contents.files[index].clone();
            if now == kept {
                continue;
            }
            let same = now.iter().zip(&kept).take_while(|(a, b)| a == b).count();
            let mut left = match self.scheduler.draw(4) {
                // Nothing of it was written, or all.
                0 => kept,
                1 => now,
                // As if what follows was never there, up to a sector.
                2 => {
                    let sectors = now.len().saturating_sub(same) / SECTOR + 1;
                    let length = (same + self.scheduler.draw(sectors as u64 + 1) as usize * SECTOR).min(now.len());
                    now[..length].to_vec()
                }
                // The length came, and not all sectors.
                _ => {
                    let mut left = now;
                    let end = left.len();
                    for sector in (same / SECTOR)..end.div_ceil(SECTOR) {
                        if self.scheduler.chance(0.5) {
                            let (from, to) = ((sector * SECTOR).max(same), ((sector + 1) * SECTOR).min(end));
                            left[from.min(to)..to].fill(0);
                        }
                    }
                    left
                }
            };
            left.shrink_to_fit();
            contents.files[index] = File {
                now: left.clone(),
                kept: left,
            };
        }
        for index in 0..contents.folders.len() {
            let count = contents.folders[index].changes.len();
            if count == 0 {
                continue;
            }
            let stay = self.scheduler.draw(count as u64 + 1) as usize;
            let folder = &mut contents.folders[index];
            let mut kept = folder.kept.clone();
            for change in folder.changes.drain(..).take(stay) {
                apply(&mut kept, change);
            }
            folder.now.clone_from(&kept);
            folder.kept = kept;
        }
    }
}

fn apply(names: &mut BTreeMap<String, Node>, change: BTreeMap<String, Option<Node>>) {
    for (name, node) in change {
        match node {
            Some(node) => names.insert(name, node),
            None => names.remove(&name),
        };
    }
}

fn no_such() -> io::Error {
    ErrorKind::NotFound.into()
}

impl Contents {
    /// The folder of a path's last part, and that part.
    fn place(&self, path: &Path) -> io::Result<(Id, String)> {
        let name = path.file_name().and_then(OsStr::to_str).ok_or_else(no_such)?;
        let folder = self.folder(path.parent().unwrap_or(Path::new("")))?;
        Ok((folder, name.to_owned()))
    }

    fn folder(&self, path: &Path) -> io::Result<Id> {
        path.iter().try_fold(0, |folder, name| {
            let node = self.folders[folder].now.get(name.to_str().unwrap_or_default());
            match node {
                Some(Node::Folder(id)) => Ok(*id),
                _ => Err(no_such()),
            }
        })
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        if path.as_os_str().is_empty() {
            return Ok(Node::Folder(0));
        }
        let (folder, name) = self.place(path)?;
        self.folders[folder].now.get(&name).copied().ok_or_else(no_such)
    }

    fn file(&self, path: &Path) -> io::Result<Id> {
        match self.node(path)? {
            Node::File(id) => Ok(id),
            Node::Folder(_) => Err(no_such()),
        }
    }

    fn change(&mut self, folder: Id, change: BTreeMap<String, Option<Node>>) {
        let folder = &mut self.folders[folder];
        apply(&mut folder.now, change.clone());
        folder.changes.push(change);
    }

    fn sync(&mut self, folder: Id) {
        let folder = &mut self.folders[folder];
        folder.kept.clone_from(&folder.now);
        folder.changes.clear();
    }
}

struct SimulatedFiles {
    disk: Disk,
    life: Life,
}

impl SimulatedFiles {
    /// Every call takes a moment, in which the power may go, and may fail where it changes something.
    fn begin(&self, what: &str, path: &Path, is_change: bool) -> io::Result<()> {
        self.disk.begin(what, path, is_change)
    }
}

impl Disk {
    fn begin(&self, what: &str, path: &Path, is_change: bool) -> io::Result<()> {
        self.scheduler.sleep(self.scheduler.delay(Duration::from_millis(1)));
        self.scheduler.note(|| format!("{what} {}", path.display()));
        if !is_change {
            return Ok(());
        }
        let (fails, is_full) = {
            let contents = self.lock();
            (contents.fails, contents.is_full)
        };
        if is_full {
            return Err(ErrorKind::StorageFull.into());
        }
        match self.scheduler.chance(fails) {
            true => Err(io::Error::other("the simulated disk fails")),
            false => Ok(()),
        }
    }

    fn take_a_while(&self, path: &Path) {
        let call = {
            let mut contents = self.lock();
            contents.calls += 1;
            let call = contents.calls;
            contents.syncing.insert(call, path.into());
            call
        };
        let syncing = Syncing { disk: self, call };
        let is_slow = self.lock().is_slow;
        let most = if is_slow { SLOW_SYNC } else { SYNC };
        self.scheduler.sleep(self.scheduler.delay(most));
        drop(syncing);
    }

    /// What was written is kept, unless the power goes first.
    fn sync_file(&self, path: &Path, id: Id) {
        self.take_a_while(path);
        let mut contents = self.lock();
        let now = contents.files[id].now.clone();
        contents.files[id].kept = now;
    }
}

impl Files for SimulatedFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.begin("read", path, false)?;
        let contents = self.disk.lock();
        Ok(contents.files[contents.file(path)?].now.clone())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.begin("list", folder, false)?;
        let contents = self.disk.lock();
        let id = contents.folder(folder)?;
        Ok(contents.folders[id].now.keys().map(|name| folder.join(name)).collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.disk.lock().node(path).is_ok()
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.begin("create", path, true)?;
        let mut contents = self.disk.lock();
        let mut above = 0;
        for name in path.iter() {
            let name = name.to_str().unwrap_or_default().to_owned();
            above = match contents.folders[above].now.get(&name).copied() {
                Some(Node::Folder(id)) => id,
                Some(Node::File(_)) => return Err(ErrorKind::NotADirectory.into()),
                None => {
                    contents.folders.push(Folder::default());
                    let id = contents.folders.len() - 1;
                    contents.change(above, BTreeMap::from([(name, Some(Node::Folder(id)))]));
                    contents.sync(above);
                    id
                }
            };
        }
        Ok(())
    }

    fn write_synced(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.begin("write", path, true)?;
        let id = {
            let mut contents = self.disk.lock();
            let (folder, name) = contents.place(path)?;
            match contents.file(path) {
                Ok(id) => id,
                Err(_) => {
                    contents.files.push(File::default());
                    let id = contents.files.len() - 1;
                    contents.change(folder, BTreeMap::from([(name, Some(Node::File(id)))]));
                    id
                }
            }
        };
        self.disk.lock().files[id].now = bytes.to_vec();
        self.disk.sync_file(path, id);
        Ok(())
    }

    fn append_to(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        self.begin("open", path, false)?;
        let id = self.disk.lock().file(path)?;
        Ok(Box::new(SimulatedAppend {
            disk: self.disk.clone(),
            path: path.into(),
            id,
        }))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.begin("sync", path, true)?;
        let id = self.disk.lock().file(path)?;
        self.disk.sync_file(path, id);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin("rename", from, true)?;
        let mut contents = self.disk.lock();
        let node = contents.node(from)?;
        let ((folder, old), (target, new)) = (contents.place(from)?, contents.place(to)?);
        assert_eq!(folder, target, "names change within a folder");
        contents.change(folder, BTreeMap::from([(old, None), (new, Some(node))]));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.begin("remove", path, true)?;
        let mut contents = self.disk.lock();
        contents.file(path)?;
        let (folder, name) = contents.place(path)?;
        contents.change(folder, BTreeMap::from([(name, None)]));
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.begin("remove", path, true)?;
        let names: Vec<String> = {
            let contents = self.disk.lock();
            contents.folders[contents.folder(path)?].now.keys().cloned().collect()
        };
        // One name after the other: the power may go between two.
        for name in names {
            let inside = path.join(&name);
            let node = self.disk.lock().node(&inside)?;
            match node {
                Node::Folder(_) => self.remove_folder(&inside)?,
                Node::File(_) => self.remove_file(&inside)?,
            }
        }
        let mut contents = self.disk.lock();
        let (folder, name) = contents.place(path)?;
        contents.change(folder, BTreeMap::from([(name, None)]));
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.begin("sync", path, true)?;
        self.disk.take_a_while(path);
        let mut contents = self.disk.lock();
        let id = contents.folder(path)?;
        contents.sync(id);
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.begin("lock", path, false)?;
        let mut contents = self.disk.lock();
        contents.place(path)?;
        if contents.locks.get(path).is_some_and(|life| *life != self.life) {
            return Ok(None);
        }
        contents.locks.insert(path.into(), self.life);
        Ok(Some(Box::new(Held {
            disk: self.disk.clone(),
            path: path.into(),
        })))
    }

    fn nonce(&self) -> u128 {
        u128::from(self.disk.scheduler.draw(u64::MAX))
    }
}

struct SimulatedAppend {
    disk: Disk,
    path: PathBuf,
    id: Id,
}

impl Append for SimulatedAppend {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let outcome = self.disk.begin("append", &self.path, true);
        // Where it fails a part of it may be there all the same.
        let length = match &outcome {
            Ok(()) => bytes.len(),
            Err(_) => self.disk.scheduler.draw(bytes.len() as u64 + 1) as usize,
        };
        self.disk.lock().files[self.id].now.extend_from_slice(&bytes[..length]);
        outcome?;
        self.disk.sync_file(&self.path, self.id);
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.disk.begin("cut", &self.path, true)?;
        self.disk.lock().files[self.id].now.truncate(length as usize);
        Ok(())
    }
}

/// Ends also where the caller is killed meanwhile.
struct Syncing<'d> {
    disk: &'d Disk,
    call: u64,
}

impl Drop for Syncing<'_> {
    fn drop(&mut self) {
        self.disk.lock().syncing.remove(&self.call);
    }
}

struct Held {
    disk: Disk,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk.lock().locks.remove(&self.path);
    }
}
