//! Log-probabilities as a client sees them: log-softmax of the model's own logits.
//!
//! Invariant: computed from logits that no mask, bias, penalty or temperature has touched; ranks
//! and the list of the most likely follow one order, value descending, then id ascending.

use hotspare_batch::{RowError, TokenId, TokenLogprobs};

use crate::filter::{key_id, key_value, select_top_k};
use crate::reduce::{count, finite_max, sum_exp};

/// Log-probability and rank of `token`, which stands at `position` of its sequence, and the
/// `num_top` most likely tokens. `keys` is scratch.
///
/// # Errors
/// Logits that hold a NaN or plus infinity, or nothing above minus infinity.
pub fn token_logprobs(
    logits: &[f32],
    token: TokenId,
    position: u32,
    num_top: u32,
    keys: &mut Vec<u64>,
) -> Result<TokenLogprobs, RowError> {
    let max = finite_max(logits).ok_or(invalid_logits(position))?;
    let log_sum = sum_exp(logits, max).ln();
    let logprob = |x: f32| ((f64::from(x) - f64::from(max)) - log_sum) as f32;
    let index = (token as usize).min(logits.len());
    let (before, after) = logits.split_at(index);
    let own = after.first().copied().unwrap_or(f32::NEG_INFINITY);
    let num_better = count(before, |x| x >= own) + count(after, |x| x > own);
    select_top_k(logits, num_top as usize, keys);
    keys.sort_unstable_by(|a, b| b.cmp(a));
    let top = keys
        .iter()
        .map(|&key| (key_id(key), logprob(key_value(key))));
    Ok(TokenLogprobs {
        token,
        logprob: logprob(own),
        rank: num_better + 1,
        top: top.collect(),
    })
}

/// The error for unusable logits from which the token at `position` was to come: it names the token
/// before, whose logits they are.
pub(crate) fn invalid_logits(position: u32) -> RowError {
    RowError::InvalidLogits {
        position: position.saturating_sub(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_log_softmax_and_ranks_ties_by_id() {
        let logits = [0.5, 2.0, f32::NEG_INFINITY, 2.0, -1.0];
        let sum: f64 = [0.5f64, 2.0, 2.0, -1.0].iter().map(|x| x.exp()).sum();
        let expected = |x: f64| (x - sum.ln()) as f32;
        let close = |a: f32, b: f32| (a - b).abs() < 1e-6;
        let found = token_logprobs(&logits, 3, 9, 3, &mut Vec::new()).unwrap();
        assert!(close(found.logprob, expected(2.0)));
        assert_eq!(found.rank, 2);
        let ids: Vec<u32> = found.top.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [1, 3, 0]);
        assert!(close(found.top[2].1, expected(0.5)));
        let found = token_logprobs(&logits, 2, 9, 0, &mut Vec::new()).unwrap();
        assert_eq!((found.logprob, found.rank), (f32::NEG_INFINITY, 5));
        assert!(found.top.is_empty());
    }

    #[test]
    fn names_the_position_of_unusable_logits() {
        let error = token_logprobs(&[0.0, f32::NAN], 0, 9, 0, &mut Vec::new());
        assert_eq!(error, Err(RowError::InvalidLogits { position: 8 }));
    }
}
