//! A batch under construction: rows of the sequences that were chosen, and what is left of the
//! budget.
//!
//! Invariant: rows keep to the budget, and a row's blocks were allocated before it is pushed.

use std::sync::Arc;

use hotspare_batch::{Batch, Row, SlotInit, TOKEN_FROM_DEVICE};

use crate::SchedulerConfig;
use crate::scheduler::InFlightRow;
use crate::sequence::Sequence;
use crate::slab::SequenceIndex;

/// A batch under construction.
pub(crate) struct BatchBuilder {
    pub(crate) batch: Batch,
    /// What the commit must know about each row.
    pub(crate) rows: Vec<InFlightRow>,
    /// Tokens that still fit.
    pub(crate) budget: usize,
    /// Tokens of a row at most, whatever the budget.
    pub(crate) max_row_tokens: usize,
    /// When the step is built.
    pub(crate) now_ms: u64,
    block_size: usize,
}

impl BatchBuilder {
    /// An empty batch. `rows` is an empty list whose memory is used again.
    pub(crate) fn new(
        config: &SchedulerConfig,
        rows: Vec<InFlightRow>,
        max_row_tokens: usize,
        now_ms: u64,
    ) -> Self {
        Self {
            batch: Batch::default(),
            rows,
            budget: config.max_num_batched_tokens,
            max_row_tokens,
            now_ms,
            block_size: config.block_size,
        }
    }

    /// Makes room for a row of one token for each of `num_rows` sequences.
    pub(crate) fn reserve(&mut self, num_rows: usize, num_table_blocks: usize) {
        self.batch.rows.reserve(num_rows);
        self.batch.token_ids.reserve(num_rows);
        self.batch.block_tables.reserve(num_table_blocks);
        self.rows.reserve(num_rows);
    }

    /// Adds a row of the next `num_tokens` of a running sequence, whose blocks cover them.
    pub(crate) fn push_row(
        &mut self,
        index: SequenceIndex,
        sequence: &mut Sequence,
        num_tokens: usize,
    ) {
        let slot = sequence.slot.expect("a running sequence has a slot");
        if sequence.needs_slot_init {
            sequence.needs_slot_init = false;
            self.batch.slot_inits.push(slot_init(sequence));
        }
        let start = sequence.num_scheduled_tokens;
        let end = start + num_tokens;
        let samples = !sequence.prefill_only && end == sequence.expected_len();
        let num_prompt_tokens = sequence.num_prompt_tokens;
        let wants_prompt_logprobs = sequence.wants_prompt_logprobs && start + 1 < num_prompt_tokens;
        let has_next = wants_prompt_logprobs && end < num_prompt_tokens;
        let (first_token, first_block) =
            (self.batch.token_ids.len(), self.batch.block_tables.len());
        self.push_tokens(sequence, start, end);
        self.push_blocks(sequence, end);
        self.batch.rows.push(Row {
            slot,
            num_computed_tokens: start as u32,
            tokens: first_token as u32..self.batch.token_ids.len() as u32,
            blocks: first_block as u32..self.batch.block_tables.len() as u32,
            samples,
            wants_prompt_logprobs,
            next_prompt_token: has_next.then(|| sequence.ids[end]),
        });
        let epoch = sequence.epoch;
        self.rows.push(InFlightRow {
            index,
            slot,
            epoch,
            start,
            end,
            samples,
        });
        self.budget -= num_tokens;
        sequence.num_scheduled_tokens = end;
        sequence.num_pending_tokens += usize::from(samples);
        sequence.num_in_flight += 1;
    }

    /// Tokens from `start` to `end`: known ids, then those that the device draws first.
    fn push_tokens(&mut self, sequence: &Sequence, start: usize, end: usize) {
        let token_ids = &mut self.batch.token_ids;
        let num_known = sequence.ids.len();
        if end <= num_known {
            token_ids.extend_from_slice(&sequence.ids[start..end]);
            return;
        }
        token_ids.extend_from_slice(&sequence.ids[start.min(num_known)..]);
        token_ids.extend((start.max(num_known)..end).map(|_| TOKEN_FROM_DEVICE));
    }

    /// The blocks that hold the tokens up to `end`; of positions that no layer sees any more there
    /// is but the place.
    fn push_blocks(&mut self, sequence: &Sequence, end: usize) {
        let table = &sequence.block_table;
        // A table is longer than needed only after a wrong guess; a product is cheaper than a
        // quotient.
        let is_exact = end + self.block_size > table.len() * self.block_size;
        let num_blocks = if is_exact {
            table.len()
        } else {
            end.div_ceil(self.block_size)
        };
        self.batch
            .block_tables
            .extend_from_slice(&table.all()[..num_blocks]);
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
