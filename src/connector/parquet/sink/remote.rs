//! A folder of a store that can rename (HDFS), as sinks ask for it.

use bytes::Bytes;

use super::store::Store;
use crate::{
    connector::SinkError,
    remote::{Entry, RemoteError, RemoteFolder},
};

impl From<RemoteError> for SinkError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Unreachable(reason) | RemoteError::Taken(reason) => Self::Unreachable(reason),
            RemoteError::Failed(reason) => Self::Failed(reason),
        }
    }
}

impl Store for RemoteFolder {
    fn read(&self, path: &str) -> Result<Option<Bytes>, SinkError> {
        Ok(RemoteFolder::read(self, path)?)
    }

    fn length(&self, path: &str) -> Result<Option<u64>, SinkError> {
        Ok(RemoteFolder::length(self, path)?)
    }

    fn write(&self, files: Vec<(String, Bytes)>) -> Result<(), SinkError> {
        Ok(RemoteFolder::write(self, files)?)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), SinkError> {
        let mut answers = Store::rename_each(self, &[(from.to_owned(), to.to_owned())]);
        answers.pop().expect("an answer for each name")
    }

    fn rename_each(&self, names: &[(String, String)]) -> Vec<Result<(), SinkError>> {
        let answers = RemoteFolder::rename(self, names).into_iter();
        answers.map(|answer| answer.map_err(SinkError::from)).collect()
    }

    fn delete(&self, paths: &[String]) -> Result<(), SinkError> {
        Ok(RemoteFolder::delete(self, paths)?)
    }

    fn delete_folder(&self, folder: &str) -> Result<(), SinkError> {
        Ok(RemoteFolder::delete(self, &[folder.to_owned()])?)
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>, SinkError> {
        Ok(RemoteFolder::list(self, folder)?)
    }

    fn sync(&self, _: &str) -> Result<(), SinkError> {
        // A name node answers behind its journal: what it shows survives.
        Ok(())
    }
}
