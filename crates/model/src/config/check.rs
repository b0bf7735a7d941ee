//! Which fields a config may have, and with which values.
//!
//! Invariant: each field of transformers' config of a supported family, and each field of others
//! that would change the arithmetic, is in one of the lists below; one that changes arithmetic is
//! read by its family, or neutral, or refused.

use serde_json::Value;

use super::{Architecture, Fields};
use crate::ModelError;

/// Read elsewhere, or without influence on a forward pass at inference.
const KNOWN: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "_sliding_window_pattern",
    "architectures",
    "attention_dropout",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "head_dim",
    "hidden_size",
    "id2label",
    "initializer_range",
    "intermediate_size",
    "label2id",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "original_max_position_embeddings",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "resid_pdrop",
    "return_dict",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "router_aux_loss_coef",
    "router_jitter_noise",
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
    ("decoder_sparse_step", Neutral::Number(1.0)),
    ("final_logit_softcapping", Neutral::Absent),
    // Phi-4-mini's configs have these two, always 1.
    ("full_attn_mod", Neutral::Number(1.0)),
    ("hidden_act", Neutral::Text("silu")),
    ("hidden_activation", Neutral::Text("silu")),
    ("interpolate_factor", Neutral::Number(1.0)),
    ("is_encoder_decoder", Neutral::Bool(false)),
    ("layer_types", Neutral::EachText("full_attention")),
    ("lm_head_bias", Neutral::Bool(false)),
    ("logit_scale", Neutral::Number(1.0)),
    ("logits_scaling", Neutral::Number(1.0)),
    ("mlp_bias", Neutral::Bool(false)),
    ("mlp_only_layers", Neutral::EachText("")),
    ("no_rope_layer_interval", Neutral::Absent),
    ("no_rope_layers", Neutral::Absent),
    ("num_experts", Neutral::Number(0.0)),
    ("num_local_experts", Neutral::Number(0.0)),
    ("partial_rotary_factor", Neutral::Number(1.0)),
    ("qk_layernorm", Neutral::Bool(false)),
    ("quantization_config", Neutral::Absent),
    ("query_pre_attn_scalar", Neutral::Absent),
    ("residual_multiplier", Neutral::Number(1.0)),
    ("rope_interleaved", Neutral::Bool(false)),
    ("rope_local_base_freq", Neutral::Absent),
    ("sliding_window", Neutral::Absent),
    ("use_bidirectional_attention", Neutral::Bool(false)),
    ("use_mrope", Neutral::Bool(false)),
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

/// Those of [`NEUTRAL_VALUES`] that the family's code reads, so that any value goes.
fn implemented(architecture: Architecture) -> &'static [&'static str] {
    match architecture {
        Architecture::Llama => &["attention_bias", "mlp_bias"],
        Architecture::Mistral => &["sliding_window"],
        Architecture::Mixtral => &["num_local_experts", "sliding_window"],
        Architecture::Qwen2 => &["layer_types", "sliding_window", "use_sliding_window"],
        Architecture::Qwen3 => &[
            "attention_bias",
            "layer_types",
            "sliding_window",
            "use_sliding_window",
        ],
        Architecture::Qwen3Moe => &[
            "attention_bias",
            "decoder_sparse_step",
            "mlp_only_layers",
            "num_experts",
            "num_local_experts",
            // Without use_sliding_window it says nothing.
            "sliding_window",
            "use_sliding_window",
        ],
        Architecture::Phi3 => &["partial_rotary_factor", "sliding_window"],
        Architecture::Gemma2 => &[
            "attention_bias",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "hidden_act",
            "hidden_activation",
            "layer_types",
            "query_pre_attn_scalar",
            "sliding_window",
        ],
        // Not attn_logit_softcapping: transformers has the field and makes nothing of it, others
        // do, and no model needs it.
        Architecture::Gemma3 => &[
            "attention_bias",
            "final_logit_softcapping",
            "hidden_act",
            "hidden_activation",
            "layer_types",
            "query_pre_attn_scalar",
            "rope_local_base_freq",
            "sliding_window",
        ],
        Architecture::SmolLm3 => &[
            "attention_bias",
            "layer_types",
            "mlp_bias",
            "no_rope_layer_interval",
            "no_rope_layers",
            "sliding_window",
            "use_sliding_window",
        ],
    }
}

/// Fields of some families only, without influence elsewhere.
const FAMILY_FIELDS: &[&str] = &[
    "max_window_layers",
    "moe_intermediate_size",
    "norm_topk_prob",
    "num_experts_per_tok",
    "sliding_window_pattern",
];

/// Refuses what the family's forward pass does not do.
pub(super) fn check(architecture: Architecture, fields: &Fields<'_>) -> Result<(), ModelError> {
    if let Some(custom) = fields.nested("auto_map")?
        && let Some(class) = custom.get("AutoModelForCausalLM")
    {
        // Phi-3's checkpoints still carry the code that transformers took over.
        let is_own = architecture == Architecture::Phi3
            && class.as_str() == Some("modeling_phi3.Phi3ForCausalLM");
        if !is_own {
            return Err(custom.unsupported("AutoModelForCausalLM"));
        }
    }
    let implemented = implemented(architecture);
    for (name, neutral) in NEUTRAL_VALUES {
        let value = fields.get(name).filter(|_| !implemented.contains(name));
        if value.is_some_and(|value| !neutral.matches(value)) {
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
            && !FAMILY_FIELDS.contains(&name)
            && name != "auto_map"
            && NEUTRAL_VALUES.iter().all(|(known, _)| *known != name)
    };
    fields
        .names()
        .filter(is_unknown)
        .map(str::to_owned)
        .collect()
}
