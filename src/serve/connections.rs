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
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEAD_READ_MAX)
        .max_buf_size(limits::HTTP_HEAD_BYTES_MAX);
    let connection = builder
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_shutdown_lets_the_request_under_way_finish_and_closes_idle_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let arrived = Arc::new(Semaphore::new(0));
        let finish = Arc::new(Semaphore::new(0));
        let router = {
            let (arrived, finish) = (Arc::clone(&arrived), Arc::clone(&finish));
            Router::new().route(
                "/slow",
                get(async move || {
                    arrived.add_permits(1);
                    finish.acquire().await.expect("never closed").forget();
                    "done"
                }),
            )
        };
        let accepting = tokio::spawn(accept(listener, router, closing.clone(), tasks.clone()));
        let mut idle = TcpStream::connect(address).await.unwrap();
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(b"GET /slow HTTP/1.1\r\nHost: zeta\r\n\r\n")
            .await
            .unwrap();
        arrived.acquire().await.unwrap().forget();

        closing.cancel();
        accepting.await.unwrap();
        let mut nothing = Vec::new();
        idle.read_to_end(&mut nothing).await.unwrap();
        assert!(nothing.is_empty(), "an idle connection is closed without a word");

        finish.add_permits(1);
        let mut answer = String::new();
        busy.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("done"),
            "{answer}"
        );
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn a_head_over_the_limit_reaches_no_route() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let router = Router::new().route("/", get(async || "reached"));
        let accepting = tokio::spawn(accept(listener, router, closing.clone(), tasks));
        for (bytes, is_reached) in [
            (limits::HTTP_HEAD_BYTES_MAX / 2, true),
            (limits::HTTP_HEAD_BYTES_MAX * 4, false),
        ] {
            let mut client = TcpStream::connect(address).await.unwrap();
            let head = format!(
                "GET / HTTP/1.1\r\nHost: zeta\r\nConnection: close\r\nX-Long: {}\r\n\r\n",
                "x".repeat(bytes)
            );
            let (mut read, mut write) = client.split();
            let mut answer = Vec::new();
            // Where it is refused, the server hangs up before it has read it all: either side may see that first.
            let (_sent, _read) = tokio::join!(write.write_all(head.as_bytes()), read.read_to_end(&mut answer));
            let answer = String::from_utf8_lossy(&answer);
            assert_eq!(answer.ends_with("reached"), is_reached, "{bytes}: {answer}");
            assert!(
                is_reached || answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
                "{answer}"
            );
        }
        closing.cancel();
        accepting.await.unwrap();
    }
}
