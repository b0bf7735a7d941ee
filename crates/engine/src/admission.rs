//! A last look at a sequence before it enters the scheduler.
//!
//! The front has validated it; these checks are about what would hurt other sequences if a front
//! were wrong: an index out of range ends a step, not a request.
//!
//! Invariant: after `check` every token id is below the vocabulary's size, and every number is
//! finite and has a meaning.

use std::ops::RangeInclusive;

use hotspare_batch::{Generate, RejectReason, TokenId};

const FINITE: RangeInclusive<f32> = f32::MIN..=f32::MAX;

/// Rejects a sequence whose numbers cannot be used as they are.
pub(crate) fn check(generate: &Generate, vocab_size: usize) -> Result<(), RejectReason> {
    let sampling = &generate.sampling;
    let bias_ids = sampling.logit_bias.iter().map(|(id, _)| id);
    let ids = generate.ids.iter().chain(bias_ids);
    let ids = ids.chain(&sampling.allowed_token_ids);
    if let Some(id) = ids.copied().find(|&id| !is_token(id, vocab_size)) {
        return Err(RejectReason::Impossible(format!(
            "token id {id} is outside the vocabulary of {vocab_size}"
        )));
    }
    let ranges = [
        ("temperature", sampling.temperature, 0.0..=f32::MAX),
        ("top_p", sampling.top_p, f32::MIN_POSITIVE..=1.0),
        ("min_p", sampling.min_p, 0.0..=1.0),
        (
            "repetition_penalty",
            sampling.repetition_penalty,
            f32::MIN_POSITIVE..=f32::MAX,
        ),
        ("frequency_penalty", sampling.frequency_penalty, FINITE),
        ("presence_penalty", sampling.presence_penalty, FINITE),
    ];
    let biases = sampling.logit_bias.iter();
    let biases = biases.map(|&(_, bias)| ("logit_bias", bias, FINITE));
    let out_of_range =
        |(_, value, range): &(&str, f32, RangeInclusive<f32>)| !range.contains(value);
    if let Some((name, value, range)) = ranges.into_iter().chain(biases).find(out_of_range) {
        let (min, max) = range.into_inner();
        return Err(RejectReason::Impossible(format!(
            "{name} is {value}, not from {min:e} to {max:e}"
        )));
    }
    if generate.num_delivered as usize >= generate.ids.len() {
        return Err(RejectReason::Impossible(
            "a sequence needs at least one prompt token".to_owned(),
        ));
    }
    Ok(())
}

fn is_token(id: TokenId, vocab_size: usize) -> bool {
    (id as usize) < vocab_size
}
