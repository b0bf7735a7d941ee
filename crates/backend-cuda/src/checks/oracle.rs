//! The CPU backend as an oracle: one operation at a time on plain floats.
//!
//! Invariant: the operations are those of `hotspare_backend_cpu::CpuOps`, unchanged.

use std::sync::Arc;

use hotspare_backend_cpu::{CpuBuffer, CpuKvCache, CpuLinear, CpuOps, CpuOptions, CpuVector};
use hotspare_batch::{Batch, Row};
use hotspare_model::ops::{AttentionSpec, KvCacheSpec, Ops, OpsError, Parallelism, StepLimits};
use hotspare_model::weights::{WeightDtype, WeightView};

use super::support::wrong;
use crate::{Dtype, LaunchError};

/// The CPU's operations.
pub(crate) struct Oracle {
    pub(crate) ops: CpuOps,
}

impl Oracle {
    pub(crate) fn new() -> Result<Self, LaunchError> {
        let limits = StepLimits {
            max_num_batched_tokens: 4096,
            max_num_seqs: 256,
            max_model_len: 8192,
        };
        let options = CpuOptions {
            num_threads: 1,
            limits,
            bf16_activations: false,
        };
        let ops = CpuOps::new(options).map_err(failed)?;
        Ok(Self { ops })
    }

    /// A buffer of `values`.
    pub(crate) fn buffer(
        &mut self,
        width: usize,
        values: &[f32],
    ) -> Result<CpuBuffer, LaunchError> {
        let mut buffer = self.empty(values.len() / width, width)?;
        if !buffer.set_rows(values) {
            return Err(wrong("values that are no whole rows".to_owned()));
        }
        Ok(buffer)
    }

    /// A buffer with room for `max_rows` rows.
    pub(crate) fn empty(
        &mut self,
        max_rows: usize,
        width: usize,
    ) -> Result<CpuBuffer, LaunchError> {
        self.ops.new_buffer(max_rows, width).map_err(failed)
    }

    pub(crate) fn vector(&mut self, values: &[f32], offset: f32) -> Result<CpuVector, LaunchError> {
        let view = view(Dtype::F32.encode(values), WeightDtype::F32, &[values.len()])?;
        self.ops.new_vector(vec![view], offset).map_err(failed)
    }

    /// A KV cache in half floats for attention like `spec`.
    pub(crate) fn kv_cache_of(
        &mut self,
        spec: &AttentionSpec,
        num_blocks: usize,
        block_size: usize,
    ) -> Result<CpuKvCache, LaunchError> {
        let spec = KvCacheSpec {
            num_layers: 1,
            num_blocks,
            block_size,
            num_kv_heads: spec.num_kv_heads,
            head_dim: spec.head_dim,
            dtype: WeightDtype::F16,
        };
        self.ops.new_kv_cache(&spec).map_err(failed)
    }

    /// A linear layer of `bytes`, `[num_outputs, num_inputs]`.
    pub(crate) fn linear(
        &mut self,
        bytes: Vec<u8>,
        dtype: WeightDtype,
        shape: &[usize],
    ) -> Result<CpuLinear, LaunchError> {
        let view = view(bytes, dtype, shape)?;
        let linear = self.ops.new_linear(vec![view], Parallelism::Replicated);
        linear.map_err(failed)
    }
}

/// Weights of `bytes`.
pub(crate) fn view(
    bytes: Vec<u8>,
    dtype: WeightDtype,
    shape: &[usize],
) -> Result<WeightView, LaunchError> {
    let range = 0..bytes.len();
    let view = WeightView::new(Arc::new(bytes), range, dtype, shape.to_vec());
    view.ok_or_else(|| wrong("weights that do not fit their shape".to_owned()))
}

pub(crate) fn failed(error: OpsError) -> LaunchError {
    wrong(format!("the CPU's operation failed: {error}"))
}

/// A row of a batch to come: position of its first token, number of tokens, its blocks.
pub(crate) struct RowPlan {
    pub(crate) num_computed: usize,
    pub(crate) num_tokens: usize,
    pub(crate) blocks: Vec<u32>,
}

/// A batch of `plans`, each of its own slot, whose tokens are `token_ids`.
pub(crate) fn batch(plans: &[RowPlan], token_ids: Vec<u32>, block_size: usize) -> Batch {
    let mut batch = Batch::default();
    let mut token = 0;
    for (slot, plan) in plans.iter().enumerate() {
        let num_blocks = (plan.num_computed + plan.num_tokens).div_ceil(block_size);
        let block = batch.block_tables.len() as u32;
        batch.block_tables.extend(&plan.blocks[..num_blocks]);
        let end = token + plan.num_tokens as u32;
        batch.rows.push(Row {
            slot: slot as u32,
            num_computed_tokens: plan.num_computed as u32,
            tokens: token..end,
            blocks: block..block + num_blocks as u32,
            samples: false,
            wants_prompt_logprobs: false,
            next_prompt_token: None,
        });
        token = end;
    }
    batch.token_ids = token_ids;
    batch.check_integrity(block_size);
    batch
}
