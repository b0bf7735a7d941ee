//! What failovers cost: how many replays, what became of them, how long clients waited.
//!
//! Invariant: each replay that ended is counted once, under what became of it.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::buckets;

/// What became of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplayOutcome {
    /// It went on, bit for bit as it would have.
    Exact,
    /// It went on, on an engine of the same model that computes other bits.
    Continued,
    /// No engine took it in time, or none will.
    NoTarget,
    /// Too many attempts without a token.
    Attempts,
    /// Its record was let go.
    NotResumable,
    /// It ended engines by itself.
    Convicted,
    /// Its own deadline passed.
    Deadline,
    /// Its client left.
    Abort,
}

impl ReplayOutcome {
    fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Continued => "continued",
            Self::NoTarget => "no_target",
            Self::Attempts => "attempts",
            Self::NotResumable => "not_resumable",
            Self::Convicted => "convicted",
            Self::Deadline => "deadline",
            Self::Abort => "abort",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// See the module.
pub(crate) struct ReplayMetrics {
    replays: Family<OutcomeLabels, Counter>,
    gap: Histogram,
    wait: Histogram,
    num_replaying: Gauge,
    journal_bytes: Gauge,
}

impl ReplayMetrics {
    pub(crate) fn register(scope: &mut Registry) -> Self {
        let metrics = Self {
            replays: Family::default(),
            gap: Histogram::new(buckets::TIME_TO_FIRST_TOKEN),
            wait: Histogram::new(buckets::TIME_TO_FIRST_TOKEN),
            num_replaying: Gauge::default(),
            journal_bytes: Gauge::default(),
        };
        scope.register(
            "hotspare:replays",
            "Sequences whose engine was lost, by what became of them",
            metrics.replays.clone(),
        );
        scope.register(
            "hotspare:replay_gap_seconds",
            "Time from the loss of an engine to the sequence's next token",
            metrics.gap.clone(),
        );
        scope.register(
            "hotspare:replay_wait_seconds",
            "Time from the loss of an engine until the sequence was given to another",
            metrics.wait.clone(),
        );
        scope.register(
            "hotspare:num_sequences_replaying",
            "Sequences that wait to be continued",
            metrics.num_replaying.clone(),
        );
        scope.register(
            "hotspare:journal_bytes",
            "Memory of what is recorded of requests in flight",
            metrics.journal_bytes.clone(),
        );
        metrics
    }

    /// A sequence lost its engine.
    pub(crate) fn on_gap(&self) {
        self.num_replaying.inc();
    }

    /// A sequence was given to another engine, after it had waited for so long.
    pub(crate) fn on_submit(&self, waited: Duration) {
        self.wait.observe(waited.as_secs_f64());
    }

    /// The gap of a sequence ended.
    pub(crate) fn on_gap_end(&self, outcome: ReplayOutcome, gap: Duration) {
        self.num_replaying.dec();
        if matches!(outcome, ReplayOutcome::Exact | ReplayOutcome::Continued) {
            self.gap.observe(gap.as_secs_f64());
        }
        let outcome = outcome.name();
        self.replays.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(crate) fn set_journal_bytes(&self, num_bytes: usize) {
        self.journal_bytes.set(num_bytes as i64);
    }
}
