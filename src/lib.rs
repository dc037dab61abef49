//! Zeta keeps SQL views over Kafka topics up to date, beside historical Parquet tables.
//!
//! ```text
//!  sql/*.sql ─▶ sql ─▶ plan ──────────────┬─────────────▶ query (stock DataFusion: history + views)
//!               text    LogicalPlan       │ Dataflow
//!               + spans                   ▼
//!  kafka ─┐                        ┌──── runtime: one epoch after another ───┐
//!  hdfs  ─┼▶ connector ─▶ format ─▶│ decode ▸ watermark ▸ operators ▸ deltas ├─▶ view ─▶ serve ─▶ browser
//!  replay ┘    bytes       rows    └──── journal + checkpoint (state) ───────┘
//! ```
//!
//! A stream is a sequence of epochs, and an epoch is a pure function of the state and its plan. `ARCHITECTURE.md` tells the rest.
//! Imports point down this list only; `tests/it/architecture.rs` holds the wall.
#![warn(clippy::disallowed_methods)]

pub mod types;

pub mod remote;

pub mod connector;
pub mod format;
pub mod function;
pub mod operator;
pub mod sql;
pub mod state;
pub mod view;

pub mod plan;

pub mod runtime;

pub mod serve;

pub mod cli;
