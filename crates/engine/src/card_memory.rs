//! How much of a card an engine may take, and waiting for it.
//!
//! Invariant: a start is refused only where the memory stays in use by others.

use std::time::{Duration, Instant};

use hotspare_backend_cuda::card::Card;
use hotspare_backend_cuda::{Device as _, DeviceMemory, KvBudget};
use hotspare_batch::ExecutorError;

use crate::{EngineError, EngineOptions};

/// How often free memory is looked at while it grows.
const MEMORY_POLL: Duration = Duration::from_millis(100);

/// What the KV cache may take. As in vLLM the share is of the whole card, for this engine alone,
/// and must be free when it starts.
pub(crate) fn kv_budget(options: &EngineOptions, card: &Card) -> Result<KvBudget, EngineError> {
    if options.num_kv_blocks_override.is_some() {
        return Ok(KvBudget::Exact);
    }
    if let Some(bytes) = options.kv_cache_memory_bytes {
        return Ok(KvBudget::Bytes(bytes));
    }
    let share = options.gpu_memory_utilization;
    let memory = await_share(
        share,
        Duration::from_millis(options.gpu_memory_wait_ms),
        card,
    )?;
    share_of_free(share, memory)
        .map(KvBudget::Utilization)
        .ok_or_else(|| {
            let mib = |bytes: usize| bytes >> 20;
            EngineError::Options(format!(
                "free memory on {} is {} of {} MiB, less than the {:.0} MiB of \
                 --gpu-memory-utilization {share}: lower it, or see with nvidia-smi what else uses \
                 the card",
                card.description(),
                mib(memory.free_bytes),
                mib(memory.total_bytes),
                memory.total_bytes as f64 * share / f64::from(1 << 20),
            ))
        })
}

/// Waits until `share` of the card is free, `limit` at most: what an engine held that just ended
/// comes back a moment after it is gone.
fn await_share(share: f64, limit: Duration, card: &Card) -> Result<DeviceMemory, EngineError> {
    let start = Instant::now();
    let mut is_said = false;
    loop {
        let memory = card.memory();
        let memory = memory.map_err(|error| ExecutorError::Device(error.to_string()))?;
        if share_of_free(share, memory).is_some() || start.elapsed() >= limit {
            return Ok(memory);
        }
        if !std::mem::replace(&mut is_said, true) {
            tracing::info!(
                free_bytes = memory.free_bytes,
                total_bytes = memory.total_bytes,
                "others use the card; waiting for what an ended process gives back"
            );
        }
        std::thread::sleep(MEMORY_POLL);
    }
}

/// The share of what is free that makes `share` of all; `None` where less is free.
fn share_of_free(share: f64, memory: DeviceMemory) -> Option<f64> {
    let allowed = memory.total_bytes as f64 * share;
    let free = memory.free_bytes as f64;
    (allowed > 0.0 && allowed <= free).then(|| allowed / free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_the_whole_card_and_must_be_free() {
        let share = |share, free_bytes, total_bytes| {
            let memory = DeviceMemory {
                free_bytes,
                total_bytes,
            };
            share_of_free(share, memory)
        };
        assert!((share(0.9, 1000, 1000).unwrap() - 0.9).abs() < 1e-9);
        // Another engine has 400 of 1000: half of the card is five sixths of what is free.
        assert!((share(0.5, 600, 1000).unwrap() - 5.0 / 6.0).abs() < 1e-9);
        assert!((share(0.6, 600, 1000).unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(share(0.61, 600, 1000), None);
        assert_eq!(share(0.9, 0, 1000), None);
    }
}
