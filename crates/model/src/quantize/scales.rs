//! The search for a part's scale (and minimum): rounded codes and least squares in turns.
//!
//! For a trial scale the codes are the nearest ones; for these codes the best scale is a quotient
//! of sums. Several trial scales around the one that the farthest element asks for are tried, and
//! the pair with the smallest squared error is kept.
//!
//! Invariant: the result's squared error is no larger than that of the first trial.

/// Adding and subtracting it rounds to an integer, ties to even; right below 2^22.
const ROUNDER: f32 = 12_582_912.0;

/// The nearest integer.
#[inline(always)]
pub(super) fn nearest(x: f32) -> f32 {
    (x + ROUNDER) - ROUNDER
}

/// A scale and what is subtracted: an element is `scale * code - min`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Affine {
    pub(super) scale: f32,
    /// Not negative.
    pub(super) min: f32,
}

/// Sums in which the compiler may use lanes: eight running ones.
#[inline(always)]
fn sum<const N: usize>(term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; 8];
    for i in (0..N).step_by(8) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(i + lane);
        }
    }
    lanes.iter().sum()
}

/// The scale that represents `x` best with codes from `low` to `high`, `low` being farther from
/// zero; its sign is the one that gives the farthest element the code `low`.
pub(super) fn symmetric_scale<const N: usize>(x: &[f32; N], low: f32, high: f32) -> f32 {
    let farther = |peak: f32, &x: &f32| if x.abs() > peak.abs() { x } else { peak };
    let peak = x.iter().fold(0.0, farther);
    if peak.abs() < f32::MIN_POSITIVE {
        return 0.0;
    }
    let (mut best, mut scale) = (0.0, 0.0);
    for trial in -9i8..=9 {
        let inverse = (low + 0.1 * f32::from(trial)) / peak;
        let codes: [f32; N] = std::array::from_fn(|i| nearest(x[i] * inverse).clamp(low, high));
        let dot = sum::<N>(|i| x[i] * codes[i]);
        let norm = sum::<N>(|i| codes[i] * codes[i]);
        // The squared error is that of all zeros less this.
        let gain = dot * dot / norm.max(f32::MIN_POSITIVE);
        if gain > best {
            (best, scale) = (gain, dot / norm);
        }
    }
    scale
}

/// The scale and minimum that represent `x` best with codes from 0 to `top`.
pub(super) fn affine_scale<const N: usize>(x: &[f32; N], top: f32) -> Affine {
    let low = x.iter().fold(0.0f32, |low, &x| low.min(x));
    let high = x.iter().fold(f32::MIN, |high, &x| high.max(x));
    let width = high - low;
    if width < f32::MIN_POSITIVE {
        return Affine {
            scale: 0.0,
            min: -low,
        };
    }
    let mut best = Affine {
        scale: width / top,
        min: -low,
    };
    let mut best_error = affine_error(x, best, top);
    for trial in -8i8..=8 {
        let scale = width / (top + 0.12 * f32::from(trial));
        let fitted = fit(x, Affine { scale, min: -low }, top);
        let error = affine_error(x, fitted, top);
        if error < best_error {
            (best, best_error) = (fitted, error);
        }
    }
    for _ in 0..3 {
        let fitted = fit(x, best, top);
        let error = affine_error(x, fitted, top);
        if error >= best_error {
            break;
        }
        (best, best_error) = (fitted, error);
    }
    best
}

/// The codes nearest to `x`.
#[inline(always)]
pub(super) fn affine_codes<const N: usize>(x: &[f32; N], affine: Affine, top: f32) -> [f32; N] {
    let inverse = if affine.scale > f32::MIN_POSITIVE {
        1.0 / affine.scale
    } else {
        0.0
    };
    std::array::from_fn(|i| nearest(((x[i] + affine.min) * inverse).clamp(0.0, top)))
}

/// The squared error of the codes nearest to `x`.
#[inline(always)]
pub(super) fn affine_error<const N: usize>(x: &[f32; N], affine: Affine, top: f32) -> f32 {
    let codes = affine_codes(x, affine, top);
    sum::<N>(|i| {
        let error = affine.scale * codes[i] - affine.min - x[i];
        error * error
    })
}

/// The squared error of the symmetric codes nearest to `x`.
#[inline(always)]
pub(super) fn symmetric_error<const N: usize>(
    x: &[f32; N],
    scale: f32,
    low: f32,
    high: f32,
) -> f32 {
    let codes = symmetric_codes(x, scale, low, high);
    sum::<N>(|i| {
        let error = scale * codes[i] - x[i];
        error * error
    })
}

/// The codes nearest to `x`.
#[inline(always)]
pub(super) fn symmetric_codes<const N: usize>(
    x: &[f32; N],
    scale: f32,
    low: f32,
    high: f32,
) -> [f32; N] {
    let inverse = if scale.abs() > f32::MIN_POSITIVE {
        1.0 / scale
    } else {
        0.0
    };
    std::array::from_fn(|i| nearest((x[i] * inverse).clamp(low, high)))
}

/// The least-squares scale and minimum for the codes that `start` gives.
#[inline(always)]
fn fit<const N: usize>(x: &[f32; N], start: Affine, top: f32) -> Affine {
    let codes = affine_codes(x, start, top);
    let n = N as f32;
    let (sum_x, sum_q) = (sum::<N>(|i| x[i]), sum::<N>(|i| codes[i]));
    let (sum_xq, sum_qq) = (
        sum::<N>(|i| x[i] * codes[i]),
        sum::<N>(|i| codes[i] * codes[i]),
    );
    let determinant = n * sum_qq - sum_q * sum_q;
    if determinant <= 0.0 {
        return start;
    }
    let scale = (n * sum_xq - sum_x * sum_q) / determinant;
    let min = (scale * sum_q - sum_x) / n;
    if min >= 0.0 && scale > 0.0 {
        return Affine { scale, min };
    }
    // A minimum cannot be added: the best line through zero.
    let scale = sum_xq / sum_qq;
    if scale > 0.0 {
        Affine { scale, min: 0.0 }
    } else {
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_grids_are_found() {
        let codes: [f32; 32] = std::array::from_fn(|i| ((i * 7) % 16) as f32);
        let x = codes.map(|code| 0.25 * code - 1.5);
        let affine = affine_scale(&x, 15.0);
        assert!((affine.scale - 0.25).abs() < 1e-6, "{affine:?}");
        assert!((affine.min - 1.5).abs() < 1e-5, "{affine:?}");
        assert_eq!(affine_codes(&x, affine, 15.0), codes);

        let codes: [f32; 16] = std::array::from_fn(|i| (i * 4) as f32 - 32.0);
        let x = codes.map(|code| -0.5 * code);
        let scale = symmetric_scale(&x, -32.0, 31.0);
        assert!((scale + 0.5).abs() < 1e-6, "{scale}");
    }

    #[test]
    fn constants_and_zeros_have_no_scale_or_an_exact_one() {
        assert_eq!(affine_scale(&[0.0; 32], 15.0), Affine::default());
        assert_eq!(symmetric_scale(&[0.0; 16], -32.0, 31.0), 0.0);
        for constant in [-3.0, 5.0f32] {
            let x = [constant; 32];
            let affine = affine_scale(&x, 15.0);
            assert!(affine_error(&x, affine, 15.0) < 1e-9, "{affine:?}");
        }
    }
}
