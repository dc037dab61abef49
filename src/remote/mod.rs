//! A folder of another machine (HDFS, an object store): every call has a deadline, since the clients of such stores have none.
//!
//! ```text
//! sink of files ─┐
//!                ├─▶ RemoteFolder ─▶ calls beside each other, each with its deadline ─▶ object_store
//! kept state ────┘
//! ```

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RenameOptions, RenameTargetMode, path::Path,
};
use tokio::runtime::{Handle, Runtime, RuntimeFlavor};

use crate::types::limits;

/// Paths are relative to it, with `/` between their parts. Calls block, and may come from several threads.
pub struct RemoteFolder {
    location: String,
    store: Arc<dyn ObjectStore>,
    base: Path,
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
}

/// Why a call was not answered as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// Nothing is known of what became of the call: it may even be carried out later.
    #[error("{0}")]
    Unreachable(String),
    /// The name is taken: nothing was changed by this call, where no earlier one of the same kind went astray.
    #[error("{0}")]
    Taken(String),
    /// Only a person can help.
    #[error("{0}")]
    Failed(String),
}

/// In a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub name: String,
    pub is_folder: bool,
}

impl RemoteFolder {
    /// Nothing is asked yet. `open` makes the store, whose tasks run where the handle says; `base` is the folder in it.
    pub fn connect(
        location: &str,
        base: Path,
        open: impl FnOnce(&Handle) -> object_store::Result<Arc<dyn ObjectStore>>,
    ) -> Result<Self, RemoteError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // One that blocks must not stop the deadlines.
            .worker_threads(2)
            .thread_name("remote store")
            .enable_all()
            .build()
            .map_err(|e| RemoteError::Unreachable(format!("cannot start a thread: {e}")))?;
        let store = open(runtime.handle())
            .map_err(|e| RemoteError::Unreachable(format!("cannot reach {location}: {}", reason(&e))))?;
        Ok(Self {
            location: location.to_owned(),
            store,
            base,
            runtime: Some(runtime),
        })
    }

    /// As the user wrote it.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// A whole file; `None` where there is none.
    pub fn read(&self, path: &str) -> Result<Option<Bytes>, RemoteError> {
        let mut answers = self.read_each(vec![path.to_owned()]);
        answers.pop().expect("an answer for each file")
    }

    /// Whole files, beside each other; an answer for each.
    pub fn read_each(&self, paths: Vec<String>) -> Vec<Result<Option<Bytes>, RemoteError>> {
        let count = paths.len();
        let call = |path: String| {
            let (store, at) = (Arc::clone(&self.store), self.at(&path)?);
            Ok(Call {
                // Each of its answers has one.
                deadline: limits::STORE_READ_MAX,
                ..Call::new(format!("read {path}"), async move { whole(&*store, &at).await })
            })
        };
        match paths.into_iter().map(call).collect() {
            Ok(calls) => self.found_each(calls),
            // A name that the store cannot have.
            Err(error) => vec![Err(error); count],
        }
    }

    /// How long a file is; `None` where there is none.
    pub fn length(&self, path: &str) -> Result<Option<u64>, RemoteError> {
        let (store, at) = (Arc::clone(&self.store), self.at(path)?);
        let meta = self.found(format!("find {path}"), async move { store.head(&at).await })?;
        Ok(meta.map(|meta| meta.size))
    }

    /// Makes files, or other ones of their names, beside each other: each is there whole or as it was before.
    pub fn write(&self, files: Vec<(String, Bytes)>) -> Result<(), RemoteError> {
        let calls = files
            .into_iter()
            .map(|(path, bytes)| self.put_call(&path, bytes, PutMode::Overwrite));
        let calls = calls.collect::<Result<_, _>>()?;
        self.each(calls).into_iter().collect()
    }

    /// Makes a file, whole or not at all, under a name that is not taken.
    ///
    /// # Errors
    /// [`RemoteError::Taken`] where it is, also by an earlier call of one's own that went astray.
    pub fn create(&self, path: &str, bytes: Bytes) -> Result<(), RemoteError> {
        let call = self.put_call(path, bytes, PutMode::Create)?;
        self.each(vec![call]).pop().expect("an answer for each call")
    }

    /// Gives files other names that are not taken, each in one step, beside each other; an answer for each.
    pub fn rename(&self, names: &[(String, String)]) -> Vec<Result<(), RemoteError>> {
        let calls = names.iter().map(|(from, to)| self.rename_call(from, to));
        match calls.collect() {
            Ok(calls) => self.each(calls),
            // A name that the store cannot have.
            Err(error) => vec![Err(error); names.len()],
        }
    }

    /// Files that are not there are no error.
    pub fn delete(&self, paths: &[String]) -> Result<(), RemoteError> {
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
        let calls = paths.iter().map(call).collect::<Result<_, _>>()?;
        self.each(calls).into_iter().collect()
    }

    /// What lies right in a folder, in any order; nothing where there is none.
    pub fn list(&self, folder: &str) -> Result<Vec<Entry>, RemoteError> {
        let (store, at) = (Arc::clone(&self.store), self.at(folder)?);
        let work = async move { store.list_with_delimiter(Some(&at)).await };
        let Some(listed) = self.found(format!("list {folder}"), work)? else {
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

    fn at(&self, path: &str) -> Result<Path, RemoteError> {
        let whole = match (self.base.as_ref(), path) {
            ("", path) => path.to_owned(),
            (base, "") => base.to_owned(),
            (base, path) => format!("{base}/{path}"),
        };
        Path::parse(&whole).map_err(|e| RemoteError::Failed(format!("{} cannot hold `{path}`: {e}", self.location)))
    }

    /// What calls say, in their order, of which some run beside each other; a call that says nothing for too long is given up.
    fn calls<T: Send + 'static>(&self, calls: Vec<Call<T>>) -> Vec<Result<object_store::Result<T>, RemoteError>> {
        let count = calls.len();
        let location = self.location.clone();
        let (done, answered) = mpsc::channel();
        let work = async move {
            let answers = stream::iter(calls).map(|call| call.answer(&location));
            let answers: Vec<_> = answers.buffered(limits::STORE_CALLS_AT_ONCE).collect().await;
            // Who asked waits for it.
            drop(done.send(answers));
        };
        let runtime = self.runtime.as_ref().expect("it is there until the end");
        // Whoever asks may be a task of another runtime, in which nothing may be waited for as a future.
        runtime.spawn(work);
        beside_others(|| answered.recv()).unwrap_or_else(|_| {
            let broken = || RemoteError::Unreachable(format!("the client of {} broke off", self.location));
            (0..count).map(|_| Err(broken())).collect()
        })
    }

    /// Calls whose answers say nothing but that they are done.
    fn each(&self, calls: Vec<Call<()>>) -> Vec<Result<(), RemoteError>> {
        let whats: Vec<String> = calls.iter().map(|call| call.what.clone()).collect();
        let answers = self.calls(calls).into_iter().zip(whats);
        answers
            .map(|(answer, what)| answer?.map_err(|e| self.cannot(&what, &e)))
            .collect()
    }

    /// `None` where there is no such file.
    fn found<T: Send + 'static>(
        &self,
        what: String,
        work: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<Option<T>, RemoteError> {
        let mut answers = self.found_each(vec![Call::new(what, work)]);
        answers.pop().expect("an answer for each call")
    }

    fn found_each<T: Send + 'static>(&self, calls: Vec<Call<T>>) -> Vec<Result<Option<T>, RemoteError>> {
        let whats: Vec<String> = calls.iter().map(|call| call.what.clone()).collect();
        let found = |(answer, what): (Result<object_store::Result<T>, RemoteError>, String)| match answer? {
            Ok(answer) => Ok(Some(answer)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.cannot(&what, &error)),
        };
        self.calls(calls).into_iter().zip(whats).map(found).collect()
    }

    fn put_call(&self, path: &str, bytes: Bytes, mode: PutMode) -> Result<Call<()>, RemoteError> {
        let (store, at) = (Arc::clone(&self.store), self.at(path)?);
        let beyond = Duration::from_secs(bytes.len() as u64 / limits::STORE_BYTES_PER_SECOND_MIN);
        let options = PutOptions::from(mode);
        let work = async move {
            let payload = PutPayload::from_bytes(bytes);
            store.put_opts(&at, payload, options).await.map(drop)
        };
        Ok(Call {
            deadline: limits::STORE_CALL_MAX + beyond,
            ..Call::new(format!("write {path}"), work)
        })
    }

    fn rename_call(&self, from: &str, to: &str) -> Result<Call<()>, RemoteError> {
        let (store, from, at) = (Arc::clone(&self.store), self.at(from)?, self.at(to)?);
        let options = RenameOptions::new().with_target_mode(RenameTargetMode::Create);
        Ok(Call::new(format!("give its name to {to}"), async move {
            store.rename_opts(&from, &at, options).await
        }))
    }

    fn cannot(&self, what: &str, error: &object_store::Error) -> RemoteError {
        let text = format!("cannot {what} in {}: {}", self.location, reason(error));
        match error {
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
                RemoteError::Taken(text)
            }
            _ => RemoteError::Unreachable(text),
        }
    }
}

/// All bytes of a file, however many: as long as some come.
async fn whole(store: &dyn ObjectStore, at: &Path) -> object_store::Result<Bytes> {
    let found = in_time(store.get(at)).await?;
    let mut bytes = Vec::with_capacity(usize::try_from(found.meta.size).unwrap_or(0));
    let mut pieces = found.into_stream();
    while let Some(piece) = in_time(async { pieces.next().await.transpose() }).await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}

async fn in_time<T>(answer: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
    match tokio::time::timeout(limits::STORE_CALL_MAX, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(object_store::Error::Generic {
            store: "remote",
            source: format!(
                "no answer within {} s; is it running and reachable?",
                limits::STORE_CALL_MAX.as_secs()
            )
            .into(),
        }),
    }
}

/// Waits; where a runtime of several threads runs this one, its tasks go on elsewhere meanwhile.
fn beside_others<T>(wait: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
        _ => wait(),
    }
}

struct Call<T> {
    /// In "cannot …".
    what: String,
    deadline: Duration,
    work: BoxFuture<'static, object_store::Result<T>>,
}

impl<T: Send + 'static> Call<T> {
    async fn answer(self, location: &str) -> Result<object_store::Result<T>, RemoteError> {
        // On a thread of the runtime: what blocks there does not make us miss the deadline.
        let task = tokio::spawn(self.work);
        let abort = task.abort_handle();
        match tokio::time::timeout(self.deadline, task).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(broken)) => Err(RemoteError::Unreachable(format!(
                "cannot {} in {location}: the client broke off: {broken}",
                self.what
            ))),
            Err(_) => {
                abort.abort();
                Err(RemoteError::Unreachable(format!(
                    "cannot {} in {location}: no answer within {} s; is it running and reachable?",
                    self.what,
                    self.deadline.as_secs()
                )))
            }
        }
    }

    fn new(what: String, work: impl Future<Output = object_store::Result<T>> + Send + 'static) -> Self {
        Self {
            what,
            deadline: limits::STORE_CALL_MAX,
            work: work.boxed(),
        }
    }
}

impl Drop for RemoteFolder {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A task that hangs is not waited for.
            runtime.shutdown_background();
        }
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
