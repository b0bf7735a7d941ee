//! Memory of the journal: how much there is, and each request's share of it.
//!
//! Invariant: the sum of the shares alive is the journal's count, and neither a share nor the sum
//! ever exceeds its bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{ChoiceStart, JobParams, RequestRecord};

/// Bounds of a [`Journal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// Bytes of one request's record at most.
    pub max_request_bytes: usize,
    /// Bytes of all records together at most.
    pub max_bytes: usize,
}

#[derive(Debug)]
struct Shared {
    config: JournalConfig,
    num_bytes: AtomicUsize,
}

/// Makes records and counts their memory. Clones are the same journal.
#[derive(Clone, Debug)]
pub struct Journal {
    shared: Arc<Shared>,
}

impl Journal {
    /// An empty journal.
    pub fn new(config: JournalConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                num_bytes: AtomicUsize::new(0),
            }),
        }
    }

    /// Bytes of all records.
    pub fn num_bytes(&self) -> usize {
        self.shared.num_bytes.load(Ordering::Relaxed)
    }

    /// The record of a request that is about to start. Where there is no room for it, the record
    /// says so and the request runs without one.
    pub fn begin(&self, params: JobParams, choices: Vec<ChoiceStart>) -> RequestRecord {
        RequestRecord::new(self.share(), params, choices)
    }

    fn share(&self) -> Share {
        Share {
            shared: Arc::clone(&self.shared),
            num_bytes: 0,
        }
    }
}

/// Which bound left no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceeded {
    /// The request's own.
    Request { max_request_bytes: usize },
    /// That of all requests.
    All { max_bytes: usize },
}

/// One request's part of the memory; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    shared: Arc<Shared>,
    num_bytes: usize,
}

impl Share {
    pub(crate) fn num_bytes(&self) -> usize {
        self.num_bytes
    }

    /// Takes more, or nothing.
    pub(crate) fn grow(&mut self, num_bytes: usize) -> Result<(), Exceeded> {
        let JournalConfig {
            max_request_bytes,
            max_bytes,
        } = self.shared.config;
        let own = self.num_bytes.saturating_add(num_bytes);
        if own > max_request_bytes {
            return Err(Exceeded::Request { max_request_bytes });
        }
        let fits = |all: usize| all.checked_add(num_bytes).filter(|all| *all <= max_bytes);
        self.shared
            .num_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_| Exceeded::All { max_bytes })?;
        self.num_bytes = own;
        Ok(())
    }

    /// Gives back a part.
    pub(crate) fn shrink(&mut self, num_bytes: usize) {
        let num_bytes = num_bytes.min(self.num_bytes);
        self.num_bytes -= num_bytes;
        self.shared
            .num_bytes
            .fetch_sub(num_bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(self.num_bytes);
    }
}
