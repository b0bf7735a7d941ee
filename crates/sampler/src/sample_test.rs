//! Whole rows: the distribution, the filters' support, errors, and independence of everything else.

use std::sync::Arc;

use hotspare_batch::{RowError, SamplingParams, SlotInit, StopParams};
use proptest::prelude::*;

use crate::philox::uniform_f32;
use crate::{Scratch, SlotState, sample_masked_row, sample_row};

fn slot(sampling: SamplingParams) -> SlotState {
    let mut slot = SlotState::default();
    slot.reset(&SlotInit {
        slot: 0,
        token_ids: Arc::from([0]),
        num_prompt_tokens: 1,
        sampling: Arc::new(sampling),
        stop: Arc::new(StopParams::default()),
    });
    slot
}

fn draw_at(logits: &[f32], sampling: &SamplingParams, position: u32) -> u32 {
    let mut logits = logits.to_vec();
    let mut slot = slot(sampling.clone());
    let sampled = sample_row(&mut logits, &mut slot, position, &mut Scratch::default());
    sampled.unwrap().token
}

/// The exact distribution, in f64 and with sorts: temperature, min-p, top-k, top-p.
fn probabilities(logits: &[f32], sampling: &SamplingParams) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |x: f32| (f64::from(x - max) / f64::from(sampling.temperature)).exp();
    let mut weights: Vec<f64> = logits.iter().map(|&x| weight(x)).collect();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    for w in &mut weights {
        if *w < f64::from(sampling.min_p) {
            *w = 0.0;
        }
    }
    if sampling.top_k > 0 {
        order
            .iter()
            .skip(sampling.top_k as usize)
            .for_each(|&id| weights[id] = 0.0);
    }
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    for id in order {
        if sum >= f64::from(sampling.top_p) * total {
            weights[id] = 0.0;
        }
        sum += weights[id];
    }
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}

/// Draws `NUM_DRAWS` tokens and compares how often each came with its probability.
fn check_distribution(logits: &[f32], sampling: &SamplingParams) {
    const NUM_DRAWS: u32 = 20_000;
    let expected = probabilities(logits, sampling);
    let mut counts = vec![0u32; logits.len()];
    for position in 0..NUM_DRAWS {
        counts[draw_at(logits, sampling, position) as usize] += 1;
    }
    let (mut chi_square, mut num_bins) = (0.0, 0.0);
    let (mut rare_count, mut rare_expected) = (0.0, 0.0);
    for (&count, &p) in counts.iter().zip(&expected) {
        let expected = p * f64::from(NUM_DRAWS);
        assert!(
            p > 0.0 || count == 0,
            "a token outside the filters was drawn"
        );
        if expected < 5.0 {
            rare_count += f64::from(count);
            rare_expected += expected;
        } else {
            chi_square += (f64::from(count) - expected).powi(2) / expected;
            num_bins += 1.0;
        }
    }
    if rare_expected >= 5.0 {
        chi_square += (rare_count - rare_expected).powi(2) / rare_expected;
        num_bins += 1.0;
    }
    // Mean is the number of degrees of freedom, variance twice that: four deviations above it.
    let freedom: f64 = num_bins - 1.0;
    let bound = freedom + 4.0 * (2.0 * freedom).sqrt() + 4.0;
    assert!(chi_square < bound, "{chi_square} of {bound}: {sampling:?}");
}

fn random_logits(seed: u64, len: u32, spread: f32) -> Vec<f32> {
    (0..len)
        .map(|i| (uniform_f32(seed, i, 0, 0) - 0.5) * spread)
        .collect()
}

#[test]
fn draws_follow_the_exact_distribution() {
    let base = || SamplingParams {
        seed: 0x5eed,
        ..SamplingParams::default()
    };
    let cases = [
        base(),
        SamplingParams {
            temperature: 0.3,
            ..base()
        },
        SamplingParams {
            temperature: 2.5,
            choice: 3,
            ..base()
        },
        SamplingParams {
            min_p: 0.2,
            ..base()
        },
        SamplingParams { top_k: 7, ..base() },
        SamplingParams {
            top_p: 0.6,
            ..base()
        },
        SamplingParams {
            top_p: 0.9,
            min_p: 0.05,
            ..base()
        },
        SamplingParams {
            top_k: 20,
            top_p: 0.7,
            min_p: 0.02,
            temperature: 0.7,
            ..base()
        },
    ];
    for sampling in cases {
        for (len, spread) in [(40, 6.0), (600, 12.0)] {
            check_distribution(&random_logits(u64::from(len), len, spread), &sampling);
        }
    }
}

#[test]
fn greedy_takes_the_lowest_id_of_a_tie() {
    let sampling = SamplingParams::greedy();
    assert_eq!(draw_at(&[0.0, 3.0, 1.0, 3.0], &sampling, 5), 1);
    assert_eq!(draw_at(&[-0.0, 0.0], &sampling, 5), 0);
    assert_eq!(draw_at(&[f32::NEG_INFINITY, -7.0], &sampling, 5), 1);
}

#[test]
fn unusable_logits_are_the_rows_error_and_leave_the_slot() {
    let out = f32::NEG_INFINITY;
    let masked = SamplingParams {
        allowed_token_ids: vec![0],
        ..SamplingParams::default()
    };
    let with_logprobs = SamplingParams {
        num_logprobs: Some(2),
        ..SamplingParams::greedy()
    };
    for (logits, sampling) in [
        (vec![0.0, f32::NAN], SamplingParams::greedy()),
        (vec![0.0, f32::NAN], SamplingParams::default()),
        (vec![0.0, f32::INFINITY], SamplingParams::default()),
        (vec![out, out], with_logprobs),
        (vec![out, 1.0], masked.clone()),
        // Masks do not hide a broken model.
        (vec![0.0, f32::NAN], masked),
    ] {
        let mut slot = slot(sampling);
        let mut row = logits.clone();
        let result = sample_row(&mut row, &mut slot, 12, &mut Scratch::default());
        assert_eq!(
            result,
            Err(RowError::InvalidLogits { position: 11 }),
            "{logits:?}"
        );
        assert_eq!((slot.num_output_tokens(), slot.last_token()), (0, Some(0)));
    }
}

#[test]
fn a_mask_forbids_what_a_bias_cannot_bring_back() {
    let sampling = SamplingParams {
        logit_bias: vec![(2, 100.0)],
        ..SamplingParams::greedy()
    };
    let draw = |mask: Option<&[u32]>, sampling: &SamplingParams| {
        let mut slot = slot(sampling.clone());
        let mut logits = vec![1.0, 3.0, 0.0, 2.0];
        let scratch = &mut Scratch::default();
        sample_masked_row(&mut logits, &mut slot, mask, 1, scratch).map(|sampled| sampled.token)
    };
    assert_eq!(draw(None, &sampling), Ok(2));
    assert_eq!(draw(Some(&[0b1011]), &sampling), Ok(1));
    assert_eq!(draw(Some(&[0b1001]), &sampling), Ok(3));
    // Both masks hold, and a mask without words allows nothing.
    let allowed = SamplingParams {
        allowed_token_ids: vec![0, 1],
        ..sampling.clone()
    };
    assert_eq!(draw(Some(&[0b1001]), &allowed), Ok(0));
    let nothing = Err(RowError::InvalidLogits { position: 0 });
    assert_eq!(draw(Some(&[]), &sampling), nothing);
    assert_eq!(draw(Some(&[0b0100]), &allowed), nothing);
}

#[test]
fn logprobs_are_of_the_raw_logits() {
    let sampling = SamplingParams {
        num_logprobs: Some(2),
        temperature: 0.01,
        logit_bias: vec![(2, 100.0)],
        ..SamplingParams::default()
    };
    let mut slot = slot(sampling);
    let mut logits = vec![1.0, 2.0, 0.0];
    let sampled = sample_row(&mut logits, &mut slot, 1, &mut Scratch::default()).unwrap();
    let logprobs = sampled.logprobs.unwrap();
    assert_eq!((sampled.token, logprobs.rank), (2, 3));
    let log_sum = (1f64.exp() + 2f64.exp() + 1.0).ln() as f32;
    assert!((logprobs.logprob + log_sum).abs() < 1e-6);
    let ids: Vec<u32> = logprobs.top.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [1, 0]);
}

#[test]
fn seed_position_and_choice_each_change_the_draws() {
    let logits = random_logits(1, 500, 1.0);
    let tokens = |seed, choice, shift: u32| -> Vec<u32> {
        let sampling = SamplingParams {
            seed,
            choice,
            ..SamplingParams::default()
        };
        (0..20u32)
            .map(|i| draw_at(&logits, &sampling, shift + i))
            .collect()
    };
    let base = tokens(1, 0, 0);
    assert_eq!(base, tokens(1, 0, 0));
    assert_ne!(base, tokens(2, 0, 0));
    assert_ne!(base, tokens(1 << 32, 0, 0));
    assert_ne!(base, tokens(1, 1, 0));
    assert_ne!(base, tokens(1, 0, 100));
    assert_eq!(base[5..], tokens(1, 0, 5)[..15]);
}

proptest! {
    /// Whatever a scratch was used for before, a row's token and log-probabilities have the same
    /// bits.
    #[test]
    fn a_used_scratch_changes_nothing(
        seed in any::<u64>(),
        len in 1u32..400,
        top_k in 0u32..60,
        top_p in 0.01f32..=1.0,
        min_p in 0.0f32..0.3,
        temperature in 0.0f32..2.0,
    ) {
        let sampling = SamplingParams {
            seed, top_k, top_p, min_p, temperature,
            repetition_penalty: 1.2,
            num_logprobs: Some(3),
            ..SamplingParams::default()
        };
        let logits = random_logits(seed, len, 9.0);
        let mut used = Scratch::default();
        for other in 0..3 {
            let mut row = random_logits(other, 300, 5.0);
            let mut other_slot = slot(SamplingParams { top_p: 0.7, ..sampling.clone() });
            sample_row(&mut row, &mut other_slot, 3, &mut used).unwrap();
        }
        let fresh = sample_row(
            &mut logits.clone(), &mut slot(sampling.clone()), 9, &mut Scratch::default());
        let again = sample_row(&mut logits.clone(), &mut slot(sampling), 9, &mut used);
        prop_assert_eq!(fresh, again);
    }

    /// The drawn token is in the set that a naive oracle keeps.
    #[test]
    fn the_token_passed_every_filter(
        seed in any::<u64>(),
        len in 1u32..400,
        top_k in 0u32..60,
        top_p in 0.01f32..=1.0,
        min_p in 0.0f32..0.3,
    ) {
        let sampling = SamplingParams { seed, top_k, top_p, min_p, ..SamplingParams::default() };
        let logits = random_logits(seed, len, 9.0);
        let token = draw_at(&logits, &sampling, 4);
        // A hair wider than asked, since the oracle's rounding is not the sampler's.
        let wider = SamplingParams {
            top_p: (top_p * 1.000_01).min(1.0), min_p: min_p * 0.999_99, ..sampling };
        prop_assert!(probabilities(&logits, &wider)[token as usize] > 0.0);
    }
}
