//! The limits of a scheduler: how many tokens, sequences and blocks, and in which order.
//!
//! Invariant: a `Scheduler` holds a validated config; its limits are positive and fit the ids'
//! types.

use crate::SchedulerError;

/// Which sequence comes first, and which is preempted first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchedulingPolicy {
    /// First come, first served; `Generate::priority` is ignored.
    #[default]
    Fcfs,
    /// Lower `Generate::priority` first, first come within.
    Priority,
}

/// The limits of a scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Sequences that run at a time; slot ids are below this.
    pub max_num_seqs: usize,
    /// Tokens of a batch.
    pub max_num_batched_tokens: usize,
    /// Tokens of a sequence, prompt and output.
    pub max_model_len: usize,
    /// Tokens of a KV block.
    pub block_size: usize,
    /// KV blocks of the executor.
    pub num_blocks: usize,
    /// Blocks that are taken into use before cached content is dropped; beyond it, twice as many
    /// as sequences ever held at a time. `usize::MAX`: the whole pool is for the cache.
    pub num_eager_blocks: usize,
    /// Sequences that wait for their first admission; more are refused.
    pub max_num_waiting: usize,
    /// Keep the blocks of ended sequences and give them to sequences that start alike.
    pub enable_prefix_caching: bool,
    /// Say which blocks are cached ([`Scheduler::take_cached_blocks`](crate::Scheduler)): the
    /// caller takes them after each commit.
    pub reports_cached_blocks: bool,
    /// Tokens of a prefill chunk while other sequences want to run too; 0 means no such limit.
    pub long_prefill_token_threshold: usize,
    /// Where every layer sees only the last so many positions, the own one included: blocks that
    /// lie wholly before them are given back while their sequence runs.
    pub sliding_window: Option<usize>,
    /// Who runs first.
    pub policy: SchedulingPolicy,
    /// Batches that may be scheduled and not yet committed: 1 is the plain loop, 2 is one step of
    /// look-ahead.
    pub max_num_in_flight: usize,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            max_num_seqs: 64,
            max_num_batched_tokens: 2048,
            max_model_len: 2048,
            block_size: 16,
            num_blocks: 1024,
            num_eager_blocks: usize::MAX,
            max_num_waiting: 1024,
            enable_prefix_caching: true,
            reports_cached_blocks: false,
            long_prefill_token_threshold: 0,
            sliding_window: None,
            policy: SchedulingPolicy::Fcfs,
            max_num_in_flight: 1,
        }
    }
}

impl SchedulerConfig {
    /// Checks every limit.
    ///
    /// # Errors
    /// [`SchedulerError::InvalidConfig`] names the first one that is zero or too large.
    pub fn validate(&self) -> Result<(), SchedulerError> {
        let limits = [
            ("max_num_seqs", self.max_num_seqs),
            ("max_num_batched_tokens", self.max_num_batched_tokens),
            ("max_model_len", self.max_model_len),
            ("block_size", self.block_size),
            ("num_blocks", self.num_blocks),
            ("max_num_waiting", self.max_num_waiting),
            ("max_num_in_flight", self.max_num_in_flight),
            ("sliding_window", self.sliding_window.unwrap_or(1)),
        ];
        // Row offsets, positions and block ids are 32 bits wide; half of that leaves room for sums.
        let max = (u32::MAX / 2) as usize;
        for (name, value) in limits {
            if value == 0 || value > max {
                return Err(SchedulerError::InvalidConfig { name, value });
            }
        }
        // The tokens of all blocks are kept for comparison, and their number is a product.
        let capacity = self.num_blocks.checked_mul(self.block_size);
        if capacity.is_none_or(|capacity| capacity > max) {
            let (name, value) = ("num_blocks", self.num_blocks);
            return Err(SchedulerError::InvalidConfig { name, value });
        }
        Ok(())
    }

    /// Leading blocks that no layer sees from position `num_computed_tokens` on.
    pub(crate) fn num_unseen_blocks(&self, num_computed_tokens: usize) -> usize {
        match self.sliding_window {
            Some(window) => (num_computed_tokens + 1).saturating_sub(window) / self.block_size,
            None => 0,
        }
    }

    /// Blocks that hold `num_tokens`.
    pub(crate) fn blocks_for(&self, num_tokens: usize) -> usize {
        num_tokens.div_ceil(self.block_size)
    }
}
