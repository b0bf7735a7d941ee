//! Log-probabilities: kernels/logprobs.cu.
//!
//! Invariant: computed from logits that no mask, bias, penalty or temperature has touched.

use bytemuck::{Pod, Zeroable};

use super::{Sample, launch};
use crate::{Address, LaunchError, Launcher};

/// One token whose log-probability is asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct LogprobsEntry {
    /// Its row of logits.
    pub row: u32,
    /// The token, or [`LogprobsEntry::DRAWN`].
    pub token: u32,
    /// Which of the drawn tokens, for [`LogprobsEntry::DRAWN`].
    pub drawn: u32,
    /// How many of the most likely tokens are asked for.
    pub num_top: u32,
    /// Where theirs start.
    pub top_start: u32,
}

impl LogprobsEntry {
    /// In `token`: the one that the sampler drew, which the host does not know yet.
    pub const DRAWN: u32 = u32::MAX - 1;
}

/// Log-softmax, rank and the most likely tokens of each entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Logprobs {
    /// `[rows, vocab_size]`, f32.
    pub logits: Address,
    /// [`LogprobsEntry`]s.
    pub entries: Address,
    /// What the sampler drew, u32.
    pub tokens: Address,
    /// `[entries]`, f32.
    pub own_logprobs: Address,
    /// `[entries]`, u32: 1 for the most likely, 0 where logits are unusable.
    pub ranks: Address,
    /// u32, best first; `NO_TOKEN` where there are fewer.
    pub top_tokens: Address,
    /// f32, one for each of `top_tokens`.
    pub top_logprobs: Address,
    /// Logits of a row.
    pub vocab_size: u32,
    /// Elements from one row of logits to the next.
    pub stride: u32,
}

impl Logprobs {
    /// Runs it for `num_entries` entries.
    ///
    /// # Errors
    /// Too large a vocabulary; what the device says.
    pub fn launch(
        &self,
        launcher: &mut dyn Launcher,
        num_entries: usize,
    ) -> Result<(), LaunchError> {
        if self.vocab_size == 0 || self.vocab_size > Sample::MAX_VOCAB_SIZE {
            return Err(LaunchError::Misuse(format!(
                "a vocabulary of {}",
                self.vocab_size
            )));
        }
        launch(launcher, "logprobs", [num_entries, 1, 1], 512, 0, self)
    }
}
