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
use super::dense::{self, GROUP_ROWS, WeightMatrix};
use super::format::STEP;
use super::pack::{self, PackSpace, PackedRows};
use super::quantized::{self, QuantizedRows};
use super::{Arithmetic, pairs};
use crate::simd::Isa;
use crate::workers::Workers;

/// Matrices of fewer weights stay in the caches from step to step.
const MIN_FAR_WEIGHTS: usize = 1 << 20;

/// `out[r]` = the concatenation of `part · x[r]` over the parts, for every row of `x`.
///
/// # Errors
/// Out of memory for packed activations.
pub(super) fn product(
    arithmetic: Arithmetic,
    workers: &Workers,
    space: &mut PackSpace,
    parts: &[WeightMatrix],
    x: &[f32],
    out: &mut [f32],
) -> Result<(), OpsError> {
    let num_outputs: usize = parts.iter().map(WeightMatrix::num_outputs).sum();
    let form = |matrix: &WeightMatrix| Form::of(matrix, arithmetic);
    let is_alike = |a: &WeightMatrix, b: &WeightMatrix| form(a) == form(b);
    let mut first_column = 0;
    for parts in parts.chunk_by(is_alike) {
        let stacked = Stacked {
            parts,
            num_outputs,
            first_column,
            form: form(&parts[0]),
        };
        stacked.product(arithmetic.isa, workers, space, x, out)?;
        first_column += stacked.width();
    }
    Ok(())
}

/// The form in which a matrix's format wants activations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Floats, of each step perhaps those of odd index first, perhaps rounded to bfloat16.
    Dense {
        is_interleaved: bool,
        is_rounded: bool,
    },
    /// Pairs of bfloat16.
    Pairs,
    /// Blocks of bytes.
    Quantized,
}

impl Form {
    fn of(matrix: &WeightMatrix, arithmetic: Arithmetic) -> Self {
        let is_rounded = arithmetic.bf16_activations;
        match matrix.dtype() {
            WeightDtype::F32 | WeightDtype::F16 => Self::Dense {
                is_interleaved: false,
                is_rounded: false,
            },
            WeightDtype::Bf16 if is_rounded && pairs::is_available(arithmetic.isa) => Self::Pairs,
            WeightDtype::Bf16 => Self::Dense {
                is_interleaved: true,
                is_rounded,
            },
            _ => Self::Quantized,
        }
    }

    /// Floats of a row of `k` elements.
    fn row_len(self, k: usize) -> usize {
        match self {
            Self::Dense { .. } => k.next_multiple_of(STEP),
            Self::Pairs => k.div_ceil(STEP) * pairs::STEP_FLOATS,
            Self::Quantized => quantized::num_words(1, k),
        }
    }

    /// Rows that lie together.
    fn tile_rows(self) -> usize {
        match self {
            Self::Dense { .. } | Self::Pairs => pack::TILE_ROWS,
            Self::Quantized => quantized::TILE_ROWS,
        }
    }

    /// Rows a thread at least, where a product of `num_weights` is divided by rows. Each thread
    /// then unpacks all quantized weights, or reads all of many pairs from memory, which many rows
    /// have to pay for.
    fn min_rows_a_thread(self, num_weights: usize) -> usize {
        match self {
            Self::Pairs if num_weights >= MIN_FAR_WEIGHTS => 32,
            Self::Dense { .. } | Self::Pairs => 8,
            Self::Quantized => 64,
        }
    }

    /// Brings the rows of `x`, of `k` elements, into this form.
    fn pack(self, isa: Isa, x: &[f32], k: usize, to: &mut [f32]) {
        let source = |is_interleaved, is_rounded| pack::Source {
            x,
            k,
            is_interleaved,
            is_rounded,
        };
        match self {
            Self::Dense {
                is_interleaved,
                is_rounded,
            } => pack::pack(isa, &source(is_interleaved, is_rounded), to),
            Self::Pairs => pairs::pack(isa, &source(false, true), to),
            Self::Quantized => quantized::quantize(isa, &quantized::Source { x, k }, to),
        }
    }
}

/// Parts for which activations are packed in one form.
#[derive(Clone, Copy)]
struct Stacked<'a> {
    parts: &'a [WeightMatrix],
    /// Columns of the whole output.
    num_outputs: usize,
    /// Column of the first part's first output.
    first_column: usize,
    form: Form,
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
        let (k, num_outputs, form) = (first.num_inputs(), self.num_outputs, self.form);
        let num_rows = x.len() / k;
        assert_eq!(
            out.len(),
            num_rows * num_outputs,
            "the output fits the product"
        );
        let (row_len, tile_rows) = (form.row_len(k), form.tile_rows());
        let packed = space.floats(num_rows * row_len)?;
        let num_groups = self.parts.iter().map(num_groups_of).sum();
        let work_ns = estimate_ns(num_rows, self.width() * k);
        // Packs whole tiles, of which the first is the one of this index.
        let pack_tiles = |first: usize, packed: &mut [f32]| {
            let x = &x[first * tile_rows * k..][..packed.len() / row_len * k];
            form.pack(isa, x, k, packed);
        };
        let min_rows = form.min_rows_a_thread(self.width() * k);
        if num_rows >= min_rows * workers.num_threads() {
            let outs = [packed, out];
            let widths = [tile_rows * row_len, tile_rows * num_outputs];
            let max_pieces = num_rows / min_rows;
            workers.rows2(
                outs,
                widths,
                work_ns,
                max_pieces,
                &|first, [packed, out]| {
                    pack_tiles(first, packed);
                    let columns = Columns::new(out, num_outputs);
                    self.run_groups(isa, packed, columns, 0..num_groups);
                },
            );
        } else {
            workers.rows(packed, tile_rows * row_len, num_rows * k / 4, &pack_tiles);
            let (packed, columns) = (&*packed, Columns::new(out, num_outputs));
            workers.ranges(num_groups, work_ns, &|groups: Range<usize>| {
                self.run_groups(isa, packed, columns, groups);
            });
        }
        Ok(())
    }

    /// Computes groups of sixteen outputs, counted over all parts.
    fn run_groups(&self, isa: Isa, packed: &[f32], out: Columns<'_>, groups: Range<usize>) {
        let (mut first_group, mut first_column) = (0, self.first_column);
        for part in self.parts {
            let end_group = first_group + num_groups_of(part);
            let start = groups.start.clamp(first_group, end_group) - first_group;
            let end = groups.end.clamp(first_group, end_group) - first_group;
            if start < end {
                let outputs = start * GROUP_ROWS..part.num_outputs().min(end * GROUP_ROWS);
                run_part(
                    isa,
                    self.form,
                    part,
                    packed,
                    out.skip(first_column),
                    outputs,
                );
            }
            first_group = end_group;
            first_column += part.num_outputs();
        }
    }
}

/// Computes some outputs of one matrix from all rows of `packed`.
fn run_part(
    isa: Isa,
    form: Form,
    matrix: &WeightMatrix,
    packed: &[f32],
    out: Columns<'_>,
    outputs: Range<usize>,
) {
    let k = matrix.num_inputs();
    let row_len = form.row_len(k);
    let num_rows = packed.len() / row_len;
    match form {
        Form::Dense { .. } | Form::Pairs => {
            let x = PackedRows::new(packed, num_rows, row_len);
            let job = dense::Job::new(matrix, x, out, outputs);
            match form {
                Form::Pairs => pairs::run(isa, &job),
                _ => dense::run(isa, &job),
            }
        }
        Form::Quantized => {
            let x = QuantizedRows::new(packed, num_rows, k);
            let job = quantized::Job {
                matrix,
                x,
                out,
                outputs,
            };
            quantized::run(isa, &job);
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
