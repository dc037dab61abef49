//! How the sources are doing.

use std::sync::Arc;

use axum::{Json, extract::State, http::header, response::IntoResponse};

use crate::{
    runtime::{SourceStatus, SplitStatus},
    serve::{App, dto},
};

pub async fn list(State(app): State<Arc<App>>) -> impl IntoResponse {
    let sources = app.engine.sources().into_iter().map(source).collect();
    ([(header::CACHE_CONTROL, "no-store")], Json(dto::Sources { sources }))
}

fn source(status: SourceStatus) -> dto::Source {
    dto::Source {
        name: status.name,
        connector: status.connector,
        state: status.state.to_string(),
        reason: status.reason,
        rows: status.rows,
        bad_rows: status.bad_rows,
        late_rows: status.late_rows,
        epoch: status.epoch.0,
        watermark: status.watermark.time().map(|time| time.to_string()),
        splits: status.splits.into_iter().map(split).collect(),
    }
}

fn split(status: SplitStatus) -> dto::Split {
    dto::Split {
        split: status.split.to_string(),
        position: status.position.0,
        end: status.end.0,
        // The end may be older news than the position.
        lag: status.end.0.saturating_sub(status.position.0),
        watermark: status.watermark.time().map(|time| time.to_string()),
        idle: status.is_idle,
    }
}
