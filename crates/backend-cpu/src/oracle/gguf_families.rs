//! Every family as a GGUF file, converted from safetensors as llama.cpp's converter does, against
//! what transformers computed.
//!
//! The files are made on the spot, in F32, so the tolerance is that of the safetensors themselves.
//!
//! Invariant: a family that loads from safetensors gives the same logits from a GGUF file.

use std::path::Path;

use hotspare_batch::SamplingParams;
use hotspare_testkit::gguf::{GgufWriter, convert_directory};
use serde_json::{Value, json};

use super::golden::check_files;
use super::harness::{Harness, assert_close, assets};

/// Converts `tiny/NAME`, changes its fields, and runs its golden file on the result.
fn check(name: &str, change: impl FnOnce(&mut GgufWriter)) {
    let Some(path) = assets("oracle gguf families", &format!("tiny/{name}")) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(format!("{name}.gguf"));
    std::fs::write(&file, convert_directory(&path, change)).unwrap();
    check_files(&format!("{name}.gguf"), &path, &file, 0.7);
}

#[test]
fn llama() {
    check("llama", |_| {});
}

#[test]
fn llama3_rope() {
    check("llama3-rope", |_| {});
}

#[test]
fn mistral() {
    check("mistral", |_| {});
}

#[test]
fn mistral3() {
    check("llama", |writer| {
        for (key, ..) in &mut writer.fields {
            if let Some(field) = key.strip_prefix("llama.") {
                *key = format!("mistral3.{field}");
            }
        }
        writer.remove("general.architecture");
        writer.string("general.architecture", "mistral3");
        writer.f32("mistral3.attention.temperature_scale", 0.0);
    });
}

#[test]
fn mixtral() {
    check("mixtral", |_| {});
}

#[test]
fn qwen2() {
    check("qwen2", |_| {});
}

#[test]
fn qwen3() {
    check("qwen3", |_| {});
}

#[test]
fn qwen3_moe() {
    check("qwen3-moe", |writer| {
        writer.u32("qwen3moe.expert_gating_func", 1);
        writer.bool("qwen3moe.expert_weights_norm", true);
    });
}

#[test]
fn phi3() {
    check("phi3", |_| {});
}

#[test]
fn gemma2() {
    check("gemma2", |_| {});
}

#[test]
fn gemma3() {
    check("gemma3", |_| {});
}

/// Logits of every position of a prompt of 60 ids, and of the eight that follow.
fn logits(model: &Path) -> Vec<Vec<f32>> {
    let mut harness = Harness::load(model);
    let prompt: Vec<u32> = (0..60).map(|i| (i * 37 + 11) % 320).collect();
    let index = harness.add(&prompt, &SamplingParams::greedy());
    harness.run_alone(index, 16, 8);
    harness.sequences[index].logits.clone()
}

/// A model with the weights of `tiny/NAME` and a changed config: the same from both formats, and
/// not what it was without the change.
fn check_same(name: &str, change: &Value) {
    let Some(path) = assets("oracle gguf families", &format!("tiny/{name}")) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let weights = std::fs::read(path.join("model.safetensors")).unwrap();
    std::fs::write(directory.path().join("model.safetensors"), weights).unwrap();
    let config = std::fs::read(path.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    for (field, value) in change.as_object().unwrap() {
        config[field] = value.clone();
    }
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    let file = directory.path().join("model.gguf");
    std::fs::write(&file, convert_directory(directory.path(), |_| {})).unwrap();
    let (ours, expected) = (logits(&file), logits(directory.path()));
    for (position, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
        assert_close(ours, expected, &format!("{name} {change} at {position}"));
    }
    let before = logits(&path);
    let last = before.iter().zip(&expected).next_back().unwrap();
    let is_other = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-3;
    assert!(
        last.0.iter().zip(last.1).any(is_other),
        "{change} changes nothing"
    );
}

#[test]
fn phi3_with_long_factors_and_partial_rotary() {
    let factors = |by: f64| (0..5).map(|i| 1.0 + by * f64::from(i)).collect::<Vec<_>>();
    for original in [64, 256, 1024] {
        check_same(
            "phi3",
            &json!({"original_max_position_embeddings": original, "rope_parameters": {
                "rope_theta": 10000.0, "rope_type": "longrope", "partial_rotary_factor": 0.625,
                "short_factor": factors(0.5), "long_factor": factors(2.0)}}),
        );
    }
}

#[test]
fn phi3_with_a_window() {
    check_same("phi3", &json!({"sliding_window": 24}));
}

#[test]
fn yarn() {
    for name in ["llama", "qwen2", "qwen3"] {
        let yarn = json!({"rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0,
            "original_max_position_embeddings": 128});
        check_same(name, &json!({"rope_parameters": yarn}));
        let mut more = yarn;
        for (field, value) in [
            ("beta_fast", 16.0),
            ("beta_slow", 2.0),
            ("attention_factor", 1.3),
        ] {
            more[field] = value.into();
        }
        check_same(name, &json!({"rope_parameters": more}));
    }
}

#[test]
fn linear_scaling() {
    let linear = json!({"rope_theta": 10000.0, "rope_type": "linear", "factor": 8.0});
    check_same("llama", &json!({"rope_parameters": linear}));
    // Layers without a window alone have it; the period is six, so a window must go for one.
    let global = json!({"full_attention": linear,
        "sliding_attention": {"rope_theta": 20000.0, "rope_type": "default"}});
    check_same(
        "gemma3",
        &json!({"rope_parameters": global, "sliding_window": 9}),
    );
}

#[test]
fn smollm3() {
    let config = json!({"architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3",
        "no_rope_layer_interval": 4,
        "rope_parameters": {"rope_theta": 2e6, "rope_type": "default"}});
    check_same("llama", &config);
}
