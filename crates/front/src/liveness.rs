//! Whether an engine that is waited for still gets on.
//!
//! Progress is a message that a running loop sends: a step, its announcement, an answer. While work
//! is pending there must be some within a deadline, which adapts: never below a floor, a multiple
//! of the longest gap of late, and time for each token of the step that is on the device, taken
//! from the slowest canary, which computed one token alone. So a long chunk of a prompt convicts
//! nobody, and an engine that stands still is found out in seconds.
//!
//! Invariant: time enters as an argument; nothing is convicted of the time in which nothing was
//! asked of it, nor of time in which this process itself did not run.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Gaps that are remembered.
const NUM_RECENT: usize = 128;

/// Bounds of the judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LivenessConfig {
    /// No shorter silence is a hang.
    pub(crate) floor: Duration,
    /// Any longer silence is one, unless the floor is higher.
    pub(crate) ceiling: Duration,
    /// Silence of so many times the longest recent gap is a hang.
    pub(crate) factor: u32,
    /// Idle time after which the engine is asked for a token; `None`: never.
    pub(crate) canary_interval: Option<Duration>,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Fine,
    /// Send a canary of this nonce.
    Ask(u64),
    /// Give the engine up.
    Hung {
        /// How long it was silent.
        silent: Duration,
        /// How long it might have been.
        allowed: Duration,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Liveness {
    config: LivenessConfig,
    /// Since when something is waited for without progress; `None` while nothing is.
    waiting_since: Option<Instant>,
    last_progress: Instant,
    recent_gaps: VecDeque<Duration>,
    /// Tokens of the steps that were announced last; look-ahead has two at a time.
    announced: [u32; 2],
    canary: Option<(u64, Instant)>,
    num_canaries: u64,
    slowest_canary: Duration,
}

impl Liveness {
    pub(crate) fn new(config: LivenessConfig, now: Instant) -> Self {
        Self {
            config,
            waiting_since: None,
            last_progress: now,
            recent_gaps: VecDeque::with_capacity(NUM_RECENT),
            announced: [0; 2],
            canary: None,
            num_canaries: 0,
            slowest_canary: Duration::ZERO,
        }
    }

    /// A sign that the loop runs.
    pub(crate) fn on_progress(&mut self, at: Instant) {
        if let Some(since) = &mut self.waiting_since {
            if self.recent_gaps.len() == NUM_RECENT {
                self.recent_gaps.pop_front();
            }
            let gap = at.saturating_duration_since(*since);
            self.recent_gaps.push_back(gap);
            *since = at;
        }
        self.last_progress = at;
    }

    /// A step of so many tokens was given to the device.
    pub(crate) fn on_working(&mut self, num_tokens: u32, at: Instant) {
        self.announced = [self.announced[1], num_tokens];
        self.on_progress(at);
    }

    /// The nonce of a canary that is sent now.
    pub(crate) fn start_canary(&mut self, now: Instant) -> u64 {
        self.num_canaries += 1;
        self.canary = Some((self.num_canaries, now));
        self.waiting_since.get_or_insert(now);
        self.num_canaries
    }

    /// Whether a canary is under way.
    pub(crate) fn has_canary(&self) -> bool {
        self.canary.is_some()
    }

    /// A canary was answered. Whether it was the one under way.
    pub(crate) fn on_canary(&mut self, nonce: u64, at: Instant) -> bool {
        self.on_progress(at);
        match self.canary {
            Some((expected, sent)) if expected == nonce => {
                let took = at.saturating_duration_since(sent);
                self.slowest_canary = self.slowest_canary.max(took);
                self.canary = None;
                true
            }
            _ => false,
        }
    }

    /// How long the engine may be silent now.
    pub(crate) fn allowed(&self) -> Duration {
        let config = &self.config;
        let longest = self.recent_gaps.iter().max().copied().unwrap_or_default();
        let num_tokens = self.announced[0].max(self.announced[1]);
        longest
            .saturating_mul(config.factor)
            .max(self.slowest_canary.saturating_mul(num_tokens))
            .min(config.ceiling)
            .max(config.floor)
    }

    /// Looks at the clock. `is_busy`: work other than a canary is pending. `is_late`: this look
    /// comes later than it was planned, so what the engine sent may lie unread.
    pub(crate) fn check(&mut self, now: Instant, is_busy: bool, is_late: bool) -> Verdict {
        if !is_busy && self.canary.is_none() {
            self.waiting_since = None;
            self.announced = [0; 2];
            let idle = now.saturating_duration_since(self.last_progress);
            return match self.config.canary_interval {
                Some(interval) if idle >= interval => Verdict::Ask(self.start_canary(now)),
                _ => Verdict::Fine,
            };
        }
        let since = *self.waiting_since.get_or_insert(now);
        if is_late {
            self.waiting_since = Some(now);
            return Verdict::Fine;
        }
        let silent = now.saturating_duration_since(since);
        let allowed = self.allowed();
        match silent >= allowed {
            true => Verdict::Hung { silent, allowed },
            false => Verdict::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Duration = Duration::from_secs(5);

    fn liveness(start: Instant) -> Liveness {
        let config = LivenessConfig {
            floor: FLOOR,
            ceiling: Duration::from_secs(100),
            factor: 20,
            canary_interval: Some(Duration::from_secs(10)),
        };
        Liveness::new(config, start)
    }

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn is_hung(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Hung { .. })
    }

    #[test]
    fn silence_counts_from_when_something_was_asked() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        // An hour of nothing, which a canary each would interrupt, is no silence.
        liveness.on_progress(at(start, 3_599_999));
        assert_eq!(
            liveness.check(at(start, 3_600_000), true, false),
            Verdict::Fine
        );
        assert_eq!(
            liveness.check(at(start, 3_604_999), true, false),
            Verdict::Fine
        );
        let (silent, allowed) = (FLOOR, FLOOR);
        let hung = Verdict::Hung { silent, allowed };
        assert_eq!(liveness.check(at(start, 3_605_000), true, false), hung);
    }

    #[test]
    fn each_sign_of_progress_starts_the_clock_again() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        assert_eq!(liveness.check(start, true, false), Verdict::Fine);
        for second in 1..100 {
            liveness.on_progress(at(start, second * 200));
            let now = at(start, second * 200 + 199);
            assert_eq!(liveness.check(now, true, false), Verdict::Fine);
        }
        assert_eq!(
            liveness.allowed(),
            FLOOR,
            "twenty gaps of 200 ms are below it"
        );
        assert!(is_hung(&liveness.check(
            at(start, 19_800 + 5_000),
            true,
            false
        )));
    }

    #[test]
    fn slow_steps_make_it_patient_and_quick_ones_impatient_again() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        liveness.check(start, true, false);
        liveness.on_progress(at(start, 3_000));
        assert_eq!(liveness.allowed(), Duration::from_secs(60));
        assert_eq!(
            liveness.check(at(start, 60_000), true, false),
            Verdict::Fine
        );
        for step in 0..NUM_RECENT as u64 {
            liveness.on_progress(at(start, 60_000 + step));
        }
        // The gap before the first of them was 57 s.
        assert_eq!(liveness.allowed(), Duration::from_secs(100), "the ceiling");
        liveness.on_progress(at(start, 60_200));
        assert_eq!(liveness.allowed(), FLOOR);
    }

    #[test]
    fn a_long_chunk_of_a_prompt_has_its_time() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        let nonce = liveness.start_canary(start);
        assert!(liveness.on_canary(nonce, at(start, 30)));
        assert!(!liveness.on_canary(nonce, at(start, 40)), "once");
        liveness.check(at(start, 50), true, false);
        // Thirty milliseconds for a token alone: two thousand of them may take a minute.
        liveness.on_working(2_000, at(start, 100));
        assert_eq!(
            liveness.check(at(start, 60_099), true, false),
            Verdict::Fine
        );
        assert!(is_hung(&liveness.check(at(start, 60_100), true, false)));
        // The next one decodes, but the long one is still before it.
        liveness.on_working(1, at(start, 200));
        assert_eq!(liveness.allowed(), Duration::from_secs(60));
        liveness.on_working(1, at(start, 300));
        assert_eq!(liveness.allowed(), FLOOR);
    }

    #[test]
    fn an_idle_engine_is_asked_and_has_to_answer() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        assert_eq!(
            liveness.check(at(start, 9_999), false, false),
            Verdict::Fine
        );
        assert_eq!(
            liveness.check(at(start, 10_000), false, false),
            Verdict::Ask(1)
        );
        assert_eq!(
            liveness.check(at(start, 14_000), false, false),
            Verdict::Fine
        );
        assert!(is_hung(&liveness.check(at(start, 15_000), false, false)));
        assert!(liveness.on_canary(1, at(start, 15_001)));
        assert_eq!(
            liveness.check(at(start, 20_000), false, false),
            Verdict::Fine
        );
        assert_eq!(
            liveness.check(at(start, 25_001), false, false),
            Verdict::Ask(2)
        );
    }

    #[test]
    fn a_front_that_did_not_run_convicts_nobody() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        liveness.check(start, true, false);
        assert_eq!(liveness.check(at(start, 60_000), true, true), Verdict::Fine);
        assert_eq!(
            liveness.check(at(start, 64_999), true, false),
            Verdict::Fine
        );
        assert!(is_hung(&liveness.check(at(start, 65_000), true, false)));
    }
}
