//! The prefix cache as sequences see it: what hits, what does not, what is evicted, and collisions.
//!
//! Invariant: the fake device would notice a block that holds anything else than the wanted prefix.

use crate::SchedulerConfig;
use crate::testing::{Driver, expect_alone, ids, request, small_config, with_max_tokens};

/// Runs a sequence of `num_ids` from `start` on; returns how much of it was cached.
fn run(driver: &mut Driver, id: u64, start: u32, num_ids: usize) -> u32 {
    driver
        .add(with_max_tokens(request(id, &ids(start, num_ids)), 1))
        .unwrap();
    driver.run();
    driver.transcript(id).num_cached_tokens.unwrap()
}

#[test]
fn a_prefix_is_found_in_whole_blocks_short_of_the_last_token() {
    let mut driver = Driver::new(small_config());
    assert_eq!(run(&mut driver, 1, 0, 14), 0);
    assert_eq!(run(&mut driver, 2, 0, 14), 12);
    assert_eq!(
        run(&mut driver, 3, 0, 12),
        8,
        "a token is computed even if all are known"
    );
    assert_eq!(run(&mut driver, 4, 0, 30), 12, "what is new is computed");
    assert_eq!(run(&mut driver, 5, 0, 30), 28, "and then it is known");
    assert_eq!(
        run(&mut driver, 6, 1, 30),
        0,
        "a prefix starts at the start"
    );
    let stats = driver.scheduler.stats();
    assert_eq!(stats.num_prefix_cache_queries, 14 + 14 + 12 + 30 + 30 + 30);
    assert_eq!(stats.num_prefix_cache_hits, 12 + 8 + 12 + 28);
    assert_eq!(stats.num_cached_prompt_tokens, stats.num_prefix_cache_hits);
    assert_eq!(
        stats.num_prompt_tokens + stats.num_cached_prompt_tokens,
        130
    );
}

#[test]
fn output_is_cached_too() {
    let mut driver = Driver::new(small_config());
    driver
        .add(with_max_tokens(request(1, &ids(0, 6)), 11))
        .unwrap();
    driver.run();
    let mut next_turn = ids(0, 6);
    next_turn.extend(&driver.transcript(1).tokens);
    next_turn.push(77);
    driver.add(request(2, &next_turn)).unwrap();
    driver.run();
    assert_eq!(
        driver.transcript(2).num_cached_tokens,
        Some(16),
        "16 of 17 ids were computed"
    );
}

#[test]
fn other_keys_are_another_cache() {
    let mut driver = Driver::new(small_config());
    let mut num_cached = Vec::new();
    let all_keys: [&[u64]; 6] = [&[], &[1], &[1, 2], &[2, 1], &[1], &[]];
    for (id, keys) in (1..).zip(all_keys) {
        let mut request = request(id, &ids(0, 9));
        request.block_hash_keys = keys.to_vec();
        driver.add(request).unwrap();
        driver.run();
        num_cached.extend(driver.transcript(id).num_cached_tokens);
    }
    assert_eq!(num_cached, [0, 0, 0, 0, 8, 8]);
}

#[test]
fn a_live_prefix_is_shared() {
    let mut driver = Driver::new(small_config());
    driver
        .add(with_max_tokens(request(1, &ids(0, 13)), 20))
        .unwrap();
    driver.step();
    driver
        .add(with_max_tokens(request(2, &ids(0, 13)), 20))
        .unwrap();
    driver.step();
    assert_eq!(driver.transcript(2).num_cached_tokens, Some(12));
    let stats = driver.scheduler.stats();
    assert_eq!(stats.num_used_blocks, 5, "three in common, one each");
    driver.run();
}

#[test]
fn cached_blocks_are_free_and_the_least_recently_used_goes_first() {
    // 16 blocks hold the computed tokens of five sequences of 12 ids, and one block more.
    let mut driver = Driver::new(small_config());
    for (id, start) in [(1, 1000), (2, 2000), (3, 3000), (4, 4000), (5, 5000)] {
        assert_eq!(run(&mut driver, id, start, 12), 0);
    }
    let stats = driver.scheduler.stats();
    assert_eq!((stats.num_cached_blocks, stats.num_free_blocks), (15, 16));
    assert_eq!(
        run(&mut driver, 6, 1000, 12),
        8,
        "the first one is used again"
    );
    assert_eq!(
        run(&mut driver, 7, 6000, 12),
        0,
        "and the second one makes room"
    );
    assert_eq!(run(&mut driver, 8, 1000, 12), 8);
    assert_eq!(run(&mut driver, 9, 3000, 12), 8);
    assert_eq!(run(&mut driver, 10, 2000, 12), 0);
}

#[test]
fn the_end_of_a_prefix_is_evicted_before_its_beginning() {
    let mut driver = Driver::new(small_config());
    run(&mut driver, 1, 1000, 41);
    assert_eq!(driver.scheduler.stats().num_cached_blocks, 10);
    run(&mut driver, 2, 2000, 37);
    assert_eq!(
        run(&mut driver, 3, 1000, 41),
        24,
        "10 blocks needed, 6 unused: 4 of 10 lost"
    );
}

#[test]
fn a_reset_forgets_unless_blocks_are_in_use() {
    let mut driver = Driver::new(small_config());
    run(&mut driver, 1, 0, 14);
    driver.add(request(2, &ids(0, 14))).unwrap();
    driver.step();
    assert!(!driver.scheduler.reset_prefix_cache());
    driver.run();
    assert_eq!(run(&mut driver, 3, 0, 14), 12, "nothing was forgotten");
    assert!(driver.scheduler.reset_prefix_cache());
    driver.scheduler.check_integrity();
    assert_eq!(driver.scheduler.stats().num_cached_blocks, 0);
    assert_eq!(run(&mut driver, 4, 0, 14), 0);
}

#[test]
fn without_the_cache_nothing_is_found() {
    let mut driver = Driver::new(SchedulerConfig {
        enable_prefix_caching: false,
        ..small_config()
    });
    assert_eq!(run(&mut driver, 1, 0, 14), 0);
    assert_eq!(run(&mut driver, 2, 0, 14), 0);
    assert_eq!(driver.scheduler.stats().num_prefix_cache_queries, 0);
    assert_eq!(driver.scheduler.stats().num_cached_blocks, 0);
    assert!(driver.scheduler.reset_prefix_cache());
}

#[test]
fn a_preempted_sequence_finds_its_own_blocks() {
    let mut driver = Driver::new(SchedulerConfig {
        num_blocks: 8,
        ..small_config()
    });
    driver
        .add(with_max_tokens(request(1, &ids(1000, 12)), 8))
        .unwrap();
    driver
        .add(with_max_tokens(request(2, &ids(2000, 12)), 8))
        .unwrap();
    let mut last_init = None;
    while driver.scheduler.has_unfinished() {
        if let Some(batch) = driver.schedule() {
            let row = &batch.rows[batch.rows.len() - 1];
            last_init = batch
                .slot_inits
                .last()
                .map(|_| row.num_computed_tokens)
                .or(last_init);
        }
        driver.commit();
    }
    assert!(driver.scheduler.stats().num_preemptions > 0);
    assert!(last_init.unwrap() > 0, "it does not start from nothing");
    assert_eq!(
        driver.transcript(2).num_cached_tokens,
        Some(0),
        "its first admission found none"
    );
}

#[test]
fn colliding_hashes_never_share_wrong_blocks() {
    // Every block of every sequence hashes alike; keys, positions and tokens differ.
    let hash_fns: [fn(u64, &[u8]) -> u64; 3] = [
        |_, _| 0,
        |parent, _| parent & 1,
        |_, bytes| u64::from(bytes[0]) & 1,
    ];
    for hash_fn in hash_fns {
        let mut driver = Driver::with_hash_fn(small_config(), hash_fn);
        let mut requests = Vec::new();
        for id in 1..=24 {
            let mut request = request(id, &ids(u32::from(id % 3 == 0), 5 + id as usize));
            request.block_hash_keys = vec![id % 2];
            requests.push(request);
        }
        for pair in requests.chunks(4) {
            for request in pair {
                driver.add(request.clone()).unwrap();
            }
            driver.run();
        }
        for request in &requests {
            let got = driver.transcript(request.request_id.0);
            assert_eq!(got.tokens, expect_alone(request, 64).tokens);
        }
        let num_hits = driver.scheduler.stats().num_prefix_cache_hits;
        assert!(num_hits > 0, "what is equal is still found");
    }
}

#[test]
fn colliding_keys_are_still_another_cache() {
    let mut driver = Driver::with_hash_fn(small_config(), |_, _| 0);
    let mut num_cached = Vec::new();
    for (id, key) in (1..).zip([7, 8, 7]) {
        let mut request = request(id, &ids(0, 9));
        request.block_hash_keys = vec![key];
        driver.add(request).unwrap();
        driver.run();
        num_cached.extend(driver.transcript(id).num_cached_tokens);
    }
    assert_eq!(num_cached, [0, 0, 4], "one block, since all hashes are one");
}

#[test]
fn what_follows_a_collision_is_not_taken_for_a_start() {
    let mut driver = Driver::with_hash_fn(small_config(), |_, bytes| u64::from(bytes[0]));
    let prompts: [(&[u32], u64); 3] = [
        (&[1, 1, 1, 1, 9], 0),
        // Its first block collides with the one above, its second with nothing.
        (&[1, 1, 1, 1, 2, 2, 2, 2, 9], 5),
        (&[2, 2, 2, 2, 9], 5),
    ];
    for (id, (ids, key)) in (1..).zip(prompts) {
        let mut request = request(id, ids);
        request.block_hash_keys = vec![key];
        driver.add(request).unwrap();
        driver.run();
        assert_eq!(driver.transcript(id).num_cached_tokens, Some(0));
    }
}

#[test]
fn blocks_of_no_use_go_before_cached_ones() {
    let mut driver = Driver::new(small_config());
    // Each leaves seven cached blocks and one that was not full.
    run(&mut driver, 1, 1000, 29);
    run(&mut driver, 2, 2000, 29);
    assert_eq!(driver.scheduler.stats().num_cached_blocks, 14);
    run(&mut driver, 3, 3000, 7);
    assert_eq!(
        run(&mut driver, 4, 1000, 29),
        28,
        "nothing of it was evicted"
    );
}

/// Where every layer has a window, a sequence holds the blocks that the window reaches and no more,
/// and what it gave back can be found as long as nobody overwrote it.
#[test]
fn a_window_bounds_what_a_sequence_holds() {
    let config = SchedulerConfig {
        sliding_window: Some(6),
        num_blocks: 32,
        max_model_len: 120,
        ..small_config()
    };
    let mut driver = Driver::new(config.clone());
    let request_of = |id| with_max_tokens(request(id, &ids(0, 40)), 60);
    driver.add(request_of(1)).unwrap();
    let mut most = 0;
    while driver.scheduler.has_unfinished() {
        driver.step();
        most = most.max(driver.scheduler.stats().num_used_blocks);
    }
    // A chunk of 16 tokens and the 5 before it, in blocks of 4.
    assert!(most <= 6, "{most} blocks");
    let free = driver.scheduler.stats();
    assert_eq!((free.num_used_blocks, free.num_cached_blocks), (0, 24));
    let expected = expect_alone(&request_of(1), config.max_model_len);
    assert_eq!(driver.transcript(1).tokens, expected.tokens);

    driver.add(request_of(2)).unwrap();
    driver.schedule();
    // Of 36 cached tokens the last five are seen, and four are new.
    let used = driver.scheduler.stats().num_used_blocks;
    assert_eq!(used, 3, "of ten blocks");
    driver.run();
    assert_eq!(driver.transcript(2).num_cached_tokens, Some(36));
    let expected = expect_alone(&request_of(2), config.max_model_len);
    assert_eq!(driver.transcript(2).tokens, expected.tokens);

    // Without a window it holds all of them.
    let mut driver = Driver::new(SchedulerConfig {
        sliding_window: None,
        ..config
    });
    driver.add(request_of(1)).unwrap();
    let mut most = 0;
    while driver.scheduler.has_unfinished() {
        driver.step();
        most = most.max(driver.scheduler.stats().num_used_blocks);
    }
    assert_eq!(most, 25);
}

/// Three sequences together, each longer than its share of the pool: with a window none has to make
/// way once it runs.
#[test]
fn a_window_lets_more_sequences_run() {
    let preemptions = |sliding_window| {
        let mut driver = Driver::new(SchedulerConfig {
            sliding_window,
            num_blocks: 18,
            max_model_len: 72,
            ..small_config()
        });
        for id in 1..4 {
            let start = 100 * id as u32;
            driver
                .add(with_max_tokens(request(id, &ids(start, 8)), 50))
                .unwrap();
        }
        driver.run();
        for id in 1..4 {
            let request = with_max_tokens(request(id, &ids(100 * id as u32, 8)), 50);
            assert_eq!(
                driver.transcript(id).tokens,
                expect_alone(&request, 72).tokens
            );
        }
        driver.scheduler.stats().num_preemptions
    };
    assert!(preemptions(None) > 0);
    assert_eq!(preemptions(Some(8)), 0);
}
