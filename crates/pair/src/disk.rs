//! What the epoch file needs of a disk, as a trait, so that tests can make it fail.
//!
//! Invariant: after `replace` has returned `Ok`, a loss of power leaves the new content; after an
//! error, the old or the new one, whole.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// One small file that is replaced as a whole.
pub(crate) trait Disk: Send {
    /// The content; `None`: there is no such file.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;
    /// Writes a file anew and syncs its content.
    fn write_synced(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Gives a file the name of another one, in its place.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Syncs the names in a folder.
    fn sync_dir(&mut self, dir: &Path) -> io::Result<()>;
}

/// The operating system's.
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_synced(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = std::fs::File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        std::fs::File::open(dir)?.sync_all()
    }
}

/// Puts `bytes` in the place of the file, durably.
pub(crate) fn replace(disk: &mut dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let new: PathBuf = path.with_extension("new");
    disk.write_synced(&new, bytes)?;
    disk.rename(&new, path)?;
    disk.sync_dir(dir)
}
