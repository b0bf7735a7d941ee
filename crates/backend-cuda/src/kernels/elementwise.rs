//! Operations of one element in, one element out: kernels/gated.cu and kernels/rowwise.cu.
//!
//! Invariant: as in the kernels' own heads.

use bytemuck::{Pod, Zeroable};

use super::launch;
use crate::dtype::pick;
use crate::{Address, Dtype, LaunchError, Launcher};

const NUM_THREADS: u32 = 128;

/// A grid of rows by packs of sixteen bytes.
fn grid(dtype: Dtype, num_rows: usize, width: usize) -> [usize; 3] {
    let packs = width.div_ceil(16 / dtype.size());
    [num_rows, packs.div_ceil(NUM_THREADS as usize), 1]
}

/// A gate's activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
    /// The tanh form of GELU.
    GeluTanh,
}

/// `out = activation(gate) * up`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Gated {
    /// `[rows, 2 width]`: gate, then up.
    pub gate_up: Address,
    /// `[rows, width]`.
    pub out: Address,
    /// Elements of a row of `out`.
    pub width: u32,
    /// Elements from one row of `gate_up` to the next.
    pub in_stride: u32,
    /// Elements from one row of `out` to the next.
    pub out_stride: u32,
    /// Zero.
    pub unused: u32,
}

impl Gated {
    /// Runs it over `num_rows` rows of `dtype`.
    ///
    /// # Errors
    /// What the device says.
    pub fn launch(
        &self,
        launcher: &mut dyn Launcher,
        activation: Activation,
        dtype: Dtype,
        num_rows: usize,
    ) -> Result<(), LaunchError> {
        let names = match activation {
            Activation::Silu => ["silu_mul_f32", "silu_mul_f16", "silu_mul_bf16"],
            Activation::GeluTanh => [
                "gelu_tanh_mul_f32",
                "gelu_tanh_mul_f16",
                "gelu_tanh_mul_bf16",
            ],
        };
        let grid = grid(dtype, num_rows, self.width as usize);
        launch(launcher, pick(dtype, names), grid, NUM_THREADS, 0, self)
    }
}

/// `soft_cap`, `add_bias` and `gather_rows`, which read what they need of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Rowwise {
    /// `[rows, width]`; in place but for `gather_rows`.
    pub x: Address,
    /// `[width]`, f32: what `add_bias` adds.
    pub bias: Address,
    /// The rows that `gather_rows` takes.
    pub index: Address,
    /// Where `gather_rows` puts them.
    pub out: Address,
    /// Elements of a row.
    pub width: u32,
    /// Elements from one row to the next.
    pub stride: u32,
    /// Of `soft_cap`.
    pub cap: f32,
    /// Zero.
    pub unused: u32,
}

impl Rowwise {
    /// `x = cap * tanh(x / cap)`.
    ///
    /// # Errors
    /// What the device says.
    pub fn soft_cap(
        &self,
        launcher: &mut dyn Launcher,
        dtype: Dtype,
        num_rows: usize,
    ) -> Result<(), LaunchError> {
        self.run(
            launcher,
            dtype,
            num_rows,
            ["soft_cap_f32", "soft_cap_f16", "soft_cap_bf16"],
        )
    }

    /// `x += bias`.
    ///
    /// # Errors
    /// What the device says.
    pub fn add_bias(
        &self,
        launcher: &mut dyn Launcher,
        dtype: Dtype,
        num_rows: usize,
    ) -> Result<(), LaunchError> {
        self.run(
            launcher,
            dtype,
            num_rows,
            ["add_bias_f32", "add_bias_f16", "add_bias_bf16"],
        )
    }

    /// `out[r] = x[index[r]]`.
    ///
    /// # Errors
    /// What the device says.
    pub fn gather_rows(
        &self,
        launcher: &mut dyn Launcher,
        dtype: Dtype,
        num_rows: usize,
    ) -> Result<(), LaunchError> {
        let names = ["gather_rows_f32", "gather_rows_f16", "gather_rows_bf16"];
        self.run(launcher, dtype, num_rows, names)
    }

    fn run(
        &self,
        launcher: &mut dyn Launcher,
        dtype: Dtype,
        num_rows: usize,
        names: [&'static str; 3],
    ) -> Result<(), LaunchError> {
        let grid = grid(dtype, num_rows, self.width as usize);
        launch(launcher, pick(dtype, names), grid, NUM_THREADS, 0, self)
    }
}
