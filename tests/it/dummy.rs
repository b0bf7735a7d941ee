//! `--load-format dummy`: a model's shape with random weights, and the hash that names it.
//!
//! Invariant: what is served is the same for the same config and seed, and never a real model.

use hotspare_testkit::Server;
use serde_json::json;

use crate::support::{chat, serve, wait_idle, with};

/// A model small enough for a test, in a directory without weights or tokenizer.
fn shape(vocab_size: u32) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab_size,
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "dtype": "bfloat16",
    });
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    directory
}

fn hash(server: &Server) -> String {
    let models = server.client().get("/v1/models").json();
    let hash = models["data"][0]["model_hash"].as_str().unwrap().to_owned();
    assert_eq!(
        server.main_engine()["model_hash"],
        hash,
        "both say the same"
    );
    hash
}

#[test]
fn a_shape_without_files_is_served_with_a_made_up_tokenizer() {
    let directory = shape(512);
    let model = directory.path().to_str().unwrap();
    let server = serve(model, &["--load-format", "dummy", "--seed", "7"]);
    let body = with(chat("Hello"), json!({"max_tokens": 9, "ignore_eos": true}));
    let answer = server.client().post("/v1/chat/completions", &body).json();
    assert_eq!(answer["usage"]["completion_tokens"], 9);
    // "user: Hello\nassistant:", a token a byte.
    assert_eq!(answer["usage"]["prompt_tokens"], 22);
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(!text.is_empty());
    wait_idle(&server);
    let same_elsewhere = shape(512);
    let config = same_elsewhere.path().join("config.json");
    let file = serve(
        config.to_str().unwrap(),
        &["--load-format", "dummy", "--seed", "7"],
    );
    assert_eq!(hash(&file), hash(&server), "wherever the config lies");
    let again = file.client().post("/v1/chat/completions", &body).json();
    assert_eq!(again["choices"][0]["message"]["content"], text);
    let other = serve(model, &["--load-format", "dummy", "--seed", "8"]);
    assert_ne!(hash(&other), hash(&server));
    let log = server.log_lines().join("\n");
    assert!(
        log.contains(&hash(&server)),
        "the start-up log names the model: {log}"
    );
}

#[test]
fn a_vocabulary_smaller_than_bytes_serves_token_ids() {
    let directory = shape(100);
    let server = serve(
        directory.path().to_str().unwrap(),
        &["--load-format", "dummy"],
    );
    let body = json!({"prompt": [1, 2, 3], "max_tokens": 4, "ignore_eos": true,
        "return_token_ids": true});
    let answer = server.client().post("/v1/completions", &body).json();
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    let refused = server.client().post("/v1/chat/completions", &chat("Hello"));
    assert_eq!(refused.status, 400);
}
