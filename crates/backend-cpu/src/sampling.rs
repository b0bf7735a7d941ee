//! Draws the step's tokens and computes log-probabilities, rows in parallel.
//!
//! Invariant: outputs are in the batch's order, and a row's output depends on that row's logits and
//! slot alone.

use std::cell::RefCell;

use hotspare_batch::{Row, RowError, RowOutput, SlotInit};
use hotspare_sampler::{Scratch, SlotState, sample_masked_row, token_logprobs};

use crate::step::Step;
use crate::workers::{ItemSize, Workers};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The slots, and rows on their way through the sampler.
#[derive(Debug, Default)]
pub(crate) struct Sampling {
    slots: Vec<SlotState>,
    /// Reused from step to step.
    jobs: Vec<RowJob>,
}

/// One row of the batch.
#[derive(Debug)]
struct RowJob {
    /// Index in the step.
    row: usize,
    /// Taken out of its place while the job runs.
    slot: SlotState,
    /// Rows of logits that are this row's.
    num_logits: usize,
    output: RowOutput,
}

impl Sampling {
    /// `num_slots` empty slots.
    pub(crate) fn new(num_slots: usize) -> Self {
        Self {
            slots: std::iter::repeat_with(SlotState::default)
                .take(num_slots)
                .collect(),
            jobs: Vec::with_capacity(num_slots),
        }
    }

    pub(crate) fn slots(&self) -> &[SlotState] {
        &self.slots
    }

    /// Gives a slot to a sequence; `false` where there is no such slot.
    pub(crate) fn reset(&mut self, init: &SlotInit) -> bool {
        match self.slots.get_mut(init.slot as usize) {
            Some(slot) => slot.reset(init),
            None => return false,
        }
        true
    }

    /// Runs the sampler over `logits`, `[step.logits_tokens(), vocab_size]`.
    pub(crate) fn run(
        &mut self,
        workers: &Workers,
        step: &Step,
        vocab_size: usize,
        logits: &mut [f32],
    ) -> Vec<RowOutput> {
        self.jobs.clear();
        for (index, row) in step.rows().iter().enumerate() {
            let num_logits = match (row.wants_prompt_logprobs, row.samples) {
                (true, _) => row.num_tokens(),
                (false, samples) => usize::from(samples),
            };
            self.jobs.push(RowJob {
                row: index,
                slot: std::mem::take(&mut self.slots[row.slot as usize]),
                num_logits,
                output: RowOutput {
                    slot: row.slot,
                    ..RowOutput::default()
                },
            });
        }
        let size = |job: &RowJob| ItemSize {
            len: job.num_logits * vocab_size,
            cost: job.num_logits,
        };
        let work_ns = logits.len();
        workers.items(&mut self.jobs, logits, work_ns, &size, &|job, logits| {
            SCRATCH.with_borrow_mut(|scratch| {
                run_row(step, job, vocab_size, logits, scratch);
            });
        });
        let finish = |job: RowJob| {
            self.slots[job.output.slot as usize] = job.slot;
            job.output
        };
        self.jobs.drain(..).map(finish).collect()
    }
}

fn run_row(
    step: &Step,
    job: &mut RowJob,
    vocab_size: usize,
    logits: &mut [f32],
    scratch: &mut Scratch,
) {
    let row = &step.rows()[job.row];
    if row.wants_prompt_logprobs
        && let Err(error) = prompt_logprobs(step, row, job, vocab_size, logits, scratch)
    {
        job.output.error = Some(error);
        return;
    }
    if row.samples && logits.len() >= vocab_size {
        let last = logits.len() - vocab_size;
        let position = row.context_len() as u32;
        let (logits, mask) = (&mut logits[last..], step.token_mask(job.row));
        match sample_masked_row(logits, &mut job.slot, mask, position, scratch) {
            Ok(sampled) => {
                job.output.token_ids.push(sampled.token);
                job.output.logprobs.extend(sampled.logprobs);
            }
            Err(error) => job.output.error = Some(error),
        }
    }
}

/// Log-probabilities of the prompt tokens that follow the row's tokens.
fn prompt_logprobs(
    step: &Step,
    row: &Row,
    job: &mut RowJob,
    vocab_size: usize,
    logits: &[f32],
    scratch: &mut Scratch,
) -> Result<(), RowError> {
    let num_top = job.slot.sampling().num_prompt_logprobs.unwrap_or(0);
    let tokens = &step.token_ids()[row.tokens.start as usize..row.tokens.end as usize];
    let following = tokens[1..].iter().copied().chain(row.next_prompt_token);
    for (i, (token, logits)) in following.zip(logits.chunks_exact(vocab_size)).enumerate() {
        let position = row.num_computed_tokens + i as u32 + 1;
        let entry = token_logprobs(logits, token, position, num_top, &mut scratch.keys)?;
        job.output.prompt_logprobs.push(entry);
    }
    Ok(())
}
