//! Reads the blocks that a lost engine left.
//!
//! The index is made once, from the records alone; K and V are read, and checked, when a sequence
//! wants them.
//!
//! Invariant: nobody writes the file any more, and if somebody did, checksums would tell.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use hotspare_scheduler::{KvSource, WantedBlock};
use xxhash_rust::xxh3::xxh3_64;

use super::layout::{FILE_HEADER_LEN, Identity, Record};

/// See the module.
#[derive(Debug)]
pub(super) struct MirrorSource {
    file: File,
    identity: Identity,
    by_hash: HashMap<u64, Record>,
    /// Slot and checksum of K and V, by entry.
    kv: HashMap<u64, (u64, u64)>,
}

impl MirrorSource {
    /// Opens what an engine of the same `identity` left; at most `max_num_slots` of it.
    ///
    /// # Errors
    /// The file cannot be read, or it is of another engine.
    pub(super) fn open(path: &Path, identity: &Identity, max_num_slots: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut header = vec![0; FILE_HEADER_LEN];
        file.read_exact_at(&mut header, 0)?;
        if identity.header() != Some(header) {
            return Err(io::Error::other("it is of another model or numerics"));
        }
        let len = file
            .metadata()?
            .len()
            .saturating_sub(FILE_HEADER_LEN as u64);
        let num_slots = len.div_ceil(identity.slot_len() as u64).min(max_num_slots);
        let mut source = Self {
            file,
            identity: identity.clone(),
            by_hash: HashMap::new(),
            kv: HashMap::new(),
        };
        let mut bytes = vec![0; Record::len(identity)];
        for slot in 0..num_slots {
            // The last slot may be cut short.
            if source
                .file
                .read_exact_at(&mut bytes, identity.offset(slot))
                .is_ok()
                && let Some(record) = Record::read(&bytes)
            {
                source.insert(slot, record);
            }
        }
        Ok(source)
    }

    fn insert(&mut self, slot: u64, record: Record) {
        self.kv.insert(record.entry, (slot, record.kv_checksum));
        // Of equal content the later one has children that are of use.
        let known = self.by_hash.get(&record.hash);
        if known.is_none_or(|known| known.entry < record.entry) {
            self.by_hash.insert(record.hash, record);
        }
    }

    /// Number of blocks.
    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }
}

impl KvSource for MirrorSource {
    fn find(&self, wanted: &WantedBlock<'_>) -> Option<u64> {
        let record = self.by_hash.get(&wanted.hash)?;
        let is_it = record.parent == wanted.parent.unwrap_or(0)
            && record.token_ids == wanted.token_ids
            && record.keys == wanted.keys;
        is_it.then_some(record.entry)
    }

    fn read(&mut self, entry: u64) -> Option<Vec<u8>> {
        let &(slot, checksum) = self.kv.get(&entry)?;
        let mut bytes = vec![0; self.identity.block_bytes];
        let read = self
            .file
            .read_exact_at(&mut bytes, self.identity.kv_offset(slot));
        let is_whole = read.is_ok() && xxh3_64(&bytes) == checksum;
        is_whole.then_some(bytes)
    }
}
