//! One step's work for the device: ragged rows of tokens, their blocks, and who draws a token.
//!
//! A row is one sequence's slice of tokens. Prefill chunks (many tokens) and decode rows (one
//! token, or a few under speculation) stand side by side; nothing else tells them apart.
//!
//! Invariant: rows are in order, their token and block ranges partition `token_ids` and
//! `block_tables`.

use std::ops::Range;
use std::sync::Arc;

use crate::{BlockId, KvBlock, SamplingParams, SlotId, StepId, StopParams, TokenId};

/// In [`Batch::token_ids`]: take the token that this row's slot drew last. With one step of
/// look-ahead the host has not seen that token yet when it builds the batch.
pub const TOKEN_FROM_DEVICE: TokenId = TokenId::MAX;

/// One sequence's part of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The sequence's slot.
    pub slot: SlotId,
    /// Tokens of the sequence whose K and V are in the cache already; the position of the row's
    /// first token.
    pub num_computed_tokens: u32,
    /// The row's tokens in [`Batch::token_ids`].
    pub tokens: Range<u32>,
    /// The row's blocks in [`Batch::block_tables`]: position `p` lives in block `p / block_size`.
    /// Covers the row's last token.
    pub blocks: Range<u32>,
    /// Whether a token is drawn from the logits of the row's last token.
    pub samples: bool,
    /// Compute log-probabilities of the prompt tokens that follow each token of the row
    /// (`SamplingParams::num_prompt_logprobs` says how many).
    pub wants_prompt_logprobs: bool,
    /// The prompt token after the row's last one, where the prompt goes on; only filled for rows
    /// that want prompt log-probabilities.
    pub next_prompt_token: Option<TokenId>,
}

impl Row {
    /// Number of tokens of this row.
    pub fn num_tokens(&self) -> usize {
        (self.tokens.end - self.tokens.start) as usize
    }

    /// Context length after this step: position of the row's last token plus one.
    pub fn context_len(&self) -> usize {
        self.num_computed_tokens as usize + self.num_tokens()
    }
}

/// A sequence takes a slot: on admission and again after each preemption.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotInit {
    /// The slot it takes; whatever was there is forgotten.
    pub slot: SlotId,
    /// Prompt and output ids known so far: what penalties count.
    pub token_ids: Arc<[TokenId]>,
    /// How many of `token_ids` are prompt; the rest is output.
    pub num_prompt_tokens: u32,
    /// How its tokens are drawn.
    pub sampling: Arc<SamplingParams>,
    /// Needed for the minimum length mask.
    pub stop: Arc<StopParams>,
}

/// Which tokens one row may draw in this step: what a grammar leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    /// The row, an index in [`Batch::rows`]; it samples.
    pub row: u32,
    /// Bit `i % 32` of word `i / 32` allows token `i`; tokens behind the last word are not allowed.
    pub words: Arc<[u32]>,
}

impl TokenMask {
    /// Whether a mask of `words` allows `token`.
    pub fn allows(words: &[u32], token: TokenId) -> bool {
        let word = words.get(token as usize / 32);
        word.is_some_and(|word| word >> (token % 32) & 1 == 1)
    }
}

/// One step's work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Number of the step.
    pub step: StepId,
    /// Slots that change owner, to be applied before anything else.
    pub slot_inits: Vec<SlotInit>,
    /// The rows, decode rows and prefill chunks mixed.
    pub rows: Vec<Row>,
    /// Tokens of all rows, concatenated.
    pub token_ids: Vec<TokenId>,
    /// Block tables of all rows, concatenated.
    pub block_tables: Vec<BlockId>,
    /// Blocks to be filled before anything else.
    pub kv_loads: Vec<KvBlock>,
    /// Blocks to be copied out next, before the rows are computed.
    pub kv_saves: Vec<BlockId>,
    /// Rows that may not draw any token, one mask a row, in the order of rows.
    pub token_masks: Vec<TokenMask>,
}

impl Batch {
    /// Number of tokens in the step.
    pub fn num_tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// The tokens of `row`.
    pub fn row_tokens(&self, row: &Row) -> &[TokenId] {
        &self.token_ids[row.tokens.start as usize..row.tokens.end as usize]
    }

    /// The block table of `row`.
    pub fn row_blocks(&self, row: &Row) -> &[BlockId] {
        &self.block_tables[row.blocks.start as usize..row.blocks.end as usize]
    }

    /// The mask of row `index`, where it has one.
    pub fn token_mask(&self, index: usize) -> Option<&[u32]> {
        let found = self
            .token_masks
            .binary_search_by_key(&index, |mask| mask.row as usize);
        found.ok().map(|at| &*self.token_masks[at].words)
    }

    /// Whether each mask is of another row, which samples, in the order of rows.
    pub fn has_proper_masks(&self) -> bool {
        let samples = |mask: &TokenMask| {
            let row = self.rows.get(mask.row as usize);
            row.is_some_and(|row| row.samples)
        };
        self.token_masks.iter().all(samples) && self.token_masks.is_sorted_by(|a, b| a.row < b.row)
    }

    /// Checks the invariant of this type.
    ///
    /// # Panics
    /// Where a range does not follow the one before it, blocks do not cover a row's tokens, or a
    /// mask is of no row that samples.
    pub fn check_integrity(&self, block_size: usize) {
        let (mut token, mut block) = (0, 0);
        for row in &self.rows {
            assert_eq!(row.tokens.start, token, "token ranges partition the batch");
            assert_eq!(row.blocks.start, block, "block ranges partition the batch");
            assert!(row.tokens.end > row.tokens.start, "a row has tokens");
            let num_blocks = (row.blocks.end - row.blocks.start) as usize;
            assert!(
                num_blocks * block_size >= row.context_len(),
                "blocks cover the row"
            );
            (token, block) = (row.tokens.end, row.blocks.end);
        }
        assert_eq!(
            token as usize,
            self.token_ids.len(),
            "no token without a row"
        );
        assert_eq!(
            block as usize,
            self.block_tables.len(),
            "no block without a row"
        );
        assert!(self.has_proper_masks(), "a mask is of a row that samples");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_found_by_their_row() {
        let row = |samples| Row {
            slot: 0,
            num_computed_tokens: 0,
            tokens: 0..1,
            blocks: 0..1,
            samples,
            wants_prompt_logprobs: false,
            next_prompt_token: None,
        };
        let mask = |row, words: &[u32]| TokenMask {
            row,
            words: words.into(),
        };
        let mut batch = Batch {
            rows: [true, false, true, true].map(row).to_vec(),
            token_masks: vec![mask(0, &[1]), mask(3, &[0, 2])],
            ..Batch::default()
        };
        assert!(batch.has_proper_masks());
        let found: Vec<Option<&[u32]>> = (0..4).map(|row| batch.token_mask(row)).collect();
        assert_eq!(found, [Some(&[1][..]), None, None, Some(&[0, 2])]);
        assert!(TokenMask::allows(&[0, 2], 33) && !TokenMask::allows(&[0, 2], 32));
        assert!(!TokenMask::allows(&[0, 2], 64), "behind the mask");
        for wrong in [1, 4] {
            batch.token_masks = vec![mask(wrong, &[1])];
            assert!(!batch.has_proper_masks(), "row {wrong}");
        }
        batch.token_masks = vec![mask(3, &[1]), mask(3, &[1])];
        assert!(!batch.has_proper_masks(), "two of one row");
    }
}
