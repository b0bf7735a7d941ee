//! Decode steps as graphs: launches that are captured once for a bucket of sizes and then queued as
//! one.
//!
//! A bucket runs as single launches the first time it is met, is captured the second time, and is
//! replayed from then on. What differs between two steps of a bucket lies in the step's blob, at
//! the same places.
//!
//! Invariant: a graph has the launches that the same step would make one by one; at most
//! [`MAX_GRAPHS`] are kept, and further buckets run as single launches.

use std::collections::BTreeMap;

use super::step::GraphKey;
use crate::GraphId;

/// Graphs at most.
pub(super) const MAX_GRAPHS: usize = 128;

/// Free memory below which no more graphs are made: the driver takes memory for each.
pub(super) const MIN_GRAPH_BYTES: usize = 64 << 20;

/// How the launches of a step reach the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// One by one.
    #[default]
    Single,
    /// They are recorded, to be replayed at the end.
    Capturing,
    /// They were recorded before; nothing is launched until the end.
    Replaying(GraphId),
}

/// What is known of buckets.
#[derive(Debug, Default)]
pub(super) struct Graphs {
    /// `None`: met once.
    buckets: BTreeMap<GraphKey, Option<GraphId>>,
    /// The device cannot capture, or has no memory left for more graphs.
    pub(super) is_unsupported: bool,
}

impl Graphs {
    /// How to run a step of `key`; capturing has yet to be begun.
    pub(super) fn mode(&mut self, key: &GraphKey) -> Mode {
        match self.buckets.get(key) {
            Some(Some(graph)) => Mode::Replaying(*graph),
            Some(None) => Mode::Capturing,
            None => {
                if self.buckets.len() < MAX_GRAPHS {
                    self.buckets.insert(key.clone(), None);
                }
                Mode::Single
            }
        }
    }

    /// `graph` was captured for `key`.
    pub(super) fn insert(&mut self, key: &GraphKey, graph: GraphId) {
        self.buckets.insert(key.clone(), Some(graph));
    }
}
