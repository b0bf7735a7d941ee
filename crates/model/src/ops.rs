//! The operations a model is written in; each backend implements them once, each family uses them.
//!
//! A model's forward pass is a list of operations on named buffers. Buffers are `[rows, width]`,
//! allocated once at load for the largest step; `begin` says how many rows are in use. Rows of a
//! batch's tokens are concatenated in batch order.
//!
//! Invariant (batch invariance, DESIGN 3): each row of every operation's result is a function of
//! that row's own inputs alone, bit for bit: one order over K in a product, attention splits
//! counted from position 0.

use std::sync::Arc;

use hotspare_batch::{Batch, BlockId, RowOutput, StepTimings};

use crate::weights::{WeightDtype, WeightView};

/// How a linear layer is cut under tensor parallelism. One device ignores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parallelism {
    /// Output rows are divided: q, k, v, gate, up.
    Column,
    /// Input columns are divided and results summed: o, down.
    Row,
    /// Every device holds all of it.
    Replicated,
}

/// Which keys a layer's attention sees, and how scores are shaped.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on q·k.
    pub scale: f32,
    /// Only the last so many positions are seen, the own one included.
    pub sliding_window: Option<usize>,
    /// `cap * tanh(score / cap)`.
    pub logits_soft_cap: Option<f32>,
    /// For each query head a score without a key, which takes its share of the softmax and adds
    /// nothing (an attention sink: Xiao et al. 2023, in the learned form of gpt-oss); empty: none.
    pub sinks: Vec<f32>,
}

/// Rotary embedding of one kind of layer: angle tables, computed at load in f64 and stored in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    /// Leading dimensions of a head that are rotated; even.
    pub rotary_dim: usize,
    /// Whether dimensions `2i` and `2i + 1` turn together, and not `i` and `i + rotary_dim / 2`.
    pub is_interleaved: bool,
    /// `[max_position, rotary_dim / 2]`, scaled by the attention factor where the scaling has one.
    pub cos: Vec<f32>,
    /// As `cos`.
    pub sin: Vec<f32>,
}

/// How tokens are spread over the experts of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoeSpec {
    /// Experts of the layer.
    pub num_experts: usize,
    /// Experts that compute each token; from 1 to `num_experts`, at most [`MAX_EXPERTS_PER_TOKEN`].
    pub num_experts_per_token: usize,
    /// Whether the chosen experts' weights are divided by their sum.
    pub normalises: bool,
}

/// Bound on [`MoeSpec::num_experts_per_token`]: four times what real models use.
pub const MAX_EXPERTS_PER_TOKEN: usize = 32;

/// One expert: a SiLU-gated feed-forward layer.
#[derive(Clone, Debug)]
pub struct ExpertViews {
    /// gate and up, each `[width, hidden]`.
    pub gate_up: Vec<WeightView>,
    /// `[hidden, width]`.
    pub down: WeightView,
}

/// Shape of the paged KV cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvCacheSpec {
    /// Layers with a cache of their own.
    pub num_layers: usize,
    /// Blocks in the pool, shared by all layers (block `b` exists in each).
    pub num_blocks: usize,
    /// Tokens a block.
    pub block_size: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// How keys and values are stored.
    pub dtype: WeightDtype,
}

/// A failure while loading onto the device, or of the device itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpsError {
    /// A weight's dtype or shape has no kernel on this backend.
    #[error("{backend} cannot run {what}")]
    Unsupported {
        /// The backend's name.
        backend: &'static str,
        /// What it cannot run, as a noun phrase.
        what: String,
    },
    /// Not enough memory: what was needed and for what.
    #[error("{what} needs {needed_bytes} bytes: {reason}")]
    OutOfMemory {
        /// What was being allocated.
        what: &'static str,
        /// Its size.
        needed_bytes: usize,
        /// What the allocator said.
        reason: String,
    },
    /// The device failed; it cannot be used again.
    #[error("device error: {0}")]
    Device(String),
}

/// Limits that size the buffers, fixed at load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Tokens in a batch at most.
    pub max_num_batched_tokens: usize,
    /// Rows in a batch, and slots, at most.
    pub max_num_seqs: usize,
    /// Positions in a sequence at most.
    pub max_model_len: usize,
}

/// Blocks of a KV cache as bytes: how they reach another engine of the same numerics.
pub trait CopyKvBlocks {
    /// Bytes of a block over all layers; `None` where blocks cannot be copied.
    fn block_bytes(&self) -> Option<usize> {
        None
    }

    /// Appends block `block` to `out`. Does nothing where blocks cannot be copied.
    fn save_block(&self, _block: BlockId, _out: &mut Vec<u8>) {}

    /// Fills block `block` with what [`Self::save_block`] of an equal cache gave. Does nothing
    /// where blocks cannot be copied.
    fn load_block(&mut self, _block: BlockId, _bytes: &[u8]) {}
}

/// How many of the forward passes at load were begun before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmUp {
    /// So many.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}

/// The operations. One thread owns an implementation; it may use others inside an operation.
///
/// Load-time functions allocate; step functions do not, and cannot fail except through the device,
/// which [`Ops::sample`] reports.
pub trait Ops: Send + 'static {
    /// Activations, `[max_rows, width]`.
    type Buffer: Send;
    /// A linear layer's weights, `[out, in]`, in any format.
    type Linear: Send;
    /// A norm's weights or a bias, `[width]`, converted to f32.
    type Vector: Send;
    /// The experts of a layer.
    type Experts: Send;
    /// The paged KV pools of all layers.
    type KvCache: CopyKvBlocks + Send;

    /// Identifies everything that enters the bits of a result: backend, instruction set or card
    /// generation, kernel revision, activation and KV dtypes. Part of the engine's `numerics_id`.
    fn numerics_id(&self) -> String;

    /// Allocates activations of `width` for `max_rows` rows.
    ///
    /// # Errors
    /// Out of memory.
    fn new_buffer(&mut self, max_rows: usize, width: usize) -> Result<Self::Buffer, OpsError>;

    /// As [`Ops::new_buffer`], for numbers that stay in f32 whatever type activations have: a
    /// router's.
    ///
    /// # Errors
    /// Out of memory.
    fn new_f32_buffer(&mut self, max_rows: usize, width: usize) -> Result<Self::Buffer, OpsError> {
        self.new_buffer(max_rows, width)
    }

    /// Makes the buffer that [`Ops::sample`] takes: rows of f32 logits. A backend whose memory is
    /// dear may keep fewer rows and compute the product again, part by part, as it samples.
    ///
    /// # Errors
    /// Out of memory.
    fn new_logits_buffer(
        &mut self,
        max_rows: usize,
        width: usize,
    ) -> Result<Self::Buffer, OpsError> {
        self.new_buffer(max_rows, width)
    }

    /// Hears, at load, what attention of `layer` will be asked with, for what a step must not
    /// allocate.
    ///
    /// # Errors
    /// A shape without a kernel, or out of memory.
    fn prepare_layer(
        &mut self,
        _layer: usize,
        _spec: &AttentionSpec,
        _rope: &Arc<RopeTable>,
    ) -> Result<(), OpsError> {
        Ok(())
    }

    /// How many blocks the KV cache gets, asked after everything else was allocated: as many as
    /// `spec` says, or as fit.
    ///
    /// # Errors
    /// Not even one sequence fits.
    fn fit_kv_blocks(&mut self, spec: &KvCacheSpec) -> Result<usize, OpsError> {
        Ok(spec.num_blocks)
    }

    /// Takes a linear layer whose output is the concatenation of the outputs of `parts` (one for
    /// most layers, three for q, k, v, two for gate, up). The CPU keeps the views: nothing is
    /// copied.
    ///
    /// # Errors
    /// A dtype without a kernel, or out of memory.
    fn new_linear(
        &mut self,
        parts: Vec<WeightView>,
        parallelism: Parallelism,
    ) -> Result<Self::Linear, OpsError>;

    /// Takes a norm's weights or a bias: the concatenation of `parts`, with `offset` added to each
    /// element in f32 (1 where a norm multiplies by `1 + weight`).
    ///
    /// # Errors
    /// As for `new_linear`.
    fn new_vector(&mut self, parts: Vec<WeightView>, offset: f32)
    -> Result<Self::Vector, OpsError>;

    /// Takes the experts of a layer and makes sure of the memory that [`Ops::moe`] works in.
    ///
    /// # Errors
    /// As for `new_linear`.
    fn new_experts(
        &mut self,
        experts: Vec<ExpertViews>,
        spec: &MoeSpec,
    ) -> Result<Self::Experts, OpsError>;

    /// Allocates the KV pools.
    ///
    /// # Errors
    /// Out of memory.
    fn new_kv_cache(&mut self, spec: &KvCacheSpec) -> Result<Self::KvCache, OpsError>;

    /// Begins the next forward pass that the backend wants at load, once everything is allocated:
    /// it records or plans what operations do, and none runs. `None`: there are no more.
    fn begin_warm_up(&mut self) -> Option<WarmUp> {
        None
    }

    /// Ends the pass.
    ///
    /// # Errors
    /// The device is lost; a pass that fails by itself is none.
    fn end_warm_up(&mut self) -> Result<(), OpsError> {
        Ok(())
    }

    /// Starts a step: applies slot inits, resolves token ids from the device, uploads metadata.
    fn begin(&mut self, batch: &Batch);

    /// `out[r] = table[token_id(r)] * scale`.
    fn embed(&mut self, table: &Self::Linear, scale: f32, out: &mut Self::Buffer);

    /// `out = rms_norm(x) * weight`.
    fn rms_norm(
        &mut self,
        x: &Self::Buffer,
        weight: &Self::Vector,
        eps: f32,
        out: &mut Self::Buffer,
    );

    /// `residual += x; out = rms_norm(residual) * weight`.
    fn add_rms_norm(
        &mut self,
        x: &Self::Buffer,
        residual: &mut Self::Buffer,
        weight: &Self::Vector,
        eps: f32,
        out: &mut Self::Buffer,
    );

    /// `out[r] = weight · x[r]`, every row in use of `x`.
    fn linear(&mut self, x: &Self::Buffer, weight: &Self::Linear, out: &mut Self::Buffer);

    /// `x[r] += bias`.
    fn add_bias(&mut self, x: &mut Self::Buffer, bias: &Self::Vector);

    /// `rms_norm` of each head of q and of k inside `qkv` (as in [`Ops::rope_kv_write`]) by itself,
    /// times `q_weight` or `k_weight` (`[head_dim]`).
    fn head_rms_norm(
        &mut self,
        qkv: &mut Self::Buffer,
        spec: &AttentionSpec,
        q_weight: &Self::Vector,
        k_weight: &Self::Vector,
        eps: f32,
    );

    /// Rotates q and k inside `qkv` (`[rows, (heads + 2 kv_heads) * head_dim]`: q, k, v) by each
    /// row's position and writes k and v to `layer` of the cache.
    fn rope_kv_write(
        &mut self,
        qkv: &mut Self::Buffer,
        rope: &Arc<RopeTable>,
        spec: &AttentionSpec,
        layer: usize,
        kv: &mut Self::KvCache,
    );

    /// Causal attention of each row's q in `qkv` over `layer` of the cache;
    /// `out` is `[rows, heads * head_dim]`.
    fn attention(
        &mut self,
        qkv: &Self::Buffer,
        spec: &AttentionSpec,
        layer: usize,
        kv: &Self::KvCache,
        out: &mut Self::Buffer,
    );

    /// `out = silu(gate) * up`, with `gate_up` `[rows, 2 * width]`: gate, then up.
    fn silu_mul(&mut self, gate_up: &Self::Buffer, out: &mut Self::Buffer);

    /// As `silu_mul` with the tanh form of GELU, `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715
    /// x^3)))`.
    fn gelu_tanh_mul(&mut self, gate_up: &Self::Buffer, out: &mut Self::Buffer);

    /// `x = cap * tanh(x / cap)`.
    fn soft_cap(&mut self, x: &mut Self::Buffer, cap: f32);

    /// From router `logits` (`[rows, experts]`) to `routes` of the same shape: the softmax over all
    /// experts, kept for the largest `num_experts_per_token` (of equals the first; divided by their
    /// sum if the spec says so) and zero for the others.
    fn moe_route(&mut self, logits: &Self::Buffer, spec: &MoeSpec, routes: &mut Self::Buffer);

    /// `out[r]` = the sum over the experts with a route that is not zero, in index order, of
    /// `routes[r][e] * down_e · (silu(gate_e · x[r]) * (up_e · x[r]))`.
    fn moe(
        &mut self,
        x: &Self::Buffer,
        routes: &Self::Buffer,
        experts: &Self::Experts,
        out: &mut Self::Buffer,
    );

    /// Keeps the rows of `x` whose logits the batch needs (last tokens of sampling rows, all tokens
    /// of rows that want prompt log-probabilities) and makes them the rows in use of `out`.
    fn gather_logits_rows(&mut self, x: &Self::Buffer, out: &mut Self::Buffer);

    /// Draws a token for each sampling row from `logits` (`[gathered rows, vocab]`) and computes
    /// the log-probabilities asked for. One output for each row of the batch, in order. The drawn
    /// token becomes its slot's last token.
    ///
    /// # Errors
    /// [`OpsError::Device`]; [`OpsError::OutOfMemory`] where nothing was drawn and the step can be
    /// tried again from [`Ops::begin`] on. A row's failure is in its output.
    fn sample(&mut self, logits: &mut Self::Buffer) -> Result<Vec<RowOutput>, OpsError>;

    /// Time spent by kind of operation since the last call.
    fn take_timings(&mut self) -> StepTimings;

    /// Copies the rows in use of `buffer` to f32, row-major. For tests and oracles, not for steps.
    fn read_rows(&mut self, buffer: &Self::Buffer) -> Vec<f32>;
}

/// Operations whose device works on by itself: the next step can be begun before the results of the
/// last one are fetched.
pub trait PipelinedOps: Ops {
    /// As [`Ops::sample`], without waiting: the results are those of the next call but for earlier
    /// ones of [`PipelinedOps::finish_sample`].
    ///
    /// # Errors
    /// As [`Ops::sample`]; too many steps under way.
    fn start_sample(&mut self, logits: &mut Self::Buffer) -> Result<(), OpsError>;

    /// Waits for the oldest step whose results were not fetched.
    ///
    /// # Errors
    /// As [`Ops::sample`]; no step under way.
    fn finish_sample(&mut self) -> Result<Vec<RowOutput>, OpsError>;
}
