//! The arithmetic of the naive backend, row by row.
//!
//! Invariant: sums are taken in f64, in index order.

use crate::ops::{MoeSpec, RopeTable};
use crate::weights::{WeightDtype, WeightView};

pub(super) fn to_f32(view: &WeightView) -> Vec<f32> {
    let bytes = view.bytes();
    match view.dtype() {
        WeightDtype::F32 => {
            let chunks = bytes.as_chunks::<4>().0.iter();
            chunks.map(|b| f32::from_le_bytes(*b)).collect()
        }
        WeightDtype::F16 => {
            let chunks = bytes.as_chunks::<2>().0.iter();
            chunks
                .map(|b| half::f16::from_le_bytes(*b).to_f32())
                .collect()
        }
        WeightDtype::Bf16 => {
            let chunks = bytes.as_chunks::<2>().0.iter();
            chunks
                .map(|b| half::bf16::from_le_bytes(*b).to_f32())
                .collect()
        }
        dtype => unreachable!("no test gives this backend {}", dtype.name()),
    }
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum()
}

pub(super) fn norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let scale = 1.0 / (dot(x, x) / x.len() as f64 + f64::from(eps)).sqrt();
    x.iter()
        .zip(weight)
        .map(|(&x, &w)| (f64::from(x) * scale) as f32 * w)
        .collect()
}

/// Rotates the two halves of a head, or neighbours, against each other.
pub(super) fn rotate(head: &mut [f32], rope: &RopeTable, position: usize) {
    let half = rope.rotary_dim / 2;
    for i in 0..half {
        let (cos, sin) = (rope.cos[position * half + i], rope.sin[position * half + i]);
        let (first, second) = match rope.is_interleaved {
            true => (2 * i, 2 * i + 1),
            false => (i, i + half),
        };
        let (a, b) = (head[first], head[second]);
        head[first] = a * cos - b * sin;
        head[second] = b * cos + a * sin;
    }
}

/// The product of each of `weights` with `x`.
pub(super) fn product<'a>(weights: impl Iterator<Item = &'a [f32]>, x: &[f32]) -> Vec<f32> {
    weights.map(|w| dot(x, w) as f32).collect()
}

pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

pub(super) fn gelu_tanh(x: f32) -> f32 {
    let x = f64::from(x);
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
    (0.5 * x * (1.0 + inner.tanh())) as f32
}

/// The first half of `row`, activated, times the second.
pub(super) fn gate(row: &[f32], activation: impl Fn(f32) -> f32) -> Vec<f32> {
    let (gate, up) = row.split_at(row.len() / 2);
    gate.iter()
        .zip(up)
        .map(|(&g, &u)| activation(g) * u)
        .collect()
}

/// The weight of each expert for one token.
pub(super) fn routes(logits: &[f32], spec: &MoeSpec) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let weights = logits.iter().map(|&x| f64::from(x - max).exp());
    let weights: Vec<f64> = weights.collect();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let chosen = &order[..spec.num_experts_per_token];
    let all: f64 = weights.iter().sum();
    let total = if spec.normalises {
        chosen.iter().map(|&e| weights[e]).sum()
    } else {
        all
    };
    let mut routes = vec![0.0; logits.len()];
    for &e in chosen {
        routes[e] = (weights[e] / total) as f32;
    }
    routes
}
