//! Trained and random models of every family against what transformers computed (float32, eager).
//!
//! Invariant: greedy ids are equal wherever the margin between the best two is at least 2e-3,
//! logits and log-probabilities within 1e-4 of the largest magnitude; alone, in chunks of three,
//! and together.

use std::path::Path;

use hotspare_batch::{SamplingParams, TokenId};
use serde_json::Value;

use super::harness::{Harness, assert_close, assets, best_and_margin};

const MIN_MARGIN: f32 = 2e-3;

/// One prompt and what follows it.
struct Case {
    prompt: Vec<TokenId>,
    greedy: Vec<TokenId>,
    /// Of the first drawn token.
    last_logits: Option<Vec<f32>>,
    /// Of each of `greedy`.
    logprobs: Option<Vec<f32>>,
}

fn numbers(value: &Value) -> Option<Vec<f32>> {
    let values = value.as_array()?.iter();
    Some(values.map(|x| x.as_f64().unwrap() as f32).collect())
}

fn ids(value: &Value) -> Vec<TokenId> {
    let values = value.as_array().unwrap().iter();
    values.map(|id| id.as_u64().unwrap() as TokenId).collect()
}

fn load_cases(path: &Path) -> Vec<Case> {
    let json = std::fs::read(path.join("golden.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let list = json
        .as_array()
        .unwrap_or_else(|| json["cases"].as_array().unwrap());
    let case = |case: &Value| Case {
        prompt: ids(&case["prompt_ids"]),
        greedy: ids(case.get("new_ids").unwrap_or(&case["greedy_ids"])),
        last_logits: numbers(&case["last_logits"]),
        logprobs: numbers(&case["logprobs"]),
    };
    list.iter().map(case).collect()
}

/// Compares sequence `index` with `case`; returns how many ids were compared.
fn check(harness: &Harness, index: usize, case: &Case, what: &str) -> usize {
    let sequence = &harness.sequences[index];
    let first = sequence.num_prompt - 1;
    if let Some(expected) = &case.last_logits {
        assert_close(&sequence.logits[first], expected, what);
    }
    for (i, (&found, &expected)) in sequence.output().iter().zip(&case.greedy).enumerate() {
        let logits = &sequence.logits[first + i];
        let (best, margin) = best_and_margin(logits);
        assert_eq!(found, best, "{what}: greedy takes the best");
        if found != expected {
            assert!(
                margin < MIN_MARGIN,
                "{what}: id {i} is {found}, not {expected}"
            );
            return i;
        }
        if let Some(logprobs) = &case.logprobs {
            let largest = logits.iter().fold(0f32, |max, x| max.max(x.abs()));
            let difference = (sequence.logprobs[i].logprob - logprobs[i]).abs();
            assert!(
                difference <= 1e-4 * largest,
                "{what}: log-probability {i}: {difference}"
            );
            assert_eq!(
                (sequence.logprobs[i].token, sequence.logprobs[i].rank),
                (found, 1)
            );
        }
    }
    case.greedy.len()
}

fn greedy() -> SamplingParams {
    SamplingParams {
        num_logprobs: Some(1),
        ..SamplingParams::greedy()
    }
}

/// Runs the golden file of `name` in three ways; `min_compared` of the ids must have been
/// comparable.
fn check_model(name: &str, min_compared: f64) {
    if let Some(path) = assets("oracle golden", name) {
        check_files(name, &path, &path, min_compared);
    }
}

/// As [`check_model`], with the golden file in `path` and the model in `model`.
pub(super) fn check_files(name: &str, path: &Path, model: &Path, min_compared: f64) {
    let cases = load_cases(path);
    assert_eq!(cases.len(), 4);
    let mut harness = Harness::load(model);
    let (mut num_compared, mut num_ids) = (0, 0);
    for case in &cases {
        for chunk in [usize::MAX, 3] {
            let index = harness.add(&case.prompt, &greedy());
            harness.run_alone(index, chunk, case.greedy.len());
            let what = format!("{name}, prompt of {}, chunks of {chunk}", case.prompt.len());
            num_compared += check(&harness, index, case, &what);
            num_ids += case.greedy.len();
        }
    }
    let indices: Vec<usize> = cases
        .iter()
        .map(|case| harness.add(&case.prompt, &greedy()))
        .collect();
    let wanted = |harness: &Harness, i: usize| {
        harness.sequences[indices[i]].output().len() < cases[i].greedy.len()
    };
    loop {
        let running = (0..cases.len()).filter(|&i| wanted(&harness, i));
        // Chunks of unlike sizes, so that prefill and decode rows meet in one step.
        let chunk = |i: usize| {
            let waiting = harness.sequences[indices[i]].num_waiting();
            (indices[i], waiting.min(5 + 4 * i))
        };
        let chunks: Vec<_> = running.map(chunk).collect();
        if chunks.is_empty() {
            break;
        }
        harness.step(&chunks);
    }
    for (case, &index) in cases.iter().zip(&indices) {
        let what = format!("{name}, prompt of {}, batched", case.prompt.len());
        num_compared += check(&harness, index, case, &what);
        num_ids += case.greedy.len();
    }
    let share = num_compared as f64 / num_ids as f64;
    assert!(
        share >= min_compared,
        "{name}: only {share} of the ids could be compared"
    );
}

#[test]
fn stories260k() {
    check_model("stories260k", 1.0);
}

#[test]
fn tiny_llama() {
    check_model("tiny/llama", 0.7);
}

#[test]
fn tiny_llama3_rope() {
    check_model("tiny/llama3-rope", 0.7);
}

#[test]
fn tiny_mistral() {
    check_model("tiny/mistral", 0.7);
}

#[test]
fn tiny_mixtral() {
    check_model("tiny/mixtral", 0.7);
}

#[test]
fn tiny_qwen2() {
    check_model("tiny/qwen2", 0.7);
}

#[test]
fn tiny_qwen3() {
    check_model("tiny/qwen3", 0.7);
}

#[test]
fn tiny_qwen3_moe() {
    check_model("tiny/qwen3-moe", 0.7);
}

#[test]
fn tiny_phi3() {
    check_model("tiny/phi3", 0.7);
}

#[test]
fn tiny_gemma2() {
    check_model("tiny/gemma2", 0.7);
}

#[test]
fn tiny_gemma3() {
    check_model("tiny/gemma3", 0.7);
}
