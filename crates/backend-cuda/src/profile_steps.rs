//! Steps of a loaded model, one kind again and again, with the device time of each operation.
//!
//! Invariant: steps are queued one behind the other, as the engine does, so that the device does
//! not wait for the host between two launches.

use std::sync::Arc;

use hotspare_batch::{
    Batch, Executor, ExecutorError, Row, SamplingParams, SlotInit, StepOutput, StopParams,
    TOKEN_FROM_DEVICE, TokenId,
};
use hotspare_model::{ModelRunner, PipelinedRunner};

use crate::Device;
use crate::ops::CudaOps;
use crate::profile::{OperationTime, by_operation};

/// A kind of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// A token each of so many sequences, behind prompts of so many tokens.
    Decode {
        /// Sequences.
        streams: usize,
        /// Tokens of each before the first step.
        context: usize,
    },
    /// A whole prompt of so many tokens.
    Prefill {
        /// Its tokens.
        tokens: usize,
    },
}

impl StepKind {
    /// Blocks of the KV cache that `num_steps` of them take, and tokens of the longest sequence.
    pub fn needs(self, num_steps: usize, block_size: usize) -> [usize; 2] {
        let (streams, len) = match self {
            Self::Decode { streams, context } => (streams, context + num_steps),
            Self::Prefill { tokens } => (1, tokens),
        };
        [streams * len.div_ceil(block_size.max(1)), len]
    }
}

/// A runner that is given back, and times of its operations where the device has them.
pub type Profiled<D> = (ModelRunner<CudaOps<D>>, Option<Vec<OperationTime>>);

/// Times `num_steps` steps of a kind, after one that is not counted; `None` where the device has no
/// times. The runner's slots and blocks are used as if nobody else did.
///
/// # Errors
/// A kind that the runner's limits do not hold; a step or a row that fails; what the device says.
pub fn profile_steps<D: Device>(
    mut runner: ModelRunner<CudaOps<D>>,
    kind: StepKind,
    num_steps: usize,
) -> Result<Profiled<D>, ExecutorError> {
    let num_steps = num_steps.max(1);
    let mut steps = Steps::new(PipelinedRunner::new(runner), kind, num_steps + 1)?;
    steps.read_prompts()?;
    steps.run(1)?;
    runner = steps.runner.into_runner();
    let begun = runner.ops_mut().begin_profile(num_steps);
    if !begun.map_err(failed)? {
        return Ok((runner, None));
    }
    steps.runner = PipelinedRunner::new(runner);
    let ran = steps.run(num_steps);
    runner = steps.runner.into_runner();
    let times = runner.ops_mut().end_profile();
    ran?;
    let times = times.map_err(failed)?;
    let sums = by_operation(&times, num_steps);
    let sums = sums.ok_or(ExecutorError::Misuse("steps of one kind are not alike"))?;
    Ok((runner, Some(sums)))
}

fn failed(error: impl std::fmt::Display) -> ExecutorError {
    ExecutorError::Device(error.to_string())
}

/// The sequences of a kind of step, in slots and blocks of their own.
struct Steps<D: Device> {
    runner: PipelinedRunner<CudaOps<D>>,
    kind: StepKind,
    streams: usize,
    blocks_per_stream: usize,
    num_submitted: usize,
    has_slots: Vec<bool>,
}

impl<D: Device> Steps<D> {
    fn new(
        runner: PipelinedRunner<CudaOps<D>>,
        kind: StepKind,
        num_steps: usize,
    ) -> Result<Self, ExecutorError> {
        let info = runner.info();
        let streams = match kind {
            StepKind::Decode { streams, .. } => streams,
            StepKind::Prefill { .. } => 1,
        };
        let [num_blocks, _] = kind.needs(num_steps, info.block_size);
        if streams == 0 || num_blocks == 0 || num_blocks > info.num_blocks {
            return Err(ExecutorError::Misuse("steps without room in the KV cache"));
        }
        Ok(Self {
            kind,
            streams,
            blocks_per_stream: num_blocks / streams,
            num_submitted: 0,
            has_slots: vec![false; streams],
            runner,
        })
    }

    /// Adds a row of `slot`.
    fn push(&mut self, batch: &mut Batch, slot: usize, start: usize, ids: &[TokenId]) {
        let token = batch.token_ids.len() as u32;
        let block = batch.block_tables.len() as u32;
        let first = (slot * self.blocks_per_stream) as u32;
        batch.token_ids.extend(ids);
        batch
            .block_tables
            .extend(first..first + self.blocks_per_stream as u32);
        if !std::mem::replace(&mut self.has_slots[slot], true) {
            batch.slot_inits.push(SlotInit {
                slot: slot as u32,
                token_ids: Arc::from([0]),
                num_prompt_tokens: 1,
                sampling: Arc::new(SamplingParams::greedy()),
                stop: Arc::new(StopParams::default()),
            });
        }
        batch.rows.push(Row {
            slot: slot as u32,
            num_computed_tokens: start as u32,
            tokens: token..batch.token_ids.len() as u32,
            blocks: block..batch.block_tables.len() as u32,
            samples: true,
            wants_prompt_logprobs: false,
            next_prompt_token: None,
        });
    }

    /// Tokens of a prompt, of no meaning.
    fn ids(&self, slot: usize, tokens: std::ops::Range<usize>) -> Vec<TokenId> {
        let vocab_size = self.runner.info().vocab_size.max(1);
        let id = |i: usize| ((i * 31 + slot * 7919) % vocab_size) as TokenId;
        tokens.map(id).collect()
    }

    /// What decode steps see.
    fn read_prompts(&mut self) -> Result<(), ExecutorError> {
        let StepKind::Decode { context, .. } = self.kind else {
            return Ok(());
        };
        let most = self.runner.info().max_num_batched_tokens.max(1);
        for slot in 0..self.streams {
            for start in (0..context).step_by(most) {
                let ids = self.ids(slot, start..context.min(start + most));
                let mut batch = Batch::default();
                self.push(&mut batch, slot, start, &ids);
                self.runner.submit(batch)?;
                check(&self.runner.wait()?)?;
            }
        }
        Ok(())
    }

    fn batch(&mut self) -> Batch {
        let mut batch = Batch {
            step: self.num_submitted as u64,
            ..Batch::default()
        };
        match self.kind {
            StepKind::Decode { context, .. } => {
                let start = context + self.num_submitted;
                for slot in 0..self.streams {
                    let id = match start {
                        0 => 0,
                        _ => TOKEN_FROM_DEVICE,
                    };
                    self.push(&mut batch, slot, start, &[id]);
                }
            }
            StepKind::Prefill { tokens } => {
                let ids = self.ids(0, 0..tokens);
                self.push(&mut batch, 0, 0, &ids);
            }
        }
        self.num_submitted += 1;
        batch
    }

    /// Runs `num_steps` steps, as many at a time as the runner takes.
    fn run(&mut self, num_steps: usize) -> Result<(), ExecutorError> {
        let depth = self.runner.info().max_num_in_flight;
        for step in 0..num_steps {
            if step >= depth {
                check(&self.runner.wait()?)?;
            }
            let batch = self.batch();
            self.runner.submit(batch)?;
        }
        for _ in 0..num_steps.min(depth) {
            check(&self.runner.wait()?)?;
        }
        Ok(())
    }
}

/// Every row must have drawn: what fails may take less time.
fn check(output: &StepOutput) -> Result<(), ExecutorError> {
    let error = output.rows.iter().find_map(|row| row.error.as_ref());
    match error {
        Some(error) => Err(ExecutorError::Device(format!("a row failed: {error:?}"))),
        None => Ok(()),
    }
}
