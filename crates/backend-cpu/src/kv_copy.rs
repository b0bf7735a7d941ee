//! Blocks of the KV cache as bytes, and back.
//!
//! A block is written layer by layer: its keys, its values, the scales of both; each as it lies in
//! the pool, where a block's numbers are next to each other.
//!
//! Invariant: loading what was saved from an equal cache gives the same bits.

use bytemuck::Pod;
use hotspare_batch::BlockId;
use hotspare_model::ops::CopyKvBlocks;

use crate::kv_cache::{CpuKvCache, KvElement, KvGeometry, KvPool, KvPools};

/// Bytes of a block of `layers`.
fn num_bytes<E: KvElement>(layers: &[KvPool<E>], g: &KvGeometry) -> usize {
    let of_layer = |layer: &KvPool<E>| layer.block_parts(g, 0).map(<[u8]>::len);
    layers.iter().flat_map(of_layer).sum()
}

fn save<E: KvElement>(layers: &[KvPool<E>], g: &KvGeometry, block: BlockId, out: &mut Vec<u8>) {
    for layer in layers {
        for part in layer.block_parts(g, block) {
            out.extend_from_slice(part);
        }
    }
}

fn load<E: KvElement>(layers: &mut [KvPool<E>], g: &KvGeometry, block: BlockId, bytes: &[u8]) {
    let mut rest = bytes;
    for layer in layers {
        for part in layer.block_parts_mut(g, block) {
            let Some((head, tail)) = rest.split_at_checked(part.len()) else {
                return;
            };
            part.copy_from_slice(head);
            rest = tail;
        }
    }
}

/// The numbers of block `block` of a pool with `len` a block, as bytes.
pub(crate) fn block_bytes<T: Pod>(pool: &[T], block: BlockId, len: usize) -> &[u8] {
    bytemuck::cast_slice(&pool[block as usize * len..][..len])
}

/// As [`block_bytes`].
pub(crate) fn block_bytes_mut<T: Pod>(pool: &mut [T], block: BlockId, len: usize) -> &mut [u8] {
    bytemuck::cast_slice_mut(&mut pool[block as usize * len..][..len])
}

impl CopyKvBlocks for CpuKvCache {
    fn block_bytes(&self) -> Option<usize> {
        let g = &self.geometry();
        if g.num_blocks == 0 {
            return None;
        }
        Some(match self.pools() {
            KvPools::F32(layers) => num_bytes(layers, g),
            KvPools::F16(layers) => num_bytes(layers, g),
            KvPools::Q8(layers) => num_bytes(layers, g),
        })
    }

    fn save_block(&self, block: BlockId, out: &mut Vec<u8>) {
        let g = &self.geometry();
        match self.pools() {
            KvPools::F32(layers) => save(layers, g, block, out),
            KvPools::F16(layers) => save(layers, g, block, out),
            KvPools::Q8(layers) => save(layers, g, block, out),
        }
    }

    fn load_block(&mut self, block: BlockId, bytes: &[u8]) {
        let g = &self.geometry();
        match self.pools_mut() {
            KvPools::F32(layers) => load(layers, g, block, bytes),
            KvPools::F16(layers) => load(layers, g, block, bytes),
            KvPools::Q8(layers) => load(layers, g, block, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use hotspare_model::ops::KvCacheSpec;
    use hotspare_model::weights::WeightDtype;

    use super::*;
    use crate::kv_cache::{KvPlace, KvRows};
    use crate::workers::Workers;

    const SPEC: KvCacheSpec = KvCacheSpec {
        num_layers: 3,
        num_blocks: 4,
        block_size: 16,
        num_kv_heads: 2,
        head_dim: 40,
        dtype: WeightDtype::F32,
    };

    fn filled(dtype: WeightDtype, offset: f32) -> CpuKvCache {
        let mut cache = CpuKvCache::new(&KvCacheSpec { dtype, ..SPEC }).unwrap();
        let places: Vec<_> = (0..4 * 16)
            .map(|token| KvPlace {
                row: token,
                block: token as u32 / 16,
                in_block: token % 16,
            })
            .collect();
        for layer in 0..3 {
            let value = |i: usize| ((layer * 7919 + i) as f32).sin() + offset;
            let rows: Vec<f32> = (0..places.len() * 160).map(value).collect();
            let rows = KvRows {
                rows: &rows,
                width: 160,
                keys_at: 0,
            };
            cache.write(&Workers::new(1), layer, &places, rows);
        }
        cache
    }

    fn bytes(cache: &CpuKvCache, block: BlockId) -> Vec<u8> {
        let mut bytes = Vec::new();
        cache.save_block(block, &mut bytes);
        bytes
    }

    #[test]
    fn a_block_moves_to_another_place_of_another_cache_and_no_other_is_touched() {
        for dtype in [WeightDtype::F32, WeightDtype::F16, WeightDtype::Q8_0] {
            let from = filled(dtype, 0.0);
            let mut to = filled(dtype, 0.5);
            let before: Vec<_> = (0..4).map(|block| bytes(&to, block)).collect();
            let moved = bytes(&from, 1);
            assert_eq!(Some(moved.len()), from.block_bytes(), "{dtype:?}");
            assert_ne!(moved, before[1], "{dtype:?}: the caches differ");
            to.load_block(2, &moved);
            for block in 0..4 {
                let expected = match block {
                    2 => &moved,
                    _ => &before[block as usize],
                };
                assert_eq!(&bytes(&to, block), expected, "{dtype:?}, block {block}");
            }
        }
    }

    #[test]
    fn bytes_that_are_too_few_do_no_harm() {
        let mut cache = filled(WeightDtype::F16, 0.0);
        let moved = bytes(&cache, 0);
        cache.load_block(1, &moved[..moved.len() - 1]);
        cache.load_block(1, &[]);
        assert_eq!(bytes(&cache, 0), moved);
    }
}
