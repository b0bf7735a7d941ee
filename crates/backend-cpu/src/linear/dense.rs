//! A dense product of one thread: which tiles run, and in what order.
//!
//! Sixteen weight rows at a time (or forty-eight, [`super::wide`]) are read straight from the file
//! and stay in the nearest caches while all activations pass over them: memory gives each weight
//! once, whatever the number of rows.
//!
//! Invariant: the order of operations on an output element is that of [`super::tile`].

use std::ops::Range;

use hotspare_model::ops::OpsError;
use hotspare_model::weights::{WeightDtype, WeightView};

use super::columns::Columns;
use super::format::{Bf16, F16, F32, STEP, WeightFormat};
use super::pack::{PackedRows, TILE_ROWS};
use super::tile::{self, Ahead, LINE_BYTES, Operands, StepProduct, TILE_WEIGHTS, Tile};
use super::{blocks, unsupported, wide};
use crate::simd::{Isa, LANES, Simd, isa_entry};

/// Activations (floats) that pass over a group of weight rows: they should stay in the second
/// cache.
const MAX_BLOCK_FLOATS: usize = 96 * 1024;
/// How far ahead to prefetch weights, at most; the next four rows where they are nearer.
const MAX_AHEAD_BYTES: usize = 8192;
/// Matrices of fewer bytes stay in the caches from step to step.
const MIN_FAR_BYTES: usize = 2 << 20;
/// Bytes of a page of the file's mapping.
const PAGE_BYTES: usize = 4096;
/// Weight rows that are summed over lanes together, and that are never divided between threads.
pub(super) const GROUP_ROWS: usize = 16;

/// A matrix `[num_outputs, num_inputs]` in its file's bytes, of any format.
#[derive(Debug)]
pub(super) struct WeightMatrix {
    view: WeightView,
    num_outputs: usize,
    num_inputs: usize,
}

impl WeightMatrix {
    pub(super) fn new(view: WeightView) -> Result<Self, OpsError> {
        match *view.shape() {
            [num_outputs, num_inputs] if num_inputs > 0 => Ok(Self {
                view,
                num_outputs,
                num_inputs,
            }),
            _ => Err(unsupported(&format!(
                "a linear layer of shape {:?}",
                view.shape()
            ))),
        }
    }

    pub(super) fn num_outputs(&self) -> usize {
        self.num_outputs
    }

    pub(super) fn num_inputs(&self) -> usize {
        self.num_inputs
    }

    pub(super) fn dtype(&self) -> WeightDtype {
        self.view.dtype()
    }

    /// Row `index`, widened and scaled.
    pub(super) fn widen_row(&self, index: usize, scale: f32, out: &mut [f32]) {
        fn fill<W: WeightFormat>(bytes: &[u8], scale: f32, out: &mut [f32]) {
            for (out, element) in out.iter_mut().zip(bytes.chunks_exact(W::SIZE)) {
                *out = W::widen(element) * scale;
            }
        }
        let bytes = self.row(index);
        match self.view.dtype() {
            WeightDtype::F32 => fill::<F32>(bytes, scale, out),
            WeightDtype::F16 => fill::<F16>(bytes, scale, out),
            WeightDtype::Bf16 => fill::<Bf16>(bytes, scale, out),
            dtype => {
                blocks::expand(dtype, bytes, out);
                out.iter_mut().for_each(|out| *out *= scale);
            }
        }
    }

    /// Bytes of a row.
    #[inline(always)]
    pub(super) fn row_bytes(&self) -> usize {
        let dtype = self.view.dtype();
        self.num_inputs / dtype.block_len() * dtype.block_bytes()
    }

    /// The bytes of row `index`.
    #[inline(always)]
    pub(super) fn row(&self, index: usize) -> &[u8] {
        self.rows(index, 1)
    }

    /// The bytes of `num_rows` rows from `first` on.
    #[inline(always)]
    pub(super) fn rows(&self, first: usize, num_rows: usize) -> &[u8] {
        // The view is as long as its shape says.
        let row_bytes = self.row_bytes();
        &self.view.bytes()[first * row_bytes..(first + num_rows) * row_bytes]
    }
}

/// Columns of one matrix's product.
pub(super) struct Job<'a> {
    pub(super) matrix: &'a WeightMatrix,
    /// The matrix's: found once.
    bytes: &'a [u8],
    pub(super) x: PackedRows<'a>,
    /// Column 0 is the matrix's first output.
    pub(super) out: Columns<'a>,
    /// The outputs to compute: they start at a multiple of [`GROUP_ROWS`].
    pub(super) outputs: Range<usize>,
}

impl<'a> Job<'a> {
    /// `outputs` of `matrix`, for the rows `x`.
    pub(super) fn new(
        matrix: &'a WeightMatrix,
        x: PackedRows<'a>,
        out: Columns<'a>,
        outputs: Range<usize>,
    ) -> Self {
        Self {
            matrix,
            bytes: matrix.view.bytes(),
            x,
            out,
            outputs,
        }
    }

    /// Asks for a line of each page of `num_weights` rows from `start` on, whether or not there are
    /// as many. Looking up where a page lies takes about as long as memory itself, and a core that
    /// comes upon a page waits for it; asked for together, they come together.
    #[inline(always)]
    pub(super) fn touch_pages<S: Simd, P: StepProduct<S>>(
        &self,
        s: S,
        start: usize,
        num_weights: usize,
    ) {
        let row_bytes = self.matrix.num_inputs * P::SIZE;
        let from = self.bytes.as_ptr().wrapping_add(start * row_bytes);
        for page in (0..num_weights * row_bytes).step_by(PAGE_BYTES) {
            s.prefetch_far(from.wrapping_add(page));
        }
    }
}

/// Runs a job whose matrix is dense; a quantized one is left alone.
pub(super) fn run(isa: Isa, job: &Job<'_>) {
    let matrix = job.matrix;
    let is_whole = matrix.num_inputs.is_multiple_of(STEP);
    match matrix.dtype() {
        WeightDtype::F32 if is_whole => f32_whole(isa, job),
        WeightDtype::F16 if is_whole => f16_whole(isa, job),
        WeightDtype::Bf16 if is_whole => bf16_whole(isa, job),
        WeightDtype::F32 => f32_any(isa, job),
        WeightDtype::F16 => f16_any(isa, job),
        WeightDtype::Bf16 => bf16_any(isa, job),
        _ => {}
    }
}

// A function for each format, with and without a partial step: a register allocator does better on
// small functions.
isa_entry! { fn f32_whole(job: &Job<'_>) = run_format::<_, F32, true> }
isa_entry! { fn f16_whole(job: &Job<'_>) = run_format::<_, F16, true> }
isa_entry! { fn bf16_whole(job: &Job<'_>) = run_format::<_, Bf16, true> }
isa_entry! { fn f32_any(job: &Job<'_>) = run_format::<_, F32, false> }
isa_entry! { fn f16_any(job: &Job<'_>) = run_format::<_, F16, false> }
isa_entry! { fn bf16_any(job: &Job<'_>) = run_format::<_, Bf16, false> }

#[inline(always)]
fn run_format<S: Simd, W: WeightFormat, const WHOLE: bool>(s: S, job: &Job<'_>) {
    run_product::<S, W, WHOLE>(s, W::default(), job);
}

/// Runs a job with one kind of product. `WHOLE` where all steps are.
#[inline(always)]
pub(super) fn run_product<S: Simd, P: StepProduct<S>, const WHOLE: bool>(
    s: S,
    p: P,
    job: &Job<'_>,
) {
    let num_rows = job.x.num_rows();
    // What the pointers in tiles rely on.
    let num_steps = job.matrix.num_inputs.div_ceil(STEP);
    assert!(job.outputs.end <= job.matrix.num_outputs);
    assert_eq!(job.matrix.row_bytes(), job.matrix.num_inputs * P::SIZE);
    assert_eq!(job.x.row_len(), num_steps * P::PARTS * LANES);
    let block_rows = (MAX_BLOCK_FLOATS / job.x.row_len())
        .next_multiple_of(TILE_ROWS)
        .max(4 * TILE_ROWS);
    for first in (0..num_rows).step_by(block_rows) {
        let rows = first..num_rows.min(first + block_rows);
        let mut n = job.outputs.start;
        while n < job.outputs.end {
            if wide::fits::<S, P>(rows.len(), job.outputs.end - n) {
                wide::group::<S, P, WHOLE>(s, p, job, rows.clone(), n);
                n += wide::GROUP_ROWS;
                continue;
            }
            // The last group starts earlier, where fewer rows are left, and stores only what is
            // new.
            let start = n.min(job.outputs.end.max(GROUP_ROWS) - GROUP_ROWS);
            for (pass, row) in rows.clone().step_by(TILE_ROWS).enumerate() {
                let (x, num_rows) = job.x.tile(row);
                let place = Place {
                    start,
                    num_weights: GROUP_ROWS,
                    skip: n - start,
                    row,
                    pass,
                    num_passes: rows.len().div_ceil(TILE_ROWS),
                };
                match num_rows {
                    _ if job.matrix.num_outputs < GROUP_ROWS => small_matrix(s, p, job, row),
                    1 => group::<S, P, 1, 4, WHOLE>(s, p, job, x, place),
                    2 => group::<S, P, 2, 2, WHOLE>(s, p, job, x, place),
                    3 => group::<S, P, 3, 1, WHOLE>(s, p, job, x, place),
                    _ => group::<S, P, TILE_ROWS, 1, WHOLE>(s, p, job, x, place),
                }
            }
            n = start + GROUP_ROWS;
        }
    }
}

/// Where a group of outputs is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// First weight row.
    pub(super) start: usize,
    /// Weight rows of the group.
    pub(super) num_weights: usize,
    /// Weight rows that another group computed.
    pub(super) skip: usize,
    /// First activation row.
    pub(super) row: usize,
    /// How many tiles of activations have passed over these weights, and how many will that bring
    /// others near.
    pub(super) pass: usize,
    pub(super) num_passes: usize,
}

impl Place {
    /// What tile `tile` of `NW` weight rows of this group brings near: the next group, divided
    /// evenly over the first passes, so that memory is never idle. A small matrix that one pass
    /// reads is in a cache already, and the next tile is enough.
    #[inline(always)]
    fn ahead<S: Simd, P: StepProduct<S>, const NW: usize>(
        &self,
        job: &Job<'_>,
        tile: usize,
    ) -> Ahead {
        let row_bytes = job.matrix.num_inputs * P::SIZE;
        let num_steps = job.matrix.num_inputs / STEP;
        let lines_a_step = NW * P::STEP_BYTES / LINE_BYTES;
        let base = job.bytes.as_ptr();
        let is_small = job.matrix.num_outputs * row_bytes < MIN_FAR_BYTES;
        if self.num_passes == 1 && is_small {
            let tile_bytes = NW * row_bytes;
            let at = (self.start + tile * NW) * row_bytes;
            return Ahead {
                from: base.wrapping_add(at + MAX_AHEAD_BYTES.min(tile_bytes)),
                lines_per_step: lines_a_step,
                is_far: false,
            };
        }
        let sharing = self.num_passes.min(lines_a_step);
        let lines_per_step = lines_a_step.div_ceil(sharing);
        let share = self.pass * (self.num_weights / NW) + tile;
        let at = share * lines_per_step * num_steps * LINE_BYTES;
        Ahead {
            from: base.wrapping_add((self.start + self.num_weights) * row_bytes + at),
            lines_per_step: match self.pass * lines_per_step < lines_a_step {
                true => lines_per_step,
                false => 0,
            },
            is_far: true,
        }
    }
}

/// Sixteen outputs of `MR` rows, less those to skip. `TILES` tiles of four weight rows give the
/// sixteen sums that are taken over lanes together.
#[inline(always)]
pub(super) fn group<
    S: Simd,
    P: StepProduct<S>,
    const MR: usize,
    const TILES: usize,
    const WHOLE: bool,
>(
    s: S,
    p: P,
    job: &Job<'_>,
    x: &[f32],
    place: Place,
) {
    let at_once = TILES * TILE_WEIGHTS;
    for first in (0..GROUP_ROWS).step_by(at_once) {
        let n = place.start + first;
        // Written out, so that accumulators stay in registers.
        let mut tiles = [[[s.splat(0.0); MR]; TILE_WEIGHTS]; TILES];
        let tile = |t: usize| {
            let nth = first / TILE_WEIGHTS + t;
            direct_tile::<S, P, TILE_WEIGHTS, MR, WHOLE>(s, p, job, x, place, nth)
        };
        tiles[0] = tile(0);
        if TILES > 1 {
            tiles[1] = tile(1);
        }
        if TILES > 2 {
            tiles[2] = tile(2);
            tiles[3] = tile(3);
        }
        let mut lanes = [s.splat(0.0); LANES];
        for t in 0..TILES {
            for i in 0..TILE_WEIGHTS {
                for m in 0..MR {
                    lanes[m * at_once + t * TILE_WEIGHTS + i] = tiles[t][i][m];
                }
            }
        }
        let mut sums = [0.0; LANES];
        s.store(&mut sums, s.sum16(&lanes));
        let skip = place.skip.saturating_sub(first).min(at_once);
        for (m, sums) in sums.chunks_exact(at_once).enumerate().take(MR) {
            // SAFETY: columns of this job, rows of the output.
            unsafe {
                if skip == 0 {
                    job.out.store(place.row + m, n, &sums[..at_once]);
                } else {
                    job.out.store(place.row + m, n + skip, &sums[skip..]);
                }
            }
        }
    }
}

/// The sums of tile `tile` of a group, of `NW` weight rows each.
#[inline(always)]
pub(super) fn direct_tile<
    S: Simd,
    P: StepProduct<S>,
    const NW: usize,
    const MR: usize,
    const WHOLE: bool,
>(
    s: S,
    p: P,
    job: &Job<'_>,
    x: &[f32],
    place: Place,
    tile: usize,
) -> Tile<S::F, NW, MR> {
    let ahead = place.ahead::<S, P, NW>(job, tile);
    let n = place.start + tile * NW;
    let row_bytes = job.matrix.num_inputs * P::SIZE;
    let num_steps = job.matrix.num_inputs / STEP;
    let weights = &job.bytes[n * row_bytes..(n + NW) * row_bytes];
    let x = &x[..job.x.row_len() * MR];
    let mut tile = [[s.splat(0.0); MR]; NW];
    if !WHOLE {
        let x = x[num_steps * P::PARTS * LANES * MR..].as_ptr();
        for i in 0..NW {
            let row = &weights[i * row_bytes + num_steps * P::STEP_BYTES..(i + 1) * row_bytes];
            let step = padded_step(row);
            // SAFETY: `step` is as long as the longest step, `x` is the last step of MR rows.
            unsafe { tile::accumulate_step(s, p, step.as_ptr(), x, &mut tile[i]) };
        }
    }
    let operands = Operands {
        weights: weights.as_ptr(),
        row_bytes,
        ahead,
        x: x.as_ptr(),
        x_rows: MR,
        num_steps,
    };
    // SAFETY: `weights` has NW rows of k elements, `x` has padded k elements of MR rows.
    unsafe { tile::accumulate::<S, P, NW, MR>(s, p, operands, &mut tile) };
    tile
}

/// A step whose bytes are those of a partial one, then zeros: the number zero in every format.
#[inline(always)]
fn padded_step(bytes: &[u8]) -> [u8; STEP * size_of::<f32>()] {
    let mut step = [0; STEP * size_of::<f32>()];
    step[..bytes.len()].copy_from_slice(bytes);
    step
}

/// All outputs of a matrix of fewer than sixteen, for the tile of rows that starts at `row`.
#[inline(always)]
fn small_matrix<S: Simd, P: StepProduct<S>>(s: S, p: P, job: &Job<'_>, row: usize) {
    let row_bytes = job.matrix.num_inputs * P::SIZE;
    let (x, num_rows) = job.x.tile(row);
    // The order of a tile: the partial step first.
    let (num_steps, tail) = (
        job.matrix.num_inputs / STEP,
        usize::from(!job.matrix.num_inputs.is_multiple_of(STEP)),
    );
    let order = (num_steps..num_steps + tail).chain(0..num_steps);
    for n in job.outputs.clone() {
        let weights = &job.bytes[n * row_bytes..(n + 1) * row_bytes];
        for m in 0..num_rows {
            let mut acc = s.splat(0.0);
            for step in order.clone() {
                let from = &weights[step * P::STEP_BYTES..];
                let padded = padded_step(&from[..from.len().min(P::STEP_BYTES)]);
                for part in 0..P::PARTS {
                    // SAFETY: `padded` is as long as the longest step.
                    let w = unsafe { p.weights(s, padded.as_ptr(), part) };
                    let at = ((P::PARTS * step + part) * num_rows + m) * LANES;
                    acc = p.mul_add(s, w, s.load_partial(&x[at..at + LANES]), acc);
                }
            }
            // SAFETY: a column of this job, a row of the output.
            unsafe { job.out.store(row + m, n, &[s.sum(acc)]) };
        }
    }
}
