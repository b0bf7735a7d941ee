//! The connection: greeting, drain, nonsense, and engines that cannot start.

use std::io::Write;
use std::net::Shutdown;

use hotspare_batch::{FinishReason, RejectReason, RequestId};
use hotspare_engine::{EngineOptions, ScriptedOptions};
use hotspare_link::{EngineMessage, FrontMessage, PROTOCOL_VERSION, ProtocolRange};
use proptest::prelude::*;

use crate::front::Front;
use crate::requests::{cases, prompt, request, scripted};

fn fatal_of(options: EngineOptions) -> String {
    let mut front = Front::connect(options);
    assert!(front.receive_to_end(), "it ends between two frames");
    front.fatal.expect("it says why")
}

#[test]
fn hello_says_what_the_engine_is() {
    let options = scripted(ScriptedOptions::default());
    let hello = Front::connect(options.clone()).await_hello();
    assert_eq!(hello.protocol, ProtocolRange::OURS);
    assert_eq!((hello.max_model_len, hello.max_num_seqs), (512, 8));
    assert_eq!((hello.block_size, hello.vocab_size), (16, 512));
    assert_eq!(hello.num_blocks, 8 * 512 / 16);
    let again = Front::connect(options).await_hello();
    assert_eq!(again.model_hash, hello.model_hash);
    assert_ne!(again.engine_id, hello.engine_id, "each life has a name");
    let other = Front::connect(scripted(ScriptedOptions {
        vocab_size: 100,
        ..ScriptedOptions::default()
    }));
    let mut other = other;
    assert_ne!(other.await_hello().model_hash, hello.model_hash);
}

#[test]
fn pings_are_answered_while_idle_and_while_busy() {
    let mut front = Front::start(scripted(ScriptedOptions {
        step_time_us: 500,
        ..ScriptedOptions::default()
    }));
    let pong = |front: &mut Front, nonce| {
        front.send(&FrontMessage::Ping { nonce });
        while front.receive().unwrap() != Some(EngineMessage::Pong { nonce }) {}
    };
    pong(&mut front, 1);
    front.generate(&request(1, &prompt(1, 9), 100));
    pong(&mut front, u64::MAX);
    front.finish_all();
}

/// Asks for a canary and returns what is said of it.
fn canary(front: &mut Front, nonce: u64) -> Option<String> {
    front.send(&FrontMessage::Canary { nonce });
    loop {
        let message = front.receive().unwrap().expect("the engine lives");
        if let EngineMessage::CanaryDone { nonce: told, error } = message {
            assert_eq!(told, nonce);
            return error;
        }
    }
}

#[test]
fn a_canary_passes_a_full_queue_and_is_counted_nowhere() {
    let mut front = Front::start(EngineOptions {
        max_num_seqs: 1,
        max_num_waiting: 1,
        ..scripted(ScriptedOptions {
            step_time_us: 5_000,
            ..ScriptedOptions::default()
        })
    });
    assert_eq!(canary(&mut front, 1), None);
    let stats = front.idle_stats();
    assert_eq!(stats.num_steps, 1);
    assert_eq!(
        (stats.num_prompt_tokens, stats.num_generated_tokens),
        (0, 0)
    );
    assert_eq!((stats.step_tokens.num(), stats.preemptions.num()), (0, 0));
    assert_eq!(stats.num_prefix_cache_queries, 0);

    // One runs for seconds, one waits, and a third one has no place.
    front.generate(&request(1, &prompt(1, 9), 400));
    front.receive_until(|front| !front.answers[&RequestId(1)].ids.is_empty());
    front.generate(&request(2, &prompt(2, 9), 5));
    front.generate(&request(3, &prompt(3, 9), 5));
    front.send(&FrontMessage::Canary { nonce: 1 });
    front.cancel(RequestId(1));
    assert_eq!(canary(&mut front, 2), None, "one token answers for both");
    assert!(front.answers[&RequestId(3)].rejected.is_some());
    let waiting = &front.answers[&RequestId(2)].ids;
    assert!(waiting.is_empty(), "it went before the one that waits");
    front.finish_all();
    let stats = front.idle_stats();
    let num_tokens: usize = front.answers.values().map(|answer| answer.ids.len()).sum();
    // A token that was on its way when its sequence was cancelled is drawn and not delivered.
    assert!(stats.num_generated_tokens.abs_diff(num_tokens as u64) <= 1);
    assert_eq!(stats.num_prompt_tokens + stats.num_cached_prompt_tokens, 18);
}

#[test]
fn a_canary_whose_row_fails_says_so() {
    let mut front = Front::start(scripted(ScriptedOptions {
        failing_token_id: Some(0),
        ..ScriptedOptions::default()
    }));
    let error = canary(&mut front, 7).expect("it failed");
    assert!(error.contains("no usable logits"), "{error}");
    assert!(canary(&mut front, 8).is_some(), "the engine goes on");
}

#[test]
fn a_step_is_announced_with_its_size() {
    let mut front = Front::start(scripted(ScriptedOptions::default()));
    front.generate(&request(1, &prompt(1, 40), 3));
    let mut sizes = Vec::new();
    while front.answers[&RequestId(1)].finish.is_none() {
        if let Some(EngineMessage::Working { step, num_tokens }) = front.receive().unwrap() {
            sizes.push((step, num_tokens));
        }
    }
    assert_eq!(sizes, [(1, 40), (2, 1), (3, 1)]);
}

#[test]
fn a_drained_engine_finishes_its_work_and_ends() {
    let mut front = Front::start(scripted(ScriptedOptions {
        step_time_us: 200,
        ..ScriptedOptions::default()
    }));
    front.generate(&request(1, &prompt(1, 9), 100));
    front.send(&FrontMessage::Drain);
    front.generate(&request(2, &prompt(1, 9), 100));
    assert!(front.receive_to_end());
    assert_eq!(front.fatal, None);
    let first = &front.answers[&RequestId(1)];
    assert_eq!(first.ids.len(), 100);
    assert_eq!(first.finish, Some(FinishReason::Length));
    let second = &front.answers[&RequestId(2)];
    assert_eq!(second.rejected, Some(RejectReason::Draining));
    let stats = front.stats.expect("the last counters");
    assert_eq!((stats.num_used_blocks, stats.num_running), (0, 0));
    assert_eq!(stats.num_generated_tokens, 100);
}

#[test]
fn an_idle_engine_drains_at_once() {
    let mut front = Front::start(scripted(ScriptedOptions::default()));
    front.send(&FrontMessage::Drain);
    assert!(front.receive_to_end());
    assert_eq!(front.fatal, None);
}

#[test]
fn garbage_ends_the_connection_with_a_reason() {
    let mut front = Front::start(scripted(ScriptedOptions::default()));
    front.generate(&request(1, &prompt(1, 9), 400));
    front.stream().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(front.receive_to_end());
    let fatal = front.fatal.expect("it says why");
    assert!(fatal.contains("not a frame"), "{fatal}");
}

#[test]
fn a_front_must_greet_first_once_and_in_a_common_version() {
    let newer = ProtocolRange {
        min: PROTOCOL_VERSION + 1,
        max: PROTOCOL_VERSION + 2,
    };
    let ours = ProtocolRange::OURS;
    let hello = |protocol| FrontMessage::Hello { protocol };
    let conversations = [
        (vec![FrontMessage::Ping { nonce: 1 }], "not Hello"),
        (vec![hello(newer)], "no common protocol version"),
        (vec![hello(ours), hello(ours)], "second Hello"),
    ];
    for (messages, expected) in conversations {
        let mut front = Front::connect(scripted(ScriptedOptions::default()));
        front.await_hello();
        for message in &messages {
            front.send(message);
        }
        assert!(front.receive_to_end());
        let fatal = front.fatal.expect("it says why");
        assert!(fatal.contains(expected), "{fatal}");
    }
}

#[test]
fn a_front_that_goes_away_ends_the_engine() {
    let mut front = Front::start(scripted(ScriptedOptions {
        step_time_us: 200,
        ..ScriptedOptions::default()
    }));
    front.generate(&request(1, &prompt(1, 9), 400));
    front.receive_until(|front| !front.answers[&RequestId(1)].ids.is_empty());
    front.stream().shutdown(Shutdown::Write).unwrap();
    assert!(front.receive_to_end());
    assert_eq!(front.answers[&RequestId(1)].finish, None);
}

#[test]
fn an_engine_that_cannot_start_says_why() {
    let base = scripted(ScriptedOptions::default());
    let fatal = fatal_of(EngineOptions {
        kv_cache_memory_bytes: Some(1000),
        ..base.clone()
    });
    assert!(fatal.contains("--kv-cache-memory-bytes"), "{fatal}");
    let fatal = fatal_of(EngineOptions {
        faults: "explode=1".to_owned(),
        ..base.clone()
    });
    assert!(fatal.contains("no fault has this name"), "{fatal}");
    let fatal = fatal_of(EngineOptions {
        max_num_seqs: 0,
        num_kv_blocks_override: Some(10),
        ..base
    });
    assert!(fatal.contains("max_num_seqs"), "{fatal}");
}

#[test]
fn a_lost_device_is_fatal() {
    for lookahead in [true, false] {
        let mut front = Front::start(EngineOptions {
            lookahead,
            ..scripted(ScriptedOptions {
                device_error_at_step: Some(5),
                ..ScriptedOptions::default()
            })
        });
        front.generate(&request(1, &prompt(1, 9), 100));
        assert!(front.receive_to_end());
        let fatal = front.fatal.expect("it says why");
        assert_eq!(fatal, "device error: scripted error at step 5");
        assert_eq!(front.answers[&RequestId(1)].ids.len(), 4);
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn noise_never_takes_more_than_the_connection(
        noise in prop::collection::vec(any::<u8>(), 1..300),
        after_frame_header in any::<bool>(),
    ) {
        let mut front = Front::start(scripted(ScriptedOptions::default()));
        front.generate(&request(1, &prompt(1, 9), 10));
        let mut bytes = Vec::new();
        if after_frame_header {
            bytes.extend(b"HS\x01\x00");
            bytes.extend((noise.len() as u32).to_le_bytes());
        }
        bytes.extend(&noise);
        // The engine may have closed its end by the time the rest is written.
        let _ = front.stream().write_all(&bytes);
        let _ = front.stream().shutdown(Shutdown::Write);
        prop_assert!(front.receive_to_end());
    }
}
