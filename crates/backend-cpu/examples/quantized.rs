//! Compares quantized products with candle's, in one run: `cargo run --release -p
//! hotspare-backend-cpu --example quantized`.
//!
//! Shapes are (outputs x inputs), those of Qwen3-0.6B. Each number is the best of several runs that
//! take turns with the other's, because other work on the machine only ever slows a run down. GB/s
//! are of weights; `read` is a plain sum over as many bytes.
//!
//! Arguments: number of threads (default 2; give candle the same by `RAYON_NUM_THREADS`), formats
//! (default q8_0,q4_k,q6_k), numbers of rows (default 1,4,16,256), and instruction set (the best).
#![allow(clippy::print_stdout)] // Printing is what this program is for.

mod common;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use candle_core::quantized::{GgmlDType, QMatMul, ggml_file::qtensor_from_ggml};
use candle_core::{Device, Module, Tensor};
use hotspare_backend_cpu::{CpuBuffer, CpuLinear, CpuOps, CpuOptions, Isa};
use hotspare_model::ops::{KvCacheSpec, Ops, OpsError, Parallelism, StepLimits};
use hotspare_model::weights::{WeightDtype, WeightView};

use self::common::{bf16_ones, one_row};

const SHAPES: [(usize, usize); 3] = [(3072, 1024), (1024, 3072), (151_936, 1024)];

/// A format, candle's name for it, and where half floats lie in its blocks.
type Format = (WeightDtype, Option<GgmlDType>, &'static [usize]);
const FORMATS: [Format; 12] = [
    (WeightDtype::Q8_0, Some(GgmlDType::Q8_0), &[0]),
    (WeightDtype::Q4_0, Some(GgmlDType::Q4_0), &[0]),
    (WeightDtype::Q4_1, Some(GgmlDType::Q4_1), &[0, 2]),
    (WeightDtype::Q5_0, Some(GgmlDType::Q5_0), &[0]),
    (WeightDtype::Q5_1, Some(GgmlDType::Q5_1), &[0, 2]),
    (WeightDtype::Q2K, Some(GgmlDType::Q2K), &[80, 82]),
    (WeightDtype::Q3K, Some(GgmlDType::Q3K), &[108]),
    (WeightDtype::Q4K, Some(GgmlDType::Q4K), &[0, 2]),
    (WeightDtype::Q5K, Some(GgmlDType::Q5K), &[0, 2]),
    (WeightDtype::Q6K, Some(GgmlDType::Q6K), &[208]),
    (WeightDtype::Bf16, None, &[]),
    (WeightDtype::F16, None, &[]),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let num_threads: usize = args.next().map_or(Ok(2), |arg| arg.parse())?;
    let formats = args.next().unwrap_or_else(|| "q8_0,q4_k,q6_k".to_owned());
    let rows = args.next().unwrap_or_else(|| "1,4,16,256".to_owned());
    let isa = args.next().unwrap_or_default();
    let isa = Isa::available().into_iter().find(|i| i.name() == isa);
    let limits = StepLimits {
        max_num_batched_tokens: 512,
        max_num_seqs: 512,
        max_model_len: 512,
    };
    let options = CpuOptions {
        num_threads,
        limits,
        bf16_activations: true,
    };
    let mut ops = CpuOps::with_isa(options, isa.unwrap_or_else(Isa::detect));
    ops.new_kv_cache(&KvCacheSpec {
        num_layers: 0,
        num_blocks: 1,
        block_size: 512,
        num_kv_heads: 1,
        head_dim: 16,
        dtype: WeightDtype::F32,
    })?;
    println!("{} with {num_threads} threads", ops.isa().name());
    println!(
        "{:>6} {:>12} {:>5} {:>9} {:>9} {:>6} {:>7} {:>7}",
        "format", "shape", "rows", "GFLOP/s", "candle", "ratio", "GB/s", "read"
    );
    for format in FORMATS {
        let name = format.0.name().to_lowercase();
        if !formats.split(',').any(|wanted| wanted == name) {
            continue;
        }
        for shape in SHAPES {
            let products = Products::new(&mut ops, format, shape)?;
            for m in rows.split(',') {
                products.report(&mut ops, num_threads, m.parse()?)?;
            }
        }
    }
    Ok(())
}

/// The same weights, ours and candle's.
struct Products {
    bytes: Arc<Vec<u8>>,
    dtype: WeightDtype,
    shape: (usize, usize),
    ours: CpuLinear,
    candle: Option<QMatMul>,
}

impl Products {
    fn new(
        ops: &mut CpuOps,
        (dtype, theirs, halves): Format,
        (n, k): (usize, usize),
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let num_bytes = n * k / dtype.block_len() * dtype.block_bytes();
        let mut seed = 1u32;
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .take(num_bytes)
        .collect();
        for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
            // Scales near 0.01, or floats near zero's exponent.
            match dtype.is_quantized() {
                true => {
                    for &at in halves {
                        block[at + 1] = 0x21;
                    }
                }
                false => block[dtype.block_bytes() - 1] = 0x2C,
            }
        }
        let candle = match theirs {
            Some(theirs) => {
                let tensor = qtensor_from_ggml(theirs, &bytes, vec![n, k], &Device::Cpu)?;
                Some(QMatMul::from_qtensor(tensor)?)
            }
            None => None,
        };
        let bytes = Arc::new(bytes);
        let owner = bytes.as_ref().clone();
        let view = WeightView::new(Arc::new(owner), 0..num_bytes, dtype, vec![n, k]);
        let ours = ops.new_linear(view.into_iter().collect(), Parallelism::Replicated)?;
        Ok(Self {
            bytes,
            dtype,
            shape: (n, k),
            ours,
            candle,
        })
    }

    /// Prints a line for `m` rows.
    fn report(
        &self,
        ops: &mut CpuOps,
        num_threads: usize,
        m: usize,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let (n, k) = self.shape;
        let flops = 2 * m * n * k;
        let (x, mut out) = self.buffers(ops, m)?;
        let rows = Tensor::full(0.7f32, (m, k), &Device::Cpu)?;
        let mut best = [f64::INFINITY; 3];
        for _ in 0..16 {
            let ours = time_ns(flops, || ops.linear(black_box(&x), &self.ours, &mut out));
            let candle = match &self.candle {
                Some(candle) => time_ns(flops, || {
                    black_box(candle.forward(&rows).ok());
                }),
                None => f64::INFINITY,
            };
            let read = time_ns(flops / m, || read(&self.bytes, num_threads));
            for (best, ns) in best.iter_mut().zip([ours, candle, read]) {
                *best = best.min(ns);
            }
        }
        let [ours, candle, read] = best;
        let num_bytes = self.bytes.len() as f64;
        println!(
            "{:>6} {:>12} {m:>5} {:>9.1} {:>9.1} {:>6.2} {:>7.1} {:>7.1}",
            self.dtype.name(),
            format!("{n}x{k}"),
            flops as f64 / ours,
            flops as f64 / candle,
            candle / ours,
            num_bytes / ours,
            num_bytes / read
        );
        Ok(())
    }

    /// `m` rows of activations in a step of their own, and room for their product.
    fn buffers(&self, ops: &mut CpuOps, m: usize) -> Result<(CpuBuffer, CpuBuffer), OpsError> {
        let (n, k) = self.shape;
        let table = ops.new_linear(vec![bf16_ones(m, k)], Parallelism::Replicated)?;
        let (mut x, out) = (ops.new_buffer(m, k)?, ops.new_buffer(m, n)?);
        ops.begin(&one_row(m));
        ops.embed(&table, 1.0, &mut x);
        Ok((x, out))
    }
}

/// Nanoseconds of one of a few runs.
fn time_ns(flops: usize, mut run: impl FnMut()) -> f64 {
    let repeats = (20_000_000 / flops).clamp(1, 200);
    let start = Instant::now();
    (0..repeats).for_each(|_| run());
    start.elapsed().as_nanos() as f64 / repeats as f64
}

/// Reads all bytes once, on as many threads.
fn read(bytes: &[u8], num_threads: usize) {
    let sum = |bytes: &[u8]| {
        let words = bytes.as_chunks::<8>().0.iter();
        words.fold(0u64, |sum, word| {
            sum.wrapping_add(u64::from_le_bytes(*word))
        })
    };
    let (first, second) = bytes.split_at(bytes.len() / num_threads.clamp(1, 2));
    black_box(rayon::join(|| sum(first), || sum(second)));
}
