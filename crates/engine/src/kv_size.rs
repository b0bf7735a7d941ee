//! How many KV blocks an engine gets.
//!
//! Invariant: what it returns holds at least one sequence of `max_model_len` tokens, unless the
//! number of blocks was given explicitly.

use crate::{EngineError, EngineOptions};

/// Default bound on the KV cache of a CPU engine.
const DEFAULT_MAX_KV_BYTES: usize = 1 << 30;

/// Sequences of full length whose blocks are in use before cached content is dropped, where nobody
/// said how much memory the cache may take.
const NUM_EAGER_SEQS: usize = 8;

/// How many blocks the scheduler may take into use for the prefix cache alone. Memory that was
/// asked for is used; the default bound is one against the worst case, and a server that never
/// comes near it should not creep up to it.
pub(crate) fn num_eager_blocks(options: &EngineOptions, max_model_len: usize) -> usize {
    if options.kv_cache_memory_bytes.is_some() || options.num_kv_blocks_override.is_some() {
        return usize::MAX;
    }
    max_model_len
        .div_ceil(options.block_size.max(1))
        .saturating_mul(NUM_EAGER_SEQS)
}

/// Number of blocks, given the bytes that one takes over all layers.
///
/// # Errors
/// [`EngineError::KvCacheTooSmall`], or a product that has no meaning.
pub(crate) fn num_blocks(
    options: &EngineOptions,
    max_model_len: usize,
    bytes_per_block: usize,
) -> Result<usize, EngineError> {
    if let Some(num_blocks) = options.num_kv_blocks_override {
        return Ok(num_blocks);
    }
    if options.block_size == 0 || bytes_per_block == 0 {
        return Err(EngineError::Options("block_size must not be 0".to_owned()));
    }
    let blocks_per_seq = max_model_len.div_ceil(options.block_size).max(1);
    let available_bytes = options.kv_cache_memory_bytes;
    let num_blocks = match available_bytes {
        Some(bytes) => bytes / bytes_per_block,
        None => {
            let wanted = blocks_per_seq.saturating_mul(options.max_num_seqs);
            wanted.min(DEFAULT_MAX_KV_BYTES / bytes_per_block)
        }
    };
    if num_blocks < blocks_per_seq {
        return Err(EngineError::KvCacheTooSmall {
            available_bytes: available_bytes.unwrap_or(DEFAULT_MAX_KV_BYTES),
            needed_bytes: blocks_per_seq.saturating_mul(bytes_per_block),
            max_model_len,
        });
    }
    Ok(num_blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> EngineOptions {
        EngineOptions {
            max_num_seqs: 4,
            ..EngineOptions::default()
        }
    }

    #[test]
    fn the_default_holds_every_sequence_or_a_gibibyte() {
        // 100 tokens are 7 blocks of 16.
        assert_eq!(num_blocks(&options(), 100, 1000).unwrap(), 28);
        assert_eq!(num_blocks(&options(), 100, 1 << 26).unwrap(), 16);
    }

    #[test]
    fn less_than_one_sequence_is_an_error_that_names_the_flags() {
        let error = num_blocks(&options(), 100, 1 << 28).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("1879048192 bytes"), "{message}");
        assert!(message.contains("--kv-cache-memory-bytes"), "{message}");
        assert!(message.contains("--max-model-len"), "{message}");

        let mut small = options();
        small.kv_cache_memory_bytes = Some(6_999);
        assert!(num_blocks(&small, 100, 1000).is_err());
        small.kv_cache_memory_bytes = Some(7_000);
        assert_eq!(num_blocks(&small, 100, 1000).unwrap(), 7);
        small.num_kv_blocks_override = Some(3);
        assert_eq!(num_blocks(&small, 100, 1000).unwrap(), 3);
    }

    #[test]
    fn memory_that_was_asked_for_is_used() {
        let mut options = options();
        assert_eq!(num_eager_blocks(&options, 100), 56);
        options.kv_cache_memory_bytes = Some(1 << 20);
        assert_eq!(num_eager_blocks(&options, 100), usize::MAX);
    }

    #[test]
    fn huge_numbers_do_not_overflow() {
        let mut huge = options();
        huge.max_num_seqs = usize::MAX;
        assert_eq!(num_blocks(&huge, 16, 1 << 20).unwrap(), 1024);
        assert!(num_blocks(&huge, usize::MAX, 1 << 20).is_err());
        huge.block_size = 0;
        assert!(num_blocks(&huge, 16, 1 << 20).is_err());
    }
}
