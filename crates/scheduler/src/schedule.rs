//! Building a batch: running sequences in order, then waiting ones, within one budget of tokens.
//!
//! Where blocks run out, the last running sequence is preempted, and nothing is admitted in that
//! step. A prefill chunk leaves a token of the budget for each running sequence behind it, so that
//! long prompts do not stall streams.
//!
//! Invariant: with nothing in flight and a sequence alive, `schedule` returns a batch.

use std::sync::Arc;

use hotspare_batch::{Batch, Row, SlotInit, TOKEN_FROM_DEVICE};

use crate::queue::QueueKey;
use crate::scheduler::{InFlightRow, InFlightStep, Scheduler};
use crate::sequence::{Sequence, Status};
use crate::slab::SequenceIndex;

/// A batch under construction, and what its commit must know.
struct BatchBuilder {
    batch: Batch,
    rows: Vec<InFlightRow>,
    /// Tokens that still fit.
    budget: usize,
}

impl Scheduler {
    /// The next batch. None where nothing can run now: there is no work, or all of it waits for a
    /// commit, or `max_num_in_flight` batches are uncommitted.
    pub fn schedule(&mut self, now_ms: u64) -> Option<Batch> {
        self.expire(now_ms);
        if self.in_flight.len() >= self.config.max_num_in_flight || self.by_id.is_empty() {
            return None;
        }
        let mut builder = BatchBuilder {
            batch: Batch::default(),
            rows: self.spare_rows.pop().unwrap_or_default(),
            budget: self.config.max_num_batched_tokens,
        };
        let num_running = self.running.len();
        builder.batch.rows.reserve(num_running);
        builder.batch.token_ids.reserve(num_running);
        builder
            .batch
            .block_tables
            .reserve(self.last_num_table_blocks + num_running);
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

    /// Adds rows of running sequences. False where one of them lacked blocks.
    fn schedule_running(&mut self, builder: &mut BatchBuilder) -> bool {
        let mut had_blocks = true;
        let mut place = 0;
        while place < self.running.len() && builder.budget > 0 {
            let index = self.running.get(place).index;
            let num_behind = self.running.len() - place - 1;
            let sequence = self.sequences.get(index);
            let num_tokens = self
                .limit_chunk(sequence.num_unscheduled_tokens())
                .min(builder.budget.saturating_sub(num_behind).max(1));
            if num_tokens == 0 {
                place += 1;
                continue;
            }
            let end = sequence.num_scheduled_tokens + num_tokens;
            let num_held = sequence.block_table.len();
            let num_missing = self.config.blocks_for(end).saturating_sub(num_held);
            if num_missing <= self.blocks.num_free() {
                let table = &mut self.sequences.get_mut(index).block_table;
                self.blocks.allocate(table, num_missing);
                self.push_row(builder, index, num_tokens);
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
        if self.waiting.len() == 0 {
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
            table.clear();
            return false;
        }
        self.blocks.acquire(table);
        let num_found = table.len() * block_size;
        sequence.num_computed_tokens = num_found;
        sequence.num_scheduled_tokens = num_found;
        sequence.status = Status::Running;
        sequence.slot = self.free_slots.pop();
        sequence.needs_slot_init = true;
        self.waiting.remove(key, sequence.was_admitted);
        self.running.insert(key);
        self.count_admission(key.index, num_found, reads_cache);
        let num_tokens = self.limit_chunk(num_ids - num_found).min(builder.budget);
        let sequence = self.sequences.get_mut(key.index);
        let num_missing = self.config.blocks_for(num_found + num_tokens) - num_found / block_size;
        self.blocks.allocate(&mut sequence.block_table, num_missing);
        self.push_row(builder, key.index, num_tokens);
        true
    }

    /// Keeps what the first admission found; later ones find what the sequence itself computed.
    fn count_admission(&mut self, index: SequenceIndex, num_found: usize, reads_cache: bool) {
        let sequence = self.sequences.get_mut(index);
        if sequence.was_admitted {
            return;
        }
        sequence.was_admitted = true;
        sequence.num_cached_tokens = num_found.min(sequence.num_prompt_tokens) as u32;
        self.counters.num_cached_prompt_tokens += u64::from(sequence.num_cached_tokens);
        if reads_cache {
            self.counters.num_prefix_cache_queries += sequence.ids.len() as u64;
            self.counters.num_prefix_cache_hits += num_found as u64;
        }
    }

    /// Applies the limit on prefill chunks, which holds while someone else could use the budget.
    fn limit_chunk(&self, num_tokens: usize) -> usize {
        let threshold = self.config.long_prefill_token_threshold;
        let has_company = self.running.len() + self.waiting.len() > 1;
        if threshold > 0 && has_company {
            num_tokens.min(threshold)
        } else {
            num_tokens
        }
    }

    /// Adds a row of the next `num_tokens` of a running sequence, whose blocks cover them.
    fn push_row(&mut self, builder: &mut BatchBuilder, index: SequenceIndex, num_tokens: usize) {
        let sequence = self.sequences.get_mut(index);
        let slot = sequence.slot.expect("a running sequence has a slot");
        let batch = &mut builder.batch;
        if sequence.needs_slot_init {
            sequence.needs_slot_init = false;
            batch.slot_inits.push(slot_init(sequence));
        }
        let start = sequence.num_scheduled_tokens;
        let end = start + num_tokens;
        let samples = !sequence.prefill_only && end == sequence.expected_len();
        let first_token = batch.token_ids.len() as u32;
        let num_known = sequence.ids.len();
        batch
            .token_ids
            .extend_from_slice(&sequence.ids[start.min(num_known)..end.min(num_known)]);
        batch
            .token_ids
            .resize(first_token as usize + num_tokens, TOKEN_FROM_DEVICE);
        let first_block = batch.block_tables.len() as u32;
        let num_blocks = self.config.blocks_for(end);
        batch
            .block_tables
            .extend_from_slice(&sequence.block_table[..num_blocks]);
        let num_prompt_tokens = sequence.num_prompt_tokens;
        let wants_prompt_logprobs = sequence.wants_prompt_logprobs && start + 1 < num_prompt_tokens;
        let has_next = wants_prompt_logprobs && end < num_prompt_tokens;
        batch.rows.push(Row {
            slot,
            num_computed_tokens: start as u32,
            tokens: first_token..batch.token_ids.len() as u32,
            blocks: first_block..batch.block_tables.len() as u32,
            samples,
            wants_prompt_logprobs,
            next_prompt_token: has_next.then(|| sequence.ids[end]),
        });
        let epoch = sequence.epoch;
        builder.rows.push(InFlightRow {
            index,
            slot,
            epoch,
            start,
            end,
            samples,
        });
        builder.budget -= num_tokens;
        sequence.num_scheduled_tokens = end;
        sequence.num_pending_tokens += usize::from(samples);
        sequence.num_in_flight += 1;
    }
}

fn slot_init(sequence: &Sequence) -> SlotInit {
    SlotInit {
        slot: sequence.slot.expect("a running sequence has a slot"),
        token_ids: Arc::from(sequence.ids.as_slice()),
        num_prompt_tokens: sequence.num_prompt_tokens as u32,
        sampling: Arc::clone(&sequence.sampling),
        stop: Arc::clone(&sequence.stop),
    }
}
