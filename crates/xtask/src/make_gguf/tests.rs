//! Files of every shape and format, loaded and run by the server's own code.

use std::path::Path;
use std::sync::Arc;

use hotspare_backend_cpu::{CpuOps, CpuOptions};
use hotspare_batch::{Batch, Row, SamplingParams, SlotInit};
use hotspare_front::{ModelInfo, ModelOptions};
use hotspare_model::ops::StepLimits;
use hotspare_model::weights::WeightDtype;
use hotspare_model::{LoadOptions, ModelFiles, ModelRunner, ModelSource};
use hotspare_testkit::gguf::GgmlType;
use serde_json::json;

use super::make;
use super::options::{HELP, Options};

const ARCHITECTURES: [&str; 9] = [
    "llama", "mixtral", "qwen2", "qwen3", "qwen3moe", "phi3", "gemma2", "gemma3", "smollm3",
];

fn options(args: &str, path: &Path) -> Result<Options, String> {
    let args = args.split_whitespace().map(str::to_owned);
    let args: Vec<String> = args.chain([path.display().to_string()]).collect();
    Options::parse(&args)
}

fn open(path: &Path) -> ModelFiles {
    let source = ModelSource::resolve(path.to_str().expect("UTF-8")).expect("a file");
    source.open().expect("opens")
}

/// Logits after five tokens.
fn logits(files: &ModelFiles) -> Vec<f32> {
    let limits = StepLimits {
        max_num_batched_tokens: 16,
        max_num_seqs: 1,
        max_model_len: 64,
    };
    let load = LoadOptions {
        limits: limits.clone(),
        num_blocks: 2,
        block_size: 16,
        kv_dtype: WeightDtype::F32,
        quantization: None,
    };
    let ops = CpuOps::new(CpuOptions {
        num_threads: 1,
        limits,
        bf16_activations: false,
    })
    .expect("a backend");
    let mut runner = ModelRunner::load(ops, files, &load, &mut |_| {}).expect("loads");
    let ids = [5, 100, 258, 7, 42];
    let batch = Batch {
        slot_inits: vec![SlotInit {
            slot: 0,
            token_ids: ids[..].into(),
            num_prompt_tokens: 5,
            sampling: Arc::new(SamplingParams::greedy()),
            stop: Arc::default(),
        }],
        rows: vec![Row {
            slot: 0,
            num_computed_tokens: 0,
            tokens: 0..5,
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
    runner.run_with_logits(&batch, &mut logits).expect("runs");
    logits
}

/// The logits' deviation: weights keep the size of activations.
fn assert_sane(logits: &[f32], what: &str) {
    assert_eq!(logits.len(), 512, "{what}");
    let mean = logits.iter().sum::<f32>() / 512.0;
    let variance = logits.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / 512.0;
    let deviation = variance.sqrt();
    assert!(
        (0.3..3.0).contains(&deviation),
        "{what}: deviation {deviation}"
    );
}

#[test]
fn every_architecture_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    for arch in ARCHITECTURES {
        let path = directory.path().join(format!("{arch}.gguf"));
        let args = format!("--arch {arch} --vocab 512 --type q8_0 --kv-heads 2 --window 40");
        make(&options(&args, &path).expect("parses")).expect("writes");
        let files = open(&path);
        assert_sane(&logits(&files), arch);
        let info = ModelInfo::load(&ModelOptions {
            model: path.display().to_string(),
            ..ModelOptions::default()
        });
        let text = info.expect("loads").text.expect("a tokenizer");
        let words = "the quick brown fox, 日本 😀\n<|im_start|>x";
        let ids = text.encode(words, true).expect("encodes");
        assert_eq!(text.decode(&ids, false), words);
        assert!(
            ids.contains(&510) && ids.iter().all(|&id| id < 512),
            "{ids:?}"
        );
        assert!(text.chat_template(false).is_some());
    }
}

#[test]
fn every_type_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    for kind in GgmlType::all() {
        let name = kind.name();
        let path = directory.path().join(format!("{name}.gguf"));
        let args = format!("--arch qwen3 --vocab 512 --untied --type {name}");
        let made = options(&args, &path).expect("parses");
        make(&made).expect("writes");
        let files = open(&path);
        let weights = files.weights().expect("reads");
        for tensor in ["model.layers.1.mlp.up_proj.weight", "lm_head.weight"] {
            let rows = if tensor.starts_with("lm") { 512 } else { 768 };
            let view = weights.view(tensor, &[rows, 256]).expect("a matrix");
            assert!(view.dtype().name().eq_ignore_ascii_case(name), "{name}");
        }
        assert_sane(&logits(&files), name);
        let bytes = std::fs::read(&path).expect("reads");
        make(&made).expect("writes again");
        assert!(
            bytes == std::fs::read(&path).expect("reads"),
            "{name}: other bytes"
        );
    }
}

#[test]
fn a_config_and_flags_make_a_shape() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("config.json");
    let shape = json!({"architectures": ["Gemma2ForCausalLM"], "hidden_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 32, "vocab_size": 300,
        "intermediate_size": 128, "max_position_embeddings": 700, "sliding_window": 30,
        "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}});
    std::fs::write(&config, shape.to_string()).expect("writes");
    let path = directory.path().join("a.gguf");
    let config = config.display();
    let args = format!("--config {config} --layers 1 --kv-heads 2 --type q4_k --output-type f16");
    let summary = make(&options(&args, &path).expect("parses")).expect("writes");
    assert!(summary.contains("q8_0 or f16"), "{summary}");
    let files = open(&path);
    let config = files.config().expect("a config");
    assert_eq!(
        (config.num_hidden_layers, config.num_key_value_heads),
        (1, 2)
    );
    assert_eq!((config.head_dim, config.vocab_size), (32, 300));
    assert_eq!(
        (config.rope.theta, config.layers[0].sliding_window),
        (5e5, Some(30))
    );
    let weights = files.weights().expect("reads");
    let dtype = |name, shape: &[usize]| weights.view(name, shape).expect("there").dtype();
    let embedding = dtype("model.embed_tokens.weight", &[300, 96]);
    let out = dtype("model.layers.0.self_attn.o_proj.weight", &[96, 128]);
    assert_eq!((embedding, out), (WeightDtype::F16, WeightDtype::Q8_0));
}

#[test]
fn wrong_options_are_named() {
    let path = Path::new("a.gguf");
    for (args, expected) in [
        ("", "--type is missing"),
        ("--type q9", "q9"),
        ("--type", "`a.gguf`"),
        ("--type q8_0 --layer 3", "--layer"),
        ("--type q8_0 --layers x", "x is not a whole number"),
        ("--type q8_0 --arch mamba", "mamba"),
        ("--type q8_0 b.gguf", "a.gguf"),
        ("--help", "usage"),
    ] {
        let expected = if args == "--type" {
            "a.gguf is not one of"
        } else {
            expected
        };
        let error = options(args, path).map(|_| ()).expect_err("refused");
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let tiny = options("--vocab 258 --type q8_0", path).expect("parses");
    let error = make(&tiny).expect_err("refused");
    assert!(error.contains("too small"), "{error}");
    assert!(!path.exists());
    assert!(HELP.lines().all(|line| line.len() <= 100));
}
