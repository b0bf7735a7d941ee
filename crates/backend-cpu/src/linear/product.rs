//! A product on all threads: who computes what.
//!
//! Many rows are divided by rows: activations then stay in the caches of the thread that works on
//! them, and each thread reads all weights. Few rows are divided by weights: each is read once.
//!
//! Invariant: how a product is divided does not show in its bits.

use std::ops::Range;

use hotspare_model::ops::OpsError;
use hotspare_model::weights::WeightDtype;

use super::columns::Columns;
use super::dense::{self, GROUP_ROWS, Job, WeightMatrix};
use super::format::STEP;
use super::pack::{self, PackSpace, PackedRows, Source, TILE_ROWS};
use crate::simd::Isa;
use crate::workers::Workers;

/// Rows a thread at least, where a product is divided by rows.
const MIN_ROWS_A_THREAD: usize = 8;

/// `out[r]` = the concatenation of `part · x[r]` over the parts, for every row of `x`.
///
/// # Errors
/// Out of memory for packed activations.
pub(super) fn product(
    isa: Isa,
    workers: &Workers,
    space: &mut PackSpace,
    parts: &[WeightMatrix],
    x: &[f32],
    out: &mut [f32],
) -> Result<(), OpsError> {
    let num_outputs: usize = parts.iter().map(WeightMatrix::num_outputs).sum();
    let is_alike = |a: &WeightMatrix, b: &WeightMatrix| is_interleaved(a) == is_interleaved(b);
    let mut first_column = 0;
    for parts in parts.chunk_by(is_alike) {
        let stacked = Stacked {
            parts,
            num_outputs,
            first_column,
        };
        stacked.product(isa, workers, space, x, out)?;
        first_column += stacked.width();
    }
    Ok(())
}

/// Whether a matrix's format wants activations with the elements of even index first.
fn is_interleaved(matrix: &WeightMatrix) -> bool {
    matrix.dtype() == WeightDtype::Bf16
}

/// Parts for which activations are packed in one order.
#[derive(Clone, Copy)]
struct Stacked<'a> {
    parts: &'a [WeightMatrix],
    /// Columns of the whole output.
    num_outputs: usize,
    /// Column of the first part's first output.
    first_column: usize,
}

impl Stacked<'_> {
    /// Columns that these parts fill.
    fn width(&self) -> usize {
        self.parts.iter().map(WeightMatrix::num_outputs).sum()
    }

    fn product(
        &self,
        isa: Isa,
        workers: &Workers,
        space: &mut PackSpace,
        x: &[f32],
        out: &mut [f32],
    ) -> Result<(), OpsError> {
        let Some(first) = self.parts.first() else {
            return Ok(());
        };
        let (k, num_outputs) = (first.num_inputs(), self.num_outputs);
        let num_rows = x.len() / k;
        assert_eq!(
            out.len(),
            num_rows * num_outputs,
            "the output fits the product"
        );
        let padded_k = k.next_multiple_of(STEP);
        let packed = space.floats(num_rows * padded_k)?;
        let source = Source {
            x,
            k,
            is_interleaved: is_interleaved(first),
        };
        let num_groups = self.parts.iter().map(num_groups_of).sum();
        let work_ns = estimate_ns(num_rows, self.width() * k);
        if num_rows >= MIN_ROWS_A_THREAD * workers.num_threads() {
            let outs = [packed, out];
            let widths = [TILE_ROWS * padded_k, TILE_ROWS * num_outputs];
            let max_pieces = num_rows / MIN_ROWS_A_THREAD;
            workers.rows2(
                outs,
                widths,
                work_ns,
                max_pieces,
                &|first, [packed, out]| {
                    let num_rows = out.len() / num_outputs;
                    let x = &source.x[first * TILE_ROWS * k..][..num_rows * k];
                    let x = pack::pack(isa, &Source { x, ..source }, packed);
                    let columns = Columns::new(out, num_outputs);
                    self.run_groups(isa, x, columns, 0..num_groups);
                },
            );
        } else {
            let x = pack::pack(isa, &source, packed);
            let columns = Columns::new(out, num_outputs);
            workers.ranges(num_groups, work_ns, &|groups: Range<usize>| {
                self.run_groups(isa, x, columns, groups);
            });
        }
        Ok(())
    }

    /// Computes groups of sixteen outputs, counted over all parts.
    fn run_groups(&self, isa: Isa, x: PackedRows<'_>, out: Columns<'_>, groups: Range<usize>) {
        let (mut first_group, mut first_column) = (0, self.first_column);
        for part in self.parts {
            let end_group = first_group + num_groups_of(part);
            let start = groups.start.clamp(first_group, end_group) - first_group;
            let end = groups.end.clamp(first_group, end_group) - first_group;
            if start < end {
                let job = Job {
                    matrix: part,
                    x,
                    out: out.skip(first_column),
                    outputs: start * GROUP_ROWS..part.num_outputs().min(end * GROUP_ROWS),
                };
                dense::run(isa, &job);
            }
            first_group = end_group;
            first_column += part.num_outputs();
        }
    }
}

/// About how long one thread takes, in nanoseconds: 25 weights a nanosecond for one row, then 100
/// GFLOP/s.
pub(crate) fn estimate_ns(num_rows: usize, num_weights: usize) -> usize {
    (num_weights / 25).max(num_weights * num_rows / 50)
}

fn num_groups_of(part: &WeightMatrix) -> usize {
    part.num_outputs().div_ceil(GROUP_ROWS)
}
