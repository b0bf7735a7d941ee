//! Runs sequences step by step, with batches and block tables built by hand, and holds every drawn
//! token to the CPU's sampler.
//!
//! Invariant: blocks of the pool are handed out in a scrambled order, so that nothing passes
//! because a block's number is its place.

use std::path::Path;
use std::sync::Arc;

use hotspare_batch::{
    Batch, BlockId, Row, RowOutput, SamplingParams, SlotInit, StopParams, TOKEN_FROM_DEVICE,
    TokenId, TokenLogprobs, TokenMask,
};
use hotspare_model::ops::StepLimits;
use hotspare_model::weights::WeightDtype;
use hotspare_model::{LoadOptions, ModelRunner, ModelSource};
use hotspare_sampler::{Scratch, SlotState, sample_masked_row, token_logprobs};

use super::CheckError;
use crate::ops::CudaOps;
use crate::{CudaBackend, CudaOptions, DEFAULT_MAX_GRAPH_BYTES, Device, Dtype, KvBudget, Numerics};

pub(super) const BLOCK_SIZE: usize = 16;
const NUM_BLOCKS: usize = 96;
const MAX_MODEL_LEN: usize = 320;

/// How a model is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Of activations.
    pub dtype: Dtype,
    /// Of the cache: f16 or bf16.
    pub kv_dtype: Dtype,
    /// Slots, and rows of logits that there is memory for.
    pub max_num_seqs: usize,
    /// Whether decode steps run as graphs.
    pub uses_graphs: bool,
    /// What these may hold.
    pub max_graph_bytes: usize,
    /// Of the cache; 96 blocks at most.
    pub kv_budget: KvBudget,
    /// Whether a library may compute products.
    pub numerics: Numerics,
}

impl Settings {
    /// With a cache of sixteen bits, of the activations' type where they have as many.
    pub fn new(dtype: Dtype) -> Self {
        Self {
            dtype,
            kv_dtype: match dtype {
                Dtype::Bf16 => Dtype::Bf16,
                _ => Dtype::F16,
            },
            max_num_seqs: 8,
            uses_graphs: false,
            max_graph_bytes: DEFAULT_MAX_GRAPH_BYTES,
            kv_budget: KvBudget::Exact,
            numerics: Numerics::Invariant,
        }
    }
}

/// One sequence and what was computed of it.
pub(super) struct Sequence {
    /// Prompt and output.
    pub(super) ids: Vec<TokenId>,
    pub(super) num_prompt: usize,
    /// Logits by position, where they were asked for.
    pub(super) logits: Vec<Vec<f32>>,
    num_computed: usize,
    slot: u32,
    blocks: Vec<BlockId>,
    sampling: Arc<SamplingParams>,
    stop: Arc<StopParams>,
    has_slot: bool,
    /// What it may draw, where that is not everything.
    pub(super) mask: Option<Arc<[u32]>>,
    /// The CPU's.
    state: SlotState,
}

impl Sequence {
    /// Tokens after the prompt.
    pub(super) fn output(&self) -> &[TokenId] {
        &self.ids[self.num_prompt..]
    }

    /// Tokens that are known and not computed.
    pub(super) fn num_waiting(&self) -> usize {
        self.ids.len() - self.num_computed
    }

    fn sees_all(&self) -> bool {
        self.sampling.num_prompt_logprobs.is_some()
    }
}

/// A model on a device, and sequences.
pub(super) struct Harness<D: Device> {
    pub(super) runner: ModelRunner<CudaOps<D>>,
    pub(super) sequences: Vec<Sequence>,
    pub(super) vocab_size: usize,
    free_blocks: Vec<BlockId>,
    settings: Settings,
    step: u64,
    /// Tokens and log-probabilities that were held to the CPU's.
    pub(super) num_held: usize,
}

/// Loads the model in `path`.
pub(crate) fn load<D: Device>(
    device: D,
    path: &Path,
    settings: Settings,
) -> Result<hotspare_model::PipelinedRunner<CudaOps<D>>, CheckError> {
    let name = path.to_str().ok_or_else(|| CheckError::new("a path"))?;
    let source = ModelSource::resolve(name).map_err(CheckError::new)?;
    let files = source.open().map_err(CheckError::new)?;
    let config = files.config().map_err(CheckError::new)?;
    let limits = StepLimits {
        max_num_batched_tokens: 320,
        max_num_seqs: settings.max_num_seqs,
        max_model_len: config.max_context_len().min(MAX_MODEL_LEN),
    };
    let options = CudaOptions {
        limits: limits.clone(),
        dtype: settings.dtype,
        kv_budget: settings.kv_budget,
        uses_graphs: settings.uses_graphs,
        max_graph_bytes: settings.max_graph_bytes,
        numerics: settings.numerics,
    };
    let load_options = LoadOptions {
        limits,
        num_blocks: NUM_BLOCKS,
        block_size: BLOCK_SIZE,
        kv_dtype: match settings.kv_dtype {
            Dtype::F32 => WeightDtype::F32,
            Dtype::F16 => WeightDtype::F16,
            Dtype::Bf16 => WeightDtype::Bf16,
        },
        quantization: None,
    };
    CudaBackend::load(device, options, &files, &load_options, &mut |_| {})
        .map_err(|error| CheckError(format!("{name}: {error}")))
}

/// Blocks in an order that is not theirs.
pub(super) fn scrambled_blocks() -> Vec<BlockId> {
    let len = NUM_BLOCKS as BlockId;
    (0..len).map(|i| i * 37 % len).collect()
}

impl<D: Device> Harness<D> {
    /// Loads the model in `path`.
    pub(super) fn load(device: D, path: &Path, settings: Settings) -> Result<Self, CheckError> {
        let runner = load(device, path, settings)?.into_runner();
        let vocab_size = hotspare_batch::StepRunner::info(&runner).vocab_size;
        Ok(Self {
            runner,
            sequences: Vec::new(),
            vocab_size,
            free_blocks: scrambled_blocks(),
            settings,
            step: 0,
            num_held: 0,
        })
    }

    /// Adds a sequence and returns its index.
    pub(super) fn add(&mut self, prompt: &[TokenId], sampling: &SamplingParams) -> usize {
        self.add_resumed(prompt, prompt.len(), sampling, &StopParams::default())
    }

    /// Adds a sequence of which `num_prompt` ids are prompt, the rest delivered output.
    pub(super) fn add_resumed(
        &mut self,
        ids: &[TokenId],
        num_prompt: usize,
        sampling: &SamplingParams,
        stop: &StopParams,
    ) -> usize {
        self.sequences.push(Sequence {
            ids: ids.to_vec(),
            num_prompt,
            logits: Vec::new(),
            num_computed: 0,
            slot: (self.sequences.len() % self.settings.max_num_seqs) as u32,
            blocks: Vec::new(),
            sampling: Arc::new(sampling.clone()),
            stop: Arc::new(stop.clone()),
            has_slot: false,
            mask: None,
            state: SlotState::default(),
        });
        self.sequences.len() - 1
    }

    /// Adds a sequence whose first `num_blocks` blocks are those of `from`.
    pub(super) fn add_cached(
        &mut self,
        prompt: &[TokenId],
        sampling: &SamplingParams,
        from: usize,
        num_blocks: usize,
    ) -> usize {
        let index = self.add(prompt, sampling);
        let blocks = self.sequences[from].blocks[..num_blocks].to_vec();
        let sequence = &mut self.sequences[index];
        sequence.blocks = blocks;
        sequence.num_computed = num_blocks * BLOCK_SIZE;
        sequence.logits = vec![Vec::new(); sequence.num_computed];
        index
    }

    /// Gives the blocks of a sequence back.
    pub(super) fn end(&mut self, index: usize) {
        let blocks = std::mem::take(&mut self.sequences[index].blocks);
        self.free_blocks.extend(blocks);
    }

    /// Runs one step: so many waiting tokens of each of these sequences, in this order.
    pub(super) fn step(&mut self, chunks: &[(usize, usize)]) -> Result<(), CheckError> {
        let mut batch = Batch {
            step: self.step,
            ..Batch::default()
        };
        self.step += 1;
        for &(index, num_tokens) in chunks {
            self.push_row(&mut batch, index, num_tokens)?;
        }
        let mut logits = Vec::new();
        let output = self.runner.run_with_logits(&batch, &mut logits);
        let output = output.map_err(CheckError::new)?;
        let mut logits = logits.chunks(self.vocab_size);
        for ((&(index, num_tokens), row), output) in chunks.iter().zip(&batch.rows).zip(output.rows)
        {
            let num_logits = match row.wants_prompt_logprobs {
                true => num_tokens,
                false => usize::from(row.samples),
            };
            let own: Vec<Vec<f32>> = logits
                .by_ref()
                .take(num_logits)
                .map(<[f32]>::to_vec)
                .collect();
            self.take(index, row, own, output)?;
        }
        match logits.next() {
            None => Ok(()),
            Some(_) => Err(CheckError::new("more logits than were asked for")),
        }
    }

    /// Takes what a step made of sequence `index`, and holds it to the CPU's sampler.
    fn take(
        &mut self,
        index: usize,
        row: &Row,
        logits: Vec<Vec<f32>>,
        output: RowOutput,
    ) -> Result<(), CheckError> {
        let sequence = &mut self.sequences[index];
        if output.slot != row.slot || output.error.is_some() {
            return Err(CheckError(format!("sequence {index}: {:?}", output.error)));
        }
        let mut scratch = Scratch::default();
        if row.wants_prompt_logprobs {
            let num_top = sequence.sampling.num_prompt_logprobs.unwrap_or(0);
            let start = row.num_computed_tokens as usize + 1;
            for (i, found) in output.prompt_logprobs.iter().enumerate() {
                let (token, keys) = (sequence.ids[start + i], &mut scratch.keys);
                let position = (start + i) as u32;
                let expected = token_logprobs(&logits[i], token, position, num_top, keys);
                same_logprobs(found, &expected.map_err(CheckError::new)?)?;
                self.num_held += 1;
            }
        }
        let gap = row.num_tokens() - logits.len();
        sequence.logits.extend(std::iter::repeat_n(Vec::new(), gap));
        sequence.num_computed += row.num_tokens();
        if row.samples {
            let mut last = logits[logits.len() - 1].clone();
            let position = row.context_len() as u32;
            let (state, mask) = (&mut sequence.state, sequence.mask.as_deref());
            let expected = sample_masked_row(&mut last, state, mask, position, &mut scratch);
            let expected = expected.map_err(CheckError::new)?;
            let found: Vec<TokenId> = output.token_ids.iter().copied().collect();
            if found != [expected.token] {
                let sampling = &sequence.sampling;
                return Err(CheckError(format!(
                    "at {position} {found:?} was drawn, the CPU's is {}: {sampling:?}",
                    expected.token
                )));
            }
            match (&output.logprobs[..], &expected.logprobs) {
                ([], None) => {}
                ([found], Some(expected)) => same_logprobs(found, expected)?,
                (found, expected) => {
                    return Err(CheckError(format!("{found:?}, not {expected:?}")));
                }
            }
            self.num_held += 1;
            sequence.ids.push(expected.token);
        }
        sequence.logits.extend(logits);
        Ok(())
    }

    /// Runs `index` alone, `chunk` tokens a step, until it has `num_output` tokens of output.
    pub(super) fn run_alone(
        &mut self,
        index: usize,
        chunk: usize,
        num_output: usize,
    ) -> Result<(), CheckError> {
        while self.sequences[index].output().len() < num_output {
            let num_tokens = self.sequences[index].num_waiting().min(chunk);
            self.step(&[(index, num_tokens)])?;
        }
        Ok(())
    }

    fn push_row(
        &mut self,
        batch: &mut Batch,
        index: usize,
        num_tokens: usize,
    ) -> Result<(), CheckError> {
        let sequence = &mut self.sequences[index];
        if !sequence.has_slot {
            sequence.has_slot = true;
            let init = SlotInit {
                slot: sequence.slot,
                token_ids: sequence.ids.clone().into(),
                num_prompt_tokens: sequence.num_prompt as u32,
                sampling: Arc::clone(&sequence.sampling),
                stop: Arc::clone(&sequence.stop),
            };
            sequence.state.reset(&init);
            batch.slot_inits.push(init);
        }
        let (start, end) = (sequence.num_computed, sequence.num_computed + num_tokens);
        while sequence.blocks.len() * BLOCK_SIZE < end {
            let block = self.free_blocks.pop();
            sequence
                .blocks
                .push(block.ok_or_else(|| CheckError::new("no block is left"))?);
        }
        let (first_token, first_block) = (batch.token_ids.len(), batch.block_tables.len());
        batch.token_ids.extend(&sequence.ids[start..end]);
        batch.block_tables.extend(&sequence.blocks);
        // A lone token that was drawn in the step before: from the device, as look-ahead does.
        if num_tokens == 1 && start > sequence.num_prompt && end == sequence.ids.len() {
            batch.token_ids[first_token] = TOKEN_FROM_DEVICE;
        }
        if let (Some(words), true) = (&sequence.mask, end == sequence.ids.len()) {
            batch.token_masks.push(TokenMask {
                row: batch.rows.len() as u32,
                words: Arc::clone(words),
            });
        }
        batch.rows.push(Row {
            slot: sequence.slot,
            num_computed_tokens: start as u32,
            tokens: first_token as u32..batch.token_ids.len() as u32,
            blocks: first_block as u32..batch.block_tables.len() as u32,
            samples: end == sequence.ids.len(),
            wants_prompt_logprobs: sequence.sees_all() && start < sequence.num_prompt,
            next_prompt_token: sequence.ids.get(end).copied(),
        });
        Ok(())
    }
}

/// The same token, rank and alternatives; logarithms may differ in the last places.
fn same_logprobs(found: &TokenLogprobs, expected: &TokenLogprobs) -> Result<(), CheckError> {
    let is_close = |a: f32, b: f32| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
    let tops = found.top.iter().zip(&expected.top);
    let is_same = (found.token, found.rank, found.top.len())
        == (expected.token, expected.rank, expected.top.len())
        && is_close(found.logprob, expected.logprob)
        && tops
            .into_iter()
            .all(|(a, b)| a.0 == b.0 && is_close(a.1, b.1));
    match is_same {
        true => Ok(()),
        false => Err(CheckError(format!("{found:?}, the CPU's is {expected:?}"))),
    }
}
