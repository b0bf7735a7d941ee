//! What a backend works in beside the model's own buffers, allocated once.
//!
//! Invariant: sized by the limits and the model's shapes, never by a step.

use hotspare_model::ops::{AttentionSpec, KvCacheSpec, OpsError, StepLimits};

use super::blob::part_bytes;
use super::buffer::{CudaBuffer, Rows};
use super::memory::{FOR_BUFFERS, alloc, device_error, product};
use super::results::ResultsLayout;
use super::slots::Slots;
use super::step::StepShape;
use crate::attention_plan::PlanShape;
use crate::kernels::SPLIT_KEYS;
use crate::{Address, Device, Dtype};

/// Rows of a partial result.
pub(super) const PARTIAL_ROWS: usize = 16;
/// Bytes of all partial results of attention.
const MAX_PARTIAL_BYTES: usize = 64 << 20;
/// Rows whose logits are copied before the sampler changes them, at a time.
const MAX_COPIED_ROWS: usize = 16;
/// Pinned memory of an upload at least.
const MIN_UPLOAD_BYTES: usize = 64 << 10;

/// Workspaces of a backend.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) shape: StepShape,
    /// Where a step's blob goes.
    pub(super) blob_at: Address,
    pub(super) blob_bytes: usize,
    pub(super) upload_bytes: usize,
    pub(super) partials: Address,
    pub(super) slots: Slots,
    /// Copies of logits.
    pub(super) copies: Rows,
    pub(super) results_at: Address,
    pub(super) results: ResultsLayout,
}

/// What workspaces are sized by.
#[derive(Clone, Debug)]
pub(super) struct WorkShape<'a> {
    pub(super) limits: &'a StepLimits,
    pub(super) vocab_size: usize,
    pub(super) max_logits: usize,
    pub(super) plans: &'a [PlanShape],
    /// Of some layer.
    pub(super) attention: &'a AttentionSpec,
}

impl Work {
    /// # Errors
    /// Out of memory.
    pub(super) fn new<D: Device>(
        device: &mut D,
        shape: &WorkShape<'_>,
        kv: &KvCacheSpec,
    ) -> Result<Self, OpsError> {
        let limits = shape.limits;
        let (kv_heads, head_dim) = (shape.attention.num_kv_heads, shape.attention.head_dim);
        let partial_bytes = kv_heads * PARTIAL_ROWS * (head_dim + 2) * 4;
        let splits = limits.max_model_len.div_ceil(SPLIT_KEYS);
        let wanted = limits.max_num_seqs.saturating_mul(splits);
        let max_partials = wanted.min(MAX_PARTIAL_BYTES / partial_bytes);
        let step = StepShape {
            block_size: kv.block_size,
            num_blocks: 0,
            max_num_batched_tokens: limits.max_num_batched_tokens,
            max_num_seqs: limits.max_num_seqs,
            max_model_len: limits.max_model_len,
            plans: shape.plans.to_vec(),
            max_partials,
            max_logits: shape.max_logits,
        };
        let blob_bytes = step.max_bytes();
        let copied = MAX_COPIED_ROWS.min(limits.max_num_seqs);
        let copies = Rows {
            num_rows: copied,
            ..CudaBuffer::new(Address::NULL, Dtype::F32, copied, shape.vocab_size).rows
        };
        let results = ResultsLayout::new(limits);
        let mut memory = |what, factors: &[usize]| {
            let num_bytes = product(what, factors)?;
            alloc(device, what, num_bytes, FOR_BUFFERS)
        };
        let partials = memory(
            "partial results of attention",
            &[max_partials, partial_bytes],
        )?;
        let blob_at = memory("a step's numbers", &[blob_bytes])?;
        let at = memory("copies of logits", &[copied, copies.row_bytes()])?;
        let results_at = memory("a step's results", &[results.max_bytes()])?;
        let upload_bytes = blob_bytes.max(MIN_UPLOAD_BYTES) + part_bytes::<u32>(0);
        let reserved = device.reserve_staging(upload_bytes, results.max_bytes());
        reserved.map_err(|error| device_error(&error))?;
        Ok(Self {
            shape: step,
            blob_at,
            blob_bytes,
            upload_bytes,
            partials,
            slots: Slots::new(device, limits, shape.vocab_size)?,
            copies: Rows { at, ..copies },
            results_at,
            results,
        })
    }
}
