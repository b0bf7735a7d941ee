//! Products of bfloat16 weights and activations rounded to bfloat16, two at a time by the
//! processor's own instruction (AVX512-BF16), which does twice the work of a fused multiply-add.
//!
//! A lane takes the product of the odd elements of a pair, then that of the even ones, each rounded
//! once: exactly what [`super::dense`] does with floats that were rounded before they were packed.
//!
//! Invariant: the bits of a product are those of that road, but for sums below the normal numbers,
//! which become zero here.

use std::arch::x86_64::*;

use super::dense::{self, Job};
use super::format::STEP;
use super::pack::{Source, TILE_ROWS};
use super::tile::StepProduct;
use crate::simd::{Avx512, Isa, LANES, Simd, intrinsics};

/// Floats in which a step of a row is packed: its thirty-two elements are two bytes each.
pub(super) const STEP_FLOATS: usize = LANES;

/// Proof that the CPU has AVX-512 F, BW, DQ, VL and BF16.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pairs(());

impl Pairs {
    /// `Some` where the CPU has BF16 too.
    pub(super) fn detect(_: Avx512) -> Option<Self> {
        is_x86_feature_detected!("avx512bf16").then_some(Self(()))
    }
}

impl StepProduct<Avx512> for Pairs {
    const PARTS: usize = 1;
    const SIZE: usize = 2;
    const IS_WIDE: bool = true;

    #[inline(always)]
    unsafe fn weights(self, _: Avx512, step: *const u8, _: usize) -> __m512 {
        // SAFETY: the caller gives 64 readable bytes; `self` proves the instruction set.
        unsafe { _mm512_loadu_ps(step.cast()) }
    }

    #[inline(always)]
    fn mul_add(self, _: Avx512, weights: __m512, x: __m512, acc: __m512) -> __m512 {
        self.dot(acc, weights, x)
    }
}

impl Pairs {
    intrinsics! {
        fn dot(acc: __m512, a: __m512, b: __m512) -> __m512 {
            // The vectors of pairs are 64 bytes like any other.
            let (a, b): (__m512bh, __m512bh) = std::mem::transmute((a, b));
            _mm512_dpbf16_ps(acc, a, b)
        }
        fn round(low: __m512, high: __m512) -> __m512 {
            std::mem::transmute(_mm512_cvtne2ps_pbh(high, low))
        }
    }
}

/// The proofs that this instruction set has products of pairs.
fn proofs(isa: Isa) -> Option<(Avx512, Pairs)> {
    match isa {
        Isa::Avx512(s) => Pairs::detect(s).map(|p| (s, p)),
        _ => None,
    }
}

/// Whether this instruction set has products of pairs.
pub(super) fn is_available(isa: Isa) -> bool {
    proofs(isa).is_some()
}

/// Runs a job whose matrix is of bfloat16 and whose activations [`pack`] packed.
pub(super) fn run(isa: Isa, job: &Job<'_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
    fn whole(s: Avx512, p: Pairs, job: &Job<'_>) {
        dense::run_product::<_, _, true>(s, p, job);
    }
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
    fn any(s: Avx512, p: Pairs, job: &Job<'_>) {
        dense::run_product::<_, _, false>(s, p, job);
    }
    let Some((s, p)) = proofs(isa) else { return };
    // SAFETY: the tokens exist only where the CPU has these features.
    unsafe {
        match job.matrix.num_inputs().is_multiple_of(STEP) {
            true => whole(s, p, job),
            false => any(s, p, job),
        }
    }
}

/// Packs all rows of the source into `out`, as [`super::pack::pack`] does, with two elements in a
/// float's place.
pub(super) fn pack(isa: Isa, source: &Source<'_>, out: &mut [f32]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
    fn entry(s: Avx512, p: Pairs, source: &Source<'_>, out: &mut [f32]) {
        pack_rows(s, p, source, out);
    }
    let Some((s, p)) = proofs(isa) else { return };
    // SAFETY: the tokens exist only where the CPU has these features.
    unsafe { entry(s, p, source, out) }
}

#[inline(always)]
fn pack_rows(s: Avx512, p: Pairs, source: &Source<'_>, out: &mut [f32]) {
    let k = source.k;
    let row_len = k.div_ceil(STEP) * STEP_FLOATS;
    let tiles = source
        .x
        .chunks(TILE_ROWS * k)
        .zip(out.chunks_mut(TILE_ROWS * row_len));
    for (rows, tile) in tiles {
        let num_rows = rows.len() / k;
        let (vectors, _) = tile.as_chunks_mut::<STEP_FLOATS>();
        for (m, row) in rows.chunks_exact(k).enumerate() {
            let (steps, tail) = row.as_chunks::<STEP>();
            for (i, step) in steps.iter().enumerate() {
                pack_step(s, p, step, &mut vectors[i * num_rows + m]);
            }
            if !tail.is_empty() {
                let mut step = [0.0; STEP];
                step[..tail.len()].copy_from_slice(tail);
                pack_step(s, p, &step, &mut vectors[steps.len() * num_rows + m]);
            }
        }
    }
}

/// Rounds as [`super::pack::bf16_bits`] does.
#[inline(always)]
fn pack_step(s: Avx512, p: Pairs, step: &[f32; STEP], to: &mut [f32; STEP_FLOATS]) {
    if let ([low, high], _) = step.as_chunks::<LANES>() {
        s.store(to, p.round(s.load(low), s.load(high)));
    }
}
