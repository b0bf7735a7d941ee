//! Fuzz targets of the readers: files of every family with bytes changed, and bytes without sense.
//!
//! They search for seconds; `PROPTEST_CASES` sets for how long, as in
//! `PROPTEST_CASES=2000000 cargo test -p hotspare-model hostile_props`.
//!
//! Invariant: any bytes are a model that loads or an error; never a panic, a read outside the
//! file, or an allocation of a size that only a claim stands for.

use std::io::Write;
use std::sync::{Arc, LazyLock};

use hotspare_testkit::gguf::{GgufLayout, GgufModel, GgufTensor, GgufWriter};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use crate::families::Decoder;
use crate::ops::StepLimits;
use crate::options::LoadOptions;
use crate::safetensors::parse_header;
use crate::testing::{NaiveOps, TinyModel};
use crate::weights::WeightDtype;
use crate::{GgufFile, ModelConfig, WeightStore};

/// So many cases, unless `PROPTEST_CASES` says otherwise.
fn cases(num_cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    let asked = asked.and_then(|asked| asked.parse().ok());
    ProptestConfig::with_cases(asked.unwrap_or(num_cases))
}

/// Small files of families that differ in what they hold, and where their data starts.
static FILES: LazyLock<Vec<(Vec<u8>, usize)>> = LazyLock::new(|| {
    let classes = [
        "Llama", "Mixtral", "Qwen2", "Qwen3Moe", "Phi3", "Gemma2", "Gemma3",
    ];
    classes.iter().map(|class| family(class)).collect()
});

fn family(class: &str) -> (Vec<u8>, usize) {
    let mut config = json!({
        "architectures": [format!("{class}ForCausalLM")], "hidden_size": 8,
        "intermediate_size": 8, "moe_intermediate_size": 8, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 6,
        "max_position_embeddings": 64, "num_local_experts": 2, "num_experts_per_tok": 1,
        "sliding_window": 5,
    });
    if class == "Phi3" {
        config["rope_scaling"] = json!({"rope_type": "longrope", "short_factor": [1.0, 2.0],
            "long_factor": [1.0, 3.0], "original_max_position_embeddings": 16});
    }
    let model = GgufModel::new(config).unwrap();
    let layout = GgufLayout::new(&model).unwrap();
    let mut writer: GgufWriter = layout.writer;
    writer.tensors = layout.tensors.into_iter().map(|plan| plan.tensor).collect();
    writer.string("tokenizer.ggml.model", "llama");
    writer.strings("tokenizer.ggml.tokens", &["a", "<|end|>", "c"]);
    writer.i32s("tokenizer.ggml.token_type", &[1, 3, 1]);
    writer.u32("tokenizer.ggml.eos_token_id", 2);
    let mut file = Vec::new();
    let ones = |_: usize, tensor: &GgufTensor, out: &mut dyn Write| {
        (0..tensor.num_elements()).try_for_each(|_| out.write_all(&1f32.to_le_bytes()))
    };
    writer.write(&mut file, ones).unwrap();
    let data: u64 = writer
        .tensors
        .iter()
        .map(|t| t.num_bytes().next_multiple_of(32))
        .sum();
    let start = file.len() - data as usize;
    (file, start)
}

/// Loads what was accepted, as a server would.
fn load(config: &ModelConfig, weights: &WeightStore) -> bool {
    let options = LoadOptions {
        limits: StepLimits {
            max_num_batched_tokens: 4,
            max_num_seqs: 1,
            max_model_len: 8,
        },
        num_blocks: 2,
        block_size: 4,
        kv_dtype: WeightDtype::F32,
        quantization: None,
    };
    let mut ops = NaiveOps::new(1);
    Decoder::load(&mut ops, config, weights, &options, &mut |_| {}).is_ok()
}

/// Reads everything that a server reads of the file; whether it loads.
fn read_gguf(bytes: Vec<u8>) -> Result<bool, TestCaseError> {
    let num_bytes = bytes.len();
    let Ok(file) = GgufFile::parse("a.gguf", Arc::new(bytes)) else {
        return Ok(false);
    };
    for tensor in file.tensors() {
        prop_assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= num_bytes);
        let dtype = WeightDtype::from_name(&tensor.dtype).unwrap();
        let num_elements: usize = tensor.shape.iter().product();
        prop_assert_eq!(dtype.num_bytes(num_elements), Some(tensor.range.len()));
    }
    let _ = file.strings("tokenizer.ggml.tokens");
    let _ = file.numbers("tokenizer.ggml.token_type");
    let Ok(config) = file.config() else {
        return Ok(false);
    };
    Ok(load(&config, &WeightStore::from_gguf(&file)))
}

#[test]
fn the_unchanged_files_load() {
    for (file, start) in FILES.iter() {
        assert!(read_gguf(file.clone()).unwrap());
        assert!(!read_gguf(file[..*start].to_vec()).unwrap());
    }
}

/// How bytes are changed: one replaced, a whole number written over eight, or a bit turned.
#[derive(Clone, Debug)]
enum Change {
    Byte(Index, u8),
    Number(Index, u64),
    Bit(Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let numbers = prop_oneof![
        Just(u64::MAX),
        Just(1 << 63),
        Just(u64::from(u32::MAX)),
        (0u32..64).prop_map(|bit| 1u64 << bit),
        any::<u64>(),
        0u64..64,
    ];
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (any::<Index>(), numbers).prop_map(|(at, number)| Change::Number(at, number)),
        (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Change::Bit(at, bit)),
    ]
}

/// Applies `changes` to the first `end` bytes.
fn mutate(bytes: &mut [u8], end: usize, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Byte(at, byte) => bytes[at.index(end)] = *byte,
            Change::Bit(at, bit) => bytes[at.index(end)] ^= 1 << bit,
            Change::Number(at, number) => {
                let at = at.index(end);
                let number = number.to_le_bytes();
                let len = number.len().min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&number[..len]);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn changed_gguf_files_are_an_error_or_sound(
        family in any::<Index>(),
        changes in prop::collection::vec(change(), 1..6),
        len in prop::option::of(any::<Index>()),
    ) {
        let (file, start) = &FILES[family.index(FILES.len())];
        let mut bytes = file.clone();
        mutate(&mut bytes, *start, &changes);
        if let Some(len) = len {
            bytes.truncate(len.index(bytes.len()));
        }
        read_gguf(bytes)?;
    }

    #[test]
    fn bytes_without_sense_are_no_gguf_file(
        version in 2u8..4,
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut file = vec![b'G', b'G', b'U', b'F', version, 0, 0, 0];
        file.extend(bytes);
        prop_assert!(!read_gguf(file)?);
    }

    #[test]
    fn changed_safetensors_files_are_an_error_or_sound(
        changes in prop::collection::vec(change(), 1..6),
        len in prop::option::of(any::<Index>()),
    ) {
        static MODEL: LazyLock<(Vec<u8>, ModelConfig)> = LazyLock::new(|| {
            let directory = TinyModel::new().write();
            let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
            let config = ModelConfig::parse(&read("config.json")).unwrap();
            (read("model.safetensors"), config)
        });
        let (file, config) = &*MODEL;
        let end = u64::from_le_bytes(*file.first_chunk().unwrap()) as usize + 8;
        let mut bytes = file.clone();
        mutate(&mut bytes, end, &changes);
        if let Some(len) = len {
            bytes.truncate(len.index(bytes.len()));
        }
        if let Ok(entries) = parse_header(&bytes) {
            for entry in &entries {
                prop_assert!(entry.range.end <= bytes.len());
            }
            let weights = WeightStore::new(vec![("a".to_owned(), Arc::new(bytes))]).unwrap();
            load(config, &weights);
        }
    }

    #[test]
    fn json_without_sense_is_no_header(text in "[\\[\\]{}:,\"a-c0-9.eE+-]{0,120}") {
        let mut file = (text.len() as u64).to_le_bytes().to_vec();
        file.extend(text.bytes());
        if let Ok(entries) = parse_header(&file) {
            prop_assert!(entries.iter().all(|entry| entry.range.is_empty()));
        }
    }

    /// `config.json` with values replaced is an error or a config, whatever they are.
    #[test]
    fn changed_configs_are_an_error_or_a_config(changes in prop::collection::vec(change(), 1..6)) {
        static CONFIG: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let directory = TinyModel::new().write();
            std::fs::read(directory.path().join("config.json")).unwrap()
        });
        let mut bytes = CONFIG.clone();
        let end = bytes.len();
        mutate(&mut bytes, end, &changes);
        let _ = ModelConfig::parse(&bytes);
    }
}
