//! Matrix products: against the CPU, and a row's bits against themselves in other company.
//!
//! Invariant: every road is run on the same rows.

use hotspare_model::ops::Ops;
use hotspare_model::weights::WeightDtype;

use super::embed::{random_weights, widened};
use super::oracle::Oracle;
use super::support::{Random, Rows, Tolerance, compare, same_bits, upload, wrong};
use crate::kernels::{Embed, Linear, Road, WeightFormat, Weights};
use crate::planes::planes;
use crate::{Address, Dtype, LaunchError, Launcher};

const ROADS: [Road; 3] = [Road::Skinny(8), Road::Skinny(16), Road::Tile];

/// A product to run: `[num_rows, num_inputs]` by `[num_outputs, num_inputs]`.
struct Case {
    dtype: Dtype,
    format: WeightFormat,
    linear: Linear,
    out: Rows,
}

impl Case {
    /// With dense weights of the rows' own dtype.
    fn dense(
        launcher: &mut dyn Launcher,
        x: Rows,
        weight: Rows,
        out_dtype: Dtype,
    ) -> Result<Self, LaunchError> {
        let format = match x.dtype {
            Dtype::F32 => WeightDtype::F32,
            Dtype::F16 => WeightDtype::F16,
            Dtype::Bf16 => WeightDtype::Bf16,
        };
        let out = Rows::poisoned(launcher, out_dtype, x.num_rows, weight.num_rows)?;
        let linear = Linear {
            x: x.at,
            weight: weight.at,
            scales: Address::NULL,
            out: out.at,
            x_rows: Address::NULL,
            group_offsets: Address::NULL,
            weight_row_bytes: (weight.stride() * weight.dtype.size()) as u64,
            weight_group_bytes: 0,
            scale_row_bytes: 0,
            scale_group_bytes: 0,
            num_rows: x.num_rows as u32,
            num_outputs: weight.num_rows as u32,
            num_inputs: x.width as u32,
            x_stride: x.stride() as u32,
            out_stride: out.stride() as u32,
            out_dtype: out_dtype.code(),
        };
        Ok(Self {
            dtype: x.dtype,
            format: WeightFormat::Plain(format),
            linear,
            out,
        })
    }

    /// The product on `road`, of rows `rows` alone: the others' results are poison.
    fn run(
        &self,
        launcher: &mut dyn Launcher,
        road: Road,
        rows: std::ops::Range<usize>,
    ) -> Result<Vec<f32>, LaunchError> {
        let out = Rows::poisoned(launcher, self.out.dtype, self.out.num_rows, self.out.width)?;
        let row_bytes = |stride: u32, size: usize| rows.start * stride as usize * size;
        let linear = Linear {
            x: self
                .linear
                .x
                .offset(row_bytes(self.linear.x_stride, self.dtype.size())),
            out: out
                .at
                .offset(row_bytes(self.linear.out_stride, out.dtype.size())),
            num_rows: rows.len() as u32,
            ..self.linear
        };
        linear.launch(launcher, self.dtype, self.format, road, [1, rows.len()])?;
        out.read(launcher)
    }

    /// Runs all rows on each road, then some rows alone: the same bits everywhere.
    fn invariant(
        &self,
        launcher: &mut dyn Launcher,
        random: &mut Random,
        roads: &[Road],
        what: &str,
    ) -> Result<Vec<f32>, LaunchError> {
        let (num_rows, width) = (self.out.num_rows, self.out.width);
        let all = self.run(launcher, roads[0], 0..num_rows)?;
        for &road in &roads[1..] {
            let found = self.run(launcher, road, 0..num_rows)?;
            same_bits(&format!("{what} {road:?}"), &found, &all)?;
        }
        for &road in roads {
            let start = random.below(num_rows);
            let end = random.within(start + 1, num_rows);
            let found = self.run(launcher, road, start..end)?;
            let part = start * width..end * width;
            let what = format!("{what} {road:?}, rows {start}..{end} alone");
            same_bits(&what, &found[part.clone()], &all[part.clone()])?;
            let others = found[..part.start].iter().chain(&found[part.end..]);
            if others.clone().any(|x| !x.is_nan()) {
                return Err(wrong(format!("{what}: wrote to rows of others")));
            }
        }
        Ok(all)
    }
}

/// The CPU's product of plain floats.
pub(super) fn product(
    x: &[f32],
    weight: &[f32],
    num_inputs: usize,
) -> Result<Vec<f32>, LaunchError> {
    let mut oracle = Oracle::new()?;
    let shape = [weight.len() / num_inputs, num_inputs];
    let linear = oracle.linear(Dtype::F32.encode(weight), WeightDtype::F32, &shape)?;
    let x = oracle.buffer(num_inputs, x)?;
    let mut out = oracle.empty(x.num_rows(), shape[0])?;
    oracle.ops.linear(&x, &linear, &mut out);
    Ok(out.rows().to_vec())
}

/// Sums of `num_inputs` products in f32, in another order than the CPU's.
pub(super) fn sum_tolerance(out_dtype: Dtype, num_inputs: usize) -> Tolerance {
    let sum = Tolerance {
        absolute: 1e-4 * (num_inputs as f32 / 1024.0).max(1.0),
        relative: 1e-5,
    };
    let rounded = Tolerance::rounded(out_dtype);
    Tolerance {
        absolute: sum.absolute + rounded.absolute,
        relative: sum.relative + rounded.relative,
    }
}

/// Dense weights of every dtype, all roads, all numbers of rows.
pub(crate) fn linear(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("linear", seed);
    for dtype in Dtype::ALL {
        for out_dtype in [dtype, Dtype::F32] {
            let sizes = [
                random.choose(&[1, 3, 8, 17, 40, 70]),
                random.choose(&[1, 16, 50, 130, 200]),
                random.choose(&[8, 64, 100, 333, 512, 1030]),
            ];
            check_dense(launcher, &mut random, dtype, out_dtype, sizes)?;
        }
        if seed == 0 {
            // As long as a model's: each split of K goes through its stages several times.
            check_dense(launcher, &mut random, dtype, Dtype::F32, [13, 18, 4104])?;
        }
        launcher.free_all();
    }
    Ok(())
}

fn check_dense(
    launcher: &mut dyn Launcher,
    random: &mut Random,
    dtype: Dtype,
    out_dtype: Dtype,
    [num_rows, num_outputs, num_inputs]: [usize; 3],
) -> Result<(), LaunchError> {
    let x = random.floats(dtype, num_rows * num_inputs);
    let weight = random.floats(dtype, num_outputs * num_inputs);
    let expected = product(&x, &weight, num_inputs)?;
    let x = Rows::new(launcher, dtype, num_inputs, &x)?;
    let weight = Rows::new(launcher, dtype, num_inputs, &weight)?;
    let case = Case::dense(launcher, x, weight, out_dtype)?;
    let roads = if dtype == Dtype::F32 {
        &ROADS[2..]
    } else {
        &ROADS[..]
    };
    let what = format!("linear {dtype:?} {num_rows}x{num_outputs}x{num_inputs}");
    let found = case.invariant(launcher, random, roads, &what)?;
    let tolerance = sum_tolerance(out_dtype, num_inputs);
    compare(&what, &found, &expected, tolerance)
}

/// The fused products: the bits of dequantizing first, and close to exact weights.
pub(crate) fn linear_quantized(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("linear_quantized", seed);
    for dtype in Dtype::HALVES {
        for weight_dtype in [WeightDtype::Q8_0, WeightDtype::Q4K] {
            let block_len = weight_dtype.block_len();
            let sizes = [
                random.choose(&[1, 5, 20]),
                random.choose(&[1, 30, 64]),
                block_len * random.within(1, 9),
            ];
            check_quantized(launcher, &mut random, dtype, weight_dtype, sizes)?;
            if seed == 0 {
                let sizes = [13, 18, 4104usize.next_multiple_of(block_len)];
                check_quantized(launcher, &mut random, dtype, weight_dtype, sizes)?;
            }
        }
    }
    Ok(())
}

fn check_quantized(
    launcher: &mut dyn Launcher,
    random: &mut Random,
    dtype: Dtype,
    weight_dtype: WeightDtype,
    [num_rows, num_outputs, num_inputs]: [usize; 3],
) -> Result<(), LaunchError> {
    let x = random.floats(dtype, num_rows * num_inputs);
    let bytes = random_weights(random, weight_dtype, num_outputs * num_inputs);
    let ids: Vec<u32> = (0..num_outputs as u32).collect();
    let shape = [num_outputs, num_inputs];
    let exact = widened(&bytes, weight_dtype, shape, &ids, 1.0)?;
    let rounded: Vec<f32> = exact.iter().map(|&x| dtype.round(x)).collect();
    let expected = product(&x, &rounded, num_inputs)?;
    let x = Rows::new(launcher, dtype, num_inputs, &x)?;
    let weight = Rows::poisoned(launcher, dtype, num_outputs, num_inputs)?;
    let dense = Case::dense(launcher, x, weight, Dtype::F32)?;
    let planes = planes(weight_dtype, &bytes).ok_or_else(|| wrong("planes".to_owned()))?;
    let fused = Linear {
        weight: upload(launcher, &planes.data)?,
        scales: upload(launcher, &planes.scales)?,
        weight_row_bytes: (planes.data.len() / num_outputs) as u64,
        scale_row_bytes: (planes.scales.len() / num_outputs) as u64,
        ..dense.linear
    };
    dequantize(launcher, &fused, planes.format, weight)?;
    let fused = Case {
        linear: fused,
        format: planes.format,
        ..dense
    };
    let what = format!("{weight_dtype:?} {dtype:?} {num_rows}x{num_outputs}x{num_inputs}");
    let found = fused.invariant(launcher, random, &ROADS[..2], &what)?;
    let dense = dense.run(launcher, Road::Tile, 0..num_rows)?;
    same_bits(&format!("{what}: dequantized first"), &found, &dense)?;
    let tolerance = sum_tolerance(Dtype::F32, num_inputs);
    compare(&what, &found, &expected, tolerance)
}

/// Writes the matrix of `linear`, which lies in planes, to `to`.
fn dequantize(
    launcher: &mut dyn Launcher,
    linear: &Linear,
    format: WeightFormat,
    to: Rows,
) -> Result<(), LaunchError> {
    let args = Embed {
        table: Weights {
            data: linear.weight,
            scales: linear.scales,
            row_bytes: linear.weight_row_bytes,
            scale_row_bytes: linear.scale_row_bytes,
        },
        token_ids: Address::NULL,
        out: to.at,
        group_offsets: Address::NULL,
        format: format.code(),
        first_row: 0,
        num_table_rows: to.num_rows as u32,
        width: to.width as u32,
        stride: to.stride() as u32,
        scale: 1.0,
        is_last: 1,
        rows_per_group: 0,
    };
    args.launch(launcher, to.dtype, to.num_rows)
}

/// Groups with rows of their own (one of them empty), taken from x in another order.
pub(crate) fn linear_grouped(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("linear_grouped", seed);
    for dtype in Dtype::ALL {
        let (num_groups, num_x) = (4, random.within(1, 9));
        let (num_outputs, num_inputs) = (random.within(1, 40), random.choose(&[24, 100]));
        let mut offsets = vec![0u32];
        for group in 0..num_groups {
            let len = if group == 1 { 0 } else { random.within(1, 20) };
            offsets.push(offsets[group] + len as u32);
        }
        let num_rows = offsets[num_groups] as usize;
        let x_rows: Vec<u32> = (0..num_rows).map(|_| random.below(num_x) as u32).collect();
        let x = random.floats(dtype, num_x * num_inputs);
        let weight = random.floats(dtype, num_groups * num_outputs * num_inputs);
        let mut expected = Vec::new();
        for group in 0..num_groups {
            let of_group = &weight[group * num_outputs * num_inputs..][..num_outputs * num_inputs];
            let rows = &x_rows[offsets[group] as usize..offsets[group + 1] as usize];
            let rows = rows
                .iter()
                .map(|&row| &x[row as usize * num_inputs..][..num_inputs]);
            let rows: Vec<f32> = rows.flatten().copied().collect();
            if !rows.is_empty() {
                expected.extend(product(&rows, of_group, num_inputs)?);
            }
        }
        let x = Rows::new(launcher, dtype, num_inputs, &x)?;
        let weight = Rows::new(launcher, dtype, num_inputs, &weight)?;
        let mut case = Case::dense(launcher, x, weight, Dtype::F32)?;
        let out = Rows::poisoned(launcher, Dtype::F32, num_rows, num_outputs)?;
        case.linear = Linear {
            out: out.at,
            x_rows: upload(launcher, &x_rows)?,
            group_offsets: upload(launcher, &offsets)?,
            weight_group_bytes: case.linear.weight_row_bytes * num_outputs as u64,
            num_rows: num_rows as u32,
            num_outputs: num_outputs as u32,
            out_stride: out.stride() as u32,
            ..case.linear
        };
        let what = format!("grouped {dtype:?} {num_rows}x{num_outputs}x{num_inputs}");
        let roads = if dtype == Dtype::F32 {
            &ROADS[2..]
        } else {
            &ROADS[..]
        };
        for &road in roads {
            launcher.write(out.at, &vec![0xFF; num_rows * out.stride() * 4])?;
            let sizes = [num_groups, num_rows];
            case.linear
                .launch(launcher, dtype, case.format, road, sizes)?;
            let what = format!("{what} {road:?}");
            compare(
                &what,
                &out.read(launcher)?,
                &expected,
                sum_tolerance(Dtype::F32, num_inputs),
            )?;
        }
    }
    Ok(())
}
