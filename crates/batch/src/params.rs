//! What a request says about drawing tokens and about ending.
//!
//! Invariant: values were validated by the front (ranges, vocabulary bounds); the core trusts them.

use serde::{Deserialize, Serialize};

use crate::TokenId;

/// How a token is drawn from logits. The order of application is vLLM's: allowed ids, minimum
/// length mask, logit bias, penalties, temperature, min-p, top-k, top-p, draw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplingParams {
    /// 0 means greedy (arg max, lowest id wins a tie).
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of tokens whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one; 0 drops none.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen in prompt or output; 1 is
    /// off.
    pub repetition_penalty: f32,
    /// Subtracted once for each time a token occurs in the output.
    pub frequency_penalty: f32,
    /// Subtracted if a token occurs in the output.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// When not empty, only these tokens can be drawn.
    pub allowed_token_ids: Vec<TokenId>,
    /// Key of the counter-based random number generator.
    pub seed: u64,
    /// Which of a request's `n` choices this is; part of the generator's counter.
    pub choice: u32,
    /// Report the log-probability of each drawn token and of this many most likely ones.
    pub num_logprobs: Option<u32>,
    /// Report the same for every prompt token but the first.
    pub num_prompt_logprobs: Option<u32>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            allowed_token_ids: Vec::new(),
            seed: 0,
            choice: 0,
            num_logprobs: None,
            num_prompt_logprobs: None,
        }
    }
}

impl SamplingParams {
    /// Greedy decoding: temperature 0.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            ..Self::default()
        }
    }
}

/// When a sequence ends. Stop strings are not here: they are text, the front's business.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StopParams {
    /// Output tokens at most, delivered ones of earlier attempts included.
    pub max_tokens: u32,
    /// Neither an end-of-sequence id nor a stop id can be drawn before this many output tokens.
    pub min_tokens: u32,
    /// The model's end-of-sequence ids.
    pub eos_token_ids: Vec<TokenId>,
    /// Further ids that end the sequence, named by the request.
    pub stop_token_ids: Vec<TokenId>,
    /// End-of-sequence ids are ordinary tokens. `stop_token_ids` still stop.
    pub ignore_eos: bool,
}

impl Default for StopParams {
    fn default() -> Self {
        Self {
            max_tokens: 16,
            min_tokens: 0,
            eos_token_ids: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
        }
    }
}

impl StopParams {
    /// Whether `token` would end a sequence that has reached `min_tokens`.
    pub fn is_stop(&self, token: TokenId) -> bool {
        (!self.ignore_eos && self.eos_token_ids.contains(&token))
            || self.stop_token_ids.contains(&token)
    }
}
