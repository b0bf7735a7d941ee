//! The filters against a naive oracle that sorts.

use proptest::prelude::*;

use crate::filter::{Candidates, Histogram, key_id, key_value, select_top_k};

/// Ids in the order value descending, id ascending.
fn sorted_ids(values: &[f32]) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..values.len() as u32).collect();
    let value = |id: u32| values[id as usize];
    ids.sort_by(|&a, &b| value(b).partial_cmp(&value(a)).unwrap().then(a.cmp(&b)));
    ids
}

fn top_k_ids(values: &[f32], k: usize) -> Vec<u32> {
    let mut keys = Vec::new();
    select_top_k(values, k, &mut keys);
    for &key in &keys {
        assert_eq!(key_value(key), values[key_id(key) as usize]);
    }
    keys.sort_unstable_by(|a, b| b.cmp(a));
    keys.into_iter().map(key_id).collect()
}

/// Exact in f64: weights are multiples of 1/64, so sums have no rounding.
fn naive_top_p(weights: &[f32], top_p: f64) -> Vec<u32> {
    let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
    let mut kept = Vec::new();
    let mut sum = 0.0;
    for id in sorted_ids(weights) {
        kept.push(id);
        sum += f64::from(weights[id as usize]);
        if sum >= top_p * total {
            break;
        }
    }
    kept.sort_unstable();
    kept
}

fn top_p_ids(weights: &[f32], top_p: f32) -> Vec<u32> {
    let total = weights.iter().map(|&w| f64::from(w)).sum();
    let mut candidates = Candidates::default();
    candidates.take_dense(weights, total, top_p);
    candidates.keep_top_p(total, top_p, &mut Histogram::default());
    for (id, weight) in candidates.ids.iter().zip(&candidates.weights) {
        assert_eq!(*weight, weights[*id as usize]);
    }
    candidates.ids
}

proptest! {
    #[test]
    fn top_k_is_the_head_of_the_sorted_list(
        values in prop::collection::vec(-20i32..20, 1..700),
        k in 0usize..800,
    ) {
        let values: Vec<f32> = values.iter().map(|&v| v as f32 * 0.37).collect();
        let expected: Vec<u32> = sorted_ids(&values).into_iter().take(k).collect();
        prop_assert_eq!(top_k_ids(&values, k), expected);
    }

    #[test]
    fn top_k_of_unlike_values(seed in any::<u64>(), len in 1u32..5000, k in 1usize..300) {
        let value = |i| crate::philox::uniform_f32(seed, i, 0, 0) - 0.5;
        let values: Vec<f32> = (0..len).map(value).collect();
        let expected: Vec<u32> = sorted_ids(&values).into_iter().take(k).collect();
        prop_assert_eq!(top_k_ids(&values, k), expected);
    }

    #[test]
    fn top_p_is_the_smallest_set_that_reaches_it(
        weights in prop::collection::vec(0u32..=64, 1..300),
        top_p in 1u32..64,
    ) {
        let mut weights: Vec<f32> = weights.iter().map(|&w| w as f32 / 64.0).collect();
        weights[0] = 1.0;
        let top_p = top_p as f32 / 64.0;
        prop_assert_eq!(top_p_ids(&weights, top_p), naive_top_p(&weights, f64::from(top_p)));
    }

    #[test]
    fn top_p_of_unlike_weights(seed in any::<u64>(), len in 1u32..3000, power in 1i32..30) {
        let weight = |i| crate::philox::uniform_f32(seed, i, 0, 0).powi(power);
        let mut weights: Vec<f32> = (0..len).map(weight).collect();
        weights[len as usize / 2] = 1.0;
        // No sum of weights is this close to the border by chance, so rounding cannot tell them
        // apart.
        prop_assert_eq!(top_p_ids(&weights, 0.9), naive_top_p(&weights, f64::from(0.9f32)));
    }
}

#[test]
fn minus_infinity_is_never_selected_and_minus_zero_equals_zero() {
    let out = f32::NEG_INFINITY;
    assert_eq!(top_k_ids(&[out, 1.0, out, -5.0], 4), [1, 3]);
    assert_eq!(top_k_ids(&[-0.0, 0.0, -0.0], 2), [0, 1]);
    assert_eq!(top_k_ids(&[f32::MIN, f32::MAX, 1e-40], 3), [1, 2, 0]);
}

#[test]
fn top_p_keeps_one_token_however_small_it_is() {
    assert_eq!(top_p_ids(&[0.5, 1.0, 1.0], 1e-6), [1]);
    assert_eq!(top_p_ids(&[1.0], 0.5), [0]);
}
