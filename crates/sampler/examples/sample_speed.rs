//! Nanoseconds a row for each way of drawing a token, at a small and a large vocabulary.
//!
//! `cargo run --release -p hotspare-sampler --example sample_speed`
//!
//! Invariant: only the sampler is inside the measured time.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use hotspare_batch::{SamplingParams, SlotInit, StopParams};
use hotspare_sampler::{Scratch, SlotState, philox, sample_row};

/// Changes the default parameters into a case's.
type Change = fn(&mut SamplingParams);

const CASES: [(&str, Change); 8] = [
    ("greedy", |s| s.temperature = 0.0),
    ("temperature", |s| s.temperature = 0.8),
    ("min-p 0.05", |s| s.min_p = 0.05),
    ("top-k 50", |s| s.top_k = 50),
    ("top-p 0.95", |s| s.top_p = 0.95),
    ("top-k 50, top-p 0.95", |s| (s.top_k, s.top_p) = (50, 0.95)),
    ("repetition penalty", |s| s.repetition_penalty = 1.1),
    ("5 log-probabilities", |s| s.num_logprobs = Some(5)),
];

/// Rows of a case times the vocabulary.
const NUM_LOGITS: u32 = 40_000_000;

fn main() {
    // The sharper, the fewer tokens share the weight: 8 is like a model's, 0.5 is nearly flat.
    for (vocab_size, sharpness) in [(2048, 8.0), (2048, 0.5), (151_936, 8.0), (151_936, 0.5)] {
        let logit = |i| philox::uniform_f32(1, i, 0, 0).powi(8) * 2.0 * sharpness;
        let logits: Vec<f32> = (0..vocab_size).map(logit).collect();
        for (name, change) in CASES {
            let mut sampling = SamplingParams::default();
            change(&mut sampling);
            let ns = ns_per_row(&logits, sampling, NUM_LOGITS / vocab_size);
            println!("vocabulary {vocab_size:6}  sharpness {sharpness:3}  {name:22} {ns:8} ns");
        }
    }
}

fn ns_per_row(logits: &[f32], sampling: SamplingParams, num_rows: u32) -> u128 {
    let mut slot = SlotState::default();
    slot.reset(&SlotInit {
        slot: 0,
        token_ids: (0..200).map(|i| i * 7).collect(),
        num_prompt_tokens: 100,
        sampling: Arc::new(sampling),
        stop: Arc::new(StopParams::default()),
    });
    let mut scratch = Scratch::default();
    let mut row = logits.to_vec();
    let mut total_ns = 0;
    for position in 0..num_rows {
        row.copy_from_slice(logits);
        let start = Instant::now();
        black_box(sample_row(&mut row, &mut slot, position, &mut scratch)).ok();
        total_ns += start.elapsed().as_nanos();
    }
    total_ns / u128::from(num_rows)
}
