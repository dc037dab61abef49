//! One source's epochs: run a plan, commit it, publish what it changed. Synchronous; who drives it brings rows and time.
//!
//! ```text
//! plan + rows ─▶ watermark, late, bad ─▶ each view's operators ─▶ views
//!             ─▶ journal (synced) ─▶ readers see the epoch ─▶ now and then a checkpoint
//! ```
//! Nothing is visible outside before the journal has the plan. Running a plan again on the same state gives the same bytes.

mod replaying;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Int64Array, RecordBatch},
    compute::concat_batches,
};

use crate::{
    operator::{EpochEnd, SplitWatermarks},
    plan::{
        Catalog, Change as ViewVerdict, MaterializedDefinition, Outlines, SinkDefinition, SourceDefinition, bad_schema,
    },
    state::{Checkpoint, CheckpointWriter, Part, Place, Recovered, Store, definition_of as definition_of_state},
    types::{
        Anchors, Epoch, EpochPlan, Error, EventTime, Position, Result, Saved, SplitId, Watermark, limits,
        planted::{Bug, has},
    },
    view::{Change, ChangeLog},
};

use super::{
    Bounds, Metrics,
    clock::Stopwatch,
    definition::{Rebuild, changes},
    face::SplitStatus,
    gathered::anchors,
    intake::SplitRows,
    maintained::{MaintainedView, Slice},
    outlets::{SinkProgress, SinkProgresses, definition_of, is_enough},
    shared::{Progress, Shared, Snapshot, ViewFace},
    side_output::{SideOutput, bad_rows},
    watermark_rule::WatermarkRule,
};

pub struct Timeline {
    pub(super) source: Arc<SourceDefinition>,
    /// The columns that are decoded, in the order of the source's schema.
    pub(super) needed: Vec<usize>,
    pub(super) watermark_rule: Option<WatermarkRule>,
    pub(super) views: Vec<MaintainedView>,
    /// Views whose rows have to be read again, and those that read them: they come when the journal was replayed.
    pub(super) to_rebuild: Vec<Arc<MaterializedDefinition>>,
    /// Of the views to rebuild, and of what a state of another definition may be taken up with.
    pub(super) rebuild: Rebuild,
    /// The epoch whose checkpoint has the views that were rebuilt.
    pub(super) rebuilt_at: Option<Epoch>,
    /// The state was made with another watermark.
    pub(super) has_other_watermark: bool,
    pub(super) watermarks: SplitWatermarks,
    /// First unread row of each known split.
    pub(super) positions: BTreeMap<SplitId, Position>,
    /// The first row that was read of each split.
    pub(super) starts: BTreeMap<SplitId, Position>,
    /// What was read last, and of what.
    pub(super) anchors: Anchors,
    /// What the source answered, until a plan says it.
    pub(super) new_identity: Option<String>,
    pub(super) epoch: Epoch,
    pub(super) epoch_time: EventTime,
    rows: u64,
    bad: SideOutput,
    store: Option<Store>,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) bounds: Bounds,
    definition: String,
    rows_since_checkpoint: u64,
    /// Epochs ran, anew or again, that no checkpoint holds.
    is_ahead_of_checkpoint: bool,
    plans_to_replay: std::vec::IntoIter<EpochPlan>,
    /// Of the sinks that were there when the state was made, and of those that began since.
    sinks: SinkProgresses,
    /// Of the sinks that were there, those that begin anew: their views have other rows now, by no epoch.
    sinks_anew: SinkProgresses,
    folder: Option<PathBuf>,
    committed: Epoch,
    /// Readers have seen it: an epoch before it is not shown again.
    shown: Epoch,
    /// When each split brought its last row, or became known. For people: nothing is decided by it.
    heard_at: BTreeMap<SplitId, EventTime>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Header {
    positions: BTreeMap<SplitId, Position>,
    #[serde(default)]
    starts: BTreeMap<SplitId, Position>,
    watermarks: SplitWatermarks,
    epoch_time: EventTime,
    rows: u64,
    bad_total: u64,
    late_totals: BTreeMap<String, u64>,
    /// How far each view has come.
    #[serde(default)]
    view_watermarks: BTreeMap<String, Watermark>,
    failed_totals: BTreeMap<String, u64>,
    #[serde(default)]
    sinks: SinkProgresses,
    #[serde(default, skip_serializing_if = "Anchors::is_empty")]
    anchors: Anchors,
}

impl Header {
    fn of(checkpoint: &Checkpoint, folder: &Path) -> Result<Self> {
        serde_json::from_value(checkpoint.header.clone()).map_err(|e| {
            Error::state(format!(
                "the checkpoint in {} has another header: {e}",
                folder.display()
            ))
        })
    }

    /// Views that ever set a row aside that could not be computed.
    fn views_that_failed(self) -> BTreeSet<String> {
        let failed = self.failed_totals.into_iter().filter(|(_, total)| 0 < *total);
        failed.map(|(view, _)| view).collect()
    }
}

impl Timeline {
    /// Builds the dataflows of all views of a source, and takes up the state in `place`, where one is given.
    pub fn open(
        source: Arc<SourceDefinition>,
        catalog: &Catalog,
        place: Option<Place>,
        metrics: Arc<Metrics>,
        bounds: &Bounds,
        rebuild: Rebuild,
    ) -> Result<Self> {
        let definitions = catalog.views_of(&source.name);
        let needed = needed_columns(&source, &definitions);
        let mut views: Vec<MaintainedView> = Vec::new();
        for definition in &definitions {
            views.push(MaintainedView::new(Arc::clone(definition), &needed, &views, bounds)?);
        }
        let bad = SideOutput::new(format!("{}$bad", source.name), bad_schema());
        let (store, mut recovered) = match &place {
            Some(place) => {
                if place.is_shared()
                    && let Some(before) = definition_of_state(place)?
                {
                    // Whoever has the state is not to lose it to a start that is refused.
                    let now = Outlines::of(&source, &definitions);
                    changes(&before, &now, &rebuild, &BTreeSet::new(), &place.root)?;
                }
                let (store, recovered) = Store::open(place)?;
                (Some(store), Some(recovered))
            }
            None => (None, None),
        };
        let generation = store.as_ref().map_or(1, Store::generation);
        let mut timeline = Self {
            definition: Outlines::of(&source, &definitions).shapes.to_text(),
            to_rebuild: Vec::new(),
            rebuild,
            rebuilt_at: None,
            has_other_watermark: false,
            starts: BTreeMap::new(),
            watermark_rule: WatermarkRule::of(&source, &needed)?,
            needed,
            shared: Arc::new(Shared::new(
                &source.name,
                &source.connector,
                generation,
                faces(&views, &bad),
            )),
            source,
            views,
            watermarks: SplitWatermarks::default(),
            positions: BTreeMap::new(),
            anchors: Anchors::default(),
            new_identity: None,
            epoch: Epoch(0),
            epoch_time: EventTime(i64::MIN),
            rows: 0,
            bad,
            store,
            metrics,
            bounds: bounds.clone(),
            rows_since_checkpoint: 0,
            is_ahead_of_checkpoint: false,
            plans_to_replay: Vec::new().into_iter(),
            heard_at: BTreeMap::new(),
            sinks: SinkProgresses::new(),
            sinks_anew: SinkProgresses::new(),
            folder: place.map(|place| place.root),
            committed: Epoch(0),
            shown: Epoch(0),
        };
        if let Some(recovered) = recovered.take() {
            timeline.take_up(recovered)?;
        }
        if timeline.epoch == Epoch(0) {
            timeline.begin()?;
        }
        Ok(timeline)
    }

    /// Shows what queries over no rows give, before the first epoch and without one: a count of 0, say.
    fn begin(&mut self) -> Result<()> {
        for index in 0..self.views.len() {
            let (before, rest) = self.views.split_at_mut(index);
            let view = &mut rest[0];
            // These show rows at multiples of their interval only.
            if !view.definition().stream.is_held_back() {
                view.take_up(before, self.epoch, self.epoch_time, &self.metrics)?;
            }
        }
        self.publish_state();
        Ok(())
    }

    /// Begins where a checkpoint and its plans say.
    fn take_up(&mut self, recovered: Recovered) -> Result<()> {
        let folder = self.folder.clone().expect("state came from a folder");
        let store = self.store.as_ref().expect("state came from a store");
        let is_new = recovered.checkpoint.is_none() && recovered.plans.is_empty();
        let before = match &recovered.checkpoint {
            Some(checkpoint) => Some(checkpoint.definition.clone()),
            None => store.definition()?.filter(|_| !is_new),
        };
        let definitions: Vec<_> = self.views.iter().map(|view| Arc::clone(view.definition())).collect();
        let outlines = Outlines::of(&self.source, &definitions);
        let is_rebuilt = |checkpoint: &Checkpoint| self.rebuilt_at.is_some_and(|epoch| epoch <= checkpoint.epoch);
        let rebuild = match &recovered.checkpoint {
            Some(checkpoint) if is_rebuilt(checkpoint) => &Rebuild::default(),
            _ => &self.rebuild,
        };
        // A checkpoint of no definition cannot be: each is written with one.
        let before = before.unwrap_or_else(|| outlines.shapes.to_text());
        let failed = match &recovered.checkpoint {
            Some(checkpoint) => Header::of(checkpoint, &folder)?.views_that_failed(),
            // All of it runs again.
            None => BTreeSet::new(),
        };
        let changes = changes(&before, &outlines, rebuild, &failed, &folder)?;
        self.has_other_watermark = changes.has_other_watermark;
        let replays = !recovered.plans.is_empty();
        match recovered.checkpoint {
            Some(checkpoint) => self.restore(checkpoint, &changes.views, replays, &folder)?,
            // A journal alone does not tell what it is a journal of. All of it runs again, so that every view is made anew.
            None if store.definition()?.as_ref() != Some(&self.definition) => {
                let store = self.store.as_mut().expect("state came from a store");
                store.define(&self.definition)?;
            }
            None => {}
        }
        self.plans_to_replay = recovered.plans.into_iter();
        Ok(())
    }

    /// Goes back to where everything that sinks have not published yet can be made again, unless it stands there.
    /// `published` is the last epoch that is published, by sink.
    ///
    /// # Errors
    /// Where no checkpoint and no journal go back so far.
    pub fn go_back_for(&mut self, published: &BTreeMap<String, Epoch>) -> Result<()> {
        self.sinks.retain(|sink, _| published.contains_key(sink));
        if is_enough(self.epoch, &self.sinks, published) {
            return Ok(());
        }
        let store = self.store.as_ref().expect("sinks need a state");
        let enough = |checkpoint: &Checkpoint| {
            let header: Result<Header, _> = serde_json::from_value(checkpoint.header.clone());
            header.is_ok_and(|header| is_enough(checkpoint.epoch, &header.sinks, published))
        };
        let recovered = store.recover(enough).map_err(|error| {
            if matches!(error, Error::External { .. }) {
                return error;
            }
            let published = published.iter().map(|(sink, epoch)| format!("sink `{sink}` has published epoch {epoch}"));
            let published = published.collect::<Vec<_>>().join(", ");
            Error::state(format!(
                "{published}, and no checkpoint is so old: {error}; start over with --reset, which publishes all rows anew"
            ))
        })?;
        tracing::info!(
            source = self.source.name,
            from = recovered.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.epoch.0),
            newest = self.epoch.0,
            "going back to make again what sinks did not publish"
        );
        self.start_over(recovered)?;
        self.sinks.retain(|sink, _| published.contains_key(sink));
        Ok(())
    }

    /// Forgets what ran since the last commit, or half ran.
    ///
    /// # Errors
    /// Where the state cannot be read, or there is none.
    pub fn begin_again(&mut self) -> Result<()> {
        let store = self.store.as_ref().ok_or_else(|| Error::bug("nothing was kept"))?;
        let recovered = store.recover(|_| true)?;
        self.start_over(recovered)
    }

    /// The last epoch that the journal has.
    pub fn committed(&self) -> Epoch {
        self.committed
    }

    /// Begins where a checkpoint and its plans say, whatever it holds. Readers see no epoch before the newest that they have seen.
    fn start_over(&mut self, recovered: Recovered) -> Result<()> {
        let is_half_made = |view: &&MaintainedView| self.to_rebuild.iter().any(|other| other.name == view.name());
        let here = self.views.iter().filter(|view| !is_half_made(view));
        let definitions: Vec<_> = here.map(|view| Arc::clone(view.definition())).collect();
        let definitions = definitions.into_iter().chain(self.to_rebuild.clone());
        self.make_views(definitions)?;
        self.shown = self.shared.snapshot().epoch;
        self.watermarks = SplitWatermarks::default();
        self.positions.clear();
        self.anchors = Anchors::default();
        (self.epoch, self.epoch_time, self.rows) = (Epoch(0), EventTime(i64::MIN), 0);
        self.bad = SideOutput::new(format!("{}$bad", self.source.name), bad_schema());
        self.sinks.clear();
        self.rows_since_checkpoint = 0;
        self.heard_at.clear();
        self.to_rebuild.clear();
        self.starts.clear();
        for (_, face) in self.shared.faces() {
            *face.log.lock().expect("nobody panics while holding it") = ChangeLog::new(self.shown);
        }
        self.take_up(recovered)?;
        if self.epoch == Epoch(0) {
            self.begin()?;
        }
        Ok(())
    }

    /// Fresh ones.
    fn make_views(&mut self, definitions: impl IntoIterator<Item = Arc<MaterializedDefinition>>) -> Result<()> {
        self.views.clear();
        for definition in definitions {
            let view = MaintainedView::new(definition, &self.needed, &self.views, &self.bounds)?;
            self.views.push(view);
        }
        Ok(())
    }

    /// What its epochs are told from those of another state by.
    pub fn identity(&self) -> Option<&str> {
        self.store.as_ref().map(Store::identity)
    }

    /// How sinks stand to the state.
    pub fn sinks(&self) -> &SinkProgresses {
        &self.sinks
    }

    /// A sink begins with its view as it is at the end of `epoch`.
    pub fn begin_sink(&mut self, sink: &SinkDefinition, epoch: Epoch) {
        let progress = SinkProgress {
            since: epoch,
            last_change: epoch,
            view: sink.view.name.clone(),
            definition: definition_of(sink),
        };
        self.sinks_anew.remove(&sink.name);
        self.sinks.insert(sink.name.clone(), progress);
    }

    pub fn forget_sink(&mut self, name: &str) {
        self.sinks.remove(name);
    }

    /// Whether a sink that published rows of its view before has to publish all of them once more.
    pub fn publishes_again(&self, sink: &SinkDefinition) -> bool {
        let before = self.sinks_anew.get(&sink.name);
        before.is_some_and(|progress| progress.definition == definition_of(sink))
    }

    /// Sinks of a view whose rows are others by no epoch.
    fn begin_sinks_anew(&mut self, is_of: impl Fn(&SinkProgress) -> bool) {
        let sinks = std::mem::take(&mut self.sinks);
        let (anew, going_on): (SinkProgresses, SinkProgresses) = sinks.into_iter().partition(|(_, sink)| is_of(sink));
        self.sinks = going_on;
        self.sinks_anew.extend(anew);
    }

    /// The changes of `view` in an epoch that ran, where a sink that began before it has to publish them.
    pub fn change_for_sink<'r>(&mut self, sink: &str, view: &str, ran: &'r Ran) -> Option<&'r Change> {
        let progress = self
            .sinks
            .get_mut(sink)
            .filter(|progress| progress.since < ran.plan.number)?;
        let (_, change) = ran.changes.iter().find(|(name, _)| name == view)?;
        progress.last_change = change.epoch;
        Some(change)
    }

    /// All rows of a view, as a sink that begins publishes them.
    pub fn rows_of(&self, view: &str) -> Result<RecordBatch> {
        let view = self.views.iter().find(|other| other.name() == view);
        let view = view.ok_or_else(|| Error::bug("a sink of a view that is not there"))?;
        let batches = view.snapshot().batches()?;
        concat_batches(&view.definition().stream.schema, &batches).map_err(Error::of_arrow)
    }

    pub fn source(&self) -> &Arc<SourceDefinition> {
        &self.source
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    pub fn needed(&self) -> &[usize] {
        &self.needed
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn positions(&self) -> &BTreeMap<SplitId, Position> {
        &self.positions
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn epoch_time(&self) -> EventTime {
        self.epoch_time
    }

    pub fn has_watermark(&self) -> bool {
        self.watermark_rule.is_some()
    }

    /// The source is the one that was read before, or is read for the first time: the next plan says what it is told from others by.
    pub fn recognised(&mut self, identity: Option<String>) {
        self.new_identity = identity.filter(|_| self.committed_anchors().identity.is_none());
    }

    /// What a plan over these rows remembers of its source.
    pub fn anchors_of(&self, input: &[SplitRows]) -> Anchors {
        Anchors {
            identity: self.new_identity.clone(),
            ..anchors(input)
        }
    }

    /// When an operator wants an epoch even if no row comes.
    pub fn wakes_at(&self) -> Option<EventTime> {
        self.views.iter().filter_map(MaintainedView::wakes_at).min()
    }

    /// The watermark that closes every window that is open; `None` where none is. Windows over views may open when those below close.
    pub fn closes_all_at(&self) -> Option<EventTime> {
        let of_view = |index: usize| self.views[index].open_windows(&self.views[..index]);
        let open = (0..self.views.len()).filter_map(of_view);
        let closes_at = open.map(|open| open.all_close_at).max()?;
        (self.watermarks.combined() < closes_at).then(|| closes_at.time())?
    }

    /// All splits are silent from now on: the time before says nothing about them.
    pub fn silence_begins(&mut self, now: EventTime) {
        self.heard_at = self.positions.keys().map(|split| (split.clone(), now)).collect();
    }

    /// Whether a split that went quiet would move the watermark by being left out.
    pub fn idle_splits_now(&self) -> BTreeSet<SplitId> {
        self.positions
            .keys()
            .filter(|split| self.watermarks.of(split).1)
            .cloned()
            .collect()
    }

    /// Whether the state has grown so far past its checkpoint that one should follow.
    pub fn wants_checkpoint(&self) -> bool {
        let journal_bytes = self.store.as_ref().map_or(0, Store::journal_bytes);
        self.store.is_some()
            && (limits::CHECKPOINT_JOURNAL_BYTES <= journal_bytes
                || self.bounds.checkpoint_rows <= self.rows_since_checkpoint)
    }

    pub fn is_durable(&self) -> bool {
        self.store.is_some()
    }

    /// Whether another process may take the state at any time.
    pub fn shares_state(&self) -> bool {
        self.store.as_ref().is_some_and(Store::is_shared)
    }

    /// # Errors
    /// Where another process has taken the state.
    pub fn check_claim(&self) -> Result<()> {
        self.store.as_ref().map_or(Ok(()), Store::check_claim)
    }

    /// Whether a restart would have to run epochs again.
    pub fn has_uncheckpointed_epochs(&self) -> bool {
        self.store.is_some() && self.is_ahead_of_checkpoint
    }

    /// Adds a view over views that are there: it takes up what they hold, and follows them from the next epoch on, which is to come at once.
    ///
    /// # Errors
    /// Those of a view's epoch; then nothing was added.
    pub fn add_view(&mut self, definition: Arc<MaterializedDefinition>) -> Result<()> {
        let mut view = MaintainedView::new(definition, &self.needed, &self.views, &self.bounds)?;
        view.take_up(&self.views, self.epoch, self.epoch_time, &self.metrics)?;
        // Who followed another view of this name up to this epoch has to begin anew.
        self.shared.add_faces(faces_of(&view, self.epoch.next()));
        self.views.push(view);
        self.redefine();
        Ok(())
    }

    /// Removes a view that no other reads. An epoch is to come at once.
    pub fn remove_view(&mut self, name: &str) {
        self.to_rebuild.retain(|view| view.name != name);
        if let Some(gone) = self.views.iter().position(|view| view.name() == name) {
            self.views.remove(gone);
            self.views.iter_mut().for_each(|view| view.move_inputs_up(gone));
        }
        let kept: BTreeSet<String> = faces(&self.views, &self.bad).into_keys().collect();
        self.shared.remove_faces(|name| kept.contains(name));
        self.redefine();
    }

    pub(super) fn redefine(&mut self) {
        let definitions: Vec<_> = self.views.iter().map(|view| Arc::clone(view.definition())).collect();
        self.definition = Outlines::of(&self.source, &definitions).shapes.to_text();
    }

    /// An epoch of no rows that ends with a checkpoint, where there is state to keep.
    pub fn empty_plan(&self, now: EventTime) -> EpochPlan {
        EpochPlan {
            number: self.epoch.next(),
            ranges: BTreeMap::new(),
            epoch_time: now.max(self.epoch_time),
            idle_splits: self.idle_splits_now(),
            new_splits: BTreeMap::new(),
            complete_below: None,
            is_last: false,
            checkpoint: self.is_durable(),
            gaps: BTreeMap::new(),
            anchors: self.anchors_of(&[]),
        }
    }

    /// Runs a plan on its rows: per split of the plan, all its rows in the order of their positions. Nobody sees it yet.
    ///
    /// # Errors
    /// After an error the state is half an epoch ahead: open the timeline anew.
    pub fn run(&mut self, plan: &EpochPlan, input: Vec<SplitRows>) -> Result<Ran> {
        assert_eq!(plan.number, self.epoch.next(), "epochs run in order");
        assert!(self.epoch_time <= plan.epoch_time, "epoch time does not go back");
        let stopwatch = Stopwatch::start();
        for (split, start) in &plan.new_splits {
            self.positions.entry(split.clone()).or_insert(*start);
            self.starts.entry(split.clone()).or_insert(*start);
            self.watermarks.add_split(split);
        }
        for split in plan.ranges.keys().chain(plan.new_splits.keys()) {
            self.heard_at.insert(split.clone(), plan.epoch_time);
        }
        let (slices, new_bad) = self.prepare(plan, input)?;
        self.anchors.add(&plan.anchors);
        if plan.anchors.identity.is_some() {
            self.new_identity = None;
        }
        if let Some(time) = plan.complete_below {
            self.watermarks.raise(Watermark(time.0));
        }
        let watermark = self.watermarks.end_epoch(&plan.idle_splits, plan.is_last);
        let end = EpochEnd {
            watermark,
            epoch_time: plan.epoch_time,
        };

        let mut steps = Vec::new();
        for view in &mut self.views {
            steps.push(view.step(plan.number, end, &slices, &steps, &self.metrics)?);
        }
        let mut changes: Vec<_> = steps.into_iter().flat_map(|step| step.changes).collect();
        changes.extend(self.bad.push(new_bad, plan.number, watermark, &self.metrics)?);
        self.epoch = plan.number;
        self.epoch_time = plan.epoch_time;
        self.is_ahead_of_checkpoint = true;
        self.metrics
            .epoch_duration_seconds
            .with_label_values(&[&self.source.name])
            .observe(stopwatch.elapsed().as_secs_f64());
        Ok(Ran {
            plan: plan.clone(),
            changes,
        })
    }

    /// Makes the epoch survive a crash. After an error nothing was committed: try again, and do nothing else meanwhile.
    pub fn commit(&mut self, ran: &Ran) -> Result<()> {
        let stopwatch = Stopwatch::start();
        if let Some(store) = &mut self.store {
            match has(Bug::StartNotJournalled) {
                true => store.append(&EpochPlan {
                    new_splits: BTreeMap::new(),
                    ..ran.plan.clone()
                })?,
                false => store.append(&ran.plan)?,
            }
        }
        self.committed = ran.plan.number;
        self.metrics
            .commit_stall_seconds
            .with_label_values(&[&self.source.name])
            .observe(stopwatch.elapsed().as_secs_f64());
        self.metrics.epochs_total.with_label_values(&[&self.source.name]).inc();
        Ok(())
    }

    /// Readers see the epoch. Only after its commit, or in a replay of what was committed.
    pub fn publish(&mut self, ran: Ran) {
        // In a replay from far back readers have seen it already.
        let is_new = self.shown < self.epoch;
        for (view, change) in ran.changes.into_iter().filter(|_| is_new) {
            let face = self.shared.face(&view).expect("a face for every view");
            face.log.lock().expect("nobody panics while holding it").push(change);
        }
        self.publish_state();
    }

    /// Shows the state as it stands, e.g. what a checkpoint held.
    pub fn publish_state(&self) {
        // What readers have seen does not go back.
        if self.epoch < self.shown {
            return;
        }
        let mut views: BTreeMap<_, _> = BTreeMap::new();
        let mut late_rows = 0;
        for view in &self.views {
            views.insert(view.name().to_owned(), view.snapshot());
            self.metrics
                .view_rows
                .with_label_values(&[view.name()])
                .set(view.len() as i64);
            for side in view.side_outputs() {
                views.insert(side.name().to_owned(), side.snapshot());
            }
            late_rows += view.late().map_or(0, SideOutput::total);
        }
        views.insert(self.bad.name().to_owned(), self.bad.snapshot());
        {
            let mut status = self.shared.status.lock().expect("nobody panics while holding it");
            status.epoch = self.epoch;
            status.rows = self.rows;
            status.figures = self
                .views
                .iter()
                .map(|view| (view.name().to_owned(), view.figures().to_vec()))
                .collect();
            status.bad_rows = self.bad.total();
            status.late_rows = late_rows;
            status.progress = self.progress();
            let ends = self.shared.ends.lock().expect("nobody panics while holding it");
            status.splits = self
                .positions
                .iter()
                .map(|(split, position)| {
                    let (watermark, is_idle) = self.watermarks.of(split);
                    let end = ends.get(split).copied().unwrap_or(*position).max(*position);
                    self.metrics
                        .source_lag_rows
                        .with_label_values(&[&self.source.name, split.as_str()])
                        .set(i64::try_from(end.0 - position.0).unwrap_or(i64::MAX));
                    SplitStatus {
                        split: split.clone(),
                        position: *position,
                        end,
                        watermark,
                        highest_event_time: self.watermarks.highest(split),
                        silent_since: self.heard_at.get(split).copied().unwrap_or(self.epoch_time),
                        is_idle,
                    }
                })
                .collect();
        }
        if let Some(watermark) = self.watermarks.combined().time() {
            let lag = (self.epoch_time.0.saturating_sub(watermark.0)) as f64 / 1e9;
            self.metrics
                .watermark_lag_seconds
                .with_label_values(&[&self.source.name])
                .set(lag);
        }
        self.shared.publish(Snapshot {
            epoch: self.epoch,
            watermark: self.watermarks.combined(),
            positions: self.positions.clone(),
            views,
        });
    }

    fn progress(&self) -> BTreeMap<String, Progress> {
        let of_view = |(index, view): (usize, &MaintainedView)| {
            let progress = Progress {
                watermark: view.watermark(),
                open: view.open_windows(&self.views[..index]),
            };
            (view.name().to_owned(), progress)
        };
        self.views.iter().enumerate().map(of_view).collect()
    }

    /// The state after an epoch whose plan says that a checkpoint follows. Taking it merges states anew, and later results must not depend
    /// on who did: a replay [repeats it](Self::repeat_checkpoint).
    pub fn checkpoint(&mut self) -> Result<Option<(CheckpointWriter, Checkpoint)>> {
        let mut parts = vec![Part {
            name: "bad".into(),
            rows: Saved::now(self.bad.batches()),
        }];
        let (mut late_totals, mut failed_totals) = (BTreeMap::new(), BTreeMap::new());
        for view in &mut self.views {
            parts.extend(view.save()?);
            late_totals.extend(view.late().map(|late| (view.name().to_owned(), late.total())));
            failed_totals.extend(view.errors().map(|errors| (view.name().to_owned(), errors.total())));
            self.metrics
                .state_bytes
                .with_label_values(&[view.name()])
                .set(view.memory_bytes() as i64);
        }
        self.rows_since_checkpoint = 0;
        self.is_ahead_of_checkpoint = false;
        let mut positions = self.positions.clone();
        if has(Bug::PositionOffByOne) {
            positions
                .values_mut()
                .for_each(|position| position.0 = position.0.saturating_sub(1));
        }
        let header = Header {
            positions,
            starts: self.starts.clone(),
            watermarks: self.watermarks.clone(),
            epoch_time: self.epoch_time,
            rows: self.rows,
            bad_total: if has(Bug::CounterNotKept) { 0 } else { self.bad.total() },
            late_totals,
            view_watermarks: (self.views.iter())
                .map(|view| (view.name().to_owned(), view.watermark()))
                .collect(),
            failed_totals,
            sinks: self.sinks.clone(),
            anchors: self.anchors.clone(),
        };
        let header = serde_json::to_value(header)
            .map_err(|e| Error::bug(format!("a checkpoint's header cannot be written: {e}")))?;
        let checkpoint = Checkpoint {
            epoch: self.epoch,
            header,
            definition: self.definition.clone(),
            parts,
        };
        Ok(self.store.as_mut().map(|store| (store.begin_checkpoint(), checkpoint)))
    }

    /// In a replay: does to the state what taking the checkpoint did. None is written, so that what ran still has none.
    pub fn repeat_checkpoint(&mut self) -> Result<()> {
        let without = (self.rows_since_checkpoint, self.is_ahead_of_checkpoint);
        drop(self.checkpoint()?);
        (self.rows_since_checkpoint, self.is_ahead_of_checkpoint) = without;
        Ok(())
    }

    /// Takes up a checkpoint: views go on with their state, take up what those below them hold, or wait until their rows are read again.
    /// `replays`: plans behind it run again.
    fn restore(&mut self, checkpoint: Checkpoint, changes: &[ViewVerdict], replays: bool, folder: &Path) -> Result<()> {
        let header = Header::of(&checkpoint, folder)?;
        let mut parts: BTreeMap<String, Vec<RecordBatch>> = checkpoint
            .parts
            .into_iter()
            .map(|part| Ok((part.name, part.rows.rows()?)))
            .collect::<Result<_>>()?;
        let mut part = |name: String| {
            parts
                .remove(&name)
                .ok_or_else(|| Error::state(format!("the checkpoint in {} has no part {name}", folder.display())))
        };
        self.epoch = checkpoint.epoch;
        self.epoch_time = header.epoch_time;
        self.positions = header.positions;
        self.anchors = header.anchors;
        self.watermarks = header.watermarks;
        self.rows = header.rows;
        self.starts = header.starts;
        let verdict = |name: &str| changes.iter().find(|change| change.view == name);
        // Rows of a view that are others now came by no epoch: its sinks begin anew too.
        self.sinks = header.sinks;
        self.begin_sinks_anew(|sink| verdict(&sink.view).is_none_or(|change| !change.lets_sinks_go_on(replays)));
        self.set_aside_views_to_rebuild(changes)?;
        let mut made_anew: BTreeSet<String> = BTreeSet::new();
        self.bad.restore(part("bad".into())?, header.bad_total);
        for index in 0..self.views.len() {
            let (before, rest) = self.views.split_at_mut(index);
            let view = &mut rest[0];
            let change = verdict(view.name()).expect("a verdict on every view");
            let reads_anew = change.takeover.is_some() && view.reads_any_of(before, &made_anew);
            if let (Some(takeover), false) = (&change.takeover, reads_anew) {
                let total = |totals: &BTreeMap<String, u64>| totals.get(view.name()).copied().unwrap_or_default();
                let totals = (total(&header.late_totals), total(&header.failed_totals));
                let has_other_rows = view.restore(&mut part, takeover, totals, self.epoch, &self.metrics)?;
                if has_other_rows {
                    made_anew.insert(view.name().to_owned());
                }
                let watermark = header.view_watermarks.get(view.name());
                view.restore_watermark(watermark.copied().unwrap_or(Watermark::START));
                continue;
            }
            if view.reads_source() {
                return Err(Error::user(format!(
                    "some rows of a view that `{}` reads could not be computed before, or cannot be now, so that it has to be computed anew: start with --rebuild {}",
                    view.name(),
                    view.name()
                )));
            }
            tracing::info!(
                source = self.source.name,
                view = view.name(),
                "view computed from those below it"
            );
            view.take_up(before, self.epoch, self.epoch_time, &self.metrics)?;
            let name = view.name().to_owned();
            self.begin_sinks_anew(|sink| sink.view == name);
            made_anew.insert(name);
        }
        for (_, face) in self.shared.faces() {
            *face.log.lock().expect("nobody panics while holding it") = ChangeLog::new(self.epoch.max(self.shown));
        }
        Ok(())
    }

    /// Views that have to read rows of the source again, and those that read them, leave until that is done.
    fn set_aside_views_to_rebuild(&mut self, changes: &[ViewVerdict]) -> Result<()> {
        let mut names: BTreeSet<&str> = (changes.iter())
            .filter(|change| change.verdict.needs_rebuild())
            .map(|change| change.view.as_str())
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let definitions: Vec<_> = self.views.iter().map(|view| Arc::clone(view.definition())).collect();
        for definition in &definitions {
            let inputs = &definition.stream.inputs;
            if (inputs.iter()).any(|input| !input.is_source && names.contains(input.relation.as_str())) {
                names.insert(&definition.name);
            }
        }
        let (to_rebuild, here) = definitions
            .iter()
            .cloned()
            .partition(|definition| names.contains(definition.name.as_str()));
        self.to_rebuild = to_rebuild;
        let here: Vec<_> = here;
        self.make_views(here)
    }

    /// Rows in canonical order, cut into slices of a fixed size, each row with the watermark that it met; bad ones set aside.
    fn prepare(&mut self, plan: &EpochPlan, input: Vec<SplitRows>) -> Result<(Vec<Slice>, Vec<RecordBatch>)> {
        let mut by_split: BTreeMap<SplitId, Vec<SplitRows>> = BTreeMap::new();
        for part in input {
            by_split.entry(part.split.clone()).or_default().push(part);
        }
        assert!(
            by_split.keys().eq(plan.ranges.keys()),
            "an epoch gets the rows of its plan"
        );
        let mut slices = Vec::new();
        let mut new_bad = Vec::new();
        for (split, parts) in by_split {
            let range = plan.ranges[&split];
            let mut rows = SplitRows::join(parts)?;
            assert_eq!(
                (rows.from, rows.to),
                (range.from, range.to),
                "an epoch gets the rows of its plan"
            );
            let position = self.positions.get(&split).copied();
            assert_eq!(position, Some(range.from), "no row is read twice, and none is left out");
            if let Some(read) = plan.anchors.records.get(&split)
                && rows.anchor != Some(*read)
            {
                return Err(Error::user(format!(
                    "row {} of split {split} of source `{}` is not the one that was read there before: what is read was made anew, or has lost rows; \
                     start over with --reset",
                    read.position, self.source.name
                )));
            }
            self.positions.insert(split.clone(), range.to);
            let watermarks = self.observe(plan, &split, &mut rows)?;
            if !rows.bad.is_empty() {
                self.metrics
                    .bad_records_total
                    .with_label_values(&[&self.source.name])
                    .inc_by(rows.bad.len() as u64);
                new_bad.push(bad_rows(&split, &rows.bad)?);
            }
            let count = rows.rows.num_rows();
            self.rows += count as u64;
            self.rows_since_checkpoint += count as u64;
            self.metrics
                .source_rows_total
                .with_label_values(&[&self.source.name, split.as_str()])
                .inc_by(count as u64);
            for from in (0..count).step_by(limits::CHUNK_ROWS) {
                let length = limits::CHUNK_ROWS.min(count - from);
                slices.push((
                    rows.rows.slice(from, length),
                    watermarks.as_ref().map(|watermarks| watermarks.slice(from, length)),
                ));
            }
        }
        Ok((slices, new_bad))
    }

    /// What each row met, and rows from too far ahead refused.
    fn observe(&mut self, plan: &EpochPlan, split: &SplitId, rows: &mut SplitRows) -> Result<Option<Int64Array>> {
        let Some(rule) = &self.watermark_rule else {
            self.watermarks.add_split(split);
            return Ok(None);
        };
        rule.refuse_far_ahead(rows, plan.epoch_time)?;
        if let Some(highest) = rule.highest(&rows.rows) {
            self.watermarks.saw(split, highest);
        }
        let mut met = rule.complete_until(&rows.rows)?;
        self.watermarks.observe(split, &mut met);
        if has(Bug::LateByWallClock) {
            let late = plan.epoch_time.0.saturating_sub(4_000_000_000);
            met.iter_mut().for_each(|met| *met = (*met).max(late));
        }
        Ok(Some(Int64Array::from(met)))
    }
}

/// An epoch that ran and is not committed yet.
pub struct Ran {
    pub plan: EpochPlan,
    changes: Vec<(String, Change)>,
}

/// The columns of a source that its views and its watermark read, ascending.
fn needed_columns(source: &SourceDefinition, views: &[Arc<MaterializedDefinition>]) -> Vec<usize> {
    let mut needed = WatermarkRule::columns(source);
    let inputs = views.iter().flat_map(|view| &view.stream.inputs);
    for input in inputs.filter(|input| input.is_source) {
        needed.extend(&input.columns);
    }
    needed.into_iter().collect()
}

fn faces(views: &[MaintainedView], bad: &SideOutput) -> BTreeMap<String, ViewFace> {
    let of_views = views.iter().flat_map(|view| faces_of(view, Epoch(0)));
    of_views.chain([(bad.name().to_owned(), bad.face())]).collect()
}

/// Of a view and its side outputs, whose changes are known after `since`.
pub(super) fn faces_of(view: &MaintainedView, since: Epoch) -> BTreeMap<String, ViewFace> {
    let side_outputs = view.side_outputs().map(|side| (side.name().to_owned(), side.face()));
    let faces = side_outputs.chain([(view.name().to_owned(), view.face())]);
    faces
        .inspect(|(_, face)| *face.log.lock().expect("nobody else has it yet") = ChangeLog::new(since))
        .collect()
}
