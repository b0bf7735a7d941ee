//! Requests and options that tests share, and what the scripted backend must answer.

use hotspare_batch::{FinishReason, Generate, RequestId, SamplingParams, StopParams, TokenId};
use hotspare_engine::{Backend, EngineOptions, ScriptedOptions};
use proptest::prelude::*;

/// So many cases of a property, unless `PROPTEST_CASES` says otherwise.
pub(crate) fn cases(num_cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    let asked = asked.and_then(|cases| cases.parse().ok());
    ProptestConfig::with_cases(asked.unwrap_or(num_cases))
}

/// An engine without a model, small enough that limits are met.
pub(crate) fn scripted(options: ScriptedOptions) -> EngineOptions {
    EngineOptions {
        backend: Backend::Scripted(options),
        max_model_len: Some(512),
        max_num_seqs: 8,
        max_num_batched_tokens: 64,
        check_integrity: true,
        ..EngineOptions::default()
    }
}

/// A greedy request.
pub(crate) fn request(id: u64, ids: &[TokenId], max_tokens: u32) -> Generate {
    Generate {
        request_id: RequestId(id),
        attempt: 0,
        ids: ids.to_vec(),
        num_delivered: 0,
        sampling: SamplingParams::greedy(),
        stop: StopParams {
            max_tokens,
            ..StopParams::default()
        },
        priority: 0,
        deadline_ms: None,
        block_hash_keys: Vec::new(),
        prefill_only: false,
    }
}

/// Prompt ids that differ by `seed` and share their first half with others of the same length. None
/// of them is an end-of-sequence id.
pub(crate) fn prompt(seed: u32, num_tokens: usize) -> Vec<TokenId> {
    let shared = (0..num_tokens as u32 / 2).map(|i| 3 + i % 97);
    let own = (num_tokens as u32 / 2..num_tokens as u32).map(|i| 3 + (seed * 31 + i) % 490);
    shared.chain(own).collect()
}

/// What the scripted backend must answer when nothing cuts the sequence short.
pub(crate) fn expected(
    options: &ScriptedOptions,
    generate: &Generate,
    max_model_len: usize,
) -> (Vec<TokenId>, FinishReason) {
    let stop = &generate.stop;
    let num_delivered = generate.num_delivered as usize;
    let room = max_model_len - generate.ids.len();
    let num_tokens = (stop.max_tokens as usize - num_delivered).min(room);
    let sampling = &generate.sampling;
    let ids = options.continuation(&generate.ids, num_delivered, sampling, stop, num_tokens);
    match ids.iter().position(|&id| stop.is_stop(id)) {
        Some(last) => (ids[..=last].to_vec(), FinishReason::Eos(ids[last])),
        None => (ids, FinishReason::Length),
    }
}

/// A request with random ids, parameters and limits; sequences are below 200 tokens.
pub(crate) fn any_request(id: u64) -> impl Strategy<Value = Generate> {
    let sizes = (0u32..6, 1usize..120, 1u32..60, 0u32..5);
    let switches = any::<(bool, bool, bool, bool)>();
    (sizes, switches, any::<u64>(), 0u32..4).prop_map(
        move |((variant, num_ids, max_tokens, num_delivered), switches, seed, priority)| {
            let (greedy, has_eos, ignore_eos, salted) = switches;
            let base = request(id, &prompt(variant, num_ids), max_tokens);
            let num_delivered = num_delivered.min(num_ids as u32 - 1).min(max_tokens - 1);
            Generate {
                num_delivered,
                sampling: SamplingParams {
                    temperature: if greedy { 0.0 } else { 0.8 },
                    seed,
                    num_logprobs: salted.then_some(2),
                    ..SamplingParams::default()
                },
                stop: StopParams {
                    eos_token_ids: if has_eos { vec![1, 2] } else { Vec::new() },
                    ignore_eos,
                    ..base.stop
                },
                priority: priority as i32,
                block_hash_keys: if salted { vec![seed % 2] } else { Vec::new() },
                ..base
            }
        },
    )
}
