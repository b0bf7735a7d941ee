//! The portable path: arrays of sixteen floats, for CPUs without a path of their own, and the
//! tests' oracle.
//!
//! `f32::mul_add` is correctly rounded everywhere; where the CPU has no such instruction it is
//! slow.
//!
//! Invariant: the same bits as every other path.

use half::{bf16, f16};

use super::{LANES, Simd};

/// Portable code.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

type V = [f32; LANES];

#[inline(always)]
fn zip(a: &V, b: &V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Scalar {
    type F = V;

    const HAS_32_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> V {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &V) -> V {
        *from
    }

    #[inline(always)]
    fn store(self, to: &mut V, v: V) {
        *to = v;
    }

    #[inline(always)]
    fn load_f32_bytes(self, from: &[u8; 64]) -> V {
        let words = from.as_chunks::<4>().0;
        std::array::from_fn(|i| f32::from_le_bytes(words[i]))
    }

    #[inline(always)]
    fn load_bf16_bytes(self, from: &[u8; 64], odd: bool) -> V {
        let pairs = from.as_chunks::<4>().0;
        std::array::from_fn(|i| {
            let [a, b, c, d] = pairs[i];
            bf16::from_le_bytes(if odd { [c, d] } else { [a, b] }).to_f32()
        })
    }

    #[inline(always)]
    fn load_f16_bytes(self, from: &[u8; 32]) -> V {
        let words = from.as_chunks::<2>().0;
        std::array::from_fn(|i| f16::from_le_bytes(words[i]).to_f32())
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> V {
        from.map(f32::from)
    }

    #[inline(always)]
    fn prefetch(self, _at: *const u8) {}

    #[inline(always)]
    fn prefetch_far(self, _at: *const u8) {}

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(&a, &b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(&a, &b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(&a, &b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        zip(&a, &b, |a, b| a / b)
    }

    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn fnma(self, a: V, b: V, c: V) -> V {
        std::array::from_fn(|i| (-a[i]).mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(&a, &b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        zip(&a, &b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn round(self, a: V) -> V {
        a.map(f32::round_ties_even)
    }

    #[inline(always)]
    fn pow2(self, n: V) -> V {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    fn select_lt(self, a: V, b: V, then: V, otherwise: V) -> V {
        std::array::from_fn(|i| if a[i] < b[i] { then[i] } else { otherwise[i] })
    }

    #[inline(always)]
    fn keep_lanes(self, v: V, start: usize, end: usize, fill: f32) -> V {
        std::array::from_fn(|i| if i >= start && i < end { v[i] } else { fill })
    }

    #[inline(always)]
    fn sum(self, mut v: V) -> f32 {
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                v[i] += v[i + width];
            }
        }
        v[0]
    }

    #[inline(always)]
    fn max_lane(self, v: V) -> f32 {
        v.into_iter()
            .fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
    }

    #[inline(always)]
    fn sum16(self, v: &[V; LANES]) -> V {
        v.map(|v| self.sum(v))
    }
}
