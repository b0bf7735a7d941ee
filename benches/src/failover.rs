//! How long streams stand still when their engine is killed: with what engines keep for the next
//! one, with a spare that reads along, with neither; and what either costs.
//!
//! 64 streams of the embedded model run at the same time while the main engine is killed five times
//! at random moments after a spare was ready. The gap of a stream at a kill is its longest silence
//! that begins before the kill, or right after it with what was on its way by then. The phases of a
//! gap are means: until the front heard of the loss (and from the server to the client), until the
//! sequence was given to the next engine, until its next token.
//!
//! Invariant: the texts are compared with those of the same requests on an engine that nobody
//! kills; a stream that ended with an error is counted, never left out in silence.

use std::ops::Range;
use std::time::{Duration, Instant};

use hotspare_testkit::{Server, send_signal, wait_until};
use rustix::process::Signal;
use serde_json::Value;

use crate::load::{self, StreamReport};
use crate::server::{address, counter, start};

const NUM_STREAMS: usize = 64;
const NUM_TOKENS: usize = 800;
const NUM_KILLS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// In which what an engine sent before its end has reached the client.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// Time between an engine's readiness and its end, milliseconds.
const KILL_AFTER_MS: Range<u64> = 200..1_200;

/// A spare that is no further behind than this has caught up: what streams wait for before they are
/// read along, and as much again for what comes meanwhile.
const CAUGHT_UP_TOKENS: u64 = 2 * 32 * NUM_STREAMS as u64;

/// What is there beside the engine that serves.
#[derive(Clone, Copy, Debug)]
struct Setup {
    name: &'static str,
    num_spares: usize,
    shadow: &'static str,
    /// Engines keep their KV blocks for the next one.
    keeps: bool,
    /// Kill only when the spare has read what runs.
    waits: bool,
}

const SETUPS: [Setup; 6] = [
    Setup {
        name: "spare",
        num_spares: 1,
        shadow: "auto",
        keeps: true,
        waits: false,
    },
    Setup {
        name: "no spare",
        num_spares: 0,
        shadow: "auto",
        keeps: true,
        waits: false,
    },
    Setup {
        name: "spare, nothing kept, it has read along",
        num_spares: 1,
        shadow: "full",
        keeps: false,
        waits: true,
    },
    Setup {
        name: "spare, nothing kept, it reads along",
        num_spares: 1,
        shadow: "full",
        keeps: false,
        waits: false,
    },
    Setup {
        name: "spare, nothing kept",
        num_spares: 1,
        shadow: "off",
        keeps: false,
        waits: false,
    },
    Setup {
        name: "no spare, nothing kept",
        num_spares: 0,
        shadow: "off",
        keeps: false,
        waits: false,
    },
];

/// Ways to be ready for a loss, whose costs are compared: shadow, and what is kept.
const COSTS: [(&str, &str, &str); 3] = [
    ("neither", "off", NOTHING_KEPT),
    ("blocks are kept", "off", "--kv-mirror-memory-bytes=1G"),
    ("a spare reads along", "full", NOTHING_KEPT),
];

const NOTHING_KEPT: &str = "--kv-mirror-memory-bytes=0";

/// The streams are started afresh so often, until there were enough kills.
const MAX_NUM_ROUNDS: usize = 8;

/// Rounds of the comparison of costs.
const NUM_COST_ROUNDS: usize = 3;

/// Prints the tables.
pub(crate) fn run() {
    println!(
        "\n## Failover: {NUM_STREAMS} streams of `spark`, {NUM_TOKENS} tokens each, the engine \
         killed {NUM_KILLS} times\n"
    );
    println!(
        "| engines | streams finished | texts as of an uncut run | kills | gaps | p50 ms | p99 ms \
         | greatest ms | heard ms | given ms | token ms | read again, tokens |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let bodies = load::stories(NUM_STREAMS, NUM_TOKENS);
    let uncut = {
        let server = start("spark", &["--disable-log-stats"]);
        load::streams(&address(&server), "/v1/completions", &bodies)
    };
    let expected: Vec<String> = uncut.iter().map(text).collect();
    for setup in SETUPS {
        one_run(setup, &bodies, &expected);
    }
    println!("\nA stream that does not finish ended with an error event.");
    costs(&bodies);
}

/// Time that the same streams take when nobody kills anything, in turns.
fn costs(bodies: &[String]) {
    let mut times = COSTS.map(|_| f64::INFINITY);
    for _ in 0..NUM_COST_ROUNDS {
        for (shortest, (_, shadow, kept)) in times.iter_mut().zip(COSTS) {
            let args = [
                "--disable-log-stats",
                "--spare-engines=1",
                "--spare-shadow",
                shadow,
                kept,
            ];
            let server = start("spark", &args);
            wait_until_whole(&server, 1);
            let started = Instant::now();
            load::streams(&address(&server), "/v1/completions", bodies);
            *shortest = shortest.min(started.elapsed().as_secs_f64());
        }
    }
    println!("\n| the same streams without a kill | s, the shortest of {NUM_COST_ROUNDS} | more |");
    println!("|---|---:|---:|");
    for ((name, ..), time) in COSTS.iter().zip(times) {
        let more = (time / times[0] - 1.0) * 100.0;
        println!("| {name} | {time:.2} | {more:.0} % |");
    }
}

fn one_run(setup: Setup, bodies: &[String], expected: &[String]) {
    let num_spares = setup.num_spares;
    let spares = num_spares.to_string();
    // Five kills within a minute are meant here, and are no reason to wait.
    let args = [
        "--disable-log-stats",
        "--spare-engines",
        &spares,
        "--spare-shadow",
        setup.shadow,
        "--engine-restart-backoff-max-ms",
        "1",
        "--engine-restart-backoff-min-ms",
        "1",
        "--max-num-engine-failures",
        "100",
        match setup.keeps {
            true => "--kv-mirror-memory-bytes=1G",
            false => NOTHING_KEPT,
        },
    ];
    let server = start("spark", &args);
    let mut run = Run::default();
    while run.num_kills < NUM_KILLS && run.num_rounds < MAX_NUM_ROUNDS {
        one_round(&server, setup, bodies, expected, &mut run);
    }
    let phases = Phases::of(&server, &server);
    print_row(setup.name, run, &phases);
}

/// What was seen of the streams on one server.
#[derive(Default)]
struct Run {
    num_rounds: usize,
    num_kills: usize,
    num_streams: usize,
    num_finished: usize,
    num_equal: usize,
    gaps_ms: Vec<f64>,
    random: Random,
}

/// When engines are killed.
pub(crate) struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    /// A time in `range`, which is in milliseconds.
    pub(crate) fn wait(&mut self, range: &Range<u64>) -> Duration {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let span = (range.end - range.start).max(1);
        Duration::from_millis(range.start + (self.0 >> 33) % span)
    }
}

/// The streams once, and as many kills as come into their time.
fn one_round(server: &Server, setup: Setup, bodies: &[String], expected: &[String], run: &mut Run) {
    wait_until_whole(server, setup.num_spares);
    let (reports, kills) = std::thread::scope(|scope| {
        let address = address(server);
        let streams = scope.spawn(move || load::streams(&address, "/v1/completions", bodies));
        let mut kills = Vec::new();
        while run.num_kills < NUM_KILLS {
            wait_until_whole(server, setup.num_spares);
            std::thread::sleep(run.random.wait(&KILL_AFTER_MS));
            if setup.waits {
                wait_until("the spare has caught up", PATIENCE, || {
                    streams.is_finished() || num_unread(server) <= CAUGHT_UP_TOKENS
                });
            }
            if streams.is_finished() {
                break;
            }
            let pid = server.main_engine()["pid"].as_u64();
            let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) else {
                continue;
            };
            kills.push(Instant::now());
            run.num_kills += 1;
            send_signal(pid, Signal::KILL);
            wait_until("the kill is noticed", PATIENCE, || {
                server.main_engine()["pid"].as_u64() != Some(pid.into())
            });
        }
        let reports = streams.join().expect("the load generator goes on");
        (reports, kills)
    });
    run.num_rounds += 1;
    run.num_streams += reports.len();
    run.num_finished += reports.iter().filter(|report| is_finished(report)).count();
    let texts = reports.iter().map(text);
    run.num_equal += texts.zip(expected).filter(|(a, b)| a == *b).count();
    let gaps = kills
        .iter()
        .flat_map(|kill| reports.iter().filter_map(|report| gap(report, *kill)));
    run.gaps_ms.extend(gaps.map(|gap| gap.as_secs_f64() * 1e3));
}

/// Tokens that the spare has to read yet.
fn num_unread(server: &Server) -> u64 {
    let status = server.status();
    let engines = status["engines"].as_array().cloned().unwrap_or_default();
    let unread = engines
        .iter()
        .find_map(|engine| engine["unread_tokens"].as_u64());
    unread.unwrap_or(u64::MAX)
}

/// Means over the replays, of the server's own.
pub(crate) struct Phases {
    /// From the loss until the sequence was given to another engine, ms.
    pub(crate) given: f64,
    /// From the loss until its next token, ms.
    pub(crate) gap: f64,
    /// Tokens that an engine found nowhere, for each replay.
    pub(crate) num_read_again: f64,
}

impl Phases {
    /// Of the streams of `server`, which went on on the engine of `reader`.
    pub(crate) fn of(server: &Server, reader: &Server) -> Self {
        let mean = |name: &str| {
            let sum = counter(server, &format!("{name}_sum"));
            sum * 1e3 / counter(server, &format!("{name}_count")).max(1.0)
        };
        let num_replays = counter(server, "hotspare:replay_wait_seconds_count");
        let num_looked_up = counter(reader, "vllm:prefix_cache_queries_total");
        let num_found = counter(reader, "vllm:prefix_cache_hits_total");
        Self {
            given: mean("hotspare:replay_wait_seconds"),
            gap: mean("hotspare:replay_gap_seconds"),
            num_read_again: (num_looked_up - num_found) / num_replays.max(1.0),
        }
    }
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

fn print_row(name: &str, run: Run, phases: &Phases) {
    let mut gaps = run.gaps_ms;
    gaps.sort_by(f64::total_cmp);
    let at = |share: f64| match gaps.len() {
        0 => "-".to_owned(),
        len => format!("{:.0}", gaps[((len - 1) as f64 * share).round() as usize]),
    };
    let mean = gaps.iter().sum::<f64>() / gaps.len().max(1) as f64;
    println!(
        "| {name} | {} of {} | {} | {} | {} | {} | {} | {} | {:.0} | {:.0} | {:.0} | {:.0} |",
        run.num_finished,
        run.num_streams,
        run.num_equal,
        run.num_kills,
        gaps.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        mean - phases.gap,
        phases.given,
        phases.gap - phases.given,
        phases.num_read_again
    );
}

/// The longest silence that ends after `kill` and begins before what was on its way is read; none
/// where nothing comes after it.
pub(crate) fn gap(report: &StreamReport, kill: Instant) -> Option<Duration> {
    let silences = report.arrivals.windows(2);
    let around = silences.filter(|ends| ends[1] > kill && ends[0] <= kill + ON_ITS_WAY);
    around.map(|ends| ends[1].duration_since(ends[0])).max()
}

/// Whether a stream got all that it asked for.
pub(crate) fn is_finished(report: &StreamReport) -> bool {
    memchr::memmem::find(&report.answer, b"\"finish_reason\":\"length\"").is_some()
}

/// The text of a streamed completion.
pub(crate) fn text(report: &StreamReport) -> String {
    let answer = String::from_utf8_lossy(&report.answer);
    let events = answer
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|data| serde_json::from_str::<Value>(data).ok());
    events
        .filter_map(|event| Some(event["choices"][0]["text"].as_str()?.to_owned()))
        .collect()
}
