//! HTTP and WebSocket over a running engine: `docs/api.md`, word for word.
//!
//! ```text
//!                  ┌─ http/sql ────────┐   Answer                ┌─ JSON, once ─────────────────▶
//!  connections ──▶ ├─ http/views ──────┤ ─────────▶ negotiate ───┤  json_rows
//!  (own limits)    ├─ http/sources ────┤  Engine                 └─ NDJSON, CSV, Arrow, in steps ▶
//!                  ├─ static_files     │
//!                  └─ ws ── feed ──────┘ ViewReader ─▶ snapshot, deltas ─▶ JSON text frames ──────▶
//! ```
//! Nothing here plans or computes a result, and no reader, however slow, is waited for by the engine.

mod connections;
mod dto;
mod feed;
mod filter;
mod http;
mod json_rows;
mod negotiate;
mod origin;
mod panel;
mod params;
mod problem;
mod static_files;
mod token;
mod ws;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{self, Next},
    response::Response,
    routing::{any, get},
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::compression::CompressionLayer;
use tracing::{info, warn};

use crate::{
    runtime::{Engine, clock::Stopwatch},
    types::{Error, Result, limits},
};

/// The same policy as in front, where nginx serves the dashboard: nothing from elsewhere, no script in the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    connect-src 'self' ws: wss:; img-src 'self' data:; frame-ancestors 'none'";

#[derive(Clone, Debug)]
pub struct ServeOptions {
    pub listen: SocketAddr,
    /// Origins besides our own whose pages may open WebSockets and run statements, as a browser names them: `https://charts.example`.
    pub allowed_origins: Vec<String>,
}

/// Takes the address that [`serve`] answers on.
///
/// # Errors
/// [`Error::User`] where it is taken or not ours.
pub async fn bind(options: &ServeOptions) -> Result<TcpListener> {
    let listener = TcpListener::bind(options.listen).await;
    listener.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            let address = options.listen;
            Error::user(format!(
                "cannot listen on {address}: another process does; stop it, or choose another address with --listen"
            ))
        }
        _ => Error::user(format!("cannot listen on {}: {error}", options.listen)),
    })
}

/// Answers until `shutdown` or until the engine stops; then sockets are told to come back, and answers under way get a few seconds.
///
/// # Errors
/// None yet: what fails, fails for one connection.
pub async fn serve(
    engine: Engine,
    options: ServeOptions,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<()> {
    let closing = shutdown.child_token();
    let tasks = TaskTracker::new();
    let app = Arc::new(App {
        engine: engine.clone(),
        allowed_origins: options.allowed_origins,
        closing: closing.clone(),
        tasks: tasks.clone(),
        sockets: Arc::new(Semaphore::new(limits::SOCKETS_MAX)),
        shared_deltas: feed::SharedDeltas::default(),
    });
    if let Ok(address) = listener.local_addr() {
        info!(%address, "serving");
    }
    tokio::select! {
        () = connections::accept(listener, router(app), closing.clone(), tasks.clone()) => {}
        () = engine.stopping() => {}
    }
    closing.cancel();
    tasks.close();
    if tokio::time::timeout(limits::HTTP_DRAIN_MAX, tasks.wait())
        .await
        .is_err()
    {
        warn!(connections = tasks.len(), "connections cut at shutdown");
    }
    Ok(())
}

/// What all requests share.
struct App {
    engine: Engine,
    allowed_origins: Vec<String>,
    /// Cancelled when the shutdown begins.
    closing: CancellationToken,
    /// Connections and sockets: what a shutdown waits for.
    tasks: TaskTracker,
    sockets: Arc<Semaphore>,
    shared_deltas: feed::SharedDeltas,
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/livez", get(http::health::livez))
        .route("/readyz", get(http::health::readyz))
        .route("/metrics", get(http::health::metrics))
        .route("/api/v1/sql", get(http::sql::read).post(http::sql::run))
        .route("/api/v1/views", get(http::views::list))
        .route("/api/v1/views/{view}", get(http::views::one))
        .route("/api/v1/views/{view}/rows", get(http::views::rows))
        .route("/api/v1/sources", get(http::sources::list))
        .route("/api/v1/ws", get(ws::upgrade))
        .route("/api/{*path}", any(http::unknown_path))
        .fallback(static_files::file)
        .method_not_allowed_fallback(http::wrong_method)
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

/// Measures each request under its route, not its address, and sets what every answer carries.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let watch = Stopwatch::start();
    let route = request.extensions().get::<MatchedPath>().cloned();
    // A method may be any word, and each would be a time series of its own.
    let method = match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    };
    let mut response = next.run(request).await;
    let route = route.as_ref().map_or("static", MatchedPath::as_str);
    let status = response.status();
    let labels = [route, method, status.as_str()];
    app.engine
        .metrics()
        .http_request_duration_seconds
        .with_label_values(&labels)
        .observe(watch.elapsed().as_secs_f64());
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
