//! The fields that ask for more output: ids, the prompt's text, a name for the request.
//!
//! Invariant: what is asked for here can be given; the rest is refused in `unsupported`.

use crate::fields::Fields;
use crate::limits::RequestLimits;
use crate::sampling::SamplingFields;
use crate::validation::{parameter_error, value_error};
use crate::{ApiError, StreamOptions};

/// Characters of a `request_id` at most.
pub const MAX_REQUEST_ID_CHARS: usize = 256;

/// What the answer shows beside text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputFields {
    /// The client's name for the request; the answer's id is made from it.
    pub request_id: Option<String>,
    /// Ids of prompt and output.
    pub return_token_ids: bool,
    /// In log-probabilities, `token_id:N` in place of the token's text.
    pub return_tokens_as_token_ids: bool,
    /// The rendered prompt.
    pub return_prompt_text: bool,
}

impl OutputFields {
    /// Takes the fields.
    pub(crate) fn take(fields: &mut Fields<'_>) -> Self {
        Self {
            request_id: fields.string("request_id"),
            return_token_ids: fields.boolean("return_token_ids").unwrap_or(false),
            return_tokens_as_token_ids: fields
                .boolean("return_tokens_as_token_ids")
                .unwrap_or(false),
            return_prompt_text: fields.boolean("return_prompt_text").unwrap_or(false),
        }
    }

    /// Checks them against the others.
    ///
    /// # Errors
    /// 400 for an id that is too long, for prompt log-probabilities or the prompt's text in a
    /// stream, and for a request without token ids to a server without a tokenizer.
    pub(crate) fn check(
        &self,
        sampling: &SamplingFields,
        stream: StreamOptions,
        limits: &RequestLimits,
    ) -> Result<(), ApiError> {
        if let Some(id) = &self.request_id
            && (id.is_empty() || id.chars().count() > MAX_REQUEST_ID_CHARS)
        {
            let message =
                format!("request_id must have from 1 to {MAX_REQUEST_ID_CHARS} characters.");
            return Err(value_error("request_id", message));
        }
        let streams_prompt_logprobs = sampling
            .prompt_logprobs
            .is_some_and(|num| num > 0 || num == -1);
        if stream.stream && streams_prompt_logprobs {
            let message = "`prompt_logprobs` are not available when `stream=True`.";
            return Err(parameter_error("prompt_logprobs", message, None));
        }
        if stream.stream && self.return_prompt_text {
            let message = "`return_prompt_text` is not available when `stream=True`.";
            return Err(parameter_error("return_prompt_text", message, None));
        }
        if !limits.has_tokenizer && !self.return_token_ids {
            let message = "This server runs without a tokenizer (--skip-tokenizer-init): set \
                           return_token_ids to true.";
            return Err(value_error("return_token_ids", message.into()));
        }
        Ok(())
    }
}
