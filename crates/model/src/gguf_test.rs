//! GGUF files that are right, and that say what is not supported.

use std::path::Path;
use std::sync::Arc;

use crate::ops::StepLimits;
use crate::testing::{GgufWriter, NaiveOps, TinyModel, assets};
use crate::weights::WeightDtype;
use crate::{GgufFile, LoadOptions, ModelConfig, ModelError, ModelFiles, ModelRunner, ModelSource};
use hotspare_batch::{Batch, Row, SamplingParams, SlotInit};

fn tiny() -> GgufWriter {
    GgufWriter::of(&TinyModel::new())
}

fn parse(bytes: Vec<u8>) -> Result<ModelConfig, ModelError> {
    GgufFile::parse("a.gguf", Arc::new(bytes))?.config()
}

fn refusal(writer: &GgufWriter) -> String {
    parse(writer.bytes()).unwrap_err().to_string()
}

fn open(path: &Path) -> ModelFiles {
    let source = ModelSource::resolve(path.to_str().unwrap()).unwrap();
    source.open().unwrap()
}

/// Logits of the last of five tokens.
pub(crate) fn logits(path: &Path) -> Vec<f32> {
    let ids = [1, 5, 9, 3, 7];
    let options = LoadOptions {
        limits: StepLimits {
            max_num_batched_tokens: 16,
            max_num_seqs: 1,
            max_model_len: 64,
        },
        num_blocks: 2,
        block_size: 4,
        kv_dtype: WeightDtype::F32,
        quantization: None,
    };
    let files = open(path);
    let mut runner = ModelRunner::load(NaiveOps::new(1), &files, &options, &mut |_| {}).unwrap();
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
            blocks: 0..2,
            samples: true,
            wants_prompt_logprobs: false,
            next_prompt_token: None,
        }],
        token_ids: ids.to_vec(),
        block_tables: vec![1, 0],
        ..Batch::default()
    };
    let mut logits = Vec::new();
    runner.run_with_logits(&batch, &mut logits).unwrap();
    logits
}

fn write(directory: &Path, name: &str, writer: &GgufWriter) -> std::path::PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, writer.bytes()).unwrap();
    path
}

#[test]
fn the_same_model_from_both_formats_has_the_same_logits() {
    let model = TinyModel::new();
    let directory = model.write();
    let path = write(directory.path(), "tiny.gguf", &GgufWriter::of(&model));
    let (ours, expected) = (logits(&path), logits(directory.path()));
    assert_eq!(ours.len(), expected.len());
    for (ours, expected) in ours.iter().zip(&expected) {
        assert!((ours - expected).abs() < 1e-6, "{ours} {expected}");
    }
    // A rotation that ignored the order of rows would show.
    assert!(expected.iter().any(|x| x.abs() > 0.01));
    let unordered = model.tensors["model.layers.0.self_attn.q_proj.weight"].clone();
    let mut wrong = GgufWriter::of(&model);
    let tensor = |(name, ..): &&mut (String, _, _, _)| name == "blk.0.attn_q.weight";
    wrong.tensors.iter_mut().find(tensor).unwrap().3 = unordered.2;
    let wrong = logits(&write(directory.path(), "wrong.gguf", &wrong));
    assert!(
        wrong
            .iter()
            .zip(&expected)
            .any(|(a, b)| (a - b).abs() > 1e-5)
    );
}

#[test]
fn metadata_becomes_a_config() {
    let config = parse(tiny().f32("llama.rope.freq_base", 5e5).bytes()).unwrap();
    assert_eq!((config.hidden_size, config.intermediate_size), (8, 12));
    assert_eq!((config.num_hidden_layers, config.vocab_size), (2, 24));
    assert_eq!(
        (config.num_attention_heads, config.num_key_value_heads),
        (2, 1)
    );
    assert_eq!((config.head_dim, config.max_position_embeddings), (4, 64));
    assert_eq!((config.rms_norm_eps, config.rope.theta), (1e-5, 5e5));
    assert!(config.rope.is_interleaved && config.tie_word_embeddings);
    assert_eq!(
        (config.bos_token_ids, config.eos_token_ids),
        (vec![1], vec![2])
    );
    assert_eq!(config.dtype.as_deref(), Some("float32"));
    let divisors = [1.0f32, 8.0].iter().flat_map(|d| d.to_le_bytes()).collect();
    let writer = tiny()
        .tensor("rope_freqs.weight", &[2], 0, divisors)
        .u32("tokenizer.ggml.eot_token_id", 7);
    let config = parse(writer.bytes()).unwrap();
    assert_eq!(config.rope.frequency_divisors, [1.0, 8.0]);
    assert_eq!(config.eos_token_ids, [2, 7]);
    let mut types = 5u32.to_le_bytes().to_vec();
    types.extend(3u64.to_le_bytes());
    types.extend([1i32, 3, 3].iter().flat_map(|kind| kind.to_le_bytes()));
    let mut writer = tiny()
        .without("tokenizer.ggml.tokens")
        .strings("tokenizer.ggml.tokens", &["<|end|>", "<end_of_turn>", "x"]);
    let field = ("tokenizer.ggml.token_type".to_owned(), 9, types);
    writer.fields.push(field);
    // A mark that ends a turn, but not the plain token 0 that looks like one.
    assert_eq!(parse(writer.bytes()).unwrap().eos_token_ids, [1, 2]);
    let linear = tiny()
        .string("llama.rope.scaling.type", "linear")
        .f32("llama.rope.scaling.factor", 4.0);
    assert_eq!(parse(linear.bytes()).unwrap().max_context_len(), 256);
}

#[test]
fn lists_are_read_from_the_file() {
    let file = GgufFile::parse("a.gguf", Arc::new(tiny().bytes())).unwrap();
    let tokens = file.strings("tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens.unwrap(), ["<unk>", "<s>", "</s>", "ä"]);
    let scores = file.numbers("tokenizer.ggml.scores").unwrap();
    assert_eq!(scores.unwrap(), [0.0, -1.0, -2.5, 3.0]);
    assert_eq!(file.strings("absent").unwrap(), None);
    let error = file.strings("tokenizer.ggml.scores").unwrap_err();
    assert!(
        error.to_string().contains("`tokenizer.ggml.scores`"),
        "{error}"
    );
    let error = file.string("llama.block_count").unwrap_err();
    assert!(
        error.to_string().contains("`llama.block_count` is 2"),
        "{error}"
    );
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let architecture = |name| {
        tiny()
            .without("general.architecture")
            .string("general.architecture", name)
    };
    for (writer, expected) in [
        (architecture("mamba"), "`mamba`"),
        (
            tiny().without("llama.block_count"),
            "`llama.block_count` is missing",
        ),
        (
            tiny()
                .without("llama.block_count")
                .f32("llama.block_count", 2.0),
            "`llama.block_count`",
        ),
        (
            tiny()
                .without("llama.block_count")
                .u32("llama.block_count", 0),
            "`llama.block_count`",
        ),
        (
            tiny().u32("llama.expert_count", 8),
            "`llama.expert_used_count` = 0",
        ),
        (
            tiny().f32("llama.attention.scale", 0.5),
            "`llama.attention.scale`",
        ),
        (
            tiny().u32("llama.attention.value_length", 8),
            "`llama.attention.value_length` = 8",
        ),
        (tiny().u32("split.count", 3), "`split.count`"),
        (
            tiny().u32("tokenizer.ggml.eot_token_id", 99),
            "`tokenizer.ggml.eos_token_id`",
        ),
        (
            tiny().tensor("blk.1.attn_q.bias", &[8], 0, vec![0; 32]),
            "blk.1.attn_q.bias",
        ),
        (
            tiny().tensor("blk.0.ffn_norm.bias", &[8], 0, vec![0; 32]),
            "blk.0.ffn_norm.bias",
        ),
        (
            tiny().tensor("rope_factors_long.weight", &[2], 0, vec![0; 8]),
            "rope_factors_short.weight",
        ),
        (
            tiny().tensor("rope_freqs.weight", &[3], 0, vec![0; 12]),
            "rope_freqs.weight",
        ),
    ] {
        let found = refusal(&writer);
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn fields_that_nothing_follows_are_refused_by_name() {
    for (writer, expected) in [
        (
            tiny().string("llama.rope.scaling.type", "yarn"),
            "`llama.rope.scaling.factor` is missing",
        ),
        (
            tiny().string("llama.rope.scaling.type", "longrope"),
            "rope_factors_short.weight",
        ),
        (
            tiny().string("llama.rope.scaling.type", "ntk"),
            "`llama.rope.scaling.type` = \"ntk\"",
        ),
        (
            tiny().f32("llama.rope.scaling.yarn_ext_factor", 0.5),
            "`llama.rope.scaling.yarn_ext_factor` = 0.5",
        ),
        (
            tiny().f32("llama.rope.scaling.yarn_attn_factor", 0.5),
            "`llama.rope.scaling.yarn_attn_factor` is for a scaling of another type",
        ),
        (
            tiny()
                .string("llama.rope.scaling.type", "yarn")
                .f32("llama.rope.scaling.factor", 4.0)
                .f32("llama.rope.scaling.yarn_log_multiplier", 1.0)
                .f32("llama.rope.scaling.attn_factor", 1.2),
            "`llama.rope.scaling.yarn_log_multiplier` is not supported beside",
        ),
        (
            tiny().f32("llama.rope.scaling.attn_factor", 0.5),
            "`llama.rope.scaling.attn_factor` = 0.5",
        ),
        (
            tiny().f32("llama.logit_scale", 8.0),
            "`llama.logit_scale` = 8",
        ),
        (
            tiny().u32("llama.attention.indexer.top_k", 8),
            "`llama.attention.indexer.top_k` = 8",
        ),
        (
            tiny().string("llama.hidden_activation", "gelu"),
            "`llama.hidden_activation` = \"gelu\"",
        ),
        (tiny().string("general.type", "adapter"), "`general.type`"),
    ] {
        let found = refusal(&writer);
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn fields_that_change_nothing_are_taken() {
    let writer = tiny()
        .u32("llama.expert_count", 0)
        .u32("llama.attention.sliding_window", 0)
        .f32("llama.logit_scale", 1.0)
        .f32("llama.embedding_scale", 0.0)
        .f32("llama.rope.scaling.yarn_ext_factor", 1.0)
        .f32("llama.rope.scaling.attn_factor", 1.0)
        .u32("llama.vocab_size", 24)
        .string("general.type", "model")
        .string("general.license", "none")
        .string("llama.rope.scaling.type", "none")
        .f32("llama.rope.scaling.factor", 4.0);
    let (found, plain) = (parse(writer.bytes()), parse(tiny().bytes()));
    assert_eq!(found.unwrap(), plain.unwrap());
}

#[test]
fn a_window_makes_it_mistral() {
    let config = parse(tiny().u32("llama.attention.sliding_window", 9).bytes()).unwrap();
    assert!(config.layers.iter().all(|l| l.sliding_window == Some(9)));
    assert!(config.rope.is_interleaved);
}

#[test]
fn impossible_tensors_are_refused_by_name() {
    for (writer, expected) in [
        (tiny().tensor("x", &[256], 23, vec![0; 136]), "IQ4_XS"),
        (
            tiny().tensor("x", &[33], 8, vec![0; 68]),
            "rows of 33 elements",
        ),
        (tiny().tensor("x", &[8], 99, vec![0; 32]), "type number 99"),
        (tiny().tensor("x", &[u64::MAX, 2], 0, vec![0; 32]), "`x`"),
        (tiny().tensor("x", &[1 << 40], 0, vec![0; 32]), "`x`"),
        (tiny().tensor("x", &[0], 0, vec![0; 32]), "`x`"),
        (
            tiny().tensor("x", &[1, 1, 1, 1, 1], 0, vec![0; 32]),
            "5 dimensions",
        ),
        (
            tiny().tensor("token_embd.weight", &[1], 0, vec![0; 4]),
            "twice",
        ),
        (tiny().u32("llama.block_count", 2), "twice"),
        (tiny().u32("general.alignment", 48), "`general.alignment`"),
    ] {
        let found = refusal(&writer);
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn absurd_counts_and_types_are_refused_by_name() {
    let field = |number: u32, value: Vec<u8>| {
        let mut writer = tiny();
        writer.fields.push(("odd".to_owned(), number, value));
        writer
    };
    let list = |item: u32, len: u64| {
        let mut value = item.to_le_bytes().to_vec();
        value.extend(len.to_le_bytes());
        field(9, value)
    };
    for (writer, expected) in [
        (field(13, vec![]), "unknown value type 13"),
        (field(7, vec![2]), "neither true nor false"),
        (field(8, u64::MAX.to_le_bytes().to_vec()), "`odd`"),
        (field(8, vec![1, 0, 0, 0, 0, 0, 0, 0, 0xFF]), "UTF-8"),
        (list(0, u64::MAX), "claims 18446744073709551615 values"),
        (list(10, 1 << 21), "`odd` needs 16777216 bytes"),
        (list(10, 1 << 23), "claims 8388608 values"),
        (list(8, 1 << 21), "`odd`"),
        (list(9, 1), "a list of lists"),
    ] {
        let found = refusal(&writer);
        assert!(found.contains(expected), "{expected}: {found}");
    }
    let good = tiny().bytes();
    for (at, expected) in [(8, "tensors"), (16, "metadata fields")] {
        let mut bytes = good.clone();
        bytes[at..at + 8].fill(0xFF);
        let found = parse(bytes).unwrap_err().to_string();
        assert!(found.contains(expected), "{expected}: {found}");
    }
    for (version, expected) in [
        ([1, 0, 0, 0], "version is 1"),
        ([0, 0, 0, 3], "big-endian"),
        ([9, 0, 0, 0], "version is 9"),
    ] {
        let mut bytes = good.clone();
        bytes[4..8].copy_from_slice(&version);
        let found = parse(bytes).unwrap_err().to_string();
        assert!(found.contains(expected), "{expected}: {found}");
    }
    assert!(parse(b"GGML".to_vec()).is_err());
}

#[test]
fn the_hash_follows_the_bytes_and_not_the_name() {
    let directory = tempfile::tempdir().unwrap();
    let hash = |name: &str, writer: &GgufWriter| {
        let path = write(directory.path(), name, writer);
        open(&path).content_hash(None, &mut |_, _| {})
    };
    let first = hash("a.gguf", &tiny());
    assert_eq!(first, hash("b.GGUF", &tiny()));
    assert_ne!(first, hash("c.gguf", &tiny().u32("x", 1)));
}

#[test]
fn files_of_llama_cpp_are_read() {
    let Some(directory) = assets("gguf", "gguf") else {
        return;
    };
    let mut num_read = 0;
    for (name, dtype) in [
        ("f16", "F16"),
        ("q8_0", "Q8_0"),
        ("q4_0", "Q4_0"),
        ("q4_k_m", "Q4_K"),
        ("q5_k_m", "Q5_K"),
        ("q6_k", "Q6_K"),
    ] {
        let files = open(&directory.join(format!("llama-tiny.{name}.gguf")));
        let config = files.config().unwrap();
        assert_eq!((config.hidden_size, config.vocab_size), (256, 320));
        assert_eq!(config.dtype.as_deref(), Some("float16"));
        let weights = files.weights().unwrap();
        let view = weights
            .view("model.layers.0.mlp.up_proj.weight", &[512, 256])
            .unwrap();
        assert_eq!(view.dtype().name(), dtype);
        assert!(weights.contains("lm_head.weight"));
        num_read += weights.num_tensors();
    }
    assert_eq!(num_read, 6 * 21);
    for name in ["qwen2", "qwen3"] {
        let files = open(&directory.join(format!("{name}-tiny.q4_k_m.gguf")));
        let config = files.config().unwrap();
        assert!(!config.rope.is_interleaved && config.rope.theta == 1e6);
        let decoder = config.decoder;
        assert_eq!(decoder.has_qkv_bias, name == "qwen2");
        assert_eq!(decoder.has_qk_norm, name == "qwen3");
    }
}
