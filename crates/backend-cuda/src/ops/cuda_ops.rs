//! [`Ops`] for [`CudaOps`]: each operation as the launch of its kernel.
//!
//! Invariant: widths are checked before a launch, so that no kernel leaves its buffers.

use std::sync::Arc;

use hotspare_batch::{Batch, FAST_NUMERICS, RowOutput, StepTimings};
use hotspare_model::ops::{
    AttentionSpec, ExpertViews, KvCacheSpec, MoeSpec, Ops, OpsError, Parallelism, PipelinedOps,
    RopeTable, WarmUp,
};
use hotspare_model::weights::WeightView;

use super::buffer::{CudaBuffer, Deferred};
use super::kv_cache::CudaKvCache;
use super::memory::unsupported;
use super::product;
use super::sampling::{gather, soft_cap};
use super::state::CudaOps;
use super::weights::{CudaExperts, CudaLinear, CudaVector};
use crate::kernels::{Activation, Embed, HeadRmsNorm, Moe, RopeKvWrite, Rowwise, Sample, Variant};
use crate::{Address, Device, Dtype};

/// Of a decode step beside products and norms: rotation, attention, its merge, the activation.
const LAUNCHES_PER_LAYER: usize = 4;
/// Routes, the sorting by expert, the activation, the weighted sum; products are counted apart.
const LAUNCHES_OF_EXPERTS: usize = 4;

impl<D: Device> Ops for CudaOps<D> {
    type Buffer = CudaBuffer;
    type Linear = CudaLinear;
    type Vector = CudaVector;
    type Experts = CudaExperts;
    type KvCache = CudaKvCache;

    fn numerics_id(&self) -> String {
        let (dtype, kv) = (self.options.dtype.suffix(), self.kv_dtype.suffix());
        let order = match self.library.name() {
            Some(library) => format!("{FAST_NUMERICS}-{library}"),
            None => "invariant".to_owned(),
        };
        format!(
            "cuda-{}-{dtype}act-{kv}kv-{order}-r1",
            self.device.numerics_id()
        )
    }

    fn new_buffer(&mut self, max_rows: usize, width: usize) -> Result<CudaBuffer, OpsError> {
        self.alloc_rows("activations", self.options.dtype, max_rows, width)
    }

    fn new_f32_buffer(&mut self, max_rows: usize, width: usize) -> Result<CudaBuffer, OpsError> {
        self.alloc_rows("activations", Dtype::F32, max_rows, width)
    }

    fn new_logits_buffer(&mut self, max_rows: usize, width: usize) -> Result<CudaBuffer, OpsError> {
        if width == 0 || width > Sample::MAX_VOCAB_SIZE as usize {
            return Err(unsupported(format!("a vocabulary of {width}")));
        }
        self.vocab_size = width;
        self.max_logits = self.max_logits.min(max_rows.max(1));
        let mut buffer = self.alloc_rows("logits", Dtype::F32, self.max_logits, width)?;
        buffer.may_defer = true;
        Ok(buffer)
    }

    fn prepare_layer(
        &mut self,
        layer: usize,
        spec: &AttentionSpec,
        rope: &Arc<RopeTable>,
    ) -> Result<(), OpsError> {
        self.num_step_launches += LAUNCHES_PER_LAYER;
        self.layers.prepare(&mut self.device, layer, spec, rope)
    }

    fn fit_kv_blocks(&mut self, spec: &KvCacheSpec) -> Result<usize, OpsError> {
        self.fit_blocks(spec)
    }

    fn new_linear(
        &mut self,
        parts: Vec<WeightView>,
        _parallelism: Parallelism,
    ) -> Result<CudaLinear, OpsError> {
        let linear = self.loader().linear(&parts)?;
        self.num_step_launches += product::num_launches(self.options.dtype, &linear);
        Ok(linear)
    }

    fn new_vector(&mut self, parts: Vec<WeightView>, offset: f32) -> Result<CudaVector, OpsError> {
        self.num_step_launches += 1;
        self.loader().vector(&parts, offset)
    }

    fn new_experts(
        &mut self,
        experts: Vec<ExpertViews>,
        spec: &MoeSpec,
    ) -> Result<CudaExperts, OpsError> {
        if experts.len() != spec.num_experts || experts.len() > Moe::MAX_EXPERTS as usize {
            return Err(unsupported(format!("a layer of {} experts", experts.len())));
        }
        let experts = self
            .loader()
            .experts(&experts, spec.num_experts_per_token)?;
        let max_rows = self.options.limits.max_num_batched_tokens;
        let dtype = self.options.dtype;
        self.num_step_launches += LAUNCHES_OF_EXPERTS;
        for weight in [&experts.gate_up, &experts.down] {
            self.num_step_launches +=
                product::num_grouped_launches(dtype, weight, experts.num_experts);
        }
        self.moe_space
            .reserve(&mut self.device, dtype, max_rows, &experts)?;
        Ok(experts)
    }

    fn new_kv_cache(&mut self, spec: &KvCacheSpec) -> Result<CudaKvCache, OpsError> {
        self.alloc_kv_cache(spec)
    }

    fn begin_warm_up(&mut self) -> Option<WarmUp> {
        self.next_pass()
    }

    fn end_warm_up(&mut self) -> Result<(), OpsError> {
        self.end_pass()
    }

    fn begin(&mut self, batch: &Batch) {
        self.begin_step(batch);
    }

    fn embed(&mut self, table: &CudaLinear, scale: f32, out: &mut CudaBuffer) {
        let fits = out.rows.width == table.num_inputs;
        let num_rows = self.step.num_padded;
        if !self.resize("embed", fits, num_rows, out) {
            return;
        }
        let Some(token_ids) = self.work.as_ref().map(|w| self.step.ids_part.at(w.blob_at)) else {
            return self.fail("embed: no step was begun");
        };
        let (out, mut first_row) = (out.rows, 0);
        for (i, part) in table.parts.iter().enumerate() {
            let args = Embed {
                table: part.weights,
                token_ids,
                out: out.at,
                group_offsets: Address::NULL,
                format: part.format.code(),
                first_row,
                num_table_rows: part.num_rows as u32,
                width: out.width as u32,
                stride: out.stride as u32,
                scale,
                is_last: u32::from(i + 1 == table.parts.len()),
                rows_per_group: 0,
            };
            self.run(|device| args.launch(device, out.dtype, num_rows));
            first_row += part.num_rows as u32;
        }
    }

    fn rms_norm(&mut self, x: &CudaBuffer, weight: &CudaVector, eps: f32, out: &mut CudaBuffer) {
        self.norm(x, None, weight, eps, out);
    }

    fn add_rms_norm(
        &mut self,
        x: &CudaBuffer,
        residual: &mut CudaBuffer,
        weight: &CudaVector,
        eps: f32,
        out: &mut CudaBuffer,
    ) {
        self.norm(x, Some(&residual.rows), weight, eps, out);
    }

    fn linear(&mut self, x: &CudaBuffer, weight: &CudaLinear, out: &mut CudaBuffer) {
        let x = x.rows;
        let fits = x.width == weight.num_inputs && out.rows.width == weight.num_outputs;
        if fits && self.is_well() && out.may_defer && x.num_rows > out.max_rows {
            out.rows.num_rows = x.num_rows;
            out.deferred = Some(Deferred {
                x,
                weight: weight.clone(),
                soft_cap: None,
            });
            return;
        }
        if self.resize("linear", fits, x.num_rows, out) {
            let (space, out) = (self.space, out.rows);
            self.run_or_plan(|device, library| {
                product::linear(device, library, space, &x, weight, &out)
            });
        }
    }

    fn add_bias(&mut self, x: &mut CudaBuffer, bias: &CudaVector) {
        let rows = x.rows;
        if rows.width != bias.len {
            return self.fail("add_bias: widths do not fit");
        }
        let args = Rowwise {
            x: rows.at,
            bias: bias.at,
            index: Address::NULL,
            out: Address::NULL,
            width: rows.width as u32,
            stride: rows.stride as u32,
            cap: 0.0,
            unused: 0,
        };
        self.run(|device| args.add_bias(device, rows.dtype, rows.num_rows));
    }

    fn head_rms_norm(
        &mut self,
        qkv: &mut CudaBuffer,
        spec: &AttentionSpec,
        q_weight: &CudaVector,
        k_weight: &CudaVector,
        eps: f32,
    ) {
        let rows = qkv.rows;
        let width = (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim;
        if rows.width != width || [q_weight.len, k_weight.len] != [spec.head_dim; 2] {
            return self.fail("head_rms_norm: widths do not fit");
        }
        let args = HeadRmsNorm {
            qkv: rows.at,
            q_weight: q_weight.at,
            k_weight: k_weight.at,
            num_rows: rows.num_rows as u32,
            num_heads: spec.num_heads as u32,
            num_kv_heads: spec.num_kv_heads as u32,
            head_dim: spec.head_dim as u32,
            stride: rows.stride as u32,
            eps,
        };
        self.run(|device| args.launch(device, rows.dtype));
    }

    fn rope_kv_write(
        &mut self,
        qkv: &mut CudaBuffer,
        _rope: &Arc<RopeTable>,
        spec: &AttentionSpec,
        layer: usize,
        kv: &mut CudaKvCache,
    ) {
        let fits = self.attention_fits(qkv, spec, layer, kv);
        let (Some(on_device), Some(work), true) = (self.layers.get(layer), &self.work, fits) else {
            return self.fail("rope_kv_write: shapes do not fit");
        };
        let (rows, [k_cache, v_cache]) = (qkv.rows, kv.layer(layer));
        let args = RopeKvWrite {
            qkv: rows.at,
            positions: self.step.positions_part.at(work.blob_at),
            kv_slots: self.step.kv_slots_part.at(work.blob_at),
            cos: on_device.cos,
            sin: on_device.sin,
            k_cache,
            v_cache,
            block_stride: kv.shape.block_stride() as u64,
            num_positions: on_device.num_positions as u32,
            num_heads: spec.num_heads as u32,
            num_kv_heads: spec.num_kv_heads as u32,
            head_dim: spec.head_dim as u32,
            head_stride: kv.shape.head_stride as u32,
            block_size: kv.shape.block_size as u32,
            rotary_dim: on_device.rotary_dim as u32,
            is_interleaved: u32::from(on_device.is_interleaved),
            stride: rows.stride as u32,
            unused: 0,
        };
        let kv_dtype = kv.shape.dtype;
        self.run(|device| args.launch(device, rows.dtype, kv_dtype, rows.num_rows));
    }

    fn attention(
        &mut self,
        qkv: &CudaBuffer,
        spec: &AttentionSpec,
        layer: usize,
        kv: &CudaKvCache,
        out: &mut CudaBuffer,
    ) {
        let fits = self.attention_fits(qkv, spec, layer, kv)
            && out.rows.width == spec.num_heads * spec.head_dim;
        if !self.resize("attention", fits, qkv.rows.num_rows, out) {
            return;
        }
        let Some((mut args, plan)) = self.attention_args(qkv, layer, kv, &out.rows) else {
            return self.fail("attention: the layer was not prepared");
        };
        let Some(base) = self.work.as_ref().map(|work| work.blob_at) else {
            return;
        };
        let (plan, kv_dtype) = (self.step.plans[plan], kv.shape.dtype);
        self.run(|device| {
            args.items = plan.decode.at(base);
            args.launch(device, kv_dtype, Variant::Decode, plan.num_decode)?;
            args.items = plan.prefill.at(base);
            args.launch(device, kv_dtype, Variant::Prefill, plan.num_prefill)?;
            args.items = plan.merges.at(base);
            args.merge(device, plan.num_merges)
        });
    }

    fn silu_mul(&mut self, gate_up: &CudaBuffer, out: &mut CudaBuffer) {
        self.gate(Activation::Silu, gate_up, out);
    }

    fn gelu_tanh_mul(&mut self, gate_up: &CudaBuffer, out: &mut CudaBuffer) {
        self.gate(Activation::GeluTanh, gate_up, out);
    }

    fn soft_cap(&mut self, x: &mut CudaBuffer, cap: f32) {
        if let Some(deferred) = &mut x.deferred {
            deferred.soft_cap = Some(cap);
            return;
        }
        let rows = x.rows;
        self.run(|device| soft_cap(device, &rows, cap));
    }

    fn moe_route(&mut self, logits: &CudaBuffer, spec: &MoeSpec, routes: &mut CudaBuffer) {
        let rows = logits.rows;
        let fits = rows.width == spec.num_experts
            && routes.rows.width == spec.num_experts
            && routes.rows.dtype == Dtype::F32;
        if !self.resize("moe_route", fits, rows.num_rows, routes) {
            return;
        }
        // The kernel lays routes side by side.
        routes.rows.stride = spec.num_experts;
        let args = Moe {
            logits: rows.at,
            routes: routes.rows.at,
            offsets: Address::NULL,
            pair_rows: Address::NULL,
            pair_of: Address::NULL,
            pairs: Address::NULL,
            out: Address::NULL,
            num_rows: rows.num_rows as u32,
            num_experts: spec.num_experts as u32,
            num_chosen: spec.num_experts_per_token as u32,
            normalises: u32::from(spec.normalises),
            logits_stride: rows.stride as u32,
            width: 0,
            stride: 0,
            unused: 0,
        };
        self.run(|device| args.route(device, rows.dtype));
    }

    fn moe(
        &mut self,
        x: &CudaBuffer,
        routes: &CudaBuffer,
        experts: &CudaExperts,
        out: &mut CudaBuffer,
    ) {
        let (x, routes) = (x.rows, routes.rows);
        let fits = x.width == experts.hidden
            && out.rows.width == experts.hidden
            && routes.width == experts.num_experts
            && routes.num_rows == x.num_rows
            && x.num_rows <= self.options.limits.max_num_batched_tokens;
        if self.resize("moe", fits, x.num_rows, out) {
            let out = out.rows;
            let (space, moe_space) = (self.space, std::mem::take(&mut self.moe_space));
            self.run(|device| moe_space.run(device, space, experts, [&x, &routes, &out]));
            self.moe_space = moe_space;
        }
    }

    fn gather_logits_rows(&mut self, x: &CudaBuffer, out: &mut CudaBuffer) {
        let fits = x.rows.width == out.rows.width && x.rows.num_rows == self.step.num_padded;
        let num_rows = self.step.num_logits;
        if !self.resize("gather_logits_rows", fits, num_rows, out) {
            return;
        }
        let Some(index) = self
            .work
            .as_ref()
            .map(|w| self.step.logits_part.at(w.blob_at))
        else {
            return;
        };
        let (x, out) = (x.rows, out.rows);
        self.run(|device| gather(device, &x, index, &out));
    }

    fn sample(&mut self, logits: &mut CudaBuffer) -> Result<Vec<RowOutput>, OpsError> {
        self.queue_sample(logits)?;
        self.fetch_sample()
    }

    fn take_timings(&mut self) -> StepTimings {
        std::mem::take(&mut self.timings)
    }

    fn read_rows(&mut self, buffer: &CudaBuffer) -> Vec<f32> {
        match self.read_all(buffer) {
            Ok(values) => values,
            Err(error) => {
                self.fail(error.to_string());
                Vec::new()
            }
        }
    }
}

impl<D: Device> PipelinedOps for CudaOps<D> {
    fn start_sample(&mut self, logits: &mut CudaBuffer) -> Result<(), OpsError> {
        self.queue_sample(logits)
    }

    fn finish_sample(&mut self) -> Result<Vec<RowOutput>, OpsError> {
        self.fetch_sample()
    }
}
