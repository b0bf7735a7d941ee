//! Activations in 8 bits: blocks of 32 with a scale, as ggml's `Q8_1` has them but for a scale of
//! full precision.
//!
//! Rows go in tiles of eight, the last one shorter. A tile is its blocks in order; of a block, each
//! row has eight words of four elements, the scale, two 16-bit sums over the block's halves, and
//! their sum times the scale.
//!
//! Invariant: a row's blocks depend on that row alone and are the same on every instruction set. A
//! block with an element that is not finite has a scale of NaN.

use super::format::{BLOCK, BLOCK_WORDS};
use crate::simd::{LANES, Simd, isa_entry};

/// Rows of a tile; the last has what remains.
pub(in crate::linear) const TILE_ROWS: usize = 8;
/// Words of a block of one row.
const WORDS: usize = BLOCK_WORDS + 3;
/// Blocks with no larger element are zero: their inverse scale could overflow.
const TINY: f32 = 1e-30;
/// 1.5 * 2^23: a float near zero plus this has the nearest integer in its low bits.
const ROUND: f32 = 12_582_912.0;

/// Words (as many as floats) of quantized rows of `k` elements.
pub(in crate::linear) fn num_words(num_rows: usize, k: usize) -> usize {
    num_rows * (k / BLOCK) * WORDS
}

/// Quantized activations.
#[derive(Clone, Copy, Debug)]
pub(in crate::linear) struct QuantizedRows<'a> {
    words: &'a [f32],
    num_blocks: usize,
    num_rows: usize,
}

/// One block of a tile.
#[derive(Clone, Copy)]
pub(super) struct TileBlock {
    words: *const i32,
    num_rows: usize,
}

/// Rows to quantize.
#[derive(Clone, Copy)]
pub(in crate::linear) struct Source<'a> {
    /// Whole rows.
    pub(in crate::linear) x: &'a [f32],
    /// Floats of a row, whole blocks.
    pub(in crate::linear) k: usize,
}

isa_entry! {
    /// Quantizes all rows of the source into `out`, which has room for their words.
    pub(in crate::linear) fn quantize(source: &Source<'_>, out: &mut [f32]) = quantize_any
}

#[inline(always)]
fn quantize_any<S: Simd>(s: S, source: &Source<'_>, out: &mut [f32]) {
    let (k, num_blocks) = (source.k, source.k / BLOCK);
    let tiles = source
        .x
        .chunks(TILE_ROWS * k)
        .zip(out.chunks_mut(TILE_ROWS * num_blocks * WORDS));
    for (rows, tile) in tiles {
        let num_rows = rows.len() / k;
        for (m, row) in rows.chunks_exact(k).enumerate() {
            let blocks = tile.chunks_exact_mut(num_rows * WORDS);
            for (elements, block) in row.as_chunks::<BLOCK>().0.iter().zip(blocks) {
                let words = quantize_block(s, elements).map(f32::from_bits);
                block[m * WORDS..][..WORDS].copy_from_slice(&words);
            }
        }
    }
}

/// The words of one row's block.
#[inline(always)]
fn quantize_block<S: Simd>(s: S, elements: &[f32; BLOCK]) -> [u32; WORDS] {
    let halves = elements.as_chunks::<LANES>().0;
    let (a, b, zero) = (s.load(&halves[0]), s.load(&halves[1]), s.splat(0.0));
    let (abs_a, abs_b) = (s.max(a, s.sub(zero, a)), s.max(b, s.sub(zero, b)));
    let largest = s.max_lane(s.max(abs_a, abs_b));
    let (scale, inverse) = match largest >= TINY {
        true => (largest / 127.0, 127.0 / largest),
        false => (0.0, 0.0),
    };
    let (inverse, round) = (s.splat(inverse), s.splat(ROUND));
    let (a, b) = (
        s.add(s.mul(a, inverse), round),
        s.add(s.mul(b, inverse), round),
    );
    let mut rounded = [0.0; BLOCK];
    let (to_a, to_b) = rounded.split_at_mut(LANES);
    s.store_partial(to_a, a);
    s.store_partial(to_b, b);
    // Sums of small integers: exact, and NaN where an element is not finite (an infinite one is
    // multiplied by an inverse of zero).
    let sums = [s.sum(s.sub(a, round)), s.sum(s.sub(b, round))];
    let sum = sums[0] + sums[1];
    let scale = scale + 0.0 * sum;
    let mut words = [0; WORDS];
    for (word, four) in words.iter_mut().zip(rounded.as_chunks::<4>().0) {
        // The low byte of such a float is the integer's.
        let [a, b, c, d] = [four[0], four[1], four[2], four[3]].map(f32::to_bits);
        *word = (a & 0xFF) | (b & 0xFF) << 8 | (c & 0xFF) << 16 | d << 24;
    }
    let [first, second] = [(sums[0] + ROUND).to_bits(), (sums[1] + ROUND).to_bits()];
    words[BLOCK_WORDS] = scale.to_bits();
    words[BLOCK_WORDS + 1] = (first & 0xFFFF) | second << 16;
    words[BLOCK_WORDS + 2] = (scale * sum).to_bits();
    words
}

impl<'a> QuantizedRows<'a> {
    /// Rows of `k` elements that [`quantize`] wrote to `words`.
    pub(in crate::linear) fn new(words: &'a [f32], num_rows: usize, k: usize) -> Self {
        assert_eq!(words.len(), num_words(num_rows, k), "whole rows");
        Self {
            words,
            num_blocks: k / BLOCK,
            num_rows,
        }
    }

    pub(super) fn num_rows(&self) -> usize {
        self.num_rows
    }

    pub(super) fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    /// Block `block` of the tile that starts at row `first`, a multiple of eight, and the tile's
    /// number of rows. That many rows of each block up to the last one are readable.
    #[inline(always)]
    pub(super) fn tile(&self, first: usize, block: usize) -> (TileBlock, usize) {
        let num_rows = TILE_ROWS.min(self.num_rows - first);
        let at = (first * self.num_blocks + num_rows * block) * WORDS;
        let words = self.words[at..].as_ptr().cast();
        (TileBlock { words, num_rows }, num_rows)
    }
}

impl TileBlock {
    /// The same block from row `m` on.
    #[inline(always)]
    pub(super) fn skip_rows(self, m: usize) -> Self {
        Self {
            words: self.words.wrapping_add(m * WORDS),
            ..self
        }
    }

    /// The next block, which need not exist.
    #[inline(always)]
    pub(super) fn next(self) -> Self {
        Self {
            words: self.words.wrapping_add(self.num_rows * WORDS),
            ..self
        }
    }

    /// Elements `4 * index..` of row `m`.
    ///
    /// # Safety
    /// The block has that row.
    #[inline(always)]
    pub(super) unsafe fn word(self, index: usize, m: usize) -> i32 {
        // SAFETY: the caller's promise, and a row has as many words.
        unsafe { *self.words.add(m * WORDS + index) }
    }

    /// The scale of row `m`.
    ///
    /// # Safety
    /// The block has that row.
    #[inline(always)]
    pub(super) unsafe fn scale(self, m: usize) -> f32 {
        // SAFETY: the caller's promise.
        f32::from_bits(unsafe { self.word(BLOCK_WORDS, m) } as u32)
    }

    /// Sums over both halves of row `m`, 16 bits each.
    ///
    /// # Safety
    /// The block has that row.
    #[inline(always)]
    pub(super) unsafe fn half_sums(self, m: usize) -> i32 {
        // SAFETY: the caller's promise.
        unsafe { self.word(BLOCK_WORDS + 1, m) }
    }

    /// The scale of row `m` times the sum over the block.
    ///
    /// # Safety
    /// The block has that row.
    #[inline(always)]
    pub(super) unsafe fn scaled_sum(self, m: usize) -> f32 {
        // SAFETY: the caller's promise.
        f32::from_bits(unsafe { self.word(BLOCK_WORDS + 2, m) } as u32)
    }
}
