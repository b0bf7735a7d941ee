//! How a weight's bytes become floats, thirty-two at a time.
//!
//! bfloat16 is widened in the order that is cheapest, even elements before odd ones; activations
//! are packed in the same order ([`super::pack`]).
//!
//! Invariant: widening is exact, on every instruction set.

use half::{bf16, f16};

use crate::simd::{LANES, Simd};

/// Elements of a step over k: two vectors.
pub(super) const STEP: usize = 2 * LANES;

/// A number format of weights.
pub(super) trait WeightFormat: Copy {
    /// Bytes an element.
    const SIZE: usize;
    /// Whether a step is the elements of even index, then those of odd index.
    const IS_INTERLEAVED: bool;
    /// Bytes of a step.
    const STEP_BYTES: usize = STEP * Self::SIZE;

    /// Widens the first or the second half of a step.
    ///
    /// # Safety
    /// `step` is valid for reading `STEP_BYTES`; any alignment.
    unsafe fn load_half<S: Simd>(s: S, step: *const u8, half: usize) -> S::F;

    /// Widens one element from `SIZE` bytes.
    fn widen(bytes: &[u8]) -> f32;
}

/// IEEE single.
#[derive(Clone, Copy)]
pub(super) struct F32;
/// IEEE half.
#[derive(Clone, Copy)]
pub(super) struct F16;
/// bfloat16.
#[derive(Clone, Copy)]
pub(super) struct Bf16;

impl WeightFormat for F32 {
    const SIZE: usize = 4;
    const IS_INTERLEAVED: bool = false;

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
    const IS_INTERLEAVED: bool = false;

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
    const IS_INTERLEAVED: bool = true;

    #[inline(always)]
    unsafe fn load_half<S: Simd>(s: S, step: *const u8, half: usize) -> S::F {
        // SAFETY: the caller gives 64 readable bytes; a byte array has no alignment.
        s.load_bf16_bytes(unsafe { &*step.cast() }, half == 1)
    }

    fn widen(bytes: &[u8]) -> f32 {
        bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }
}

/// Widens the elements of a partial step; the other lanes are zero.
#[inline(always)]
pub(super) fn widen_partial_step<W: WeightFormat>(bytes: &[u8]) -> [[f32; LANES]; 2] {
    let mut elements = [0.0; STEP];
    for (element, bytes) in elements.iter_mut().zip(bytes.chunks_exact(W::SIZE)) {
        *element = W::widen(bytes);
    }
    order_step(&elements, W::IS_INTERLEAVED)
}

/// A step's two vectors, of elements in their natural order.
#[inline(always)]
pub(super) fn order_step(elements: &[f32; STEP], is_interleaved: bool) -> [[f32; LANES]; 2] {
    let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
    for i in 0..LANES {
        if is_interleaved {
            (a[i], b[i]) = (elements[2 * i], elements[2 * i + 1]);
        } else {
            (a[i], b[i]) = (elements[i], elements[LANES + i]);
        }
    }
    [a, b]
}
