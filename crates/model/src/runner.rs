//! Runs batches on a loaded model: the synchronous half of the engine's seam to a device.
//!
//! Invariant: a batch that breaks the runner's limits is refused before any operation sees it, so
//! no id, slot, block or position is out of range below this point.

use std::time::Instant;

use hotspare_batch::{
    Batch, BlockId, ExecutorError, ExecutorInfo, KvBlock, Row, RowError, RowOutput, StepOutput,
    StepRunner, StepTimings, TOKEN_FROM_DEVICE,
};

use crate::config::{ModelConfig, RopeConfig};
use crate::families::Decoder;
use crate::ops::{CopyKvBlocks as _, Ops, OpsError, PipelinedOps};
use crate::options::{LoadOptions, LoadProgress, LoadStage};
use crate::rope::length_dependence;
use crate::{ModelError, ModelFiles};

/// One step of look-ahead: the next step takes its tokens from the device.
const MAX_NUM_IN_FLIGHT: usize = 2;

/// A loaded model and the backend it runs on.
pub struct ModelRunner<O: Ops> {
    ops: O,
    model: Decoder<O>,
    info: ExecutorInfo,
    max_model_len: usize,
    /// What of `max_model_len` enters the model's numbers.
    length_dependence: Option<String>,
}

impl<O: Ops> ModelRunner<O> {
    /// Loads the model of `files` onto `ops`.
    ///
    /// # Errors
    /// A damaged or unsupported model, impossible options, or a backend without enough memory.
    pub fn load(
        mut ops: O,
        files: &ModelFiles,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, ModelError> {
        let config = files.config()?;
        options.check(&config)?;
        for field in &config.unknown_fields {
            tracing::warn!(
                field,
                "config.json has a field that is not known and not used"
            );
        }
        let weights = files.weights()?;
        let mut model = Decoder::load(&mut ops, &config, &weights, options, progress)?;
        if let Some(name) = weights.unexpected(config.num_hidden_layers) {
            return Err(ModelError::UnexpectedTensor {
                name: name.to_owned(),
            });
        }
        for tensor in weights.unused() {
            tracing::warn!(tensor, "the weights have a tensor that is not used");
        }
        while let Some(at) = ops.begin_warm_up() {
            progress(LoadProgress {
                stage: LoadStage::WarmUp,
                done: at.done,
                total: at.total,
            });
            model.forward(&mut ops);
            ops.end_warm_up()?;
        }
        let mut info = executor_info(&config, options, model.num_blocks());
        info.kv_block_bytes = model.kv().block_bytes();
        Ok(Self {
            ops,
            model,
            info,
            max_model_len: options.limits.max_model_len,
            length_dependence: rope_dependence(&config, options.limits.max_model_len),
        })
    }

    /// What enters the bits of this runner's results, beside the model: [`Ops::numerics_id`], the
    /// type that weights were quantized to at load, and the context length where a rope scaling
    /// depends on it.
    pub fn numerics_id(&self) -> String {
        let mut id = self.ops.numerics_id();
        let parts = [self.model.quantization(), self.length_dependence.as_deref()];
        for part in parts.into_iter().flatten() {
            id.push('-');
            id.push_str(part);
        }
        id
    }

    /// The backend, for tests and logs.
    pub fn ops_mut(&mut self) -> &mut O {
        &mut self.ops
    }

    /// As [`StepRunner::run`], and copies the logits (`[gathered rows, vocab]`, before sampling
    /// changes them) to `logits`. For tests and oracles.
    ///
    /// # Errors
    /// As [`StepRunner::run`].
    pub fn run_with_logits(
        &mut self,
        batch: &Batch,
        logits: &mut Vec<f32>,
    ) -> Result<StepOutput, ExecutorError> {
        self.step(batch, Some(logits))
    }

    fn step(
        &mut self,
        batch: &Batch,
        copy: Option<&mut Vec<f32>>,
    ) -> Result<StepOutput, ExecutorError> {
        self.check(batch).map_err(ExecutorError::Misuse)?;
        let start = Instant::now();
        for load in &batch.kv_loads {
            self.model.kv_mut().load_block(load.block, &load.bytes);
        }
        let kv_saved = self.save_blocks(batch);
        let mut copy = copy;
        let rows = self.try_twice(batch, |ops, logits| {
            if let Some(copy) = copy.as_deref_mut() {
                *copy = ops.read_rows(logits);
            }
            ops.sample(logits)
        })?;
        let rows = rows.unwrap_or_else(|| refused(batch));
        let mut timings = self.ops.take_timings();
        timings.total_ns = start.elapsed().as_nanos() as u64;
        Ok(StepOutput {
            step: batch.step,
            rows,
            timings,
            kv_saved,
        })
    }

    fn save_blocks(&self, batch: &Batch) -> Vec<KvBlock> {
        let save = |&block: &BlockId| {
            let mut bytes = Vec::with_capacity(self.info.kv_block_bytes.unwrap_or(0));
            self.model.kv().save_block(block, &mut bytes);
            KvBlock { block, bytes }
        };
        batch.kv_saves.iter().map(save).collect()
    }

    /// Runs the step's operations and then `sample`, a second time where memory ran out before
    /// anything was drawn; `None` where it ran out again.
    fn try_twice<T>(
        &mut self,
        batch: &Batch,
        mut sample: impl FnMut(&mut O, &mut O::Buffer) -> Result<T, OpsError>,
    ) -> Result<Option<T>, ExecutorError> {
        for _ in 0..2 {
            self.ops.begin(batch);
            let logits = self.model.forward(&mut self.ops);
            match sample(&mut self.ops, logits) {
                Ok(sampled) => return Ok(Some(sampled)),
                Err(error @ OpsError::OutOfMemory { .. }) => {
                    tracing::warn!(step = batch.step, "{error}");
                }
                Err(error) => return Err(ExecutorError::Device(error.to_string())),
            }
        }
        Ok(None)
    }

    /// Queues a step on a backend that works on by itself; the outputs where the device has no
    /// memory for it, each a failure.
    pub(crate) fn start(&mut self, batch: &Batch) -> Result<Option<Vec<RowOutput>>, ExecutorError>
    where
        O: PipelinedOps,
    {
        self.check(batch).map_err(ExecutorError::Misuse)?;
        let started = self.try_twice(batch, |ops, logits| ops.start_sample(logits))?;
        Ok(started.is_none().then(|| refused(batch)))
    }

    /// Waits for the oldest step that was started.
    pub(crate) fn finish(&mut self) -> Result<(Vec<RowOutput>, StepTimings), ExecutorError>
    where
        O: PipelinedOps,
    {
        let rows = self.ops.finish_sample();
        let rows = rows.map_err(|e| ExecutorError::Device(e.to_string()))?;
        Ok((rows, self.ops.take_timings()))
    }

    /// What is wrong with `batch`, if anything.
    fn check(&self, batch: &Batch) -> Result<(), &'static str> {
        let info = &self.info;
        if batch.rows.len() > info.num_slots {
            return Err("more rows than max_num_seqs");
        }
        if batch.num_tokens() > info.max_num_batched_tokens {
            return Err("more tokens than max_num_batched_tokens");
        }
        let is_token = |&id: &u32| id == TOKEN_FROM_DEVICE || (id as usize) < info.vocab_size;
        if !batch.token_ids.iter().all(is_token) {
            return Err("a token id outside the vocabulary");
        }
        if !batch
            .block_tables
            .iter()
            .all(|&block| (block as usize) < info.num_blocks)
        {
            return Err("a block outside the pool");
        }
        self.check_transfers(batch)?;
        let inits = batch.slot_inits.iter().map(|init| init.slot);
        let mut slots = inits.chain(batch.rows.iter().map(|row| row.slot));
        if !slots.all(|slot| (slot as usize) < info.num_slots) {
            return Err("a slot outside max_num_seqs");
        }
        if !batch.has_proper_masks() {
            return Err("a token mask of no row that samples");
        }
        let (mut token, mut block) = (0, 0);
        for row in &batch.rows {
            if row.tokens.start != token || row.blocks.start != block {
                return Err("rows do not partition the batch");
            }
            self.check_row(row)?;
            (token, block) = (row.tokens.end, row.blocks.end);
        }
        if token as usize != batch.token_ids.len() || block as usize != batch.block_tables.len() {
            return Err("rows do not cover the batch");
        }
        Ok(())
    }

    fn check_transfers(&self, batch: &Batch) -> Result<(), &'static str> {
        let (loads, saves) = (&batch.kv_loads, &batch.kv_saves);
        if loads.is_empty() && saves.is_empty() {
            return Ok(());
        }
        let Some(num_bytes) = self.info.kv_block_bytes else {
            return Err("blocks cannot be copied on this device");
        };
        if loads.iter().any(|load| load.bytes.len() != num_bytes) {
            return Err("a block of another length");
        }
        let loaded = loads.iter().map(|load| load.block);
        let mut blocks = loaded.chain(saves.iter().copied());
        match blocks.all(|block| (block as usize) < self.info.num_blocks) {
            true => Ok(()),
            false => Err("a block to copy outside the pool"),
        }
    }

    fn check_row(&self, row: &Row) -> Result<(), &'static str> {
        if row.tokens.end <= row.tokens.start {
            return Err("a row without tokens");
        }
        if row.context_len() > self.max_model_len {
            return Err("a row beyond max_model_len");
        }
        let num_blocks = row.blocks.end.saturating_sub(row.blocks.start) as usize;
        if num_blocks * self.info.block_size < row.context_len() {
            return Err("a row without enough blocks");
        }
        Ok(())
    }
}

impl<O: Ops> StepRunner for ModelRunner<O> {
    fn info(&self) -> ExecutorInfo {
        self.info.clone()
    }

    fn run(&mut self, batch: &Batch) -> Result<StepOutput, ExecutorError> {
        self.step(batch, None)
    }
}

/// Failures of all rows: there is no memory for the step.
fn refused(batch: &Batch) -> Vec<RowOutput> {
    let rows = batch.rows.iter();
    rows.map(|row| RowOutput::refused(row.slot, RowError::OutOfMemory))
        .collect()
}

/// How the rotary tables depend on the context length, if they do.
fn rope_dependence(config: &ModelConfig, max_model_len: usize) -> Option<String> {
    let of = |rope: &RopeConfig| length_dependence(rope, max_model_len);
    let local = config.local_rope.as_ref().and_then(of);
    let parts = [
        of(&config.rope),
        local.map(|local| format!("local-{local}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("-"))
}

/// What a runner with these options can hold.
fn executor_info(config: &ModelConfig, options: &LoadOptions, num_blocks: usize) -> ExecutorInfo {
    ExecutorInfo {
        num_blocks,
        block_size: options.block_size,
        vocab_size: config.vocab_size,
        num_slots: options.limits.max_num_seqs,
        max_num_batched_tokens: options.limits.max_num_batched_tokens,
        max_num_in_flight: MAX_NUM_IN_FLIGHT,
        sliding_window: config.sliding_window(),
        kv_block_bytes: None,
    }
}
