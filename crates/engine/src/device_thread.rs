//! A device on a thread of its own: the engine prepares a step while the device runs another.
//!
//! Invariant: batches run in the order of submission, and at most `max_num_in_flight` are between
//! `submit` and `wait`.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use hotspare_batch::{Batch, Executor, ExecutorError, ExecutorInfo, StepOutput, StepRunner};

type StepResult = Result<StepOutput, ExecutorError>;

/// Turns a [`StepRunner`] into an [`Executor`] that runs beside its caller.
#[derive(Debug)]
pub struct DeviceThread {
    info: ExecutorInfo,
    batches: SyncSender<Batch>,
    outputs: Receiver<StepResult>,
    num_in_flight: usize,
}

impl DeviceThread {
    /// Moves `runner` to a new thread, which ends after its current step when this is dropped.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn spawn<R: StepRunner + Send + 'static>(mut runner: R) -> std::io::Result<Self> {
        let info = runner.info();
        let (batches, inbox) = sync_channel::<Batch>(info.max_num_in_flight);
        let (outbox, outputs) = sync_channel::<StepResult>(info.max_num_in_flight);
        let run = move || {
            while let Ok(batch) = inbox.recv() {
                let result = runner.run(&batch);
                let failed = result.is_err();
                if outbox.send(result).is_err() || failed {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("device".to_owned())
            .spawn(run)?;
        Ok(Self {
            info,
            batches,
            outputs,
            num_in_flight: 0,
        })
    }
}

impl Executor for DeviceThread {
    fn info(&self) -> &ExecutorInfo {
        &self.info
    }

    fn submit(&mut self, batch: Batch) -> Result<(), ExecutorError> {
        if self.num_in_flight == self.info.max_num_in_flight {
            return Err(ExecutorError::Misuse("more batches than max_num_in_flight"));
        }
        // Where the thread is gone, the next `wait` says why.
        drop(self.batches.send(batch));
        self.num_in_flight += 1;
        Ok(())
    }

    fn wait(&mut self) -> StepResult {
        let num_left = self.num_in_flight.checked_sub(1);
        self.num_in_flight =
            num_left.ok_or(ExecutorError::Misuse("wait without a batch in flight"))?;
        let output = self.outputs.recv();
        output.map_err(|_| ExecutorError::Disconnected)?
    }
}

/// Runs each batch when it is waited for, on the caller's thread: the plain loop's executor, and
/// the oracle of [`DeviceThread`].
#[derive(Debug)]
pub struct InlineExecutor<R> {
    info: ExecutorInfo,
    runner: R,
    pending: Option<Batch>,
}

impl<R: StepRunner> InlineExecutor<R> {
    /// An executor around `runner`; one batch in flight.
    pub fn new(runner: R) -> Self {
        Self {
            info: ExecutorInfo {
                max_num_in_flight: 1,
                ..runner.info()
            },
            runner,
            pending: None,
        }
    }
}

impl<R: StepRunner> Executor for InlineExecutor<R> {
    fn info(&self) -> &ExecutorInfo {
        &self.info
    }

    fn submit(&mut self, batch: Batch) -> Result<(), ExecutorError> {
        if self.pending.is_some() {
            return Err(ExecutorError::Misuse("more batches than max_num_in_flight"));
        }
        self.pending = Some(batch);
        Ok(())
    }

    fn wait(&mut self) -> StepResult {
        let batch = self.pending.take();
        let batch = batch.ok_or(ExecutorError::Misuse("wait without a batch in flight"))?;
        self.runner.run(&batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails at step 3, panics at step 5.
    struct Runner;

    impl StepRunner for Runner {
        fn info(&self) -> ExecutorInfo {
            ExecutorInfo {
                num_blocks: 1,
                block_size: 1,
                vocab_size: 1,
                num_slots: 1,
                max_num_batched_tokens: 1,
                max_num_in_flight: 2,
                sliding_window: None,
                kv_block_bytes: None,
            }
        }

        fn run(&mut self, batch: &Batch) -> StepResult {
            assert_ne!(batch.step, 5, "the test wants this panic");
            if batch.step == 3 {
                return Err(ExecutorError::Device("step 3".to_owned()));
            }
            Ok(StepOutput {
                step: batch.step,
                ..StepOutput::default()
            })
        }
    }

    fn batch(step: u64) -> Batch {
        Batch {
            step,
            ..Batch::default()
        }
    }

    fn error(result: StepResult) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn outputs_come_in_order_and_room_is_bounded() {
        let mut device = DeviceThread::spawn(Runner).unwrap();
        let mut inline = InlineExecutor::new(Runner);
        for capacity in [2, 1] {
            let executor: &mut dyn Executor = match capacity {
                2 => &mut device,
                _ => &mut inline,
            };
            assert_eq!(executor.info().max_num_in_flight, capacity);
            assert!(error(executor.wait()).contains("without a batch"));
            let steps = 1..=capacity as u64;
            for step in steps.clone() {
                executor.submit(batch(step)).unwrap();
            }
            let refused = executor.submit(batch(9)).unwrap_err();
            assert!(refused.to_string().contains("max_num_in_flight"));
            for step in steps {
                assert_eq!(executor.wait().unwrap().step, step);
            }
        }
    }

    #[test]
    fn an_error_or_a_panic_ends_the_device() {
        for (last, message) in [(3, "step 3"), (5, "thread ended")] {
            let mut device = DeviceThread::spawn(Runner).unwrap();
            device.submit(batch(1)).unwrap();
            device.submit(batch(last)).unwrap();
            assert_eq!(device.wait().unwrap().step, 1);
            assert!(error(device.wait()).contains(message));
            device.submit(batch(6)).unwrap();
            assert!(error(device.wait()).contains("thread ended"));
        }
    }
}
