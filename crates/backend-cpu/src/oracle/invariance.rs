//! Batch invariance, on the bits of every position's logits: alone, chunked, among others,
//! preempted, with a warm prefix cache, on other threads and instruction sets.
//!
//! Invariant: there is one reference run, and every other way gives its ids and its bits.

use std::path::{Path, PathBuf};

use hotspare_batch::{SamplingParams, TokenId};
use hotspare_model::weights::WeightDtype;

use super::harness::{BLOCK_SIZE, Harness, Lcg, Sequence, assets};
use super::quantized_types::spark;
use crate::Isa;

const NUM_PROMPT: usize = 120;
const NUM_OUTPUT: usize = 50;

/// Sampled, not greedy, and with penalties: the drawn ids depend on bits, seed and counts.
fn sampling() -> SamplingParams {
    SamplingParams {
        temperature: 0.9,
        top_p: 0.95,
        repetition_penalty: 1.1,
        presence_penalty: 0.1,
        seed: 0x0123_4567_89ab_cdef,
        ..SamplingParams::default()
    }
}

fn random_prompt(lcg: &mut Lcg, len: usize, vocab_size: usize) -> Vec<TokenId> {
    (0..len).map(|_| lcg.below(vocab_size) as TokenId).collect()
}

/// What every other run must equal.
struct Reference {
    ids: Vec<TokenId>,
    bits: Vec<Vec<u32>>,
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

impl Reference {
    fn new(harness: &mut Harness) -> Self {
        let prompt = random_prompt(&mut Lcg(17), NUM_PROMPT, harness.vocab_size());
        let index = harness.add(&prompt, &sampling());
        harness.run_alone(index, usize::MAX, NUM_OUTPUT);
        let sequence = &harness.sequences[index];
        Self {
            ids: sequence.ids.clone(),
            bits: sequence.logits.iter().map(|logits| bits(logits)).collect(),
        }
    }

    fn prompt(&self) -> &[TokenId] {
        &self.ids[..NUM_PROMPT]
    }

    /// Every position that `sequence` computed has the reference's bits, and it drew the same ids.
    fn check(&self, sequence: &Sequence, what: &str) {
        assert_eq!(sequence.ids, self.ids, "{what}");
        assert_eq!(sequence.logits.len(), self.bits.len(), "{what}");
        let mut num_compared = 0;
        for (position, logits) in sequence.logits.iter().enumerate() {
            if !logits.is_empty() {
                let same = bits(logits) == self.bits[position];
                assert!(same, "{what}: the logits of position {position} differ");
                num_compared += 1;
            }
        }
        assert!(num_compared >= NUM_OUTPUT, "{what}");
    }
}

/// Adds 31 sequences of unlike lengths and parameters.
fn add_others(harness: &mut Harness, lcg: &mut Lcg) -> Vec<usize> {
    let vocab_size = harness.vocab_size();
    let mut add = |i: usize| {
        let len = 1 + lcg.below(150);
        let prompt = random_prompt(lcg, len, vocab_size);
        let sampling = SamplingParams {
            temperature: if i.is_multiple_of(3) { 0.0 } else { 1.2 },
            seed: i as u64,
            ..sampling()
        };
        harness.add(&prompt, &sampling)
    };
    (0..31).map(&mut add).collect()
}

/// Runs `index` among 31 others with random chunks and orders; `preempt_at` names the steps after
/// which it loses its blocks.
fn run_among_others(harness: &mut Harness, index: usize, seed: u64, preempt_at: &[usize]) {
    let mut lcg = Lcg(seed);
    let mut indices = add_others(harness, &mut lcg);
    indices.insert(lcg.below(32), index);
    let mut num_steps = 0;
    while harness.sequences[index].output().len() < NUM_OUTPUT {
        let mut chunks = Vec::new();
        for &i in &indices {
            let is_own = i == index;
            let waiting = harness.sequences[i].num_waiting();
            let is_over = !is_own && harness.sequences[i].ids.len() > 400;
            // Now and then a sequence sits out a step.
            if !is_over && (is_own || lcg.below(5) > 0) {
                chunks.push((i, waiting.min(1 + lcg.below(29))));
            }
        }
        let rotation = lcg.below(chunks.len());
        chunks.rotate_left(rotation);
        harness.step(&chunks);
        num_steps += 1;
        if preempt_at.contains(&num_steps) {
            harness.preempt(index);
        }
    }
}

/// All ways of running on the model in `path`.
fn check_model(path: &Path) {
    check_loaded(&|| Harness::load(path));
}

/// All ways of running on the model that `load` loads.
fn check_loaded(load: &dyn Fn() -> Harness) {
    let mut harness = load();
    let reference = Reference::new(&mut harness);
    let prompt = reference.prompt();
    for chunk in [1, 3, 16, 17, 50] {
        let index = harness.add(prompt, &sampling());
        harness.run_alone(index, chunk, NUM_OUTPUT);
        reference.check(
            &harness.sequences[index],
            &format!("alone, chunks of {chunk}"),
        );
    }
    // Positions of the output as one prefill: what a replay on another node computes.
    let index = harness.add(
        &reference.ids[..reference.bits.len()],
        &SamplingParams::greedy(),
    );
    harness.run_alone(index, usize::MAX, 1);
    for (position, logits) in harness.sequences[index].logits.iter().enumerate() {
        assert!(
            bits(logits) == reference.bits[position],
            "prefill of the output, {position}"
        );
    }
    // The prefix cache has the blocks of a sequence that came before.
    for num_blocks in [1, 3, (NUM_PROMPT - 1) / BLOCK_SIZE] {
        let cached = harness.add_cached(prompt, &sampling(), 0, num_blocks);
        harness.run_alone(cached, 40, NUM_OUTPUT);
        let what = format!("{num_blocks} cached blocks");
        reference.check(&harness.sequences[cached], &what);
    }
    for (seed, preempt_at) in [(1, &[][..]), (2, &[]), (3, &[2, 30]), (4, &[10, 11, 40])] {
        let mut harness = load();
        let index = harness.add(prompt, &sampling());
        run_among_others(&mut harness, index, seed, preempt_at);
        let what = format!("among 31 others, seed {seed}, preempted at {preempt_at:?}");
        reference.check(&harness.sequences[index], &what);
    }
}

/// Threads and instruction sets give the reference's bits too.
fn check_machines(path: &Path, isas: &[Isa]) {
    let reference = Reference::new(&mut Harness::load(path));
    for &isa in isas {
        for num_threads in [1, 3] {
            let mut harness = Harness::load_with(path, num_threads, isa, None);
            let index = harness.add(reference.prompt(), &sampling());
            run_among_others(&mut harness, index, 5, &[20]);
            let what = format!("{num_threads} threads, {isa:?}");
            reference.check(&harness.sequences[index], &what);
        }
    }
}

fn spark_mini() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/spark-mini")
}

#[test]
fn trained_model_in_f32() {
    if let Some(path) = assets("oracle invariance", "stories260k") {
        check_model(&path);
    }
}

/// Weights quantized at load, and keys and values of eight bits.
#[test]
fn embedded_model_quantized() {
    for weights in [None, Some(WeightDtype::Q8_0)] {
        let (machine, kv) = ((2, Isa::detect()), Some(WeightDtype::Q8_0));
        check_loaded(&|| Harness::load_quantized(&spark_mini(), machine, kv, weights));
    }
}

/// K types need rows of whole blocks of 256, which the larger embedded model has.
#[test]
fn embedded_model_in_k_types() {
    for weights in [WeightDtype::Q4K, WeightDtype::Q6K] {
        let machine = (2, Isa::detect());
        check_loaded(&|| Harness::load_quantized(&spark(), machine, None, Some(weights)));
    }
}

#[test]
fn embedded_model_in_bf16() {
    check_model(&spark_mini());
}

#[test]
fn threads_and_instruction_sets() {
    check_machines(&spark_mini(), &Isa::available());
}

/// Windows, caps, norms of heads and experts keep the promise too.
#[test]
fn families_in_f32() {
    for name in ["gemma2", "gemma3", "mistral", "phi3", "qwen3-moe"] {
        if let Some(path) = assets("oracle invariance", &format!("tiny/{name}")) {
            check_model(&path);
        }
    }
}

#[test]
fn families_on_threads_and_instruction_sets() {
    for name in ["gemma2", "gemma3", "mixtral", "qwen2"] {
        if let Some(path) = assets("oracle invariance", &format!("tiny/{name}")) {
            check_machines(&path, &Isa::available());
        }
    }
}
