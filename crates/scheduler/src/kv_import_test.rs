//! Blocks of one engine's cache in another's: found by content, bounded by what is empty, and
//! never another prefix's.
//!
//! Invariant: the fake device would notice a block that holds anything else than the wanted prefix.

use std::cell::Cell;
use std::collections::BTreeMap;

use hotspare_batch::TokenId;
use proptest::prelude::*;

use crate::testing::{Driver, expect_alone, ids, request, small_config, with_max_tokens};
use crate::{CachedBlock, KvSource, PrefixId, SchedulerConfig, WantedBlock};

fn reporting() -> SchedulerConfig {
    SchedulerConfig {
        reports_cached_blocks: true,
        ..small_config()
    }
}

/// What was kept of a scheduler's blocks, by the number of the entry.
#[derive(Default)]
struct Kept {
    entries: Vec<(CachedBlock, Option<u64>, Vec<u8>)>,
    by_hash: BTreeMap<u64, usize>,
    /// Entries that cannot be read.
    damaged: Vec<u64>,
    num_reads: Cell<usize>,
}

impl Kept {
    /// Keeps what `driver` cached since the last time.
    fn keep(&mut self, driver: &mut Driver) {
        let mut cached = Vec::new();
        driver.scheduler.take_cached_blocks(&mut cached);
        for block in cached {
            assert!(driver.scheduler.is_cached(block.id), "it was cached now");
            let parent = block.parent.map(|parent| self.entry_of(parent));
            let bytes = driver.device.save_block(block.block).bytes;
            self.by_hash.insert(block.hash, self.entries.len());
            self.entries.push((block, parent, bytes));
        }
    }

    fn entry_of(&self, id: PrefixId) -> u64 {
        let entry = self.entries.iter().rposition(|(block, ..)| block.id == id);
        entry.expect("a parent is kept before its children") as u64
    }
}

impl KvSource for Kept {
    fn find(&self, wanted: &WantedBlock<'_>) -> Option<u64> {
        let entry = *self.by_hash.get(&wanted.hash)?;
        let (block, parent, _) = &self.entries[entry];
        let is_it = *parent == wanted.parent
            && block.token_ids == wanted.token_ids
            && *block.keys == *wanted.keys;
        is_it.then_some(entry as u64)
    }

    fn read(&mut self, entry: u64) -> Option<Vec<u8>> {
        self.num_reads.set(self.num_reads.get() + 1);
        let is_whole = !self.damaged.contains(&entry);
        is_whole.then(|| self.entries[entry as usize].2.clone())
    }
}

/// Takes what `kept` has of `ids` into `driver`; returns the number of blocks that came.
fn import(driver: &mut Driver, kept: &mut Kept, ids: &[TokenId]) -> usize {
    let loads = driver.scheduler.import_prefix(ids, &[], kept);
    driver.scheduler.check_integrity();
    for load in &loads {
        driver.device.load_block(load);
    }
    loads.len()
}

fn run(driver: &mut Driver, kept: &mut Kept, id: u64, ids: &[TokenId]) -> u32 {
    driver.add(with_max_tokens(request(id, ids), 1)).unwrap();
    while driver.scheduler.has_unfinished() {
        driver.step();
        kept.keep(driver);
    }
    driver.transcript(id).num_cached_tokens.unwrap()
}

#[test]
fn what_one_computed_another_finds() {
    let (mut first, mut kept) = (Driver::new(reporting()), Kept::default());
    run(&mut first, &mut kept, 1, &ids(0, 22));
    run(&mut first, &mut kept, 2, &ids(1000, 9));
    let mut second = Driver::new(reporting());
    assert_eq!(import(&mut second, &mut kept, &ids(0, 22)), 5);
    assert_eq!(import(&mut second, &mut kept, &ids(0, 22)), 0, "once");
    assert_eq!(import(&mut second, &mut kept, &ids(0, 12)), 0, "a part");
    assert_eq!(
        import(&mut second, &mut kept, &ids(1000, 8)),
        1,
        "short of the last token"
    );
    assert_eq!(import(&mut second, &mut kept, &ids(5000, 22)), 0, "unknown");
    assert_eq!(kept.num_reads.get(), 6, "nothing is read twice");
    let mut of_second = Kept::default();
    of_second.keep(&mut second);
    assert_eq!(of_second.entries.len(), 6, "imports are reported too");
    assert_eq!(run(&mut second, &mut of_second, 3, &ids(0, 22)), 20);
    assert_eq!(second.scheduler.stats().num_cached_blocks, 6);
}

#[test]
fn a_sequence_resumes_from_another_engines_blocks() {
    let (mut first, mut kept) = (Driver::new(reporting()), Kept::default());
    let request = with_max_tokens(request(1, &ids(0, 6)), 30);
    first.add(request.clone()).unwrap();
    for _ in 0..20 {
        first.step();
        kept.keep(&mut first);
    }
    let delivered = first.transcript(1).tokens.clone();
    assert!(delivered.len() >= 15, "it is under way");
    let mut resumed = request.clone();
    resumed.ids.extend(&delivered);
    (resumed.num_delivered, resumed.attempt) = (delivered.len() as u32, 1);
    let mut second = Driver::new(reporting());
    let num_imported = import(&mut second, &mut kept, &resumed.ids);
    assert_eq!(num_imported, (resumed.ids.len() - 1) / 4);
    second.add(resumed).unwrap();
    second.run();
    let mut tokens = delivered;
    tokens.extend(&second.transcript(1).tokens);
    assert_eq!(tokens, expect_alone(&request, 64).tokens);
}

#[test]
fn damage_ends_a_prefix_and_a_full_pool_takes_nothing() {
    let (mut first, mut kept) = (Driver::new(reporting()), Kept::default());
    run(&mut first, &mut kept, 1, &ids(0, 22));
    kept.damaged.push(2);
    let mut second = Driver::new(reporting());
    assert_eq!(import(&mut second, &mut kept, &ids(0, 22)), 2);
    kept.damaged.clear();
    // All 16 blocks hold something.
    let mut own = Kept::default();
    run(&mut second, &mut own, 2, &ids(1000, 56));
    assert_eq!(second.scheduler.stats().num_cached_blocks, 16);
    assert_eq!(import(&mut second, &mut kept, &ids(0, 22)), 0);
    assert_eq!(
        run(&mut second, &mut own, 3, &ids(1000, 56)),
        52,
        "nothing was dropped for it"
    );
}

#[test]
fn what_comes_in_first_is_not_dropped_for_what_comes_next() {
    let config = SchedulerConfig {
        num_blocks: 64,
        num_eager_blocks: 4,
        ..reporting()
    };
    let (mut first, mut kept) = (Driver::new(config.clone()), Kept::default());
    for start in [0, 1000, 2000] {
        run(&mut first, &mut kept, start.into(), &ids(start, 33));
    }
    let mut second = Driver::new(config);
    for start in [0, 1000, 2000] {
        assert_eq!(import(&mut second, &mut kept, &ids(start, 33)), 8);
    }
    let mut own = Kept::default();
    for start in [0, 1000, 2000] {
        let num_cached = run(&mut second, &mut own, start.into(), &ids(start, 33));
        assert_eq!(num_cached, 32, "{start}");
    }
}

#[test]
fn nothing_is_imported_or_reported_without_a_prefix_cache() {
    let (mut first, mut kept) = (Driver::new(reporting()), Kept::default());
    run(&mut first, &mut kept, 1, &ids(0, 22));
    let mut second = Driver::new(SchedulerConfig {
        enable_prefix_caching: false,
        ..reporting()
    });
    assert_eq!(import(&mut second, &mut kept, &ids(0, 22)), 0);
    let mut own = Kept::default();
    run(&mut second, &mut own, 1, &ids(0, 22));
    assert!(own.entries.is_empty());
    let mut silent = Driver::new(small_config());
    run(&mut silent, &mut own, 1, &ids(0, 22));
    assert!(own.entries.is_empty(), "nor where nobody asked for reports");
}

/// Every block has the same hash.
fn collide(_: u64, _: &[u8]) -> u64 {
    7
}

#[test]
fn colliding_hashes_cost_imports_and_no_answer() {
    let (mut first, mut kept) = (Driver::with_hash_fn(reporting(), collide), Kept::default());
    run(&mut first, &mut kept, 1, &ids(0, 22));
    let mut second = Driver::with_hash_fn(reporting(), collide);
    run(&mut second, &mut Kept::default(), 1, &ids(50, 9));
    assert_eq!(import(&mut second, &mut kept, &ids(0, 22)), 0);
    run(&mut second, &mut Kept::default(), 2, &ids(0, 22));
}

proptest! {
    /// Engines die and hand their blocks on, while prefixes are shared and the pool is short.
    #[test]
    fn answers_do_not_depend_on_whose_blocks_they_are_computed_from(
        steps in prop::collection::vec((0u32..3, 1usize..40, any::<bool>()), 1..24)
    ) {
        let (mut driver, mut kept) = (Driver::new(reporting()), Kept::default());
        let mut old: Option<Kept> = None;
        for (id, (start, num_ids, dies)) in steps.into_iter().enumerate() {
            let prompt = ids(start * 1000, num_ids);
            if let Some(old) = &mut old {
                import(&mut driver, old, &prompt);
                kept.keep(&mut driver);
            }
            run(&mut driver, &mut kept, id as u64, &prompt);
            let request = with_max_tokens(request(id as u64, &prompt), 1);
            let expected = expect_alone(&request, 64).tokens;
            prop_assert_eq!(&driver.transcript(id as u64).tokens, &expected);
            if dies {
                driver = Driver::new(reporting());
                old = Some(std::mem::take(&mut kept));
            }
        }
    }
}
