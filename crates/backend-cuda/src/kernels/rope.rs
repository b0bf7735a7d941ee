//! Rotation of q and k and the write to the KV cache: kernels/rope_kv_write.cu.
//!
//! Invariant: as in the kernel's own head.

use bytemuck::{Pod, Zeroable};

use super::launch;
use crate::dtype::pick;
use crate::{Address, Dtype, LaunchError, Launcher};

/// Rotates q and k in place and writes k and v to the cache of one layer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct RopeKvWrite {
    /// `[rows, num_heads + 2 num_kv_heads, head_dim]`.
    pub qkv: Address,
    /// `[rows]`, u32.
    pub positions: Address,
    /// `[rows]`, i32: block times block size plus place, or -1.
    pub kv_slots: Address,
    /// `[num_positions, rotary_dim / 2]`, f32.
    pub cos: Address,
    /// As `cos`.
    pub sin: Address,
    /// `[blocks, num_kv_heads, block_size, head_stride]`.
    pub k_cache: Address,
    /// As `k_cache`.
    pub v_cache: Address,
    /// Elements from one block to the next.
    pub block_stride: u64,
    /// Rows of the tables.
    pub num_positions: u32,
    /// Query heads.
    pub num_heads: u32,
    /// Key and value heads.
    pub num_kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Elements from one key to the next in the cache: a multiple of eight.
    pub head_stride: u32,
    /// Tokens a block.
    pub block_size: u32,
    /// Leading dimensions that turn.
    pub rotary_dim: u32,
    /// 1 where neighbours turn together.
    pub is_interleaved: u32,
    /// Elements from one row of `qkv` to the next.
    pub stride: u32,
    /// Zero.
    pub unused: u32,
}

impl RopeKvWrite {
    const NUM_THREADS: u32 = 128;

    /// Runs it over `num_rows` rows of `dtype`, for a cache of `kv_dtype`.
    ///
    /// # Errors
    /// A cache in f32; what the device says.
    pub fn launch(
        &self,
        launcher: &mut dyn Launcher,
        dtype: Dtype,
        kv_dtype: Dtype,
        num_rows: usize,
    ) -> Result<(), LaunchError> {
        let names = match kv_dtype {
            Dtype::F32 => return Err(LaunchError::Misuse("a KV cache in f32".to_owned())),
            Dtype::F16 => [
                "rope_kv_write_f32_f16",
                "rope_kv_write_f16_f16",
                "rope_kv_write_bf16_f16",
            ],
            Dtype::Bf16 => [
                "rope_kv_write_f32_bf16",
                "rope_kv_write_f16_bf16",
                "rope_kv_write_bf16_bf16",
            ],
        };
        launch(
            launcher,
            pick(dtype, names),
            [num_rows, 1, 1],
            Self::NUM_THREADS,
            0,
            self,
        )
    }
}
