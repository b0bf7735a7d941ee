//! The activations of a decoder.
//!
//! Invariant: all memory that a forward pass touches is allocated here, at load, for the largest
//! step.

use crate::ModelError;
use crate::config::ModelConfig;
use crate::ops::{KvCacheSpec, Ops};
use crate::options::{LoadOptions, LoadProgress, LoadStage};

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
    /// `[rows, experts]`, before the softmax.
    pub(super) router_logits: O::Buffer,
    /// `[rows, experts]`: the weight of each expert.
    pub(super) routes: O::Buffer,
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
    /// Blocks of `kv`.
    pub(super) num_blocks: usize,
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
        const NUM_ALLOCATIONS: u64 = 14;
        let rows = options.limits.max_num_batched_tokens;
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let hidden = config.hidden_size;
        // One wide where no layer uses them.
        let has_dense = config.layers.iter().any(|layer| !layer.has_experts);
        let dense_width = if has_dense {
            config.intermediate_size
        } else {
            1
        };
        let num_experts = config.moe.as_ref().map_or(1, |moe| moe.num_experts);
        let mut num_done = 0;
        let mut report = || {
            num_done += 1;
            progress(LoadProgress {
                stage: LoadStage::Buffers,
                done: num_done,
                total: NUM_ALLOCATIONS,
            });
        };
        let mut buffer = |ops: &mut O, width| {
            report();
            ops.new_buffer(rows, width)
        };
        let residual = buffer(ops, hidden)?;
        let hidden_out = buffer(ops, hidden)?;
        let normed = buffer(ops, hidden)?;
        let qkv = buffer(ops, (heads + 2 * kv_heads) * config.head_dim)?;
        let attention = buffer(ops, heads * config.head_dim)?;
        let gate_up = buffer(ops, 2 * dense_width)?;
        let activated = buffer(ops, dense_width)?;
        let last_residual = buffer(ops, hidden)?;
        let last_hidden = buffer(ops, hidden)?;
        let last_normed = buffer(ops, hidden)?;
        report();
        let router_logits = ops.new_f32_buffer(rows, num_experts)?;
        report();
        let routes = ops.new_f32_buffer(rows, num_experts)?;
        report();
        let logits = ops.new_logits_buffer(rows, config.vocab_size)?;
        report();
        let mut spec = kv_cache_spec(config, options);
        // Last: what is left is the cache's.
        spec.num_blocks = ops.fit_kv_blocks(&spec)?;
        Ok(Self {
            residual,
            hidden: hidden_out,
            normed,
            qkv,
            attention,
            gate_up,
            activated,
            router_logits,
            routes,
            last_residual,
            last_hidden,
            last_normed,
            logits,
            kv: ops.new_kv_cache(&spec)?,
            num_blocks: spec.num_blocks,
        })
    }
}

/// The cache that the options ask for.
fn kv_cache_spec(config: &ModelConfig, options: &LoadOptions) -> KvCacheSpec {
    KvCacheSpec {
        num_layers: config.num_hidden_layers,
        num_blocks: options.num_blocks,
        block_size: options.block_size,
        num_kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        dtype: options.kv_dtype,
    }
}
