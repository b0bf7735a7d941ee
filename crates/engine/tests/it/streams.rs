//! What a front sees of sequences: tokens in order, ends, cancellation, deadlines, failures.

use hotspare_batch::{FinishReason, Generate, RejectReason, RequestId, RowError, SamplingParams};
use hotspare_engine::{EngineOptions, ScriptedOptions};
use hotspare_link::{EngineMessage, FrontMessage};

use crate::front::Front;
use crate::requests::{expected, prompt, request, scripted};

#[test]
fn a_sequence_streams_its_tokens_in_order_one_event_each() {
    let options = ScriptedOptions::default();
    let mut front = Front::start(scripted(options.clone()));
    let generate = request(7, &prompt(1, 40), 30);
    front.generate(&generate);
    let mut num_token_events = 0;
    while front.answers[&RequestId(7)].finish.is_none() {
        if let Some(EngineMessage::Step { events, .. }) = front.receive().unwrap() {
            for event in events {
                assert_eq!(event.token_ids.len(), 1);
                num_token_events += 1;
            }
        }
    }
    assert_eq!(num_token_events, 30);
    let answer = &front.answers[&RequestId(7)];
    let (ids, finish) = expected(&options, &generate, 512);
    assert_eq!(answer.ids, ids);
    assert_eq!(answer.finish, Some(finish));
    assert_eq!(answer.num_cached_tokens, Some(0));
}

#[test]
fn an_end_of_sequence_id_ends_it_and_the_context_length_does() {
    let options = ScriptedOptions {
        finish_after_tokens: Some(5),
        ..ScriptedOptions::default()
    };
    let mut front = Front::start(scripted(options));
    let mut ends = request(1, &prompt(1, 10), 50);
    ends.stop.eos_token_ids = vec![2];
    let mut ignores = ends.clone();
    ignores.request_id = RequestId(2);
    ignores.stop.ignore_eos = true;
    let long = request(3, &prompt(2, 500), 50);
    let answers = front.run(&[ends, ignores, long]);
    assert_eq!(answers[0].finish, Some(FinishReason::Eos(2)));
    assert_eq!(answers[0].ids.len(), 6);
    assert_eq!(answers[1].finish, Some(FinishReason::Length));
    assert_eq!(answers[1].ids.len(), 50);
    assert_eq!(answers[2].finish, Some(FinishReason::Length));
    assert_eq!(answers[2].ids.len(), 12, "512 positions, 500 of prompt");
}

#[test]
fn a_resumed_sequence_goes_on_where_another_engine_stopped() {
    let options = ScriptedOptions::default();
    let mut whole = request(1, &prompt(3, 33), 40);
    whole.sampling = SamplingParams {
        seed: 99,
        ..SamplingParams::default()
    };
    let uncut = Front::start(scripted(options.clone())).run(std::slice::from_ref(&whole));
    for cut in [1, 7, 16, 39] {
        let mut resumed = whole.clone();
        resumed.attempt = 1;
        resumed.ids.extend(&uncut[0].ids[..cut]);
        resumed.num_delivered = cut as u32;
        let mut front = Front::start(scripted(options.clone()));
        let rest = front.run(&[resumed]);
        assert_eq!(rest[0].ids, uncut[0].ids[cut..], "cut after {cut}");
        assert_eq!(rest[0].finish, uncut[0].finish);
    }
}

#[test]
fn prefill_only_fills_the_cache_and_draws_nothing() {
    let mut front = Front::start(scripted(ScriptedOptions::default()));
    let mut shadow = request(1, &prompt(4, 100), 5);
    shadow.prefill_only = true;
    let answers = front.run(&[shadow]);
    assert!(answers[0].ids.is_empty());
    assert_eq!(answers[0].finish, Some(FinishReason::Length));
    let answers = front.run(&[request(2, &prompt(4, 100), 5)]);
    assert_eq!(answers[0].num_cached_tokens, Some(96));
    assert_eq!(answers[0].ids.len(), 5);
}

#[test]
fn cancelling_ends_a_stream_and_frees_its_blocks() {
    let mut front = Front::start(scripted(ScriptedOptions {
        // Eight seconds in all, so that it is still running when it is cancelled.
        step_time_us: 20_000,
        ..ScriptedOptions::default()
    }));
    front.generate(&request(1, &prompt(1, 100), 400));
    front.receive_until(|front| front.answers[&RequestId(1)].ids.len() >= 3);
    front.cancel(RequestId(1));
    front.cancel(RequestId(12345));
    front.finish_all();
    let answer = &front.answers[&RequestId(1)];
    assert_eq!(answer.finish, Some(FinishReason::Cancelled));
    assert!(answer.ids.len() < 400);
    assert_eq!(front.idle_stats().num_used_blocks, 0);
}

#[test]
fn a_deadline_ends_running_and_waiting_sequences() {
    let options = EngineOptions {
        max_num_seqs: 1,
        ..scripted(ScriptedOptions {
            step_time_us: 20_000,
            ..ScriptedOptions::default()
        })
    };
    let mut front = Front::start(options);
    let mut running = request(1, &prompt(1, 20), 400);
    running.deadline_ms = Some(1_000);
    let mut waiting = request(2, &prompt(2, 20), 10);
    waiting.deadline_ms = Some(1);
    let patient = request(3, &prompt(3, 20), 10);
    let answers = front.run(&[running, waiting, patient]);
    assert_eq!(answers[0].finish, Some(FinishReason::Deadline));
    assert_eq!(answers[1].finish, Some(FinishReason::Deadline));
    assert!(answers[1].ids.is_empty());
    assert_eq!(answers[2].finish, Some(FinishReason::Length));
    assert_eq!(front.idle_stats().num_used_blocks, 0);
}

#[test]
fn a_full_queue_rejects_at_once_and_loses_nobody_else() {
    let scripted_options = ScriptedOptions {
        step_time_us: 20_000,
        ..ScriptedOptions::default()
    };
    let options = EngineOptions {
        max_num_seqs: 1,
        max_num_waiting: 2,
        ..scripted(scripted_options.clone())
    };
    let mut front = Front::start(options);
    let requests: Vec<_> = (0..6)
        .map(|i| request(i, &prompt(i as u32, 9), 4))
        .collect();
    let answers = front.run(&requests);
    let mut num_rejected = 0;
    for (generate, answer) in requests.iter().zip(answers) {
        match answer.rejected {
            Some(reason) => {
                assert_eq!(reason, RejectReason::QueueFull { max_num_waiting: 2 });
                num_rejected += 1;
            }
            None => assert_eq!(answer.ids, expected(&scripted_options, generate, 512).0),
        }
    }
    // Two wait, and one or two run, depending on how the messages meet the first steps.
    assert!((2..=4).contains(&num_rejected), "{num_rejected}");
}

#[test]
fn what_cannot_run_is_rejected_with_a_reason() {
    let mut front = Front::start(scripted(ScriptedOptions::default()));
    let mut nan = request(2, &[5, 6], 4);
    nan.sampling.temperature = f32::NAN;
    let mut bias = request(3, &[5, 6], 4);
    bias.sampling.logit_bias = vec![(512, 1.0)];
    let mut all_delivered = request(4, &[5, 6], 4);
    all_delivered.num_delivered = 2;
    let too_long = request(5, &prompt(1, 513), 4);
    let bad = [
        request(1, &[5, 512], 4),
        nan,
        bias,
        all_delivered,
        too_long,
        request(6, &[], 4),
    ];
    let answers = front.run(&bad);
    let reasons: Vec<_> = answers.into_iter().map(|answer| answer.rejected).collect();
    let expected = [
        "token id 512",
        "temperature is NaN, not from",
        "token id 512",
        "prompt token",
    ];
    for (reason, expected) in reasons.iter().zip(expected) {
        let Some(RejectReason::Impossible(reason)) = reason else {
            panic!("{reason:?}");
        };
        assert!(reason.contains(expected), "{reason}");
    }
    for reason in &reasons[4..] {
        assert!(
            matches!(reason, Some(RejectReason::Impossible(_))),
            "{reason:?}"
        );
    }
    let good = front.run(&[request(7, &[5, 6], 4)]);
    assert_eq!(good[0].ids.len(), 4);
}

#[test]
fn a_row_that_fails_ends_its_own_sequence_only() {
    let options = ScriptedOptions {
        failing_token_id: Some(499),
        ..ScriptedOptions::default()
    };
    let mut front = Front::start(scripted(options.clone()));
    let mut poisoned = prompt(1, 20);
    poisoned[13] = 499;
    let fine = request(1, &[1, 2, 3], 20);
    let expected = options.continuation(&fine.ids, 0, &fine.sampling, &fine.stop, 20);
    assert!(!expected.contains(&499), "or choose another prompt");
    let answers = front.run(&[fine, request(2, &poisoned, 20)]);
    assert_eq!(answers[0].ids, expected);
    let failure = RowError::InvalidLogits { position: 13 };
    assert_eq!(answers[1].finish, Some(FinishReason::Failed(failure)));
    assert_eq!(front.idle_stats().num_used_blocks, 0);
}

#[test]
fn an_event_too_long_for_a_frame_fails_its_sequence_and_others_go_on() {
    let options = EngineOptions {
        max_frame_bytes: 2_000,
        ..scripted(ScriptedOptions::default())
    };
    let mut front = Front::start(options);
    let mut long = request(1, &prompt(1, 200), 10);
    long.sampling.num_prompt_logprobs = Some(5);
    let mut short = request(2, &prompt(2, 20), 10);
    short.sampling.num_prompt_logprobs = Some(5);
    let plain = request(3, &prompt(3, 20), 10);
    let answers = front.run(&[long, short, plain]);
    assert!(matches!(
        answers[0].finish,
        Some(FinishReason::Failed(RowError::EventTooLarge {
            num_bytes: 1..
        }))
    ));
    assert_eq!(answers[1].prompt_logprobs.len(), 19);
    assert_eq!(answers[1].ids.len(), 10);
    assert_eq!(answers[2].finish, Some(FinishReason::Length));
    assert_eq!(front.idle_stats().num_used_blocks, 0);
}

#[test]
fn a_step_too_long_for_a_frame_is_cut_into_several() {
    let options = EngineOptions {
        max_frame_bytes: 400,
        ..scripted(ScriptedOptions::default())
    };
    let mut front = Front::start(options);
    let requests: Vec<Generate> = (0..8)
        .map(|i| {
            let mut generate = request(i, &prompt(i as u32, 9), 12);
            generate.sampling.num_logprobs = Some(12);
            generate
        })
        .collect();
    for answer in front.run(&requests) {
        assert_eq!(answer.finish, Some(FinishReason::Length));
        assert_eq!(answer.logprobs.len(), 12);
        for (id, logprobs) in answer.ids.iter().zip(&answer.logprobs) {
            assert_eq!((logprobs.token, logprobs.top.len()), (*id, 12));
        }
    }
}

#[test]
fn a_front_that_reads_late_misses_nothing() {
    let options = ScriptedOptions::default();
    let mut front = Front::start(EngineOptions {
        max_num_seqs: 64,
        max_num_batched_tokens: 512,
        ..scripted(options.clone())
    });
    let requests: Vec<Generate> = (0..64)
        .map(|i| {
            let mut generate = request(i, &prompt(i as u32, 9), 300);
            generate.sampling.num_logprobs = Some(20);
            generate
        })
        .collect();
    for generate in &requests {
        front.generate(generate);
    }
    front.send(&FrontMessage::Ping { nonce: 1 });
    // More than three megabytes of events: far beyond the socket's buffers, so the engine stands
    // in a write by now or will.
    front.finish_all();
    for generate in &requests {
        let answer = &front.answers[&generate.request_id];
        assert_eq!(answer.ids, expected(&options, generate, 512).0);
    }
}
