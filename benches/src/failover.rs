//! How long streams stand still when their engine is killed, with a spare engine and without.
//!
//! 64 streams of the embedded model run at the same time while the main engine is killed five times
//! at random moments. The gap of a stream at a kill is from its last event before it to its first
//! one after it; a stream that was to have an event at that moment anyway waits for it too.
//!
//! Invariant: the texts are compared with those of the same requests on an engine that nobody
//! kills; a stream that ended with an error is counted, never left out in silence.

use std::time::{Duration, Instant};

use hotspare_testkit::{Server, send_signal, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::load::{self, StreamReport};
use crate::server::{address, start};

const NUM_STREAMS: usize = 64;
const NUM_TOKENS: usize = 800;
const NUM_KILLS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// Time between an engine's readiness and its end, milliseconds.
const KILL_AFTER_MS: std::ops::Range<u64> = 200..1_200;

/// Prints the table.
pub(crate) fn run() {
    println!(
        "\n## Failover: {NUM_STREAMS} streams of `spark`, the engine killed {NUM_KILLS} times\n"
    );
    println!(
        "| spare engines | streams finished | texts as of an uncut run | gaps | p50 ms | p99 ms \
         | greatest ms |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    let bodies = bodies();
    let uncut = {
        let server = start("spark", &["--disable-log-stats"]);
        load::streams(&address(&server), "/v1/completions", &bodies)
    };
    let expected: Vec<String> = uncut.iter().map(text).collect();
    for num_spares in [1, 0] {
        one_run(num_spares, &bodies, &expected);
    }
    println!("\nA stream that does not finish ended with an error event.");
}

fn bodies() -> Vec<String> {
    let body = |index| {
        json!({
            "prompt": format!("Once upon a time there were {index} friends"),
            "max_tokens": NUM_TOKENS, "ignore_eos": true, "stream": true,
            "temperature": 0.8, "seed": index,
        })
    };
    (0..NUM_STREAMS)
        .map(|index| body(index).to_string())
        .collect()
}

fn one_run(num_spares: usize, bodies: &[String], expected: &[String]) {
    let spares = num_spares.to_string();
    // Five kills within a minute are meant here, and are no reason to wait.
    let args = [
        "--disable-log-stats",
        "--spare-engines",
        &spares,
        "--engine-restart-backoff-max-ms",
        "1",
        "--engine-restart-backoff-min-ms",
        "1",
        "--max-num-engine-failures",
        "100",
    ];
    let server = start("spark", &args);
    wait_until_whole(&server, num_spares);
    let (reports, kills) = std::thread::scope(|scope| {
        let address = address(&server);
        let streams = scope.spawn(move || load::streams(&address, "/v1/completions", bodies));
        let mut kills = Vec::new();
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..NUM_KILLS {
            wait_until_whole(&server, num_spares);
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let span = KILL_AFTER_MS.end - KILL_AFTER_MS.start;
            let wait = KILL_AFTER_MS.start + (random >> 33) % span;
            std::thread::sleep(Duration::from_millis(wait));
            if streams.is_finished() {
                break;
            }
            let pid = server.main_engine()["pid"].as_u64();
            let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) else {
                continue;
            };
            kills.push(Instant::now());
            send_signal(pid, Signal::KILL);
            wait_until("the kill is noticed", PATIENCE, || {
                server.main_engine()["pid"].as_u64() != Some(pid.into())
            });
        }
        let reports = streams.join().expect("the load generator goes on");
        (reports, kills)
    });
    print_row(num_spares, &reports, &kills, expected);
}

/// Waits until the engine serves and its spares are ready.
fn wait_until_whole(server: &Server, num_spares: usize) {
    wait_until("the engines are ready", PATIENCE, || {
        let status = server.status();
        let engines = status["engines"].as_array().cloned().unwrap_or_default();
        let ready = engines.iter().filter(|engine| engine["state"] == "ready");
        ready.count() == 1 + num_spares
    });
}

fn print_row(num_spares: usize, reports: &[StreamReport], kills: &[Instant], expected: &[String]) {
    let end = memchr::memmem::Finder::new(b"\"finish_reason\":\"length\"");
    let is_finished = |report: &&StreamReport| end.find(&report.answer).is_some();
    let num_finished = reports.iter().filter(is_finished).count();
    let texts = reports.iter().map(text);
    let num_equal = texts.zip(expected).filter(|(a, b)| a == *b).count();
    let mut gaps: Vec<f64> = kills
        .iter()
        .flat_map(|kill| reports.iter().filter_map(|report| gap(report, *kill)))
        .map(|gap| gap.as_secs_f64() * 1e3)
        .collect();
    gaps.sort_by(f64::total_cmp);
    let at = |share: f64| match gaps.len() {
        0 => "-".to_owned(),
        len => format!("{:.0}", gaps[((len - 1) as f64 * share).round() as usize]),
    };
    println!(
        "| {num_spares} | {num_finished} of {} | {num_equal} | {} | {} | {} | {} |",
        reports.len(),
        gaps.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// From the last event before `kill` to the first one after it; none where there is not both.
fn gap(report: &StreamReport, kill: Instant) -> Option<Duration> {
    let place = report.arrivals.partition_point(|arrival| *arrival <= kill);
    let before = report.arrivals.get(place.checked_sub(1)?)?;
    Some(report.arrivals.get(place)?.duration_since(*before))
}

/// The text of a streamed completion.
fn text(report: &StreamReport) -> String {
    let answer = String::from_utf8_lossy(&report.answer);
    let events = answer
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|data| serde_json::from_str::<Value>(data).ok());
    events
        .filter_map(|event| Some(event["choices"][0]["text"].as_str()?.to_owned()))
        .collect()
}
