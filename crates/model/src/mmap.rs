//! A file mapped into memory: weights are read in place, shared between processes, and paged in on
//! use.
//!
//! Invariant: the mapping is read-only and lives as long as every view of it (`Arc`).

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::weights::WeightBytes;
use crate::{FileIdentity, ModelError};

/// A read-only memory-mapped file.
#[derive(Debug)]
pub(crate) struct MappedFile {
    mapping: Mmap,
    identity: Option<FileIdentity>,
}

impl MappedFile {
    /// Maps the whole of `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let io_error = |reason| ModelError::Io {
            path: path.to_owned(),
            reason,
        };
        let file = File::open(path).map_err(io_error)?;
        // SAFETY: the mapping is read-only and private to this type, which hands out `&[u8]` only.
        // Rust cannot rule out that another process writes to or truncates the file meanwhile; as
        // with every server that maps its weights, the operator must replace model files by
        // renaming, never in place.
        #[allow(unsafe_code)]
        let mapping = unsafe { Mmap::map(&file) }.map_err(io_error)?;
        Ok(Self {
            mapping,
            identity: FileIdentity::of(&file, path),
        })
    }
}

impl WeightBytes for MappedFile {
    fn bytes(&self) -> &[u8] {
        &self.mapping
    }

    fn identity(&self) -> Option<&FileIdentity> {
        self.identity.as_ref()
    }
}
