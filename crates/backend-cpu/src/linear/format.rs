//! How a weight's bytes become floats, thirty-two at a time.
//!
//! bfloat16 is widened in the order that is cheapest, and that of the processor's own products of
//! pairs ([`super::pairs`]): odd elements before even ones. Activations are packed in the same
//! order ([`super::pack`]).
//!
//! Invariant: widening is exact, on every instruction set.

use half::{bf16, f16};

use crate::simd::{LANES, Simd};

/// Elements of a step over k: two vectors.
pub(super) const STEP: usize = 2 * LANES;

/// A number format of weights.
pub(super) trait WeightFormat: Copy + Default {
    /// Bytes an element.
    const SIZE: usize;

    /// Widens the first or the second half of a step.
    ///
    /// # Safety
    /// `step` is valid for reading `STEP_BYTES`; any alignment.
    unsafe fn load_half<S: Simd>(s: S, step: *const u8, half: usize) -> S::F;

    /// Widens one element from `SIZE` bytes.
    fn widen(bytes: &[u8]) -> f32;
}

/// IEEE single.
#[derive(Clone, Copy, Default)]
pub(super) struct F32;
/// IEEE half.
#[derive(Clone, Copy, Default)]
pub(super) struct F16;
/// bfloat16.
#[derive(Clone, Copy, Default)]
pub(super) struct Bf16;

impl WeightFormat for F32 {
    const SIZE: usize = 4;

    #[inline(always)]
    unsafe fn load_half<S: Simd>(s: S, step: *const u8, half: usize) -> S::F {
        // SAFETY: the caller gives 128 readable bytes; byte arrays have no alignment.
        let halves: &[[u8; 64]; 2] = unsafe { &*step.cast() };
        s.load_f32_bytes(&halves[half])
    }

    fn widen(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

impl WeightFormat for F16 {
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn load_half<S: Simd>(s: S, step: *const u8, half: usize) -> S::F {
        // SAFETY: the caller gives 64 readable bytes; byte arrays have no alignment.
        let halves: &[[u8; 32]; 2] = unsafe { &*step.cast() };
        s.load_f16_bytes(&halves[half])
    }

    fn widen(bytes: &[u8]) -> f32 {
        f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }
}

impl WeightFormat for Bf16 {
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn load_half<S: Simd>(s: S, step: *const u8, half: usize) -> S::F {
        // SAFETY: the caller gives 64 readable bytes; a byte array has no alignment.
        s.load_bf16_bytes(unsafe { &*step.cast() }, half == 0)
    }

    fn widen(bytes: &[u8]) -> f32 {
        bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }
}

/// A step's two vectors, of elements in their natural order.
#[inline(always)]
pub(super) fn order_step(elements: &[f32; STEP], is_interleaved: bool) -> [[f32; LANES]; 2] {
    let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
    for i in 0..LANES {
        if is_interleaved {
            (a[i], b[i]) = (elements[2 * i + 1], elements[2 * i]);
        } else {
            (a[i], b[i]) = (elements[i], elements[LANES + i]);
        }
    }
    [a, b]
}
