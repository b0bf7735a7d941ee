//! Mixture of experts around the grouped products: kernels/moe.cu.
//!
//! Invariant: rows of a group follow the step's order, so no result depends on scheduling.

use bytemuck::{Pod, Zeroable};

use super::launch;
use crate::dtype::pick;
use crate::{Address, Dtype, LaunchError, Launcher};

/// Routing, the order of rows by expert, and the sum of the experts' results.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Moe {
    /// `[rows, num_experts]`: the router's.
    pub logits: Address,
    /// `[rows, num_experts]`, f32: zero where an expert was not chosen.
    pub routes: Address,
    /// `[num_experts + 1]`, u32: the pairs of each expert.
    pub offsets: Address,
    /// `[rows * num_chosen]`, u32: the row of each pair.
    pub pair_rows: Address,
    /// `[rows, num_experts]`, u32: the pair of each route.
    pub pair_of: Address,
    /// `[pairs, width]`: the experts' results.
    pub pairs: Address,
    /// `[rows, width]`.
    pub out: Address,
    /// Rows in use.
    pub num_rows: u32,
    /// Experts, at most 1024.
    pub num_experts: u32,
    /// Experts of a row, at most 32.
    pub num_chosen: u32,
    /// 1 where the chosen experts' weights are divided by their sum.
    pub normalises: u32,
    /// Elements from one row of `logits` to the next.
    pub logits_stride: u32,
    /// Elements of a row of `out`.
    pub width: u32,
    /// Elements from one row of `pairs`, and of `out`, to the next.
    pub stride: u32,
    /// Zero.
    pub unused: u32,
}

impl Moe {
    /// Experts of a layer at most.
    pub const MAX_EXPERTS: u32 = 1024;
    const NUM_THREADS: u32 = 128;

    /// From `logits` of `dtype` to `routes`.
    ///
    /// # Errors
    /// More experts a row than a warp has lanes; what the device says.
    pub fn route(&self, launcher: &mut dyn Launcher, dtype: Dtype) -> Result<(), LaunchError> {
        if self.num_chosen > 32 {
            return Err(LaunchError::Misuse(format!(
                "{} experts a row",
                self.num_chosen
            )));
        }
        let kernel = pick(dtype, ["moe_route_f32", "moe_route_f16", "moe_route_bf16"]);
        let grid = [(self.num_rows as usize).div_ceil(4), 1, 1];
        launch(launcher, kernel, grid, Self::NUM_THREADS, 0, self)
    }

    /// From `routes` to `offsets`, `pair_rows` and `pair_of`.
    ///
    /// # Errors
    /// Too many experts; what the device says.
    pub fn plan(&self, launcher: &mut dyn Launcher) -> Result<(), LaunchError> {
        if self.num_experts > Self::MAX_EXPERTS {
            return Err(LaunchError::Misuse(format!("{} experts", self.num_experts)));
        }
        launch(launcher, "moe_plan", [1, 1, 1], 1024, 0, self)
    }

    /// From `pairs` and `routes` to `out`.
    ///
    /// # Errors
    /// What the device says.
    pub fn combine(&self, launcher: &mut dyn Launcher, dtype: Dtype) -> Result<(), LaunchError> {
        let names = ["moe_combine_f32", "moe_combine_f16", "moe_combine_bf16"];
        let packs = (self.width as usize).div_ceil(16 / dtype.size());
        let grid = [
            self.num_rows as usize,
            packs.div_ceil(Self::NUM_THREADS as usize),
            1,
        ];
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
