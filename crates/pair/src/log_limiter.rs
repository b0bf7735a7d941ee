//! Keeps a log line of a kind from filling the log: one an interval, and how many were left out.
//!
//! Invariant: the number of kinds is fixed by the code, so memory is bounded.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// When lines of each kind were last written, and how many were not since.
#[derive(Debug)]
pub(crate) struct LogLimiter {
    interval_ms: u64,
    kinds: Mutex<BTreeMap<&'static str, (Instant, u64)>>,
}

impl LogLimiter {
    pub(crate) fn new(interval_ms: u64) -> Self {
        Self {
            interval_ms,
            kinds: Mutex::new(BTreeMap::new()),
        }
    }

    /// `Some(n)`: write it, and say that `n` others were left out.
    pub(crate) fn allow(&self, kind: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((last, left_out)) = kinds.get_mut(kind) else {
            kinds.insert(kind, (now, 0));
            return Some(0);
        };
        if now.duration_since(*last).as_millis() < u128::from(self.interval_ms) {
            *left_out += 1;
            return None;
        }
        *last = now;
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_limited_each_for_itself() {
        let limiter = LogLimiter::new(3_600_000);
        assert_eq!(limiter.allow("a"), Some(0));
        assert_eq!(limiter.allow("a"), None);
        assert_eq!(limiter.allow("b"), Some(0));
        let always = LogLimiter::new(0);
        assert_eq!((always.allow("a"), always.allow("a")), (Some(0), Some(0)));
    }
}
