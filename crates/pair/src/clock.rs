//! The node's clocks: boot time for every rule, wall time for people only.
//!
//! Boot time goes on while the machine is suspended. Readings are rounded down, which is the safe
//! side for leases.
//!
//! Invariant: no rule of the machine depends on wall time.

use hotspare_failover::BootTime;

/// Where a node reads the time. Tests may hand in another one.
pub trait Clock: Send + Sync {
    /// Milliseconds since the machine was switched on, suspended time included.
    fn now(&self) -> BootTime;
    /// Milliseconds since 1970, for logs and records.
    fn wall_ms(&self) -> u64;
}

/// `CLOCK_BOOTTIME` and `CLOCK_REALTIME`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> BootTime {
        BootTime::from_ms(read(rustix::time::ClockId::Boottime))
    }

    fn wall_ms(&self) -> u64 {
        read(rustix::time::ClockId::Realtime)
    }
}

fn read(id: rustix::time::ClockId) -> u64 {
    let time = rustix::time::clock_gettime(id);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1000) + nanos / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_does_not_go_back() {
        let clock = SystemClock;
        let mut last = clock.now();
        assert!(last.ms() > 0);
        for _ in 0..1000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        assert!(clock.wall_ms() > 1_600_000_000_000, "after 2020");
    }
}
