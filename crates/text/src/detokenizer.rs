//! Token ids to text, one at a time.
//!
//! A character may be spread over several tokens: its bytes are held until it is complete, so no
//! token yields a U+FFFD that a later token would have repaired. Each token costs its own length.
//!
//! Invariant: the concatenation of all [`Detokenizer::push`] and the final [`Detokenizer::finish`]
//! is [`TextModel::decode`](crate::TextModel::decode) of the same ids, and the state after a prefix
//! depends on that prefix alone.

use std::sync::Arc;

use crate::decoder::{DecodeTable, strip_start};
use crate::model::TextModel;
use crate::utf8::{Replacement, Utf8Buffer};

/// Tokens at the end of a prompt that can still matter for what follows it.
const NUM_PRIMING_TOKENS: usize = 16;

/// An incremental decoder of one sequence.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    table: Arc<DecodeTable>,
    skips_special: bool,
    buffer: Utf8Buffer,
    /// No token had text yet.
    is_at_start: bool,
    /// How many more leading characters the decoder cuts.
    num_strippable: usize,
}

impl Detokenizer {
    /// A decoder for what follows `prompt` (all of it, or its end): it yields the text of later
    /// tokens only.
    ///
    /// A model that cuts the space of the first word keeps it where the prompt came before, and
    /// bytes of a character that the prompt left open are completed by the first tokens.
    pub fn new(model: &TextModel, prompt: &[u32], skip_special_tokens: bool) -> Self {
        let mut detokenizer = Self::with_table(Arc::clone(model.table()), skip_special_tokens);
        let (head, tail) = prompt.split_at(prompt.len().saturating_sub(NUM_PRIMING_TOKENS));
        let mut unused = String::new();
        for &id in tail {
            detokenizer.push_into(id, &mut unused);
        }
        if head
            .iter()
            .rev()
            .any(|&id| detokenizer.visible_bytes(id).is_some())
        {
            detokenizer.is_at_start = false;
            detokenizer.num_strippable = 0;
        }
        detokenizer
    }

    pub(crate) fn with_table(table: Arc<DecodeTable>, skips_special: bool) -> Self {
        Self {
            num_strippable: table.strip.map_or(0, |(_, limit)| limit),
            table,
            skips_special,
            buffer: Utf8Buffer::default(),
            is_at_start: true,
        }
    }

    /// The text that this token makes certain; often its own, sometimes none.
    pub fn push(&mut self, id: u32) -> String {
        let mut out = String::new();
        self.push_into(id, &mut out);
        out
    }

    /// [`Detokenizer::push`] into a string that is there already.
    pub fn push_into(&mut self, id: u32, out: &mut String) {
        if self.visible_bytes(id).is_none() {
            return;
        }
        let table = &*self.table;
        let bytes = if self.is_at_start {
            table.first_bytes(id)
        } else {
            table.bytes(id)
        };
        let bytes = bytes.unwrap_or_default();
        if table.joins_with_space && !self.is_at_start {
            out.push(' ');
        }
        self.is_at_start = false;
        let start = out.len();
        if table.is_byte_level {
            self.buffer.push(bytes, Replacement::PerSequence, out);
        } else if table.is_byte(id) {
            self.buffer.push(bytes, Replacement::PerByte, out);
        } else {
            // A token of text ends a run of byte tokens.
            self.buffer.flush(Replacement::PerByte, out);
            self.buffer.push(bytes, Replacement::PerByte, out);
        }
        self.strip(start, out);
    }

    /// The end of the sequence: bytes of a character that never became complete, as U+FFFD.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        let replacement = if self.table.is_byte_level {
            Replacement::PerSequence
        } else {
            Replacement::PerByte
        };
        self.buffer.flush(replacement, &mut out);
        self.strip(0, &mut out);
        out
    }

    /// Whether bytes of an incomplete character are held.
    pub fn is_holding(&self) -> bool {
        !self.buffer.is_empty()
    }

    fn visible_bytes(&self, id: u32) -> Option<&[u8]> {
        if self.skips_special && self.table.is_special(id) {
            return None;
        }
        self.table.bytes(id)
    }

    fn strip(&mut self, start: usize, out: &mut String) {
        let Some((content, _)) = self.table.strip else {
            return;
        };
        if self.num_strippable == 0 || out.len() == start {
            return;
        }
        let (rest, count) = strip_start(&out[start..], content, self.num_strippable);
        let num_cut = out.len() - start - rest.len();
        self.num_strippable = if rest.is_empty() {
            self.num_strippable - count
        } else {
            0
        };
        out.drain(start..start + num_cut);
    }
}

#[cfg(test)]
#[path = "detokenizer_test.rs"]
mod detokenizer_test;
