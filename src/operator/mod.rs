//! Operators keep results up to date: deltas in, deltas out.
//!
//! ```text
//! rows of a split ─▶ watermark ─▶ segment (filter, project, window) ─▶ window_aggregate | group_aggregate ─▶ segment ─▶ view
//!                       └ row watermarks decide what is late
//! ```
//! Synchronous and deterministic: no I/O, no clock, no threads. Run twice, they give the same bytes.

mod aggregation;
mod dataflow;
mod emit;
mod failure;
mod group_aggregate;
mod map_watermark;
mod merging;
mod open_windows;
mod ordered_value;
mod panes;
mod pending;
mod recompute;
mod segment;
mod session_aggregate;
mod state_table;
mod stragglers;
mod temporal_filter;
mod upsert;
mod watermark;
mod window_aggregate;

use arrow::array::{Int64Array, RecordBatch};

use crate::types::{Delta, EventTime, Result, Saved, Watermark};

pub use aggregation::{Aggregation, FilteredFunction};
pub use dataflow::{Dataflow, Feed, Figures};
pub use emit::{EmitEvery, WindowCloseGate};
pub use failure::FailedRows;
pub use group_aggregate::GroupAggregate;
pub use map_watermark::{MapWatermark, Mapping};
pub use open_windows::OpenWindows;
pub use recompute::{ClosedBy, RecomputeAggregate};
pub use segment::{Segment, Step};
pub use session_aggregate::SessionAggregate;
pub use temporal_filter::{IntervalEnd, TemporalFilter, TimeBound};
pub use upsert::Upsert;
pub use watermark::SplitWatermarks;
pub use window_aggregate::{Assignment, Emission, OutputColumn, WindowAggregate, WindowResult};

/// A delta on its way through a dataflow.
#[derive(Clone, Debug)]
pub struct Flow {
    pub delta: Delta,
    /// Per row, how far its own split was complete before it, in nanoseconds; decides what is late.
    /// `None` behind an aggregate, where lateness was decided already.
    pub row_watermarks: Option<Int64Array>,
}

impl Flow {
    pub fn of(delta: Delta) -> Self {
        Self {
            delta,
            row_watermarks: None,
        }
    }
}

/// What ends an epoch.
#[derive(Clone, Copy, Debug)]
pub struct EpochEnd {
    /// Never before that of the epoch before.
    pub watermark: Watermark,
    pub epoch_time: EventTime,
}

/// What an operator hands on.
#[derive(Debug, Default)]
pub struct Output {
    pub flows: Vec<Flow>,
    pub late: Vec<LateRows>,
    /// Rows whose values could not be computed.
    pub failed: Vec<FailedRows>,
}

/// Rows whose window had closed when they came.
#[derive(Debug)]
pub struct LateRows {
    /// The rows as the aggregate's input had them.
    pub rows: RecordBatch,
    pub window_starts: Int64Array,
    pub window_ends: Int64Array,
    /// How far their splits were, per row: the row came `watermark - window_end` too late.
    pub watermarks: Int64Array,
}

impl Output {
    pub fn push(&mut self, flow: Flow) {
        if !flow.delta.is_empty() {
            self.flows.push(flow);
        }
    }
}

/// A part of a dataflow with state.
pub trait Operator: Send {
    /// Takes a delta in. What comes out may come now or at the end of the epoch.
    fn on_delta(&mut self, flow: Flow, out: &mut Output) -> Result<()>;

    /// Hands a further part of the last delta on; `false` where nothing of it is left. Called after `on_delta` until it says so, each
    /// time when the operators behind have taken what came before: rows that become many are never there all at once.
    fn go_on(&mut self, _out: &mut Output) -> Result<bool> {
        Ok(false)
    }

    /// Called once at the end of every epoch, after all its deltas. Returns the watermark that holds for what was handed on.
    fn on_epoch_end(&mut self, end: EpochEnd, out: &mut Output) -> Result<Watermark>;

    /// When this operator wants an epoch even if no row comes.
    fn wakes_at(&self) -> Option<EventTime> {
        None
    }

    /// The windows that it has not closed, by the watermark at its input; `None` where it has none or closes none. Between epochs only.
    fn open_windows(&self) -> Option<OpenWindows> {
        None
    }

    /// The lowest watermark at its input with which it hands on `watermark` or more; `None` where only the end of the input does that.
    fn input_watermark(&self, watermark: Watermark) -> Option<Watermark> {
        Some(watermark)
    }

    /// Hands on all that it ever handed on and that holds, where its state tells that; `false` where it does not.
    fn hand_on_all(&mut self, _out: &mut Output) -> Result<bool> {
        Ok(false)
    }

    /// The whole state as it is now; its rows are the last batches, of one schema, also where there is none. Called between epochs only; later results are the same whether or not a snapshot was taken, as long
    /// as a replay takes it at the same epochs.
    fn snapshot(&mut self) -> Result<Saved>;

    /// Takes up what `snapshot` gave, into a fresh operator.
    fn restore(&mut self, state: Vec<RecordBatch>) -> Result<()>;

    fn memory_bytes(&self) -> usize;
}
