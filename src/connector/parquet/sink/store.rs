//! What a sink asks of the folder that it writes: a few calls, of which a failed one may have been carried out all the same.

use bytes::Bytes;

use crate::{connector::SinkError, remote::Entry};

/// A folder, its own or of another machine. Paths are relative to it, with `/` between their parts.
///
/// Every error is [`SinkError::Unreachable`] unless only a person can help, and says nothing about what became of the call: it may even be
/// carried out later. No call takes longer than [`limits::STORE_CALL_MAX`](crate::types::limits::STORE_CALL_MAX), and a write what its bytes need beyond that.
pub trait Store: Send {
    /// A whole file; `None` where there is none.
    fn read(&self, path: &str) -> Result<Option<Bytes>, SinkError>;

    /// How long a file is; `None` where there is none.
    fn length(&self, path: &str) -> Result<Option<u64>, SinkError>;

    /// Makes files by their paths, and the folders that they lie in, beside each other where that is quicker. What is written survives a power
    /// cut. Nobody else writes under these names, and nobody reads them before this is done.
    fn write(&self, files: Vec<(String, Bytes)>) -> Result<(), SinkError>;

    /// Gives a file another name in one step, which survives a power cut; never one that is taken.
    fn rename(&self, from: &str, to: &str) -> Result<(), SinkError>;

    /// The same with many, beside each other where that is quicker; an answer for each.
    fn rename_each(&self, names: &[(String, String)]) -> Vec<Result<(), SinkError>>;

    /// Files that are not there are no error.
    fn delete(&self, paths: &[String]) -> Result<(), SinkError>;

    /// An empty folder; one that is not there is no error.
    fn delete_folder(&self, folder: &str) -> Result<(), SinkError>;

    /// What lies right in a folder, in any order; nothing where there is none.
    fn list(&self, folder: &str) -> Result<Vec<Entry>, SinkError>;

    /// Makes the name of a file that was found survive a power cut: who gave it may have been killed before that.
    fn sync(&self, path: &str) -> Result<(), SinkError>;
}

/// Where a sink writes, as its `path` says.
pub struct Destination {
    /// As the user wrote it.
    pub location: String,
    /// Begins anew: what an earlier store was doing is given up.
    pub connect: Box<dyn Fn() -> Result<Box<dyn Store>, SinkError> + Send>,
}
