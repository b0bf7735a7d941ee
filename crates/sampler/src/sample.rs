//! One row's token: the steps of sampling in their order.
//!
//! Invariant: the token is a function of the row's logits, its slot's state, its position and
//! nothing else.

use hotspare_batch::{RowError, SamplingParams, TokenId, TokenLogprobs};

use crate::adjust;
use crate::draw::{draw, draw_in_blocks, fill_weights};
use crate::filter::{Candidates, Histogram, key_id, key_value, select_top_k};
use crate::logprobs::{invalid_logits, token_logprobs};
use crate::philox::uniform_f64;
use crate::reduce::{exp_nonpositive, finite_max};
use crate::slot::SlotState;

/// Temperatures below this are greedy: dividing by them says nothing more.
const GREEDY_BELOW: f32 = 1e-5;

/// The draw that picks a sequence's next token; further ones are for speculation.
const TARGET_DRAW: u32 = 0;

/// Memory for one row at a time, kept between rows so that steps allocate nothing. One for each
/// thread.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// Keys of a selection; also the scratch of [`token_logprobs`].
    pub keys: Vec<u64>,
    raw_logits: Vec<f32>,
    saved: Vec<(TokenId, f32)>,
    block_sums: Vec<f64>,
    candidates: Candidates,
    histogram: Histogram,
}

/// A drawn token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: TokenId,
    /// Where the parameters ask for it.
    pub logprobs: Option<TokenLogprobs>,
}

/// Draws the token for `position` (its index in prompt and output together) of the sequence in
/// `slot` from `logits`, one for each token of the vocabulary, and appends it to the slot. `logits`
/// are changed.
///
/// # Errors
/// [`RowError::InvalidLogits`] for a NaN, plus infinity, or nothing above minus infinity after the
/// masks; the slot is as before.
pub fn sample_row(
    logits: &mut [f32],
    slot: &mut SlotState,
    position: u32,
    scratch: &mut Scratch,
) -> Result<Sampled, RowError> {
    sample_masked_row(logits, slot, None, position, scratch)
}

/// As [`sample_row`], from the tokens that `mask` allows ([`TokenMask`] says how), where there is
/// one.
///
/// # Errors
/// As [`sample_row`].
///
/// [`TokenMask`]: hotspare_batch::TokenMask
pub fn sample_masked_row(
    logits: &mut [f32],
    slot: &mut SlotState,
    mask: Option<&[u32]>,
    position: u32,
    scratch: &mut Scratch,
) -> Result<Sampled, RowError> {
    let num_logprobs = slot.sampling().num_logprobs;
    scratch.raw_logits.clear();
    if num_logprobs.is_some() {
        scratch.raw_logits.extend_from_slice(logits);
    }
    if mask.is_some() || adjust::is_needed(slot) {
        // A masked NaN is still a failure of the model.
        finite_max(logits).ok_or(invalid_logits(position))?;
        adjust::adjust(logits, slot, mask, &mut scratch.saved);
    }
    let max = finite_max(logits).ok_or(invalid_logits(position))?;
    let sampling = slot.sampling();
    let token = if sampling.temperature < GREEDY_BELOW {
        logits.iter().position(|&x| x == max).unwrap_or(0)
    } else {
        let uniform = uniform_f64(sampling.seed, position, sampling.choice, TARGET_DRAW);
        draw_token(logits, max, sampling, uniform, scratch)
    } as TokenId;
    let logprobs = match num_logprobs {
        Some(num_top) => {
            let raw = &scratch.raw_logits;
            Some(token_logprobs(
                raw,
                token,
                position,
                num_top,
                &mut scratch.keys,
            )?)
        }
        None => None,
    };
    slot.push(token);
    Ok(Sampled { token, logprobs })
}

/// Temperature, min-p, top-k, top-p, draw.
fn draw_token(
    logits: &mut [f32],
    max: f32,
    sampling: &SamplingParams,
    uniform: f64,
    scratch: &mut Scratch,
) -> usize {
    let top_k = sampling.top_k as usize;
    let (temperature, min_p) = (sampling.temperature, sampling.min_p);
    let candidates = &mut scratch.candidates;
    let total = if top_k > 0 && top_k < logits.len() {
        select_top_k(logits, top_k, &mut scratch.keys);
        scratch.keys.sort_unstable_by_key(|&key| key_id(key));
        candidates.clear();
        let inverse = 1.0 / temperature;
        for &key in &scratch.keys {
            let weight = exp_nonpositive((key_value(key) - max) * inverse);
            if weight >= min_p && weight > 0.0 {
                candidates.push(key_id(key), weight);
            }
        }
        candidates.weights.iter().map(|&w| f64::from(w)).sum()
    } else {
        let block_sums = &mut scratch.block_sums;
        let total = fill_weights(logits, max, temperature, min_p, block_sums);
        if sampling.top_p >= 1.0 {
            return draw_in_blocks(logits, block_sums, uniform);
        }
        candidates.take_dense(logits, total, sampling.top_p);
        total
    };
    if sampling.top_p < 1.0 {
        candidates.keep_top_p(total, sampling.top_p, &mut scratch.histogram);
    }
    candidates.ids[draw(&candidates.weights, uniform)] as usize
}
