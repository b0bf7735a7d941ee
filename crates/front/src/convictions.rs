//! Requests that ended engines: remembered by content for a while, and refused meanwhile.
//!
//! The content is what enters the engine and comes from the client: prompt ids and parameters. A
//! seed that the server drew and the number of the choice are left out, so that a client that just
//! tries again is recognized.
//!
//! Invariant: bounded in number and time; of too many the oldest is forgotten.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hotspare_batch::{SamplingParams, StopParams, TokenId};

/// Hash of a request's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentHash([u8; 32]);

impl ContentHash {
    /// Of one prompt with its parameters.
    pub(crate) fn new(prompt: &[TokenId], sampling: &SamplingParams, stop: &StopParams) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("hotspare convicted request v1");
        let mut list = |ids: &[TokenId]| {
            hasher.update(&(ids.len() as u64).to_le_bytes());
            for id in ids {
                hasher.update(&id.to_le_bytes());
            }
        };
        list(prompt);
        list(&sampling.allowed_token_ids);
        list(&stop.stop_token_ids);
        let (bias_ids, biases): (Vec<_>, Vec<_>) = sampling.logit_bias.iter().copied().unzip();
        list(&bias_ids);
        let numbers = [
            sampling.temperature,
            sampling.top_p,
            sampling.min_p,
            sampling.repetition_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        ];
        for number in numbers.into_iter().chain(biases) {
            hasher.update(&number.to_bits().to_le_bytes());
        }
        let counts = [
            Some(sampling.top_k),
            sampling.num_logprobs,
            sampling.num_prompt_logprobs,
            Some(stop.min_tokens),
            Some(stop.ignore_eos.into()),
        ];
        for count in counts {
            let count = count.map_or(u64::MAX, u64::from);
            hasher.update(&count.to_le_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Convictions {
    max_num: usize,
    time_to_live: Duration,
    /// In the order in which they end.
    entries: VecDeque<(Instant, ContentHash)>,
    /// What stands against content that could not be tried again.
    accused: VecDeque<(Instant, ContentHash, u32)>,
}

/// Strikes that convict: two ends of an engine that worked on nothing else, or twice as many that
/// worked on others too.
const MAX_NUM_STRIKES: u32 = 4;

impl Convictions {
    pub(crate) fn new(max_num: usize, time_to_live: Duration) -> Self {
        Self {
            max_num,
            time_to_live,
            entries: VecDeque::new(),
            accused: VecDeque::new(),
        }
    }

    pub(crate) fn add(&mut self, content: ContentHash, now: Instant) {
        self.entries.retain(|(_, known)| *known != content);
        while self.entries.len() >= self.max_num.max(1) {
            self.entries.pop_front();
        }
        self.entries.push_back((now + self.time_to_live, content));
    }

    /// An engine ended by itself while it worked on this; `was_alone`: on nothing else. True where
    /// that is the once too often.
    pub(crate) fn accuse(&mut self, content: ContentHash, was_alone: bool, now: Instant) -> bool {
        let known = self
            .accused
            .iter()
            .position(|(_, known, _)| *known == content);
        let before = known.and_then(|place| self.accused.remove(place));
        let before = before
            .filter(|(until, ..)| *until > now)
            .map_or(0, |(.., n)| n);
        let num_strikes = before + if was_alone { 2 } else { 1 };
        if num_strikes >= MAX_NUM_STRIKES {
            return true;
        }
        while self.accused.len() >= self.max_num.max(1) {
            self.accused.pop_front();
        }
        self.accused
            .push_back((now + self.time_to_live, content, num_strikes));
        false
    }

    /// How much longer it is refused.
    pub(crate) fn remaining(&self, content: ContentHash, now: Instant) -> Option<Duration> {
        let mut entries = self.entries.iter();
        let (until, _) = entries.find(|(_, known)| *known == content)?;
        until
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(prompt: &[TokenId], seed: u64) -> ContentHash {
        let sampling = SamplingParams {
            seed,
            choice: seed as u32,
            ..SamplingParams::default()
        };
        ContentHash::new(prompt, &sampling, &StopParams::default())
    }

    #[test]
    fn content_is_prompt_and_parameters() {
        assert_eq!(hash(&[1, 2], 1), hash(&[1, 2], 2), "the seed was ours");
        assert_ne!(hash(&[1, 2], 1), hash(&[1, 3], 1));
        assert_ne!(hash(&[1, 2], 1), hash(&[1], 1));
        let (sampling, stop) = (SamplingParams::default(), StopParams::default());
        let warm = SamplingParams {
            temperature: 0.5,
            ..sampling.clone()
        };
        let biased = SamplingParams {
            logit_bias: vec![(1, 0.5)],
            ..sampling.clone()
        };
        let plain = ContentHash::new(&[1], &sampling, &stop);
        assert_ne!(ContentHash::new(&[1], &warm, &stop), plain);
        assert_ne!(ContentHash::new(&[1], &biased, &stop), plain);
    }

    #[test]
    fn what_cannot_be_tried_is_convicted_by_its_strikes() {
        let second = Duration::from_secs(1);
        let mut convictions = Convictions::new(2, 10 * second);
        let start = Instant::now();
        let [a, b, c] = [1, 2, 3].map(|id| hash(&[id], 0));
        assert!(!convictions.accuse(a, true, start));
        assert!(convictions.accuse(a, true, start + second), "twice alone");
        for _ in 0..3 {
            assert!(!convictions.accuse(b, false, start));
        }
        assert!(convictions.accuse(b, false, start), "four times in company");
        assert!(!convictions.accuse(c, true, start));
        assert!(
            !convictions.accuse(c, true, start + 10 * second),
            "it is long ago"
        );
        assert!(!convictions.accuse(a, true, start + 10 * second));
        assert!(!convictions.accuse(b, true, start + 10 * second));
        assert!(
            !convictions.accuse(c, true, start + 11 * second),
            "of three the oldest went"
        );
    }

    #[test]
    fn a_conviction_ends_by_time_and_by_number() {
        let second = Duration::from_secs(1);
        let mut convictions = Convictions::new(2, 10 * second);
        let start = Instant::now();
        let [a, b, c] = [1, 2, 3].map(|id| hash(&[id], 0));
        convictions.add(a, start);
        convictions.add(b, start + second);
        assert_eq!(
            convictions.remaining(a, start + 4 * second),
            Some(6 * second)
        );
        assert_eq!(convictions.remaining(a, start + 10 * second), None);
        assert_eq!(convictions.remaining(c, start), None);
        convictions.add(a, start + 2 * second);
        convictions.add(c, start + 3 * second);
        assert_eq!(
            convictions.remaining(b, start + 3 * second),
            None,
            "the oldest went"
        );
        assert!(
            convictions.remaining(a, start + 11 * second).is_some(),
            "renewed"
        );
    }
}
