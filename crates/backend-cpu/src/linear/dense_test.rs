//! Dense products against f64 and candle, and the promise that a row's bits are its own.

use half::bf16;
use hotspare_model::ops::{Ops, Parallelism};
use hotspare_model::weights::WeightDtype;
use proptest::prelude::*;

use super::pack::{Source, bf16_bits};
use super::pairs;
use crate::simd::{Isa, LANES};
use crate::testing::{Random, apply, bits, ops, ops_on, ops_with, weights, weights_of};

const DTYPES: [WeightDtype; 3] = [WeightDtype::F32, WeightDtype::F16, WeightDtype::Bf16];

/// Compares with a product in f64, within the rounding of f32 sums.
fn check(w: &[f32], x: &[f32], k: usize, out: &[f32]) {
    let (n, m) = (w.len() / k, x.len() / k);
    assert_eq!(out.len(), m * n);
    for (row, (x, out)) in x.chunks(k).zip(out.chunks(n)).enumerate() {
        for (col, (w, &value)) in w.chunks(k).zip(out).enumerate() {
            let products = w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
            let (exact, scale) = products.fold((0.0, 0.0), |(sum, abs): (f64, f64), p| {
                (sum + p, abs + p.abs())
            });
            let error = (f64::from(value) - exact).abs();
            assert!(
                error <= 1e-6 * scale + 1e-12,
                "({row}, {col}): {value}, not {exact}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn matches_f64_in_any_shape(
        m in 1usize..70, n in 1usize..90, k in 1usize..200, dtype in 0usize..3, seed: u64,
    ) {
        let mut random = Random(seed);
        let (view, w) = weights(&mut random, DTYPES[dtype], &[n, k], 0);
        let x = random.floats(m * k);
        for isa in Isa::available() {
            let mut ops = ops_on(isa);
            let linear = ops.new_linear(vec![view.clone()], Parallelism::Replicated).unwrap();
            check(&w, &x, k, &apply(&mut ops, &linear, &x));
        }
    }

    #[test]
    fn a_row_alone_has_the_bits_it_has_in_a_batch_on_any_path_at_any_alignment(
        m in 2usize..40, n in 1usize..70, k in 1usize..150, dtype in 0usize..3, seed: u64,
        offset in 0usize..8,
    ) {
        let mut random = Random(seed);
        let values = random.floats(n * k);
        let x = random.floats(m * k);
        let mut reference: Option<Vec<u32>> = None;
        for (isa, offset) in Isa::available().into_iter().zip([0, offset, 1]) {
            let (view, _) = weights_of(&values, DTYPES[dtype], &[n, k], offset);
            let mut ops = ops_on(isa);
            let linear = ops.new_linear(vec![view], Parallelism::Replicated).unwrap();
            let whole = bits(&apply(&mut ops, &linear, &x));
            let alone: Vec<u32> =
                x.chunks(k).flat_map(|x| bits(&apply(&mut ops, &linear, x))).collect();
            prop_assert_eq!(&whole, &alone, "{} depends on m", isa.name());
            let reference = reference.get_or_insert_with(|| whole.clone());
            prop_assert_eq!(&*reference, &whole, "{} has other bits", isa.name());
        }
    }

    #[test]
    fn rounded_activations_give_the_bits_of_activations_that_were_rounded_before(
        m in 2usize..40, n in 1usize..130, k in 1usize..150, seed: u64, offset in 0usize..3,
    ) {
        let mut random = Random(seed);
        let (view, w) = weights(&mut random, WeightDtype::Bf16, &[n, k], offset);
        let x = random.floats(m * k);
        let rounded: Vec<f32> = x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        for isa in Isa::available() {
            let mut ops = ops_with(isa, true);
            let linear = ops.new_linear(vec![view.clone()], Parallelism::Replicated).unwrap();
            let whole = apply(&mut ops, &linear, &x);
            check(&w, &rounded, k, &whole);
            let alone: Vec<u32> =
                x.chunks(k).flat_map(|x| bits(&apply(&mut ops, &linear, x))).collect();
            prop_assert_eq!(&bits(&whole), &alone, "{} depends on m", isa.name());
            let mut exact = ops_on(isa);
            let expected = bits(&apply(&mut exact, &linear, &rounded));
            prop_assert_eq!(expected, bits(&whole), "{} has other bits", isa.name());
        }
    }
}

#[test]
fn only_bfloat16_weights_round_activations() {
    let mut random = Random(8);
    let x = random.floats(3 * 70);
    for dtype in DTYPES {
        let (view, _) = weights(&mut random, dtype, &[20, 70], 0);
        let [plain, rounding] = [false, true].map(|bf16_activations| {
            let mut ops = ops_with(Isa::detect(), bf16_activations);
            let linear = ops
                .new_linear(vec![view.clone()], Parallelism::Replicated)
                .unwrap();
            bits(&apply(&mut ops, &linear, &x))
        });
        assert_eq!(plain != rounding, dtype == WeightDtype::Bf16, "{dtype:?}");
    }
}

#[test]
fn strange_activations_are_rounded_as_everywhere() {
    let strange = [
        0.0,
        -0.0,
        1.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::from_bits(0x7F80_0001),
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        // Half way between two numbers, of which the even one is below, then above.
        f32::from_bits(0x3F80_8000),
        f32::from_bits(0x3F81_8000),
        3.0e-39,
        -3.0e-39,
    ];
    for isa in Isa::available() {
        if !pairs::is_available(isa) {
            continue;
        }
        let source = Source {
            x: &strange,
            k: strange.len(),
            is_interleaved: false,
            is_rounded: true,
        };
        let mut packed = [1.0; LANES];
        pairs::pack(isa, &source, &mut packed);
        let packed: &[u16] = bytemuck::cast_slice(&packed);
        let expected: Vec<u16> = strange.into_iter().map(bf16_bits).collect();
        assert_eq!(packed[..expected.len()], expected, "the processor's own");
        assert!(packed[expected.len()..].iter().all(|&bits| bits == 0));
    }
    for x in strange {
        let ours = f32::from_bits(u32::from(bf16_bits(x)) << 16);
        let expected = match x.is_subnormal() {
            true => 0.0_f32.copysign(x),
            false => bf16::from_f32(x).to_f32(),
        };
        assert_eq!(ours.is_nan(), expected.is_nan(), "{x}");
        assert!(ours.is_nan() || ours.to_bits() == expected.to_bits(), "{x}");
    }
}

#[test]
fn long_rows_and_many_of_them_keep_their_bits() {
    // Long enough for several blocks of activations, on one thread and on two.
    let (n, k, m) = (131, 6000, 90);
    let mut random = Random(5);
    for dtype in DTYPES {
        let (view, w) = weights(&mut random, dtype, &[n, k], 3);
        let x = random.floats(m * k);
        let [one, two] = [1, 2].map(|num_threads| {
            let mut ops = ops(num_threads);
            ops.begin(&hotspare_batch::Batch::default());
            let linear = ops
                .new_linear(vec![view.clone()], Parallelism::Column)
                .unwrap();
            apply(&mut ops, &linear, &x)
        });
        assert_eq!(bits(&one), bits(&two), "{dtype:?}");
        check(&w, &x, k, &one);
        let mut ops = ops(1);
        let linear = ops.new_linear(vec![view], Parallelism::Column).unwrap();
        for row in [0, 37, m - 1] {
            let alone = apply(&mut ops, &linear, &x[row * k..(row + 1) * k]);
            assert_eq!(
                bits(&alone),
                bits(&one[row * n..(row + 1) * n]),
                "{dtype:?}, row {row}"
            );
        }
    }
}

#[test]
fn parts_are_concatenated() {
    let mut random = Random(6);
    let mut ops = ops(1);
    let (k, m) = (64, 5);
    let x = random.floats(m * k);
    let views = [40, 3, 17].map(|n| weights(&mut random, WeightDtype::Bf16, &[n, k], 0).0);
    let separate = views.clone().map(|view| {
        let linear = ops.new_linear(vec![view], Parallelism::Column).unwrap();
        apply(&mut ops, &linear, &x)
    });
    let linear = ops.new_linear(views.to_vec(), Parallelism::Column).unwrap();
    let together = apply(&mut ops, &linear, &x);
    for row in 0..m {
        let expected: Vec<f32> = separate
            .iter()
            .flat_map(|out| out[row * out.len() / m..(row + 1) * out.len() / m].to_vec())
            .collect();
        assert_eq!(bits(&expected), bits(&together[row * 60..(row + 1) * 60]));
    }
    let mut out = vec![0.0; k];
    linear.embed_row(41, 2.0, &mut out);
    let second = ops
        .new_linear(vec![views[1].clone()], Parallelism::Column)
        .unwrap();
    let mut expected = vec![0.0; k];
    second.embed_row(1, 2.0, &mut expected);
    assert_eq!(out, expected, "row 41 is the second part's row 1");
    linear.embed_row(60, 2.0, &mut out);
    assert!(out.iter().all(|x| x.is_nan()), "there is no row 60");
}

#[test]
fn agrees_with_candle() -> Result<(), candle_core::Error> {
    use candle_core::{Device, Tensor};
    let (n, k) = (96, 160);
    let mut random = Random(7);
    for m in [1, 2, 9] {
        let (view, w) = weights(&mut random, WeightDtype::F32, &[n, k], 0);
        let x = random.floats(m * k);
        let mut ops = ops(1);
        let linear = ops.new_linear(vec![view], Parallelism::Replicated).unwrap();
        let ours = apply(&mut ops, &linear, &x);
        let w = Tensor::from_vec(w, (n, k), &Device::Cpu)?;
        let theirs = Tensor::from_vec(x, (m, k), &Device::Cpu)?.matmul(&w.t()?)?;
        for (a, b) in ours.iter().zip(theirs.flatten_all()?.to_vec1::<f32>()?) {
            assert!((a - b).abs() < 2e-5, "{a} and {b}");
        }
    }
    Ok(())
}

#[test]
fn unlike_or_misshapen_parts_are_refused() {
    let mut random = Random(8);
    let mut ops = ops(1);
    let mut view = |dtype, shape: &[usize]| weights(&mut random, dtype, shape, 0).0;
    let bf16 = WeightDtype::Bf16;
    let cases = [
        vec![],
        vec![view(bf16, &[4])],
        vec![view(bf16, &[4, 0])],
        vec![view(bf16, &[4, 8]), view(bf16, &[4, 9])],
    ];
    for parts in cases {
        assert!(
            ops.new_linear(parts.clone(), Parallelism::Row).is_err(),
            "{parts:?}"
        );
    }
    assert!(
        ops.new_linear(vec![view(bf16, &[4, 8])], Parallelism::Row)
            .is_ok()
    );
}
