//! Each kernel against the CPU's operation of the same name, on any [`crate::Launcher`].
//!
//! A check makes random inputs from a seed, rounds them to the kernel's format, runs both and
//! compares every element; what has to be invariant is compared bit for bit.
//!
//! Invariant: outputs are poisoned before a launch, on a card too, rows and padding included that
//! nobody should write.

mod attention;
#[cfg(test)]
mod checks_test;
mod dense;
mod elementwise;
pub(crate) mod embed;
mod linear;
mod logprobs;
mod moe;
mod oracle;
mod rope;
mod sample;
pub(crate) mod support;

pub use dense::dense_products;

use crate::{LaunchError, Launcher};

/// A check: a launcher and a seed.
pub type Check = fn(&mut dyn Launcher, u64) -> Result<(), LaunchError>;

/// All checks by name.
pub const ALL: &[(&str, Check)] = &[
    ("conversions", elementwise::conversions),
    ("rms_norm", elementwise::rms_norm),
    ("head_rms_norm", elementwise::head_rms_norm),
    ("gated", elementwise::gated),
    ("rowwise", elementwise::rowwise),
    ("embed", embed::embed),
    ("dequantize", embed::dequantize),
    ("resolve_tokens", embed::resolve_tokens),
    ("rope_kv_write", rope::rope_kv_write),
    ("attention", attention::attention),
    ("linear", linear::linear),
    ("linear_quantized", linear::linear_quantized),
    ("linear_grouped", linear::linear_grouped),
    ("moe", moe::moe),
    ("sample", sample::sample),
    ("logprobs", logprobs::logprobs),
];
