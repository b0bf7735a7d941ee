//! One choice of a recorded request.
//!
//! Invariant: `delivered` are the ids that its client has been given, in order, from the first.

use std::sync::Arc;
use std::time::Duration;

use hotspare_batch::{Generate, RequestId, TokenId};

use crate::JobParams;

/// Ids for which there is room at first.
const MIN_CAPACITY: usize = 16;

/// How a choice begins.
#[derive(Clone, Debug)]
pub struct ChoiceStart {
    /// Its sequence's name, the same in all attempts.
    pub request_id: RequestId,
    /// Prompt ids; choices of one prompt share them.
    pub prompt: Arc<[TokenId]>,
    /// Its `SamplingParams::choice`.
    pub choice: u32,
    /// Its `StopParams::max_tokens`.
    pub max_tokens: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ChoiceRecord {
    start: ChoiceStart,
    delivered: Vec<TokenId>,
    /// Number of the attempt that was made last.
    attempt: u32,
    num_attempts_since_token: u32,
    /// When an engine took it in first.
    admitted_at: Option<Duration>,
    has_prompt_report: bool,
    has_finished: bool,
}

impl ChoiceRecord {
    pub(crate) fn new(start: ChoiceStart) -> Self {
        Self {
            start,
            delivered: Vec::new(),
            attempt: 0,
            num_attempts_since_token: 0,
            admitted_at: None,
            has_prompt_report: false,
            has_finished: false,
        }
    }

    pub(crate) fn start(&self) -> &ChoiceStart {
        &self.start
    }

    pub(crate) fn delivered(&self) -> &[TokenId] {
        &self.delivered
    }

    pub(crate) fn has_finished(&self) -> bool {
        self.has_finished
    }

    pub(crate) fn num_attempts_since_token(&self) -> u32 {
        self.num_attempts_since_token
    }

    /// Bytes of the delivered ids.
    pub(crate) fn num_bytes(&self) -> usize {
        self.delivered.capacity() * size_of::<TokenId>()
    }

    /// The capacity that `num_more` ids need, if it is more than there is.
    pub(crate) fn wanted_capacity(&self, num_more: usize) -> Option<usize> {
        let len = self.delivered.len() + num_more;
        if len <= self.delivered.capacity() {
            return None;
        }
        let most = self.start.max_tokens as usize;
        let doubled = (self.delivered.capacity() * 2).max(MIN_CAPACITY).min(most);
        Some(doubled.max(len))
    }

    /// Makes room for exactly `capacity` ids.
    pub(crate) fn reserve(&mut self, capacity: usize) {
        let num_more = capacity.saturating_sub(self.delivered.len());
        self.delivered.reserve_exact(num_more);
    }

    pub(crate) fn push(&mut self, token_ids: &[TokenId]) {
        self.delivered.extend_from_slice(token_ids);
        if !token_ids.is_empty() {
            self.num_attempts_since_token = 0;
        }
    }

    /// Forgets the delivered ids of a choice that has ended.
    pub(crate) fn finish(&mut self) {
        self.has_finished = true;
        self.delivered = Vec::new();
    }

    pub(crate) fn on_admitted(&mut self, now: Duration) {
        self.admitted_at.get_or_insert(now);
    }

    pub(crate) fn on_prompt_report(&mut self) -> bool {
        !std::mem::replace(&mut self.has_prompt_report, true)
    }

    pub(crate) fn count_failed_attempt(&mut self) {
        self.num_attempts_since_token += 1;
    }

    /// What is left of a deadline that started when the choice was first taken in.
    pub(crate) fn remaining_ms(&self, deadline_ms: Option<u64>, now: Duration) -> Option<u64> {
        let waited = self.admitted_at.map(|at| now.saturating_sub(at));
        let waited_ms = waited.map_or(0, |waited| waited.as_millis());
        let waited_ms = u64::try_from(waited_ms).unwrap_or(u64::MAX);
        deadline_ms.map(|deadline_ms| deadline_ms.saturating_sub(waited_ms))
    }

    /// The next attempt.
    pub(crate) fn resume(&mut self, params: &JobParams, now: Duration) -> Generate {
        self.attempt += 1;
        let mut sampling = params.sampling.clone();
        sampling.choice = self.start.choice;
        if self.has_prompt_report {
            sampling.num_prompt_logprobs = None;
        }
        let mut stop = params.stop.clone();
        stop.max_tokens = self.start.max_tokens;
        Generate {
            request_id: self.start.request_id,
            attempt: self.attempt,
            ids: [&self.start.prompt, &*self.delivered].concat(),
            num_delivered: self.delivered.len() as u32,
            sampling,
            stop,
            priority: params.priority,
            deadline_ms: self.remaining_ms(params.deadline_ms, now),
            block_hash_keys: params.block_hash_keys.clone(),
            prefill_only: self.start.max_tokens == 0,
        }
    }
}
