//! Epochs: the numbers that order the reigns of a pair's primaries.
//!
//! The two nodes draw from disjoint halves of the numbers (even and odd), so that two nodes which
//! promote without hearing each other cannot choose the same one, and no tie needs a rule.
//!
//! Invariant: an epoch chosen by `next_after` is higher than every one it was told of.

use serde::{Deserialize, Serialize};

/// The number of a primary's reign. Zero: nobody ever served.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(u64);

/// Which half of the epochs a node draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EpochHalf {
    /// The node of lower rank, and a node without a peer.
    Even,
    /// The node of higher rank.
    Odd,
}

impl Epoch {
    /// Nobody ever served.
    pub const NONE: Self = Self(0);

    /// The epoch of this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number, as headers and hooks carry it.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The lowest epoch of `half` that is higher than this one.
    #[must_use]
    pub const fn next_after(self, half: EpochHalf) -> Self {
        let parity = match half {
            EpochHalf::Even => 0,
            EpochHalf::Odd => 1,
        };
        let next = self.0.saturating_add(1);
        Self(if next % 2 == parity {
            next
        } else {
            next.saturating_add(1)
        })
    }
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a node keeps on its disk: the epoch file. Written to a new file, fsynced, renamed over the
/// old one, and the directory fsynced, before the driver answers that it is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EpochFile {
    /// The highest epoch this node ever set aside for itself, used or not.
    pub reserved: Epoch,
    /// The highest epoch known to have served, of either node.
    pub seen: Epoch,
    /// An operator paused automatic role changes.
    pub paused: bool,
    /// An operator took the node out of the pair.
    pub maintenance: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_disjoint_and_grow() {
        for number in 0..20 {
            let epoch = Epoch::new(number);
            let (even, odd) = (
                epoch.next_after(EpochHalf::Even),
                epoch.next_after(EpochHalf::Odd),
            );
            assert!(even > epoch && odd > epoch);
            assert_eq!(even.number() % 2, 0);
            assert_eq!(odd.number() % 2, 1);
            assert!(even.number() <= number + 2 && odd.number() <= number + 2);
        }
    }
}
