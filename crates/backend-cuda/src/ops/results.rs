//! What a step sends back, and what it means.
//!
//! Invariant: one output for each row of the batch, in order; a row's failure is its own.

use hotspare_batch::{Row, RowError, RowOutput, TokenLogprobs};
use hotspare_model::ops::StepLimits;

use super::step::Step;
use crate::ReadTicket;
use crate::kernels::{LogprobsEntry, NO_TOKEN};

/// Most likely tokens that there is room for, for each entry on average.
const MAX_TOPS_PER_ENTRY: usize = 32;

/// Where results lie, in bytes from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResultsLayout {
    max_samples: usize,
    max_entries: usize,
    pub(super) max_tops: usize,
}

/// The parts of one step's results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ResultParts {
    pub(super) tokens: usize,
    pub(super) own_logprobs: usize,
    pub(super) ranks: usize,
    pub(super) top_tokens: usize,
    pub(super) top_logprobs: usize,
    pub(super) end: usize,
}

impl ResultsLayout {
    pub(super) fn new(limits: &StepLimits) -> Self {
        let max_entries = limits.max_num_batched_tokens + limits.max_num_seqs;
        Self {
            max_samples: limits.max_num_seqs,
            max_entries,
            max_tops: max_entries * MAX_TOPS_PER_ENTRY,
        }
    }

    pub(super) fn max_bytes(&self) -> usize {
        parts(self.max_samples, self.max_entries, self.max_tops).end
    }
}

/// Parts of so many tokens, entries and most likely tokens, of four bytes each.
pub(super) fn parts(num_samples: usize, num_entries: usize, num_tops: usize) -> ResultParts {
    let mut end = 0;
    let mut part = |len: usize| {
        let start = end;
        end = (start + 4 * len).next_multiple_of(16);
        start
    };
    let [tokens, own_logprobs, ranks] = [part(num_samples), part(num_entries), part(num_entries)];
    let [top_tokens, top_logprobs] = [part(num_tops), part(num_tops)];
    ResultParts {
        tokens,
        own_logprobs,
        ranks,
        top_tokens,
        top_logprobs,
        end,
    }
}

/// An entry whose result is awaited.
#[derive(Clone, Copy, Debug)]
struct AwaitedEntry {
    entry: LogprobsEntry,
    lacks_room: bool,
}

/// A step whose results are awaited.
#[derive(Debug)]
pub(super) struct Awaited {
    /// `None`: nothing was drawn or asked for.
    pub(super) ticket: Option<ReadTicket>,
    pub(super) parts: ResultParts,
    rows: Vec<(Row, Option<RowError>)>,
    entries: Vec<AwaitedEntry>,
    /// Of each row: whether the drawn token's log-probability was asked for.
    has_logprobs: Vec<bool>,
    /// Of each row: prompt tokens whose log-probabilities were asked for.
    num_prompt_entries: Vec<usize>,
    /// There was no memory for it.
    is_refused: bool,
}

impl Awaited {
    /// Of `step`; `refusal` and `has_logprobs` say more of each row.
    pub(super) fn new(
        step: &Step,
        parts: ResultParts,
        refusal: impl Fn(&Row) -> Option<RowError>,
        has_logprobs: impl Fn(&Row) -> bool,
    ) -> Self {
        let entries = step.entries.iter().zip(&step.entry_rows);
        let num_prompt = |row: &Row| match row.wants_prompt_logprobs {
            true => row.num_tokens() - 1 + usize::from(row.next_prompt_token.is_some()),
            false => 0,
        };
        Self {
            ticket: None,
            parts,
            is_refused: false,
            has_logprobs: step.rows.iter().map(has_logprobs).collect(),
            num_prompt_entries: step.rows.iter().map(num_prompt).collect(),
            rows: step
                .rows
                .iter()
                .map(|row| (row.clone(), refusal(row)))
                .collect(),
            entries: entries
                .map(|(&entry, of)| AwaitedEntry {
                    entry,
                    lacks_room: of.lacks_room,
                })
                .collect(),
        }
    }

    /// Every row fails: the device has no memory for what they asked for.
    pub(super) fn refuse(&mut self) {
        self.ticket = None;
        self.is_refused = true;
    }

    /// The outputs, from the bytes that were read.
    pub(super) fn outputs(&self, bytes: &[u8]) -> Vec<RowOutput> {
        if self.is_refused {
            let rows = self.rows.iter();
            return rows
                .map(|(row, _)| RowOutput::refused(row.slot, RowError::OutOfMemory))
                .collect();
        }
        let mut results = Results {
            bytes,
            awaited: self,
            next_sample: 0,
            next_entry: 0,
        };
        let numbers = self.num_prompt_entries.iter().zip(&self.has_logprobs);
        let rows = self.rows.iter().zip(numbers);
        rows.map(|((row, refusal), (&num_prompt, &has_logprobs))| {
            let mut output = RowOutput {
                slot: row.slot,
                ..RowOutput::default()
            };
            if let Err(error) = results.take(row, num_prompt, has_logprobs, &mut output) {
                output.error = Some(error);
            }
            if let Some(refusal) = refusal {
                output.token_ids = Default::default();
                output.error = Some(refusal.clone());
            }
            output
        })
        .collect()
    }
}

/// Results in the order of rows.
struct Results<'a> {
    bytes: &'a [u8],
    awaited: &'a Awaited,
    next_sample: usize,
    next_entry: usize,
}

impl Results<'_> {
    fn word(&self, part: usize, index: usize) -> u32 {
        let at = part + 4 * index;
        let word = self
            .bytes
            .get(at..at + 4)
            .and_then(|word| word.try_into().ok());
        word.map_or(NO_TOKEN, u32::from_le_bytes)
    }

    /// One row's results. All are passed, whatever comes of the first.
    fn take(
        &mut self,
        row: &Row,
        num_prompt: usize,
        has_logprobs: bool,
        output: &mut RowOutput,
    ) -> Result<(), RowError> {
        let first_entry = self.next_entry;
        let sample = self.next_sample;
        let samples = usize::from(row.samples);
        self.next_entry += num_prompt + if row.samples && has_logprobs { 1 } else { 0 };
        self.next_sample += samples;
        for i in 0..num_prompt {
            let position = row.num_computed_tokens + i as u32 + 1;
            let token = self.awaited.entries[first_entry + i].entry.token;
            let entry = self.logprobs(first_entry + i, token, position)?;
            output.prompt_logprobs.push(entry);
        }
        if row.samples {
            let position = row.context_len() as u32;
            let token = self.word(self.awaited.parts.tokens, sample);
            if token == NO_TOKEN {
                return Err(RowError::InvalidLogits { position });
            }
            if has_logprobs {
                let entry = self.logprobs(first_entry + num_prompt, token, position)?;
                output.logprobs.push(entry);
            }
            output.token_ids.push(token);
        }
        Ok(())
    }

    fn logprobs(&self, index: usize, token: u32, position: u32) -> Result<TokenLogprobs, RowError> {
        let parts = &self.awaited.parts;
        let AwaitedEntry { entry, lacks_room } = self.awaited.entries[index];
        if lacks_room {
            let num_bytes = self.bytes.len() as u64;
            return Err(RowError::EventTooLarge { num_bytes });
        }
        let rank = self.word(parts.ranks, index);
        if rank == 0 {
            return Err(RowError::InvalidLogits { position });
        }
        let top = entry.top_start as usize..(entry.top_start + entry.num_top) as usize;
        let pairs = top.map(|i| {
            let logprob = f32::from_bits(self.word(parts.top_logprobs, i));
            (self.word(parts.top_tokens, i), logprob)
        });
        Ok(TokenLogprobs {
            token,
            logprob: f32::from_bits(self.word(parts.own_logprobs, index)),
            rank,
            top: pairs.take_while(|&(token, _)| token != NO_TOKEN).collect(),
        })
    }
}
