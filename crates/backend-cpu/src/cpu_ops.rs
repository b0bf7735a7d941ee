//! [`CpuOps`]: the operations of a model on this machine's cores.
//!
//! A batch that breaks a bound (a block outside the pool, more tokens than buffers hold) is a fault
//! of the device, reported by `sample`; until the next `begin` every operation is then empty.
//!
//! Invariant: rows in use are equal in all buffers of a step, up to `gather_logits_rows`.

use std::sync::Arc;
use std::time::Instant;

use hotspare_batch::{Batch, RowOutput, StepTimings};
use hotspare_model::ops::{
    AttentionSpec, ExpertViews, KvCacheSpec, MoeSpec, Ops, OpsError, Parallelism, RopeTable,
    StepLimits,
};
use hotspare_model::weights::{WeightDtype, WeightView};

use crate::attention::{self, AttentionCall, Item};
use crate::buffer::CpuBuffer;
use crate::elementwise::{self, HeadNorm, NormRows};
use crate::kv_cache::{CpuKvCache, KvPlace, KvPools, KvRows};
use crate::linear::{self, Arithmetic, CpuLinear, PackSpace};
use crate::moe::{self, CpuExperts, Machine, MoeSpace};
use crate::options::CpuOptions;
use crate::rope::{self, RopeRows};
use crate::sampling::Sampling;
use crate::simd::Isa;
use crate::step::{Step, StepBounds};
use crate::vector::CpuVector;
use crate::workers::Workers;

/// The CPU backend.
#[derive(Debug)]
pub struct CpuOps {
    arithmetic: Arithmetic,
    workers: Workers,
    limits: StepLimits,
    /// Of the KV cache made last.
    block_size: usize,
    num_blocks: usize,
    kv_dtype: WeightDtype,
    /// Of all linear layers, and of the experts that compute a token: what a step's work is
    /// estimated from.
    num_weights: usize,
    step: Step,
    sampling: Sampling,
    items: Vec<Item>,
    kv_places: Vec<KvPlace>,
    pack_space: PackSpace,
    moe_space: MoeSpace,
    timings: StepTimings,
    step_start: Option<Instant>,
    fault: Option<String>,
}

impl CpuOps {
    /// A backend on the best instruction set of this CPU.
    ///
    /// # Errors
    /// None today; threads start with the first step.
    pub fn new(options: CpuOptions) -> Result<Self, OpsError> {
        Ok(Self::with_isa(options, Isa::detect()))
    }

    /// As [`CpuOps::new`], on an instruction set of the caller's choice. The bits are the same on
    /// all.
    pub fn with_isa(options: CpuOptions, isa: Isa) -> Self {
        Self {
            arithmetic: Arithmetic {
                isa,
                bf16_activations: options.bf16_activations,
            },
            workers: Workers::new(options.num_threads),
            sampling: Sampling::new(options.limits.max_num_seqs),
            limits: options.limits,
            block_size: 1,
            num_blocks: 0,
            kv_dtype: WeightDtype::F32,
            num_weights: 0,
            step: Step::default(),
            items: Vec::new(),
            kv_places: Vec::new(),
            pack_space: PackSpace::default(),
            moe_space: MoeSpace::default(),
            timings: StepTimings::default(),
            step_start: None,
            fault: None,
        }
    }

    /// The instruction set in use, for logs.
    pub fn isa(&self) -> Isa {
        self.arithmetic.isa
    }

    /// Work of an elementwise operation, estimated.
    fn elementwise_ns(num_floats: usize) -> usize {
        num_floats / 4
    }

    fn fail(&mut self, what: impl Into<String>) {
        self.fault.get_or_insert_with(|| what.into());
        self.step.clear();
    }
}

/// Puts as many rows of `out` in use as the step has, or faults.
macro_rules! rows_of {
    ($self:ident, $out:ident, $num_rows:expr, $width:expr, $what:literal) => {{
        let (num_rows, width): (usize, usize) = ($num_rows, $width);
        if $self.fault.is_some() || $out.width() != width {
            $self.fail(concat!($what, ": widths do not fit"));
            let _ = $out.resize(0);
            return;
        }
        match $out.resize(num_rows) {
            Some(rows) => rows,
            None => return $self.fail(concat!($what, ": more rows than its buffer holds")),
        }
    }};
}

/// `out` = the gated halves of each row of `gate_up`.
macro_rules! gated {
    ($self:ident, $kernel:ident, $gate_up:ident, $out:ident) => {{
        let width = $gate_up.width() / 2;
        let num_rows = $gate_up.num_rows();
        let rows = rows_of!($self, $out, num_rows, width, "gated activation");
        let work_ns = Self::elementwise_ns(4 * rows.len());
        let isa = $self.arithmetic.isa;
        $self.workers.rows(rows, width, work_ns, &|first, rows| {
            let gate_up = &$gate_up.rows()[first * 2 * width..][..2 * rows.len()];
            elementwise::$kernel(isa, gate_up, width, rows);
        });
    }};
}

impl Ops for CpuOps {
    type Buffer = CpuBuffer;
    type Linear = CpuLinear;
    type Vector = CpuVector;
    type Experts = CpuExperts;
    type KvCache = CpuKvCache;

    fn numerics_id(&self) -> String {
        // The instruction set does not enter: all paths compute the same bits. A block size that
        // tiles of sixteen keys do not divide changes where attention splits.
        let kv = match self.kv_dtype {
            WeightDtype::F16 => "f16kv",
            WeightDtype::Q8_0 => "q8kv",
            _ => "f32kv",
        };
        let activations = match self.arithmetic.bf16_activations {
            true => "-bf16act",
            false => "",
        };
        match self.block_size {
            size if size.is_multiple_of(crate::simd::LANES) || self.num_blocks == 0 => {
                format!("cpu-lanes16{activations}-{kv}-r4")
            }
            size => format!("cpu-lanes16{activations}-{kv}-block{size}-r4"),
        }
    }

    fn new_buffer(&mut self, max_rows: usize, width: usize) -> Result<CpuBuffer, OpsError> {
        CpuBuffer::new(max_rows, width)
    }

    fn new_linear(
        &mut self,
        parts: Vec<WeightView>,
        _parallelism: Parallelism,
    ) -> Result<CpuLinear, OpsError> {
        let linear = CpuLinear::new(parts)?;
        self.num_weights += linear.num_outputs() * linear.num_inputs();
        Ok(linear)
    }

    fn new_vector(&mut self, parts: Vec<WeightView>, offset: f32) -> Result<CpuVector, OpsError> {
        CpuVector::new(&parts, offset)
    }

    fn new_experts(
        &mut self,
        experts: Vec<ExpertViews>,
        spec: &MoeSpec,
    ) -> Result<CpuExperts, OpsError> {
        let experts = CpuExperts::new(experts)?;
        let max_rows = self.limits.max_num_batched_tokens;
        self.moe_space.reserve(max_rows, &experts)?;
        self.num_weights += spec.num_experts_per_token * experts.num_weights_per_expert();
        Ok(experts)
    }

    fn new_kv_cache(&mut self, spec: &KvCacheSpec) -> Result<CpuKvCache, OpsError> {
        let cache = CpuKvCache::new(spec)?;
        (self.block_size, self.num_blocks) = (spec.block_size, spec.num_blocks);
        self.kv_dtype = spec.dtype;
        Ok(cache)
    }

    fn begin(&mut self, batch: &Batch) {
        self.step_start = Some(Instant::now());
        self.fault = None;
        self.step.clear();
        let step_ns = linear::estimate_ns(batch.num_tokens(), self.num_weights);
        if let Err(error) = self.workers.begin_step(step_ns) {
            return self.fail(error.to_string());
        }
        for init in &batch.slot_inits {
            if !self.sampling.reset(init) {
                return self.fail(format!("slot {} does not exist", init.slot));
            }
        }
        let bounds = StepBounds {
            block_size: self.block_size,
            num_blocks: self.num_blocks,
            max_num_batched_tokens: self.limits.max_num_batched_tokens,
        };
        if let Err(what) = self.step.take(batch, bounds, self.sampling.slots()) {
            self.fail(what);
        }
    }

    fn embed(&mut self, table: &CpuLinear, scale: f32, out: &mut CpuBuffer) {
        let width = table.num_inputs();
        let tokens = self.step.token_ids();
        let rows = rows_of!(self, out, tokens.len(), width, "embed");
        let work_ns = Self::elementwise_ns(rows.len());
        self.workers.rows(rows, width, work_ns, &|first, rows| {
            for (row, &token) in rows.chunks_exact_mut(width).zip(&tokens[first..]) {
                table.embed_row(token as usize, scale, row);
            }
        });
    }

    fn rms_norm(&mut self, x: &CpuBuffer, weight: &CpuVector, eps: f32, out: &mut CpuBuffer) {
        let width = weight.len();
        let fits = usize::from(x.width() == width) * width;
        let rows = rows_of!(self, out, x.num_rows(), fits, "rms_norm");
        let work_ns = Self::elementwise_ns(rows.len());
        let isa = self.arithmetic.isa;
        self.workers.rows(rows, width, work_ns, &|first, rows| {
            let x = &x.rows()[first * width..][..rows.len()];
            elementwise::rms_norm(isa, &NormRows { x, weight, eps }, rows);
        });
    }

    fn add_rms_norm(
        &mut self,
        x: &CpuBuffer,
        residual: &mut CpuBuffer,
        weight: &CpuVector,
        eps: f32,
        out: &mut CpuBuffer,
    ) {
        let width = weight.len();
        let same =
            x.width() == width && residual.width() == width && residual.num_rows() == x.num_rows();
        let fits = usize::from(same) * width;
        let rows = rows_of!(self, out, x.num_rows(), fits, "add_rms_norm");
        let work_ns = Self::elementwise_ns(2 * rows.len());
        let isa = self.arithmetic.isa;
        let outs = [residual.rows_mut(), rows];
        self.workers
            .rows2(outs, [width; 2], work_ns, usize::MAX, &|first,
                                                            [
                residual,
                rows,
            ]| {
                let x = &x.rows()[first * width..][..rows.len()];
                elementwise::add_rms_norm(isa, &NormRows { x, weight, eps }, residual, rows);
            });
    }

    fn linear(&mut self, x: &CpuBuffer, weight: &CpuLinear, out: &mut CpuBuffer) {
        let start = Instant::now();
        let fits = usize::from(x.width() == weight.num_inputs()) * weight.num_outputs();
        let rows = rows_of!(self, out, x.num_rows(), fits, "linear");
        let (arithmetic, space) = (self.arithmetic, &mut self.pack_space);
        if let Err(error) = weight.forward(arithmetic, &self.workers, space, x.rows(), rows) {
            return self.fail(error.to_string());
        }
        self.timings.linear_ns += elapsed_ns(start);
    }

    fn add_bias(&mut self, x: &mut CpuBuffer, bias: &CpuVector) {
        let width = bias.len();
        if x.width() != width {
            return self.fail("add_bias: widths do not fit");
        }
        let work_ns = Self::elementwise_ns(x.rows().len());
        let isa = self.arithmetic.isa;
        self.workers.rows(x.rows_mut(), width, work_ns, &|_, rows| {
            elementwise::add_bias(isa, bias, rows);
        });
    }

    fn head_rms_norm(
        &mut self,
        qkv: &mut CpuBuffer,
        spec: &AttentionSpec,
        q_weight: &CpuVector,
        k_weight: &CpuVector,
        eps: f32,
    ) {
        let (num_heads, num_kv_heads) = (spec.num_heads, spec.num_kv_heads);
        let width = (num_heads + 2 * num_kv_heads) * spec.head_dim;
        let is_head = |weight: &CpuVector| weight.len() == spec.head_dim;
        if qkv.width() != width || !is_head(q_weight) || !is_head(k_weight) {
            return self.fail("head_rms_norm: widths do not fit");
        }
        let args = HeadNorm {
            num_heads,
            num_kv_heads,
            width,
            q_weight,
            k_weight,
            eps,
        };
        let work_ns = Self::elementwise_ns(qkv.rows().len());
        let isa = self.arithmetic.isa;
        self.workers
            .rows(qkv.rows_mut(), width, work_ns, &|_, rows| {
                elementwise::head_rms_norm(isa, &args, rows);
            });
    }

    fn rope_kv_write(
        &mut self,
        qkv: &mut CpuBuffer,
        rope: &Arc<RopeTable>,
        spec: &AttentionSpec,
        layer: usize,
        kv: &mut CpuKvCache,
    ) {
        let start = Instant::now();
        if let Err(what) = attention::check(qkv, spec, layer, kv, &self.step) {
            return self.fail(what);
        }
        if rope.rotary_dim > spec.head_dim {
            return self.fail("rope: more dimensions than a head has");
        }
        let width = qkv.width();
        let work_ns = Self::elementwise_ns(qkv.rows().len());
        let (isa, positions) = (self.arithmetic.isa, self.step.positions());
        self.workers
            .rows(qkv.rows_mut(), width, work_ns, &|first, rows| {
                let args = RopeRows {
                    table: rope,
                    head_dim: spec.head_dim,
                    num_rotated_heads: spec.num_heads + spec.num_kv_heads,
                    width,
                    positions: &positions[first..],
                };
                rope::rotate_rows(isa, &args, rows);
            });
        self.step.kv_places(self.block_size, &mut self.kv_places);
        let rows = KvRows {
            rows: qkv.rows(),
            width,
            keys_at: spec.num_heads * spec.head_dim,
        };
        kv.write(&self.workers, layer, &self.kv_places, rows);
        self.timings.attention_ns += elapsed_ns(start);
    }

    fn attention(
        &mut self,
        qkv: &CpuBuffer,
        spec: &AttentionSpec,
        layer: usize,
        kv: &CpuKvCache,
        out: &mut CpuBuffer,
    ) {
        let start = Instant::now();
        if let Err(what) = attention::check(qkv, spec, layer, kv, &self.step) {
            return self.fail(what);
        }
        let width = spec.num_heads * spec.head_dim;
        let rows = rows_of!(self, out, qkv.num_rows(), width, "attention");
        macro_rules! attend {
            ($pool:expr) => {{
                let call = AttentionCall {
                    spec,
                    geometry: kv.geometry(),
                    pool: $pool,
                    qkv: qkv.rows(),
                    step: &self.step,
                };
                attention::attend(
                    self.arithmetic.isa,
                    &self.workers,
                    &call,
                    &mut self.items,
                    rows,
                );
            }};
        }
        match kv.pools() {
            KvPools::F32(layers) => attend!(&layers[layer]),
            KvPools::F16(layers) => attend!(&layers[layer]),
            KvPools::Q8(layers) => attend!(&layers[layer]),
        }
        self.timings.attention_ns += elapsed_ns(start);
    }

    fn silu_mul(&mut self, gate_up: &CpuBuffer, out: &mut CpuBuffer) {
        gated!(self, silu_mul, gate_up, out);
    }

    fn gelu_tanh_mul(&mut self, gate_up: &CpuBuffer, out: &mut CpuBuffer) {
        gated!(self, gelu_tanh_mul, gate_up, out);
    }

    fn soft_cap(&mut self, x: &mut CpuBuffer, cap: f32) {
        let width = x.width();
        let work_ns = Self::elementwise_ns(4 * x.rows().len());
        let isa = self.arithmetic.isa;
        self.workers.rows(x.rows_mut(), width, work_ns, &|_, rows| {
            elementwise::soft_cap(isa, cap, rows);
        });
    }

    fn moe_route(&mut self, logits: &CpuBuffer, spec: &MoeSpec, routes: &mut CpuBuffer) {
        let fits = usize::from(logits.width() == spec.num_experts) * spec.num_experts;
        let rows = rows_of!(self, routes, logits.num_rows(), fits, "moe_route");
        rows.copy_from_slice(logits.rows());
        moe::route(self.arithmetic.isa, spec, rows);
    }

    fn moe(
        &mut self,
        x: &CpuBuffer,
        routes: &CpuBuffer,
        experts: &CpuExperts,
        out: &mut CpuBuffer,
    ) {
        let start = Instant::now();
        let same = x.width() == experts.hidden()
            && routes.width() == experts.num_experts()
            && routes.num_rows() == x.num_rows();
        let fits = usize::from(same) * experts.hidden();
        let rows = rows_of!(self, out, x.num_rows(), fits, "moe");
        let mut machine = Machine {
            arithmetic: self.arithmetic,
            workers: &self.workers,
            pack_space: &mut self.pack_space,
        };
        let inputs = [x.rows(), routes.rows()];
        if let Err(error) = moe::moe(&mut machine, &mut self.moe_space, experts, inputs, rows) {
            return self.fail(error.to_string());
        }
        self.timings.linear_ns += elapsed_ns(start);
    }

    fn gather_logits_rows(&mut self, x: &CpuBuffer, out: &mut CpuBuffer) {
        let tokens = self.step.logits_tokens();
        let width = x.width();
        let rows = rows_of!(self, out, tokens.len(), width, "gather_logits_rows");
        if x.num_rows() != self.step.token_ids().len() {
            return self.fail("gather_logits_rows: not a row for each token");
        }
        for (row, &token) in rows.chunks_exact_mut(width.max(1)).zip(tokens) {
            row.copy_from_slice(&x.rows()[token as usize * width..][..width]);
        }
    }

    fn sample(&mut self, logits: &mut CpuBuffer) -> Result<Vec<RowOutput>, OpsError> {
        let start = Instant::now();
        if self.fault.is_none() && logits.num_rows() != self.step.logits_tokens().len() {
            self.fail("sample: not a row of logits for each one needed");
        }
        if let Some(what) = self.fault.take() {
            return Err(OpsError::Device(what));
        }
        let vocab_size = logits.width();
        let outputs = self
            .sampling
            .run(&self.workers, &self.step, vocab_size, logits.rows_mut());
        self.timings.sample_ns += elapsed_ns(start);
        if let Some(step_start) = self.step_start.take() {
            self.timings.total_ns += elapsed_ns(step_start);
        }
        Ok(outputs)
    }

    fn take_timings(&mut self) -> StepTimings {
        std::mem::take(&mut self.timings)
    }

    fn read_rows(&mut self, buffer: &CpuBuffer) -> Vec<f32> {
        buffer.rows().to_vec()
    }
}

fn elapsed_ns(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
