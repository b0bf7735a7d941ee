//! The invariance that failover rests on, with real models through the whole engine.
//!
//! One request is run alone and then in every company and condition that an engine can put it in.
//! Its ids must be equal and the log-probabilities of 500 tokens at each position equal in every
//! bit.

use hotspare_batch::{Generate, RequestId};
use hotspare_engine::EngineOptions;
use hotspare_testkit::shared_asset;
use proptest::prelude::*;

use crate::front::Front;
use crate::models::{
    alone, among, assert_same, company, models, options, plainest, prompt, subjects,
};
use crate::requests::{cases, request};

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

/// The one that is preempted first is the one with the lowest priority, whoever came first.
#[test]
fn a_request_that_was_itself_preempted_goes_on_with_the_same_bits() {
    for model in models("engine invariance: preemption") {
        for mut subject in subjects() {
            let expected = alone(&model, &subject);
            subject.priority = 1;
            let mut front = Front::start(EngineOptions {
                priority_scheduling: true,
                num_kv_blocks_override: Some(16),
                ..options(&model)
            });
            front.generate(&subject);
            front.receive_until(|front| front.answers[&subject.request_id].ids.len() >= 2);
            // Together they fit at first; the blocks they need then come from the subject.
            for id in 100..106 {
                front.generate(&request(id, &prompt(id as u32, 20), 60));
            }
            front.finish_all();
            assert!(front.idle_stats().num_preemptions > 0);
            let answer = &front.answers[&subject.request_id];
            assert_same(answer, &expected, "after its own preemption");
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
    #![proptest_config(cases(6))]

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
