//! Sixteen-lane f32 arithmetic, the same bits on every instruction set.
//!
//! Kernels are written once over [`Simd`]. A lane's operations are IEEE (fused multiply-add
//! included) and every sum over lanes uses one tree, so that AVX-512, AVX2 and the portable
//! implementation agree bit for bit; a stream may therefore move between unlike machines.
//!
//! Invariant: `sum` and `sum16` add lanes `i` and `i + 8`, then `+ 4`, `+ 2`, `+ 1`, on every path.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dispatch;
mod scalar;
#[cfg(test)]
mod simd_test;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub use dispatch::Isa;
pub(crate) use dispatch::{intrinsics, isa_entry};
pub(crate) use scalar::Scalar;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Sixteen f32 lanes. A value of the type proves that the CPU has the instructions, so methods are
/// safe.
///
/// Methods have to be inlined into a function that enables the instruction set ([`isa_entry`]);
/// otherwise each becomes a call.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen lanes.
    type F: Copy;

    /// Whether there are registers for sixteen accumulators and their operands.
    const HAS_32_REGISTERS: bool;

    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::F;
    /// Loads sixteen floats.
    fn load(self, from: &[f32; LANES]) -> Self::F;
    /// Stores sixteen floats.
    fn store(self, to: &mut [f32; LANES], v: Self::F);
    /// Loads sixteen little-endian floats from unaligned bytes.
    fn load_f32_bytes(self, from: &[u8; 64]) -> Self::F;
    /// Of thirty-two bfloat16 in unaligned bytes, widens those of odd or those of even index: one
    /// instruction each.
    fn load_bf16_bytes(self, from: &[u8; 64], odd: bool) -> Self::F;
    /// Loads and widens sixteen half floats from unaligned bytes.
    fn load_f16_bytes(self, from: &[u8; 32]) -> Self::F;
    /// Loads sixteen signed bytes as floats.
    fn load_i8(self, from: &[i8; LANES]) -> Self::F;
    /// Asks for the cache line at `at`, which need not be readable.
    fn prefetch(self, at: *const u8);
    /// As [`Simd::prefetch`], into the second cache.
    fn prefetch_far(self, at: *const u8);
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `c - a * b`, rounded once.
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: `b` where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: `b` where either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `2^n` for integral `n` in -126..=127.
    fn pow2(self, n: Self::F) -> Self::F;
    /// `if a < b { then } else { otherwise }`, lane by lane; `otherwise` where either is NaN.
    fn select_lt(self, a: Self::F, b: Self::F, then: Self::F, otherwise: Self::F) -> Self::F;
    /// `v` in lanes `start..end`, `fill` in the others.
    fn keep_lanes(self, v: Self::F, start: usize, end: usize, fill: f32) -> Self::F;
    /// The sum of the lanes, in the order this module fixes.
    fn sum(self, v: Self::F) -> f32;
    /// The largest lane; NaN lanes may be passed over.
    fn max_lane(self, v: Self::F) -> f32;
    /// Lane `i` of the result is `sum(v[i])`.
    fn sum16(self, v: &[Self::F; LANES]) -> Self::F;

    /// Loads at most sixteen floats; the other lanes are zero.
    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> Self::F {
        let mut lanes = [0.0; LANES];
        for (lane, &value) in lanes.iter_mut().zip(from) {
            *lane = value;
        }
        self.load(&lanes)
    }

    /// Stores the first lanes, as many as `to` has room for.
    #[inline(always)]
    fn store_partial(self, to: &mut [f32], v: Self::F) {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes, v);
        for (value, &lane) in to.iter_mut().zip(&lanes) {
            *value = lane;
        }
    }

    /// `e^x`: range reduction by `ln 2` in two parts and the Taylor polynomial of degree 7, within
    /// 2 units in the last place. Zero below -87.3, about 2.2e38 from 88.3 on; NaN stays NaN.
    #[inline(always)]
    fn exp(self, x: Self::F) -> Self::F {
        // 11 bits of ln 2, so that its product with n is exact, and the rest.
        const LN_2_HI: f32 = 0.693_359_4;
        const LN_2_LO: f32 = -2.121_944_4e-4;
        const FLOOR: f32 = -87.3;
        let clamped = self.max(self.splat(FLOOR), self.min(self.splat(88.3), x));
        let n = self.round(self.mul(clamped, self.splat(std::f32::consts::LOG2_E)));
        let r = self.fnma(n, self.splat(LN_2_HI), clamped);
        let r = self.fnma(n, self.splat(LN_2_LO), r);
        let mut p = self.splat(1.0 / 5040.0);
        for coefficient in [
            1.0 / 720.0,
            1.0 / 120.0,
            1.0 / 24.0,
            1.0 / 6.0,
            0.5,
            1.0,
            1.0,
        ] {
            p = self.fma(p, r, self.splat(coefficient));
        }
        let y = self.mul(p, self.pow2(n));
        self.select_lt(x, self.splat(FLOOR), self.splat(0.0), y)
    }

    /// `x / (1 + e^-x)`.
    #[inline(always)]
    fn silu(self, x: Self::F) -> Self::F {
        let e = self.exp(self.sub(self.splat(0.0), x));
        self.div(x, self.add(self.splat(1.0), e))
    }

    /// The tanh form of GELU: with `u = sqrt(2 / pi) * (x + 0.044715 x^3)`,
    /// `x / 2 * (1 + tanh u) = x / (1 + e^-2u)`, which loses nothing where `tanh u` is near -1.
    #[inline(always)]
    fn gelu_tanh(self, x: Self::F) -> Self::F {
        // Minus twice the square root of 2 / pi.
        const FACTOR: f32 = -1.595_769;
        let cubic = self.fma(
            self.mul(x, x),
            self.splat(0.044_715 * FACTOR),
            self.splat(FACTOR),
        );
        let e = self.exp(self.mul(x, cubic));
        self.div(x, self.add(self.splat(1.0), e))
    }

    /// Hyperbolic tangent, within 3e-7 absolute.
    #[inline(always)]
    fn tanh(self, x: Self::F) -> Self::F {
        let e = self.exp(self.add(x, x));
        let two = self.splat(2.0);
        let one = self.splat(1.0);
        self.sub(one, self.div(two, self.add(e, one)))
    }
}
