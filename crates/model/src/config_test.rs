//! Configs in both forms, and what is refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::testing::TinyModel;
use crate::{ModelConfig, ModelError, RopeScaling};

fn parse(config: &Value) -> Result<ModelConfig, ModelError> {
    ModelConfig::parse(config.to_string().as_bytes())
}

fn with(field: &str, value: Value) -> Value {
    let mut config = TinyModel::new().config;
    config[field] = value;
    config
}

#[test]
fn reads_a_plain_config() {
    let config = parse(&TinyModel::new().config).unwrap();
    assert_eq!(
        (config.vocab_size, config.hidden_size, config.head_dim),
        (24, 8, 4)
    );
    assert_eq!(
        (config.num_attention_heads, config.num_key_value_heads),
        (2, 1)
    );
    assert_eq!(
        (config.eos_token_ids, config.bos_token_ids),
        (vec![2], vec![1])
    );
    assert_eq!(
        (config.rope.theta, config.rope.scaling),
        (10_000.0, RopeScaling::Default)
    );
    assert_eq!(config.dtype.as_deref(), Some("float32"));
    assert!(config.unknown_fields.is_empty());
    assert!(config.tie_word_embeddings);
}

#[test]
fn optional_fields_have_transformers_defaults() {
    let mut config = TinyModel::new().config;
    let object = config.as_object_mut().unwrap();
    for name in [
        "num_key_value_heads",
        "rms_norm_eps",
        "tie_word_embeddings",
        "hidden_act",
    ] {
        object.remove(name);
    }
    object.insert("eos_token_id".to_owned(), json!([3, 4]));
    object.insert("architectures".to_owned(), Value::Null);
    object.insert("dtype".to_owned(), json!("bfloat16"));
    let config = parse(&config).unwrap();
    assert_eq!(config.num_key_value_heads, 2);
    assert_eq!(config.rms_norm_eps, 1e-6);
    assert!(!config.tie_word_embeddings);
    assert_eq!(config.eos_token_ids, [3, 4]);
    assert_eq!(config.dtype.as_deref(), Some("bfloat16"));
}

#[test]
fn both_forms_of_rope_mean_the_same() {
    let scaling = json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
        "high_freq_factor": 4, "original_max_position_embeddings": 16});
    let mut old = with("rope_scaling", scaling.clone());
    old["rope_theta"] = json!(5e5);
    let mut new = with("rope_parameters", scaling);
    new["rope_parameters"]["rope_theta"] = json!(500_000);
    let (old, new) = (parse(&old).unwrap(), parse(&new).unwrap());
    assert_eq!(old.rope, new.rope);
    assert_eq!(old.rope.theta, 5e5);
    let expected = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 16.0,
    };
    assert_eq!(old.rope.scaling, expected);
    let linear = parse(&with(
        "rope_scaling",
        json!({"type": "linear", "factor": 2.0}),
    ))
    .unwrap();
    assert_eq!(linear.rope.scaling, RopeScaling::Linear { factor: 2.0 });
    assert_eq!(linear.max_context_len(), 128);
}

#[test]
fn refuses_arithmetic_that_is_not_implemented_by_name() {
    for (field, value) in [
        ("lm_head_bias", json!(true)),
        ("hidden_act", json!("gelu")),
        ("hidden_activation", json!("gelu_pytorch_tanh")),
        ("sliding_window", json!(128)),
        ("attn_logit_softcapping", json!(50.0)),
        ("final_logit_softcapping", json!(30.0)),
        ("partial_rotary_factor", json!(0.5)),
        ("quantization_config", json!({"quant_method": "awq"})),
        (
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
        ),
        ("num_local_experts", json!(8)),
        ("residual_multiplier", json!(0.2)),
    ] {
        let error = parse(&with(field, value)).unwrap_err();
        let names_it = |e: &ModelError| match e {
            ModelError::UnsupportedField { field: found, .. } => found == field,
            _ => false,
        };
        assert!(names_it(&error), "{field}: {error}");
    }
    for (scaling, expected) in [
        (
            json!({"rope_type": "mrope", "factor": 4}),
            "`rope_scaling.rope_type` = \"mrope\"",
        ),
        (
            json!({"type": "proportional", "factor": 4}),
            "`rope_scaling.type` = \"proportional\"",
        ),
        (
            json!({"full_attention": {}}),
            "`rope_scaling.full_attention`",
        ),
        (
            json!({"type": "linear"}),
            "`rope_scaling.factor` is missing",
        ),
        (
            json!({"type": "linear", "factor": 0}),
            "`rope_scaling.factor` = 0",
        ),
        (json!("linear"), "`rope_scaling` is not an object"),
    ] {
        let error = parse(&with("rope_scaling", scaling))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut custom = TinyModel::new().config;
    custom["auto_map"] = json!({"AutoModelForCausalLM": "modeling_x.X"});
    let error = parse(&custom).unwrap_err().to_string();
    assert!(error.contains("auto_map.AutoModelForCausalLM"), "{error}");
    let error = parse(&with("architectures", json!(["FooForCausalLM"]))).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("FooForCausalLM") && error.contains("LlamaForCausalLM"),
        "{error}"
    );
}

#[test]
fn neutral_values_and_unknown_fields_are_accepted() {
    let mut config = TinyModel::new().config;
    config["sliding_window"] = Value::Null;
    config["partial_rotary_factor"] = json!(1.0);
    config["layer_types"] = json!(["full_attention", "full_attention"]);
    config["rope_scaling"] = Value::Null;
    config["a_new_field"] = json!(1);
    assert_eq!(parse(&config).unwrap().unknown_fields, ["a_new_field"]);
}

#[test]
fn wrong_types_and_values_name_the_field() {
    for (field, value) in [
        ("hidden_size", json!("8")),
        ("hidden_size", json!(0)),
        ("hidden_size", json!(-8)),
        ("hidden_size", json!(8.5)),
        ("hidden_size", json!(1u64 << 60)),
        ("vocab_size", Value::Null),
        ("num_hidden_layers", json!(100_000)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(5)),
        ("rms_norm_eps", json!("small")),
        ("rms_norm_eps", json!(-1.0)),
        ("rope_theta", json!(0)),
        ("tie_word_embeddings", json!(1)),
        ("eos_token_id", json!(24)),
        ("eos_token_id", json!([1, "2"])),
        ("torch_dtype", json!(16)),
        ("architectures", json!("LlamaForCausalLM")),
        ("architectures", json!(["LlamaForCausalLM", "B"])),
        ("architectures", json!([7])),
    ] {
        let error = parse(&with(field, value.clone())).unwrap_err().to_string();
        assert!(
            error.contains(&format!("`{field}`")),
            "{field} = {value}: {error}"
        );
    }
    assert!(ModelConfig::parse(b"not json").is_err());
    assert!(ModelConfig::parse(b"[1]").is_err());
    assert!(ModelConfig::parse(b"").is_err());
}

#[test]
fn the_context_length_is_the_smaller_of_model_and_option() {
    let config = parse(&TinyModel::new().config).unwrap();
    assert_eq!(config.resolve_max_model_len(None).unwrap(), 64);
    assert_eq!(config.resolve_max_model_len(Some(10)).unwrap(), 10);
    assert_eq!(config.resolve_max_model_len(Some(64)).unwrap(), 64);
    let error = config.resolve_max_model_len(Some(65)).unwrap_err();
    assert!(
        matches!(
            error,
            ModelError::MaxModelLen {
                asked: 65,
                limit: 64
            }
        ),
        "{error}"
    );
    assert!(config.resolve_max_model_len(Some(0)).is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9]{0,6}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({"rope_type": 3, "factor": "x"})),
    ]
}

proptest! {
    /// Any value in any field gives a config or an error, never a panic.
    #[test]
    fn random_values_never_panic(which in any::<prop::sample::Index>(), value in any_json()) {
        let mut config = TinyModel::new().config;
        let mut names: Vec<String> = config.as_object().unwrap().keys().cloned().collect();
        names.extend(["rope_scaling", "rope_parameters", "head_dim", "auto_map"].map(String::from));
        config[which.get(&names)] = value;
        if let Ok(config) = parse(&config) {
            prop_assert!(config.head_dim % 2 == 0 && config.max_context_len() > 0);
        }
    }
}
