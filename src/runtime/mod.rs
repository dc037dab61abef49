//! The epoch loop and everything that touches tasks, threads and time.

pub mod clock;
mod engine;
mod face;
mod metrics;

pub use engine::{Engine, ViewReader};
pub use face::*;
pub use metrics::Metrics;
