//! Integer lanes of AVX2: two registers hold the sixteen lanes.
//!
//! Without a dot product of bytes into 32 bits there are three instructions: pairs of products in
//! 16 bits, which the bounds on operands keep from saturating, pairs of those in 32, and a sum.
//!
//! Invariant: the same numbers as portable code.

use std::arch::x86_64::*;

use super::int_simd::{FloatsOf, IntSimd};
use crate::simd::{Avx2, LANES, Simd, intrinsics};

/// Lanes 0..8 and 8..16.
#[derive(Clone, Copy)]
pub(super) struct IntPair(__m256i, __m256i);

impl IntSimd for Avx2 {
    type S = Self;
    type I = IntPair;

    const MAX_ROWS: usize = 2;
    const SIGNED_OFFSET: i32 = 0;

    #[inline(always)]
    fn floats(self) -> Self {
        self
    }

    #[inline(always)]
    fn signed(self, w: IntPair) -> IntPair {
        w
    }

    #[inline(always)]
    fn to_float(self, a: IntPair) -> FloatsOf<Self> {
        // SAFETY: `self` proves that the CPU has the instructions; no memory is touched.
        self.join(unsafe { [_mm256_cvtepi32_ps(a.0), _mm256_cvtepi32_ps(a.1)] })
    }

    #[inline(always)]
    fn low_half(self, a: IntPair) -> FloatsOf<Self> {
        // SAFETY: `self` proves that the CPU has the instructions; no memory is touched.
        unsafe {
            let mask = _mm256_set1_epi32(0xFFFF);
            let (a, b) = (_mm256_and_si256(a.0, mask), _mm256_and_si256(a.1, mask));
            // Packing works in halves of registers: their middle quarters change places.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
            self.widen(words)
        }
    }

    intrinsics! {
        fn splat(value: i32) -> IntPair {
            IntPair(_mm256_set1_epi32(value), _mm256_set1_epi32(value))
        }
        fn and(a: IntPair, b: IntPair) -> IntPair {
            IntPair(_mm256_and_si256(a.0, b.0), _mm256_and_si256(a.1, b.1))
        }
        fn or(a: IntPair, b: IntPair) -> IntPair {
            IntPair(_mm256_or_si256(a.0, b.0), _mm256_or_si256(a.1, b.1))
        }
        fn sub(a: IntPair, b: IntPair) -> IntPair {
            IntPair(_mm256_sub_epi32(a.0, b.0), _mm256_sub_epi32(a.1, b.1))
        }
        fn shl(a: IntPair, count: u32) -> IntPair {
            let count = _mm256_set1_epi32(count as i32);
            IntPair(_mm256_sllv_epi32(a.0, count), _mm256_sllv_epi32(a.1, count))
        }
        fn shr(a: IntPair, count: u32) -> IntPair {
            let count = _mm256_set1_epi32(count as i32);
            IntPair(_mm256_srlv_epi32(a.0, count), _mm256_srlv_epi32(a.1, count))
        }
        fn sar(a: IntPair, count: u32) -> IntPair {
            let count = _mm256_set1_epi32(count as i32);
            IntPair(_mm256_srav_epi32(a.0, count), _mm256_srav_epi32(a.1, count))
        }
        fn dot(acc: IntPair, w: IntPair, x: IntPair) -> IntPair {
            IntPair(dot8(acc.0, w.0, x.0), dot8(acc.1, w.1, x.1))
        }
        fn dot_signed(acc: IntPair, w: IntPair, x: IntPair) -> IntPair {
            // Signs move from the weights to the activations, of which none is -128: the products
            // are those of w and x, and 2 * 128 * 127 is below 2^15.
            let a = dot8(acc.0, _mm256_abs_epi8(w.0), _mm256_sign_epi8(x.0, w.0));
            let b = dot8(acc.1, _mm256_abs_epi8(w.1), _mm256_sign_epi8(x.1, w.1));
            IntPair(a, b)
        }
        fn dot_pairs(a: IntPair, b: IntPair) -> IntPair {
            IntPair(_mm256_madd_epi16(a.0, b.0), _mm256_madd_epi16(a.1, b.1))
        }
    }

    #[inline(always)]
    unsafe fn load_columns(self, from: *const u8, stride: usize) -> [IntPair; 4] {
        // SAFETY: the caller promises sixteen rows; `self` proves the instruction set.
        unsafe {
            let low = columns8(from, stride);
            let high = columns8(from.add(8 * stride), stride);
            [
                IntPair(low[0], high[0]),
                IntPair(low[1], high[1]),
                IntPair(low[2], high[2]),
                IntPair(low[3], high[3]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load_words(self, from: *const u8, stride: usize) -> IntPair {
        let mut words = [0; LANES];
        for (row, word) in words.iter_mut().enumerate() {
            // SAFETY: the caller promises four bytes of each row.
            *word = unsafe { from.add(row * stride).cast::<i32>().read_unaligned() };
        }
        let w = words;
        // SAFETY: `self` proves that the CPU has the instructions; no memory is touched.
        unsafe {
            IntPair(
                _mm256_setr_epi32(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]),
                _mm256_setr_epi32(w[8], w[9], w[10], w[11], w[12], w[13], w[14], w[15]),
            )
        }
    }

    #[inline(always)]
    unsafe fn load_halves(self, from: *const u8, stride: usize) -> FloatsOf<Self> {
        // SAFETY: the caller promises two bytes of each row; `self` proves the instruction set.
        unsafe { self.widen(halves16(from, stride)) }
    }
}

impl Avx2 {
    /// Sixteen half floats.
    #[inline(always)]
    fn widen(self, words: __m256i) -> FloatsOf<Self> {
        // SAFETY: `self` proves that the CPU has the instructions; no memory is touched.
        self.join(unsafe {
            [
                _mm256_cvtph_ps(_mm256_castsi256_si128(words)),
                _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(words)),
            ]
        })
    }

    #[inline(always)]
    fn join(self, halves: [__m256; 2]) -> FloatsOf<Self> {
        let mut lanes = [0.0; LANES];
        // SAFETY: `self` proves the instruction set; each half has room for eight floats.
        unsafe {
            _mm256_storeu_ps(lanes.as_mut_ptr(), halves[0]);
            _mm256_storeu_ps(lanes[8..].as_mut_ptr(), halves[1]);
        }
        self.load(&lanes)
    }
}

/// A half float of each of sixteen rows, in order.
///
/// # Safety
/// Two bytes at `from + i * stride` are readable for each `i` below 16; the CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn halves16(from: *const u8, stride: usize) -> __m256i {
    let mut h = [0i16; LANES];
    for (row, half) in h.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *half = unsafe { from.add(row * stride).cast::<i16>().read_unaligned() };
    }
    // SAFETY: no memory is touched. Sixteen arguments, because a load of the array would wait for
    // its stores.
    unsafe {
        _mm256_setr_epi16(
            h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7], h[8], h[9], h[10], h[11], h[12], h[13],
            h[14], h[15],
        )
    }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn dot8(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: the caller's promise; no memory is touched.
    unsafe {
        let pairs = _mm256_maddubs_epi16(w, x);
        _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

/// Sixteen bytes of each of eight rows, transposed.
///
/// # Safety
/// Sixteen bytes at `from + i * stride` are readable for each `i` below 8; the CPU has AVX2.
#[inline(always)]
unsafe fn columns8(from: *const u8, stride: usize) -> [__m256i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut rows = [_mm256_setzero_si256(); 4];
        for (i, row) in rows.iter_mut().enumerate() {
            // Rows i and i + 4 of the eight.
            let low = _mm_loadu_si128(from.add(i * stride).cast());
            let high = _mm_loadu_si128(from.add((i + 4) * stride).cast());
            *row = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high);
        }
        let [a, b, c, d] = rows;
        let (ab0, ab1) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (cd0, cd1) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        [
            _mm256_unpacklo_epi64(ab0, cd0),
            _mm256_unpackhi_epi64(ab0, cd0),
            _mm256_unpacklo_epi64(ab1, cd1),
            _mm256_unpackhi_epi64(ab1, cd1),
        ]
    }
}
