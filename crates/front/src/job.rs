//! What the http crate asks for and what it gets back, choice by choice.
//!
//! A job is a validated request without JSON: token ids, parameters, stop strings. A delta is one
//! token's worth of answer. Chunking an answer for the wire is therefore a function of the tokens
//! alone, never of when they arrived, and a resumed stream cannot differ from an uncut one.
//!
//! Invariant: for every choice of an accepted job, exactly one delta has `finish`, and it is the
//! choice's last; otherwise the stream's last item is an error.

use std::sync::Arc;

use hotspare_batch::{SamplingParams, StopParams, TokenId, TokenLogprobs};
use hotspare_protocol::{FinishReason, StopReason};

use crate::Model;

/// Generate `n` choices for each of `prompts`.
#[derive(Clone, Debug)]
pub struct GenerationJob {
    /// Token ids; at least one prompt, none of them empty.
    pub prompts: Vec<Vec<TokenId>>,
    /// Choices for each prompt; at least 1.
    pub n: u32,
    /// How tokens are drawn. `seed` and `choice` are overwritten by the front.
    pub sampling: SamplingParams,
    /// The request's seed. `None`: the front draws one, once.
    pub seed: Option<u64>,
    /// When a choice ends. `max_tokens` is clamped to what is left of the context, prompt by
    /// prompt.
    pub stop: StopParams,
    /// Texts that end a choice.
    pub stop_strings: Vec<String>,
    /// Leave the stop string at the end of the text.
    pub include_stop_str_in_output: bool,
    /// Leave special tokens out of the text.
    pub skip_special_tokens: bool,
    /// Lower runs first.
    pub priority: i32,
    /// End with `abort` this long after the engine took the choice in.
    pub deadline_ms: Option<u64>,
    /// Requests share cached prefixes only when their salts are equal.
    pub cache_salt: Option<String>,
    /// Whether deltas carry text. False where the server has no tokenizer.
    pub detokenize: bool,
    /// The model that the prompts were made for. `None`: the one that is served when the job comes.
    pub model: Option<Arc<Model>>,
}

/// One token of one choice, or what was held back before its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChoiceDelta {
    /// `prompt_index * n + i`.
    pub index: u32,
    /// Text that is certain now; may be empty while bytes of a character or the beginning of a stop
    /// string are held back.
    pub text: String,
    /// At most one: the token drawn. Includes the end-of-sequence or stop token that ended the
    /// choice.
    pub token_ids: Vec<TokenId>,
    /// One for each of `token_ids`, where asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// One for each prompt token but the first, where asked for; in the choice's first delta.
    pub prompt_logprobs: Vec<TokenLogprobs>,
    /// Prompt tokens found in the prefix cache; in the choice's first delta.
    pub num_cached_tokens: Option<u32>,
    /// Set in the choice's last delta.
    pub finish: Option<ChoiceFinish>,
}

/// How a choice ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoiceFinish {
    /// `stop`, `length` or `abort`. A failed choice is an error of the stream instead.
    pub reason: FinishReason,
    /// The stop string or stop token id of the request that was met; `None` for the model's own
    /// end-of-sequence ids.
    pub stop_reason: Option<StopReason>,
}

/// Why a job was not taken, or why its stream ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// The bounded queue is full: 503, retry.
    #[error("{max_num_waiting} requests are waiting already")]
    QueueFull {
        /// The bound.
        max_num_waiting: u32,
        /// When to try again, seconds.
        retry_after_s: u32,
    },
    /// No engine can take it now: 503, retry.
    #[error("not ready: {reason}")]
    NotReady {
        /// Why, for the client: no path and no address in it.
        reason: String,
        /// When to try again, seconds.
        retry_after_s: u32,
    },
    /// It can never run on this server: 400.
    #[error("{0}")]
    Impossible(String),
    /// The engine died and the request could not be continued, or the choice failed inside the
    /// engine: 500, or an error event in a running stream.
    #[error("{0}")]
    EngineFailed(String),
    /// It ended engines that worked on nothing else, and is refused for a while: 422, so that
    /// clients do not try again.
    #[error("{0}")]
    Convicted(String),
}
