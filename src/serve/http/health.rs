//! Is it alive, is it ready, and its numbers.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    runtime::{SourceState, SourceStatus},
    serve::{App, dto},
};

pub async fn livez() -> &'static str {
    "ok"
}

/// Ready while every source runs or has come to its end.
pub async fn readyz(State(app): State<Arc<App>>) -> Response {
    let checks: Vec<_> = app.engine.sources().iter().map(check).collect();
    let ready = !app.closing.is_cancelled() && checks.iter().all(|check| check.ok);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        [(header::CACHE_CONTROL, "no-store")],
        Json(dto::Ready { ready, checks }),
    )
        .into_response()
}

pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        app.engine.metrics().text(),
    )
        .into_response()
}

fn check(source: &SourceStatus) -> dto::Check {
    dto::Check {
        name: format!("source {}", source.name),
        ok: matches!(source.state, SourceState::Running | SourceState::Finished),
        detail: match &source.reason {
            Some(reason) => format!("{}: {reason}", source.state),
            None => source.state.to_string(),
        },
    }
}
