//! The paged KV cache, laid out for the attention kernel.
//!
//! A block's keys are cut into tiles of at most sixteen. A tile of K is stored transposed,
//! `[head_dim, 16]`: one vector holds one dimension of sixteen keys, so that scores need no sums
//! over lanes. V is stored row by row, each row padded to a multiple of sixteen floats.
//!
//! Eight-bit elements have scales: one for each key (and value) and 32 dimensions of a head, the
//! last block of a head being shorter where 32 does not divide it. They lie apart, those of a
//! tile's sixteen keys side by side, `[scales of a head, 16]`. A token's row is rounded by itself,
//! when it is written.
//!
//! Invariant: what lies after a sequence's last token is never read into a result.

use bytemuck::Pod;
mod write;

use half::f16;
use half::slice::HalfFloatSliceExt;
use hotspare_batch::BlockId;
use hotspare_model::ops::{KvCacheSpec, OpsError};
use hotspare_model::weights::WeightDtype;

use crate::kv_copy::{block_bytes, block_bytes_mut};
use crate::memory::AlignedArray;
use crate::simd::{LANES, Simd};
use crate::workers::Workers;

use self::write::PoolPart;

/// Widest head the attention kernel has room for.
pub(crate) const MAX_HEAD_DIM: usize = 256;

/// How one number of K or V is stored.
pub(crate) trait KvElement: Pod + Send + Sync {
    /// Whether an element is to be multiplied by a scale.
    const HAS_SCALES: bool = false;
    /// Widens sixteen elements; exact.
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F;
    /// Rounds a head to the nearest. The slices are of one length; there is a scale for each
    /// [`SCALE_LEN`] elements, if there are scales.
    fn round(from: &[f32], to: &mut [Self], scales: &mut [f16]);
}

/// Elements that share a scale, where they have one.
pub(crate) const SCALE_LEN: usize = 32;
/// Scales of a head at most.
const MAX_SCALES: usize = MAX_HEAD_DIM / SCALE_LEN;

impl KvElement for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F {
        s.load(from)
    }

    fn round(from: &[f32], to: &mut [Self], _: &mut [f16]) {
        to.copy_from_slice(from);
    }
}

impl KvElement for f16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F {
        s.load_f16_bytes(bytemuck::cast_ref(from))
    }

    /// Saturates: an infinite key would turn its whole row into NaN.
    fn round(from: &[f32], to: &mut [Self], _: &mut [f16]) {
        let max = Self::MAX.to_f32();
        let mut clamped = [0.0; MAX_HEAD_DIM];
        let pieces = from.chunks(MAX_HEAD_DIM).zip(to.chunks_mut(MAX_HEAD_DIM));
        for (from, to) in pieces {
            let clamped = &mut clamped[..from.len()];
            for (clamped, &x) in clamped.iter_mut().zip(from) {
                *clamped = x.clamp(-max, max);
            }
            to.convert_from_f32_slice(clamped);
        }
    }
}

impl KvElement for i8 {
    const HAS_SCALES: bool = true;

    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F {
        s.load_i8(from)
    }

    /// As a block of ggml's `Q8_0`: 127 steps to the element farthest from zero, halves rounded
    /// away from it. Saturates as half floats do; a block with a NaN is NaN.
    fn round(from: &[f32], to: &mut [Self], scales: &mut [f16]) {
        const BELOW_HALF: f32 = 0.499_999_97;
        let blocks = from.chunks(SCALE_LEN).zip(to.chunks_mut(SCALE_LEN));
        for ((from, to), scale) in blocks.zip(scales) {
            let largest = from.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            let step = (largest / 127.0).min(f16::MAX.to_f32());
            let inverse = if step >= f32::MIN_POSITIVE {
                1.0 / step
            } else {
                0.0
            };
            for (to, &x) in to.iter_mut().zip(from) {
                let steps = (x * inverse).clamp(-127.0, 127.0);
                *to = (steps + BELOW_HALF.copysign(steps)) as Self;
            }
            let is_number = from.iter().fold(true, |all, x| all & !x.is_nan());
            *scale = match is_number {
                true => f16::from_f32(step),
                false => f16::NAN,
            };
        }
    }
}

/// The KV pools of all layers.
#[derive(Debug)]
pub struct CpuKvCache {
    geometry: KvGeometry,
    pools: KvPools,
}

/// All layers' pools; they are of one type.
#[derive(Debug)]
pub(crate) enum KvPools {
    F32(Vec<KvPool<f32>>),
    F16(Vec<KvPool<f16>>),
    Q8(Vec<KvPool<i8>>),
}

/// One layer's pool.
#[derive(Debug)]
pub(crate) struct KvPool<E> {
    /// `[num_blocks, num_kv_heads, tiles_per_block, head_dim, 16]`.
    keys: AlignedArray<E>,
    /// `[num_blocks, num_kv_heads, block_size, padded_head_dim]`.
    values: AlignedArray<E>,
    /// Of K, then of V: `[num_blocks, num_kv_heads, tiles_per_block, scales of a head, 16]`.
    scales: [AlignedArray<f16>; 2],
}

/// Where a row's keys and values go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvPlace {
    pub(crate) block: BlockId,
    pub(crate) in_block: usize,
    /// Row of the step.
    pub(crate) row: usize,
}

/// Rows in which keys, `[num_kv_heads, head_dim]`, and then values lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvRows<'a> {
    pub(crate) rows: &'a [f32],
    /// Floats of a row.
    pub(crate) width: usize,
    /// Where its keys start; values end the row.
    pub(crate) keys_at: usize,
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
    /// Scales of one head of one key, where elements have scales.
    pub(crate) num_scales: usize,
}

impl KvGeometry {
    fn tile_len(&self) -> usize {
        self.head_dim * LANES
    }

    /// Numbers of K in a block.
    fn block_keys_len(&self) -> usize {
        self.num_kv_heads * self.tiles_per_block * self.tile_len()
    }

    /// Scales of K, or of V, in a block, where elements have scales.
    fn block_scales_len(&self) -> usize {
        self.num_kv_heads * self.tiles_per_block * self.num_scales * LANES
    }

    /// Numbers of V in a block.
    fn block_values_len(&self) -> usize {
        self.num_kv_heads * self.block_size * self.padded_head_dim
    }

    /// The first position of tile `tile`, counted from position 0 of the sequence.
    pub(crate) fn tile_start(&self, tile: usize) -> usize {
        tile / self.tiles_per_block * self.block_size + tile % self.tiles_per_block * LANES
    }

    /// Keys of tile `tile`.
    pub(crate) fn tile_keys(&self, tile: usize) -> usize {
        LANES.min(self.block_size - tile % self.tiles_per_block * LANES)
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
            num_scales: head_dim.div_ceil(SCALE_LEN),
        };
        let pools = match spec.dtype {
            WeightDtype::F32 => KvPools::F32(KvPool::layers(&geometry, spec.num_layers)?),
            WeightDtype::F16 => KvPools::F16(KvPool::layers(&geometry, spec.num_layers)?),
            WeightDtype::Q8_0 => KvPools::Q8(KvPool::layers(&geometry, spec.num_layers)?),
            WeightDtype::Bf16 => {
                return Err(OpsError::Unsupported {
                    backend: "cpu",
                    what: "a KV cache in bfloat16; float16 takes as little memory".to_owned(),
                });
            }
            dtype => {
                return Err(OpsError::Unsupported {
                    backend: "cpu",
                    what: format!("a KV cache in {}", dtype.name()),
                });
            }
        };
        Ok(Self { geometry, pools })
    }

    pub(crate) fn geometry(&self) -> KvGeometry {
        self.geometry
    }

    pub(crate) fn pools(&self) -> &KvPools {
        &self.pools
    }

    pub(crate) fn pools_mut(&mut self) -> &mut KvPools {
        &mut self.pools
    }

    pub(crate) fn num_layers(&self) -> usize {
        match &self.pools {
            KvPools::F32(layers) => layers.len(),
            KvPools::F16(layers) => layers.len(),
            KvPools::Q8(layers) => layers.len(),
        }
    }

    /// Stores the keys and values of `rows` at `places`, which are in the order of their blocks.
    pub(crate) fn write(
        &mut self,
        workers: &Workers,
        layer: usize,
        places: &[KvPlace],
        rows: KvRows<'_>,
    ) {
        let g = &self.geometry;
        match &mut self.pools {
            KvPools::F32(layers) => layers[layer].write(g, workers, places, rows),
            KvPools::F16(layers) => layers[layer].write(g, workers, places, rows),
            KvPools::Q8(layers) => layers[layer].write(g, workers, places, rows),
        }
    }
}

impl<E: KvElement> KvPool<E> {
    fn layers(g: &KvGeometry, num_layers: usize) -> Result<Vec<Self>, OpsError> {
        fn pool<T: Pod>(g: &KvGeometry, block_len: usize) -> Result<AlignedArray<T>, OpsError> {
            AlignedArray::zeroed("the KV cache", g.num_blocks.saturating_mul(block_len))
        }
        let scales_len = usize::from(E::HAS_SCALES) * g.block_scales_len();
        let layer = |_| -> Result<Self, OpsError> {
            Ok(Self {
                keys: pool(g, g.block_keys_len())?,
                values: pool(g, g.block_values_len())?,
                scales: [pool(g, scales_len)?, pool(g, scales_len)?],
            })
        };
        (0..num_layers).map(layer).collect()
    }

    fn write(&mut self, g: &KvGeometry, workers: &Workers, places: &[KvPlace], rows: KvRows<'_>) {
        let part = PoolPart {
            first_block: 0,
            places,
            keys: &mut self.keys,
            values: &mut self.values,
            scales: self.scales.each_mut().map(|scales| &mut **scales),
        };
        // About a number a nanosecond: a key's lie in as many cache lines as it has.
        let work_ns = places.len() * 2 * g.num_kv_heads * g.head_dim;
        let halve = &|part, a, b| PoolPart::halve(part, g, a, b);
        workers.divide(part, work_ns, halve, &|part| part.write(g, rows));
    }

    /// Keys, values and the scales of both, of one block.
    pub(crate) fn block_parts(&self, g: &KvGeometry, block: BlockId) -> [&[u8]; 4] {
        let scales_len = usize::from(E::HAS_SCALES) * g.block_scales_len();
        let [key_scales, value_scales] = &self.scales;
        [
            block_bytes(&self.keys, block, g.block_keys_len()),
            block_bytes(&self.values, block, g.block_values_len()),
            block_bytes(key_scales, block, scales_len),
            block_bytes(value_scales, block, scales_len),
        ]
    }

    /// As [`Self::block_parts`].
    pub(crate) fn block_parts_mut(&mut self, g: &KvGeometry, block: BlockId) -> [&mut [u8]; 4] {
        let scales_len = usize::from(E::HAS_SCALES) * g.block_scales_len();
        let [key_scales, value_scales] = &mut self.scales;
        [
            block_bytes_mut(&mut self.keys, block, g.block_keys_len()),
            block_bytes_mut(&mut self.values, block, g.block_values_len()),
            block_bytes_mut(key_scales, block, scales_len),
            block_bytes_mut(value_scales, block, scales_len),
        ]
    }

    /// Scales of the keys and of the values of a tile, `[scales of a head, 16]`; none where
    /// elements have none.
    #[inline(always)]
    pub(crate) fn scale_tiles(
        &self,
        g: &KvGeometry,
        block: BlockId,
        head: usize,
        tile: usize,
    ) -> [&[[f16; LANES]]; 2] {
        if !E::HAS_SCALES {
            return [&[]; 2];
        }
        let tile = (block as usize * g.num_kv_heads + head) * g.tiles_per_block + tile;
        let len = g.num_scales * LANES;
        let [keys, values] = &self.scales;
        [keys, values].map(|scales| scales[tile * len..][..len].as_chunks().0)
    }

    /// Tile `tile` (counted in its block) of `head`: `head_dim` vectors of sixteen keys.
    #[inline(always)]
    pub(crate) fn key_tile(
        &self,
        g: &KvGeometry,
        block: BlockId,
        head: usize,
        tile: usize,
    ) -> &[[E; LANES]] {
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
    ) -> &[E] {
        let row = (block as usize * g.num_kv_heads + head) * g.block_size + tile * LANES;
        let keys = LANES.min(g.block_size - tile * LANES);
        &self.values[row * g.padded_head_dim..][..keys * g.padded_head_dim]
    }
}
