//! Activations in the order in which tiles read them: contiguous, whatever the width of a row.
//!
//! Rows go in tiles of four, the last one shorter; a tile is `[padded k / 16, its rows, 16]`. Rows
//! that are a power of two apart would otherwise evict each other from the nearest cache.
//!
//! Invariant: elements from k to the padded k are zero.

use super::format::{STEP, order_step};
use crate::memory::AlignedFloats;
use crate::simd::{Isa, LANES, Simd, isa_entry};
use crate::workers::Workers;
use hotspare_model::ops::OpsError;

/// Rows of a tile; the last has what remains.
pub(super) const TILE_ROWS: usize = 4;

/// Memory for packed activations, grown to the largest product seen.
#[derive(Debug, Default)]
pub(crate) struct PackSpace {
    floats: Option<AlignedFloats>,
}

/// Packed activations.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedRows<'a> {
    floats: &'a [f32],
    padded_k: usize,
    num_rows: usize,
}

/// What is packed.
struct Source<'a> {
    x: &'a [f32],
    k: usize,
    is_interleaved: bool,
}

impl PackSpace {
    /// Packs all rows of `x`, `k` wide.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn pack(
        &mut self,
        isa: Isa,
        workers: &Workers,
        x: &[f32],
        k: usize,
        is_interleaved: bool,
    ) -> Result<PackedRows<'_>, OpsError> {
        let padded_k = k.next_multiple_of(STEP);
        let num_rows = x.len() / k;
        let len = num_rows * padded_k;
        let floats = match self.floats.take() {
            Some(floats) if floats.len() >= len => floats,
            _ => AlignedFloats::zeroed("packed activations", len)?,
        };
        let floats = self.floats.insert(floats);
        let source = Source {
            x,
            k,
            is_interleaved,
        };
        let tile_len = TILE_ROWS * padded_k;
        workers.rows(&mut floats[..len], tile_len, len / 8, &|first, out| {
            let x = &source.x[first * TILE_ROWS * k..][..out.len() / padded_k * k];
            pack_tiles(isa, &Source { x, ..source }, out);
        });
        Ok(PackedRows {
            floats: &floats[..len],
            padded_k,
            num_rows,
        })
    }
}

impl<'a> PackedRows<'a> {
    pub(super) fn num_rows(&self) -> usize {
        self.num_rows
    }

    pub(super) fn padded_k(&self) -> usize {
        self.padded_k
    }

    /// The tile that starts at row `first`, a multiple of four, and its number of rows.
    #[inline(always)]
    pub(super) fn tile(&self, first: usize) -> (&'a [f32], usize) {
        let rows = TILE_ROWS.min(self.num_rows - first);
        (
            &self.floats[first * self.padded_k..][..rows * self.padded_k],
            rows,
        )
    }
}

isa_entry! { fn pack_tiles(source: &Source<'_>, out: &mut [f32]) = pack_any }

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
                let [a, b] = order_step(step, source.is_interleaved);
                vectors[2 * i * num_rows + m] = a;
                vectors[(2 * i + 1) * num_rows + m] = b;
            }
            if !tail.is_empty() {
                let mut step = [0.0; STEP];
                step[..tail.len()].copy_from_slice(tail);
                let [a, b] = order_step(&step, source.is_interleaved);
                vectors[2 * steps.len() * num_rows + m] = a;
                vectors[(2 * steps.len() + 1) * num_rows + m] = b;
            }
        }
    }
}
