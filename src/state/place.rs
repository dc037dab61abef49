//! Where a state lies: on a disk of this machine, or in a folder of a remote store.
//!
//! ```text
//!              one writer                    commit of an epoch            publishing of a checkpoint
//! disk         a lock, a number (LOCK)       append and sync               rename of its folder
//! remote       generations/<number> is       journal/<epoch>.jnl is        its MANIFEST is made behind its parts
//!              made by one alone             made by one alone
//! ```

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    remote::{RemoteError, RemoteFolder},
    types::{Error, Result},
};

use super::files::{Files, LocalFiles};

/// A folder of a state, and what is asked about the files in it.
#[derive(Clone)]
pub struct Place {
    pub root: PathBuf,
    pub(super) medium: Medium,
}

#[derive(Clone)]
pub(super) enum Medium {
    Disk(Arc<dyn Files>),
    /// Of which `root` is a part: paths begin with its location.
    Remote(Arc<RemoteFolder>),
}

impl Place {
    pub fn on_disk(root: impl Into<PathBuf>, files: Arc<dyn Files>) -> Self {
        Self {
            root: root.into(),
            medium: Medium::Disk(files),
        }
    }

    pub fn remote(folder: RemoteFolder) -> Self {
        Self {
            root: folder.location().into(),
            medium: Medium::Remote(Arc::new(folder)),
        }
    }

    pub fn join(&self, name: &str) -> Self {
        Self {
            root: self.root.join(name),
            medium: self.medium.clone(),
        }
    }

    /// Whether another process may take a state there at any time.
    pub fn is_shared(&self) -> bool {
        matches!(self.medium, Medium::Remote(_))
    }

    /// Whether a call failed because the store did not answer it; of a disk errors are taken as they are.
    pub(super) fn is_unreachable(&self, error: &Error) -> bool {
        // What [`cannot`] makes of a remote error has no other cause.
        self.is_shared() && matches!(error, Error::External { cause: None, .. })
    }

    /// The folder, where it is one of this machine.
    pub fn on_this_machine(&self) -> Option<&Path> {
        match self.medium {
            Medium::Disk(_) => Some(&self.root),
            Medium::Remote(_) => None,
        }
    }

    /// Whether there is something.
    pub fn is_there(&self) -> Result<bool> {
        self.has_folder(&self.root)
    }

    /// # Errors
    /// [`io::ErrorKind::NotFound`] where there is no such file.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match &self.medium {
            Medium::Disk(files) => files.read(path),
            Medium::Remote(folder) => {
                let found = folder.read(&relative(folder, path)).map_err(told)?;
                found.map(Vec::from).ok_or_else(|| io::ErrorKind::NotFound.into())
            }
        }
    }

    /// Many whole files, an answer for each, in their order.
    pub(super) fn read_each<'a>(&self, paths: impl Iterator<Item = &'a Path>) -> Vec<io::Result<Vec<u8>>> {
        match &self.medium {
            Medium::Disk(files) => paths.map(|path| files.read(path)).collect(),
            Medium::Remote(folder) => {
                let names = paths.map(|path| relative(folder, path)).collect();
                let whole = |found: Option<Bytes>| found.map(Vec::from).ok_or_else(|| io::ErrorKind::NotFound.into());
                let answers = folder.read_each(names).into_iter();
                answers.map(|answer| answer.map_err(told).and_then(whole)).collect()
            }
        }
    }

    /// The paths in a folder, in their order.
    pub(super) fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        match &self.medium {
            Medium::Disk(files) => files.list(folder),
            Medium::Remote(remote) => {
                let entries = remote.list(&relative(remote, folder)).map_err(told)?;
                let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| folder.join(entry.name)).collect();
                paths.sort();
                Ok(paths)
            }
        }
    }

    pub(super) fn has_file(&self, path: &Path) -> Result<bool> {
        match &self.medium {
            Medium::Disk(files) => Ok(files.exists(path)),
            Medium::Remote(folder) => {
                let length = folder.length(&relative(folder, path));
                Ok(length.map_err(|e| cannot("find", path, told(e)))?.is_some())
            }
        }
    }

    /// Whether there is something in a folder; one of a disk may be empty.
    pub(super) fn has_folder(&self, path: &Path) -> Result<bool> {
        match &self.medium {
            Medium::Disk(files) => Ok(files.exists(path)),
            Medium::Remote(folder) => {
                let entries = folder.list(&relative(folder, path));
                Ok(!entries.map_err(|e| cannot("find", path, told(e)))?.is_empty())
            }
        }
    }

    pub(super) fn create_folder(&self, path: &Path) -> io::Result<()> {
        match &self.medium {
            Medium::Disk(files) => files.create_folder(path),
            // It comes with its first file.
            Medium::Remote(_) => Ok(()),
        }
    }

    /// Writes a file that is either there whole under its name or as it was before.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        match &self.medium {
            Medium::Disk(files) => write_atomic(&**files, path, bytes),
            Medium::Remote(folder) => {
                let file = (relative(folder, path), Bytes::copy_from_slice(bytes));
                folder.write(vec![file]).map_err(|e| cannot("write", path, told(e)))
            }
        }
    }

    /// The same of a file that nobody has read, without another copy of its bytes.
    pub(super) fn write_part(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        match &self.medium {
            Medium::Disk(files) => files.write_synced(path, &bytes).map_err(|e| cannot("write", path, e)),
            Medium::Remote(folder) => {
                let file = (relative(folder, path), Bytes::from(bytes));
                folder.write(vec![file]).map_err(|e| cannot("write", path, told(e)))
            }
        }
    }

    pub(super) fn remove_files(&self, paths: &[PathBuf]) -> Result<()> {
        match &self.medium {
            Medium::Disk(files) => paths
                .iter()
                .try_for_each(|path| files.remove_file(path).map_err(|e| cannot("remove", path, e))),
            Medium::Remote(folder) => {
                let names: Vec<String> = paths.iter().map(|path| relative(folder, path)).collect();
                folder
                    .delete(&names)
                    .map_err(|e| cannot("remove files in", &self.root, told(e)))
            }
        }
    }

    /// With all that is in it.
    pub(super) fn remove_folder(&self, path: &Path) -> Result<()> {
        let removed = match &self.medium {
            Medium::Disk(files) => files.remove_folder(path),
            Medium::Remote(folder) => remove_remote(folder, &relative(folder, path)).map_err(told),
        };
        removed.map_err(|e| cannot("remove", path, e))
    }

    /// A number that nobody else draws.
    pub(super) fn nonce(&self) -> u128 {
        match &self.medium {
            Medium::Disk(files) => files.nonce(),
            Medium::Remote(_) => rand::random(),
        }
    }
}

/// A folder of this machine.
impl<P: Into<PathBuf>> From<P> for Place {
    fn from(root: P) -> Self {
        Self::on_disk(root, Arc::new(LocalFiles))
    }
}

/// Makes a file, whole or not at all, under a name that is not taken; whether it is there now: a call that went astray before counts.
///
/// # Errors
/// Where nothing is known of what became of it: to be tried again with the same bytes, which must be told from all others.
pub(super) fn create(folder: &RemoteFolder, path: &Path, bytes: &[u8]) -> io::Result<Created> {
    let name = relative(folder, path);
    match folder.create(&name, Bytes::copy_from_slice(bytes)) {
        Ok(()) => Ok(Created::Ours),
        Err(RemoteError::Taken(_)) => match folder.read(&name).map_err(told)? {
            Some(there) if there == bytes => Ok(Created::Ours),
            Some(there) => Ok(Created::Others(there)),
            // It was there a moment ago.
            None => Ok(Created::Others(Bytes::new())),
        },
        Err(error) => Err(told(error)),
    }
}

pub(super) enum Created {
    Ours,
    /// What stands there.
    Others(Bytes),
}

pub fn cannot(verb: &str, path: &Path, error: io::Error) -> Error {
    match error.get_ref().is_some_and(|inner| inner.is::<RemoteError>()) {
        // It says so itself.
        true => Error::external(error.to_string()),
        false => Error::caused(format!("cannot {verb} {}", path.display()), error),
    }
}

/// Writes a file that is either there whole under its name or not at all.
pub(super) fn write_atomic(files: &dyn Files, path: &Path, bytes: &[u8]) -> Result<()> {
    let staged = path.with_extension("tmp");
    files
        .write_synced(&staged, bytes)
        .map_err(|e| cannot("write", &staged, e))?;
    files.rename(&staged, path).map_err(|e| cannot("rename", &staged, e))?;
    let folder = path.parent().expect("a state file lies in a folder");
    files.sync_folder(folder).map_err(|e| cannot("sync", folder, e))
}

fn remove_remote(folder: &RemoteFolder, name: &str) -> Result<(), RemoteError> {
    let (folders, files): (Vec<_>, Vec<_>) = folder.list(name)?.into_iter().partition(|entry| entry.is_folder);
    for inner in folders {
        remove_remote(folder, &format!("{name}/{}", inner.name))?;
    }
    let files: Vec<String> = files.iter().map(|file| format!("{name}/{}", file.name)).collect();
    folder.delete(&files)?;
    // Where folders are things of their own, this one is empty now.
    folder.delete(&[name.to_owned()])
}

/// The path in the folder, with `/` between its parts.
fn relative(folder: &RemoteFolder, path: &Path) -> String {
    let inside = path.strip_prefix(folder.location()).unwrap_or(path);
    let parts = inside.components().map(|part| part.as_os_str().to_string_lossy());
    parts.collect::<Vec<_>>().join("/")
}

fn told(error: RemoteError) -> io::Error {
    match error {
        RemoteError::Taken(_) => io::Error::new(io::ErrorKind::AlreadyExists, error),
        other => io::Error::other(other),
    }
}
