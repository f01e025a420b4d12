//! Accepts connections until the end, and serves each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use super::GRACE;
use super::connections::{Connections, StallTimeout};
use super::http::{App, router};
use crate::failure::Failure;
use crate::signals::Signals;

/// How long a connection may take to send the head of its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head of a request.
const HEAD_LIMIT: usize = 32 << 10;

/// Serves until a signal ends the process; then finishes the requests in flight.
pub(super) async fn serve(listener: TcpListener, app: Arc<App>, mut signals: Signals) -> Result<(), Failure> {
    let connections = Arc::new(Connections::default());
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = async {
            let accepted = listener.accept().await;
            connections.slot().await;
            accepted
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = signals.first() => break,
        };
        match accepted {
            Ok((stream, client)) => spawn_connection(stream, client, &app, &connections, &graceful),
            Err(error) => {
                // Out of descriptors, or gone before it was accepted.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
    Ok(())
}

fn spawn_connection(
    stream: TcpStream,
    client: SocketAddr,
    app: &Arc<App>,
    connections: &Arc<Connections>,
    graceful: &GracefulShutdown,
) {
    // An answer is one write; waiting for more would only delay it.
    _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_LIMIT);
    connections.run(|connection| {
        let service = TowerToHyperService::new(router(app.clone(), connection, client));
        let served = builder.serve_connection(TokioIo::new(StallTimeout::new(stream)), service).into_owned();
        let served = graceful.watch(served);
        async move {
            if let Err(error) = served.await {
                tracing::debug!("a connection ended: {error}");
            }
        }
    });
}
