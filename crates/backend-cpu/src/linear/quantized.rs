//! A quantized product of one thread.
//!
//! Four weight rows at a time, a piece of each is expanded to floats in the nearest cache, and up
//! to 64 rows of activations pass over it; accumulators wait in the meantime. The file's weights
//! are never expanded as a whole.
//!
//! Invariant: the order of operations on an output element is that of [`super::tile`] over the
//! expanded floats: the same bits as the dense product of those.
// Indices over constant bounds keep small arrays in registers.
#![allow(clippy::needless_range_loop)]

use hotspare_model::weights::WeightDtype;

use super::blocks::{BlockFormat, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
use super::dense::Job;
use super::format::{F32, STEP};
use super::pack::TILE_ROWS;
use super::tile::{self, Operands, TILE_WEIGHTS, Tile};
use crate::simd::{Isa, LANES, Simd, isa_entry};

/// Elements of a weight row that are expanded at once; whole blocks of every format.
const PIECE: usize = 512;
/// Tiles of activation rows that pass over a piece.
const MAX_TILES: usize = 16;
/// Activations (floats) that pass over weights again and again: they should stay in the second
/// cache.
const MAX_BLOCK_FLOATS: usize = 96 * 1024;

/// Pieces of four weight rows.
type Pieces = [[f32; PIECE]; TILE_WEIGHTS];

/// Runs a job whose matrix is quantized; a dense one is left alone.
pub(super) fn run(isa: Isa, job: &Job<'_>) {
    // Rows are whole blocks, and these whole steps.
    assert!(job.matrix.num_inputs().is_multiple_of(STEP));
    match job.matrix.dtype() {
        WeightDtype::F32 | WeightDtype::F16 | WeightDtype::Bf16 => {}
        WeightDtype::Q4_0 => q4_0(isa, job),
        WeightDtype::Q4_1 => q4_1(isa, job),
        WeightDtype::Q5_0 => q5_0(isa, job),
        WeightDtype::Q5_1 => q5_1(isa, job),
        WeightDtype::Q8_0 => q8_0(isa, job),
        WeightDtype::Q2K => q2_k(isa, job),
        WeightDtype::Q3K => q3_k(isa, job),
        WeightDtype::Q4K => q4_k(isa, job),
        WeightDtype::Q5K => q5_k(isa, job),
        WeightDtype::Q6K => q6_k(isa, job),
    }
}

isa_entry! { fn q4_0(job: &Job<'_>) = run_format::<_, Q4_0> }
isa_entry! { fn q4_1(job: &Job<'_>) = run_format::<_, Q4_1> }
isa_entry! { fn q5_0(job: &Job<'_>) = run_format::<_, Q5_0> }
isa_entry! { fn q5_1(job: &Job<'_>) = run_format::<_, Q5_1> }
isa_entry! { fn q8_0(job: &Job<'_>) = run_format::<_, Q8_0> }
isa_entry! { fn q2_k(job: &Job<'_>) = run_format::<_, Q2K> }
isa_entry! { fn q3_k(job: &Job<'_>) = run_format::<_, Q3K> }
isa_entry! { fn q4_k(job: &Job<'_>) = run_format::<_, Q4K> }
isa_entry! { fn q5_k(job: &Job<'_>) = run_format::<_, Q5K> }
isa_entry! { fn q6_k(job: &Job<'_>) = run_format::<_, Q6K> }

#[inline(always)]
fn run_format<S: Simd, Q: BlockFormat>(s: S, job: &Job<'_>) {
    let (k, num_rows) = (job.matrix.num_inputs(), job.x.num_rows());
    let block_rows = (MAX_BLOCK_FLOATS / k)
        .next_multiple_of(TILE_ROWS)
        .clamp(4 * TILE_ROWS, MAX_TILES * TILE_ROWS);
    let mut pieces: Pieces = [[0.0; PIECE]; TILE_WEIGHTS];
    let mut tiles = [[[s.splat(0.0); TILE_ROWS]; TILE_WEIGHTS]; MAX_TILES];
    for first_row in (0..num_rows).step_by(block_rows) {
        let num_rows = block_rows.min(num_rows - first_row);
        let num_tiles = num_rows.div_ceil(TILE_ROWS);
        for n in job.outputs.clone().step_by(TILE_WEIGHTS) {
            let num_weights = TILE_WEIGHTS.min(job.outputs.end - n);
            tiles[..num_tiles].fill([[s.splat(0.0); TILE_ROWS]; TILE_WEIGHTS]);
            for start in (0..k).step_by(PIECE) {
                let len = PIECE.min(k - start);
                let (block_len, block_bytes) = (Q::DTYPE.block_len(), Q::DTYPE.block_bytes());
                let bytes = start / block_len * block_bytes;
                for i in 0..num_weights {
                    let row = &job.matrix.row(n + i)[bytes..][..len / block_len * block_bytes];
                    Q::expand_all(row, &mut pieces[i][..len]);
                }
                for (t, tile) in tiles[..num_tiles].iter_mut().enumerate() {
                    let (x, num_rows) = job.x.tile(first_row + t * TILE_ROWS);
                    let x = &x[start * num_rows..(start + len) * num_rows];
                    match num_rows {
                        1 => accumulate::<S, 1>(s, &pieces, x, tile),
                        2 => accumulate::<S, 2>(s, &pieces, x, tile),
                        3 => accumulate::<S, 3>(s, &pieces, x, tile),
                        _ => accumulate::<S, TILE_ROWS>(s, &pieces, x, tile),
                    }
                }
            }
            for (t, tile) in tiles[..num_tiles].iter().enumerate() {
                let row = first_row + t * TILE_ROWS;
                let num_rows = TILE_ROWS.min(first_row + num_rows - row);
                store(s, job, tile, (row, num_rows), (n, num_weights));
            }
        }
    }
}

/// Adds the products of four pieces with `x`, packed activations of `MR` rows, to `tile`.
#[inline(always)]
fn accumulate<S: Simd, const MR: usize>(
    s: S,
    pieces: &Pieces,
    x: &[f32],
    tile: &mut Tile<S::F, TILE_ROWS>,
) {
    let num_steps = x.len() / (STEP * MR);
    assert!(num_steps * STEP <= PIECE);
    let mut part = [[s.splat(0.0); MR]; TILE_WEIGHTS];
    for i in 0..TILE_WEIGHTS {
        for m in 0..MR {
            part[i][m] = tile[i][m];
        }
    }
    let operands = Operands {
        weights: pieces.as_ptr().cast(),
        row_bytes: size_of::<[f32; PIECE]>(),
        ahead_bytes: 0,
        x: x.as_ptr(),
        x_rows: MR,
        num_steps,
    };
    // SAFETY: four rows of at least `num_steps` steps of floats, and as many steps of MR rows in
    // `x`.
    unsafe { tile::accumulate::<S, F32, MR>(s, operands, &mut part) };
    for i in 0..TILE_WEIGHTS {
        for m in 0..MR {
            tile[i][m] = part[i][m];
        }
    }
}

/// Sums a tile over lanes and stores it: `rows` and `weights` are the first and how many.
#[inline(always)]
fn store<S: Simd>(
    s: S,
    job: &Job<'_>,
    tile: &Tile<S::F, TILE_ROWS>,
    rows: (usize, usize),
    weights: (usize, usize),
) {
    let mut lanes = [s.splat(0.0); LANES];
    for i in 0..TILE_WEIGHTS {
        for m in 0..TILE_ROWS {
            lanes[m * TILE_WEIGHTS + i] = tile[i][m];
        }
    }
    let mut sums = [0.0; LANES];
    s.store(&mut sums, s.sum16(&lanes));
    for (m, sums) in sums.chunks_exact(TILE_WEIGHTS).enumerate().take(rows.1) {
        // SAFETY: columns of this job, a row of the output.
        unsafe { job.out.store(rows.0 + m, weights.0, &sums[..weights.1]) };
    }
}
