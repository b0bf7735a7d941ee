//! Kernels as the host sees them: one module an operation, with the struct of its arguments and
//! the grid it runs on.
//!
//! Invariant: a struct here has the layout of the one in the `.cu` file of the same name; the
//! emulator refuses a launch whose length differs.

mod attention;
mod elementwise;
mod embed;
mod linear;
mod logprobs;
mod moe;
mod norm;
mod resolve;
mod rope;
mod sample;

pub use attention::{Attention, AttentionItem, SPLIT_KEYS, Variant};
pub use elementwise::{Activation, Gated, Rowwise};
pub use embed::{Embed, WeightFormat, Weights};
pub use linear::{Linear, Road};
pub use logprobs::{Logprobs, LogprobsEntry};
pub use moe::Moe;
pub use norm::{HeadRmsNorm, RmsNorm};
pub use resolve::ResolveTokens;
pub use rope::RopeKvWrite;
pub use sample::{CountPair, NO_TOKEN, Sample, SampleRow, counts_table};

use bytemuck::Pod;

use crate::launch::{Launch, LaunchError, Launcher};

/// A launch of `kernel`; nothing where the grid is empty.
fn launch<A: Pod>(
    launcher: &mut dyn Launcher,
    kernel: &'static str,
    grid: [usize; 3],
    num_threads: u32,
    shared_bytes: usize,
    args: &A,
) -> Result<(), LaunchError> {
    if grid.contains(&0) {
        return Ok(());
    }
    let fits = |x: usize| u32::try_from(x).map_err(|_| too_large(kernel, x));
    launcher.launch(&Launch {
        kernel,
        grid: [fits(grid[0])?, fits(grid[1])?, fits(grid[2])?],
        num_threads,
        shared_bytes: fits(shared_bytes)?,
        args: bytemuck::bytes_of(args),
    })
}

fn too_large(kernel: &str, x: usize) -> LaunchError {
    LaunchError::Misuse(format!("{kernel}: a grid or memory of {x}"))
}
