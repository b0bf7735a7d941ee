//! Reductions over a row, written so that the compiler vectorises them on any machine.
//!
//! Sums are kept in sixteen lanes and folded in one fixed order, so their bits do not depend on the
//! instruction set. The exponential is a polynomial for the same reason: a system's own differs by
//! machine.
//!
//! Invariant: no fused multiply-add and no reassociation: equal inputs give equal bits everywhere.

/// Lanes of a running sum or maximum.
pub(crate) const LANES: usize = 16;
/// Elements whose sum is kept in f32; sums of blocks are added in f64.
pub(crate) const BLOCK: usize = 256;

/// Below this the exponential is 0: its result would be no normal number.
const EXP_UNDERFLOW: f32 = -87.0;

/// `e^x` for `x <= 0`, within two units in the last place; 0 below -87 and for minus infinity.
///
/// Range reduction by powers of two and the polynomial of Moshier's Cephes library (`expf`).
#[inline(always)]
pub(crate) fn exp_nonpositive(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it rounds to a whole number, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x < EXP_UNDERFLOW { EXP_UNDERFLOW } else { x };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let power = rounded - ROUND;
    let r = clamped - power * LN_2_HIGH - power * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let mantissa = p * r * r + r + 1.0;
    let scale = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    if x < EXP_UNDERFLOW {
        0.0
    } else {
        mantissa * scale
    }
}

/// The largest of `values`; `None` where there is a NaN, plus infinity, or nothing above minus
/// infinity.
pub(crate) fn finite_max(values: &[f32]) -> Option<f32> {
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut has_nan = [false; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let x = chunk[lane];
            max[lane] = if x > max[lane] { x } else { max[lane] };
            has_nan[lane] |= x.is_nan();
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        max[lane] = if x > max[lane] { x } else { max[lane] };
        has_nan[lane] |= x.is_nan();
    }
    let max = max
        .into_iter()
        .fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    (max.is_finite() && !has_nan.contains(&true)).then_some(max)
}

/// Whether any of `chunk` is above `threshold`.
#[inline(always)]
pub(crate) fn any_above(chunk: &[f32; LANES], threshold: f32) -> bool {
    let mut above = 0u32;
    for &x in chunk {
        above |= u32::from(x > threshold);
    }
    above != 0
}

/// Adds the lanes of a block's sum, always in the same order.
pub(crate) fn fold_lanes(lanes: &[f32; LANES]) -> f64 {
    lanes.iter().map(|&x| f64::from(x)).sum()
}

/// `sum(e^(x - max))` over `values`.
pub(crate) fn sum_exp(values: &[f32], max: f32) -> f64 {
    let block_sum = |block: &[f32]| {
        let mut sums = [0f32; LANES];
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                sums[lane] += exp_nonpositive(chunk[lane] - max);
            }
        }
        for (lane, &x) in rest.iter().enumerate() {
            sums[lane] += exp_nonpositive(x - max);
        }
        fold_lanes(&sums)
    };
    values.chunks(BLOCK).map(block_sum).sum()
}

/// How many of `values` `is_counted` holds for.
pub(crate) fn count(values: &[f32], is_counted: impl Fn(f32) -> bool) -> u32 {
    values.iter().map(|&x| u32::from(is_counted(x))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        let mut x = 0.0f32;
        while x > -86.9 {
            let exact = f64::from(x).exp();
            let error = (f64::from(exp_nonpositive(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "{x}: {error}");
            x -= 0.000_731;
        }
        assert_eq!(exp_nonpositive(0.0), 1.0);
        assert_eq!(exp_nonpositive(-0.0), 1.0);
        assert_eq!(exp_nonpositive(-87.1), 0.0);
        assert_eq!(exp_nonpositive(f32::MIN), 0.0);
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn max_finds_any_position_and_refuses_what_is_not_finite() {
        for len in [1, 15, 16, 17, 300] {
            for at in 0..len {
                let mut values: Vec<f32> = (0..len).map(|i| -(i as f32) - 1.0).collect();
                values[at] = 0.5;
                assert_eq!(finite_max(&values), Some(0.5));
                for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
                    values[at] = bad;
                    assert_eq!(finite_max(&values), None, "{len} {at} {bad}");
                }
            }
        }
        assert_eq!(finite_max(&[f32::NEG_INFINITY; 20]), None);
        assert_eq!(finite_max(&[f32::NEG_INFINITY, -3.0]), Some(-3.0));
        assert_eq!(finite_max(&[]), None);
    }

    #[test]
    fn sum_exp_matches_a_plain_sum() {
        let values: Vec<f32> = (0..1000).map(|i| ((i * 37) % 101) as f32 * -0.1).collect();
        let plain: f64 = values.iter().map(|&x| f64::from(x).exp()).sum();
        assert!((sum_exp(&values, 0.0) / plain - 1.0).abs() < 1e-6);
    }
}
