//! Token ids that only the device knows: kernels/resolve_tokens.cu.
//!
//! Invariant: as in the kernel's own head.

use bytemuck::{Pod, Zeroable};

use super::launch;
use crate::{Address, LaunchError, Launcher};

/// `token_ids[i] = last_tokens[from_slots[i]]` where a slot is named.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ResolveTokens {
    /// `[tokens]`, u32.
    pub token_ids: Address,
    /// `[tokens]`, u32: the slot whose last token it is, or [`ResolveTokens::NO_SLOT`].
    pub from_slots: Address,
    /// `[slots]`, u32.
    pub last_tokens: Address,
    /// Tokens of the step.
    pub num_tokens: u32,
    /// Zero.
    pub unused: u32,
}

impl ResolveTokens {
    /// In `from_slots`: the id stays.
    pub const NO_SLOT: u32 = u32::MAX;
    const NUM_THREADS: u32 = 128;

    /// Runs it.
    ///
    /// # Errors
    /// What the device says.
    pub fn launch(&self, launcher: &mut dyn Launcher) -> Result<(), LaunchError> {
        let num_blocks = self.num_tokens.div_ceil(Self::NUM_THREADS) as usize;
        let grid = [num_blocks, 1, 1];
        launch(launcher, "resolve_tokens", grid, Self::NUM_THREADS, 0, self)
    }
}
