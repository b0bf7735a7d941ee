//! The simulator finds mistakes that were put in on purpose, finds none in what is built, repeats
//! itself exactly, and cuts schedules down.

use hotspare_failover::Mode;

use crate::exhaustive::{Bounds, explore};
use crate::{Bug, Plan, run, run_with_trace, shrink};

/// Seeds within which every planted mistake must be found.
const NUM_SEEDS_FOR_A_BUG: u64 = 10_000;

/// The first seed that finds `bug`, and the invariant that it violates.
fn hunt(bug: Bug) -> (u64, &'static str) {
    hunt_for(bug, "")
}

/// The same, for a violation whose description contains `words`.
fn hunt_for(bug: Bug, words: &str) -> (u64, &'static str) {
    for seed in 0..NUM_SEEDS_FOR_A_BUG {
        let violation = run(&Plan::of(seed, Some(bug))).violation;
        if let Some(violation) = violation.filter(|v| v.what.contains(words)) {
            println!(
                "{bug:?}: {} at seed {seed}: {}",
                violation.invariant, violation.what
            );
            return (seed, violation.invariant);
        }
    }
    panic!("{bug:?} was not found within {NUM_SEEDS_FOR_A_BUG} seeds");
}

#[test]
fn skipped_fsync_is_found() {
    assert_eq!(hunt(Bug::SkipFsync).1, "I2");
}

#[test]
fn missing_fencing_is_found() {
    assert_eq!(hunt(Bug::NoFencing).1, "I1");
    assert_eq!(hunt_for(Bug::NoFencing, "both nodes admit").1, "I1");
}

#[test]
fn an_ignored_late_timer_is_found() {
    assert_eq!(hunt(Bug::LateTimerIgnored).1, "I1");
}

#[test]
fn a_wrong_lease_margin_is_found() {
    assert_eq!(hunt_for(Bug::LeaseMargin, "both nodes admit").1, "I1");
}

#[test]
fn tokens_of_an_old_attempt_are_found() {
    assert_eq!(hunt(Bug::LateTokens).1, "I3");
}

#[test]
fn a_revocation_told_too_early_is_found() {
    assert_eq!(hunt(Bug::EarlyRevocation).1, "I6");
}

#[test]
fn a_pause_that_is_not_passed_on_is_found() {
    assert_eq!(hunt(Bug::PauseUntold).1, "I11");
}

#[test]
fn a_hundred_seeds_are_clean_and_have_work_in_them() {
    let (mut promotions, mut finished) = (0, 0);
    for seed in 0..100 {
        let report = run(&Plan::of(seed, None));
        assert_eq!(report.violation, None, "seed {seed}");
        promotions += report.num_promotions;
        finished += report.num_finished;
    }
    assert!(promotions > 150, "{promotions}");
    assert!(finished > 5_000, "{finished}");
}

#[test]
fn a_seed_repeats_itself_exactly() {
    for seed in [3, 77, 4_242] {
        let (first, again) = (run(&Plan::of(seed, None)), run(&Plan::of(seed, None)));
        assert_eq!(first, again);
        assert_eq!(run_with_trace(&Plan::of(seed, None)).hash, first.hash);
        assert_ne!(run(&Plan::of(seed + 1, None)).hash, first.hash);
    }
}

#[test]
fn a_failing_schedule_is_cut_down() {
    let (seed, invariant) = hunt(Bug::LeaseMargin);
    let plan = Plan::of(seed, Some(Bug::LeaseMargin));
    let small = shrink(&plan);
    assert!(small.faults.len() <= 3, "{:?}", small.faults);
    let violation = run(&small).violation.expect("it still fails");
    assert_eq!(violation.invariant, invariant);
}

#[test]
fn every_short_schedule_is_safe_and_recovers() {
    for mode in [Mode::Strict, Mode::Available] {
        let explored = explore(
            mode,
            Bounds {
                max_changes: 2,
                num_fault_ticks: 8,
            },
        );
        println!(
            "{mode:?}: {} states, {} transitions, depth {}",
            explored.num_states, explored.num_transitions, explored.depth
        );
        assert_eq!(explored.violation, None, "{mode:?}");
        assert!(explored.num_states > 1_000);
    }
}
