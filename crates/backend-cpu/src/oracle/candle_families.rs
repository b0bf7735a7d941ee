//! Random models of the other families through candle-transformers, in f32: logits within 1e-4 of
//! the largest.
//!
//! Prompts stay inside the sliding windows, which candle does not have in every family; the golden
//! files go beyond them. candle's Mixtral cannot be configured from outside, and its longrope
//! multiplies where the paper divides: both are left to the golden files and to unit tests.
//!
//! Invariant: the oracle shares no code with this backend but the weight file.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{gemma2, gemma3, mistral, phi3, qwen2, qwen3, qwen3_moe};
use hotspare_batch::{SamplingParams, TokenId};
use hotspare_model::weights::WeightDtype;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::harness::{Harness, Lcg, assert_close, assets};
use crate::Isa;

/// Lengths at which logits are compared: up to the windows of the tiny models.
const LENS: [usize; 8] = [1, 2, 7, 15, 16, 17, 23, 24];

/// The config in candle's form: transformers 4, with every field that candle wants.
fn candle_config<C: DeserializeOwned>(config: &Value) -> C {
    let mut config = config.clone();
    let rope = config["rope_parameters"].clone();
    let global = rope.get("full_attention").unwrap_or(&rope);
    config["rope_theta"] = global["rope_theta"].clone();
    for (field, value) in [
        ("attention_bias", json!(false)),
        ("max_window_layers", json!(28)),
        ("num_experts", config["num_local_experts"].clone()),
        ("rope_local_base_freq", json!(10_000.0)),
        ("sliding_window", json!(4096)),
        ("sliding_window_pattern", json!(6)),
    ] {
        if config[field].is_null() {
            config[field] = value;
        }
    }
    serde_json::from_value(config).unwrap()
}

fn weights(path: &Path) -> VarBuilder<'static> {
    let weights = std::fs::read(path.join("model.safetensors")).unwrap();
    VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu).unwrap()
}

/// Compares logits of prefixes of a random prompt; `oracle` gives the last ones of its input.
fn compare(path: &Path, what: &str, mut oracle: impl FnMut(&Tensor) -> Tensor) {
    // Candle computes in float32 throughout.
    let mut harness = Harness::load_with(path, 2, Isa::detect(), Some(WeightDtype::F32));
    let mut lcg = Lcg(6);
    let prompt: Vec<TokenId> = (0..30)
        .map(|_| lcg.below(harness.vocab_size()) as TokenId)
        .collect();
    let index = harness.add(&prompt, &SamplingParams::greedy());
    harness.run_alone(index, 8, 1);
    for len in LENS {
        let input = Tensor::new(&prompt[..len], &Device::Cpu).unwrap();
        let logits = oracle(&input.unsqueeze(0).unwrap());
        let expected: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
        let found = &harness.sequences[index].logits[len - 1];
        assert_close(found, &expected, &format!("{what}, {len} tokens"));
    }
}

fn read_config(path: &Path) -> Value {
    let config = std::fs::read(path.join("config.json")).unwrap();
    serde_json::from_slice(&config).unwrap()
}

/// A test of the tiny model of a family, whose oracle `$new` makes of config and weights.
macro_rules! family {
    ($test:ident, $name:literal, $new:expr) => {
        #[test]
        fn $test() {
            let Some(path) = assets("oracle candle", concat!("tiny/", $name)) else {
                return;
            };
            let config = candle_config(&read_config(&path));
            compare(&path, $name, |input| {
                // A new model for each length: no cache is left over.
                let mut model = $new(&config, weights(&path)).unwrap();
                model.forward(input, 0).unwrap()
            });
        }
    };
}

family!(qwen2_with_biases, "qwen2", qwen2::ModelForCausalLM::new);
family!(qwen3_with_head_norms, "qwen3", qwen3::ModelForCausalLM::new);
family!(
    qwen3_with_experts,
    "qwen3-moe",
    qwen3_moe::ModelForCausalLM::new
);
family!(mistral_inside_its_window, "mistral", mistral::Model::new);
family!(phi3_with_fused_projections, "phi3", phi3::Model::new);
family!(gemma2_inside_its_window, "gemma2", |config, weights| {
    gemma2::Model::new(false, config, weights)
});
family!(gemma3_inside_its_window, "gemma3", |config, weights| {
    gemma3::Model::new(false, config, weights)
});

/// The tiny Gemma 3 has no layer without a window; this one has, with the other frequencies.
#[test]
fn gemma3_with_both_kinds_of_layers() {
    let Some(path) = assets("oracle candle", "tiny/gemma3") else {
        return;
    };
    let mut config = read_config(&path);
    let fields = config.as_object_mut().unwrap();
    fields.remove("layer_types");
    fields.insert("sliding_window_pattern".to_owned(), json!(2));
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    let file = "model.safetensors";
    std::fs::copy(path.join(file), directory.path().join(file)).unwrap();
    let config: gemma3::Config = candle_config(&config);
    compare(directory.path(), "gemma3, both kinds", |input| {
        // Token by token: candle's cache of these layers takes no longer input.
        let mut model = gemma3::Model::new(false, &config, weights(&path)).unwrap();
        let mut step = |at| {
            let token = input.narrow(1, at, 1).unwrap();
            model.forward(&token.contiguous().unwrap(), at).unwrap()
        };
        let len = input.dim(1).unwrap();
        (0..len).map(&mut step).last().unwrap()
    });
}

/// Phi-4-mini rotates a part of each head; the tiny model rotates all of it.
#[test]
fn phi3_with_partial_rotary() {
    let Some(path) = assets("oracle candle", "tiny/phi3") else {
        return;
    };
    let mut config = read_config(&path);
    config["rope_parameters"]["partial_rotary_factor"] = json!(0.5);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    let file = "model.safetensors";
    std::fs::copy(path.join(file), directory.path().join(file)).unwrap();
    config["partial_rotary_factor"] = json!(0.5);
    let config: phi3::Config = candle_config(&config);
    compare(directory.path(), "phi3, half rotated", |input| {
        let mut model = phi3::Model::new(&config, weights(&path)).unwrap();
        model.forward(input, 0).unwrap()
    });
}
