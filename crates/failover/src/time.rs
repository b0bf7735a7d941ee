//! The time of a node: milliseconds of its boot-time clock, handed in by the caller.
//!
//! The driver reads `CLOCK_BOOTTIME`, which goes on while a machine is suspended, and rounds down:
//! an interval that begins early ends early, which is the safe side for every lease rule.
//!
//! Invariant: a `BootTime` of one node is never compared with one of another.

use serde::{Deserialize, Serialize};

/// A reading of one node's boot-time clock, in milliseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct BootTime(u64);

impl BootTime {
    /// The first reading there is.
    pub const ZERO: Self = Self(0);
    /// Later than any reading: "without end".
    pub const MAX: Self = Self(u64::MAX);

    /// A reading of `ms` milliseconds.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// The reading in milliseconds.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// `ms` milliseconds after this reading.
    #[must_use]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; zero when that is not earlier.
    #[must_use]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
