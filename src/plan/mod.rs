//! What statements mean: names bound, types checked, queries turned into dataflows (streams) or left to DataFusion (batch).
//!
//! ```text
//! Statement ─▶ Binder ─▶ Catalog { sources, tables, views }
//!                 └─ LogicalPlan ─┬─▶ StreamPlan (operators, state, keys, watermarks)    for materialized views
//!                                 └─▶ stock DataFusion                                   for everything else
//! ```
//! One LogicalPlan has one meaning; nothing is executed here.

mod assignment;
mod binder;
mod catalog;
mod checked;
mod columns;
mod dataflow;
mod diff;
mod function;
mod function_call;
mod mistakes;
mod options;
mod registry;
mod session;
mod sink;
mod stream;
mod table;
mod tables;
mod unfolded;
mod watermark;
mod window;
mod window_call;

pub use assignment::takes;
pub use binder::{Binder, Bound, Write};
pub use catalog::{
    Catalog, ExternalDefinition, MaterializedDefinition, OF_LATENESS, Relation, SinkDefinition, SourceDefinition,
    TableDefinition, Trigger, ViewDefinition, WatermarkDefinition, bad_schema, errors_schema, late_schema,
};
pub use dataflow::{analyze, explain};
pub use diff::{Change, OperatorTakeover, Outlines, RowsFrom, Shapes, Takeover, Verdict, ViewShape, changes_of};
pub use function::{FunctionDefinition, functions_of};
pub use options::{SINK_OPTIONS, SOURCE_OPTIONS, VIEW_OPTIONS};
pub use registry::{
    ConnectorSpec, ExternalFuture, FieldSpec, FormatSpec, MakeSink, MakeSource, OpenExternal, OpenSink, Registry,
    SinkSpec,
};
pub use session::{StreamRelation, base_session, query_session, session_over};
pub use stream::{Input, StreamPlan, replace_scan};
pub use tables::Tables;
pub use window::LowerWindows;
