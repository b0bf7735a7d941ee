//! Shadows: sequences that only read, behind all others, for who comes after them.

use hotspare_batch::{FinishReason, Generate, RequestId};

use crate::SchedulerConfig;
use crate::testing::{Driver, ids, request, small_config, with_max_tokens};

fn shadow(number: u64, ids: &[u32]) -> Generate {
    Generate {
        prefill_only: true,
        ..request(RequestId::FIRST_SHADOW.0 + number, ids)
    }
}

#[test]
fn what_a_shadow_read_is_found_and_nothing_of_it_is_counted() {
    let mut driver = Driver::new(small_config());
    let before = driver.scheduler.stats();
    for (number, len) in [(0, 8), (1, 24)] {
        driver.add(shadow(number, &ids(0, len))).unwrap();
        assert_eq!(driver.scheduler.stats().num_waiting, 0);
        driver.run();
        let read = driver.transcript(RequestId::FIRST_SHADOW.0 + number);
        assert_eq!(read.finish, Some(FinishReason::Length));
        assert!(read.tokens.is_empty());
    }
    let after = driver.scheduler.stats();
    assert_eq!(after.num_cached_blocks, 6);
    assert_eq!(
        after.num_steps,
        before.num_steps + 2,
        "eight, and sixteen more"
    );
    let counters = |stats: crate::SchedulerStats| {
        (
            stats.num_prompt_tokens,
            stats.num_prefix_cache_queries,
            stats.num_prefix_cache_hits,
            stats.step_tokens,
            stats.preemptions,
        )
    };
    assert_eq!(counters(after), counters(before));
    let mut resumed = with_max_tokens(request(1, &ids(0, 26)), 8);
    resumed.num_delivered = 6;
    driver.add(resumed).unwrap();
    driver.run();
    let stats = driver.scheduler.stats();
    assert_eq!(stats.num_prefix_cache_hits, 24);
    assert_eq!(driver.transcript(1).tokens.len(), 2);
}

#[test]
fn shadows_run_behind_all_others_and_are_preempted_first() {
    let config = SchedulerConfig {
        max_num_seqs: 2,
        max_num_waiting: 1,
        ..small_config()
    };
    let mut driver = Driver::new(config);
    driver.add(shadow(0, &ids(1_000, 28))).unwrap();
    driver.step();
    assert_eq!(driver.scheduler.stats().num_running, 0, "16 of 28 are read");
    driver
        .add(with_max_tokens(request(1, &ids(0, 16)), 8))
        .unwrap();
    driver.add(shadow(1, &ids(2_000, 4))).unwrap();
    driver.step();
    driver.add(request(2, &ids(3_000, 4))).unwrap();
    let stats = driver.scheduler.stats();
    assert_eq!((stats.num_running, stats.num_waiting), (1, 1));
    let refused = driver.add(request(3, &ids(4_000, 4)));
    assert!(refused.is_err(), "the bound is that of clients' requests");
    while driver.transcript(2).finish.is_none() {
        assert_eq!(
            driver.transcript(RequestId::FIRST_SHADOW.0 + 1).finish,
            None
        );
        driver.step();
    }
    driver.run();
    assert_eq!(driver.scheduler.stats().num_preemptions, 0, "of clients'");
    for id in [0, 1].map(|number| RequestId::FIRST_SHADOW.0 + number) {
        assert_eq!(driver.transcript(id).finish, Some(FinishReason::Length));
    }
}

#[test]
fn what_shadows_read_stays_however_little_is_in_use() {
    let config = SchedulerConfig {
        num_eager_blocks: 2,
        ..small_config()
    };
    let mut driver = Driver::new(config);
    for number in 0..8 {
        driver
            .add(shadow(number, &ids(1_000 * number as u32, 8)))
            .unwrap();
        driver.run();
    }
    assert_eq!(driver.scheduler.stats().num_cached_blocks, 16, "all of it");
}
