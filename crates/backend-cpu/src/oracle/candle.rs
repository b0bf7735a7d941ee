//! The same weights through candle-transformers' Llama, in f32: logits within 1e-4 of the largest.
//!
//! Invariant: the oracle shares no code with this backend but the weight file.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};
use hotspare_batch::{SamplingParams, TokenId};
use serde_json::{Value, json};

use hotspare_model::weights::WeightDtype;

use super::harness::{Harness, Lcg, assert_close, assets};
use crate::Isa;

/// Candle's model and its KV cache.
struct Oracle {
    model: Llama,
    config: candle_transformers::models::llama::Config,
}

impl Oracle {
    fn load(path: &Path) -> Self {
        let config = std::fs::read(path.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        if let Some(rope) = config.get("rope_parameters").cloned() {
            config["rope_theta"] = rope["rope_theta"].clone();
            config["rope_scaling"] = match rope["rope_type"].as_str() {
                Some("default") => Value::Null,
                _ => rope,
            };
        }
        let config: LlamaConfig = serde_json::from_value(config).unwrap();
        let config = config.into_config(false);
        let weights = std::fs::read(path.join("model.safetensors")).unwrap();
        let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu);
        let model = Llama::load(weights.unwrap(), &config).unwrap();
        Self { model, config }
    }

    /// Logits of the last of `ids`.
    fn last_logits(&self, ids: &[TokenId]) -> Vec<f32> {
        let mut cache = Cache::new(true, DType::F32, &self.config, &Device::Cpu).unwrap();
        let input = Tensor::new(ids, &Device::Cpu)
            .unwrap()
            .unsqueeze(0)
            .unwrap();
        let logits = self.model.forward(&input, 0, &mut cache).unwrap();
        logits.squeeze(0).unwrap().to_vec1().unwrap()
    }
}

/// Compares logits along a random prompt and the greedy tokens after it.
fn check_model(path: &Path, what: &str) {
    let oracle = Oracle::load(path);
    // Candle computes in float32 throughout.
    let mut harness = Harness::load_with(path, 2, Isa::detect(), Some(WeightDtype::F32));
    let mut lcg = Lcg(5);
    let prompt: Vec<TokenId> = (0..150)
        .map(|_| lcg.below(harness.vocab_size()) as TokenId)
        .collect();
    let index = harness.add(&prompt, &SamplingParams::greedy());
    harness.run_alone(index, 64, 20);
    let sequence = &harness.sequences[index];
    for len in [1, 2, 15, 16, 17, 63, 64, 65, 100, 150, 151, 160, 169] {
        let expected = oracle.last_logits(&sequence.ids[..len]);
        assert_close(
            &sequence.logits[len - 1],
            &expected,
            &format!("{what}, {len} tokens"),
        );
    }
}

#[test]
fn trained_model_in_f32() {
    if let Some(path) = assets("oracle candle", "stories260k") {
        check_model(&path, "stories260k");
    }
}

#[test]
fn untied_random_model_in_f32() {
    if let Some(path) = assets("oracle candle", "tiny/llama") {
        check_model(&path, "tiny/llama");
    }
}

/// The same weights with Llama 3's frequencies: candle has no explicit head width, so the tiny
/// model that has them from the start cannot be its test.
#[test]
fn llama3_frequencies() {
    let Some(path) = assets("oracle candle", "tiny/llama") else {
        return;
    };
    let config = std::fs::read(path.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["rope_parameters"] = json!({
        "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
    });
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    let weights = "model.safetensors";
    std::fs::copy(path.join(weights), directory.path().join(weights)).unwrap();
    check_model(directory.path(), "tiny/llama with llama3 frequencies");
}

/// bf16 weights, widened to f32 by both.
#[test]
fn embedded_model_in_bf16() {
    let models = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models");
    check_model(&models.join("spark-mini"), "spark-mini");
}
