//! Models from directories, against golden files of transformers, through the whole server.
//!
//! Invariant: greedy ids equal the golden ones wherever the golden margin is at least 2e-3.

use hotspare_testkit::shared_asset;
use serde_json::{Value, json};

use crate::support::{chat, serve};

const MIN_MARGIN: f64 = 2e-3;

fn golden(path: &std::path::Path) -> Value {
    let text = std::fs::read_to_string(path.join("golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn usize_of(value: &Value) -> usize {
    value.as_array().unwrap().len()
}

#[test]
fn stories260k_writes_what_transformers_writes() {
    let Some(path) = shared_asset("stories260k", "stories260k") else {
        return;
    };
    let server = serve(path.to_str().unwrap(), &[]);
    let client = server.client();
    for case in golden(&path).as_array().unwrap() {
        let body = json!({"prompt": case["prompt_ids"], "max_tokens": usize_of(&case["new_ids"]),
            "temperature": 0, "ignore_eos": true, "return_token_ids": true, "logprobs": 0});
        let answer = client.post("/v1/completions", &body).json();
        let choice = &answer["choices"][0];
        assert!(case["min_margin"].as_f64().unwrap() >= MIN_MARGIN);
        assert_eq!(choice["token_ids"], case["new_ids"], "{}", case["prompt"]);
        let ours = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        for (ours, theirs) in ours.iter().zip(case["logprobs"].as_array().unwrap()) {
            let difference = (ours.as_f64().unwrap() - theirs.as_f64().unwrap()).abs();
            assert!(difference < 1e-3, "{ours} and {theirs}");
        }
    }
}

#[test]
fn models_without_a_tokenizer_speak_ids() {
    for name in ["llama", "llama3-rope"] {
        let Some(path) = shared_asset(name, &format!("tiny/{name}")) else {
            return;
        };
        let server = serve(path.to_str().unwrap(), &["--skip-tokenizer-init"]);
        let client = server.client();
        for case in golden(&path)["cases"].as_array().unwrap() {
            let body = json!({"prompt": case["prompt_ids"], "temperature": 0, "ignore_eos": true,
                "max_tokens": usize_of(&case["greedy_ids"]), "return_token_ids": true});
            let answer = client.post("/v1/completions", &body).json();
            let ids = &answer["choices"][0]["token_ids"];
            if case["min_margin"].as_f64().unwrap() >= MIN_MARGIN {
                assert_eq!(ids, &case["greedy_ids"], "{name}");
            } else {
                assert_eq!(usize_of(ids), usize_of(&case["greedy_ids"]), "{name}");
            }
        }
        let refused = client.post("/v1/chat/completions", &chat("Hello"));
        assert_eq!(refused.status, 400, "{}", refused.text());
        assert!(
            refused.text().contains("skip-tokenizer-init"),
            "{}",
            refused.text()
        );
    }
}
