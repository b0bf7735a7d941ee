//! The data seam of the engine: ids, sampling parameters, `Batch` and `StepOutput`.
//!
//! Every crate of the core speaks these types and nothing else: the front sends [`Generate`], the
//! scheduler turns the live sequences into a [`Batch`] a step, an [`Executor`] runs it and answers
//! with a [`StepOutput`], the scheduler commits that and reports [`SequenceEvent`]s.
//!
//! Invariant: no text, no JSON, no clock, no device type here; token ids and numbers only.
#![forbid(unsafe_code)]

mod batch;
mod counts;
mod event;
mod executor;
mod generate;
mod kv_block;
mod numerics;
mod output;
mod params;

pub use batch::{Batch, Row, SlotInit, TOKEN_FROM_DEVICE, TokenMask};
pub use counts::{BucketCounts, PREEMPTIONS_BOUNDS, STEP_TOKENS_BOUNDS};
pub use event::{FinishReason, PromptReport, RejectReason, SequenceEvent};
pub use executor::{Executor, ExecutorError, ExecutorInfo, StepRunner};
pub use generate::{Generate, RequestId};
pub use kv_block::KvBlock;
pub use numerics::{FAST_NUMERICS, is_reproducible};
pub use output::{RowError, RowOutput, StepOutput, StepTimings, TokenLogprobs};
pub use params::{SamplingParams, StopParams};

/// A vocabulary index.
pub type TokenId = u32;

/// The tokens one step draws for one sequence. Nearly always one, so they need no memory of their
/// own.
pub type DrawnTokens = smallvec::SmallVec<[TokenId; 4]>;

/// Index of a KV cache block (`block_size` tokens of every layer) in the executor's pool.
pub type BlockId = u32;

/// Index of a running sequence's state on the device: sampler counts, last sampled token.
///
/// A slot belongs to one sequence from its [`SlotInit`] until another `SlotInit` names it.
pub type SlotId = u32;

/// Number of a step; grows by one with each batch that is submitted.
pub type StepId = u64;
