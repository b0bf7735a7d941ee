//! From options to an executor: what is loaded, onto what, and how large its KV cache is.
//!
//! Invariant: an engine that cannot start says what is missing and which flag helps.

use hotspare_batch::{Batch, Executor, ExecutorError, ExecutorInfo, StepOutput, StepRunner};

use crate::outbox::Outbox;
use crate::slow_runner::SlowRunner;
use crate::{
    Backend, DeviceThread, EngineError, EngineOptions, Faults, InlineExecutor, ScriptedOptions,
    ScriptedRunner, kv_size,
};

/// Longest sequence of a scripted engine whose options name none.
const SCRIPTED_MAX_MODEL_LEN: usize = 4096;

/// What loading leaves.
pub(crate) struct Loaded {
    pub(crate) executor: AnyExecutor,
    pub(crate) max_model_len: usize,
    pub(crate) model_hash: String,
    pub(crate) numerics_id: String,
    pub(crate) device: String,
    /// Blocks that the prefix cache may take into use.
    pub(crate) num_eager_blocks: usize,
}

/// Loads what the options name. Progress goes to the front.
pub(crate) fn load(
    options: &EngineOptions,
    faults: &Faults,
    outbox: &mut Outbox,
) -> Result<Loaded, EngineError> {
    match &options.backend {
        Backend::Scripted(scripted) => load_scripted(options, scripted, faults),
        Backend::Model => crate::model_backend::load(options, faults, outbox),
    }
}

fn load_scripted(
    options: &EngineOptions,
    scripted: &ScriptedOptions,
    faults: &Faults,
) -> Result<Loaded, EngineError> {
    let max_model_len = options.max_model_len.unwrap_or(SCRIPTED_MAX_MODEL_LEN);
    let bytes_per_block = options.block_size.saturating_mul(size_of::<u64>());
    let info = ExecutorInfo {
        num_blocks: kv_size::num_blocks(options, max_model_len, bytes_per_block)?,
        block_size: options.block_size,
        vocab_size: scripted.vocab_size as usize,
        num_slots: options.max_num_seqs,
        max_num_batched_tokens: options.max_num_batched_tokens,
        max_num_in_flight: 2,
        sliding_window: None,
        kv_block_bytes: None,
    };
    let runner = ScriptedRunner::new(scripted.clone(), info);
    Ok(Loaded {
        executor: AnyExecutor::new(runner, options, faults)?,
        max_model_len,
        model_hash: scripted.name(),
        numerics_id: "scripted".to_owned(),
        device: "scripted".to_owned(),
        num_eager_blocks: kv_size::num_eager_blocks(options, max_model_len),
    })
}

/// The executor that the options ask for.
pub(crate) enum AnyExecutor {
    /// On a thread of its own: look-ahead.
    Thread(DeviceThread),
    /// On the engine's thread: the plain loop.
    Inline(InlineExecutor<Box<dyn StepRunner>>),
    /// On a card, which works by itself.
    #[cfg(feature = "cuda")]
    Card(Box<crate::cuda_backend::CardExecutor>),
}

impl AnyExecutor {
    pub(crate) fn new<R: StepRunner + Send + 'static>(
        runner: R,
        options: &EngineOptions,
        faults: &Faults,
    ) -> Result<Self, EngineError> {
        let runner = SlowRunner::new(runner, faults.slow_step);
        if options.lookahead {
            let thread = DeviceThread::spawn(runner).map_err(EngineError::Thread)?;
            return Ok(Self::Thread(thread));
        }
        Ok(Self::Inline(InlineExecutor::new(Box::new(runner))))
    }
}

impl Executor for AnyExecutor {
    fn info(&self) -> &ExecutorInfo {
        match self {
            Self::Thread(thread) => thread.info(),
            Self::Inline(inline) => inline.info(),
            #[cfg(feature = "cuda")]
            Self::Card(card) => card.info(),
        }
    }

    fn submit(&mut self, batch: Batch) -> Result<(), ExecutorError> {
        match self {
            Self::Thread(thread) => thread.submit(batch),
            Self::Inline(inline) => inline.submit(batch),
            #[cfg(feature = "cuda")]
            Self::Card(card) => card.submit(batch),
        }
    }

    fn wait(&mut self) -> Result<StepOutput, ExecutorError> {
        match self {
            Self::Thread(thread) => thread.wait(),
            Self::Inline(inline) => inline.wait(),
            #[cfg(feature = "cuda")]
            Self::Card(card) => card.wait(),
        }
    }
}
