//! A folder of this machine: contents are synced before names, and names by syncing their folder.

use std::{
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
}

impl LocalStore {
    /// The folder need not be there yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
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
            create_synced(folder)?;
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
        create_synced(folder)?;
        // A rename would take the place of what is there; a second name does not.
        fs::hard_link(&from, &to).map_err(|e| cannot("give its name to", &to, &e))?;
        sync(folder)?;
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
            let removed = found(fs::remove_file(&path)).map_err(|e| cannot("remove", &path, &e))?;
            if removed.is_some() {
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

/// Makes a folder and its parents, each of which is synced into its own.
fn create_synced(folder: &Path) -> Result<(), SinkError> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(parent) = folder.parent() else { return Ok(()) };
    create_synced(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
        other => other.map_err(|e| cannot("create", folder, &e))?,
    }
    sync(parent)
}

fn sync(folder: &Path) -> Result<(), SinkError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| cannot("sync", folder, &e))
}

/// A full disk, a missing right, a file system that became read-only: all of it can be mended while we wait.
fn cannot(verb: &str, path: &Path, error: &io::Error) -> SinkError {
    let reason = match error.kind() {
        ErrorKind::Unsupported => "this file system gives no file a second name (hard links)".to_owned(),
        _ => error.to_string(),
    };
    SinkError::Unreachable(format!("cannot {verb} {}: {reason}", path.display()))
}
