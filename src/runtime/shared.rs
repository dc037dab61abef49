//! What readers of a timeline see: one epoch of all its views, swapped as a whole.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, RwLock},
};

use arrow::datatypes::SchemaRef;
use tokio::sync::watch;

use crate::{
    operator::{Figures, OpenWindows},
    types::{Epoch, Position, SplitId, Watermark},
    view::{ChangeLog, RowsSnapshot},
};

use super::face::{SourceState, SplitStatus};

/// The side of a timeline that faces readers. The engine's thread writes, everybody reads; nobody waits for long.
pub struct Shared {
    pub source: String,
    pub connector: String,
    pub generation: u64,
    snapshot: RwLock<Arc<Snapshot>>,
    pub status: Mutex<Status>,
    /// Newest known ends, as the source saw them.
    pub ends: Mutex<BTreeMap<SplitId, Position>>,
    epoch: watch::Sender<Epoch>,
    /// Views come and go.
    views: RwLock<BTreeMap<String, Arc<ViewFace>>>,
}

/// What does not change about a view or side output.
pub struct ViewFace {
    pub schema: SchemaRef,
    pub key: Vec<usize>,
    pub time: Option<usize>,
    /// `None` for side outputs, which nobody follows.
    pub log: Mutex<ChangeLog>,
}

/// All views at one epoch.
pub struct Snapshot {
    pub epoch: Epoch,
    pub watermark: Watermark,
    /// First unread row of each split.
    pub positions: BTreeMap<SplitId, Position>,
    pub views: BTreeMap<String, RowsSnapshot>,
}

#[derive(Clone, Debug)]
pub struct Status {
    /// Of the snapshot beside it.
    pub epoch: Epoch,
    pub state: SourceState,
    pub reason: Option<String>,
    pub rows: u64,
    pub bad_rows: u64,
    pub late_rows: u64,
    pub splits: Vec<SplitStatus>,
    /// Of each view's operators.
    pub figures: BTreeMap<String, Vec<Figures>>,
    /// By materialized view.
    pub progress: BTreeMap<String, Progress>,
}

/// How far a view has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What it handed on is complete up to here.
    pub watermark: Watermark,
    /// By the watermark of the source.
    pub open: Option<OpenWindows>,
}

impl Shared {
    pub fn new(source: &str, connector: &str, generation: u64, views: BTreeMap<String, ViewFace>) -> Self {
        let empty = views
            .iter()
            .map(|(name, view)| (name.clone(), RowsSnapshot::empty(Arc::clone(&view.schema))))
            .collect();
        Self {
            source: source.to_owned(),
            connector: connector.to_owned(),
            generation,
            snapshot: RwLock::new(Arc::new(Snapshot {
                epoch: Epoch(0),
                watermark: Watermark::START,
                positions: BTreeMap::new(),
                views: empty,
            })),
            status: Mutex::new(Status {
                epoch: Epoch(0),
                state: SourceState::Starting,
                reason: None,
                rows: 0,
                bad_rows: 0,
                late_rows: 0,
                splits: Vec::new(),
                figures: BTreeMap::new(),
                progress: BTreeMap::new(),
            }),
            ends: Mutex::new(BTreeMap::new()),
            epoch: watch::Sender::new(Epoch(0)),
            views: RwLock::new(views.into_iter().map(|(name, face)| (name, Arc::new(face))).collect()),
        }
    }

    pub fn face(&self, view: &str) -> Option<Arc<ViewFace>> {
        let views = self.views.read().expect("nobody panics while holding it");
        views.get(view).cloned()
    }

    pub fn faces(&self) -> Vec<(String, Arc<ViewFace>)> {
        let views = self.views.read().expect("nobody panics while holding it");
        views
            .iter()
            .map(|(name, face)| (name.clone(), Arc::clone(face)))
            .collect()
    }

    pub fn add_faces(&self, faces: BTreeMap<String, ViewFace>) {
        let faces = faces.into_iter().map(|(name, face)| (name, Arc::new(face)));
        self.views
            .write()
            .expect("nobody panics while holding it")
            .extend(faces);
    }

    pub fn remove_faces(&self, keep: impl Fn(&str) -> bool) {
        let mut views = self.views.write().expect("nobody panics while holding it");
        views.retain(|name, _| keep(name));
    }

    /// A view of a timeline that publishes no epoch any more, and its side outputs, are gone.
    pub fn forget(&self, view: &str) {
        let is_other = |name: &str| !matches!(name.strip_prefix(view), Some("" | "$late" | "$errors"));
        self.remove_faces(is_other);
        let now = self.snapshot();
        let views = now.views.iter().filter(|(name, _)| is_other(name));
        self.publish(Snapshot {
            epoch: now.epoch,
            watermark: now.watermark,
            positions: now.positions.clone(),
            views: views.map(|(name, rows)| (name.clone(), rows.clone())).collect(),
        });
    }

    /// Nobody follows anything of it any more.
    pub fn end(&self) {
        self.remove_faces(|_| false);
        self.epoch.send_modify(|_| {});
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().expect("nobody panics while holding it"))
    }

    /// Both of one epoch: they are published one behind the other.
    pub fn snapshot_and_status(&self) -> (Arc<Snapshot>, Status) {
        loop {
            let (snapshot, status) = (self.snapshot(), self.status());
            if snapshot.epoch == status.epoch {
                return (snapshot, status);
            }
            std::thread::yield_now();
        }
    }

    /// Readers see the epoch from now on.
    pub fn publish(&self, snapshot: Snapshot) {
        let epoch = snapshot.epoch;
        *self.snapshot.write().expect("nobody panics while holding it") = Arc::new(snapshot);
        self.epoch.send_replace(epoch);
    }

    pub fn epochs(&self) -> watch::Receiver<Epoch> {
        self.epoch.subscribe()
    }

    pub fn status(&self) -> Status {
        self.status.lock().expect("nobody panics while holding it").clone()
    }

    pub fn set_state(&self, state: SourceState, reason: Option<String>) {
        let mut status = self.status.lock().expect("nobody panics while holding it");
        status.state = state;
        status.reason = reason;
    }
}
