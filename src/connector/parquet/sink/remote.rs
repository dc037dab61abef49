//! A folder of an object store that can rename (HDFS): every call has a deadline, since its client has none.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, RenameOptions, RenameTargetMode, path::Path};
use tokio::runtime::{Handle, Runtime};

use super::store::{Entry, Store};
use crate::{connector::SinkError, types::limits};

pub struct RemoteStore {
    location: String,
    store: Arc<dyn ObjectStore>,
    base: Path,
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
}

impl RemoteStore {
    /// Nothing is asked yet. `open` makes the store, whose tasks run where the handle says; `base` is the folder in it.
    pub fn connect(
        location: &str,
        base: Path,
        open: impl FnOnce(&Handle) -> object_store::Result<Arc<dyn ObjectStore>>,
    ) -> Result<Self, SinkError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("sink store")
            .enable_all()
            .build()
            .map_err(|e| SinkError::Unreachable(format!("cannot start a thread: {e}")))?;
        let store = open(runtime.handle())
            .map_err(|e| SinkError::Unreachable(format!("cannot reach {location}: {}", reason(&e))))?;
        Ok(Self {
            location: location.to_owned(),
            store,
            base,
            runtime: Some(runtime),
        })
    }

    fn at(&self, path: &str) -> Result<Path, SinkError> {
        let whole = match self.base.as_ref() {
            "" => path.to_owned(),
            base => format!("{base}/{path}"),
        };
        Path::parse(&whole).map_err(|e| SinkError::Failed(format!("{} cannot hold `{path}`: {e}", self.location)))
    }

    /// What calls say, in their order, of which some run beside each other; a call that says nothing for too long is given up.
    fn calls<T: Send + 'static>(&self, calls: Vec<Call<T>>) -> Vec<Result<object_store::Result<T>, SinkError>> {
        let location = &self.location;
        let answer = async |call: Call<T>| {
            // On a thread of the runtime: what blocks there does not make us miss the deadline.
            let task = tokio::spawn(call.work);
            let abort = task.abort_handle();
            match tokio::time::timeout(call.deadline, task).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(broken)) => Err(SinkError::Unreachable(format!(
                    "cannot {} in {location}: the client broke off: {broken}",
                    call.what
                ))),
                Err(_) => {
                    abort.abort();
                    Err(SinkError::Unreachable(format!(
                        "cannot {} in {location}: no answer within {} s; is it running and reachable?",
                        call.what,
                        call.deadline.as_secs()
                    )))
                }
            }
        };
        let answers = stream::iter(calls).map(answer).buffered(limits::STORE_CALLS_AT_ONCE);
        let runtime = self.runtime.as_ref().expect("it is there until the end");
        runtime.block_on(answers.collect())
    }

    /// Calls whose answers say nothing but that they are done.
    fn each(&self, calls: Vec<Call<()>>) -> Vec<Result<(), SinkError>> {
        let whats: Vec<String> = calls.iter().map(|call| call.what.clone()).collect();
        let answers = self.calls(calls).into_iter().zip(whats);
        answers
            .map(|(answer, what)| answer?.map_err(|e| self.cannot(&what, &e)))
            .collect()
    }

    fn rename_call(&self, from: &str, to: &str) -> Result<Call<()>, SinkError> {
        let (store, from, at) = (Arc::clone(&self.store), self.at(from)?, self.at(to)?);
        let options = RenameOptions::new().with_target_mode(RenameTargetMode::Create);
        Ok(Call::new(format!("give its name to {to}"), async move {
            store.rename_opts(&from, &at, options).await
        }))
    }

    fn cannot(&self, what: &str, error: &object_store::Error) -> SinkError {
        SinkError::Unreachable(format!("cannot {what} in {}: {}", self.location, reason(error)))
    }

    fn simple<T: Send + 'static>(
        &self,
        what: String,
        work: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<Option<T>, SinkError> {
        let mut answers = self.calls(vec![Call::new(what.clone(), work)]);
        match answers.pop().expect("an answer for each call")? {
            Ok(answer) => Ok(Some(answer)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.cannot(&what, &error)),
        }
    }
}

struct Call<T> {
    /// In "cannot …".
    what: String,
    deadline: Duration,
    work: BoxFuture<'static, object_store::Result<T>>,
}

impl<T> Call<T> {
    fn new(what: String, work: impl Future<Output = object_store::Result<T>> + Send + 'static) -> Self {
        Self {
            what,
            deadline: limits::STORE_CALL_MAX,
            work: work.boxed(),
        }
    }
}

impl Drop for RemoteStore {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A task that hangs is not waited for.
            runtime.shutdown_background();
        }
    }
}

impl Store for RemoteStore {
    fn read(&self, path: &str) -> Result<Option<Bytes>, SinkError> {
        let (store, at) = (Arc::clone(&self.store), self.at(path)?);
        self.simple(
            format!("read {path}"),
            async move { store.get(&at).await?.bytes().await },
        )
    }

    fn length(&self, path: &str) -> Result<Option<u64>, SinkError> {
        let (store, at) = (Arc::clone(&self.store), self.at(path)?);
        let meta = self.simple(format!("find {path}"), async move { store.head(&at).await })?;
        Ok(meta.map(|meta| meta.size))
    }

    fn write(&self, files: Vec<(String, Bytes)>) -> Result<(), SinkError> {
        let call = |(path, bytes): (String, Bytes)| {
            let (store, at) = (Arc::clone(&self.store), self.at(&path)?);
            let beyond = Duration::from_secs(bytes.len() as u64 / limits::STORE_BYTES_PER_SECOND_MIN);
            let work = async move { store.put(&at, PutPayload::from_bytes(bytes)).await.map(drop) };
            Ok(Call {
                deadline: limits::STORE_CALL_MAX + beyond,
                ..Call::new(format!("write {path}"), work)
            })
        };
        let calls = files.into_iter().map(call).collect::<Result<_, SinkError>>()?;
        self.each(calls).into_iter().collect()
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), SinkError> {
        self.each(vec![self.rename_call(from, to)?])
            .pop()
            .expect("an answer for each call")
    }

    fn rename_each(&self, names: &[(String, String)]) -> Vec<Result<(), SinkError>> {
        let calls = names.iter().map(|(from, to)| self.rename_call(from, to));
        match calls.collect() {
            Ok(calls) => self.each(calls),
            // A name that the store cannot have.
            Err(error) => vec![Err(error); names.len()],
        }
    }

    fn delete(&self, paths: &[String]) -> Result<(), SinkError> {
        let call = |path: &String| {
            let (store, at) = (Arc::clone(&self.store), self.at(path)?);
            let work = async move {
                match store.delete(&at).await {
                    Err(object_store::Error::NotFound { .. }) => Ok(()),
                    other => other,
                }
            };
            Ok(Call::new(format!("remove {path}"), work))
        };
        let calls = paths.iter().map(call).collect::<Result<_, SinkError>>()?;
        self.each(calls).into_iter().collect()
    }

    fn delete_folder(&self, folder: &str) -> Result<(), SinkError> {
        self.delete(&[folder.to_owned()])
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>, SinkError> {
        let (store, at) = (Arc::clone(&self.store), self.at(folder)?);
        let work = async move { store.list_with_delimiter(Some(&at)).await };
        let Some(listed) = self.simple(format!("list {folder}"), work)? else {
            return Ok(Vec::new());
        };
        let entry = |path: &Path, is_folder| {
            let name = path.filename()?.to_owned();
            Some(Entry { name, is_folder })
        };
        let files = listed.objects.iter().filter_map(|file| entry(&file.location, false));
        let folders = listed.common_prefixes.iter().filter_map(|folder| entry(folder, true));
        Ok(files.chain(folders).collect())
    }

    fn sync(&self, _: &str) -> Result<(), SinkError> {
        // A name node answers behind its journal: what it shows survives.
        Ok(())
    }
}

/// The innermost words of an error, without the traces of calls that name nodes send with theirs.
fn reason(error: &object_store::Error) -> String {
    let text = match error {
        object_store::Error::Generic { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    let first = text.lines().next().unwrap_or_default();
    match first.contains("SafeModeException") || first.contains("in safe mode") {
        true => "the name node is in safe mode, and takes no writes until it has heard of its data nodes".to_owned(),
        false => first.to_owned(),
    }
}
