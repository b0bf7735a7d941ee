//! Names of block contents: each block's hash covers its own tokens and, through its parent, all
//! before.
//!
//! The hash only finds candidates. Whether a cached block is the wanted one is decided by comparing
//! parent, tokens and keys (`prefix_cache`), so a collision costs a miss and never a wrong answer.
//!
//! Invariant: a function of parent hash, tokens and keys alone, the same in every process.

use hotspare_batch::TokenId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Hash of a block. Tests put in others to force collisions.
pub(crate) type HashFn = fn(parent: u64, bytes: &[u8]) -> u64;

/// The parent hash of a sequence's first block.
const ROOT_HASH: u64 = 0;

/// XXH3 of the block's bytes, seeded with the parent's hash.
pub(crate) fn xxh3(parent: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, parent)
}

/// Hashes blocks; keeps its byte buffer between calls.
pub(crate) struct BlockHasher {
    hash_fn: HashFn,
    bytes: Vec<u8>,
}

impl BlockHasher {
    pub(crate) fn new(hash_fn: HashFn) -> Self {
        Self {
            hash_fn,
            bytes: Vec::new(),
        }
    }

    /// Hash of the block of `tokens` after the block whose hash is `parent`; `None` for the first
    /// block.
    pub(crate) fn hash(&mut self, parent: Option<u64>, tokens: &[TokenId], keys: &[u64]) -> u64 {
        let num_token_bytes = size_of_val(tokens);
        // In place and by whole words, which compiles to a plain copy.
        self.bytes.resize(num_token_bytes + size_of_val(keys), 0);
        let (token_bytes, key_bytes) = self.bytes.split_at_mut(num_token_bytes);
        for (bytes, token) in token_bytes.as_chunks_mut().0.iter_mut().zip(tokens) {
            *bytes = token.to_le_bytes();
        }
        for (bytes, key) in key_bytes.as_chunks_mut().0.iter_mut().zip(keys) {
            *bytes = key.to_le_bytes();
        }
        (self.hash_fn)(parent.unwrap_or(ROOT_HASH), &self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_enters_the_hash() {
        let mut hasher = BlockHasher::new(xxh3);
        let base = hasher.hash(None, &[1, 2, 3, 4], &[]);
        assert_eq!(
            hasher.hash(None, &[1, 2, 3, 4], &[]),
            base,
            "the buffer is not an input"
        );
        assert_ne!(
            hasher.hash(None, &[1, 2, 4, 3], &[]),
            base,
            "tokens in order"
        );
        assert_ne!(hasher.hash(Some(base), &[1, 2, 3, 4], &[]), base, "parent");
        assert_ne!(hasher.hash(None, &[1, 2, 3, 4], &[7]), base, "keys");
        assert_ne!(
            hasher.hash(None, &[1, 2, 3, 4], &[7, 8]),
            hasher.hash(None, &[1, 2, 3, 4], &[8, 7]),
            "keys in order"
        );
    }
}
