//! How many jobs are in flight, and waiting for none.
//!
//! Invariant: the count is that of the guards alive.

use std::sync::Arc;

use tokio::sync::watch;

/// A shared count of jobs.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    count: Arc<watch::Sender<u64>>,
}

/// Counts as one job while it lives.
#[derive(Debug)]
pub(crate) struct InFlightGuard {
    count: Arc<watch::Sender<u64>>,
}

impl InFlight {
    pub(crate) fn new() -> Self {
        Self {
            count: Arc::new(watch::Sender::new(0)),
        }
    }

    pub(crate) fn enter(&self) -> InFlightGuard {
        self.count.send_modify(|count| *count += 1);
        InFlightGuard {
            count: Arc::clone(&self.count),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        *self.count.borrow()
    }

    /// Returns once there is none.
    pub(crate) async fn wait_idle(&self) {
        let mut receiver = self.count.subscribe();
        // The sender lives in `self`, so this cannot fail before the count is zero.
        let _ = receiver.wait_for(|count| *count == 0).await;
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count -= 1);
    }
}
