//! What a file may say and hold: fields and tensors that the forward pass follows, and no others.
//!
//! Invariant: a field or tensor of the architecture that nothing reads is refused by name, unless
//! its value is the one that changes nothing.

use super::{GgufArchitecture, GgufFile, GgufValue};
use crate::{ModelConfig, ModelError};

/// Divisors of the rotary frequencies, as Llama 3.1's scaling amounts to.
pub(super) const ROPE_DIVISORS: &str = "rope_freqs.weight";
/// Divisors of LongRoPE, for contexts up to the original length and beyond it.
pub(super) const ROPE_FACTORS: [&str; 2] =
    ["rope_factors_short.weight", "rope_factors_long.weight"];

/// Fields (after the architecture's name) that are read elsewhere, for every architecture.
const READ: [&str; 26] = [
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.key_length_swa",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.value_length",
    "attention.value_length_swa",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "expert_used_count",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.dimension_count_swa",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_log_multiplier",
];
/// Fields that say nothing about the arithmetic.
const HARMLESS: [&str; 3] = [
    "attention.layer_norm_epsilon",
    "rope.scaling.finetuned",
    "vocab_size",
];
/// Factors: 1 changes nothing, and 0 is how llama.cpp says that there is none.
const FACTORS: [&str; 11] = [
    "attention.output_scale",
    "attention.value_scale",
    "embedding_scale",
    "expert_gating_func",
    "expert_group_count",
    "expert_weights_scale",
    "interleave_moe_layer_step",
    "logit_scale",
    "residual_scale",
    "rope.scaling.alpha",
    "rope.scaling.yarn_ext_factor",
];

/// Refuses fields that nothing reads and that may change the arithmetic.
pub(super) fn check_fields(
    file: &GgufFile,
    architecture: GgufArchitecture,
) -> Result<(), ModelError> {
    let own: &[&str] = match architecture {
        GgufArchitecture::Gemma2 => &[
            "attention.sliding_window_pattern",
            "attn_logit_softcapping",
            "final_logit_softcapping",
        ],
        GgufArchitecture::Gemma3 => &[
            "attention.sliding_window_pattern",
            "final_logit_softcapping",
            "rope.freq_base_swa",
        ],
        GgufArchitecture::Qwen3Moe => &["expert_feed_forward_length", "expert_weights_norm"],
        _ => &[],
    };
    let refuse = |key: &str, value: &GgufValue| {
        Err(file.field_error(key, &format!("= {value} is not supported")))
    };
    for (key, value) in file.fields() {
        let Some(field) = key
            .strip_prefix(architecture.name())
            .and_then(|field| field.strip_prefix('.'))
        else {
            continue;
        };
        let is_known = [&READ[..], &HARMLESS, own]
            .iter()
            .any(|fields| fields.contains(&field));
        let may_be_one = FACTORS.contains(&field);
        let is_neutral = match value {
            GgufValue::Unsigned(value) => *value == 0 || (*value == 1 && may_be_one),
            GgufValue::Signed(value) => *value == 0 || (*value == 1 && may_be_one),
            GgufValue::Float(value) => *value == 0.0 || (*value == 1.0 && may_be_one),
            GgufValue::Bool(value) => {
                *value == matches!(field, "attention.causal" | "expert_weights_norm")
            }
            GgufValue::String(_) | GgufValue::Array(_) => false,
        };
        if !is_known && !is_neutral {
            return refuse(key, value);
        }
    }
    if let Some(value) = file.get("general.type")
        && *value != GgufValue::String("model".to_owned())
    {
        return refuse("general.type", value);
    }
    let num_files = file.split_count()?;
    if num_files != file.shards().len() as u64 {
        let reason = format!(
            "says that the model is in {num_files} files, named NAME-00001-of-{num_files:05}.gguf \
             and so on: this is one of them"
        );
        return Err(file.field_error("split.count", &reason));
    }
    Ok(())
}

/// Refuses tensors that the forward pass does not use: a bias that nobody adds would be silently
/// wrong logits.
pub(super) fn check_tensors(file: &GgufFile, config: &ModelConfig) -> Result<(), ModelError> {
    check_widths(file, config)?;
    let with_experts = layer_tensors(config, true);
    let without_experts = layer_tensors(config, false);
    let is_known = |name: &str| {
        let in_layer = || {
            let (layer_name, part) = name.strip_prefix("blk.")?.split_once('.')?;
            let layer = config.layers.get(layer_name.parse::<usize>().ok()?)?;
            let parts = match layer.has_experts {
                true => &with_experts,
                false => &without_experts,
            };
            let is_whole = parts.iter().any(|known| known == part);
            Some(is_whole || (layer.has_experts && is_expert(file, config, layer_name, part)))
        };
        matches!(
            name,
            "token_embd.weight" | "output_norm.weight" | "output.weight" | ROPE_DIVISORS
        ) || ROPE_FACTORS.contains(&name)
            || in_layer().unwrap_or(false)
    };
    for tensor in file.tensors() {
        if !is_known(&tensor.name) {
            let reason = "is a tensor that this architecture does not use here";
            return Err(file.field_error(&tensor.name, reason));
        }
        let num_experts = config.moe.as_ref().map(|moe| moe.num_experts);
        if tensor.name.ends_with("_exps.weight") && tensor.shape.first().copied() != num_experts {
            let reason = format!(
                "has the shape {:?}, whose first is not expert_count",
                tensor.shape
            );
            return Err(file.field_error(&tensor.name, &reason));
        }
    }
    Ok(())
}

/// Whether `part` is one expert's, in a file that has a tensor for each and none for all.
fn is_expert(file: &GgufFile, config: &ModelConfig, layer: &str, part: &str) -> bool {
    let num_experts = config.moe.as_ref().map_or(0, |moe| moe.num_experts);
    let expert = || {
        let (part, index) = part.strip_suffix(".weight")?.rsplit_once('.')?;
        // Without a sign or zeros in front: as it is asked for.
        let number = index
            .parse::<usize>()
            .ok()
            .filter(|n| n.to_string() == index);
        Some((part, number?))
    };
    expert().is_some_and(|(part, index)| {
        ["ffn_gate", "ffn_up", "ffn_down"].contains(&part)
            && index < num_experts
            && file
                .tensor(&format!("blk.{layer}.{part}_exps.weight"))
                .is_none()
    })
}

/// The last layer is there, and heads are as wide as the first layer's projection says: what is
/// made for each position before the weights are read then has a width that the file really holds.
fn check_widths(file: &GgufFile, config: &ModelConfig) -> Result<(), ModelError> {
    let name = format!(
        "blk.{}.attn_norm.weight",
        config.layers.len().saturating_sub(1)
    );
    if file.tensor(&name).is_none() {
        return Err(ModelError::MissingTensor { name });
    }
    let heads = config.num_attention_heads;
    let (part, heads) = match config.decoder.has_fused_qkv {
        true => (
            "attn_qkv",
            heads.saturating_add(2 * config.num_key_value_heads),
        ),
        false => ("attn_q", heads),
    };
    let name = format!("blk.0.{part}.weight");
    let Some(tensor) = file.tensor(&name) else {
        return Err(ModelError::MissingTensor { name });
    };
    let expected = [heads.saturating_mul(config.head_dim), config.hidden_size];
    match tensor.shape == expected {
        true => Ok(()),
        false => Err(ModelError::TensorShape {
            name,
            expected: expected.to_vec(),
            found: tensor.shape.clone(),
        }),
    }
}

/// Names of a layer's tensors, without `blk.N.`.
fn layer_tensors(config: &ModelConfig, has_experts: bool) -> Vec<String> {
    let decoder = &config.decoder;
    let mut names = Vec::new();
    let mut add = |parts: &[&str], has_bias: bool| {
        for part in parts {
            names.push(format!("{part}.weight"));
            names.extend(has_bias.then(|| format!("{part}.bias")));
        }
    };
    add(&["attn_norm", "ffn_norm"], false);
    if decoder.has_post_norms {
        add(&["post_attention_norm", "post_ffw_norm"], false);
    }
    if decoder.has_qk_norm {
        add(&["attn_q_norm", "attn_k_norm"], false);
    }
    let qkv = ["attn_q", "attn_k", "attn_v"];
    match decoder.has_fused_qkv {
        true => add(&["attn_qkv"], decoder.has_qkv_bias),
        false => add(&qkv, decoder.has_qkv_bias),
    }
    add(&["attn_output"], decoder.has_attention_out_bias);
    match (has_experts, decoder.has_fused_gate_up) {
        (true, _) => add(
            &[
                "ffn_gate_inp",
                "ffn_gate_exps",
                "ffn_up_exps",
                "ffn_down_exps",
            ],
            false,
        ),
        (false, true) => add(&["ffn_up", "ffn_down"], decoder.has_mlp_bias),
        (false, false) => add(&["ffn_gate", "ffn_up", "ffn_down"], decoder.has_mlp_bias),
    }
    names
}
