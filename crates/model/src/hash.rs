//! The content hash: equal hashes mean equal weights, tokenizer, template and defaults.
//!
//! BLAKE3 over the hashes of the files, each with its name, so that a byte cannot move from one
//! file to the next unnoticed.
//!
//! Invariant: a function of the files' names and bytes alone; where they lie does not enter.

use std::fmt;

/// Bytes that are hashed between two progress reports.
const CHUNK_BYTES: usize = 64 << 20;

/// 256 bits that name a model's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

/// Hashes `files` (name, bytes) in the order given, reporting bytes done and bytes in all.
pub(crate) fn hash_files(
    files: &[(&str, &[u8])],
    progress: &mut dyn FnMut(u64, u64),
) -> ContentHash {
    let total: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let mut done = 0;
    progress(done, total);
    let mut outer = blake3::Hasher::new_derive_key("hotspare model content 1");
    for (name, bytes) in files {
        let mut inner = blake3::Hasher::new();
        for chunk in bytes.chunks(CHUNK_BYTES) {
            inner.update(chunk);
            done += chunk.len() as u64;
            progress(done, total);
        }
        outer.update(&(name.len() as u64).to_le_bytes());
        outer.update(name.as_bytes());
        outer.update(inner.finalize().as_bytes());
    }
    ContentHash(*outer.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(files: &[(&str, &[u8])]) -> ContentHash {
        hash_files(files, &mut |_, _| {})
    }

    #[test]
    fn every_byte_name_and_border_counts() {
        let base = hash(&[("a", b"one"), ("b", b"two")]);
        assert_eq!(base, hash(&[("a", b"one"), ("b", b"two")]));
        assert_ne!(base, hash(&[("a", b"onet"), ("b", b"wo")]));
        assert_ne!(base, hash(&[("a", b"one"), ("c", b"two")]));
        assert_ne!(base, hash(&[("a", b"one")]));
        assert_eq!(base.to_string().len(), 64);
    }

    #[test]
    fn progress_ends_at_the_total() {
        let mut reports = Vec::new();
        hash_files(&[("a", b"12345"), ("b", b"")], &mut |done, total| {
            reports.push((done, total));
        });
        assert_eq!(reports, [(0, 5), (5, 5)]);
    }
}
