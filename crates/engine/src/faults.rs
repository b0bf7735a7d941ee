//! Faults on demand: what `HOTSPARE_FAULTS` says, for fault tests and drills.
//!
//! Off by default, and present in release builds, because a drill that needs another binary drills
//! another binary. The grammar is that of [`Faults::parse`].
//!
//! Invariant: without the variable nothing here has any effect.

use std::time::Duration;

use hotspare_batch::{Batch, SequenceEvent, TokenId};

/// Name of the variable that holds the faults.
pub const FAULTS_VARIABLE: &str = "HOTSPARE_FAULTS";

/// Name of the variable that says how often the engine was started before.
pub const LIFE_VARIABLE: &str = "HOTSPARE_ENGINE_LIFE";

/// What happens at a certain token. Tokens are counted from 1 over all sequences of an engine's
/// life (or those that [`Faults::first_request_id`] leaves), in the order in which they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// The engine dies after the frame of the token before.
    DieBefore,
    /// The engine dies after the token's frame.
    DieAfter,
    /// The engine dies when it has written half of the token's frame.
    DieInFrame,
    /// The engine stops working before the token's frame, and lives on.
    Hang,
    /// The engine dies when it is about to run a step with a sequence whose prompt holds an id.
    DieOnTokenId,
}

/// The faults of one engine's life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A fault at the k-th token.
    pub at_token: Option<(TokenFault, u64)>,
    /// Tokens of sequences with lower request ids are not counted.
    pub first_request_id: u64,
    /// The engine dies when a sequence whose prompt holds this id is in a step.
    pub die_on_token_id: Option<TokenId>,
    /// Time added to each step.
    pub slow_step: Duration,
}

/// A fault specification that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("faults: `{item}`: {reason}")]
pub struct FaultsError {
    item: String,
    reason: &'static str,
}

/// Which lives a group of faults is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lives {
    One(u64),
    All,
}

impl Faults {
    /// Parses a specification and picks what concerns life `life` of the engine.
    ///
    /// The grammar: groups separated by `;`, each a list of items separated by `,`:
    /// - `die-before-token=K`, `die-after-token=K`, `die-in-frame-of-token=K`, `hang-at-token=K`:
    ///   see [`TokenFault`]; K counts from 1; at most one of them in a group.
    /// - `from-request=R`: tokens are counted over the sequences whose request id is R or more. A
    ///   front numbers the sequences that it starts from 0; one that it continues keeps its number.
    /// - `die-on-token-id=X`: the engine dies when it is about to run a step with a sequence whose
    ///   prompt holds token id X: a request that is poison.
    /// - `slow-step-ms=N`: each step takes N milliseconds longer.
    /// - `engine=L`: the group is for the engine that was started L times before (0 is the first),
    ///   or for every one: `engine=all`. Without it a group is for the first, so that an engine
    ///   that was restarted lives.
    ///
    /// A specification may be empty. Of two groups for the same life the later one counts.
    ///
    /// # Errors
    /// An item that is not in this list, or a number that is none.
    pub fn parse(text: &str, life: u64) -> Result<Self, FaultsError> {
        let mut chosen = Self::default();
        for group in text.split(';').map(str::trim).filter(|g| !g.is_empty()) {
            let (faults, lives) = parse_group(group)?;
            if lives == Lives::All || lives == Lives::One(life) {
                chosen = faults;
            }
        }
        Ok(chosen)
    }
}

impl Faults {
    /// Tokens of `event` that count.
    pub(crate) fn num_counted(&self, event: &SequenceEvent) -> u64 {
        match event.request_id.0 >= self.first_request_id {
            true => event.token_ids.len() as u64,
            false => 0,
        }
    }

    /// The fault of this step, if one of its new sequences is poison.
    pub(crate) fn of_step(&self, batch: &Batch) -> Option<TokenFault> {
        let poison = self.die_on_token_id?;
        let mut inits = batch.slot_inits.iter();
        let is_poisoned = inits.any(|init| {
            let num_prompt = (init.num_prompt_tokens as usize).min(init.token_ids.len());
            init.token_ids[..num_prompt].contains(&poison)
        });
        is_poisoned.then_some(TokenFault::DieOnTokenId)
    }
}

fn parse_group(group: &str) -> Result<(Faults, Lives), FaultsError> {
    let mut faults = Faults::default();
    let mut lives = Lives::One(0);
    for item in group.split(',').map(str::trim) {
        let error = |reason| FaultsError {
            item: item.to_owned(),
            reason,
        };
        let (name, value) = item
            .split_once('=')
            .ok_or_else(|| error("expected NAME=NUMBER"))?;
        if (name, value) == ("engine", "all") {
            lives = Lives::All;
            continue;
        }
        let number: u64 = value
            .parse()
            .map_err(|_| error("expected a whole number after `=`"))?;
        let at_token = match name {
            "die-before-token" => TokenFault::DieBefore,
            "die-after-token" => TokenFault::DieAfter,
            "die-in-frame-of-token" => TokenFault::DieInFrame,
            "hang-at-token" => TokenFault::Hang,
            "slow-step-ms" => {
                faults.slow_step = Duration::from_millis(number);
                continue;
            }
            "from-request" => {
                faults.first_request_id = number;
                continue;
            }
            "die-on-token-id" => {
                let id = TokenId::try_from(number).map_err(|_| error("no token id is so high"))?;
                faults.die_on_token_id = Some(id);
                continue;
            }
            "engine" => {
                lives = Lives::One(number);
                continue;
            }
            _ => return Err(error("no fault has this name")),
        };
        if number == 0 {
            return Err(error("tokens count from 1"));
        }
        if faults.at_token.replace((at_token, number)).is_some() {
            return Err(error("a group has one fault at a token"));
        }
    }
    Ok((faults, lives))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_token(text: &str, life: u64) -> Option<(TokenFault, u64)> {
        Faults::parse(text, life)
            .expect("test faults parse")
            .at_token
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(Faults::parse("", 0).unwrap(), Faults::default());
        assert_eq!(Faults::parse(" ; ", 0).unwrap(), Faults::default());
    }

    #[test]
    fn a_group_is_for_the_first_life_unless_it_says_otherwise() {
        let die = Some((TokenFault::DieAfter, 5));
        assert_eq!(at_token("die-after-token=5", 0), die);
        assert_eq!(at_token("die-after-token=5", 1), None);
        assert_eq!(at_token("die-after-token=5,engine=2", 1), None);
        assert_eq!(at_token("die-after-token=5,engine=2", 2), die);
        assert_eq!(at_token("engine=all, die-after-token=5", 9), die);
    }

    #[test]
    fn groups_are_told_apart_by_life() {
        let text = "die-before-token=1; hang-at-token=3,slow-step-ms=20,engine=2;\
                    die-in-frame-of-token=7,engine=3";
        assert_eq!(at_token(text, 0), Some((TokenFault::DieBefore, 1)));
        assert_eq!(at_token(text, 2), Some((TokenFault::Hang, 3)));
        assert_eq!(at_token(text, 3), Some((TokenFault::DieInFrame, 7)));
        assert_eq!(at_token(text, 4), None);
        let slow = |life| Faults::parse(text, life).unwrap().slow_step;
        assert_eq!(slow(2), Duration::from_millis(20));
        assert_eq!(slow(0), Duration::ZERO);
    }

    #[test]
    fn poison_and_the_first_request_are_numbers() {
        let faults = Faults::parse("die-on-token-id=77,from-request=5", 0).unwrap();
        assert_eq!(faults.die_on_token_id, Some(77));
        assert_eq!(faults.first_request_id, 5);
        let init = |prompt: &[TokenId], output: &[TokenId]| hotspare_batch::SlotInit {
            slot: 0,
            token_ids: [prompt, output].concat().into(),
            num_prompt_tokens: prompt.len() as u32,
            sampling: Default::default(),
            stop: Default::default(),
        };
        let batch = |slot_inits| Batch {
            slot_inits,
            ..Batch::default()
        };
        let innocent = batch(vec![init(&[1, 2], &[77])]);
        assert_eq!(faults.of_step(&innocent), None, "output is not prompt");
        let poison = batch(vec![init(&[1], &[]), init(&[3, 77], &[])]);
        assert_eq!(faults.of_step(&poison), Some(TokenFault::DieOnTokenId));
    }

    #[test]
    fn mistakes_are_named() {
        let message = |text| Faults::parse(text, 0).unwrap_err().to_string();
        assert_eq!(
            message("die-after-token"),
            "faults: `die-after-token`: expected NAME=NUMBER"
        );
        assert_eq!(
            message("explode=1"),
            "faults: `explode=1`: no fault has this name"
        );
        assert!(message("die-after-token=x").contains("whole number"));
        assert!(message("die-after-token=0").contains("count from 1"));
        assert!(message("die-after-token=1,hang-at-token=2").contains("one fault"));
        assert!(message("engine=2,").contains("expected NAME=NUMBER"));
    }
}
