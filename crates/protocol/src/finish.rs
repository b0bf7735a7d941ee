//! Why a choice ended, as the API names it.
//!
//! The engine's own reasons are finer (`hotspare_batch::FinishReason`); the front maps them to
//! these.
//!
//! Invariant: every choice of an answer ends with exactly one of them, or with an error.

use serde::Serialize;

/// The `finish_reason` of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// An end-of-sequence id, a stop token id or a stop string.
    Stop,
    /// `max_tokens` or the model's context length.
    Length,
    /// Ended by the server: the sequence was cancelled or its deadline passed.
    Abort,
    /// The sequence failed. Not streamed as vLLM's API has no such reason: the http crate turns it
    /// into an error body or an error event.
    Error,
}

impl FinishReason {
    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
            Self::Error => "error",
        }
    }
}

/// What ended a choice with [`FinishReason::Stop`], where the request named it; an end-of-sequence
/// id of the model is `None` in the places that hold an `Option` of this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum StopReason {
    /// One of the request's stop strings.
    Text(String),
    /// One of the request's stop token ids.
    Token(u32),
}
