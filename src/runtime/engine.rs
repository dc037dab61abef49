//! A running engine: its catalog, its timelines, and the way in for statements and readers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arrow::datatypes::SchemaRef;
use datafusion::{catalog::TableProvider, execution::context::SessionState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    connector::TableLog,
    plan::{Catalog, MakeSource, Registry, Relation, SourceDefinition, base_session, errors_schema, late_schema},
    sql::Emit,
    state::{Place, Store},
    types::{Epoch, Error, Options, Position, Result, SplitId, Watermark, Windows, folder_name},
    view::{Change, RowsSnapshot, SnapshotTable},
};

use super::{
    Bounds, Metrics,
    clock::Clock,
    definition::Rebuild,
    driver::Driver,
    face::*,
    host::SystemHost,
    kept::Kept,
    outlets::check_published_again,
    query::QueryPool,
    shared::{Shared, Snapshot, ViewFace},
    timeline::Timeline,
};

/// A running engine; clones share it.
#[derive(Clone)]
pub struct Engine(pub(super) Arc<Inner>);

pub struct EngineOptions {
    /// Where journals and checkpoints go, a folder per source; `None` keeps nothing over a restart.
    pub state: Option<Place>,
    pub mode: Mode,
    /// Connectors that stand in for those of the text, by source.
    pub overrides: Vec<SourceOverride>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Threads read and run epochs by the clock.
    Live,
    /// Epochs run when a script says so.
    Manual,
}

/// Reads a source from somewhere else: the pipeline's text stays as it is.
#[derive(Clone, Debug)]
pub struct SourceOverride {
    pub source: String,
    /// `connector`, and the options of that connector.
    pub options: Vec<(String, String)>,
}

pub(super) struct Inner {
    pub registry: Registry,
    pub session: SessionState,
    pub options: EngineOptions,
    pub bounds: Bounds,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub queries: QueryPool,
    pub catalog: RwLock<Catalog>,
    /// One definition at a time.
    pub defining: tokio::sync::Mutex<()>,
    pub timelines: RwLock<BTreeMap<String, Arc<Shared>>>,
    /// By source.
    pub drivers: Mutex<BTreeMap<String, Driver>>,
    pub manual: Mutex<BTreeMap<String, super::manual::ManualSource>>,
    /// What was written to tables, by their names.
    pub table_logs: Mutex<BTreeMap<String, TableLog>>,
    /// By table: one statement at a time decides what it changes.
    pub writing: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// By source: the split that INSERT appended to, and the position behind its rows.
    pub inserted: Mutex<BTreeMap<String, (SplitId, Position)>>,
    pub stopping: CancellationToken,
    /// What another state published through sinks does not count.
    was_reset: AtomicBool,
    rebuild: Mutex<Rebuild>,
    /// Where definitions are kept that are made while it runs; `None` until it is told to keep them.
    pub kept: Mutex<Option<Kept>>,
    next_query: AtomicU64,
}

/// What a query reads.
pub(super) struct Pinned {
    /// By source.
    pub sources: BTreeMap<String, Arc<Snapshot>>,
    /// Views and side outputs by name.
    pub tables: BTreeMap<String, Arc<dyn TableProvider>>,
}

impl Engine {
    pub fn new(registry: Registry, options: EngineOptions, clock: Arc<dyn Clock>) -> Self {
        Self::with_bounds(registry, options, clock, Bounds::default())
    }

    /// With other bounds than the named limits, so that a test can reach them.
    pub fn with_bounds(registry: Registry, options: EngineOptions, clock: Arc<dyn Clock>, bounds: Bounds) -> Self {
        let metrics = Arc::new(Metrics::default());
        Self(Arc::new(Inner {
            session: base_session(Arc::clone(&registry.environment)),
            registry,
            options,
            bounds,
            clock,
            queries: QueryPool::new(Arc::clone(&metrics)),
            metrics,
            catalog: RwLock::default(),
            defining: tokio::sync::Mutex::default(),
            timelines: RwLock::default(),
            drivers: Mutex::default(),
            manual: Mutex::default(),
            table_logs: Mutex::default(),
            writing: Mutex::default(),
            inserted: Mutex::default(),
            stopping: CancellationToken::new(),
            was_reset: AtomicBool::new(false),
            rebuild: Mutex::default(),
            kept: Mutex::default(),
            next_query: AtomicU64::new(1),
        }))
    }

    /// Forgets what was committed for the sources and tables of the catalog. What was written to a table is nowhere else, and stays: its
    /// views are computed anew from that. Before `start`.
    pub fn reset(&self) -> Result<()> {
        self.0.was_reset.store(true, Ordering::Relaxed);
        for relation in self.catalog().iter() {
            if let (Relation::Source(_) | Relation::Table(_), Some(folder)) = (relation, self.folder(relation.name())) {
                tracing::info!(source = relation.name(), folder = %folder.root.display(), "state removed");
                Store::reset(&folder, None)?;
            }
        }
        Ok(())
    }

    /// Computes views anew from the rows of their source, and those that read them. Before `start`.
    ///
    /// # Errors
    /// [`Error::User`] where one of them is no materialized view.
    pub fn rebuild(&self, rebuild: Rebuild) -> Result<()> {
        let catalog = self.catalog();
        for name in &rebuild.views {
            if matches!(catalog.get(name), Some(Relation::Materialized(_))) {
                continue;
            }
            let views = catalog
                .iter()
                .filter(|relation| matches!(relation, Relation::Materialized(_)));
            let near = crate::sql::suggest::nearest(name, views.map(Relation::name));
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            return Err(Error::user(format!(
                "--rebuild {name}: there is no such materialized view{hint}"
            )));
        }
        *self.0.rebuild.lock().expect("nobody panics while holding it") = rebuild;
        Ok(())
    }

    pub(super) fn rebuild_of(&self) -> Rebuild {
        self.0.rebuild.lock().expect("nobody panics while holding it").clone()
    }

    /// Starts every source that a materialized view reads and that does not run yet.
    pub fn start(&self) -> Result<()> {
        let catalog = self.catalog();
        for relation in catalog.iter() {
            let source = match relation {
                Relation::Source(source) => source,
                Relation::Table(table) => &table.source,
                _ => continue,
            };
            let is_running = self
                .0
                .timelines
                .read()
                .expect("nobody panics while holding it")
                .contains_key(&source.name);
            if !is_running && !catalog.views_of(&source.name).is_empty() && self.0.options.mode == Mode::Live {
                self.start_source(source, &catalog)?;
            }
        }
        Ok(())
    }

    fn start_source(&self, source: &Arc<SourceDefinition>, catalog: &Catalog) -> Result<()> {
        let folder = self.folder(&source.name);
        let timeline = Timeline::open(
            Arc::clone(source),
            catalog,
            folder,
            Arc::clone(&self.0.metrics),
            &self.0.bounds,
            self.rebuild_of(),
        )?;
        let sinks = catalog.sinks_of(&source.name);
        for sink in sinks.iter().filter(|sink| timeline.publishes_again(sink)) {
            check_published_again(sink, &self.0.registry)?;
            let told = match sink.view.stream.is_append_only {
                true => "the view has other rows now: the sink publishes all of them again",
                false => {
                    "the view has other rows now: the sink publishes all of them again, and takes back none that the view does not have any more"
                }
            };
            tracing::warn!(sink = sink.name, view = sink.view.name, "{told}");
        }
        let make = self.connector_of(source)?;
        self.adopt(timeline.shared());
        let driver = Driver::start(
            timeline,
            make,
            sinks,
            self.0.was_reset.load(Ordering::Relaxed),
            self.0.registry.clone(),
            Arc::new(SystemHost(Arc::clone(&self.0.clock))),
        );
        self.0
            .drivers
            .lock()
            .expect("nobody panics while holding it")
            .insert(source.name.clone(), driver);
        Ok(())
    }

    /// Behind the opening of its timeline, which holds the lock of the state.
    pub(super) fn connector_of(&self, source: &SourceDefinition) -> Result<MakeSource> {
        if source.is_table() {
            let log = self.open_log(&source.name)?;
            return Ok(Arc::new(move |_, _| Ok(log.source())));
        }
        let connector = self.0.registry.connector(&source.connector);
        let connector = connector.ok_or_else(|| Error::bug("a connector was bound that is not registered"))?;
        Ok(Arc::clone(&connector.make))
    }

    /// Makes a timeline's views readable.
    pub(super) fn adopt(&self, shared: &Arc<Shared>) {
        let mut timelines = self.0.timelines.write().expect("nobody panics while holding it");
        timelines.insert(shared.source.clone(), Arc::clone(shared));
    }

    /// Finishes the running epochs, writes a last checkpoint of each source, and waits for it. Blocks.
    pub fn stop(&self) {
        self.0.stopping.cancel();
        let mut drivers = std::mem::take(&mut *self.0.drivers.lock().expect("nobody panics while holding it"));
        for driver in drivers.values() {
            driver.stop();
        }
        for driver in drivers.values_mut() {
            driver.join();
        }
    }

    /// Resolves when the engine begins to shut down.
    pub async fn stopping(&self) {
        self.0.stopping.cancelled().await;
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub fn catalog(&self) -> Catalog {
        self.0.catalog.read().expect("nobody panics while holding it").clone()
    }

    pub(super) fn folder(&self, source: &str) -> Option<Place> {
        let state = self.0.options.state.as_ref()?;
        Some(state.join(&folder_name(source)))
    }

    pub(super) fn next_query_id(&self) -> String {
        format!("q-{:06}", self.0.next_query.fetch_add(1, Ordering::Relaxed))
    }

    /// One epoch of every timeline, and all their views as tables.
    pub(super) fn pin(&self) -> Pinned {
        let timelines = self.0.timelines.read().expect("nobody panics while holding it");
        let sources: BTreeMap<String, Arc<Snapshot>> = timelines
            .iter()
            .map(|(source, shared)| (source.clone(), shared.snapshot()))
            .collect();
        let tables = sources
            .values()
            .flat_map(|snapshot| &snapshot.views)
            .map(|(name, rows)| {
                (
                    name.clone(),
                    Arc::new(SnapshotTable::new(rows.clone())) as Arc<dyn TableProvider>,
                )
            })
            .collect();
        Pinned { sources, tables }
    }

    pub(super) fn shared_of(&self, source: &str) -> Option<Arc<Shared>> {
        self.0
            .timelines
            .read()
            .expect("nobody panics while holding it")
            .get(source)
            .cloned()
    }

    pub fn relations(&self) -> Vec<RelationInfo> {
        let catalog = self.catalog();
        let mut all = Vec::new();
        for relation in catalog.iter() {
            let mut info = RelationInfo {
                name: relation.name().to_owned(),
                kind: RelationKind::View,
                source: None,
                schema: relation.schema(),
                key: Vec::new(),
                is_append_only: true,
                time: None,
                window_end: None,
                window_ns: None,
                emit: None,
                rows: None,
                epoch: Epoch(0),
                watermark: Watermark::START,
                history: None,
                options: Options::default(),
                sql: relation.sql().to_owned(),
            };
            match relation {
                Relation::External(_) => info.kind = RelationKind::ExternalTable,
                // Its rows are elsewhere: no query names it.
                Relation::Sink(_) => continue,
                Relation::Table(table) => {
                    let stream = &table.view.stream;
                    let name = |column: usize| stream.schema.field(column).name().clone();
                    info.kind = RelationKind::Table;
                    info.key = stream.key.iter().copied().map(name).collect();
                    info.is_append_only = stream.is_append_only;
                    info.time = stream.time.map(name);
                    info.emit = Some(Emit::Changes);
                    self.live(&mut info, &table.name);
                }
                Relation::View(_) => {}
                Relation::Source(source) => {
                    info.kind = RelationKind::Source;
                    info.time = source
                        .watermark
                        .as_ref()
                        .map(|watermark| source.schema.field(watermark.column).name().clone());
                    self.live(&mut info, &source.name);
                    let bad = format!("{}$bad", source.name);
                    all.push(info.clone());
                    all.extend(self.side_output(&info, &source.name, &bad, crate::plan::bad_schema()));
                    continue;
                }
                Relation::Materialized(view) => {
                    let name = |column: usize| view.stream.schema.field(column).name().clone();
                    info.kind = RelationKind::MaterializedView;
                    info.key = view.stream.key.iter().copied().map(name).collect();
                    info.is_append_only = view.stream.is_append_only;
                    info.time = view.stream.time.map(name);
                    info.window_end = view.stream.window_end.map(name);
                    info.window_ns = view.stream.windows.and_then(Windows::size_ns);
                    info.emit = Some(view.emit.clone());
                    info.options = view.options.clone();
                    info.history = catalog.history_of(view).map(|table| table.name.clone());
                    self.live(&mut info, &view.source);
                    all.push(info.clone());
                    if let Some(rows) = &view.stream.late_rows {
                        let late = format!("{}$late", view.name);
                        all.extend(self.side_output(&info, &view.source, &late, late_schema(rows)));
                    }
                    let errors = format!("{}$errors", view.name);
                    all.extend(self.side_output(&info, &view.source, &errors, errors_schema()));
                    continue;
                }
            }
            all.push(info);
        }
        all
    }

    fn live(&self, info: &mut RelationInfo, source: &str) {
        info.source = Some(source.to_owned());
        if let Some(shared) = self.shared_of(source) {
            let snapshot = shared.snapshot();
            info.rows = snapshot.views.get(&info.name).map(|rows| rows.len());
            info.epoch = snapshot.epoch;
            info.watermark = snapshot.watermark;
        }
    }

    fn side_output(&self, of: &RelationInfo, source: &str, name: &str, schema: SchemaRef) -> Option<RelationInfo> {
        let mut info = RelationInfo {
            name: name.to_owned(),
            kind: RelationKind::SideOutput,
            time: schema.index_of("window_start").ok().map(|_| "window_start".to_owned()),
            schema,
            key: Vec::new(),
            is_append_only: true,
            window_end: None,
            window_ns: None,
            emit: None::<Emit>,
            history: None,
            options: Options::default(),
            sql: String::new(),
            ..of.clone()
        };
        self.live(&mut info, source);
        Some(info)
    }

    pub fn relation(&self, name: &str) -> Option<RelationInfo> {
        self.relations().into_iter().find(|relation| relation.name == name)
    }

    pub fn sources(&self) -> Vec<SourceStatus> {
        let timelines = self.0.timelines.read().expect("nobody panics while holding it");
        timelines
            .values()
            .map(|shared| {
                let (snapshot, status) = shared.snapshot_and_status();
                SourceStatus {
                    name: shared.source.clone(),
                    connector: shared.connector.clone(),
                    state: status.state,
                    reason: status.reason,
                    rows: status.rows,
                    bad_rows: status.bad_rows,
                    late_rows: status.late_rows,
                    epoch: snapshot.epoch,
                    watermark: snapshot.watermark,
                    splits: status.splits,
                }
            })
            .collect()
    }

    /// A materialized view or side output to follow.
    pub fn follow(&self, view: &str) -> Result<ViewReader, Problem> {
        let timelines = self.0.timelines.read().expect("nobody panics while holding it");
        let found = timelines.values().find_map(|shared| Some((shared, shared.face(view)?)));
        if let Some((shared, face)) = found {
            return Ok(ViewReader {
                name: view.to_owned(),
                epochs: shared.epochs(),
                shared: Arc::clone(shared),
                face,
                stopping: self.0.stopping.clone(),
            });
        }
        let faces: Vec<_> = timelines.values().flat_map(|shared| shared.faces()).collect();
        let names: Vec<&str> = faces.iter().map(|(name, _)| name.as_str()).collect();
        let help = match crate::sql::suggest::nearest(view, names.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("views to follow: {}", names.join(", ")),
        };
        Err(Problem::new(ProblemKind::NotFound {
            detail: format!("no materialized view named {view}"),
            help: vec![help],
        }))
    }
}

/// One view, read at its newest epoch and followed from there. Each reader has its own.
#[derive(Clone)]
pub struct ViewReader {
    name: String,
    shared: Arc<Shared>,
    face: Arc<ViewFace>,
    epochs: watch::Receiver<Epoch>,
    stopping: CancellationToken,
}

impl ViewReader {
    /// Whether the view was not dropped, be there another of its name or not.
    fn is_there(&self) -> bool {
        let face = self.shared.face(&self.name);
        face.is_some_and(|face| Arc::ptr_eq(&face, &self.face))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.face.schema
    }

    /// The columns that name a row; empty when rows are only appended.
    pub fn key(&self) -> &[usize] {
        &self.face.key
    }

    pub fn time(&self) -> Option<usize> {
        self.face.time
    }

    /// Changes with every start of the engine on its state: part of a token.
    pub fn generation(&self) -> u64 {
        self.shared.generation
    }

    /// No rows where the view was dropped.
    pub fn published(&self) -> Published {
        let snapshot = self.shared.snapshot();
        let rows = snapshot.views.get(&self.name).filter(|_| self.is_there());
        Published {
            epoch: snapshot.epoch,
            watermark: snapshot.watermark,
            rows: rows
                .cloned()
                .unwrap_or_else(|| RowsSnapshot::empty(Arc::clone(&self.face.schema))),
        }
    }

    /// All changes after `epoch` that are known by now, or `None` where they are not kept any more.
    pub fn changes_after(&self, epoch: Epoch) -> Option<Vec<Arc<Change>>> {
        self.face
            .log
            .lock()
            .expect("nobody panics while holding it")
            .after(epoch)
    }

    /// Waits until an epoch after the one last seen by this reader is published; `false` when the engine stops or the view was dropped.
    pub async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.epochs.changed() => changed.is_ok() && self.is_there(),
            () = self.stopping.cancelled() => false,
        }
    }
}
