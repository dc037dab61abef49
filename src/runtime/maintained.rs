//! One materialized view of a timeline: its operators, its rows, and what an epoch does to them.
//!
//! ```text
//! slices of the source, or ─▶ operators ─┬─▶ rows ─▶ what changed
//! flows of another view                  └─▶ late rows, and rows that cannot be computed, set aside
//! ```

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use arrow::{
    array::{AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions},
    compute::filter_record_batch,
    datatypes::{FieldRef, Schema, SchemaRef},
};

use crate::{
    operator::{
        Dataflow, EpochEnd, FailedRows, Figures, Flow, LateRows, OpenWindows, Operator, Output, Segment,
        Step as SegmentStep,
    },
    plan::{
        Input, MaterializedDefinition, OperatorTakeover, RowsFrom, StreamPlan, Takeover, errors_schema, late_schema,
    },
    state::Part,
    types::{Delta, Epoch, Error, EventTime, Result, Saved, Watermark, limits},
    view::{Change, ChangeLog, Rows, RowsSnapshot, consolidate},
};

use super::{
    Bounds, Metrics,
    shared::ViewFace,
    side_output::{SideOutput, failed_rows, late_rows},
};

/// Rows of a source, and the watermark that each of them met.
pub type Slice = (RecordBatch, Option<Int64Array>);

pub struct MaintainedView {
    definition: Arc<MaterializedDefinition>,
    dataflow: Dataflow,
    inputs: Vec<Upstream>,
    rows: Rows,
    rows_max: usize,
    state_bytes_max: usize,
    figures: Vec<Figures>,
    rows_measured: u64,
    rows_since_measured: u64,
    epochs_since_measured: u64,
    late: Option<SideOutput>,
    /// What it handed on is complete up to here.
    handed_on: Watermark,
    /// A table computes nothing.
    errors: Option<SideOutput>,
}

/// Where rows come from: columns of the decoded rows, or the output of another view of the source.
enum Upstream {
    Source(Vec<usize>),
    View { index: usize, columns: Vec<usize> },
}

/// What an epoch did to one view.
pub struct Step {
    /// By view or side output, for those who follow it.
    pub changes: Vec<(String, Change)>,
    /// What a view over this one reads.
    flows: Vec<Flow>,
    handed_on: Watermark,
}

impl Step {
    /// Of a view that takes no part.
    pub fn nothing() -> Self {
        Self {
            changes: Vec::new(),
            flows: Vec::new(),
            handed_on: Watermark::START,
        }
    }

    /// Nobody takes its rows yet, and nothing is said of them.
    pub fn without_flows(self) -> Self {
        Self::nothing()
    }
}

impl MaintainedView {
    /// `needed` are the columns of the source that are decoded, ascending; `before` the views that this one may read.
    pub fn new(
        definition: Arc<MaterializedDefinition>,
        needed: &[usize],
        before: &[Self],
        bounds: &Bounds,
    ) -> Result<Self> {
        let stream = &definition.stream;
        let upstream = |input: &Input| match input.is_source {
            true => Upstream::Source(
                input
                    .columns
                    .iter()
                    .map(|column| needed.binary_search(column).expect("what a view reads is needed"))
                    .collect(),
            ),
            false => Upstream::View {
                index: before
                    .iter()
                    .position(|view| view.definition.name == input.relation)
                    .expect("created before"),
                columns: input.columns.clone(),
            },
        };
        let late = stream
            .late_rows
            .as_ref()
            .map(|rows| SideOutput::new(format!("{}$late", definition.name), late_schema(rows)));
        let errors =
            (!stream.is_table()).then(|| SideOutput::new(format!("{}$errors", definition.name), errors_schema()));
        Ok(Self {
            dataflow: stream.operators()?,
            inputs: stream.inputs.iter().map(upstream).collect(),
            rows: Rows::new(Arc::clone(&stream.schema), stream.key.clone(), stream.is_append_only)?,
            rows_max: bounds.view_rows_max,
            state_bytes_max: bounds.operator_state_bytes_max,
            figures: Vec::new(),
            rows_measured: 0,
            rows_since_measured: 0,
            epochs_since_measured: 0,
            late,
            handed_on: Watermark::START,
            errors,
            definition,
        })
    }

    pub fn definition(&self) -> &Arc<MaterializedDefinition> {
        &self.definition
    }

    pub fn name(&self) -> &str {
        &self.definition.name
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn reads_source(&self) -> bool {
        self.inputs.iter().any(|input| matches!(input, Upstream::Source(_)))
    }

    /// Whether it reads one of `before` that has one of these names.
    pub fn reads_any_of(&self, before: &[Self], names: &BTreeSet<String>) -> bool {
        self.inputs.iter().any(|input| match input {
            Upstream::View { index, .. } => names.contains(before[*index].name()),
            Upstream::Source(_) => false,
        })
    }

    /// The view at this index, which it does not read, is gone: those behind it stand one earlier.
    pub fn move_inputs_up(&mut self, gone: usize) {
        for input in &mut self.inputs {
            if let Upstream::View { index, .. } = input
                && gone < *index
            {
                *index -= 1;
            }
        }
    }

    pub fn late(&self) -> Option<&SideOutput> {
        self.late.as_ref()
    }

    pub fn errors(&self) -> Option<&SideOutput> {
        self.errors.as_ref()
    }

    pub fn side_outputs(&self) -> impl Iterator<Item = &SideOutput> {
        self.late.iter().chain(&self.errors)
    }

    pub fn snapshot(&self) -> RowsSnapshot {
        self.rows.snapshot()
    }

    pub fn wakes_at(&self) -> Option<EventTime> {
        self.dataflow.wakes_at()
    }

    pub fn watermark(&self) -> Watermark {
        self.handed_on
    }

    /// Takes up what [`watermark`](Self::watermark) gave.
    pub fn restore_watermark(&mut self, watermark: Watermark) {
        self.handed_on = watermark;
    }

    /// Its open windows by the watermark of the source; `before` are the views that it may read.
    pub fn open_windows(&self, before: &[Self]) -> Option<OpenWindows> {
        self.dataflow
            .open_windows(&|input, watermark| self.source_watermark(input, watermark, before))
    }

    /// The lowest watermark of the source with which an input is complete up to `watermark`.
    fn source_watermark(&self, input: usize, watermark: Watermark, before: &[Self]) -> Option<Watermark> {
        let Upstream::View { index, .. } = self.inputs[input] else {
            return Some(watermark);
        };
        let view = &before[index];
        let of_input = |input, watermark| view.source_watermark(input, watermark, before);
        view.dataflow.source_watermark_of_result(watermark, &of_input)
    }

    /// Of its operators, as they were last measured, and of its rows.
    pub fn memory_bytes(&self) -> usize {
        let operators: usize = self.figures.iter().map(|figures| figures.state_bytes).sum();
        operators + self.rows.memory_bytes()
    }

    /// Of each operator, in the order of the dataflow, as last measured.
    pub fn figures(&self) -> &[Figures] {
        &self.figures
    }

    /// Looks what the operators hold.
    ///
    /// # Errors
    /// [`Error::User`] where one of them holds more than it may.
    fn measure(&mut self) -> Result<()> {
        self.figures = self.dataflow.figures();
        self.rows_measured += self.rows_since_measured;
        (self.rows_since_measured, self.epochs_since_measured) = (0, 0);
        let over = self
            .figures
            .iter()
            .position(|figures| self.state_bytes_max < figures.state_bytes);
        let Some(index) = over else {
            return Ok(());
        };
        Err(Error::user(format!(
            "view `{}`: its operator {} ({}) holds {} MB, and {} MB are the most that one may hold; let it hold fewer groups or rows, \
             e.g. by shorter windows, fewer columns in GROUP BY or a filter in WHERE, and start again with --reset",
            self.definition.name,
            index + 1,
            self.definition.stream.nodes[index].stage.title(),
            self.figures[index].state_bytes >> 20,
            self.state_bytes_max >> 20,
        )))
    }

    pub fn face(&self) -> ViewFace {
        let stream = &self.definition.stream;
        ViewFace {
            schema: Arc::clone(&stream.schema),
            key: stream.key.clone(),
            time: stream.time,
            log: Mutex::new(ChangeLog::new(Epoch(0))),
        }
    }

    /// One epoch on the slices of the source, or on what the views `before` did in it.
    ///
    /// # Errors
    /// Among others [`Error::User`] where the view would hold more rows than a view may. After an error it is half an epoch ahead.
    pub fn step(
        &mut self,
        epoch: Epoch,
        end: EpochEnd,
        slices: &[Slice],
        before: &[Step],
        metrics: &Metrics,
    ) -> Result<Step> {
        // A view that holds changes back holds the watermark of those who read it back too.
        let watermarks: Vec<Watermark> = self
            .inputs
            .iter()
            .map(|input| match input {
                Upstream::Source(_) => end.watermark,
                Upstream::View { index, .. } => before[*index].handed_on,
            })
            .collect();
        let mut out = Output::default();
        self.feed(slices, before, &mut out)?;
        let handed_on = self.dataflow.on_epoch_end(&watermarks, end.epoch_time, &mut out)?;
        self.handed_on = handed_on;
        self.epochs_since_measured += 1;
        // Measuring takes as long as the state is large, and the state is no larger than the rows were many.
        let rows_until_due = (self.rows_measured / 4).min(limits::MEASURE_ROWS);
        if limits::MEASURE_EPOCHS <= self.epochs_since_measured || rows_until_due <= self.rows_since_measured {
            self.measure()?;
        } else {
            self.dataflow.count(&mut self.figures);
        }
        let mut changes = Vec::new();
        // What is handed on is final up to there, and not always up to where the source is.
        changes.extend(self.apply(&out.flows, epoch, handed_on)?);
        changes.extend(self.set_aside(out.late, epoch, handed_on, metrics)?);
        changes.extend(self.keep_failed(&out.failed, epoch, handed_on, metrics)?);
        Ok(Step {
            changes,
            flows: out.flows,
            handed_on,
        })
    }

    /// Takes up what the views `before` hold, as if all of it had come at once and in time. For one that was made after them.
    pub fn take_up(&mut self, before: &[Self], epoch: Epoch, epoch_time: EventTime, metrics: &Metrics) -> Result<()> {
        let end = EpochEnd {
            watermark: Watermark::START,
            epoch_time,
        };
        self.take_up_at(before, epoch, end, metrics)
    }

    /// As [`take_up`](Self::take_up), where the source is complete up to the watermark of `end`.
    pub fn take_up_at(&mut self, before: &[Self], epoch: Epoch, end: EpochEnd, metrics: &Metrics) -> Result<()> {
        let is_read = |index: usize| {
            let reads = |input: &Upstream| matches!(input, Upstream::View { index: read, .. } if *read == index);
            self.inputs.iter().any(reads)
        };
        let steps = (before.iter().enumerate())
            .map(|(index, view)| view.as_step(is_read(index)))
            .collect::<Result<Vec<_>>>()?;
        self.step(epoch, end, &[], &steps, metrics).map(drop)
    }

    /// All its rows, where those are wanted, as what one epoch handed on.
    fn as_step(&self, with_rows: bool) -> Result<Step> {
        let mut flows = Vec::new();
        let batches = match with_rows {
            true => self.rows.snapshot().batches()?,
            false => Vec::new(),
        };
        for rows in batches {
            for from in (0..rows.num_rows()).step_by(limits::CHUNK_ROWS) {
                let length = limits::CHUNK_ROWS.min(rows.num_rows() - from);
                flows.push(Flow::of(Delta::append(rows.slice(from, length))));
            }
        }
        Ok(Step {
            changes: Vec::new(),
            flows,
            handed_on: self.handed_on,
        })
    }

    /// Hands its input to the operators.
    fn feed(&mut self, slices: &[Slice], before: &[Step], out: &mut Output) -> Result<()> {
        for (input, upstream) in self.inputs.iter().enumerate() {
            match upstream {
                Upstream::Source(columns) => {
                    for (rows, row_watermarks) in slices {
                        self.rows_since_measured += rows.num_rows() as u64;
                        let flow = Flow {
                            delta: Delta::append(rows.project(columns).map_err(Error::of_arrow)?),
                            row_watermarks: row_watermarks.clone(),
                        };
                        self.dataflow.on_delta(input, flow, out)?;
                    }
                }
                Upstream::View { index, columns } => {
                    for flow in &before[*index].flows {
                        self.rows_since_measured += flow.delta.rows.num_rows() as u64;
                        let delta = Delta {
                            rows: flow.delta.rows.project(columns).map_err(Error::of_arrow)?,
                            weights: flow.delta.weights.clone(),
                        };
                        let row_watermarks = flow.row_watermarks.clone();
                        self.dataflow.on_delta(input, Flow { delta, row_watermarks }, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Applies what the operators handed on, and says what changed of it all.
    fn apply(&mut self, flows: &[Flow], epoch: Epoch, watermark: Watermark) -> Result<Option<(String, Change)>> {
        let mut applied = Vec::new();
        for flow in flows {
            let change = self.rows.apply(&flow.delta)?;
            applied.push(Arc::new(Change {
                epoch,
                watermark,
                added: change.added,
                removed: change.removed,
            }));
        }
        if applied.is_empty() {
            return Ok(None);
        }
        if self.rows_max < self.rows.len() {
            return Err(Error::user(format!(
                "view `{}` would hold {} rows, and {} are the most that a view may hold; let it hold fewer, \
                 e.g. by an aggregate over a longer window, fewer columns in GROUP BY or a filter in WHERE, and start again with --reset",
                self.definition.name,
                self.rows.len(),
                self.rows_max
            )));
        }
        let stream = &self.definition.stream;
        let (added, removed, _) = consolidate(&stream.schema, &stream.key, &applied)?;
        let change = Change {
            epoch,
            watermark,
            added,
            removed,
        };
        Ok(Some((self.definition.name.clone(), change)))
    }

    /// Keeps rows that came after their window had closed.
    fn set_aside(
        &mut self,
        late: Vec<LateRows>,
        epoch: Epoch,
        watermark: Watermark,
        metrics: &Metrics,
    ) -> Result<Option<(String, Change)>> {
        if late.is_empty() {
            return Ok(None);
        }
        let side = self.late.as_mut().expect("only a windowed view has late rows");
        let mut batches = Vec::new();
        for late in late {
            metrics
                .rows_late_total
                .with_label_values(&[&self.definition.name])
                .inc_by(late.rows.num_rows() as u64);
            batches.push(late_rows(late, side.schema())?);
        }
        side.push(batches, epoch, watermark, metrics)
    }

    /// Keeps what could not be computed.
    fn keep_failed(
        &mut self,
        failed: &[FailedRows],
        epoch: Epoch,
        watermark: Watermark,
        metrics: &Metrics,
    ) -> Result<Option<(String, Change)>> {
        if failed.is_empty() {
            return Ok(None);
        }
        let side = self.errors.as_mut().expect("a table computes nothing");
        let batches: Vec<RecordBatch> = failed
            .iter()
            .map(|failed| failed_rows(failed, epoch))
            .collect::<Result<_>>()?;
        metrics
            .rows_failed_total
            .with_label_values(&[&self.definition.name])
            .inc_by(batches.iter().map(RecordBatch::num_rows).sum::<usize>() as u64);
        side.push(batches, epoch, watermark, metrics)
    }

    /// All of it for a checkpoint. Taking it merges partial results.
    pub fn save(&mut self) -> Result<Vec<Part>> {
        self.measure()?;
        let name = &self.definition.name;
        let mut parts = Vec::new();
        for (index, rows) in self.dataflow.snapshot()?.into_iter().enumerate() {
            parts.push(Part {
                name: format!("{name}/operator/{index}"),
                rows,
            });
        }
        let rows = self.rows.snapshot();
        parts.push(Part {
            name: format!("{name}/rows"),
            rows: Saved::later(move || rows.batches()),
        });
        let sides = [("late", &self.late), ("errors", &self.errors)];
        parts.extend(sides.into_iter().filter_map(|(kind, side)| {
            side.as_ref().map(|side| Part {
                name: format!("{name}/{kind}"),
                rows: Saved::now(side.batches()),
            })
        }));
        Ok(parts)
    }

    /// Takes up what [`save`](Self::save) gave: `part` hands out its parts by name. Returns whether it may have other rows than before
    /// though the same pass: because something of them cannot be computed any more, or did not have to be.
    pub fn restore(
        &mut self,
        mut part: impl FnMut(String) -> Result<Vec<RecordBatch>>,
        takeover: &Takeover,
        (late_total, failed_total): (u64, u64),
        epoch: Epoch,
        metrics: &Metrics,
    ) -> Result<bool> {
        let name = self.definition.name.clone();
        let stream = &self.definition.stream;
        let mut states = Vec::new();
        for operator in &takeover.operators {
            let state = part(format!("{name}/operator/{}", operator.before))?;
            let state = fitting_state(state, operator, stream)?;
            // A stateless operator has no rows to take up.
            if !state.is_empty() {
                self.dataflow.restore(operator.now, state.clone())?;
                states.push((operator.now, state));
            }
        }
        if let Some(errors) = &mut self.errors {
            errors.restore(part(format!("{name}/errors"))?, failed_total);
        }
        if let Some(late) = &mut self.late {
            let rows = part(format!("{name}/late"))?;
            match takeover.keeps_late {
                true => late.restore(named_as(late.schema(), rows)?, late_total),
                false => late.restore(Vec::new(), late_total),
            }
        }
        let rows = part(format!("{name}/rows"))?;
        let mut out = Output::default();
        match &takeover.rows {
            RowsFrom::Before => self.rows.restore(&named_as(&stream.schema, rows)?)?,
            RowsFrom::Computed { filter, columns } => {
                let mut steps: Vec<_> = filter.iter().cloned().map(SegmentStep::Filter).collect();
                steps.push(SegmentStep::Project {
                    columns: columns.clone(),
                    schema: Arc::clone(&stream.schema),
                });
                let mut segment = Segment::new(steps);
                for rows in rows {
                    segment.on_delta(Flow::of(Delta::append(rows)), &mut out)?;
                }
            }
            RowsFrom::State => {
                let mut dataflow = stream.operators()?;
                for (operator, state) in states {
                    dataflow.restore(operator, state)?;
                }
                let is_all = dataflow.hand_on_all(&mut out)?;
                assert!(is_all, "the state of `{name}` was said to hold its rows");
            }
        }
        for flow in &out.flows {
            self.rows.apply(&flow.delta)?;
        }
        let mut failed = out.failed;
        let mut has_other_rows = !failed.is_empty();
        if matches!(takeover.rows, RowsFrom::State) {
            has_other_rows |= 0 < failed_total;
            let told = self.errors.as_ref().map(SideOutput::batches).unwrap_or_default();
            failed = untold(failed, &told)?;
        }
        drop(self.keep_failed(&failed, epoch, self.handed_on, metrics)?);
        Ok(has_other_rows)
    }
}

/// Those of `failed` that are not among the rows of `$errors` that were `told`: a state that is handed on again fails again.
fn untold(failed: Vec<FailedRows>, told: &[RecordBatch]) -> Result<Vec<FailedRows>> {
    let lines = |rows: &RecordBatch| -> Vec<[String; 3]> {
        let [operators, reasons, texts] = [0, 1, 2].map(|column| rows.column(column).as_string_view());
        let line = |row| [operators, reasons, texts].map(|column| column.value(row).to_owned());
        (0..rows.num_rows()).map(line).collect()
    };
    let told: BTreeSet<[String; 3]> = told.iter().flat_map(lines).collect();
    let mut new = Vec::new();
    for failed in failed {
        let lines = lines(&failed_rows(&failed, Epoch(0))?);
        let is_new: Vec<bool> = lines.iter().map(|line| !told.contains(line)).collect();
        let reasons = failed.reasons.into_iter().zip(&is_new);
        let reasons: Vec<String> = reasons
            .filter(|(_, is_new)| **is_new)
            .map(|(reason, _)| reason)
            .collect();
        if !reasons.is_empty() {
            new.push(FailedRows {
                rows: filter_record_batch(&failed.rows, &BooleanArray::from(is_new)).map_err(Error::of_arrow)?,
                reasons,
                operator: failed.operator,
            });
        }
    }
    Ok(new)
}

/// The state of an operator as it is planned now.
fn fitting_state(
    mut state: Vec<RecordBatch>,
    operator: &OperatorTakeover,
    stream: &StreamPlan,
) -> Result<Vec<RecordBatch>> {
    if let (Some(columns), Some(schema)) = (&operator.columns, state.last().map(RecordBatch::schema)) {
        // What stands before the rows of groups has other columns.
        for rows in state.iter_mut().filter(|rows| rows.schema() == schema) {
            *rows = rows.project(columns).map_err(Error::of_arrow)?;
        }
    }
    // Rows that wait are handed on under their names.
    let Some(schema) = stream.waiting_rows(operator.now) else {
        return Ok(state);
    };
    let mut fitting = Vec::new();
    for (index, batch) in state.into_iter().enumerate() {
        if index == 0 {
            fitting.push(batch);
            continue;
        }
        let weights = batch.schema().fields().last().cloned();
        let fields: Vec<FieldRef> = schema.fields().iter().cloned().chain(weights).collect();
        fitting.extend(named_as(&Arc::new(Schema::new(fields)), vec![batch])?);
    }
    Ok(fitting)
}

/// The same rows under the names of now.
fn named_as(schema: &SchemaRef, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let named = rows.into_iter().map(|rows| {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(schema), rows.columns().to_vec(), &options)
            .map_err(|e| Error::state(format!("rows of the state are not what their definition says: {e}")))
    });
    named.collect()
}
