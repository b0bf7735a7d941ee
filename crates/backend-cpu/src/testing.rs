//! What the tests of this crate share: reproducible random values, weights, batches.
//!
//! Invariant: everything is a function of the seed.

use std::sync::Arc;

use hotspare_batch::{Batch, Row, SamplingParams, SlotInit, StopParams, TokenId};
use hotspare_model::ops::{AttentionSpec, Ops, StepLimits};
use hotspare_model::weights::{WeightDtype, WeightView};

use crate::simd::Isa;
use crate::{CpuBuffer, CpuLinear, CpuOps, CpuOptions};

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// In -1..1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float()).collect()
    }
}

/// Random weights `[n, k]`, `offset` bytes into their owner, and the values they stand for.
pub(crate) fn weights(
    random: &mut Random,
    dtype: WeightDtype,
    shape: &[usize],
    offset: usize,
) -> (WeightView, Vec<f32>) {
    let values = random.floats(shape.iter().product());
    weights_of(&values, dtype, shape, offset)
}

/// `values` rounded to `dtype`.
pub(crate) fn weights_of(
    values: &[f32],
    dtype: WeightDtype,
    shape: &[usize],
    offset: usize,
) -> (WeightView, Vec<f32>) {
    let mut bytes = vec![0xAB; offset];
    let mut rounded = Vec::new();
    for &value in values {
        match dtype {
            WeightDtype::F32 => {
                bytes.extend(value.to_le_bytes());
                rounded.push(value);
            }
            WeightDtype::F16 => {
                bytes.extend(half::f16::from_f32(value).to_le_bytes());
                rounded.push(half::f16::from_f32(value).to_f32());
            }
            WeightDtype::Bf16 => {
                bytes.extend(half::bf16::from_f32(value).to_le_bytes());
                rounded.push(half::bf16::from_f32(value).to_f32());
            }
            dtype => unreachable!("{} is not rounded to here", dtype.name()),
        }
    }
    let range = offset..bytes.len();
    let view = WeightView::new(Arc::new(bytes), range, dtype, shape.to_vec());
    (view.expect("the shape fits"), rounded)
}

pub(crate) fn limits() -> StepLimits {
    StepLimits {
        max_num_batched_tokens: 512,
        max_num_seqs: 32,
        max_model_len: 4096,
    }
}

pub(crate) fn ops(num_threads: usize) -> CpuOps {
    CpuOps::new(CpuOptions {
        num_threads,
        limits: limits(),
        bf16_activations: false,
    })
    .expect("nothing to fail")
}

pub(crate) fn ops_on(isa: Isa) -> CpuOps {
    ops_with(isa, false)
}

pub(crate) fn ops_with(isa: Isa, bf16_activations: bool) -> CpuOps {
    CpuOps::with_isa(
        CpuOptions {
            num_threads: 1,
            limits: limits(),
            bf16_activations,
        },
        isa,
    )
}

/// A buffer that holds `values`.
pub(crate) fn buffer(ops: &mut CpuOps, width: usize, values: &[f32]) -> CpuBuffer {
    let num_rows = values.len() / width;
    let mut buffer = ops.new_buffer(num_rows.max(512), width).expect("memory");
    buffer
        .resize(num_rows)
        .expect("room")
        .copy_from_slice(values);
    buffer
}

/// A row to come: slot, position of its first token, number of tokens, blocks.
pub(crate) struct RowPlan<'a> {
    pub(crate) slot: u32,
    pub(crate) num_computed: usize,
    pub(crate) tokens: &'a [TokenId],
    pub(crate) blocks: &'a [u32],
}

/// A batch of rows that all sample.
pub(crate) fn batch(plans: &[RowPlan<'_>], block_size: usize) -> Batch {
    let mut batch = Batch::default();
    for plan in plans {
        let (token, block) = (
            batch.token_ids.len() as u32,
            batch.block_tables.len() as u32,
        );
        let num_blocks = (plan.num_computed + plan.tokens.len()).div_ceil(block_size);
        batch.token_ids.extend(plan.tokens);
        batch.block_tables.extend(&plan.blocks[..num_blocks]);
        batch.rows.push(Row {
            slot: plan.slot,
            num_computed_tokens: plan.num_computed as u32,
            tokens: token..token + plan.tokens.len() as u32,
            blocks: block..block + num_blocks as u32,
            samples: true,
            wants_prompt_logprobs: false,
            next_prompt_token: None,
        });
    }
    batch.check_integrity(block_size);
    batch
}

/// A slot for a sequence that knows `tokens`, greedy.
pub(crate) fn slot_init(slot: u32, tokens: &[TokenId]) -> SlotInit {
    SlotInit {
        slot,
        token_ids: tokens.into(),
        num_prompt_tokens: tokens.len() as u32,
        sampling: Arc::new(SamplingParams::greedy()),
        stop: Arc::new(StopParams::default()),
    }
}

/// The bits of floats, so that equality means equality.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// `linear` applied to the rows of `x`.
pub(crate) fn apply(ops: &mut CpuOps, linear: &CpuLinear, x: &[f32]) -> Vec<f32> {
    let x = buffer(ops, linear.num_inputs(), x);
    let mut out = ops
        .new_buffer(x.num_rows(), linear.num_outputs())
        .expect("memory");
    ops.linear(&x, linear, &mut out);
    ops.read_rows(&out)
}

/// Attention without a window or a cap.
pub(crate) fn attention_spec(
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
) -> AttentionSpec {
    AttentionSpec {
        num_heads,
        num_kv_heads,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        sliding_window: None,
        logits_soft_cap: None,
        sinks: Vec::new(),
    }
}
