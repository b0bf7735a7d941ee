//! What happens to a sequence, as the scheduler reports it and the front hears it.
//!
//! Invariant: a sequence that was admitted gets exactly one event with a finish reason, its last.

use serde::{Deserialize, Serialize};

use crate::{DrawnTokens, RequestId, RowError, TokenId, TokenLogprobs};

/// Why a sequence ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishReason {
    /// An end-of-sequence id was drawn.
    Eos(TokenId),
    /// One of the request's `stop_token_ids` was drawn.
    StopToken(TokenId),
    /// `max_tokens` or the model's context length was reached, or a `prefill_only` sequence is
    /// done.
    Length,
    /// The front cancelled it.
    Cancelled,
    /// Its deadline passed.
    Deadline,
    /// It failed; no other sequence did.
    Failed(RowError),
}

/// Why a sequence was not taken in. Nothing of it is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RejectReason {
    /// `max_num_waiting` sequences wait already.
    #[error("{max_num_waiting} requests are waiting already")]
    QueueFull {
        /// The bound.
        max_num_waiting: u32,
    },
    /// The sequence can never run: it needs more KV blocks than there are, or is longer than the
    /// model's context, or is empty.
    #[error("the request cannot run here: {0}")]
    Impossible(String),
    /// The engine is draining and takes nothing new.
    #[error("the engine is draining")]
    Draining,
}

/// What a sequence's first event says of its prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PromptReport {
    /// Prompt tokens found in the prefix cache.
    pub num_cached_tokens: u32,
    /// Milliseconds from being taken in to the first step it was part of, if it was part of one.
    pub queued_ms: Option<u64>,
    /// One for each prompt token but the first, where asked for.
    pub prompt_logprobs: Vec<TokenLogprobs>,
}

/// New tokens of a sequence, its end, or both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SequenceEvent {
    /// The sequence.
    pub request_id: RequestId,
    /// The attempt it belongs to.
    pub attempt: u32,
    /// Index in the output of the first of `token_ids`: delivered ones of earlier attempts count.
    pub first_index: u32,
    /// Tokens drawn, end-of-sequence and stop ids included.
    pub token_ids: DrawnTokens,
    /// One for each of `token_ids`, where asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Set in the first event. Apart, so that the many events after it are small.
    pub prompt: Option<Box<PromptReport>>,
    /// Set in the last event.
    pub finish: Option<FinishReason>,
}
