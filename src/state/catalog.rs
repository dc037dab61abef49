//! Definitions that were made while a pipeline ran, in the order in which they were made.
//!
//! ```text
//! <state>/catalog.jnl   "zeta-catalog 1\n" frame*        types/frame.rs: lengths and checksums
//! frame of JSON: a statement that was made, or one that is gone
//! on a remote store: <state>/catalog/<number>.rec, one frame each, made by one alone
//! ```
//! A torn last record was never answered. Damage stops the start. Pipelines may share a folder: a statement belongs to those that have
//! a source or table in common with the one that it was made in, and no two of these run at a time.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use crate::{
    remote::RemoteFolder,
    types::{Error, Framed, Result, read_frame, write_frame},
};

use super::{
    files::{Files, LocalFiles},
    place::{Created, Medium, Place, cannot, create, write_atomic},
};

const HEADER: &[u8] = b"zeta-catalog 1\n";
/// A file with more records than this, and more than twice as many as count, is written anew.
const RECORDS_MIN: usize = 256;
/// How often the next number of a remote record is tried while others take it, or a store does not answer.
const TRIES: u32 = 8;

/// The definitions beside pipelines, in the folder of their state.
#[derive(Clone)]
pub struct KeptCatalog {
    place: Place,
    /// On a disk the file, on a remote store the folder of records.
    path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeptStatement {
    pub name: String,
    /// Functions have names of their own.
    pub is_function: bool,
    pub sql: String,
    /// The sources and tables of the files that the pipeline was started with.
    pub beside: Vec<String>,
}

#[derive(serde::Serialize, serde::Deserialize)]
enum Record {
    Made(KeptStatement),
    /// Its text is of no meaning.
    Gone(KeptStatement),
}

/// What a file holds.
#[derive(Default)]
struct Content {
    live: Vec<KeptStatement>,
    records: usize,
    /// Bytes that are whole.
    length: usize,
}

impl KeptStatement {
    /// Whether it is of the pipeline that has these sources and tables.
    pub fn belongs_to(&self, sources: &[String]) -> bool {
        match (self.beside.is_empty(), sources.is_empty()) {
            (true, true) => true,
            _ => self.beside.iter().any(|name| sources.contains(name)),
        }
    }

    fn is_replaced_by(&self, other: &Self) -> bool {
        (&self.name, self.is_function) == (&other.name, other.is_function) && self.belongs_to(&other.beside)
    }
}

impl KeptCatalog {
    pub fn of(state: &Place) -> Self {
        let name = match state.medium {
            Medium::Disk(_) => "catalog.jnl",
            Medium::Remote(_) => "catalog",
        };
        Self {
            place: state.clone(),
            path: state.root.join(name),
        }
    }

    /// Those that are not gone.
    ///
    /// # Errors
    /// Where the file is damaged.
    pub fn statements(&self) -> Result<Vec<KeptStatement>> {
        if let Medium::Remote(_) = self.place.medium {
            return Ok(self.records()?.0.live);
        }
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let _lock = self.lock()?;
        // A run that was killed may have written a record, and not have come to sync it.
        LocalFiles
            .sync_file(&self.path)
            .map_err(|e| cannot("sync", &self.path, e))?;
        Ok(self.read()?.live)
    }

    /// Keeps a statement: when this returns, it survives a power cut. After an error it is not kept, unless a remote store did not tell.
    pub fn make(&self, statement: &KeptStatement) -> Result<()> {
        self.append(&Record::Made(statement.clone()))
    }

    /// Forgets one; returns it, where there was one.
    pub fn forget(&self, name: &str, is_function: bool, sources: &[String]) -> Result<Option<KeptStatement>> {
        let is_it = |kept: &KeptStatement| {
            (kept.name.as_str(), kept.is_function) == (name, is_function) && kept.belongs_to(sources)
        };
        let Some(kept) = self.statements()?.into_iter().find(is_it) else {
            return Ok(None);
        };
        self.append(&Record::Gone(kept.clone()))?;
        Ok(Some(kept))
    }

    /// Removes a file that cannot be read, with all that is in it.
    pub fn remove(&self) -> Result<()> {
        if let Medium::Remote(_) = self.place.medium {
            return self.place.remove_folder(&self.path);
        }
        let _lock = self.lock()?;
        fs::remove_file(&self.path).map_err(|e| cannot("remove", &self.path, e))?;
        self.sync_folder()
    }

    fn folder(&self) -> &Path {
        self.path.parent().expect("it lies in the folder of the state")
    }

    fn sync_folder(&self) -> Result<()> {
        let folder = self.folder();
        LocalFiles.sync_folder(folder).map_err(|e| cannot("sync", folder, e))
    }

    /// Held by one process at a time, for as long as it reads or writes.
    fn lock(&self) -> Result<File> {
        let folder = self.folder();
        LocalFiles
            .create_folder(folder)
            .map_err(|e| cannot("create", folder, e))?;
        let path = self.path.with_extension("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|e| cannot("create", &path, e))?;
        file.lock().map_err(|e| cannot("lock", &path, e))?;
        Ok(file)
    }

    fn read(&self) -> Result<Content> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(cannot("read", &self.path, e)),
        };
        let damaged = |what: &str, at: usize| damaged(&self.path, what, at);
        let mut content = Content::default();
        // A file of which no more was written than a part of its first line.
        if HEADER.starts_with(&bytes) && bytes.len() < HEADER.len() {
            return Ok(content);
        }
        if !bytes.starts_with(HEADER) {
            return Err(damaged("another beginning than expected", 0));
        }
        content.length = HEADER.len();
        loop {
            let at = content.length;
            match read_frame(&bytes, at) {
                Framed::Record(record, next) => {
                    let record = serde_json::from_slice(record).map_err(|_| damaged("an unknown record", at))?;
                    content.take(record);
                    content.length = next;
                }
                Framed::End | Framed::Torn => return Ok(content),
                Framed::Damaged(what) => return Err(damaged(what, at)),
            }
        }
    }

    fn append(&self, record: &Record) -> Result<()> {
        match &self.place.medium {
            Medium::Disk(_) => self.append_to_file(record),
            Medium::Remote(remote) => self.create_record(remote, record),
        }
    }

    /// What the records of a remote store say, and the number of the last.
    fn records(&self) -> Result<(Content, u64)> {
        let paths = self.place.list(&self.path).map_err(|e| cannot("list", &self.path, e))?;
        let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
        let numbered: Vec<(u64, &PathBuf)> = paths.iter().filter_map(|path| Some((number(path)?, path))).collect();
        let mut content = Content::default();
        let bytes = self.place.read_each(numbered.iter().map(|(_, path)| path.as_path()));
        for ((_, path), bytes) in numbered.iter().zip(bytes) {
            let bytes = bytes.map_err(|e| cannot("read", path, e))?;
            let damaged = |what: &str| damaged(path, what, 0);
            let frame = bytes
                .strip_prefix(HEADER)
                .ok_or_else(|| damaged("another beginning than expected"))?;
            match read_frame(frame, 0) {
                Framed::Record(record, end) if end == frame.len() => {
                    content.take(serde_json::from_slice(record).map_err(|_| damaged("an unknown record"))?);
                }
                Framed::Damaged(what) => return Err(damaged(what)),
                Framed::Record(..) | Framed::End | Framed::Torn => return Err(damaged("another end than expected")),
            }
        }
        Ok((content, numbered.last().map_or(0, |(number, _)| *number)))
    }

    fn create_record(&self, remote: &RemoteFolder, record: &Record) -> Result<()> {
        let bytes = [HEADER, &framed(record)?].concat();
        let mut number = self.records()?.1 + 1;
        let mut failed = None;
        for _ in 0..TRIES {
            let path = self.path.join(format!("{number:020}.rec"));
            match create(remote, &path, &bytes) {
                Ok(Created::Ours) => return Ok(()),
                Ok(Created::Others(_)) => number += 1,
                // The same name again: it may be there.
                Err(error) => failed = Some(cannot("write", &path, error)),
            }
        }
        let reason = failed.map_or_else(|| "others write all the time".to_owned(), |error| error.to_string());
        Err(Error::external(format!(
            "{reason}; it is not known whether that is kept"
        )))
    }

    fn append_to_file(&self, record: &Record) -> Result<()> {
        let _lock = self.lock()?;
        let mut content = self.read()?;
        if RECORDS_MIN < content.records && 2 * content.live.len() < content.records {
            let mut bytes = HEADER.to_vec();
            for kept in &content.live {
                bytes.extend(framed(&Record::Made(kept.clone()))?);
            }
            write_atomic(&LocalFiles, &self.path, &bytes)?;
            content.length = bytes.len();
        }
        let is_new = content.length == 0;
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        let mut file = file.map_err(|e| cannot("open", &self.path, e))?;
        file.set_len(content.length as u64)
            .map_err(|e| cannot("truncate", &self.path, e))?;
        let mut bytes = if is_new { HEADER.to_vec() } else { Vec::new() };
        bytes.extend(framed(record)?);
        let written = file
            .write_all(&bytes)
            .map_err(|e| cannot("append to", &self.path, e))
            .and_then(|()| file.sync_all().map_err(|e| cannot("sync", &self.path, e)))
            .and_then(|()| if is_new { self.sync_folder() } else { Ok(()) });
        written.inspect_err(|_| {
            // What failed must not come back.
            if let Err(error) = file.set_len(content.length as u64).and_then(|()| file.sync_all()) {
                tracing::error!(path = %self.path.display(), %error, "a statement that failed may have been kept");
            }
        })
    }
}

impl Content {
    fn take(&mut self, record: Record) {
        self.records += 1;
        let (Record::Made(statement) | Record::Gone(statement)) = &record;
        self.live.retain(|kept| !kept.is_replaced_by(statement));
        if let Record::Made(statement) = record {
            self.live.push(statement);
        }
    }
}

fn damaged(path: &Path, what: &str, at: usize) -> Error {
    Error::state(format!(
        "{}: {what} at byte {at}: what was defined while the pipeline ran cannot be read, so nothing was started. \
         Restore the file from a copy, or start over with --reset, which forgets it",
        path.display()
    ))
}

fn framed(record: &Record) -> Result<Vec<u8>> {
    let record = serde_json::to_vec(record).map_err(|e| Error::bug(format!("a statement cannot be kept: {e}")))?;
    write_frame(&record).ok_or_else(|| Error::user("a statement longer than 4 GB cannot be kept"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(name: &str, sql: &str, beside: &[&str]) -> KeptStatement {
        KeptStatement {
            name: name.to_owned(),
            is_function: false,
            sql: sql.to_owned(),
            beside: beside.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn names(catalog: &KeptCatalog) -> Vec<String> {
        let statements = catalog.statements().unwrap();
        statements
            .into_iter()
            .map(|kept| format!("{}: {}", kept.name, kept.sql))
            .collect()
    }

    #[test]
    fn what_was_made_is_there_in_order_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = KeptCatalog::of(&folder.path().join("state").into());
        assert_eq!(
            catalog.statements().unwrap(),
            [],
            "nothing was made, and nothing is written"
        );
        assert!(!folder.path().join("state").exists());
        for name in ["a", "b", "c"] {
            catalog.make(&statement(name, "1", &["s"])).unwrap();
        }
        let sources = ["s".to_owned()];
        assert!(catalog.forget("b", false, &sources).unwrap().is_some());
        assert!(catalog.forget("b", false, &sources).unwrap().is_none(), "once");
        assert!(
            catalog.forget("a", true, &sources).unwrap().is_none(),
            "a function is another thing"
        );
        catalog.make(&statement("b", "2", &["s"])).unwrap();
        assert_eq!(
            names(&KeptCatalog::of(&folder.path().join("state").into())),
            ["a: 1", "c: 1", "b: 2"]
        );
    }

    #[test]
    fn a_statement_is_of_pipelines_that_have_a_source_in_common() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = KeptCatalog::of(&folder.path().into());
        catalog.make(&statement("v", "one", &["s", "t"])).unwrap();
        catalog.make(&statement("v", "other", &["x"])).unwrap();
        catalog.make(&statement("v", "none", &[])).unwrap();
        let of = |sources: &[&str]| -> Vec<String> {
            let sources: Vec<String> = sources.iter().map(|name| (*name).to_owned()).collect();
            let kept = catalog.statements().unwrap().into_iter();
            kept.filter(|kept| kept.belongs_to(&sources))
                .map(|kept| kept.sql)
                .collect()
        };
        assert_eq!(of(&["t", "u"]), ["one"]);
        assert_eq!(of(&["x"]), ["other"]);
        assert_eq!(of(&[]), ["none"]);
        assert_eq!(of(&["y"]), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_is_mostly_of_what_is_gone_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = KeptCatalog::of(&folder.path().into());
        catalog.make(&statement("stays", "1", &["s"])).unwrap();
        let mut longest = 0;
        for _ in 0..2 * RECORDS_MIN {
            catalog.make(&statement("v", "1", &["s"])).unwrap();
            longest = longest.max(fs::metadata(&catalog.path).unwrap().len());
        }
        assert!(fs::metadata(&catalog.path).unwrap().len() < longest);
        assert_eq!(names(&catalog), ["stays: 1", "v: 1"]);
    }

    #[test]
    fn a_cut_gives_a_prefix_and_a_flip_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = KeptCatalog::of(&folder.path().into());
        for name in ["a", "b", "c"] {
            catalog.make(&statement(name, "1", &["s"])).unwrap();
        }
        let bytes = fs::read(&catalog.path).unwrap();
        for length in 0..bytes.len() {
            fs::write(&catalog.path, &bytes[..length]).unwrap();
            let read = names(&catalog);
            assert!(
                ["a: 1", "b: 1", "c: 1"].starts_with(&read.iter().map(String::as_str).collect::<Vec<_>>()),
                "cut at {length}: {read:?}"
            );
            assert!(read.len() < 3, "a cut loses at least the last one");
            // What was never answered is in nobody's way.
            catalog.make(&statement("d", "1", &["s"])).unwrap();
            assert_eq!(names(&catalog).len(), read.len() + 1, "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            fs::write(&catalog.path, &flipped).unwrap();
            let refused = catalog.statements().unwrap_err().to_string();
            assert!(
                refused.contains("Restore the file from a copy"),
                "flip at {at}: {refused}"
            );
            assert!(
                catalog.make(&statement("d", "1", &["s"])).is_err(),
                "and nothing is written behind it"
            );
        }
    }
}
