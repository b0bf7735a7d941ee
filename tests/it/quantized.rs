//! `--quantization` and `--kv-cache-dtype q8_0` through the whole server: what is refused, what the
//! server says of itself, and the memory that is really saved.
//!
//! Invariant: the content hash is that of the files, whatever they are turned into.

use std::fs;
use std::path::Path;
use std::process::Command;

use hotspare_testkit::{Server, shared_asset};
use serde_json::{Map, Value, json};

use crate::support::{binary, chat, serve, serve_mini};

const HIDDEN: usize = 512;
const FFN: usize = 1536;
const VOCAB: usize = 16_384;
const NUM_LAYERS: usize = 8;

/// Writes a Llama-shaped model of random bfloat16 weights, 71 MB of them, to `directory`.
fn write_model(directory: &Path) -> usize {
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..NUM_LAYERS {
        for (part, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![HIDDEN / 2, HIDDEN]),
            ("self_attn.v_proj", vec![HIDDEN / 2, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.gate_proj", vec![FFN, HIDDEN]),
            ("mlp.up_proj", vec![FFN, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, FFN]),
        ] {
            shapes.push((format!("model.layers.{layer}.{part}.weight"), shape));
        }
    }
    let (mut header, mut data, mut seed) = (Map::new(), Vec::new(), 1u32);
    for (name, shape) in shapes {
        let start = data.len();
        for _ in 0..shape.iter().product() {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = ((seed >> 8) as f32 / (1 << 23) as f32 - 1.0) * 0.05;
            data.extend_from_slice(&x.to_bits().to_le_bytes()[2..]);
        }
        let tensor = json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name, tensor);
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.into_bytes());
    file.extend(&data);
    fs::write(directory.join("model.safetensors"), file).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": VOCAB,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    data.len()
}

/// Bytes of memory that the main engine holds, mapped files included.
fn resident_bytes(server: &Server) -> usize {
    let pid = server.main_engine()["pid"].as_u64().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

fn ids(server: &Server, prompt: &Value, num_tokens: usize) -> Value {
    let body = json!({"prompt": prompt, "max_tokens": num_tokens, "temperature": 0,
        "ignore_eos": true, "return_token_ids": true});
    let answer = server.client().post("/v1/completions", &body).json();
    answer["choices"][0]["token_ids"].clone()
}

#[test]
fn a_quantized_model_takes_less_memory_and_says_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let dense_bytes = write_model(directory.path());
    let model = directory.path().to_str().unwrap();
    let common = ["--skip-tokenizer-init", "--max-num-batched-tokens", "64"];
    let mut dense: Option<(usize, String)> = None;
    // Shares of the dense bytes that are left: 8.5 of 16 bits; 4.5, and 6.6 for the embedding.
    for (quantization, share) in [("none", 1.0), ("q8_0", 0.54), ("q4_k", 0.33)] {
        let args = [&common[..], &["--quantization", quantization]].concat();
        let server = serve(model, &args);
        let generated = ids(&server, &json!([1, 2, 3, 4, 5]), 8);
        assert_eq!(generated.as_array().map(Vec::len), Some(8));
        let engine = server.main_engine();
        let numerics_id = engine["numerics_id"].as_str().unwrap();
        let (resident, hash) = (resident_bytes(&server), engine["model_hash"].to_string());
        match &dense {
            None => {
                assert!(!numerics_id.contains("quantized"), "{numerics_id}");
                assert!(resident > dense_bytes, "{resident} of {dense_bytes}");
                dense = Some((resident, hash));
            }
            Some((dense_resident, dense_hash)) => {
                let expected = format!("-quantized-{quantization}");
                assert!(numerics_id.ends_with(&expected), "{numerics_id}");
                assert_eq!(&hash, dense_hash);
                let saved = dense_resident.saturating_sub(resident);
                let expected = (1.0 - share) * dense_bytes as f64;
                // What else a process holds varies by a few megabytes.
                assert!(
                    saved as f64 > expected - 6e6,
                    "{quantization}: {saved}, {expected}"
                );
            }
        }
    }
}

#[test]
fn an_eight_bit_cache_serves_and_holds_more_tokens() {
    let Some(path) = shared_asset("stories260k", "stories260k") else {
        return;
    };
    let golden = fs::read_to_string(path.join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let serve = |dtype| serve(path.to_str().unwrap(), &["--kv-cache-dtype", dtype]);
    let (exact, eight) = (serve("float32"), serve("q8_0"));
    let id = |server: &Server| {
        server.main_engine()["numerics_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(id(&exact).contains("f32kv") && id(&eight).contains("q8kv"));
    let mut num_equal = 0;
    for case in golden.as_array().unwrap() {
        let expected = &case["new_ids"];
        assert_eq!(&ids(&exact, &case["prompt_ids"], 96), expected);
        let found = ids(&eight, &case["prompt_ids"], 96);
        let pairs = found
            .as_array()
            .unwrap()
            .iter()
            .zip(expected.as_array().unwrap());
        num_equal += pairs.take_while(|(a, b)| a == b).count();
    }
    assert!(
        num_equal >= 48,
        "only {num_equal} ids before the first difference"
    );
    // The same request gives the same ids again, from the prefix cache too.
    let prompt = json!((1..40).collect::<Vec<u32>>());
    assert_eq!(ids(&eight, &prompt, 30), ids(&eight, &prompt, 30));
}

#[test]
fn the_embedded_model_still_speaks_when_quantized() {
    let server = serve_mini(&["-q", "q8_0", "--kv-cache-dtype", "q8_0"]);
    let answer = server
        .client()
        .post("/v1/chat/completions", &chat("Hello"))
        .json();
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.split_whitespace().count() > 3, "{text}");
}

#[test]
fn what_is_not_offered_is_refused_by_name() {
    for (flag, value, expected) in [
        (
            "--quantization",
            "awq",
            "q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, q3_k, q2_k",
        ),
        (
            "--quantization",
            "fp8",
            "`none` takes them as they are stored",
        ),
        ("-q", "q8_1", "--quantization q8_1"),
        ("--kv-cache-dtype", "fp8_e4m3", "`q8_0`"),
    ] {
        let output = Command::new(binary())
            .args(["serve", "spark-mini", flag, value])
            .output();
        let output = output.unwrap();
        assert!(!output.status.success());
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains(expected), "{flag} {value}: {message}");
    }
}
