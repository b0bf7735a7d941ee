//! Models of every family against what transformers computed (float32, eager), and quantized files
//! against llama.cpp.
//!
//! Each is run together with others in chunks of unlike sizes, alone, after a cached prefix, and
//! resumed from delivered output.
//!
//! Invariant: logits within a share of the largest magnitude that follows the activations' type;
//! greedy ids are equal wherever the margin is larger than that; all ways have the same bits.

use std::path::Path;

use hotspare_batch::{SamplingParams, StopParams, TokenId};
use serde_json::Value;

use super::CheckError;
use super::harness::{BLOCK_SIZE, Harness, Settings};
use crate::kernels::SPLIT_KEYS;
use crate::{Device, Dtype};

/// Folders of models, one a family.
pub const FAMILIES: [&str; 10] = [
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

/// What a check compared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Largest difference of a logit, as a share of the largest magnitude.
    pub max_error: f32,
    /// Greedy ids that were equal before the first that may differ, of `num_ids`.
    pub num_compared: usize,
    /// Greedy ids.
    pub num_ids: usize,
    /// Tokens and log-probabilities that are the CPU sampler's.
    pub num_held: usize,
}

/// One prompt and what follows it.
struct Case {
    prompt: Vec<TokenId>,
    greedy: Vec<TokenId>,
    last_logits: Vec<f32>,
}

fn cases(list: &Value, max_new: usize) -> Result<Vec<Case>, CheckError> {
    let ids = |value: &Value| -> Option<Vec<TokenId>> {
        let list = value.as_array()?.iter();
        list.map(|id| Some(id.as_u64()? as TokenId)).collect()
    };
    let case = |case: &Value| {
        let logits = case["last_logits"].as_array()?.iter();
        let mut greedy = ids(&case["greedy_ids"])?;
        greedy.truncate(max_new);
        Some(Case {
            prompt: ids(&case["prompt_ids"])?,
            greedy,
            last_logits: logits
                .map(|x| Some(x.as_f64()? as f32))
                .collect::<Option<_>>()?,
        })
    };
    let cases: Option<Vec<Case>> = list
        .as_array()
        .and_then(|list| list.iter().map(case).collect());
    cases
        .filter(|cases| cases.len() >= 3)
        .ok_or_else(|| CheckError::new("a golden file of another form"))
}

fn read_json(path: &Path) -> Result<Value, CheckError> {
    let bytes = std::fs::read(path).map_err(|e| CheckError(format!("{}: {e}", path.display())))?;
    serde_json::from_slice(&bytes).map_err(CheckError::new)
}

/// Largest difference allowed, of the largest magnitude. With f32 activations it is what the cache
/// of float16 makes: q, keys, values and weights of the softmax are rounded to it.
fn tolerance(dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F32 => 3e-3,
        Dtype::F16 => 1e-2,
        Dtype::Bf16 => 6e-2,
    }
}

/// As [`tolerance`]; a router that is nearly undecided takes another expert for less, on a CPU with
/// a cache of float16 too (1.5e-2 was seen).
fn family_tolerance(path: &Path, dtype: Dtype) -> f32 {
    match path.ends_with("qwen3-moe") {
        true => tolerance(dtype).max(2.5e-2),
        false => tolerance(dtype),
    }
}

/// The model in `path` with `max_new` greedy tokens of each prompt.
///
/// # Errors
/// What differs.
pub fn check_family<D: Device>(
    device: D,
    path: &Path,
    settings: Settings,
    max_new: usize,
) -> Result<Report, CheckError> {
    let golden = read_json(&path.join("golden.json"))?;
    let cases = cases(&golden["cases"], max_new)?;
    let tolerance = family_tolerance(path, settings.dtype);
    check(device, path, settings, &cases, tolerance)
}

/// The file `MODEL.TYPE.gguf` of `folder`, called `quant` in `MODEL.golden.json`. llama.cpp rounds
/// activations to 8 bits: 5 % of the largest magnitude.
///
/// # Errors
/// What differs.
pub fn check_gguf<D: Device>(
    device: D,
    folder: &Path,
    [model, file, quant]: [&str; 3],
    settings: Settings,
    max_new: usize,
) -> Result<Report, CheckError> {
    let golden = read_json(&folder.join(format!("{model}.golden.json")))?;
    let cases = cases(&golden["quants"][quant]["cases"], max_new)?;
    let path = folder.join(format!("{model}.{file}.gguf"));
    check(
        device,
        &path,
        settings,
        &cases,
        tolerance(settings.dtype).max(0.05),
    )
}

fn check<D: Device>(
    device: D,
    path: &Path,
    settings: Settings,
    cases: &[Case],
    tolerance: f32,
) -> Result<Report, CheckError> {
    let mut harness = Harness::load(device, path, settings)?;
    let mut report = Report::default();
    let indices = run_together(&mut harness, cases)?;
    for (case, &index) in cases.iter().zip(&indices) {
        compare(&harness, index, case, tolerance, &mut report)?;
    }
    // The longest prompt whose whole blocks can be cached, in other ways.
    let (chosen, case) = cases
        .iter()
        .enumerate()
        .find(|(_, case)| case.prompt.len() > 2 * BLOCK_SIZE || case.prompt.len() == 7)
        .ok_or_else(|| CheckError::new("no prompt of a few tokens"))?;
    let first = indices[chosen];
    for (i, &index) in indices.iter().enumerate() {
        if i != chosen {
            harness.end(index);
        }
    }
    other_ways(&mut harness, first, case)?;
    report.num_held = harness.num_held;
    Ok(report)
}

/// Runs all cases in one batch; chunks are of unlike sizes, so that prefill and decode rows meet.
fn run_together<D: Device>(
    harness: &mut Harness<D>,
    cases: &[Case],
) -> Result<Vec<usize>, CheckError> {
    let greedy = SamplingParams::greedy();
    let indices: Vec<usize> = cases
        .iter()
        .map(|case| harness.add(&case.prompt, &greedy))
        .collect();
    loop {
        let chunk = |(i, &index): (usize, &usize)| {
            let sequence = &harness.sequences[index];
            let is_wanted = sequence.output().len() < cases[i].greedy.len();
            is_wanted.then_some((index, sequence.num_waiting().min(5 + 9 * i)))
        };
        let chunks: Vec<_> = indices.iter().enumerate().filter_map(chunk).collect();
        if chunks.is_empty() {
            return Ok(indices);
        }
        harness.step(&chunks)?;
    }
}

fn compare<D: Device>(
    harness: &Harness<D>,
    index: usize,
    case: &Case,
    tolerance: f32,
    report: &mut Report,
) -> Result<(), CheckError> {
    let sequence = &harness.sequences[index];
    let first = sequence.num_prompt - 1;
    let largest = case
        .last_logits
        .iter()
        .fold(0f32, |max, x| max.max(x.abs()));
    let pairs = sequence.logits[first].iter().zip(&case.last_logits);
    for (id, (found, expected)) in pairs.enumerate() {
        let error = (found - expected).abs() / largest;
        report.max_error = report.max_error.max(error);
        if error > tolerance || error.is_nan() {
            let len = case.prompt.len();
            return Err(CheckError(format!(
                "prompt of {len}, logit {id} is {found}, not {expected}: {error} of {largest}"
            )));
        }
    }
    report.num_ids += case.greedy.len();
    for (i, (&found, &expected)) in sequence.output().iter().zip(&case.greedy).enumerate() {
        report.num_compared += 1;
        if found != expected {
            let logits = &sequence.logits[first + i];
            let margin = logits[found as usize] - logits[expected as usize];
            if margin > 2.0 * tolerance * largest {
                return Err(CheckError(format!(
                    "id {i} is {found}, not {expected}, by {margin}"
                )));
            }
            report.num_compared -= 1;
            break;
        }
    }
    Ok(())
}

/// Runs `case` alone, after a cached prefix and resumed; all have the bits of sequence `first`.
fn other_ways<D: Device>(
    harness: &mut Harness<D>,
    first: usize,
    case: &Case,
) -> Result<(), CheckError> {
    let num_new = case.greedy.len().min(2);
    let all = SamplingParams {
        num_prompt_logprobs: Some(1),
        num_logprobs: Some(2),
        ..SamplingParams::greedy()
    };
    let alone = harness.add(&case.prompt, &all);
    harness.run_alone(alone, usize::MAX, num_new)?;
    same_bits(harness, alone, first, "alone in one chunk")?;
    let num_blocks = (case.prompt.len() - 1) / BLOCK_SIZE;
    if num_blocks > 0 {
        let cached = harness.add_cached(&case.prompt, &all, first, num_blocks);
        harness.run_alone(cached, 3, num_new)?;
        same_bits(harness, cached, alone, "after a cached prefix")?;
    }
    let ids = harness.sequences[first].ids[..case.prompt.len() + num_new - 1].to_vec();
    let stop = StopParams::default();
    let resumed = harness.add_resumed(&ids, case.prompt.len(), &SamplingParams::greedy(), &stop);
    harness.run_alone(resumed, 11, num_new)?;
    same_bits(harness, resumed, first, "resumed")
}

/// Wherever both have logits they are the same bits, and at the last position both have them.
fn same_bits<D: Device>(
    harness: &Harness<D>,
    index: usize,
    other: usize,
    what: &str,
) -> Result<(), CheckError> {
    let [found, expected] = [index, other].map(|i| &harness.sequences[i]);
    let len = found.ids.len().min(expected.ids.len());
    if found.ids[..len] != expected.ids[..len] {
        return Err(CheckError(format!("{what}: other ids")));
    }
    let mut num_compared = 0;
    for (position, (found, expected)) in found.logits.iter().zip(&expected.logits).enumerate() {
        if found.is_empty() || expected.is_empty() {
            continue;
        }
        num_compared += 1;
        let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
        if found.iter().zip(expected).any(differs) {
            return Err(CheckError(format!(
                "{what}: other bits at position {position}"
            )));
        }
    }
    match num_compared {
        0 => Err(CheckError(format!("{what}: nothing to compare"))),
        _ => Ok(()),
    }
}

/// A context of several splits of attention: decoded, its splits are computed apart and merged;
/// resumed in one chunk, they are not. Both have the same bits.
///
/// # Errors
/// What differs.
pub fn check_long_context<D: Device>(
    device: D,
    path: &Path,
    settings: Settings,
) -> Result<(), CheckError> {
    const NUM_NEW: usize = 3;
    let mut harness = Harness::load(device, path, settings)?;
    let vocab_size = harness.vocab_size as u32;
    let prompt: Vec<TokenId> = (0..SPLIT_KEYS as u32 + 5)
        .map(|i| i * 31 % vocab_size)
        .collect();
    let greedy = SamplingParams::greedy();
    let first = harness.add(&prompt, &greedy);
    harness.run_alone(first, 100, NUM_NEW)?;
    let ids = harness.sequences[first].ids[..prompt.len() + NUM_NEW - 1].to_vec();
    let stop = StopParams::default();
    let resumed = harness.add_resumed(&ids, prompt.len(), &greedy, &stop);
    harness.run_alone(resumed, usize::MAX, NUM_NEW)?;
    same_bits(&harness, resumed, first, "resumed after two splits")
}
