//! The fault `slow-step-ms`: a device that takes longer.
//!
//! Invariant: outputs are those of the runner inside.

use std::thread;
use std::time::Duration;

use hotspare_batch::{Batch, ExecutorError, ExecutorInfo, StepOutput, StepRunner};

/// Sleeps before each step of another runner.
#[derive(Debug)]
pub(crate) struct SlowRunner<R> {
    runner: R,
    delay: Duration,
}

impl<R> SlowRunner<R> {
    pub(crate) fn new(runner: R, delay: Duration) -> Self {
        Self { runner, delay }
    }
}

impl<R: StepRunner> StepRunner for SlowRunner<R> {
    fn info(&self) -> ExecutorInfo {
        self.runner.info()
    }

    fn run(&mut self, batch: &Batch) -> Result<StepOutput, ExecutorError> {
        if !self.delay.is_zero() {
            thread::sleep(self.delay);
        }
        let mut output = self.runner.run(batch)?;
        output.timings.total_ns += self.delay.as_nanos() as u64;
        Ok(output)
    }
}
