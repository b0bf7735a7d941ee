//! Requests that use every feature, cut wherever an engine can die: the client gets the bytes of
//! the uncut run.
//!
//! Invariant: each cut really happened, and the answer has no error in it.

use hotspare_testkit::{
    Client, Probe, RequestRow, Server, ServerOptions, masked, requests, unstreamed, wait_until,
};

use crate::in_process::InProcess;
use crate::replay_models::{Model, embedded, tiny};
use crate::replay_plan::{CutRow, cuts, faults};
use crate::support::{PATIENCE, binary, metric};

/// The table for a model, the uncut answers, and how many tokens each has.
struct Uncut {
    rows: Vec<RequestRow>,
    answers: Vec<String>,
    num_tokens: Vec<u64>,
}

fn uncut(client: &Client) -> Uncut {
    let probe = Probe::request();
    let probe = Probe::from_answer(&client.post(probe.path, &probe.body).json());
    let rows = requests(&probe);
    assert!(rows.len() >= 40, "{}", rows.len());
    let mut num_tokens = Vec::new();
    let answers = rows.iter().map(|row| {
        let whole = client.post(row.path, &unstreamed(&row.body));
        assert_eq!(whole.status, 200, "{}: {}", row.name, whole.text());
        let num = whole.json()["usage"]["completion_tokens"].as_u64().unwrap();
        assert!(num > 0, "{}: {}", row.name, whole.text());
        num_tokens.push(num);
        answer(client, row)
    });
    let answers = answers.collect();
    Uncut {
        rows,
        answers,
        num_tokens,
    }
}

fn answer(client: &Client, row: &RequestRow) -> String {
    let reply = client.post(row.path, &row.body);
    assert_eq!(reply.status, 200, "{}: {}", row.name, reply.text());
    let text = masked(&reply.body);
    assert!(!text.contains("\"error\""), "{}: {text}", row.name);
    by_choice(&text)
}

/// The events of a stream, choice by choice. How those of different choices interleave is up to
/// their pace, in an uncut run too.
fn by_choice(text: &str) -> String {
    let mut events: Vec<&str> = text.split_inclusive("\n\n").collect();
    events.sort_by_key(|event| {
        let choice = event.split_once("\"choices\":[{\"index\":");
        let digits = choice.and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
        // What is of no choice is of the end.
        digits
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(u32::MAX)
    });
    events.concat()
}

/// Sends all of `cuts` and compares. `num_restarts` says how often the engine was started again;
/// each request ends one engine.
fn check(client: &Client, cuts: &[CutRow<'_>], uncut: &Uncut, num_restarts: impl Fn() -> usize) {
    for (i, CutRow { row, index, cut }) in cuts.iter().enumerate() {
        let found = answer(client, row);
        let expected = &uncut.answers[*index];
        assert_eq!(&found, expected, "{} with {cut:?}\n{}", row.name, row.body);
        let what = format!("the engine of {} with {cut:?} is replaced", row.name);
        wait_until(&what, PATIENCE, || {
            num_restarts() == i + 1 && client.get("/ready").status == 200
        });
    }
}

/// Every row, cut at every token, over engines on threads.
fn in_process(model: &Model) {
    let uncut = uncut(&InProcess::start(&model.name, "").client());
    let cuts = cuts(&uncut.rows, &uncut.num_tokens, None);
    let server = InProcess::start(&model.name, &faults(&cuts));
    let num_restarts = || server.num_restarts() as usize;
    check(&server.client(), &cuts, &uncut, num_restarts);
    assert!(cuts.len() > 400, "{} cuts", cuts.len());
}

/// Engines may die as often as it takes, one right after the other.
const PATIENT: [&str; 9] = [
    "--engine-restart-backoff-min-ms=1",
    "--engine-restart-backoff-max-ms=1",
    "--max-num-engine-failures=1000000",
    "--max-num-seqs=16",
    "--kv-cache-memory-bytes=16M",
    "--num-threads=1",
    "--stats-log-interval-s=0",
    "--max-num-connections=64",
    "--shutdown-timeout=1",
];

/// As [`processes`], beside a spare that reads along: what it read is what it would have computed.
fn shadowed(model: &Model) {
    let args = [
        "--spare-engines=1",
        "--spare-start-delay-ms=0",
        "--spare-shadow=full",
        "--spare-shadow-interval-ms=1",
        "--spare-shadow-min-lag-tokens=16",
        "--spare-shadow-max-load-percent=100",
    ];
    let server = processes_with(model, &args);
    let num_found = metric(&server, "vllm:prefix_cache_hits_total");
    assert!(
        num_found > 0.0,
        "streams that were taken over found what was read"
    );
}

/// Every row, cut at three places, and one row at every place, over real processes.
fn processes(model: &Model) {
    processes_with(model, &[]);
}

fn processes_with(model: &Model, args: &[&str]) -> Server {
    let uncut =
        uncut(&Server::start(binary(), &ServerOptions::new(&model.name, &PATIENT)).client());
    let mut all = cuts(&uncut.rows, &uncut.num_tokens, Some(3));
    let seeded = uncut
        .rows
        .iter()
        .position(|row| row.name.starts_with("seeded"));
    let seeded = seeded.expect("a row of the table");
    let mut everywhere = cuts(
        &uncut.rows[seeded..=seeded],
        &uncut.num_tokens[seeded..=seeded],
        None,
    );
    everywhere.iter_mut().for_each(|cut| cut.index = seeded);
    all.extend(everywhere);
    let args = [&PATIENT, args].concat();
    let options = ServerOptions::new(&model.name, &args).env("HOTSPARE_FAULTS", &faults(&all));
    let server = Server::start(binary(), &options);
    check(&server.client(), &all, &uncut, || {
        server.main_engine()["restarts"].as_u64().unwrap() as usize
    });
    assert!(all.len() > 3 * uncut.rows.len(), "{} cuts", all.len());
    server
}

#[test]
fn the_embedded_model_in_process() {
    in_process(&embedded());
}

#[test]
fn the_embedded_model_over_processes() {
    processes(&embedded());
}

#[test]
fn the_embedded_model_over_processes_beside_a_spare_that_reads_along() {
    shadowed(&embedded());
}

macro_rules! families {
    ($($name:ident: $family:literal),+ $(,)?) => {$(
        mod $name {
            use super::{in_process, processes, tiny};

            #[test]
            fn in_this_process() {
                tiny($family).iter().for_each(in_process);
            }

            #[test]
            fn over_processes() {
                tiny($family).iter().for_each(processes);
            }
        }
    )+};
}

families!(mistral: "mistral", gemma2: "gemma2", qwen3_moe: "qwen3-moe");
