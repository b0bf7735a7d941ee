//! Reference counts of KV blocks, and the list of those that nobody references.
//!
//! The list is doubly linked through the blocks themselves, so that taking the oldest, taking a
//! particular one and giving one back are all O(1). Allocation takes from the front: blocks whose
//! content is of no use, then blocks that were never used, then the least recently used content.
//! Beyond a bound, never-used blocks come last: a pool whose memory becomes resident as it is used
//! then stays about as large as the load ever was.
//!
//! Invariant: a block is in the free list if and only if its reference count is zero.

use hotspare_batch::BlockId;

const NIL: u32 = u32::MAX;

/// Where a freed block goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FreeEnd {
    /// Reused next: its content is of no use.
    Front,
    /// Reused last: its content may be wanted again.
    Back,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    ref_count: u32,
    prev: u32,
    next: u32,
}

/// The blocks of the executor's KV pool.
#[derive(Debug)]
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    head: u32,
    tail: u32,
    num_free: usize,
    /// Blocks from this one on were never taken.
    num_touched: usize,
    /// So many blocks are taken into use before content is dropped.
    num_eager: usize,
    /// The largest number of referenced blocks so far.
    max_num_referenced: usize,
}

impl BlockPool {
    /// A pool of `num_blocks` free blocks, the first of which is taken first. Content is dropped
    /// before more than `num_eager` blocks, or twice as many as were ever referenced, are in use.
    pub(crate) fn new(num_blocks: usize, num_eager: usize) -> Self {
        let block = Block {
            ref_count: 0,
            prev: NIL,
            next: NIL,
        };
        let blocks = vec![block; num_blocks];
        let mut pool = Self {
            blocks,
            head: NIL,
            tail: NIL,
            num_free: 0,
            num_touched: 0,
            num_eager,
            max_num_referenced: 0,
        };
        for block in 0..num_blocks as BlockId {
            pool.link(block, FreeEnd::Back);
        }
        pool
    }

    /// From now on content is dropped only where no other block is left.
    pub(crate) fn use_all(&mut self) {
        self.num_eager = usize::MAX;
    }

    pub(crate) fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    pub(crate) fn num_free(&self) -> usize {
        self.num_free
    }

    pub(crate) fn ref_count(&self, block: BlockId) -> u32 {
        self.blocks[block as usize].ref_count
    }

    /// Takes the free block that is first in line, with one reference.
    pub(crate) fn take_first(&mut self) -> Option<BlockId> {
        if self.head == NIL {
            return None;
        }
        let block = self.oldest_content().unwrap_or(self.head);
        self.acquire(block);
        Some(block)
    }

    /// Takes a free block that holds no content if there is one, with one reference; unlike
    /// [`Self::take_first`], one that was never used before content that is old. What is put there
    /// is as good as referenced: sequences come for it.
    pub(crate) fn take_emptiest(&mut self) -> Option<BlockId> {
        let block = self.head;
        (block != NIL).then(|| {
            self.acquire(block);
            self.max_num_referenced = self.max_num_referenced.max(self.num_touched);
            block
        })
    }

    /// The block whose content is to be dropped although there are blocks that were never used.
    fn oldest_content(&self) -> Option<BlockId> {
        let is_untouched = self.head as usize >= self.num_touched;
        let bound = self.num_eager.max(2 * self.max_num_referenced);
        if !is_untouched || self.num_touched < bound {
            return None;
        }
        // Blocks that were never used stand in order; content follows the last of them.
        let next = self.blocks.last()?.next;
        (next != NIL).then_some(next)
    }

    /// Adds a reference; a free block leaves the list.
    pub(crate) fn acquire(&mut self, block: BlockId) {
        if self.blocks[block as usize].ref_count == 0 {
            self.unlink(block);
        }
        self.blocks[block as usize].ref_count += 1;
        self.num_touched = self.num_touched.max(block as usize + 1);
        let num_referenced = self.blocks.len() - self.num_free;
        self.max_num_referenced = self.max_num_referenced.max(num_referenced);
    }

    /// Drops a reference. True if it was the last one, and the block is free now.
    pub(crate) fn release(&mut self, block: BlockId, end: FreeEnd) -> bool {
        let entry = &mut self.blocks[block as usize];
        assert!(
            entry.ref_count > 0,
            "block {block} is released once for each reference"
        );
        entry.ref_count -= 1;
        let is_free = entry.ref_count == 0;
        if is_free {
            self.link(block, end);
        }
        is_free
    }

    fn link(&mut self, block: BlockId, end: FreeEnd) {
        let (prev, next) = match end {
            FreeEnd::Front => (NIL, self.head),
            FreeEnd::Back => (self.tail, NIL),
        };
        self.set_neighbours(prev, next, block, block);
        let entry = &mut self.blocks[block as usize];
        (entry.prev, entry.next) = (prev, next);
        self.num_free += 1;
    }

    fn unlink(&mut self, block: BlockId) {
        let Block { prev, next, .. } = self.blocks[block as usize];
        self.set_neighbours(prev, next, next, prev);
        let entry = &mut self.blocks[block as usize];
        (entry.prev, entry.next) = (NIL, NIL);
        self.num_free -= 1;
    }

    /// Makes `after_prev` follow `prev` and `before_next` precede `next`; the ends of the list
    /// stand in where there is no neighbour.
    fn set_neighbours(&mut self, prev: u32, next: u32, after_prev: u32, before_next: u32) {
        match prev {
            NIL => self.head = after_prev,
            _ => self.blocks[prev as usize].next = after_prev,
        }
        match next {
            NIL => self.tail = before_next,
            _ => self.blocks[next as usize].prev = before_next,
        }
    }

    /// The free blocks, first in line first.
    pub(crate) fn free_blocks(&self) -> impl Iterator<Item = BlockId> + '_ {
        let first = (self.head != NIL).then_some(self.head);
        std::iter::successors(first, |&block| {
            let next = self.blocks[block as usize].next;
            (next != NIL).then_some(next)
        })
        .take(self.blocks.len() + 1)
    }

    /// Checks the invariant of this type.
    ///
    /// # Panics
    /// Where the links, the counts and the number of free blocks disagree.
    pub(crate) fn check_integrity(&self) {
        let mut prev = NIL;
        let mut num_free = 0;
        for block in self.free_blocks() {
            let entry = &self.blocks[block as usize];
            assert_eq!(entry.ref_count, 0, "block {block} is free and referenced");
            assert_eq!(entry.prev, prev, "links of block {block} agree");
            prev = block;
            num_free += 1;
        }
        assert_eq!(prev, self.tail, "the list ends at its tail");
        assert_eq!(num_free, self.num_free, "the list is as long as it says");
        let num_unreferenced = self
            .blocks
            .iter()
            .filter(|block| block.ref_count == 0)
            .count();
        assert_eq!(
            num_unreferenced, self.num_free,
            "every unreferenced block is in the list"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(pool: &BlockPool) -> Vec<BlockId> {
        pool.check_integrity();
        pool.free_blocks().collect()
    }

    #[test]
    fn blocks_are_taken_from_the_front_and_come_back_at_either_end() {
        let mut pool = BlockPool::new(4, 4);
        assert_eq!((pool.take_first(), pool.take_first()), (Some(0), Some(1)));
        assert!(pool.release(0, FreeEnd::Back));
        assert_eq!(free(&pool), [2, 3, 0]);
        assert!(pool.release(1, FreeEnd::Front));
        assert_eq!(free(&pool), [1, 2, 3, 0]);
    }

    #[test]
    fn beyond_the_bound_content_goes_before_blocks_that_were_never_used() {
        let mut pool = BlockPool::new(8, 2);
        // Two blocks may be taken eagerly; one reference at a time makes that the bound.
        assert_eq!(pool.take_first(), Some(0));
        pool.release(0, FreeEnd::Back);
        assert_eq!(pool.take_first(), Some(1));
        pool.release(1, FreeEnd::Back);
        for expected in [0, 1, 0] {
            assert_eq!(pool.take_first(), Some(expected));
            pool.release(expected, FreeEnd::Back);
        }
        // Three at a time: content first, then what was never used, up to six.
        let taken: Vec<_> = (0..3).filter_map(|_| pool.take_first()).collect();
        assert_eq!(taken, [1, 0, 2]);
        for &block in &taken {
            pool.release(block, FreeEnd::Back);
        }
        let more: Vec<_> = (0..8).filter_map(|_| pool.take_first()).collect();
        assert_eq!(more, [3, 4, 5, 1, 6, 7, 0, 2]);
        assert_eq!(pool.take_first(), None);
        pool.check_integrity();
    }

    #[test]
    fn a_block_leaves_the_middle_of_the_list() {
        let mut pool = BlockPool::new(3, 3);
        pool.acquire(1);
        assert_eq!(free(&pool), [0, 2]);
        pool.acquire(2);
        pool.acquire(0);
        assert_eq!(free(&pool), [] as [BlockId; 0]);
        assert_eq!(pool.take_first(), None);
        assert!(pool.release(2, FreeEnd::Front));
        assert_eq!(free(&pool), [2]);
    }

    #[test]
    fn the_last_reference_frees() {
        let mut pool = BlockPool::new(1, 1);
        pool.acquire(0);
        pool.acquire(0);
        assert_eq!(pool.ref_count(0), 2);
        assert!(!pool.release(0, FreeEnd::Back));
        assert_eq!(pool.num_free(), 0);
        assert!(pool.release(0, FreeEnd::Back));
        assert_eq!(free(&pool), [0]);
    }
}
