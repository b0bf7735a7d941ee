//! Trained and random models of every family against what transformers computed (float32, eager).
//!
//! Invariant: greedy ids are equal wherever the margin between the best two is at least 2e-3,
//! logits and log-probabilities within 1e-4 of the largest magnitude; alone, in chunks of three,
//! together, and after a prefix that an earlier sequence computed; the ways have the same bits.

use std::collections::BTreeSet;

use std::path::Path;

use hotspare_batch::{SamplingParams, TokenId};
use serde_json::Value;

use super::harness::{BLOCK_SIZE, Harness, assert_close, assets, best_and_margin, ids};

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

/// Asserts that sequence `index` drew the ids of `first` and has its logits, bit for bit, wherever
/// it computed them; returns how many positions it found in the cache.
fn check_bits(harness: &Harness, index: usize, first: usize, what: &str) -> usize {
    let (found, expected) = (&harness.sequences[index], &harness.sequences[first]);
    assert_eq!(found.ids, expected.ids, "{what}");
    let mut num_cached = 0;
    for (position, (found, expected)) in found.logits.iter().zip(&expected.logits).enumerate() {
        if found.is_empty() {
            num_cached += 1;
            continue;
        }
        let mut pairs = found.iter().zip(expected);
        let same = pairs.all(|(found, expected)| found.to_bits() == expected.to_bits());
        assert!(same, "{what}: the logits of position {position} differ");
    }
    num_cached
}

/// How many ids were compared, of how many.
#[derive(Default)]
struct Tally {
    num_compared: usize,
    num_ids: usize,
    /// Runs that began with a cached prefix.
    num_prefixes: usize,
}

impl Tally {
    fn add(&mut self, harness: &Harness, index: usize, case: &Case, what: &str) {
        self.num_compared += check(harness, index, case, what);
        self.num_ids += case.greedy.len();
    }
}

/// Runs all cases in one batch; chunks are of unlike sizes, so that prefill and decode rows meet in
/// one step.
fn run_together(harness: &mut Harness, cases: &[Case]) -> Vec<usize> {
    let add = |case: &Case| harness.add(&case.prompt, &greedy());
    let indices: Vec<usize> = cases.iter().map(add).collect();
    loop {
        let is_wanted =
            |&i: &usize| harness.sequences[indices[i]].output().len() < cases[i].greedy.len();
        let chunk = |i: usize| {
            let waiting = harness.sequences[indices[i]].num_waiting();
            (indices[i], waiting.min(5 + 4 * i))
        };
        let running = (0..cases.len()).filter(is_wanted);
        let chunks: Vec<_> = running.map(chunk).collect();
        if chunks.is_empty() {
            return indices;
        }
        harness.step(&chunks);
    }
}

/// Runs the golden file of `name` in four ways; `min_compared` of the ids must have been
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
    let mut tally = Tally::default();
    let alone: Vec<usize> = cases
        .iter()
        .map(|case| {
            let what = format!("{name}, prompt of {}", case.prompt.len());
            let first = harness.add(&case.prompt, &greedy());
            harness.run_alone(first, usize::MAX, case.greedy.len());
            tally.add(&harness, first, case, &what);
            let chunked = harness.add(&case.prompt, &greedy());
            harness.run_alone(chunked, 3, case.greedy.len());
            tally.add(&harness, chunked, case, &format!("{what}, chunks of 3"));
            check_bits(&harness, chunked, first, &format!("{what}, chunks of 3"));
            // Whole blocks, and at least one token is left to compute.
            let num_blocks = (case.prompt.len() - 1) / BLOCK_SIZE;
            for num_blocks in BTreeSet::from([1, num_blocks / 2, num_blocks]) {
                if (1..=(case.prompt.len() - 1) / BLOCK_SIZE).contains(&num_blocks) {
                    let what = format!("{what}, {num_blocks} cached blocks");
                    let cached = harness.add_cached(&case.prompt, &greedy(), first, num_blocks);
                    harness.run_alone(cached, 7, case.greedy.len());
                    tally.add(&harness, cached, case, &what);
                    let num_cached = check_bits(&harness, cached, first, &what);
                    assert_eq!(num_cached, num_blocks * BLOCK_SIZE);
                    tally.num_prefixes += 1;
                }
            }
            first
        })
        .collect();
    let batched = run_together(&mut harness, &cases);
    for (i, (case, &index)) in cases.iter().zip(&batched).enumerate() {
        let what = format!("{name}, prompt of {}, batched", case.prompt.len());
        tally.add(&harness, index, case, &what);
        check_bits(&harness, index, alone[i], &what);
    }
    // Prompts of 40 and 100 tokens have whole blocks; where there is a window, it is of 24.
    if name.starts_with("tiny/") {
        assert_eq!(tally.num_prefixes, 5, "{name}");
        assert!(cases.iter().any(|case| case.prompt.len() >= 100));
    }
    let share = tally.num_compared as f64 / tally.num_ids as f64;
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
