//! Building a batch: running sequences in order, then waiting ones, within one budget of tokens.
//!
//! Where blocks run out, the last running sequence is preempted, and nothing is admitted in that
//! step. A prefill chunk leaves a token of the budget for each running sequence behind it, so that
//! long prompts do not stall streams.
//!
//! Invariant: with nothing in flight and a sequence alive, `schedule` returns a batch.

use hotspare_batch::Batch;

use crate::batch_builder::BatchBuilder;
use crate::kv_blocks::BlockTable;
use crate::queue::QueueKey;
use crate::scheduler::{InFlightStep, Scheduler};
use crate::sequence::Status;
use crate::slab::SequenceIndex;

impl Scheduler {
    /// The next batch. None where nothing can run now: there is no work, or all of it waits for a
    /// commit, or `max_num_in_flight` batches are uncommitted.
    pub fn schedule(&mut self, now_ms: u64) -> Option<Batch> {
        self.expire(now_ms);
        if self.in_flight.len() >= self.config.max_num_in_flight || self.by_id.is_empty() {
            return None;
        }
        let rows = self.spare_rows.pop().unwrap_or_default();
        let mut builder = BatchBuilder::new(&self.config, rows, self.max_row_tokens(), now_ms);
        let num_running = self.running.len();
        builder.reserve(num_running, self.last_num_table_blocks + num_running);
        let had_blocks = self.schedule_running(&mut builder);
        if had_blocks {
            self.schedule_waiting(&mut builder);
        }
        let BatchBuilder {
            mut batch, rows, ..
        } = builder;
        if rows.is_empty() {
            self.spare_rows.push(rows);
            return None;
        }
        self.last_step += 1;
        batch.step = self.last_step;
        self.last_num_table_blocks = batch.block_tables.len();
        self.in_flight.push_back(InFlightStep {
            step: batch.step,
            rows,
        });
        Some(batch)
    }

    /// The limit on prefill chunks, which holds while someone else could use the budget.
    fn max_row_tokens(&self) -> usize {
        let has_company = self.running.len() + self.waiting.len() > 1;
        match self.config.long_prefill_token_threshold {
            0 => usize::MAX,
            threshold if has_company => threshold,
            _ => usize::MAX,
        }
    }

    /// Adds rows of running sequences. False where one of them lacked blocks.
    fn schedule_running(&mut self, builder: &mut BatchBuilder) -> bool {
        let block_size = self.config.block_size;
        let mut had_blocks = true;
        let mut place = 0;
        while place < self.running.len() && builder.budget > 0 {
            let index = self.running.get(place).index;
            let num_behind = self.running.len() - place - 1;
            let sequence = self.sequences.get_mut(index);
            let num_tokens = sequence
                .num_unscheduled_tokens()
                .min(builder.max_row_tokens)
                .min(builder.budget.saturating_sub(num_behind).max(1));
            if num_tokens == 0 {
                place += 1;
                continue;
            }
            let capacity = sequence.block_table.len() * block_size;
            let num_over = (sequence.num_scheduled_tokens + num_tokens).saturating_sub(capacity);
            let num_missing = if num_over == 0 {
                0
            } else {
                num_over.div_ceil(block_size)
            };
            if num_missing <= self.blocks.num_free() {
                self.blocks.allocate(&mut sequence.block_table, num_missing);
                builder.push_row(index, sequence, num_tokens);
                place += 1;
                continue;
            }
            had_blocks = false;
            if self.num_releasing > 0 {
                // Blocks come back with the next commit; waiting a step is cheaper than a
                // recompute.
                place += 1;
                continue;
            }
            // The last one is at `place` or behind it, so it has no row in this batch.
            if let Some(victim) = self.running.last() {
                self.preempt(victim);
            }
        }
        had_blocks
    }

    /// Admits waiting sequences in order until one does not fit.
    fn schedule_waiting(&mut self, builder: &mut BatchBuilder) {
        if self.waiting.len() == 0 || self.free_slots.is_empty() {
            return;
        }
        let mut num_reserved: usize = self
            .running
            .iter()
            .map(|key| self.num_owed_blocks(key.index))
            .sum();
        while builder.budget > 0
            && !self.free_slots.is_empty()
            && self.blocks.num_free() > num_reserved
            && let Some(key) = self.waiting.first()
        {
            if self.blocked == Some((key, self.blocks.num_freed())) {
                return;
            }
            if !self.admit(key, num_reserved, builder) {
                self.blocked = Some((key, self.blocks.num_freed()));
                return;
            }
            num_reserved += self.num_owed_blocks(key.index);
        }
    }

    /// Blocks that a running sequence's known ids still need: promised to it when it was admitted.
    fn num_owed_blocks(&self, index: SequenceIndex) -> usize {
        let sequence = self.sequences.get(index);
        let num_needed = self.config.blocks_for(sequence.ids.len());
        num_needed.saturating_sub(sequence.block_table.len())
    }

    /// Makes a waiting sequence run, if its ids fit beside `num_reserved` blocks promised to
    /// others. False if they do not.
    fn admit(&mut self, key: QueueKey, num_reserved: usize, builder: &mut BatchBuilder) -> bool {
        let block_size = self.config.block_size;
        let num_blocks = self
            .config
            .blocks_for(self.sequences.get(key.index).ids.len());
        let sequence = self.sequences.get_mut(key.index);
        let num_ids = sequence.ids.len();
        // One token at least is computed, since there are no logits without one. Log-probabilities
        // of the prompt need all of it computed.
        let reads_cache = self.blocks.has_cache() && !sequence.wants_prompt_logprobs;
        let max_found = if reads_cache {
            (num_ids - 1) / block_size
        } else {
            0
        };
        let (chain, table) = (&mut sequence.chain, &mut sequence.block_table);
        self.blocks
            .find_prefix(chain, &sequence.ids, max_found, table);
        let num_available = self.blocks.num_free() - self.blocks.count_free(table);
        if num_blocks - table.len() + num_reserved > num_available {
            *table = BlockTable::default();
            return false;
        }
        self.blocks.acquire(table);
        let num_found = table.len() * block_size;
        let num_unseen = self.config.num_unseen_blocks(num_found);
        self.blocks.drop_leading(table, num_unseen);
        sequence.num_computed_tokens = num_found;
        sequence.num_scheduled_tokens = num_found;
        sequence.status = Status::Running;
        sequence.slot = self.free_slots.pop();
        sequence.needs_slot_init = true;
        self.waiting.remove(key, sequence.was_admitted);
        self.running.insert(key);
        self.count_admission(key.index, num_found, reads_cache, builder.now_ms);
        let sequence = self.sequences.get_mut(key.index);
        let num_tokens = (num_ids - num_found)
            .min(builder.max_row_tokens)
            .min(builder.budget);
        let num_missing = num_tokens.div_ceil(block_size);
        self.blocks.allocate(&mut sequence.block_table, num_missing);
        builder.push_row(key.index, sequence, num_tokens);
        true
    }

    /// Keeps what the first admission found; later ones find what the sequence itself computed.
    fn count_admission(
        &mut self,
        index: SequenceIndex,
        num_found: usize,
        reads_cache: bool,
        now_ms: u64,
    ) {
        let sequence = self.sequences.get_mut(index);
        if sequence.was_admitted {
            return;
        }
        sequence.was_admitted = true;
        sequence.queued_ms = Some(now_ms.saturating_sub(sequence.added_at_ms));
        sequence.num_cached_tokens = num_found.min(sequence.num_prompt_tokens) as u32;
        self.counters.num_cached_prompt_tokens += u64::from(sequence.num_cached_tokens);
        if reads_cache {
            self.counters.num_prefix_cache_queries += sequence.ids.len() as u64;
            self.counters.num_prefix_cache_hits += num_found as u64;
        }
    }
}
