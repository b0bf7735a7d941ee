//! Dense products: which tiles run, in what order, on which thread.
//!
//! Sixteen weight rows at a time are read straight from the file and stay in the nearest caches
//! while all activations pass over them: memory gives each weight once, whatever the number of
//! rows.
//!
//! Invariant: threads own disjoint columns of the output.

use std::marker::PhantomData;
use std::ops::Range;

use hotspare_model::ops::OpsError;
use hotspare_model::weights::{WeightDtype, WeightView};

use super::format::{Bf16, F16, F32, STEP, WeightFormat, widen_partial_step};
use super::pack::{PackSpace, PackedRows, TILE_ROWS};
use super::tile::{self, Operands, TILE_WEIGHTS, Tile};
use super::unsupported;
use crate::simd::{Isa, LANES, Simd, isa_entry};
use crate::workers::Workers;

/// Activations (floats) that pass over a group of weight rows: they should stay in the second
/// cache.
const MAX_BLOCK_FLOATS: usize = 96 * 1024;
/// How far ahead to prefetch weights, at most; the next four rows where they are nearer.
const MAX_AHEAD_BYTES: usize = 8192;
/// Weight rows that are summed over lanes together, and that are never divided between threads.
const GROUP_ROWS: usize = 16;

/// A matrix `[num_outputs, num_inputs]` in its file's bytes.
#[derive(Debug)]
pub(super) struct DenseMatrix {
    view: WeightView,
    num_outputs: usize,
    num_inputs: usize,
}

impl DenseMatrix {
    pub(super) fn new(view: WeightView) -> Result<Self, OpsError> {
        match *view.shape() {
            [num_outputs, num_inputs] => Ok(Self {
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
        let row_bytes = self.num_inputs * self.view.dtype().size();
        let bytes = &self.view.bytes()[index * row_bytes..(index + 1) * row_bytes];
        match self.view.dtype() {
            WeightDtype::F32 => fill::<F32>(bytes, scale, out),
            WeightDtype::F16 => fill::<F16>(bytes, scale, out),
            WeightDtype::Bf16 => fill::<Bf16>(bytes, scale, out),
        }
    }
}

/// The output of a product, `[num_rows, stride]`, shared by the threads that fill its columns.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    pub(super) first: *mut f32,
    pub(super) stride: usize,
    owner: PhantomData<&'a mut [f32]>,
}

impl Columns<'_> {
    /// The columns from `column` on.
    fn from(self, column: usize) -> Self {
        Self {
            first: self.first.wrapping_add(column),
            ..self
        }
    }

    /// Stores one element.
    ///
    /// # Safety
    /// It exists, and no other thread touches it.
    #[inline(always)]
    pub(super) unsafe fn store(self, row: usize, column: usize, value: f32) {
        // SAFETY: the caller's promise.
        unsafe { *self.first.add(row * self.stride + column) = value };
    }
}

// SAFETY: a pointer into an exclusively borrowed slice; each thread writes columns of its own.
unsafe impl Send for Columns<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for Columns<'_> {}

/// Columns of one matrix's product.
#[derive(Clone)]
pub(super) struct Job<'a> {
    pub(super) matrix: &'a [u8],
    dtype: WeightDtype,
    pub(super) num_outputs: usize,
    pub(super) k: usize,
    pub(super) x: PackedRows<'a>,
    /// Column 0 is the matrix's first output.
    pub(super) out: Columns<'a>,
    /// The outputs to compute.
    pub(super) outputs: Range<usize>,
}

/// `out[r]` = the concatenation of `part · x[r]` over the parts, for every row of `x`.
///
/// # Errors
/// Out of memory for packed activations.
pub(super) fn product(
    isa: Isa,
    workers: &Workers,
    space: &mut PackSpace,
    parts: &[DenseMatrix],
    x: &[f32],
    out: &mut [f32],
) -> Result<(), OpsError> {
    let Some(first) = parts.first() else {
        return Ok(());
    };
    let k = first.num_inputs;
    let num_outputs: usize = parts.iter().map(DenseMatrix::num_outputs).sum();
    // All parts have one format (checked at load), and with it one order over k.
    let is_interleaved = first.dtype() == WeightDtype::Bf16;
    let x = space.pack(isa, workers, x, k, is_interleaved)?;
    assert_eq!(
        out.len(),
        x.num_rows() * num_outputs,
        "the output fits the product"
    );
    let columns = Columns {
        first: out.as_mut_ptr(),
        stride: num_outputs,
        owner: PhantomData,
    };
    let num_groups = parts
        .iter()
        .map(|part| part.num_outputs.div_ceil(GROUP_ROWS))
        .sum();
    let work_ns = estimate_ns(x.num_rows(), num_outputs * k);
    workers.ranges(num_groups, work_ns, &|groups: Range<usize>| {
        let (mut first_group, mut first_column) = (0, 0);
        for part in parts {
            let part_groups = part.num_outputs.div_ceil(GROUP_ROWS);
            let start = groups.start.clamp(first_group, first_group + part_groups) - first_group;
            let end = groups.end.clamp(first_group, first_group + part_groups) - first_group;
            if start < end {
                let job = Job {
                    matrix: part.view.bytes(),
                    dtype: part.dtype(),
                    num_outputs: part.num_outputs,
                    k,
                    x,
                    out: columns.from(first_column),
                    outputs: start * GROUP_ROWS..part.num_outputs.min(end * GROUP_ROWS),
                };
                run(isa, &job);
            }
            first_group += part_groups;
            first_column += part.num_outputs;
        }
    });
    Ok(())
}

/// About how long one thread takes: 25 weights a nanosecond for one row, then 100 GFLOP/s.
fn estimate_ns(num_rows: usize, num_weights: usize) -> usize {
    (num_weights / 25).max(num_weights * num_rows / 50)
}

fn run(isa: Isa, job: &Job<'_>) {
    // What the pointers in tiles rely on.
    assert!(job.matrix.len() >= job.num_outputs * job.k * job.dtype.size());
    assert!(job.outputs.end <= job.num_outputs && job.x.padded_k() >= job.k);
    let is_whole = job.k.is_multiple_of(STEP);
    match job.dtype {
        WeightDtype::F32 if is_whole => f32_whole(isa, job),
        WeightDtype::F16 if is_whole => f16_whole(isa, job),
        WeightDtype::Bf16 if is_whole => bf16_whole(isa, job),
        WeightDtype::F32 => f32_any(isa, job),
        WeightDtype::F16 => f16_any(isa, job),
        WeightDtype::Bf16 => bf16_any(isa, job),
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
    let num_rows = job.x.num_rows();
    let block_rows = (MAX_BLOCK_FLOATS / job.k)
        .next_multiple_of(TILE_ROWS)
        .max(4 * TILE_ROWS);
    for first in (0..num_rows).step_by(block_rows) {
        let rows = first..num_rows.min(first + block_rows);
        let mut n = job.outputs.start;
        while n < job.outputs.end {
            // The last group starts earlier, where fewer rows are left, and stores only what is
            // new.
            let start = n.min(job.outputs.end.max(GROUP_ROWS) - GROUP_ROWS);
            for row in rows.clone().step_by(TILE_ROWS) {
                let (x, num_rows) = job.x.tile(row);
                let place = Place {
                    start,
                    skip: n - start,
                    row,
                };
                match num_rows {
                    _ if job.num_outputs < GROUP_ROWS => small_matrix::<S, W>(s, job, row),
                    1 => group::<S, W, 1, 4, WHOLE>(s, job, x, place),
                    2 => group::<S, W, 2, 2, WHOLE>(s, job, x, place),
                    3 => group::<S, W, 3, 1, WHOLE>(s, job, x, place),
                    _ => group::<S, W, TILE_ROWS, 1, WHOLE>(s, job, x, place),
                }
            }
            n = start + GROUP_ROWS;
        }
    }
}

/// Where a group of sixteen outputs is.
#[derive(Clone, Copy)]
struct Place {
    /// First weight row.
    start: usize,
    /// Weight rows that another group computed.
    skip: usize,
    /// First activation row.
    row: usize,
}

/// Sixteen outputs of `MR` rows, less those to skip. `TILES` tiles of four weight rows give the
/// sixteen sums that are taken over lanes together.
#[inline(always)]
fn group<S: Simd, W: WeightFormat, const MR: usize, const TILES: usize, const WHOLE: bool>(
    s: S,
    job: &Job<'_>,
    x: &[f32],
    place: Place,
) {
    let at_once = TILES * TILE_WEIGHTS;
    for first in (0..GROUP_ROWS).step_by(at_once) {
        let n = place.start + first;
        // Written out, so that accumulators stay in registers.
        let mut tiles = [[[s.splat(0.0); MR]; TILE_WEIGHTS]; TILES];
        tiles[0] = direct_tile::<S, W, MR, WHOLE>(s, job, x, n);
        if TILES > 1 {
            tiles[1] = direct_tile::<S, W, MR, WHOLE>(s, job, x, n + TILE_WEIGHTS);
        }
        if TILES > 2 {
            tiles[2] = direct_tile::<S, W, MR, WHOLE>(s, job, x, n + 2 * TILE_WEIGHTS);
            tiles[3] = direct_tile::<S, W, MR, WHOLE>(s, job, x, n + 3 * TILE_WEIGHTS);
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
        for m in 0..MR {
            for i in 0..at_once {
                if first + i >= place.skip {
                    // SAFETY: a column of this job, a row of the output.
                    unsafe { job.out.store(place.row + m, n + i, sums[m * at_once + i]) };
                }
            }
        }
    }
}

/// Four weight rows from `n` on.
#[inline(always)]
fn direct_tile<S: Simd, W: WeightFormat, const MR: usize, const WHOLE: bool>(
    s: S,
    job: &Job<'_>,
    x: &[f32],
    n: usize,
) -> Tile<S::F, MR> {
    let row_bytes = job.k * W::SIZE;
    let num_steps = job.k / STEP;
    let weights = &job.matrix[n * row_bytes..(n + TILE_WEIGHTS) * row_bytes];
    let x = &x[..job.k.div_ceil(STEP) * STEP * MR];
    let mut tile = [[s.splat(0.0); MR]; TILE_WEIGHTS];
    if !WHOLE {
        let x = x[num_steps * STEP * MR..].as_ptr();
        for i in 0..TILE_WEIGHTS {
            let row = &weights[i * row_bytes + num_steps * W::STEP_BYTES..(i + 1) * row_bytes];
            let [a, b] = widen_partial_step::<W>(row);
            // SAFETY: `x` is the last step of MR rows.
            unsafe { tile::accumulate_step(s, [s.load(&a), s.load(&b)], x, &mut tile[i]) };
        }
    }
    let operands = Operands {
        weights: weights.as_ptr(),
        row_bytes,
        ahead_bytes: MAX_AHEAD_BYTES.min(TILE_WEIGHTS * row_bytes),
        x: x.as_ptr(),
        x_rows: MR,
        num_steps,
    };
    // SAFETY: `weights` has four rows of k elements, `x` has padded k elements of MR rows.
    unsafe { tile::accumulate::<S, W, MR>(s, operands, &mut tile) };
    tile
}

/// All outputs of a matrix of fewer than sixteen, for the tile of rows that starts at `row`.
#[inline(always)]
fn small_matrix<S: Simd, W: WeightFormat>(s: S, job: &Job<'_>, row: usize) {
    let row_bytes = job.k * W::SIZE;
    let (x, num_rows) = job.x.tile(row);
    // The order of a tile: the partial step first.
    let (num_steps, tail) = (job.k / STEP, usize::from(!job.k.is_multiple_of(STEP)));
    let order = (num_steps..num_steps + tail).chain(0..num_steps);
    for n in job.outputs.clone() {
        let weights = &job.matrix[n * row_bytes..(n + 1) * row_bytes];
        for m in 0..num_rows {
            let mut acc = s.splat(0.0);
            for step in order.clone() {
                let from = &weights[step * W::STEP_BYTES..];
                let from = &from[..from.len().min(W::STEP_BYTES)];
                for (half, w) in widen_partial_step::<W>(from).iter().enumerate() {
                    let at = ((2 * step + half) * num_rows + m) * LANES;
                    acc = s.fma(s.load(w), s.load_partial(&x[at..at + LANES]), acc);
                }
            }
            // SAFETY: a column of this job, a row of the output.
            unsafe { job.out.store(row + m, n, s.sum(acc)) };
        }
    }
}
