//! The paged KV cache, laid out for the attention kernel.
//!
//! A block's keys are cut into tiles of at most sixteen. A tile of K is stored transposed,
//! `[head_dim, 16]`: one vector holds one dimension of sixteen keys, so that scores need no sums
//! over lanes. V is stored row by row, each row padded to a multiple of sixteen floats.
//!
//! Invariant: what lies after a sequence's last token is never read into a result.

use hotspare_batch::BlockId;
use hotspare_model::ops::{KvCacheSpec, OpsError};

use crate::memory::AlignedFloats;
use crate::simd::LANES;

/// Widest head the attention kernel has room for.
pub(crate) const MAX_HEAD_DIM: usize = 256;

/// The KV pools of all layers.
#[derive(Debug)]
pub struct CpuKvCache {
    geometry: KvGeometry,
    layers: Vec<KvLayer>,
}

/// One layer's pool.
#[derive(Debug)]
pub(crate) struct KvLayer {
    /// `[num_blocks, num_kv_heads, tiles_per_block, head_dim, 16]`.
    keys: AlignedFloats,
    /// `[num_blocks, num_kv_heads, block_size, padded_head_dim]`.
    values: AlignedFloats,
}

/// Where a key or value lies in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvGeometry {
    pub(crate) num_blocks: usize,
    pub(crate) block_size: usize,
    pub(crate) num_kv_heads: usize,
    pub(crate) head_dim: usize,
    /// `head_dim` rounded up to a multiple of sixteen.
    pub(crate) padded_head_dim: usize,
    /// Tiles of at most sixteen keys a block.
    pub(crate) tiles_per_block: usize,
}

impl KvGeometry {
    fn tile_len(&self) -> usize {
        self.head_dim * LANES
    }

    /// Floats of K in a block.
    fn block_keys_len(&self) -> usize {
        self.num_kv_heads * self.tiles_per_block * self.tile_len()
    }

    /// Floats of V in a block.
    fn block_values_len(&self) -> usize {
        self.num_kv_heads * self.block_size * self.padded_head_dim
    }

    /// The first position of tile `tile`, counted from position 0 of the sequence.
    pub(crate) fn tile_start(&self, tile: usize) -> usize {
        tile / self.tiles_per_block * self.block_size + tile % self.tiles_per_block * LANES
    }

    /// The tile of `position`.
    pub(crate) fn tile_of(&self, position: usize) -> usize {
        position / self.block_size * self.tiles_per_block + position % self.block_size / LANES
    }
}

impl CpuKvCache {
    /// Zeroed pools; memory becomes resident as blocks are first written.
    ///
    /// # Errors
    /// Out of memory, or a shape without a kernel.
    pub(crate) fn new(spec: &KvCacheSpec) -> Result<Self, OpsError> {
        let (head_dim, block_size) = (spec.head_dim, spec.block_size);
        if head_dim == 0 || head_dim > MAX_HEAD_DIM || block_size == 0 || spec.num_kv_heads == 0 {
            return Err(OpsError::Unsupported {
                backend: "cpu",
                what: format!("a KV cache of shape {spec:?}"),
            });
        }
        let geometry = KvGeometry {
            num_blocks: spec.num_blocks,
            block_size,
            num_kv_heads: spec.num_kv_heads,
            head_dim,
            padded_head_dim: head_dim.next_multiple_of(LANES),
            tiles_per_block: block_size.div_ceil(LANES),
        };
        let layer = || -> Result<KvLayer, OpsError> {
            let keys_len = spec.num_blocks.saturating_mul(geometry.block_keys_len());
            let values_len = spec.num_blocks.saturating_mul(geometry.block_values_len());
            Ok(KvLayer {
                keys: AlignedFloats::zeroed("the KV cache", keys_len)?,
                values: AlignedFloats::zeroed("the KV cache", values_len)?,
            })
        };
        let layers = (0..spec.num_layers)
            .map(|_| layer())
            .collect::<Result<_, _>>()?;
        Ok(Self { geometry, layers })
    }

    pub(crate) fn geometry(&self) -> KvGeometry {
        self.geometry
    }

    pub(crate) fn layer(&self, layer: usize) -> Option<&KvLayer> {
        self.layers.get(layer)
    }

    /// Stores one token's keys and values, `[num_kv_heads, head_dim]` each, at offset `in_block` of
    /// `block`.
    pub(crate) fn write(
        &mut self,
        layer: usize,
        block: BlockId,
        in_block: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let g = self.geometry;
        let KvLayer {
            keys: k_pool,
            values: v_pool,
        } = &mut self.layers[layer];
        let k_block = &mut k_pool[block as usize * g.block_keys_len()..][..g.block_keys_len()];
        let v_block = &mut v_pool[block as usize * g.block_values_len()..][..g.block_values_len()];
        let heads = keys
            .chunks_exact(g.head_dim)
            .zip(values.chunks_exact(g.head_dim));
        for (head, (key, value)) in heads.enumerate() {
            let tile = head * g.tiles_per_block + in_block / LANES;
            let tile = &mut k_block[tile * g.tile_len()..][..g.tile_len()];
            for (lanes, &x) in tile.as_chunks_mut::<LANES>().0.iter_mut().zip(key) {
                lanes[in_block % LANES] = x;
            }
            let row = (head * g.block_size + in_block) * g.padded_head_dim;
            v_block[row..row + g.head_dim].copy_from_slice(value);
        }
    }
}

impl KvLayer {
    /// Tile `tile` (counted in its block) of `head`: `head_dim` vectors of sixteen keys.
    #[inline(always)]
    pub(crate) fn key_tile(
        &self,
        g: &KvGeometry,
        block: BlockId,
        head: usize,
        tile: usize,
    ) -> &[[f32; LANES]] {
        let tile = (block as usize * g.num_kv_heads + head) * g.tiles_per_block + tile;
        self.keys[tile * g.tile_len()..][..g.tile_len()]
            .as_chunks()
            .0
    }

    /// V rows of the same tile, `[keys of the tile, padded_head_dim]`.
    #[inline(always)]
    pub(crate) fn value_tile(
        &self,
        g: &KvGeometry,
        block: BlockId,
        head: usize,
        tile: usize,
    ) -> &[f32] {
        let row = (block as usize * g.num_kv_heads + head) * g.block_size + tile * LANES;
        let keys = LANES.min(g.block_size - tile * LANES);
        &self.values[row * g.padded_head_dim..][..keys * g.padded_head_dim]
    }
}
