//! Whole numbers counted in buckets, as Prometheus histograms are: cheap to add to in every step
//! and to send in every report.
//!
//! Invariant: the counts sum to the number of observations, and only grow.

use serde::{Deserialize, Serialize};

/// Buckets at most, the unbounded last one included.
const MAX_NUM_BUCKETS: usize = 16;

/// Upper bounds of the buckets for the tokens of a step: vLLM's for `iteration_tokens_total`.
pub const STEP_TOKENS_BOUNDS: [u64; 13] = [
    1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384,
];

/// Upper bounds of the buckets for the preemptions of a sequence: vLLM's for
/// `request_num_preemptions`, with 0 below.
pub const PREEMPTIONS_BOUNDS: [u64; 8] = [0, 1, 2, 3, 4, 5, 10, 20];

const _: () = assert!(STEP_TOKENS_BOUNDS.len() < MAX_NUM_BUCKETS);
const _: () = assert!(PREEMPTIONS_BOUNDS.len() < MAX_NUM_BUCKETS);

/// Counts of observations, by bucket. The bounds are the caller's, the same in every call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketCounts {
    counts: [u64; MAX_NUM_BUCKETS],
    sum: u64,
}

impl BucketCounts {
    /// Counts `value` in the first bucket whose bound it does not exceed, or in the one behind all
    /// bounds.
    pub fn observe(&mut self, bounds: &[u64], value: u64) {
        let bucket = bounds.partition_point(|&bound| bound < value);
        self.counts[bucket.min(MAX_NUM_BUCKETS - 1)] += 1;
        self.sum += value;
    }

    /// Sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Number of values.
    pub fn num(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Each bound, the unbounded last one as `None`, with the count of its own bucket.
    pub fn buckets<'b>(
        &'b self,
        bounds: &'b [u64],
    ) -> impl Iterator<Item = (Option<u64>, u64)> + 'b {
        let bounds = bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(self.counts.iter().copied())
    }
}

impl std::ops::AddAssign for BucketCounts {
    fn add_assign(&mut self, other: Self) {
        for (count, other) in self.counts.iter_mut().zip(other.counts) {
            *count += other;
        }
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_in_the_bucket_of_the_first_bound_that_holds_them() {
        let mut counts = BucketCounts::default();
        for value in [0, 0, 1, 2, 20, 21, u64::from(u32::MAX)] {
            counts.observe(&PREEMPTIONS_BOUNDS, value);
        }
        let mut twice = counts;
        twice += counts;
        assert_eq!((twice.num(), twice.sum()), (14, 2 * counts.sum()));
        assert_eq!(counts.sum(), 44 + u64::from(u32::MAX));
        let buckets: Vec<_> = counts.buckets(&PREEMPTIONS_BOUNDS).collect();
        assert_eq!(buckets.len(), PREEMPTIONS_BOUNDS.len() + 1);
        let filled: Vec<_> = buckets
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(
            filled,
            [
                (Some(0), 2),
                (Some(1), 1),
                (Some(2), 1),
                (Some(20), 1),
                (None, 2)
            ]
        );
    }

    #[test]
    fn bounds_grow() {
        assert!(STEP_TOKENS_BOUNDS.is_sorted_by(|a, b| a < b));
        assert!(PREEMPTIONS_BOUNDS.is_sorted_by(|a, b| a < b));
    }
}
