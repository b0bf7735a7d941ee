//! What the sampler keeps of running sequences, on the host and on the device.
//!
//! On the device each slot has its last token, and room for a table of counts (penalties), two
//! masks (allowed ids; ids that would end the sequence too early) and a list of biases. They are
//! written when a sequence takes the slot; only counts and last tokens change later, by the kernel
//! that draws. Masks of a step's rows lie behind those of the slots.
//!
//! Invariant: a slot's state is a function of prompt and output ids, so a sequence that was
//! preempted or moved gets the same one again.

use std::collections::BTreeMap;
use std::sync::Arc;

use hotspare_batch::{Row, RowError, SamplingParams, SlotInit, StopParams, TokenId, TokenMask};
use hotspare_model::ops::{OpsError, StepLimits};

use super::memory::{FOR_BUFFERS, alloc, product};
use crate::kernels::{CountPair, NO_TOKEN, Sample, SampleRow, counts_table};
use crate::{Address, Device, LaunchError};

/// Tokens that a request may bias. The API's own bound is lower.
pub const MAX_NUM_BIASES: usize = 1024;

/// Places of all tables together up to which each is twice as large as it must be.
const MAX_ROOMY_PLACES: usize = 8 << 20;

/// A sequence's sampling, as the host knows it.
#[derive(Clone, Debug, Default)]
struct Slot {
    sampling: Arc<SamplingParams>,
    stop: Arc<StopParams>,
    num_prompt_tokens: u32,
    /// What `TOKEN_FROM_DEVICE` stands for until a token was drawn.
    last_known: Option<TokenId>,
    has_drawn: bool,
}

impl Slot {
    fn has_penalties(&self) -> bool {
        let s = &self.sampling;
        s.repetition_penalty != 1.0 || s.frequency_penalty != 0.0 || s.presence_penalty != 0.0
    }
}

impl Slot {
    /// Whether the token at `position` may not be one that ends the sequence.
    fn is_too_short(&self, position: u32) -> bool {
        position.saturating_sub(self.num_prompt_tokens) < self.stop.min_tokens
    }

    /// Takes the ids that end the sequence out of `mask`.
    fn forbid_ends(&self, mask: &mut [u32]) {
        let stop = &self.stop;
        for &token in stop.eos_token_ids.iter().chain(&stop.stop_token_ids) {
            set_bit(mask, token, false);
        }
    }
}

/// Where a row's token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastToken {
    /// The host knows it.
    Known(TokenId),
    /// The device drew it.
    OnDevice,
}

/// All slots.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    vocab_size: usize,
    /// Places of a table of counts.
    capacity: usize,
    /// `[slots, capacity]` pairs.
    pub(super) counts: Address,
    /// `[slots, 2, words]`, and then `[rows, words]`: as many rows as slots.
    pub(super) masks: Address,
    /// `[slots, MAX_NUM_BIASES]`.
    pub(super) bias_tokens: Address,
    pub(super) biases: Address,
    /// `[slots]`.
    pub(super) last_tokens: Address,
    /// Workspaces of the kernels, for as many rows as slots.
    pub(super) chunk_keys: Address,
    pub(super) block_sums: Address,
}

impl Slots {
    /// # Errors
    /// Out of memory.
    pub(super) fn new<D: Device>(
        device: &mut D,
        limits: &StepLimits,
        vocab_size: usize,
    ) -> Result<Self, OpsError> {
        const WHAT: &str = "the sampler's tables";
        let num_slots = limits.max_num_seqs;
        // A sequence has no more different tokens than either of these.
        let needed = limits.max_model_len.min(vocab_size) + 1;
        let mut capacity = needed.next_power_of_two();
        if product(WHAT, &[num_slots, capacity, 2])? <= MAX_ROOMY_PLACES {
            capacity *= 2;
        }
        let mut memory = |factors: &[usize]| {
            let num_bytes = product(WHAT, factors)?;
            alloc(device, WHAT, num_bytes, FOR_BUFFERS)
        };
        Ok(Self {
            slots: vec![Slot::default(); num_slots],
            vocab_size,
            capacity,
            counts: memory(&[num_slots, capacity, 8])?,
            masks: memory(&[num_slots, 3, vocab_size.div_ceil(32), 4])?,
            bias_tokens: memory(&[num_slots, MAX_NUM_BIASES, 4])?,
            biases: memory(&[num_slots, MAX_NUM_BIASES, 4])?,
            last_tokens: memory(&[num_slots, 4])?,
            chunk_keys: memory(&[num_slots, Sample::num_chunks(vocab_size), 8])?,
            block_sums: memory(&[num_slots, Sample::num_blocks(vocab_size), 8])?,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The parameters of a slot's sequence.
    pub(super) fn sampling(&self, slot: u32) -> &SamplingParams {
        &self.slots[slot as usize].sampling
    }

    /// What `TOKEN_FROM_DEVICE` stands for in a row of `slot`; `None` where it never had a token.
    pub(super) fn last_token(&self, slot: u32) -> Option<LastToken> {
        let slot = &self.slots[slot as usize];
        match slot.has_drawn {
            true => Some(LastToken::OnDevice),
            false => slot.last_known.map(LastToken::Known),
        }
    }

    /// A token is to be drawn for `slot` in the step that is being queued.
    pub(super) fn set_drawn(&mut self, slot: u32) {
        self.slots[slot as usize].has_drawn = true;
    }

    /// Gives a slot, which exists, to a sequence. Copies are at most `max_copy_bytes` long.
    ///
    /// # Errors
    /// What the device says.
    pub(super) fn reset<D: Device>(
        &mut self,
        device: &mut D,
        max_copy_bytes: usize,
        init: &SlotInit,
    ) -> Result<(), LaunchError> {
        let index = init.slot as usize;
        self.slots[index] = Slot {
            sampling: Arc::clone(&init.sampling),
            stop: Arc::clone(&init.stop),
            num_prompt_tokens: init.num_prompt_tokens.min(init.token_ids.len() as u32),
            last_known: init.token_ids.last().copied(),
            has_drawn: false,
        };
        let slot = &self.slots[index];
        let mut copy = |to: Address, bytes: &[u8]| {
            let mut to = to;
            for piece in bytes.chunks(max_copy_bytes.max(4)) {
                device.upload(to, piece)?;
                to = to.offset(piece.len());
            }
            Ok::<_, LaunchError>(())
        };
        if slot.has_penalties() {
            let table = counts_table(&counts(init, slot.num_prompt_tokens), self.capacity);
            let at = self
                .counts
                .offset(index * self.capacity * size_of::<CountPair>());
            copy(at, bytemuck::cast_slice(&table))?;
        }
        let words = self.vocab_size.div_ceil(32);
        let masks = self.masks.offset(2 * index * words * 4);
        if !slot.sampling.allowed_token_ids.is_empty() {
            let mut mask = vec![0u32; words];
            for &token in &slot.sampling.allowed_token_ids {
                set_bit(&mut mask, token, true);
            }
            copy(masks, bytemuck::cast_slice(&mask))?;
        }
        if slot.stop.min_tokens > 0 {
            let mut mask = vec![u32::MAX; words];
            slot.forbid_ends(&mut mask);
            copy(masks.offset(words * 4), bytemuck::cast_slice(&mask))?;
        }
        let biases = &slot.sampling.logit_bias;
        if !biases.is_empty() && biases.len() <= MAX_NUM_BIASES {
            let (tokens, values): (Vec<u32>, Vec<f32>) = biases.iter().copied().unzip();
            let offset = index * MAX_NUM_BIASES * 4;
            copy(
                self.bias_tokens.offset(offset),
                bytemuck::cast_slice(&tokens),
            )?;
            copy(self.biases.offset(offset), bytemuck::cast_slice(&values))?;
        }
        Ok(())
    }

    /// Puts the masks of a step's `rows` on the device, in their order; where a row cannot end yet
    /// its mask says that too. Copies are at most `max_copy_bytes` long.
    ///
    /// # Errors
    /// More masks than there are slots; what the device says.
    pub(super) fn put_masks<D: Device>(
        &self,
        device: &mut D,
        max_copy_bytes: usize,
        rows: &[Row],
        masks: &[TokenMask],
    ) -> Result<(), LaunchError> {
        if masks.is_empty() {
            return Ok(());
        }
        if masks.len() > self.slots.len() {
            let num_masks = masks.len();
            return Err(LaunchError::Misuse(format!("{num_masks} token masks")));
        }
        let words = self.vocab_size.div_ceil(32);
        let mut all = Vec::with_capacity(masks.len() * words);
        for mask in masks {
            let first = all.len();
            all.extend(mask.words.iter().take(words));
            all.resize(first + words, 0);
            let row = rows.get(mask.row as usize);
            if let Some(row) = row.filter(|row| self.is_too_short(row)) {
                self.slots[row.slot as usize].forbid_ends(&mut all[first..]);
            }
        }
        let mut to = self.masks.offset(2 * self.slots.len() * words * 4);
        for piece in bytemuck::cast_slice(&all).chunks(max_copy_bytes.max(4)) {
            device.upload(to, piece)?;
            to = to.offset(piece.len());
        }
        Ok(())
    }

    /// Whether the token that `row` draws may not end its sequence.
    fn is_too_short(&self, row: &Row) -> bool {
        let slot = &self.slots[row.slot as usize];
        slot.is_too_short(row.context_len() as u32)
    }

    /// Why no token can be drawn for `slot`, if none can.
    pub(super) fn refusal(&self, slot: u32) -> Option<RowError> {
        let num_biases = self.sampling(slot).logit_bias.len();
        (num_biases > MAX_NUM_BIASES).then_some(RowError::TooManyBiases {
            num_biases: num_biases as u32,
            max_num_biases: MAX_NUM_BIASES as u32,
        })
    }

    /// Parameters of the draw of the token at `position`; `mask` is the place of the row's mask
    /// among those of the step, if it has one.
    pub(super) fn sample_row(&self, index: u32, position: u32, mask: Option<u32>) -> SampleRow {
        let slot = &self.slots[index as usize];
        let s = &slot.sampling;
        let num_biases = s.logit_bias.len();
        let num_biases = if num_biases <= MAX_NUM_BIASES {
            num_biases
        } else {
            0
        };
        let bias_start = index * MAX_NUM_BIASES as u32;
        SampleRow {
            temperature: s.temperature,
            top_p: s.top_p,
            min_p: s.min_p,
            top_k: s.top_k,
            repetition_penalty: s.repetition_penalty,
            frequency_penalty: s.frequency_penalty,
            presence_penalty: s.presence_penalty,
            slot: index,
            seed_low: s.seed as u32,
            seed_high: (s.seed >> 32) as u32,
            position,
            choice: s.choice,
            masked_start: 0,
            masked_end: 0,
            bias_start,
            bias_end: bias_start + num_biases as u32,
            counts_start: index * self.capacity as u32,
            counts_capacity: match slot.has_penalties() {
                true => self.capacity as u32,
                false => 0,
            },
            allowed: match s.allowed_token_ids.is_empty() {
                true => NO_TOKEN,
                false => 2 * index,
            },
            // The mask of ids that would end it too early stands in the grammar's place, or is part
            // of the row's mask: both only forbid.
            grammar: match (mask, slot.is_too_short(position)) {
                (Some(place), _) => 2 * self.slots.len() as u32 + place,
                (None, true) => 2 * index + 1,
                (None, false) => NO_TOKEN,
            },
        }
    }
}

/// Each token of prompt or output, and how often it is in the output.
fn counts(init: &SlotInit, num_prompt_tokens: u32) -> Vec<CountPair> {
    let mut counts = BTreeMap::new();
    for (i, &id) in init.token_ids.iter().enumerate() {
        *counts.entry(id).or_insert(0) += u32::from(i >= num_prompt_tokens as usize);
    }
    counts.into_iter().map(|(id, count)| [id, count]).collect()
}

/// An id outside the vocabulary names nothing.
fn set_bit(mask: &mut [u32], token: TokenId, value: bool) {
    if let Some(word) = mask.get_mut(token as usize / 32) {
        let bit = 1 << (token % 32);
        *word = if value { *word | bit } else { *word & !bit };
    }
}
