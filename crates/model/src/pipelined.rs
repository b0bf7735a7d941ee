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
    Batch, Executor, ExecutorError, ExecutorInfo, StepId, StepOutput, StepRunner,
};

use crate::ModelRunner;
use crate::ops::PipelinedOps;

/// A [`ModelRunner`] as an [`Executor`] without a thread of its own: `submit` queues a step on the
/// device and returns.
pub struct PipelinedRunner<O: PipelinedOps> {
    runner: ModelRunner<O>,
    info: ExecutorInfo,
    /// Steps in flight, oldest first, and when they were submitted.
    in_flight: VecDeque<(StepId, Instant)>,
    /// When the last output came.
    last_output: Option<Instant>,
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
        self.runner.start(&batch)?;
        self.in_flight.push_back((batch.step, start));
        Ok(())
    }

    fn wait(&mut self) -> Result<StepOutput, ExecutorError> {
        let oldest = self.in_flight.pop_front();
        let (step, start) =
            oldest.ok_or(ExecutorError::Misuse("wait without a batch in flight"))?;
        let (rows, mut timings) = self.runner.finish()?;
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
