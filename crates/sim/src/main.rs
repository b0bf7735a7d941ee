//! `hotspare-sim`: runs seeds, or shows one.
//!
//! `--seeds N [--from S]` runs N seeds on every core and stops at the first violation, which it
//! shrinks and prints. `--seed S` runs one seed and prints what happened and its hash.
//! `--explore` walks every schedule of a small configuration.
//!
//! Invariant: exit status 0 means that no run violated an invariant.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool for developers"
)]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hotspare_failover::{Cause, Role, transitions};
use hotspare_sim::{Bounds, Plan, Report, explore, run, run_with_trace, shrink};

const USAGE: &str = "usage: hotspare-sim --seeds N [--from S] | --seed S | --explore";
const MS_PER_DAY: f64 = 86_400_000.0;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let index = args.iter().position(|arg| arg == name)?;
        args.get(index + 1)?.parse::<u64>().ok()
    };
    if args.iter().any(|arg| arg == "--explore") {
        return explore_small();
    }
    match (value("--seed"), value("--seeds")) {
        (Some(seed), _) => show(seed),
        (None, Some(count)) => many(value("--from").unwrap_or(0), count),
        (None, None) => {
            eprintln!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn explore_small() -> ExitCode {
    let mut failed = false;
    for mode in [
        hotspare_failover::Mode::Strict,
        hotspare_failover::Mode::Available,
    ] {
        let explored = explore(
            mode,
            Bounds {
                max_changes: 3,
                num_fault_ticks: 14,
            },
        );
        println!(
            "explored {mode:?}: {} states, {} transitions, depth {}",
            explored.num_states, explored.num_transitions, explored.depth
        );
        if let Some(violation) = explored.violation {
            println!("violation: {violation}");
            failed = true;
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn show(seed: u64) -> ExitCode {
    let plan = Plan::of(seed, None);
    let settings = &plan.settings[0];
    println!(
        "seed {seed}: mode {:?}, {} faults",
        settings.mode,
        plan.faults.len()
    );
    let report = run_with_trace(&plan);
    for line in &report.trace {
        println!("{line}");
    }
    println!(
        "trace hash {:016x}, {} events",
        report.hash, report.num_events
    );
    match report.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!(
                "{} violated at {} ms: {}",
                violation.invariant, violation.at_ms, violation.what
            );
            ExitCode::FAILURE
        }
    }
}

/// What many runs add up to.
#[derive(Default)]
struct Totals {
    simulated_ms: u64,
    num_events: u64,
    num_promotions: u64,
    num_finished: u64,
    num_failed: u64,
    hash: u64,
    transitions: BTreeSet<(Role, Role, Cause)>,
    failing: Option<(u64, Report)>,
}

impl Totals {
    fn add(&mut self, seed: u64, report: Report) {
        self.simulated_ms += report.simulated_ms;
        self.num_events += report.num_events;
        self.num_promotions += report.num_promotions;
        self.num_finished += report.num_finished;
        self.num_failed += report.num_failed;
        self.transitions.extend(&report.transitions);
        // Sums do not depend on which thread ran what.
        self.hash = self
            .hash
            .wrapping_add(report.hash.rotate_left((seed % 63) as u32));
        let first = self
            .failing
            .as_ref()
            .is_none_or(|(failing, _)| seed < *failing);
        if report.violation.is_some() && first {
            self.failing = Some((seed, report));
        }
    }
}

fn many(from: u64, count: u64) -> ExitCode {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // indicatif draws nothing where standard error is no terminal.
    let bar = indicatif::ProgressBar::new(count);
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let report = run(&Plan::of(from + index, None));
                    if report.violation.is_some() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    if let Ok(mut totals) = totals.lock() {
                        totals.add(from + index, report);
                    }
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let Ok(totals) = totals.into_inner() else {
        return ExitCode::FAILURE;
    };
    let Some((seed, report)) = totals.failing else {
        println!(
            "{count} seeds clean: {:.1} simulated days, {} events, {} promotions, {} requests \
             answered, {} refused, hash {:016x}",
            totals.simulated_ms as f64 / MS_PER_DAY,
            totals.num_events,
            totals.num_promotions,
            totals.num_finished,
            totals.num_failed,
            totals.hash
        );
        print_coverage(&totals.transitions);
        return ExitCode::SUCCESS;
    };
    print_failure(seed, &report);
    ExitCode::FAILURE
}

/// Which transitions of the table no run took.
fn print_coverage(taken: &BTreeSet<(Role, Role, Cause)>) {
    let all = transitions();
    println!(
        "{} of {} transitions of the table taken",
        taken.len(),
        all.len()
    );
    for (from, to, cause) in all.iter().filter(|transition| !taken.contains(transition)) {
        println!("  never: {from} -> {to}: {}", cause.text());
    }
}

fn print_failure(seed: u64, report: &Report) {
    let Some(violation) = &report.violation else {
        return;
    };
    let plan = Plan::of(seed, None);
    println!(
        "seed {seed}: {} violated at {} ms: {}",
        violation.invariant, violation.at_ms, violation.what
    );
    let small = shrink(&plan);
    println!(
        "mode {:?}; shrunk from {} faults to:",
        plan.settings[0].mode,
        plan.faults.len()
    );
    for fault in &small.faults {
        println!(
            "  at {} ms, for {} ms: {:?}",
            fault.at_ms, fault.for_ms, fault.kind
        );
    }
    let shown = run_with_trace(&small);
    let skip = shown.trace.len().saturating_sub(60);
    for line in &shown.trace[skip..] {
        println!("{line}");
    }
    if let Some(violation) = shown.violation {
        println!(
            "{} at {} ms: {}",
            violation.invariant, violation.at_ms, violation.what
        );
    }
    println!(
        "again: cargo xtask sim --seed {seed} (trace hash {:016x})",
        report.hash
    );
}
