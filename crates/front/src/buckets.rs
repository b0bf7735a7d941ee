//! Bounds of histogram buckets: vLLM's, with finer ones below where a small model lives.
//!
//! Invariant: every bound that vLLM exposes is here, so that a query on `le` finds it.

/// Seconds to the first token.
pub(crate) const TIME_TO_FIRST_TOKEN: [f64; 23] = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
    10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];

/// Seconds between tokens. vLLM's lowest bound is 10 ms.
pub(crate) const INTER_TOKEN: [f64; 28] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.015, 0.025, 0.05, 0.075,
    0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];

/// Seconds of a whole request or of one of its phases.
pub(crate) const REQUEST: [f64; 24] = [
    0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0,
    60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
];

/// The parameter `n`.
pub(crate) const PARAMS_N: [f64; 5] = [1.0, 2.0, 5.0, 10.0, 20.0];

/// 1, 2, 5, 10, … up to the first bound that reaches `max`.
pub(crate) fn token_counts(max: u32) -> Vec<f64> {
    let mut bounds = Vec::new();
    let mut decade = 1u64;
    loop {
        for mantissa in [1, 2, 5] {
            let bound = mantissa * decade;
            bounds.push(bound as f64);
            if bound >= u64::from(max) {
                return bounds;
            }
        }
        decade *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_grow() {
        for bounds in [&TIME_TO_FIRST_TOKEN[..], &INTER_TOKEN, &REQUEST, &PARAMS_N] {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
        }
    }

    #[test]
    fn token_bounds_reach_the_context_length() {
        assert_eq!(token_counts(1), [1.0]);
        assert_eq!(token_counts(40), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(token_counts(u32::MAX).last(), Some(&5e9));
    }
}
