//! Which block holds which prefix: an index from the hash of a full block's content to the block.
//!
//! An entry remembers its tokens, its keys and the identity of the entry before it. A lookup
//! compares all of them, so by induction a hit holds exactly the wanted prefix, whatever the hash
//! function does.
//!
//! Invariant: a hash names at most one block, and a live entry's hash names its block.

use std::sync::Arc;

use hotspare_batch::{BlockId, TokenId};
use rustc_hash::{FxBuildHasher, FxHashMap};

/// Identity of an entry: a block and the number of times it had been given up before. Never used
/// twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixId {
    block: BlockId,
    generation: u64,
}

impl PrefixId {
    /// The block.
    pub fn block(self) -> BlockId {
        self.block
    }
}

/// A full block's content, as far as the cache can compare it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockContent<'a> {
    pub(crate) hash: u64,
    /// The entry of the block before; `None` for a sequence's first block.
    pub(crate) parent: Option<PrefixId>,
    /// `block_size` tokens.
    pub(crate) tokens: &'a [TokenId],
    pub(crate) keys: &'a Arc<[u64]>,
}

/// What became of a block offered to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    /// The entry that stands for the content: the block's own, or that of an equal block that came
    /// first. `None` where the content cannot be indexed.
    pub(crate) id: Option<PrefixId>,
    /// A block that lost its entry, because nothing could reach it any more.
    pub(crate) dropped: Option<BlockId>,
}

#[derive(Clone, Debug)]
struct Entry {
    is_live: bool,
    generation: u64,
    hash: u64,
    parent: Option<PrefixId>,
    keys: Arc<[u64]>,
}

/// The index.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    block_size: usize,
    by_hash: FxHashMap<u64, BlockId>,
    entries: Vec<Entry>,
    /// `block_size` tokens for each block.
    tokens: Vec<TokenId>,
}

impl PrefixCache {
    pub(crate) fn new(num_blocks: usize, block_size: usize) -> Self {
        let keys: Arc<[u64]> = Arc::from([]);
        let entry = Entry {
            is_live: false,
            generation: 0,
            hash: 0,
            parent: None,
            keys,
        };
        Self {
            block_size,
            by_hash: FxHashMap::with_capacity_and_hasher(num_blocks, FxBuildHasher),
            entries: vec![entry; num_blocks],
            tokens: vec![0; num_blocks * block_size],
        }
    }

    /// Whether `block` has an entry.
    pub(crate) fn contains(&self, block: BlockId) -> bool {
        self.entries[block as usize].is_live
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// The block that holds exactly `content`.
    pub(crate) fn find(&self, content: &BlockContent<'_>) -> Option<(BlockId, PrefixId)> {
        let block = *self.by_hash.get(&content.hash)?;
        self.holds(block, content).then(|| (block, self.id(block)))
    }

    /// Makes `block`, which holds `content` and has no entry, findable.
    pub(crate) fn register(&mut self, block: BlockId, content: &BlockContent<'_>) -> Registration {
        assert!(!self.contains(block), "block {block} is registered once");
        if content
            .parent
            .is_some_and(|parent| !self.is_current(parent))
        {
            return Registration {
                id: None,
                dropped: None,
            };
        }
        let mut dropped = None;
        if let Some(&holder) = self.by_hash.get(&content.hash) {
            if self.holds(holder, content) {
                return Registration {
                    id: Some(self.id(holder)),
                    dropped,
                };
            }
            // A holder whose parent is gone cannot be found by anyone: it makes way. Any other is a
            // true collision, and stays.
            let parent = self.entries[holder as usize].parent;
            if parent.is_none_or(|parent| self.is_current(parent)) {
                return Registration { id: None, dropped };
            }
            self.remove(holder);
            dropped = Some(holder);
        }
        self.insert(block, content);
        Registration {
            id: Some(self.id(block)),
            dropped,
        }
    }

    /// Forgets `block`'s entry; its content is about to be overwritten. False if it had none.
    pub(crate) fn remove(&mut self, block: BlockId) -> bool {
        let entry = &mut self.entries[block as usize];
        if !entry.is_live {
            return false;
        }
        entry.is_live = false;
        entry.generation += 1;
        let named = self.by_hash.remove(&entry.hash);
        debug_assert_eq!(named, Some(block), "a live entry's hash names its block");
        true
    }

    fn insert(&mut self, block: BlockId, content: &BlockContent<'_>) {
        let entry = &mut self.entries[block as usize];
        entry.is_live = true;
        entry.hash = content.hash;
        entry.parent = content.parent;
        entry.keys = Arc::clone(content.keys);
        let start = block as usize * self.block_size;
        self.tokens[start..start + self.block_size].copy_from_slice(content.tokens);
        self.by_hash.insert(content.hash, block);
    }

    fn holds(&self, block: BlockId, content: &BlockContent<'_>) -> bool {
        let entry = &self.entries[block as usize];
        let start = block as usize * self.block_size;
        entry.parent == content.parent
            && self.tokens[start..start + self.block_size] == *content.tokens
            && (Arc::ptr_eq(&entry.keys, content.keys) || entry.keys == *content.keys)
    }

    fn id(&self, block: BlockId) -> PrefixId {
        PrefixId {
            block,
            generation: self.entries[block as usize].generation,
        }
    }

    pub(crate) fn is_current(&self, id: PrefixId) -> bool {
        let entry = &self.entries[id.block as usize];
        entry.is_live && entry.generation == id.generation
    }

    /// Checks the invariant of this type.
    ///
    /// # Panics
    /// Where index and entries disagree.
    pub(crate) fn check_integrity(&self) {
        for (&hash, &block) in &self.by_hash {
            let entry = &self.entries[block as usize];
            assert!(
                entry.is_live,
                "the index names block {block}, which has no entry"
            );
            assert_eq!(
                entry.hash, hash,
                "the index names block {block} by its hash"
            );
        }
        let num_live = self.entries.iter().filter(|entry| entry.is_live).count();
        assert_eq!(num_live, self.by_hash.len(), "every entry is in the index");
    }
}
