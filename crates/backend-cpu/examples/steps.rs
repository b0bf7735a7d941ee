//! Prints tokens/s of whole steps: `cargo run --release -p hotspare-backend-cpu --example steps`.
//!
//! A Llama-shaped model of random bf16 weights, of the size of the embedded one, run through `Ops`
//! alone: what the device can do, without scheduler and server. Best of several rounds.
//!
//! Arguments: number of threads (default 2), context length of decode (default 256).
#![allow(clippy::print_stdout)] // Printing is what this program is for.

use std::sync::Arc;

use hotspare_backend_cpu::{CpuBuffer, CpuKvCache, CpuLinear, CpuOps, CpuOptions, CpuVector};
use hotspare_batch::{
    Batch, Row, SamplingParams, SlotInit, StepTimings, StopParams, TOKEN_FROM_DEVICE,
};
use hotspare_model::ops::{
    AttentionSpec, KvCacheSpec, Ops, OpsError, Parallelism, RopeTable, StepLimits,
};
use hotspare_model::weights::{WeightDtype, WeightView};

const HIDDEN: usize = 256;
const FFN: usize = 576;
const NUM_LAYERS: usize = 5;
const VOCAB: usize = 2048;
const BLOCK_SIZE: usize = 16;
const MAX_LEN: usize = 2048;
const MAX_TOKENS: usize = 512;
const MAX_SEQS: usize = 64;
static SPEC: AttentionSpec = AttentionSpec {
    num_heads: 4,
    num_kv_heads: 2,
    head_dim: 64,
    scale: 0.125,
    sliding_window: None,
    logits_soft_cap: None,
    sinks: Vec::new(),
};
const QKV: usize = (SPEC.num_heads + 2 * SPEC.num_kv_heads) * SPEC.head_dim;

struct Layer {
    norms: [CpuVector; 2],
    qkv: CpuLinear,
    o: CpuLinear,
    gate_up: CpuLinear,
    down: CpuLinear,
}

struct Model {
    ops: CpuOps,
    table: CpuLinear,
    layers: Vec<Layer>,
    norm: CpuVector,
    rope: Arc<RopeTable>,
    kv: CpuKvCache,
    /// residual, normed, qkv, attended, projected, gate_up, hidden, last, logits.
    buffers: [CpuBuffer; 9],
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let num_threads = args.next().map_or(Ok(2), |arg| arg.parse())?;
    let context: usize = args.next().map_or(Ok(256), |arg| arg.parse())?;
    let mut model = Model::new(num_threads)?;
    println!(
        "{} with {num_threads} threads, context {context}",
        model.ops.isa().name()
    );
    for num_streams in [1, 2, 4, 8, 16, 32, 64] {
        let greedy = SamplingParams::greedy();
        let best = model.decode(num_streams, context, &greedy)?;
        let drawn = model.decode(num_streams, context, &SamplingParams::default())?;
        report(&format!("decode {num_streams}"), num_streams, best);
        report(&format!("decode {num_streams}, drawn"), num_streams, drawn);
    }
    for len in [32, 128, 512] {
        let best = model.prefill(len)?;
        report(&format!("prefill {len}"), len, best);
    }
    Ok(())
}

fn report(what: &str, num_tokens: usize, t: StepTimings) {
    let us = |ns: u64| ns as f64 / 1e3;
    println!(
        "{what:>18}: {:>8.0} tokens/s; step {:>7.1} us: linear {:>7.1}, attention {:>6.1}, \
         sample {:>6.1}",
        num_tokens as f64 / (t.total_ns as f64 / 1e9),
        us(t.total_ns),
        us(t.linear_ns),
        us(t.attention_ns),
        us(t.sample_ns)
    );
}

impl Model {
    fn new(num_threads: usize) -> Result<Self, OpsError> {
        let limits = StepLimits {
            max_num_batched_tokens: MAX_TOKENS,
            max_num_seqs: MAX_SEQS,
            max_model_len: MAX_LEN,
        };
        let mut ops = CpuOps::new(CpuOptions {
            num_threads,
            limits,
            bf16_activations: true,
        })?;
        let kv = ops.new_kv_cache(&KvCacheSpec {
            num_layers: NUM_LAYERS,
            num_blocks: MAX_SEQS * MAX_LEN / BLOCK_SIZE,
            block_size: BLOCK_SIZE,
            num_kv_heads: SPEC.num_kv_heads,
            head_dim: SPEC.head_dim,
            dtype: WeightDtype::F16,
        })?;
        let widths = [
            HIDDEN,
            HIDDEN,
            QKV,
            HIDDEN,
            HIDDEN,
            2 * FFN,
            FFN,
            HIDDEN,
            VOCAB,
        ];
        let mut buffers = Vec::new();
        for width in widths {
            buffers.push(ops.new_buffer(MAX_TOKENS, width)?);
        }
        let mut seed = 1;
        let table = linear(&mut ops, &mut seed, &[VOCAB], HIDDEN)?;
        let mut layers = Vec::new();
        for _ in 0..NUM_LAYERS {
            layers.push(Layer {
                norms: [ones(&mut ops)?, ones(&mut ops)?],
                qkv: linear(&mut ops, &mut seed, &[256, 128, 128], HIDDEN)?,
                o: linear(&mut ops, &mut seed, &[HIDDEN], HIDDEN)?,
                gate_up: linear(&mut ops, &mut seed, &[FFN, FFN], HIDDEN)?,
                down: linear(&mut ops, &mut seed, &[HIDDEN], FFN)?,
            });
        }
        let angles = (0..MAX_LEN * 32).map(|i| (i / 32) as f32 * 0.8f32.powi(i as i32 % 32));
        Ok(Self {
            table,
            layers,
            norm: ones(&mut ops)?,
            rope: Arc::new(RopeTable {
                rotary_dim: 64,
                is_interleaved: false,
                cos: angles.clone().map(f32::cos).collect(),
                sin: angles.map(f32::sin).collect(),
            }),
            kv,
            buffers: buffers.try_into().expect("nine widths"),
            ops,
        })
    }

    fn step(&mut self, batch: &Batch) -> Result<StepTimings, OpsError> {
        let Self {
            ops,
            table,
            layers,
            norm,
            rope,
            kv,
            buffers,
            ..
        } = self;
        let [
            residual,
            normed,
            qkv,
            attended,
            projected,
            gate_up,
            hidden,
            last,
            logits,
        ] = buffers;
        ops.begin(batch);
        ops.embed(table, 1.0, residual);
        ops.rms_norm(residual, &layers[0].norms[0], 1e-5, normed);
        for (index, layer) in layers.iter().enumerate() {
            ops.linear(normed, &layer.qkv, qkv);
            ops.rope_kv_write(qkv, rope, &SPEC, index, kv);
            ops.attention(qkv, &SPEC, index, kv, attended);
            ops.linear(attended, &layer.o, projected);
            ops.add_rms_norm(projected, residual, &layer.norms[1], 1e-5, normed);
            ops.linear(normed, &layer.gate_up, gate_up);
            ops.silu_mul(gate_up, hidden);
            ops.linear(hidden, &layer.down, projected);
            let next = layers.get(index + 1).map_or(&*norm, |next| &next.norms[0]);
            ops.add_rms_norm(projected, residual, next, 1e-5, normed);
        }
        ops.gather_logits_rows(normed, last);
        ops.linear(last, table, logits);
        ops.sample(logits)?;
        Ok(ops.take_timings())
    }

    /// Best step of `num_streams` sequences near position `context`.
    fn decode(
        &mut self,
        num_streams: usize,
        context: usize,
        sampling: &SamplingParams,
    ) -> Result<StepTimings, OpsError> {
        let mut best = StepTimings {
            total_ns: u64::MAX,
            ..StepTimings::default()
        };
        for i in 0..400 {
            let lens = vec![(context + i % 64, 1); num_streams];
            let mut batch = batch(&lens);
            batch.token_ids.fill(TOKEN_FROM_DEVICE);
            if i == 0 {
                batch.slot_inits = inits(num_streams, sampling);
            }
            let t = self.step(&batch)?;
            if t.total_ns < best.total_ns {
                best = t;
            }
        }
        Ok(best)
    }

    fn prefill(&mut self, len: usize) -> Result<StepTimings, OpsError> {
        let mut best = StepTimings {
            total_ns: u64::MAX,
            ..StepTimings::default()
        };
        for _ in 0..20 {
            let mut batch = batch(&[(0, len)]);
            batch.slot_inits = inits(1, &SamplingParams::greedy());
            let t = self.step(&batch)?;
            if t.total_ns < best.total_ns {
                best = t;
            }
        }
        Ok(best)
    }
}

fn inits(num_streams: usize, sampling: &SamplingParams) -> Vec<SlotInit> {
    let init = |slot| SlotInit {
        slot,
        token_ids: vec![slot % VOCAB as u32].into(),
        num_prompt_tokens: 1,
        sampling: Arc::new(sampling.clone()),
        stop: Arc::new(StopParams::default()),
    };
    (0..num_streams as u32).map(init).collect()
}

/// One row for each (computed tokens, tokens), each with blocks of its own.
fn batch(lens: &[(usize, usize)]) -> Batch {
    let mut batch = Batch::default();
    for (slot, &(num_computed, num_tokens)) in lens.iter().enumerate() {
        let (token, block) = (
            batch.token_ids.len() as u32,
            batch.block_tables.len() as u32,
        );
        let num_blocks = (num_computed + num_tokens).div_ceil(BLOCK_SIZE) as u32;
        let first = (slot * MAX_LEN / BLOCK_SIZE) as u32;
        batch
            .token_ids
            .extend((0..num_tokens as u32).map(|i| (i * 7 + 3) % VOCAB as u32));
        batch.block_tables.extend(first..first + num_blocks);
        batch.rows.push(Row {
            slot: slot as u32,
            num_computed_tokens: num_computed as u32,
            tokens: token..token + num_tokens as u32,
            blocks: block..block + num_blocks,
            samples: true,
            wants_prompt_logprobs: false,
            next_prompt_token: None,
        });
    }
    batch
}

/// Random bf16 weights within ±2^-5.
fn linear(
    ops: &mut CpuOps,
    seed: &mut u32,
    outputs: &[usize],
    k: usize,
) -> Result<CpuLinear, OpsError> {
    let mut views = Vec::new();
    for &n in outputs {
        let mut bytes = Vec::with_capacity(2 * n * k);
        for _ in 0..n * k {
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = ((*seed >> 8) as f32 / (1 << 23) as f32 - 1.0) / 32.0;
            bytes.extend_from_slice(&x.to_bits().to_le_bytes()[2..]);
        }
        let len = bytes.len();
        views.extend(WeightView::new(
            Arc::new(bytes),
            0..len,
            WeightDtype::Bf16,
            vec![n, k],
        ));
    }
    ops.new_linear(views, Parallelism::Replicated)
}

fn ones(ops: &mut CpuOps) -> Result<CpuVector, OpsError> {
    let bytes = [0x80, 0x3F].repeat(HIDDEN);
    let view = WeightView::new(
        Arc::new(bytes),
        0..2 * HIDDEN,
        WeightDtype::Bf16,
        vec![HIDDEN],
    );
    ops.new_vector(vec![view.expect("the shape fits the bytes")], 0.0)
}
