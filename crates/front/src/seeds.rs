//! Seeds for requests that name none.
//!
//! Invariant: with a seed of its own the server assigns the same sequence of seeds in each life;
//! without one nobody can tell the next.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Assigns seeds.
#[derive(Debug)]
pub(crate) struct Seeds {
    base: u64,
    num_assigned: AtomicU64,
}

impl Seeds {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self {
            // Keyed from the operating system's randomness.
            base: seed.unwrap_or_else(|| RandomState::new().hash_one(std::process::id())),
            num_assigned: AtomicU64::new(0),
        }
    }

    /// The next one: SplitMix64 (Steele, Lea, Flood 2014).
    pub(crate) fn next(&self) -> u64 {
        let n = self.num_assigned.fetch_add(1, Ordering::Relaxed);
        let gamma = 0x9e37_79b9_7f4a_7c15_u64;
        let mut z = self
            .base
            .wrapping_add(gamma.wrapping_mul(n.wrapping_add(1)));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_splitmix64() {
        // Published test vector of the reference implementation for seed 1234567.
        let seeds = Seeds::new(Some(1_234_567));
        let first = [seeds.next(), seeds.next(), seeds.next()];
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(first, expected);
    }

    #[test]
    fn without_a_seed_two_servers_differ() {
        assert_ne!(Seeds::new(None).next(), Seeds::new(None).next());
    }
}
