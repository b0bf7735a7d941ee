//! One layer's weights, named as in transformers, and its forward pass.
//!
//! Invariant: the residual stream is added to inside the norms, so that each sub-layer ends in
//! `hidden`.

use std::sync::Arc;

use super::buffers::DecoderBuffers;
use super::loader::Loader;
use crate::ModelError;
use crate::config::{Activation, Architecture, ModelConfig, MoeConfig};
use crate::ops::{AttentionSpec, MoeSpec, Ops, Parallelism, RopeTable};
use crate::quantize::LinearRole;

/// A linear layer and its bias.
pub(super) struct Projection<O: Ops> {
    weight: O::Linear,
    bias: Option<O::Vector>,
}

impl<O: Ops> Projection<O> {
    fn load(
        loader: &mut Loader<'_, O>,
        parts: &[(String, usize)],
        num_in: usize,
        parallelism: Parallelism,
        has_bias: bool,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            weight: loader.linear(parts, num_in, parallelism)?,
            bias: has_bias.then(|| loader.bias(parts)).transpose()?,
        })
    }

    fn forward(&self, ops: &mut O, x: &O::Buffer, out: &mut O::Buffer) {
        ops.linear(x, &self.weight, out);
        if let Some(bias) = &self.bias {
            ops.add_bias(out, bias);
        }
    }
}

/// A feed-forward layer.
enum Mlp<O: Ops> {
    Dense {
        /// gate and up.
        gate_up: Projection<O>,
        activation: Activation,
        down: Projection<O>,
    },
    Moe {
        router: O::Linear,
        spec: MoeSpec,
        experts: O::Experts,
    },
}

/// One layer.
pub(super) struct Layer<O: Ops> {
    /// Its number, which names its part of the KV cache.
    index: usize,
    rms_norm_eps: f32,
    input_norm: O::Vector,
    /// q, k and v.
    qkv: Projection<O>,
    /// Of each head of q, of each head of k.
    qk_norm: Option<[O::Vector; 2]>,
    rope: Arc<RopeTable>,
    attention: AttentionSpec,
    attention_out: Projection<O>,
    /// Of attention's output, before it is added.
    post_attention_norm: Option<O::Vector>,
    /// Of the feed-forward layer's input.
    mlp_norm: O::Vector,
    mlp: Mlp<O>,
    /// Of the feed-forward layer's output, before it is added.
    post_mlp_norm: Option<O::Vector>,
}

impl<O: Ops> Layer<O> {
    /// From what is in `residual` and `hidden` to the same, one layer on. `hidden` of the first
    /// layer's input is part of `residual` already.
    pub(super) fn forward(&self, ops: &mut O, b: &mut DecoderBuffers<O>) {
        let (norm, eps) = (&self.input_norm, self.rms_norm_eps);
        match self.index {
            0 => ops.rms_norm(&b.residual, norm, eps, &mut b.normed),
            _ => ops.add_rms_norm(&b.hidden, &mut b.residual, norm, eps, &mut b.normed),
        }
        self.attend(ops, b);
        self.post_norm(ops, self.post_attention_norm.as_ref(), b);
        let norm = &self.mlp_norm;
        ops.add_rms_norm(&b.hidden, &mut b.residual, norm, eps, &mut b.normed);
        match &self.mlp {
            Mlp::Dense {
                gate_up,
                activation,
                down,
            } => {
                gate_up.forward(ops, &b.normed, &mut b.gate_up);
                match activation {
                    Activation::Silu => ops.silu_mul(&b.gate_up, &mut b.activated),
                    Activation::GeluTanh => ops.gelu_tanh_mul(&b.gate_up, &mut b.activated),
                }
                down.forward(ops, &b.activated, &mut b.hidden);
            }
            Mlp::Moe {
                router,
                spec,
                experts,
            } => {
                ops.linear(&b.normed, router, &mut b.router_logits);
                ops.moe_route(&b.router_logits, spec, &mut b.routes);
                ops.moe(&b.normed, &b.routes, experts, &mut b.hidden);
            }
        }
        self.post_norm(ops, self.post_mlp_norm.as_ref(), b);
    }

    /// From `normed` to `hidden`.
    fn attend(&self, ops: &mut O, b: &mut DecoderBuffers<O>) {
        let (spec, index) = (&self.attention, self.index);
        self.qkv.forward(ops, &b.normed, &mut b.qkv);
        if let Some([q, k]) = &self.qk_norm {
            ops.head_rms_norm(&mut b.qkv, spec, q, k, self.rms_norm_eps);
        }
        ops.rope_kv_write(&mut b.qkv, &self.rope, spec, index, &mut b.kv);
        ops.attention(&b.qkv, spec, index, &b.kv, &mut b.attention);
        self.attention_out.forward(ops, &b.attention, &mut b.hidden);
    }

    /// Normalises `hidden` where there is a norm. `normed` is free at that point and takes the
    /// other's place; families with such norms have two a layer, so that names are back after it.
    fn post_norm(&self, ops: &mut O, norm: Option<&O::Vector>, b: &mut DecoderBuffers<O>) {
        if let Some(norm) = norm {
            ops.rms_norm(&b.hidden, norm, self.rms_norm_eps, &mut b.normed);
            std::mem::swap(&mut b.hidden, &mut b.normed);
        }
    }

    /// Takes the weights of layer number `index`.
    pub(super) fn load(
        loader: &mut Loader<'_, O>,
        config: &ModelConfig,
        index: usize,
        rope: &Arc<RopeTable>,
    ) -> Result<Self, ModelError> {
        let (hidden, decoder) = (config.hidden_size, &config.decoder);
        let offset = decoder.norm_offset;
        let name = |part: &str| format!("model.layers.{index}.{part}.weight");
        let q_width = config.num_attention_heads * config.head_dim;
        let attention_out = [(name("self_attn.o_proj"), hidden)];
        let has_post_norms = decoder.has_post_norms;
        let [mlp_norm, post_mlp_norm] = match has_post_norms {
            true => ["pre_feedforward_layernorm", "post_feedforward_layernorm"],
            false => ["post_attention_layernorm", ""],
        };
        let has_qk_norm = decoder.has_qk_norm;
        let attention = attention_spec(config, index);
        loader.ops.prepare_layer(index, &attention, rope)?;
        let mut norm = |part: &str, width| loader.norm(&name(part), width, offset);
        Ok(Self {
            index,
            rms_norm_eps: config.rms_norm_eps,
            input_norm: norm("input_layernorm", hidden)?,
            post_attention_norm: has_post_norms
                .then(|| norm("post_attention_layernorm", hidden))
                .transpose()?,
            mlp_norm: norm(mlp_norm, hidden)?,
            post_mlp_norm: has_post_norms
                .then(|| norm(post_mlp_norm, hidden))
                .transpose()?,
            qk_norm: match has_qk_norm {
                true => Some([
                    norm("self_attn.q_norm", config.head_dim)?,
                    norm("self_attn.k_norm", config.head_dim)?,
                ]),
                false => None,
            },
            qkv: load_qkv(loader, config, &name)?,
            rope: Arc::clone(rope),
            attention,
            attention_out: Projection::load(
                loader,
                &attention_out,
                q_width,
                Parallelism::Row,
                decoder.has_attention_out_bias,
            )?,
            mlp: match &config.moe {
                Some(moe) if config.layers[index].has_experts => {
                    load_moe(loader, config, moe, index)?
                }
                _ => load_dense(loader, config, &name)?,
            },
        })
    }
}

fn attention_spec(config: &ModelConfig, index: usize) -> AttentionSpec {
    AttentionSpec {
        num_heads: config.num_attention_heads,
        num_kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        scale: config.decoder.attention_scale,
        sliding_window: config.layers[index].sliding_window,
        logits_soft_cap: config.decoder.attention_soft_cap,
        // No family that is served has any.
        sinks: Vec::new(),
    }
}

fn load_qkv<O: Ops>(
    loader: &mut Loader<'_, O>,
    config: &ModelConfig,
    name: &impl Fn(&str) -> String,
) -> Result<Projection<O>, ModelError> {
    let q_width = config.num_attention_heads * config.head_dim;
    let kv_width = config.num_key_value_heads * config.head_dim;
    let parts = match config.decoder.has_fused_qkv {
        true => vec![(name("self_attn.qkv_proj"), q_width + 2 * kv_width)],
        false => vec![
            (name("self_attn.q_proj"), q_width),
            (name("self_attn.k_proj"), kv_width),
            (name("self_attn.v_proj"), kv_width),
        ],
    };
    let has_bias = config.decoder.has_qkv_bias;
    Projection::load(
        loader,
        &parts,
        config.hidden_size,
        Parallelism::Column,
        has_bias,
    )
}

fn load_dense<O: Ops>(
    loader: &mut Loader<'_, O>,
    config: &ModelConfig,
    name: &impl Fn(&str) -> String,
) -> Result<Mlp<O>, ModelError> {
    let (hidden, width) = (config.hidden_size, config.intermediate_size);
    let gate_up = match config.decoder.has_fused_gate_up {
        true => vec![(name("mlp.gate_up_proj"), 2 * width)],
        false => vec![(name("mlp.gate_proj"), width), (name("mlp.up_proj"), width)],
    };
    let down = [(name("mlp.down_proj"), hidden)];
    let has_bias = config.decoder.has_mlp_bias;
    Ok(Mlp::Dense {
        gate_up: Projection::load(loader, &gate_up, hidden, Parallelism::Column, has_bias)?,
        activation: config.decoder.activation,
        down: Projection::load(loader, &down, width, Parallelism::Row, has_bias)?,
    })
}

fn load_moe<O: Ops>(
    loader: &mut Loader<'_, O>,
    config: &ModelConfig,
    moe: &MoeConfig,
    index: usize,
) -> Result<Mlp<O>, ModelError> {
    let stacked = format!("model.layers.{index}.mlp.experts");
    let is_stacked = loader.contains(&format!("{stacked}.gate_up_proj"));
    let (block, parts) = match config.architecture {
        Architecture::Mixtral if !is_stacked => ("block_sparse_moe", ["w1", "w3", "w2"]),
        _ => ("mlp", ["gate_proj", "up_proj", "down_proj"]),
    };
    let block = format!("model.layers.{index}.{block}");
    let spec = MoeSpec {
        num_experts: moe.num_experts,
        num_experts_per_token: moe.num_experts_per_token,
        normalises: moe.normalises,
    };
    let names = |e: usize| parts.map(|part| format!("{block}.experts.{e}.{part}.weight"));
    let router = [(format!("{block}.gate.weight"), moe.num_experts)];
    let hidden = config.hidden_size;
    Ok(Mlp::Moe {
        router: loader.linear_of(LinearRole::Router, &router, hidden, Parallelism::Replicated)?,
        experts: match is_stacked {
            true => loader.stacked_experts(
                &format!("{stacked}.gate_up_proj"),
                &format!("{stacked}.down_proj"),
                hidden,
                moe.intermediate_size,
                &spec,
            )?,
            false => loader.experts(names, hidden, moe.intermediate_size, &spec)?,
        },
        spec,
    })
}
