//! The epoch file over disks that fail, lie about nothing, and lose power.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hotspare_failover::{Epoch, EpochFile};
use proptest::prelude::*;

use super::*;
use crate::disk::RealDisk;

fn epochs(number: u64) -> EpochFile {
    EpochFile {
        reserved: Epoch::new(number + 2),
        seen: Epoch::new(number),
        paused: number % 2 == 1,
        maintenance: number % 3 == 1,
    }
}

/// A disk in memory: what is synced survives, and the operation of a given number fails.
#[derive(Clone, Default)]
struct FailingDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// What the kernel shows.
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// What is left after a loss of power.
    durable: BTreeMap<PathBuf, Vec<u8>>,
    /// Contents that are synced, by name.
    synced: BTreeMap<PathBuf, Vec<u8>>,
    operations: usize,
    fail_at: Option<usize>,
}

impl Inner {
    fn operation(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.fail_at == Some(self.operations - 1) {
            return Err(io::Error::other("the disk fails"));
        }
        Ok(())
    }
}

impl Disk for FailingDisk {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.inner.lock().expect("lock").files.get(path).cloned())
    }

    fn write_synced(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner.lock().expect("lock");
        // A write that fails leaves half of it.
        let half = bytes[..bytes.len() / 2].to_vec();
        inner.files.insert(path.to_owned(), half);
        inner.synced.remove(path);
        inner.operation()?;
        inner.files.insert(path.to_owned(), bytes.to_vec());
        inner.synced.insert(path.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock().expect("lock");
        inner.operation()?;
        let bytes = inner.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.files.insert(to.to_owned(), bytes);
        let synced = inner.synced.remove(from);
        inner.synced.remove(to);
        if let Some(synced) = synced {
            inner.synced.insert(to.to_owned(), synced);
        }
        Ok(())
    }

    fn sync_dir(&mut self, _dir: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock().expect("lock");
        inner.operation()?;
        inner.durable = inner.synced.clone();
        Ok(())
    }
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut store = EpochStore::open(dir.path(), Box::new(RealDisk)).expect("opened");
    assert_eq!(store.load().expect("nothing yet"), EpochFile::default());
    for number in [0, 1, 2, 3, u64::MAX - 2] {
        store.store(epochs(number)).expect("written");
        assert_eq!(store.load().expect("read"), epochs(number));
    }
}

#[test]
fn a_damaged_file_is_refused_with_advice() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut store = EpochStore::open(dir.path(), Box::new(RealDisk)).expect("opened");
    store.store(epochs(12)).expect("written");
    let path = dir.path().join(NAME);
    let good = std::fs::read(&path).expect("read");
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        std::fs::write(&path, &flipped).expect("written");
        let error = store.load().expect_err("a flipped bit");
        assert!(
            matches!(error, PairError::EpochFileDamaged { .. }),
            "{error}"
        );
        std::fs::write(&path, &good[..at]).expect("written");
        let error = store.load().expect_err("a short file").to_string();
        assert!(error.contains("Restore the file from a backup"), "{error}");
    }
}

#[test]
fn two_processes_never_share_a_state_directory() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = EpochStore::open(dir.path(), Box::new(RealDisk)).expect("opened");
    let second = EpochStore::open(dir.path(), Box::new(RealDisk));
    assert!(matches!(second, Err(PairError::Locked { .. })));
    drop(first);
    assert!(EpochStore::open(dir.path(), Box::new(RealDisk)).is_ok());
}

proptest! {
    /// Whatever fails, and whenever the power goes: what was answered for is there, whole.
    #[test]
    fn a_failing_disk_never_takes_back_what_was_answered_for(
        writes in prop::collection::vec((0_u64..1000, prop::option::of(0_usize..3)), 1..12),
        power in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = FailingDisk::default();
        let mut store = EpochStore::open(dir.path(), Box::new(disk.clone())).expect("opened");
        let mut answered = EpochFile::default();
        let mut possible = vec![answered];
        for (number, fail) in writes {
            {
                let mut inner = disk.inner.lock().expect("lock");
                inner.fail_at = fail.map(|offset| inner.operations + offset);
            }
            if store.store(epochs(number)).is_ok() {
                answered = epochs(number);
                possible = vec![answered];
            } else {
                // It may be there, or not; in halves it is never.
                possible.push(epochs(number));
            }
            let mut inner = disk.inner.lock().expect("lock");
            inner.fail_at = None;
            let left = if power { inner.durable.clone() } else { inner.files.clone() };
            drop(inner);
            let after = FailingDisk::default();
            after.inner.lock().expect("lock").files = left;
            let bytes = after.read(&dir.path().join(NAME)).expect("read");
            let read = match bytes {
                None => EpochFile::default(),
                Some(bytes) => parse(&bytes).expect("whole"),
            };
            prop_assert!(possible.contains(&read), "{read:?} of {possible:?}");
        }
        prop_assert!(possible.contains(&answered));
    }
}
