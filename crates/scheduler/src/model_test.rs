//! Properties: whatever is asked of it, each sequence receives what it would have received alone.
//!
//! Invariant: the oracle knows neither blocks nor batches; the fake device checks those, and the
//! driver everything that holds between calls.

use hotspare_batch::{FinishReason, Generate, RequestId, SamplingParams, StopParams, TokenId};
use proptest::prelude::*;

use crate::testing::{Driver, Expected, Transcript, expect_alone};
use crate::{SchedulerConfig, SchedulingPolicy};

#[derive(Clone, Debug)]
enum Op {
    Add(Box<Generate>),
    /// Cancels one of the sequences so far.
    Cancel(prop::sample::Index),
    Schedule,
    Commit,
    Advance(u64),
    ResetCache,
}

fn configs() -> impl Strategy<Value = SchedulerConfig> {
    let sizes = (1usize..6, 1usize..24, 8usize..48, 1usize..6, 4usize..24);
    let switches = (any::<bool>(), any::<bool>(), 0usize..5, 1usize..4);
    let window = prop::option::of(1usize..20);
    (sizes, switches, window).prop_map(|(sizes, switches, sliding_window)| {
        let (max_num_seqs, max_num_batched_tokens, max_model_len, block_size, num_blocks) = sizes;
        let (enable_prefix_caching, is_fcfs, long_prefill_token_threshold, max_num_in_flight) =
            switches;
        let policy = if is_fcfs {
            SchedulingPolicy::Fcfs
        } else {
            SchedulingPolicy::Priority
        };
        SchedulerConfig {
            max_num_seqs,
            max_num_batched_tokens,
            max_model_len,
            block_size,
            num_blocks,
            num_eager_blocks: if is_fcfs { usize::MAX } else { num_blocks / 3 },
            max_num_waiting: 6,
            reports_cached_blocks: false,
            enable_prefix_caching,
            long_prefill_token_threshold,
            sliding_window,
            policy,
            max_num_in_flight,
        }
    })
}

prop_compose! {
    /// Requests from few seeds and few prompts, so that prefixes meet.
    fn requests()(
        shape in (0u32..3, 1usize..24, 0u32..4, 0u64..3),
        stop in (0u32..20, 0u32..4, any::<bool>(), any::<bool>()),
        order in (-2i32..3, prop::option::weighted(0.2, 0u64..40)),
        extras in (0u64..2, prop::bool::weighted(0.1), prop::bool::weighted(0.2), any::<bool>()),
        fails_at in prop::option::weighted(0.1, 1u32..6),
    ) -> Generate {
        let (first, num_ids, num_delivered, seed) = shape;
        let (max_tokens, min_tokens, stops, ignore_eos) = stop;
        let (key, prefill_only, scored, with_logprobs) = extras;
        // Drawn ids are below 8; these are not, so that a delivered one is never a stop id by
        // chance.
        let ids: Vec<TokenId> = (0..num_ids as u32).map(|i| 10 + first + i / 5).collect();
        Generate {
            request_id: RequestId(0),
            attempt: num_delivered,
            num_delivered: num_delivered.min(num_ids as u32 - 1),
            ids,
            sampling: SamplingParams {
                seed,
                top_k: fails_at.unwrap_or(0),
                num_logprobs: with_logprobs.then_some(0),
                num_prompt_logprobs: scored.then_some(0),
                ..SamplingParams::greedy()
            },
            stop: StopParams {
                max_tokens,
                min_tokens,
                eos_token_ids: vec![1],
                stop_token_ids: if stops { vec![2] } else { Vec::new() },
                ignore_eos,
            },
            priority: order.0,
            deadline_ms: order.1,
            block_hash_keys: vec![key; key as usize],
            prefill_only,
        }
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => requests().prop_map(|request| Op::Add(Box::new(request))),
        1 => any::<prop::sample::Index>().prop_map(Op::Cancel),
        8 => Just(Op::Schedule),
        8 => Just(Op::Commit),
        1 => (0u64..12).prop_map(Op::Advance),
        1 => Just(Op::ResetCache),
    ];
    prop::collection::vec(op, 1..120)
}

/// What was asked of a driver.
#[derive(Default)]
struct Asked {
    requests: Vec<Generate>,
    cancelled: Vec<RequestId>,
}

fn play(driver: &mut Driver, ops: Vec<Op>) -> Asked {
    let mut asked = Asked::default();
    for op in ops {
        match op {
            Op::Add(mut request) => {
                request.request_id = RequestId(asked.requests.len() as u64);
                if driver.add((*request).clone()).is_ok() {
                    asked.requests.push(*request);
                }
            }
            Op::Cancel(which) if !asked.requests.is_empty() => {
                let id = which.get(&asked.requests).request_id;
                if driver.cancel(id.0) {
                    asked.cancelled.push(id);
                }
            }
            Op::Cancel(_) => {}
            Op::Schedule => {
                driver.schedule();
            }
            Op::Commit => {
                driver.commit();
            }
            Op::Advance(ms) => driver.now_ms += ms,
            Op::ResetCache => {
                driver.scheduler.reset_prefix_cache();
            }
        }
    }
    driver.run();
    asked
}

fn check(asked: &Asked, request: &Generate, got: &Transcript, want: &Expected) {
    let finish = got.finish.clone().expect("every sequence ends");
    let was_cut = match finish {
        FinishReason::Cancelled => asked.cancelled.contains(&request.request_id),
        FinishReason::Deadline => request.deadline_ms.is_some(),
        FinishReason::Eos(_)
        | FinishReason::StopToken(_)
        | FinishReason::Length
        | FinishReason::Failed(_) => {
            assert_eq!(finish, want.finish, "{request:?}");
            assert_eq!(got.tokens, want.tokens, "{request:?}");
            assert_eq!(got.logprobs, want.logprobs, "{request:?}");
            assert_eq!(got.prompt_logprobs, want.prompt_logprobs, "{request:?}");
            return;
        }
    };
    assert!(was_cut, "{finish:?} has a cause");
    assert!(
        want.tokens.starts_with(&got.tokens),
        "what came before the cut is right"
    );
    let num_cached = got.num_cached_tokens.expect("there was an event") as usize;
    assert!(num_cached < request.ids.len() && num_cached <= request.num_prompt_tokens());
}

fn check_all(driver: &Driver, asked: &Asked) {
    let max_model_len = driver.scheduler.config().max_model_len;
    for request in &asked.requests {
        let got = &driver.transcripts[&request.request_id];
        check(asked, request, got, &expect_alone(request, max_model_len));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn each_sequence_receives_what_it_would_alone(config in configs(), ops in ops()) {
        let mut driver = Driver::new(config);
        let asked = play(&mut driver, ops);
        check_all(&driver, &asked);
    }

    #[test]
    fn so_it_does_when_rows_draw_any_number_of_tokens(
        config in configs(), ops in ops(), seed in any::<u64>(),
    ) {
        let mut driver = Driver::new(config);
        driver.speculate(seed);
        let asked = play(&mut driver, ops);
        check_all(&driver, &asked);
    }

    #[test]
    fn so_it_does_when_hashes_collide(config in configs(), ops in ops()) {
        let mut driver = Driver::with_hash_fn(config, |_, bytes| u64::from(bytes[0]) % 3);
        let asked = play(&mut driver, ops);
        check_all(&driver, &asked);
    }
}
