//! Storing a step's keys and values: blocks are divided between threads, each with the rows that go
//! there.
//!
//! Invariant: a block belongs to one part only.

use half::f16;

use super::{KvElement, KvGeometry, KvPlace, KvRows, MAX_HEAD_DIM, MAX_SCALES};
use crate::simd::LANES;

/// Blocks of one layer that follow one another, and what is stored in them.
pub(super) struct PoolPart<'a, E> {
    /// The first of the blocks.
    pub(super) first_block: usize,
    /// In the order of their blocks.
    pub(super) places: &'a [KvPlace],
    pub(super) keys: &'a mut [E],
    pub(super) values: &'a mut [E],
    pub(super) scales: [&'a mut [f16]; 2],
}

impl<E: KvElement> PoolPart<'_, E> {
    fn block_scales_len(g: &KvGeometry) -> usize {
        usize::from(E::HAS_SCALES) * g.block_scales_len()
    }

    /// About `a / b` of the places, and the others, if they are of several blocks.
    pub(super) fn halve(self, g: &KvGeometry, a: usize, b: usize) -> (Self, Option<Self>) {
        let middle = self.places.len() * a / b;
        let Some(&KvPlace { block, .. }) = self.places.get(middle) else {
            return (self, None);
        };
        let middle = self.places.partition_point(|place| place.block < block);
        if middle == 0 {
            return (self, None);
        }
        let (places, other_places) = self.places.split_at(middle);
        let num_blocks = block as usize - self.first_block;
        let (keys, other_keys) = self.keys.split_at_mut(num_blocks * g.block_keys_len());
        let (values, other_values) = self.values.split_at_mut(num_blocks * g.block_values_len());
        let at = num_blocks * Self::block_scales_len(g);
        let [(k, other_k), (v, other_v)] = self.scales.map(|scales| scales.split_at_mut(at));
        let first = Self {
            first_block: self.first_block,
            places,
            keys,
            values,
            scales: [k, v],
        };
        let second = Self {
            first_block: block as usize,
            places: other_places,
            keys: other_keys,
            values: other_values,
            scales: [other_k, other_v],
        };
        (first, Some(second))
    }

    /// Stores the rows of all places.
    pub(super) fn write(mut self, g: &KvGeometry, rows: KvRows<'_>) {
        let kv_len = g.num_kv_heads * g.head_dim;
        for &place in self.places {
            let row = &rows.rows[place.row * rows.width..][..rows.width];
            let (keys, values) = row[rows.keys_at..].split_at(kv_len);
            self.write_row(g, place, keys, values);
        }
    }

    /// Stores one token's keys and values, `[num_kv_heads, head_dim]` each.
    fn write_row(&mut self, g: &KvGeometry, place: KvPlace, keys: &[f32], values: &[f32]) {
        let (block, in_block) = (place.block as usize - self.first_block, place.in_block);
        let k_block = &mut self.keys[block * g.block_keys_len()..][..g.block_keys_len()];
        let v_block = &mut self.values[block * g.block_values_len()..][..g.block_values_len()];
        let scales_len = Self::block_scales_len(g);
        let [k_scales, v_scales] = &mut self.scales;
        let mut scales =
            [k_scales, v_scales].map(|scales| &mut scales[block * scales_len..][..scales_len]);
        let heads = keys
            .chunks_exact(g.head_dim)
            .zip(values.chunks_exact(g.head_dim));
        let mut rounded = [E::zeroed(); MAX_HEAD_DIM];
        let rounded = &mut rounded[..g.head_dim];
        for (head, (key, value)) in heads.enumerate() {
            let mut own = [[f16::ZERO; MAX_SCALES]; 2];
            E::round(key, rounded, &mut own[0]);
            let tile = head * g.tiles_per_block + in_block / LANES;
            let k_tile = &mut k_block[tile * g.tile_len()..][..g.tile_len()];
            for (lanes, &x) in k_tile.as_chunks_mut::<LANES>().0.iter_mut().zip(&*rounded) {
                lanes[in_block % LANES] = x;
            }
            let row = (head * g.block_size + in_block) * g.padded_head_dim;
            E::round(value, &mut v_block[row..row + g.head_dim], &mut own[1]);
            if E::HAS_SCALES {
                for (scales, own) in scales.iter_mut().zip(&own) {
                    let (lanes, _) = scales.as_chunks_mut::<LANES>();
                    let lanes = &mut lanes[tile * g.num_scales..][..g.num_scales];
                    for (lanes, &scale) in lanes.iter_mut().zip(own) {
                        lanes[in_block % LANES] = scale;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hotspare_model::ops::KvCacheSpec;
    use hotspare_model::weights::WeightDtype;

    use super::super::{CpuKvCache, KvPools};
    use super::*;
    use crate::testing::Random;

    fn cache() -> CpuKvCache {
        let spec = KvCacheSpec {
            num_layers: 1,
            num_blocks: 6,
            block_size: 4,
            num_kv_heads: 2,
            head_dim: 24,
            dtype: WeightDtype::Q8_0,
        };
        CpuKvCache::new(&spec).expect("a small cache")
    }

    fn part<'a>(cache: &'a mut CpuKvCache, places: &'a [KvPlace]) -> PoolPart<'a, i8> {
        let KvPools::Q8(layers) = &mut cache.pools else {
            unreachable!("made so above");
        };
        let pool = &mut layers[0];
        PoolPart {
            first_block: 0,
            places,
            keys: &mut pool.keys,
            values: &mut pool.values,
            scales: pool.scales.each_mut().map(|scales| &mut **scales),
        }
    }

    #[test]
    fn parts_store_what_the_whole_stores() {
        let floats = Random(4).floats(6 * 100);
        let rows = KvRows {
            rows: &floats,
            width: 100,
            keys_at: 4,
        };
        let at = [(0, 0), (0, 3), (2, 1), (3, 0), (3, 2), (5, 1)];
        let places: Vec<KvPlace> = (at.into_iter().enumerate())
            .map(|(row, (block, in_block))| KvPlace {
                block,
                in_block,
                row,
            })
            .collect();
        let (mut whole, mut divided) = (cache(), cache());
        let g = whole.geometry();
        part(&mut whole, &places).write(&g, rows);
        let (first, second) = part(&mut divided, &places).halve(&g, 1, 2);
        let second = second.expect("three blocks and one");
        assert_eq!((first.places.len(), second.places.len()), (3, 3));
        let (second, third) = second.halve(&g, 2, 3);
        let third = third.expect("two blocks");
        // The middle is in the first of its blocks: nothing comes before it.
        let (first, none) = first.halve(&g, 1, 3);
        assert!(none.is_none());
        for part in [third, first, second] {
            part.write(&g, rows);
        }
        let (whole, divided) = (part(&mut whole, &[]), part(&mut divided, &[]));
        assert!(whole.keys.iter().any(|&x| x != 0));
        assert_eq!(whole.keys, divided.keys);
        assert_eq!(whole.values, divided.values);
        assert_eq!(whole.scales, divided.scales);
    }
}
