//! Norms, activations and rotation against f64, on every instruction set.

use std::sync::Arc;

use hotspare_model::ops::{AttentionSpec, KvCacheSpec, Ops, RopeTable};
use hotspare_model::weights::WeightDtype;

use crate::simd::Isa;
use crate::testing::{Random, RowPlan, attention_spec, batch, bits, buffer, ops, ops_on, weights};

const WIDTHS: [usize; 6] = [1, 15, 16, 40, 256, 577];

fn norm_f64(x: &[f32], w: &[f32], eps: f32) -> Vec<f64> {
    let squares: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let scale = 1.0 / (squares / x.len() as f64 + f64::from(eps)).sqrt();
    x.iter()
        .zip(w)
        .map(|(&x, &w)| f64::from(x) * scale * f64::from(w))
        .collect()
}

fn close(a: &[f32], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
        assert!(
            (f64::from(a) - b).abs() <= tolerance * (1.0 + b.abs()),
            "{i}: {a}, not {b}"
        );
    }
}

#[test]
fn norms_match_f64_and_add_first() {
    let mut random = Random(11);
    for width in WIDTHS {
        for dtype in [WeightDtype::F32, WeightDtype::F16, WeightDtype::Bf16] {
            let (view, w) = weights(&mut random, dtype, &[width], 1);
            let (x, y) = (random.floats(3 * width), random.floats(3 * width));
            let mut reference: Option<[Vec<u32>; 3]> = None;
            for isa in Isa::available() {
                let mut ops = ops_on(isa);
                let weight = ops.new_vector(vec![view.clone()], 0.0).unwrap();
                let [x_buffer, mut residual, mut out] =
                    [&x, &y, &y].map(|values| buffer(&mut ops, width, values));
                ops.rms_norm(&x_buffer, &weight, 1e-5, &mut out);
                let plain = ops.read_rows(&out);
                ops.add_rms_norm(&x_buffer, &mut residual, &weight, 1e-5, &mut out);
                let (sum, fused) = (ops.read_rows(&residual), ops.read_rows(&out));
                for row in 0..3 {
                    let range = row * width..(row + 1) * width;
                    close(
                        &plain[range.clone()],
                        &norm_f64(&x[range.clone()], &w, 1e-5),
                        1e-6,
                    );
                    let expected: Vec<f32> = range.clone().map(|i| x[i] + y[i]).collect();
                    assert_eq!(&sum[range.clone()], &expected);
                    close(&fused[range], &norm_f64(&expected, &w, 1e-5), 1e-6);
                }
                let all = [plain, sum, fused].map(|values| bits(&values));
                assert_eq!(reference.get_or_insert(all.clone()), &all, "{}", isa.name());
            }
        }
    }
}

#[test]
fn silu_mul_matches_f64() {
    let mut random = Random(12);
    for width in WIDTHS {
        let x: Vec<f32> = random.floats(4 * width).iter().map(|x| x * 12.0).collect();
        let mut reference: Option<Vec<u32>> = None;
        for isa in Isa::available() {
            let mut ops = ops_on(isa);
            let gate_up = buffer(&mut ops, 2 * width, &x);
            let mut out = ops.new_buffer(2, width).unwrap();
            ops.silu_mul(&gate_up, &mut out);
            let out = ops.read_rows(&out);
            for (row, out) in x.chunks(2 * width).zip(out.chunks(width)) {
                let (gate, up) = row.split_at(width);
                let expected = gate.iter().zip(up).map(|(&g, &u)| {
                    let g = f64::from(g);
                    g / (1.0 + (-g).exp()) * f64::from(u)
                });
                close(out, &expected.collect::<Vec<_>>(), 1e-6);
            }
            let out = bits(&out);
            assert_eq!(reference.get_or_insert(out.clone()), &out, "{}", isa.name());
        }
    }
}

#[test]
fn elementwise_results_do_not_depend_on_threads() {
    let mut random = Random(13);
    let width = 512;
    let x = random.floats(300 * 2 * width);
    let (view, _) = weights(&mut random, WeightDtype::F32, &[2 * width], 0);
    let [one, two] = [1, 2].map(|num_threads| {
        let mut ops = ops(num_threads);
        ops.begin(&hotspare_batch::Batch::default());
        let weight = ops.new_vector(vec![view.clone()], 0.0).unwrap();
        let gate_up = buffer(&mut ops, 2 * width, &x);
        let mut residual = buffer(&mut ops, 2 * width, &x);
        let mut out = ops.new_buffer(512, 2 * width).unwrap();
        let mut hidden = ops.new_buffer(512, width).unwrap();
        ops.add_rms_norm(&gate_up, &mut residual, &weight, 1e-5, &mut out);
        ops.silu_mul(&out, &mut hidden);
        bits(&ops.read_rows(&hidden))
    });
    assert!(one == two);
}

/// Rotates q and k of a token at each of `positions`, and reads the rows back.
fn rotate(isa: Isa, spec: &AttentionSpec, rope: &Arc<RopeTable>, qkv: &[f32]) -> Vec<f32> {
    let mut ops = ops_on(isa);
    let width = (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim;
    let mut kv = ops
        .new_kv_cache(&KvCacheSpec {
            num_layers: 1,
            num_blocks: 4,
            block_size: 16,
            num_kv_heads: spec.num_kv_heads,
            head_dim: spec.head_dim,
            dtype: WeightDtype::F32,
        })
        .unwrap();
    let tokens = vec![0; qkv.len() / width];
    let plan = RowPlan {
        slot: 0,
        num_computed: 5,
        tokens: &tokens,
        blocks: &[2, 0, 1],
    };
    ops.begin(&batch(&[plan], 16));
    let mut rows = buffer(&mut ops, width, qkv);
    ops.rope_kv_write(&mut rows, rope, spec, 0, &mut kv);
    ops.read_rows(&rows)
}

#[test]
fn rotation_turns_halves_or_neighbours_of_q_and_k_by_the_position() {
    let mut random = Random(14);
    let widths = [(8, 8), (64, 64), (80, 32), (128, 128), (20, 20), (6, 0)];
    for ((head_dim, rotary_dim), is_interleaved) in
        widths.into_iter().flat_map(|w| [(w, false), (w, true)])
    {
        let spec = attention_spec(3, 1, head_dim);
        let half = rotary_dim / 2;
        let max_position = 20;
        let angles = random.floats(max_position * half);
        let rope = Arc::new(RopeTable {
            rotary_dim,
            is_interleaved,
            cos: angles.iter().map(|a| a.cos()).collect(),
            sin: angles.iter().map(|a| a.sin()).collect(),
        });
        let (num_tokens, width) = (17, 5 * head_dim);
        let qkv = random.floats(num_tokens * width);
        let expected = rotate(Isa::detect(), &spec, &rope, &qkv);
        for isa in Isa::available() {
            let out = rotate(isa, &spec, &rope, &qkv);
            for (row, (x, out)) in qkv.chunks(width).zip(out.chunks(width)).enumerate() {
                let position = 5 + row;
                for (head, (x, out)) in x.chunks(head_dim).zip(out.chunks(head_dim)).enumerate() {
                    if head == 4 || half == 0 {
                        assert_eq!(x, out, "v is not rotated");
                        continue;
                    }
                    if position >= max_position {
                        assert!(out.iter().all(|x| x.is_nan()), "no angle for {position}");
                        continue;
                    }
                    let mut want: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
                    for i in 0..half {
                        let cos = f64::from(rope.cos[position * half + i]);
                        let sin = f64::from(rope.sin[position * half + i]);
                        let (first, second) = match is_interleaved {
                            true => (2 * i, 2 * i + 1),
                            false => (i, i + half),
                        };
                        let (a, b) = (want[first], want[second]);
                        (want[first], want[second]) = (a * cos - b * sin, b * cos + a * sin);
                    }
                    close(out, &want, 2e-7);
                }
            }
            let same = out
                .iter()
                .zip(&expected)
                .all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()));
            assert!(same, "{} differs", isa.name());
        }
    }
}
