//! One source's epochs: run a plan, commit it, publish what it changed. Synchronous; who drives it brings rows and time.
//!
//! ```text
//! plan + rows ─▶ watermark, late, bad ─▶ each view's operators ─▶ views
//!             ─▶ journal (synced) ─▶ readers see the epoch ─▶ now and then a checkpoint
//! ```
//! Nothing is visible outside before the journal has the plan. Running a plan again on the same state gives the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringViewArray, UInt64Array},
    compute::concat_batches,
    datatypes::{SchemaRef, TimestampNanosecondType},
};
use datafusion::{
    common::ScalarValue,
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, Column, Literal},
        utils::reassign_expr_columns,
    },
};

use crate::{
    operator::{Chain, EpochEnd, Flow, LateRows, Output, SplitWatermarks},
    plan::{Catalog, MaterializedDefinition, SourceDefinition, bad_schema, late_schema},
    state::{Checkpoint, CheckpointWriter, Part, Store},
    types::{Delta, Epoch, EpochPlan, Error, EventTime, Position, Result, SplitId, Watermark, limits},
    view::{Change, ChangeLog, Rows, SideRows, consolidate},
};

use super::{
    Metrics,
    clock::Stopwatch,
    face::SplitStatus,
    intake::SplitRows,
    shared::{Shared, Snapshot, ViewFace},
};

pub struct Timeline {
    source: Arc<SourceDefinition>,
    /// The columns that are decoded, in the order of the source's schema.
    needed: Vec<usize>,
    watermark_rule: Option<WatermarkRule>,
    views: Vec<View>,
    watermarks: SplitWatermarks,
    /// First unread row of each known split.
    positions: BTreeMap<SplitId, Position>,
    epoch: Epoch,
    epoch_time: EventTime,
    rows: u64,
    bad: SideRows,
    store: Option<Store>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    definition: String,
    rows_since_checkpoint: u64,
    /// Epochs ran, anew or again, that no checkpoint holds.
    is_ahead_of_checkpoint: bool,
    plans_to_replay: std::vec::IntoIter<EpochPlan>,
}

struct View {
    definition: Arc<MaterializedDefinition>,
    chain: Chain,
    /// Where its rows come from: columns of the decoded rows, or the output of another view.
    upstream: Upstream,
    rows: Rows,
    late: Option<SideRows>,
}

enum Upstream {
    Source(Vec<usize>),
    View { index: usize, columns: Vec<usize> },
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Header {
    positions: BTreeMap<SplitId, Position>,
    watermarks: SplitWatermarks,
    epoch_time: EventTime,
    rows: u64,
    bad_total: u64,
    late_totals: BTreeMap<String, u64>,
}

impl Timeline {
    /// Builds the dataflows of all views of a source, and takes up the state in `folder`, where one is given.
    pub fn open(
        source: Arc<SourceDefinition>,
        catalog: &Catalog,
        folder: Option<&Path>,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let definitions = catalog.views_of(&source.name);
        let mut needed: BTreeSet<usize> = source.watermark.iter().map(|watermark| watermark.column).collect();
        for view in definitions.iter().filter(|view| view.stream.reads_source_directly) {
            needed.extend(&view.stream.source_columns);
        }
        if let Some(watermark) = &source.watermark {
            let columns = datafusion::physical_expr::utils::collect_columns(&watermark.expression);
            needed.extend(columns.iter().map(|column| column.index()));
        }
        let needed: Vec<usize> = needed.into_iter().collect();
        let needed_schema = Arc::new(source.schema.project(&needed).map_err(bug)?);
        let watermark_rule = match &source.watermark {
            None => None,
            Some(watermark) => {
                let column = needed
                    .iter()
                    .position(|column| *column == watermark.column)
                    .expect("needed above");
                let expression = reassign_expr_columns(Arc::clone(&watermark.expression), &needed_schema)
                    .map_err(|e| Error::bug(e.to_string()))?;
                let delay_ns = constant_delay(expression.as_ref(), column);
                Some(WatermarkRule {
                    column,
                    expression,
                    delay_ns,
                })
            }
        };

        let mut views: Vec<View> = Vec::new();
        for definition in definitions {
            let stream = &definition.stream;
            let upstream = match stream.reads_source_directly {
                true => Upstream::Source(
                    stream
                        .source_columns
                        .iter()
                        .map(|column| needed.binary_search(column).expect("needed above"))
                        .collect(),
                ),
                false => Upstream::View {
                    index: views
                        .iter()
                        .position(|view| view.definition.name == stream.upstream)
                        .expect("created before"),
                    columns: stream.source_columns.clone(),
                },
            };
            views.push(View {
                chain: stream.operators()?,
                rows: Rows::new(Arc::clone(&stream.schema), stream.key.clone(), stream.is_append_only)?,
                late: stream.late_rows.as_ref().map(|rows| SideRows::new(late_schema(rows))),
                upstream,
                definition,
            });
        }

        let (store, recovered) = match folder {
            Some(folder) => {
                let (store, recovered) = Store::open(folder)?;
                (Some(store), Some(recovered))
            }
            None => (None, None),
        };
        let generation = store.as_ref().map_or(1, Store::generation);
        let mut timeline = Self {
            definition: fingerprint(&source, &views),
            needed,
            watermark_rule,
            shared: Arc::new(Shared::new(
                &source.name,
                &source.connector,
                generation,
                faces(&source, &views),
            )),
            source,
            views,
            watermarks: SplitWatermarks::default(),
            positions: BTreeMap::new(),
            epoch: Epoch(0),
            epoch_time: EventTime(i64::MIN),
            rows: 0,
            bad: SideRows::new(bad_schema()),
            store,
            metrics,
            rows_since_checkpoint: 0,
            is_ahead_of_checkpoint: false,
            plans_to_replay: Vec::new().into_iter(),
        };
        if let Some(recovered) = recovered {
            let folder = folder.expect("state came from a folder");
            let store = timeline.store.as_mut().expect("state came from a store");
            if recovered.checkpoint.is_none() && recovered.plans.is_empty() {
                store.define(&timeline.definition)?;
            } else if let Some(before) = store.definition()?
                && before != timeline.definition
            {
                return Err(another_definition(folder, &before, &timeline.definition));
            }
            if let Some(checkpoint) = recovered.checkpoint {
                timeline.restore(checkpoint, folder)?;
            }
            timeline.plans_to_replay = recovered.plans.into_iter();
        }
        Ok(timeline)
    }

    pub fn source(&self) -> &Arc<SourceDefinition> {
        &self.source
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
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

    /// Where reading has to start so that the committed plans can run again, and goes on behind them.
    pub fn replay_positions(&self) -> BTreeMap<SplitId, Position> {
        let mut positions = self.positions.clone();
        for plan in self.plans_to_replay.as_slice() {
            for (split, start) in &plan.new_splits {
                positions.entry(split.clone()).or_insert(*start);
            }
        }
        positions
    }

    /// The next committed plan that has to run again before anything new.
    pub fn next_replay(&mut self) -> Option<EpochPlan> {
        self.plans_to_replay.next()
    }

    /// When an operator wants an epoch even if no row comes.
    pub fn wakes_at(&self) -> Option<EventTime> {
        self.views.iter().filter_map(|view| view.chain.wakes_at()).min()
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
                || limits::CHECKPOINT_ROWS <= self.rows_since_checkpoint)
    }

    pub fn is_durable(&self) -> bool {
        self.store.is_some()
    }

    /// Whether a restart would have to run epochs again.
    pub fn has_uncheckpointed_epochs(&self) -> bool {
        self.store.is_some() && self.is_ahead_of_checkpoint
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
            self.watermarks.add_split(split);
        }
        let (slices, new_bad) = self.prepare(plan, input)?;
        let watermark = self.watermarks.end_epoch(&plan.idle_splits, plan.is_last);
        let end = EpochEnd {
            watermark,
            epoch_time: plan.epoch_time,
        };

        let mut changes = Vec::new();
        let mut outputs: Vec<(Vec<Flow>, Watermark)> = Vec::new();
        for view in &mut self.views {
            let mut out = Output::default();
            // A view that holds changes back holds the watermark of those who read it back too.
            let watermark = match &view.upstream {
                Upstream::Source(_) => end.watermark,
                Upstream::View { index, .. } => outputs[*index].1,
            };
            match &view.upstream {
                Upstream::Source(columns) => {
                    for (rows, row_watermarks) in &slices {
                        let rows = rows.project(columns).map_err(bug)?;
                        view.chain.on_delta(
                            Flow {
                                delta: Delta::append(rows),
                                row_watermarks: row_watermarks.clone(),
                            },
                            &mut out,
                        )?;
                    }
                }
                Upstream::View { index, columns } => {
                    for flow in &outputs[*index].0 {
                        let rows = flow.delta.rows.project(columns).map_err(bug)?;
                        view.chain.on_delta(
                            Flow::of(Delta {
                                rows,
                                weights: flow.delta.weights.clone(),
                            }),
                            &mut out,
                        )?;
                    }
                }
            }
            let handed_on = view.chain.on_epoch_end(EpochEnd { watermark, ..end }, &mut out)?;
            let mut applied = Vec::new();
            for flow in &out.flows {
                let change = view.rows.apply(&flow.delta)?;
                applied.push(Arc::new(Change {
                    epoch: plan.number,
                    watermark,
                    added: change.added,
                    removed: change.removed,
                }));
            }
            if !applied.is_empty() {
                let stream = &view.definition.stream;
                let (added, removed, _) = consolidate(&stream.schema, &stream.key, &applied)?;
                changes.push((
                    view.definition.name.clone(),
                    Change {
                        epoch: plan.number,
                        watermark,
                        added,
                        removed,
                    },
                ));
            }
            let mut late_changes = Vec::new();
            for late in out.late {
                let side = view.late.as_mut().expect("only a windowed view has late rows");
                let count = late.rows.num_rows() as u64;
                self.metrics
                    .rows_late_total
                    .with_label_values(&[&view.definition.name])
                    .inc_by(count);
                let rows = late_rows(late, side.schema())?;
                late_changes.push(rows.clone());
                let evicted = side.push(rows);
                self.metrics
                    .rows_evicted_total
                    .with_label_values(&[&format!("{}$late", view.definition.name)])
                    .inc_by(evicted as u64);
            }
            if !late_changes.is_empty() {
                let schema = late_changes[0].schema();
                let added = concat_batches(&schema, &late_changes).map_err(bug)?;
                let removed = RecordBatch::new_empty(schema);
                changes.push((
                    format!("{}$late", view.definition.name),
                    Change {
                        epoch: plan.number,
                        watermark,
                        added,
                        removed,
                    },
                ));
            }
            outputs.push((out.flows, handed_on));
        }
        if !new_bad.is_empty() {
            let added = concat_batches(&bad_schema(), &new_bad).map_err(bug)?;
            let removed = RecordBatch::new_empty(bad_schema());
            changes.push((
                format!("{}$bad", self.source.name),
                Change {
                    epoch: plan.number,
                    watermark,
                    added,
                    removed,
                },
            ));
        }
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
            store.append(&ran.plan)?;
        }
        self.metrics
            .commit_stall_seconds
            .with_label_values(&[&self.source.name])
            .observe(stopwatch.elapsed().as_secs_f64());
        self.metrics.epochs_total.with_label_values(&[&self.source.name]).inc();
        Ok(())
    }

    /// Readers see the epoch. Only after its commit, or in a replay of what was committed.
    pub fn publish(&mut self, ran: Ran) {
        for (view, change) in ran.changes {
            let face = self.shared.views.get(&view).expect("a face for every view");
            face.log.lock().expect("nobody panics while holding it").push(change);
        }
        self.publish_state();
    }

    /// Shows the state as it stands, e.g. what a checkpoint held.
    pub fn publish_state(&self) {
        let mut views: BTreeMap<_, _> = BTreeMap::new();
        let mut late_rows = 0;
        for view in &self.views {
            let name = &view.definition.name;
            views.insert(name.clone(), view.rows.snapshot());
            self.metrics
                .view_rows
                .with_label_values(&[name])
                .set(view.rows.len() as i64);
            if let Some(late) = &view.late {
                views.insert(format!("{name}$late"), late.snapshot());
                late_rows += late.total();
            }
        }
        views.insert(format!("{}$bad", self.source.name), self.bad.snapshot());
        {
            let mut status = self.shared.status.lock().expect("nobody panics while holding it");
            status.rows = self.rows;
            status.bad_rows = self.bad.total();
            status.late_rows = late_rows;
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
            views,
        });
    }

    /// The state after an epoch whose plan says that a checkpoint follows; also in a replay, where it is thrown away:
    /// taking a snapshot merges states anew, and later results must not depend on who did.
    pub fn checkpoint(&mut self) -> Result<Option<(CheckpointWriter, Checkpoint)>> {
        let mut parts = vec![Part {
            name: "bad".into(),
            batches: self.bad.batches(),
        }];
        let mut late_totals = BTreeMap::new();
        for view in &mut self.views {
            let name = &view.definition.name;
            for (index, batches) in view.chain.snapshot()?.into_iter().enumerate() {
                parts.push(Part {
                    name: format!("{name}/operator/{index}"),
                    batches,
                });
            }
            parts.push(Part {
                name: format!("{name}/rows"),
                batches: view.rows.snapshot().batches()?,
            });
            if let Some(late) = &view.late {
                parts.push(Part {
                    name: format!("{name}/late"),
                    batches: late.batches(),
                });
                late_totals.insert(name.clone(), late.total());
            }
            self.metrics
                .state_bytes
                .with_label_values(&[name])
                .set((view.chain.memory_bytes() + view.rows.memory_bytes()) as i64);
        }
        self.rows_since_checkpoint = 0;
        self.is_ahead_of_checkpoint = false;
        let header = Header {
            positions: self.positions.clone(),
            watermarks: self.watermarks.clone(),
            epoch_time: self.epoch_time,
            rows: self.rows,
            bad_total: self.bad.total(),
            late_totals,
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

    fn restore(&mut self, checkpoint: Checkpoint, folder: &Path) -> Result<()> {
        if checkpoint.definition != self.definition {
            return Err(another_definition(folder, &checkpoint.definition, &self.definition));
        }
        let header: Header = serde_json::from_value(checkpoint.header).map_err(|e| {
            Error::state(format!(
                "the checkpoint in {} has another header: {e}",
                folder.display()
            ))
        })?;
        let mut parts: BTreeMap<String, Vec<RecordBatch>> = checkpoint
            .parts
            .into_iter()
            .map(|part| (part.name, part.batches))
            .collect();
        let mut part = |name: String| {
            parts
                .remove(&name)
                .ok_or_else(|| Error::state(format!("the checkpoint in {} has no part {name}", folder.display())))
        };
        self.epoch = checkpoint.epoch;
        self.epoch_time = header.epoch_time;
        self.positions = header.positions;
        self.watermarks = header.watermarks;
        self.rows = header.rows;
        self.bad.restore(part("bad".into())?, header.bad_total);
        for view in &mut self.views {
            let name = &view.definition.name;
            for index in 0..view.chain.len() {
                let state = part(format!("{name}/operator/{index}"))?;
                // A stateless operator has no rows to take up.
                if !state.is_empty() {
                    view.chain.restore(index, state)?;
                }
            }
            view.rows.restore(&part(format!("{name}/rows"))?)?;
            if let Some(late) = &mut view.late {
                late.restore(
                    part(format!("{name}/late"))?,
                    header.late_totals.get(name).copied().unwrap_or_default(),
                );
            }
        }
        for face in self.shared.views.values() {
            *face.log.lock().expect("nobody panics while holding it") = ChangeLog::new(self.epoch);
        }
        Ok(())
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
            let mut rows = join(parts)?;
            assert_eq!(
                (rows.from, rows.to),
                (range.from, range.to),
                "an epoch gets the rows of its plan"
            );
            let position = self.positions.get(&split).copied();
            assert_eq!(position, Some(range.from), "no row is read twice, and none is left out");
            self.positions.insert(split.clone(), range.to);
            let watermarks = self.observe(plan, &split, &mut rows)?;
            new_bad.extend(self.set_aside(&split, &rows)?);
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
        let latest = plan.epoch_time.plus(self.source.event_time_ahead_max).0;
        let times = rows
            .rows
            .column(rule.column)
            .as_primitive::<TimestampNanosecondType>()
            .clone();
        if arrow::compute::max(&times).is_some_and(|max| latest < max) {
            let is_good: BooleanArray = times.values().iter().map(|time| Some(*time <= latest)).collect();
            rows.refuse(&is_good, |row| {
                format!(
                    "event time {} is more than {:?} ahead of now",
                    EventTime(times.value(row)),
                    self.source.event_time_ahead_max
                )
            })?;
        }
        let count = rows.rows.num_rows();
        if let Some(delay_ns) = rule.delay_ns {
            let times = rows.rows.column(rule.column).as_primitive::<TimestampNanosecondType>();
            let mut met: Vec<i64> = times
                .values()
                .iter()
                .map(|time| time.saturating_sub(delay_ns))
                .collect();
            self.watermarks.observe(split, &mut met);
            return Ok(Some(Int64Array::from(met)));
        }
        let complete = rule
            .expression
            .evaluate(&rows.rows)
            .and_then(|value| value.into_array(count))
            .map_err(|e| {
                Error::user(format!(
                    "the watermark of {} cannot be computed: {}",
                    self.source.name,
                    e.strip_backtrace()
                ))
            })?;
        let complete = complete.as_primitive::<TimestampNanosecondType>();
        // A null says nothing about how far the split is.
        let mut met: Vec<i64> = (0..count)
            .map(|row| {
                if complete.is_null(row) {
                    i64::MIN
                } else {
                    complete.value(row)
                }
            })
            .collect();
        self.watermarks.observe(split, &mut met);
        Ok(Some(Int64Array::from(met)))
    }

    fn set_aside(&mut self, split: &SplitId, rows: &SplitRows) -> Result<Option<RecordBatch>> {
        if rows.bad.is_empty() {
            return Ok(None);
        }
        let bad = &rows.bad;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(
                split.as_str(),
                bad.len(),
            ))),
            Arc::new(UInt64Array::from_iter_values(bad.iter().map(|bad| bad.position.0))),
            Arc::new(StringViewArray::from_iter_values(bad.iter().map(|bad| &bad.reason))),
            Arc::new(StringViewArray::from_iter_values(
                bad.iter().map(|bad| String::from_utf8_lossy(&bad.first_bytes)),
            )),
        ];
        let batch = RecordBatch::try_new(Arc::clone(self.bad.schema()), columns).map_err(bug)?;
        self.metrics
            .bad_records_total
            .with_label_values(&[&self.source.name])
            .inc_by(bad.len() as u64);
        let evicted = self.bad.push(batch.clone());
        self.metrics
            .rows_evicted_total
            .with_label_values(&[&format!("{}$bad", self.source.name)])
            .inc_by(evicted as u64);
        Ok(Some(batch))
    }
}

/// Up to where a split is complete once a row is in.
struct WatermarkRule {
    /// The event time, among the needed columns. Never null.
    column: usize,
    expression: Arc<dyn PhysicalExpr>,
    /// The expression is the event time less so many nanoseconds: then it is a subtraction, not calendar arithmetic per row.
    delay_ns: Option<i64>,
}

fn constant_delay(expression: &dyn PhysicalExpr, event_time: usize) -> Option<i64> {
    let is_event_time = |expr: &Arc<dyn PhysicalExpr>| {
        expr.downcast_ref::<Column>()
            .is_some_and(|column| column.index() == event_time)
    };
    if expression
        .downcast_ref::<Column>()
        .is_some_and(|column| column.index() == event_time)
    {
        return Some(0);
    }
    let difference = expression.downcast_ref::<BinaryExpr>()?;
    if *difference.op() != Operator::Minus || !is_event_time(difference.left()) {
        return None;
    }
    match difference.right().downcast_ref::<Literal>()?.value() {
        ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => i64::from(interval.days)
            .checked_mul(86_400_000_000_000)?
            .checked_add(interval.nanoseconds),
        _ => None,
    }
}

/// Rows, and the watermark that each of them met.
type Slice = (RecordBatch, Option<Int64Array>);

/// An epoch that ran and is not committed yet.
pub struct Ran {
    pub plan: EpochPlan,
    changes: Vec<(String, Change)>,
}

/// Consecutive parts of a split as one.
fn join(mut parts: Vec<SplitRows>) -> Result<SplitRows> {
    if parts.len() == 1 {
        return Ok(parts.pop().expect("one"));
    }
    assert!(
        parts.windows(2).all(|pair| pair[0].to == pair[1].from),
        "parts of a split follow each other"
    );
    let schema = parts[0].rows.schema();
    Ok(SplitRows {
        split: parts[0].split.clone(),
        from: parts[0].from,
        to: parts[parts.len() - 1].to,
        rows: concat_batches(&schema, parts.iter().map(|part| &part.rows)).map_err(bug)?,
        positions: parts.iter().flat_map(|part| part.positions.iter().copied()).collect(),
        bad: parts.into_iter().flat_map(|part| part.bad).collect(),
    })
}

fn late_rows(late: LateRows, schema: &SchemaRef) -> Result<RecordBatch> {
    let late_by_ms: Int64Array = late
        .watermarks
        .values()
        .iter()
        .zip(late.window_ends.values())
        .map(|(watermark, end)| Some(watermark.saturating_sub(*end) / 1_000_000))
        .collect();
    let time = |values: &Int64Array| Arc::new(values.reinterpret_cast::<TimestampNanosecondType>()) as ArrayRef;
    let columns = schema
        .fields()
        .iter()
        .map(|field| match field.name().as_str() {
            "window_start" => time(&late.window_starts),
            "window_end" => time(&late.window_ends),
            "late_by_ms" => Arc::new(late_by_ms.clone()),
            name => Arc::clone(
                late.rows
                    .column_by_name(name)
                    .expect("the schema was made of the rows'"),
            ),
        })
        .collect();
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(bug)
}

fn faces(source: &SourceDefinition, views: &[View]) -> BTreeMap<String, ViewFace> {
    let log = || Mutex::new(ChangeLog::new(Epoch(0)));
    let mut faces = BTreeMap::new();
    for view in views {
        let stream = &view.definition.stream;
        let face = ViewFace {
            schema: Arc::clone(&stream.schema),
            key: stream.key.clone(),
            time: stream.time,
            log: log(),
        };
        faces.insert(view.definition.name.clone(), face);
        if let Some(late) = &view.late {
            let schema = Arc::clone(late.schema());
            let time = schema.index_of("window_start").ok();
            faces.insert(
                format!("{}$late", view.definition.name),
                ViewFace {
                    schema,
                    key: vec![],
                    time,
                    log: log(),
                },
            );
        }
    }
    faces.insert(
        format!("{}$bad", source.name),
        ViewFace {
            schema: bad_schema(),
            key: vec![],
            time: None,
            log: log(),
        },
    );
    faces
}

/// What the state depends on: everything but addresses and timing.
fn fingerprint(source: &SourceDefinition, views: &[View]) -> String {
    let mut lines = vec![format!("source {} ({})", source.name, source.connector)];
    for field in source.schema.fields() {
        lines.push(format!(
            "  {} {}{}",
            field.name(),
            field.data_type(),
            if field.is_nullable() { "" } else { " not null" }
        ));
    }
    for name in ["topic", "path"] {
        lines.extend(
            source
                .connector_options
                .get(name)
                .map(|value| format!("  {name} = {value}")),
        );
    }
    lines.push(format!(
        "  format {} {:?}",
        source.format,
        source.format_options.iter().collect::<Vec<_>>()
    ));
    lines.extend(
        source
            .watermark
            .as_ref()
            .map(|watermark| format!("  watermark {}", watermark.text)),
    );
    for view in views {
        let sql = view.definition.sql.split_whitespace().collect::<Vec<_>>().join(" ");
        lines.push(format!("view {}: {sql}", view.definition.name));
    }
    lines.join("\n")
}

fn another_definition(folder: &Path, before: &str, now: &str) -> Error {
    Error::user(format!(
        "the state in {} was made by another definition:\n{}\nput the definition back, choose another folder with --state, or start over with --reset",
        folder.display(),
        difference(before, now)
    ))
}

/// Lines that are in one and not in the other.
fn difference(before: &str, now: &str) -> String {
    let gone = before
        .lines()
        .filter(|line| !now.lines().any(|other| other == *line))
        .map(|line| format!("  - {line}"));
    let new = now
        .lines()
        .filter(|line| !before.lines().any(|other| other == *line))
        .map(|line| format!("  + {line}"));
    gone.chain(new).collect::<Vec<_>>().join("\n")
}

fn bug(error: arrow::error::ArrowError) -> Error {
    Error::bug(error.to_string())
}
