//! Rotary angle tables, computed once at load.
//!
//! Angles are computed in f64 and only their cosines and sines rounded to f32, so that positions
//! far into a long context are as exact as near ones.
//!
//! Invariant: row `p` of a table depends on the config and `p` alone, not on the table's length.

use std::f64::consts::PI;

use crate::config::{RopeConfig, RopeScaling};
use crate::ops::RopeTable;

/// The table for heads of `head_dim` and positions below `max_model_len`.
pub(crate) fn rope_table(rope: &RopeConfig, head_dim: usize, max_model_len: usize) -> RopeTable {
    let frequencies = inverse_frequencies(rope, head_dim);
    let mut cos = Vec::with_capacity(max_model_len * frequencies.len());
    let mut sin = Vec::with_capacity(max_model_len * frequencies.len());
    for position in 0..max_model_len {
        for frequency in &frequencies {
            let (s, c) = (position as f64 * frequency).sin_cos();
            cos.push(c as f32);
            sin.push(s as f32);
        }
    }
    RopeTable {
        rotary_dim: head_dim,
        is_interleaved: rope.is_interleaved,
        cos,
        sin,
    }
}

/// Radians a position, for each pair of dimensions.
fn inverse_frequencies(rope: &RopeConfig, head_dim: usize) -> Vec<f64> {
    let plain = |pair: usize| rope.theta.powf(-((2 * pair) as f64) / head_dim as f64);
    let scaled = |frequency: f64| match rope.scaling {
        RopeScaling::Default => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
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
    };
    let divisor = |pair: usize| {
        rope.frequency_divisors
            .get(pair)
            .map_or(1.0, |&d| f64::from(d))
    };
    (0..head_dim / 2)
        .map(|pair| scaled(plain(pair)) / divisor(pair))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(scaling: RopeScaling) -> RopeConfig {
        RopeConfig {
            theta: 10_000.0,
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
        let frequencies = inverse_frequencies(&config(RopeScaling::Default), 8);
        for (found, expected) in frequencies.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn linear_divides_every_frequency() {
        let frequencies = inverse_frequencies(&config(RopeScaling::Linear { factor: 4.0 }), 8);
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
        let frequencies = inverse_frequencies(&config(scaling), 8);
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
        let (short, long) = (rope_table(&rope, 8, 3), rope_table(&rope, 8, 50));
        assert_eq!(short.cos[..], long.cos[..12]);
        assert_eq!(short.sin[..], long.sin[..12]);
        assert_eq!(long.cos[45 * 4], (45.0f64).cos() as f32);
    }
}
