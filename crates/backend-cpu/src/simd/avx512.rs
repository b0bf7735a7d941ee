//! AVX-512: one register holds the sixteen lanes.
//!
//! F, BW, DQ and VL are asked for, which every CPU with AVX-512 but the Xeon Phi has. VL matters:
//! without it half the registers cannot hold the narrow operands of conversions.
//!
//! Invariant: the same bits as every other path.

use std::arch::x86_64::*;

use super::dispatch::intrinsics;
use super::{LANES, Simd};

/// Proof that the CPU has AVX-512 F, BW, DQ and VL (and AVX2, FMA, F16C).
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// `Some` where the CPU and the system have it.
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }
}

impl Simd for Avx512 {
    type F = __m512;

    const HAS_32_REGISTERS: bool = true;

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m512 {
        // SAFETY: `self` proves the instruction set; the reference covers the 64 bytes read.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], v: __m512) {
        // SAFETY: `self` proves the instruction set; the reference covers the 64 bytes written.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn load_f32_bytes(self, from: &[u8; 64]) -> __m512 {
        // SAFETY: `self` proves the instruction set; the reference covers the 64 bytes read, and
        // the instruction takes any alignment.
        unsafe { _mm512_loadu_ps(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_bf16_bytes(self, from: &[u8; 64], odd: bool) -> __m512 {
        // SAFETY: `self` proves the instruction set; the reference covers the 64 bytes read, and
        // the instruction takes any alignment.
        unsafe {
            let words = _mm512_loadu_si512(from.as_ptr().cast());
            _mm512_castsi512_ps(if odd {
                _mm512_and_si512(words, _mm512_set1_epi32(0xFFFF_0000_u32 as i32))
            } else {
                _mm512_slli_epi32::<16>(words)
            })
        }
    }

    #[inline(always)]
    fn load_f16_bytes(self, from: &[u8; 32]) -> __m512 {
        // SAFETY: as for `load_f32_bytes`, with 32 bytes.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> __m512 {
        // SAFETY: `self` proves the instruction set; the reference covers the 16 bytes read.
        unsafe {
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
        }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a hint; it takes any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn prefetch_far(self, at: *const u8) {
        // SAFETY: a hint; it takes any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    intrinsics! {
        fn splat(value: f32) -> __m512 { _mm512_set1_ps(value) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fnmadd_ps(a, b, c) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn round(a: __m512) -> __m512 { _mm512_roundscale_ps::<8>(a) }
        fn pow2(n: __m512) -> __m512 {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
        fn select_lt(a: __m512, b: __m512, then: __m512, otherwise: __m512) -> __m512 {
            let mask = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b);
            _mm512_mask_blend_ps(mask, otherwise, then)
        }
        fn keep_lanes(v: __m512, start: usize, end: usize, fill: f32) -> __m512 {
            let mask = ((1u32 << end.min(LANES)) - 1) & !((1u32 << start.min(LANES)) - 1);
            _mm512_mask_blend_ps(mask as __mmask16, _mm512_set1_ps(fill), v)
        }
        fn sum(v: __m512) -> f32 {
            let v = _mm512_add_ps(v, _mm512_shuffle_f32x4::<0b01_00_11_10>(v, v));
            let v = _mm512_add_ps(v, _mm512_shuffle_f32x4::<0b10_11_00_01>(v, v));
            let v = _mm512_add_ps(v, _mm512_permute_ps::<0b01_00_11_10>(v));
            let v = _mm512_add_ps(v, _mm512_permute_ps::<0b10_11_00_01>(v));
            _mm512_cvtss_f32(v)
        }
        fn max_lane(v: __m512) -> f32 {
            let v = _mm512_max_ps(v, _mm512_shuffle_f32x4::<0b01_00_11_10>(v, v));
            let v = _mm512_max_ps(v, _mm512_shuffle_f32x4::<0b10_11_00_01>(v, v));
            let v = _mm512_max_ps(v, _mm512_permute_ps::<0b01_00_11_10>(v));
            let v = _mm512_max_ps(v, _mm512_permute_ps::<0b10_11_00_01>(v));
            _mm512_cvtss_f32(v)
        }
        fn sum16(v: &[__m512; LANES]) -> __m512 {
            // Four vectors to one of four partial sums each: lanes i and i + 8, then i and i + 4.
            #[inline(always)]
            fn quarters(a: __m512, b: __m512, c: __m512, d: __m512) -> __m512 {
                // SAFETY: only reached from a method of the token.
                unsafe {
                    let ab = _mm512_add_ps(
                        _mm512_shuffle_f32x4::<0x44>(a, b),
                        _mm512_shuffle_f32x4::<0xEE>(a, b),
                    );
                    let cd = _mm512_add_ps(
                        _mm512_shuffle_f32x4::<0x44>(c, d),
                        _mm512_shuffle_f32x4::<0xEE>(c, d),
                    );
                    _mm512_add_ps(
                        _mm512_shuffle_f32x4::<0x88>(ab, cd),
                        _mm512_shuffle_f32x4::<0xDD>(ab, cd),
                    )
                }
            }
            // Lanes i and i + 2 of two such vectors.
            #[inline(always)]
            fn halves(a: __m512, b: __m512) -> __m512 {
                // SAFETY: only reached from a method of the token.
                unsafe {
                    let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
                    let low = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                    _mm512_add_ps(low, _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
                }
            }
            let even = halves(
                quarters(v[0], v[4], v[8], v[12]),
                quarters(v[1], v[5], v[9], v[13]),
            );
            let odd = halves(
                quarters(v[2], v[6], v[10], v[14]),
                quarters(v[3], v[7], v[11], v[15]),
            );
            _mm512_add_ps(
                _mm512_shuffle_ps::<0x88>(even, odd),
                _mm512_shuffle_ps::<0xDD>(even, odd),
            )
        }
    }
}
