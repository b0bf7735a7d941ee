//! How a weight's bytes become sixteen floats.
//!
//! Invariant: widening is exact, on every instruction set.

use half::{bf16, f16};

use crate::simd::{LANES, Simd};

/// A number format of weights.
pub(super) trait WeightFormat: Copy {
    /// Bytes an element.
    const SIZE: usize;

    /// Widens sixteen elements.
    ///
    /// # Safety
    /// `from` is valid for reading `16 * SIZE` bytes; any alignment.
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F;

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

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F {
        // SAFETY: the caller gives 64 readable bytes; a byte array has no alignment.
        s.load_f32_bytes(unsafe { &*from.cast() })
    }

    fn widen(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

impl WeightFormat for F16 {
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F {
        // SAFETY: the caller gives 32 readable bytes; a byte array has no alignment.
        s.load_f16_bytes(unsafe { &*from.cast() })
    }

    fn widen(bytes: &[u8]) -> f32 {
        f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }
}

impl WeightFormat for Bf16 {
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F {
        // SAFETY: the caller gives 32 readable bytes; a byte array has no alignment.
        s.load_bf16_bytes(unsafe { &*from.cast() })
    }

    fn widen(bytes: &[u8]) -> f32 {
        bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }
}

/// Widens at most sixteen elements; the other lanes are zero.
///
/// # Safety
/// `from` is valid for reading `len * W::SIZE` bytes.
#[inline(always)]
pub(super) unsafe fn load_partial<S: Simd, W: WeightFormat>(
    s: S,
    from: *const u8,
    len: usize,
) -> S::F {
    let mut lanes = [0.0; LANES];
    // SAFETY: the caller gives that many readable bytes.
    let bytes = unsafe { std::slice::from_raw_parts(from, len * W::SIZE) };
    for (lane, element) in lanes.iter_mut().zip(bytes.chunks_exact(W::SIZE)) {
        *lane = W::widen(element);
    }
    s.load(&lanes)
}
