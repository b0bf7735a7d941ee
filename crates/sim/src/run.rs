//! One run of a plan, and what came of it.
//!
//! Invariant: the same plan gives the same report, trace hash included.

use std::collections::BTreeSet;

use hotspare_failover::{Cause, Role};

use crate::check::Violation;
use crate::plan::Plan;
use crate::world::World;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The first violation, if any.
    pub violation: Option<Violation>,
    /// A hash of everything that happened.
    pub hash: u64,
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// Things that happened.
    pub num_events: u64,
    /// Promotions.
    pub num_promotions: u64,
    /// Requests that were answered in full.
    pub num_finished: u64,
    /// Requests that ended with an explicit error.
    pub num_failed: u64,
    /// The longest time in which nobody admitted, after the first promotion.
    pub longest_outage_ms: u64,
    /// The transitions that were taken.
    pub transitions: BTreeSet<(Role, Role, Cause)>,
    /// What happened, in words; only of `run_with_trace`.
    pub trace: Vec<String>,
}

/// Runs a plan.
#[must_use]
pub fn run(plan: &Plan) -> Report {
    run_world(plan, false)
}

/// Runs a plan and keeps what happened in words.
#[must_use]
pub fn run_with_trace(plan: &Plan) -> Report {
    run_world(plan, true)
}

fn run_world(plan: &Plan, trace: bool) -> Report {
    let mut world = World::new(plan.clone(), trace);
    world.run();
    Report {
        violation: world.checker.violation,
        hash: world.hash,
        simulated_ms: world.now,
        num_events: world.num_events,
        num_promotions: world.checker.num_promotions,
        num_finished: world.checker.num_finished,
        num_failed: world.checker.num_failed,
        longest_outage_ms: world.checker.longest_outage_ms,
        transitions: world.checker.transitions,
        trace: world.trace.unwrap_or_default(),
    }
}
