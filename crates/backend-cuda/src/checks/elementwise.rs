//! Conversions, norms and activations.
//!
//! Invariant: widths are odd as often as not, and rows in use never touch their neighbours.

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};
use hotspare_model::ops::{AttentionSpec, Ops};

use super::oracle::Oracle;
use super::support::{Random, Rows, Tolerance, compare, poisoned, upload, wrong};
use crate::kernels::{Activation, Gated, HeadRmsNorm, RmsNorm, Rowwise};
use crate::{Address, Dtype, Launch, LaunchError, Launcher};

/// Widths of rows: of one pack, of parts of one, of more than a block's threads take at once.
const WIDTHS: [usize; 8] = [1, 7, 8, 64, 100, 333, 1024, 2570];

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Conversions {
    x: Address,
    halves: Address,
    rounded: Address,
    widened: Address,
    len: u32,
    unused: u32,
}

/// Every half and bfloat16 widened, and as many floats rounded: random bits, and the neighbours of
/// every border between two halves.
pub(crate) fn conversions(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("conversions", seed);
    let halves: Vec<u16> = (0..=u16::MAX).collect();
    let float = |i: u16| match i % 3 {
        0 => f32::from_bits(random.next() as u32),
        // Halfway between two numbers of each format, give or take a unit.
        1 => f32::from_bits(u32::from(i) << 16 | (0x7FFF + random.next() as u32 % 3)),
        _ => {
            let half = f16::from_bits(i).to_f32().to_bits();
            f32::from_bits(half.wrapping_add(0xFFF + random.next() as u32 % 3))
        }
    };
    let x: Vec<f32> = halves.iter().copied().map(float).collect();
    let len = halves.len();
    let args = Conversions {
        x: upload(launcher, &x)?,
        halves: upload(launcher, &halves)?,
        rounded: poisoned(launcher, 4 * len)?,
        widened: poisoned(launcher, 8 * len)?,
        len: len as u32,
        unused: 0,
    };
    launcher.launch(&Launch {
        kernel: "conversions",
        grid: [len.div_ceil(256) as u32, 1, 1],
        num_threads: 256,
        shared_bytes: 0,
        args: bytemuck::bytes_of(&args),
    })?;
    let (mut rounded, mut widened) = (vec![[0u16; 2]; len], vec![[0f32; 2]; len]);
    launcher.read(args.rounded, bytemuck::cast_slice_mut(&mut rounded))?;
    launcher.read(args.widened, bytemuck::cast_slice_mut(&mut widened))?;
    for i in 0..len {
        let halves = [
            f16::from_f32(x[i]).to_bits(),
            bf16::from_f32(x[i]).to_bits(),
        ];
        let is_right = if x[i].is_nan() {
            rounded[i] == [0x7FFF; 2]
        } else {
            rounded[i] == halves
        };
        let exact = [
            f16::from_bits(i as u16).to_f32(),
            bf16::from_bits(i as u16).to_f32(),
        ];
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        if !is_right || !same(widened[i][0], exact[0]) || !same(widened[i][1], exact[1]) {
            return Err(wrong(format!(
                "{:?} of {}, {:?} of {i:#x}",
                rounded[i], x[i], widened[i]
            )));
        }
    }
    Ok(())
}

/// With and without a residual, with weights that have one added.
pub(crate) fn rms_norm(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("rms_norm", seed);
    for dtype in Dtype::ALL {
        for adds in [false, true] {
            let (width, num_rows) = (random.choose(&WIDTHS), random.within(1, 5));
            let x = random.floats(dtype, num_rows * width);
            let residual = random.floats(dtype, num_rows * width);
            let weight = random.floats(Dtype::F32, width);
            let (eps, offset) = (1e-5, random.choose(&[0.0, 1.0]));
            let mut oracle = Oracle::new()?;
            let vector = oracle.vector(&weight, offset)?;
            let cpu_x = oracle.buffer(width, &x)?;
            let mut cpu_out = oracle.empty(num_rows, width)?;
            let mut cpu_residual = oracle.buffer(width, &residual)?;
            if adds {
                oracle
                    .ops
                    .add_rms_norm(&cpu_x, &mut cpu_residual, &vector, eps, &mut cpu_out);
            } else {
                oracle.ops.rms_norm(&cpu_x, &vector, eps, &mut cpu_out);
            }
            let device_x = Rows::new(launcher, dtype, width, &x)?;
            let device_residual = Rows::new(launcher, dtype, width, &residual)?;
            let out = Rows::poisoned(launcher, dtype, num_rows, width)?;
            let weight: Vec<f32> = weight.iter().map(|x| x + offset).collect();
            let args = RmsNorm {
                x: device_x.at,
                residual: if adds {
                    device_residual.at
                } else {
                    Address::NULL
                },
                weight: upload(launcher, &weight)?,
                out: out.at,
                width: width as u32,
                stride: out.stride() as u32,
                eps,
                unused: 0,
            };
            args.launch(launcher, dtype, num_rows)?;
            let what = format!("rms_norm {dtype:?} {num_rows}x{width} residual {adds}");
            // The norm is of the rounded sum: twice the rounding.
            let tolerance = Tolerance::rounded(dtype).times(2.0);
            compare(&what, &out.read(launcher)?, cpu_out.rows(), tolerance)?;
            let residual = device_residual.read(launcher)?;
            compare(
                &what,
                &residual,
                cpu_residual.rows(),
                Tolerance::rounded(dtype),
            )?;
        }
    }
    Ok(())
}

/// Heads of q and k, in place; v stays as it is.
pub(crate) fn head_rms_norm(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("head_rms_norm", seed);
    for dtype in Dtype::ALL {
        let head_dim = random.choose(&[8, 20, 64, 128, 256]);
        let num_kv_heads = random.within(1, 3);
        let (num_heads, num_rows) = (num_kv_heads * random.within(1, 3), random.within(1, 5));
        let width = (num_heads + 2 * num_kv_heads) * head_dim;
        let qkv = random.floats(dtype, num_rows * width);
        let weights = [
            random.floats(Dtype::F32, head_dim),
            random.floats(Dtype::F32, head_dim),
        ];
        let mut oracle = Oracle::new()?;
        let [q, k] = [
            oracle.vector(&weights[0], 0.0)?,
            oracle.vector(&weights[1], 0.0)?,
        ];
        let mut expected = oracle.buffer(width, &qkv)?;
        let spec = AttentionSpec {
            num_heads,
            num_kv_heads,
            head_dim,
            scale: 1.0,
            sliding_window: None,
            logits_soft_cap: None,
            sinks: Vec::new(),
        };
        oracle.ops.head_rms_norm(&mut expected, &spec, &q, &k, 1e-6);
        let rows = Rows::new(launcher, dtype, width, &qkv)?;
        let args = HeadRmsNorm {
            qkv: rows.at,
            q_weight: upload(launcher, &weights[0])?,
            k_weight: upload(launcher, &weights[1])?,
            num_rows: num_rows as u32,
            num_heads: num_heads as u32,
            num_kv_heads: num_kv_heads as u32,
            head_dim: head_dim as u32,
            stride: rows.stride() as u32,
            eps: 1e-6,
        };
        args.launch(launcher, dtype)?;
        let what = format!("head_rms_norm {dtype:?} {spec:?}");
        compare(
            &what,
            &rows.read(launcher)?,
            expected.rows(),
            Tolerance::rounded(dtype),
        )?;
    }
    Ok(())
}

/// Both activations.
pub(crate) fn gated(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("gated", seed);
    for dtype in Dtype::ALL {
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let (width, num_rows) = (random.choose(&WIDTHS), random.within(1, 5));
            let mut gate_up = random.floats(dtype, num_rows * 2 * width);
            gate_up.iter_mut().for_each(|x| *x = dtype.round(*x * 9.0));
            let mut oracle = Oracle::new()?;
            let cpu_gate_up = oracle.buffer(2 * width, &gate_up)?;
            let mut expected = oracle.empty(num_rows, width)?;
            match activation {
                Activation::Silu => oracle.ops.silu_mul(&cpu_gate_up, &mut expected),
                Activation::GeluTanh => oracle.ops.gelu_tanh_mul(&cpu_gate_up, &mut expected),
            }
            let rows = Rows::new(launcher, dtype, 2 * width, &gate_up)?;
            let out = Rows::poisoned(launcher, dtype, num_rows, width)?;
            let args = Gated {
                gate_up: rows.at,
                out: out.at,
                width: width as u32,
                in_stride: rows.stride() as u32,
                out_stride: out.stride() as u32,
                unused: 0,
            };
            args.launch(launcher, activation, dtype, num_rows)?;
            let what = format!("{activation:?} {dtype:?} {num_rows}x{width}");
            compare(
                &what,
                &out.read(launcher)?,
                expected.rows(),
                Tolerance::rounded(dtype),
            )?;
        }
    }
    Ok(())
}

/// Soft cap, bias, and rows by index.
pub(crate) fn rowwise(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("rowwise", seed);
    for dtype in Dtype::ALL {
        let (width, num_rows) = (random.choose(&WIDTHS), random.within(1, 5));
        let mut x = random.floats(dtype, num_rows * width);
        x.iter_mut().for_each(|x| *x = dtype.round(*x * 60.0));
        let bias = random.floats(Dtype::F32, width);
        let num_out = random.within(1, 7);
        let index: Vec<u32> = (0..num_out)
            .map(|_| random.below(num_rows) as u32)
            .collect();
        let mut oracle = Oracle::new()?;
        let mut capped = oracle.buffer(width, &x)?;
        oracle.ops.soft_cap(&mut capped, 30.0);
        let mut biased = oracle.buffer(width, &x)?;
        let vector = oracle.vector(&bias, 0.0)?;
        oracle.ops.add_bias(&mut biased, &vector);
        let rows = index.iter().map(|&i| &x[i as usize * width..][..width]);
        let gathered: Vec<f32> = rows.flatten().copied().collect();
        let [to_cap, to_bias, from] = [
            Rows::new(launcher, dtype, width, &x)?,
            Rows::new(launcher, dtype, width, &x)?,
            Rows::new(launcher, dtype, width, &x)?,
        ];
        let out = Rows::poisoned(launcher, dtype, num_out, width)?;
        let mut args = Rowwise {
            x: to_cap.at,
            bias: upload(launcher, &bias)?,
            index: upload(launcher, &index)?,
            out: out.at,
            width: width as u32,
            stride: out.stride() as u32,
            cap: 30.0,
            unused: 0,
        };
        args.soft_cap(launcher, dtype, num_rows)?;
        args.x = to_bias.at;
        args.add_bias(launcher, dtype, num_rows)?;
        args.x = from.at;
        args.gather_rows(launcher, dtype, num_out)?;
        let tolerance = Tolerance::rounded(dtype);
        let what = format!("{dtype:?} {num_rows}x{width}");
        compare(
            &format!("soft_cap {what}"),
            &to_cap.read(launcher)?,
            capped.rows(),
            tolerance,
        )?;
        compare(
            &format!("add_bias {what}"),
            &to_bias.read(launcher)?,
            biased.rows(),
            tolerance,
        )?;
        compare(
            &format!("gather_rows {what}"),
            &out.read(launcher)?,
            &gathered,
            Tolerance::EXACT,
        )?;
    }
    Ok(())
}
