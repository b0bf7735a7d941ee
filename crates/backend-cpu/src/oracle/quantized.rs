//! Weights quantized at load and an eight-bit KV cache, against the same golden files as the exact
//! model.
//!
//! The tiny families have random weights, which carry every rounding on undamped. Tolerances are
//! shares of the range of the golden logits: 6 % for `Q8_0` weights, 3 % for the cache, 15 % where
//! there are experts. Legacy types of fewer bits are held
//! against a trained model; it is too narrow for K types, whose blocks are compared by themselves.
//!
//! Invariant: greedy ids are equal wherever the golden logits' margin is larger than twice the
//! tolerance; chunks of three and a whole prompt give the same bits.

use std::path::Path;

use hotspare_batch::SamplingParams;
use hotspare_model::weights::WeightDtype;
use serde_json::Value;

use super::harness::{Harness, assets, best_and_margin, floats, ids};
use crate::Isa;

const FAMILIES: [&str; 10] = [
    "llama",
    "llama3-rope",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "qwen3-moe",
    "phi3",
    "gemma2",
    "gemma3",
];

/// Share of the range that another expert may make.
const MOE_TOLERANCE: f32 = 0.15;

/// What a run changes, and how far logits may move.
struct Change {
    weights: Option<WeightDtype>,
    kv: Option<WeightDtype>,
    tolerance: f32,
}

fn load(path: &Path, change: &Change) -> Harness {
    Harness::load_quantized(path, (2, Isa::detect()), change.kv, change.weights)
}

/// Largest difference of the last prompt position's logits, as a share of their range.
fn difference(found: &[f32], expected: &[f32]) -> (f32, f32) {
    let max = expected.iter().copied().fold(f32::MIN, f32::max);
    let min = expected.iter().copied().fold(f32::MAX, f32::min);
    let pairs = found.iter().zip(expected);
    let largest = pairs.fold(0f32, |d, (a, b)| d.max((a - b).abs()));
    (largest / (max - min), max - min)
}

/// Runs the golden prompts of `path`; returns the largest difference.
fn check(name: &str, path: &Path, change: &Change) -> f32 {
    let golden = std::fs::read(path.join("golden.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let mut harness = load(path, change);
    let mut worst = 0f32;
    for case in golden["cases"].as_array().unwrap() {
        let (prompt, expected) = (ids(&case["prompt_ids"]), floats(&case["last_logits"]));
        let [whole, chunks] = [usize::MAX, 3].map(|chunk| {
            let index = harness.add(&prompt, &SamplingParams::greedy());
            harness.run_alone(index, chunk, 1);
            harness.sequences[index].logits[prompt.len() - 1].clone()
        });
        let same = whole
            .iter()
            .zip(&chunks)
            .all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{name}: chunks of three differ");
        let (share, range) = difference(&whole, &expected);
        worst = worst.max(share);
        let tolerance = change.tolerance;
        let (best, margin) = best_and_margin(&expected);
        if margin > 2.0 * tolerance * range {
            assert_eq!(best_and_margin(&whole).0, best, "{name}");
        }
    }
    worst
}

fn check_families(change: &Change) {
    for name in FAMILIES {
        let Some(path) = assets("oracle quantized", &format!("tiny/{name}")) else {
            return;
        };
        let worst = check(name, &path, change);
        println!("{name:>12}: {:.2} % of the range", worst * 100.0);
        // A change that changes nothing was not made.
        assert!(worst > 1e-5, "{name}: {worst}");
        // Where two experts are nearly equal, the other one may be chosen.
        let tolerance = match name.contains("moe") || name == "mixtral" {
            true => change.tolerance.max(MOE_TOLERANCE),
            false => change.tolerance,
        };
        assert!(
            worst <= tolerance,
            "{name}: {worst} of the range, more than {tolerance}"
        );
    }
}

#[test]
fn q8_0_weights_stay_close_in_every_family() {
    check_families(&Change {
        weights: Some(WeightDtype::Q8_0),
        kv: None,
        tolerance: 0.06,
    });
}

#[test]
fn an_eight_bit_cache_stays_close_in_every_family() {
    check_families(&Change {
        weights: None,
        kv: Some(WeightDtype::Q8_0),
        tolerance: 0.03,
    });
}

/// A trained model: its layers are as wide as blocks of 32 allow, one matrix is not.
#[test]
fn a_trained_model_says_nearly_the_same() {
    let Some(path) = assets("oracle quantized", "stories260k") else {
        return;
    };
    let golden = std::fs::read(path.join("golden.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    for (weights, kv, tolerance, mean_tolerance) in [
        (None, Some(WeightDtype::Q8_0), 0.25, 0.03),
        (Some(WeightDtype::Q8_0), None, 0.15, 0.025),
        (Some(WeightDtype::Q8_0), Some(WeightDtype::Q8_0), 0.3, 0.04),
        (Some(WeightDtype::Q5_1), None, 0.7, 0.09),
        (Some(WeightDtype::Q5_0), None, 0.8, 0.1),
        (Some(WeightDtype::Q4_1), None, 1.0, 0.16),
        (Some(WeightDtype::Q4_0), None, 2.2, 0.3),
    ] {
        let mut harness = load(
            &path,
            &Change {
                weights,
                kv,
                tolerance,
            },
        );
        let (mut worst, mut sum_of_all, mut num_compared) = (0f32, 0.0, 0u32);
        for case in golden.as_array().unwrap() {
            // Its own continuation is read as a prompt, so that each position is compared.
            let mut text = ids(&case["prompt_ids"]);
            let start = text.len();
            text.extend(ids(&case["new_ids"]));
            let index = harness.add(&text, &SamplingParams::greedy());
            harness.run_alone(index, usize::MAX, 1);
            let sequence = &harness.sequences[index];
            for (i, expected) in floats(&case["logprobs"]).into_iter().enumerate() {
                let logits = &sequence.logits[start + i - 1];
                let max = logits.iter().copied().fold(f32::MIN, f32::max);
                let sum: f32 = logits.iter().map(|x| (x - max).exp()).sum();
                let found = logits[text[start + i] as usize] - max - sum.ln();
                worst = worst.max((found - expected).abs());
                sum_of_all += f64::from((found - expected).abs());
                num_compared += 1;
            }
        }
        let mean = sum_of_all / f64::from(num_compared);
        println!("{weights:?} {kv:?}: log-probabilities within {worst}, mean {mean}");
        assert!(mean <= mean_tolerance, "{weights:?} {kv:?}: {mean}");
        assert!(worst <= tolerance, "{weights:?} {kv:?}: {worst}");
        assert!(worst > 1e-6, "{weights:?} {kv:?}: nothing changed");
    }
}
