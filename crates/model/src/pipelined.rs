//! A runner whose device works on while the host prepares the next step.
//!
//! Where the device takes sampled tokens from its own memory, a step can be queued behind the one
//! that draws them, and nothing waits for the host.
//!
//! Invariant: outputs come in the order of submission; at most `max_num_in_flight` steps are
//! queued.

use std::collections::VecDeque;
use std::time::Instant;

use hotspare_batch::{
    Batch, Executor, ExecutorError, ExecutorInfo, RowOutput, StepId, StepOutput, StepRunner,
    StepTimings,
};

use crate::ModelRunner;
use crate::ops::PipelinedOps;

/// A [`ModelRunner`] as an [`Executor`] without a thread of its own: `submit` queues a step on the
/// device and returns.
pub struct PipelinedRunner<O: PipelinedOps> {
    runner: ModelRunner<O>,
    info: ExecutorInfo,
    /// Steps in flight, oldest first.
    in_flight: VecDeque<InFlight>,
    /// When the last output came.
    last_output: Option<Instant>,
}

/// A step in flight.
struct InFlight {
    step: StepId,
    /// When it was submitted.
    start: Instant,
    /// Its outputs, where the device has no memory for it.
    refused: Option<Vec<RowOutput>>,
}

impl<O: PipelinedOps> PipelinedRunner<O> {
    /// Around `runner`, which has no step under way.
    pub fn new(runner: ModelRunner<O>) -> Self {
        Self {
            info: ExecutorInfo {
                kv_block_bytes: None,
                ..runner.info()
            },
            runner,
            in_flight: VecDeque::new(),
            last_output: None,
        }
    }

    /// As [`ModelRunner::numerics_id`].
    pub fn numerics_id(&self) -> String {
        self.runner.numerics_id()
    }

    /// The runner without the queue, for the plain loop; steps in flight are forgotten.
    pub fn into_runner(self) -> ModelRunner<O> {
        self.runner
    }
}

impl<O: PipelinedOps> Executor for PipelinedRunner<O> {
    fn info(&self) -> &ExecutorInfo {
        &self.info
    }

    fn submit(&mut self, batch: Batch) -> Result<(), ExecutorError> {
        if self.in_flight.len() == self.info.max_num_in_flight {
            return Err(ExecutorError::Misuse("more batches than max_num_in_flight"));
        }
        if !batch.kv_saves.is_empty() || !batch.kv_loads.is_empty() {
            return Err(ExecutorError::Misuse(
                "blocks cannot be copied on this device",
            ));
        }
        let start = Instant::now();
        let refused = self.runner.start(&batch)?;
        self.in_flight.push_back(InFlight {
            step: batch.step,
            start,
            refused,
        });
        Ok(())
    }

    fn wait(&mut self) -> Result<StepOutput, ExecutorError> {
        let oldest = self.in_flight.pop_front();
        let InFlight {
            step,
            start,
            refused,
        } = oldest.ok_or(ExecutorError::Misuse("wait without a batch in flight"))?;
        let (rows, mut timings) = match refused {
            Some(rows) => (rows, StepTimings::default()),
            None => self.runner.finish()?,
        };
        // A step starts when it is submitted or, behind another, when that one ends.
        let now = Instant::now();
        let start = self.last_output.map_or(start, |last| start.max(last));
        self.last_output = Some(now);
        timings.total_ns = now.duration_since(start).as_nanos() as u64;
        Ok(StepOutput {
            step,
            rows,
            timings,
            kv_saved: Vec::new(),
        })
    }
}
