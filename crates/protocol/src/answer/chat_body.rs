//! The body of a chat completion that is not streamed.
//!
//! Invariant: keys and nulls are vLLM's; `tool_calls` is absent because none are parsed.

use serde::Serialize;

use super::{AnswerHead, ChatLogprobs, PromptLogprobs, Usage, to_json};
use crate::{FinishReason, StopReason};

/// One choice.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatChoice {
    /// The whole text.
    pub content: String,
    /// Where asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// What ended it, where the request named it.
    pub stop_reason: Option<StopReason>,
    /// Where asked for.
    pub token_ids: Option<Vec<u32>>,
}

/// A chat completion.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatAnswer<'a> {
    /// Id, time, model.
    pub head: &'a AnswerHead,
    /// Role of the choices.
    pub role: &'a str,
    /// In the order of their index.
    pub choices: Vec<ChatChoice>,
    /// Token counts.
    pub usage: Usage,
    /// Where asked for.
    pub prompt_logprobs: Option<PromptLogprobs>,
    /// Where asked for.
    pub prompt_token_ids: Option<&'a [u32]>,
    /// Where asked for.
    pub prompt_text: Option<&'a str>,
}

#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    service_tier: (),
    system_fingerprint: Option<&'a str>,
    usage: Usage,
    prompt_logprobs: Option<&'a PromptLogprobs>,
    prompt_token_ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_text: Option<&'a str>,
    kv_transfer_params: (),
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<&'a ChatLogprobs>,
    finish_reason: FinishReason,
    stop_reason: Option<&'a StopReason>,
    token_ids: Option<&'a [u32]>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    content: &'a str,
    refusal: (),
    annotations: (),
    audio: (),
    function_call: (),
    reasoning: (),
}

impl ChatAnswer<'_> {
    /// The JSON body.
    pub fn to_json(&self) -> Vec<u8> {
        let choices = self
            .choices
            .iter()
            .enumerate()
            .map(|(index, choice)| Choice {
                index,
                message: Message {
                    role: self.role,
                    content: &choice.content,
                    refusal: (),
                    annotations: (),
                    audio: (),
                    function_call: (),
                    reasoning: (),
                },
                logprobs: choice.logprobs.as_ref(),
                finish_reason: choice.finish_reason,
                stop_reason: choice.stop_reason.as_ref(),
                token_ids: choice.token_ids.as_deref(),
            });
        to_json(&Body {
            id: &self.head.id,
            object: "chat.completion",
            created: self.head.created,
            model: &self.head.model,
            choices: choices.collect(),
            service_tier: (),
            system_fingerprint: self.head.system_fingerprint.as_deref(),
            usage: self.usage,
            prompt_logprobs: self.prompt_logprobs.as_ref(),
            prompt_token_ids: self.prompt_token_ids,
            prompt_text: self.prompt_text,
            kv_transfer_params: (),
        })
    }
}
