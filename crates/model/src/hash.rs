//! The content hash: equal hashes mean equal weights, tokenizer, template and defaults.
//!
//! BLAKE3 over the hashes of the files, each with its name, so that a byte cannot move from one
//! file to the next unnoticed.
//!
//! Invariant: a function of the files' names and bytes alone; where they lie does not enter.

use std::fmt;

use crate::{FileIdentity, HashCache};

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

/// A file to hash.
pub(crate) struct FileBytes<'a> {
    pub(crate) name: &'a str,
    pub(crate) bytes: &'a [u8],
    /// Of a file whose hash may be in the cache.
    pub(crate) identity: Option<&'a FileIdentity>,
}

impl<'a> FileBytes<'a> {
    /// A file that is hashed each time.
    pub(crate) fn new(name: &'a str, bytes: &'a [u8]) -> Self {
        Self {
            name,
            bytes,
            identity: None,
        }
    }
}

/// Hashes `files` in the order given, reporting bytes done and bytes in all.
pub(crate) fn hash_files(
    files: &[FileBytes<'_>],
    cache: Option<&HashCache>,
    progress: &mut dyn FnMut(u64, u64),
) -> ContentHash {
    let total: u64 = files.iter().map(|file| file.bytes.len() as u64).sum();
    let mut done = 0;
    progress(done, total);
    let mut outer = blake3::Hasher::new_derive_key("hotspare model content 1");
    for file in files {
        let cached = cache.zip(file.identity);
        let known = cached.and_then(|(cache, identity)| cache.get(identity));
        let inner = known.unwrap_or_else(|| {
            let mut hasher = blake3::Hasher::new();
            for (index, chunk) in file.bytes.chunks(CHUNK_BYTES).enumerate() {
                hasher.update(chunk);
                progress(done + (index * CHUNK_BYTES + chunk.len()) as u64, total);
            }
            let inner = hasher.finalize();
            if let Some((cache, identity)) = cached {
                cache.put(identity, &inner);
            }
            inner
        });
        done += file.bytes.len() as u64;
        progress(done, total);
        outer.update(&(file.name.len() as u64).to_le_bytes());
        outer.update(file.name.as_bytes());
        outer.update(inner.as_bytes());
    }
    ContentHash(*outer.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(files: &[(&str, &[u8])]) -> ContentHash {
        let files = files
            .iter()
            .map(|(name, bytes)| FileBytes::new(name, bytes));
        hash_files(&files.collect::<Vec<_>>(), None, &mut |_, _| {})
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
        let files = [FileBytes::new("a", b"12345"), FileBytes::new("b", b"")];
        hash_files(&files, None, &mut |done, total| reports.push((done, total)));
        assert_eq!(reports.first(), Some(&(0, 5)));
        assert_eq!(reports.last(), Some(&(5, 5)));
        assert!(reports.is_sorted());
    }
}
