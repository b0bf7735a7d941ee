//! The messages between a front and an engine, or a peer's front that plays an engine's part.
//!
//! The engine speaks first: `Loading` while it loads, then `Hello` when it can serve, or `Fatal`
//! and the end. The front answers `Hello` with its own; from then on both send what they like.
//!
//! Invariant: token ids only. Changing a variant or field means a new [`PROTOCOL_VERSION`].

use std::fmt;
use std::ops::RangeInclusive;

use hotspare_batch::{BucketCounts, Generate, RejectReason, RequestId, SequenceEvent, StepTimings};
use serde::{Deserialize, Serialize};

use crate::LinkError;

/// The version this build writes; also the newest it reads. 5 has what a front tells its own engine
/// of a lost one's blocks; between fronts it is as 4.
pub const PROTOCOL_VERSION: u16 = 5;

/// Versions a side can speak; the connection uses the highest common one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolRange {
    /// Oldest version.
    pub min: u16,
    /// Newest version.
    pub max: u16,
}

impl ProtocolRange {
    /// What this build speaks.
    pub const OURS: Self = Self {
        min: 4,
        max: PROTOCOL_VERSION,
    };

    /// The version both sides use, if there is one.
    pub fn negotiate(self, other: Self) -> Option<u16> {
        let version = self.max.min(other.max);
        let common: RangeInclusive<u16> = self.min.max(other.min)..=version;
        common.contains(&version).then_some(version)
    }

    /// As [`Self::negotiate`], with an error that says what each side speaks.
    ///
    /// # Errors
    /// [`LinkError::NoCommonVersion`].
    pub fn agree(self, theirs: Self) -> Result<u16, LinkError> {
        self.negotiate(theirs)
            .ok_or(LinkError::NoCommonVersion { ours: self, theirs })
    }
}

impl fmt::Display for ProtocolRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// What a front sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FrontMessage {
    /// Answer to the engine's `Hello`.
    Hello {
        /// Versions the front speaks.
        protocol: ProtocolRange,
    },
    /// Take in a sequence. Answered by `Admitted` or `Rejected`.
    Generate(Box<Generate>),
    /// Forget a sequence. Answered by its last event, unless that was sent already.
    Cancel {
        /// The sequence.
        request_id: RequestId,
    },
    /// Take nothing new, finish what runs, then end with status 0.
    Drain,
    /// Are you there? Answered by `Pong`.
    Ping {
        /// Echoed.
        nonce: u64,
    },
    /// Draw a token, before all that waits. Answered by `CanaryDone`.
    Canary {
        /// Echoed.
        nonce: u64,
    },
    /// To the peer's front only: the `Generate` of this id comes next, and nobody has admitted it
    /// yet. It is rejected (`Draining`) where the peer does not serve, or not in this epoch.
    Ask {
        /// The sequence.
        request_id: RequestId,
        /// In which the asker believes the peer to serve.
        epoch: u64,
    },
    /// To the front's own engines only: a lost engine left KV blocks in this file, and its streams
    /// come next. Of no use to an engine of another model or numerics.
    AdoptKv {
        /// Of a file in memory, which the front holds until [`Self::ForgetKv`].
        path: String,
    },
    /// To the front's own engines only: no stream of a lost engine comes any more.
    ForgetKv,
}

/// What an engine is, told once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineHello {
    /// Versions the engine speaks.
    pub protocol: ProtocolRange,
    /// Random name of this engine's life: a restarted engine has another.
    pub engine_id: u64,
    /// Hash of weights, tokenizer, template and generation config, hexadecimal.
    pub model_hash: String,
    /// Equal where two engines compute equal bits (with equal model hash).
    pub numerics_id: String,
    /// Device, as `--device` names it.
    pub device: String,
    /// Tokens in a sequence at most.
    pub max_model_len: u32,
    /// Sequences that run at a time, at most.
    pub max_num_seqs: u32,
    /// Number of logits a row.
    pub vocab_size: u32,
    /// KV blocks in the pool.
    pub num_blocks: u32,
    /// Tokens a block.
    pub block_size: u32,
}

/// Counters and gauges of an engine. Counters grow from its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineStats {
    /// Steps run.
    pub num_steps: u64,
    /// Sequences in the running set.
    pub num_running: u32,
    /// Sequences that wait.
    pub num_waiting: u32,
    /// KV blocks that live sequences hold.
    pub num_used_blocks: u32,
    /// KV blocks that hold reusable prefixes and that nobody references.
    pub num_cached_blocks: u32,
    /// Prompt tokens computed.
    pub num_prompt_tokens: u64,
    /// Prompt tokens found in the prefix cache.
    pub num_cached_prompt_tokens: u64,
    /// Tokens drawn.
    pub num_generated_tokens: u64,
    /// Sequences preempted.
    pub num_preemptions: u64,
    /// Steps by their number of tokens ([`hotspare_batch::STEP_TOKENS_BOUNDS`]).
    pub step_tokens: BucketCounts,
    /// Ended sequences by how often they were preempted ([`hotspare_batch::PREEMPTIONS_BOUNDS`]).
    pub preemptions: BucketCounts,
    /// Tokens looked up in the prefix cache.
    pub num_prefix_cache_queries: u64,
    /// Tokens found there.
    pub num_prefix_cache_hits: u64,
    /// Device time by kind of operation.
    pub device: StepTimings,
    /// Time the engine's thread spent scheduling and committing, nanoseconds.
    pub schedule_ns: u64,
    /// Time the engine's thread spent reading and writing frames, nanoseconds.
    pub transport_ns: u64,
}

/// What an engine sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum EngineMessage {
    /// Progress while loading.
    Loading {
        /// What is being done, as a noun phrase.
        stage: String,
        /// Done so far, in units of `total`.
        done: u64,
        /// 0 where unknown.
        total: u64,
    },
    /// Ready to serve.
    Hello(Box<EngineHello>),
    /// The sequence was taken in; events follow.
    Admitted {
        /// The sequence.
        request_id: RequestId,
        /// Its attempt.
        attempt: u32,
    },
    /// The sequence was not taken in; nothing follows.
    Rejected {
        /// The sequence.
        request_id: RequestId,
        /// Its attempt.
        attempt: u32,
        /// Why.
        reason: RejectReason,
    },
    /// All events of one step.
    Step {
        /// Number of the step.
        step: u64,
        /// Events in the order of the batch.
        events: Vec<SequenceEvent>,
    },
    /// Sent after a step, at most every `stats_interval_ms`, and when the engine falls idle.
    Stats(Box<EngineStats>),
    /// Answer to `Ping`.
    Pong {
        /// From the ping.
        nonce: u64,
    },
    /// A step was given to the device: how much is in it, before it is known how long it takes.
    Working {
        /// Number of the step.
        step: u64,
        /// Its tokens.
        num_tokens: u32,
    },
    /// The canary's token was drawn, or could not be.
    CanaryDone {
        /// Of the canary.
        nonce: u64,
        /// Why there is no token.
        error: Option<String>,
    },
    /// The engine cannot go on and ends with a non-zero status.
    Fatal {
        /// A clear message for the operator.
        message: String,
    },
}
