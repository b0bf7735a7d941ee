//! How the engine drives a device: submit a batch, wait for its output.
//!
//! Invariant: outputs come in the order of submission, one for each batch; an error ends the
//! executor.

use crate::{Batch, StepOutput};

/// What an executor can hold, fixed for its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorInfo {
    /// KV blocks in the pool.
    pub num_blocks: usize,
    /// Tokens a block.
    pub block_size: usize,
    /// Number of logits a row.
    pub vocab_size: usize,
    /// Slots for running sequences; slot ids are below this.
    pub num_slots: usize,
    /// Tokens in a batch at most.
    pub max_num_batched_tokens: usize,
    /// Batches that may be submitted before the first is waited for: 1 for the plain loop only, 2
    /// for one step of look-ahead.
    pub max_num_in_flight: usize,
    /// Where no layer sees further back: the last so many positions, the own one included. Blocks
    /// of a row that lie wholly before them may by then hold another sequence's tokens.
    pub sliding_window: Option<usize>,
    /// Bytes of a block's K and V over all layers, where they can be copied out and in again; a
    /// batch for another executor has no [`Batch::kv_saves`] and no [`Batch::kv_loads`].
    pub kv_block_bytes: Option<usize>,
}

/// A failure of the device or of its thread. It ends the engine process, never a single request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// The device reported an error it cannot recover from.
    #[error("device error: {0}")]
    Device(String),
    /// The device reported an error after which only a new process can use it.
    #[error("the device is lost: {0}")]
    ContextLost(String),
    /// The device's thread is gone.
    #[error("the device thread ended")]
    Disconnected,
    /// `wait` without a submitted batch, or more batches than `max_num_in_flight`.
    #[error("executor misuse: {0}")]
    Misuse(&'static str),
}

/// Runs one batch at a time, synchronously, on the thread that owns the device.
pub trait StepRunner {
    /// What it can hold.
    fn info(&self) -> ExecutorInfo;

    /// Runs `batch` and returns its output. [`crate::TOKEN_FROM_DEVICE`] is resolved from the
    /// slot's last drawn token.
    ///
    /// # Errors
    /// Only for failures of the device; a row's own failure is in its [`crate::RowOutput`].
    fn run(&mut self, batch: &Batch) -> Result<StepOutput, ExecutorError>;
}

impl<R: StepRunner + ?Sized> StepRunner for Box<R> {
    fn info(&self) -> ExecutorInfo {
        (**self).info()
    }

    fn run(&mut self, batch: &Batch) -> Result<StepOutput, ExecutorError> {
        (**self).run(batch)
    }
}

/// Runs batches asynchronously: the seam between the engine's loop and a device.
pub trait Executor {
    /// What it can hold.
    fn info(&self) -> &ExecutorInfo;

    /// Queues a batch. Does not wait for the device.
    ///
    /// # Errors
    /// [`ExecutorError::Misuse`] above `max_num_in_flight`; otherwise the device is lost.
    fn submit(&mut self, batch: Batch) -> Result<(), ExecutorError>;

    /// Waits for the oldest batch that was submitted and not yet waited for.
    ///
    /// # Errors
    /// [`ExecutorError::Misuse`] where none is in flight; otherwise the device is lost.
    fn wait(&mut self) -> Result<StepOutput, ExecutorError>;
}
