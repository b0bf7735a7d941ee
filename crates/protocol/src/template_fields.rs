//! The fields that decide how messages become a prompt; chat and `/tokenize` share them.
//!
//! Invariant: a template from a request is only kept where the server trusts those.

use serde_json::{Map, Value};

use crate::ApiError;
use crate::fields::Fields;
use crate::limits::RequestLimits;
use crate::message::{ChatMessage, take_messages};
use crate::validation::value_error;

/// Messages and the arguments of the chat template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemplateFields {
    /// At least one.
    pub messages: Vec<ChatMessage>,
    /// Rendered into the prompt where the template knows tools.
    pub tools: Option<Vec<Value>>,
    /// Rendered likewise.
    pub documents: Option<Vec<Value>>,
    /// A template in place of the model's.
    pub chat_template: Option<String>,
    /// Further variables of the template.
    pub chat_template_kwargs: Map<String, Value>,
    /// End the prompt with the opening of an assistant's message.
    pub add_generation_prompt: bool,
    /// Leave the last message open instead, so that the model continues it.
    pub continue_final_message: bool,
    /// Let the tokenizer add its special tokens to the rendered text.
    pub add_special_tokens: bool,
}

impl TemplateFields {
    /// Takes all but the tools, which the routes treat differently.
    ///
    /// # Errors
    /// 400 for messages and flags that do not fit, and for a template that is not trusted.
    pub(crate) fn take(
        fields: &mut Fields<'_>,
        tools: Option<Vec<Value>>,
        limits: &RequestLimits,
    ) -> Result<Self, ApiError> {
        let messages = take_messages(fields)?;
        let this = Self {
            messages,
            tools,
            documents: fields.array("documents"),
            chat_template: fields.string("chat_template"),
            chat_template_kwargs: fields.object("chat_template_kwargs").unwrap_or_default(),
            add_generation_prompt: fields.boolean("add_generation_prompt").unwrap_or(true),
            continue_final_message: fields.boolean("continue_final_message").unwrap_or(false),
            add_special_tokens: fields.boolean("add_special_tokens").unwrap_or(false),
        };
        this.check(limits)?;
        Ok(this)
    }

    fn check(&self, limits: &RequestLimits) -> Result<(), ApiError> {
        if self.continue_final_message && self.add_generation_prompt {
            let message = "Cannot set both `continue_final_message` and `add_generation_prompt` \
                           to True.";
            return Err(value_error("continue_final_message", message.into()));
        }
        let brings_template =
            self.chat_template.is_some() || self.chat_template_kwargs.contains_key("chat_template");
        if brings_template && !limits.trust_request_chat_template {
            let message = "Chat template is passed with request, but \
                           --trust-request-chat-template is not set. Refused request with \
                           untrusted chat template.";
            return Err(value_error("chat_template", message.into()));
        }
        Ok(())
    }

    /// Checks what a type error would have hidden; call when all fields are taken.
    ///
    /// # Errors
    /// 400 where there is no message.
    pub(crate) fn check_messages(&self) -> Result<(), ApiError> {
        if self.messages.is_empty() {
            let message = "messages must hold at least one message.".into();
            return Err(value_error("messages", message));
        }
        Ok(())
    }

    /// The request's template, from either of the places where it may be.
    pub fn template(&self) -> Option<&str> {
        self.chat_template.as_deref().or_else(|| {
            self.chat_template_kwargs
                .get("chat_template")
                .and_then(Value::as_str)
        })
    }

    /// The messages as a chat template reads them.
    pub fn template_messages(&self) -> Vec<Value> {
        self.messages
            .iter()
            .map(ChatMessage::to_template_value)
            .collect()
    }
}
