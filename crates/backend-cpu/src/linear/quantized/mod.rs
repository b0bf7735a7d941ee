//! A quantized product of one thread.
//!
//! Activations are rounded to 8 bits; weights stay as they lie in the file. A piece of sixteen
//! weight rows at a time is unpacked to bytes in the nearest cache, and up to 64 rows of
//! activations pass over it; their sums wait in the meantime.
//!
//! Invariant: the order of operations on an output element is that of [`kernel`].

mod activations;
mod format;
#[cfg(target_arch = "x86_64")]
mod int_avx2;
mod int_simd;
#[cfg(target_arch = "x86_64")]
mod int_vnni;
mod kernel;
#[cfg(test)]
mod quantized_test;
mod unpack_k;
mod unpack_legacy;

use std::hint::black_box;
use std::ops::Range;

use hotspare_model::weights::WeightDtype;

pub(super) use activations::{QuantizedRows, Source, TILE_ROWS, num_words, quantize};
use format::{BLOCK, PIECE_BLOCKS, PackedFormat, Piece, Rows};
use int_simd::{FloatsOf, IntSimd};
#[cfg(target_arch = "x86_64")]
use int_vnni::Vnni;

use super::blocks::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
use super::columns::Columns;
use super::dense::{GROUP_ROWS, WeightMatrix};
#[cfg(target_arch = "x86_64")]
use crate::simd::Avx2;
use crate::simd::{Isa, LANES, Simd};

/// Rows of activations that pass over a piece.
const MAX_ROWS: usize = 64;
/// Bytes of a row's piece, at most.
const MAX_PIECE_BYTES: usize = PIECE_BLOCKS * 34;

/// Columns of one quantized matrix's product.
pub(super) struct Job<'a> {
    pub(super) matrix: &'a WeightMatrix,
    pub(super) x: QuantizedRows<'a>,
    /// Column 0 is the matrix's first output.
    pub(super) out: Columns<'a>,
    /// The outputs to compute: they start at a multiple of [`GROUP_ROWS`].
    pub(super) outputs: Range<usize>,
}

/// A matrix's bytes.
#[derive(Clone, Copy)]
struct Weights<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
}

impl<'a> Weights<'a> {
    #[inline(always)]
    fn rows(self, first: usize, num_rows: usize) -> &'a [u8] {
        &self.bytes[first * self.row_bytes..(first + num_rows) * self.row_bytes]
    }
}

/// Defines `fn name(isa: Isa, job: &Job)`, which runs a format's product compiled for `isa`.
macro_rules! int_entry {
    ($($name:ident = $format:ty;)*) => {$(
        fn $name(isa: Isa, job: &Job<'_>) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2(t: Avx2, job: &Job<'_>) {
                run_format::<_, $format>(t, job);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(
                enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c"
            )]
            fn vnni(t: Vnni, job: &Job<'_>) {
                run_format::<_, $format>(t, job);
            }
            match isa {
                Isa::Scalar(t) => run_format::<_, $format>(t, job),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the token exists only where the CPU has these features.
                Isa::Avx2(t) => unsafe { avx2(t, job) },
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512(s) => match (Vnni::detect(s), Avx2::detect()) {
                    // SAFETY: the token exists only where the CPU has these features.
                    (Some(t), _) => unsafe { vnni(t, job) },
                    // SAFETY: the token exists only where the CPU has these features.
                    (None, Some(t)) => unsafe { avx2(t, job) },
                    (None, None) => run_format::<_, $format>(crate::simd::Scalar, job),
                },
            }
        }
    )*};
}

int_entry! {
    q4_0 = Q4_0;
    q4_1 = Q4_1;
    q5_0 = Q5_0;
    q5_1 = Q5_1;
    q8_0 = Q8_0;
    q2_k = Q2K;
    q3_k = Q3K;
    q4_k = Q4K;
    q5_k = Q5K;
    q6_k = Q6K;
}

/// Runs a job whose matrix is quantized; a dense one is left alone.
pub(super) fn run(isa: Isa, job: &Job<'_>) {
    // What the pointers in the kernel rely on.
    assert!(job.outputs.end <= job.matrix.num_outputs());
    assert!(job.x.num_blocks() * BLOCK == job.matrix.num_inputs());
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

#[inline(always)]
fn run_format<T: IntSimd, Q: PackedFormat>(t: T, job: &Job<'_>) {
    let weights = Weights {
        bytes: job.matrix.rows(0, job.matrix.num_outputs()),
        row_bytes: job.matrix.row_bytes(),
    };
    let (num_blocks, num_rows) = (job.x.num_blocks(), job.x.num_rows());
    let mut piece = Piece::new(t);
    let mut sums = [t.floats().splat(0.0); MAX_ROWS];
    for first_row in (0..num_rows).step_by(MAX_ROWS) {
        let rows = first_row..num_rows.min(first_row + MAX_ROWS);
        for n in job.outputs.clone().step_by(GROUP_ROWS) {
            let num_weights = GROUP_ROWS.min(job.outputs.end - n);
            let sums = &mut sums[..rows.len()];
            for sum in sums.iter_mut() {
                *sum = t.floats().splat(0.0);
            }
            for start in (0..num_blocks).step_by(PIECE_BLOCKS) {
                let blocks = start..num_blocks.min(start + PIECE_BLOCKS);
                unpack::<T, Q>(t, weights, (n, num_weights), blocks.clone(), &mut piece);
                // It belongs into memory: the optimiser would copy it to have parts in registers.
                let piece = black_box(&mut piece);
                for row in rows.clone().step_by(TILE_ROWS) {
                    let sums = &mut sums[row - first_row..];
                    tile::<T, Q>(t, piece, &job.x, row, blocks.clone(), sums);
                }
            }
            for (row, &sum) in rows.clone().zip(sums.iter()) {
                let mut lanes = [0.0; LANES];
                t.floats().store(&mut lanes, sum);
                // SAFETY: columns of this job, a row of the output. A constant length is one store.
                unsafe {
                    match num_weights {
                        GROUP_ROWS => job.out.store(row, n, &lanes),
                        _ => job.out.store(row, n, &lanes[..num_weights]),
                    }
                }
            }
        }
    }
}

/// Unpacks `blocks` of sixteen weight rows, or of as many as `weights` says: the first, and how
/// many. Lanes of the others are of no use to anyone.
#[inline(always)]
fn unpack<T: IntSimd, Q: PackedFormat>(
    t: T,
    matrix: Weights<'_>,
    weights: (usize, usize),
    blocks: Range<usize>,
    piece: &mut Piece<T>,
) {
    let bytes = blocks.start / Q::BLOCKS * Q::BYTES..blocks.end / Q::BLOCKS * Q::BYTES;
    let mut copy;
    let rows = if weights.1 == GROUP_ROWS {
        let group = matrix.rows(weights.0, GROUP_ROWS);
        Rows {
            first: group[bytes.start..].as_ptr(),
            stride: matrix.row_bytes,
            // The next group follows, and the parts of a group are taken to be its bytes in order.
            ahead: group
                .as_ptr()
                .wrapping_add(group.len() + GROUP_ROWS * bytes.start),
        }
    } else {
        copy = [[0u8; MAX_PIECE_BYTES]; GROUP_ROWS];
        for (i, copy) in copy.iter_mut().enumerate().take(weights.1) {
            let row = &matrix.rows(weights.0 + i, 1)[bytes.clone()];
            copy[..row.len()].copy_from_slice(row);
        }
        Rows {
            first: copy.as_ptr().cast(),
            stride: MAX_PIECE_BYTES,
            ahead: copy.as_ptr().cast(),
        }
    };
    for (i, at) in (0..blocks.len()).step_by(Q::BLOCKS).enumerate() {
        // SAFETY: sixteen rows of these blocks are in the matrix, or in the copy.
        unsafe { Q::unpack(t, rows.skip(i * Q::BYTES), at, piece) };
    }
}

/// Adds a piece's products with the tile of rows that starts at `row` to `sums`.
#[inline(always)]
fn tile<T: IntSimd, Q: PackedFormat>(
    t: T,
    piece: &Piece<T>,
    x: &QuantizedRows<'_>,
    row: usize,
    blocks: Range<usize>,
    sums: &mut [FloatsOf<T>],
) {
    let (x, num_rows) = x.tile(row, blocks.start);
    let mut m = 0;
    while m < num_rows {
        let (left, x, sums) = (num_rows - m, x.skip_rows(m), &mut sums[m..]);
        // SAFETY: the tile has these blocks, and so many rows from row m on.
        m += unsafe {
            if T::MAX_ROWS >= 8 && left >= 8 {
                kernel::accumulate::<T, Q, 8>(t, piece, blocks.len(), x, sums);
                8
            } else if T::MAX_ROWS >= 4 && left >= 4 {
                kernel::accumulate::<T, Q, 4>(t, piece, blocks.len(), x, sums);
                4
            } else if T::MAX_ROWS >= 2 && left >= 2 {
                kernel::accumulate::<T, Q, 2>(t, piece, blocks.len(), x, sums);
                2
            } else {
                kernel::accumulate::<T, Q, 1>(t, piece, blocks.len(), x, sums);
                1
            }
        };
    }
}
