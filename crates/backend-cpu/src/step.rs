//! What a step's operations have to know of its batch, copied once by `begin`.
//!
//! Invariant: a step that passed [`Step::take`] refers to existing slots and blocks only, and fits
//! the buffers; one that did not is empty.

use hotspare_batch::{Batch, BlockId, Row, TOKEN_FROM_DEVICE, TokenId, TokenMask};
use hotspare_sampler::SlotState;

use crate::kv_cache::KvPlace;

/// The step in work. Vectors are reused from step to step.
#[derive(Debug, Default)]
pub(crate) struct Step {
    rows: Vec<Row>,
    block_tables: Vec<BlockId>,
    /// Resolved: no [`TOKEN_FROM_DEVICE`].
    token_ids: Vec<TokenId>,
    /// Position of each token.
    positions: Vec<u32>,
    /// Tokens whose logits are needed.
    logits_tokens: Vec<u32>,
    /// What rows may draw, where that is not everything.
    token_masks: Vec<TokenMask>,
    /// For each slot, the number of the last step with a row of it.
    slot_seen: Vec<u64>,
    steps: u64,
}

/// Bounds that a batch has to keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepBounds {
    pub(crate) block_size: usize,
    pub(crate) num_blocks: usize,
    pub(crate) max_num_batched_tokens: usize,
}

impl Step {
    /// Takes `batch`, whose slot inits were applied to `slots` already.
    ///
    /// # Errors
    /// What is wrong with the batch; the step is then empty.
    pub(crate) fn take(
        &mut self,
        batch: &Batch,
        bounds: StepBounds,
        slots: &[SlotState],
    ) -> Result<(), String> {
        self.clear();
        self.check(batch, bounds, slots.len())?;
        self.rows.extend_from_slice(&batch.rows);
        self.token_masks.extend_from_slice(&batch.token_masks);
        self.block_tables.extend_from_slice(&batch.block_tables);
        for row in &batch.rows {
            let last_drawn = slots[row.slot as usize].last_token();
            for (i, &token) in batch.row_tokens(row).iter().enumerate() {
                // Without a last token the id stays outside any vocabulary, and the row fails.
                let resolved = match token {
                    TOKEN_FROM_DEVICE => last_drawn.unwrap_or(TOKEN_FROM_DEVICE),
                    known => known,
                };
                self.token_ids.push(resolved);
                self.positions.push(row.num_computed_tokens + i as u32);
            }
            if row.wants_prompt_logprobs {
                self.logits_tokens.extend(row.tokens.clone());
            } else if row.samples {
                self.logits_tokens.push(row.tokens.end - 1);
            }
        }
        Ok(())
    }

    /// Forgets the batch.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.token_masks.clear();
        self.block_tables.clear();
        self.token_ids.clear();
        self.positions.clear();
        self.logits_tokens.clear();
    }

    fn check(&mut self, batch: &Batch, b: StepBounds, num_slots: usize) -> Result<(), String> {
        let num_tokens = batch.num_tokens();
        if num_tokens > b.max_num_batched_tokens {
            let max = b.max_num_batched_tokens;
            return Err(format!(
                "a batch of {num_tokens} tokens; the limit is {max}"
            ));
        }
        if let Some(block) = batch
            .block_tables
            .iter()
            .find(|&&x| x as usize >= b.num_blocks)
        {
            return Err(format!("block {block} of a pool of {}", b.num_blocks));
        }
        self.steps += 1;
        self.slot_seen.resize(num_slots, 0);
        for row in &batch.rows {
            match self.slot_seen.get_mut(row.slot as usize) {
                None => return Err(format!("slot {} of {num_slots}", row.slot)),
                Some(seen) if *seen == self.steps => {
                    return Err(format!("two rows of slot {}", row.slot));
                }
                Some(seen) => *seen = self.steps,
            }
            let len = u32::try_from(row.context_len()).map_err(|_| "a position above 2^32")?;
            let num_blocks = (row.blocks.end - row.blocks.start) as usize;
            if num_blocks.saturating_mul(b.block_size) < len as usize {
                return Err(format!("{num_blocks} blocks for a context of {len}"));
            }
        }
        Ok(())
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What row `index` may draw, where that is not everything.
    pub(crate) fn token_mask(&self, index: usize) -> Option<&[u32]> {
        let masks = &self.token_masks;
        let found = masks.binary_search_by_key(&index, |mask| mask.row as usize);
        found.ok().map(|at| &*masks[at].words)
    }

    pub(crate) fn block_tables(&self) -> &[BlockId] {
        &self.block_tables
    }

    pub(crate) fn token_ids(&self) -> &[TokenId] {
        &self.token_ids
    }

    pub(crate) fn positions(&self) -> &[u32] {
        &self.positions
    }

    pub(crate) fn logits_tokens(&self) -> &[u32] {
        &self.logits_tokens
    }

    /// Where each token's keys and values go, in the order of blocks.
    pub(crate) fn kv_places(&self, block_size: usize, places: &mut Vec<KvPlace>) {
        places.clear();
        let positions = self.rows.iter().flat_map(|row| {
            let first = row.num_computed_tokens as usize;
            (first..first + row.num_tokens()).map(move |position| (row, position))
        });
        places.extend(positions.enumerate().map(|(token, (row, position))| {
            let block = row.blocks.start as usize + position / block_size;
            KvPlace {
                block: self.block_tables[block],
                in_block: position % block_size,
                row: token,
            }
        }));
        places.sort_unstable_by_key(|place| place.block);
    }
}
