//! A repository's place in the cache, in the layout of Python's `huggingface_hub`.
//!
//! `blobs/ETAG` holds contents, `snapshots/COMMIT/FILE` links to them, `refs/REVISION` names a
//! commit. Files appear by renaming, so that a reader sees all of one or none.
//!
//! Invariant: a blob without the ending `.incomplete` is whole and was on disk when it got its
//! name.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{HubConfig, HubError};

/// Time between two looks at a lock that another process has.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// One repository's part of the cache.
#[derive(Clone, Debug)]
pub(crate) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

/// An exclusive lock between processes, as long as it lives.
pub(crate) struct FileLock(#[expect(dead_code, reason = "closing it unlocks")] File);

impl RepoCache {
    /// That of `ORG/NAME`.
    pub(crate) fn new(config: &HubConfig, repo: &str) -> Self {
        let folder = format!("models--{}", repo.replace('/', "--"));
        Self {
            root: config.cache_dir.join(&folder),
            locks: config.cache_dir.join(".locks").join(folder),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// The commit that a branch or tag named when it was last fetched.
    pub(crate) fn read_ref(&self, revision: &str) -> Option<String> {
        let commit = std::fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        let commit = commit.trim();
        let is_hex = commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_hex && !commit.is_empty()).then(|| commit.to_owned())
    }

    /// Remembers what a branch or tag names.
    pub(crate) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if self.read_ref(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        let temporary = temporary_of(&path);
        create_parent(&path)?;
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(commit.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)
        };
        write().map_err(|reason| HubError::Io { path, reason })
    }

    /// Makes `file` of the snapshot of `commit` the blob `etag`.
    pub(crate) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(file);
        create_parent(&path)?;
        let steps_up = "../".repeat(2 + file.matches('/').count());
        let target = format!("{steps_up}blobs/{etag}");
        if std::fs::read_link(&path).is_ok_and(|found| found == Path::new(&target)) {
            return Ok(());
        }
        let temporary = temporary_of(&path);
        // Left by a process of the same number that was killed between the next two steps.
        let _ = std::fs::remove_file(&temporary);
        std::os::unix::fs::symlink(&target, &temporary)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|reason| HubError::Io { path, reason })
    }

    /// Waits until no other process fetches the blob `etag`; `on_wait` is called once if it must.
    pub(crate) fn lock(
        &self,
        etag: &str,
        file: &str,
        timeout: Duration,
        on_wait: &mut dyn FnMut(),
    ) -> Result<FileLock, HubError> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let io_error = |reason| HubError::Io {
            path: path.clone(),
            reason,
        };
        let options = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let lock = options.map_err(io_error)?;
        let start = Instant::now();
        let mut has_waited = false;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(FileLock(lock)),
                Err(TryLockError::Error(reason)) => return Err(io_error(reason)),
                Err(TryLockError::WouldBlock) => {}
            }
            if start.elapsed() >= timeout {
                return Err(HubError::Locked {
                    file: file.to_owned(),
                    seconds: timeout.as_secs(),
                    lock: path,
                });
            }
            if !has_waited {
                has_waited = true;
                on_wait();
            }
            std::thread::sleep(LOCK_POLL);
        }
    }
}

/// A name beside `path` that is this process's alone.
fn temporary_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    PathBuf::from(name)
}

/// Makes the directories that lead to `path`.
pub(crate) fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|reason| HubError::Io {
        path: parent.to_owned(),
        reason,
    })
}
