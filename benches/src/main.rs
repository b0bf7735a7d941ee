//! `cargo run --release -p hotspare-benches`: every number that the documents quote, from one
//! command.
//!
//! Sections: the scheduler's step, the device's work and a whole server at 1 to 64 streams with the
//! time spent in each part, the cost of HTTP and SSE over an engine without a model, a model of
//! real size in three formats beside llama.cpp, how long streams stand still when their engine
//! is killed, and what a pair's clients see of a node's death and of switchovers. Name sections to
//! run only those: `scheduler`, `streams`, `http`, `quantized`, `failover`, `pair`.
//!
//! Invariant: ratios are of numbers from the same run; nothing is quoted from an earlier one.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool"
)]

mod device;
mod failover;
mod http;
mod llama;
mod load;
mod open_loop;
mod pair;
mod pair_nodes;
mod quantized;
mod scheduler;
mod server;
mod streams;
mod switchover;

use std::process::ExitCode;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let sections: [(&str, fn()); 6] = [
        ("scheduler", scheduler::run),
        ("streams", streams::run),
        ("http", http::run),
        ("quantized", quantized::run),
        ("failover", failover::run),
        ("pair", pair::run),
    ];
    if let Some(unknown) = wanted
        .iter()
        .find(|name| sections.iter().all(|(s, _)| s != name))
    {
        eprintln!(
            "no section {unknown:?}; there are: scheduler, streams, http, quantized, failover, \
             pair"
        );
        return ExitCode::FAILURE;
    }
    for (name, run) in sections {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            run();
        }
    }
    ExitCode::SUCCESS
}
