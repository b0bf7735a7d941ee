//! What the hub's ETags promise about a file's bytes, and whether they keep it.
//!
//! A large file's ETag is its SHA-256. A small file's is what git calls it: the SHA-1 of a header
//! with its length, and its bytes. Mirrors may have ETags of their own, which say nothing.
//!
//! Invariant: a digest that is compared was taken over every byte.

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// What an ETag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EtagKind {
    Sha256,
    GitBlob,
    /// Neither: nothing can be verified but the length.
    Opaque,
}

impl EtagKind {
    pub(crate) fn of(etag: &str) -> Self {
        let is_hex = etag
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match etag.len() {
            64 if is_hex => Self::Sha256,
            40 if is_hex => Self::GitBlob,
            _ => Self::Opaque,
        }
    }
}

/// A digest in the making.
pub(crate) enum Digest {
    Sha256(Sha256),
    GitBlob(Sha1),
    Opaque,
}

impl Digest {
    /// Of a file with `num_bytes` bytes. A git hash begins with the length, so that without it
    /// there is none.
    pub(crate) fn new(etag: &str, num_bytes: Option<u64>) -> Self {
        match (EtagKind::of(etag), num_bytes) {
            (EtagKind::Sha256, _) => Self::Sha256(Sha256::new()),
            (EtagKind::GitBlob, Some(num_bytes)) => {
                let mut sha1 = Sha1::new();
                sha1.update(format!("blob {num_bytes}\0"));
                Self::GitBlob(sha1)
            }
            (EtagKind::GitBlob, None) | (EtagKind::Opaque, _) => Self::Opaque,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sha256) => sha256.update(bytes),
            Self::GitBlob(sha1) => sha1.update(bytes),
            Self::Opaque => {}
        }
    }

    /// In hexadecimal digits; `None` where nothing is known to compare with.
    pub(crate) fn finish(self) -> Option<String> {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(sha256) => Some(hex(&sha256.finalize())),
            Self::GitBlob(sha1) => Some(hex(&sha1.finalize())),
            Self::Opaque => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(etag: &str, bytes: &[u8]) -> Option<String> {
        let mut digest = Digest::new(etag, Some(bytes.len() as u64));
        digest.update(bytes);
        digest.finish()
    }

    #[test]
    fn digests_are_those_of_git_and_of_large_files() {
        // `printf hello | git hash-object --stdin`, `printf hello | sha256sum`.
        let git = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";
        assert_eq!(digest(git, b"hello").as_deref(), Some(git));
        let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(digest(sha256, b"hello").as_deref(), Some(sha256));
        assert_eq!(digest("\"abc\"", b"hello"), None);
        assert_eq!(EtagKind::of(&sha256.to_uppercase()), EtagKind::Opaque);
    }
}
