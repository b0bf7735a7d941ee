//! The record of one request: its parameters once, and its choices.
//!
//! Room left to other features: a grammar, or a parser of tools or reasoning, adds its definition
//! to [`JobParams`]; its state is never recorded, because pushing the delivered ids rebuilds it.
//!
//! Invariant: [`RequestRecord::resume`] gives a `Generate` that an engine continues exactly as it
//! would have continued the uncut sequence: prompt and delivered ids, and the same absolute limits.

use std::sync::Arc;
use std::time::Duration;

use hotspare_batch::{Generate, SamplingParams, StopParams, TokenId};

use crate::budget::{Exceeded, Share};
use crate::choice::{ChoiceRecord, ChoiceStart};

/// What all choices of a request have in common.
#[derive(Clone, Debug)]
pub struct JobParams {
    /// With the resolved seed; `choice` is each choice's own.
    pub sampling: SamplingParams,
    /// `max_tokens` is each choice's own.
    pub stop: StopParams,
    /// Lower runs first.
    pub priority: i32,
    /// Time from the first admission to the end, at most.
    pub deadline_ms: Option<u64>,
    /// Extra keys of the block hashes.
    pub block_hash_keys: Vec<u64>,
}

/// Where a request began: what an engine must be to continue it, and to continue it bit for bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Engines of another hash cannot continue it.
    pub model_hash: String,
    /// Engines of this id continue it bit for bit.
    pub numerics_id: String,
}

/// Why a request cannot be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotResumable {
    /// Its record grew beyond the bound for one request.
    #[error(
        "its record would take more than {max_request_bytes} bytes (journal-max-request-bytes)"
    )]
    RequestTooLarge {
        /// The bound.
        max_request_bytes: usize,
    },
    /// The records of all requests filled the journal.
    #[error("the records of all requests took {max_bytes} bytes (journal-max-bytes)")]
    JournalFull {
        /// The bound.
        max_bytes: usize,
    },
    /// The choice has ended.
    #[error("it has ended")]
    Finished,
}

impl From<Exceeded> for NotResumable {
    fn from(exceeded: Exceeded) -> Self {
        match exceeded {
            Exceeded::Request { max_request_bytes } => Self::RequestTooLarge { max_request_bytes },
            Exceeded::All { max_bytes } => Self::JournalFull { max_bytes },
        }
    }
}

/// See the module. Dropping it gives its memory back.
#[derive(Debug)]
pub struct RequestRecord {
    share: Share,
    params: JobParams,
    /// Empty where the request is not resumable.
    choices: Vec<ChoiceRecord>,
    origin: Option<Origin>,
    not_resumable: Option<NotResumable>,
}

impl RequestRecord {
    pub(crate) fn new(mut share: Share, params: JobParams, choices: Vec<ChoiceStart>) -> Self {
        let num_bytes = fixed_bytes(&params, &choices);
        let mut record = match share.grow(num_bytes) {
            Ok(()) => Self {
                choices: choices.into_iter().map(ChoiceRecord::new).collect(),
                share,
                params,
                origin: None,
                not_resumable: None,
            },
            Err(exceeded) => Self {
                choices: Vec::new(),
                share,
                params,
                origin: None,
                not_resumable: Some(exceeded.into()),
            },
        };
        record.choices.shrink_to_fit();
        record
    }

    /// Bytes that it holds.
    pub fn num_bytes(&self) -> usize {
        self.share.num_bytes()
    }

    /// Why it cannot be resumed, if so.
    pub fn not_resumable(&self) -> Option<NotResumable> {
        self.not_resumable
    }

    /// Where it began, once it has.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// It was given to an engine; the first one counts.
    pub fn begin_on(&mut self, model_hash: &str, numerics_id: &str) {
        self.origin.get_or_insert_with(|| Origin {
            model_hash: model_hash.to_owned(),
            numerics_id: numerics_id.to_owned(),
        });
    }

    /// What its choices have in common.
    pub fn params(&self) -> &JobParams {
        &self.params
    }

    /// Prompt ids of choice `index`; empty where they were let go.
    pub fn prompt(&self, index: usize) -> &[TokenId] {
        let choice = self.choices.get(index);
        choice.map_or(&[], |choice| &choice.start().prompt)
    }

    /// The same, shared; `None` where they were let go.
    pub fn shared_prompt(&self, index: usize) -> Option<Arc<[TokenId]>> {
        let choice = self.choices.get(index)?;
        Some(Arc::clone(&choice.start().prompt))
    }

    /// Ids that choice `index` has been given, while it runs.
    pub fn delivered(&self, index: usize) -> &[TokenId] {
        self.choices
            .get(index)
            .map_or(&[], |choice| choice.delivered())
    }

    /// Attempts of choice `index` that failed since its last token.
    pub fn num_attempts_since_token(&self, index: usize) -> u32 {
        let choice = self.choices.get(index);
        choice.map_or(0, ChoiceRecord::num_attempts_since_token)
    }

    /// An engine took choice `index` in at `now`, counted from any fixed moment.
    pub fn on_admitted(&mut self, index: usize, now: Duration) {
        if let Some(choice) = self.choices.get_mut(index) {
            choice.on_admitted(now);
        }
    }

    /// An engine reported on the prompt of choice `index`. True the first time: later reports, of
    /// later attempts, are not the client's.
    pub fn on_prompt_report(&mut self, index: usize) -> bool {
        let choice = self.choices.get_mut(index);
        choice.is_none_or(ChoiceRecord::on_prompt_report)
    }

    /// The attempt of choice `index` failed, and told nothing about the request itself.
    pub fn count_failed_attempt(&mut self, index: usize) {
        if let Some(choice) = self.choices.get_mut(index) {
            choice.count_failed_attempt();
        }
    }

    /// Choice `index` was given these tokens. Where that is too much for the journal, the record is
    /// let go, and what is returned is each choice's prompt; else nothing is.
    pub fn deliver(&mut self, index: usize, token_ids: &[TokenId]) -> Vec<Arc<[TokenId]>> {
        let Some(choice) = self.choices.get_mut(index) else {
            return Vec::new();
        };
        if choice.has_finished() {
            return Vec::new();
        }
        if let Some(capacity) = choice.wanted_capacity(token_ids.len()) {
            // While it grows both copies are there for a moment; only the new one is counted.
            let num_bytes = capacity * size_of::<TokenId>() - choice.num_bytes();
            if let Err(exceeded) = self.share.grow(num_bytes) {
                return self.give_up(exceeded.into());
            }
            choice.reserve(capacity);
        }
        choice.push(token_ids);
        Vec::new()
    }

    /// Choice `index` has ended.
    pub fn finish(&mut self, index: usize) {
        if let Some(choice) = self.choices.get_mut(index) {
            self.share.shrink(choice.num_bytes());
            choice.finish();
        }
    }

    /// What is left of choice `index`'s deadline at `now`, milliseconds.
    pub fn remaining_ms(&self, index: usize, now: Duration) -> Option<u64> {
        let choice = self.choices.get(index)?;
        choice.remaining_ms(self.params.deadline_ms, now)
    }

    /// The next attempt of choice `index`.
    ///
    /// # Errors
    /// It cannot be resumed: it has ended, or its record was let go.
    pub fn resume(&mut self, index: usize, now: Duration) -> Result<Generate, NotResumable> {
        if let Some(reason) = self.not_resumable {
            return Err(reason);
        }
        match self.choices.get_mut(index) {
            Some(choice) if !choice.has_finished() => Ok(choice.resume(&self.params, now)),
            _ => Err(NotResumable::Finished),
        }
    }

    /// The policy at a bound: the request runs on, and what it held is given back.
    fn give_up(&mut self, reason: NotResumable) -> Vec<Arc<[TokenId]>> {
        self.not_resumable = Some(reason);
        let choices = std::mem::take(&mut self.choices);
        self.share.shrink(self.share.num_bytes());
        let prompts = choices.iter().map(|choice| &choice.start().prompt);
        prompts.cloned().collect()
    }
}

/// Bytes of everything but delivered ids.
fn fixed_bytes(params: &JobParams, choices: &[ChoiceStart]) -> usize {
    let JobParams { sampling, stop, .. } = params;
    let lists = size_of_val(&*sampling.logit_bias)
        + size_of_val(&*sampling.allowed_token_ids)
        + size_of_val(&*stop.eos_token_ids)
        + size_of_val(&*stop.stop_token_ids)
        + size_of_val(&*params.block_hash_keys);
    // Choices of a prompt stand side by side.
    let prompts = choices.chunk_by(|a, b| Arc::ptr_eq(&a.prompt, &b.prompt));
    let prompts: usize = prompts
        .map(|choices| size_of_val(&*choices[0].prompt))
        .sum();
    size_of::<RequestRecord>() + lists + prompts + choices.len() * size_of::<ChoiceRecord>()
}
