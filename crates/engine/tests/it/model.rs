//! A real model through the whole engine: known answers, and the invariance that failover rests on.
//!
//! One request is run alone and then in every company and condition that an engine can put it in.
//! Its ids must be equal and the log-probabilities of the whole vocabulary equal in every bit.

use std::path::{Path, PathBuf};

use hotspare_batch::{FinishReason, Generate, RequestId, SamplingParams, StopParams, TokenId};
use hotspare_engine::EngineOptions;
use hotspare_testkit::shared_asset;
use proptest::prelude::*;

use crate::front::{Answer, Front};
use crate::requests::request;

/// Every model here has at least as many ids; the tests draw prompts from them.
const NUM_PROMPT_IDS: u32 = 500;

/// The trained models that are there: the test data's, and the embedded one's files.
fn models(suite: &str) -> Vec<PathBuf> {
    let embedded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/spark");
    let embedded = embedded
        .join("model.safetensors")
        .exists()
        .then_some(embedded);
    let asset = shared_asset(suite, "stories260k");
    asset.into_iter().chain(embedded).collect()
}

fn options(model: &Path) -> EngineOptions {
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
fn plainest(model: &Path) -> EngineOptions {
    EngineOptions {
        lookahead: false,
        enable_prefix_caching: false,
        num_threads: Some(1),
        ..options(model)
    }
}

/// Ids that mean nothing, the same for equal arguments.
fn prompt(seed: u32, num_tokens: u32) -> Vec<TokenId> {
    let id =
        |i: u32| 3 + (seed.wrapping_mul(2_654_435_761) ^ i.wrapping_mul(40_503)) % NUM_PROMPT_IDS;
    (0..num_tokens).map(id).collect()
}

/// The requests whose bits are compared. All log-probabilities of each token are asked for.
fn subjects() -> [Generate; 3] {
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
fn company(num_sequences: u64) -> Vec<Generate> {
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

fn alone(model: &Path, generate: &Generate) -> Answer {
    let mut front = Front::start(plainest(model));
    let answers = front.run(std::slice::from_ref(generate));
    answers.into_iter().next().unwrap()
}

/// Everything of an answer that a client could see, floats as bits.
fn bits(answer: &Answer) -> (Vec<TokenId>, Vec<Vec<(u32, u32)>>, Option<FinishReason>) {
    let tokens = answer.prompt_logprobs.iter().chain(&answer.logprobs);
    let tokens = tokens.map(|token| {
        let drawn = (token.token, token.logprob.to_bits());
        let top = token.top.iter().map(|&(id, p)| (id, p.to_bits()));
        let rank = (token.rank, 0);
        [drawn, rank].into_iter().chain(top).collect()
    });
    (answer.ids.clone(), tokens.collect(), answer.finish.clone())
}

fn assert_same(answer: &Answer, alone: &Answer, condition: &str) {
    assert_eq!(answer.ids, alone.ids, "ids {condition}");
    assert_eq!(answer.logprobs.len(), alone.logprobs.len(), "{condition}");
    // Not assert_eq: a difference would print a hundred thousand numbers.
    assert!(bits(answer) == bits(alone), "bits differ {condition}");
}

/// Runs `subject` behind `others` under `options`; returns its answer and the preemptions.
fn among(options: EngineOptions, others: &[Generate], subject: &Generate) -> (Answer, u64) {
    let mut front = Front::start(options);
    let mut requests = others.to_vec();
    requests.push(subject.clone());
    let mut answers = front.run(&requests);
    let stats = front.idle_stats();
    assert_eq!(stats.num_used_blocks, 0);
    (answers.pop().unwrap(), stats.num_preemptions)
}

#[test]
fn greedy_answers_match_the_golden_file() {
    let Some(path) = shared_asset("engine golden", "stories260k/golden.json") else {
        return;
    };
    let golden = std::fs::read(&path).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    let ids = |value: &serde_json::Value| -> Vec<TokenId> {
        let ids = value.as_array().unwrap().iter();
        ids.map(|id| id.as_u64().unwrap() as TokenId).collect()
    };
    let cases = golden.as_array().unwrap();
    assert_eq!(cases.len(), 4);
    let requests: Vec<_> = (0u64..)
        .zip(cases)
        .map(|(id, case)| {
            let num_tokens = ids(&case["new_ids"]).len() as u32;
            request(id, &ids(&case["prompt_ids"]), num_tokens)
        })
        .collect();
    let answers = Front::start(options(path.parent().unwrap())).run(&requests);
    for (case, answer) in cases.iter().zip(answers) {
        assert_eq!(answer.ids, ids(&case["new_ids"]), "{}", case["prompt"]);
    }
}

#[test]
fn loading_is_reported_and_hello_names_the_content() {
    for model in models("engine hello") {
        let hello = Front::connect(options(&model)).await_hello();
        assert_eq!(hello.model_hash.len(), 64);
        assert!(
            hello.numerics_id.starts_with("cpu"),
            "{}",
            hello.numerics_id
        );
        assert_eq!((hello.device.as_str(), hello.max_model_len), ("cpu", 256));
        assert!(hello.vocab_size >= NUM_PROMPT_IDS);
        let again = Front::connect(plainest(&model)).await_hello();
        assert_eq!(again.model_hash, hello.model_hash);
        assert_eq!(again.numerics_id, hello.numerics_id);
    }
}

#[test]
fn a_request_alone_does_not_see_how_the_engine_is_set_up() {
    for model in models("engine invariance: set-up") {
        for subject in subjects() {
            let expected = alone(&model, &subject);
            assert!(expected.ids.len() >= 8, "{:?}", expected.ids);
            let base = options(&model);
            let set_ups = [
                ("with look-ahead", base.clone()),
                (
                    "in chunks of 7",
                    EngineOptions {
                        max_num_batched_tokens: 7,
                        ..base.clone()
                    },
                ),
                (
                    "in chunks of 1, plain loop",
                    EngineOptions {
                        max_num_batched_tokens: 1,
                        lookahead: false,
                        ..base.clone()
                    },
                ),
                (
                    "on three threads",
                    EngineOptions {
                        num_threads: Some(3),
                        ..base.clone()
                    },
                ),
                (
                    "in blocks of 32",
                    EngineOptions {
                        block_size: 32,
                        ..base
                    },
                ),
            ];
            for (condition, options) in set_ups {
                let (answer, _) = among(options, &[], &subject);
                assert_same(&answer, &expected, condition);
            }
        }
    }
}

#[test]
fn a_request_does_not_see_thirty_one_others_nor_its_own_preemptions() {
    for model in models("engine invariance: company") {
        for subject in subjects() {
            let expected = alone(&model, &subject);
            for lookahead in [true, false] {
                let base = EngineOptions {
                    lookahead,
                    ..options(&model)
                };
                let (answer, _) = among(base.clone(), &company(31), &subject);
                assert_same(&answer, &expected, "among 31 others");

                let chunked = EngineOptions {
                    max_num_batched_tokens: 40,
                    ..base.clone()
                };
                let (answer, _) = among(chunked, &company(31), &subject);
                assert_same(&answer, &expected, "among 31 others, in chunks");

                let small = EngineOptions {
                    num_kv_blocks_override: Some(24),
                    ..base
                };
                let (answer, num_preemptions) = among(small, &company(31), &subject);
                assert!(num_preemptions > 0, "or the test shows nothing");
                assert_same(&answer, &expected, "under preemption");
            }
        }
    }
}

#[test]
fn a_request_does_not_see_the_prefix_cache() {
    for model in models("engine invariance: prefix cache") {
        for subject in subjects() {
            let expected = alone(&model, &subject);
            let mut front = Front::start(options(&model));
            let cold = front.run(std::slice::from_ref(&subject));
            assert_same(&cold[0], &expected, "with a cold cache");
            // Warmed by itself, and in part by a sequence that shares its beginning.
            let mut again = subject.clone();
            again.request_id = RequestId(50);
            let warm = front.run(&[again]);
            let asks_for_prompt = subject.sampling.num_prompt_logprobs.is_some();
            let num_cached = warm[0].num_cached_tokens.unwrap();
            assert!(num_cached > 0 || asks_for_prompt, "{num_cached} cached");
            assert_same(&warm[0], &expected, "with a warm cache");

            let mut front = Front::start(options(&model));
            front.run(&[request(60, &subject.ids[..35], 1)]);
            let part = front.run(std::slice::from_ref(&subject));
            let num_cached = part[0].num_cached_tokens.unwrap();
            assert!(num_cached == 32 || asks_for_prompt, "{num_cached} cached");
            assert_same(&part[0], &expected, "with a part of it cached");
        }
    }
}

#[test]
fn a_request_that_moves_to_another_engine_goes_on_with_the_same_bits() {
    for model in models("engine invariance: resume") {
        let [greedy, seeded, _] = subjects();
        for subject in [greedy, seeded] {
            let expected = alone(&model, &subject);
            let num_tokens = expected.ids.len();
            for cut in [1, 2, 15, 16, 17, num_tokens - 1] {
                let mut resumed = subject.clone();
                resumed.attempt = 1;
                resumed.ids.extend(&expected.ids[..cut]);
                resumed.num_delivered = cut as u32;
                let (answer, _) = among(options(&model), &company(5), &resumed);
                let mut rest = expected.clone();
                rest.ids.drain(..cut);
                rest.logprobs.drain(..cut);
                assert_same(&answer, &rest, &format!("cut after {cut}"));
            }
        }
    }
}

/// A request with random length, sampling and stops; it asks for logprobs.
fn any_request(id: u64) -> impl Strategy<Value = Generate> {
    (0u32..4, 1u32..100, 1u32..30, any::<(bool, u16)>()).prop_map(
        move |(seed, num_ids, max_tokens, (greedy, key))| {
            let mut generate = request(id, &prompt(seed, num_ids), max_tokens);
            generate.sampling.num_logprobs = Some(20);
            if !greedy {
                generate.sampling.temperature = 0.3 + f32::from(key % 8) / 5.0;
                generate.sampling.seed = key.into();
                generate.sampling.presence_penalty = f32::from(key % 3) / 2.0;
                generate.stop.eos_token_ids = vec![2];
            }
            generate
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn lookahead_under_pressure_gives_the_bits_of_the_plain_loop_alone(
        requests in (1u64..14).prop_flat_map(|n| (0..n).map(any_request).collect::<Vec<_>>()),
        max_num_seqs in 1usize..9,
        max_num_batched_tokens in 1usize..90,
        num_blocks in 16usize..40,
        enable_prefix_caching in any::<bool>(),
    ) {
        let Some(model) = shared_asset("engine look-ahead", "stories260k") else {
            return Ok(());
        };
        let mut oracle = Front::start(plainest(&model));
        let mut front = Front::start(EngineOptions {
            max_num_seqs,
            max_num_batched_tokens,
            num_kv_blocks_override: Some(num_blocks),
            enable_prefix_caching,
            ..options(&model)
        });
        let answers = front.run(&requests);
        for (generate, answer) in requests.iter().zip(answers) {
            let alone = oracle.run(std::slice::from_ref(generate));
            assert_same(&answer, &alone[0], "under pressure");
        }
    }
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let mut front = Front::connect(options(Path::new("/no/such/model")));
    assert!(front.receive_to_end());
    let fatal = front.fatal.expect("it says why");
    assert!(fatal.contains("/no/such/model"), "{fatal}");
}

#[test]
fn options_that_this_build_lacks_are_named() {
    let Some(model) = shared_asset("engine options", "stories260k") else {
        return;
    };
    let base = options(&model);
    let cases = [
        (
            EngineOptions {
                device: "cuda:0".to_owned(),
                ..base.clone()
            },
            "--device cuda:0",
        ),
        (
            EngineOptions {
                load_format: "gguf".to_owned(),
                ..base.clone()
            },
            "--load-format gguf",
        ),
        (
            EngineOptions {
                dtype: "int3".to_owned(),
                ..base.clone()
            },
            "--dtype int3",
        ),
        (
            EngineOptions {
                max_model_len: Some(100_000),
                ..base.clone()
            },
            "max_model_len 100000",
        ),
        (
            EngineOptions {
                kv_cache_memory_bytes: Some(99),
                ..base
            },
            "--kv-cache-memory-bytes",
        ),
    ];
    for (options, expected) in cases {
        let mut front = Front::connect(options);
        assert!(front.receive_to_end());
        let fatal = front.fatal.expect("it says why");
        assert!(fatal.contains(expected), "{fatal}");
    }
}
