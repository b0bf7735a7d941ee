//! Weights and draws.

use proptest::prelude::*;

use crate::draw::{draw, draw_in_blocks, fill_weights};
use crate::philox::uniform_f64;

#[test]
fn a_uniform_number_picks_by_share_in_order_of_id() {
    let weights = [0.0, 1.0, 0.0, 2.0, 1.0, 0.0];
    for (uniform, expected) in [(0.0, 1), (0.249, 1), (0.25, 3), (0.749, 3), (0.75, 4)] {
        assert_eq!(draw(&weights, uniform), expected, "{uniform}");
    }
    assert_eq!(draw(&weights, 1.0 - f64::EPSILON / 2.0), 4);
    // Even a number that rounding pushed to the end falls on a token that weighs something.
    assert_eq!(draw(&weights, 1.0), 4);
}

#[test]
fn min_p_and_temperature_shape_the_weights() {
    let mut logits = vec![0.0, 2.0, f32::NEG_INFINITY, 1.0];
    let mut sums = Vec::new();
    let total = fill_weights(&mut logits, 2.0, 2.0, 0.5, &mut sums);
    let half = (-0.5f64).exp();
    assert!((f64::from(logits[3]) - half).abs() < 1e-6);
    assert_eq!((logits[0], logits[1], logits[2]), (0.0, 1.0, 0.0));
    assert!((total - 1.0 - half).abs() < 1e-6);
    assert_eq!(sums, [total]);
}

proptest! {
    #[test]
    fn blocks_and_a_plain_walk_agree(
        seed in any::<u64>(),
        len in 1u32..2000,
        uniform in 0.0f64..1.0,
    ) {
        let logit = |i| uniform_f64(seed, i, 0, 0) as f32 * 20.0;
        let mut row: Vec<f32> = (0..len).map(logit).collect();
        let max = row.iter().copied().fold(0.0, f32::max);
        let mut sums = Vec::new();
        fill_weights(&mut row, max, 1.0, 1e-3, &mut sums);
        let (a, b) = (draw(&row, uniform), draw_in_blocks(&row, &sums, uniform));
        prop_assert!(row[a] > 0.0 && row[b] > 0.0);
        // Block sums are rounded otherwise: on a border the neighbour may be drawn.
        let between = if a < b { &row[a + 1..b] } else { &row[b..a] };
        prop_assert!(a == b || between.iter().skip(1).all(|&w| w == 0.0), "{} {}", a, b);
    }
}
