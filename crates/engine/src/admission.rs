//! A last look at a sequence before it enters the scheduler.
//!
//! The front has validated it; these checks are about what would hurt other sequences if a front
//! were wrong: an index out of range ends a step, not a request.
//!
//! Invariant: after `check` every token id is below the vocabulary's size and every number finite.

use hotspare_batch::{Generate, RejectReason, TokenId};

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
    let numbers = [
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("min_p", sampling.min_p),
        ("repetition_penalty", sampling.repetition_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
        ("presence_penalty", sampling.presence_penalty),
    ];
    let biases = sampling.logit_bias.iter().map(|&(_, b)| ("logit_bias", b));
    if let Some((name, value)) = numbers.into_iter().chain(biases).find(|n| n.1.is_nan()) {
        return Err(RejectReason::Impossible(format!("{name} is {value}")));
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
