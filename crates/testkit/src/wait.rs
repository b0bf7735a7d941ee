//! Bounded waiting for something to become true.
//!
//! Invariant: never sleeps longer than the timeout; the panic says what was awaited.

use std::time::{Duration, Instant};

/// Polls `condition` every 10 ms until it holds.
///
/// # Panics
/// When `timeout` has passed.
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < timeout,
            "waited {timeout:?} in vain until {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
