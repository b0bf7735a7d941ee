//! A model on the CPU backend alone, in steps built by hand: what the device can do, without
//! scheduler and server.
//!
//! Invariant: sequence `i` owns the blocks from `i * blocks_per_seq` on; the last sequence is for
//! prompts, the others wait at position `context`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use hotspare_backend_cpu::{CpuOps, CpuOptions};
use hotspare_batch::{
    Batch, Row, SamplingParams, SlotInit, StepRunner, StepTimings, StopParams, TOKEN_FROM_DEVICE,
};
use hotspare_model::ops::StepLimits;
use hotspare_model::weights::{WeightDtype, WeightView};
use hotspare_model::{LoadOptions, ModelConfig, ModelRunner, ModelSource, Quantization};

const BLOCK_SIZE: usize = 16;

/// A loaded model and its sequences.
pub(crate) struct Device {
    runner: ModelRunner<CpuOps>,
    config: ModelConfig,
    weights: Vec<WeightView>,
    context: usize,
    room: usize,
    streams: usize,
}

/// Time of some steps.
#[derive(Clone, Copy, Default)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    /// Parts of it: products, attention, drawing tokens.
    pub(crate) parts: [f64; 3],
}

impl Measured {
    fn add(&mut self, seconds: f64, timings: &StepTimings) {
        self.seconds += seconds;
        let parts = [timings.linear_ns, timings.attention_ns, timings.sample_ns];
        for (sum, part) in self.parts.iter_mut().zip(parts) {
            *sum += part as f64 / 1e9;
        }
    }
}

impl Device {
    /// Loads `path`, its weights quantized to a type if one is named, and reads a prompt of
    /// `context` tokens into each of `streams` sequences.
    pub(crate) fn load(
        path: &Path,
        num_threads: usize,
        [streams, context, room]: [usize; 3],
        kv_dtype: WeightDtype,
        quantize_to: Option<WeightDtype>,
    ) -> Result<Self, String> {
        let files = ModelSource::resolve(&path.display().to_string())
            .and_then(|source| source.open())
            .map_err(|e| e.to_string())?;
        let config = files.config().map_err(|e| e.to_string())?;
        let limits = StepLimits {
            max_num_batched_tokens: room,
            max_num_seqs: streams + 1,
            max_model_len: room,
        };
        let options = LoadOptions {
            limits: limits.clone(),
            num_blocks: (streams + 1) * room.div_ceil(BLOCK_SIZE),
            block_size: BLOCK_SIZE,
            kv_dtype,
            quantization: quantize_to.map(|dtype| Quantization { dtype, num_threads }),
        };
        let options_of_ops = CpuOptions {
            num_threads,
            limits,
            bf16_activations: true,
        };
        let ops = CpuOps::new(options_of_ops).map_err(|e| e.to_string())?;
        let runner = ModelRunner::load(ops, &files, &options, &mut |_| {});
        let mut device = Self {
            weights: linear_weights(&files, &config)?,
            runner: runner.map_err(|e| e.to_string())?,
            config,
            context,
            room,
            streams,
        };
        for sequence in 0..streams {
            device.run(&[(sequence, 0, context)], true)?;
        }
        Ok(device)
    }

    /// Bytes of all linear layers: what a step reads, whatever the number of its rows.
    pub(crate) fn num_weight_bytes(&self) -> usize {
        self.weights.iter().map(|view| view.bytes().len()).sum()
    }

    /// Seconds to read as many bytes with as many threads: the same bytes, summed up.
    pub(crate) fn read_weights(&self, num_threads: usize) -> f64 {
        let start = Instant::now();
        let sum: u64 = std::thread::scope(|scope| {
            let part = |nth: usize| {
                let sum = |view: &WeightView| {
                    let bytes = view.bytes();
                    let len = bytes.len().div_ceil(num_threads);
                    let end = bytes.len().min((nth + 1) * len);
                    sum_of(&bytes[end.min(nth * len)..end])
                };
                self.weights.iter().map(sum).fold(0, u64::wrapping_add)
            };
            let workers: Vec<_> = (1..num_threads)
                .map(|nth| scope.spawn(move || part(nth)))
                .collect();
            let own = part(0);
            let others = workers.into_iter().map(|worker| worker.join().unwrap_or(0));
            others.fold(own, u64::wrapping_add)
        });
        std::hint::black_box(sum);
        start.elapsed().as_secs_f64()
    }

    /// A prompt of `tokens`.
    pub(crate) fn prefill(&mut self, tokens: usize) -> Result<Measured, String> {
        self.run(&[(self.streams, 0, tokens)], true)
    }

    /// `steps` greedy tokens of each of `streams` sequences.
    pub(crate) fn decode(&mut self, streams: usize, steps: usize) -> Result<Measured, String> {
        let mut measured = Measured::default();
        for step in 0..steps {
            let rows = (0..streams).map(|sequence| (sequence, self.context + step, 1));
            let rows: Vec<_> = rows.collect();
            let one = self.run(&rows, step == 0)?;
            measured.seconds += one.seconds;
            for (sum, part) in measured.parts.iter_mut().zip(one.parts) {
                *sum += part;
            }
        }
        Ok(measured)
    }

    /// One step of (sequence, position, tokens) rows; `is_new` sets the slots up.
    fn run(&mut self, rows: &[(usize, usize, usize)], is_new: bool) -> Result<Measured, String> {
        let mut batch = Batch::default();
        let blocks_per_seq = self.room.div_ceil(BLOCK_SIZE);
        for &(sequence, position, num_tokens) in rows {
            let (token, block) = (batch.token_ids.len(), batch.block_tables.len());
            let first_block = (sequence * blocks_per_seq) as u32;
            let num_blocks = (position + num_tokens).div_ceil(BLOCK_SIZE) as u32;
            let id = |p: usize| ((7 * p + 3 + 13 * sequence) % self.config.vocab_size) as u32;
            match num_tokens {
                1 if !is_new => batch.token_ids.push(TOKEN_FROM_DEVICE),
                _ => batch
                    .token_ids
                    .extend((position..position + num_tokens).map(id)),
            }
            batch
                .block_tables
                .extend(first_block..first_block + num_blocks);
            if is_new {
                batch.slot_inits.push(SlotInit {
                    slot: sequence as u32,
                    token_ids: Arc::new([1]),
                    num_prompt_tokens: 1,
                    sampling: Arc::new(SamplingParams::greedy()),
                    stop: Arc::new(StopParams::default()),
                });
            }
            batch.rows.push(Row {
                slot: sequence as u32,
                num_computed_tokens: position as u32,
                tokens: token as u32..batch.token_ids.len() as u32,
                blocks: block as u32..batch.block_tables.len() as u32,
                samples: true,
                wants_prompt_logprobs: false,
                next_prompt_token: None,
            });
        }
        let start = Instant::now();
        let output = self.runner.run(&batch).map_err(|e| e.to_string())?;
        let mut measured = Measured::default();
        measured.add(start.elapsed().as_secs_f64(), &output.timings);
        Ok(measured)
    }
}

/// Views of every linear layer of a dense decoder.
fn linear_weights(
    files: &hotspare_model::ModelFiles,
    config: &ModelConfig,
) -> Result<Vec<WeightView>, String> {
    let store = files.weights().map_err(|e| e.to_string())?;
    let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
    let q = config.num_attention_heads * config.head_dim;
    let kv = config.num_key_value_heads * config.head_dim;
    let mut names = Vec::new();
    for layer in 0..config.num_hidden_layers {
        for (part, shape) in [
            ("self_attn.q_proj", [q, hidden]),
            ("self_attn.k_proj", [kv, hidden]),
            ("self_attn.v_proj", [kv, hidden]),
            ("self_attn.o_proj", [hidden, q]),
            ("mlp.gate_proj", [ffn, hidden]),
            ("mlp.up_proj", [ffn, hidden]),
            ("mlp.down_proj", [hidden, ffn]),
        ] {
            names.push((format!("model.layers.{layer}.{part}.weight"), shape));
        }
    }
    let output = match config.tie_word_embeddings {
        true => "model.embed_tokens.weight",
        false => "lm_head.weight",
    };
    names.push((output.to_owned(), [config.vocab_size, hidden]));
    let view = |(name, shape): &(String, [usize; 2])| store.view(name, shape);
    let views: Result<_, _> = names.iter().map(view).collect();
    views.map_err(|e| e.to_string())
}

/// Eight sums at a time, so that memory is the limit and not the adds.
fn sum_of(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 16];
    for chunk in bytes.as_chunks::<128>().0 {
        for (sum, word) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}
