//! `Ops` in plain loops over f32: the second oracle, after the golden files.
//!
//! Written for being obviously right; every product sums in index order in f64.
//!
//! Invariant: no cleverness.

use std::sync::Arc;

use hotspare_batch::{Batch, RowOutput, StepTimings, TOKEN_FROM_DEVICE};
use hotspare_sampler::{Scratch, SlotState, sample_masked_row, token_logprobs};

use super::naive_math::{dot, gate, gelu_tanh, norm, product, rotate, routes, silu, to_f32};
use crate::ops::{
    AttentionSpec, CopyKvBlocks, ExpertViews, KvCacheSpec, MoeSpec, Ops, OpsError, Parallelism,
    RopeTable,
};
use crate::weights::WeightView;

/// `[rows, width]`.
pub(crate) struct Matrix {
    width: usize,
    data: Vec<f32>,
}

impl Matrix {
    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks(self.width)
    }

    fn set(&mut self, rows: impl Iterator<Item = Vec<f32>>) {
        self.data = rows.flatten().collect();
    }
}

/// Keys and values by layer, then block and place in it.
pub(crate) struct NaiveKv {
    spec: KvCacheSpec,
    keys: Vec<Vec<Vec<f32>>>,
    values: Vec<Vec<Vec<f32>>>,
}

impl CopyKvBlocks for NaiveKv {}

/// A token of the batch: its row, its id, its position.
#[derive(Clone, Copy)]
struct Token {
    row: usize,
    id: u32,
    position: usize,
}

/// The naive backend.
pub(crate) struct NaiveOps {
    slots: Vec<SlotState>,
    batch: Batch,
    tokens: Vec<Token>,
}

impl NaiveOps {
    pub(crate) fn new(num_slots: usize) -> Self {
        Self {
            slots: vec![SlotState::default(); num_slots],
            batch: Batch::default(),
            tokens: Vec::new(),
        }
    }

    /// Indices in the batch of the tokens whose logits are needed.
    fn gathered(&self) -> Vec<usize> {
        let needed = |index: &usize| {
            let row = &self.batch.rows[self.tokens[*index].row];
            let is_last = *index + 1 == row.tokens.end as usize;
            row.wants_prompt_logprobs || (row.samples && is_last)
        };
        (0..self.tokens.len()).filter(needed).collect()
    }

    /// Where `position` of row `row` is stored.
    fn place(&self, row: usize, position: usize, spec: &KvCacheSpec) -> usize {
        let blocks = self.batch.row_blocks(&self.batch.rows[row]);
        blocks[position / spec.block_size] as usize * spec.block_size + position % spec.block_size
    }
}

impl Ops for NaiveOps {
    type Buffer = Matrix;
    type Linear = Matrix;
    type Vector = Vec<f32>;
    type Experts = Vec<[Matrix; 2]>;
    type KvCache = NaiveKv;

    fn numerics_id(&self) -> String {
        "naive".to_owned()
    }

    fn new_buffer(&mut self, _max_rows: usize, width: usize) -> Result<Matrix, OpsError> {
        Ok(Matrix {
            width,
            data: Vec::new(),
        })
    }

    fn new_linear(&mut self, parts: Vec<WeightView>, _: Parallelism) -> Result<Matrix, OpsError> {
        Ok(Matrix {
            width: parts[0].shape()[1],
            data: parts.iter().flat_map(to_f32).collect(),
        })
    }

    fn new_vector(&mut self, parts: Vec<WeightView>, offset: f32) -> Result<Vec<f32>, OpsError> {
        Ok(parts.iter().flat_map(to_f32).map(|x| x + offset).collect())
    }

    fn new_experts(
        &mut self,
        experts: Vec<ExpertViews>,
        _: &MoeSpec,
    ) -> Result<Vec<[Matrix; 2]>, OpsError> {
        let mut linear = |parts| self.new_linear(parts, Parallelism::Replicated);
        experts
            .into_iter()
            .map(|e| Ok([linear(e.gate_up)?, linear(vec![e.down])?]))
            .collect()
    }

    fn new_kv_cache(&mut self, spec: &KvCacheSpec) -> Result<NaiveKv, OpsError> {
        let layer = vec![Vec::new(); spec.num_blocks * spec.block_size];
        Ok(NaiveKv {
            spec: spec.clone(),
            keys: vec![layer.clone(); spec.num_layers],
            values: vec![layer; spec.num_layers],
        })
    }

    fn begin(&mut self, batch: &Batch) {
        for init in &batch.slot_inits {
            self.slots[init.slot as usize].reset(init);
        }
        self.tokens.clear();
        for (index, row) in batch.rows.iter().enumerate() {
            let last = self.slots[row.slot as usize].last_token();
            for (offset, &id) in batch.row_tokens(row).iter().enumerate() {
                self.tokens.push(Token {
                    row: index,
                    id: if id == TOKEN_FROM_DEVICE {
                        last.unwrap()
                    } else {
                        id
                    },
                    position: row.num_computed_tokens as usize + offset,
                });
            }
        }
        self.batch = batch.clone();
    }

    fn embed(&mut self, table: &Matrix, scale: f32, out: &mut Matrix) {
        let row = |token: &Token| table.rows().nth(token.id as usize).unwrap();
        out.set(
            self.tokens
                .iter()
                .map(|token| row(token).iter().map(|x| x * scale).collect()),
        );
    }

    fn rms_norm(&mut self, x: &Matrix, weight: &Vec<f32>, eps: f32, out: &mut Matrix) {
        out.set(x.rows().map(|row| norm(row, weight, eps)));
    }

    fn add_rms_norm(
        &mut self,
        x: &Matrix,
        residual: &mut Matrix,
        weight: &Vec<f32>,
        eps: f32,
        out: &mut Matrix,
    ) {
        residual
            .data
            .iter_mut()
            .zip(&x.data)
            .for_each(|(r, x)| *r += x);
        out.set(residual.rows().map(|row| norm(row, weight, eps)));
    }

    fn linear(&mut self, x: &Matrix, weight: &Matrix, out: &mut Matrix) {
        out.set(x.rows().map(|x| product(weight.rows(), x)));
    }

    fn add_bias(&mut self, x: &mut Matrix, bias: &Vec<f32>) {
        for row in x.data.chunks_mut(x.width) {
            row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
    }

    fn head_rms_norm(
        &mut self,
        qkv: &mut Matrix,
        spec: &AttentionSpec,
        q_weight: &Vec<f32>,
        k_weight: &Vec<f32>,
        eps: f32,
    ) {
        for row in qkv.data.chunks_mut(qkv.width) {
            let heads = row.chunks_mut(spec.head_dim).enumerate();
            for (index, head) in heads.take(spec.num_heads + spec.num_kv_heads) {
                let weight = if index < spec.num_heads {
                    q_weight
                } else {
                    k_weight
                };
                head.copy_from_slice(&norm(head, weight, eps));
            }
        }
    }

    fn rope_kv_write(
        &mut self,
        qkv: &mut Matrix,
        rope: &Arc<RopeTable>,
        spec: &AttentionSpec,
        layer: usize,
        kv: &mut NaiveKv,
    ) {
        let (q, k) = (
            spec.num_heads * spec.head_dim,
            spec.num_kv_heads * spec.head_dim,
        );
        for (token, row) in self.tokens.iter().zip(qkv.data.chunks_mut(qkv.width)) {
            for head in row[..q + k].chunks_mut(spec.head_dim) {
                rotate(head, rope, token.position);
            }
            let place = self.place(token.row, token.position, &kv.spec);
            kv.keys[layer][place] = row[q..q + k].to_vec();
            kv.values[layer][place] = row[q + k..].to_vec();
        }
    }

    fn attention(
        &mut self,
        qkv: &Matrix,
        spec: &AttentionSpec,
        layer: usize,
        kv: &NaiveKv,
        out: &mut Matrix,
    ) {
        let group = spec.num_heads / spec.num_kv_heads;
        let head = |token: &Token, row: &[f32], head: usize| {
            let q = &row[head * spec.head_dim..][..spec.head_dim];
            let kv_head = head / group * spec.head_dim;
            let window = spec.sliding_window.unwrap_or(usize::MAX);
            let places: Vec<usize> = ((token.position + 1).saturating_sub(window)..=token.position)
                .map(|position| self.place(token.row, position, &kv.spec))
                .collect();
            let score = |&place: &usize| {
                let score = dot(q, &kv.keys[layer][place][kv_head..]) * f64::from(spec.scale);
                match spec.logits_soft_cap.map(f64::from) {
                    Some(cap) => cap * (score / cap).tanh(),
                    None => score,
                }
            };
            let scores: Vec<f64> = places.iter().map(score).collect();
            let sink = spec.sinks.get(head).map(|&sink| f64::from(sink));
            let max = scores.iter().copied().chain(sink).fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let sink = sink.map_or(0.0, |sink| (sink - max).exp());
            let total: f64 = weights.iter().sum::<f64>() + sink;
            let mut sum = vec![0.0; spec.head_dim];
            for (place, weight) in places.iter().zip(&weights) {
                let value = &kv.values[layer][*place][kv_head..];
                sum.iter_mut()
                    .zip(value)
                    .for_each(|(s, &v)| *s += weight / total * f64::from(v));
            }
            sum.into_iter().map(|x| x as f32)
        };
        let rows = self.tokens.iter().zip(qkv.rows());
        out.set(rows.map(|(token, row)| {
            (0..spec.num_heads)
                .flat_map(|h| head(token, row, h))
                .collect()
        }));
    }

    fn silu_mul(&mut self, gate_up: &Matrix, out: &mut Matrix) {
        out.set(gate_up.rows().map(|row| gate(row, silu)));
    }

    fn gelu_tanh_mul(&mut self, gate_up: &Matrix, out: &mut Matrix) {
        out.set(gate_up.rows().map(|row| gate(row, gelu_tanh)));
    }

    fn soft_cap(&mut self, x: &mut Matrix, cap: f32) {
        x.data.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
    }

    fn moe_route(&mut self, logits: &Matrix, spec: &MoeSpec, out: &mut Matrix) {
        out.set(logits.rows().map(|row| routes(row, spec)));
    }

    fn moe(&mut self, x: &Matrix, routes: &Matrix, experts: &Vec<[Matrix; 2]>, out: &mut Matrix) {
        out.set(x.rows().zip(routes.rows()).map(|(x, routes)| {
            let mut sum = vec![0.0; x.len()];
            for ([gate_up, down], route) in experts.iter().zip(routes).filter(|(_, r)| **r != 0.0) {
                let hidden = gate(&product(gate_up.rows(), x), silu);
                let result = product(down.rows(), &hidden);
                sum.iter_mut()
                    .zip(result)
                    .for_each(|(s, y)| *s += route * y);
            }
            sum
        }));
    }

    fn gather_logits_rows(&mut self, x: &Matrix, out: &mut Matrix) {
        let rows: Vec<&[f32]> = x.rows().collect();
        out.set(
            self.gathered()
                .into_iter()
                .map(|index| rows[index].to_vec()),
        );
    }

    fn sample(&mut self, logits: &mut Matrix) -> Result<Vec<RowOutput>, OpsError> {
        let mut outputs: Vec<RowOutput> = self
            .batch
            .rows
            .iter()
            .map(|row| RowOutput {
                slot: row.slot,
                ..RowOutput::default()
            })
            .collect();
        let gathered = self.gathered();
        for (index, logits) in gathered
            .into_iter()
            .zip(logits.data.chunks_mut(logits.width))
        {
            let token = self.tokens[index];
            let row = &self.batch.rows[token.row];
            let output = &mut outputs[token.row];
            let slot = &mut self.slots[row.slot as usize];
            let is_last = index + 1 == row.tokens.end as usize;
            let position = token.position as u32 + 1;
            let next = match is_last {
                true => row.next_prompt_token,
                false => Some(self.tokens[index + 1].id),
            };
            if let (true, Some(next)) = (row.wants_prompt_logprobs, next) {
                let num = slot.sampling().num_prompt_logprobs.unwrap_or(0);
                match token_logprobs(logits, next, position, num, &mut Vec::new()) {
                    Ok(logprobs) => output.prompt_logprobs.push(logprobs),
                    Err(error) => output.error = Some(error),
                }
            }
            if is_last && row.samples {
                let mask = self.batch.token_mask(token.row);
                match sample_masked_row(logits, slot, mask, position, &mut Scratch::default()) {
                    Ok(sampled) => {
                        output.token_ids.push(sampled.token);
                        output.logprobs.extend(sampled.logprobs);
                    }
                    Err(error) => output.error = Some(error),
                }
            }
        }
        Ok(outputs)
    }

    fn take_timings(&mut self) -> StepTimings {
        StepTimings::default()
    }

    fn read_rows(&mut self, buffer: &Matrix) -> Vec<f32> {
        buffer.data.clone()
    }
}
