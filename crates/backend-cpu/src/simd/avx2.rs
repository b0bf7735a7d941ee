//! AVX2 with FMA and F16C: two registers hold the sixteen lanes.
//!
//! Invariant: the same bits as every other path.

use std::arch::x86_64::*;

use super::dispatch::intrinsics;
use super::{LANES, Simd};

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// `Some` where the CPU and the system have them.
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }
}

/// Lanes 0..8 and 8..16.
#[derive(Clone, Copy)]
pub(crate) struct Pair(__m256, __m256);

impl Simd for Avx2 {
    type F = Pair;

    const HAS_32_REGISTERS: bool = false;

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Pair {
        // SAFETY: `self` proves the instruction set; the reference covers the 64 bytes read.
        unsafe {
            Pair(
                _mm256_loadu_ps(from.as_ptr()),
                _mm256_loadu_ps(from[8..].as_ptr()),
            )
        }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], v: Pair) {
        // SAFETY: `self` proves the instruction set; the reference covers the 64 bytes written.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), v.0);
            _mm256_storeu_ps(to[8..].as_mut_ptr(), v.1);
        }
    }

    #[inline(always)]
    fn load_f32_bytes(self, from: &[u8; 64]) -> Pair {
        // SAFETY: `self` proves the instruction set; the reference covers the 64 bytes read, and
        // the instruction takes any alignment.
        unsafe {
            Pair(
                _mm256_loadu_ps(from.as_ptr().cast()),
                _mm256_loadu_ps(from[32..].as_ptr().cast()),
            )
        }
    }

    #[inline(always)]
    fn load_bf16_bytes(self, from: &[u8; 64], odd: bool) -> Pair {
        // SAFETY: `self` proves the instruction set; the reference covers the 64 bytes read, and
        // the instruction takes any alignment.
        unsafe {
            let low = _mm256_loadu_si256(from.as_ptr().cast());
            let high = _mm256_loadu_si256(from[32..].as_ptr().cast());
            let (low, high) = if odd {
                let mask = _mm256_set1_epi32(0xFFFF_0000_u32 as i32);
                (_mm256_and_si256(low, mask), _mm256_and_si256(high, mask))
            } else {
                (_mm256_slli_epi32::<16>(low), _mm256_slli_epi32::<16>(high))
            };
            Pair(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }

    #[inline(always)]
    fn load_f16_bytes(self, from: &[u8; 32]) -> Pair {
        // SAFETY: `self` proves the instruction set; the reference covers the 32 bytes read.
        unsafe {
            Pair(
                _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from[16..].as_ptr().cast())),
            )
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Pair {
        // SAFETY: `self` proves the instruction set; the reference covers the 16 bytes read.
        unsafe {
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            let high = _mm_unpackhi_epi64(bytes, bytes);
            Pair(
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high)),
            )
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
        fn splat(value: f32) -> Pair { Pair(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
        fn add(a: Pair, b: Pair) -> Pair {
            Pair(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1))
        }
        fn sub(a: Pair, b: Pair) -> Pair {
            Pair(_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1))
        }
        fn mul(a: Pair, b: Pair) -> Pair {
            Pair(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1))
        }
        fn div(a: Pair, b: Pair) -> Pair {
            Pair(_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1))
        }
        fn fma(a: Pair, b: Pair, c: Pair) -> Pair {
            Pair(_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1))
        }
        fn fnma(a: Pair, b: Pair, c: Pair) -> Pair {
            Pair(_mm256_fnmadd_ps(a.0, b.0, c.0), _mm256_fnmadd_ps(a.1, b.1, c.1))
        }
        fn max(a: Pair, b: Pair) -> Pair {
            Pair(_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1))
        }
        fn min(a: Pair, b: Pair) -> Pair {
            Pair(_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1))
        }
        fn round(a: Pair) -> Pair {
            Pair(_mm256_round_ps::<8>(a.0), _mm256_round_ps::<8>(a.1))
        }
        fn pow2(n: Pair) -> Pair {
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_add_epi32(_mm256_cvtps_epi32(n.0), bias);
            let high = _mm256_add_epi32(_mm256_cvtps_epi32(n.1), bias);
            Pair(
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(high)),
            )
        }
        fn select_lt(a: Pair, b: Pair, then: Pair, otherwise: Pair) -> Pair {
            let low = _mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0);
            let high = _mm256_cmp_ps::<_CMP_LT_OQ>(a.1, b.1);
            Pair(
                _mm256_blendv_ps(otherwise.0, then.0, low),
                _mm256_blendv_ps(otherwise.1, then.1, high),
            )
        }
        fn keep_lanes(v: Pair, start: usize, end: usize, fill: f32) -> Pair {
            let fill = _mm256_set1_ps(fill);
            // A lane is kept where start <= lane < end, that is lane > start - 1 and end > lane.
            let after = _mm256_set1_epi32(start.min(LANES) as i32 - 1);
            let before = _mm256_set1_epi32(end.min(LANES) as i32);
            let low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
            let low =
                _mm256_and_si256(_mm256_cmpgt_epi32(low, after), _mm256_cmpgt_epi32(before, low));
            let high =
                _mm256_and_si256(_mm256_cmpgt_epi32(high, after), _mm256_cmpgt_epi32(before, high));
            Pair(
                _mm256_blendv_ps(fill, v.0, _mm256_castsi256_ps(low)),
                _mm256_blendv_ps(fill, v.1, _mm256_castsi256_ps(high)),
            )
        }
        fn sum(v: Pair) -> f32 {
            let v = _mm256_add_ps(v.0, v.1);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
        fn max_lane(v: Pair) -> f32 {
            let v = _mm256_max_ps(v.0, v.1);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
        fn sum16(v: &[Pair; LANES]) -> Pair {
            // Two vectors to one of four partial sums each: lanes i and i + 8, then i and i + 4.
            #[inline(always)]
            fn quarters(a: Pair, b: Pair) -> __m256 {
                // SAFETY: only reached from a method of the token.
                unsafe {
                    let (a, b) = (_mm256_add_ps(a.0, a.1), _mm256_add_ps(b.0, b.1));
                    _mm256_add_ps(
                        _mm256_permute2f128_ps::<0x20>(a, b),
                        _mm256_permute2f128_ps::<0x31>(a, b),
                    )
                }
            }
            // Lanes i and i + 2 of two such vectors.
            #[inline(always)]
            fn halves(a: __m256, b: __m256) -> __m256 {
                // SAFETY: only reached from a method of the token.
                unsafe {
                    let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
                    let low = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
                    _mm256_add_ps(low, _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)))
                }
            }
            /// # Safety
            /// The CPU has AVX2.
            #[inline(always)]
            unsafe fn eight(v: [Pair; 8]) -> __m256 {
                // SAFETY: the caller's promise.
                unsafe {
                    let even = halves(quarters(v[0], v[4]), quarters(v[1], v[5]));
                    let odd = halves(quarters(v[2], v[6]), quarters(v[3], v[7]));
                    _mm256_add_ps(
                        _mm256_shuffle_ps::<0x88>(even, odd),
                        _mm256_shuffle_ps::<0xDD>(even, odd),
                    )
                }
            }
            Pair(
                eight([v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]]),
                eight([v[8], v[9], v[10], v[11], v[12], v[13], v[14], v[15]]),
            )
        }
    }
}
