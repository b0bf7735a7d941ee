//! One sequence: its ids, how far they are computed, and what it holds.
//!
//! Three lengths, all counted in ids from the first: computed <= scheduled <= known + pending.
//! Computed ids have their K and V in committed blocks, scheduled ones will when the batches in
//! flight are done, pending ones are being drawn by those batches and not known yet.
//!
//! Invariant: without a row in flight, computed = scheduled, nothing is pending, and something is
//! left to compute.

use std::sync::Arc;

use hotspare_batch::{
    DrawnTokens, FinishReason, Generate, PromptReport, RequestId, SamplingParams, SequenceEvent,
    SlotId, StopParams, TokenId, TokenLogprobs,
};

use crate::kv_blocks::{BlockTable, PrefixChain};
use crate::queue::QueueKey;

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// In the waiting queue; holds nothing.
    Waiting,
    /// In the running list; holds a slot and blocks.
    Running,
    /// Lost its place, but rows of it are in flight: when they are committed it gives back what it
    /// holds and waits.
    Preempting,
    /// Its last event is out, but rows of it are in flight: their output is dropped.
    Finished,
}

/// One sequence.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) request_id: RequestId,
    pub(crate) attempt: u32,
    /// Prompt and output ids that are known.
    pub(crate) ids: Vec<TokenId>,
    pub(crate) num_prompt_tokens: usize,
    /// The sequence ends when it has so many ids.
    pub(crate) max_len: usize,
    pub(crate) sampling: Arc<SamplingParams>,
    pub(crate) stop: Arc<StopParams>,
    /// Bits of all stop ids: a token whose bit is not set ends nothing, and nearly none is.
    stop_filter: u64,
    pub(crate) prefill_only: bool,
    pub(crate) key: QueueKey,
    pub(crate) deadline_at_ms: Option<u64>,
    pub(crate) added_at_ms: u64,

    pub(crate) status: Status,
    pub(crate) slot: Option<SlotId>,
    pub(crate) block_table: BlockTable,
    pub(crate) chain: PrefixChain,
    pub(crate) num_computed_tokens: usize,
    pub(crate) num_scheduled_tokens: usize,
    pub(crate) num_pending_tokens: usize,
    /// Rows that are scheduled and not committed.
    pub(crate) num_in_flight: u32,
    /// Rows of an older epoch were built on a wrong guess; their output is dropped.
    pub(crate) epoch: u32,
    /// The device's idea of the slot is wrong: tell it before the next row.
    pub(crate) needs_slot_init: bool,
    /// It has run before, so it is not new to the waiting queue. The engine's own never are.
    pub(crate) was_admitted: bool,
    /// How often it lost its place.
    pub(crate) num_preemptions: u32,
    /// Prompt tokens that its first admission found in the prefix cache.
    pub(crate) num_cached_tokens: u32,
    /// How long it waited for its first admission.
    pub(crate) queued_ms: Option<u64>,
    /// Its first event is out.
    pub(crate) has_reported: bool,
    /// Log-probabilities of the prompt were asked for and are not delivered yet.
    pub(crate) wants_prompt_logprobs: bool,
    pub(crate) prompt_logprobs: Vec<TokenLogprobs>,
}

impl Sequence {
    /// A waiting sequence for `request`, which the scheduler has checked.
    pub(crate) fn new(
        request: Generate,
        max_len: usize,
        key: QueueKey,
        deadline_at_ms: Option<u64>,
        added_at_ms: u64,
    ) -> Self {
        Self {
            request_id: request.request_id,
            attempt: request.attempt,
            num_prompt_tokens: request.num_prompt_tokens(),
            ids: request.ids,
            max_len,
            wants_prompt_logprobs: request.sampling.num_prompt_logprobs.is_some(),
            stop_filter: all_stop_ids(&request.stop)
                .map(filter_bit)
                .fold(0, |all, bit| all | bit),
            sampling: Arc::new(request.sampling),
            stop: Arc::new(request.stop),
            prefill_only: request.prefill_only,
            key,
            deadline_at_ms,
            added_at_ms,
            status: Status::Waiting,
            slot: None,
            block_table: BlockTable::default(),
            chain: PrefixChain::new(request.block_hash_keys),
            num_computed_tokens: 0,
            num_scheduled_tokens: 0,
            num_pending_tokens: 0,
            num_in_flight: 0,
            epoch: 0,
            needs_slot_init: false,
            was_admitted: request.request_id.is_internal(),
            num_preemptions: 0,
            num_cached_tokens: 0,
            queued_ms: None,
            has_reported: false,
            prompt_logprobs: Vec::new(),
        }
    }

    /// Whether a client asked for it.
    pub(crate) fn is_counted(&self) -> bool {
        !self.request_id.is_internal()
    }

    /// Output ids known, delivered ones of earlier attempts included.
    pub(crate) fn num_output_tokens(&self) -> usize {
        self.ids.len() - self.num_prompt_tokens
    }

    /// Ids known when everything in flight is done, if each sampling row draws one.
    pub(crate) fn expected_len(&self) -> usize {
        self.ids.len() + self.num_pending_tokens
    }

    /// Tokens that the next row could compute: none where the end by length is already in flight.
    pub(crate) fn num_unscheduled_tokens(&self) -> usize {
        let len = self.expected_len();
        if !self.prefill_only && len >= self.max_len {
            return 0;
        }
        len - self.num_scheduled_tokens
    }

    /// Reports tokens from `first_index` of the output on, an end, or both. The first event says
    /// how much of the prompt was cached and, where the prompt is done, carries its
    /// log-probabilities.
    pub(crate) fn report(
        &mut self,
        events: &mut Vec<SequenceEvent>,
        first_index: usize,
        token_ids: DrawnTokens,
        logprobs: Vec<TokenLogprobs>,
        finish: Option<FinishReason>,
    ) {
        let prompt = (!self.has_reported).then(|| {
            let is_prompt_done = !token_ids.is_empty() || finish == Some(FinishReason::Length);
            self.first_report(is_prompt_done)
        });
        events.push(SequenceEvent {
            request_id: self.request_id,
            attempt: self.attempt,
            first_index: first_index as u32,
            token_ids,
            logprobs,
            prompt,
            finish,
        });
    }

    #[cold]
    fn first_report(&mut self, is_prompt_done: bool) -> Box<PromptReport> {
        self.has_reported = true;
        let mut prompt_logprobs = Vec::new();
        if self.wants_prompt_logprobs && is_prompt_done {
            self.wants_prompt_logprobs = false;
            prompt_logprobs = std::mem::take(&mut self.prompt_logprobs);
        }
        Box::new(PromptReport {
            num_cached_tokens: self.num_cached_tokens,
            queued_ms: self.queued_ms,
            prompt_logprobs,
        })
    }

    /// Appends drawn tokens up to the one that ends the sequence, and drops those after it.
    pub(crate) fn accept(&mut self, token_ids: &mut DrawnTokens) -> Option<FinishReason> {
        for place in 0..token_ids.len() {
            let token = token_ids[place];
            let num_before = self.num_output_tokens();
            self.ids.push(token);
            let may_stop = self.stop_filter & filter_bit(token) != 0;
            let finish = may_stop
                .then(|| find_stop(&self.stop, token, num_before))
                .flatten()
                .or_else(|| (self.ids.len() >= self.max_len).then_some(FinishReason::Length));
            if finish.is_some() {
                token_ids.truncate(place + 1);
                return finish;
            }
        }
        None
    }

    /// Goes back to what is computed: rows in flight were built on a guess that turned out wrong.
    pub(crate) fn rewind(&mut self) {
        self.num_scheduled_tokens = self.num_computed_tokens;
        self.num_pending_tokens = 0;
        self.epoch += 1;
        self.needs_slot_init = self.num_in_flight > 0;
    }

    /// Forgets all progress but the ids, for a recompute.
    pub(crate) fn restart(&mut self) {
        self.num_computed_tokens = 0;
        self.rewind();
        self.prompt_logprobs.clear();
    }
}

/// Whether `token`, drawn after `num_before` output tokens, ends a sequence.
pub(crate) fn find_stop(
    stop: &StopParams,
    token: TokenId,
    num_before: usize,
) -> Option<FinishReason> {
    // The sampler masks these tokens before the minimum length; one that comes anyway is ordinary.
    if num_before < stop.min_tokens as usize {
        None
    } else if !stop.ignore_eos && stop.eos_token_ids.contains(&token) {
        Some(FinishReason::Eos(token))
    } else if stop.stop_token_ids.contains(&token) {
        Some(FinishReason::StopToken(token))
    } else {
        None
    }
}

fn all_stop_ids(stop: &StopParams) -> impl Iterator<Item = TokenId> + '_ {
    stop.eos_token_ids
        .iter()
        .chain(&stop.stop_token_ids)
        .copied()
}

fn filter_bit(token: TokenId) -> u64 {
    1 << (token % u64::BITS)
}
