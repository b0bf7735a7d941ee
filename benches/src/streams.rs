//! Tokens a second of the whole server at 1, 4, 16 and 64 streams of the embedded model, and where
//! the time went.
//!
//! Each stream asks for the same number of tokens from a prompt of its own; streams run at the same
//! time over their own connections. The load generator shares the cores with the server, as a local
//! client would.
//!
//! Invariant: the parts come from the engine's own counters over the measured time only.

use std::time::{Duration, Instant};

use hotspare_testkit::Server;
use serde_json::json;

use crate::load;
use crate::server::{address, counter, start};

const NUM_TOKENS: usize = 400;
const NUM_ROUNDS: usize = 7;
const NUM_STREAMS: [usize; 4] = [1, 4, 16, 64];
const PARTS: [&str; 6] = [
    "linear",
    "attention",
    "sample",
    "device",
    "schedule",
    "transport",
];

struct Round {
    num_streams: usize,
    wall: Duration,
    first_event: Duration,
    /// Share of the wall time in each of `PARTS`.
    shares: Vec<f64>,
}

impl Round {
    fn tokens_per_s(&self) -> f64 {
        (self.num_streams * NUM_TOKENS) as f64 / self.wall.as_secs_f64()
    }
}

/// Prints the table, the median round a line, and how 16 streams compare with one.
///
/// All numbers of streams are measured in each round, one after the other: the speed of a machine
/// drifts over minutes, and a ratio means something only between neighbours in time.
pub(crate) fn run() {
    println!("\n## Streams: `spark` through HTTP and SSE, {NUM_TOKENS} tokens a stream\n");
    println!(
        "| streams | tokens/s | a stream | first token ms | linear | attention | sample \
         | device | schedule | transport |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let server = start("spark", &["--disable-log-stats"]);
    one_round(&server, 4, 0);
    let mut by_width: [Vec<Round>; NUM_STREAMS.len()] = Default::default();
    for round in 1..=NUM_ROUNDS {
        for (rounds, num_streams) in by_width.iter_mut().zip(NUM_STREAMS) {
            rounds.push(one_round(&server, num_streams, round));
        }
    }
    let [single, _, sixteen, _] = &by_width;
    let ratios = sixteen
        .iter()
        .zip(single)
        .map(|(sixteen, single)| sixteen.tokens_per_s() / single.tokens_per_s());
    let mut ratios: Vec<f64> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    for rounds in &mut by_width {
        rounds.sort_by(|a, b| a.tokens_per_s().total_cmp(&b.tokens_per_s()));
        print_row(&rounds[NUM_ROUNDS / 2]);
    }
    println!(
        "\n16 streams over one stream in the same round: median {:.2} times, {:.2} to {:.2}; \
         one stream {:.0} to {:.0} tokens/s, 16 streams {:.0} to {:.0}",
        ratios[NUM_ROUNDS / 2],
        ratios[0],
        ratios[NUM_ROUNDS - 1],
        by_width[0][0].tokens_per_s(),
        by_width[0][NUM_ROUNDS - 1].tokens_per_s(),
        by_width[2][0].tokens_per_s(),
        by_width[2][NUM_ROUNDS - 1].tokens_per_s(),
    );
    println!(
        "\nlinear, attention, sample: parts of device. schedule and transport overlap it under \
         look-ahead."
    );
}

fn print_row(round: &Round) {
    let shares = round
        .shares
        .iter()
        .map(|share| format!("{:.0} %", share * 100.0));
    let shares: Vec<String> = shares.collect();
    let total = round.tokens_per_s();
    println!(
        "| {} | {total:.0} | {:.0} | {:.1} | {} |",
        round.num_streams,
        total / round.num_streams as f64,
        round.first_event.as_secs_f64() * 1e3,
        shares.join(" | ")
    );
}

fn one_round(server: &Server, num_streams: usize, round: usize) -> Round {
    let address = &address(server);
    let before: Vec<f64> = PARTS.iter().map(|part| seconds(server, part)).collect();
    let start = Instant::now();
    let bodies: Vec<String> = (0..num_streams)
        .map(|index| {
            let body = json!({
                "prompt": format!("In round {round} there were {index} friends"),
                "max_tokens": NUM_TOKENS, "ignore_eos": true, "stream": true,
                "temperature": 0.8, "seed": index, "return_token_ids": true,
            });
            body.to_string()
        })
        .collect();
    let reports = load::streams(address, "/v1/completions", &bodies);
    let wall = start.elapsed();
    for report in &reports {
        assert!(report.num_events >= NUM_TOKENS, "every token has its event");
    }
    let slowest = reports
        .iter()
        .map(|report| report.first_event)
        .max()
        .unwrap_or_default();
    let shares = PARTS
        .iter()
        .zip(before)
        .map(|(part, before)| (seconds(server, part) - before) / wall.as_secs_f64())
        .collect();
    Round {
        num_streams,
        wall,
        first_event: slowest,
        shares,
    }
}

fn seconds(server: &Server, part: &str) -> f64 {
    counter(server, &format!("hotspare:engine_{part}_seconds_total"))
}
