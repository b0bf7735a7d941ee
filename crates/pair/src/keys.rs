//! The pair's keys: one to prove oneself with, and while they are rotated another to accept.
//!
//! Every use has a key of its own, derived with HMAC-SHA256 from the file's, so what is learned of
//! one says nothing about another. The first key signs, all verify. To rotate: `old, new` on both
//! nodes, then `new, old` on both, then `new`.
//!
//! Invariant: key bytes are in no message, log line or `Debug` output.

use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::PairError;

/// Keys at a time, at most.
const MAX_KEYS: usize = 2;
const KEY_BYTES: usize = 32;

/// One or two keys of a pair.
#[derive(Clone)]
pub struct PairKeys {
    keys: Vec<Derived>,
}

/// What is derived from one key.
#[derive(Clone)]
pub(crate) struct Derived {
    /// Says which key was used; tells nothing else about it.
    pub(crate) id: [u8; 4],
    pub(crate) noise: [u8; KEY_BYTES],
    datagrams: [u8; KEY_BYTES],
}

impl std::fmt::Debug for PairKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PairKeys({})", self.keys.len())
    }
}

impl PairKeys {
    /// No keys, for a node without a peer.
    #[must_use]
    pub const fn none() -> Self {
        Self { keys: Vec::new() }
    }

    /// Keys from their bytes, the signing one first.
    ///
    /// # Errors
    /// More than two, or none.
    pub fn new(keys: &[[u8; KEY_BYTES]]) -> Result<Self, PairError> {
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(PairError::Config("one or two pair keys are needed".into()));
        }
        Ok(Self {
            keys: keys.iter().map(Derived::of).collect(),
        })
    }

    /// Keys from a file: 32 bytes a line, hexadecimal or base64; empty lines and `#` are skipped.
    ///
    /// # Errors
    /// The file cannot be read, others than its owner can read it, or a line is no key.
    pub fn from_file(path: &Path) -> Result<Self, PairError> {
        let refuse = |reason: String| PairError::KeyFile {
            path: path.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|e| refuse(e.to_string()))?;
        let mode = std::fs::metadata(path)
            .map(|meta| std::os::unix::fs::PermissionsExt::mode(&meta.permissions()))
            .map_err(|e| refuse(e.to_string()))?;
        if mode & 0o077 != 0 {
            return Err(refuse(format!(
                "mode {:o} lets others read it: chmod 600",
                mode & 0o777
            )));
        }
        Self::parse(&text).map_err(refuse)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = from_hex(line).or_else(|| from_base64(line));
            let key = bytes.and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
            let wrong = || format!("line {}: not 32 bytes in hex or base64", number + 1);
            keys.push(key.ok_or_else(wrong)?);
        }
        match keys.len() {
            0 => Err("no key in it".to_owned()),
            1..=MAX_KEYS => Ok(Self {
                keys: keys.iter().map(Derived::of).collect(),
            }),
            many => Err(format!("{many} keys; at most {MAX_KEYS} while rotating")),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key to prove oneself with.
    pub(crate) fn signing(&self) -> Option<&Derived> {
        self.keys.first()
    }

    /// The key of this id.
    pub(crate) fn by_id(&self, id: [u8; 4]) -> Option<&Derived> {
        self.keys.iter().find(|key| key.id == id)
    }
}

impl Derived {
    fn of(key: &[u8; KEY_BYTES]) -> Self {
        let id = derive(key, b"hotspare pair key id");
        Self {
            id: [id[0], id[1], id[2], id[3]],
            noise: derive(key, b"hotspare pair noise psk"),
            datagrams: derive(key, b"hotspare pair datagrams"),
        }
    }

    /// The authentication tag of a datagram.
    pub(crate) fn tag(&self, bytes: &[u8]) -> [u8; KEY_BYTES] {
        mac(&self.datagrams, bytes).finalize().into_bytes().into()
    }

    /// Whether `tag` is the tag of `bytes`; takes the same time whatever differs.
    pub(crate) fn verify(&self, bytes: &[u8], tag: &[u8]) -> bool {
        mac(&self.datagrams, bytes).verify_slice(tag).is_ok()
    }
}

fn mac(key: &[u8; KEY_BYTES], bytes: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(bytes);
    mac
}

fn derive(key: &[u8; KEY_BYTES], label: &[u8]) -> [u8; KEY_BYTES] {
    mac(key, label).finalize().into_bytes().into()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

/// Base64 with either alphabet, padded or not.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut num_bits) = (Vec::new(), 0_u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        num_bits += 6;
        if num_bits >= 8 {
            num_bits -= 8;
            bytes.push(u8::try_from((bits >> num_bits) & 0xFF).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn both_encodings_are_the_same_key() {
        let hex = PairKeys::parse(HEX).expect("hex");
        let base64 = PairKeys::parse(&format!("# the key\n\n{BASE64}\n")).expect("base64");
        assert_eq!(hex.keys[0].noise, base64.keys[0].noise);
        assert_ne!(hex.keys[0].noise, hex.keys[0].datagrams);
        assert_eq!(format!("{hex:?}"), "PairKeys(1)");
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for text in ["", "abcd", "zz", &format!("{HEX}\n{HEX}\n{HEX}")] {
            let error = PairKeys::parse(text).expect_err(text);
            assert!(
                !error.contains("abcd") && !error.contains("0001"),
                "{error}"
            );
        }
        assert!(PairKeys::new(&[]).is_err());
    }

    #[test]
    fn tags_verify_only_what_was_signed_with_the_same_key() {
        let keys = PairKeys::new(&[[1; 32], [2; 32]]).expect("two keys");
        let (one, two) = (&keys.keys[0], &keys.keys[1]);
        let tag = one.tag(b"text");
        assert!(one.verify(b"text", &tag));
        assert!(!one.verify(b"texT", &tag) && !two.verify(b"text", &tag));
        assert!(!one.verify(b"text", &tag[..31]), "a shorter tag is none");
        assert_eq!(keys.by_id(two.id).map(|key| key.id), Some(two.id));
        assert!(keys.by_id([0; 4]).is_none());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("key");
        std::fs::write(&path, HEX).expect("written");
        let set = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode));
        set(0o644).expect("mode");
        let error = PairKeys::from_file(&path).expect_err("readable by all");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        set(0o600).expect("mode");
        assert!(PairKeys::from_file(&path).is_ok());
    }
}
