//! Every instruction set against portable code, bit for bit, and portable code against f64.

use super::*;
use crate::testing::{Random, bits};

/// Runs every operation of a path over three inputs.
struct Probe<'a> {
    a: &'a [f32],
    b: &'a [f32],
    c: &'a [f32],
}

isa_entry! { fn probe(input: &Probe<'_>, out: &mut Vec<f32>) = probe_any }

#[inline(always)]
fn probe_any<S: Simd>(s: S, input: &Probe<'_>, out: &mut Vec<f32>) {
    let chunks = |x: &[f32]| x.as_chunks::<LANES>().0.to_vec();
    let (a, b, c) = (chunks(input.a), chunks(input.b), chunks(input.c));
    for ((a, b), c) in a.iter().zip(&b).zip(&c) {
        let (a, b, c) = (s.load(a), s.load(b), s.load(c));
        let results = [
            s.add(a, b),
            s.sub(a, b),
            s.mul(a, b),
            s.div(a, b),
            s.fma(a, b, c),
            s.fnma(a, b, c),
            s.max(a, b),
            s.min(a, b),
            s.round(a),
            s.pow2(s.round(s.min(s.splat(127.0), s.max(s.splat(-126.0), a)))),
            s.select_lt(a, b, c, a),
            s.exp(a),
            s.silu(a),
            s.tanh(a),
            s.keep_lanes(a, 3, 11, 7.0),
            s.keep_lanes(a, 0, 16, 7.0),
            s.keep_lanes(a, 16, 16, 7.0),
            s.splat(s.sum(a)),
            s.splat(s.max_lane(b)),
        ];
        for v in results {
            let mut lanes = [0.0; LANES];
            s.store(&mut lanes, v);
            out.extend(lanes);
        }
    }
    let mut vectors = [s.splat(0.0); LANES];
    for (v, a) in vectors.iter_mut().zip(&a) {
        *v = s.load(a);
    }
    let mut lanes = [0.0; LANES];
    s.store(&mut lanes, s.sum16(&vectors));
    for (lane, v) in lanes.iter().zip(vectors) {
        assert_eq!(lane.to_bits(), s.sum(v).to_bits(), "sum16 is sixteen sums");
    }
    out.extend(lanes);
}

#[test]
fn all_instruction_sets_compute_the_same_bits() {
    let mut random = Random(1);
    let mut wide = || -> Vec<f32> {
        (0..64 * LANES)
            .map(|_| random.float() * 10f32.powi(random.below(5) as i32 - 1))
            .collect()
    };
    let mut a = wide();
    let edges = [
        0.0,
        -0.0,
        88.5,
        -88.5,
        1e30,
        -1e30,
        f32::INFINITY,
        f32::NEG_INFINITY,
        1e-40,
    ];
    a[17 * LANES..17 * LANES + edges.len()].copy_from_slice(&edges);
    let (b, c) = (wide(), wide());
    let run = |isa| {
        let mut out = Vec::new();
        probe(
            isa,
            &Probe {
                a: &a,
                b: &b,
                c: &c,
            },
            &mut out,
        );
        // Whether a NaN has its sign bit set is up to the machine.
        out.iter()
            .map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() })
            .collect::<Vec<_>>()
    };
    let portable = run(Isa::Scalar(Scalar));
    for isa in Isa::available() {
        let differs = run(isa).iter().zip(&portable).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{} differs", isa.name());
    }
}

#[test]
fn a_sum_adds_halves_first() {
    let s = Scalar;
    let mut v = [0.0; LANES];
    // (1e8 + 1) loses the 1; (1e8 + -1e8) + 1 does not.
    (v[0], v[8], v[1]) = (1e8, -1e8, 1.0);
    assert_eq!(s.sum(v), 1.0);
    (v[0], v[1], v[8]) = (1e8, -1e8, 1.0);
    assert_eq!(s.sum(v), 0.0);
}

#[test]
fn functions_are_close_to_exact() {
    let s = Scalar;
    for i in -8800..=8800 {
        let x = i as f32 / 100.0;
        let exact = f64::from(x);
        let [e, sigmoid, tanh] = [s.exp([x; LANES]), s.silu([x; LANES]), s.tanh([x; LANES])];
        if x > -87.31 {
            let error = (f64::from(e[0]) / exact.exp() - 1.0).abs();
            assert!(error < 2.5e-7, "exp({x}) = {} is off by {error}", e[0]);
        } else {
            assert_eq!(e[0], 0.0, "exp({x})");
        }
        let silu = exact / (1.0 + (-exact).exp());
        assert!(
            (f64::from(sigmoid[0]) - silu).abs() < 4e-7 * (1.0 + silu.abs()),
            "silu({x})"
        );
        assert!(
            (f64::from(tanh[0]) - exact.tanh()).abs() < 3e-7,
            "tanh({x})"
        );
    }
    let specials = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, 200.0, -200.0];
    let [zero, large, nan, large_too, zero_too] = specials.map(|x| s.exp([x; LANES])[0]);
    assert_eq!((zero, zero_too), (0.0, 0.0));
    assert!(large > 1e38 && large == large_too && large.is_finite());
    assert!(nan.is_nan());
    assert_eq!(s.exp([0.0; LANES])[0], 1.0);
}

struct Bytes<'a>(&'a [i8; LANES]);

isa_entry! { fn widen_bytes(input: &Bytes<'_>, out: &mut [f32; LANES]) = widen_bytes_any }

#[inline(always)]
fn widen_bytes_any<S: Simd>(s: S, input: &Bytes<'_>, out: &mut [f32; LANES]) {
    s.store(out, s.load_i8(input.0));
}

#[test]
fn every_signed_byte_is_widened_exactly() {
    for isa in Isa::available() {
        for first in (-128i16..128).step_by(LANES) {
            let bytes = std::array::from_fn(|i| (first + i as i16) as i8);
            let mut out = [0.0; LANES];
            widen_bytes(isa, &Bytes(&bytes), &mut out);
            assert_eq!(out, bytes.map(f32::from), "{}", isa.name());
        }
    }
}

struct Halves<'a>(&'a [u8; 64]);

isa_entry! { fn widen(input: &Halves<'_>, out: &mut Vec<f32>) = widen_any }

#[inline(always)]
fn widen_any<S: Simd>(s: S, input: &Halves<'_>, out: &mut Vec<f32>) {
    let halves = input.0.as_chunks::<32>().0;
    let vectors = [
        s.load_bf16_bytes(input.0, false),
        s.load_bf16_bytes(input.0, true),
        s.load_f16_bytes(&halves[0]),
        s.load_f16_bytes(&halves[1]),
        s.load_f32_bytes(input.0),
    ];
    for v in vectors {
        let mut lanes = [0.0; LANES];
        s.store(&mut lanes, v);
        out.extend(lanes);
    }
}

#[test]
fn every_half_float_is_widened_exactly() {
    for isa in Isa::available() {
        for first in (0..=u16::MAX).step_by(32) {
            let words: [u16; 32] = std::array::from_fn(|i| first + i as u16);
            let mut bytes = [0; 64];
            for (to, word) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(words) {
                *to = word.to_le_bytes();
            }
            let mut out = Vec::new();
            widen(isa, &Halves(&bytes), &mut out);
            let bf16 = words.map(|w| half::bf16::from_bits(w).to_f32());
            let f16 = words.map(|w| half::f16::from_bits(w).to_f32());
            let mut expected: Vec<f32> = bf16.iter().copied().step_by(2).collect();
            expected.extend(bf16.iter().skip(1).step_by(2));
            expected.extend(f16);
            expected.extend(
                bytes
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|&b| f32::from_le_bytes(b)),
            );
            for (i, (a, b)) in out.iter().zip(&expected).enumerate() {
                let same = a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                assert!(same, "{}: element {i} of {first:#x}", isa.name());
            }
            assert_eq!(bits(&out).len(), expected.len());
        }
    }
}
