//! Writes the blocks of the engine that serves.
//!
//! A block's slot is its own number, so the file grows as the pool does; blocks beyond the bound
//! are not kept.
//!
//! Invariant: a record names its parent's entry only while that is in the file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use hotspare_scheduler::{CachedBlock, PrefixId};
use xxhash_rust::xxh3::xxh3_64;

use super::layout::{FILE_HEADER_LEN, Identity, MAX_NUM_KEYS, Record};

/// See the module.
#[derive(Debug)]
pub(super) struct MirrorWriter {
    file: File,
    identity: Identity,
    /// What each slot holds, and its entry.
    slots: Vec<Option<(PrefixId, u64)>>,
    last_entry: u64,
    buffer: Vec<u8>,
}

impl MirrorWriter {
    /// Starts a file of at most `max_bytes` for a pool of `num_blocks`.
    ///
    /// # Errors
    /// The file cannot be opened or written, or does not hold a single block.
    pub(super) fn create(
        path: &Path,
        identity: Identity,
        num_blocks: usize,
        max_bytes: usize,
    ) -> io::Result<Self> {
        let too_small = || io::Error::other("it is too small for one block");
        let header = identity.header().ok_or_else(too_small)?;
        let num_slots = max_bytes.saturating_sub(FILE_HEADER_LEN) / identity.slot_len();
        if num_slots == 0 {
            return Err(too_small());
        }
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(&header, 0)?;
        Ok(Self {
            file,
            slots: vec![None; num_slots.min(num_blocks)],
            last_entry: 0,
            buffer: Vec::with_capacity(identity.slot_len()),
            identity,
        })
    }

    /// Whether [`Self::write`] would keep it.
    pub(super) fn wants(&self, cached: &CachedBlock) -> bool {
        (cached.block as usize) < self.slots.len() && cached.keys.len() <= MAX_NUM_KEYS
    }

    /// Writes a block, unless the one before it is not in the file.
    ///
    /// # Errors
    /// Of the file; the slot then holds nothing.
    pub(super) fn write(&mut self, cached: &CachedBlock, kv: &[u8]) -> io::Result<()> {
        let parent = match cached.parent {
            None => 0,
            Some(parent) => match self.slots.get(parent.block() as usize) {
                Some(&Some((id, entry))) if id == parent => entry,
                _ => return Ok(()),
            },
        };
        let slot = cached.block as usize;
        if !self.wants(cached) || kv.len() != self.identity.block_bytes {
            return Ok(());
        }
        self.last_entry += 1;
        let record = Record {
            entry: self.last_entry,
            parent,
            hash: cached.hash,
            token_ids: cached.token_ids.clone(),
            keys: cached.keys.to_vec(),
            kv_checksum: xxh3_64(kv),
        };
        self.buffer.clear();
        record.write(&self.identity, &mut self.buffer);
        self.buffer.extend_from_slice(kv);
        self.slots[slot] = None;
        let offset = self.identity.offset(slot as u64);
        self.file.write_all_at(&self.buffer, offset)?;
        self.slots[slot] = Some((cached.id, self.last_entry));
        Ok(())
    }
}
