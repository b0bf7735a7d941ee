//! How the families differ: one description of a decoder, filled from a family's config.
//!
//! Defaults are those of transformers' config classes, for fields that a config leaves out.
//!
//! Invariant: what is not said here is the same in all families.

use super::fields::Fields;
use super::{Architecture, MAX_DIMENSION};
use crate::ModelError;

/// The function between a feed-forward layer's two products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `silu(gate) * up`.
    Silu,
    /// `gelu(gate) * up`, GELU in its tanh form.
    GeluTanh,
}

/// What sets a family's arithmetic apart from Llama's, for all layers.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Factor on embeddings.
    pub embedding_scale: f32,
    /// Factor on q·k.
    pub attention_scale: f32,
    /// Cap of attention scores.
    pub attention_soft_cap: Option<f32>,
    /// Cap of logits.
    pub final_soft_cap: Option<f32>,
    /// Of the feed-forward layers.
    pub activation: Activation,
    /// Added to norms' weights: 1 in Gemma.
    pub norm_offset: f32,
    /// Sub-layers' outputs are normalised before they are added.
    pub has_post_norms: bool,
    /// Each head of q and k is normalised before it is rotated.
    pub has_qk_norm: bool,
    /// q, k and v have biases.
    pub has_qkv_bias: bool,
    /// Attention's output has a bias.
    pub has_attention_out_bias: bool,
    /// The feed-forward layer's products have biases.
    pub has_mlp_bias: bool,
    /// q, k and v are one tensor, in this order.
    pub has_fused_qkv: bool,
    /// gate and up are one tensor, in this order.
    pub has_fused_gate_up: bool,
}

impl DecoderConfig {
    /// Reads what the family's config says.
    pub(super) fn parse(
        architecture: Architecture,
        fields: &Fields<'_>,
        hidden_size: usize,
        head_dim: usize,
    ) -> Result<Self, ModelError> {
        let flag = |name: &str| Ok::<_, ModelError>(fields.bool(name)?.unwrap_or(false));
        let plain = Self {
            embedding_scale: 1.0,
            attention_scale: (1.0 / (head_dim as f64).sqrt()) as f32,
            attention_soft_cap: None,
            final_soft_cap: None,
            activation: Activation::Silu,
            norm_offset: 0.0,
            has_post_norms: false,
            has_qk_norm: false,
            has_qkv_bias: false,
            has_attention_out_bias: false,
            has_mlp_bias: false,
            has_fused_qkv: false,
            has_fused_gate_up: false,
        };
        Ok(match architecture {
            Architecture::Mistral | Architecture::Mixtral => plain,
            Architecture::Llama | Architecture::SmolLm3 => Self {
                has_qkv_bias: flag("attention_bias")?,
                has_attention_out_bias: flag("attention_bias")?,
                has_mlp_bias: flag("mlp_bias")?,
                ..plain
            },
            Architecture::Qwen2 => Self {
                has_qkv_bias: true,
                ..plain
            },
            Architecture::Qwen3 | Architecture::Qwen3Moe => Self {
                has_qkv_bias: flag("attention_bias")?,
                has_attention_out_bias: flag("attention_bias")?,
                has_qk_norm: true,
                ..plain
            },
            Architecture::Phi3 => Self {
                has_fused_qkv: true,
                has_fused_gate_up: true,
                ..plain
            },
            Architecture::Gemma2 | Architecture::Gemma3 => {
                let is_2 = architecture == Architecture::Gemma2;
                let cap = |name: &str, default: f64| {
                    let default = (is_2 && !fields.has_key(name)).then_some(default);
                    let cap = fields.positive_f64(name)?.or(default);
                    Ok::<_, ModelError>(cap.map(|cap| cap as f32))
                };
                let scalar = fields.positive_f64("query_pre_attn_scalar")?;
                check_gelu_tanh(fields)?;
                Self {
                    has_qkv_bias: flag("attention_bias")?,
                    has_attention_out_bias: flag("attention_bias")?,
                    embedding_scale: (hidden_size as f64).sqrt() as f32,
                    attention_scale: (1.0 / scalar.unwrap_or(256.0).sqrt()) as f32,
                    attention_soft_cap: cap("attn_logit_softcapping", 50.0)?,
                    final_soft_cap: cap("final_logit_softcapping", 30.0)?,
                    activation: Activation::GeluTanh,
                    norm_offset: 1.0,
                    has_post_norms: true,
                    has_qk_norm: !is_2,
                    ..plain
                }
            }
        })
    }
}

/// Gemma's config names its activation in `hidden_activation`; older ones repeat it, or an earlier
/// name of it, in `hidden_act`, which transformers does not read.
fn check_gelu_tanh(fields: &Fields<'_>) -> Result<(), ModelError> {
    match fields.string("hidden_activation")? {
        None | Some("gelu_pytorch_tanh") => Ok(()),
        Some(_) => Err(fields.unsupported("hidden_activation")),
    }
}

/// Gemma's heads are 256 wide where the config is silent, Qwen 3's 128.
pub(super) fn default_head_dim(architecture: Architecture) -> Option<usize> {
    match architecture {
        Architecture::Gemma2 | Architecture::Gemma3 => Some(256),
        Architecture::Qwen3 => Some(128),
        _ => None,
    }
}

/// What transformers takes for a size that the config leaves out. Multimodal Gemma 3 checkpoints
/// leave out most; other families only the number of key and value heads.
pub(super) fn default_size(
    architecture: Architecture,
    fields: &Fields<'_>,
    name: &str,
) -> Option<usize> {
    if fields.has_key(name) {
        return None;
    }
    match (architecture, name) {
        (Architecture::Mistral | Architecture::Mixtral, "num_key_value_heads") => Some(8),
        (Architecture::Qwen2 | Architecture::Qwen3, "num_key_value_heads") => Some(32),
        (Architecture::Qwen3Moe | Architecture::SmolLm3, "num_key_value_heads") => Some(4),
        (Architecture::Gemma2 | Architecture::Gemma3, "num_key_value_heads") => Some(4),
        (Architecture::Gemma3, "vocab_size") => Some(262_208),
        (Architecture::Gemma3, "hidden_size") => Some(2304),
        (Architecture::Gemma3, "intermediate_size") => Some(9216),
        (Architecture::Gemma3, "num_hidden_layers") => Some(26),
        (Architecture::Gemma3, "num_attention_heads") => Some(8),
        (Architecture::Gemma3, "max_position_embeddings") => Some(131_072),
        _ => None,
    }
}

/// `rms_norm_eps`, or the family's.
pub(super) fn rms_norm_eps(
    architecture: Architecture,
    fields: &Fields<'_>,
) -> Result<f32, ModelError> {
    let default = match architecture {
        Architecture::Mixtral | Architecture::Phi3 => 1e-5,
        _ => 1e-6,
    };
    Ok(fields.positive_f64("rms_norm_eps")?.unwrap_or(default) as f32)
}

/// Whether the output matrix is the embedding where the config is silent.
pub(super) fn default_tie(architecture: Architecture) -> bool {
    matches!(
        architecture,
        Architecture::Gemma2 | Architecture::Gemma3 | Architecture::SmolLm3
    )
}

/// Experts of a family that has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoeConfig {
    /// Experts a layer.
    pub num_experts: usize,
    /// Experts that compute each token.
    pub num_experts_per_token: usize,
    /// Width of an expert.
    pub intermediate_size: usize,
    /// Whether the chosen experts' weights are divided by their sum.
    pub normalises: bool,
}

impl MoeConfig {
    /// `None` for a family without experts.
    pub(super) fn parse(
        architecture: Architecture,
        fields: &Fields<'_>,
        intermediate_size: usize,
        num_layers: usize,
    ) -> Result<Option<Self>, ModelError> {
        const MAX_NUM_EXPERTS: usize = 4096;
        // In all layers together: each has three tensors, whose list has to stay small.
        const MAX_NUM_EXPERTS_IN_ALL: usize = 1 << 17;
        let is_mixtral = match architecture {
            Architecture::Mixtral => true,
            Architecture::Qwen3Moe => false,
            _ => return Ok(None),
        };
        // Qwen's earlier configs say num_experts.
        let name = match fields.get("num_experts") {
            Some(_) if !is_mixtral => "num_experts",
            _ => "num_local_experts",
        };
        let num_experts = fields.required_usize(name, 1..=MAX_NUM_EXPERTS)?;
        if num_experts * num_layers > MAX_NUM_EXPERTS_IN_ALL {
            let reason = format!("= {num_experts}, in {num_layers} layers, are too many");
            return Err(fields.error(name, &reason));
        }
        let most = num_experts.min(crate::ops::MAX_EXPERTS_PER_TOKEN);
        let width = match is_mixtral {
            true => intermediate_size,
            false => fields.required_usize("moe_intermediate_size", 1..=MAX_DIMENSION)?,
        };
        Ok(Some(Self {
            num_experts,
            num_experts_per_token: fields.required_usize("num_experts_per_tok", 1..=most)?,
            intermediate_size: width,
            normalises: is_mixtral || fields.bool("norm_topk_prob")?.unwrap_or(false),
        }))
    }
}
