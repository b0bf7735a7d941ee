//! Weights from logits, and the draw: a uniform number picks a token by its share of the sum, in
//! order of id.
//!
//! Invariant: a token of weight zero is never drawn.

use crate::reduce::{BLOCK, LANES, exp_nonpositive, fold_lanes};

/// Replaces `logits` by `e^((logit - max) / temperature)`, with 0 for what is below `min_p`, and
/// puts the sum of each block into `block_sums`. Returns the sum of all.
pub(crate) fn fill_weights(
    logits: &mut [f32],
    max: f32,
    temperature: f32,
    min_p: f32,
    block_sums: &mut Vec<f64>,
) -> f64 {
    let inverse = 1.0 / temperature;
    let weight = |x: f32| {
        let weight = exp_nonpositive((x - max) * inverse);
        if weight < min_p { 0.0 } else { weight }
    };
    block_sums.clear();
    let mut total = 0.0;
    for block in logits.chunks_mut(BLOCK) {
        let mut sums = [0f32; LANES];
        let (chunks, rest) = block.as_chunks_mut::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                let weight = weight(chunk[lane]);
                chunk[lane] = weight;
                sums[lane] += weight;
            }
        }
        for (lane, x) in rest.iter_mut().enumerate() {
            *x = weight(*x);
            sums[lane] += *x;
        }
        let sum = fold_lanes(&sums);
        block_sums.push(sum);
        total += sum;
    }
    total
}

/// Index of the weight that `uniform` in [0, 1) falls on. Some weight is above 0.
pub(crate) fn draw(weights: &[f32], uniform: f64) -> usize {
    let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
    walk(weights, uniform * total)
}

/// As [`draw`], with the sums of blocks known from [`fill_weights`].
pub(crate) fn draw_in_blocks(weights: &[f32], block_sums: &[f64], uniform: f64) -> usize {
    let total: f64 = block_sums.iter().sum();
    let mut rest = uniform * total;
    let mut chosen = None;
    for (index, &sum) in block_sums.iter().enumerate() {
        if sum > 0.0 {
            chosen = Some((index, rest));
            if rest < sum {
                break;
            }
            rest -= sum;
        }
    }
    // Where rounding leaves something over, the last block that weighs anything is taken.
    let (index, rest) = chosen.unwrap_or((0, 0.0));
    let start = index * BLOCK;
    let end = weights.len().min(start + BLOCK);
    start + walk(&weights[start..end], rest)
}

/// First index whose running sum is above `target`; where rounding leaves none, the last weight
/// above 0.
fn walk(weights: &[f32], target: f64) -> usize {
    let mut sum = 0.0;
    let mut last = 0;
    for (index, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            last = index;
            sum += f64::from(weight);
            if sum > target {
                break;
            }
        }
    }
    last
}
