//! What a CUDA backend is told when it starts.
//!
//! Invariant: nothing here changes a result but [`CudaOptions::dtype`] and
//! [`CudaOptions::numerics`].

use hotspare_model::ops::StepLimits;

use crate::Dtype;

/// How much memory the KV cache takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KvBudget {
    /// As many blocks as the load options say.
    Exact,
    /// So many bytes.
    Bytes(usize),
    /// What weights, workspaces and graphs leave of this share of the memory that was free at the
    /// start: `--gpu-memory-utilization`.
    Utilization(f64),
}

/// In which order sums are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numerics {
    /// In one, whoever shares the step.
    #[default]
    Invariant,
    /// A library may choose, for large dense products.
    Fast,
}

/// Options of a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct CudaOptions {
    /// Sizes of the buffers.
    pub limits: StepLimits,
    /// Type of the activations, and of dense weights on the device.
    pub dtype: Dtype,
    /// Memory of the KV cache.
    pub kv_budget: KvBudget,
    /// Order of sums: `--numerics`.
    pub numerics: Numerics,
    /// Replay decode steps as graphs, where the device can.
    pub uses_graphs: bool,
    /// Memory that graphs may hold at most; 0 for none: `--max-cuda-graph-memory-bytes`.
    pub max_graph_bytes: usize,
}

/// Memory that graphs may hold, unless another bound is given.
pub const DEFAULT_MAX_GRAPH_BYTES: usize = 512 << 20;

impl CudaOptions {
    /// With nine tenths of the free memory, and graphs.
    pub fn new(limits: StepLimits, dtype: Dtype) -> Self {
        Self {
            limits,
            dtype,
            kv_budget: KvBudget::Utilization(0.9),
            numerics: Numerics::Invariant,
            uses_graphs: true,
            max_graph_bytes: DEFAULT_MAX_GRAPH_BYTES,
        }
    }
}
