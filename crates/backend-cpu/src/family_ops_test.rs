//! The operations of single families against f64, on every instruction set: biases, norms of heads,
//! GELU, soft-caps, experts.
//!
//! Invariant: all instruction sets give the bits of the first.

use hotspare_batch::Batch;
use hotspare_model::ops::{ExpertViews, MoeSpec, Ops};
use hotspare_model::weights::WeightDtype;

use crate::CpuOps;
use crate::simd::Isa;
use crate::testing::{Random, attention_spec, bits, buffer, ops, ops_on, weights, weights_of};

const WIDTHS: [usize; 6] = [1, 15, 16, 40, 256, 577];

fn close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        assert!(
            difference <= tolerance * (1.0 + expected.abs()),
            "{i}: {found}, not {expected}"
        );
    }
}

/// Runs `f` on every instruction set, asserts equal bits, and returns the values.
fn on_all(f: impl Fn(&mut CpuOps) -> Vec<f32>) -> Vec<f32> {
    let all: Vec<Vec<f32>> = Isa::available()
        .into_iter()
        .map(|isa| f(&mut ops_on(isa)))
        .collect();
    for other in &all[1..] {
        assert!(bits(other) == bits(&all[0]), "instruction sets differ");
    }
    all.into_iter().next().unwrap()
}

#[test]
fn biases_are_added_to_every_row() {
    let mut random = Random(21);
    for width in WIDTHS {
        let x = random.floats(3 * width);
        // Two parts, as q, k and v have.
        let (a, first) = weights(&mut random, WeightDtype::Bf16, &[width], 1);
        let (b, second) = weights(&mut random, WeightDtype::F32, &[width], 0);
        let bias: Vec<f32> = first.iter().chain(&second).map(|b| b + 1.0).collect();
        let rows: Vec<f32> = x.iter().chain(&x).copied().collect();
        let found = on_all(|ops| {
            let bias = ops.new_vector(vec![a.clone(), b.clone()], 1.0).unwrap();
            let mut rows = buffer(ops, 2 * width, &rows);
            ops.add_bias(&mut rows, &bias);
            ops.read_rows(&rows)
        });
        let expected: Vec<f32> = rows
            .iter()
            .zip(bias.iter().cycle())
            .map(|(x, b)| x + b)
            .collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn head_norms_leave_v_and_match_f64() {
    let mut random = Random(22);
    for head_dim in [2, 16, 20, 128] {
        let spec = attention_spec(3, 1, head_dim);
        let x = random.floats(4 * 5 * head_dim);
        let (q_view, q) = weights(&mut random, WeightDtype::F32, &[head_dim], 0);
        let (k_view, k) = weights(&mut random, WeightDtype::F16, &[head_dim], 1);
        let found = on_all(|ops| {
            let q = ops.new_vector(vec![q_view.clone()], 0.0).unwrap();
            let k = ops.new_vector(vec![k_view.clone()], 0.0).unwrap();
            let mut rows = buffer(ops, 5 * head_dim, &x);
            ops.head_rms_norm(&mut rows, &spec, &q, &k, 1e-5);
            ops.read_rows(&rows)
        });
        let heads = x.chunks(head_dim).zip(found.chunks(head_dim));
        for (index, (x, found)) in heads.enumerate() {
            let weight = match index % 5 {
                4 => {
                    assert_eq!(x, found, "v is as it was");
                    continue;
                }
                3 => &k,
                _ => &q,
            };
            let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            let scale = 1.0 / (squares / head_dim as f64 + f64::from(1e-5f32)).sqrt();
            let pairs = x.iter().zip(weight);
            let expected = pairs.map(|(&x, &w)| f64::from(x) * scale * f64::from(w));
            close(found, &expected.collect::<Vec<_>>(), 1e-6);
        }
    }
}

#[test]
fn gelu_and_soft_cap_match_f64() {
    let mut random = Random(23);
    for width in WIDTHS {
        let x: Vec<f32> = random.floats(4 * width).iter().map(|x| x * 12.0).collect();
        let found = on_all(|ops| {
            let gate_up = buffer(ops, 2 * width, &x);
            let mut out = ops.new_buffer(2, width).unwrap();
            ops.gelu_tanh_mul(&gate_up, &mut out);
            ops.read_rows(&out)
        });
        for (row, found) in x.chunks(2 * width).zip(found.chunks(width)) {
            let (gate, up) = row.split_at(width);
            let gelu = |x: f64| {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            };
            let pairs = gate.iter().zip(up);
            let expected = pairs.map(|(&g, &u)| gelu(f64::from(g)) * f64::from(u));
            close(found, &expected.collect::<Vec<_>>(), 1e-6);
        }
        let found = on_all(|ops| {
            let mut rows = buffer(ops, width, &x);
            ops.soft_cap(&mut rows, 5.0);
            ops.read_rows(&rows)
        });
        let expected = x.iter().map(|&x| 5.0 * (f64::from(x) / 5.0).tanh());
        close(&found, &expected.collect::<Vec<_>>(), 1e-6);
    }
    // Ends of the range, and what is no number.
    let extremes = [-1e30, -100.0, 0.0, 100.0, 1e30, f32::NAN];
    let found = on_all(|ops| {
        let rows: Vec<f32> = extremes.iter().chain(&[1.0; 6]).copied().collect();
        let gate_up = buffer(ops, 12, &rows);
        let mut out = ops.new_buffer(1, 6).unwrap();
        ops.gelu_tanh_mul(&gate_up, &mut out);
        let mut capped = buffer(ops, 6, &extremes);
        ops.soft_cap(&mut capped, 30.0);
        let found = [ops.read_rows(&out), ops.read_rows(&capped)].concat();
        // NaN has many bit patterns.
        assert!(found[5].is_nan() && found[11].is_nan());
        [&found[..5], &found[6..11]].concat()
    });
    assert_eq!(found[2..5], [0.0, 100.0, 1e30]);
    assert!(found[..2].iter().all(|x| x.abs() < 1e-6), "{found:?}");
    assert_eq!(found[5], -30.0);
    assert_eq!(found[9], 30.0);
}

fn spec(num_experts: usize, num_experts_per_token: usize, normalises: bool) -> MoeSpec {
    MoeSpec {
        num_experts,
        num_experts_per_token,
        normalises,
    }
}

fn routes(ops: &mut CpuOps, spec: &MoeSpec, logits: &[f32]) -> Vec<f32> {
    let logits = buffer(ops, spec.num_experts, logits);
    let mut routes = ops.new_buffer(512, spec.num_experts).unwrap();
    ops.moe_route(&logits, spec, &mut routes);
    ops.read_rows(&routes)
}

#[test]
fn routes_keep_the_largest_weights() {
    let mut random = Random(24);
    for (num_experts, top) in [(1, 1), (4, 2), (8, 8), (60, 4), (128, 8)] {
        for normalises in [false, true] {
            let spec = spec(num_experts, top, normalises);
            let logits: Vec<f32> = random.floats(5 * num_experts);
            let logits: Vec<f32> = logits.iter().map(|x| x * 6.0).collect();
            let found = on_all(|ops| routes(ops, &spec, &logits));
            for (logits, found) in logits.chunks(num_experts).zip(found.chunks(num_experts)) {
                let weights: Vec<f64> = logits.iter().map(|&x| f64::from(x).exp()).collect();
                let mut sorted = weights.clone();
                sorted.sort_by(|a, b| b.total_cmp(a));
                let total: f64 = if normalises {
                    sorted[..top].iter().sum()
                } else {
                    weights.iter().sum()
                };
                let kept = |&w: &f64| if w >= sorted[top - 1] { w / total } else { 0.0 };
                close(found, &weights.iter().map(kept).collect::<Vec<_>>(), 1e-6);
            }
        }
    }
    // Of equals the first; NaN stays in its row.
    let mut rows = vec![1.0; 8];
    rows[5] = f32::NAN;
    let found = routes(&mut ops(1), &spec(4, 2, true), &rows);
    assert_eq!(found[..4], [0.5, 0.5, 0.0, 0.0]);
    assert_eq!(found[4..].iter().filter(|x| x.is_nan()).count(), 2);
}

/// Experts of `[width, hidden]` and their values.
fn experts(
    random: &mut Random,
    num_experts: usize,
    hidden: usize,
    width: usize,
) -> (Vec<ExpertViews>, Vec<[Vec<f32>; 3]>) {
    let expert = |_| {
        let (gate_view, gate) = weights(random, WeightDtype::F32, &[width, hidden], 0);
        let (up_view, up) = weights(random, WeightDtype::F32, &[width, hidden], 0);
        let (down, down_values) = weights(random, WeightDtype::F32, &[hidden, width], 0);
        let gate_up = vec![gate_view, up_view];
        (ExpertViews { gate_up, down }, [gate, up, down_values])
    };
    (0..num_experts).map(expert).unzip()
}

fn dot(a: &[f32], b: impl Iterator<Item = f64>) -> f64 {
    a.iter().zip(b).map(|(&a, b)| f64::from(a) * b).sum()
}

#[test]
fn experts_match_f64_whoever_shares_the_batch() {
    let (hidden, width, num_rows) = (40, 24, 9);
    let spec = spec(6, 2, true);
    let mut random = Random(25);
    let (views, values) = experts(&mut random, spec.num_experts, hidden, width);
    let x = random.floats(num_rows * hidden);
    let logits = random.floats(num_rows * spec.num_experts);
    let run = |ops: &mut CpuOps, rows: std::ops::Range<usize>| {
        ops.begin(&Batch::default());
        let experts = ops.new_experts(views.clone(), &spec).unwrap();
        let own =
            |values: &[f32], width: usize| values[rows.start * width..rows.end * width].to_vec();
        let routes = routes(ops, &spec, &own(&logits, spec.num_experts));
        let routes = buffer(ops, spec.num_experts, &routes);
        let x = buffer(ops, hidden, &own(&x, hidden));
        let mut out = ops.new_buffer(num_rows, hidden).unwrap();
        ops.moe(&x, &routes, &experts, &mut out);
        ops.read_rows(&out)
    };
    let found = on_all(|ops| run(ops, 0..num_rows));
    assert!(
        bits(&run(&mut ops(3), 0..num_rows)) == bits(&found),
        "threads"
    );
    let all_routes = routes(&mut ops(1), &spec, &logits);
    for row in 0..num_rows {
        let alone = run(&mut ops(1), row..row + 1);
        let found = &found[row * hidden..][..hidden];
        assert!(bits(&alone) == bits(found), "row {row} alone");
        let x = &x[row * hidden..][..hidden];
        let mut expected = vec![0.0; hidden];
        for (e, [gate, up, down]) in values.iter().enumerate() {
            let route = f64::from(all_routes[row * spec.num_experts + e]);
            let product = |w: &[f32]| dot(w, x.iter().map(|&x| f64::from(x)));
            let activated: Vec<f64> = gate
                .chunks(hidden)
                .zip(up.chunks(hidden))
                .map(|(gate, up)| {
                    let gate = product(gate);
                    gate / (1.0 + (-gate).exp()) * product(up)
                })
                .collect();
            for (sum, down) in expected.iter_mut().zip(down.chunks(width)) {
                *sum += route * dot(down, activated.iter().copied());
            }
        }
        close(found, &expected, 1e-5);
    }
}

#[test]
fn unlike_experts_are_refused() {
    let mut random = Random(26);
    let (mut views, _) = experts(&mut random, 2, 8, 4);
    views[1].down = weights_of(&[0.0; 24], WeightDtype::F32, &[8, 3], 0).0;
    let error = ops(1).new_experts(views, &spec(2, 1, true)).unwrap_err();
    assert!(error.to_string().contains("unlike experts"), "{error}");
    let none = ops(1).new_experts(Vec::new(), &spec(1, 1, true));
    assert!(none.is_err());
}
