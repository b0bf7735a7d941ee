//! Random weights: the same for everyone, of the right size, and harmless to every family.

use std::borrow::Cow;
use std::path::Path;

use hotspare_batch::{Batch, Row, SamplingParams, SlotInit};
use serde_json::json;

use super::*;
use crate::ops::StepLimits;
use crate::testing::{NaiveOps, TINY_FAMILIES, assets};
use crate::{
    ConfigSource, LoadFormat, LoadOptions, ModelFiles, ModelRunner, ModelSource, Shape, WeightStore,
};

fn tensor(dtype: WeightDtype, num_elements: usize) -> DummyTensor {
    DummyTensor {
        num_elements,
        dtype,
        center: 1.0,
        spread: 0.5,
        seed: 7,
    }
}

fn dummy(name: &str, seed: u64) -> ModelFiles {
    let source = ModelSource::resolve_as(name, LoadFormat::Dummy, seed).unwrap();
    source.open().unwrap()
}

/// Logits after one prompt of four tokens.
fn logits(files: &ModelFiles) -> Vec<f32> {
    let options = LoadOptions {
        limits: StepLimits {
            max_num_batched_tokens: 8,
            max_num_seqs: 1,
            max_model_len: 16,
        },
        num_blocks: 2,
        block_size: 16,
        kv_dtype: WeightDtype::F32,
        quantization: None,
    };
    let mut runner = ModelRunner::load(NaiveOps::new(1), files, &options, &mut |_| {}).unwrap();
    let ids = [1, 2, 3, 4];
    let batch = Batch {
        step: 1,
        slot_inits: vec![SlotInit {
            slot: 0,
            token_ids: ids[..].into(),
            num_prompt_tokens: 4,
            sampling: Arc::new(SamplingParams::greedy()),
            stop: Arc::default(),
        }],
        rows: vec![Row {
            slot: 0,
            num_computed_tokens: 0,
            tokens: 0..4,
            blocks: 0..1,
            samples: true,
            wants_prompt_logprobs: false,
            next_prompt_token: None,
        }],
        token_ids: ids.to_vec(),
        block_tables: vec![0],
        ..Batch::default()
    };
    let mut logits = Vec::new();
    runner.run_with_logits(&batch, &mut logits).unwrap();
    logits
}

fn check_logits(logits: &[f32], name: &str) {
    assert!(logits.iter().all(|x| x.is_finite()), "{name}");
    let largest = logits.iter().fold(0f32, |max, x| max.max(x.abs()));
    assert!((0.05..100.0).contains(&largest), "{name}: {largest}");
    let mean = logits.iter().sum::<f32>() / logits.len() as f32;
    let spread = logits.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / logits.len() as f32;
    assert!(spread > 1e-4, "{name}: the logits say nothing: {spread}");
}

#[test]
fn numbers_are_uniform_and_do_not_depend_on_chunks() {
    let num_elements = 3 * CHUNK_ELEMENTS + 5;
    let made = tensor(WeightDtype::F32, num_elements).make().unwrap();
    let bytes = made.bytes();
    let numbers: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|x| f32::from_le_bytes(x.try_into().unwrap()))
        .collect();
    assert_eq!(numbers.len(), num_elements);
    assert!(numbers.iter().all(|x| (0.5..1.5).contains(x)));
    let mean = numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / num_elements as f64;
    assert!((mean - 1.0).abs() < 2e-3, "{mean}");
    let variance = |x: &f32| (f64::from(*x) - mean).powi(2);
    let variance = numbers.iter().map(variance).sum::<f64>() / num_elements as f64;
    assert!((variance - 0.25 / 3.0).abs() < 1e-3, "{variance}");
    // One thread alone makes the same.
    let mut alone = vec![0; bytes.len()];
    let recipe = tensor(WeightDtype::F32, num_elements);
    for (index, chunk) in alone.chunks_mut(CHUNK_ELEMENTS * 4).enumerate() {
        recipe.fill(index, chunk);
    }
    assert!(alone == bytes);
    let chunk = &numbers[..CHUNK_ELEMENTS];
    assert!(
        numbers[CHUNK_ELEMENTS..2 * CHUNK_ELEMENTS] != *chunk,
        "chunks differ"
    );
}

#[test]
fn sixteen_bits_are_the_same_numbers_rounded() {
    let exact = tensor(WeightDtype::F32, 1000).make().unwrap();
    let exact = exact.bytes().chunks_exact(4);
    let exact: Vec<f32> = exact
        .map(|x| f32::from_le_bytes(x.try_into().unwrap()))
        .collect();
    let half = tensor(WeightDtype::F16, 1000).make().unwrap();
    let bf = tensor(WeightDtype::Bf16, 1000).make().unwrap();
    for (index, exact) in exact.into_iter().enumerate() {
        let two = |bytes: &[u8]| [bytes[2 * index], bytes[2 * index + 1]];
        assert_eq!(f16::from_le_bytes(two(half.bytes())), f16::from_f32(exact));
        assert_eq!(bf16::from_le_bytes(two(bf.bytes())), bf16::from_f32(exact));
    }
    assert_eq!(tensor(WeightDtype::F32, 0).make().unwrap().bytes().len(), 0);
}

#[test]
fn the_list_of_tensors_is_what_real_files_hold() {
    for name in TINY_FAMILIES {
        let Some(path) = assets("dummy weights", &format!("tiny/{name}")) else {
            return;
        };
        let files = ModelSource::resolve(path.to_str().unwrap())
            .unwrap()
            .open()
            .unwrap();
        let config = files.config().unwrap();
        let weights = files.weights().unwrap();
        for spec in config.tensors() {
            weights.view(&spec.name, &spec.shape).unwrap();
        }
        assert_eq!(weights.unused(), Vec::<&str>::new(), "{name}");
        let num_elements: u64 = weights.summary().map(|(_, elements)| elements).sum();
        assert_eq!(config.num_parameters(), num_elements, "{name}");
    }
}

#[test]
fn every_family_runs_on_random_weights() {
    for name in TINY_FAMILIES {
        let Some(path) = assets("dummy weights", &format!("tiny/{name}")) else {
            return;
        };
        let files = dummy(path.to_str().unwrap(), 1);
        assert!(files.is_dummy());
        check_logits(&logits(&files), name);
    }
    // Those that the test data lacks.
    for (name, more) in [
        (
            "LlamaForCausalLM",
            json!({"attention_bias": true, "mlp_bias": true}),
        ),
        (
            "Qwen3ForCausalLM",
            json!({"attention_bias": true, "dtype": "bfloat16"}),
        ),
        (
            "SmolLM3ForCausalLM",
            json!({"no_rope_layers": [1, 0], "dtype": "float16"}),
        ),
    ] {
        let mut config = json!({
            "architectures": [name], "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 8, "vocab_size": 64, "max_position_embeddings": 64, "hidden_act": "silu",
        });
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let json = Cow::Owned(config.to_string().into_bytes());
        let files = ModelFiles::of_config(json).with_dummy(Dummy { seed: 1 });
        check_logits(&logits(&files), name);
        let config = files.config().unwrap();
        let weights = WeightStore::from_dummy(Dummy { seed: 1 }, &config);
        assert_eq!(weights.num_tensors(), config.tensors().len());
    }
}

#[test]
fn a_seed_makes_a_model() {
    let spark = logits(&dummy("spark-mini", 1));
    check_logits(&spark, "spark-mini");
    assert_eq!(spark, logits(&dummy("spark-mini", 1)));
    assert_ne!(spark, logits(&dummy("spark-mini", 2)));
    let hash = |name: &str, seed| dummy(name, seed).content_hash(None, &mut |_, _| {});
    assert_eq!(hash("Qwen3-8B", 1), hash("qwen3-8b", 1));
    assert_ne!(hash("Qwen3-8B", 1), hash("Qwen3-8B", 2));
    assert_ne!(hash("Qwen3-8B", 1), hash("Qwen3-4B", 1));
    let real = ModelSource::resolve("spark-mini").unwrap().open().unwrap();
    assert_ne!(
        hash("spark-mini", 1),
        real.content_hash(None, &mut |_, _| {})
    );
}

#[test]
fn names_are_shapes_directories_and_files() {
    let resolve = |name: &str| ModelSource::resolve_as(name, LoadFormat::Dummy, 3);
    let shape = Shape::find("Llama-3.2-1B").unwrap();
    let expected = ModelSource::Dummy(ConfigSource::Shape(shape), 3);
    assert_eq!(resolve("llama-3.2-1b").unwrap(), expected);
    assert_eq!(expected.name(), "Llama-3.2-1B");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    std::fs::write(&path, shape.config_json()).unwrap();
    let config_of = |path: &Path| {
        let files = resolve(path.to_str().unwrap()).unwrap().open().unwrap();
        files.config().unwrap()
    };
    assert_eq!(config_of(directory.path()).num_parameters(), 1_235_814_400);
    assert_eq!(config_of(&path), config_of(directory.path()));
    let error = resolve("no-such-shape").unwrap_err().to_string();
    assert!(error.contains("Qwen3-0.6B"), "{error}");
    let error = ModelSource::resolve("qwen3-0.6b").unwrap_err().to_string();
    assert!(error.contains("--load-format dummy"), "{error}");
}

#[test]
fn a_format_that_the_model_does_not_have_is_refused() {
    let as_gguf = ModelSource::resolve_as("spark", LoadFormat::Gguf, 0);
    let error = as_gguf.unwrap_err().to_string();
    assert!(
        error.contains("safetensors") && error.contains("gguf"),
        "{error}"
    );
    let plain = ModelSource::resolve_as("spark", LoadFormat::Safetensors, 0).unwrap();
    assert_eq!(plain, ModelSource::resolve("spark").unwrap());
    assert_eq!("dummy".parse::<LoadFormat>().unwrap(), LoadFormat::Dummy);
    let error = "pt".parse::<LoadFormat>().unwrap_err().to_string();
    assert!(error.contains("auto, safetensors, gguf, dummy"), "{error}");
}
