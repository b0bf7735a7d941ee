//! Llama: RMS norm, rotary grouped-query attention, SiLU-gated feed-forward, no biases.
//!
//! Touvron et al., "LLaMA" (2023) and "Llama 2" (2023); tensor names as in transformers'
//! `LlamaForCausalLM`.
//!
//! Invariant: the residual stream is added to inside the norms, so each sub-layer ends in `hidden`,
//! and the final norm and the output matrix see only the rows whose logits are needed.

use std::sync::Arc;

use super::decoder::{DecoderBuffers, Loader};
use crate::config::ModelConfig;
use crate::ops::{AttentionSpec, Ops, Parallelism, RopeTable};
use crate::options::{LoadOptions, LoadProgress};
use crate::rope::rope_table;
use crate::{ModelError, WeightStore};

/// One layer's weights.
struct Layer<O: Ops> {
    input_norm: O::Vector,
    /// q, k and v.
    qkv: O::Linear,
    attention_out: O::Linear,
    post_attention_norm: O::Vector,
    /// gate and up.
    gate_up: O::Linear,
    down: O::Linear,
}

/// A loaded model.
pub(crate) struct Llama<O: Ops> {
    embedding: O::Linear,
    layers: Vec<Layer<O>>,
    final_norm: O::Vector,
    /// `None`: tied to the embedding.
    output: Option<O::Linear>,
    rope: Arc<RopeTable>,
    attention: AttentionSpec,
    rms_norm_eps: f32,
    buffers: DecoderBuffers<O>,
}

impl<O: Ops> Llama<O> {
    /// Takes the weights and allocates the buffers.
    pub(super) fn load(
        ops: &mut O,
        config: &ModelConfig,
        weights: &WeightStore,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, ModelError> {
        let mut loader = Loader::new(ops, weights, progress);
        let hidden = config.hidden_size;
        let vocabulary = |name: &str| [(name.to_owned(), config.vocab_size)];
        let whole = Parallelism::Replicated;
        let embedding = vocabulary("model.embed_tokens.weight");
        let embedding = loader.linear(&embedding, hidden, whole)?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| load_layer(&mut loader, config, layer))
            .collect::<Result<_, _>>()?;
        let final_norm = loader.vector("model.norm.weight", hidden)?;
        let output = match config.tie_word_embeddings {
            true => None,
            false => Some(loader.linear(&vocabulary("lm_head.weight"), hidden, whole)?),
        };
        let rope = rope_table(&config.rope, config.head_dim, options.limits.max_model_len);
        Ok(Self {
            embedding,
            layers,
            final_norm,
            output,
            rope: Arc::new(rope),
            attention: AttentionSpec {
                num_heads: config.num_attention_heads,
                num_kv_heads: config.num_key_value_heads,
                head_dim: config.head_dim,
                scale: (1.0 / (config.head_dim as f64).sqrt()) as f32,
                sliding_window: None,
                logits_soft_cap: None,
            },
            rms_norm_eps: config.rms_norm_eps,
            buffers: DecoderBuffers::new(ops, config, options, progress)?,
        })
    }

    /// Runs the batch that `ops` has begun and returns the logits of the gathered rows.
    pub(super) fn forward(&mut self, ops: &mut O) -> &mut O::Buffer {
        let b = &mut self.buffers;
        let eps = self.rms_norm_eps;
        ops.embed(&self.embedding, 1.0, &mut b.residual);
        for (index, layer) in self.layers.iter().enumerate() {
            let norm = &layer.input_norm;
            match index {
                0 => ops.rms_norm(&b.residual, norm, eps, &mut b.normed),
                _ => ops.add_rms_norm(&b.hidden, &mut b.residual, norm, eps, &mut b.normed),
            }
            ops.linear(&b.normed, &layer.qkv, &mut b.qkv);
            ops.rope_kv_write(&mut b.qkv, &self.rope, &self.attention, index, &mut b.kv);
            ops.attention(&b.qkv, &self.attention, index, &b.kv, &mut b.attention);
            ops.linear(&b.attention, &layer.attention_out, &mut b.hidden);
            let norm = &layer.post_attention_norm;
            ops.add_rms_norm(&b.hidden, &mut b.residual, norm, eps, &mut b.normed);
            ops.linear(&b.normed, &layer.gate_up, &mut b.gate_up);
            ops.silu_mul(&b.gate_up, &mut b.activated);
            ops.linear(&b.activated, &layer.down, &mut b.hidden);
        }
        ops.gather_logits_rows(&b.hidden, &mut b.last_hidden);
        ops.gather_logits_rows(&b.residual, &mut b.last_residual);
        let norm = &self.final_norm;
        ops.add_rms_norm(
            &b.last_hidden,
            &mut b.last_residual,
            norm,
            eps,
            &mut b.last_normed,
        );
        let output = self.output.as_ref().unwrap_or(&self.embedding);
        ops.linear(&b.last_normed, output, &mut b.logits);
        &mut b.logits
    }
}

/// Takes the weights of layer number `layer`.
fn load_layer<O: Ops>(
    loader: &mut Loader<'_, O>,
    config: &ModelConfig,
    layer: usize,
) -> Result<Layer<O>, ModelError> {
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let q_width = config.num_attention_heads * config.head_dim;
    let kv_width = config.num_key_value_heads * config.head_dim;
    let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
    let qkv = [
        (name("self_attn.q_proj"), q_width),
        (name("self_attn.k_proj"), kv_width),
        (name("self_attn.v_proj"), kv_width),
    ];
    let attention_out = [(name("self_attn.o_proj"), hidden)];
    let gate_up = [
        (name("mlp.gate_proj"), intermediate),
        (name("mlp.up_proj"), intermediate),
    ];
    let down = [(name("mlp.down_proj"), hidden)];
    Ok(Layer {
        input_norm: loader.vector(&name("input_layernorm"), hidden)?,
        qkv: loader.linear(&qkv, hidden, Parallelism::Column)?,
        attention_out: loader.linear(&attention_out, q_width, Parallelism::Row)?,
        post_attention_norm: loader.vector(&name("post_attention_layernorm"), hidden)?,
        gate_up: loader.linear(&gate_up, hidden, Parallelism::Column)?,
        down: loader.linear(&down, intermediate, Parallelism::Row)?,
    })
}
