//! The one request the core knows: continue these ids.
//!
//! Invariant: a `Generate` is complete. Whoever holds one can give it to any engine of the same
//! model hash and get the same continuation; no state of an earlier attempt is needed.

use serde::{Deserialize, Serialize};

use crate::{SamplingParams, StopParams, TokenId};

/// Names a sequence between a front and an engine. Unique in the life of the front's process.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct RequestId(pub u64);

impl RequestId {
    /// The engine's own canary: one token that goes ahead of all that waits, is counted nowhere and
    /// takes no place in the queue. A front counts its names from 0 and never comes to it.
    pub const CANARY: Self = Self(u64::MAX);

    /// The first name of shadows, which end before [`Self::CANARY`]: sequences that only read what
    /// another engine works on. They go behind all that waits, are preempted first, are counted
    /// nowhere and take no place in the queue. A front's other names never come to it.
    pub const FIRST_SHADOW: Self = Self(1 << 63);

    /// Whether it names a shadow.
    pub fn is_shadow(self) -> bool {
        (Self::FIRST_SHADOW..Self::CANARY).contains(&self)
    }

    /// Whether no client asked for it, so that it is counted nowhere: a shadow, or the canary.
    pub fn is_internal(self) -> bool {
        self >= Self::FIRST_SHADOW
    }
}

/// Continue `ids` until a stop condition holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generate {
    /// The sequence's name; one for each of a request's `n` choices.
    pub request_id: RequestId,
    /// Number of this try, from 0. Events carry it back; a front drops those of older attempts.
    pub attempt: u32,
    /// Prompt ids followed by `num_delivered` output ids of earlier attempts. Never empty.
    pub ids: Vec<TokenId>,
    /// How many of the last `ids` count as output: for penalties, limits, and the generator's
    /// counter.
    pub num_delivered: u32,
    /// How tokens are drawn.
    pub sampling: SamplingParams,
    /// When the sequence ends.
    pub stop: StopParams,
    /// Lower runs first and is preempted last; vLLM's convention.
    pub priority: i32,
    /// The sequence is ended with [`crate::FinishReason::Deadline`] when this much time has passed
    /// since the engine took it in.
    pub deadline_ms: Option<u64>,
    /// Extra keys of the sequence's block hashes, such as a cache salt and an adapter: sequences
    /// share cached blocks only when these are equal.
    pub block_hash_keys: Vec<u64>,
    /// Fill the prefix cache and end with [`crate::FinishReason::Length`] without drawing a token.
    pub prefill_only: bool,
}

impl Generate {
    /// Number of ids that are prompt: all but the delivered ones.
    pub fn num_prompt_tokens(&self) -> usize {
        self.ids.len().saturating_sub(self.num_delivered as usize)
    }
}
