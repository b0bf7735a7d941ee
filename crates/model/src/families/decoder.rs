//! What every decoder-only family needs: activations, and a loader that takes weights by name.
//!
//! Invariant: all memory that a forward pass touches is allocated here, at load, for the largest
//! step.

use crate::config::ModelConfig;
use crate::ops::{KvCacheSpec, Ops, Parallelism};
use crate::options::{LoadOptions, LoadProgress, LoadStage};
use crate::{ModelError, WeightStore};

/// Gives weights to a backend, counting them.
pub(super) struct Loader<'a, O: Ops> {
    pub(super) ops: &'a mut O,
    weights: &'a WeightStore,
    progress: &'a mut dyn FnMut(LoadProgress),
    num_done: u64,
}

impl<'a, O: Ops> Loader<'a, O> {
    /// Starts with no weight given.
    pub(super) fn new(
        ops: &'a mut O,
        weights: &'a WeightStore,
        progress: &'a mut dyn FnMut(LoadProgress),
    ) -> Self {
        Self {
            ops,
            weights,
            progress,
            num_done: 0,
        }
    }

    /// A linear layer that stacks the outputs of `parts` (tensor name, output width), each over
    /// `num_in`.
    pub(super) fn linear(
        &mut self,
        parts: &[(String, usize)],
        num_in: usize,
        parallelism: Parallelism,
    ) -> Result<O::Linear, ModelError> {
        let views = parts
            .iter()
            .map(|(name, num_out)| self.weights.view(name, &[*num_out, num_in]))
            .collect::<Result<_, _>>()?;
        self.report(parts.len());
        Ok(self.ops.new_linear(views, parallelism)?)
    }

    /// A norm's weights.
    pub(super) fn vector(&mut self, name: &str, width: usize) -> Result<O::Vector, ModelError> {
        let view = self.weights.view(name, &[width])?;
        self.report(1);
        Ok(self.ops.new_vector(view)?)
    }

    fn report(&mut self, num_tensors: usize) {
        self.num_done += num_tensors as u64;
        (self.progress)(LoadProgress {
            stage: LoadStage::Weights,
            done: self.num_done,
            total: (self.weights.num_tensors() as u64).max(self.num_done),
        });
    }
}

/// Activations of a decoder. Rows are the batch's tokens, except in those named `last_`: these are
/// the rows whose logits are needed.
pub(super) struct DecoderBuffers<O: Ops> {
    /// Sum of all layers' outputs so far.
    pub(super) residual: O::Buffer,
    /// Output of the last sub-layer, not yet added.
    pub(super) hidden: O::Buffer,
    /// The norm's output, input of a product.
    pub(super) normed: O::Buffer,
    /// Queries, keys and values.
    pub(super) qkv: O::Buffer,
    /// Attention's output, all heads.
    pub(super) attention: O::Buffer,
    /// Both halves of the feed-forward layer's first product.
    pub(super) gate_up: O::Buffer,
    /// Their product.
    pub(super) activated: O::Buffer,
    /// Gathered rows of `residual`.
    pub(super) last_residual: O::Buffer,
    /// Gathered rows of `hidden`.
    pub(super) last_hidden: O::Buffer,
    /// The final norm's output.
    pub(super) last_normed: O::Buffer,
    /// `[gathered rows, vocab]`.
    pub(super) logits: O::Buffer,
    /// Keys and values of all layers.
    pub(super) kv: O::KvCache,
}

impl<O: Ops> DecoderBuffers<O> {
    /// Allocates them. With prompt log-probabilities every token's logits may be asked for, so the
    /// gathered buffers have as many rows as the others.
    pub(super) fn new(
        ops: &mut O,
        config: &ModelConfig,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, ModelError> {
        const NUM_ALLOCATIONS: u64 = 12;
        let rows = options.limits.max_num_batched_tokens;
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let hidden = config.hidden_size;
        let mut num_done = 0;
        let mut report = || {
            num_done += 1;
            progress(LoadProgress {
                stage: LoadStage::Buffers,
                done: num_done,
                total: NUM_ALLOCATIONS,
            });
        };
        let mut buffer = |width| {
            report();
            ops.new_buffer(rows, width)
        };
        Ok(Self {
            residual: buffer(hidden)?,
            hidden: buffer(hidden)?,
            normed: buffer(hidden)?,
            qkv: buffer((heads + 2 * kv_heads) * config.head_dim)?,
            attention: buffer(heads * config.head_dim)?,
            gate_up: buffer(2 * config.intermediate_size)?,
            activated: buffer(config.intermediate_size)?,
            last_residual: buffer(hidden)?,
            last_hidden: buffer(hidden)?,
            last_normed: buffer(hidden)?,
            logits: buffer(config.vocab_size)?,
            kv: {
                report();
                ops.new_kv_cache(&KvCacheSpec {
                    num_layers: config.num_hidden_layers,
                    num_blocks: options.num_blocks,
                    block_size: options.block_size,
                    num_kv_heads: kv_heads,
                    head_dim: config.head_dim,
                    dtype: options.kv_dtype,
                })?
            },
        })
    }
}
