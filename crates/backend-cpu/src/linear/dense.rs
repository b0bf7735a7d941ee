//! Dense products: which tiles run, in what order, on which thread.
//!
//! A few rows (decode) read the weights straight from the file, once. Many rows (prefill, many streams) first
//! widen four weight rows at a time into a panel that stays in the nearest cache, block by block over k;
//! accumulators wait in memory between blocks, so that the order over k stays the same.
//!
//! Invariant: threads own disjoint columns of the output.

use std::marker::PhantomData;
use std::ops::Range;

use hotspare_model::ops::OpsError;
use hotspare_model::weights::{WeightDtype, WeightView};

use super::format::{Bf16, F16, F32, WeightFormat};
use super::tile::{self, Operands, Tile};
use super::unsupported;
use crate::simd::{Isa, LANES, Simd, isa_entry};
use crate::workers::Workers;

/// Rows up to which weights are read straight from the file.
const MAX_DIRECT_ROWS: usize = 6;
/// Weight rows of a panel.
const PANEL_ROWS: usize = 4;
/// Elements of a weight row in a panel: 16 KiB of f32 for four rows.
const PANEL_K: usize = 1024;
/// Activation rows that pass over a panel: their k-block should stay in the second cache.
const MAX_BLOCK_ROWS: usize = 72;
/// Activation rows a tile in panel mode, at most; at least half as many.
const MAX_TILE_ROWS: usize = 6;
/// Output columns that are never divided between threads.
const COLUMN_GRAIN: usize = 16;

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
struct Columns<'a> {
    first: *mut f32,
    stride: usize,
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
}

// SAFETY: a pointer into an exclusively borrowed slice; each thread writes columns of its own.
unsafe impl Send for Columns<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for Columns<'_> {}

/// Columns of one matrix's product.
#[derive(Clone)]
struct Job<'a> {
    matrix: &'a [u8],
    dtype: WeightDtype,
    num_outputs: usize,
    k: usize,
    x: &'a [f32],
    num_rows: usize,
    /// Column 0 is the matrix's first output.
    out: Columns<'a>,
    /// The outputs to compute.
    outputs: Range<usize>,
}

/// `out[r]` = the concatenation of `part · x[r]` over the parts, for every row of `x`.
pub(super) fn product(
    isa: Isa,
    workers: &Workers,
    parts: &[DenseMatrix],
    num_outputs: usize,
    x: &[f32],
    out: &mut [f32],
) {
    let k = parts.first().map_or(1, DenseMatrix::num_inputs);
    let num_rows = x.len() / k;
    assert_eq!(
        out.len(),
        num_rows * num_outputs,
        "the output fits the product"
    );
    let columns = Columns {
        first: out.as_mut_ptr(),
        stride: num_outputs,
        owner: PhantomData,
    };
    let num_grains = parts
        .iter()
        .map(|part| part.num_outputs.div_ceil(COLUMN_GRAIN))
        .sum();
    let work_ns = estimate_ns(num_rows, num_outputs, k);
    workers.ranges(num_grains, work_ns, &|grains: Range<usize>| {
        let (mut first_grain, mut first_column) = (0, 0);
        for part in parts {
            let part_grains = part.num_outputs.div_ceil(COLUMN_GRAIN);
            let start = grains.start.clamp(first_grain, first_grain + part_grains) - first_grain;
            let end = grains.end.clamp(first_grain, first_grain + part_grains) - first_grain;
            if start < end {
                let job = Job {
                    matrix: part.view.bytes(),
                    dtype: part.view.dtype(),
                    num_outputs: part.num_outputs,
                    k,
                    x,
                    num_rows,
                    out: columns.from(first_column),
                    outputs: start * COLUMN_GRAIN..part.num_outputs.min(end * COLUMN_GRAIN),
                };
                run(isa, &job);
            }
            first_grain += part_grains;
            first_column += part.num_outputs;
        }
    });
}

/// About how long one thread takes: 16 weights a nanosecond for one row, then 100 GFLOP/s.
fn estimate_ns(num_rows: usize, num_outputs: usize, k: usize) -> usize {
    let num_weights = num_outputs * k;
    (num_weights / 16).max(num_weights * num_rows / 50)
}

isa_entry! { fn run(job: &Job<'_>) = run_any }

#[inline(always)]
fn run_any<S: Simd>(s: S, job: &Job<'_>) {
    let size = job.dtype.size();
    // What the pointers below rely on.
    assert!(job.matrix.len() >= job.num_outputs * job.k * size);
    assert!(job.x.len() >= job.num_rows * job.k && job.outputs.end <= job.num_outputs);
    match job.dtype {
        WeightDtype::F32 => run_format::<S, F32>(s, job),
        WeightDtype::F16 => run_format::<S, F16>(s, job),
        WeightDtype::Bf16 => run_format::<S, Bf16>(s, job),
    }
}

#[inline(always)]
fn run_format<S: Simd, W: WeightFormat>(s: S, job: &Job<'_>) {
    match job.num_rows {
        0 => {}
        1 => direct::<S, W, 16, 1>(s, job),
        2 => direct::<S, W, 8, 2>(s, job),
        3 => direct::<S, W, 5, 3>(s, job),
        4 => direct::<S, W, 4, 4>(s, job),
        5 => direct::<S, W, 4, 5>(s, job),
        MAX_DIRECT_ROWS => direct::<S, W, 4, 6>(s, job),
        _ => panels::<S, W>(s, job),
    }
}

/// Few rows: `MR` is the number of rows.
#[inline(always)]
fn direct<S: Simd, W: WeightFormat, const NR: usize, const MR: usize>(s: S, job: &Job<'_>) {
    let mut n = job.outputs.start;
    while n < job.outputs.end {
        if job.num_outputs < NR {
            direct_tile::<S, W, 1, MR>(s, job, n, 0);
            n += 1;
        } else {
            // The last tile starts earlier, where fewer than NR rows are left, and stores only what is new.
            let start = n.min(job.outputs.end.max(NR) - NR);
            direct_tile::<S, W, NR, MR>(s, job, start, n - start);
            n = start + NR;
        }
    }
}

/// Outputs `start + skip..start + NR` of all `MR` rows.
#[inline(always)]
fn direct_tile<S: Simd, W: WeightFormat, const NR: usize, const MR: usize>(
    s: S,
    job: &Job<'_>,
    start: usize,
    skip: usize,
) {
    let stride = job.k * W::SIZE;
    // SAFETY: rows start..start + NR are inside the matrix and MR == num_rows inside x (asserted in
    // `run_any`); the columns written are this job's.
    unsafe {
        let operands = Operands {
            weights: job.matrix.as_ptr().add(start * stride),
            weight_stride: stride,
            x: job.x.as_ptr(),
            x_stride: job.k,
            k: job.k,
        };
        let zero = [[s.splat(0.0); MR]; NR];
        let acc = tile::accumulate::<S, W, NR, MR>(s, operands, zero);
        tile::store_sums(s, &acc, job.out.first.add(start), job.out.stride, skip);
    }
}

/// Widened weights of four rows and one k-block, and the accumulators that wait for the next block.
#[repr(align(64))]
struct Scratch {
    panel: [f32; PANEL_ROWS * PANEL_K],
    waiting: [[f32; LANES]; PANEL_ROWS * MAX_BLOCK_ROWS],
}

/// One panel's part of a product.
struct PanelBlock {
    /// First weight row.
    n: usize,
    /// Weight rows before `n + skip` were computed with the panel before.
    skip: usize,
    /// First element of the k-block.
    k_start: usize,
    /// Elements of the k-block.
    k_len: usize,
}

/// Many rows.
#[inline(always)]
fn panels<S: Simd, W: WeightFormat>(s: S, job: &Job<'_>) {
    let mut scratch = Scratch {
        panel: [0.0; PANEL_ROWS * PANEL_K],
        waiting: [[0.0; LANES]; PANEL_ROWS * MAX_BLOCK_ROWS],
    };
    let num_blocks = job.num_rows.div_ceil(MAX_BLOCK_ROWS);
    for block in 0..num_blocks {
        let rows = job.num_rows * block / num_blocks..job.num_rows * (block + 1) / num_blocks;
        let mut n = job.outputs.start;
        while n < job.outputs.end {
            // As in `direct`, the last panel starts earlier; a matrix of fewer rows has a short panel.
            let start = n.min(job.outputs.end.max(PANEL_ROWS) - PANEL_ROWS);
            let skip = n - start;
            for k_start in (0..job.k).step_by(PANEL_K) {
                let k_len = (job.k - k_start).min(PANEL_K);
                let block = PanelBlock {
                    n: start,
                    skip,
                    k_start,
                    k_len,
                };
                widen_panel::<S, W>(s, job, &block, &mut scratch.panel);
                panel_rows(s, job, &block, rows.clone(), &mut scratch);
            }
            n = start + PANEL_ROWS;
        }
    }
}

/// Fills the panel; rows after the matrix's last are left as they are and not stored later.
#[inline(always)]
fn widen_panel<S: Simd, W: WeightFormat>(
    s: S,
    job: &Job<'_>,
    block: &PanelBlock,
    panel: &mut [f32; PANEL_ROWS * PANEL_K],
) {
    let num_rows = PANEL_ROWS.min(job.num_outputs - block.n);
    for (row, to) in panel.chunks_exact_mut(PANEL_K).take(num_rows).enumerate() {
        let from = ((block.n + row) * job.k + block.k_start) * W::SIZE;
        let from = &job.matrix[from..from + block.k_len * W::SIZE];
        let (chunks, tail) = to[..block.k_len].as_chunks_mut::<LANES>();
        for (i, chunk) in chunks.iter_mut().enumerate() {
            // SAFETY: elements 16 i..16 i + 16 of the k_len of `from`.
            s.store(chunk, unsafe {
                W::load(s, from.as_ptr().add(i * LANES * W::SIZE))
            });
        }
        let from = from[chunks.len() * LANES * W::SIZE..].chunks_exact(W::SIZE);
        for (to, element) in tail.iter_mut().zip(from) {
            *to = W::widen(element);
        }
    }
}

/// Multiplies a panel with all rows of a block of activations.
#[inline(always)]
fn panel_rows<S: Simd>(
    s: S,
    job: &Job<'_>,
    block: &PanelBlock,
    rows: Range<usize>,
    scratch: &mut Scratch,
) {
    let num_tiles = rows.len().div_ceil(MAX_TILE_ROWS);
    let Scratch { panel, waiting } = scratch;
    for t in 0..num_tiles {
        let first = rows.len() * t / num_tiles;
        let count = rows.len() * (t + 1) / num_tiles - first;
        let waiting = &mut waiting[first * PANEL_ROWS..(first + count) * PANEL_ROWS];
        let row = rows.start + first;
        match count {
            1 => panel_tile::<S, 1>(s, job, block, row, panel, waiting),
            2 => panel_tile::<S, 2>(s, job, block, row, panel, waiting),
            3 => panel_tile::<S, 3>(s, job, block, row, panel, waiting),
            4 => panel_tile::<S, 4>(s, job, block, row, panel, waiting),
            5 => panel_tile::<S, 5>(s, job, block, row, panel, waiting),
            _ => panel_tile::<S, MAX_TILE_ROWS>(s, job, block, row, panel, waiting),
        }
    }
}

#[inline(always)]
fn panel_tile<S: Simd, const MR: usize>(
    s: S,
    job: &Job<'_>,
    block: &PanelBlock,
    row: usize,
    panel: &[f32; PANEL_ROWS * PANEL_K],
    waiting: &mut [[f32; LANES]],
) {
    let mut acc: Tile<S::F, PANEL_ROWS, MR> = [[s.splat(0.0); MR]; PANEL_ROWS];
    if block.k_start > 0 {
        for (acc, waiting) in acc.as_flattened_mut().iter_mut().zip(waiting.iter()) {
            *acc = s.load(waiting);
        }
    }
    let operands = Operands {
        weights: panel.as_ptr().cast(),
        weight_stride: PANEL_K * F32::SIZE,
        // SAFETY: rows row..row + MR of the activations, elements k_start..k_start + k_len of each.
        x: unsafe { job.x.as_ptr().add(row * job.k + block.k_start) },
        x_stride: job.k,
        k: block.k_len,
    };
    // SAFETY: as above, and the panel has room for k_len elements a row.
    let acc = unsafe { tile::accumulate::<S, F32, PANEL_ROWS, MR>(s, operands, acc) };
    if block.k_start + block.k_len < job.k {
        for (acc, waiting) in acc.as_flattened().iter().zip(waiting) {
            s.store(waiting, *acc);
        }
        return;
    }
    if block.n + PANEL_ROWS <= job.num_outputs {
        // SAFETY: rows row..row + MR, and columns of this job.
        unsafe {
            let out = job.out.first.add(row * job.out.stride + block.n);
            tile::store_sums(s, &acc, out, job.out.stride, block.skip);
        }
    } else {
        // A matrix of fewer rows than a panel.
        for (n, acc) in acc.iter().enumerate().take(job.num_outputs - block.n) {
            for (m, &v) in acc.iter().enumerate() {
                // SAFETY: as above; column n exists.
                unsafe { *job.out.first.add((row + m) * job.out.stride + n) = s.sum(v) };
            }
        }
    }
}
