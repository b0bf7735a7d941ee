//! What a CPU backend is told when it is made.
//!
//! Invariant: whatever changes a result's bits enters `numerics_id`; threads do not.

use hotspare_model::ops::StepLimits;

/// How a [`CpuOps`](crate::CpuOps) is made.
#[derive(Clone, Debug)]
pub struct CpuOptions {
    /// Threads an operation may use, the device's own included; at least 1.
    pub num_threads: usize,
    /// Bounds of a step.
    pub limits: StepLimits,
    /// Round activations to bfloat16 where they meet weights of that type, as models of that type
    /// were trained: twice as fast on processors with AVX512-BF16, and the same bits on all.
    pub bf16_activations: bool,
}
