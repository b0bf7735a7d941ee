//! What the clients of a pair see when one of its nodes breaks, and when the roles are changed.
//!
//! 32 streams of the embedded model run through one node's address while the primary loses all of
//! its processes, falls silent, or loses its engine; each round has a pair of its own. The gap is
//! that of the section `failover`. Both nodes, their engines and the clients share this machine's
//! cores, which two servers would not. Switchovers under load follow (`switchover`).
//!
//! Invariant: the texts are compared with those of the same requests on a node alone that nobody
//! breaks; a stream that ended with an error is counted, never left out in silence.

use std::ops::Range;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::failover::{Phases, Random, gap, is_finished, text};
use crate::load::{self, StreamReport};
use crate::pair_nodes::Nodes;
use crate::server::{address, counter, start};
use crate::switchover;

pub(crate) const MODEL: &str = "spark";
const NUM_STREAMS: usize = 32;
const NUM_TOKENS: usize = 800;
const NUM_ROUNDS: usize = 5;

/// Rounds of the comparison of costs.
const NUM_COST_ROUNDS: usize = 2;

/// A fault comes in this part of the time that the streams take undisturbed, thousandths.
const FAULT_AT: Range<u64> = 200..700;

/// What is done to node a, which serves.
struct Fault {
    name: &'static str,
    /// Clients use node b's address.
    is_through_standby: bool,
    /// The goal for the 99th percentile of gaps, milliseconds.
    goal_ms: f64,
    happen: fn(&Nodes),
}

const FAULTS: [Fault; 3] = [
    Fault {
        name: "standby's address, the primary is killed",
        is_through_standby: true,
        goal_ms: 500.0,
        happen: |nodes| nodes.signal_a(Signal::KILL),
    },
    Fault {
        name: "standby's address, the primary falls silent (D = 3,000)",
        is_through_standby: true,
        goal_ms: 3_500.0,
        happen: |nodes| nodes.signal_a(Signal::STOP),
    },
    Fault {
        name: "primary's address, its engine is killed",
        is_through_standby: false,
        goal_ms: 300.0,
        happen: Nodes::kill_engine_of_a,
    },
];

/// Prints the tables.
pub(crate) fn run() {
    let num_cores = available_parallelism().map_or(1, usize::from);
    println!(
        "\n## A pair: {NUM_STREAMS} streams of `{MODEL}`, {NUM_TOKENS} tokens each, a fault in \
         each of {NUM_ROUNDS} rounds, everything on {num_cores} cores\n"
    );
    println!(
        "| streams enter by, fault | behind at the fault, tokens | streams finished | texts as of \
         an uncut run | gaps | p50 ms | p99 ms | greatest ms | goal, p99 ms | p99 of each round \
         | heard ms | given ms | token ms | read again, tokens |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|");
    let bodies = load::stories(NUM_STREAMS, NUM_TOKENS);
    let (expected, took) = {
        let server = start(MODEL, &["--disable-log-stats"]);
        let started = Instant::now();
        let uncut = load::streams(&address(&server), "/v1/completions", &bodies);
        let expected: Vec<String> = uncut.iter().map(text).collect();
        (expected, started.elapsed())
    };
    let mut random = Random::default();
    for fault in FAULTS {
        let mut run = Run::default();
        for _ in 0..NUM_ROUNDS {
            let share = random.wait(&FAULT_AT).as_millis();
            let after = took.mul_f64(share as f64 / 1e3);
            one_round(&fault, after, &bodies, &expected, &mut run);
        }
        print_row(&fault, run);
    }
    println!(
        "\nUndisturbed, on a node alone, the streams take {:.2} s; a fault comes after {} to {} % \
         of that, however far behind the standby is.",
        took.as_secs_f64(),
        FAULT_AT.start / 10,
        FAULT_AT.end / 10
    );
    costs(&bodies);
    switchover::run();
}

/// Time that the same streams take through a pair whose standby reads along and through one whose
/// standby does not, in turns.
fn costs(bodies: &[String]) {
    let modes = ["--ha-shadow=off", "--ha-shadow=full"];
    let mut times = modes.map(|_| f64::INFINITY);
    for _ in 0..NUM_COST_ROUNDS {
        for (time, mode) in times.iter_mut().zip(modes) {
            let nodes = Nodes::start(MODEL, &[mode]);
            let started = Instant::now();
            load::streams(&address(&nodes.b), "/v1/completions", bodies);
            *time = time.min(started.elapsed().as_secs_f64());
        }
    }
    let [off, full] = times;
    println!(
        "\nThrough a pair without a fault they take {off:.2} s where the standby does not read \
         along and {full:.2} s where it does ({:+.0} %), the shortest of {NUM_COST_ROUNDS} runs: \
         what two nodes on the same cores cost each other, and two servers do not.",
        (full / off - 1.0) * 100.0
    );
}

/// What was seen in all rounds with a fault.
#[derive(Default)]
struct Run {
    num_streams: usize,
    num_finished: usize,
    num_equal: usize,
    gaps_ms: Vec<f64>,
    p99_by_round: Vec<String>,
    phases: Vec<Phases>,
    /// What the engine that took over had not read, at the faults.
    num_unread: Vec<f64>,
}

/// The streams once over a fresh pair, with the fault after so long.
fn one_round(
    fault: &Fault,
    after: Duration,
    bodies: &[String],
    expected: &[String],
    run: &mut Run,
) {
    let nodes = Nodes::start(MODEL, &[]);
    let entry = match fault.is_through_standby {
        true => &nodes.b,
        false => &nodes.a,
    };
    let (reports, at) = std::thread::scope(|scope| {
        let address = address(entry);
        let streams = scope.spawn(move || load::streams(&address, "/v1/completions", bodies));
        std::thread::sleep(after);
        run.num_unread
            .push(counter(entry, "hotspare:shadow_unread_tokens"));
        let at = Instant::now();
        (fault.happen)(&nodes);
        let reports = streams.join();
        (reports.expect("the load generator goes on"), at)
    });
    run.num_streams += reports.len();
    run.num_finished += reports.iter().filter(|report| is_finished(report)).count();
    let texts = reports.iter().map(text);
    run.num_equal += texts.zip(expected).filter(|(a, b)| a == *b).count();
    let gap_ms = |report: &StreamReport| gap(report, at).map(|gap| gap.as_secs_f64() * 1e3);
    let mut gaps_ms: Vec<f64> = reports.iter().filter_map(gap_ms).collect();
    gaps_ms.sort_by(f64::total_cmp);
    run.p99_by_round.push(percentile(&gaps_ms, 0.99));
    run.gaps_ms.extend(gaps_ms);
    run.phases.push(Phases::of(entry, &nodes.b));
}

fn print_row(fault: &Fault, mut run: Run) {
    let gaps = &mut run.gaps_ms;
    gaps.sort_by(f64::total_cmp);
    let mean = |of: fn(&Phases) -> f64| {
        run.phases.iter().map(of).sum::<f64>() / run.phases.len().max(1) as f64
    };
    let num_unread = run.num_unread.iter().map(f64::to_string);
    let num_unread: Vec<String> = num_unread.collect();
    let mean_gap = gaps.iter().sum::<f64>() / gaps.len().max(1) as f64;
    println!(
        "| {} | {} | {} of {} | {} | {} | {} | {} | {} | {:.0} | {} | {:.0} | {:.0} | {:.0} \
         | {:.0} |",
        fault.name,
        num_unread.join(", "),
        run.num_finished,
        run.num_streams,
        run.num_equal,
        gaps.len(),
        percentile(gaps, 0.5),
        percentile(gaps, 0.99),
        percentile(gaps, 1.0),
        fault.goal_ms,
        run.p99_by_round.join(", "),
        mean_gap - mean(|phases| phases.gap),
        mean(|phases| phases.given),
        mean(|phases| phases.gap - phases.given),
        mean(|phases| phases.num_read_again),
    );
}

/// What `share` of the sorted values do not exceed, as text.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> String {
    match sorted.len() {
        0 => "-".to_owned(),
        len => format!("{:.0}", sorted[((len - 1) as f64 * share).round() as usize]),
    }
}
