//! The OpenAI API as vLLM speaks it: requests, value checks, error bodies, answers, streamed
//! chunks.
//!
//! Bytes in, typed requests with values in range or an [`ApiError`] out; typed answers in, bytes
//! out. The crate is pure: time, ids and limits are arguments.
//!
//! Invariant: a request that parses never holds a value the engine would have to refuse, and no
//! input panics. Nothing that would change the answer is ignored: what is not there yet is a 501.
#![forbid(unsafe_code)]

mod answer;
mod chat;
mod completion;
mod defaults;
mod engine_params;
mod error;
mod fields;
mod finish;
mod json;
mod limits;
mod message;
mod output_fields;
mod pyrepr;
mod sampling;
mod stream_options;
mod template_fields;
mod tokenize;
mod tools;
mod unsupported;
mod validation;

pub use answer::{
    AnswerHead, ChatAnswer, ChatChoice, ChatChunks, ChatDelta, ChatLogprobs, CompletionAnswer,
    CompletionChoice, CompletionChunks, CompletionDelta, CompletionLogprobs, DONE_EVENT,
    DetokenizePieces, KEEP_ALIVE_EVENT, LogprobFormat, ModelCard, PromptLogprob, PromptLogprobs,
    PromptTokensDetails, REPLAY_COMMENT, TokenTexts, TokenizeAnswer, TokenizePieces, Usage,
    model_json, models_json, write_error_event,
};
pub use chat::ChatRequest;
pub use completion::{CompletionRequest, Prompt};
pub use defaults::GenerationDefaults;
pub use error::ApiError;
pub use finish::{FinishReason, StopReason};
pub use limits::{RequestLimits, check_model};
pub use message::{ChatMessage, MessageContent};
pub use output_fields::{MAX_REQUEST_ID_CHARS, OutputFields};
pub use sampling::{SamplingFields, TruncationSide};
pub use stream_options::StreamOptions;
pub use template_fields::TemplateFields;
pub use tokenize::{DetokenizeRequest, TokenizeInput, TokenizeRequest};
