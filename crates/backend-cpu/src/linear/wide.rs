//! Groups of forty-eight weight rows in tiles of six, for products of many rows.
//!
//! A tile's operands come from the second cache: six weight rows with four activation rows need
//! ten vectors for twenty-four sums, four need eight for sixteen. The next group comes from memory
//! meanwhile, and a wide tile leaves more of the core's outstanding loads to it.
//!
//! Invariant: an element's bits are those that [`super::tile`] says, as in any other group.
// Indices over constant bounds keep small arrays in registers, and say which operand is which.
#![allow(
    clippy::needless_range_loop,
    reason = "constant bounds unroll, and keep the sums in registers"
)]

use std::ops::Range;

use super::dense::{self, Job, Place};
use super::pack::TILE_ROWS;
use super::tile::{StepProduct, TILE_WEIGHTS, Tile, WIDE_TILE_WEIGHTS};
use crate::simd::{LANES, Simd};

/// Weight rows of a group.
pub(super) const GROUP_ROWS: usize = 48;
/// Two tiles of six times four: three times the sums that are taken over lanes together.
const PAIR_WEIGHTS: usize = 2 * WIDE_TILE_WEIGHTS;
/// Weight rows of a wide tile beyond those of a tile.
const LEFT_WEIGHTS: usize = WIDE_TILE_WEIGHTS - TILE_WEIGHTS;

type WideTile<S> = Tile<<S as Simd>::F, WIDE_TILE_WEIGHTS, TILE_ROWS>;

/// Whether a group of this kind comes next: where several whole tiles of activations pass over as
/// many weight rows as it has.
#[inline(always)]
pub(super) fn fits<S: Simd, P: StepProduct<S>>(num_rows: usize, num_weights: usize) -> bool {
    P::IS_WIDE && num_rows >= 2 * TILE_ROWS && num_weights >= GROUP_ROWS
}

/// Outputs `start..start + GROUP_ROWS` of the activation rows `rows`.
#[inline(always)]
pub(super) fn group<S: Simd, P: StepProduct<S>, const WHOLE: bool>(
    s: S,
    p: P,
    job: &Job<'_>,
    rows: Range<usize>,
    start: usize,
) {
    // A last, shorter tile of activations brings nothing near.
    let num_passes = rows.len() / TILE_ROWS;
    job.touch_pages::<S, P>(s, start + 2 * GROUP_ROWS, GROUP_ROWS);
    for (pass, row) in rows.step_by(TILE_ROWS).enumerate() {
        let (x, num_rows) = job.x.tile(row);
        let place = Place {
            start,
            num_weights: GROUP_ROWS,
            skip: 0,
            row,
            pass,
            num_passes,
        };
        if num_rows == TILE_ROWS {
            whole_tiles::<S, P, WHOLE>(s, p, job, x, place);
            continue;
        }
        for at in (0..GROUP_ROWS).step_by(dense::GROUP_ROWS) {
            let place = Place {
                start: start + at,
                num_weights: dense::GROUP_ROWS,
                ..place
            };
            match num_rows {
                1 => dense::group::<S, P, 1, 4, WHOLE>(s, p, job, x, place),
                2 => dense::group::<S, P, 2, 2, WHOLE>(s, p, job, x, place),
                _ => dense::group::<S, P, 3, 1, WHOLE>(s, p, job, x, place),
            }
        }
    }
}

/// A group's outputs of one whole tile of activations, two tiles of weights at a time: of each,
/// four rows' sums are taken over lanes at once, then those of the two rows that each has left.
#[inline(always)]
fn whole_tiles<S: Simd, P: StepProduct<S>, const WHOLE: bool>(
    s: S,
    p: P,
    job: &Job<'_>,
    x: &[f32],
    place: Place,
) {
    for pair in 0..GROUP_ROWS / PAIR_WEIGHTS {
        let column = place.start + pair * PAIR_WEIGHTS;
        let mut left = [s.splat(0.0); LANES];
        // Written out, so that sums stay in registers.
        let tile = whole_tile::<S, P, WHOLE>(s, p, job, x, place, 2 * pair);
        leave(&tile, 0, &mut left);
        store_first(s, job, place.row, column, &tile);
        let tile = whole_tile::<S, P, WHOLE>(s, p, job, x, place, 2 * pair + 1);
        leave(&tile, 1, &mut left);
        store_first(s, job, place.row, column + WIDE_TILE_WEIGHTS, &tile);
        let mut sums = [0.0; LANES];
        s.store(&mut sums, s.sum16(&left));
        for (m, sums) in sums.chunks_exact(2 * LEFT_WEIGHTS).enumerate() {
            let (a, b) = sums.split_at(LEFT_WEIGHTS);
            // SAFETY: columns of this job, rows of the output.
            unsafe {
                let column = column + TILE_WEIGHTS;
                job.out.store(place.row + m, column, a);
                job.out.store(place.row + m, column + WIDE_TILE_WEIGHTS, b);
            }
        }
    }
}

/// The sums of wide tile `tile` of a group.
#[inline(always)]
fn whole_tile<S: Simd, P: StepProduct<S>, const WHOLE: bool>(
    s: S,
    p: P,
    job: &Job<'_>,
    x: &[f32],
    place: Place,
    tile: usize,
) -> WideTile<S> {
    dense::direct_tile::<S, P, WIDE_TILE_WEIGHTS, TILE_ROWS, WHOLE>(s, p, job, x, place, tile)
}

/// Stores the outputs of the first four weight rows of a tile.
#[inline(always)]
fn store_first<S: Simd>(s: S, job: &Job<'_>, row: usize, column: usize, tile: &WideTile<S>) {
    let mut lanes = [s.splat(0.0); LANES];
    for i in 0..TILE_WEIGHTS {
        for m in 0..TILE_ROWS {
            lanes[m * TILE_WEIGHTS + i] = tile[i][m];
        }
    }
    let mut sums = [0.0; LANES];
    s.store(&mut sums, s.sum16(&lanes));
    for (m, sums) in sums.chunks_exact(TILE_WEIGHTS).enumerate() {
        // SAFETY: columns of this job, rows of the output.
        unsafe { job.out.store(row + m, column, sums) };
    }
}

/// Puts the sums of a tile's last weight rows beside those of the pair's other tile.
#[inline(always)]
fn leave<F: Copy>(
    tile: &Tile<F, WIDE_TILE_WEIGHTS, TILE_ROWS>,
    half: usize,
    left: &mut [F; LANES],
) {
    for i in 0..LEFT_WEIGHTS {
        for m in 0..TILE_ROWS {
            left[(2 * m + half) * LEFT_WEIGHTS + i] = tile[TILE_WEIGHTS + i][m];
        }
    }
}
