//! The paged keys and values of all layers, in one allocation.
//!
//! Invariant: block `b` of a layer lies at `b * block_stride` of that layer's keys, and of its
//! values; heads are padded to multiples of eight elements.

use hotspare_model::ops::{CopyKvBlocks, KvCacheSpec, OpsError};
use hotspare_model::weights::WeightDtype;

use super::memory::{alloc, product, unsupported};
use crate::{Address, Device, Dtype};

/// Shape of a layer's cache on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KvShape {
    pub(super) dtype: Dtype,
    pub(super) num_kv_heads: usize,
    pub(super) head_dim: usize,
    /// Elements from one key to the next.
    pub(super) head_stride: usize,
    pub(super) block_size: usize,
}

impl KvShape {
    /// # Errors
    /// A type without kernels.
    pub(super) fn new(spec: &KvCacheSpec) -> Result<Self, OpsError> {
        let dtype = match spec.dtype {
            WeightDtype::F16 => Dtype::F16,
            WeightDtype::Bf16 => Dtype::Bf16,
            other => {
                let name = other.name();
                return Err(unsupported(format!(
                    "a KV cache in {name}; --kv-cache-dtype float16 and bfloat16 run"
                )));
            }
        };
        Ok(Self {
            dtype,
            num_kv_heads: spec.num_kv_heads,
            head_dim: spec.head_dim,
            head_stride: spec.head_dim.next_multiple_of(8),
            block_size: spec.block_size,
        })
    }

    /// Elements of a block's keys.
    pub(super) fn block_stride(&self) -> usize {
        self.num_kv_heads * self.block_size * self.head_stride
    }

    /// Bytes of one block over all layers, keys and values.
    pub(super) fn bytes_per_block(&self, num_layers: usize) -> usize {
        2 * num_layers * self.block_stride() * self.dtype.size()
    }
}

/// The paged KV pools of all layers.
#[derive(Debug)]
pub struct CudaKvCache {
    at: Address,
    pub(super) shape: KvShape,
    pub(super) num_blocks: usize,
    pub(super) num_layers: usize,
}

/// Nothing copies a card's blocks yet.
impl CopyKvBlocks for CudaKvCache {}

impl CudaKvCache {
    /// # Errors
    /// A type without kernels, or out of memory.
    pub(super) fn new<D: Device>(device: &mut D, spec: &KvCacheSpec) -> Result<Self, OpsError> {
        const WHAT: &str = "the KV cache";
        let shape = KvShape::new(spec)?;
        let num_bytes = product(
            WHAT,
            &[spec.num_blocks, shape.bytes_per_block(spec.num_layers)],
        )?;
        let advice = "a smaller --kv-cache-memory-bytes or --gpu-memory-utilization takes less";
        Ok(Self {
            at: alloc(device, WHAT, num_bytes, advice)?,
            shape,
            num_blocks: spec.num_blocks,
            num_layers: spec.num_layers,
        })
    }

    /// Keys and values of a layer.
    pub(super) fn layer(&self, layer: usize) -> [Address; 2] {
        let half = self.num_blocks * self.shape.block_stride() * self.shape.dtype.size();
        let keys = self.at.offset(2 * layer * half);
        [keys, keys.offset(half)]
    }
}
