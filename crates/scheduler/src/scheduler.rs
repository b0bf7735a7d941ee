//! The scheduler's state and the calls that do not run a step.
//!
//! `schedule` builds a batch (`schedule.rs`), `commit` takes its output (`commit.rs`); what both
//! need to end or preempt a sequence is in `finish.rs`, and what may come in is decided in
//! `admission.rs`.
//!
//! Invariant: a sequence that was added gets exactly one event with a finish reason, its last.

use std::collections::{BTreeSet, VecDeque};

use hotspare_batch::{
    FinishReason, Generate, RejectReason, RequestId, SequenceEvent, SlotId, StepId,
};
use rustc_hash::FxHashMap;

use crate::block_hash::{HashFn, xxh3};
use crate::kv_blocks::KvBlocks;
use crate::queue::{QueueKey, RunningList, WaitingQueue};
use crate::sequence::{Sequence, Status};
use crate::slab::{SequenceIndex, Slab};
use crate::{SchedulerConfig, SchedulerError, SchedulerStats, SchedulingPolicy};

/// What `commit` must know about a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlightRow {
    pub(crate) index: SequenceIndex,
    pub(crate) slot: SlotId,
    /// The sequence's epoch when the row was built.
    pub(crate) epoch: u32,
    /// Position of the row's first token.
    pub(crate) start: usize,
    /// Position after the row's last token.
    pub(crate) end: usize,
    pub(crate) samples: bool,
}

/// A batch that was scheduled and not committed.
#[derive(Debug)]
pub(crate) struct InFlightStep {
    pub(crate) step: StepId,
    pub(crate) rows: Vec<InFlightRow>,
}

/// Decides which tokens run in each step, and where their K and V live.
pub struct Scheduler {
    pub(crate) config: SchedulerConfig,
    pub(crate) sequences: Slab,
    pub(crate) by_id: FxHashMap<RequestId, SequenceIndex>,
    pub(crate) waiting: WaitingQueue,
    pub(crate) running: RunningList,
    pub(crate) blocks: KvBlocks,
    pub(crate) free_slots: Vec<SlotId>,
    pub(crate) deadlines: BTreeSet<(u64, SequenceIndex)>,
    pub(crate) in_flight: VecDeque<InFlightStep>,
    /// Row lists of committed steps, for reuse.
    pub(crate) spare_rows: Vec<Vec<InFlightRow>>,
    /// Length of the last batch's block tables: the next one's are about as long.
    pub(crate) last_num_table_blocks: usize,
    /// Sequences that ended or lost their place, and give back what they hold at a later commit.
    pub(crate) num_releasing: usize,
    /// The first waiting sequence, and the blocks freed ever when it was found not to fit.
    pub(crate) blocked: Option<(QueueKey, u64)>,
    pub(crate) events: Vec<SequenceEvent>,
    pub(crate) next_arrival: u64,
    pub(crate) last_step: StepId,
    pub(crate) is_draining: bool,
    /// Counters; gauges in it are filled in by `stats`.
    pub(crate) counters: SchedulerStats,
}

impl Scheduler {
    /// A scheduler without sequences, all of whose blocks are free.
    ///
    /// # Errors
    /// [`SchedulerError::InvalidConfig`].
    pub fn new(config: SchedulerConfig) -> Result<Self, SchedulerError> {
        Self::with_hash_fn(config, xxh3)
    }

    pub(crate) fn with_hash_fn(
        config: SchedulerConfig,
        hash_fn: HashFn,
    ) -> Result<Self, SchedulerError> {
        config.validate()?;
        Ok(Self {
            sequences: Slab::default(),
            by_id: FxHashMap::default(),
            waiting: WaitingQueue::default(),
            running: RunningList::default(),
            blocks: KvBlocks::new(&config, hash_fn),
            free_slots: (0..config.max_num_seqs as SlotId).rev().collect(),
            deadlines: BTreeSet::new(),
            in_flight: VecDeque::with_capacity(config.max_num_in_flight.min(16)),
            spare_rows: Vec::new(),
            last_num_table_blocks: 0,
            num_releasing: 0,
            blocked: None,
            events: Vec::new(),
            next_arrival: 0,
            last_step: 0,
            is_draining: false,
            counters: SchedulerStats::default(),
            config,
        })
    }

    /// The limits it works within.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// Takes in a sequence; its events follow. One whose delivered ids already end it (by length,
    /// or by the last one) ends at once. [`RequestId::CANARY`] goes before all that waits, also
    /// where the queue is full, shadows ([`RequestId::is_shadow`]) go behind it; neither is in any
    /// counter but that of steps.
    ///
    /// # Errors
    /// Nothing of the request is kept, and it gets no event.
    pub fn add(&mut self, request: Generate, now_ms: u64) -> Result<(), RejectReason> {
        let max_len = self.check_request(&request)?;
        if let Some(finish) = self.find_early_finish(&request, max_len) {
            self.report_early_finish(&request, finish);
            return Ok(());
        }
        let id = request.request_id;
        if !id.is_internal() && self.waiting.num_new() >= self.config.max_num_waiting {
            let max_num_waiting = self.config.max_num_waiting as u32;
            return Err(RejectReason::QueueFull { max_num_waiting });
        }
        let index = self.sequences.next_index();
        let priority = match self.config.policy {
            _ if id == RequestId::CANARY => i64::MIN,
            _ if id.is_shadow() => i64::MAX,
            SchedulingPolicy::Fcfs => 0,
            SchedulingPolicy::Priority => request.priority.into(),
        };
        let key = QueueKey {
            priority,
            arrival: self.next_arrival,
            index,
        };
        self.next_arrival += 1;
        let deadline_at_ms = request.deadline_ms.map(|ms| now_ms.saturating_add(ms));
        if let Some(at_ms) = deadline_at_ms {
            self.deadlines.insert((at_ms, index));
        }
        self.by_id.insert(request.request_id, index);
        if id.is_shadow() {
            // What it reads is wanted later, however little is in use meanwhile.
            self.blocks.use_whole_pool();
        }
        // The engine's own take no place in the queue, as a sequence that was preempted takes none.
        self.waiting.insert(key, id.is_internal());
        let inserted =
            self.sequences
                .insert(Sequence::new(request, max_len, key, deadline_at_ms, now_ms));
        debug_assert_eq!(inserted, index, "the slab keeps its word");
        Ok(())
    }

    /// Ends a sequence; its last event comes with the next `drain_events`. What it holds is given
    /// back now, or when the batches in flight that use it are committed. False where no such
    /// sequence lives.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let Some(&index) = self.by_id.get(&id) else {
            return false;
        };
        self.finish(index, FinishReason::Cancelled);
        self.settle(index);
        true
    }

    /// Takes nothing new from now on; what was taken in goes on.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Moves the events since the last call to the end of `out`, in the order they happened.
    pub fn drain_events(&mut self, out: &mut Vec<SequenceEvent>) {
        if out.is_empty() {
            std::mem::swap(out, &mut self.events);
        } else {
            out.append(&mut self.events);
        }
    }

    /// Whether there is something left to schedule or to commit.
    pub fn has_unfinished(&self) -> bool {
        self.sequences.len() > 0 || !self.in_flight.is_empty()
    }

    /// Batches that were scheduled and not committed.
    pub fn num_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Gauges of now, counters since the start.
    pub fn stats(&self) -> SchedulerStats {
        let internal = self.by_id.iter().filter(|(id, _)| id.is_internal());
        let (mut num_live, mut num_running) = (self.by_id.len(), self.running.len());
        for (_, &index) in internal {
            num_live -= 1;
            num_running -= usize::from(self.sequences.get(index).status == Status::Running);
        }
        SchedulerStats {
            num_running: num_running as u32,
            num_waiting: (num_live - num_running) as u32,
            num_used_blocks: self.blocks.num_used() as u32,
            num_cached_blocks: self.blocks.num_cached_free() as u32,
            num_free_blocks: self.blocks.num_free() as u32,
            ..self.counters
        }
    }

    /// Forgets every cached prefix. False, and nothing is forgotten, while sequences hold blocks.
    pub fn reset_prefix_cache(&mut self) -> bool {
        self.blocks.reset_cache()
    }
}
