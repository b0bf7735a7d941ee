//! Real models for tests: which there are, the requests whose bits are compared, and how.

use std::path::{Path, PathBuf};

use hotspare_batch::{FinishReason, Generate, SamplingParams, StopParams, TokenId};
use hotspare_engine::EngineOptions;
use hotspare_testkit::shared_asset;

use crate::front::{Answer, Front};
use crate::requests::request;

/// Every model here has at least as many ids; the tests draw prompts from them.
pub(crate) const NUM_PROMPT_IDS: u32 = 500;

/// The embedded model (bf16 weights), and the test data's (f32) where that is.
pub(crate) fn models(suite: &str) -> Vec<PathBuf> {
    let asset = shared_asset(suite, "stories260k");
    asset.into_iter().chain([PathBuf::from("spark")]).collect()
}

pub(crate) fn options(model: &Path) -> EngineOptions {
    EngineOptions {
        model: model.display().to_string(),
        max_model_len: Some(256),
        max_num_seqs: 32,
        max_num_batched_tokens: 512,
        check_integrity: true,
        ..EngineOptions::default()
    }
}

/// The plain loop without a cache, on one thread: nothing that could go wrong.
pub(crate) fn plainest(model: &Path) -> EngineOptions {
    EngineOptions {
        lookahead: false,
        enable_prefix_caching: false,
        num_threads: Some(1),
        ..options(model)
    }
}

/// Ids that mean nothing, the same for equal arguments.
pub(crate) fn prompt(seed: u32, num_tokens: u32) -> Vec<TokenId> {
    let id =
        |i: u32| 3 + (seed.wrapping_mul(2_654_435_761) ^ i.wrapping_mul(40_503)) % NUM_PROMPT_IDS;
    (0..num_tokens).map(id).collect()
}

/// The requests whose bits are compared. All log-probabilities of each token are asked for.
pub(crate) fn subjects() -> [Generate; 3] {
    let all = Some(NUM_PROMPT_IDS);
    let mut greedy = request(1, &prompt(1, 70), 48);
    greedy.sampling.num_logprobs = all;
    let mut seeded = request(2, &prompt(2, 45), 48);
    seeded.sampling = SamplingParams {
        temperature: 0.9,
        top_k: 50,
        top_p: 0.95,
        min_p: 0.01,
        repetition_penalty: 1.1,
        frequency_penalty: 0.3,
        presence_penalty: 0.2,
        logit_bias: vec![(7, 1.5), (11, -2.0)],
        seed: 0x5eed,
        choice: 1,
        num_logprobs: all,
        ..SamplingParams::default()
    };
    seeded.stop = StopParams {
        max_tokens: 48,
        min_tokens: 20,
        eos_token_ids: vec![2],
        ..StopParams::default()
    };
    let mut scored = request(3, &prompt(3, 60), 8);
    scored.sampling.num_prompt_logprobs = Some(20);
    scored.sampling.num_logprobs = all;
    [greedy, seeded, scored]
}

/// Other sequences, unlike each other in everything. Ids from 1,000.
pub(crate) fn company(num_sequences: u64) -> Vec<Generate> {
    let other = |i: u64| {
        let mut other = request(
            1000 + i,
            &prompt(100 + i as u32, 1 + (i as u32 * 37) % 120),
            1 + (i as u32 * 13) % 70,
        );
        if !i.is_multiple_of(3) {
            other.sampling.temperature = 0.5 + i as f32 / 20.0;
            other.sampling.seed = i;
            other.sampling.repetition_penalty = 1.0 + (i % 4) as f32 / 10.0;
        }
        other
    };
    (0..num_sequences).map(other).collect()
}

pub(crate) fn alone(model: &Path, generate: &Generate) -> Answer {
    let mut front = Front::start(plainest(model));
    let answers = front.run(std::slice::from_ref(generate));
    answers.into_iter().next().unwrap()
}

/// An answer's ids, each token's log-probabilities as (id, bits), and its end.
pub(crate) type Bits = (Vec<TokenId>, Vec<Vec<(u32, u32)>>, Option<FinishReason>);

/// Everything of an answer that a client could see, floats as bits.
pub(crate) fn bits(answer: &Answer) -> Bits {
    let tokens = answer.prompt_logprobs.iter().chain(&answer.logprobs);
    let tokens = tokens.map(|token| {
        let drawn = (token.token, token.logprob.to_bits());
        let top = token.top.iter().map(|&(id, p)| (id, p.to_bits()));
        let rank = (token.rank, 0);
        [drawn, rank].into_iter().chain(top).collect()
    });
    (answer.ids.clone(), tokens.collect(), answer.finish.clone())
}

pub(crate) fn assert_same(answer: &Answer, alone: &Answer, condition: &str) {
    assert_eq!(answer.ids, alone.ids, "ids {condition}");
    assert_eq!(answer.logprobs.len(), alone.ids.len(), "{condition}");
    // Not assert_eq: a difference would print a hundred thousand numbers.
    assert!(bits(answer) == bits(alone), "bits differ {condition}");
}

/// Runs `subject` behind `others` under `options`; returns its answer and the preemptions.
pub(crate) fn among(
    options: EngineOptions,
    others: &[Generate],
    subject: &Generate,
) -> (Answer, u64) {
    let mut front = Front::start(options);
    let mut requests = others.to_vec();
    requests.push(subject.clone());
    let mut answers = front.run(&requests);
    let stats = front.idle_stats();
    assert_eq!(stats.num_used_blocks, 0);
    (answers.pop().unwrap(), stats.num_preemptions)
}
