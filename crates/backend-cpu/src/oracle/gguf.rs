//! Quantized GGUF files of three architectures against what llama.cpp computed from the same files.
//!
//! Both round the activations of a quantized product to 8 bits, by scales of their own: logits may
//! differ by 3 % of their range. For F16 llama.cpp rounds activations to halves.
//!
//! Invariant: greedy ids are equal wherever llama.cpp's margin is larger than twice that tolerance,
//! which neither of two logits can then cross; alone, in chunks of three, and together.

use std::path::Path;

use hotspare_batch::{SamplingParams, TokenId};
use serde_json::Value;

use super::harness::{Harness, assets, floats, ids};
use crate::Isa;

/// Files, their names in the golden file, and the difference allowed, of the logits' range.
type Files = [(&'static str, &'static str, f32)];

const LLAMA: &Files = &[
    ("f16", "F16", 0.01),
    ("q8_0", "Q8_0", 0.03),
    ("q4_0", "Q4_0", 0.03),
    ("q4_k_m", "Q4_K_M", 0.03),
    ("q5_k_m", "Q5_K_M", 0.03),
    ("q6_k", "Q6_K", 0.03),
];
const QWEN: &Files = &[("q8_0", "Q8_0", 0.03), ("q4_k_m", "Q4_K_M", 0.03)];

/// One prompt and what llama.cpp says of it.
struct Case {
    prompt: Vec<TokenId>,
    last_logits: Vec<f32>,
    greedy: Vec<TokenId>,
    margins: Vec<f32>,
    /// Largest difference allowed.
    tolerance: f32,
}

fn load_cases(golden: &Path, quant: &str, share: f32) -> Vec<Case> {
    let json = std::fs::read(golden).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let cases = json["quants"][quant]["cases"].as_array().unwrap();
    let case = |case: &Value| {
        let last_logits = floats(&case["last_logits"]);
        let max = last_logits.iter().copied().fold(f32::MIN, f32::max);
        let min = last_logits.iter().copied().fold(f32::MAX, f32::min);
        Case {
            prompt: ids(&case["prompt_ids"]),
            greedy: ids(&case["greedy_ids"]),
            margins: floats(&case["margins"]),
            tolerance: share * (max - min),
            last_logits,
        }
    };
    cases.iter().map(case).collect()
}

/// Compares sequence `index` with `case`; returns how many ids were compared.
fn check(harness: &Harness, index: usize, case: &Case, what: &str) -> usize {
    let sequence = &harness.sequences[index];
    let logits = &sequence.logits[sequence.num_prompt - 1];
    assert_eq!(logits.len(), case.last_logits.len());
    for (id, (found, expected)) in logits.iter().zip(&case.last_logits).enumerate() {
        let difference = (found - expected).abs();
        let tolerance = case.tolerance;
        assert!(
            difference <= tolerance,
            "{what}: logit {id} is {found}, not {expected}: more than {tolerance}"
        );
    }
    for (i, (&found, &expected)) in sequence.output().iter().zip(&case.greedy).enumerate() {
        if found != expected {
            let margin = case.margins[i];
            assert!(
                margin <= 2.0 * case.tolerance,
                "{what}: id {i} is {found}, not {expected}, with a margin of {margin}"
            );
            return i;
        }
    }
    case.greedy.len()
}

#[test]
fn llama_files_match_llama_cpp() {
    check_files("llama-tiny", LLAMA);
}

#[test]
fn qwen2_files_match_llama_cpp() {
    check_files("qwen2-tiny", QWEN);
}

#[test]
fn qwen3_files_match_llama_cpp() {
    check_files("qwen3-tiny", QWEN);
}

/// Runs all `files` of `model` alone, in chunks and together.
fn check_files(model: &str, files: &Files) {
    let Some(directory) = assets("oracle gguf", "gguf") else {
        return;
    };
    let golden = directory.join(format!("{model}.golden.json"));
    let (mut num_compared, mut num_ids) = (0, 0);
    for &(file, quant, share) in files {
        let path = directory.join(format!("{model}.{file}.gguf"));
        let cases = load_cases(&golden, quant, share);
        assert_eq!(cases.len(), 3);
        let mut harness = Harness::load(&path);
        let num_output = cases[0].greedy.len();
        for case in &cases {
            for chunk in [usize::MAX, 3] {
                let index = harness.add(&case.prompt, &SamplingParams::greedy());
                harness.run_alone(index, chunk, num_output);
                let what = format!(
                    "{model} {file}, prompt of {}, chunks of {chunk}",
                    case.prompt.len()
                );
                num_compared += check(&harness, index, case, &what);
                num_ids += num_output;
            }
        }
        let add = |case: &Case| harness.add(&case.prompt, &SamplingParams::greedy());
        let indices: Vec<usize> = cases.iter().map(add).collect();
        while indices
            .iter()
            .any(|&i| harness.sequences[i].output().len() < num_output)
        {
            let chunk = |&i: &usize| (i, harness.sequences[i].num_waiting().min(7));
            let chunks: Vec<_> = indices.iter().map(chunk).collect();
            harness.step(&chunks);
        }
        for (case, &index) in cases.iter().zip(&indices) {
            let what = format!("{model} {file}, prompt of {}, together", case.prompt.len());
            num_compared += check(&harness, index, case, &what);
            num_ids += num_output;
        }
    }
    assert!(
        2 * num_compared >= num_ids,
        "only {num_compared} of {num_ids} ids compared"
    );
}

#[test]
fn instruction_sets_agree_on_a_file_of_two_formats() {
    let Some(directory) = assets("oracle gguf", "gguf") else {
        return;
    };
    let path = directory.join("llama-tiny.q4_k_m.gguf");
    let mut reference: Option<(Vec<TokenId>, Vec<Vec<u32>>)> = None;
    for isa in Isa::available() {
        let mut harness = Harness::load_with(&path, 1, isa, None);
        let index = harness.add(&[1, 40, 77, 5, 200, 9], &SamplingParams::greedy());
        harness.run_alone(index, 4, 12);
        let sequence = &harness.sequences[index];
        let bits = |logits: &Vec<f32>| logits.iter().map(|x| x.to_bits()).collect();
        let found = (
            sequence.ids.clone(),
            sequence.logits.iter().map(bits).collect(),
        );
        let reference = reference.get_or_insert_with(|| found.clone());
        assert!(*reference == found, "{} differs", isa.name());
    }
}
