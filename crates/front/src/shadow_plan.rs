//! Which running sequences a spare reads on with, and how far.
//!
//! The one that is furthest behind goes first, a round has a bound, and what does not fill blocks
//! waits: only whole blocks can be found again.
//!
//! Invariant: pure; a round is at most `max_num_tokens` new tokens, in whole blocks.

use std::time::Duration;

/// Bounds of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShadowLimits {
    /// Tokens in a KV block of the spare.
    pub(crate) block_size: usize,
    /// A sequence that is less than this behind waits.
    pub(crate) min_lag_tokens: usize,
    /// New tokens in a round.
    pub(crate) max_num_tokens: usize,
    /// Tokens that the spare holds, of all sequences.
    pub(crate) max_num_held_tokens: usize,
}

/// How far a sequence can be read, and how far it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) num_readable: usize,
    pub(crate) num_read: usize,
}

impl Extent {
    /// Ids in whole blocks that are not read yet.
    pub(crate) fn num_unread(self, block_size: usize) -> usize {
        let num_whole = self.num_readable / block_size * block_size;
        num_whole.saturating_sub(self.num_read)
    }
}

/// The next round: places in `extents`, and up to where each is to be read.
pub(crate) fn plan(limits: &ShadowLimits, extents: &[Extent]) -> Vec<(usize, usize)> {
    let block_size = limits.block_size.max(1);
    let num_held: usize = extents.iter().map(|extent| extent.num_read).sum();
    let room = limits.max_num_held_tokens.saturating_sub(num_held);
    let mut budget = limits.max_num_tokens.min(room) / block_size * block_size;
    let lags = extents
        .iter()
        .map(|extent| extent.num_unread(block_size))
        .enumerate();
    let mut behind: Vec<(usize, usize)> = lags
        .filter(|(_, lag)| *lag >= limits.min_lag_tokens.max(block_size))
        .collect();
    behind.sort_unstable_by_key(|&(place, lag)| (usize::MAX - lag, place));
    let mut round = Vec::new();
    for (place, lag) in behind {
        let num_tokens = lag.min(budget);
        if num_tokens == 0 {
            break;
        }
        budget -= num_tokens;
        round.push((place, extents[place].num_read + num_tokens));
    }
    round
}

/// Tokens that the next round may have where this one might have had `bound`, had `num_tokens`, and
/// took so long: as many as fit into `max_time`, and no more than twice as many.
pub(crate) fn next_bound(
    bound: usize,
    num_tokens: usize,
    took: Duration,
    max_time: Duration,
) -> usize {
    let fitting = num_tokens as u128 * max_time.as_micros() / took.as_micros().max(1);
    usize::try_from(fitting)
        .unwrap_or(usize::MAX)
        .min(bound.saturating_mul(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ShadowLimits = ShadowLimits {
        block_size: 16,
        min_lag_tokens: 32,
        max_num_tokens: 100,
        max_num_held_tokens: 1_000,
    };

    fn extents(pairs: &[(usize, usize)]) -> Vec<Extent> {
        let extent = |&(num_readable, num_read)| Extent {
            num_readable,
            num_read,
        };
        pairs.iter().map(extent).collect()
    }

    #[test]
    fn whoever_is_furthest_behind_goes_first_in_whole_blocks() {
        let all = extents(&[(47, 16), (100, 32), (48, 16), (31, 0), (80, 48)]);
        assert_eq!(plan(&LIMITS, &all), [(1, 96), (2, 48)]);
        let limits = ShadowLimits {
            max_num_tokens: 1_000,
            ..LIMITS
        };
        assert_eq!(plan(&limits, &all), [(1, 96), (2, 48), (4, 80)]);
    }

    #[test]
    fn a_long_one_takes_several_rounds() {
        let mut extent = extents(&[(300, 0)]);
        let mut rounds = Vec::new();
        while let [(0, num_ids)] = plan(&LIMITS, &extent)[..] {
            extent[0].num_read = num_ids;
            rounds.push(num_ids);
        }
        assert_eq!(rounds, [96, 192, 288]);
    }

    #[test]
    fn a_round_grows_and_shrinks_with_its_time() {
        let ms = Duration::from_millis;
        assert_eq!(next_bound(64, 64, ms(1), ms(50)), 128);
        assert_eq!(next_bound(512, 512, ms(40), ms(50)), 640);
        assert_eq!(next_bound(512, 512, ms(1_700), ms(50)), 15);
        assert_eq!(next_bound(512, 32, ms(2), ms(50)), 800, "it was not needed");
        assert_eq!(next_bound(64, 64, Duration::ZERO, ms(50)), 128);
    }

    #[test]
    fn no_more_is_read_than_the_spare_can_hold() {
        let all = extents(&[(2_000, 960), (500, 0)]);
        assert_eq!(plan(&LIMITS, &all), [(0, 992)]);
        let all = extents(&[(2_000, 992), (500, 0)]);
        assert_eq!(plan(&LIMITS, &all), []);
    }
}
