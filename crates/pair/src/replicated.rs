//! Replicated maps and counters, as the rest of a node uses them.
//!
//! A map's value is written where `may_write` holds and read on both nodes; a counter is raised on
//! either. Writing does not wait for the peer; [`Replicated::acknowledged`] does.
//!
//! Invariant: a change that is said to be acknowledged is in the memory of the peer's running
//! process. Nothing here outlives both processes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hotspare_failover::Epoch;
use tokio::sync::{Notify, watch};

use crate::PairError;
use crate::replica::{Ack, Batch, Full, Replica};

/// A change that can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change(u64);

/// How far the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    /// A live process of the peer.
    peer: Option<u64>,
    acked: u64,
}

/// Maps and counters that the peer has, too. A cheap handle.
#[derive(Clone)]
pub struct Replicated {
    inner: Arc<Inner>,
}

struct Inner {
    replica: Mutex<Replica>,
    max_bytes: usize,
    /// The epoch to write in; zero: writes are frozen.
    writes_in: AtomicU64,
    /// There is something to send.
    pub(crate) to_send: Notify,
    progress: watch::Sender<Progress>,
    changes: watch::Sender<u64>,
}

impl std::fmt::Debug for Replicated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Replicated")
    }
}

impl Replicated {
    pub(crate) fn new(rank: u32, boot: u64, max_bytes: usize) -> Self {
        let none = Progress {
            peer: None,
            acked: 0,
        };
        Self {
            inner: Arc::new(Inner {
                replica: Mutex::new(Replica::new(rank, boot, max_bytes)),
                max_bytes,
                writes_in: AtomicU64::new(0),
                to_send: Notify::new(),
                progress: watch::Sender::new(none),
                changes: watch::Sender::new(0),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Replica> {
        let replica = self.inner.replica.lock();
        replica.unwrap_or_else(PoisonError::into_inner)
    }

    fn full(&self, Full: Full) -> PairError {
        PairError::ReplicaFull {
            max_bytes: self.inner.max_bytes,
        }
    }

    fn changed(&self, change: u64) -> Change {
        self.inner.changes.send_replace(change);
        self.inner.to_send.notify_one();
        Change(change)
    }

    /// Writes a value into a map.
    ///
    /// # Errors
    /// Writes are frozen here, or the bound on all is reached.
    pub fn set(&self, map: &str, key: &str, value: &[u8]) -> Result<Change, PairError> {
        self.write(map, key, Some(value.to_vec()))
    }

    /// Removes a value from a map.
    ///
    /// # Errors
    /// As [`Replicated::set`].
    pub fn remove(&self, map: &str, key: &str) -> Result<Change, PairError> {
        self.write(map, key, None)
    }

    fn write(&self, map: &str, key: &str, value: Option<Vec<u8>>) -> Result<Change, PairError> {
        let epoch = Epoch::new(self.inner.writes_in.load(Ordering::Acquire));
        if epoch == Epoch::NONE {
            return Err(PairError::WritesFrozen);
        }
        let change = self.lock().set(epoch, map, key, value);
        Ok(self.changed(change.map_err(|full| self.full(full))?))
    }

    /// A value of a map.
    #[must_use]
    pub fn get(&self, map: &str, key: &str) -> Option<Vec<u8>> {
        self.lock().get(map, key).map(<[u8]>::to_vec)
    }

    /// All of a map, in the order of its keys.
    #[must_use]
    pub fn entries(&self, map: &str) -> Vec<(String, Vec<u8>)> {
        let replica = self.lock();
        replica
            .entries(map)
            .map(|(key, value)| (key.to_owned(), value.to_vec()))
            .collect()
    }

    /// Raises this node's part of a counter; allowed in every role.
    ///
    /// # Errors
    /// The bound on all is reached.
    pub fn add(&self, counter: &str, key: &str, by: u64) -> Result<Change, PairError> {
        let change = self.lock().add(counter, key, by);
        Ok(self.changed(change.map_err(|full| self.full(full))?))
    }

    /// What both nodes counted.
    #[must_use]
    pub fn total(&self, counter: &str, key: &str) -> u64 {
        self.lock().total(counter, key)
    }

    /// Forgets keys of a counter, such as windows that are over. To be done on both nodes: one
    /// that still has them tells them again.
    pub fn retain(&self, counter: &str, keep: impl FnMut(&str) -> bool) {
        self.lock().retain(counter, keep);
    }

    /// Wakes whenever something changed, by this node or the peer.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Changes of this copy that the peer has not acknowledged.
    #[must_use]
    pub fn lag(&self) -> u64 {
        let replica = self.lock();
        replica.changes() - replica.acked()
    }

    /// Waits until the peer has `change` and all before it. It may not be in reach: bound it.
    pub async fn acknowledged(&self, change: Change) {
        let mut progress = self.inner.progress.subscribe();
        // The sender lives in `self`.
        let _ended = progress
            .wait_for(|p| p.peer.is_some() && p.acked >= change.0)
            .await;
    }

    /// Waits until the peer has everything that was written before the call.
    pub async fn flushed(&self) {
        let change = Change(self.lock().changes());
        self.acknowledged(change).await;
    }

    pub(crate) fn set_writes_in(&self, epoch: Option<Epoch>) {
        let number = epoch.map_or(0, Epoch::number);
        self.inner.writes_in.store(number, Ordering::Release);
    }

    pub(crate) async fn to_send(&self) {
        self.inner.to_send.notified().await;
    }

    /// The peer's process that is in reach, or none.
    pub(crate) fn meet(&self, peer: Option<u64>) {
        let mut replica = self.lock();
        if let Some(boot) = peer {
            replica.meet(boot);
        } else {
            replica.rewind();
        }
        let acked = replica.acked();
        drop(replica);
        self.tell_progress(Progress { peer, acked });
    }

    fn tell_progress(&self, progress: Progress) {
        self.inner.progress.send_if_modified(|known| {
            let news = *known != progress;
            *known = progress;
            news
        });
    }

    pub(crate) fn rewind(&self) {
        self.lock().rewind();
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.lock().is_waiting()
    }

    pub(crate) fn next_batch(
        &self,
        epoch: Epoch,
        max_bytes: usize,
        max_in_flight: usize,
    ) -> Option<Batch> {
        self.lock().next_batch(epoch, max_bytes, max_in_flight)
    }

    pub(crate) fn receive(&self, batch: Batch, seen: Epoch) -> Ack {
        let mut replica = self.lock();
        let before = replica.changes();
        let ack = replica.receive(batch, seen);
        let after = replica.changes();
        drop(replica);
        if after != before {
            self.changed(after);
        }
        ack
    }

    /// Whether the acknowledgement was about this process, and of a peer's process that is known.
    pub(crate) fn take_ack(&self, ack: &Ack) {
        let mut replica = self.lock();
        if replica.acknowledged(ack) {
            let progress = Progress {
                peer: Some(ack.by),
                acked: replica.acked(),
            };
            drop(replica);
            self.tell_progress(progress);
            self.inner.to_send.notify_one();
        }
    }
}
