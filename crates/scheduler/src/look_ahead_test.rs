//! One step of look-ahead beside its oracle, the plain loop.
//!
//! Invariant: the depth changes when tokens come, never which.

use hotspare_batch::{FinishReason, Generate};

use crate::SchedulerConfig;
use crate::testing::{Driver, expect_alone, ids, request, small_config, with_max_tokens};

fn driver(max_num_in_flight: usize) -> Driver {
    Driver::new(SchedulerConfig {
        max_num_in_flight,
        ..small_config()
    })
}

/// A request that ends with a stop id after a few tokens, long before its length.
fn stopping(id: u64) -> Generate {
    let mut request = with_max_tokens(request(id, &ids(1000 * id as u32, 6)), 40);
    request.stop.stop_token_ids = vec![3];
    request
}

#[test]
fn ends_by_length_are_seen_ahead() {
    let mut driver = driver(2);
    driver
        .add(with_max_tokens(request(1, &ids(0, 5)), 2))
        .unwrap();
    assert!(driver.schedule().is_some());
    assert!(driver.schedule().is_some());
    driver.commit();
    assert_eq!(
        driver.schedule(),
        None,
        "the second and last token is in flight"
    );
    driver.commit();
    assert_eq!(driver.transcript(1).finish, Some(FinishReason::Length));
    assert_eq!(driver.scheduler.stats().num_steps, 2);
}

#[test]
fn ends_by_the_context_are_seen_ahead() {
    let mut driver = driver(2);
    driver
        .add(with_max_tokens(request(1, &ids(0, 62)), 40))
        .unwrap();
    driver.run();
    assert_eq!(driver.transcript(1).tokens.len(), 2);
    assert_eq!(
        driver.scheduler.stats().num_steps,
        5,
        "4 chunks, and one token more"
    );
}

#[test]
fn a_surprising_end_drops_the_row_in_flight() {
    let mut driver = driver(2);
    let request = stopping(1);
    let alone = expect_alone(&request, 64);
    assert!(
        matches!(alone.finish, FinishReason::StopToken(3)),
        "the seed is chosen so"
    );
    driver.add(request).unwrap();
    while driver.transcript(1).finish.is_none() {
        while driver.schedule().is_some() {}
        driver.commit();
    }
    assert_eq!(
        driver.in_flight.len(),
        1,
        "a row was built on the hope that it goes on"
    );
    let held = driver.scheduler.stats().num_used_blocks;
    assert!(held > 0, "the device may still write to its blocks");
    assert_eq!(driver.scheduler.stats().num_running, 0);
    driver.commit();
    assert_eq!(driver.scheduler.stats().num_used_blocks, 0);
    assert_eq!(driver.transcript(1).tokens, alone.tokens);
}

#[test]
fn a_full_house_gives_the_same_at_every_depth() {
    let transcripts = |depth| {
        let mut driver = driver(depth);
        for id in 1..=8 {
            driver.add(stopping(id)).unwrap();
        }
        driver.run();
        driver.transcripts
    };
    let plain = transcripts(1);
    let stopped = |reason: &FinishReason| matches!(reason, FinishReason::StopToken(_));
    assert!(
        plain
            .values()
            .filter(|t| t.finish.as_ref().is_some_and(stopped))
            .count()
            > 2
    );
    assert_eq!(transcripts(2), plain);
    assert_eq!(transcripts(3), plain);
}

#[test]
fn a_draw_of_another_number_than_one_sets_the_slot_up_again() {
    for depth in 1..=3 {
        let mut driver = driver(depth);
        driver.speculate(depth as u64);
        let request = with_max_tokens(request(1, &ids(0, 5)), 30);
        driver.add(request.clone()).unwrap();
        let mut num_inits = 0;
        while driver.scheduler.has_unfinished() {
            while let Some(batch) = driver.schedule() {
                num_inits += batch.slot_inits.len();
            }
            driver.commit();
        }
        assert_eq!(num_inits > 1, depth > 1, "only rows in flight can be stale");
        assert_eq!(
            driver.transcript(1).tokens,
            expect_alone(&request, 64).tokens
        );
    }
}
