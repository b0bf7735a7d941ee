//! KV blocks as the scheduler sees them: the pool and the prefix cache, kept in step.
//!
//! A freed block that the cache can find goes to the back of the free list, any other to the front,
//! so what is evicted is the least recently used. A sequence's blocks are freed last one first: the
//! end of a prefix is evicted before its beginning, without which it could not be found. Blocks
//! that left a sliding window are freed before the sequence ends, first one first, since nothing
//! else is possible: of a long prefix the beginning goes first then.
//!
//! Invariant: `num_cached_free` is the number of cached blocks in the free list.

use std::sync::Arc;

use hotspare_batch::{BlockId, TokenId};

use crate::SchedulerConfig;
use crate::block_hash::{BlockHasher, HashFn};
use crate::block_pool::{BlockPool, FreeEnd};
use crate::kv_import::CachedBlock;
use crate::prefix_cache::{BlockContent, PrefixCache, PrefixId};

/// The blocks of a sequence, in the order of its positions.
#[derive(Debug, Default)]
pub(crate) struct BlockTable {
    pub(crate) blocks: Vec<BlockId>,
    /// Leading blocks that were given back, because no layer sees their positions any more. What
    /// stands in their place is not the sequence's, and no row of it reads there.
    num_dropped: usize,
}

impl BlockTable {
    /// Number of blocks, those included that were given back.
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// All blocks, those included that were given back.
    pub(crate) fn all(&self) -> &[BlockId] {
        &self.blocks
    }

    /// The blocks that the sequence holds a reference on.
    pub(crate) fn held(&self) -> &[BlockId] {
        &self.blocks[self.num_dropped..]
    }

    pub(crate) fn num_dropped(&self) -> usize {
        self.num_dropped
    }
}

/// A sequence's way through the prefix cache.
#[derive(Debug)]
pub(crate) struct PrefixChain {
    pub(crate) keys: Arc<[u64]>,
    /// Hashes of the sequence's first full blocks. They depend on the ids alone and outlive a
    /// preemption.
    hashes: Vec<u64>,
    /// Leading blocks of the block table that were found in the cache or offered to it.
    num_registered: usize,
    /// The cache entry for the last of them.
    pub(crate) parent: Option<PrefixId>,
    /// The content before the next block has no entry, so nothing after it can have one.
    is_broken: bool,
}

impl PrefixChain {
    pub(crate) fn new(keys: Vec<u64>) -> Self {
        let keys = Arc::from(keys);
        Self {
            keys,
            hashes: Vec::new(),
            num_registered: 0,
            parent: None,
            is_broken: false,
        }
    }
}

/// The pool, and the cache over it where prefix caching is on.
pub(crate) struct KvBlocks {
    pub(crate) block_size: usize,
    pub(crate) pool: BlockPool,
    pub(crate) cache: Option<PrefixCache>,
    pub(crate) hasher: BlockHasher,
    pub(crate) num_cached_free: usize,
    /// Number of blocks that became free, ever: while it stands still, what did not fit still does
    /// not.
    num_freed: u64,
    pub(crate) reports_registered: bool,
    /// Blocks that were cached since they were taken last.
    pub(crate) registered: Vec<CachedBlock>,
}

impl KvBlocks {
    pub(crate) fn new(config: &SchedulerConfig, hash_fn: HashFn) -> Self {
        let (num_blocks, block_size) = (config.num_blocks, config.block_size);
        Self {
            block_size,
            pool: BlockPool::new(num_blocks, config.num_eager_blocks),
            cache: config
                .enable_prefix_caching
                .then(|| PrefixCache::new(num_blocks, block_size)),
            hasher: BlockHasher::new(hash_fn),
            num_cached_free: 0,
            num_freed: 0,
            reports_registered: config.reports_cached_blocks,
            registered: Vec::new(),
        }
    }

    pub(crate) fn num_free(&self) -> usize {
        self.pool.num_free()
    }

    pub(crate) fn num_used(&self) -> usize {
        self.pool.num_blocks() - self.pool.num_free()
    }

    pub(crate) fn num_cached_free(&self) -> usize {
        self.num_cached_free
    }

    pub(crate) fn num_freed(&self) -> u64 {
        self.num_freed
    }

    pub(crate) fn has_cache(&self) -> bool {
        self.cache.is_some()
    }

    /// From now on the cache keeps what it has until no other block is left.
    pub(crate) fn use_whole_pool(&mut self) {
        self.pool.use_all();
    }

    /// Appends `num_blocks` blocks to `table`, the least useful ones. The caller has checked that
    /// there are as many.
    pub(crate) fn allocate(&mut self, table: &mut BlockTable, num_blocks: usize) {
        for _ in 0..num_blocks {
            let block = self
                .pool
                .take_first()
                .expect("the caller counted the free blocks");
            if let Some(cache) = &mut self.cache
                && cache.remove(block)
            {
                self.num_cached_free -= 1;
            }
            table.blocks.push(block);
        }
    }

    /// Gives back all of `table`.
    pub(crate) fn release(&mut self, table: &mut BlockTable) {
        for &block in table.held().iter().rev() {
            self.release_block(block);
        }
        *table = BlockTable::default();
    }

    /// Gives back those of the first `num_blocks` blocks of `table` that it still holds.
    pub(crate) fn drop_leading(&mut self, table: &mut BlockTable, num_blocks: usize) {
        while table.num_dropped < num_blocks.min(table.len()) {
            self.release_block(table.blocks[table.num_dropped]);
            table.num_dropped += 1;
        }
    }

    fn release_block(&mut self, block: BlockId) {
        let cache = self.cache.as_ref();
        let is_cached = cache.is_some_and(|cache| cache.contains(block));
        let end = if is_cached {
            FreeEnd::Back
        } else {
            FreeEnd::Front
        };
        if self.pool.release(block, end) {
            self.num_cached_free += usize::from(is_cached);
            self.num_freed += 1;
        }
    }

    /// Makes `found` the longest cached prefix of `ids`, of `max_num_blocks` blocks at most.
    /// Nothing is referenced yet.
    pub(crate) fn find_prefix(
        &mut self,
        chain: &mut PrefixChain,
        ids: &[TokenId],
        max_num_blocks: usize,
        found: &mut BlockTable,
    ) {
        *found = BlockTable::default();
        (chain.num_registered, chain.parent, chain.is_broken) = (0, None, false);
        let Some(cache) = &self.cache else { return };
        for tokens in ids.chunks_exact(self.block_size).take(max_num_blocks) {
            let hash = hash_block(&mut self.hasher, chain, found.len(), tokens);
            let content = BlockContent {
                hash,
                parent: chain.parent,
                tokens,
                keys: &chain.keys,
            };
            let Some((block, id)) = cache.find(&content) else {
                break;
            };
            found.blocks.push(block);
            chain.parent = Some(id);
        }
        chain.num_registered = found.len();
    }

    /// How many blocks of `found` are free now and would leave the free list.
    pub(crate) fn count_free(&self, found: &BlockTable) -> usize {
        found
            .held()
            .iter()
            .filter(|block| self.pool.ref_count(**block) == 0)
            .count()
    }

    /// Takes a reference on each block of `found`, which `find_prefix` filled.
    pub(crate) fn acquire(&mut self, found: &BlockTable) {
        for &block in found.held() {
            if self.pool.ref_count(block) == 0 {
                self.num_cached_free -= 1;
            }
            self.pool.acquire(block);
        }
    }

    /// Offers the full blocks among the first `num_computed_tokens` of `ids`, held by `table`, to
    /// the cache.
    pub(crate) fn register(
        &mut self,
        chain: &mut PrefixChain,
        ids: &[TokenId],
        num_computed_tokens: usize,
        table: &BlockTable,
    ) {
        while !chain.is_broken {
            let Some(cache) = &mut self.cache else { return };
            let place = chain.num_registered;
            let start = place * self.block_size;
            if start + self.block_size > num_computed_tokens {
                return;
            }
            let tokens = &ids[start..start + self.block_size];
            let hash = hash_block(&mut self.hasher, chain, place, tokens);
            let content = BlockContent {
                hash,
                parent: chain.parent,
                tokens,
                keys: &chain.keys,
            };
            let registration = cache.register(table.blocks[place], &content);
            if let Some(dropped) = registration.dropped
                && self.pool.ref_count(dropped) == 0
            {
                self.num_cached_free -= 1;
            }
            if let Some(id) = registration.id
                && id.block() == table.blocks[place]
            {
                self.report(id, &content);
            }
            chain.parent = registration.id;
            chain.is_broken = registration.id.is_none();
            chain.num_registered = place + 1;
        }
    }

    /// Forgets every cached prefix, unless a sequence holds blocks. True if it did.
    pub(crate) fn reset_cache(&mut self) -> bool {
        if self.num_used() > 0 {
            return false;
        }
        if let Some(cache) = &mut self.cache {
            for block in 0..self.pool.num_blocks() as BlockId {
                cache.remove(block);
            }
        }
        self.num_cached_free = 0;
        true
    }

    /// Checks the invariants of pool and cache, and that the pool counts `held[block]` references
    /// of each.
    ///
    /// # Panics
    /// Where they disagree.
    pub(crate) fn check_integrity(&self, held: &[u32]) {
        self.pool.check_integrity();
        for (block, &num_held) in held.iter().enumerate() {
            let ref_count = self.pool.ref_count(block as BlockId);
            assert_eq!(
                ref_count, num_held,
                "references of block {block} are those of sequences"
            );
        }
        let Some(cache) = &self.cache else {
            assert_eq!(self.num_cached_free, 0, "nothing is cached without a cache");
            return;
        };
        cache.check_integrity();
        let num_cached_free = self
            .pool
            .free_blocks()
            .filter(|b| cache.contains(*b))
            .count();
        assert_eq!(
            num_cached_free, self.num_cached_free,
            "cached free blocks are counted"
        );
        assert!(
            num_cached_free <= cache.len(),
            "cached free blocks are cached"
        );
    }
}

/// The hash of a sequence's block `place`, which holds `tokens`; computed once.
pub(crate) fn hash_block(
    hasher: &mut BlockHasher,
    chain: &mut PrefixChain,
    place: usize,
    tokens: &[TokenId],
) -> u64 {
    if let Some(&hash) = chain.hashes.get(place) {
        return hash;
    }
    debug_assert_eq!(place, chain.hashes.len(), "blocks are hashed in order");
    let hash = hasher.hash(chain.hashes.last().copied(), tokens, &chain.keys);
    chain.hashes.push(hash);
    hash
}
