//! How sequences leave: cancelled, too late, preempted; and when their blocks are free.
//!
//! Invariant: the driver checks that no block is written while a batch in flight uses it elsewhere.

use hotspare_batch::FinishReason;

use crate::testing::{Driver, expect_alone, ids, request, small_config, with_max_tokens};
use crate::{SchedulerConfig, SchedulingPolicy};

fn look_ahead() -> SchedulerConfig {
    SchedulerConfig {
        max_num_in_flight: 2,
        ..small_config()
    }
}

#[test]
fn a_waiting_sequence_is_cancelled_at_once() {
    let mut driver = Driver::new(small_config());
    driver.add(request(1, &[1])).unwrap();
    assert!(driver.cancel(1));
    assert_eq!(driver.transcript(1).finish, Some(FinishReason::Cancelled));
    assert!(!driver.cancel(1), "it is gone");
    assert!(!driver.scheduler.has_unfinished());
    assert_eq!(driver.schedule(), None);
}

#[test]
fn a_running_sequence_is_cancelled_now_and_freed_with_its_step() {
    let mut driver = Driver::new(small_config());
    driver.add(request(1, &ids(1000, 10))).unwrap();
    driver.schedule().unwrap();
    assert!(driver.cancel(1));
    assert_eq!(driver.transcript(1).finish, Some(FinishReason::Cancelled));
    let stats = driver.scheduler.stats();
    assert_eq!(
        (stats.num_running, stats.num_used_blocks),
        (0, 3),
        "the device may still write"
    );
    assert!(driver.scheduler.has_unfinished());
    assert_eq!(driver.schedule(), None);
    driver.commit();
    assert_eq!(driver.scheduler.stats().num_used_blocks, 0);
    assert!(
        driver.transcript(1).tokens.is_empty(),
        "the row's token is dropped"
    );
    driver.add(request(1, &[1])).unwrap();
    driver.run();
}

#[test]
fn a_name_is_free_again_while_its_old_rows_are_in_flight() {
    let mut driver = Driver::new(look_ahead());
    driver
        .add(with_max_tokens(request(1, &ids(1000, 10)), 20))
        .unwrap();
    driver.schedule().unwrap();
    driver.schedule().unwrap();
    driver.cancel(1);
    let mut retry = request(1, &ids(1000, 10));
    retry.attempt = 1;
    driver.add(retry.clone()).unwrap();
    driver.run();
    assert_eq!(driver.transcript(1).tokens, expect_alone(&retry, 64).tokens);
}

#[test]
fn deadlines_end_waiting_and_running_sequences() {
    let config = SchedulerConfig {
        max_num_seqs: 1,
        ..small_config()
    };
    let mut driver = Driver::new(config);
    driver.now_ms = 1_000;
    for id in 1..=2 {
        let mut request = with_max_tokens(request(id, &ids(1000, 3)), 30);
        request.deadline_ms = Some(50);
        driver.add(request).unwrap();
    }
    driver.step();
    driver.now_ms = 1_049;
    driver.step();
    assert_eq!(driver.transcript(1).finish, None);
    driver.schedule().unwrap();
    driver.now_ms = 1_050;
    driver.commit();
    assert_eq!(driver.transcript(1).finish, Some(FinishReason::Deadline));
    assert_eq!(
        driver.transcript(1).tokens.len(),
        3,
        "what the step drew is delivered"
    );
    assert_eq!(driver.transcript(2).finish, Some(FinishReason::Deadline));
    assert_eq!(driver.transcript(2).tokens.len(), 0);
    driver.run();
}

#[test]
fn the_first_event_says_how_long_a_sequence_waited() {
    let config = SchedulerConfig {
        max_num_seqs: 1,
        ..small_config()
    };
    let mut driver = Driver::new(config);
    for (id, now_ms) in [(1, 100), (2, 103)] {
        driver.now_ms = now_ms;
        driver
            .add(with_max_tokens(request(id, &ids(1000, 3)), 2))
            .unwrap();
    }
    driver.now_ms = 110;
    driver.step();
    driver.now_ms = 117;
    driver.step();
    driver.now_ms = 120;
    driver.step();
    driver.run();
    let queued = driver.queued_ms.iter().map(|(id, ms)| (id.0, *ms));
    assert_eq!(queued.collect::<Vec<_>>(), [(1, 10), (2, 17)]);
}

#[test]
fn a_deadline_of_nothing_never_runs_and_one_without_end_never_comes() {
    let mut driver = Driver::new(small_config());
    driver.now_ms = u64::MAX - 10;
    for (id, deadline_ms) in [(1, 0), (2, u64::MAX)] {
        let mut request = request(id, &[1]);
        request.deadline_ms = Some(deadline_ms);
        driver.add(request).unwrap();
    }
    driver.run();
    assert_eq!(driver.transcript(1).finish, Some(FinishReason::Deadline));
    assert_eq!(driver.transcript(1).tokens.len(), 0);
    assert_eq!(driver.transcript(2).finish, Some(FinishReason::Length));
}

/// Three sequences that cannot all grow to their end; returns who is preempted first.
fn first_victim(config: SchedulerConfig, priorities: [i32; 3]) -> u64 {
    let mut driver = Driver::new(config);
    for (id, priority) in (1..).zip(priorities) {
        let mut request = with_max_tokens(request(id, &ids(1000 * id as u32, 4)), 24);
        request.priority = priority;
        driver.add(request).unwrap();
    }
    let mut victim = None;
    while driver.scheduler.has_unfinished() {
        let num_rows_before = driver.in_flight.back().map_or(0, |batch| batch.rows.len());
        driver.step();
        if victim.is_none() && driver.scheduler.stats().num_preemptions > 0 {
            assert_eq!(
                driver.scheduler.stats().num_waiting,
                1,
                "one makes room for the others"
            );
            let shortest = driver
                .transcripts
                .iter()
                .min_by_key(|(_, t)| t.tokens.len());
            victim = shortest.map(|(id, _)| id.0);
            assert!(num_rows_before <= 3);
        }
    }
    for id in 1..=3 {
        let alone = expect_alone(
            &with_max_tokens(request(id, &ids(1000 * id as u32, 4)), 24),
            64,
        );
        assert_eq!(
            driver.transcript(id).tokens,
            alone.tokens,
            "a recompute changes nothing"
        );
    }
    victim.expect("the pool is too small for three")
}

#[test]
fn the_newest_of_the_lowest_priority_is_preempted() {
    let fcfs = SchedulerConfig {
        num_blocks: 12,
        ..small_config()
    };
    assert_eq!(first_victim(fcfs.clone(), [0, 0, -5]), 3);
    let priority = SchedulerConfig {
        policy: SchedulingPolicy::Priority,
        ..fcfs
    };
    assert_eq!(first_victim(priority.clone(), [0, 0, 0]), 3);
    assert_eq!(first_victim(priority.clone(), [0, 1, 0]), 2);
    assert_eq!(first_victim(priority, [9, 1, 1]), 1);
}

#[test]
fn nothing_is_admitted_in_a_step_that_preempts() {
    let config = SchedulerConfig {
        num_blocks: 8,
        max_num_seqs: 2,
        policy: SchedulingPolicy::Priority,
        ..small_config()
    };
    let mut driver = Driver::new(config);
    for id in 1..=2 {
        let request = with_max_tokens(request(id, &ids(1000 * id as u32, 8)), 20);
        driver.add(request).unwrap();
    }
    driver.step();
    // It is first in line and small, and lacks nothing but a slot.
    let mut urgent = request(3, &[1]);
    urgent.priority = -1;
    driver.add(urgent).unwrap();
    let batch = loop {
        let batch = driver.schedule().unwrap();
        if driver.scheduler.stats().num_preemptions > 0 {
            break batch;
        }
        driver.commit();
    };
    assert_eq!(batch.slot_inits, [], "room was made for those that run");
    assert_eq!(batch.rows.len(), 1);
    driver.commit();
    let next = driver.schedule().unwrap();
    assert_eq!(next.slot_inits.len(), 1, "it is its turn now");
    driver.run();
}

/// Keeps a step in flight until a sequence with a row in it is preempted.
fn run_ahead_until_preemption(driver: &mut Driver) {
    loop {
        let batch = driver.schedule();
        if driver.scheduler.stats().num_preemptions > 0 {
            return;
        }
        if batch.is_none() || driver.in_flight.len() == 2 {
            driver.commit();
        }
    }
}

#[test]
fn a_preempted_sequence_keeps_the_token_that_was_in_flight() {
    let config = SchedulerConfig {
        num_blocks: 8,
        ..look_ahead()
    };
    let mut driver = Driver::new(config);
    let requests = [1, 2].map(|id| with_max_tokens(request(id, &ids(1000 * id as u32, 8)), 20));
    for request in &requests {
        driver.add(request.clone()).unwrap();
    }
    run_ahead_until_preemption(&mut driver);
    let num_tokens = driver.transcript(2).tokens.len();
    assert_eq!(
        driver.in_flight.len(),
        1,
        "the other one waits for the blocks"
    );
    assert_eq!(
        driver.in_flight[0].rows.len(),
        2,
        "it was preempted with a row in flight"
    );
    let stats = driver.scheduler.stats();
    assert_eq!(stats.num_free_blocks, 0, "its blocks are not reused yet");
    assert_eq!(stats.num_preemptions, 1, "one is enough");
    driver.commit();
    assert_eq!(driver.transcript(2).tokens.len(), num_tokens + 1);
    driver.run();
    for request in &requests {
        let alone = expect_alone(request, 64).tokens;
        assert_eq!(driver.transcript(request.request_id.0).tokens, alone);
    }
}

#[test]
fn a_preempted_sequence_can_be_cancelled_before_it_is_out() {
    let config = SchedulerConfig {
        num_blocks: 8,
        ..look_ahead()
    };
    let mut driver = Driver::new(config);
    for id in 1..=2 {
        let request = with_max_tokens(request(id, &ids(1000 * id as u32, 8)), 20);
        driver.add(request).unwrap();
    }
    run_ahead_until_preemption(&mut driver);
    assert!(driver.cancel(2));
    driver.run();
    assert_eq!(driver.transcript(2).finish, Some(FinishReason::Cancelled));
    assert_eq!(driver.transcript(1).finish, Some(FinishReason::Length));
}
