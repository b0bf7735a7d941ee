//! Prefixes that are in the cache of another engine: what this one says of its own blocks, so that
//! they can be kept elsewhere, and how blocks that were kept come in.
//!
//! An import takes only blocks that hold nothing, so it never costs cached content. What came in is
//! in the prefix cache like any other block that nobody references.
//!
//! Invariant: an imported block holds exactly the prefix that it is found by: a source compares
//! tokens, keys and the entry before, as the cache itself does.

use std::sync::Arc;

use hotspare_batch::{BlockId, KvBlock, TokenId};

use crate::Scheduler;
use crate::block_pool::FreeEnd;
use crate::kv_blocks::{BlockTable, KvBlocks, PrefixChain, hash_block};
use crate::prefix_cache::{BlockContent, PrefixId};

/// A full block in the prefix cache.
#[derive(Clone, Debug)]
pub struct CachedBlock {
    /// Where it is.
    pub block: BlockId,
    /// Hash of its tokens and of all before them.
    pub hash: u64,
    /// Names its place in the cache; never used for another content.
    pub id: PrefixId,
    /// The cached block before it; `None` for the first of a sequence.
    pub parent: Option<PrefixId>,
    /// `block_size` tokens.
    pub token_ids: Vec<TokenId>,
    /// What its content depends on beside tokens.
    pub keys: Arc<[u64]>,
}

/// What a block must hold to be found in a [`KvSource`].
#[derive(Clone, Copy, Debug)]
pub struct WantedBlock<'a> {
    /// Hash of its tokens and of all before them.
    pub hash: u64,
    /// The source's entry for the block before; `None` for a sequence's first block.
    pub parent: Option<u64>,
    /// `block_size` tokens.
    pub token_ids: &'a [TokenId],
    /// What the content depends on beside tokens.
    pub keys: &'a [u64],
}

/// Blocks of another engine's cache.
pub trait KvSource {
    /// The entry that holds exactly what is wanted.
    fn find(&self, wanted: &WantedBlock<'_>) -> Option<u64>;

    /// K and V of an entry; `None` where they are damaged.
    fn read(&mut self, entry: u64) -> Option<Vec<u8>>;
}

impl Scheduler {
    /// Moves the blocks that were cached since the last call to the end of `out`, where the
    /// config reports them.
    pub fn take_cached_blocks(&mut self, out: &mut impl Extend<CachedBlock>) {
        out.extend(self.blocks.registered.drain(..));
    }

    /// Whether the block still holds what it did when it was reported.
    pub fn is_cached(&self, id: PrefixId) -> bool {
        self.blocks.is_current(id)
    }

    /// Takes the longest prefix of `ids` that `source` has, as far as it is not cached here and
    /// there are blocks that hold nothing. The caller fills the blocks before the next batch is
    /// computed.
    pub fn import_prefix(
        &mut self,
        ids: &[TokenId],
        keys: &[u64],
        source: &mut dyn KvSource,
    ) -> Vec<KvBlock> {
        // The last token is always computed.
        let max_num_blocks = ids.len().saturating_sub(1) / self.config.block_size;
        self.blocks.import(ids, keys, max_num_blocks, source)
    }
}

impl KvBlocks {
    fn import(
        &mut self,
        ids: &[TokenId],
        keys: &[u64],
        max_num_blocks: usize,
        source: &mut dyn KvSource,
    ) -> Vec<KvBlock> {
        let mut chain = PrefixChain::new(keys.to_vec());
        let mut loads = Vec::new();
        // Held until all are there, and given back last one first, as a sequence gives back.
        let mut held = BlockTable::default();
        let mut parent_entry = None;
        let tokens = ids.chunks_exact(self.block_size).take(max_num_blocks);
        for (place, token_ids) in tokens.enumerate() {
            let hash = hash_block(&mut self.hasher, &mut chain, place, token_ids);
            let wanted = WantedBlock {
                hash,
                parent: parent_entry,
                token_ids,
                keys,
            };
            let Some(entry) = source.find(&wanted) else {
                break;
            };
            let content = BlockContent {
                hash,
                parent: chain.parent,
                tokens: token_ids,
                keys: &chain.keys,
            };
            let Some((block, id)) = self.hold(&content, || source.read(entry), &mut loads) else {
                break;
            };
            held.blocks.push(block);
            (chain.parent, parent_entry) = (Some(id), Some(entry));
        }
        self.release(&mut held);
        loads
    }

    /// A reference on the block of `content`: the cached one, or a new one for what `read` gives.
    fn hold(
        &mut self,
        content: &BlockContent<'_>,
        read: impl FnOnce() -> Option<Vec<u8>>,
        loads: &mut Vec<KvBlock>,
    ) -> Option<(BlockId, PrefixId)> {
        let cache = self.cache.as_mut()?;
        if let Some((block, id)) = cache.find(content) {
            if self.pool.ref_count(block) == 0 {
                self.num_cached_free -= 1;
            }
            self.pool.acquire(block);
            return Some((block, id));
        }
        if self.pool.num_free() == self.num_cached_free {
            return None;
        }
        let bytes = read()?;
        let block = self.pool.take_emptiest()?;
        let registration = cache.register(block, content);
        if let Some(dropped) = registration.dropped
            && self.pool.ref_count(dropped) == 0
        {
            self.num_cached_free -= 1;
        }
        match registration.id {
            Some(id) if id.block() == block => {
                self.report(id, content);
                loads.push(KvBlock { block, bytes });
                Some((block, id))
            }
            // A collision of hashes.
            _ => {
                self.pool.release(block, FreeEnd::Front);
                None
            }
        }
    }

    /// Notes that `id` holds `content` from now on.
    pub(crate) fn report(&mut self, id: PrefixId, content: &BlockContent<'_>) {
        if self.reports_registered {
            self.registered.push(CachedBlock {
                block: id.block(),
                hash: content.hash,
                id,
                parent: content.parent,
                token_ids: content.tokens.to_vec(),
                keys: Arc::clone(content.keys),
            });
        }
    }

    fn is_current(&self, id: PrefixId) -> bool {
        self.cache
            .as_ref()
            .is_some_and(|cache| cache.is_current(id))
    }
}
