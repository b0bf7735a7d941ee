//! Quantized products against the exact products of the expanded weights, against candle, and the
//! promise that a row's bits are its own.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, ggml_file::qtensor_from_ggml};
use candle_core::{DType, Device, Module, Tensor};
use hotspare_model::ops::{Ops, Parallelism};
use hotspare_model::weights::{WeightDtype, WeightView};
use proptest::prelude::*;

use crate::CpuOps;
use crate::linear::blocks;
use crate::simd::Isa;
use crate::testing::{Random, apply, bits, ops, ops_on, weights};

/// Each format, candle's name for it, and where half floats lie in its blocks.
const FORMATS: [(WeightDtype, GgmlDType, &[usize]); 10] = [
    (WeightDtype::Q4_0, GgmlDType::Q4_0, &[0]),
    (WeightDtype::Q4_1, GgmlDType::Q4_1, &[0, 2]),
    (WeightDtype::Q5_0, GgmlDType::Q5_0, &[0]),
    (WeightDtype::Q5_1, GgmlDType::Q5_1, &[0, 2]),
    (WeightDtype::Q8_0, GgmlDType::Q8_0, &[0]),
    (WeightDtype::Q2K, GgmlDType::Q2K, &[80, 82]),
    (WeightDtype::Q3K, GgmlDType::Q3K, &[108]),
    (WeightDtype::Q4K, GgmlDType::Q4K, &[0, 2]),
    (WeightDtype::Q5K, GgmlDType::Q5K, &[0, 2]),
    (WeightDtype::Q6K, GgmlDType::Q6K, &[208]),
];

/// Random blocks of format `index` for `[n, k]`, `offset` bytes into their owner, and their floats.
fn quantized(
    random: &mut Random,
    index: usize,
    [n, k]: [usize; 2],
    offset: usize,
) -> (WeightView, Vec<f32>) {
    let (dtype, _, halves) = FORMATS[index];
    let num_bytes = n * k / dtype.block_len() * dtype.block_bytes();
    let mut bytes: Vec<u8> = (0..num_bytes).map(|_| random.next() as u8).collect();
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for &at in halves {
            let scale = half::f16::from_f32(random.float() / 8.0);
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    let mut floats = vec![0.0; n * k];
    blocks::expand(dtype, &bytes, &mut floats);
    let mut owner = vec![0xAB; offset];
    owner.extend(bytes);
    let range = offset..owner.len();
    let view = WeightView::new(Arc::new(owner), range, dtype, vec![n, k]);
    (view.expect("the shape fits"), floats)
}

fn multiply(ops: &mut CpuOps, views: &[WeightView], x: &[f32]) -> Vec<f32> {
    let linear = ops
        .new_linear(views.to_vec(), Parallelism::Column)
        .expect("supported");
    apply(ops, &linear, x)
}

#[test]
fn blocks_are_the_floats_that_candle_reads() -> Result<(), candle_core::Error> {
    let mut random = Random(21);
    for (index, (dtype, theirs, _)) in FORMATS.into_iter().enumerate() {
        let (n, k) = (24, 512);
        let (view, floats) = quantized(&mut random, index, [n, k], 0);
        let tensor = qtensor_from_ggml(theirs, view.bytes(), vec![n, k], &Device::Cpu)?;
        let expected = tensor.dequantize(&Device::Cpu)?.to_dtype(DType::F32)?;
        let expected = expected.flatten_all()?.to_vec1::<f32>()?;
        assert!(floats.iter().any(|&x| x != floats[0]), "{dtype:?}");
        for (at, (found, expected)) in floats.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "{dtype:?}, element {at}");
        }
    }
    Ok(())
}

/// What a product is allowed to be off, `[m, n]`, beside the exact product.
struct Expected {
    exact: Vec<f64>,
    /// The rounding of activations to 8 bits: half a step of their block for each weight.
    quantization: Vec<f64>,
    /// The rounding of sums, as of 32 products as large as the block's largest factors allow.
    rounding: Vec<f64>,
}

fn expect(w: &[f32], x: &[f32], k: usize) -> Expected {
    let mut expected = Expected {
        exact: Vec::new(),
        quantization: Vec::new(),
        rounding: Vec::new(),
    };
    let largest = |v: &[f32]| f64::from(v.iter().fold(0f32, |a, b| a.max(b.abs())));
    for x in x.chunks(k) {
        for w in w.chunks(k) {
            let (mut exact, mut quantization, mut rounding) = (0.0, 0.0, 0.0);
            for (w, x) in w.chunks(32).zip(x.chunks(32)) {
                let products = w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                exact += products.sum::<f64>();
                let sum: f64 = w.iter().map(|&w| f64::from(w.abs())).sum();
                quantization += largest(x) / 127.0 / 2.0 * sum;
                rounding += 3e-6 * 32.0 * largest(w) * largest(x);
            }
            expected.exact.push(exact);
            expected.quantization.push(quantization);
            expected.rounding.push(rounding);
        }
    }
    expected
}

/// Rows with outliers, as activations have them.
fn activations(random: &mut Random, len: usize) -> Vec<f32> {
    let mut value = || match random.below(40) {
        0 => 20.0 * random.float(),
        _ => random.float(),
    };
    (0..len).map(|_| value()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The same bits on every path, alone and together, at any alignment.
    #[test]
    fn bits_depend_on_the_row_alone(
        m in 1usize..=70, n in 1usize..60, blocks in 1usize..40, format in 0usize..10, seed: u64,
        offset in 0usize..8,
    ) {
        let mut random = Random(seed);
        let block_len = FORMATS[format].0.block_len();
        let k = block_len * if block_len == 32 { blocks } else { blocks.div_ceil(8) };
        let (view, _) = quantized(&mut random, format, [n, k], offset);
        let x = activations(&mut random, m * k);
        let mut expected: Option<Vec<u32>> = None;
        for isa in Isa::available() {
            let mut ops = ops_on(isa);
            let linear = ops.new_linear(vec![view.clone()], Parallelism::Column).unwrap();
            let whole = bits(&apply(&mut ops, &linear, &x));
            let alone: Vec<u32> =
                x.chunks(k).flat_map(|x| bits(&apply(&mut ops, &linear, x))).collect();
            prop_assert_eq!(&whole, &alone, "{} depends on m", isa.name());
            let expected = expected.get_or_insert_with(|| whole.clone());
            prop_assert_eq!(&*expected, &whole, "{} has other bits", isa.name());
        }
    }

    /// The exact product of the expanded weights, within what 8-bit activations cost.
    #[test]
    fn is_within_the_rounding_of_activations(
        m in 1usize..20, n in 1usize..40, blocks in 1usize..24, format in 0usize..10, seed: u64,
    ) {
        let mut random = Random(seed);
        let block_len = FORMATS[format].0.block_len();
        let k = block_len * if block_len == 32 { blocks } else { blocks.div_ceil(8) };
        let (view, w) = quantized(&mut random, format, [n, k], 0);
        let x = activations(&mut random, m * k);
        let expected = expect(&w, &x, k);
        let found = multiply(&mut ops(1), &[view], &x);
        for (i, &found) in found.iter().enumerate() {
            let error = (f64::from(found) - expected.exact[i]).abs();
            let allowed = expected.quantization[i] + expected.rounding[i];
            prop_assert!(error <= allowed, "{i}: {found}, not {}", expected.exact[i]);
        }
    }

    /// Activations that 8 bits hold lose nothing: only sums are rounded.
    #[test]
    fn whole_numbers_are_not_rounded(
        m in 1usize..10, n in 1usize..40, blocks in 1usize..24, format in 0usize..10, seed: u64,
    ) {
        let mut random = Random(seed);
        let block_len = FORMATS[format].0.block_len();
        let k = block_len * if block_len == 32 { blocks } else { blocks.div_ceil(8) };
        let (view, w) = quantized(&mut random, format, [n, k], 0);
        let mut x: Vec<f32> = (0..m * k).map(|_| random.below(255) as f32 - 127.0).collect();
        x.iter_mut().step_by(32).for_each(|x| *x = -127.0);
        let expected = expect(&w, &x, k);
        let found = multiply(&mut ops(1), &[view], &x);
        for (i, &found) in found.iter().enumerate() {
            let error = (f64::from(found) - expected.exact[i]).abs();
            prop_assert!(error <= expected.rounding[i], "{i}: {found}, not {}", expected.exact[i]);
        }
    }
}

#[test]
fn products_are_near_those_of_candle() -> Result<(), candle_core::Error> {
    let mut random = Random(26);
    let (m, n, k) = (5, 40, 1024);
    for (index, (dtype, theirs, _)) in FORMATS.into_iter().enumerate() {
        let (view, w) = quantized(&mut random, index, [n, k], 0);
        let x = random.floats(m * k);
        let tensor = qtensor_from_ggml(theirs, view.bytes(), vec![n, k], &Device::Cpu)?;
        let product = QMatMul::from_qtensor(tensor)?;
        let rows = Tensor::from_vec(x.clone(), (m, k), &Device::Cpu)?;
        let candle = product.forward(&rows)?.flatten_all()?.to_vec1::<f32>()?;
        let expected = expect(&w, &x, k);
        let found = multiply(&mut ops(1), &[view], &x);
        for (i, (&found, &candle)) in found.iter().zip(&candle).enumerate() {
            // Both round activations; candle's scales are halves, or of 256 elements.
            let allowed = 2.5 * expected.quantization[i] + expected.rounding[i];
            let difference = f64::from(found - candle).abs();
            assert!(
                difference <= allowed,
                "{dtype:?}, {i}: {found}, not {candle}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_row_that_is_not_finite_is_told_and_harms_no_other() {
    let mut random = Random(27);
    let (n, k) = (20, 512);
    for (format, (dtype, ..)) in FORMATS.into_iter().enumerate() {
        let (view, _) = quantized(&mut random, format, [n, k], 0);
        let good = random.floats(k);
        let expected = multiply(&mut ops(1), std::slice::from_ref(&view), &good);
        let mut x = [good.as_slice(); 6].concat();
        x[k + 40] = f32::NAN;
        x[2 * k + 511] = f32::NEG_INFINITY;
        x[3 * k..4 * k].fill(0.0);
        x[4 * k..5 * k].fill(1e-40);
        for isa in Isa::available() {
            let found = multiply(&mut ops_on(isa), std::slice::from_ref(&view), &x);
            let rows: Vec<_> = found.chunks(n).collect();
            assert_eq!(bits(rows[0]), bits(&expected), "{dtype:?}");
            assert!(
                rows[1].iter().all(|x| x.is_nan()),
                "{dtype:?}: {:?}",
                rows[1]
            );
            assert!(
                rows[2].iter().all(|x| x.is_nan()),
                "{dtype:?}: {:?}",
                rows[2]
            );
            assert!(rows[3].iter().all(|&x| x == 0.0), "{dtype:?}");
            assert!(rows[4].iter().all(|&x| x == 0.0), "{dtype:?}");
            assert_eq!(bits(rows[5]), bits(&expected), "{dtype:?}");
        }
    }
}

#[test]
fn long_rows_on_several_threads_keep_their_bits() {
    let (n, k, m) = (131, 5632, 260);
    let mut random = Random(22);
    for format in [4, 7] {
        let (view, _) = quantized(&mut random, format, [n, k], 1);
        let x = activations(&mut random, m * k);
        let expected = multiply(&mut ops(1), std::slice::from_ref(&view), &x);
        for num_threads in [2, 3] {
            for num_rows in [1, 3, 17, m] {
                let mut ops = ops(num_threads);
                // A model of so many weights that its steps are divided between threads.
                for _ in 0..10 {
                    let linear = ops.new_linear(vec![view.clone()], Parallelism::Column);
                    assert!(linear.is_ok());
                }
                ops.begin(&hotspare_batch::Batch::default());
                let found = multiply(&mut ops, std::slice::from_ref(&view), &x[..num_rows * k]);
                assert_eq!(
                    bits(&found),
                    bits(&expected[..num_rows * n]),
                    "{num_rows} rows"
                );
            }
        }
    }
}

#[test]
fn parts_of_unlike_formats_are_concatenated() {
    let mut random = Random(23);
    let (k, m) = (256, 21);
    let x = random.floats(m * k);
    let views = [
        weights(&mut random, WeightDtype::Bf16, &[20, k], 0).0,
        quantized(&mut random, 7, [33, k], 0).0,
        quantized(&mut random, 9, [5, k], 3).0,
        weights(&mut random, WeightDtype::F16, &[17, k], 0).0,
        weights(&mut random, WeightDtype::Bf16, &[3, k], 0).0,
    ];
    for num_rows in [1, m] {
        let x = &x[..num_rows * k];
        let mut ops = ops(1);
        let separate = views.clone().map(|view| multiply(&mut ops, &[view], x));
        let together = multiply(&mut ops, &views, x);
        for row in 0..num_rows {
            let rows = separate.iter().flat_map(|out| {
                let n = out.len() / num_rows;
                out[row * n..(row + 1) * n].to_vec()
            });
            let expected: Vec<f32> = rows.collect();
            assert_eq!(bits(&expected), bits(&together[row * 78..(row + 1) * 78]));
        }
    }
}

#[test]
fn rows_are_embedded() {
    let mut random = Random(24);
    for (format, (dtype, ..)) in FORMATS.into_iter().enumerate() {
        let (n, k) = (7, 512);
        let (view, floats) = quantized(&mut random, format, [n, k], 2);
        let linear = ops(1)
            .new_linear(vec![view], Parallelism::Replicated)
            .unwrap();
        let mut out = vec![0.0; k];
        linear.embed_row(5, 2.0, &mut out);
        let expected: Vec<f32> = floats[5 * k..6 * k].iter().map(|x| 2.0 * x).collect();
        assert_eq!(out, expected, "{dtype:?}");
        linear.embed_row(n, 1.0, &mut out);
        assert!(out.iter().all(|x| x.is_nan()), "there is no row {n}");
    }
}

#[test]
fn norms_and_caches_are_not_quantized() {
    let mut random = Random(25);
    let bytes = vec![0; 34];
    let view = WeightView::new(Arc::new(bytes), 0..34, WeightDtype::Q8_0, vec![32]);
    let mut ops = ops(1);
    assert!(
        ops.new_vector(vec![view.expect("the shape fits")], 0.0)
            .is_err()
    );
    let (view, _) = quantized(&mut random, 4, [1, 32], 0);
    assert!(ops.new_linear(vec![view], Parallelism::Row).is_ok());
}
