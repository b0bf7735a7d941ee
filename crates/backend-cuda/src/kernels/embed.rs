//! Weight formats on the device, and kernels/embed.cu: rows of a matrix, widened.
//!
//! Invariant: the numbers of formats are those of `Format` in kernels/formats.cuh.

use bytemuck::{Pod, Zeroable};
use hotspare_model::weights::WeightDtype;

use super::launch;
use crate::dtype::pick;
use crate::{Address, Dtype, LaunchError, Launcher};

/// How a matrix lies on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightFormat {
    /// As in the file.
    Plain(WeightDtype),
    /// `Q8_0` with quants and scales apart, for the fused product.
    Q8_0Planes,
    /// `Q4_K` with nibbles and scales apart, for the fused product.
    Q4KPlanes,
}

impl WeightFormat {
    /// The number that kernels know it by.
    pub fn code(self) -> u32 {
        match self {
            Self::Plain(WeightDtype::F32) => 0,
            Self::Plain(WeightDtype::F16) => 1,
            Self::Plain(WeightDtype::Bf16) => 2,
            Self::Plain(WeightDtype::Q4_0) => 3,
            Self::Plain(WeightDtype::Q4_1) => 4,
            Self::Plain(WeightDtype::Q5_0) => 5,
            Self::Plain(WeightDtype::Q5_1) => 6,
            Self::Plain(WeightDtype::Q8_0) => 7,
            Self::Plain(WeightDtype::Q2K) => 8,
            Self::Plain(WeightDtype::Q3K) => 9,
            Self::Plain(WeightDtype::Q4K) => 10,
            Self::Plain(WeightDtype::Q5K) => 11,
            Self::Plain(WeightDtype::Q6K) => 12,
            Self::Q8_0Planes => 13,
            Self::Q4KPlanes => 14,
        }
    }
}

/// Where a matrix of weights lies.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Weights {
    /// Elements, blocks, or quants.
    pub data: Address,
    /// Scales, where they lie apart.
    pub scales: Address,
    /// Bytes from one row of `data` to the next.
    pub row_bytes: u64,
    /// Bytes from one row of `scales` to the next.
    pub scale_row_bytes: u64,
}

/// `out[r] = table[token_ids[r]] * scale`, or, without ids, `out[r] = table[r] * scale`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Embed {
    /// `[num_table_rows, width]`.
    pub table: Weights,
    /// One for each row of `out`, or null.
    pub token_ids: Address,
    /// `[rows, width]`, rows at multiples of sixteen bytes.
    pub out: Address,
    /// Without ids: `[groups + 1]`, u32, the rows of each group of `rows_per_group` rows of the
    /// table; groups without rows are left out. Null: all are widened.
    pub group_offsets: Address,
    /// [`WeightFormat::code`].
    pub format: u32,
    /// The id of the table's first row, where a table has several parts.
    pub first_row: u32,
    /// Rows of this part.
    pub num_table_rows: u32,
    /// Elements of a row.
    pub width: u32,
    /// Elements from one row of `out` to the next.
    pub stride: u32,
    /// Factor.
    pub scale: f32,
    /// 1 for the last part: it makes rows of unknown ids NaN.
    pub is_last: u32,
    /// Rows of the table that a group has, where there are groups.
    pub rows_per_group: u32,
}

impl Embed {
    const NUM_THREADS: u32 = 128;

    /// Runs it for `num_rows` rows of `dtype`.
    ///
    /// # Errors
    /// What the device says.
    pub fn launch(
        &self,
        launcher: &mut dyn Launcher,
        dtype: Dtype,
        num_rows: usize,
    ) -> Result<(), LaunchError> {
        let kernel = pick(dtype, ["embed_f32", "embed_f16", "embed_bf16"]);
        let packs = (self.width as usize).div_ceil(16 / dtype.size());
        launch(
            launcher,
            kernel,
            [num_rows, packs.div_ceil(Self::NUM_THREADS as usize), 1],
            Self::NUM_THREADS,
            0,
            self,
        )
    }
}
