//! Drives a scheduler with the fake device, and checks what any driver may rely on.
//!
//! Batches run when they are committed, the latest moment there is. Each batch is checked when it
//! is scheduled: limits, and that it writes nothing that a batch in flight still uses.
//!
//! Invariant: `check_integrity` has held after every call.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hotspare_batch::{
    Batch, FinishReason, Generate, RejectReason, RequestId, SequenceEvent, SlotId, TokenId,
    TokenLogprobs,
};

use super::FakeDevice;
use crate::block_hash::{HashFn, xxh3};
use crate::{Scheduler, SchedulerConfig};

/// What a sequence delivered so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Transcript {
    pub(crate) attempt: u32,
    pub(crate) num_delivered: u32,
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) logprobs: Vec<TokenLogprobs>,
    pub(crate) prompt_logprobs: Vec<TokenLogprobs>,
    pub(crate) num_cached_tokens: Option<u32>,
    pub(crate) finish: Option<FinishReason>,
}

/// Scheduler, device and what came out.
pub(crate) struct Driver {
    pub(crate) scheduler: Scheduler,
    pub(crate) device: FakeDevice,
    pub(crate) in_flight: VecDeque<Batch>,
    pub(crate) now_ms: u64,
    pub(crate) transcripts: BTreeMap<RequestId, Transcript>,
    /// How long sequences waited, as their first events say.
    pub(crate) queued_ms: Vec<(RequestId, u64)>,
    /// A device that draws several tokens makes rows stale, whose slots are set up again under way.
    pub(crate) speculates: bool,
    events: Vec<SequenceEvent>,
    last_step: u64,
}

impl Driver {
    pub(crate) fn new(config: SchedulerConfig) -> Self {
        Self::with_hash_fn(config, xxh3)
    }

    pub(crate) fn with_hash_fn(config: SchedulerConfig, hash_fn: HashFn) -> Self {
        let mut device = FakeDevice::new(config.num_blocks, config.block_size, config.max_num_seqs);
        device.set_sliding_window(config.sliding_window);
        Self {
            scheduler: Scheduler::with_hash_fn(config, hash_fn).expect("test configs are valid"),
            device,
            in_flight: VecDeque::new(),
            now_ms: 0,
            transcripts: BTreeMap::new(),
            queued_ms: Vec::new(),
            speculates: false,
            events: Vec::new(),
            last_step: 0,
        }
    }

    pub(crate) fn speculate(&mut self, seed: u64) {
        self.speculates = true;
        self.device.speculate(seed);
    }

    pub(crate) fn add(&mut self, request: Generate) -> Result<(), RejectReason> {
        let (id, attempt) = (request.request_id, request.attempt);
        let num_delivered = request.num_delivered;
        self.scheduler.add(request, self.now_ms)?;
        let transcript = Transcript {
            attempt,
            num_delivered,
            ..Transcript::default()
        };
        let old = self.transcripts.insert(id, transcript);
        assert!(
            old.is_none_or(|old| old.finish.is_some()),
            "a live name is refused"
        );
        self.observe();
        Ok(())
    }

    pub(crate) fn cancel(&mut self, id: u64) -> bool {
        let was_live = self.scheduler.cancel(RequestId(id));
        self.observe();
        was_live
    }

    /// Schedules a batch, if there is one, and returns a copy.
    pub(crate) fn schedule(&mut self) -> Option<Batch> {
        let must_run = self.in_flight.is_empty();
        let batch = self.scheduler.schedule(self.now_ms);
        self.observe();
        if must_run && batch.is_none() {
            assert!(
                !self.scheduler.has_unfinished(),
                "with nothing in flight, work is scheduled"
            );
        }
        let batch = batch?;
        self.check_batch(&batch);
        self.in_flight.push_back(batch.clone());
        Some(batch)
    }

    /// Runs and commits the oldest batch in flight. False where there is none.
    pub(crate) fn commit(&mut self) -> bool {
        let Some(batch) = self.in_flight.pop_front() else {
            return false;
        };
        let output = self.device.run(&batch);
        self.scheduler
            .commit(output, self.now_ms)
            .expect("outputs match their batches");
        self.observe();
        true
    }

    /// Schedules as far ahead as it may, then commits one batch.
    pub(crate) fn step(&mut self) {
        while self.schedule().is_some() {}
        self.commit();
    }

    /// Runs until everything has ended, then checks that nothing is held.
    pub(crate) fn run(&mut self) {
        for _ in 0..100_000 {
            if !self.scheduler.has_unfinished() {
                break;
            }
            self.step();
        }
        assert!(!self.scheduler.has_unfinished(), "everything ends");
        let stats = self.scheduler.stats();
        assert_eq!((stats.num_running, stats.num_waiting), (0, 0));
        assert_eq!(
            stats.num_used_blocks, 0,
            "nothing is held when nothing lives"
        );
        assert!(
            self.transcripts
                .values()
                .all(|transcript| transcript.finish.is_some())
        );
    }

    pub(crate) fn transcript(&self, id: u64) -> &Transcript {
        &self.transcripts[&RequestId(id)]
    }

    /// Checks the scheduler's state and writes down its events.
    fn observe(&mut self) {
        self.scheduler.check_integrity();
        self.scheduler.drain_events(&mut self.events);
        for event in self.events.drain(..) {
            let transcript = self
                .transcripts
                .get_mut(&event.request_id)
                .expect("events are of known requests");
            let queued_ms = event.prompt.as_ref().and_then(|prompt| prompt.queued_ms);
            self.queued_ms
                .extend(queued_ms.map(|ms| (event.request_id, ms)));
            transcript.take(event);
        }
    }

    fn check_batch(&mut self, batch: &Batch) {
        let config = self.scheduler.config();
        batch.check_integrity(config.block_size);
        assert!(
            batch.num_tokens() <= config.max_num_batched_tokens,
            "the budget holds"
        );
        assert_eq!(batch.step, self.last_step + 1, "steps are numbered");
        self.last_step = batch.step;
        let slots: BTreeSet<SlotId> = batch.rows.iter().map(|row| row.slot).collect();
        assert_eq!(slots.len(), batch.rows.len(), "a slot has one row");
        assert!(
            slots
                .iter()
                .all(|slot| (*slot as usize) < config.max_num_seqs)
        );
        let users = self.users_in_flight();
        for init in &batch.slot_inits {
            let is_used = users.values().any(|slots| slots.contains(&init.slot));
            assert!(
                !is_used || self.speculates,
                "slots in flight keep their owner"
            );
        }
        let mut written = BTreeSet::new();
        for row in &batch.rows {
            let first = row.num_computed_tokens as usize / config.block_size;
            let num_blocks = row.context_len().div_ceil(config.block_size);
            assert_eq!(
                batch.row_blocks(row).len(),
                num_blocks,
                "tables end with their row"
            );
            for block in &batch.row_blocks(row)[first..] {
                assert!(written.insert(*block), "a block has one writer");
                let others = users
                    .get(block)
                    .is_some_and(|s| s.iter().any(|s| *s != row.slot));
                assert!(
                    !others,
                    "block {block} is written while in flight elsewhere"
                );
            }
        }
    }

    /// The slots that use each block in the batches in flight. What lies before the window of a
    /// row's first token is not used.
    fn users_in_flight(&self) -> BTreeMap<u32, BTreeSet<SlotId>> {
        let mut users: BTreeMap<u32, BTreeSet<SlotId>> = BTreeMap::new();
        for batch in &self.in_flight {
            for row in &batch.rows {
                let start = row.num_computed_tokens as usize;
                let config = self.scheduler.config();
                let window = config.sliding_window.unwrap_or(usize::MAX);
                let num_unseen = (start + 1).saturating_sub(window) / config.block_size;
                for block in &batch.row_blocks(row)[num_unseen..] {
                    users.entry(*block).or_default().insert(row.slot);
                }
            }
        }
        users
    }
}

impl Transcript {
    fn take(&mut self, event: SequenceEvent) {
        assert_eq!(self.finish, None, "no event after the last one");
        assert_eq!(
            event.attempt, self.attempt,
            "events are of the attempt that was added"
        );
        let is_first = self.num_cached_tokens.is_none();
        assert_eq!(
            event.prompt.is_some(),
            is_first,
            "the first event says what hit"
        );
        let first_index = self.num_delivered as usize + self.tokens.len();
        assert_eq!(
            event.first_index as usize, first_index,
            "tokens come in order"
        );
        assert!(
            !event.token_ids.is_empty() || event.finish.is_some(),
            "events say something"
        );
        self.tokens.extend(event.token_ids);
        self.logprobs.extend(event.logprobs);
        if let Some(prompt) = event.prompt {
            self.num_cached_tokens = Some(prompt.num_cached_tokens);
            self.prompt_logprobs.extend(prompt.prompt_logprobs);
        }
        self.finish = event.finish;
    }
}
