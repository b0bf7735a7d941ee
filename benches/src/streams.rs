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
const NUM_ROUNDS: usize = 3;
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

/// Prints the table, best of some rounds a line.
pub(crate) fn run() {
    println!("\n## Streams: `spark` through HTTP and SSE, {NUM_TOKENS} tokens a stream\n");
    println!(
        "| streams | tokens/s | a stream | first token ms | linear | attention | sample \
         | device | schedule | transport |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let server = start("spark", &["--disable-log-stats"]);
    one_round(&server, 4, 0);
    let mut single = None;
    for num_streams in [1, 4, 16, 64] {
        let rounds = (1..=NUM_ROUNDS).map(|round| one_round(&server, num_streams, round));
        let best = rounds.max_by(|a, b| a.tokens_per_s().total_cmp(&b.tokens_per_s()));
        let Some(best) = best else { continue };
        let total = best.tokens_per_s();
        let shares: Vec<String> = best
            .shares
            .iter()
            .map(|share| format!("{:.0} %", share * 100.0))
            .collect();
        println!(
            "| {num_streams} | {total:.0} | {:.0} | {:.1} | {} |",
            total / num_streams as f64,
            best.first_event.as_secs_f64() * 1e3,
            shares.join(" | ")
        );
        let single = *single.get_or_insert(total);
        if num_streams == 16 {
            println!(
                "\n16 streams over one stream: {:.2} times\n",
                total / single
            );
            println!("| streams | tokens/s | a stream | first token ms | parts as above |");
            println!("|---:|---:|---:|---:|---|");
        }
    }
    println!(
        "\nlinear, attention, sample: parts of device. schedule and transport overlap it under \
         look-ahead."
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
