//! Every field of the families' config classes in transformers 5.23, and those of transformers 4
//! that configs still have: a change of it changes the model, or is refused, or has no influence.
//!
//! Invariant: [`NO_INFLUENCE`] and [`REFUSED`] are exact: a field that is in neither has to change
//! what is parsed.

use serde_json::{Value, json};

use crate::testing::TinyModel;
use crate::{ModelConfig, ModelError};

/// Fields that all ten classes have.
const COMMON: &[&str] = &[
    "attention_dropout",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dtype",
    "eos_token_id",
    "head_dim",
    "hidden_size",
    "id2label",
    "initializer_range",
    "intermediate_size",
    "is_encoder_decoder",
    "label2id",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "output_hidden_states",
    "pad_token_id",
    "problem_type",
    "quantization_config",
    "return_dict",
    "rms_norm_eps",
    "rope_parameters",
    "tie_word_embeddings",
    "transformers_version",
    "use_cache",
    "vocab_size",
    // Of transformers 4.
    "rope_scaling",
    "rope_theta",
    "torch_dtype",
];

/// What has no influence on a forward pass at inference.
const NO_INFLUENCE: &[&str] = &[
    "attention_dropout",
    "chunk_size_feed_forward",
    "embd_pdrop",
    "id2label",
    "initializer_range",
    "label2id",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "resid_pdrop",
    "return_dict",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "transformers_version",
    "use_cache",
];

/// What no other value than the usual one is accepted of; Gemma 3's `attn_logit_softcapping` too.
const REFUSED: &[&str] = &[
    "hidden_act",
    "hidden_activation",
    "is_encoder_decoder",
    "quantization_config",
    "use_bidirectional_attention",
];

/// A family: its architecture, what its base config has beside the tiny Llama's, and the fields of
/// its class that are not common.
struct Family {
    architecture: &'static str,
    base: Value,
    fields: &'static [&'static str],
}

fn gemma(architecture: &'static str, fields: &'static [&'static str]) -> Family {
    let base = json!({"sliding_window": 8, "hidden_activation": "gelu_pytorch_tanh",
        "hidden_act": null, "head_dim": 4});
    family(architecture, base, fields)
}

fn family(architecture: &'static str, base: Value, fields: &'static [&'static str]) -> Family {
    Family {
        architecture,
        base,
        fields,
    }
}

fn dense_families() -> Vec<Family> {
    let window = json!({"sliding_window": 8, "use_sliding_window": true, "max_window_layers": 1});
    let qwen_fields = &[
        "hidden_act",
        "layer_types",
        "max_window_layers",
        "sliding_window",
        "use_sliding_window",
    ];
    vec![
        family(
            "LlamaForCausalLM",
            json!({}),
            &["attention_bias", "hidden_act", "mlp_bias", "pretraining_tp"],
        ),
        family(
            "MistralForCausalLM",
            json!({}),
            &["hidden_act", "sliding_window"],
        ),
        family("Qwen2ForCausalLM", window.clone(), qwen_fields),
        family("Qwen3ForCausalLM", window.clone(), qwen_fields),
        family("Qwen3ForCausalLM", window, &["attention_bias"]),
        family(
            "Phi3ForCausalLM",
            json!({"rope_scaling": {"type": "longrope", "short_factor": [1, 2],
                "long_factor": [3, 4]}, "original_max_position_embeddings": 32}),
            &[
                "embd_pdrop",
                "hidden_act",
                "original_max_position_embeddings",
                "resid_pdrop",
                "sliding_window",
            ],
        ),
        family(
            "Phi3ForCausalLM",
            json!({"head_dim": 8}),
            &["partial_rotary_factor"],
        ),
        family(
            "SmolLM3ForCausalLM",
            json!({"sliding_window": 8, "use_sliding_window": true, "no_rope_layer_interval": 2}),
            &[
                "attention_bias",
                "hidden_act",
                "layer_types",
                "mlp_bias",
                "no_rope_layer_interval",
                "no_rope_layers",
                "sliding_window",
                "use_sliding_window",
            ],
        ),
    ]
}

fn other_families() -> Vec<Family> {
    let gemma_fields = &[
        "attention_bias",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "hidden_activation",
        "layer_types",
        "query_pre_attn_scalar",
        "sliding_window",
        "use_bidirectional_attention",
    ];
    vec![
        gemma("Gemma2ForCausalLM", gemma_fields),
        gemma("Gemma3ForCausalLM", gemma_fields),
        gemma(
            "Gemma3ForCausalLM",
            &[
                "_sliding_window_pattern",
                "rope_local_base_freq",
                "sliding_window_pattern",
            ],
        ),
        family(
            "MixtralForCausalLM",
            json!({"num_local_experts": 4, "num_experts_per_tok": 2}),
            &[
                "hidden_act",
                "num_experts_per_tok",
                "num_local_experts",
                "output_router_logits",
                "router_aux_loss_coef",
                "router_jitter_noise",
                "sliding_window",
            ],
        ),
        family(
            "Qwen3MoeForCausalLM",
            json!({"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 6,
                "sliding_window": 8, "use_sliding_window": true}),
            &[
                "attention_bias",
                "decoder_sparse_step",
                "hidden_act",
                "mlp_only_layers",
                "moe_intermediate_size",
                "norm_topk_prob",
                "num_experts",
                "num_experts_per_tok",
                "output_router_logits",
                "router_aux_loss_coef",
                "sliding_window",
                "use_sliding_window",
            ],
        ),
    ]
}

/// A value of `field` unlike the base's.
fn other(family: &Family, field: &str) -> Value {
    let is_gemma3 = family.architecture.starts_with("Gemma3");
    match field {
        "vocab_size" => json!(32),
        "hidden_size" => json!(16),
        "intermediate_size" => json!(20),
        "num_hidden_layers" | "num_experts_per_tok" => json!(3),
        "num_attention_heads" => json!(4),
        "num_key_value_heads" | "decoder_sparse_step" | "pretraining_tp" => json!(2),
        "head_dim" => json!(6),
        "max_position_embeddings" => json!(50),
        "original_max_position_embeddings" => json!(16),
        "num_local_experts" | "num_experts" => json!(5),
        "moe_intermediate_size" => json!(7),
        "max_window_layers" => json!(0),
        "no_rope_layer_interval" => json!(1),
        "no_rope_layers" => json!([0, 0]),
        "mlp_only_layers" => json!([0]),
        "_sliding_window_pattern" | "sliding_window_pattern" => json!(2),
        "sliding_window" => json!(9),
        "use_sliding_window" | "tie_word_embeddings" | "use_cache" => json!(false),
        "layer_types" => json!(["full_attention", "full_attention"]),
        "hidden_act" | "hidden_activation" => json!("relu"),
        "dtype" | "torch_dtype" => json!("bfloat16"),
        "transformers_version" | "problem_type" => json!("x"),
        "rope_parameters" if is_gemma3 => json!({"full_attention": {"rope_theta": 7.0}}),
        "rope_parameters" => json!({"rope_type": "default", "rope_theta": 7.0}),
        "rope_scaling" if family.architecture.starts_with("Phi3") => {
            let num_pairs = family.base["head_dim"].as_u64().unwrap_or(4) / 2;
            let divisors = vec![7.0; num_pairs as usize];
            json!({"type": "longrope", "short_factor": divisors, "long_factor": divisors})
        }
        "rope_scaling" => json!({"rope_type": "linear", "factor": 2.0}),
        "rms_norm_eps"
        | "rope_theta"
        | "attn_logit_softcapping"
        | "query_pre_attn_scalar"
        | "final_logit_softcapping"
        | "rope_local_base_freq" => json!(7.0),
        "partial_rotary_factor"
        | "attention_dropout"
        | "resid_pdrop"
        | "embd_pdrop"
        | "initializer_range"
        | "router_aux_loss_coef"
        | "router_jitter_noise" => json!(0.5),
        "quantization_config" => json!({"quant_method": "fp8"}),
        "id2label" | "label2id" => json!({"a": 1}),
        "bos_token_id" | "eos_token_id" | "pad_token_id" | "chunk_size_feed_forward" => json!(5),
        "attention_bias"
        | "mlp_bias"
        | "norm_topk_prob"
        | "use_bidirectional_attention"
        | "is_encoder_decoder"
        | "output_hidden_states"
        | "output_router_logits"
        | "return_dict" => json!(true),
        _ => panic!("no value for {field}"),
    }
}

fn parse(config: &Value) -> Result<ModelConfig, ModelError> {
    ModelConfig::parse(config.to_string().as_bytes())
}

fn check(family: &Family, base: &Value, field: &str) {
    let what = format!("{}, {field}", family.architecture);
    let mut changed = base.clone();
    changed[field] = other(family, field);
    match field {
        // One of the two forms at a time.
        "rope_parameters" => changed["rope_scaling"] = Value::Null,
        // The other name of the same field, which goes first.
        "torch_dtype" => changed["dtype"] = Value::Null,
        // With a part of a head there are other divisors.
        "head_dim" | "hidden_size" | "num_attention_heads"
            if base["rope_scaling"]["short_factor"].is_array() =>
        {
            changed["rope_scaling"] = Value::Null;
        }
        _ => {}
    }
    let is_gemma3_cap = family.architecture.starts_with("Gemma3") && field.starts_with("attn_");
    let is_refused = REFUSED.contains(&field) || is_gemma3_cap;
    match parse(&changed) {
        Ok(found) => {
            assert!(!is_refused, "{what} is not refused");
            assert!(found.unknown_fields.is_empty(), "{what} is not known");
            let is_changed = found != parse(base).unwrap();
            assert_eq!(is_changed, !NO_INFLUENCE.contains(&field), "{what}");
        }
        Err(error) => {
            assert!(is_refused, "{what}: {error}");
            assert!(error.to_string().contains(&format!("`{field}`")), "{error}");
        }
    }
}

#[test]
fn each_field_of_each_family_changes_the_model_or_is_refused_or_has_no_influence() {
    let mut num_fields = 0;
    for family in dense_families().into_iter().chain(other_families()) {
        let mut base = TinyModel::new().config;
        base["architectures"] = json!([family.architecture]);
        for (name, value) in family.base.as_object().unwrap() {
            base[name] = value.clone();
        }
        parse(&base).unwrap();
        for field in COMMON.iter().chain(family.fields) {
            check(&family, &base, field);
            num_fields += 1;
        }
    }
    assert!(num_fields > 400, "{num_fields}");
}

#[test]
fn what_changes_the_angles_is_known_or_refused() {
    let mut config = TinyModel::new().config;
    config["rope_scaling"] = json!({"rope_type": "yarn", "factor": 2.0, "llama_4_scaling_beta": 1});
    let error = parse(&config).unwrap_err().to_string();
    assert!(
        error.contains("`rope_scaling.llama_4_scaling_beta`"),
        "{error}"
    );
    config["rope_scaling"] = json!({"rope_type": "linear", "factor": 2.0});
    config["rope_parameters"] = json!({"rope_type": "linear", "factor": 4.0});
    let error = parse(&config).unwrap_err().to_string();
    assert!(error.contains("`rope_scaling`"), "{error}");
    config["rope_parameters"] = config["rope_scaling"].clone();
    parse(&config).unwrap();
    config["architectures"] = json!(["Gemma3ForCausalLM"]);
    let error = parse(&config).unwrap_err().to_string();
    assert!(
        error.contains("`rope_parameters.full_attention`"),
        "{error}"
    );
    config["architectures"] = json!(["Phi3ForCausalLM"]);
    let error = parse(&config).unwrap_err().to_string();
    assert!(
        error.contains("`rope_parameters.rope_type` = \"linear\""),
        "{error}"
    );
}

#[test]
fn a_text_model_inside_another_is_read_as_if_it_stood_alone() {
    // What the smaller multimodal Gemma 3 checkpoints say.
    let config = json!({"architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3", "boi_token_index": 255_999, "eos_token_id": [1, 106],
        "torch_dtype": "bfloat16", "vision_config": {"hidden_size": 1152},
        "text_config": {"hidden_size": 2560, "intermediate_size": 10240,
            "model_type": "gemma3_text", "num_hidden_layers": 34, "sliding_window": 1024,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}});
    let parsed = parse(&config).unwrap();
    assert_eq!((parsed.vocab_size, parsed.head_dim), (262_208, 256));
    assert_eq!(
        (parsed.num_attention_heads, parsed.num_key_value_heads),
        (8, 4)
    );
    assert_eq!(parsed.max_context_len(), 131_072);
    assert_eq!(
        (parsed.tie_word_embeddings, parsed.layers.len()),
        (true, 34)
    );
    assert_eq!(parsed.eos_token_ids, [1, 106]);
    assert_eq!(parsed.dtype.as_deref(), Some("bfloat16"));
    assert_eq!(parsed.unknown_fields, [] as [&str; 0]);

    for (field, value, expected) in [
        ("text_config", Value::Null, "`text_config`"),
        (
            "text_config",
            json!({"model_type": "x"}),
            "`text_config.model_type` = \"x\"",
        ),
        (
            "text_config",
            json!({"use_bidirectional_attention": true}),
            "`text_config.use_bidirectional_attention`",
        ),
        ("quantization_config", json!({}), "quantization_config`"),
        (
            "architectures",
            json!(["LlavaForConditionalGeneration"]),
            "Mistral3ForCond",
        ),
    ] {
        let mut config = config.clone();
        config[field] = value;
        let error = parse(&config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
