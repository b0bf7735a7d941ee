//! Sixteen lanes of 32-bit integers, each with a weight row of its own: the operations of a
//! quantized product.
//!
//! A lane holds four bytes of its row. All operations are exact, so that every instruction set
//! computes the same; the portable implementation here says what they mean.
//!
//! Invariant: no operation rounds, saturates or mixes lanes.

use crate::linear::blocks::widen_half;
use crate::simd::{LANES, Scalar, Simd};

/// Integer lanes beside the float lanes of a [`Simd`]. A value of the type proves that the CPU has
/// the instructions.
///
/// As those of [`Simd`], methods have to be inlined into a function that enables them.
pub(super) trait IntSimd: Copy + Send + Sync + 'static {
    /// The float lanes.
    type S: Simd;
    /// Sixteen 32-bit lanes.
    type I: Copy;

    /// Activation rows for which there are registers.
    const MAX_ROWS: usize;
    /// What [`IntSimd::signed`] adds to signed bytes.
    const SIGNED_OFFSET: i32;

    /// The float operations.
    fn floats(self) -> Self::S;
    /// `value` in every lane.
    fn splat(self, value: i32) -> Self::I;
    /// Bit by bit.
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    /// Bit by bit.
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a - b`, wrapping.
    fn sub(self, a: Self::I, b: Self::I) -> Self::I;
    /// Each lane shifted left; `count` is below 32.
    fn shl(self, a: Self::I, count: u32) -> Self::I;
    /// Each lane shifted right, zeros coming in; `count` is below 32.
    fn shr(self, a: Self::I, count: u32) -> Self::I;
    /// Each lane shifted right, its sign coming in; `count` is below 32.
    fn sar(self, a: Self::I, count: u32) -> Self::I;
    /// To the nearest float.
    fn to_float(self, a: Self::I) -> FloatsOf<Self>;
    /// The half float in the low 16 bits of each lane, widened.
    fn low_half(self, a: Self::I) -> FloatsOf<Self>;

    /// `acc` plus the dot product of four unsigned bytes of `w`, none above 127, with four signed
    /// bytes of `x`, none of them -128.
    fn dot(self, acc: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// Brings signed bytes into the form that [`IntSimd::dot_signed`] takes.
    fn signed(self, w: Self::I) -> Self::I;
    /// As [`IntSimd::dot`] for bytes from [`IntSimd::signed`], which are [`Self::SIGNED_OFFSET`]
    /// larger than they were.
    fn dot_signed(self, acc: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// The dot product of two signed 16-bit numbers with two others.
    fn dot_pairs(self, a: Self::I, b: Self::I) -> Self::I;

    /// Sixteen bytes of each of sixteen rows: lane `i` of result `j` is dword `j` of row `i`.
    ///
    /// # Safety
    /// Sixteen bytes at `from + i * stride` are readable for each `i` below 16.
    unsafe fn load_columns(self, from: *const u8, stride: usize) -> [Self::I; 4];
    /// Four bytes of each of sixteen rows.
    ///
    /// # Safety
    /// As for [`IntSimd::load_columns`], with four bytes.
    unsafe fn load_words(self, from: *const u8, stride: usize) -> Self::I;
    /// A half float of each of sixteen rows, widened.
    ///
    /// # Safety
    /// As for [`IntSimd::load_columns`], with two bytes.
    unsafe fn load_halves(self, from: *const u8, stride: usize) -> FloatsOf<Self>;

    /// The half float in the high 16 bits of each lane, widened.
    #[inline(always)]
    fn high_half(self, a: Self::I) -> FloatsOf<Self> {
        self.low_half(self.shr(a, 16))
    }

    /// Byte `index` of each lane.
    #[inline(always)]
    fn byte(self, a: Self::I, index: u32) -> Self::I {
        self.and(self.shr(a, 8 * index), self.splat(0xFF))
    }

    /// Byte `index` of each lane, with its sign.
    #[inline(always)]
    fn signed_byte(self, a: Self::I, index: u32) -> Self::I {
        self.sar(self.shl(a, 24 - 8 * index), 24)
    }

    /// In each byte, the bits that start at bit `shift` and that `mask`, repeated, keeps.
    #[inline(always)]
    fn bits(self, a: Self::I, shift: u32, mask: u8) -> Self::I {
        let mask = i32::from_ne_bytes([mask; 4]);
        self.and(self.shr(a, shift), self.splat(mask))
    }
}

/// Float lanes beside integer lanes.
pub(super) type FloatsOf<T> = <<T as IntSimd>::S as Simd>::F;

type V = [i32; LANES];

#[inline(always)]
fn zip(a: &V, b: &V, f: impl Fn(i32, i32) -> i32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl IntSimd for Scalar {
    type S = Self;
    type I = V;

    const MAX_ROWS: usize = 1;
    const SIGNED_OFFSET: i32 = 0;

    #[inline(always)]
    fn floats(self) -> Self {
        self
    }

    #[inline(always)]
    fn splat(self, value: i32) -> V {
        [value; LANES]
    }

    #[inline(always)]
    fn and(self, a: V, b: V) -> V {
        zip(&a, &b, |a, b| a & b)
    }

    #[inline(always)]
    fn or(self, a: V, b: V) -> V {
        zip(&a, &b, |a, b| a | b)
    }

    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(&a, &b, i32::wrapping_sub)
    }

    #[inline(always)]
    fn shl(self, a: V, count: u32) -> V {
        a.map(|a| a << count)
    }

    #[inline(always)]
    fn shr(self, a: V, count: u32) -> V {
        a.map(|a| (a as u32 >> count) as i32)
    }

    #[inline(always)]
    fn sar(self, a: V, count: u32) -> V {
        a.map(|a| a >> count)
    }

    #[inline(always)]
    fn to_float(self, a: V) -> [f32; LANES] {
        a.map(|a| a as f32)
    }

    #[inline(always)]
    fn low_half(self, a: V) -> [f32; LANES] {
        a.map(|a| widen_half(a as u16))
    }

    #[inline(always)]
    fn dot(self, mut acc: V, w: V, x: V) -> V {
        // Shifts of whole lanes: every instruction set has them for vectors.
        for shift in [0, 8, 16, 24] {
            for i in 0..LANES {
                acc[i] += ((w[i] >> shift) & 0xFF) * (x[i] << (24 - shift) >> 24);
            }
        }
        acc
    }

    #[inline(always)]
    fn signed(self, w: V) -> V {
        w
    }

    #[inline(always)]
    fn dot_signed(self, mut acc: V, w: V, x: V) -> V {
        for shift in [0, 8, 16, 24] {
            for i in 0..LANES {
                acc[i] += (w[i] << (24 - shift) >> 24) * (x[i] << (24 - shift) >> 24);
            }
        }
        acc
    }

    #[inline(always)]
    fn dot_pairs(self, a: V, b: V) -> V {
        zip(&a, &b, |a, b| {
            let low = i32::from(a as i16) * i32::from(b as i16);
            low + (a >> 16) * (b >> 16)
        })
    }

    #[inline(always)]
    unsafe fn load_columns(self, from: *const u8, stride: usize) -> [V; 4] {
        let mut columns = [[0; LANES]; 4];
        for row in 0..LANES {
            // SAFETY: the caller's promise.
            let words: [[u8; 4]; 4] = unsafe { *from.add(row * stride).cast() };
            for (column, word) in columns.iter_mut().zip(words) {
                column[row] = i32::from_le_bytes(word);
            }
        }
        columns
    }

    #[inline(always)]
    unsafe fn load_words(self, from: *const u8, stride: usize) -> V {
        // SAFETY: the caller's promise.
        std::array::from_fn(|i| i32::from_le_bytes(unsafe { *from.add(i * stride).cast() }))
    }

    #[inline(always)]
    unsafe fn load_halves(self, from: *const u8, stride: usize) -> [f32; LANES] {
        std::array::from_fn(|i| {
            // SAFETY: the caller's promise.
            widen_half(u16::from_le_bytes(unsafe { *from.add(i * stride).cast() }))
        })
    }
}
