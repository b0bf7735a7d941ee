//! Token counts of an answer.
//!
//! Invariant: the total is the sum; a prompt counts once however many choices it has.

use serde::Serialize;

/// `usage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
    completion_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens_details: Option<PromptTokensDetails>,
}

/// Shown where the server enables it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PromptTokensDetails {
    /// Prompt tokens found in the prefix cache.
    pub cached_tokens: u64,
}

impl Usage {
    /// Counts of an answer.
    pub fn new(prompt_tokens: u64, completion_tokens: u64) -> Self {
        Self {
            prompt_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            completion_tokens,
            prompt_tokens_details: None,
        }
    }

    /// Adds the number of prompt tokens found in the prefix cache.
    #[must_use]
    pub fn with_cached_tokens(mut self, cached_tokens: u64) -> Self {
        self.prompt_tokens_details = Some(PromptTokensDetails { cached_tokens });
        self
    }

    /// Tokens drawn.
    pub fn completion_tokens(&self) -> u64 {
        self.completion_tokens
    }

    /// Tokens of the prompts.
    pub fn prompt_tokens(&self) -> u64 {
        self.prompt_tokens
    }
}
