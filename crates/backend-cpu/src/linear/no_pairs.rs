//! Products of pairs of bfloat16 where no processor has them.
//!
//! Invariant: [`is_available`] is false, so nothing else is called.

use super::dense::Job;
use super::pack::Source;
use crate::simd::{Isa, LANES};

/// Floats in which a step of a row would be packed.
pub(super) const STEP_FLOATS: usize = LANES;

/// False.
pub(super) fn is_available(_: Isa) -> bool {
    false
}

/// Is not called.
pub(super) fn run(_: Isa, _: &Job<'_>) {}

/// Is not called.
pub(super) fn pack(_: Isa, _: &Source<'_>, _: &mut [f32]) {}
