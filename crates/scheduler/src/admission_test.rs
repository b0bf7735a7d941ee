//! What is refused, and what is over before it starts.
//!
//! Invariant: a refusal leaves no trace; the driver checks that.

use hotspare_batch::{FinishReason, RejectReason, RequestId, TOKEN_FROM_DEVICE};

use crate::testing::{Driver, ids, request, small_config, with_max_tokens};
use crate::{SchedulerConfig, SchedulingPolicy};

/// The reason for a human, where a request is impossible.
fn why(driver: &mut Driver, request: hotspare_batch::Generate) -> String {
    match driver.add(request) {
        Err(RejectReason::Impossible(why)) => why,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn what_can_never_run_is_refused() {
    let mut driver = Driver::new(small_config());
    assert!(why(&mut driver, request(1, &[])).contains("no prompt"));
    assert!(why(&mut driver, request(1, &ids(0, 64))).contains("no room"));
    assert!(why(&mut driver, request(1, &ids(0, 65))).contains("exceed"));
    assert!(why(&mut driver, request(1, &[1, TOKEN_FROM_DEVICE])).contains("reserved"));
    let mut delivered = request(1, &[1, 2]);
    delivered.num_delivered = 2;
    assert!(why(&mut driver, delivered.clone()).contains("no prompt"));
    delivered.num_delivered = u32::MAX;
    assert!(why(&mut driver, delivered).contains("no prompt"));
    driver.add(request(1, &[1])).unwrap();
    assert!(why(&mut driver, request(1, &[1])).contains("running already"));
    assert_eq!(driver.scheduler.stats().num_waiting, 1);
    driver.run();
}

#[test]
fn the_longest_end_must_fit_alone() {
    let config = SchedulerConfig {
        num_blocks: 5,
        ..small_config()
    };
    let mut driver = Driver::new(config);
    // 21 ids at the end; the last one is never computed, so 20 positions are needed.
    driver
        .add(with_max_tokens(request(1, &ids(0, 10)), 11))
        .unwrap();
    let why = why(&mut driver, with_max_tokens(request(2, &ids(0, 10)), 12));
    assert!(
        why.contains("21 tokens can need 6 KV blocks of 4, and there are 5"),
        "{why}"
    );
    driver.run();
    assert_eq!(driver.transcript(1).tokens.len(), 11);
    assert_eq!(driver.transcript(1).finish, Some(FinishReason::Length));
}

#[test]
fn max_tokens_is_clamped_to_the_context() {
    let mut driver = Driver::new(small_config());
    driver
        .add(with_max_tokens(request(1, &ids(0, 60)), u32::MAX))
        .unwrap();
    driver.run();
    assert_eq!(driver.transcript(1).tokens.len(), 4, "64 ids in all");
    assert_eq!(driver.transcript(1).finish, Some(FinishReason::Length));
}

#[test]
fn the_queue_is_bounded() {
    let mut driver = Driver::new(SchedulerConfig {
        max_num_waiting: 2,
        ..small_config()
    });
    driver.add(request(1, &[1])).unwrap();
    driver.add(request(2, &[1])).unwrap();
    let full = Err(RejectReason::QueueFull { max_num_waiting: 2 });
    assert_eq!(driver.add(request(3, &[1])), full);
    driver.schedule().unwrap();
    driver.add(request(3, &[1])).unwrap();
    driver.run();
}

#[test]
fn preempted_sequences_do_not_fill_the_queue() {
    // Two sequences of up to 7 blocks share 8.
    let config = SchedulerConfig {
        num_blocks: 8,
        max_num_waiting: 1,
        ..small_config()
    };
    let mut driver = Driver::new(config);
    driver
        .add(with_max_tokens(request(1, &ids(1000, 8)), 20))
        .unwrap();
    driver.step();
    driver
        .add(with_max_tokens(request(2, &ids(2000, 8)), 20))
        .unwrap();
    while driver.scheduler.stats().num_preemptions == 0 {
        driver.step();
    }
    assert_eq!(driver.scheduler.stats().num_waiting, 1, "the preempted one");
    driver.add(request(3, &[1])).unwrap();
    let full = Err(RejectReason::QueueFull { max_num_waiting: 1 });
    assert_eq!(driver.add(request(4, &[1])), full);
    driver.run();
    let stats = driver.scheduler.stats();
    assert_eq!(stats.preemptions.num(), 3, "one for each that ended");
    assert_eq!(stats.preemptions.sum(), stats.num_preemptions);
    assert_eq!(stats.step_tokens.num(), stats.num_steps);
    // Every token is computed but the last one of each sequence; some are computed again.
    assert!(stats.step_tokens.sum() >= 2 * (8 + 20 - 1) + 4, "{stats:?}");
}

#[test]
fn a_draining_scheduler_finishes_what_it_has() {
    let mut driver = Driver::new(small_config());
    driver.add(request(1, &[1])).unwrap();
    driver.scheduler.drain();
    assert_eq!(driver.add(request(2, &[1])), Err(RejectReason::Draining));
    driver.run();
    assert_eq!(driver.transcript(1).tokens.len(), 4);
}

#[test]
fn what_was_delivered_in_full_ends_at_once() {
    let mut driver = Driver::new(small_config());
    let mut at_length = with_max_tokens(request(1, &[5, 6, 7, 8]), 3);
    at_length.num_delivered = 3;
    driver.add(at_length).unwrap();
    assert_eq!(driver.transcript(1).finish, Some(FinishReason::Length));

    let mut at_context = with_max_tokens(request(2, &ids(0, 64)), 100);
    at_context.num_delivered = 1;
    driver.add(at_context).unwrap();
    assert_eq!(driver.transcript(2).finish, Some(FinishReason::Length));

    let mut at_eos = request(3, &[5, 6, 7]);
    at_eos.num_delivered = 1;
    at_eos.stop.eos_token_ids = vec![7];
    driver.add(at_eos.clone()).unwrap();
    assert_eq!(driver.transcript(3).finish, Some(FinishReason::Eos(7)));

    driver.add(with_max_tokens(request(4, &[5]), 0)).unwrap();
    assert_eq!(driver.transcript(4).finish, Some(FinishReason::Length));
    assert!(!driver.scheduler.has_unfinished());

    // The same id at the end of a prompt is part of the prompt.
    at_eos.request_id.0 = 5;
    at_eos.num_delivered = 0;
    driver.add(at_eos).unwrap();
    assert_eq!(driver.transcript(5).finish, None);
    driver.run();
}

#[test]
fn the_canary_goes_before_all_that_waits_and_is_not_counted() {
    let config = SchedulerConfig {
        max_num_seqs: 1,
        max_num_waiting: 1,
        policy: SchedulingPolicy::Priority,
        ..small_config()
    };
    let mut driver = Driver::new(config);
    driver.add(request(1, &[1, 2])).unwrap();
    driver.step();
    let urgent = hotspare_batch::Generate {
        priority: i32::MIN,
        ..request(2, &[3])
    };
    driver.add(urgent).unwrap();
    assert!(driver.add(request(3, &[4])).is_err(), "the queue is full");
    let canary = with_max_tokens(request(RequestId::CANARY.0, &[0]), 1);
    driver.add(canary).unwrap();
    let stats = driver.scheduler.stats();
    assert_eq!((stats.num_running, stats.num_waiting), (1, 1));
    assert!(
        driver.add(request(3, &[4])).is_err(),
        "it took nobody's place"
    );
    driver.cancel(1);
    let before = driver.scheduler.stats();
    driver.step();
    let after = driver.scheduler.stats();
    assert_eq!(driver.transcript(RequestId::CANARY.0).tokens.len(), 1);
    assert!(driver.transcript(2).tokens.is_empty());
    assert_eq!(after.num_steps, before.num_steps + 1);
    assert_eq!(after.num_prompt_tokens, before.num_prompt_tokens);
    assert_eq!(after.num_generated_tokens, before.num_generated_tokens);
    assert_eq!(after.step_tokens, before.step_tokens);
    assert_eq!(after.preemptions, before.preemptions);
    driver.run();
    assert_eq!(driver.transcript(2).tokens.len(), 4);
}
