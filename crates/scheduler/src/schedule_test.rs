//! What goes into a batch: budget, order, chunks, row fields.
//!
//! Invariant: each test reads batches, not the scheduler's insides.

use hotspare_batch::{Batch, TOKEN_FROM_DEVICE};

use crate::testing::{Driver, ids, request, small_config, with_max_tokens};
use crate::{SchedulerConfig, SchedulerError, SchedulingPolicy};

/// First position and number of tokens of each row.
fn shape(batch: &Batch) -> Vec<(u32, usize)> {
    batch
        .rows
        .iter()
        .map(|row| (row.num_computed_tokens, row.num_tokens()))
        .collect()
}

#[test]
fn limits_are_positive_and_small_enough() {
    type Change = fn(&mut SchedulerConfig);
    let changes: [(&str, Change); 7] = [
        ("max_num_seqs", |config| config.max_num_seqs = 0),
        ("max_num_batched_tokens", |config| {
            config.max_num_batched_tokens = 0
        }),
        ("max_model_len", |config| config.max_model_len = usize::MAX),
        ("block_size", |config| config.block_size = 0),
        ("num_blocks", |config| config.num_blocks = 1 << 30),
        ("max_num_waiting", |config| config.max_num_waiting = 0),
        ("max_num_in_flight", |config| config.max_num_in_flight = 0),
    ];
    for (expected, change) in changes {
        let mut config = small_config();
        change(&mut config);
        let error = crate::Scheduler::new(config).err();
        let Some(SchedulerError::InvalidConfig { name, .. }) = error else {
            panic!("{expected} is checked");
        };
        assert_eq!(name, expected);
    }
}

#[test]
fn a_long_prompt_is_cut_to_the_budget() {
    let mut driver = Driver::new(small_config());
    driver.add(request(1, &ids(1000, 37))).unwrap();
    let mut batches = Vec::new();
    for _ in 0..4 {
        batches.push(driver.schedule().unwrap());
        driver.commit();
    }
    let shapes: Vec<_> = batches.iter().map(shape).collect();
    assert_eq!(shapes, [[(0, 16)], [(16, 16)], [(32, 5)], [(37, 1)]]);
    let samples: Vec<_> = batches.iter().map(|batch| batch.rows[0].samples).collect();
    assert_eq!(
        samples,
        [false, false, true, true],
        "only the prompt's last token has a successor"
    );
    let num_inits: Vec<_> = batches.iter().map(|batch| batch.slot_inits.len()).collect();
    assert_eq!(num_inits, [1, 0, 0, 0], "a slot is set up once");
    assert_eq!(batches[1].row_tokens(&batches[1].rows[0]), ids(1016, 16));
    let num_blocks: Vec<_> = batches
        .iter()
        .map(|batch| batch.block_tables.len())
        .collect();
    assert_eq!(
        num_blocks,
        [4, 8, 10, 10],
        "tables cover the row's last token"
    );
}

#[test]
fn prefill_and_decode_share_a_step_and_running_ones_come_first() {
    let mut driver = Driver::new(small_config());
    driver.add(request(1, &ids(1000, 6))).unwrap();
    driver.step();
    driver.add(request(2, &ids(2000, 20))).unwrap();
    let batch = driver.schedule().unwrap();
    assert_eq!(shape(&batch), [(6, 1), (0, 15)]);
    driver.commit();
    assert_eq!(shape(&driver.schedule().unwrap()), [(7, 1), (15, 5)]);
}

#[test]
fn a_chunk_leaves_a_token_for_each_stream_behind_it() {
    let config = SchedulerConfig {
        policy: SchedulingPolicy::Priority,
        ..small_config()
    };
    let mut driver = Driver::new(config);
    for id in 1..=2 {
        let ids = ids(1000 * id as u32, 3);
        driver.add(with_max_tokens(request(id, &ids), 9)).unwrap();
    }
    driver.step();
    let mut urgent = request(3, &ids(3000, 40));
    urgent.priority = -1;
    driver.add(urgent).unwrap();
    assert_eq!(
        shape(&driver.schedule().unwrap()),
        [(3, 1), (3, 1), (0, 14)]
    );
    driver.commit();
    // It runs first now, and its next chunk could take all 16.
    assert_eq!(
        shape(&driver.schedule().unwrap()),
        [(14, 14), (4, 1), (4, 1)]
    );
}

#[test]
fn a_budget_below_the_number_of_sequences_still_moves() {
    let config = SchedulerConfig {
        max_num_batched_tokens: 2,
        ..small_config()
    };
    let mut driver = Driver::new(config);
    for id in 1..=4 {
        driver.add(request(id, &ids(1000 * id as u32, 5))).unwrap();
    }
    driver.run();
    assert!((1..=4).all(|id| driver.transcript(id).tokens.len() == 4));
}

#[test]
fn the_threshold_cuts_prefill_only_in_company() {
    let config = SchedulerConfig {
        long_prefill_token_threshold: 5,
        ..small_config()
    };
    let mut driver = Driver::new(config);
    driver.add(request(1, &ids(1000, 30))).unwrap();
    assert_eq!(
        shape(&driver.schedule().unwrap()),
        [(0, 16)],
        "alone, it may have all"
    );
    driver.commit();
    driver.add(request(2, &ids(2000, 30))).unwrap();
    assert_eq!(shape(&driver.schedule().unwrap()), [(16, 5), (0, 5)]);
}

#[test]
fn at_most_max_num_seqs_run() {
    let config = SchedulerConfig {
        max_num_seqs: 2,
        max_num_batched_tokens: 64,
        ..small_config()
    };
    let mut driver = Driver::new(config);
    for id in 1..=3 {
        driver.add(request(id, &ids(1000 * id as u32, 3))).unwrap();
    }
    assert_eq!(driver.schedule().unwrap().rows.len(), 2);
    let stats = driver.scheduler.stats();
    assert_eq!((stats.num_running, stats.num_waiting), (2, 1));
    driver.run();
}

#[test]
fn order_is_by_arrival_or_by_priority() {
    let start = |policy| {
        let mut driver = Driver::new(SchedulerConfig {
            policy,
            ..small_config()
        });
        for (id, priority) in [(1, 5), (2, 0), (3, 5), (4, -7)] {
            let mut request = request(id, &ids(1000 * id as u32, 3));
            request.priority = priority;
            driver.add(request).unwrap();
        }
        let batch = driver.schedule().unwrap();
        batch
            .slot_inits
            .iter()
            .map(|init| init.token_ids[0] / 1000)
            .collect::<Vec<_>>()
    };
    assert_eq!(start(SchedulingPolicy::Fcfs), [1, 2, 3, 4]);
    assert_eq!(start(SchedulingPolicy::Priority), [4, 2, 1, 3]);
}

#[test]
fn a_sequence_is_admitted_only_when_all_its_ids_fit() {
    let config = SchedulerConfig {
        long_prefill_token_threshold: 4,
        ..small_config()
    };
    let mut driver = Driver::new(config);
    driver.add(request(1, &ids(1000, 46))).unwrap();
    driver.step();
    driver
        .add(with_max_tokens(request(2, &ids(2000, 20)), 2))
        .unwrap();
    driver.add(request(3, &ids(3000, 3))).unwrap();
    // The first holds 5 of 16 blocks and was promised 7 more: the second's 5 do not fit beside it.
    let batch = driver.schedule().unwrap();
    assert_eq!(
        shape(&batch),
        [(16, 4)],
        "nor does anyone overtake it in the queue"
    );
    driver.run();
    assert_eq!(driver.scheduler.stats().num_preemptions, 0);
}

#[test]
fn a_row_under_look_ahead_takes_its_token_from_the_device() {
    let config = SchedulerConfig {
        max_num_in_flight: 2,
        ..small_config()
    };
    let mut driver = Driver::new(config);
    driver.add(request(1, &ids(1000, 5))).unwrap();
    driver.schedule().unwrap();
    let ahead = driver.schedule().unwrap();
    assert_eq!(ahead.token_ids, [TOKEN_FROM_DEVICE]);
    assert_eq!(shape(&ahead), [(5, 1)]);
    assert!(ahead.rows[0].samples);
    assert_eq!(driver.schedule(), None, "two batches are in flight");
    driver.commit();
    assert_eq!(driver.schedule().unwrap().token_ids, [TOKEN_FROM_DEVICE]);
    driver.run();
    assert_eq!(driver.transcript(1).tokens.len(), 4);
}
