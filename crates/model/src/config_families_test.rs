//! Families' configs: both forms, what each layer is, and what is refused.

use serde_json::{Value, json};

use crate::config::Activation;
use crate::testing::{TINY_FAMILIES, TinyModel, assets};
use crate::{Architecture, LayerRope, ModelConfig, ModelError, RopeScaling};

fn parse(config: &Value) -> Result<ModelConfig, ModelError> {
    ModelConfig::parse(config.to_string().as_bytes())
}

/// The tiny Llama's config as another family's, with `changes`.
fn family(architecture: &str, changes: Value) -> Value {
    let mut config = TinyModel::new().config;
    config["architectures"] = json!([architecture]);
    for (name, value) in changes.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

fn windows(config: &ModelConfig) -> Vec<Option<usize>> {
    let layers = config.layers.iter();
    layers.map(|layer| layer.sliding_window).collect()
}

/// A transformers 5 config as transformers 4 wrote it.
fn as_version_4(mut config: Value) -> Value {
    let fields = config.as_object_mut().unwrap();
    let rope = fields.remove("rope_parameters").unwrap();
    if let Some(local) = rope.get("sliding_attention") {
        fields.insert(
            "rope_local_base_freq".to_owned(),
            local["rope_theta"].clone(),
        );
        fields.insert("sliding_window_pattern".to_owned(), json!(6));
        fields.remove("_sliding_window_pattern");
    }
    let global = rope.get("full_attention").unwrap_or(&rope);
    fields.insert("rope_theta".to_owned(), global["rope_theta"].clone());
    let is_plain = global["rope_type"] == "default";
    let scaling = if is_plain { Value::Null } else { rope.clone() };
    fields.insert("rope_scaling".to_owned(), scaling);
    fields.remove("layer_types");
    let dtype = fields.remove("dtype").unwrap();
    fields.insert("torch_dtype".to_owned(), dtype);
    if fields["model_type"] == "qwen3_moe" {
        let num_experts = fields.remove("num_local_experts").unwrap();
        fields.insert("num_experts".to_owned(), num_experts);
    }
    fields.remove("architectures");
    config
}

#[test]
fn both_forms_of_every_family_mean_the_same() {
    for name in TINY_FAMILIES {
        let Some(path) = assets("model configs", &format!("tiny/{name}")) else {
            return;
        };
        let new: Value =
            serde_json::from_slice(&std::fs::read(path.join("config.json")).unwrap()).unwrap();
        let old = parse(&as_version_4(new.clone())).unwrap();
        let new = parse(&new).unwrap();
        assert!(new.unknown_fields.is_empty(), "{:?}", new.unknown_fields);
        assert_eq!(old, new, "{name}");
    }
}

#[test]
fn windows_follow_each_family_s_rule() {
    let layers = |architecture, mut changes: Value| {
        changes["num_hidden_layers"] = json!(4);
        windows(&parse(&family(architecture, changes)).unwrap())
    };
    let mistral = "MistralForCausalLM";
    assert_eq!(layers(mistral, json!({"sliding_window": 9})), [Some(9); 4]);
    assert_eq!(layers(mistral, json!({"sliding_window": null})), [None; 4]);
    assert_eq!(layers(mistral, json!({})), [Some(4096); 4]);
    let widest = |architecture, changes| {
        let config = parse(&family(architecture, changes)).unwrap();
        config.sliding_window()
    };
    assert_eq!(widest(mistral, json!({"sliding_window": 9})), Some(9));
    assert_eq!(widest(mistral, json!({"sliding_window": null})), None);
    assert_eq!(
        widest("Gemma2ForCausalLM", json!({"sliding_window": 9})),
        None
    );
    let qwen2 = "Qwen2ForCausalLM";
    let window = json!({"sliding_window": 9, "max_window_layers": 3});
    assert_eq!(layers(qwen2, window), [None; 4]);
    let window = json!({"sliding_window": 9, "max_window_layers": 3, "use_sliding_window": true});
    assert_eq!(layers(qwen2, window), [None, None, None, Some(9)]);
    let moe = json!({"sliding_window": 9, "use_sliding_window": true, "num_experts": 2,
        "num_experts_per_tok": 1, "moe_intermediate_size": 4});
    assert_eq!(layers("Qwen3MoeForCausalLM", moe), [Some(9); 4]);
    let gemma = json!({"sliding_window": 9, "layer_types": ["full_attention",
        "sliding_attention", "full_attention", "full_attention"]});
    let listed = [None, Some(9), None, None];
    assert_eq!(layers("Gemma2ForCausalLM", gemma), listed);
    let gemma = json!({"sliding_window": 9});
    let alternating = [Some(9), None, Some(9), None];
    assert_eq!(layers("Gemma2ForCausalLM", gemma), alternating);
    let gemma = family(
        "Gemma3ForCausalLM",
        json!({"sliding_window": 9, "sliding_window_pattern": 2}),
    );
    let gemma = parse(&gemma).unwrap();
    assert_eq!(gemma.layers[0].rope, LayerRope::Local);
    assert_eq!(gemma.layers[1].rope, LayerRope::Global);
    assert_eq!(gemma.rope.theta, 1e6);
    assert_eq!(gemma.local_rope.unwrap().theta, 1e4);
}

#[test]
fn gemma_differs_from_llama_in_everything_it_should() {
    let changes = json!({"query_pre_attn_scalar": 64, "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh", "final_logit_softcapping": null});
    let config = parse(&family("Gemma2ForCausalLM", changes)).unwrap();
    assert_eq!(config.head_dim, 256);
    let decoder = config.decoder;
    assert_eq!(decoder.embedding_scale, 8f32.sqrt());
    assert_eq!(decoder.attention_scale, 0.125);
    assert_eq!(decoder.attention_soft_cap, Some(50.0));
    assert_eq!(decoder.final_soft_cap, None);
    assert_eq!(decoder.activation, Activation::GeluTanh);
    assert_eq!((decoder.norm_offset, decoder.has_post_norms), (1.0, true));
    let wrong = family("Gemma2ForCausalLM", json!({"hidden_activation": "relu"}));
    let error = parse(&wrong).unwrap_err().to_string();
    assert!(error.contains("`hidden_activation` = \"relu\""), "{error}");
    let wrong = json!({"use_bidirectional_attention": true});
    let error = parse(&family("Gemma3ForCausalLM", wrong)).unwrap_err();
    assert!(error.to_string().contains("use_bidirectional_attention"));
}

#[test]
fn smollm3_leaves_rope_out_of_some_layers() {
    let no_rope = |changes| {
        let config = parse(&family("SmolLM3ForCausalLM", changes)).unwrap();
        assert_eq!(config.architecture, Architecture::SmolLm3);
        let layers = config.layers.iter();
        layers
            .map(|layer| layer.rope == LayerRope::None)
            .collect::<Vec<_>>()
    };
    let listed = json!({"no_rope_layers": [0, 1]});
    assert_eq!(no_rope(listed), [true, false]);
    let every = json!({"num_hidden_layers": 8});
    let expected = [false, false, false, true, false, false, false, true];
    assert_eq!(no_rope(every), expected);
    for wrong in [json!([1]), json!([1, 2]), json!("all")] {
        let config = family("SmolLM3ForCausalLM", json!({ "no_rope_layers": wrong }));
        let error = parse(&config).unwrap_err().to_string();
        assert!(error.contains("`no_rope_layers`"), "{error}");
    }
    // Another family does not know such layers.
    let llama = family("LlamaForCausalLM", json!({"no_rope_layers": [0, 1]}));
    assert!(parse(&llama).is_err());
}

#[test]
fn experts_are_read_and_bounded() {
    let moe = json!({"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 6,
        "num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3]});
    let config = parse(&family("Qwen3MoeForCausalLM", moe.clone())).unwrap();
    let sparse: Vec<bool> = config.layers.iter().map(|l| l.has_experts).collect();
    assert_eq!(sparse, [false, true, false, false]);
    let experts = config.moe.unwrap();
    assert_eq!((experts.num_experts, experts.intermediate_size), (8, 6));
    assert!(!experts.normalises);
    for (field, value) in [
        ("num_experts_per_tok", json!(9)),
        ("num_experts", json!(0)),
        ("mlp_only_layers", json!([4])),
        ("moe_intermediate_size", Value::Null),
    ] {
        let mut moe = moe.clone();
        moe[field] = value;
        let error = parse(&family("Qwen3MoeForCausalLM", moe)).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
    }
    // A list of all their tensors would take gigabytes.
    let many = json!({"num_experts": 4096, "num_experts_per_tok": 2, "moe_intermediate_size": 6,
        "num_hidden_layers": 4096});
    let error = parse(&family("Qwen3MoeForCausalLM", many)).unwrap_err();
    assert!(error.to_string().contains("in 4096 layers"), "{error}");
    let error = parse(&family("LlamaForCausalLM", json!({"num_experts": 8}))).unwrap_err();
    assert!(error.to_string().contains("`num_experts`"), "{error}");
}

#[test]
fn yarn_has_transformers_defaults() {
    let scaling = json!({"rope_type": "yarn", "factor": 4.0,
        "original_max_position_embeddings": 32});
    let config = family("Qwen3ForCausalLM", json!({ "rope_scaling": scaling }));
    let config = parse(&config).unwrap();
    assert_eq!(config.max_context_len(), 128);
    let RopeScaling::Yarn {
        factor,
        original,
        beta_fast,
        beta_slow,
        truncates,
        attention_factor,
    } = config.rope.scaling
    else {
        panic!("not yarn");
    };
    assert_eq!((factor, original), (4.0, 32.0));
    assert_eq!((beta_fast, beta_slow, truncates), (32.0, 1.0, true));
    assert!((attention_factor - (0.1 * 4f64.ln() + 1.0)).abs() < 1e-12);
    let absurd = json!({"rope_scaling": {"type": "dynamic", "factor": 1e30}});
    let absurd = parse(&family("LlamaForCausalLM", absurd)).unwrap();
    assert_eq!(absurd.max_context_len(), 1 << 24);
    let dynamic = json!({"rope_scaling": {"type": "dynamic", "factor": 2}});
    let dynamic = parse(&family("LlamaForCausalLM", dynamic)).unwrap();
    assert_eq!(dynamic.max_context_len(), 128);
}

#[test]
fn phi_s_longrope_needs_a_divisor_for_each_pair() {
    let config = |len: usize, partial: f64| {
        let divisors = vec![1.5; len];
        family(
            "Phi3ForCausalLM",
            json!({"rope_scaling": {"type": "su", "short_factor": divisors.clone(),
                "long_factor": divisors}, "original_max_position_embeddings": 16,
                "partial_rotary_factor": partial, "head_dim": 8}),
        )
    };
    let parsed = parse(&config(3, 0.75)).unwrap();
    assert_eq!(parsed.rope.rotary_dim, 6);
    let RopeScaling::LongRope {
        original,
        attention_factor,
        ..
    } = parsed.rope.scaling
    else {
        panic!("not longrope");
    };
    // 64 positions, from 16: the factor is 4, unless the config has one.
    assert_eq!(original, 16.0);
    assert!((attention_factor - (1.0 + 4f64.ln() / 16f64.ln()).sqrt()).abs() < 1e-12);
    let mut own_code = config(3, 0.75);
    own_code["auto_map"] = json!({"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"});
    assert_eq!(parse(&own_code).unwrap(), parse(&config(3, 0.75)).unwrap());
    own_code["auto_map"] = json!({"AutoModelForCausalLM": "modeling_x.Phi3ForCausalLM"});
    assert!(parse(&own_code).is_err());
    let error = parse(&config(4, 0.75)).unwrap_err().to_string();
    assert!(error.contains("short_factor"), "{error}");
    let error = parse(&config(3, 0.7)).unwrap_err().to_string();
    assert!(error.contains("partial_rotary_factor"), "{error}");
    let inner = json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}});
    let error = parse(&family("LlamaForCausalLM", inner)).unwrap_err();
    assert!(error.to_string().contains("partial_rotary_factor"));
}
