//! Quantized products against candle's blocks and against the dense product of the expanded floats,
//! whose bits they must have.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use candle_core::{DType, Device};
use hotspare_model::ops::{Ops, Parallelism};
use hotspare_model::weights::{WeightDtype, WeightView};
use proptest::prelude::*;

use super::blocks;
use crate::CpuOps;
use crate::simd::Isa;
use crate::testing::{Random, apply, bits, ops, ops_on, weights, weights_of};

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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The bits of the dense product of the expanded floats, on every path, alone and together.
    #[test]
    fn bits_are_those_of_the_expanded_weights(
        m in 1usize..75, n in 1usize..60, blocks in 1usize..40, format in 0usize..10, seed: u64,
        offset in 0usize..8,
    ) {
        let mut random = Random(seed);
        let block_len = FORMATS[format].0.block_len();
        let k = block_len * if block_len == 32 { blocks } else { blocks.div_ceil(8) };
        let (view, floats) = quantized(&mut random, format, [n, k], offset);
        let (dense, _) = weights_of(&floats, WeightDtype::F32, &[n, k], 0);
        let x = random.floats(m * k);
        let expected = bits(&multiply(&mut ops_on(Isa::detect()), &[dense], &x));
        for isa in Isa::available() {
            let mut ops = ops_on(isa);
            let linear = ops.new_linear(vec![view.clone()], Parallelism::Column).unwrap();
            let whole = bits(&apply(&mut ops, &linear, &x));
            prop_assert_eq!(&expected, &whole, "{} has other bits", isa.name());
            let alone: Vec<u32> =
                x.chunks(k).flat_map(|x| bits(&apply(&mut ops, &linear, x))).collect();
            prop_assert_eq!(&whole, &alone, "{} depends on m", isa.name());
        }
    }
}

#[test]
fn long_rows_on_two_threads_keep_their_bits() {
    let (n, k, m) = (131, 5632, 90);
    let mut random = Random(22);
    for format in [4, 7] {
        let (view, floats) = quantized(&mut random, format, [n, k], 1);
        let (dense, _) = weights_of(&floats, WeightDtype::F32, &[n, k], 0);
        let x = random.floats(m * k);
        let expected = multiply(&mut ops(1), &[dense], &x);
        for num_rows in [1, 3, m] {
            let mut ops = ops(2);
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
