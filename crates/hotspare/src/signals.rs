//! The signals that end the server, SIGTERM and SIGINT, and the one that reloads it, SIGHUP.
//!
//! Invariant: from the moment these exist, none ends the process by itself.

use std::time::Duration;
use std::{fmt, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What `timeout` and service managers send twice, to the process and to its group, is one wish.
const ECHO: Duration = Duration::from_millis(100);

const TERMINATE: Received = Received {
    name: "SIGTERM",
    exit_status: 128 + 15,
};
const INTERRUPT: Received = Received {
    name: "SIGINT",
    exit_status: 128 + 2,
};

/// A signal that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    name: &'static str,
    /// Of a process that it ended, as shells say it.
    pub(crate) exit_status: i32,
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

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

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Received {
        let received = tokio::select! {
            Some(()) = self.terminate.recv() => Some(TERMINATE),
            Some(()) = self.interrupt.recv() => Some(INTERRUPT),
            else => None,
        };
        match received {
            Some(received) => received,
            // No signal can come any more.
            None => std::future::pending().await,
        }
    }

    /// Waits for the next one that is not the echo of one that just came.
    pub(crate) async fn next_after_echo(&mut self) -> Received {
        let deadline = tokio::time::Instant::now() + ECHO;
        while tokio::time::timeout_at(deadline, self.next()).await.is_ok() {}
        self.next().await
    }
}

/// Lets none of these end this process from now on: an engine. A service manager and a terminal
/// send them to a whole group, and an engine that ended at once would cut the streams that its
/// front is about to finish. It ends when the front says so, when the front is gone, or by SIGKILL.
pub(crate) fn ignore() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _context = runtime.enter();
    // Who listens once is never ended by the signal again, also after the listener is gone.
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ] {
        drop(signal(kind)?);
    }
    Ok(())
}

/// Listens for SIGHUP.
pub(crate) struct Hangups(Signal);

impl Hangups {
    pub(crate) fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next one; several that come together are one.
    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // No signal can come any more.
            std::future::pending::<()>().await;
        }
    }
}
