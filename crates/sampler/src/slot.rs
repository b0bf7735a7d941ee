//! What the sampler remembers of a running sequence: its parameters, what it has said, its last
//! token.
//!
//! Tokens are counted only for sequences whose penalties need it, in a map, so that a slot of a
//! short sequence is cheap whatever the vocabulary.
//!
//! Invariant: the state is a function of prompt and output ids, so a sequence that was preempted or
//! moved gets the same one again.

use std::sync::Arc;

use hotspare_batch::{SamplingParams, SlotInit, StopParams, TokenId};
use rustc_hash::FxHashMap;

/// State of one slot.
#[derive(Clone, Debug, Default)]
pub struct SlotState {
    sampling: Arc<SamplingParams>,
    stop: Arc<StopParams>,
    /// For each token of prompt or output, how often it is in the output. Empty without penalties.
    counts: FxHashMap<TokenId, u32>,
    last_token: Option<TokenId>,
    num_output_tokens: u32,
}

impl SlotState {
    /// Forgets everything and takes the sequence of `init`.
    pub fn reset(&mut self, init: &SlotInit) {
        self.sampling = Arc::clone(&init.sampling);
        self.stop = Arc::clone(&init.stop);
        self.counts.clear();
        let num_prompt = (init.num_prompt_tokens as usize).min(init.token_ids.len());
        let (prompt, output) = init.token_ids.split_at(num_prompt);
        self.last_token = init.token_ids.last().copied();
        self.num_output_tokens = output.len() as u32;
        if self.has_penalties() {
            for &token in prompt {
                self.counts.entry(token).or_insert(0);
            }
            for &token in output {
                *self.counts.entry(token).or_insert(0) += 1;
            }
        }
    }

    /// Appends a token of output.
    pub fn push(&mut self, token: TokenId) {
        self.last_token = Some(token);
        self.num_output_tokens += 1;
        if self.has_penalties() {
            *self.counts.entry(token).or_insert(0) += 1;
        }
    }

    /// How its tokens are drawn.
    pub fn sampling(&self) -> &SamplingParams {
        &self.sampling
    }

    /// When it ends.
    pub fn stop(&self) -> &StopParams {
        &self.stop
    }

    /// The sequence's last known token: what [`hotspare_batch::TOKEN_FROM_DEVICE`] stands for.
    pub fn last_token(&self) -> Option<TokenId> {
        self.last_token
    }

    /// Tokens of output so far.
    pub fn num_output_tokens(&self) -> u32 {
        self.num_output_tokens
    }

    /// Whether any penalty is on.
    pub(crate) fn has_penalties(&self) -> bool {
        let s = &self.sampling;
        s.repetition_penalty != 1.0 || s.frequency_penalty != 0.0 || s.presence_penalty != 0.0
    }

    /// Each token of prompt or output, and how often it is in the output; in no particular order.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (TokenId, u32)> {
        self.counts.iter().map(|(&token, &count)| (token, count))
    }
}
