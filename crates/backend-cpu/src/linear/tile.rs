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

use super::format::{STEP, WeightFormat};
use crate::simd::{LANES, Simd};

/// Weight rows of a tile.
pub(super) const TILE_WEIGHTS: usize = 4;
/// Weight rows of a wide tile: with four activation rows, as many sums as 32 registers hold beside
/// their operands. Operands come from the second cache, so that a sum more for each pays.
pub(super) const WIDE_TILE_WEIGHTS: usize = 6;

/// Accumulators of `NW` weight rows, an even number, times `MR` activation rows.
pub(super) type Tile<F, const NW: usize, const MR: usize> = [[F; MR]; NW];

/// How a step of weights, as their bytes lie in the file, meets a step of packed activations.
pub(super) trait StepProduct<S: Simd>: Copy {
    /// Vectors of activations that a step has.
    const PARTS: usize;
    /// Bytes of a weight.
    const SIZE: usize;
    /// Whether wide tiles fit the registers.
    const IS_WIDE: bool = false;
    /// Bytes of a step of weights.
    const STEP_BYTES: usize = STEP * Self::SIZE;

    /// The weights that meet vector `part` of the activations.
    ///
    /// # Safety
    /// `step` is valid for reading `STEP_BYTES`; any alignment.
    unsafe fn weights(self, s: S, step: *const u8, part: usize) -> S::F;

    /// `acc` and the products of a vector of weights and one of activations.
    fn mul_add(self, s: S, weights: S::F, x: S::F, acc: S::F) -> S::F;
}

/// Weights are widened to floats, and meet floats.
impl<S: Simd, W: WeightFormat> StepProduct<S> for W {
    const PARTS: usize = 2;
    const SIZE: usize = W::SIZE;

    #[inline(always)]
    unsafe fn weights(self, s: S, step: *const u8, part: usize) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { W::load_half(s, step, part) }
    }

    #[inline(always)]
    fn mul_add(self, s: S, weights: S::F, x: S::F, acc: S::F) -> S::F {
        s.fma(weights, x, acc)
    }
}

/// Weights that are needed soon. They lie one after another, and asked for in that order they come
/// faster than row beside row.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// The first; it need not be readable.
    pub(super) from: *const u8,
    /// Cache lines to ask for in each step, where they are far; else as many as a step has.
    pub(super) lines_per_step: usize,
    /// Whether to bring them to the second cache only.
    pub(super) is_far: bool,
}

/// Bytes of a cache line.
pub(super) const LINE_BYTES: usize = 64;

/// Where a tile's operands are.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// The first weight row.
    pub(super) weights: *const u8,
    /// Bytes from one weight row to the next.
    pub(super) row_bytes: usize,
    /// What to bring near meanwhile.
    pub(super) ahead: Ahead,
    /// The packed activations: vectors of a step are `x_rows` apart.
    pub(super) x: *const f32,
    pub(super) x_rows: usize,
    /// Whole steps of thirty-two elements.
    pub(super) num_steps: usize,
}

/// Adds the products over whole steps to `acc`: `NW` weight rows, `MR` activation rows.
///
/// # Safety
/// `NW` weight rows of the format's steps, and `num_steps` steps of packed activations of at least
/// `MR` rows, are readable.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd, P: StepProduct<S>, const NW: usize, const MR: usize>(
    s: S,
    p: P,
    o: Operands,
    acc: &mut Tile<S::F, NW, MR>,
) {
    if S::HAS_32_REGISTERS || MR == 1 {
        // SAFETY: the caller's promise.
        unsafe { accumulate_part::<S, P, NW, MR, NW, MR>(s, p, o, acc, 0, 0) };
        return;
    }
    // Parts of two rows by two, or what is left of them, for which sixteen registers are enough;
    // those that are done have to leave the registers.
    for n in (0..NW).step_by(2) {
        for m in (0..MR).step_by(2) {
            // SAFETY: parts of the tile the caller promises.
            unsafe {
                if m + 2 <= MR {
                    accumulate_part::<S, P, 2, 2, NW, MR>(s, p, o, acc, n, m);
                } else {
                    accumulate_part::<S, P, 2, 1, NW, MR>(s, p, o, acc, n, m);
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
    P: StepProduct<S>,
    const NP: usize,
    const MP: usize,
    const NW: usize,
    const MR: usize,
>(
    s: S,
    p: P,
    o: Operands,
    tile: &mut Tile<S::F, NW, MR>,
    n0: usize,
    m0: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match o.ahead.is_far {
            true => accumulate_ahead::<S, P, NP, MP, NW, MR, true>(s, p, o, tile, n0, m0),
            false => accumulate_ahead::<S, P, NP, MP, NW, MR, false>(s, p, o, tile, n0, m0),
        }
    }
}

/// As [`accumulate_part`], `FAR` being the operands' own.
///
/// # Safety
/// As for [`accumulate`].
#[inline(always)]
unsafe fn accumulate_ahead<
    S: Simd,
    P: StepProduct<S>,
    const NP: usize,
    const MP: usize,
    const NW: usize,
    const MR: usize,
    const FAR: bool,
>(
    s: S,
    p: P,
    o: Operands,
    tile: &mut Tile<S::F, NW, MR>,
    n0: usize,
    m0: usize,
) {
    let mut acc = [[s.splat(0.0); MP]; NP];
    for n in 0..NP {
        for m in 0..MP {
            acc[n][m] = tile[n0 + n][m0 + m];
        }
    }
    // SAFETY: row n0 of the weights, row m0 of the activations.
    let (mut w, mut x) = unsafe { (o.weights.add(n0 * o.row_bytes), o.x.add(m0 * LANES)) };
    let mut ahead = o.ahead.from;
    for _ in 0..o.num_steps {
        if FAR {
            for _ in 0..o.ahead.lines_per_step {
                s.prefetch_far(ahead);
                ahead = ahead.wrapping_add(LINE_BYTES);
            }
        } else {
            // A fixed number costs least where little else is done.
            for n in 0..NP * P::STEP_BYTES / LINE_BYTES {
                s.prefetch(ahead.wrapping_add(n * LINE_BYTES));
            }
            ahead = ahead.wrapping_add(NP * P::STEP_BYTES);
        }
        for part in 0..P::PARTS {
            let mut weights = [s.splat(0.0); NP];
            for n in 0..NP {
                // SAFETY: a step of row n0 + n.
                weights[n] = unsafe { p.weights(s, w.add(n * o.row_bytes), part) };
            }
            for m in 0..MP {
                // SAFETY: a vector of row m0 + m of this step; floats are aligned as floats.
                let x = s.load(unsafe { &*x.add((part * o.x_rows + m) * LANES).cast() });
                for n in 0..NP {
                    acc[n][m] = p.mul_add(s, weights[n], x, acc[n][m]);
                }
            }
        }
        // SAFETY: one step on, at most to the end of the operands.
        (w, x) = unsafe { (w.add(P::STEP_BYTES), x.add(P::PARTS * o.x_rows * LANES)) };
    }
    for n in 0..NP {
        for m in 0..MP {
            tile[n0 + n][m0 + m] = acc[n][m];
        }
    }
}

/// Adds one step to one weight row of a tile.
///
/// # Safety
/// A step of weights is readable at `step`, and one of packed activations of `MR` rows at `x`.
#[inline(always)]
pub(super) unsafe fn accumulate_step<S: Simd, P: StepProduct<S>, const MR: usize>(
    s: S,
    p: P,
    step: *const u8,
    x: *const f32,
    acc: &mut [S::F; MR],
) {
    for part in 0..P::PARTS {
        // SAFETY: the caller's promise.
        let weights = unsafe { p.weights(s, step, part) };
        for (m, acc) in acc.iter_mut().enumerate() {
            // SAFETY: the caller's promise; floats are aligned as floats.
            let x = s.load(unsafe { &*x.add((part * MR + m) * LANES).cast() });
            *acc = p.mul_add(s, weights, x, *acc);
        }
    }
}
