//! Fifty switchovers in a row, and what they leave behind: no block, socket, thread or task.
//!
//! Requests come through both addresses all the while. What both nodes hold is counted after a few
//! switchovers, and again after fifty more, once everything is quiet.
//!
//! Invariant: anything that stays behind at every switchover, or at every fifth one, fails the
//! test.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hotspare_testkit::{Server, wait_until};
use serde_json::json;

use crate::pair_nodes::{CHAT, COMPLETIONS, Nodes, story, wait_linked, wait_role};
use crate::support::{PATIENCE, chat, metric, wait_idle, with};

/// Before the first count: buffers, threads and caches have their size by then.
const NUM_FIRST: usize = 10;
const NUM_SWITCHOVERS: usize = 50;

/// What comes and goes by itself: the connection that asks, threads that wait for blocking work.
const SLACK: u64 = 9;

/// Memory that a front may have taken beside; leaks of a task or a socket are found as such.
const SLACK_KIB: u64 = 16 << 10;

/// Numbers of what two nodes hold, by name.
type Held = Vec<(String, u64)>;

/// What grew by more than it may.
fn leaks(before: &Held, after: &Held) -> Vec<String> {
    let pairs = before.iter().zip(after);
    let grown = pairs.filter(|((name, before), (_, after))| {
        let slack = match name.ends_with("KiB") {
            true => SLACK_KIB,
            false => SLACK,
        };
        *after > before + slack
    });
    let text = grown.map(|((name, before), (_, after))| format!("{name}: {before} then {after}"));
    text.collect()
}

/// Entries of a directory below `/proc/PID`.
fn count(pid: u64, what: &str) -> u64 {
    let entries = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join(what));
    entries.expect("the process runs").count() as u64
}

/// Memory of a process that is resident and no file's.
fn anonymous_kib(pid: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|number| number.parse().ok()).expect("KiB")
}

fn held(nodes: &Nodes) -> Held {
    let mut held = Held::new();
    for (node, server) in [("a", &nodes.a), ("b", &nodes.b)] {
        let front = u64::from(server.pid());
        let engine = server.main_engine()["pid"].as_u64().expect("an engine");
        for (process, pid) in [("front", front), ("engine", engine)] {
            for what in ["fd", "task"] {
                held.push((format!("{node}, {process}: {what}"), count(pid, what)));
            }
        }
        let tasks = metric(server, "hotspare:runtime_tasks") as u64;
        held.push((format!("{node}: tasks of tokio"), tasks));
        held.push((format!("{node}, front: KiB"), anonymous_kib(front)));
    }
    held
}

/// Waits until nothing of any request is left.
fn wait_quiet(nodes: &Nodes) {
    for server in [&nodes.a, &nodes.b] {
        wait_idle(server);
        wait_until("nothing is left of any request", PATIENCE, || {
            let names = [
                "hotspare:num_requests_held",
                "hotspare:num_sequences_on_peer",
                "hotspare:num_sequences_for_peer",
                "hotspare:num_sequences_replaying",
                "hotspare:journal_bytes",
            ];
            names.iter().all(|name| metric(server, name) == 0.0)
        });
    }
}

/// Requests through one address, streamed and not, until `is_over`.
fn trickle(server: &Server, is_over: &AtomicBool, num_served: &AtomicU64) {
    let client = server.client();
    for number in 0.. {
        if is_over.load(Ordering::SeqCst) {
            return;
        }
        let short = with(chat("Hello"), json!({"max_tokens": 8}));
        let reply = client.post(CHAT, &short);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let events = client
            .stream(COMPLETIONS, &story(number, 12))
            .collect_json();
        assert!(!events.is_empty());
        num_served.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Switchovers back and forth, with requests between them.
fn switch_over(nodes: &Nodes, num: usize) {
    let is_over = AtomicBool::new(false);
    let num_served = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for server in [&nodes.a, &nodes.b] {
            let (is_over, num_served) = (&is_over, &num_served);
            scope.spawn(move || trickle(server, is_over, num_served));
        }
        for index in 0..num {
            let (from, to) = match index % 2 {
                0 => (&nodes.a, &nodes.b),
                _ => (&nodes.b, &nodes.a),
            };
            let reply = from.client().post("/ha/switchover", &json!({}));
            assert_eq!(reply.status, 200, "{}", reply.text());
            wait_role(to, "primary");
            wait_role(from, "standby");
            let goal = num_served.load(Ordering::SeqCst) + 1;
            wait_until("requests are served", PATIENCE, || {
                num_served.load(Ordering::SeqCst) >= goal
            });
        }
        is_over.store(true, Ordering::SeqCst);
    });
    wait_quiet(nodes);
    for server in [&nodes.a, &nodes.b] {
        wait_linked(server);
    }
}

#[test]
fn fifty_switchovers_leave_nothing_behind() {
    let nodes = Nodes::start(&[], [""; 2]);
    switch_over(&nodes, NUM_FIRST);
    let before = held(&nodes);
    switch_over(&nodes, NUM_SWITCHOVERS);
    // Connections of clients that are gone are closed in their own time.
    let mut after = held(&nodes);
    wait_until(
        &format!("{after:?} is back at {before:?}"),
        PATIENCE,
        || {
            after = held(&nodes);
            leaks(&before, &after).is_empty()
        },
    );
    let both = |name: &str| [&nodes.a, &nodes.b].map(|server| metric(server, name));
    let num = (NUM_FIRST + NUM_SWITCHOVERS) as f64 / 2.0;
    assert_eq!(both("hotspare:handovers_total"), [num; 2]);
    assert_eq!(both("hotspare:promotions_total"), [num + 1.0, num]);
    assert_eq!(both("hotspare:fencings_total"), [0.0; 2]);
    assert_eq!(both("hotspare:pair_lost_records_total"), [0.0; 2]);
}

#[test]
fn a_leak_at_every_fifth_switchover_is_found() {
    let held = |fds: u64, kib: u64| vec![("a: fd".to_owned(), fds), ("a: KiB".to_owned(), kib)];
    let leaked = NUM_SWITCHOVERS as u64 / 5;
    let found = leaks(&held(40, 9_000), &held(40 + leaked, 9_000 + SLACK_KIB));
    assert_eq!(found, ["a: fd: 40 then 50"]);
    let found = leaks(&held(40, 9_000), &held(30, 9_001 + SLACK_KIB));
    assert_eq!(found, [format!("a: KiB: 9000 then {}", 9_001 + SLACK_KIB)]);
}
