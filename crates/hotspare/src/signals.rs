//! The two signals that end the server: SIGTERM and SIGINT.
//!
//! Invariant: from the moment this exists, neither ends the process by itself.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for both.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one and returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        let received = tokio::select! {
            Some(()) = self.terminate.recv() => Some("SIGTERM"),
            Some(()) = self.interrupt.recv() => Some("SIGINT"),
            else => None,
        };
        match received {
            Some(name) => name,
            // No signal can come any more.
            None => std::future::pending().await,
        }
    }
}
