//! Nanoseconds a row for each way of drawing a token, at a small and a large vocabulary.
#![allow(clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use hotspare_batch::{SamplingParams, SlotInit, StopParams};
use hotspare_sampler::{Scratch, SlotState, philox, sample_row};

fn main() {
    let base = SamplingParams::default;
    let cases = [
        ("greedy", SamplingParams::greedy()),
        (
            "temperature",
            SamplingParams {
                temperature: 0.8,
                ..base()
            },
        ),
        (
            "min-p",
            SamplingParams {
                min_p: 0.05,
                ..base()
            },
        ),
        (
            "top-k 50",
            SamplingParams {
                top_k: 50,
                ..base()
            },
        ),
        (
            "top-p 0.95",
            SamplingParams {
                top_p: 0.95,
                ..base()
            },
        ),
        (
            "top-k 50, top-p 0.95",
            SamplingParams {
                top_k: 50,
                top_p: 0.95,
                ..base()
            },
        ),
        (
            "penalties",
            SamplingParams {
                repetition_penalty: 1.1,
                ..base()
            },
        ),
        (
            "logprobs 5",
            SamplingParams {
                num_logprobs: Some(5),
                ..base()
            },
        ),
    ];
    for (vocab_size, sharpness) in [(2048, 8.0), (2048, 0.5), (151_936, 8.0), (151_936, 0.5)] {
        // The sharper, the fewer tokens share the weight: 8 is like a model's, 0.5 is nearly flat.
        let logit = |i| philox::uniform_f32(1, i, 0, 0).powi(8) * 2.0 * sharpness;
        let logits: Vec<f32> = (0..vocab_size).map(logit).collect();
        for (name, sampling) in &cases {
            let mut slot = SlotState::default();
            slot.reset(&SlotInit {
                slot: 0,
                token_ids: (0..200).map(|i| i * 7).collect(),
                num_prompt_tokens: 100,
                sampling: Arc::new(sampling.clone()),
                stop: Arc::new(StopParams::default()),
            });
            let mut scratch = Scratch::default();
            let mut row = logits.clone();
            let num_rounds = 40_000_000 / vocab_size;
            let mut total_ns = 0;
            for position in 0..num_rounds {
                row.copy_from_slice(&logits);
                let start = Instant::now();
                black_box(sample_row(&mut row, &mut slot, position, &mut scratch)).ok();
                total_ns += start.elapsed().as_nanos();
            }
            let ns = total_ns / u128::from(num_rounds);
            println!("vocabulary {vocab_size:6} sharpness {sharpness:3} {name:22} {ns:8} ns a row");
        }
    }
}
