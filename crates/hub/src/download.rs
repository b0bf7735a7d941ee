//! Brings one file's bytes into the cache.
//!
//! They are appended to `ETAG.incomplete`; a connection that ends too early is taken up where it
//! ended, also by a later process. The file gets its name when its length and hash are right and it
//! is on disk.
//!
//! Invariant: every byte that is kept went through the digest.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::{FileBytes, FileMeta, Repo};
use crate::cache::{RepoCache, create_parent};
use crate::digest::{Digest, EtagKind};
use crate::failure::Failure;
use crate::fetch::HubProgress;
use crate::{HubConfig, HubError};

/// Bytes that are read, hashed and written at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// One file that is not in the cache yet.
pub(crate) struct Download<'a> {
    pub(crate) repo: &'a Repo<'a>,
    pub(crate) cache: &'a RepoCache,
    pub(crate) file: &'a str,
    pub(crate) meta: &'a FileMeta,
}

/// The file in the making.
struct Partial {
    file: File,
    num_bytes: u64,
    digest: Digest,
}

/// How an attempt ended that did not bring the file's end.
enum Stop {
    /// Trying again may help.
    Cut {
        reason: String,
        asked_ms: Option<u64>,
    },
    Failed(HubError),
}

impl From<HubError> for Stop {
    fn from(error: HubError) -> Self {
        Self::Failed(error)
    }
}

impl Download<'_> {
    /// Fetches the blob, unless it is there or another process brings it.
    pub(crate) fn run(&self, progress: &mut dyn FnMut(HubProgress<'_>)) -> Result<(), HubError> {
        if self.is_there() {
            return Ok(());
        }
        let (file, config) = (self.file, self.config());
        let timeout = Duration::from_millis(config.lock_timeout_ms);
        let _lock = self.cache.lock(&self.meta.etag, file, timeout, &mut || {
            progress(HubProgress::Waiting { file });
        })?;
        if self.is_there() {
            return Ok(());
        }
        let path = self.incomplete();
        create_parent(&path)?;
        let resumes = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0);
        match self.bring(&path, progress) {
            // What was there before may be of another file of that name: once more from nothing.
            Err(HubError::Damaged { .. }) if resumes => self.bring(&path, progress),
            result => result,
        }
    }

    fn config(&self) -> &HubConfig {
        self.repo.client.config
    }

    /// Whether the blob is in the cache, as long as it should be.
    fn is_there(&self) -> bool {
        let length = std::fs::metadata(self.cache.blob(&self.meta.etag))
            .map(|m| m.len())
            .ok();
        length.is_some_and(|length| self.meta.num_bytes.is_none_or(|n| n == length))
    }

    fn incomplete(&self) -> PathBuf {
        let mut name = self.cache.blob(&self.meta.etag).into_os_string();
        name.push(".incomplete");
        PathBuf::from(name)
    }

    /// From what `path` has to the whole blob.
    fn bring(
        &self,
        path: &Path,
        progress: &mut dyn FnMut(HubProgress<'_>),
    ) -> Result<(), HubError> {
        let io_error = |error| self.io_error(error);
        let mut partial = self.open(path).map_err(io_error)?;
        let mut num_failures = 0;
        let mut num_attempts = 0;
        // Bytes that are fetched once more, after a restart, are no progress.
        let mut best_num_bytes = partial.num_bytes;
        while self.meta.num_bytes != Some(partial.num_bytes) {
            num_attempts += 1;
            let (reason, asked_ms) = match self.attempt(&mut partial, progress) {
                Ok(()) => break,
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Cut { reason, asked_ms }) => (reason, asked_ms),
            };
            let gained = partial.num_bytes.saturating_sub(best_num_bytes);
            best_num_bytes = best_num_bytes.max(partial.num_bytes);
            num_failures = match gained >= self.config().min_retry_progress_bytes {
                true => 1,
                false => num_failures + 1,
            };
            if num_failures > self.config().max_num_retries {
                return Err(HubError::Cut {
                    file: self.file.to_owned(),
                    num_attempts,
                    num_bytes: partial.num_bytes,
                    reason,
                });
            }
            let wait = self.repo.client.backoff(num_failures - 1, asked_ms);
            progress(HubProgress::Retry {
                file: self.file,
                num_bytes: partial.num_bytes,
                reason: &reason,
                wait,
            });
            std::thread::sleep(wait);
        }
        self.finish(path, partial)
    }

    /// Opens what is there, and takes it through the digest.
    fn open(&self, path: &Path) -> io::Result<Partial> {
        let options = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path);
        let mut file = options?;
        let mut digest = Digest::new(&self.meta.etag, self.meta.num_bytes);
        let mut num_bytes = file.metadata()?.len();
        if self.meta.num_bytes.is_some_and(|n| num_bytes > n) {
            file.set_len(0)?;
            num_bytes = 0;
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut num_read = 0;
        while num_read < num_bytes {
            let len = file.read(&mut buffer)?;
            if len == 0 {
                break;
            }
            digest.update(&buffer[..len]);
            num_read += len as u64;
        }
        Ok(Partial {
            file,
            num_bytes: num_read,
            digest,
        })
    }

    /// One request for the rest, until it ends.
    fn attempt(
        &self,
        partial: &mut Partial,
        progress: &mut dyn FnMut(HubProgress<'_>),
    ) -> Result<(), Stop> {
        let opened = self.repo.open(self.file, self.meta, partial.num_bytes);
        let bytes = match opened {
            Ok(bytes) => bytes,
            Err(failure) if failure.status() == Some(416) && partial.num_bytes > 0 => {
                // What is there is of no use.
                self.restart(partial).map_err(|e| self.io_error(e))?;
                return Err(cut("the storage does not continue (416)".to_owned()));
            }
            Err(failure @ Failure::NoAnswer { .. }) => return Err(cut(failure.to_string())),
            Err(failure) if failure.is_transient() => {
                return Err(Stop::Cut {
                    reason: failure.to_string(),
                    asked_ms: failure.retry_after_ms(),
                });
            }
            // A refusal says nothing about what is there.
            Err(failure) => return Err(self.repo.explain(failure, Some(self.file)).into()),
        };
        // `hf-hub` does not say whether the storage heeded where to begin. As long as the whole
        // file is the whole file; where that is wrong, the next attempt begins at nothing.
        let is_whole = partial.num_bytes > 0 && bytes.num_bytes == self.meta.num_bytes;
        if is_whole {
            self.restart(partial).map_err(|e| self.io_error(e))?;
        }
        let result = self.read(bytes, partial, progress);
        let is_over = self.meta.num_bytes == Some(partial.num_bytes);
        if is_whole && !is_over && matches!(result, Err(Stop::Cut { .. })) {
            self.restart(partial).map_err(|e| self.io_error(e))?;
        }
        result
    }

    fn restart(&self, partial: &mut Partial) -> io::Result<()> {
        partial.file.set_len(0)?;
        partial.file.seek(SeekFrom::Start(0))?;
        partial.num_bytes = 0;
        partial.digest = Digest::new(&self.meta.etag, self.meta.num_bytes);
        Ok(())
    }

    fn read(
        &self,
        mut bytes: FileBytes,
        partial: &mut Partial,
        progress: &mut dyn FnMut(HubProgress<'_>),
    ) -> Result<(), Stop> {
        let client = self.repo.client;
        let was_resumed = partial.num_bytes > 0;
        loop {
            let chunk = match client.next_bytes(&mut bytes.stream) {
                None if self.meta.num_bytes.is_some_and(|n| partial.num_bytes < n) => {
                    return Err(cut("the connection ended early".to_owned()));
                }
                None => return Ok(()),
                Some(Ok(chunk)) => chunk,
                Some(Err(failure)) => return Err(cut(failure.to_string())),
            };
            let num_bytes = partial.num_bytes + chunk.len() as u64;
            if self.meta.num_bytes.is_some_and(|n| num_bytes > n) {
                self.restart(partial).map_err(|e| self.io_error(e))?;
                return Err(match was_resumed {
                    true => cut("the storage does not continue where it was asked to".to_owned()),
                    false => self.damaged("more bytes than announced".to_owned()).into(),
                });
            }
            let written = partial.file.write_all(&chunk);
            written.map_err(|e| self.io_error(e))?;
            partial.digest.update(&chunk);
            partial.num_bytes = num_bytes;
            progress(HubProgress::Bytes {
                file: self.file,
                num_new: chunk.len() as u64,
            });
        }
    }

    /// Checks the digest and gives the file its name.
    fn finish(&self, path: &Path, partial: Partial) -> Result<(), HubError> {
        let found = partial.digest.finish();
        if found.as_ref().is_some_and(|found| *found != self.meta.etag) {
            let found = found.unwrap_or_default();
            let kind = match EtagKind::of(&self.meta.etag) {
                EtagKind::Sha256 => "SHA-256",
                _ => "git hash",
            };
            std::fs::remove_file(path).map_err(|e| self.io_error(e))?;
            let expected = &self.meta.etag;
            return Err(self.damaged(format!(
                "its {kind} is {found}, and the hub announced {expected}"
            )));
        }
        if found.is_none() {
            let file = self.file;
            tracing::warn!(
                file,
                "the hub announced no hash: only the length is checked"
            );
        }
        let blob = self.cache.blob(&self.meta.etag);
        let sync = || {
            partial.file.sync_all()?;
            std::fs::rename(path, &blob)?;
            File::open(blob.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        sync().map_err(|e| self.io_error(e))
    }

    fn damaged(&self, reason: String) -> HubError {
        HubError::Damaged {
            file: self.file.to_owned(),
            reason,
        }
    }

    fn io_error(&self, error: io::Error) -> HubError {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let path = self.cache.root().to_owned();
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => HubError::NoSpace {
                file: self.file.to_owned(),
                path,
                reason: error.to_string(),
            },
            _ => HubError::Io {
                path,
                reason: error,
            },
        }
    }
}

fn cut(reason: String) -> Stop {
    Stop::Cut {
        reason,
        asked_ms: None,
    }
}
