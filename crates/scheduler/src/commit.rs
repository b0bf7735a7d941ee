//! Taking a step's output: drawn tokens become ids, computed blocks become findable, ends are seen.
//!
//! How far a sequence is computed follows from what was accepted, not from what was sent: a row may
//! draw no token, one, or several. Where that differs from what later rows in flight were built on,
//! those rows are dropped and the sequence goes back to what is certain.
//!
//! Invariant: an output that does not match the oldest batch in flight changes nothing.

use hotspare_batch::{FinishReason, RowOutput, STEP_TOKENS_BOUNDS, StepOutput};

use crate::SchedulerError;
use crate::scheduler::{InFlightRow, Scheduler};
use crate::sequence::Status;

impl Scheduler {
    /// Takes the output of the oldest batch in flight.
    ///
    /// # Errors
    /// The output is not that batch's; nothing has changed.
    pub fn commit(&mut self, mut output: StepOutput, now_ms: u64) -> Result<(), SchedulerError> {
        self.check_output(&output)?;
        if let Some(mut in_flight) = self.in_flight.pop_front() {
            self.events.reserve(in_flight.rows.len());
            let num_tokens = in_flight
                .rows
                .iter()
                .filter(|row| self.sequences.get(row.index).is_counted())
                .map(|row| row.end - row.start)
                .sum::<usize>();
            // A step of the engine's own alone has no others.
            if num_tokens > 0 {
                self.counters
                    .step_tokens
                    .observe(&STEP_TOKENS_BOUNDS, num_tokens as u64);
            }
            for (row, output) in in_flight.rows.drain(..).zip(&mut output.rows) {
                self.commit_row(row, output);
            }
            self.spare_rows.push(in_flight.rows);
        }
        self.counters.num_steps += 1;
        self.expire(now_ms);
        Ok(())
    }

    fn check_output(&self, output: &StepOutput) -> Result<(), SchedulerError> {
        let step = output.step;
        let Some(in_flight) = self.in_flight.front() else {
            return Err(SchedulerError::NothingInFlight { step });
        };
        if step != in_flight.step {
            return Err(SchedulerError::WrongStep {
                step,
                expected: in_flight.step,
            });
        }
        let (num_rows, expected) = (output.rows.len(), in_flight.rows.len());
        if num_rows != expected {
            return Err(SchedulerError::WrongRowCount {
                step,
                num_rows,
                expected,
            });
        }
        let pairs = in_flight.rows.iter().zip(&output.rows);
        for (row, (expected, output)) in pairs.enumerate() {
            if output.slot != expected.slot {
                let (slot, expected) = (output.slot, expected.slot);
                return Err(SchedulerError::WrongSlot {
                    step,
                    row,
                    slot,
                    expected,
                });
            }
        }
        Ok(())
    }

    fn commit_row(&mut self, row: InFlightRow, output: &mut RowOutput) {
        let sequence = self.sequences.get_mut(row.index);
        sequence.num_in_flight -= 1;
        let is_wanted = sequence.status != Status::Finished && sequence.epoch == row.epoch;
        if is_wanted {
            match output.error.take() {
                Some(error) => self.finish(row.index, FinishReason::Failed(error)),
                None => self.apply_row(row, output),
            }
        }
        self.settle(row.index);
    }

    /// Applies the output of a row that was built on what turned out to be true.
    fn apply_row(&mut self, row: InFlightRow, output: &mut RowOutput) {
        let sequence = self.sequences.get_mut(row.index);
        let first_index = sequence.num_output_tokens();
        let num_prompt_tokens = row.end.min(sequence.num_prompt_tokens);
        let is_counted = sequence.is_counted();
        if is_counted {
            self.counters.num_prompt_tokens += num_prompt_tokens.saturating_sub(row.start) as u64;
        }
        if sequence.wants_prompt_logprobs {
            sequence.prompt_logprobs.append(&mut output.prompt_logprobs);
        }
        let finish = if row.samples {
            let finish = sequence.accept(&mut output.token_ids);
            output.logprobs.truncate(output.token_ids.len());
            if is_counted {
                self.counters.num_generated_tokens += output.token_ids.len() as u64;
            }
            // The last id drawn has no K and V yet; where none was drawn, the last one is
            // computed again.
            sequence.num_computed_tokens = row.end.min(sequence.ids.len() - 1);
            sequence.num_pending_tokens -= 1;
            if output.token_ids.len() != 1 || sequence.num_computed_tokens != row.end {
                sequence.rewind();
            }
            finish
        } else {
            output.token_ids.clear();
            output.logprobs.clear();
            sequence.num_computed_tokens = row.end;
            let is_done = sequence.prefill_only && row.end == sequence.ids.len();
            is_done.then_some(FinishReason::Length)
        };
        let (chain, ids) = (&mut sequence.chain, &sequence.ids);
        self.blocks.register(
            chain,
            ids,
            sequence.num_computed_tokens,
            &sequence.block_table,
        );
        // Rows in flight start at what is computed or behind it: they see no further back either.
        let num_unseen = self.config.num_unseen_blocks(sequence.num_computed_tokens);
        self.blocks
            .drop_leading(&mut sequence.block_table, num_unseen);
        let is_last = finish.is_some();
        if is_last || !output.token_ids.is_empty() {
            let token_ids = std::mem::take(&mut output.token_ids);
            let logprobs = std::mem::take(&mut output.logprobs);
            sequence.report(&mut self.events, first_index, token_ids, logprobs, finish);
        }
        if is_last {
            self.retire(row.index);
        }
    }
}
