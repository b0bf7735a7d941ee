//! The epoch file: a few lines of text with a checksum, in the node's state directory.
//!
//! A lock file keeps two processes from sharing a state directory. A file that does not check is
//! never guessed at: the node refuses to start and says what can be done.
//!
//! Invariant: what `store` has returned `Ok` for is what `load` gives, after a loss of power, too.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use hotspare_failover::{Epoch, EpochFile};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use crate::PairError;
use crate::disk::{Disk, replace};

const NAME: &str = "epoch";
const LOCK_NAME: &str = "lock";
const TITLE: &str = "hotspare epoch file 1";

/// A locked state directory and its epoch file.
pub(crate) struct EpochStore {
    path: PathBuf,
    disk: Box<dyn Disk>,
    _lock: File,
}

impl EpochStore {
    /// Locks the directory, which is made where it is not there.
    pub(crate) fn open(dir: &Path, disk: Box<dyn Disk>) -> Result<Self, PairError> {
        let failed = |path: &Path, source: io::Error| PairError::File {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
        let lock_path = dir.join(LOCK_NAME);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|e| failed(&lock_path, e))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(PairError::Locked {
                    path: dir.to_owned(),
                });
            }
            Err(errno) => return Err(failed(&lock_path, errno.into())),
        }
        Ok(Self {
            path: dir.join(NAME),
            disk,
            _lock: lock,
        })
    }

    /// What the disk holds; the default where nothing was ever written.
    pub(crate) fn load(&self) -> Result<EpochFile, PairError> {
        let bytes = self.disk.read(&self.path).map_err(|source| {
            let path = self.path.clone();
            PairError::File { path, source }
        })?;
        let Some(bytes) = bytes else {
            return Ok(EpochFile::default());
        };
        parse(&bytes).map_err(|reason| PairError::EpochFileDamaged {
            path: self.path.clone(),
            reason: reason.to_owned(),
        })
    }

    /// Puts `file` on the disk, durably.
    pub(crate) fn store(&mut self, file: EpochFile) -> io::Result<()> {
        replace(self.disk.as_mut(), &self.path, render(file).as_bytes())
    }
}

fn checksum(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn render(file: EpochFile) -> String {
    let body = format!(
        "{TITLE}\nreserved {}\nseen {}\npaused {}\nmaintenance {}\n",
        file.reserved,
        file.seen,
        u8::from(file.paused),
        u8::from(file.maintenance),
    );
    let sum = checksum(&body);
    format!("{body}check {sum}\n")
}

fn parse(bytes: &[u8]) -> Result<EpochFile, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no text")?;
    let (body, check) = text.split_once("check ").ok_or("its end is missing")?;
    if check.strip_suffix('\n') != Some(&checksum(body)) {
        return Err("its checksum does not fit");
    }
    let mut lines = body.lines();
    if lines.next() != Some(TITLE) {
        return Err("another version wrote it");
    }
    let mut number = |name: &str| {
        let line = lines.next().and_then(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().parse::<u64>().ok())
            .ok_or("a line is missing")
    };
    Ok(EpochFile {
        reserved: Epoch::new(number("reserved")?),
        seen: Epoch::new(number("seen")?),
        paused: number("paused")? != 0,
        maintenance: number("maintenance")? != 0,
    })
}

#[cfg(test)]
#[path = "epoch_file_test.rs"]
mod tests;
