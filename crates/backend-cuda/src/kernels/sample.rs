//! The sampler: kernels/sample.cu, three kernels with one struct of arguments.
//!
//! Invariant: the token is the CPU sampler's for the same logits and parameters.

use bytemuck::{Pod, Zeroable};

use super::launch;
use crate::{Address, LaunchError, Launcher};

/// No token: a row that failed, an empty place of a table, a mask that is not there.
pub const NO_TOKEN: u32 = u32::MAX;

/// Parameters of one row.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct SampleRow {
    /// Below 1e-5: greedy.
    pub temperature: f32,
    /// As in `SamplingParams`.
    pub top_p: f32,
    /// As in `SamplingParams`.
    pub min_p: f32,
    /// As in `SamplingParams`.
    pub top_k: u32,
    /// As in `SamplingParams`.
    pub repetition_penalty: f32,
    /// As in `SamplingParams`.
    pub frequency_penalty: f32,
    /// As in `SamplingParams`.
    pub presence_penalty: f32,
    /// Whose last token it becomes.
    pub slot: u32,
    /// Low half of the seed.
    pub seed_low: u32,
    /// High half of the seed.
    pub seed_high: u32,
    /// Index, in prompt and output together, of the token to draw.
    pub position: u32,
    /// Which of a request's choices it is.
    pub choice: u32,
    /// Start, in `masked`, of the tokens that cannot be drawn yet.
    pub masked_start: u32,
    /// Their end.
    pub masked_end: u32,
    /// Start, in `bias_tokens` and `biases`, of the row's biases.
    pub bias_start: u32,
    /// Their end.
    pub bias_end: u32,
    /// First pair of the slot's table of counts.
    pub counts_start: u32,
    /// Pairs of the table, a power of two; 0: no penalties.
    pub counts_capacity: u32,
    /// Mask of the tokens that the request allows, or [`NO_TOKEN`].
    pub allowed: u32,
    /// Mask of the tokens that a grammar allows, or [`NO_TOKEN`].
    pub grammar: u32,
}

/// A place in a table of counts: the token, and how often it is in the output.
pub type CountPair = [u32; 2];

/// The table of counts for `counts` (tokens of prompt or output, each once), with `capacity`
/// places.
///
/// A table needs a place for each token of prompt and output to come; a power of two at least twice
/// as large keeps its chains short. Tokens that find no place are left out.
pub fn counts_table(counts: &[CountPair], capacity: usize) -> Vec<CountPair> {
    let mut table = vec![[NO_TOKEN, 0]; capacity];
    for pair in counts {
        let first = pair[0].wrapping_mul(0x9E37_79B1) as usize;
        let mut places = (first..first + capacity).map(|place| place & (capacity - 1));
        if let Some(place) = places.find(|&place| table[place][0] == NO_TOKEN) {
            table[place] = *pair;
        }
    }
    table
}

/// Draws a token for each row.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Sample {
    /// `[rows, vocab_size]`, f32; changed.
    pub logits: Address,
    /// [`SampleRow`]s.
    pub rows: Address,
    /// Token ids, u32.
    pub masked: Address,
    /// Token ids, u32.
    pub bias_tokens: Address,
    /// f32, one for each of `bias_tokens`.
    pub biases: Address,
    /// `[masks, vocab_size.div_ceil(32)]`, u32: bit `i % 32` of word `i / 32` allows token `i`.
    pub masks: Address,
    /// [`CountPair`]s of all slots.
    pub counts: Address,
    /// `[rows]`, u32: the tokens drawn, [`NO_TOKEN`] where logits are unusable.
    pub tokens: Address,
    /// `[slots]`, u32: what the next step takes its tokens from.
    pub last_tokens: Address,
    /// `[rows, `[`Sample::num_chunks`]`]`, u64: a workspace.
    pub chunk_keys: Address,
    /// `[rows, `[`Sample::num_blocks`]`]`, f64: a workspace.
    pub block_sums: Address,
    /// Logits of a row.
    pub vocab_size: u32,
    /// Elements from one row of logits to the next.
    pub stride: u32,
}

impl Sample {
    /// Tokens of a vocabulary at most.
    pub const MAX_VOCAB_SIZE: u32 = 1536 * 256;

    /// Chunks of a row, each of which a thread block reads by itself.
    pub fn num_chunks(vocab_size: usize) -> usize {
        vocab_size.div_ceil(2048)
    }

    /// Blocks of a row whose weights are summed in f32.
    pub fn num_blocks(vocab_size: usize) -> usize {
        vocab_size.div_ceil(256)
    }

    /// Runs it for `num_rows` rows: three launches.
    ///
    /// # Errors
    /// Too large a vocabulary; what the device says.
    pub fn launch(&self, launcher: &mut dyn Launcher, num_rows: usize) -> Result<(), LaunchError> {
        if self.vocab_size == 0 || self.vocab_size > Self::MAX_VOCAB_SIZE {
            return Err(LaunchError::Misuse(format!(
                "a vocabulary of {}",
                self.vocab_size
            )));
        }
        let chunks = [Self::num_chunks(self.vocab_size as usize), num_rows, 1];
        launch(launcher, "sample_scan", chunks, 256, 0, self)?;
        launch(launcher, "sample_weigh", chunks, 128, 0, self)?;
        launch(launcher, "sample", [num_rows, 1, 1], 512, 0, self)
    }
}
