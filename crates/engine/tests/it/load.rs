//! Many sequences at once: under preemption, cancellation, chunking and look-ahead, every token is
//! what it would be alone, and at the end every block is free.

use hotspare_batch::{FinishReason, Generate, RequestId};
use hotspare_engine::{EngineOptions, ScriptedOptions};
use proptest::prelude::*;

use crate::front::{Answer, Front};
use crate::requests::{any_request, cases, expected, prompt, request, scripted};

/// Limits of an engine that is under pressure.
fn any_limits() -> impl Strategy<Value = EngineOptions> {
    let sizes = (1usize..9, 1usize..70, 24usize..80);
    let switches = any::<(bool, bool)>();
    (sizes, switches, 0usize..20).prop_map(
        |((max_num_seqs, max_num_batched_tokens, num_blocks), (caching, priorities), threshold)| {
            EngineOptions {
                max_num_seqs,
                max_num_batched_tokens,
                num_kv_blocks_override: Some(num_blocks),
                block_size: 8,
                max_model_len: Some(180),
                enable_prefix_caching: caching,
                priority_scheduling: priorities,
                long_prefill_token_threshold: threshold,
                ..scripted(scripted_options())
            }
        },
    )
}

fn scripted_options() -> ScriptedOptions {
    ScriptedOptions {
        finish_after_tokens: Some(20),
        ..ScriptedOptions::default()
    }
}

fn any_load() -> impl Strategy<Value = Vec<Generate>> {
    prop::collection::vec(any::<u8>(), 1..24).prop_flat_map(|seeds| {
        let requests = (0..seeds.len() as u64).map(any_request);
        requests.collect::<Vec<_>>()
    })
}

fn check(requests: &[Generate], answers: &[Answer]) -> Result<(), TestCaseError> {
    for (generate, answer) in requests.iter().zip(answers) {
        let (ids, finish) = expected(&scripted_options(), generate, 180);
        prop_assert_eq!(&answer.ids, &ids, "{:?}", generate);
        prop_assert_eq!(answer.finish.as_ref(), Some(&finish));
        let has_logprobs = generate.sampling.num_logprobs.is_some();
        let num_logprobs = if has_logprobs { ids.len() } else { 0 };
        prop_assert_eq!(answer.logprobs.len(), num_logprobs);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn lookahead_and_plain_loop_give_the_tokens_of_each_sequence_alone(
        limits in any_limits(),
        requests in any_load(),
    ) {
        for lookahead in [true, false] {
            let options = EngineOptions { lookahead, ..limits.clone() };
            let mut front = Front::start(options);
            let answers = front.run(&requests);
            check(&requests, &answers)?;
            prop_assert_eq!(front.idle_stats().num_used_blocks, 0);
        }
    }

    #[test]
    fn cancelled_sequences_leave_a_prefix_and_no_blocks(
        limits in any_limits(),
        requests in any_load(),
        cancelled in prop::collection::vec(any::<bool>(), 24),
        after in 0usize..40,
    ) {
        let mut front = Front::start(limits);
        for generate in &requests {
            front.generate(generate);
        }
        let tokens = |front: &Front| front.answers.values().map(|a| a.ids.len()).sum::<usize>();
        let all_over = |front: &Front| front.answers.values().all(|a| a.finish.is_some());
        front.receive_until(|front| tokens(front) >= after || all_over(front));
        for (generate, _) in requests.iter().zip(&cancelled).filter(|(_, c)| **c) {
            front.cancel(generate.request_id);
        }
        front.finish_all();
        for (generate, &was_cancelled) in requests.iter().zip(&cancelled) {
            let (ids, finish) = expected(&scripted_options(), generate, 180);
            let answer = &front.answers[&generate.request_id];
            prop_assert!(ids.starts_with(&answer.ids));
            if answer.finish == Some(FinishReason::Cancelled) {
                prop_assert!(was_cancelled);
            } else {
                prop_assert_eq!(&answer.ids, &ids);
                prop_assert_eq!(answer.finish.as_ref(), Some(&finish));
            }
        }
        prop_assert_eq!(front.idle_stats().num_used_blocks, 0);
    }
}

#[test]
fn two_hundred_sequences_with_random_cancels_leave_every_block_free() {
    let scripted_options = ScriptedOptions {
        step_time_us: 50,
        ..ScriptedOptions::default()
    };
    let mut front = Front::start(EngineOptions {
        max_num_seqs: 64,
        max_num_batched_tokens: 256,
        num_kv_blocks_override: Some(300),
        ..scripted(scripted_options.clone())
    });
    for round in 0..3u64 {
        let ids = round * 200..(round + 1) * 200;
        let requests: Vec<Generate> = ids
            .clone()
            .map(|id| request(id, &prompt(id as u32, 20 + (id as usize * 7) % 90), 60))
            .collect();
        for generate in &requests {
            front.generate(generate);
            // A third of the odd ones goes before it was looked at, the others in mid-stream.
            if generate.request_id.0 % 6 == 1 {
                front.cancel(generate.request_id);
            }
        }
        let streamed = |front: &Front, id| !front.answers[&RequestId(id)].ids.is_empty();
        front.receive_until(|front| ids.clone().filter(|&id| streamed(front, id)).count() > 20);
        for id in ids.clone().filter(|id| id % 2 == 1) {
            front.cancel(RequestId(id));
        }
        front.finish_all();
        for generate in &requests {
            let answer = &front.answers[&generate.request_id];
            let (tokens, finish) = expected(&scripted_options, generate, 512);
            assert!(tokens.starts_with(&answer.ids));
            if generate.request_id.0.is_multiple_of(2) {
                assert_eq!(answer.finish, Some(finish));
                assert_eq!(answer.ids, tokens);
            }
        }
        let stats = front.idle_stats();
        assert_eq!(stats.num_used_blocks, 0, "round {round}");
        assert_eq!((stats.num_running, stats.num_waiting), (0, 0));
    }
}
