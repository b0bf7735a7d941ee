//! Integer lanes of AVX-512 with VNNI: one register holds the sixteen lanes, and one instruction
//! multiplies and adds 64 bytes.
//!
//! Invariant: the same numbers as portable code.

use std::arch::x86_64::*;

use super::int_avx2::halves16;
use super::int_simd::{FloatsOf, IntSimd};
use crate::simd::{Avx512, LANES, intrinsics};

/// Proof that the CPU has AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vnni(Avx512);

impl Vnni {
    /// `Some` where the CPU has VNNI too.
    pub(super) fn detect(avx512: Avx512) -> Option<Self> {
        is_x86_feature_detected!("avx512vnni").then_some(Self(avx512))
    }
}

impl IntSimd for Vnni {
    type S = Avx512;
    type I = __m512i;

    const MAX_ROWS: usize = 8;
    const SIGNED_OFFSET: i32 = 128;

    #[inline(always)]
    fn floats(self) -> Avx512 {
        self.0
    }

    intrinsics! {
        fn splat(value: i32) -> __m512i { _mm512_set1_epi32(value) }
        fn and(a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn or(a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
        fn sub(a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi32(a, b) }
        fn shl(a: __m512i, count: u32) -> __m512i {
            _mm512_sllv_epi32(a, _mm512_set1_epi32(count as i32))
        }
        fn shr(a: __m512i, count: u32) -> __m512i {
            _mm512_srlv_epi32(a, _mm512_set1_epi32(count as i32))
        }
        fn sar(a: __m512i, count: u32) -> __m512i {
            _mm512_srav_epi32(a, _mm512_set1_epi32(count as i32))
        }
        fn to_float(a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
        fn low_half(a: __m512i) -> __m512 { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)) }
        fn dot(acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
            _mm512_dpbusd_epi32(acc, w, x)
        }
        fn signed(w: __m512i) -> __m512i {
            _mm512_xor_si512(w, _mm512_set1_epi8(-128))
        }
        fn dot_signed(acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
            _mm512_dpbusd_epi32(acc, w, x)
        }
        fn dot_pairs(a: __m512i, b: __m512i) -> __m512i { _mm512_madd_epi16(a, b) }
    }

    #[inline(always)]
    unsafe fn load_columns(self, from: *const u8, stride: usize) -> [__m512i; 4] {
        // SAFETY: the caller promises sixteen rows; `self` proves the instruction set.
        unsafe {
            let mut rows = [_mm512_setzero_si512(); 4];
            for (i, row) in rows.iter_mut().enumerate() {
                // Rows i, i + 4, i + 8 and i + 12.
                let first = _mm_loadu_si128(from.add(i * stride).cast());
                let second = _mm_loadu_si128(from.add((i + 4) * stride).cast());
                let third = _mm_loadu_si128(from.add((i + 8) * stride).cast());
                let fourth = _mm_loadu_si128(from.add((i + 12) * stride).cast());
                let v = _mm512_castsi128_si512(first);
                let v = _mm512_inserti32x4::<1>(v, second);
                let v = _mm512_inserti32x4::<2>(v, third);
                *row = _mm512_inserti32x4::<3>(v, fourth);
            }
            let [a, b, c, d] = rows;
            let (ab0, ab1) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd0, cd1) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab0, cd0),
                _mm512_unpackhi_epi64(ab0, cd0),
                _mm512_unpacklo_epi64(ab1, cd1),
                _mm512_unpackhi_epi64(ab1, cd1),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load_words(self, from: *const u8, stride: usize) -> __m512i {
        let mut w = [0; LANES];
        for (row, word) in w.iter_mut().enumerate() {
            // SAFETY: the caller promises four bytes of each row.
            *word = unsafe { from.add(row * stride).cast::<i32>().read_unaligned() };
        }
        // SAFETY: `self` proves that the CPU has the instructions; no memory is touched.
        unsafe {
            _mm512_setr_epi32(
                w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11], w[12],
                w[13], w[14], w[15],
            )
        }
    }

    #[inline(always)]
    unsafe fn load_halves(self, from: *const u8, stride: usize) -> FloatsOf<Self> {
        // SAFETY: the caller promises two bytes of each row; `self` proves the instruction set.
        unsafe { _mm512_cvtph_ps(halves16(from, stride)) }
    }
}
