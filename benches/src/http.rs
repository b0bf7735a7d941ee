//! What HTTP, JSON, SSE and the link cost: the whole server over an engine that has no model.
//!
//! The server (front and engine) is held on one core, the load generator on the other.
//!
//! Invariant: the scripted engine answers at once, so all that is measured is everything but a
//! model.

use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::json;

use crate::load;
use crate::server::{address, start};

const NUM_TOKENS: usize = 2000;
const NUM_REQUESTS: usize = 3000;
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// Prints tokens a second of streams and requests a second.
pub(crate) fn run() {
    println!("\n## HTTP and SSE over an engine without a model, server on one core\n");
    pin(None, SERVER_CORE);
    // Children inherit the core: the front, and the engine that it starts.
    let server = start(
        "spark-mini",
        &["--disable-log-stats", "--scripted-backend", "{}"],
    );
    pin(None, LOAD_CORE);
    let address = address(&server);
    println!("| what | streams | a second |");
    println!("|---|---:|---:|");
    for num_streams in [1, 16, 64] {
        stream_tokens(&address, num_streams, NUM_TOKENS / 10);
        let wall = stream_tokens(&address, num_streams, NUM_TOKENS);
        let rate = (num_streams * NUM_TOKENS) as f64 / wall.as_secs_f64();
        println!("| streamed tokens | {num_streams} | {rate:.0} |");
    }
    let body = json!({"prompt": "Hello", "max_tokens": 1}).to_string();
    load::requests(&address, "/v1/completions", &body, NUM_REQUESTS / 10);
    let wall = load::requests(&address, "/v1/completions", &body, NUM_REQUESTS);
    println!(
        "| requests of one token | 1 | {:.0} |",
        NUM_REQUESTS as f64 / wall.as_secs_f64()
    );
}

fn stream_tokens(address: &str, num_streams: usize, num_tokens: usize) -> Duration {
    let body = json!({"prompt": "Hello", "max_tokens": num_tokens, "stream": true,
        "ignore_eos": true, "return_token_ids": true})
    .to_string();
    let start = Instant::now();
    for report in load::streams(address, "/v1/completions", &vec![body; num_streams]) {
        assert!(report.num_events >= num_tokens, "every token has its event");
    }
    start.elapsed()
}

fn pin(pid: Option<Pid>, core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(error) = sched_setaffinity(pid, &set) {
        println!("(not held on core {core}: {error})");
    }
}
