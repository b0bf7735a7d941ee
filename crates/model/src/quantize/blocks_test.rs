//! Encoders against candle's, and against what a block of each type can promise.
//!
//! Decoding is candle's own, so that a mistake in our idea of a format shows.

use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use proptest::prelude::*;

use super::{Quantization, encode};
use crate::weights::WeightDtype;

fn candle_type(dtype: WeightDtype) -> GgmlDType {
    match dtype {
        WeightDtype::Q8_0 => GgmlDType::Q8_0,
        WeightDtype::Q4_0 => GgmlDType::Q4_0,
        WeightDtype::Q4_1 => GgmlDType::Q4_1,
        WeightDtype::Q5_0 => GgmlDType::Q5_0,
        WeightDtype::Q5_1 => GgmlDType::Q5_1,
        WeightDtype::Q2K => GgmlDType::Q2K,
        WeightDtype::Q3K => GgmlDType::Q3K,
        WeightDtype::Q4K => GgmlDType::Q4K,
        WeightDtype::Q5K => GgmlDType::Q5K,
        WeightDtype::Q6K => GgmlDType::Q6K,
        dtype => unreachable!("{} is not offered", dtype.name()),
    }
}

fn encoded(dtype: WeightDtype, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0xAB; dtype.num_bytes(values.len()).unwrap()];
    encode(dtype, values, &mut bytes);
    bytes
}

fn decoded(dtype: WeightDtype, bytes: &[u8], len: usize) -> Vec<f32> {
    let tensor = qtensor_from_ggml(candle_type(dtype), bytes, vec![len], &Device::Cpu).unwrap();
    tensor.dequantize(&Device::Cpu).unwrap().to_vec1().unwrap()
}

fn by_candle(dtype: WeightDtype, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap();
    let tensor = QTensor::quantize(&tensor, candle_type(dtype)).unwrap();
    let values = tensor.dequantize(&Device::Cpu).unwrap().to_vec1().unwrap();
    (tensor.data().unwrap().into_owned(), values)
}

fn rms(a: &[f32], b: &[f32]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    (squares.sum::<f64>() / a.len() as f64).sqrt()
}

/// SplitMix64, as floats in -1..1.
fn uniform(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Weights as they occur: bell-shaped, even, with outliers, of unlike rows, one-sided.
fn kinds(len: usize) -> [(&'static str, Vec<f32>); 5] {
    let bell: Vec<f32> = (0..8)
        .map(|seed| uniform(seed, len))
        .reduce(|a, b| a.iter().zip(b).map(|(a, b)| a + b).collect())
        .unwrap();
    let scaled = |f: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
        bell.iter()
            .enumerate()
            .map(|(i, &x)| 0.02 * f(i, x))
            .collect()
    };
    [
        ("bell", scaled(&|_, x| x)),
        ("even", uniform(77, len)),
        (
            "outliers",
            scaled(&|i, x| if i % 97 == 5 { 12.0 * x } else { x }),
        ),
        ("unlike parts", scaled(&|i, x| x * (1 + i / 16 % 9) as f32)),
        ("one-sided", scaled(&|_, x| x.abs() + 0.4)),
    ]
}

#[test]
fn errors_are_no_larger_than_candles() {
    for (kind, values) in kinds(64 * 256) {
        for dtype in Quantization::OFFERED {
            let ours = decoded(dtype, &encoded(dtype, &values), values.len());
            let (_, theirs) = by_candle(dtype, &values);
            let (ours, theirs) = (rms(&ours, &values), rms(&theirs, &values));
            println!(
                "{kind:>12} {:>5}: {ours:.6} {theirs:.6} {:.3}",
                dtype.name(),
                ours / theirs
            );
            assert!(
                ours <= 1.000_001 * theirs,
                "{kind}, {}: {ours} {theirs}",
                dtype.name()
            );
        }
    }
}

#[test]
fn simple_blocks_are_those_of_ggmls_reference() {
    for (kind, values) in kinds(16 * 256) {
        for dtype in [WeightDtype::Q8_0, WeightDtype::Q4_0, WeightDtype::Q5_0] {
            let (theirs, _) = by_candle(dtype, &values);
            let ours = encoded(dtype, &values);
            assert!(ours == theirs, "{kind}, {}", dtype.name());
        }
    }
}

#[test]
fn zeros_and_constants_stay_what_they_are() {
    for dtype in Quantization::OFFERED {
        let zeros = decoded(dtype, &encoded(dtype, &[0.0; 512]), 512);
        assert!(zeros.iter().all(|&x| x == 0.0), "{}", dtype.name());
        for constant in [1.5f32, -0.75, 60_000.0, -60_000.0] {
            let found = decoded(dtype, &encoded(dtype, &[constant; 512]), 512);
            for x in found {
                let error = (x - constant).abs() / constant.abs();
                assert!(error < 0.02, "{} {constant} {x}", dtype.name());
            }
        }
        // Too small for a half's scale: nearly zero, and never NaN.
        let tiny = decoded(dtype, &encoded(dtype, &[1e-30; 512]), 512);
        assert!(tiny.iter().all(|x| x.abs() < 1e-6), "{}", dtype.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No element is farther off than a step and what the rounding of scales adds: of all types a
    /// share of the range of the values.
    #[test]
    fn decoded_values_are_within_a_step(
        values in prop::collection::vec(-4.0f32..4.0, 512),
        exponent in -6i32..8,
    ) {
        let values: Vec<f32> = values.iter().map(|x| x * 2f32.powi(exponent)).collect();
        let largest = values.iter().fold(0f32, |m, x| m.max(x.abs()));
        for (dtype, steps) in [
            (WeightDtype::Q8_0, 127.0),
            (WeightDtype::Q6K, 31.0),
            (WeightDtype::Q5K, 15.0),
            (WeightDtype::Q5_1, 15.0),
            (WeightDtype::Q5_0, 16.0),
            (WeightDtype::Q4K, 7.0),
            (WeightDtype::Q4_1, 7.0),
            (WeightDtype::Q4_0, 8.0),
            (WeightDtype::Q3K, 3.0),
            (WeightDtype::Q2K, 1.5),
        ] {
            let found = decoded(dtype, &encoded(dtype, &values), values.len());
            for (x, y) in values.iter().zip(&found) {
                let bound = 1.05 * largest / steps;
                prop_assert!((x - y).abs() <= bound, "{}: {x} {y}, {bound}", dtype.name());
            }
        }
    }
}
