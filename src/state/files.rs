//! Files that are there after a power cut: contents are synced before names, and names by syncing their folder.
//!
//! ```text
//! Place ─▶ Files ─┬─ the disk, by fsync of file and folder
//!                 └─ a simulated one that loses at a crash what was not synced (runtime/simulation)
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// What a state asks of the disk that it lies on. A name that was made, changed or removed is sure once its folder was synced.
pub trait Files: Send + Sync {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The paths in a folder, in their order.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;

    fn exists(&self, path: &Path) -> bool;

    /// Makes a folder and its parents, readable by their owner only, and syncs their names.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Makes a file anew and syncs its contents.
    fn write_synced(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// A file that is there, to be continued.
    fn append_to(&self, path: &Path) -> io::Result<Box<dyn Append>>;

    /// Syncs the contents of a file that is there, whoever wrote it.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// With all that is in it.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;

    fn sync_folder(&self, path: &Path) -> io::Result<()>;

    /// `None` where another process holds it. It ends with what is given back, and with the process.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;

    /// A number that nobody else draws.
    fn nonce(&self) -> u128;
}

pub trait Append: Send {
    /// Appends and syncs. After an error some of it may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file back to its first bytes.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

/// The file system of this machine.
pub struct LocalFiles;

impl Files for LocalFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
        let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let mut new = Vec::new();
        let mut above = path;
        while !above.as_os_str().is_empty() && !above.exists() {
            let Some(parent) = above.parent() else { break };
            new.push(parent);
            above = parent;
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        for parent in new {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            self.sync_folder(parent)?;
        }
        Ok(())
    }

    fn write_synced(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn append_to(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        Ok(Box::new(LocalAppend(OpenOptions::new().append(true).open(path)?)))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(LocalLock(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    fn nonce(&self) -> u128 {
        rand::random()
    }
}

struct LocalAppend(File);

impl Append for LocalAppend {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
}

struct LocalLock(File);

impl Drop for LocalLock {
    fn drop(&mut self) {
        // Closing alone would not do: a process that is being started at this moment has a copy of the descriptor, until it
        // becomes another program. An error leaves the lock to that.
        drop(self.0.unlock());
    }
}
