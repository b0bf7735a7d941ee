//! Loading: what is allocated besides weights, and how much is left for the KV cache.
//!
//! Invariant: an engine that cannot start says what it needs, what is free and which flag helps;
//! under a share of the memory, weights, workspaces, KV cache and graphs together stay within it.

use hotspare_model::ops::{KvCacheSpec, OpsError};

use super::buffer::CudaBuffer;
use super::kv_cache::{CudaKvCache, KvShape};
use super::memory::{FOR_BUFFERS, alloc, device_error, product, unsupported};
use super::state::CudaOps;
use super::work::{Work, WorkShape};
use crate::{Device, Dtype, KvBudget};

impl<D: Device> CudaOps<D> {
    /// Rows of `dtype`.
    pub(super) fn alloc_rows(
        &mut self,
        what: &'static str,
        dtype: Dtype,
        max_rows: usize,
        width: usize,
    ) -> Result<CudaBuffer, OpsError> {
        let num_bytes = product(what, &[max_rows, dtype.stride(width), dtype.size()])?;
        let at = alloc(&mut self.device, what, num_bytes, FOR_BUFFERS)?;
        Ok(CudaBuffer::new(at, dtype, max_rows, width))
    }

    /// Allocates workspaces, and says how many blocks fit into what is left.
    pub(super) fn fit_blocks(&mut self, spec: &KvCacheSpec) -> Result<usize, OpsError> {
        let shape = KvShape::new(spec)?;
        self.kv_dtype = shape.dtype;
        let attention = self.layers.get(0).map(|layer| layer.spec.clone());
        let attention = attention.ok_or_else(|| unsupported("a model without layers".into()))?;
        let work_shape = WorkShape {
            limits: &self.options.limits,
            vocab_size: self.vocab_size,
            max_logits: self.max_logits,
            plans: &self.layers.plans,
            attention: &attention,
        };
        self.work = Some(Work::new(&mut self.device, &work_shape, spec)?);
        let bytes_per_block = shape.bytes_per_block(spec.num_layers).max(1);
        self.plan_graphs()?;
        let memory = self.device.memory().map_err(|error| device_error(&error))?;
        let used = self.free_bytes_at_start.saturating_sub(memory.free_bytes);
        let (budget, graphs) = match self.options.kv_budget {
            KvBudget::Exact => return Ok(spec.num_blocks),
            KvBudget::Bytes(bytes) => (bytes, 0),
            KvBudget::Utilization(share) => {
                let all = (self.free_bytes_at_start as f64 * share.clamp(0.0, 1.0)) as usize;
                let graphs = self.graph_budget.max_bytes;
                (all.saturating_sub(used).saturating_sub(graphs), graphs)
            }
        };
        // Places of tokens are numbered in 31 bits.
        let most = i32::MAX as usize / spec.block_size.max(1);
        let num_blocks = (budget / bytes_per_block).min(spec.num_blocks).min(most);
        let max_model_len = self.options.limits.max_model_len;
        let needed = max_model_len.div_ceil(spec.block_size.max(1));
        if num_blocks < needed.min(spec.num_blocks) {
            return Err(OpsError::OutOfMemory {
                what: "the KV cache of one sequence of --max-model-len tokens",
                needed_bytes: needed.saturating_mul(bytes_per_block),
                reason: format!(
                    "{budget} bytes are left for it: {} were free, weights and workspaces took \
                     {used}, CUDA graphs get {graphs} ({}); a smaller --max-model-len, \
                     --max-num-batched-tokens, --max-num-seqs or --max-cuda-graph-memory-bytes, a \
                     larger --gpu-memory-utilization or --kv-cache-memory-bytes, or a quantized \
                     model helps",
                    self.free_bytes_at_start,
                    self.device.description()
                ),
            });
        }
        Ok(num_blocks)
    }

    /// Allocates the pools.
    pub(super) fn alloc_kv_cache(&mut self, spec: &KvCacheSpec) -> Result<CudaKvCache, OpsError> {
        let cache = CudaKvCache::new(&mut self.device, spec)?;
        if let Some(work) = &mut self.work {
            work.shape.num_blocks = spec.num_blocks;
        }
        Ok(cache)
    }
}
