//! Rotary angle tables, computed once at load.
//!
//! Angles are computed in f64 and only their cosines and sines rounded to f32, so that positions
//! far into a long context are as exact as near ones.
//!
//! Invariant: row `p` of a table depends on the config and `p` alone, not on the table's length,
//! but for the scalings that [`length_dependence`] names; never on a sequence's running length.

use std::f64::consts::PI;

use crate::config::{RopeConfig, RopeScaling};
use crate::ops::RopeTable;

/// The table for positions below `max_model_len`, which is also the context length where a scaling
/// depends on one.
pub(crate) fn rope_table(rope: &RopeConfig, max_model_len: usize) -> RopeTable {
    let frequencies = inverse_frequencies(rope, max_model_len);
    let factor = match rope.scaling {
        RopeScaling::Yarn {
            attention_factor, ..
        }
        | RopeScaling::LongRope {
            attention_factor, ..
        } => attention_factor,
        _ => 1.0,
    };
    let mut cos = Vec::with_capacity(max_model_len * frequencies.len());
    let mut sin = Vec::with_capacity(max_model_len * frequencies.len());
    for position in 0..max_model_len {
        for frequency in &frequencies {
            let (s, c) = (position as f64 * frequency).sin_cos();
            cos.push((c * factor) as f32);
            sin.push((s * factor) as f32);
        }
    }
    RopeTable {
        rotary_dim: rope.rotary_dim,
        is_interleaved: rope.is_interleaved,
        cos,
        sin,
    }
}

/// The table that rotates nothing.
pub(crate) fn no_rope() -> RopeTable {
    RopeTable {
        rotary_dim: 0,
        is_interleaved: false,
        cos: Vec::new(),
        sin: Vec::new(),
    }
}

/// What of `max_model_len` enters the table: two engines that differ in it compute other bits.
pub(crate) fn length_dependence(rope: &RopeConfig, max_model_len: usize) -> Option<String> {
    match rope.scaling {
        RopeScaling::Dynamic { original, .. } if max_model_len as f64 > original => {
            Some(format!("ntk{max_model_len}"))
        }
        RopeScaling::LongRope { original, .. } if max_model_len as f64 > original => {
            Some("longrope".to_owned())
        }
        _ => None,
    }
}

/// Radians a position, for each pair of dimensions.
fn inverse_frequencies(rope: &RopeConfig, max_model_len: usize) -> Vec<f64> {
    let dim = rope.rotary_dim as f64;
    let theta = match rope.scaling {
        RopeScaling::Dynamic { factor, original } => {
            let stretch = (max_model_len as f64 / original).max(1.0);
            rope.theta * (factor * stretch - (factor - 1.0)).powf(dim / (dim - 2.0))
        }
        _ => rope.theta,
    };
    let scaled = |pair: usize| {
        let frequency = theta.powf(-((2 * pair) as f64) / dim);
        match &rope.scaling {
            RopeScaling::Default | RopeScaling::Dynamic { .. } => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::LongRope {
                short_factor,
                long_factor,
                original,
                ..
            } => match max_model_len as f64 > *original {
                true => frequency / long_factor[pair],
                false => frequency / short_factor[pair],
            },
            RopeScaling::Yarn { factor, .. } => {
                let divided = yarn_ramp(rope, pair);
                divided * frequency / factor + (1.0 - divided) * frequency
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: original,
            } => {
                let wavelength = 2.0 * PI / frequency;
                if wavelength > original / low_freq_factor {
                    frequency / factor
                } else if wavelength < original / high_freq_factor {
                    frequency
                } else {
                    let range = high_freq_factor - low_freq_factor;
                    let kept = (original / wavelength - low_freq_factor) / range;
                    (1.0 - kept) * frequency / factor + kept * frequency
                }
            }
        }
    };
    let divisor = |pair: usize| {
        let divisors = &rope.frequency_divisors;
        divisors.get(pair).map_or(1.0, |&d| f64::from(d))
    };
    (0..rope.rotary_dim / 2)
        .map(|pair| scaled(pair) / divisor(pair))
        .collect()
}

/// How far pair `pair` is divided rather than kept, from 0 to 1.
fn yarn_ramp(rope: &RopeConfig, pair: usize) -> f64 {
    let RopeScaling::Yarn {
        original,
        beta_fast,
        beta_slow,
        truncates,
        ..
    } = rope.scaling
    else {
        return 0.0;
    };
    let dim = rope.rotary_dim as f64;
    // The pair that turns so many times over the original context.
    let pair_of = |turns: f64| dim * (original / (turns * 2.0 * PI)).ln() / (2.0 * rope.theta.ln());
    let (mut low, mut high) = (pair_of(beta_fast), pair_of(beta_slow));
    if truncates {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(scaling: RopeScaling) -> RopeConfig {
        RopeConfig {
            theta: 10_000.0,
            rotary_dim: 8,
            scaling,
            frequency_divisors: Vec::new(),
            is_interleaved: false,
        }
    }

    #[test]
    fn divisors_of_a_file_divide_their_own_frequency() {
        let mut rope = config(RopeScaling::Default);
        rope.frequency_divisors = vec![1.0, 1.0, 4.0, 8.0];
        let frequencies = inverse_frequencies(&rope, 8);
        for (found, expected) in frequencies.iter().zip([1.0, 0.1, 0.0025, 0.000_125]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn default_frequencies_are_a_geometric_series() {
        let frequencies = inverse_frequencies(&config(RopeScaling::Default), 64);
        for (found, expected) in frequencies.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn linear_divides_every_frequency() {
        let frequencies = inverse_frequencies(&config(RopeScaling::Linear { factor: 4.0 }), 64);
        assert!((frequencies[0] - 0.25).abs() < 1e-12);
        assert!((frequencies[3] - 0.00025).abs() < 1e-12);
    }

    #[test]
    fn llama3_keeps_high_divides_low_and_blends_between() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 128.0,
        };
        let frequencies = inverse_frequencies(&config(scaling), 64);
        // Wavelengths 6.28, 62.8, 628 and 6283 against borders 32 and 128.
        assert!((frequencies[0] - 1.0).abs() < 1e-12);
        let kept = (128.0 / (20.0 * PI) - 1.0) / 3.0;
        let blended = (1.0 - kept) * 0.1 / 8.0 + kept * 0.1;
        assert!((frequencies[1] - blended).abs() < 1e-12);
        assert!((frequencies[2] - 0.01 / 8.0).abs() < 1e-12);
        assert!((frequencies[3] - 0.001 / 8.0).abs() < 1e-12);
    }

    #[test]
    fn a_row_does_not_depend_on_the_length() {
        let rope = config(RopeScaling::Default);
        let (short, long) = (rope_table(&rope, 3), rope_table(&rope, 50));
        assert_eq!(short.cos[..], long.cos[..12]);
        assert_eq!(short.sin[..], long.sin[..12]);
        assert_eq!(long.cos[45 * 4], (45.0f64).cos() as f32);
    }

    /// Expected values: transformers' `_compute_yarn_parameters` by hand. With a base of 10,000,
    /// eight dimensions and an original context of 64, thirty-two turns fall before pair 0 and one
    /// turn on pair 1.008, which is rounded up to 2: the ramp goes from 0 to 2.
    #[test]
    fn yarn_divides_along_a_ramp_and_scales_the_table() {
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            original: 64.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncates: true,
            attention_factor: 1.5,
        };
        let rope = config(scaling);
        let frequencies = inverse_frequencies(&rope, 256);
        let expected = [1.0, 0.1 * (0.5 / 4.0 + 0.5), 0.01 / 4.0, 0.001 / 4.0];
        for (found, expected) in frequencies.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        let table = rope_table(&rope, 256);
        assert_eq!(table.cos[..2], [1.5, 1.5]);
        assert_eq!(table.sin[4], (1.5 * 1.0f64.sin()) as f32);
        assert_eq!(length_dependence(&rope, 256), None);
    }

    #[test]
    fn longrope_chooses_its_divisors_by_the_served_length() {
        let rope = config(RopeScaling::LongRope {
            short_factor: vec![1.0, 2.0, 3.0, 4.0],
            long_factor: vec![5.0, 6.0, 7.0, 8.0],
            original: 16.0,
            attention_factor: 1.25,
        });
        let (short, long) = (
            inverse_frequencies(&rope, 16),
            inverse_frequencies(&rope, 17),
        );
        assert!((short[1] - 0.1 / 2.0).abs() < 1e-12, "{short:?}");
        assert!((long[1] - 0.1 / 6.0).abs() < 1e-12, "{long:?}");
        assert_eq!(rope_table(&rope, 16).cos[0], 1.25);
        assert_eq!(length_dependence(&rope, 16), None);
        assert_eq!(length_dependence(&rope, 17).as_deref(), Some("longrope"));
    }

    #[test]
    fn dynamic_raises_the_base_for_a_longer_context() {
        let rope = config(RopeScaling::Dynamic {
            factor: 2.0,
            original: 32.0,
        });
        assert_eq!(
            inverse_frequencies(&rope, 8),
            inverse_frequencies(&rope, 32)
        );
        // A stretch of 2: base 10,000 * 3^(8/6).
        let base = 10_000.0 * 3f64.powf(8.0 / 6.0);
        let found = inverse_frequencies(&rope, 64)[1];
        assert!((found - base.powf(-0.25)).abs() < 1e-12, "{found}");
        assert_eq!(length_dependence(&rope, 64).as_deref(), Some("ntk64"));
    }

    #[test]
    fn a_part_of_a_head_has_a_series_of_its_own() {
        let mut rope = config(RopeScaling::Default);
        rope.rotary_dim = 4;
        assert_eq!(inverse_frequencies(&rope, 9), [1.0, 0.01]);
        assert_eq!(rope_table(&rope, 9).cos.len(), 18);
        assert_eq!(no_rope().rotary_dim, 0);
    }
}
