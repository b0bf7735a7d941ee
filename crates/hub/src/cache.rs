//! A repository's place in the cache, in the layout of Python's `huggingface_hub`.
//!
//! `blobs/ETAG` holds contents, `snapshots/COMMIT/FILE` links to them, `refs/REVISION` names a
//! commit. Files appear by renaming, so that a reader sees all of one or none.
//!
//! Invariant: a blob without the ending `.incomplete` is whole and was on disk when it got its
//! name.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::{HubConfig, HubError};

/// Time between two looks at a lock that another process has.
const LOCK_POLL: Duration = Duration::from_millis(100);
/// How the names of files begin that are about to be renamed.
const TEMPORARY_PREFIX: &str = ".hotspare-";

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

    /// The files of a snapshot, by their paths below it; none where there is no snapshot.
    pub(crate) fn files(&self, commit: &str) -> Vec<String> {
        let mut files = Vec::new();
        list_files(&self.snapshot(commit), "", &mut files);
        files.sort();
        files
    }

    /// Whether the snapshot of `commit` has every file that the one of `other` has.
    pub(crate) fn covers(&self, commit: &str, other: &str) -> bool {
        let files = self.files(commit);
        let other = self.files(other);
        other.iter().all(|file| files.binary_search(file).is_ok())
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
            let mut file = File::create_new(&temporary)?;
            file.write_all(commit.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)
        };
        let is_done = || self.read_ref(revision).as_deref() == Some(commit);
        settle(write(), &temporary, is_done).map_err(|reason| HubError::Io { path, reason })
    }

    /// Makes `file` of the snapshot of `commit` the blob `etag`.
    pub(crate) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(file);
        create_parent(&path)?;
        let steps_up = "../".repeat(2 + file.matches('/').count());
        let target = format!("{steps_up}blobs/{etag}");
        let is_done = || std::fs::read_link(&path).is_ok_and(|found| found == Path::new(&target));
        if is_done() || symlink(&target, &path).is_ok() {
            return Ok(());
        }
        // Something else has the name: it is replaced in one step.
        let temporary = temporary_of(&path);
        let replaced =
            symlink(&target, &temporary).and_then(|()| std::fs::rename(&temporary, &path));
        let settled = settle(replaced, &temporary, is_done);
        settled.map_err(|reason| HubError::Io { path, reason })
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

/// A name beside `path` that nobody else uses. Servers in containers that share a cache have the
/// same process number, and the threads of one anyway.
fn temporary_of(path: &Path) -> PathBuf {
    static NUM_NAMES: AtomicU64 = AtomicU64::new(0);
    let number = NUM_NAMES.fetch_add(1, Ordering::Relaxed);
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanos = since_epoch.unwrap_or_default().as_nanos();
    let process = std::process::id();
    path.with_file_name(format!("{TEMPORARY_PREFIX}{process}-{number}-{nanos}.tmp"))
}

/// A failure counts only while the result is not there: another process may have made the same.
fn settle(result: io::Result<()>, temporary: &Path, is_done: impl Fn() -> bool) -> io::Result<()> {
    let Err(error) = result else {
        return Ok(());
    };
    // It may never have come to be.
    let _ = std::fs::remove_file(temporary);
    match is_done() {
        true => Ok(()),
        false => Err(error),
    }
}

/// Adds the whole files below `directory`, whose own path is `prefix`.
fn list_files(directory: &Path, prefix: &str, files: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = entry.path();
        // Links to directories are none of a hub's, and could lead in circles.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list_files(&path, &format!("{prefix}{name}/"), files);
        } else if path.is_file() && !name.starts_with(TEMPORARY_PREFIX) {
            files.push(format!("{prefix}{name}"));
        }
    }
}

/// Makes the directories that lead to `path`.
pub(crate) fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|reason| HubError::Io {
        path: parent.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITS: [&str; 2] = ["aaaaaaaa", "bbbbbbbb"];

    fn cache(directory: &Path) -> RepoCache {
        let home = directory.to_str().unwrap().to_owned();
        let config = HubConfig::from_env(&|name| (name == "HF_HOME").then(|| home.clone()));
        RepoCache::new(&config.unwrap(), "org/model")
    }

    #[test]
    fn threads_do_not_disturb_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let cache = &cache;
                scope.spawn(move || {
                    for step in 0..50 {
                        let etag = COMMITS[(thread + step) % 2];
                        cache.write_ref("main", etag).unwrap();
                        cache.link("c", "sub/x", etag).unwrap();
                        cache.link("c", &format!("{step}"), "same").unwrap();
                    }
                });
            }
        });
        assert!(COMMITS.contains(&cache.read_ref("main").unwrap().as_str()));
        let target = std::fs::read_link(cache.snapshot("c").join("sub/x")).unwrap();
        assert!(COMMITS.iter().any(|etag| target.ends_with(etag)));
        for place in ["refs", "snapshots/c/sub"] {
            let num_entries = std::fs::read_dir(cache.root().join(place)).unwrap().count();
            assert_eq!(num_entries, 1, "nothing temporary stays in {place}");
        }
    }

    #[test]
    fn a_snapshot_lists_its_whole_files() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path());
        let blob = cache.blob("here");
        create_parent(&blob).unwrap();
        std::fs::write(&blob, "x").unwrap();
        for (commit, file, etag) in [
            ("old", "b", "here"),
            ("old", "sub/a", "here"),
            ("old", "lost", "gone"),
            ("new", "b", "here"),
        ] {
            cache.link(commit, file, etag).unwrap();
        }
        assert_eq!(cache.files("old"), ["b", "sub/a"]);
        assert!(cache.covers("old", "new") && !cache.covers("new", "old"));
        assert!(cache.covers("new", "absent") && cache.files("absent").is_empty());
    }
}
