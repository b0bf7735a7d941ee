//! The body of a text completion that is not streamed.
//!
//! Invariant: choice `i` belongs to prompt `i / n`.

use serde::Serialize;

use super::{AnswerHead, CompletionLogprobs, PromptLogprobs, Usage, to_json};
use crate::{FinishReason, StopReason};

/// One choice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CompletionChoice {
    /// `prompt_index * n + i`.
    pub index: usize,
    /// The whole text, the prompt before it where echoed.
    pub text: String,
    /// Where asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What ended it, where the request named it.
    pub stop_reason: Option<StopReason>,
    /// Where asked for.
    pub token_ids: Option<Vec<u32>>,
    /// Where asked for.
    pub prompt_logprobs: Option<PromptLogprobs>,
    /// Where asked for.
    pub prompt_token_ids: Option<Vec<u32>>,
    /// Where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_text: Option<String>,
}

/// A text completion.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionAnswer<'a> {
    /// Id, time, model.
    pub head: &'a AnswerHead,
    /// In the order of their index.
    pub choices: Vec<CompletionChoice>,
    /// Token counts.
    pub usage: Usage,
}

#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [CompletionChoice],
    service_tier: (),
    system_fingerprint: Option<&'a str>,
    usage: Usage,
    kv_transfer_params: (),
}

impl CompletionAnswer<'_> {
    /// The JSON body.
    pub fn to_json(&self) -> Vec<u8> {
        to_json(&Body {
            id: &self.head.id,
            object: "text_completion",
            created: self.head.created,
            model: &self.head.model,
            choices: &self.choices,
            service_tier: (),
            system_fingerprint: self.head.system_fingerprint.as_deref(),
            usage: self.usage,
            kv_transfer_params: (),
        })
    }
}
