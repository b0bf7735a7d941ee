//! K and V of whole blocks on their way out of the device and into it.
//!
//! Invariant: the bytes mean something only to a device of the same `numerics_id`, shapes and block
//! size; nobody between looks into them.

use crate::BlockId;

/// K and V of one block over all layers, as the device lays them out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvBlock {
    /// Where they were, or where they go.
    pub block: BlockId,
    /// [`ExecutorInfo::kv_block_bytes`](crate::ExecutorInfo::kv_block_bytes) of them.
    pub bytes: Vec<u8>,
}
