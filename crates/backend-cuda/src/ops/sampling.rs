//! From logits to tokens and log-probabilities, on the device.
//!
//! Invariant: log-probabilities are of logits that the sampler has not changed; where both are
//! asked for, the sampler works on a copy.

use super::buffer::{CudaBuffer, Rows};
use super::library::Library;
use super::product;
use super::results::ResultParts;
use super::space::Space;
use super::step::Step;
use super::work::Work;
use crate::kernels::{Logprobs, LogprobsEntry, Rowwise, Sample, SampleRow};
use crate::{Address, Device, LaunchError};

/// What a step's sampling needs.
pub(super) struct Sampling<'a, D> {
    pub(super) device: &'a mut D,
    pub(super) library: &'a mut Library,
    pub(super) space: Option<Space>,
    pub(super) work: &'a Work,
    pub(super) step: &'a Step,
    pub(super) parts: ResultParts,
}

/// `x = cap * tanh(x / cap)`.
pub(super) fn soft_cap<D: Device>(device: &mut D, x: &Rows, cap: f32) -> Result<(), LaunchError> {
    let args = Rowwise {
        x: x.at,
        bias: Address::NULL,
        index: Address::NULL,
        out: Address::NULL,
        width: x.width as u32,
        stride: x.stride as u32,
        cap,
        unused: 0,
    };
    args.soft_cap(device, x.dtype, x.num_rows)
}

/// `out[r] = x[index[r]]`.
pub(super) fn gather<D: Device>(
    device: &mut D,
    x: &Rows,
    index: Address,
    out: &Rows,
) -> Result<(), LaunchError> {
    let args = Rowwise {
        x: x.at,
        bias: Address::NULL,
        index,
        out: out.at,
        width: x.width as u32,
        stride: x.stride as u32,
        cap: 0.0,
        unused: 0,
    };
    args.gather_rows(device, x.dtype, out.num_rows)
}

/// Rows `first` to `first + num_rows` of `logits`, computed now where they were deferred.
pub(super) fn logits_rows<D: Device>(
    device: &mut D,
    library: &mut Library,
    space: Option<Space>,
    logits: &CudaBuffer,
    first: usize,
    num_rows: usize,
) -> Result<Rows, LaunchError> {
    let Some(deferred) = &logits.deferred else {
        return Ok(logits.rows.part(first, num_rows));
    };
    let rows = logits.rows.part(0, num_rows);
    let x = deferred.x.part(first, num_rows);
    product::linear(device, library, space, &x, &deferred.weight, &rows)?;
    if let Some(cap) = deferred.soft_cap {
        soft_cap(device, &rows, cap)?;
    }
    Ok(rows)
}

impl<D: Device> Sampling<'_, D> {
    /// Queues all of it.
    pub(super) fn queue(&mut self, logits: &CudaBuffer) -> Result<(), LaunchError> {
        let step = self.step;
        let total = step.logits_tokens.len();
        let max_rows = self.work.shape.max_logits;
        for first in (0..total).step_by(max_rows) {
            let num_rows = max_rows.min(total - first);
            let (device, library) = (&mut *self.device, &mut *self.library);
            let rows = logits_rows(device, library, self.space, logits, first, num_rows)?;
            let before = |end: usize| {
                let samples = step.sampled.partition_point(|row| row.logits_row < end);
                let entries = step.entry_rows.partition_point(|row| row.logits_row < end);
                [samples, entries]
            };
            let [first_sample, first_entry] = before(first);
            let [end_sample, end_entry] = before(first + num_rows);
            let num_samples = end_sample - first_sample;
            if end_entry == first_entry && num_samples == num_rows {
                self.sample(&rows, first_sample, num_samples)?;
            } else {
                self.sample_copies(&rows, first_sample..end_sample)?;
            }
            self.logprobs(&rows, first_entry, end_entry - first_entry)?;
        }
        Ok(())
    }

    /// Draws from copies of the rows, as many at a time as there is room for.
    fn sample_copies(
        &mut self,
        rows: &Rows,
        samples: std::ops::Range<usize>,
    ) -> Result<(), LaunchError> {
        let end = samples.end;
        let copies = self.work.copies;
        for first in samples.step_by(copies.num_rows) {
            let part = copies.part(0, copies.num_rows.min(end - first));
            let index = self.step.sample_index_part.at(self.work.blob_at);
            gather(self.device, rows, index.offset(4 * first), &part)?;
            self.sample(&part, first, part.num_rows)?;
        }
        Ok(())
    }

    /// Draws a token from each of `rows`; changes them.
    fn sample(&mut self, rows: &Rows, first: usize, num_rows: usize) -> Result<(), LaunchError> {
        let (work, slots) = (self.work, &self.work.slots);
        let sample_rows = self.step.sample_part.at(work.blob_at);
        let args = Sample {
            logits: rows.at,
            rows: sample_rows.offset(first * size_of::<SampleRow>()),
            masked: Address::NULL,
            bias_tokens: slots.bias_tokens,
            biases: slots.biases,
            masks: slots.masks,
            counts: slots.counts,
            tokens: work.results_at.offset(self.parts.tokens + 4 * first),
            last_tokens: slots.last_tokens,
            chunk_keys: slots.chunk_keys,
            block_sums: slots.block_sums,
            vocab_size: rows.width as u32,
            stride: rows.stride as u32,
        };
        args.launch(self.device, num_rows)
    }

    fn logprobs(&mut self, rows: &Rows, first: usize, num: usize) -> Result<(), LaunchError> {
        let (results, parts) = (self.work.results_at, &self.parts);
        let entries = self.step.entries_part.at(self.work.blob_at);
        let args = Logprobs {
            logits: rows.at,
            entries: entries.offset(first * size_of::<LogprobsEntry>()),
            tokens: results.offset(parts.tokens),
            own_logprobs: results.offset(parts.own_logprobs + 4 * first),
            ranks: results.offset(parts.ranks + 4 * first),
            top_tokens: results.offset(parts.top_tokens),
            top_logprobs: results.offset(parts.top_logprobs),
            vocab_size: rows.width as u32,
            stride: rows.stride as u32,
        };
        args.launch(self.device, num)
    }
}
