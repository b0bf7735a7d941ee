//! Matrix products over any weights: which kernel, and what is widened first.
//!
//! Invariant: every way of ours adds in one order over K, so which one runs is a question of speed
//! alone; a library has an order of its own, and is asked first where it may be.

use super::buffer::Rows;
use super::library::Library;
use super::space::Space;
use super::weights::{CudaLinear, Matrix, SPACE_BYTES, dense};
use crate::kernels::{Linear, Road, WeightFormat};
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
    space: Option<Space>,
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

/// Launches of a product with `num_groups` experts' weights.
pub(super) fn num_grouped_launches(dtype: Dtype, weight: &Matrix, num_groups: usize) -> usize {
    if !weight.is_packed() {
        return 1;
    }
    let row_bytes = dtype.stride(weight.width) * dtype.size();
    let fit = (SPACE_BYTES / row_bytes).max(1);
    let num_outputs = (weight.num_rows / num_groups.max(1)).max(1);
    2 * num_groups.div_ceil((fit / num_outputs).max(1)) * num_outputs.div_ceil(fit)
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
    space: Option<Space>,
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
    let space = space.ok_or_else(no_space)?;
    let rows_per_piece = space.num_rows(x.dtype, weight.width)?;
    for first in (0..weight.num_rows).step_by(rows_per_piece) {
        let piece = weight.rows(first, rows_per_piece.min(weight.num_rows - first));
        let widened = match library.is_planning() {
            true => space.holding(&piece, x.dtype),
            false => space.widen(device, &piece, x.dtype, None)?,
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

fn no_space() -> LaunchError {
    LaunchError::Misuse("no space to widen weights".into())
}

/// Products of groups of rows with the group's own part of `weight`, whose rows are
/// `num_groups * num_outputs`.
///
/// Packed weights are widened a few groups at a time, or where one does not fit a part of one; of
/// these a step reads only those that have rows, but queues launches for all.
pub(super) fn grouped<D: Device>(
    device: &mut D,
    space: Option<Space>,
    x: &Rows,
    weight: &Matrix,
    out: &Rows,
    groups: Groups,
) -> Result<(), LaunchError> {
    let is_fused = !matches!(weight.format, WeightFormat::Plain(_));
    let road = match Road::best(groups.usual_rows) {
        Road::Tile if is_fused => Road::Skinny(16),
        road => road,
    };
    if !weight.is_packed() {
        return run(device, x, weight, out, road, Some(groups));
    }
    let space = space.ok_or_else(no_space)?;
    let num_outputs = weight.num_rows / groups.num_groups;
    let fit = space.num_rows(x.dtype, weight.width)?;
    let groups_per_piece = (fit / num_outputs).max(1);
    for group in (0..groups.num_groups).step_by(groups_per_piece) {
        let some = Groups {
            num_groups: groups_per_piece.min(groups.num_groups - group),
            offsets: groups.offsets.offset(4 * group),
            ..groups
        };
        for first in (0..num_outputs).step_by(fit.min(num_outputs)) {
            let len = fit.min(num_outputs - first);
            let piece = weight.rows(group * num_outputs + first, some.num_groups * len);
            let part_of = Some((some.offsets, len));
            let widened = space.widen(device, &piece, x.dtype, part_of)?;
            run(device, x, &widened, &columns(out, first), road, Some(some))?;
        }
    }
    Ok(())
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
