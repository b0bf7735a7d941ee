//! Matrix products: kernels/linear_skinny.cu, kernels/linear_tile.cu and kernels/linear_f32.cu.
//!
//! Invariant: both roads for sixteen-bit rows add in the same order (kernels/linear.cuh), so which
//! one runs is a question of speed alone.

use bytemuck::{Pod, Zeroable};
use hotspare_model::weights::WeightDtype;

use super::{WeightFormat, launch};
use crate::dtype::pick;
use crate::{Address, Dtype, LaunchError, Launcher};

/// Rows of x up to which weights are streamed once instead of tiled.
const MAX_SKINNY_ROWS: usize = 16;

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// Tiles of this many rows, 8 or 16: weights are streamed once for each.
    Skinny(usize),
    /// Tiles of 64 rows and 128 outputs; dense weights only.
    Tile,
}

impl Road {
    /// The faster one for `num_rows` rows (of the largest group).
    pub fn best(num_rows: usize) -> Self {
        match num_rows {
            0..=8 => Self::Skinny(8),
            9..=MAX_SKINNY_ROWS => Self::Skinny(16),
            _ => Self::Tile,
        }
    }
}

/// `out[r] = weight · x[r]`, or, by groups, `out[r] = weight[group of r] · x[x_rows[r]]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Linear {
    /// `[rows, num_inputs]`.
    pub x: Address,
    /// `[groups, num_outputs, num_inputs]`: rows start at multiples of sixteen bytes.
    pub weight: Address,
    /// Scales, where the format has them apart.
    pub scales: Address,
    /// `[rows, num_outputs]`.
    pub out: Address,
    /// For each row of `out` its row of `x`, u32; null: the same.
    pub x_rows: Address,
    /// `[groups + 1]`, u32: the rows of each group; null: one group.
    pub group_offsets: Address,
    /// Bytes from one row of weights to the next.
    pub weight_row_bytes: u64,
    /// Bytes from one group of weights to the next.
    pub weight_group_bytes: u64,
    /// Bytes from one row of scales to the next.
    pub scale_row_bytes: u64,
    /// Bytes from one group of scales to the next.
    pub scale_group_bytes: u64,
    /// Rows of `out`.
    pub num_rows: u32,
    /// Width of `out`.
    pub num_outputs: u32,
    /// Width of `x`.
    pub num_inputs: u32,
    /// Elements from one row of `x` to the next.
    pub x_stride: u32,
    /// Elements from one row of `out` to the next.
    pub out_stride: u32,
    /// [`Dtype::code`] of `out`.
    pub out_dtype: u32,
}

impl Linear {
    const NUM_THREADS: u32 = 256;
    /// Of a block of the skinny road: eight warps, three stages, a piece of sixteen bytes a lane.
    const SKINNY_PIECE_BYTES: usize = 8 * 3 * 32 * 16;
    const TILE_BYTES: usize = 3 * (128 + 64) * 128;

    /// Runs it on rows of `dtype`; `num_groups` groups of at most `max_group_rows` rows.
    ///
    /// # Errors
    /// Formats without a kernel; what the device says.
    pub fn launch(
        &self,
        launcher: &mut dyn Launcher,
        dtype: Dtype,
        format: WeightFormat,
        road: Road,
        [num_groups, max_group_rows]: [usize; 2],
    ) -> Result<(), LaunchError> {
        if dtype == Dtype::F32 && format == WeightFormat::Plain(WeightDtype::F32) {
            let grid = [self.num_outputs as usize, max_group_rows, num_groups];
            let grid = [grid[0].div_ceil(64), grid[1].div_ceil(16), grid[2]];
            return launch(launcher, "linear_f32", grid, Self::NUM_THREADS, 0, self);
        }
        let (kernel, pieces) = kernel_of(dtype, format, road).ok_or_else(|| {
            LaunchError::Misuse(format!("a product of {dtype:?} and {format:?}, {road:?}"))
        })?;
        let (outputs, rows, bytes) = match road {
            Road::Skinny(rows) => (16, rows, pieces * Self::SKINNY_PIECE_BYTES),
            Road::Tile => (128, 64, Self::TILE_BYTES),
        };
        let grid = [
            (self.num_outputs as usize).div_ceil(outputs),
            max_group_rows.div_ceil(rows),
            num_groups,
        ];
        launch(launcher, kernel, grid, Self::NUM_THREADS, bytes, self)
    }
}

/// The kernel, and the pieces of sixteen bytes that a lane has in a stage.
fn kernel_of(dtype: Dtype, format: WeightFormat, road: Road) -> Option<(&'static str, usize)> {
    if dtype == Dtype::F32 {
        return None;
    }
    let is_dense = match format {
        WeightFormat::Plain(WeightDtype::F16) => dtype == Dtype::F16,
        WeightFormat::Plain(WeightDtype::Bf16) => dtype == Dtype::Bf16,
        WeightFormat::Plain(_) => return None,
        WeightFormat::Q8_0Planes | WeightFormat::Q4KPlanes => false,
    };
    if !is_dense && matches!(format, WeightFormat::Plain(_)) {
        return None;
    }
    let names = match (format, road) {
        (WeightFormat::Plain(_), Road::Tile) => ["", "linear_tile_f16", "linear_tile_bf16"],
        (WeightFormat::Plain(_), Road::Skinny(8)) => {
            ["", "linear_skinny_f16_8", "linear_skinny_bf16_8"]
        }
        (WeightFormat::Plain(_), Road::Skinny(16)) => {
            ["", "linear_skinny_f16_16", "linear_skinny_bf16_16"]
        }
        (WeightFormat::Q8_0Planes, Road::Skinny(8)) => {
            ["", "linear_skinny_q8_0_f16_8", "linear_skinny_q8_0_bf16_8"]
        }
        (WeightFormat::Q8_0Planes, Road::Skinny(16)) => [
            "",
            "linear_skinny_q8_0_f16_16",
            "linear_skinny_q8_0_bf16_16",
        ],
        (WeightFormat::Q4KPlanes, Road::Skinny(8)) => {
            ["", "linear_skinny_q4_k_f16_8", "linear_skinny_q4_k_bf16_8"]
        }
        (WeightFormat::Q4KPlanes, Road::Skinny(16)) => [
            "",
            "linear_skinny_q4_k_f16_16",
            "linear_skinny_q4_k_bf16_16",
        ],
        _ => return None,
    };
    let row_tiles = if road == Road::Skinny(8) { 1 } else { 2 };
    Some((
        pick(dtype, names),
        if is_dense { 4 } else { 2 } + 2 * row_tiles,
    ))
}
