//! A port for HAProxy's `agent-check`: one line a connection, and the end.
//!
//! `up ready 100%` where this node serves, `up ready 10%` where it hands requests on to the node
//! that does (which costs a hop, and keeps a client that it has through the loss of that node),
//! `drain` while it ends, `down` where no request would be served.
//!
//! Invariant: one connection at a time, each bounded in time; nothing is read.

use std::time::Duration;

use hotspare_front::Front;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Wait after an accept that failed.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Answers until it is dropped.
pub async fn serve_agent(listener: TcpListener, front: Front) {
    loop {
        match listener.accept().await {
            Ok((mut stream, _)) => {
                let line = line(&front);
                let answer = async {
                    stream.write_all(line.as_bytes()).await?;
                    stream.shutdown().await
                };
                // Who does not take it asks again.
                let _ = timeout(PATIENCE, answer).await;
            }
            Err(error) => {
                tracing::debug!(%error, "an agent check was not accepted");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn line(front: &Front) -> &'static str {
    match (front.readiness().ready, front.role().serves()) {
        _ if front.is_draining() => "drain\n",
        (true, true) => "up ready 100%\n",
        (true, false) => "up ready 10%\n",
        (false, _) => "down\n",
    }
}
