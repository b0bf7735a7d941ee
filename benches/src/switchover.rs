//! Planned switchovers, back and forth, under short requests that come by the clock.
//!
//! Half of the requests are streamed, half come to each node's address. What is in flight, or
//! comes, from a switchover's command until half a second after its end is compared with the rest
//! of the time.
//!
//! Invariant: no request is left out; each one that failed is printed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::open_loop::{self, Answer, Ask};
use crate::pair::{MODEL, percentile};
use crate::pair_nodes::{Nodes, switch_over};
use crate::server::address;

const INTERVAL: Duration = Duration::from_millis(20);
const NUM_TOKENS: usize = 16;
const NUM_SWITCHOVERS: usize = 12;

/// From one switchover's end to the next, and before the first and after the last.
const PAUSE: Duration = Duration::from_millis(1_500);

/// What comes so soon after a switchover belongs to it.
const AFTERMATH: Duration = Duration::from_millis(500);

/// The goal for the longest gap, milliseconds.
const GOAL_MS: f64 = 300.0;

/// From the command to a while after its end.
type Window = (Instant, Instant);

/// Prints the table.
pub(crate) fn run() {
    println!(
        "\n### {NUM_SWITCHOVERS} switchovers under {} requests a second, `{MODEL}`, {NUM_TOKENS} \
         tokens each, half of them streamed, through both addresses\n",
        1_000 / INTERVAL.as_millis()
    );
    let nodes = Nodes::start(MODEL, &[]);
    let is_over = AtomicBool::new(false);
    let (answers, windows, took_ms) = std::thread::scope(|scope| {
        let addresses = [&nodes.a, &nodes.b].map(address);
        let is_over = &is_over;
        let load =
            scope.spawn(move || open_loop::run(INTERVAL, is_over, |index| ask(&addresses, index)));
        let (mut windows, mut took_ms) = (Vec::new(), Vec::new());
        for index in 0..NUM_SWITCHOVERS {
            std::thread::sleep(PAUSE);
            let began = Instant::now();
            match index % 2 {
                0 => switch_over(&nodes.a, &nodes.b),
                _ => switch_over(&nodes.b, &nodes.a),
            }
            took_ms.push(began.elapsed().as_secs_f64() * 1e3);
            windows.push((began, Instant::now() + AFTERMATH));
        }
        std::thread::sleep(PAUSE);
        is_over.store(true, Ordering::SeqCst);
        let answers = load.join().expect("the load generator goes on");
        (answers, windows, took_ms)
    });
    print(&answers, &windows, took_ms);
}

fn ask(addresses: &[String; 2], index: usize) -> Ask {
    let body = json!({
        "prompt": format!("Once upon a time there were {index} friends"),
        "max_tokens": NUM_TOKENS, "ignore_eos": true, "stream": index.is_multiple_of(2),
        "temperature": 0.8, "seed": index,
    });
    Ask {
        address: addresses[index / 2 % 2].clone(),
        body: body.to_string(),
    }
}

fn print(answers: &[Answer], windows: &[Window], mut took_ms: Vec<f64>) {
    println!(
        "| requests | number | failed | first byte p50 ms | p99 ms | greatest ms | silence in an \
         answer p50 ms | p99 ms | greatest ms | longest time without any answer ms | goal ms |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let touches = |answer: &Answer| {
        let end = answer.arrivals.last().copied().unwrap_or_else(Instant::now);
        windows
            .iter()
            .any(|(from, to)| answer.due < *to && end > *from)
    };
    let (during, rest): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| touches(answer));
    let mut ends: Vec<Instant> = answers
        .iter()
        .filter_map(|answer| answer.arrivals.last().copied())
        .collect();
    ends.sort_unstable();
    let longest = |is_during: bool| {
        let gaps = ends.windows(2).filter(|ends| {
            let touches = |(from, to): &Window| ends[0] < *to && ends[1] > *from;
            windows.iter().any(touches) == is_during
        });
        gaps.map(|ends| ms(ends[0], ends[1])).fold(0.0, f64::max)
    };
    for (name, answers, is_during) in [("switchover", during, true), ("otherwise", rest, false)] {
        let num_failed = answers.iter().filter(|a| a.failure.is_some()).count();
        let mut first: Vec<f64> = answers
            .iter()
            .filter_map(|answer| Some(ms(answer.due, *answer.arrivals.first()?)))
            .collect();
        let silence = |answer: &&&Answer| {
            let silences = answer.arrivals.windows(2).map(|ends| ms(ends[0], ends[1]));
            silences.fold(0.0, f64::max)
        };
        let streamed = answers.iter().filter(|answer| answer.arrivals.len() > 1);
        let mut silences: Vec<f64> = streamed.map(|answer| silence(&answer)).collect();
        let columns = [&mut first, &mut silences].map(|values| {
            values.sort_by(f64::total_cmp);
            [0.5, 0.99, 1.0]
                .map(|share| percentile(values, share))
                .join(" | ")
        });
        println!(
            "| {name} | {} | {num_failed} | {} | {:.0} | {GOAL_MS:.0} |",
            answers.len(),
            columns.join(" | "),
            longest(is_during),
        );
    }
    took_ms.sort_by(f64::total_cmp);
    println!(
        "\nA switchover, from the command until both nodes say their new roles: p50 {} ms, \
         greatest {} ms. An answer that is not streamed is one silence until its first byte.",
        percentile(&took_ms, 0.5),
        percentile(&took_ms, 1.0)
    );
    for failure in answers.iter().filter_map(|answer| answer.failure.as_ref()) {
        println!("failed: {failure}");
    }
}

fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1e3
}
