//! The accept loop: connections in, bounded in number and in patience, and a stop that lets
//! streams end.
//!
//! Invariant: when [`serve`] returns, no connection is open and nothing it started runs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hotspare_front::Front;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::HttpConfig;
use crate::auth::PeerAddress;
use crate::peer;
use crate::router::router;
use crate::timeout_io::TimeoutIo;

/// Wait after an accept that failed for want of file descriptors or memory.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Why the server cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The settings make no server.
    #[error("HTTP settings: {0}")]
    Config(&'static str),
}

/// Serves until `shutdown` resolves, then drains: generation requests are refused with 503, on new
/// connections too, and the server says why it is not ready; answers that run go on until they end
/// or `shutdown_timeout_ms` is over, when what is left ends with an error.
///
/// # Errors
/// For settings that make no server.
pub async fn serve(
    listener: TcpListener,
    front: Front,
    config: HttpConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), HttpError> {
    if config.max_num_connections == 0 {
        return Err(HttpError::Config("max_num_connections must not be 0"));
    }
    let closing = CancellationToken::new();
    let server = Server {
        builder: builder(&config)?,
        permits: Arc::new(Semaphore::new(config.max_num_connections)),
        service: router(front.clone(), config.clone(), closing.clone()),
        write_timeout: Duration::from_millis(config.write_timeout_ms),
    };
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (stream, permit) = server.accept(&listener) => {
                connections.spawn(server.connection(stream, permit, graceful.watcher()));
            }
        }
    }
    front.drain();
    let num_open = connections.len();
    tracing::info!(num_open, "draining connections");
    let deadline = Instant::now() + config.shutdown_timeout();
    let idle = tokio::time::timeout_at(deadline, front.wait_idle());
    tokio::pin!(idle);
    // Whoever asks meanwhile is told that this server ends; a refused connection tells nothing.
    loop {
        tokio::select! {
            _ = &mut idle => break,
            Some(_) = connections.join_next() => {}
            (stream, permit) = server.accept(&listener) => {
                connections.spawn(server.connection(stream, permit, graceful.watcher()));
            }
        }
    }
    drop(listener);
    let drained = graceful.shutdown();
    tokio::pin!(drained);
    if tokio::time::timeout_at(deadline, &mut drained)
        .await
        .is_err()
    {
        tracing::warn!("ending answers that still run after the shutdown timeout");
        closing.cancel();
        // Who does not take the error in this time is cut off.
        let _ = tokio::time::timeout(config.shutdown_grace(), drained).await;
    }
    connections.shutdown().await;
    Ok(())
}

struct Server {
    builder: http1::Builder,
    permits: Arc<Semaphore>,
    service: Router,
    write_timeout: Duration,
}

fn builder(config: &HttpConfig) -> Result<http1::Builder, HttpError> {
    // hyper's own lower bound.
    const MIN_HEADER_BYTES: usize = 8 << 10;
    if config.max_header_bytes < MIN_HEADER_BYTES {
        return Err(HttpError::Config("max_header_bytes must be at least 8192"));
    }
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // `Peer` decides when a client is gone, the same way whatever hyper has read.
        .half_close(true)
        .header_read_timeout(Duration::from_millis(config.header_timeout_ms))
        .max_buf_size(config.max_header_bytes)
        .max_headers(config.max_num_headers);
    Ok(builder)
}

impl Server {
    /// The next connection, once there is room for one.
    async fn accept(&self, listener: &TcpListener) -> (TcpStream, OwnedSemaphorePermit) {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        // A failure is told once: it is tried again many times a second.
        let mut is_told = false;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return (stream, permit),
                Err(error) => {
                    let is_of_one_connection = matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted
                            | io::ErrorKind::ConnectionReset
                            | io::ErrorKind::ConnectionRefused
                    );
                    if !is_of_one_connection {
                        if !std::mem::replace(&mut is_told, true) {
                            tracing::warn!(%error, "cannot accept connections for now");
                        }
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                }
            }
        }
    }

    /// Serves one connection until it closes.
    fn connection(
        &self,
        stream: TcpStream,
        permit: OwnedSemaphorePermit,
        watcher: Watcher,
    ) -> impl Future<Output = ()> + Send + 'static {
        // Without this each small event would wait for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
        let address = stream.peer_addr().ok().map(PeerAddress);
        let (stream, peer) = peer::watched(stream);
        let io = TokioIo::new(TimeoutIo::new(stream, self.write_timeout));
        let service = self
            .service
            .clone()
            .map_request(move |mut request: Request<Incoming>| {
                if let Some(address) = address {
                    request.extensions_mut().insert(address);
                }
                request
            });
        let service = TowerToHyperService::new(service);
        let connection = watcher.watch(self.builder.serve_connection(io, service));
        async move {
            match peer.until_gone(connection).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(%error, "a connection ended with an error"),
                None => tracing::debug!("a client left before its answer was complete"),
            }
            drop(permit);
        }
    }
}
