//! What a request gets where it says nothing: the model's generation config under the server's
//! overrides.
//!
//! Invariant: every value is in the range that a request's own value would have to be in; whoever
//! builds one from files runs [`GenerationDefaults::check`].

use hotspare_batch::TokenId;

/// Defaults of sampling and stopping, resolved once at start: server override, then the model's
/// `generation_config.json`, then the neutral value.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationDefaults {
    /// Neutral: 1.
    pub temperature: f32,
    /// Neutral: 1.
    pub top_p: f32,
    /// Neutral: 0, which keeps all.
    pub top_k: u32,
    /// Neutral: 0.
    pub min_p: f32,
    /// Neutral: 1.
    pub repetition_penalty: f32,
    /// The config's `max_new_tokens`: used where a chat request names no limit. Completions have
    /// vLLM's default of 16 instead.
    pub max_tokens: Option<u32>,
    /// A server-wide limit that no request exceeds (an override of `max_new_tokens`).
    pub max_tokens_limit: Option<u32>,
    /// All of the model's end-of-sequence ids.
    pub eos_token_ids: Vec<TokenId>,
}

impl Default for GenerationDefaults {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_tokens: None,
            max_tokens_limit: None,
            eos_token_ids: Vec::new(),
        }
    }
}

impl GenerationDefaults {
    /// Checks the invariant; the message names the field. For start-up: a server must not run with
    /// defaults that make each request fail.
    ///
    /// # Errors
    /// A sentence naming the first value that is out of range.
    pub fn check(&self) -> Result<(), String> {
        let in_range = [
            (
                "temperature",
                (0.0..=2.0).contains(&self.temperature),
                self.temperature,
            ),
            ("top_p", self.top_p > 0.0 && self.top_p <= 1.0, self.top_p),
            ("min_p", (0.0..=1.0).contains(&self.min_p), self.min_p),
            (
                "repetition_penalty",
                self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite(),
                self.repetition_penalty,
            ),
        ];
        match in_range.iter().find(|(_, ok, _)| !ok) {
            Some((name, _, value)) => {
                Err(format!("generation default {name}={value} is out of range"))
            }
            None if self.max_tokens == Some(0) || self.max_tokens_limit == Some(0) => {
                Err("generation default max_new_tokens must be at least 1".into())
            }
            None => Ok(()),
        }
    }
}
