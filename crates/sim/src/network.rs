//! The network between the nodes and to the lease store: cuts, loss, delay, doubling, overtaking.
//!
//! Invariant: counters, not flags: faults that overlap end when the last of them ends.

use crate::plan::Plan;
use crate::rng::Rng;

/// What the network does at the moment.
pub(crate) struct Network {
    /// How many faults cut what this node sends.
    pub(crate) cut_from: [u32; 2],
    pub(crate) loss_permille: u64,
    duplicate_permille: u64,
    pub(crate) delay_ms: u64,
    pub(crate) store_down: u32,
    pub(crate) store_cut: [u32; 2],
    pub(crate) store_slow_ms: u64,
}

impl Network {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            cut_from: [0; 2],
            loss_permille: plan.loss_permille,
            duplicate_permille: plan.duplicate_permille,
            delay_ms: plan.delay_ms,
            store_down: 0,
            store_cut: [0; 2],
            store_slow_ms: 0,
        }
    }

    /// Both directions work.
    pub(crate) fn connected(&self) -> bool {
        self.cut_from == [0; 2]
    }

    /// When what `node` sends now arrives: not at all, once, or twice.
    pub(crate) fn deliveries(&self, node: usize, now: u64, rng: &mut Rng) -> [Option<u64>; 2] {
        if self.cut_from[node] > 0 || rng.chance(self.loss_permille) {
            return [None, None];
        }
        let twice = rng.chance(self.duplicate_permille);
        let mut arrival = || Some(now + 1 + rng.below(self.delay_ms));
        let first = arrival();
        [first, if twice { arrival() } else { None }]
    }

    pub(crate) fn store_answers(&self, node: usize) -> bool {
        self.store_down == 0 && self.store_cut[node] == 0
    }

    /// When a call, or its answer, arrives at the other end.
    pub(crate) fn to_store(&self, node: usize, now: u64, rng: &mut Rng) -> Option<u64> {
        if !self.store_answers(node) || rng.chance(self.loss_permille) {
            return None;
        }
        Some(now + 1 + rng.below(self.delay_ms.min(100)) + rng.below(self.store_slow_ms + 1))
    }
}
