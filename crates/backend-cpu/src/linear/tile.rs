//! The inner loop of a dense product: a few weight rows times a few activation rows, in registers.
//!
//! Each output element has one accumulator of sixteen lanes that walks over k in steps of sixteen, a
//! zero-padded tail, and one tree of additions at the end. The tile's shape changes how many elements are
//! computed together, and nothing else.
//!
//! Invariant: an element's bits do not depend on the tile that computed it.

use super::format::{self, WeightFormat};
use crate::simd::{LANES, Simd};

/// Accumulators of `NR` weight rows times `MR` activation rows.
pub(super) type Tile<F, const NR: usize, const MR: usize> = [[F; MR]; NR];

/// Where a tile's operands are.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// The first weight row.
    pub(super) weights: *const u8,
    /// Bytes from one weight row to the next.
    pub(super) weight_stride: usize,
    /// The first activation row.
    pub(super) x: *const f32,
    /// Floats from one activation row to the next.
    pub(super) x_stride: usize,
    /// Elements of a row to multiply.
    pub(super) k: usize,
}

/// Adds the products over `k` to `acc`.
///
/// # Safety
/// `NR` weight rows and `MR` activation rows of `k` elements are readable at the strides given.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd, W: WeightFormat, const NR: usize, const MR: usize>(
    s: S,
    o: Operands,
    mut acc: Tile<S::F, NR, MR>,
) -> Tile<S::F, NR, MR> {
    let num_steps = o.k / LANES;
    for step in 0..num_steps {
        let at = step * LANES;
        let w: [S::F; NR] = std::array::from_fn(|n| {
            // SAFETY: row n < NR, elements at..at + 16 <= k.
            unsafe { W::load(s, o.weights.add(n * o.weight_stride + at * W::SIZE)) }
        });
        for m in 0..MR {
            // SAFETY: row m < MR, elements at..at + 16 <= k; floats are aligned as floats.
            let x = s.load(unsafe { &*o.x.add(m * o.x_stride + at).cast() });
            for n in 0..NR {
                acc[n][m] = s.fma(w[n], x, acc[n][m]);
            }
        }
    }
    let (at, tail) = (num_steps * LANES, o.k % LANES);
    if tail > 0 {
        for m in 0..MR {
            // SAFETY: row m < MR, elements at..at + tail == k.
            let x = unsafe { std::slice::from_raw_parts(o.x.add(m * o.x_stride + at), tail) };
            let x = s.load_partial(x);
            for n in 0..NR {
                // SAFETY: row n < NR, elements at..at + tail == k.
                let w = unsafe {
                    let row = o.weights.add(n * o.weight_stride + at * W::SIZE);
                    format::load_partial::<S, W>(s, row, tail)
                };
                acc[n][m] = s.fma(w, x, acc[n][m]);
            }
        }
    }
    acc
}

/// Sums each accumulator's lanes and stores the sums of weight rows `skip..NR`: element `(m, n)` goes to
/// `out + m * out_stride + n`.
///
/// # Safety
/// Those elements are writable, and no other thread touches them.
#[inline(always)]
pub(super) unsafe fn store_sums<S: Simd, const NR: usize, const MR: usize>(
    s: S,
    acc: &Tile<S::F, NR, MR>,
    out: *mut f32,
    out_stride: usize,
    skip: usize,
) {
    const { assert!(NR * MR <= 2 * LANES) };
    let mut sums = [[0.0f32; LANES]; 2];
    for (group, sums) in sums.iter_mut().enumerate().take((NR * MR).div_ceil(LANES)) {
        let mut lanes = [s.splat(0.0); LANES];
        for (lane, v) in lanes.iter_mut().enumerate() {
            let element = group * LANES + lane;
            if element < NR * MR {
                *v = acc[element % NR][element / NR];
            }
        }
        s.store(sums, s.sum16(&lanes));
    }
    let sums = sums.as_flattened();
    for m in 0..MR {
        for n in skip..NR {
            // SAFETY: the caller's promise.
            unsafe { *out.add(m * out_stride + n) = sums[m * NR + n] };
        }
    }
}
