//! What a step produced, row by row, and where its time went.
//!
//! Invariant: `StepOutput::rows` has one entry for each row of the batch, in the batch's order.

use serde::{Deserialize, Serialize};

use crate::{DrawnTokens, KvBlock, SlotId, StepId, TokenId};

/// Log-probability of a token and of its most likely alternatives, before temperature and filters
/// (vLLM's `raw_logprobs`): log-softmax of the model's logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprobs {
    /// The token drawn, or the prompt token.
    pub token: TokenId,
    /// Its log-probability (natural logarithm).
    pub logprob: f32,
    /// Its rank, 1 for the most likely.
    pub rank: u32,
    /// The most likely tokens, best first, as many as were asked for.
    pub top: Vec<(TokenId, f32)>,
}

/// Why one row failed. It ends that sequence and no other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RowError {
    /// The model's logits hold a NaN, or all of them are minus infinity after the masks.
    #[error("the model produced no usable logits at position {position}")]
    InvalidLogits {
        /// Position of the token whose logits they are.
        position: u32,
    },
    /// What there is to report of one step is longer than a frame of the link; prompt
    /// log-probabilities of a very long prompt are.
    #[error("the answer of one step takes {num_bytes} bytes or more, too many for one message")]
    EventTooLarge {
        /// A lower bound of its length.
        num_bytes: u64,
    },
    /// The request biases more tokens than the device has room for.
    #[error("logit_bias names {num_biases} tokens; this device has room for {max_num_biases}")]
    TooManyBiases {
        /// Tokens that the request names.
        num_biases: u32,
        /// Tokens that there is room for.
        max_num_biases: u32,
    },
    /// The device's driver has no memory left for the step, graphs given back.
    #[error("the device ran out of memory in a step")]
    OutOfMemory,
}

/// What one row produced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowOutput {
    /// The row's slot.
    pub slot: SlotId,
    /// Tokens drawn: none for a row that does not sample, one as a rule, several under speculation.
    pub token_ids: DrawnTokens,
    /// One for each of `token_ids`, where asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// One for each prompt token after the row's first position, where asked for.
    pub prompt_logprobs: Vec<TokenLogprobs>,
    /// The row's failure, if any.
    pub error: Option<RowError>,
}

impl RowOutput {
    /// Of a row that fails whole.
    pub fn refused(slot: SlotId, error: RowError) -> Self {
        Self {
            slot,
            error: Some(error),
            ..Self::default()
        }
    }
}

/// Where a step's time went, nanoseconds of wall time on the device's thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTimings {
    /// Matrix products.
    pub linear_ns: u64,
    /// Attention, K and V writes included.
    pub attention_ns: u64,
    /// Drawing tokens.
    pub sample_ns: u64,
    /// The whole step.
    pub total_ns: u64,
}

impl std::ops::AddAssign for StepTimings {
    fn add_assign(&mut self, other: Self) {
        self.linear_ns += other.linear_ns;
        self.attention_ns += other.attention_ns;
        self.sample_ns += other.sample_ns;
        self.total_ns += other.total_ns;
    }
}

/// What a step produced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepOutput {
    /// Number of the step, from [`crate::Batch::step`].
    pub step: StepId,
    /// One for each row of the batch.
    pub rows: Vec<RowOutput>,
    /// Where the time went.
    pub timings: StepTimings,
    /// One for each of [`crate::Batch::kv_saves`], in their order.
    pub kv_saved: Vec<KvBlock>,
}
