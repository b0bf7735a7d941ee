//! A step as the device takes it: ids, positions, cache places, attention's items, what is sampled.
//!
//! Invariant: a step that passed [`Step::take`] refers to existing slots and blocks only and fits
//! the buffers. Parts before the block tables lie at places that depend on the step's padded sizes
//! alone, so that a graph finds them again.

use hotspare_batch::{Batch, BlockId, Row, TOKEN_FROM_DEVICE};

use super::blob::{Blob, Part, part_bytes};
use super::buckets::{GraphKey, padded_rows};
use super::slots::{LastToken, Slots};
use crate::attention_plan::{AttentionPlan, PlanShape, Sequence};
use crate::kernels::{AttentionItem, LogprobsEntry, ResolveTokens, SPLIT_KEYS, SampleRow, Variant};

/// What a step is cut by.
#[derive(Clone, Debug)]
pub(super) struct StepShape {
    pub(super) block_size: usize,
    pub(super) num_blocks: usize,
    pub(super) max_num_batched_tokens: usize,
    pub(super) max_num_seqs: usize,
    pub(super) max_model_len: usize,
    /// Of each kind of layer.
    pub(super) plans: Vec<PlanShape>,
    /// Partial results that there is room for.
    pub(super) max_partials: usize,
    /// Logits rows that there is room for.
    pub(super) max_logits: usize,
}

impl StepShape {
    /// Rows of a decode step at most.
    pub(super) fn max_decode_rows(&self) -> usize {
        self.max_num_seqs.min(self.max_num_batched_tokens)
    }

    /// Bytes of the largest step.
    pub(super) fn max_bytes(&self) -> usize {
        let (tokens, seqs) = (self.max_num_batched_tokens, self.max_num_seqs);
        let blocks_per_seq = self.max_model_len.div_ceil(self.block_size.max(1));
        let items = |plan: &PlanShape| {
            let smallest = Variant::Prefill.num_rows(plan.head_dim).min(16);
            // Rows of each sequence are cut apart, so each may have one item that is not full.
            2 * (seqs + self.max_partials + (tokens * plan.group).div_ceil(smallest)) + seqs
        };
        let items: usize = self.plans.iter().map(items).sum();
        let entries = tokens + seqs;
        part_bytes::<u32>(4 * tokens)
            + part_bytes::<u32>(tokens)
            + part_bytes::<AttentionItem>(items)
            + part_bytes::<u32>(seqs.saturating_mul(blocks_per_seq))
            + part_bytes::<SampleRow>(seqs)
            + part_bytes::<u32>(seqs)
            + part_bytes::<LogprobsEntry>(entries)
            + 16 * (16 + 4 * self.plans.len())
    }
}

/// Items of one kind of layer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PlanParts {
    pub(super) decode: Part,
    pub(super) num_decode: usize,
    pub(super) prefill: Part,
    pub(super) num_prefill: usize,
    pub(super) merges: Part,
    pub(super) num_merges: usize,
}

/// One row that draws a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampledRow {
    /// Its row of logits.
    pub(super) logits_row: usize,
}

/// One log-probability that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryOf {
    pub(super) logits_row: usize,
    /// There is no room for the most likely tokens that were asked for.
    pub(super) lacks_room: bool,
}

/// The step in work. Vectors are reused from step to step.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) rows: Vec<Row>,
    pub(super) num_tokens: usize,
    /// With padding.
    pub(super) num_padded: usize,
    pub(super) has_device_tokens: bool,
    /// Whether each row is one token that draws the next.
    pub(super) is_decode: bool,
    pub(super) token_ids: Vec<u32>,
    positions: Vec<u32>,
    kv_slots: Vec<i32>,
    from_slots: Vec<u32>,
    pub(super) logits_tokens: Vec<u32>,
    sequences: Vec<Sequence>,
    /// Of each kind of layer.
    cuts: Vec<AttentionPlan>,
    slot_seen: Vec<u64>,
    steps: u64,
    pub(super) key: Option<GraphKey>,
    pub(super) ids_part: Part,
    pub(super) positions_part: Part,
    pub(super) kv_slots_part: Part,
    pub(super) from_slots_part: Part,
    pub(super) logits_part: Part,
    /// Rows of logits, with padding.
    pub(super) num_logits: usize,
    pub(super) plans: Vec<PlanParts>,
    pub(super) tables_part: Part,
    pub(super) sample_rows: Vec<SampleRow>,
    pub(super) sampled: Vec<SampledRow>,
    sample_index: Vec<u32>,
    pub(super) entries: Vec<LogprobsEntry>,
    pub(super) entry_rows: Vec<EntryOf>,
    pub(super) sample_part: Part,
    pub(super) sample_index_part: Part,
    pub(super) entries_part: Part,
}

impl Step {
    /// Forgets the step.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.token_ids.clear();
        self.positions.clear();
        self.kv_slots.clear();
        self.from_slots.clear();
        self.logits_tokens.clear();
        self.sequences.clear();
        self.plans.clear();
        self.sample_rows.clear();
        self.sampled.clear();
        self.sample_index.clear();
        self.entries.clear();
        self.entry_rows.clear();
        (self.num_tokens, self.num_padded, self.num_logits) = (0, 0, 0);
        (self.has_device_tokens, self.is_decode) = (false, false);
        self.key = None;
    }

    /// Takes `batch`, whose slot inits were applied to `slots` already, and packs it; with
    /// `pads_for_graphs` decode steps are padded.
    ///
    /// # Errors
    /// What is wrong with the batch; the step is then empty.
    pub(super) fn take(
        &mut self,
        batch: &Batch,
        shape: &StepShape,
        slots: &Slots,
        pads_for_graphs: bool,
        blob: &mut Blob,
    ) -> Result<(), String> {
        self.clear();
        blob.clear();
        if let Err(what) = self.check(batch, shape, slots.len()) {
            self.clear();
            return Err(what);
        }
        self.rows.extend_from_slice(&batch.rows);
        self.num_tokens = batch.num_tokens();
        let mut masks = 0..;
        for (index, row) in batch.rows.iter().enumerate() {
            self.add_tokens(batch, row, shape.block_size, slots);
            // A mask's place is its number among the step's.
            let mask = batch.token_mask(index).and_then(|_| masks.next());
            self.add_sampling(batch, (row, mask), shape.max_logits, slots);
        }
        self.is_decode = batch
            .rows
            .iter()
            .all(|row| row.num_tokens() == 1 && row.samples && !row.wants_prompt_logprobs);
        let pads = pads_for_graphs && self.is_decode && !batch.rows.is_empty();
        self.num_padded = match pads {
            true => padded_rows(self.num_tokens, shape.max_decode_rows()),
            false => self.num_tokens,
        };
        self.num_logits = match pads {
            true => self.num_padded,
            false => self.logits_tokens.len(),
        };
        self.cut(shape);
        if pads {
            self.key = GraphKey::of(shape, &self.cuts, self.num_padded);
        }
        self.pack(shape, &batch.block_tables, blob);
        Ok(())
    }

    /// A step of padding alone, with as many rows and rows of logits, and the sizes of `key`: for
    /// launches that are recorded and not run.
    pub(super) fn take_padding(
        &mut self,
        [num_rows, num_logits]: [usize; 2],
        key: Option<GraphKey>,
        shape: &StepShape,
        blob: &mut Blob,
    ) {
        self.clear();
        blob.clear();
        (self.num_padded, self.num_logits, self.key) = (num_rows, num_logits, key);
        self.cut(shape);
        self.pack(shape, &[], blob);
    }

    fn check(&mut self, batch: &Batch, b: &StepShape, num_slots: usize) -> Result<(), String> {
        let num_tokens = batch.num_tokens();
        if num_tokens > b.max_num_batched_tokens || batch.rows.len() > b.max_num_seqs {
            let num_rows = batch.rows.len();
            return Err(format!("a batch of {num_tokens} tokens in {num_rows} rows"));
        }
        let is_outside = |&&block: &&u32| block as usize >= b.num_blocks;
        if let Some(block) = batch.block_tables.iter().find(is_outside) {
            return Err(format!("block {block} of a pool of {}", b.num_blocks));
        }
        self.steps += 1;
        self.slot_seen.resize(num_slots, 0);
        for row in &batch.rows {
            match self.slot_seen.get_mut(row.slot as usize) {
                Some(seen) if *seen != self.steps => *seen = self.steps,
                Some(_) => return Err(format!("two rows of slot {}", row.slot)),
                None => return Err(format!("slot {} of {num_slots}", row.slot)),
            }
            let num_blocks = row.blocks.end.saturating_sub(row.blocks.start) as usize;
            let max_blocks = b.max_model_len.div_ceil(b.block_size);
            let len = row.context_len();
            if num_blocks.saturating_mul(b.block_size) < len || num_blocks > max_blocks {
                return Err(format!("{num_blocks} blocks for a context of {len}"));
            }
        }
        Ok(())
    }

    fn add_tokens(&mut self, batch: &Batch, row: &Row, block_size: usize, slots: &Slots) {
        let blocks = batch.row_blocks(row);
        self.sequences.push(Sequence {
            first_token: row.tokens.start as usize,
            num_tokens: row.num_tokens(),
            position: row.num_computed_tokens as usize,
            table_start: row.blocks.start as usize,
        });
        for (i, &token) in batch.row_tokens(row).iter().enumerate() {
            let position = row.num_computed_tokens as usize + i;
            let (mut id, mut from) = (token, ResolveTokens::NO_SLOT);
            if token == TOKEN_FROM_DEVICE {
                match slots.last_token(row.slot) {
                    Some(LastToken::OnDevice) => from = row.slot,
                    Some(LastToken::Known(known)) => id = known,
                    // The id stays outside any vocabulary, and the row fails.
                    None => {}
                }
            }
            self.has_device_tokens |= from != ResolveTokens::NO_SLOT;
            self.token_ids.push(id);
            self.from_slots.push(from);
            self.positions.push(position as u32);
            let block = blocks[position / block_size] as usize;
            let place = block * block_size + position % block_size;
            self.kv_slots.push(place as i32);
        }
    }

    /// What is drawn from, and asked about, the logits of `row`.
    fn add_sampling(
        &mut self,
        batch: &Batch,
        (row, mask): (&Row, Option<u32>),
        max_logits: usize,
        slots: &Slots,
    ) {
        let mut add_entry = |logits_row: usize, token, drawn, num_top| {
            self.entry_rows.push(EntryOf {
                logits_row,
                lacks_room: false,
            });
            self.entries.push(LogprobsEntry {
                row: (logits_row % max_logits) as u32,
                token,
                drawn,
                num_top,
                top_start: 0,
            });
        };
        let first = self.logits_tokens.len();
        let sampling = slots.sampling(row.slot);
        if row.wants_prompt_logprobs {
            self.logits_tokens.extend(row.tokens.clone());
            let tokens = &batch.row_tokens(row)[1..];
            let following = tokens.iter().copied().chain(row.next_prompt_token);
            let num_top = sampling.num_prompt_logprobs.unwrap_or(0);
            for (i, token) in following.enumerate() {
                add_entry(first + i, token, 0, num_top);
            }
        } else if row.samples {
            self.logits_tokens.push(row.tokens.end - 1);
        }
        if row.samples {
            let logits_row = self.logits_tokens.len() - 1;
            if let Some(num_top) = sampling.num_logprobs {
                let drawn = self.sampled.len() as u32;
                add_entry(logits_row, LogprobsEntry::DRAWN, drawn, num_top);
            }
            self.sampled.push(SampledRow { logits_row });
            self.sample_index.push((logits_row % max_logits) as u32);
            let position = row.context_len() as u32;
            self.sample_rows
                .push(slots.sample_row(row.slot, position, mask));
        }
    }

    /// Gives the entries' most likely tokens their places; returns how many there are.
    pub(super) fn place_tops(&mut self, max_tops: usize) -> usize {
        let mut next = 0;
        for (entry, of) in self.entries.iter_mut().zip(&mut self.entry_rows) {
            if next + entry.num_top as usize > max_tops {
                of.lacks_room = true;
                entry.num_top = 0;
            }
            entry.top_start = next as u32;
            next += entry.num_top as usize;
        }
        next
    }

    /// Cuts the sequences' attention for each kind of layer.
    fn cut(&mut self, shape: &StepShape) {
        self.cuts
            .resize_with(shape.plans.len(), AttentionPlan::default);
        for (cut, plan) in self.cuts.iter_mut().zip(&shape.plans) {
            make_plan(cut, &self.sequences, plan, shape.max_partials);
        }
    }

    fn pack(&mut self, shape: &StepShape, block_tables: &[BlockId], blob: &mut Blob) {
        let len = self.num_padded;
        self.ids_part = blob.push_padded(&self.token_ids, len, Some(0));
        self.positions_part = blob.push_padded(&self.positions, len, Some(0));
        self.kv_slots_part = blob.push_padded(&self.kv_slots, len, Some(-1));
        let no_slot = Some(ResolveTokens::NO_SLOT);
        self.from_slots_part = blob.push_padded(&self.from_slots, len, no_slot);
        self.logits_part = blob.push_padded(&self.logits_tokens, self.num_logits, Some(0));
        for (cut, plan) in self.cuts.iter().zip(&shape.plans) {
            let [num_decode, num_merges] = match self.key {
                Some(key) => key.items(shape, plan),
                None => [cut.decode.len(), cut.merges.len()],
            };
            self.plans.push(PlanParts {
                decode: blob.push_padded(&cut.decode, num_decode, Some(NOTHING)),
                num_decode,
                prefill: blob.push(&cut.prefill),
                num_prefill: cut.prefill.len(),
                merges: blob.push_padded(&cut.merges, num_merges, Some(NOTHING)),
                num_merges,
            });
        }
        self.tables_part = blob.push(block_tables);
        self.sample_part = blob.push(&self.sample_rows);
        self.sample_index_part = blob.push(&self.sample_index);
    }

    /// Packs the entries, once their places are known.
    pub(super) fn pack_entries(&mut self, blob: &mut Blob) {
        self.entries_part = blob.push(&self.entries);
    }
}

/// An item of no rows.
pub(super) const NOTHING: AttentionItem = AttentionItem {
    first_token: 0,
    position: 0,
    first_row: 0,
    num_rows: 0,
    table_start: 0,
    first_split: 0,
    end_split: 0,
    partial: AttentionItem::WHOLE,
};

/// As [`AttentionPlan::make`], with splits apart only as long as there is room for their results.
fn make_plan(
    plan: &mut AttentionPlan,
    sequences: &[Sequence],
    shape: &PlanShape,
    max_partials: usize,
) {
    plan.clear();
    for sequence in sequences {
        let num_rows = sequence.num_tokens * shape.group;
        if num_rows > Variant::Decode.num_rows(shape.head_dim) {
            plan.add(sequence, shape, Variant::Prefill, false);
            continue;
        }
        let num_splits = (sequence.position + sequence.num_tokens).div_ceil(SPLIT_KEYS) + 1;
        let has_room = plan.num_partials + num_splits <= max_partials;
        plan.add(sequence, shape, Variant::Decode, has_room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_stay_together_where_there_is_no_room_for_their_results() {
        let shape = PlanShape {
            group: 2,
            head_dim: 64,
            window: None,
        };
        let sequence = |first_token| Sequence {
            first_token,
            num_tokens: 1,
            position: 700,
            table_start: 0,
        };
        let sequences = [sequence(0), sequence(1), sequence(2)];
        let mut plan = AttentionPlan::default();
        make_plan(&mut plan, &sequences, &shape, 8);
        // Three splits of each of two, and the third in one piece.
        assert_eq!((plan.num_partials, plan.merges.len()), (6, 2));
        assert_eq!(plan.decode.len(), 7);
        assert_eq!(plan.decode[6].partial, AttentionItem::WHOLE);
        assert_eq!(
            (plan.decode[6].first_split, plan.decode[6].end_split),
            (0, 3)
        );
    }
}
