//! The commands that kernels/verify.sh runs on a machine with a card, tried on the CPU: so that the
//! first card does not find mistakes of theirs.
//!
//! Invariant: without a card, or in a build without CUDA, the answer is "no GPU" and status 3.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hotspare_testkit::shared_asset;
use serde_json::Value;

/// The device was not found.
const EXIT_NO_DEVICE: i32 = 3;

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hotspare"))
}

fn run(args: &[&str]) -> (Option<i32>, String) {
    text_of(&Command::new(binary()).args(args).output().unwrap())
}

fn text_of(output: &Output) -> (Option<i32>, String) {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

fn json_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_benchmark_on_the_cpu_writes_each_result() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bench.jsonl");
    let (code, text) = run(&[
        "bench",
        "--device",
        "cpu",
        "--models",
        "spark-mini",
        "--load-format",
        "auto",
        "--dtype",
        "auto",
        "--decode",
        "1,3",
        "--context",
        "8",
        "--steps",
        "4",
        "--prefill",
        "40",
        "--repeats",
        "1",
        "--json",
        file.to_str().unwrap(),
    ]);
    assert_eq!(code, Some(0), "{text}");
    let lines = json_lines(&file);
    assert_eq!(lines[0]["machine"]["device"], "cpu");
    let kinds: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["start", "decode", "decode", "prefill"]);
    assert_eq!(lines[3]["streams"], 3);
    assert!(lines[3]["tokens_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!(lines.last().unwrap()["failed"], 0);
}

#[test]
fn a_shape_can_be_measured_with_random_weights() {
    let folder = tempfile::tempdir().unwrap();
    let shape = folder.path().join("config.json");
    let config = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "torch_dtype": "bfloat16"}"#;
    std::fs::write(&shape, config).unwrap();
    let models = folder.path().to_str().unwrap();
    let (code, text) = run(&[
        "bench",
        "--device",
        "cpu",
        "--models",
        models,
        "--decode",
        "2",
        "--context",
        "4",
        "--steps",
        "4",
        "--prefill",
        "16",
        "--repeats",
        "1",
    ]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("decode 2") && text.contains("3 passed, 0 failed"),
        "{text}"
    );
}

#[test]
fn models_are_compared_with_golden_files() {
    let Some(path) = shared_asset("model-tests", "tiny") else {
        return;
    };
    let assets = path.parent().unwrap().to_str().unwrap();
    let (code, text) = run(&["model-tests", "--device", "cpu", "--assets", assets]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("10 passed, 0 failed"), "{text}");
    // A margin that no case has: nothing is compared, and that is no success.
    let (code, text) = run(&[
        "model-tests",
        "--device",
        "cpu",
        "--assets",
        assets,
        "--min-margin",
        "1e9",
    ]);
    assert_eq!(code, Some(1), "{text}");
}

#[test]
fn a_server_on_the_cpu_passes_its_tests() {
    let (code, text) = run(&["server-tests", "--device", "cpu", "--clients", "9"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("5 passed, 0 failed"), "{text}");
}

#[test]
fn without_a_card_each_stage_says_so() {
    let (code, text) = run(&["kernel-tests"]);
    assert_eq!(code, Some(EXIT_NO_DEVICE), "{text}");
    assert!(
        text.contains("no GPU") && !text.contains("panicked"),
        "{text}"
    );
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("results");
    let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../kernels/verify.sh"]
        .iter()
        .collect();
    let verify = |more: &[&str]| {
        let mut command = Command::new(&script);
        command
            .arg("--binary")
            .arg(binary())
            .arg("--out")
            .arg(&out)
            .args(more);
        text_of(&command.output().unwrap())
    };
    let (code, text) = verify(&[
        "--stage", "kernels", "--stage", "sanitize", "--stage", "bench",
    ]);
    assert_eq!(code, Some(1), "{text}");
    let summary = std::fs::read_to_string(out.join("summary.txt")).unwrap();
    assert_eq!(summary.matches("no GPU").count(), 3, "{summary}");
    let json = std::fs::read_to_string(out.join("summary.json")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["stages"][2]["stage"], "bench");
    assert_eq!(json["stages"][2]["status"], EXIT_NO_DEVICE);
    let (code, text) = verify(&["--stage", "nonsense"]);
    assert_eq!(code, Some(2), "{text}");
}
