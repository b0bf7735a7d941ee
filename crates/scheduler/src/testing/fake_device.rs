//! A device that keeps, in place of K and V, what they depend on: a digest of all ids up to the
//! position. So it can see whether blocks hold what they must.
//!
//! All rows of a batch write before any reads, as on a real device. What a row reads through its
//! block table must be exactly what its slot's ids give: wrong sharing, early reuse and wrong
//! tables all show, and so does the right token in another place.
//!
//! Invariant: it learns ids only from slot inits, row tokens and its own draws.

use std::sync::Arc;

use hotspare_batch::{
    Batch, BlockId, KvBlock, Row, RowError, RowOutput, SamplingParams, StepOutput, StepTimings,
    StopParams, TOKEN_FROM_DEVICE, TokenId,
};

use super::Rng;
use super::oracle::{draw, extend_digest, fails_at, logprob};

/// Content of positions that were never written, or written by a row that went astray.
const POISON: u64 = 0;
/// Drawn by rows that went astray.
const STRAY: TokenId = TokenId::MAX - 1;

#[derive(Clone, Debug)]
struct Slot {
    ids: Vec<TokenId>,
    /// For each id, the digest of it and all before.
    digests: Vec<u64>,
    num_prompt: usize,
    sampling: Arc<SamplingParams>,
    stop: Arc<StopParams>,
    /// A row failed, or one came that was built on a wrong guess: the slot is of no use until its
    /// next init.
    is_lost: bool,
}

impl Slot {
    fn push(&mut self, id: TokenId) {
        self.ids.push(id);
        self.digests
            .push(extend_digest(self.digests.last().copied().unwrap_or(1), id));
    }
}

/// The device.
pub(crate) struct FakeDevice {
    block_size: usize,
    kv: Vec<u64>,
    slots: Vec<Option<Slot>>,
    /// Rows read only the last so many positions.
    sliding_window: usize,
    /// Draws none to three tokens a row where set, one where not.
    speculation: Option<Rng>,
}

impl FakeDevice {
    pub(crate) fn new(num_blocks: usize, block_size: usize, num_slots: usize) -> Self {
        Self {
            block_size,
            kv: vec![POISON; num_blocks * block_size],
            slots: vec![None; num_slots],
            sliding_window: usize::MAX,
            speculation: None,
        }
    }

    pub(crate) fn set_sliding_window(&mut self, window: Option<usize>) {
        self.sliding_window = window.unwrap_or(usize::MAX);
    }

    pub(crate) fn speculate(&mut self, seed: u64) {
        self.speculation = Some(Rng::new(seed));
    }

    /// What `block` holds.
    pub(crate) fn save_block(&self, block: BlockId) -> KvBlock {
        let kv = &self.kv[block as usize * self.block_size..][..self.block_size];
        KvBlock {
            block,
            bytes: kv.iter().flat_map(|digest| digest.to_le_bytes()).collect(),
        }
    }

    /// Fills a block.
    pub(crate) fn load_block(&mut self, load: &KvBlock) {
        let kv = &mut self.kv[load.block as usize * self.block_size..][..self.block_size];
        for (digest, bytes) in kv.iter_mut().zip(load.bytes.as_chunks().0) {
            *digest = u64::from_le_bytes(*bytes);
        }
    }

    /// Runs `batch`.
    pub(crate) fn run(&mut self, batch: &Batch) -> StepOutput {
        for init in &batch.slot_inits {
            let mut slot = Slot {
                ids: Vec::new(),
                digests: Vec::new(),
                num_prompt: init.num_prompt_tokens as usize,
                sampling: Arc::clone(&init.sampling),
                stop: Arc::clone(&init.stop),
                is_lost: false,
            };
            init.token_ids.iter().for_each(|&id| slot.push(id));
            self.slots[init.slot as usize] = Some(slot);
        }
        for row in &batch.rows {
            self.write(batch, row);
        }
        let rows = batch.rows.iter().map(|row| self.read(batch, row)).collect();
        StepOutput {
            step: batch.step,
            rows,
            timings: StepTimings::default(),
            kv_saved: Vec::new(),
        }
    }

    fn write(&mut self, batch: &Batch, row: &Row) {
        let slot = self.slots[row.slot as usize]
            .as_mut()
            .expect("rows have initialised slots");
        let start = row.num_computed_tokens as usize;
        let blocks = batch.row_blocks(row);
        for (offset, &token) in batch.row_tokens(row).iter().enumerate() {
            let position = start + offset;
            if token == TOKEN_FROM_DEVICE {
                let is_guess_right = position + 1 == slot.ids.len();
                let may_miss = slot.is_lost || self.speculation.is_some();
                assert!(is_guess_right || may_miss, "the last id is wanted");
                slot.is_lost |= !is_guess_right;
            } else if !slot.is_lost {
                assert_eq!(
                    token, slot.ids[position],
                    "the row's token is the slot's id there"
                );
            }
            let stored = slot
                .digests
                .get(position)
                .copied()
                .filter(|_| !slot.is_lost);
            let block = blocks[position / self.block_size] as usize;
            self.kv[block * self.block_size + position % self.block_size] =
                stored.unwrap_or(POISON);
        }
    }

    fn read(&mut self, batch: &Batch, row: &Row) -> RowOutput {
        let (start, end) = (row.num_computed_tokens as usize, row.context_len());
        let blocks = batch.row_blocks(row);
        let block_size = self.block_size;
        let num_drawn = self
            .speculation
            .as_mut()
            .map_or(1, |rng| rng.below(4) as usize);
        let slot = self.slots[row.slot as usize]
            .as_mut()
            .expect("rows have initialised slots");
        let mut output = RowOutput {
            slot: row.slot,
            ..RowOutput::default()
        };
        if slot.is_lost {
            output.token_ids.push(STRAY);
            return output;
        }
        for position in (start + 1).saturating_sub(self.sliding_window)..end {
            let block = blocks[position / block_size] as usize;
            let stored = self.kv[block * block_size + position % block_size];
            assert_eq!(
                stored, slot.digests[position],
                "position {position} holds what it must"
            );
        }
        if row.wants_prompt_logprobs {
            assert!(
                start + 1 < slot.num_prompt,
                "a prompt token follows the row's first"
            );
            let last = end.min(slot.num_prompt - 1);
            for place in start + 1..=last {
                let token = if place < end {
                    slot.ids[place]
                } else {
                    next_token(row)
                };
                output
                    .prompt_logprobs
                    .push(logprob(&slot.ids[..place], token));
            }
        }
        if row.samples {
            assert_eq!(end, slot.ids.len(), "the last id's logits are drawn from");
            sample(slot, num_drawn, &mut output);
        }
        output
    }
}

fn next_token(row: &Row) -> TokenId {
    row.next_prompt_token
        .expect("the prompt goes on after the row")
}

fn sample(slot: &mut Slot, num_drawn: usize, output: &mut RowOutput) {
    for _ in 0..num_drawn {
        let num_output = slot.ids.len() - slot.num_prompt;
        if fails_at(slot.sampling.top_k, num_output) {
            // A drawn token comes before the failure of the next one.
            if output.token_ids.is_empty() {
                let position = slot.ids.len() as u32 - 1;
                output.error = Some(RowError::InvalidLogits { position });
                slot.is_lost = true;
            }
            return;
        }
        let token = draw(slot.sampling.seed, &slot.ids, &slot.stop, num_output);
        if slot.sampling.num_logprobs.is_some() {
            output.logprobs.push(logprob(&slot.ids, token));
        }
        output.token_ids.push(token);
        slot.push(token);
    }
}
