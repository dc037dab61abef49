//! TCP connections to requests: our own accept loop, so that a client who sends nothing, or a byte now and then, holds nothing.
//!
//! ```text
//! listener ── one of HTTP_CONNECTIONS_MAX slots ──▶ HTTP/1.1 ── head within HTTP_HEAD_READ_MAX ──▶ router
//! ```

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::types::limits;

/// How long to wait where the process has no file handle left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `closing`. Connections beyond the limit wait in the system's queue.
pub async fn accept(listener: TcpListener, router: Router, closing: CancellationToken, tasks: TaskTracker) {
    let slots = Arc::new(Semaphore::new(limits::HTTP_CONNECTIONS_MAX));
    loop {
        let (slot, accepted) = tokio::select! {
            () = closing.cancelled() => return,
            accepted = next(&listener, &slots) => accepted,
        };
        match accepted {
            Ok(stream) => {
                tasks.spawn(connection(stream, router.clone(), closing.clone(), slot));
            }
            // The client left before we came.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn next(listener: &TcpListener, slots: &Arc<Semaphore>) -> (OwnedSemaphorePermit, io::Result<TcpStream>) {
    let slot = Arc::clone(slots).acquire_owned().await.expect("never closed");
    (slot, listener.accept().await.map(|(stream, _)| stream))
}

/// Ends after the request under way once `closing` is cancelled. A WebSocket leaves it, and its slot, when it is upgraded.
async fn connection(stream: TcpStream, router: Router, closing: CancellationToken, _slot: OwnedSemaphorePermit) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "small messages are held back");
    }
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits::HTTP_HEAD_READ_MAX).max_buf_size(limits::HTTP_HEAD_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}
