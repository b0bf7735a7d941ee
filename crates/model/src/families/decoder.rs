//! The decoder-only transformer that every family is.
//!
//! RMS norm, rotary grouped-query attention and a gated feed-forward layer (Touvron et al.,
//! "LLaMA", 2023), with what families add to it; see [`DecoderConfig`](crate::DecoderConfig).
//!
//! Invariant: the final norm and the output matrix see only the rows whose logits are needed.

use std::sync::Arc;

use super::buffers::DecoderBuffers;
use super::layer::Layer;
use super::loader::Loader;
use crate::config::{LayerRope, ModelConfig};
use crate::ops::{Ops, Parallelism};
use crate::options::{LoadOptions, LoadProgress};
use crate::quantize::LinearRole;
use crate::rope::{no_rope, rope_table};
use crate::{ModelError, WeightStore};

/// Checks that heads are as wide as the first layer's projection says, before anything is made for
/// each position: its size is then one that the files really hold.
fn check_head_width(config: &ModelConfig, weights: &WeightStore) -> Result<(), ModelError> {
    let (num_heads, num_kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
    let (part, num_heads) = match config.decoder.has_fused_qkv {
        true => ("qkv", num_heads.saturating_add(2 * num_kv_heads)),
        false => ("q", num_heads),
    };
    let name = format!("model.layers.0.self_attn.{part}_proj.weight");
    let width = num_heads.saturating_mul(config.head_dim);
    weights.check(&name, &[width, config.hidden_size])
}

/// A loaded model.
pub(crate) struct Decoder<O: Ops> {
    embedding: O::Linear,
    embedding_scale: f32,
    layers: Vec<Layer<O>>,
    final_norm: O::Vector,
    rms_norm_eps: f32,
    /// `None`: tied to the embedding.
    output: Option<O::Linear>,
    /// What quantization at load entered the weights.
    quantization: Option<String>,
    final_soft_cap: Option<f32>,
    buffers: DecoderBuffers<O>,
}

impl<O: Ops> Decoder<O> {
    /// Gives the weights to `ops` and allocates every buffer.
    pub(crate) fn load(
        ops: &mut O,
        config: &ModelConfig,
        weights: &WeightStore,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, ModelError> {
        let mut loader = Loader::new(ops, weights, options.quantization, progress);
        let hidden = config.hidden_size;
        let vocabulary = |name: &str| [(name.to_owned(), config.vocab_size)];
        let whole = Parallelism::Replicated;
        let embedding = vocabulary("model.embed_tokens.weight");
        let embedding_role = match config.tie_word_embeddings {
            true => LinearRole::Output,
            false => LinearRole::Embedding,
        };
        let embedding = loader.linear_of(embedding_role, &embedding, hidden, whole)?;
        check_head_width(config, weights)?;
        let max_model_len = options.limits.max_model_len;
        let global_rope = Arc::new(rope_table(&config.rope, max_model_len));
        let local_rope = config.local_rope.as_ref();
        let local_rope = local_rope.map(|rope| Arc::new(rope_table(rope, max_model_len)));
        let no_rope = Arc::new(no_rope());
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for (index, layer) in config.layers.iter().enumerate() {
            let rope = match layer.rope {
                LayerRope::Global => &global_rope,
                LayerRope::Local => local_rope.as_ref().unwrap_or(&global_rope),
                LayerRope::None => &no_rope,
            };
            layers.push(Layer::load(&mut loader, config, index, rope)?);
        }
        let offset = config.decoder.norm_offset;
        let final_norm = loader.norm("model.norm.weight", hidden, offset)?;
        let output = match config.tie_word_embeddings {
            true => None,
            false => {
                let head = vocabulary("lm_head.weight");
                Some(loader.linear_of(LinearRole::Output, &head, hidden, whole)?)
            }
        };
        let quantization = loader.finish();
        Ok(Self {
            embedding,
            embedding_scale: config.decoder.embedding_scale,
            layers,
            final_norm,
            rms_norm_eps: config.rms_norm_eps,
            output,
            quantization,
            final_soft_cap: config.decoder.final_soft_cap,
            buffers: DecoderBuffers::new(ops, config, options, progress)?,
        })
    }

    /// The quantization at load that changed the weights, if one did.
    pub(crate) fn quantization(&self) -> Option<&str> {
        self.quantization.as_deref()
    }

    /// Blocks of the KV cache.
    pub(crate) fn num_blocks(&self) -> usize {
        self.buffers.num_blocks
    }

    /// The KV cache.
    pub(crate) fn kv(&self) -> &O::KvCache {
        &self.buffers.kv
    }

    /// The KV cache.
    pub(crate) fn kv_mut(&mut self) -> &mut O::KvCache {
        &mut self.buffers.kv
    }

    /// Runs the batch that `ops` has begun and returns the logits of the gathered rows.
    pub(crate) fn forward(&mut self, ops: &mut O) -> &mut O::Buffer {
        let b = &mut self.buffers;
        ops.embed(&self.embedding, self.embedding_scale, &mut b.residual);
        for layer in &self.layers {
            layer.forward(ops, b);
        }
        ops.gather_logits_rows(&b.hidden, &mut b.last_hidden);
        ops.gather_logits_rows(&b.residual, &mut b.last_residual);
        ops.add_rms_norm(
            &b.last_hidden,
            &mut b.last_residual,
            &self.final_norm,
            self.rms_norm_eps,
            &mut b.last_normed,
        );
        let output = self.output.as_ref().unwrap_or(&self.embedding);
        ops.linear(&b.last_normed, output, &mut b.logits);
        if let Some(cap) = self.final_soft_cap {
            ops.soft_cap(&mut b.logits, cap);
        }
        &mut b.logits
    }
}
