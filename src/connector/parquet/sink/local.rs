//! A folder of this machine: contents are synced before names, and names by syncing their folder.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::store::Store;
use crate::{connector::SinkError, remote::Entry};

pub struct LocalStore {
    root: PathBuf,
    /// Folders whose names are known to survive a power cut.
    synced: RefCell<BTreeSet<PathBuf>>,
}

impl LocalStore {
    /// The folder need not be there yet.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            synced: RefCell::default(),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Makes a folder and its parents, each of which is synced into its own. So is one that is there: who made it may have been killed
    /// before that; once, since nobody takes it away and makes it again.
    fn create_synced(&self, folder: &Path) -> Result<(), SinkError> {
        let is_there = folder.is_dir();
        if is_there && self.synced.borrow().contains(folder) {
            return Ok(());
        }
        let Some(parent) = folder.parent() else { return Ok(()) };
        if !is_there {
            self.create_synced(parent)?;
            match fs::create_dir(folder) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
                other => other.map_err(|e| cannot("create", folder, &e))?,
            }
        }
        match sync_names(parent) {
            // What is around the folder of the sink need not let us: whoever made that can sync it.
            Err(_) if is_there && !parent.starts_with(&self.root) => {}
            other => other.map_err(|e| cannot("sync", parent, &e))?,
        }
        self.synced.borrow_mut().insert(folder.to_owned());
        Ok(())
    }
}

impl Store for LocalStore {
    fn read(&self, path: &str) -> Result<Option<Bytes>, SinkError> {
        let path = self.at(path);
        found(fs::read(&path))
            .map(|bytes| bytes.map(Bytes::from))
            .map_err(|e| cannot("read", &path, &e))
    }

    fn length(&self, path: &str) -> Result<Option<u64>, SinkError> {
        let path = self.at(path);
        let metadata = found(fs::metadata(&path)).map_err(|e| cannot("read", &path, &e))?;
        Ok(metadata.map(|metadata| metadata.len()))
    }

    fn write(&self, files: Vec<(String, Bytes)>) -> Result<(), SinkError> {
        let mut folders = BTreeSet::new();
        for (path, bytes) in files {
            let path = self.at(&path);
            let folder = folder_of(&path);
            self.create_synced(folder)?;
            let write = || {
                let mut file = File::create(&path)?;
                file.write_all(&bytes)?;
                file.sync_all()
            };
            write().map_err(|e| cannot("write", &path, &e))?;
            folders.insert(folder.to_owned());
        }
        folders.iter().try_for_each(|folder| sync(folder))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), SinkError> {
        let (from, to) = (self.at(from), self.at(to));
        let folder = folder_of(&to);
        self.create_synced(folder)?;
        // A rename would take the place of what is there; a second name does not.
        let linked = fs::hard_link(&from, &to);
        let is_taken = linked.as_ref().is_err_and(|e| e.kind() == ErrorKind::AlreadyExists);
        if linked.is_ok() || is_taken {
            // Who has taken the name may have been killed before it was synced, and it is looked at now.
            sync(folder)?;
        }
        linked.map_err(|e| cannot("give its name to", &to, &e))?;
        // Its first name may come back after a power cut: then it is removed once more.
        found(fs::remove_file(&from))
            .map(|_| ())
            .map_err(|e| cannot("remove", &from, &e))
    }

    fn rename_each(&self, names: &[(String, String)]) -> Vec<Result<(), SinkError>> {
        names.iter().map(|(from, to)| self.rename(from, to)).collect()
    }

    fn delete(&self, paths: &[String]) -> Result<(), SinkError> {
        let mut folders = BTreeSet::new();
        for path in paths {
            let path = self.at(path);
            found(fs::remove_file(&path)).map_err(|e| cannot("remove", &path, &e))?;
            // Also where it was gone: who removed it may have been killed before that was synced.
            if folder_of(&path).is_dir() {
                folders.insert(folder_of(&path).to_owned());
            }
        }
        folders.iter().try_for_each(|folder| sync(folder))
    }

    fn delete_folder(&self, folder: &str) -> Result<(), SinkError> {
        let folder = self.at(folder);
        found(fs::remove_dir(&folder))
            .map(|_| ())
            .map_err(|e| cannot("remove", &folder, &e))
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>, SinkError> {
        let folder = self.at(folder);
        let cannot = |e| cannot("list", &folder, &e);
        let Some(entries) = found(fs::read_dir(&folder)).map_err(cannot)? else {
            return Ok(Vec::new());
        };
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            Ok(Entry {
                // A name that is no text is none of ours.
                name: entry.file_name().to_string_lossy().into_owned(),
                is_folder: entry.file_type()?.is_dir(),
            })
        };
        entries.map(entry).collect::<io::Result<_>>().map_err(cannot)
    }

    fn sync(&self, path: &str) -> Result<(), SinkError> {
        sync(folder_of(&self.at(path)))
    }
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().expect("a file of a sink lies in a folder")
}

fn sync(folder: &Path) -> Result<(), SinkError> {
    sync_names(folder).map_err(|e| cannot("sync", folder, &e))
}

fn sync_names(folder: &Path) -> io::Result<()> {
    // The parent of a relative path.
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    File::open(folder)?.sync_all()
}

/// A full disk, a missing right, a file system that became read-only: all of it can be mended while we wait.
fn cannot(verb: &str, path: &Path, error: &io::Error) -> SinkError {
    let reason = match error.kind() {
        ErrorKind::Unsupported => "this file system gives no file a second name (hard links)".to_owned(),
        _ => error.to_string(),
    };
    SinkError::Unreachable(format!("cannot {verb} {}: {reason}", path.display()))
}
