//! Who comes first: waiting sequences in a tree, running ones in a sorted vector, both by the same
//! key.
//!
//! A preempted sequence keeps its key, so it returns to its old place; the last running one is the
//! newest of the lowest priority, which is whom preemption takes.
//!
//! Invariant: keys are unique (arrival numbers are), and both containers are in key order.

use std::collections::BTreeSet;

use crate::slab::SequenceIndex;

/// Place of a sequence: by priority, then by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey {
    /// Lower is first. 0 under first come, first served, but for the engine's own.
    pub(crate) priority: i64,
    /// Number of the sequence among all that were added.
    pub(crate) arrival: u64,
    pub(crate) index: SequenceIndex,
}

/// Sequences that wait for admission.
#[derive(Debug, Default)]
pub(crate) struct WaitingQueue {
    keys: BTreeSet<QueueKey>,
    num_preempted: usize,
}

impl WaitingQueue {
    pub(crate) fn insert(&mut self, key: QueueKey, is_preempted: bool) {
        let is_new = self.keys.insert(key);
        debug_assert!(is_new, "a sequence waits once");
        self.num_preempted += usize::from(is_preempted);
    }

    pub(crate) fn remove(&mut self, key: QueueKey, is_preempted: bool) {
        let was_there = self.keys.remove(&key);
        debug_assert!(was_there, "a waiting sequence is in the queue");
        self.num_preempted -= usize::from(is_preempted);
    }

    pub(crate) fn first(&self) -> Option<QueueKey> {
        self.keys.first().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Sequences that never ran: what the queue's bound counts.
    pub(crate) fn num_new(&self) -> usize {
        self.keys.len() - self.num_preempted
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = QueueKey> + '_ {
        self.keys.iter().copied()
    }
}

/// Sequences that run.
#[derive(Debug, Default)]
pub(crate) struct RunningList {
    keys: Vec<QueueKey>,
}

impl RunningList {
    pub(crate) fn insert(&mut self, key: QueueKey) {
        let place = self.keys.partition_point(|other| *other < key);
        self.keys.insert(place, key);
    }

    pub(crate) fn remove(&mut self, key: QueueKey) {
        let place = self
            .keys
            .binary_search(&key)
            .expect("a running sequence is in the list");
        self.keys.remove(place);
    }

    pub(crate) fn get(&self, place: usize) -> QueueKey {
        self.keys[place]
    }

    /// Whom preemption takes.
    pub(crate) fn last(&self) -> Option<QueueKey> {
        self.keys.last().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = QueueKey> + '_ {
        self.keys.iter().copied()
    }
}
