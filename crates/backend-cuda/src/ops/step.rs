//! A step as the device takes it: ids, positions, cache places, attention's items, what is sampled.
//!
//! Invariant: a step that passed [`Step::take`] refers to existing slots and blocks only and fits
//! the buffers. Parts before the block tables lie at places that depend on the step's padded sizes
//! alone, so that a graph finds them again.

use hotspare_batch::{Batch, Row, TOKEN_FROM_DEVICE};

use super::blob::{Blob, Part, part_bytes};
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

/// Padded sizes of a step that a graph can run: the same sizes, the same launches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct GraphKey {
    pub(super) num_rows: usize,
    /// Decode items and merge items of each kind of layer.
    pub(super) items: Vec<[usize; 2]>,
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
    pub(super) token_ids: Vec<u32>,
    positions: Vec<u32>,
    kv_slots: Vec<i32>,
    from_slots: Vec<u32>,
    pub(super) logits_tokens: Vec<u32>,
    sequences: Vec<Sequence>,
    plan: AttentionPlan,
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
        self.has_device_tokens = false;
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
        for row in &batch.rows {
            self.add_tokens(batch, row, shape.block_size, slots);
            self.add_sampling(batch, row, shape.max_logits, slots);
        }
        let is_decode = batch
            .rows
            .iter()
            .all(|row| row.num_tokens() == 1 && row.samples && !row.wants_prompt_logprobs);
        let pads = pads_for_graphs && is_decode && !batch.rows.is_empty();
        self.num_padded = match pads {
            true => padded_rows(
                self.num_tokens,
                shape.max_num_seqs.min(shape.max_num_batched_tokens),
            ),
            false => self.num_tokens,
        };
        self.pack(batch, shape, pads, blob);
        Ok(())
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
    fn add_sampling(&mut self, batch: &Batch, row: &Row, max_logits: usize, slots: &Slots) {
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
            self.sample_rows.push(slots.sample_row(row.slot, position));
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

    fn pack(&mut self, batch: &Batch, shape: &StepShape, pads: bool, blob: &mut Blob) {
        let len = self.num_padded;
        self.ids_part = blob.push_padded(&self.token_ids, len, Some(0));
        self.positions_part = blob.push_padded(&self.positions, len, Some(0));
        self.kv_slots_part = blob.push_padded(&self.kv_slots, len, Some(-1));
        let no_slot = Some(ResolveTokens::NO_SLOT);
        self.from_slots_part = blob.push_padded(&self.from_slots, len, no_slot);
        let num_logits = if pads { len } else { self.logits_tokens.len() };
        self.num_logits = num_logits;
        self.logits_part = blob.push_padded(&self.logits_tokens, num_logits, Some(0));
        let mut items = Vec::new();
        for plan_shape in &shape.plans {
            make_plan(
                &mut self.plan,
                &self.sequences,
                plan_shape,
                shape.max_partials,
            );
            let plan = &self.plan;
            let sizes = [plan.decode.len(), plan.merges.len()];
            let [num_decode, num_merges] = match pads {
                true => [
                    sizes[0].max(len).next_power_of_two(),
                    if sizes[1] > 0 { len } else { 0 },
                ],
                false => sizes,
            };
            items.push([num_decode, num_merges]);
            self.plans.push(PlanParts {
                decode: blob.push_padded(&plan.decode, num_decode, Some(NOTHING)),
                num_decode,
                prefill: blob.push(&plan.prefill),
                num_prefill: plan.prefill.len(),
                merges: blob.push_padded(&plan.merges, num_merges, Some(NOTHING)),
                num_merges,
            });
        }
        let has_prefill = self.plans.iter().any(|plan| plan.num_prefill > 0);
        self.key = (pads && !has_prefill).then_some(GraphKey {
            num_rows: len,
            items,
        });
        self.tables_part = blob.push(&batch.block_tables);
        self.sample_part = blob.push(&self.sample_rows);
        self.sample_index_part = blob.push(&self.sample_index);
    }

    /// Packs the entries, once their places are known.
    pub(super) fn pack_entries(&mut self, blob: &mut Blob) {
        self.entries_part = blob.push(&self.entries);
    }
}

/// An item of no rows.
const NOTHING: AttentionItem = AttentionItem {
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

/// Rows of the bucket that `num_rows` decode rows run in: 1, 2, 4, 8, then multiples of eight.
pub(super) fn padded_rows(num_rows: usize, max_rows: usize) -> usize {
    let padded = match num_rows {
        0..=8 => num_rows.next_power_of_two(),
        _ => num_rows.next_multiple_of(8),
    };
    padded.min(max_rows.max(num_rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_rows_hold_their_rows_and_no_more_than_there_are() {
        for (num_rows, max_rows, expected) in [
            (1, 256, 1),
            (3, 256, 4),
            (5, 256, 8),
            (9, 256, 16),
            (17, 256, 24),
            (251, 256, 256),
            (251, 253, 253),
            (5, 6, 6),
        ] {
            assert_eq!(
                padded_rows(num_rows, max_rows),
                expected,
                "{num_rows} of {max_rows}"
            );
        }
    }

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
