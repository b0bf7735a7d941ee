//! Matrix products over any weights: which kernel, and what is widened first.
//!
//! Invariant: every way of ours adds in one order over K, so which one runs is a question of speed
//! alone; a library has an order of its own, and is asked first where it may be.

use super::buffer::Rows;
use super::library::Library;
use super::weights::{CudaLinear, Matrix, SPACE_BYTES, dense};
use crate::kernels::{Linear, Road, WeightFormat, Weights};
use crate::{Address, Device, Dtype, LaunchError};

/// Rows above which quantized weights are widened once instead of in each tile of rows.
const MAX_FUSED_ROWS: usize = 32;

/// Rows by group, for experts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    pub(super) num_groups: usize,
    /// `[groups + 1]`, u32.
    pub(super) offsets: Address,
    /// For each row of `out` its row of x, or null.
    pub(super) x_rows: Address,
    /// Of a group, at most.
    pub(super) max_rows: usize,
    /// Of a group, as a rule.
    pub(super) usual_rows: usize,
}

/// `out[r] = weight · x[r]`.
pub(super) fn linear<D: Device>(
    device: &mut D,
    library: &mut Library,
    space: Option<Address>,
    x: &Rows,
    weight: &CudaLinear,
    out: &Rows,
) -> Result<(), LaunchError> {
    let mut column = 0;
    for part in weight.parts.iter() {
        let out = columns(out, column);
        matrix(device, library, space, x, part, &out)?;
        column += part.num_rows;
    }
    Ok(())
}

/// `out` from column `first` on.
fn columns(out: &Rows, first: usize) -> Rows {
    Rows {
        at: out.at.offset(first * out.dtype.size()),
        ..*out
    }
}

/// Launches of a product of few rows, about.
pub(super) fn num_launches(dtype: Dtype, weight: &CudaLinear) -> usize {
    let each = weight
        .parts
        .iter()
        .map(|part| match is_direct(part, dtype, 1) {
            true => 1,
            false => {
                let row_bytes = dtype.stride(part.width) * dtype.size();
                2 * (part.num_rows * row_bytes).div_ceil(SPACE_BYTES)
            }
        });
    each.sum()
}

/// Whether a kernel takes the weights as they lie there.
fn is_direct(weight: &Matrix, dtype: Dtype, num_rows: usize) -> bool {
    let is_fused = is_fused(weight);
    weight.format == WeightFormat::Plain(dense(dtype)) || (is_fused && num_rows <= MAX_FUSED_ROWS)
}

fn is_fused(weight: &Matrix) -> bool {
    matches!(
        weight.format,
        WeightFormat::Q8_0Planes | WeightFormat::Q4KPlanes
    )
}

fn matrix<D: Device>(
    device: &mut D,
    library: &mut Library,
    space: Option<Address>,
    x: &Rows,
    weight: &Matrix,
    out: &Rows,
) -> Result<(), LaunchError> {
    if is_direct(weight, x.dtype, x.num_rows) {
        if library.product(device, x, weight, out)? || library.is_planning() {
            return Ok(());
        }
        let road = match Road::best(x.num_rows) {
            Road::Tile if is_fused(weight) => Road::Skinny(16),
            road => road,
        };
        return run(device, x, weight, out, road, None);
    }
    let space = space.ok_or_else(|| LaunchError::Misuse("no space to widen weights".into()))?;
    let row_bytes = x.dtype.stride(weight.width) * x.dtype.size();
    // Whole tiles of outputs, where that many fit.
    let fit = SPACE_BYTES / row_bytes;
    let rows_per_piece = if fit >= 128 { fit / 128 * 128 } else { fit };
    if rows_per_piece == 0 {
        return Err(LaunchError::Misuse(format!("rows of {}", weight.width)));
    }
    for first in (0..weight.num_rows).step_by(rows_per_piece) {
        let piece = weight.rows(first, rows_per_piece.min(weight.num_rows - first));
        if !library.is_planning() {
            piece.widen(device, x.dtype, space, row_bytes)?;
        }
        let widened = Matrix {
            format: WeightFormat::Plain(dense(x.dtype)),
            weights: Weights {
                data: space,
                row_bytes: row_bytes as u64,
                ..Weights::default()
            },
            ..piece
        };
        let out = columns(out, first);
        if library.product(device, x, &widened, &out)? || library.is_planning() {
            continue;
        }
        let road = Road::best(x.num_rows);
        run(device, x, &widened, &out, road, None)?;
    }
    Ok(())
}

/// Products of groups of rows with the group's own part of `weight`, whose rows are
/// `num_groups * num_outputs`.
pub(super) fn grouped<D: Device>(
    device: &mut D,
    x: &Rows,
    weight: &Matrix,
    out: &Rows,
    groups: Groups,
) -> Result<(), LaunchError> {
    let road = match Road::best(groups.usual_rows) {
        Road::Tile if weight.format != WeightFormat::Plain(dense(x.dtype)) => Road::Skinny(16),
        road => road,
    };
    run(device, x, weight, out, road, Some(groups))
}

fn run<D: Device>(
    device: &mut D,
    x: &Rows,
    weight: &Matrix,
    out: &Rows,
    road: Road,
    groups: Option<Groups>,
) -> Result<(), LaunchError> {
    let num_groups = groups.map_or(1, |groups| groups.num_groups);
    let num_outputs = weight.num_rows / num_groups;
    let w = &weight.weights;
    let args = Linear {
        x: x.at,
        weight: w.data,
        scales: w.scales,
        out: out.at,
        x_rows: groups.map_or(Address::NULL, |groups| groups.x_rows),
        group_offsets: groups.map_or(Address::NULL, |groups| groups.offsets),
        weight_row_bytes: w.row_bytes,
        weight_group_bytes: w.row_bytes * num_outputs as u64,
        scale_row_bytes: w.scale_row_bytes,
        scale_group_bytes: w.scale_row_bytes * num_outputs as u64,
        num_rows: out.num_rows as u32,
        num_outputs: num_outputs as u32,
        num_inputs: weight.width as u32,
        x_stride: x.stride as u32,
        out_stride: out.stride as u32,
        out_dtype: out.dtype.code(),
    };
    let max_rows = groups.map_or(out.num_rows, |groups| groups.max_rows);
    let format = match x.dtype {
        Dtype::F32 => WeightFormat::Plain(dense(Dtype::F32)),
        _ => weight.format,
    };
    args.launch(device, x.dtype, format, road, [num_groups, max_rows])
}
