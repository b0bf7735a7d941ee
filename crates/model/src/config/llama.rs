//! Which fields a `LlamaForCausalLM` config may have, and with which values.
//!
//! Invariant: each field of transformers' Llama config, and each field of other families that would
//! change its arithmetic, is in one of the lists below.

use serde_json::Value;

use super::Fields;
use crate::ModelError;

/// Read elsewhere, or without influence on a forward pass at inference.
const KNOWN: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "attention_bias",
    "attention_dropout",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "id2label",
    "initializer_range",
    "intermediate_size",
    "label2id",
    "max_position_embeddings",
    "mlp_bias",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "original_max_position_embeddings",
    "pad_token_id",
    "pretraining_tp",
    "return_dict",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "unk_token_id",
    "use_cache",
    "vocab_size",
];

/// Fields that change the arithmetic, each with the one value (besides null) that does not.
const NEUTRAL_VALUES: &[(&str, Neutral)] = &[
    ("alibi", Neutral::Bool(false)),
    ("attention_bias", Neutral::Bool(false)),
    ("attention_multiplier", Neutral::Absent),
    ("attn_logit_softcapping", Neutral::Absent),
    ("attn_temperature_tuning", Neutral::Bool(false)),
    ("clip_qkv", Neutral::Absent),
    ("embedding_multiplier", Neutral::Number(1.0)),
    ("final_logit_softcapping", Neutral::Absent),
    ("hidden_act", Neutral::Text("silu")),
    ("layer_types", Neutral::EachText("full_attention")),
    ("logit_scale", Neutral::Number(1.0)),
    ("logits_scaling", Neutral::Number(1.0)),
    ("mlp_bias", Neutral::Bool(false)),
    ("no_rope_layers", Neutral::Absent),
    ("num_experts", Neutral::Number(0.0)),
    ("num_local_experts", Neutral::Number(0.0)),
    ("partial_rotary_factor", Neutral::Number(1.0)),
    ("qk_layernorm", Neutral::Bool(false)),
    ("quantization_config", Neutral::Absent),
    ("query_pre_attn_scalar", Neutral::Absent),
    ("residual_multiplier", Neutral::Number(1.0)),
    ("rope_interleaved", Neutral::Bool(false)),
    ("sliding_window", Neutral::Absent),
    ("use_qk_norm", Neutral::Bool(false)),
    ("use_sliding_window", Neutral::Bool(false)),
];

/// A value that leaves the arithmetic as it is.
enum Neutral {
    Absent,
    Bool(bool),
    Number(f64),
    Text(&'static str),
    EachText(&'static str),
}

impl Neutral {
    fn matches(&self, value: &Value) -> bool {
        match self {
            Self::Absent => false,
            Self::Bool(neutral) => value.as_bool() == Some(*neutral),
            Self::Number(neutral) => value.as_f64() == Some(*neutral),
            Self::Text(neutral) => value.as_str() == Some(neutral),
            Self::EachText(neutral) => {
                let values = value.as_array();
                values.is_some_and(|v| v.iter().all(|v| v.as_str() == Some(neutral)))
            }
        }
    }
}

/// Refuses what the family's forward pass does not do.
pub(super) fn check(fields: &Fields<'_>) -> Result<(), ModelError> {
    if fields.get("hidden_act").is_none() && fields.get("hidden_activation").is_some() {
        return Err(fields.unsupported("hidden_activation"));
    }
    if let Some(custom) = fields.nested("auto_map")?
        && custom.get("AutoModelForCausalLM").is_some()
    {
        return Err(custom.unsupported("AutoModelForCausalLM"));
    }
    for (name, neutral) in NEUTRAL_VALUES {
        if fields
            .get(name)
            .is_some_and(|value| !neutral.matches(value))
        {
            return Err(fields.unsupported(name));
        }
    }
    Ok(())
}

/// Fields that are in no list: new ones, typing errors, other tools' notes.
pub(super) fn unknown_fields(fields: &Fields<'_>) -> Vec<String> {
    let is_unknown = |name: &&str| {
        let name = *name;
        !KNOWN.contains(&name)
            && name != "auto_map"
            && NEUTRAL_VALUES.iter().all(|(known, _)| *known != name)
    };
    fields
        .names()
        .filter(is_unknown)
        .map(str::to_owned)
        .collect()
}
