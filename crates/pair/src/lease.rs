//! The lease store behind one trait, and one in memory that two nodes of a process share.
//!
//! `LeaseCall::apply` is the specification of what a store does in one transaction.
//!
//! Invariant: a store answers `Unknown` rather than guess.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use hotspare_failover::{LeaseCall, LeaseRecord, LeaseReply};

/// A place outside of both nodes that holds one record, changed by compare-and-swap.
pub trait LeaseStore: Send + Sync {
    /// Does `call` for the node of this rank. The driver stops waiting after
    /// `lease_call_timeout_ms`; what was asked may still happen then.
    fn call(&self, rank: u32, call: LeaseCall) -> BoxFuture<'_, LeaseReply>;

    /// Its name in logs and status, without credentials.
    fn name(&self) -> String;
}

/// A lease in memory: for tests, and for trying mode strict in one process.
#[derive(Clone, Debug, Default)]
pub struct MemoryLease {
    inner: Arc<Mutex<MemoryInner>>,
}

#[derive(Debug, Default)]
struct MemoryInner {
    record: LeaseRecord,
    /// Ranks that do not get an answer.
    cut_off: Vec<u32>,
}

impl MemoryLease {
    /// A record without a holder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The record as it is.
    #[must_use]
    pub fn record(&self) -> LeaseRecord {
        self.lock().record
    }

    /// Whether the node of this rank gets answers.
    pub fn set_reachable(&self, rank: u32, reachable: bool) {
        let mut inner = self.lock();
        inner.cut_off.retain(|&other| other != rank);
        if !reachable {
            inner.cut_off.push(rank);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, MemoryInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeaseStore for MemoryLease {
    fn call(&self, rank: u32, call: LeaseCall) -> BoxFuture<'_, LeaseReply> {
        let mut inner = self.lock();
        let reply = if inner.cut_off.contains(&rank) {
            LeaseReply::Unknown
        } else {
            match call.apply(rank, inner.record) {
                Some(record) => {
                    inner.record = record;
                    LeaseReply::Granted(record)
                }
                None if call == LeaseCall::Observe => LeaseReply::Observed(inner.record),
                None => LeaseReply::Refused(inner.record),
            }
        };
        Box::pin(std::future::ready(reply))
    }

    fn name(&self) -> String {
        "memory".to_owned()
    }
}
