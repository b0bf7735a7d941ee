//! What the server allows a request to ask for.
//!
//! Invariant: every bound on a request is a field here, with a default; nothing is bounded by
//! accident.

use crate::ApiError;
use crate::pyrepr::clip;

/// Bounds on requests, fixed for the life of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestLimits {
    /// Tokens of prompt and output together.
    pub max_model_len: u32,
    /// Token ids are below this.
    pub vocab_size: u32,
    /// `logprobs` and `top_logprobs` at most; -1 is the size of the vocabulary.
    pub max_logprobs: i64,
    /// `n` at most.
    pub max_n: u32,
    /// Prompts of one `/v1/completions` request at most.
    pub max_num_prompts: usize,
    /// Sequences of one request, prompts times `n`, at most.
    pub max_num_choices: usize,
    /// Strings in `stop` at most.
    pub max_num_stop_strings: usize,
    /// Ids in `stop_token_ids` and entries of `logit_bias` at most.
    pub max_num_token_params: usize,
    /// Whether a request may bring its own chat template.
    pub trust_request_chat_template: bool,
    /// Whether the server has a tokenizer. Without one, requests that need text are refused.
    pub has_tokenizer: bool,
}

impl RequestLimits {
    /// vLLM's defaults for a model of this size.
    pub fn new(max_model_len: u32, vocab_size: u32) -> Self {
        Self {
            max_model_len,
            vocab_size,
            max_logprobs: 20,
            max_n: 16_384,
            max_num_prompts: 1_024,
            max_num_choices: 1_024,
            max_num_stop_strings: 4,
            max_num_token_params: 4_096,
            trust_request_chat_template: false,
            has_tokenizer: true,
        }
    }

    /// `max_logprobs` as a number of tokens.
    pub fn num_logprobs_allowed(&self) -> u32 {
        u32::try_from(self.max_logprobs).map_or(self.vocab_size, |max| max.min(self.vocab_size))
    }

    /// Checks the number of sequences of a request.
    ///
    /// # Errors
    /// 400 above `max_num_prompts` or `max_num_choices`.
    pub fn check_num_choices(&self, num_prompts: usize, n: u32) -> Result<(), ApiError> {
        if num_prompts > self.max_num_prompts {
            let message = format!(
                "prompt must hold at most {} prompts, got {num_prompts}.",
                self.max_num_prompts
            );
            return Err(ApiError::bad_request(message).with_param("prompt"));
        }
        let num_choices = num_prompts.saturating_mul(n as usize);
        if num_choices > self.max_num_choices {
            let message = format!(
                "n times the number of prompts must be at most {}, got {num_choices}.",
                self.max_num_choices
            );
            return Err(ApiError::bad_request(message).with_param("n"));
        }
        Ok(())
    }

    /// Checks token ids that a client sent.
    ///
    /// # Errors
    /// 400 where one is not in the vocabulary.
    pub fn check_token_ids(&self, ids: &[i64], param: &str) -> Result<Vec<u32>, ApiError> {
        ids.iter()
            .map(|&id| match u32::try_from(id) {
                Ok(id) if id < self.vocab_size => Ok(id),
                _ => {
                    let message = format!("Token id {id} is out of vocabulary");
                    Err(ApiError::bad_request(message).with_param(param))
                }
            })
            .collect()
    }

    /// Checks the length of a prompt in tokens.
    ///
    /// # Errors
    /// 400 where it is empty, or leaves no room for one token of output.
    pub fn check_prompt_len(&self, num_tokens: usize) -> Result<(), ApiError> {
        let max = self.max_model_len as usize;
        if num_tokens == 0 {
            let message = "The decoder prompt cannot be empty";
            return Err(ApiError::bad_request(message).with_param("prompt"));
        }
        if num_tokens > max {
            let message = format!(
                "This model's maximum context length is {max} tokens. However, your prompt \
                 contains {num_tokens} input tokens, which exceeds this limit even without any \
                 output tokens. Please reduce the length of the input prompt. \
                 (parameter=input_tokens, value={num_tokens})"
            );
            return Err(ApiError::bad_request(message).with_param("input_tokens"));
        }
        if num_tokens == max {
            let message = format!(
                "The decoder prompt (length {num_tokens}) plus the number of requested output \
                 tokens (at least 1) is longer than the maximum model length of {max}. Make sure \
                 that `max_model_len` is no smaller than the number of text tokens (prompt + \
                 requested output tokens)."
            );
            return Err(ApiError::bad_request(message).with_param("input_tokens"));
        }
        Ok(())
    }

    /// Checks the length of a prompt in characters, before it costs a tokenizer run.
    ///
    /// # Errors
    /// 400 where no tokenization of it into tokens of at most `max_chars_per_token` characters
    /// fits.
    pub fn check_prompt_chars(
        &self,
        num_chars: usize,
        max_chars_per_token: usize,
    ) -> Result<(), ApiError> {
        let max = self.max_model_len as usize;
        let upper = max.saturating_mul(max_chars_per_token.max(1));
        if num_chars <= upper {
            return Ok(());
        }
        let message = format!(
            "This model's maximum context length is {max} tokens. However, your prompt contains \
             {num_chars} characters (more than {upper} characters, which is the upper bound for \
             {max} input tokens). Please reduce the length of the input prompt. \
             (parameter=input_text, value={num_chars})"
        );
        Err(ApiError::bad_request(message).with_param("input_text"))
    }
}

/// Checks a request's `model` against the names that are served.
///
/// # Errors
/// 404 for a name that is not served. None and the empty string mean the served model.
pub fn check_model(model: Option<&str>, names: &[String]) -> Result<(), ApiError> {
    match model {
        Some(model) if !model.is_empty() && !names.iter().any(|name| name == model) => {
            Err(ApiError::model_not_found(&clip(model, 200), names))
        }
        _ => Ok(()),
    }
}
