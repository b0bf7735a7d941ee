//! What can be wrong with what the machine is given.

/// An error of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailoverError {
    /// Timers that break a rule.
    #[error("timers break the rule `{rule}`: at least {least} ms, got {got} ms")]
    Timers {
        /// The rule.
        rule: &'static str,
        /// The least value that would do, in milliseconds.
        least: u64,
        /// The value given, in milliseconds.
        got: u64,
    },
    /// Both nodes of a pair have the same rank.
    #[error("both nodes have rank {rank}; each needs its own")]
    EqualRanks {
        /// The rank.
        rank: u32,
    },
    /// A message of an epoch that is over.
    #[error("epoch {got} is over: {seen} has served")]
    StaleEpoch {
        /// The message's epoch.
        got: u64,
        /// The highest epoch known to have served.
        seen: u64,
    },
}
