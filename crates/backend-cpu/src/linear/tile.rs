//! The inner loop of a dense product: a few weight rows times a few activation rows, in registers.
//!
//! Each output element has one accumulator of sixteen lanes. It takes the last, partial step of k
//! first, padded with zeros, then the whole steps in order; at the end its lanes are added in one
//! tree. The tile's shape changes how many elements are computed together, and nothing else.
//!
//! Invariant: an element's bits do not depend on the tile that computed it.
// Indices over constant bounds keep small arrays in registers, and say which operand is which.
#![allow(clippy::needless_range_loop)]

use std::hint::black_box;

use super::format::WeightFormat;
use crate::simd::{LANES, Simd};

/// Weight rows of a tile.
pub(super) const TILE_WEIGHTS: usize = 4;

/// Accumulators of four weight rows times `MR` activation rows.
pub(super) type Tile<F, const MR: usize> = [[F; MR]; TILE_WEIGHTS];

/// Where a tile's operands are.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// The first weight row.
    pub(super) weights: *const u8,
    /// Bytes from one weight row to the next.
    pub(super) row_bytes: usize,
    /// How far ahead of the weights to prefetch.
    pub(super) ahead_bytes: usize,
    /// The packed activations: vectors of a step are `x_rows` apart.
    pub(super) x: *const f32,
    pub(super) x_rows: usize,
    /// Whole steps of thirty-two elements.
    pub(super) num_steps: usize,
}

/// Adds the products over whole steps to `acc`: four weight rows, `MR` activation rows.
///
/// # Safety Four weight rows of the format's steps, and `num_steps` steps of packed activations of
/// at least `MR` rows, are readable.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd, W: WeightFormat, const MR: usize>(
    s: S,
    o: Operands,
    acc: &mut Tile<S::F, MR>,
) {
    if S::HAS_32_REGISTERS || MR == 1 {
        // SAFETY: the caller's promise.
        unsafe { accumulate_part::<S, W, TILE_WEIGHTS, MR, MR>(s, o, acc, 0, 0) };
        return;
    }
    // Quarters, or what is left of them, for which sixteen registers are enough; those that are
    // done have to leave the registers.
    for n in (0..TILE_WEIGHTS).step_by(2) {
        for m in (0..MR).step_by(2) {
            // SAFETY: parts of the tile the caller promises.
            unsafe {
                if m + 2 <= MR {
                    accumulate_part::<S, W, 2, 2, MR>(s, o, acc, n, m);
                } else {
                    accumulate_part::<S, W, 2, 1, MR>(s, o, acc, n, m);
                }
            }
            black_box(&mut *acc);
        }
    }
}

/// `NP` weight rows from `n0` on times `MP` activation rows from `m0` on.
///
/// # Safety
/// As for [`accumulate`].
#[inline(always)]
unsafe fn accumulate_part<
    S: Simd,
    W: WeightFormat,
    const NP: usize,
    const MP: usize,
    const MR: usize,
>(
    s: S,
    o: Operands,
    tile: &mut Tile<S::F, MR>,
    n0: usize,
    m0: usize,
) {
    let mut acc = [[s.splat(0.0); MP]; NP];
    for n in 0..NP {
        for m in 0..MP {
            acc[n][m] = tile[n0 + n][m0 + m];
        }
    }
    // SAFETY: row n0 < 4 of the weights, row m0 of the activations.
    let (mut w, mut x) = unsafe { (o.weights.add(n0 * o.row_bytes), o.x.add(m0 * LANES)) };
    for _ in 0..o.num_steps {
        for n in 0..NP {
            s.prefetch(w.wrapping_add(n * o.row_bytes + o.ahead_bytes));
        }
        for half in 0..2 {
            let mut weights = [s.splat(0.0); NP];
            for n in 0..NP {
                // SAFETY: a step of row n0 + n < 4.
                weights[n] = unsafe { W::load_half(s, w.add(n * o.row_bytes), half) };
            }
            for m in 0..MP {
                // SAFETY: a vector of row m0 + m of this step; floats are aligned as floats.
                let x = s.load(unsafe { &*x.add((half * o.x_rows + m) * LANES).cast() });
                for n in 0..NP {
                    acc[n][m] = s.fma(weights[n], x, acc[n][m]);
                }
            }
        }
        // SAFETY: one step on, at most to the end of the operands.
        (w, x) = unsafe { (w.add(W::STEP_BYTES), x.add(2 * o.x_rows * LANES)) };
    }
    for n in 0..NP {
        for m in 0..MP {
            tile[n0 + n][m0 + m] = acc[n][m];
        }
    }
}

/// Adds one step, whose weights are given, to one weight row of a tile.
///
/// # Safety
/// A step of packed activations of `MR` rows is readable at `x`.
#[inline(always)]
pub(super) unsafe fn accumulate_step<S: Simd, const MR: usize>(
    s: S,
    weights: [S::F; 2],
    x: *const f32,
    acc: &mut [S::F; MR],
) {
    for (half, w) in weights.into_iter().enumerate() {
        for (m, acc) in acc.iter_mut().enumerate() {
            // SAFETY: the caller's promise; floats are aligned as floats.
            let x = s.load(unsafe { &*x.add((half * MR + m) * LANES).cast() });
            *acc = s.fma(w, x, *acc);
        }
    }
}
