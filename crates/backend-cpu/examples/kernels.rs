//! Prints GFLOP/s of the products: `cargo run --release -p hotspare-backend-cpu --example
//! kernels`.
//!
//! Shapes are (outputs x inputs); `candle` is its f32 product of the same shape. Each
//! number is the best of several runs, because other work on the machine only ever slows a run
//! down.
//!
//! Arguments: number of threads (default 2).
#![allow(clippy::print_stdout)] // Printing is what this program is for.

mod common;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use hotspare_backend_cpu::{CpuBuffer, CpuOps, CpuOptions};
use hotspare_model::ops::{KvCacheSpec, Ops, OpsError, Parallelism, StepLimits};
use hotspare_model::weights::{WeightDtype, WeightView};

use self::common::{bf16_ones, one_row};

const SHAPES: [(usize, usize); 6] = [
    (512, 256),
    (1152, 256),
    (256, 576),
    (2048, 256),
    (3072, 1024),
    (1024, 3072),
];
const NUM_ROWS: [usize; 8] = [1, 2, 4, 7, 8, 16, 64, 512];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let num_threads = std::env::args().nth(1).map_or(Ok(2), |arg| arg.parse())?;
    let limits = StepLimits {
        max_num_batched_tokens: 512,
        max_num_seqs: 512,
        max_model_len: 512,
    };
    let mut ops = CpuOps::new(CpuOptions {
        num_threads,
        limits,
        bf16_activations: true,
    })?;
    ops.new_kv_cache(&KvCacheSpec {
        num_layers: 0,
        num_blocks: 1,
        block_size: 512,
        num_kv_heads: 1,
        head_dim: 16,
        dtype: WeightDtype::F32,
    })?;
    println!("{} with {num_threads} threads, GFLOP/s", ops.isa().name());
    println!(
        "{:>12} {:>5} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "shape", "rows", "bf16", "f16", "f32", "candle", "q8_0", "q4_k"
    );
    for (n, k) in SHAPES {
        for m in NUM_ROWS {
            let gflops = |ns: f64| (2 * m * n * k) as f64 / ns;
            let mut ours = |dtype: WeightDtype| match k.is_multiple_of(dtype.block_len()) {
                true => time_linear(&mut ops, dtype, m, n, k).map(gflops),
                false => Ok(f64::NAN),
            };
            let dense = [WeightDtype::Bf16, WeightDtype::F16, WeightDtype::F32].map(&mut ours);
            let [bf16, f16, f32] = dense;
            let [q8_0, q4_k] = [WeightDtype::Q8_0, WeightDtype::Q4K].map(&mut ours);
            let candle = gflops(time_candle(m, n, k)?);
            let shape = format!("{n}x{k}");
            println!(
                "{shape:>12} {m:>5} {:>8.1} {:>8.1} {:>8.1} {candle:>8.1} {:>8.1} {:>8.1}",
                bf16?, f16?, f32?, q8_0?, q4_k?
            );
        }
    }
    Ok(())
}

/// Nanoseconds of the best run.
fn best_ns(flops: usize, mut run: impl FnMut()) -> f64 {
    let repeats = (20_000_000 / flops).clamp(1, 200);
    let once = |_| {
        let start = Instant::now();
        (0..repeats).for_each(|_| run());
        start.elapsed().as_nanos() as f64 / repeats as f64
    };
    (0..12).map(once).fold(f64::INFINITY, f64::min)
}

fn time_linear(
    ops: &mut CpuOps,
    dtype: WeightDtype,
    m: usize,
    n: usize,
    k: usize,
) -> Result<f64, OpsError> {
    // Small in every format, so that no sum overflows: exponents near zero's, or scales of 0.01.
    let mut bytes: Vec<u8> = (0..n * k / dtype.block_len() * dtype.block_bytes())
        .map(|i| (i * 31) as u8)
        .collect();
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        match dtype.is_quantized() {
            true => block[..4].copy_from_slice(&[0x1F, 0x21, 0x1F, 0x21]),
            false => block[dtype.block_bytes() - 1] = 0x2C,
        }
    }
    let len = bytes.len();
    let view = WeightView::new(Arc::new(bytes), 0..len, dtype, vec![n, k]);
    let linear = ops.new_linear(view.into_iter().collect(), Parallelism::Replicated)?;
    let table = bf16_ones(m, k);
    let table = ops.new_linear(vec![table], Parallelism::Replicated)?;
    let (mut x, mut out) = (ops.new_buffer(m, k)?, ops.new_buffer(m, n)?);
    ops.begin(&one_row(m));
    ops.embed(&table, 1.0, &mut x);
    let mut run = |out: &mut CpuBuffer| ops.linear(black_box(&x), &linear, out);
    Ok(best_ns(2 * m * n * k, || run(&mut out)))
}

fn time_candle(m: usize, n: usize, k: usize) -> Result<f64, candle_core::Error> {
    use candle_core::{Device, Tensor};
    let w = Tensor::full(0.01f32, (n, k), &Device::Cpu)?;
    let x = Tensor::full(1f32, (m, k), &Device::Cpu)?;
    let w = w.t()?;
    x.matmul(&w)?;
    Ok(best_ns(2 * m * n * k, || {
        black_box(x.matmul(&w).ok());
    }))
}
