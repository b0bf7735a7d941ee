//! The norms: kernels/rms_norm.cu and kernels/head_rms_norm.cu.
//!
//! Invariant: as in the kernels' own heads.

use bytemuck::{Pod, Zeroable};

use super::launch;
use crate::dtype::pick;
use crate::{Address, Dtype, LaunchError, Launcher};

/// `out = rms_norm(x) * weight`, with `residual += x` before where there is a residual.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct RmsNorm {
    /// `[rows, width]`.
    pub x: Address,
    /// `[rows, width]`, or null.
    pub residual: Address,
    /// `[width]`, f32.
    pub weight: Address,
    /// `[rows, width]`.
    pub out: Address,
    /// Elements of a row.
    pub width: u32,
    /// Elements from one row to the next, of all three.
    pub stride: u32,
    /// Added to the mean of squares.
    pub eps: f32,
    /// Zero.
    pub unused: u32,
}

impl RmsNorm {
    const NUM_THREADS: u32 = 256;

    /// Runs it over `num_rows` rows of `dtype`.
    ///
    /// # Errors
    /// What the device says.
    pub fn launch(
        &self,
        launcher: &mut dyn Launcher,
        dtype: Dtype,
        num_rows: usize,
    ) -> Result<(), LaunchError> {
        let kernel = pick(dtype, ["rms_norm_f32", "rms_norm_f16", "rms_norm_bf16"]);
        launch(
            launcher,
            kernel,
            [num_rows, 1, 1],
            Self::NUM_THREADS,
            0,
            self,
        )
    }
}

/// `rms_norm` of each head of q and k, in place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct HeadRmsNorm {
    /// `[rows, num_heads + 2 num_kv_heads, head_dim]`.
    pub qkv: Address,
    /// `[head_dim]`, f32.
    pub q_weight: Address,
    /// `[head_dim]`, f32.
    pub k_weight: Address,
    /// Rows in use.
    pub num_rows: u32,
    /// Query heads.
    pub num_heads: u32,
    /// Key and value heads.
    pub num_kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Elements from one row to the next.
    pub stride: u32,
    /// Added to the mean of squares.
    pub eps: f32,
}

impl HeadRmsNorm {
    const NUM_THREADS: u32 = 128;

    /// Runs it.
    ///
    /// # Errors
    /// What the device says.
    pub fn launch(&self, launcher: &mut dyn Launcher, dtype: Dtype) -> Result<(), LaunchError> {
        let names = [
            "head_rms_norm_f32",
            "head_rms_norm_f16",
            "head_rms_norm_bf16",
        ];
        let num_warps = self.num_rows as usize * (self.num_heads + self.num_kv_heads) as usize;
        let grid = [num_warps.div_ceil(Self::NUM_THREADS as usize / 32), 1, 1];
        launch(
            launcher,
            pick(dtype, names),
            grid,
            Self::NUM_THREADS,
            0,
            self,
        )
    }
}
