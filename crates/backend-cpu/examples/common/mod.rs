//! What the programs that time products share: activations of a known size, in a step of their own.
//!
//! Invariant: every activation is 1.

use std::sync::Arc;

use hotspare_batch::{Batch, Row};
use hotspare_model::weights::{WeightDtype, WeightView};

/// A table of ones to embed from: activations of a known size.
pub(crate) fn bf16_ones(m: usize, k: usize) -> WeightView {
    let bytes: Vec<u8> = [0x80, 0x3F].repeat(m * k);
    let len = bytes.len();
    WeightView::new(Arc::new(bytes), 0..len, WeightDtype::Bf16, vec![m, k])
        .expect("the shape fits the bytes")
}

/// A batch of one row with `m` tokens.
pub(crate) fn one_row(m: usize) -> Batch {
    let tokens = 0..m as u32;
    Batch {
        rows: vec![Row {
            slot: 0,
            num_computed_tokens: 0,
            tokens: tokens.clone(),
            blocks: 0..1,
            samples: false,
            wants_prompt_logprobs: false,
            next_prompt_token: None,
        }],
        token_ids: tokens.collect(),
        block_tables: vec![0],
        ..Batch::default()
    }
}
