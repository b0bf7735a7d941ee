//! Decode steps as graphs: launches that are captured once for a bucket of sizes, when the model is
//! loaded, and then queued as one.
//!
//! What differs between two steps of a bucket lies in the step's blob, at the same places.
//!
//! Invariant: a graph has the launches that the same step would make one by one; at most
//! [`MAX_GRAPHS`] are kept, and further buckets run as single launches; nothing is captured in a
//! step.

use std::collections::BTreeMap;

use super::buckets::GraphKey;
use crate::{Device, GraphId};

/// Graphs at most.
pub(super) const MAX_GRAPHS: usize = 256;

/// Free memory below which no more graphs are made, whatever they may hold.
pub(super) const MIN_GRAPH_BYTES: usize = 64 << 20;

/// How the launches of a step reach the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// One by one.
    #[default]
    Single,
    /// They are recorded and not run.
    Capturing,
    /// They were recorded before; nothing is launched until the end.
    Replaying(GraphId),
    /// None is made; products are planned.
    Planning,
}

/// What was captured.
#[derive(Debug, Default)]
pub(super) struct Graphs {
    buckets: BTreeMap<GraphKey, GraphId>,
}

impl Graphs {
    /// How to run a step of `key`.
    pub(super) fn mode(&self, key: GraphKey) -> Mode {
        let graph = self.buckets.get(&key);
        graph.map_or(Mode::Single, |&graph| Mode::Replaying(graph))
    }

    /// `graph` was captured for `key`.
    pub(super) fn insert(&mut self, key: GraphKey, graph: GraphId) {
        self.buckets.insert(key, graph);
    }

    /// The least important one; see [`GraphKey::importance`].
    pub(super) fn least_important(&self) -> Option<GraphKey> {
        self.buckets
            .keys()
            .copied()
            .max_by_key(GraphKey::importance)
    }

    /// Gives one back to the device.
    pub(super) fn remove<D: Device>(&mut self, device: &mut D, key: GraphKey) {
        if let Some(graph) = self.buckets.remove(&key) {
            device.drop_graph(graph);
        }
    }

    /// The buckets in the order in which they were captured.
    #[cfg(test)]
    pub(super) fn keys_in_order(&self) -> Vec<GraphKey> {
        let mut keys: Vec<GraphKey> = self.buckets.keys().copied().collect();
        keys.sort_by_key(|key| self.buckets[key].0);
        keys
    }

    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Gives all of them back to the device; returns how many.
    pub(super) fn give_back<D: Device>(&mut self, device: &mut D) -> usize {
        let buckets = std::mem::take(&mut self.buckets);
        for &graph in buckets.values() {
            device.drop_graph(graph);
        }
        buckets.len()
    }
}
