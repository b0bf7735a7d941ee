//! Remembers the hashes of weight files, so that a restart does not read gigabytes to name a model.
//!
//! One small file for each weight file, in the user's cache directory: the hash, and what the
//! weight file looked like when it was computed. Processes may share the directory: entries are
//! written whole under another name and renamed.
//!
//! Invariant: an entry is used only for a file with the same path, size, times, device and inode,
//! and one that is missing, damaged or cannot be written costs time and nothing else.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of an entry, at most; a path has at most 4,096.
const MAX_ENTRY_BYTES: u64 = 16 << 10;
/// First word of an entry.
const VERSION: &str = "hotspare-hash-1";
/// A file that changed less than this before it was hashed may change again within the same tick of
/// its file system's clock; it is hashed again next time.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// What a file looked like when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// Without links.
    path: PathBuf,
    num_bytes: u64,
    modified_ns: i128,
    /// Of the inode: writing a file and setting its time of modification back changes this.
    changed_ns: i128,
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// That of the open `file`, which was opened as `path`. `None` where the system does not say.
    pub(crate) fn of(file: &File, path: &Path) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        let ns = |seconds: i64, ns: i64| {
            i128::from(seconds).saturating_mul(1_000_000_000) + i128::from(ns)
        };
        Some(Self {
            path: path.canonicalize().ok()?,
            num_bytes: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// Whether the path still leads to the same file, unchanged.
    fn is_current(&self) -> bool {
        let file = File::open(&self.path).ok();
        file.and_then(|file| Self::of(&file, &self.path)).as_ref() == Some(self)
    }

    /// Everything but the path, as the first line of an entry.
    fn line(&self) -> String {
        format!(
            "{VERSION} bytes={} modified_ns={} changed_ns={} device={} inode={}",
            self.num_bytes, self.modified_ns, self.changed_ns, self.device, self.inode
        )
    }
}

/// A directory of hashes.
#[derive(Clone, Debug)]
pub struct HashCache {
    directory: PathBuf,
    settle_time: Duration,
}

impl HashCache {
    /// The cache below `cache_dir`, Hotspare's directory for what can be computed again.
    pub fn new(cache_dir: &Path) -> Self {
        Self {
            directory: cache_dir.join("hashes"),
            settle_time: SETTLE_TIME,
        }
    }

    /// The user's: `$XDG_CACHE_HOME/hotspare`, or `.cache/hotspare` at home. `None` for a user
    /// without either.
    pub fn default_dir() -> Option<PathBuf> {
        let absolute = |name: &str| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        Some(base?.join("hotspare"))
    }

    /// A cache that trusts files changed just now: for tests.
    #[cfg(test)]
    pub(crate) fn impatient(cache_dir: &Path) -> Self {
        Self {
            settle_time: Duration::ZERO,
            ..Self::new(cache_dir)
        }
    }

    fn entry_path(&self, identity: &FileIdentity) -> PathBuf {
        let path = identity.path.as_os_str().as_encoded_bytes();
        self.directory.join(blake3::hash(path).to_hex().as_str())
    }

    /// The hash of the file, where it is known.
    pub(crate) fn get(&self, identity: &FileIdentity) -> Option<blake3::Hash> {
        let mut entry = String::new();
        let file = File::open(self.entry_path(identity)).ok()?;
        file.take(MAX_ENTRY_BYTES).read_to_string(&mut entry).ok()?;
        let (text, check) = entry.trim_end().rsplit_once('\n')?;
        if check != blake3::hash(text.as_bytes()).to_hex().as_str() {
            return None;
        }
        let mut lines = text.lines();
        if lines.next()? != identity.line() {
            return None;
        }
        blake3::Hash::from_hex(lines.next()?).ok()
    }

    /// Remembers the hash of the file, unless it changed meanwhile or only just before.
    pub(crate) fn put(&self, identity: &FileIdentity, hash: &blake3::Hash) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ns = now.map_or(0, |now| now.as_nanos() as i128);
        let changed_ns = identity.changed_ns.max(identity.modified_ns);
        let settled_ns = changed_ns.saturating_add(self.settle_time.as_nanos() as i128);
        if settled_ns > now_ns || !identity.is_current() {
            return;
        }
        if let Err(error) = self.write(identity, hash, now_ns) {
            let directory = self.directory.display();
            tracing::debug!(%directory, %error, "the hash of a weight file cannot be kept");
        }
    }

    fn write(
        &self,
        identity: &FileIdentity,
        hash: &blake3::Hash,
        now_ns: i128,
    ) -> std::io::Result<()> {
        let (line, path) = (identity.line(), identity.path.display());
        // The path is for people who look into the directory; its own lines would be lines of ours.
        let path = path.to_string().replace('\n', " ");
        let text = format!("{line}\n{hash}\n{path}");
        let check = blake3::hash(text.as_bytes());
        std::fs::create_dir_all(&self.directory)?;
        let target = self.entry_path(identity);
        let temporary = target.with_extension(format!("{}-{now_ns}.tmp", std::process::id()));
        let written = File::create(&temporary)
            .and_then(|mut file| file.write_all(format!("{text}\n{check}\n").as_bytes()))
            .and_then(|()| std::fs::rename(&temporary, &target));
        if written.is_err() {
            // What is left of it is never read, but nobody would ever remove it.
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }
}

#[cfg(test)]
#[path = "hash_cache_test.rs"]
mod hash_cache_test;
