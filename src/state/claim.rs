//! Whose state it is: the number of a start, which goes up with each.
//!
//! ```text
//! disk     LOCK held by one process at a time; generation, a number in a file
//! remote   generations/<number>: who makes the next one has the state, and whoever had it before finds out at his next commit
//! ```
//! On a remote store nobody can be kept from writing, but what he writes can be kept from counting: a commit counts once its writer has
//! looked behind it and found no generation above his own. Who starts reads the journal behind his claim. So he reads every commit that ever
//! counted, and one that comes later does not.

use std::path::Path;

use crate::{
    remote::RemoteFolder,
    types::{Error, Result},
};

use super::{
    files::Files,
    place::{Created, Medium, Place, cannot, create, write_atomic},
};

const LOCK: &str = "LOCK";
const GENERATION: &str = "generation";
const GENERATIONS: &str = "generations";
/// How often the next number is tried while others take it.
const CLAIMS: u32 = 16;

/// A start's right to write.
pub struct Claim {
    pub generation: u64,
    /// Held until the state is closed or the process ends.
    _lock: Option<Lock>,
}

pub type Lock = Box<dyn Send + Sync>;

/// Takes the state: nobody else can, or nobody who had it before can commit any more.
///
/// # Errors
/// Where another process has the lock.
pub fn claim(place: &Place) -> Result<Claim> {
    match &place.medium {
        Medium::Disk(files) => {
            let lock = lock(&**files, &place.root)?;
            Ok(Claim {
                generation: next_on_disk(&**files, &place.root)?,
                _lock: Some(lock),
            })
        }
        Medium::Remote(folder) => Ok(Claim {
            generation: next_of_remote(place, folder)?,
            _lock: None,
        }),
    }
}

/// Keeps others from a state that is not open: by its lock, or by a claim, unless it is that of `ours`.
///
/// # Errors
/// Where another process has it.
pub fn keep_out(place: &Place, ours: Option<u64>) -> Result<Option<Lock>> {
    match (&place.medium, ours) {
        (Medium::Disk(files), _) => Ok(Some(lock(&**files, &place.root)?)),
        (Medium::Remote(_), Some(ours)) => check(place, ours).map(|()| None),
        (Medium::Remote(folder), None) => next_of_remote(place, folder).map(|_| None),
    }
}

/// The number of the last start; `None` where there was none.
pub fn newest(place: &Place) -> Result<Option<u64>> {
    match &place.medium {
        Medium::Disk(files) => written_on_disk(&**files, &place.root.join(GENERATION)),
        Medium::Remote(_) => Ok(claims(place)?.pop()),
    }
}

/// # Errors
/// Where another start has taken the state.
pub fn check(place: &Place, generation: u64) -> Result<()> {
    if let Medium::Disk(_) = place.medium {
        // The lock says so.
        return Ok(());
    }
    match newest(place)? {
        Some(newest) if newest == generation => Ok(()),
        // None, where somebody removed the folder.
        newest => Err(fenced(&place.root, generation, newest.unwrap_or(0))),
    }
}

pub fn fenced(root: &Path, ours: u64, newest: u64) -> Error {
    Error::user(format!(
        "another zeta has taken over the state in {}: it began as number {newest}, this one as number {ours}; \
         what this one was about to commit is not, and the other one goes on behind what it had committed. \
         Let one of them alone run, or give each its own folder with --state",
        root.display()
    ))
}

fn lock(files: &dyn Files, root: &Path) -> Result<Lock> {
    let path = root.join(LOCK);
    let lock = files.lock(&path).map_err(|e| cannot("lock", &path, e))?;
    lock.ok_or_else(|| {
        Error::user(format!(
            "another zeta uses the state in {}; stop it, or choose another folder with --state",
            root.display()
        ))
    })
}

fn next_on_disk(files: &dyn Files, root: &Path) -> Result<u64> {
    let path = root.join(GENERATION);
    let next = written_on_disk(files, &path)?.unwrap_or(0) + 1;
    write_atomic(files, &path, format!("{next}\n").as_bytes())?;
    Ok(next)
}

fn written_on_disk(files: &dyn Files, path: &Path) -> Result<Option<u64>> {
    let text = match files.read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(cannot("read", path, e)),
    };
    let number = text.trim().parse().map_err(|_| {
        Error::state(format!(
            "{} is not a number: restore the file from a copy, or write a number into it that is above all starts so far, such as 1000000",
            path.display()
        ))
    });
    number.map(Some)
}

fn next_of_remote(place: &Place, folder: &RemoteFolder) -> Result<u64> {
    // Told from the bytes of others, so that a call that went astray is known as ours.
    let nonce = format!("{:032x}\n", place.nonce());
    for _ in 0..CLAIMS {
        let before = claims(place)?;
        let next = before.last().map_or(0, |last| *last) + 1;
        let path = path_of(place, next);
        match create(folder, &path, nonce.as_bytes()).map_err(|e| cannot("write", &path, e))? {
            Created::Ours => {
                // Those before it say nothing any more.
                let old: Vec<_> = before.into_iter().map(|old| path_of(place, old)).collect();
                place.remove_files(&old)?;
                return Ok(next);
            }
            Created::Others(_) => {}
        }
    }
    Err(Error::external(format!(
        "others start again and again on the state in {}",
        place.root.display()
    )))
}

fn path_of(place: &Place, generation: u64) -> std::path::PathBuf {
    place.root.join(GENERATIONS).join(format!("{generation:020}"))
}

/// In order.
fn claims(place: &Place) -> Result<Vec<u64>> {
    let folder = place.root.join(GENERATIONS);
    let mut claims = Vec::new();
    for path in place.list(&folder).map_err(|e| cannot("list", &folder, e))? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // What a writer leaves who was killed has names of its own.
        claims.extend(name.parse::<u64>().ok());
    }
    claims.sort_unstable();
    Ok(claims)
}
