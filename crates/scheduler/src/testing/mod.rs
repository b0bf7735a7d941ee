//! What the tests share: requests, a device that remembers tokens in place of K and V, and a
//! driver.
//!
//! Invariant: nothing here looks into the scheduler; it sees batches and events, as the engine
//! does.

mod driver;
mod fake_device;
mod oracle;
mod rng;

use hotspare_batch::{Generate, RequestId, SamplingParams, StopParams, TokenId};

use crate::SchedulerConfig;

pub(crate) use driver::{Driver, Transcript};
pub(crate) use fake_device::FakeDevice;
pub(crate) use oracle::{Expected, expect_alone};
pub(crate) use rng::Rng;

/// A small pool: 16 blocks of 4 tokens, 4 sequences, 16 tokens a step.
pub(crate) fn small_config() -> SchedulerConfig {
    SchedulerConfig {
        max_num_seqs: 4,
        max_num_batched_tokens: 16,
        max_model_len: 64,
        block_size: 4,
        num_blocks: 16,
        max_num_waiting: 8,
        ..SchedulerConfig::default()
    }
}

/// Greedy, 4 tokens, no stop ids.
pub(crate) fn request(id: u64, ids: &[TokenId]) -> Generate {
    Generate {
        request_id: RequestId(id),
        attempt: 0,
        ids: ids.to_vec(),
        num_delivered: 0,
        sampling: SamplingParams {
            seed: id,
            ..SamplingParams::greedy()
        },
        stop: StopParams {
            max_tokens: 4,
            ..StopParams::default()
        },
        priority: 0,
        deadline_ms: None,
        block_hash_keys: Vec::new(),
        prefill_only: false,
    }
}

/// `num_ids` ids that no other `start` a thousand apart shares.
pub(crate) fn ids(start: TokenId, num_ids: usize) -> Vec<TokenId> {
    (start..).take(num_ids).collect()
}

/// `request` with another limit.
pub(crate) fn with_max_tokens(mut request: Generate, max_tokens: u32) -> Generate {
    request.stop.max_tokens = max_tokens;
    request
}
