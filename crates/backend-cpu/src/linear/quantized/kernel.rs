//! The inner loop of a quantized product: sixteen weight rows times a few rows of activations.
//!
//! Lanes are weight rows, so that no sum goes over lanes. In each block of 32 elements the products
//! are added as integers, exactly; their float value takes the weights' scale and the activations',
//! and is added to the output element: one fused multiply-add a block, in the order of k.
//!
//! Invariant: the order of float operations on an output element is the same for every number of
//! rows and every instruction set.
// Indices over constant bounds keep small arrays in registers.
#![allow(clippy::needless_range_loop)]

use super::activations::TileBlock;
use super::format::{BLOCK_WORDS, Minimum, PackedFormat, Piece};
use super::int_simd::{FloatsOf, IntSimd};
use crate::simd::Simd;

/// Adds the products of the first `num_blocks` blocks of `piece` with `MR` rows of activations to
/// `sums`. `x` is the piece's first block.
///
/// # Safety
/// `num_blocks` blocks of at least `MR` rows are readable at `x`.
#[inline(always)]
pub(super) unsafe fn accumulate<T: IntSimd, Q: PackedFormat, const MR: usize>(
    t: T,
    piece: &Piece<T>,
    num_blocks: usize,
    mut x: TileBlock,
    sums: &mut [FloatsOf<T>],
) {
    let s = t.floats();
    let mut acc = [s.splat(0.0); MR];
    acc.copy_from_slice(&sums[..MR]);
    for block in 0..num_blocks {
        // SAFETY: the caller promises so many blocks of so many rows.
        unsafe {
            let mut terms = [s.splat(0.0); MR];
            for half in 0..Q::NUM_SCALES {
                let ints = block_sums::<T, Q, MR>(t, &piece.words[block], x, half);
                let scale = piece.scales[block][half];
                for m in 0..MR {
                    let int = t.to_float(ints[m]);
                    terms[m] = match half {
                        0 => s.mul(int, scale),
                        _ => s.fma(int, scale, terms[m]),
                    };
                }
            }
            if Q::MINIMUM == Minimum::Halves {
                for m in 0..MR {
                    let int = t.dot_pairs(piece.half_minimums[block], t.splat(x.half_sums(m)));
                    terms[m] = s.fma(t.to_float(int), piece.minimums[block], terms[m]);
                }
            }
            for m in 0..MR {
                acc[m] = s.fma(terms[m], s.splat(x.scale(m)), acc[m]);
            }
            if Q::MINIMUM == Minimum::Block {
                for m in 0..MR {
                    acc[m] = s.fma(piece.minimums[block], s.splat(x.scaled_sum(m)), acc[m]);
                }
            }
        }
        x = x.next();
    }
    sums[..MR].copy_from_slice(&acc);
}

/// Sums of (byte - offset) * activation over a block, or over one half of it where halves have
/// scales.
///
/// # Safety
/// A block of at least `MR` rows is readable at `x`.
#[inline(always)]
unsafe fn block_sums<T: IntSimd, Q: PackedFormat, const MR: usize>(
    t: T,
    words: &[T::I; BLOCK_WORDS],
    x: TileBlock,
    half: usize,
) -> [T::I; MR] {
    let offset = match Q::IS_SIGNED {
        true => T::SIGNED_OFFSET,
        false => Q::OFFSET,
    };
    let mut ints = [t.splat(0); MR];
    // SAFETY: the caller promises these rows.
    unsafe {
        if offset != 0 {
            // The offset of the first half's bytes and of the second's, 16 bits each.
            let (first, second) = ((-offset) & 0xFFFF, (-offset) << 16);
            let offsets = t.splat(match (Q::NUM_SCALES, half) {
                (1, _) => first | second,
                (_, 0) => first,
                _ => second,
            });
            for m in 0..MR {
                ints[m] = t.dot_pairs(offsets, t.splat(x.half_sums(m)));
            }
        }
        let len = BLOCK_WORDS / Q::NUM_SCALES;
        for i in half * len..(half + 1) * len {
            for m in 0..MR {
                let x = t.splat(x.word(i, m));
                ints[m] = match Q::IS_SIGNED {
                    true => t.dot_signed(ints[m], words[i], x),
                    false => t.dot(ints[m], words[i], x),
                };
            }
        }
    }
    ints
}
