//! Activations in the order in which tiles read them: contiguous, whatever the width of a row.
//!
//! Rows go in tiles of four, the last one shorter; a tile is `[padded k / 16, its rows, 16]`. Rows
//! that are a power of two apart would otherwise evict each other from the nearest cache.
//!
//! Invariant: elements from k to the padded k are zero.

use super::format::{STEP, order_step};
use crate::memory::AlignedArray;
use crate::simd::{LANES, Simd, isa_entry};
use hotspare_model::ops::OpsError;

/// Rows of a tile; the last has what remains.
pub(super) const TILE_ROWS: usize = 4;

/// Memory for packed activations, grown to the largest product seen.
#[derive(Debug, Default)]
pub(crate) struct PackSpace {
    floats: Option<AlignedArray<f32>>,
}

/// Packed activations.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedRows<'a> {
    floats: &'a [f32],
    row_len: usize,
    num_rows: usize,
}

/// What is packed.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// Whole rows.
    pub(super) x: &'a [f32],
    /// Floats of a row.
    pub(super) k: usize,
    /// The order of the weights' format.
    pub(super) is_interleaved: bool,
    /// Round to bfloat16.
    pub(super) is_rounded: bool,
}

impl PackSpace {
    /// Room for `len` floats, whatever they hold.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn floats(&mut self, len: usize) -> Result<&mut [f32], OpsError> {
        let floats = match self.floats.take() {
            Some(floats) if floats.len() >= len => floats,
            _ => AlignedArray::zeroed("packed activations", len)?,
        };
        Ok(&mut self.floats.insert(floats)[..len])
    }
}

impl<'a> PackedRows<'a> {
    /// Rows of `row_len` floats each.
    pub(super) fn new(floats: &'a [f32], num_rows: usize, row_len: usize) -> Self {
        assert_eq!(floats.len(), num_rows * row_len, "whole rows");
        Self {
            floats,
            row_len,
            num_rows,
        }
    }

    pub(super) fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// Floats of a row.
    pub(super) fn row_len(&self) -> usize {
        self.row_len
    }

    /// The tile that starts at row `first`, a multiple of four, and its number of rows.
    #[inline(always)]
    pub(super) fn tile(&self, first: usize) -> (&'a [f32], usize) {
        let rows = TILE_ROWS.min(self.num_rows - first);
        (
            &self.floats[first * self.row_len..][..rows * self.row_len],
            rows,
        )
    }
}

isa_entry! {
    /// Packs all rows of the source into `out`, which has room for their padded length.
    pub(super) fn pack(source: &Source<'_>, out: &mut [f32]) = pack_any
}

#[inline(always)]
fn pack_any<S: Simd>(_: S, source: &Source<'_>, out: &mut [f32]) {
    let k = source.k;
    let padded_k = k.next_multiple_of(STEP);
    let tiles = source
        .x
        .chunks(TILE_ROWS * k)
        .zip(out.chunks_mut(TILE_ROWS * padded_k));
    for (rows, tile) in tiles {
        let num_rows = rows.len() / k;
        let (vectors, _) = tile.as_chunks_mut::<LANES>();
        for (m, row) in rows.chunks_exact(k).enumerate() {
            let (steps, tail) = row.as_chunks::<STEP>();
            for (i, step) in steps.iter().enumerate() {
                let [a, b] = prepare_step(source, step);
                vectors[2 * i * num_rows + m] = a;
                vectors[(2 * i + 1) * num_rows + m] = b;
            }
            if !tail.is_empty() {
                let mut step = [0.0; STEP];
                step[..tail.len()].copy_from_slice(tail);
                let [a, b] = prepare_step(source, &step);
                vectors[2 * steps.len() * num_rows + m] = a;
                vectors[(2 * steps.len() + 1) * num_rows + m] = b;
            }
        }
    }
}

#[inline(always)]
fn prepare_step(source: &Source<'_>, step: &[f32; STEP]) -> [[f32; LANES]; 2] {
    if source.is_rounded {
        let rounded = step.map(|x| f32::from_bits(u32::from(bf16_bits(x)) << 16));
        return order_step(&rounded, source.is_interleaved);
    }
    order_step(step, source.is_interleaved)
}

/// The bits of the nearest bfloat16, ties to even. NaN stays NaN, and numbers below the normal ones
/// become zero, as in the processor's own products of pairs.
#[inline(always)]
pub(super) fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7FFF_FFFF;
    let rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    let flushed = if magnitude < 0x0080_0000 {
        bits >> 16 & 0x8000
    } else {
        rounded
    };
    let number = if magnitude > 0x7F80_0000 {
        bits >> 16 | 0x40
    } else {
        flushed
    };
    number as u16
}
