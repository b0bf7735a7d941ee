//! Loading from directories made for the purpose: names, limits, defaults, and clear refusals.

use std::path::Path;

use serde_json::json;

use super::*;

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 4,
    "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu",
    "eos_token_id": 2, "bos_token_id": 1
}"#;

fn model_directory(generation_config: Option<&str>) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(directory.path().join(name), bytes).expect("it can be written");
    };
    write("config.json", CONFIG.as_bytes());
    // No tensor is read here, but the file must be there.
    let mut weights = 2u64.to_le_bytes().to_vec();
    weights.extend(b"{}");
    write("model.safetensors", &weights);
    if let Some(json) = generation_config {
        write("generation_config.json", json.as_bytes());
    }
    directory
}

fn options(directory: &Path) -> ModelOptions {
    ModelOptions {
        model: directory.display().to_string(),
        skip_tokenizer_init: true,
        ..ModelOptions::default()
    }
}

fn error(options: &ModelOptions) -> String {
    match ModelInfo::load(options) {
        Ok(info) => panic!("it was loaded: {info:?}"),
        Err(error) => error.to_string(),
    }
}

fn over(fields: serde_json::Value) -> Map<String, Value> {
    fields.as_object().cloned().expect("an object")
}

#[test]
fn a_model_without_options_is_what_its_files_say() {
    let directory = model_directory(Some(
        r#"{"temperature": 0.6, "top_k": 20, "max_new_tokens": 9, "eos_token_id": [2, 3]}"#,
    ));
    let info = ModelInfo::load(&options(directory.path())).unwrap();
    let path = directory.path().display().to_string();
    assert_eq!(info.served.names, std::slice::from_ref(&path));
    assert_eq!(info.served.root, path);
    assert_eq!((info.served.max_model_len, info.served.vocab_size), (64, 4));
    assert!(info.served.created > 1_600_000_000);
    assert!(info.text.is_none());
    let expected = GenerationDefaults {
        temperature: 0.6,
        top_k: 20,
        max_tokens: Some(9),
        eos_token_ids: vec![2, 3],
        ..GenerationDefaults::default()
    };
    assert_eq!(info.defaults, expected);
}

#[test]
fn options_win_over_the_files() {
    let directory = model_directory(Some(r#"{"temperature": 0.6, "top_k": 20}"#));
    let info = ModelInfo::load(&ModelOptions {
        served_model_names: vec!["a".to_owned(), "b".to_owned()],
        max_model_len: Some(32),
        override_generation_config: over(json!({"temperature": 0, "max_new_tokens": 5})),
        ..options(directory.path())
    })
    .unwrap();
    assert_eq!(info.served.name(), "a");
    assert!(info.served.is_called("b") && !info.served.is_called("c"));
    assert_eq!(info.served.max_model_len, 32);
    assert_eq!((info.defaults.temperature, info.defaults.top_k), (0.0, 20));
    assert_eq!(info.defaults.max_tokens_limit, Some(5));
}

#[test]
fn sampling_defaults_can_come_from_elsewhere_or_nowhere() {
    let directory = model_directory(Some(r#"{"temperature": 0.6, "eos_token_id": 3}"#));
    let elsewhere = model_directory(Some(r#"{"top_p": 0.5, "max_new_tokens": 7}"#));
    let load = |generation_config| {
        ModelInfo::load(&ModelOptions {
            generation_config,
            ..options(directory.path())
        })
        .unwrap()
        .defaults
    };
    let neutral = load(GenerationConfigSource::Neutral);
    assert_eq!(neutral.temperature, 1.0);
    assert_eq!(neutral.eos_token_ids, [2, 3], "a model still ends");
    let path = elsewhere.path().to_owned();
    let other = load(GenerationConfigSource::Directory(path));
    assert_eq!((other.temperature, other.top_p), (1.0, 0.5));
    assert_eq!(other.max_tokens_limit, Some(7));
    assert_eq!(other.eos_token_ids, [2, 3]);
}

#[test]
fn what_does_not_fit_is_named() {
    let directory = model_directory(None);
    let base = options(directory.path());
    let cases = [
        (
            ModelOptions {
                model: "/nowhere".to_owned(),
                ..base.clone()
            },
            "/nowhere",
        ),
        (
            ModelOptions {
                skip_tokenizer_init: false,
                ..base.clone()
            },
            "--skip-tokenizer-init",
        ),
        (
            ModelOptions {
                max_model_len: Some(65),
                ..base.clone()
            },
            "65",
        ),
        (
            ModelOptions {
                override_generation_config: over(json!({"temperatur": 1})),
                ..base.clone()
            },
            "`temperatur`",
        ),
        (
            ModelOptions {
                override_generation_config: over(json!({"temperature": 3})),
                ..base.clone()
            },
            "temperature",
        ),
        (
            ModelOptions {
                generation_config: GenerationConfigSource::Directory("/nowhere".into()),
                ..base
            },
            "--generation-config",
        ),
    ];
    for (options, expected) in &cases {
        let error = error(options);
        assert!(error.contains(*expected), "{expected}: {error}");
    }
}

#[test]
fn a_gguf_file_brings_its_tokenizer() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/assets/gguf/llama-tiny.q4_k_m.gguf");
    if !path.exists() {
        eprintln!("SKIPPED front gguf: ../shared/assets not found");
        assert!(
            std::env::var_os("CI").is_none(),
            "test data is missing in CI"
        );
        return;
    }
    let info = ModelInfo::load(&ModelOptions {
        model: path.display().to_string(),
        ..ModelOptions::default()
    })
    .unwrap();
    assert_eq!(
        (info.served.vocab_size, info.served.max_model_len),
        (320, 4096)
    );
    assert_eq!(info.defaults.eos_token_ids, [2]);
    let text = info.text.expect("a tokenizer");
    assert_eq!(
        (text.vocab_size(), text.bos_token(), text.eos_token()),
        (320, Some("<s>"), Some("</s>"))
    );
    let ids = text.encode("ä!", true).unwrap();
    assert_eq!(ids[0], 1, "BOS comes first");
    assert!(text.decode(&ids, true).ends_with("ä!"));
    // A file that holds weights and no tokenizer.
    let file = std::fs::read(&path).unwrap();
    let key = b"tokenizer.ggml.model";
    let at = file.windows(key.len()).position(|w| w == key).unwrap();
    let mut changed = file;
    changed[at + key.len() - 1] = b'x';
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bare.gguf");
    std::fs::write(&path, changed).unwrap();
    let mut options = ModelOptions {
        model: path.display().to_string(),
        ..ModelOptions::default()
    };
    let message = error(&options);
    assert!(
        message.contains("no tokenizer; --skip-tokenizer-init"),
        "{message}"
    );
    options.skip_tokenizer_init = true;
    assert!(ModelInfo::load(&options).unwrap().text.is_none());
}
