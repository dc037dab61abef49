//! A state on a remote store: every error, lost answer and late call at each call that is made, and two processes that want it.
//!
//! ```text
//! life ─ call n ─▶ refused; carried out and not answered; carried out later ─▶ the next life goes on behind what counted
//! ```

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema},
};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, memory::InMemory, path::Path,
};

use super::*;
use crate::{
    remote::RemoteFolder,
    types::{Epoch, EpochPlan, Error, EventTime, Result, Saved},
};

const LOCATION: &str = "store://here/state";

/// A store in memory of which one call goes wrong.
#[derive(Debug)]
struct Faulty {
    store: Arc<InMemory>,
    /// Calls until then; counts on below zero.
    left: AtomicI64,
    is_carried_out: bool,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a faulty store")
    }
}

impl Faulty {
    /// Of this call: whether it is carried out, and what is answered.
    fn fate(&self) -> (bool, StoreResult<()>) {
        match self.left.fetch_sub(1, Ordering::Relaxed) {
            1 => (
                self.is_carried_out,
                Err(object_store::Error::Generic {
                    store: "faulty",
                    source: "the answer is lost".into(),
                }),
            ),
            _ => (true, Ok(())),
        }
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        let (is_carried_out, answer) = self.fate();
        let done = match is_carried_out {
            true => Some(self.store.put_opts(location, payload, options).await),
            false => None,
        };
        answer?;
        done.expect("what is answered was carried out")
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.fate().1?;
        self.store.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        let (is_carried_out, answer) = self.fate();
        match (is_carried_out, answer) {
            (true, Ok(())) => self.store.delete_stream(locations),
            (true, Err(error)) => {
                let deleted = self.store.delete_stream(locations);
                deleted.chain(futures::stream::once(async move { Err(error) })).boxed()
            }
            (false, answer) => futures::stream::once(async move { answer.map(|()| Path::default()) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.fate().1?;
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.store.copy_opts(from, to, options).await
    }
}

fn place(store: &Arc<InMemory>) -> Place {
    failing(store, 0, false)
}

/// Where the call of this number goes wrong, from 1.
fn failing(store: &Arc<InMemory>, call: i64, is_carried_out: bool) -> Place {
    let faulty = Arc::new(Faulty {
        store: Arc::clone(store),
        left: AtomicI64::new(call),
        is_carried_out,
    });
    let folder = RemoteFolder::connect(LOCATION, Path::from("state"), |_| Ok(faulty));
    Place::remote(folder.unwrap())
}

fn plan(number: u64, told_by: i64) -> EpochPlan {
    EpochPlan {
        number: Epoch(number),
        ranges: Default::default(),
        epoch_time: EventTime(told_by),
        idle_splits: Default::default(),
        new_splits: Default::default(),
        complete_below: None,
        is_last: false,
        checkpoint: false,
        gaps: Default::default(),
        anchors: Default::default(),
    }
}

fn checkpoint(epoch: u64) -> Checkpoint {
    let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Int64, false)]));
    let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![epoch as i64; 100]))]).unwrap();
    Checkpoint {
        epoch: Epoch(epoch),
        header: serde_json::json!({"rows": epoch}),
        definition: "v1".into(),
        parts: vec![Part {
            name: "rows".into(),
            rows: Saved::now(vec![batch]),
        }],
    }
}

/// The names and bytes of all objects.
fn objects(store: &Arc<InMemory>) -> Vec<(Path, Vec<u8>)> {
    let all = async {
        let found: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
        let mut objects = Vec::new();
        for meta in found {
            let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
            objects.push((meta.location, bytes.to_vec()));
        }
        objects
    };
    futures::executor::block_on(all)
}

fn put(store: &Arc<InMemory>, path: &Path, bytes: Vec<u8>) {
    futures::executor::block_on(store.put(path, bytes.into())).unwrap();
}

/// Commits the epochs up to `last`, each tried again until it is committed, with a checkpoint at each third; what was there before goes on.
/// Each plan says who made it.
fn life(place: &Place, last: u64, name: i64) -> Result<Vec<i64>> {
    let (mut store, recovered) = Store::open(place)?;
    let mut told: Vec<i64> = match &recovered.checkpoint {
        Some(checkpoint) => vec![0; checkpoint.epoch.0 as usize],
        None => Vec::new(),
    };
    told.extend(recovered.plans.iter().map(|plan| plan.epoch_time.0));
    while (told.len() as u64) < last {
        let number = told.len() as u64 + 1;
        let plan = plan(number, name);
        while let Err(error) = store.append(&plan) {
            match error {
                Error::External { .. } => {}
                other => return Err(other),
            }
        }
        told.push(name);
        if number.is_multiple_of(3) {
            // One that fails is not missed.
            drop(store.begin_checkpoint().write(checkpoint(number), None));
        }
    }
    Ok(told)
}

#[test]
fn a_restart_finds_the_newest_checkpoint_and_the_plans_after_it() {
    let store = Arc::new(InMemory::new());
    {
        let (mut state, recovered) = Store::open(&place(&store)).unwrap();
        assert!(recovered.checkpoint.is_none() && recovered.plans.is_empty());
        for number in 1..=11 {
            state.append(&plan(number, 0)).unwrap();
            if number % 2 == 0 {
                state.begin_checkpoint().write(checkpoint(number), None).unwrap();
            }
        }
    }
    let (state, recovered) = Store::open(&place(&store)).unwrap();
    let mut found = recovered.checkpoint.unwrap();
    assert_eq!((found.epoch, found.definition.as_str()), (Epoch(10), "v1"));
    let rows = found.parts.pop().unwrap().rows.rows().unwrap();
    assert_eq!(rows[0].num_rows(), 100);
    assert_eq!(recovered.plans, [plan(11, 0)]);
    assert_eq!(state.generation(), 2);
    let names: Vec<String> = objects(&store).iter().map(|(path, _)| path.to_string()).collect();
    let of = |folder: &str| names.iter().filter(|name| name.starts_with(folder)).count();
    assert_eq!(of("state/generations/"), 1, "{names:?}");
    assert_eq!(of("state/journal/"), 5, "from the oldest kept checkpoint on: {names:?}");
    let inspection = inspection_of(&place(&store)).unwrap();
    assert_eq!(inspection.problems, Vec::<String>::new());
    assert_eq!(
        (inspection.generation, inspection.journal),
        (Some(2), Some((Epoch(7), Epoch(11))))
    );

    drop(state);
    Store::reset(&place(&store), None).unwrap();
    let (_, recovered) = Store::open(&place(&store)).unwrap();
    assert!(recovered.checkpoint.is_none() && recovered.plans.is_empty());
}

#[test]
fn any_call_may_fail_or_lose_its_answer() {
    for is_carried_out in [false, true] {
        // Its calls, and some more.
        for call in 1..150 {
            let store = Arc::new(InMemory::new());
            let faulty = failing(&store, call, is_carried_out);
            let first = life(&faulty, 10, 1);
            let what = format!("call {call}, carried out: {is_carried_out}: {first:?}");
            if let Err(error) = &first {
                assert!(matches!(error, Error::External { .. }), "{what}");
            }
            // Whatever became of that, the next one goes on, and keeps what was said to be committed.
            let second = life(&place(&store), 13, 2).unwrap();
            assert_eq!(second.len(), 13, "{what}");
            if first.is_ok() {
                assert!(second[..10].iter().all(|told| *told != 2), "{what}, then {second:?}");
            }
            let inspection = inspection_of(&place(&store)).unwrap();
            assert_eq!(inspection.problems, Vec::<String>::new(), "{what}");
        }
    }
}

#[test]
fn a_call_that_fails_at_a_start_is_no_damage() {
    let store = Arc::new(InMemory::new());
    assert_eq!(life(&place(&store), 11, 1).unwrap().len(), 11);
    let mut refused = 0;
    for call in 1..60 {
        let other = Arc::new(InMemory::new());
        objects(&store)
            .into_iter()
            .for_each(|(path, bytes)| put(&other, &path, bytes));
        match life(&failing(&other, call, false), 11, 2) {
            Ok(told) => assert_eq!(told.len(), 11, "call {call}"),
            Err(error) => {
                assert!(matches!(error, Error::External { .. }), "call {call}: {error}");
                refused += 1;
            }
        }
        assert_eq!(life(&place(&other), 11, 3).unwrap().len(), 11, "call {call}");
    }
    assert!(10 < refused, "{refused} starts failed");
}

#[test]
fn who_starts_last_has_the_state_and_the_one_before_finds_out() {
    let store = Arc::new(InMemory::new());
    let (mut before, _) = Store::open(&place(&store)).unwrap();
    before.append(&plan(1, 1)).unwrap();
    let (mut after, recovered) = Store::open(&place(&store)).unwrap();
    assert_eq!(recovered.plans, [plan(1, 1)]);
    after.append(&plan(2, 2)).unwrap();

    // Its number is taken.
    let error = before.append(&plan(2, 1)).unwrap_err();
    assert!(
        matches!(error, Error::User(_)) && error.to_string().contains("has taken over the state"),
        "{error}"
    );
    // Or it is free again, since a checkpoint covers it, and what is written there does not count all the same.
    for number in 3..=12 {
        after.append(&plan(number, 2)).unwrap();
        if number.is_multiple_of(3) {
            after.begin_checkpoint().write(checkpoint(number), None).unwrap();
        }
    }
    let error = before.append(&plan(2, 1)).unwrap_err();
    assert!(matches!(error, Error::User(_)), "{error}");
    // Nor does its checkpoint, and it removes nothing.
    let old = before.begin_checkpoint().write(checkpoint(1), None).unwrap_err();
    assert!(old.to_string().contains("has taken over the state"), "{old}");
    // Nor does it remove what the other one writes at this moment, or all there is.
    let part = Path::from("state/checkpoints/00000000000000000015/000002-0000.arrow");
    put(&store, &part, vec![1]);
    assert!(before.begin_checkpoint().write(checkpoint(1), None).is_err());
    assert!(Store::reset(&place(&store), Some(1)).is_err());
    assert!(objects(&store).iter().any(|(path, _)| *path == part));
    Store::reset(&place(&Arc::new(InMemory::new())), Some(1)).unwrap();
    let recovered = after.recover(|_| true).unwrap();
    assert_eq!(recovered.checkpoint.unwrap().epoch, Epoch(12));
    assert_eq!(recovered.plans, []);
    let oldest = after.recover(|found| found.epoch < Epoch(9)).unwrap();
    assert_eq!(oldest.checkpoint.unwrap().epoch, Epoch(6));
    assert_eq!(oldest.plans.len(), 6);
}

#[test]
fn a_commit_that_comes_late_is_adopted_and_not_lost_behind() {
    let store = Arc::new(InMemory::new());
    let (mut before, _) = Store::open(&place(&store)).unwrap();
    before.append(&plan(1, 1)).unwrap();
    let (mut after, recovered) = Store::open(&place(&store)).unwrap();
    assert_eq!(recovered.plans.len(), 1);
    // On its way when the other one looked. Nobody was told that it stands.
    before.append(&plan(2, 1)).unwrap_err();
    let error = after.append(&plan(2, 2)).unwrap_err();
    assert!(matches!(error, Error::Overtaken(_)), "{error}");
    let again = after.recover(|_| true).unwrap();
    assert_eq!(again.plans, [plan(1, 1), plan(2, 1)]);
    after.append(&plan(3, 2)).unwrap();
    let (_, recovered) = Store::open(&place(&store)).unwrap();
    assert_eq!(recovered.plans, [plan(1, 1), plan(2, 1), plan(3, 2)]);
}

#[test]
fn damage_is_never_silent() {
    let store = Arc::new(InMemory::new());
    assert_eq!(life(&place(&store), 11, 1).unwrap().len(), 11);
    for (path, bytes) in objects(&store) {
        let name = path.to_string();
        let cuts = [0, 1, bytes.len() / 2, bytes.len() - 1].map(|length| bytes[..length].to_vec());
        let flips = (0..bytes.len()).step_by(7).map(|at| {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            flipped
        });
        for damaged in cuts.into_iter().chain(flips) {
            put(&store, &path, damaged);
            match Store::open(&place(&store)) {
                // An older checkpoint and more plans give the same.
                Ok((_, recovered)) => {
                    let from = recovered.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.epoch.0);
                    assert_eq!(from + recovered.plans.len() as u64, 11, "{name}");
                    if let Some(checkpoint) = recovered.checkpoint {
                        assert_eq!(checkpoint.header["rows"], checkpoint.epoch.0, "{name}");
                    }
                }
                Err(error) => assert!(matches!(error, Error::State(_)), "{name}: {error}"),
            }
        }
        put(&store, &path, bytes);
    }
}

#[test]
fn what_is_made_over_http_is_kept() {
    let store = Arc::new(InMemory::new());
    let catalog = KeptCatalog::of(&place(&store));
    let statement = |name: &str| KeptStatement {
        name: name.to_owned(),
        is_function: false,
        sql: "1".into(),
        beside: vec!["s".into()],
    };
    assert_eq!(catalog.statements().unwrap(), []);
    for name in ["a", "b", "c"] {
        catalog.make(&statement(name)).unwrap();
    }
    // A list, three records, and the new one, whose answer is lost.
    let other = KeptCatalog::of(&failing(&store, 5, true));
    other.make(&statement("d")).unwrap();
    assert!(catalog.forget("b", false, &["s".to_owned()]).unwrap().is_some());
    let names = |kept: Vec<KeptStatement>| kept.into_iter().map(|kept| kept.name).collect::<Vec<_>>();
    assert_eq!(
        names(KeptCatalog::of(&place(&store)).statements().unwrap()),
        ["a", "c", "d"]
    );
    for (path, bytes) in objects(&store) {
        put(&store, &path, bytes[..bytes.len() - 1].to_vec());
        let error = catalog.statements().unwrap_err().to_string();
        assert!(error.contains("Restore the file from a copy"), "{error}");
        put(&store, &path, bytes);
    }
    catalog.remove().unwrap();
    assert_eq!(catalog.statements().unwrap(), []);
}
