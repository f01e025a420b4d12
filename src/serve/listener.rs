//! Connections: how many, for how long, and their end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::GRACE;
use crate::failure::Failure;
use crate::signals::Signals;

/// Connections open at once; more wait until one ends.
const CONNECTIONS: usize = 512;
/// How long a connection may take to send the head of its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may live: a client that never reads its answer must not hold one for ever.
const LIFETIME: Duration = Duration::from_mins(5);

/// Serves `router` until the process is told to end; then finishes what is under way.
pub(super) async fn serve(listener: TcpListener, router: Router) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = async {
            let permit = connections.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, stream) = tokio::select! {
            accepted = accepted => accepted,
            () = signals.first() => break,
        };
        match (permit, stream) {
            (Ok(permit), Ok((stream, _))) => talk(stream, permit, router.clone(), &graceful),
            (_, Err(error)) => {
                // Out of descriptors, or gone before it was accepted.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (Err(_), _) => break,
        }
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
    Ok(())
}

fn talk(stream: TcpStream, permit: OwnedSemaphorePermit, router: Router, graceful: &GracefulShutdown) {
    // An answer is one write; waiting for more would only delay it.
    _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        let _permit = permit;
        match tokio::time::timeout(LIFETIME, connection).await {
            Ok(Err(error)) => tracing::debug!("a connection ended: {error}"),
            Ok(Ok(())) => {}
            Err(_) => tracing::debug!("a connection was ended after {LIFETIME:?}"),
        }
    });
}
