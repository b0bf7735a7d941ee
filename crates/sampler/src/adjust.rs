//! Changes to logits before temperature: allowed ids, minimum length, the row's mask, bias,
//! penalties, in this order.
//!
//! Invariant: each step touches only the logits of the tokens it names; an id outside the
//! vocabulary names none.

use hotspare_batch::{TokenId, TokenMask};

use crate::slot::SlotState;

/// Applies what `slot`'s parameters ask for, and the mask of its row, if it has one. `saved` is
/// scratch.
pub(crate) fn adjust(
    logits: &mut [f32],
    slot: &SlotState,
    mask: Option<&[u32]>,
    saved: &mut Vec<(TokenId, f32)>,
) {
    let sampling = slot.sampling();
    if !sampling.allowed_token_ids.is_empty() {
        allow_only(logits, &sampling.allowed_token_ids, saved);
    }
    if slot.num_output_tokens() < slot.stop().min_tokens {
        let stop = slot.stop();
        for token in stop.eos_token_ids.iter().chain(&stop.stop_token_ids) {
            change(logits, *token, |_| f32::NEG_INFINITY);
        }
    }
    if let Some(words) = mask {
        for (token, x) in logits.iter_mut().enumerate() {
            if !TokenMask::allows(words, token as TokenId) {
                *x = f32::NEG_INFINITY;
            }
        }
    }
    for &(token, bias) in &sampling.logit_bias {
        change(logits, token, |x| x + bias);
    }
    if slot.has_penalties() {
        penalize(logits, slot);
    }
}

/// Whether [`adjust`] would change anything.
pub(crate) fn is_needed(slot: &SlotState) -> bool {
    let sampling = slot.sampling();
    !sampling.allowed_token_ids.is_empty()
        || slot.num_output_tokens() < slot.stop().min_tokens
        || !sampling.logit_bias.is_empty()
        || slot.has_penalties()
}

fn change(logits: &mut [f32], token: TokenId, f: impl Fn(f32) -> f32) {
    if let Some(x) = logits.get_mut(token as usize) {
        *x = f(*x);
    }
}

/// Minus infinity for every token that is not in `allowed`.
fn allow_only(logits: &mut [f32], allowed: &[TokenId], saved: &mut Vec<(TokenId, f32)>) {
    saved.clear();
    let known = allowed
        .iter()
        .filter_map(|&t| Some((t, *logits.get(t as usize)?)));
    saved.extend(known);
    logits.fill(f32::NEG_INFINITY);
    for &(token, x) in saved.iter() {
        logits[token as usize] = x;
    }
}

/// Repetition counts prompt and output, frequency and presence the output only.
fn penalize(logits: &mut [f32], slot: &SlotState) {
    let sampling = slot.sampling();
    let repetition = sampling.repetition_penalty;
    for (token, num_output) in slot.counts() {
        change(logits, token, |x| {
            let x = if x > 0.0 {
                x / repetition
            } else {
                x * repetition
            };
            let x = x - sampling.frequency_penalty * num_output as f32;
            if num_output > 0 {
                x - sampling.presence_penalty
            } else {
                x
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hotspare_batch::{SamplingParams, SlotInit, StopParams};

    use super::*;

    fn adjusted(sampling: SamplingParams, stop: StopParams, ids: &[u32], prompt: u32) -> Vec<f32> {
        let mut slot = SlotState::default();
        slot.reset(&SlotInit {
            slot: 0,
            token_ids: ids.into(),
            num_prompt_tokens: prompt,
            sampling: Arc::new(sampling),
            stop: Arc::new(stop),
        });
        let mut logits = vec![1.0, -1.0, 2.0, -2.0, 0.5];
        adjust(&mut logits, &slot, None, &mut Vec::new());
        logits
    }

    const OUT: f32 = f32::NEG_INFINITY;

    #[test]
    fn allowed_ids_mask_all_others_and_bias_cannot_bring_them_back() {
        let sampling = SamplingParams {
            allowed_token_ids: vec![3, 1, 99],
            logit_bias: vec![(0, 50.0), (1, 0.5), (77, 1.0)],
            ..Default::default()
        };
        let logits = adjusted(sampling, StopParams::default(), &[0], 1);
        assert_eq!(logits, [OUT, -0.5, OUT, -2.0, OUT]);
    }

    #[test]
    fn min_tokens_masks_ends_until_it_is_reached() {
        let stop = StopParams {
            min_tokens: 2,
            eos_token_ids: vec![2],
            stop_token_ids: vec![4],
            ..Default::default()
        };
        let sampling = SamplingParams::default;
        let early = adjusted(sampling(), stop.clone(), &[0, 0, 1], 2);
        assert_eq!(early, [1.0, -1.0, OUT, -2.0, OUT]);
        let late = adjusted(sampling(), stop, &[0, 0, 1, 1], 2);
        assert_eq!(late, [1.0, -1.0, 2.0, -2.0, 0.5]);
    }

    #[test]
    fn penalties_count_prompt_and_output_as_vllm_does() {
        let sampling = SamplingParams {
            repetition_penalty: 2.0,
            frequency_penalty: 0.25,
            presence_penalty: 0.5,
            ..Default::default()
        };
        // Prompt 0 1; output 1 2 2.
        let logits = adjusted(sampling, StopParams::default(), &[0, 1, 1, 2, 2], 2);
        assert_eq!(logits, [0.5, -2.0 - 0.25 - 0.5, 1.0 - 0.5 - 0.5, -2.0, 0.5]);
    }

    #[test]
    fn a_pushed_token_counts_like_one_of_the_first_state() {
        let sampling = Arc::new(SamplingParams {
            frequency_penalty: 0.5,
            ..Default::default()
        });
        let init = |ids: &[u32]| SlotInit {
            slot: 0,
            token_ids: ids.into(),
            num_prompt_tokens: 1,
            sampling: Arc::clone(&sampling),
            stop: Arc::default(),
        };
        let (mut pushed, mut whole) = (SlotState::default(), SlotState::default());
        pushed.reset(&init(&[4, 4, 4]));
        pushed.reset(&init(&[0, 1]));
        pushed.push(2);
        pushed.push(2);
        whole.reset(&init(&[0, 1, 2, 2]));
        assert_eq!(pushed.num_output_tokens(), 3);
        assert_eq!(pushed.last_token(), Some(2));
        let (mut a, mut b) = (vec![0.0; 5], vec![0.0; 5]);
        adjust(&mut a, &pushed, None, &mut Vec::new());
        adjust(&mut b, &whole, None, &mut Vec::new());
        assert_eq!(a, b);
        assert_eq!(a, [0.0, -0.5, -1.0, 0.0, 0.0]);
    }
}
