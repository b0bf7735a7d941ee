//! Answers: whole bodies, and the chunks of a stream.
//!
//! Invariant: what is written is a function of ids, texts and numbers given here; nothing is read
//! from a clock, so that an answer resumed elsewhere is the same bytes.

mod chat_body;
mod chat_stream;
mod chunk_head;
mod completion_body;
mod completion_stream;
mod event;
mod logprobs;
mod models;
mod tokenize_body;
mod usage;

pub use chat_body::{ChatAnswer, ChatChoice};
pub use chat_stream::{ChatChunks, ChatDelta};
pub use completion_body::{CompletionAnswer, CompletionChoice};
pub use completion_stream::{CompletionChunks, CompletionDelta};
pub use event::{DONE_EVENT, KEEP_ALIVE_EVENT, REPLAY_COMMENT, write_error_event};
pub use logprobs::{
    ChatLogprobs, CompletionLogprobs, LogprobFormat, PromptLogprob, PromptLogprobs, TokenTexts,
};
pub use models::{ModelCard, model_json, models_json};
pub use tokenize_body::{DetokenizePieces, TokenizeAnswer, TokenizePieces};
pub use usage::{PromptTokensDetails, Usage};

use serde::Serialize;

/// What all chunks and the body of one answer have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AnswerHead {
    /// `chatcmpl-…` or `cmpl-…`.
    pub id: String,
    /// When the request was taken in, Unix seconds.
    pub created: u64,
    /// The name of the model that answers.
    pub model: String,
    /// Names the server's build and model.
    pub system_fingerprint: Option<String>,
}

/// Serialises an answer's body. The types hold strings, integers and finite floats only.
fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings, integers and floats always serialise")
}
