//! What handles and the driver share.
//!
//! Invariant: a lock is held for a copy and no longer; nothing waits for I/O under one.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use hotspare_failover::{Gate, Health, Settings, State};
use tokio::sync::{Notify, oneshot, watch};

use crate::config::PairBounds;
use crate::records::Records;
use crate::replicated::Replicated;
use crate::view::{PairView, PeerFacts};
use crate::{Clock, PairError};

/// What the front wants done before a handover, beside replication.
pub type FlushFn = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What was told and not yet taken by the driver: the newest of each.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) health: Option<Health>,
    pub(crate) gates: Option<Arc<[Gate]>>,
    pub(crate) facts: Option<PeerFacts>,
}

/// Shared by handles and driver.
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    pub(crate) bounds: PairBounds,
    pub(crate) node: String,
    pub(crate) boot: u64,
    pub(crate) addresses: Vec<SocketAddr>,
    /// After every step.
    pub(crate) view: watch::Sender<Arc<PairView>>,
    /// After steps that changed something worth waking for.
    pub(crate) changes: watch::Sender<Arc<PairView>>,
    pub(crate) state: Mutex<Arc<State>>,
    pub(crate) told: Mutex<Told>,
    pub(crate) told_news: Notify,
    pub(crate) traffic_at: AtomicU64,
    pub(crate) traffic_news: Notify,
    pub(crate) flush: Mutex<Option<FlushFn>>,
    pub(crate) replicated: Replicated,
    pub(crate) records: Records,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the driver when the last handle is gone, and tells when it has ended.
pub(crate) struct Life {
    pub(crate) stop: Mutex<Option<oneshot::Sender<()>>>,
    pub(crate) ended: watch::Receiver<bool>,
}

impl Life {
    pub(crate) async fn end(&self) -> Result<(), PairError> {
        drop(lock(&self.stop).take());
        let mut ended = self.ended.clone();
        ended
            .wait_for(|&ended| ended)
            .await
            .map(|_| ())
            .map_err(|_| PairError::Ended)
    }
}
