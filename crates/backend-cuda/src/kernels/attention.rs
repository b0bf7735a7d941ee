//! Attention: kernels/attention.cu and kernels/attention_merge.cu.
//!
//! Invariant: whatever items a row's work is cut into, its bits are the same.

use bytemuck::{Pod, Zeroable};

use super::launch;
use crate::{Address, Dtype, LaunchError, Launcher};

/// Keys of a split; splits are counted from position 0.
pub const SPLIT_KEYS: usize = 256;

/// Rows of one sequence: query head `i % group` of token `i / group` is row `i`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct AttentionItem {
    /// Token of the step that row 0 belongs to.
    pub first_token: u32,
    /// Its position.
    pub position: u32,
    /// First row of the item.
    pub first_row: u32,
    /// Rows of the item; 0: nothing to do.
    pub num_rows: u32,
    /// Start of the sequence's blocks in the block tables.
    pub table_start: u32,
    /// First split to compute.
    pub first_split: u32,
    /// End of the splits to compute.
    pub end_split: u32,
    /// Where a single split's result goes (of a merge item: where the first one's is), or
    /// [`AttentionItem::WHOLE`].
    pub partial: u32,
}

impl AttentionItem {
    /// In `partial`: the item computes all splits of its rows.
    pub const WHOLE: u32 = u32::MAX;
}

/// How many rows a block takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Sixteen: decode rows.
    Decode,
    /// Sixty-four, or thirty-two of heads wider than 128: chunks of prompts.
    Prefill,
}

impl Variant {
    /// Rows of an item at most.
    pub fn num_rows(self, head_dim: usize) -> usize {
        match self {
            Self::Decode => 16,
            Self::Prefill if head_dim > 128 => 32,
            Self::Prefill => 64,
        }
    }
}

/// Causal attention over the paged cache of one layer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Attention {
    /// `[tokens, (num_heads + 2 num_kv_heads) * head_dim]`, q rotated.
    pub qkv: Address,
    /// `[tokens, num_heads * head_dim]`.
    pub out: Address,
    /// `[blocks, num_kv_heads, block_size, head_stride]`.
    pub k_cache: Address,
    /// As `k_cache`.
    pub v_cache: Address,
    /// Blocks of all sequences, u32.
    pub block_tables: Address,
    /// [`AttentionItem`]s.
    pub items: Address,
    /// `[partials, num_kv_heads, partial_rows, head_dim + 2]`, f32.
    pub partials: Address,
    /// `[num_heads]`, f32, or null.
    pub sinks: Address,
    /// Elements from one block to the next.
    pub block_stride: u64,
    /// Query heads.
    pub num_heads: u32,
    /// Key and value heads.
    pub num_kv_heads: u32,
    /// Width of a head, at most 256.
    pub head_dim: u32,
    /// Elements from one key to the next: a multiple of eight.
    pub head_stride: u32,
    /// Tokens a block.
    pub block_size: u32,
    /// Elements from one row of `qkv` to the next.
    pub qkv_stride: u32,
    /// Elements from one row of `out` to the next.
    pub out_stride: u32,
    /// Rows that a partial result has room for.
    pub partial_rows: u32,
    /// Positions that are seen, the own one included; 0: all.
    pub window: u32,
    /// [`Dtype::code`] of `qkv` and `out`.
    pub dtype: u32,
    /// Factor on q·k.
    pub scale: f32,
    /// `cap * tanh(score / cap)`; 0: none.
    pub soft_cap: f32,
}

impl Attention {
    /// Runs `num_items` items.
    ///
    /// # Errors
    /// Heads wider than 256, a cache in f32; what the device says.
    pub fn launch(
        &self,
        launcher: &mut dyn Launcher,
        kv_dtype: Dtype,
        variant: Variant,
        num_items: usize,
    ) -> Result<(), LaunchError> {
        let head_dim = self.head_dim as usize;
        let (index, &padded) = PADDED_DIMS
            .iter()
            .enumerate()
            .find(|&(_, &padded)| head_dim <= padded)
            .ok_or_else(|| LaunchError::Misuse(format!("attention with heads of {head_dim}")))?;
        let names = match kv_dtype {
            Dtype::F32 => return Err(LaunchError::Misuse("a KV cache in f32".to_owned())),
            Dtype::F16 => &F16_KERNELS,
            Dtype::Bf16 => &BF16_KERNELS,
        };
        let kernel = names[index][usize::from(variant == Variant::Prefill)];
        let num_rows = variant.num_rows(padded);
        let (columns, keys) = if padded > 128 { (2, 32) } else { (1, 64) };
        let num_threads = (num_rows / 16 * columns * 32) as u32;
        let shared_bytes = (num_rows + 4 * keys) * (padded + 8) * 2;
        let grid = [num_items, self.num_kv_heads as usize, 1];
        launch(launcher, kernel, grid, num_threads, shared_bytes, self)
    }

    /// Adds the single splits of `num_items` merge items.
    ///
    /// # Errors
    /// What the device says.
    pub fn merge(&self, launcher: &mut dyn Launcher, num_items: usize) -> Result<(), LaunchError> {
        let grid = [num_items, self.num_kv_heads as usize, 1];
        launch(launcher, "attention_merge", grid, 128, 0, self)
    }
}

/// Widths of heads that there are kernels for; others are padded with zeros on the way.
const PADDED_DIMS: [usize; 6] = [16, 32, 64, 96, 128, 256];

const F16_KERNELS: [[&str; 2]; 6] = [
    ["attention_f16_16_decode", "attention_f16_16_prefill"],
    ["attention_f16_32_decode", "attention_f16_32_prefill"],
    ["attention_f16_64_decode", "attention_f16_64_prefill"],
    ["attention_f16_96_decode", "attention_f16_96_prefill"],
    ["attention_f16_128_decode", "attention_f16_128_prefill"],
    ["attention_f16_256_decode", "attention_f16_256_prefill"],
];

const BF16_KERNELS: [[&str; 2]; 6] = [
    ["attention_bf16_16_decode", "attention_bf16_16_prefill"],
    ["attention_bf16_32_decode", "attention_bf16_32_prefill"],
    ["attention_bf16_64_decode", "attention_bf16_64_prefill"],
    ["attention_bf16_96_decode", "attention_bf16_96_prefill"],
    ["attention_bf16_128_decode", "attention_bf16_128_prefill"],
    ["attention_bf16_256_decode", "attention_bf16_256_prefill"],
];
