//! What a scheduler says about itself: gauges of now, counters since its start.
//!
//! Invariant: `num_used_blocks + num_free_blocks` is the number of blocks; cached blocks that
//! nobody references are among the free ones.

use hotspare_batch::BucketCounts;

/// Gauges and counters of a scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerStats {
    /// Steps committed.
    pub num_steps: u64,
    /// Sequences in the running set.
    pub num_running: u32,
    /// Sequences that wait, preempted ones included.
    pub num_waiting: u32,
    /// KV blocks that sequences hold.
    pub num_used_blocks: u32,
    /// KV blocks that hold reusable prefixes and that nobody references; also counted as free.
    pub num_cached_blocks: u32,
    /// KV blocks that nobody references.
    pub num_free_blocks: u32,
    /// Prompt tokens computed, again after a preemption.
    pub num_prompt_tokens: u64,
    /// Prompt tokens found in the prefix cache when their sequence was first admitted.
    pub num_cached_prompt_tokens: u64,
    /// Tokens drawn and delivered.
    pub num_generated_tokens: u64,
    /// Sequences preempted.
    pub num_preemptions: u64,
    /// Steps by their number of tokens, prompts' and drawn ones' alike.
    pub step_tokens: BucketCounts,
    /// Ended sequences by how often they were preempted.
    pub preemptions: BucketCounts,
    /// Tokens looked up in the prefix cache by sequences admitted for the first time.
    pub num_prefix_cache_queries: u64,
    /// Tokens of these that were found there.
    pub num_prefix_cache_hits: u64,
}
