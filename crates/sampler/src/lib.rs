//! From logits to a token: masks, penalties, filters, the draw, and log-probabilities.
//!
//! Pure functions of one row: its logits, its sequence's state and the position being drawn. The
//! random number is Philox of (seed, position, choice, draw), so nothing about the batch, the
//! thread or the moment enters. No row is ever sorted whole: the filters select.
//!
//! Invariant: equal inputs give equal bits, on any thread and beside any other rows; of equally
//! likely tokens the one with the lowest id is first.
#![forbid(unsafe_code)]

mod adjust;
mod draw;
#[cfg(test)]
mod draw_test;
mod filter;
#[cfg(test)]
mod filter_test;
mod logprobs;
pub mod philox;
mod reduce;
mod sample;
#[cfg(test)]
mod sample_test;
mod slot;

pub use logprobs::token_logprobs;
pub use sample::{Sampled, Scratch, sample_masked_row, sample_row};
pub use slot::SlotState;
