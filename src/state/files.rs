//! Files that are there after a power cut: contents are synced before names, and names by syncing their folder.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use crate::types::{Error, Result};

/// Writes a file that is either there whole under its name or not at all.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let staged = path.with_extension("tmp");
    write_synced(&staged, bytes)?;
    fs::rename(&staged, path).map_err(|e| cannot("rename", &staged, e))?;
    sync_folder(path.parent().expect("a state file lies in a folder"))
}

/// Writes a file and syncs its contents; its name needs [`sync_folder`].
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(|e| cannot("create", path, e))?;
    file.write_all(bytes).map_err(|e| cannot("write", path, e))?;
    file.sync_all().map_err(|e| cannot("sync", path, e))
}

pub fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| cannot("sync", path, e))
}

/// Makes a folder and its parents, readable by their owner only.
pub fn create_folder(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| cannot("create", path, e))
}

pub fn cannot(verb: &str, path: &Path, error: std::io::Error) -> Error {
    Error::caused(format!("cannot {verb} {}", path.display()), error)
}
