//! Runs sequences step by step, with batches and block tables built by hand.
//!
//! Every row asks for prompt log-probabilities, so that the logits of every position are seen.
//!
//! Invariant: blocks of the pool are handed out in a scrambled order, so that no test passes
//! because a block's number is its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotspare_batch::{
    Batch, BlockId, Row, SamplingParams, SlotInit, StopParams, TOKEN_FROM_DEVICE, TokenId,
    TokenLogprobs,
};
use hotspare_model::ops::StepLimits;
use hotspare_model::weights::WeightDtype;
use hotspare_model::{LoadOptions, ModelRunner, ModelSource, Quantization};
use serde_json::Value;

use crate::{CpuOps, CpuOptions, Isa};

pub(crate) const BLOCK_SIZE: usize = 16;
const NUM_BLOCKS: usize = 1024;
const NUM_SLOTS: usize = 64;

/// The directory of test data `name`, or `None` (said loudly) where it is not there.
pub(crate) fn assets(suite: &str, name: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED {suite}: ../shared/assets not found");
    assert!(
        std::env::var_os("CI").is_none(),
        "test data is missing in CI"
    );
    None
}

/// A generator for tests' own choices.
pub(crate) struct Lcg(pub(crate) u64);

impl Lcg {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % bound
    }
}

/// One sequence and all that was computed of it.
pub(crate) struct Sequence {
    /// Prompt and output.
    pub(crate) ids: Vec<TokenId>,
    pub(crate) num_prompt: usize,
    /// Logits by position; empty where the position was found in the cache.
    pub(crate) logits: Vec<Vec<f32>>,
    /// Of drawn tokens, where asked for.
    pub(crate) logprobs: Vec<TokenLogprobs>,
    num_computed: usize,
    slot: u32,
    blocks: Vec<BlockId>,
    sampling: Arc<SamplingParams>,
    has_slot: bool,
}

impl Sequence {
    /// Tokens drawn so far.
    pub(crate) fn output(&self) -> &[TokenId] {
        &self.ids[self.num_prompt..]
    }

    /// Tokens that are known and not computed.
    pub(crate) fn num_waiting(&self) -> usize {
        self.ids.len() - self.num_computed
    }
}

/// A model on this backend, and sequences.
pub(crate) struct Harness {
    runner: ModelRunner<CpuOps>,
    pub(crate) sequences: Vec<Sequence>,
    free_blocks: Vec<BlockId>,
    step: u64,
    vocab_size: usize,
}

impl Harness {
    /// Loads the model in `path`.
    pub(crate) fn load(path: &Path) -> Self {
        Self::load_with(path, 2, Isa::detect(), None)
    }

    /// As [`Harness::load`], for sequences of so many tokens.
    pub(crate) fn load_for(path: &Path, max_model_len: usize) -> Self {
        Self::load_all(path, (2, Isa::detect()), None, None, Some(max_model_len))
    }

    /// As [`Harness::load`], with so many threads on that instruction set. The KV cache's type is
    /// that of the engine's `auto`, where none is given.
    pub(crate) fn load_with(
        path: &Path,
        num_threads: usize,
        isa: Isa,
        kv_dtype: Option<WeightDtype>,
    ) -> Self {
        Self::load_all(path, (num_threads, isa), kv_dtype, None, None)
    }

    /// As [`Harness::load_with`], with weights quantized to a type.
    pub(crate) fn load_quantized(
        path: &Path,
        machine: (usize, Isa),
        kv_dtype: Option<WeightDtype>,
        weights: Option<WeightDtype>,
    ) -> Self {
        Self::load_all(path, machine, kv_dtype, weights, None)
    }

    fn load_all(
        path: &Path,
        (num_threads, isa): (usize, Isa),
        kv_dtype: Option<WeightDtype>,
        weights: Option<WeightDtype>,
        max_model_len: Option<usize>,
    ) -> Self {
        let files = ModelSource::resolve(path.to_str().unwrap())
            .unwrap()
            .open()
            .unwrap();
        let config = files.config().unwrap();
        let limits = StepLimits {
            max_num_batched_tokens: 1024,
            max_num_seqs: NUM_SLOTS,
            max_model_len: max_model_len.unwrap_or(config.max_context_len().min(512)),
        };
        let auto = match config.dtype.as_deref() {
            Some("bfloat16" | "float16") => WeightDtype::F16,
            _ => WeightDtype::F32,
        };
        let options = LoadOptions {
            limits: limits.clone(),
            num_blocks: NUM_BLOCKS,
            block_size: BLOCK_SIZE,
            kv_dtype: kv_dtype.unwrap_or(auto),
            quantization: weights.map(|dtype| Quantization {
                dtype,
                num_threads: 2,
            }),
        };
        let ops = CpuOps::with_isa(
            CpuOptions {
                num_threads,
                limits,
                bf16_activations: false,
            },
            isa,
        );
        let mut free_blocks: Vec<BlockId> = (0..NUM_BLOCKS as BlockId).collect();
        let mut lcg = Lcg(99);
        for i in (1..free_blocks.len()).rev() {
            free_blocks.swap(i, lcg.below(i + 1));
        }
        Self {
            runner: ModelRunner::load(ops, &files, &options, &mut |_| {}).unwrap(),
            sequences: Vec::new(),
            free_blocks,
            step: 0,
            vocab_size: config.vocab_size,
        }
    }

    pub(crate) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Adds a sequence and returns its index.
    pub(crate) fn add(&mut self, prompt: &[TokenId], sampling: &SamplingParams) -> usize {
        self.sequences.push(Sequence {
            ids: prompt.to_vec(),
            num_prompt: prompt.len(),
            logits: Vec::new(),
            logprobs: Vec::new(),
            num_computed: 0,
            slot: (self.sequences.len() % NUM_SLOTS) as u32,
            blocks: Vec::new(),
            sampling: Arc::new(SamplingParams {
                num_prompt_logprobs: Some(0),
                ..sampling.clone()
            }),
            has_slot: false,
        });
        self.sequences.len() - 1
    }

    /// Adds a sequence whose first `num_blocks` blocks are those of `from`, as if the prefix cache
    /// had them.
    pub(crate) fn add_cached(
        &mut self,
        prompt: &[TokenId],
        sampling: &SamplingParams,
        from: usize,
        num_blocks: usize,
    ) -> usize {
        let index = self.add(prompt, sampling);
        assert_eq!(
            self.sequences[from].ids[..num_blocks * BLOCK_SIZE],
            prompt[..num_blocks * BLOCK_SIZE]
        );
        let blocks = self.sequences[from].blocks[..num_blocks].to_vec();
        let sequence = &mut self.sequences[index];
        sequence.blocks = blocks;
        sequence.num_computed = num_blocks * BLOCK_SIZE;
        sequence.logits = vec![Vec::new(); sequence.num_computed];
        index
    }

    /// Takes the blocks and the slot of a sequence; its next step starts from its first token.
    pub(crate) fn preempt(&mut self, index: usize) {
        let sequence = &mut self.sequences[index];
        self.free_blocks.append(&mut sequence.blocks);
        sequence.num_computed = 0;
        sequence.logits.clear();
        sequence.has_slot = false;
        // Another slot, with whatever its last owner left in it.
        sequence.slot = (sequence.slot + 32) % NUM_SLOTS as u32;
    }

    /// Runs one step: so many waiting tokens of each of these sequences, in this order.
    pub(crate) fn step(&mut self, chunks: &[(usize, usize)]) {
        let mut batch = Batch {
            step: self.step,
            ..Batch::default()
        };
        self.step += 1;
        for &(index, num_tokens) in chunks {
            self.push_row(&mut batch, index, num_tokens);
        }
        batch.check_integrity(BLOCK_SIZE);
        let mut logits = Vec::new();
        let output = self.runner.run_with_logits(&batch, &mut logits).unwrap();
        assert_eq!(output.step, batch.step);
        assert_eq!(logits.len(), batch.num_tokens() * self.vocab_size);
        let mut logits = logits.chunks(self.vocab_size);
        for (&(index, num_tokens), row) in chunks.iter().zip(output.rows) {
            let sequence = &mut self.sequences[index];
            assert_eq!((row.slot, &row.error), (sequence.slot, &None));
            let own = logits.by_ref().take(num_tokens);
            sequence.logits.extend(own.map(<[f32]>::to_vec));
            sequence.num_computed += num_tokens;
            let samples = sequence.num_computed == sequence.ids.len();
            assert_eq!(row.token_ids.len(), usize::from(samples));
            sequence.ids.extend(row.token_ids);
            sequence.logprobs.extend(row.logprobs);
        }
    }

    /// Runs `index` alone, `chunk` tokens a step, until it has `num_output` tokens of output.
    pub(crate) fn run_alone(&mut self, index: usize, chunk: usize, num_output: usize) {
        while self.sequences[index].output().len() < num_output {
            let num_tokens = self.sequences[index].num_waiting().min(chunk);
            self.step(&[(index, num_tokens)]);
        }
    }

    fn push_row(&mut self, batch: &mut Batch, index: usize, num_tokens: usize) {
        let sequence = &mut self.sequences[index];
        if !sequence.has_slot {
            sequence.has_slot = true;
            batch.slot_inits.push(SlotInit {
                slot: sequence.slot,
                token_ids: sequence.ids.clone().into(),
                num_prompt_tokens: sequence.num_prompt as u32,
                sampling: Arc::clone(&sequence.sampling),
                stop: Arc::new(StopParams::default()),
            });
        }
        let (start, end) = (sequence.num_computed, sequence.num_computed + num_tokens);
        while sequence.blocks.len() * BLOCK_SIZE < end {
            sequence.blocks.push(self.free_blocks.pop().unwrap());
        }
        let (first_token, first_block) = (batch.token_ids.len(), batch.block_tables.len());
        batch.token_ids.extend(&sequence.ids[start..end]);
        batch.block_tables.extend(&sequence.blocks);
        // A lone token that was drawn in the step before: take it from the device, as look-ahead
        // does.
        if num_tokens == 1 && start >= sequence.num_prompt && end == sequence.ids.len() {
            batch.token_ids[first_token] = TOKEN_FROM_DEVICE;
        }
        batch.rows.push(Row {
            slot: sequence.slot,
            num_computed_tokens: start as u32,
            tokens: first_token as u32..batch.token_ids.len() as u32,
            blocks: first_block as u32..batch.block_tables.len() as u32,
            samples: end == sequence.ids.len(),
            wants_prompt_logprobs: true,
            next_prompt_token: sequence.ids.get(end).copied(),
        });
    }
}

/// The numbers of a golden file's list.
pub(crate) fn floats(value: &Value) -> Vec<f32> {
    let values = value.as_array().unwrap().iter();
    values.map(|x| x.as_f64().unwrap() as f32).collect()
}

/// The token ids of a golden file's list.
pub(crate) fn ids(value: &Value) -> Vec<TokenId> {
    let values = value.as_array().unwrap().iter();
    values.map(|id| id.as_u64().unwrap() as TokenId).collect()
}

/// Index of the largest value, and how far the second largest is below it.
pub(crate) fn best_and_margin(logits: &[f32]) -> (TokenId, f32) {
    let (mut best, mut first, mut second) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
    for (id, &x) in logits.iter().enumerate() {
        if x > first {
            (best, second, first) = (id, first, x);
        } else if x > second {
            second = x;
        }
    }
    (best as TokenId, first - second)
}

/// Asserts that each pair of logits differs by at most `1e-4` of the largest.
pub(crate) fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
    for (id, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs();
        assert!(
            difference <= 1e-4 * largest,
            "{what}, id {id}: {found} {expected}"
        );
    }
}
