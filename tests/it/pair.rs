//! Pairs of real nodes: requests through either address, deaths, handovers, commands.
//!
//! Invariant: a stream that goes on elsewhere has the text of an uncut one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hotspare_testkit::{Server, send_signal, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::pair_nodes::{
    CHAT, COMPLETIONS, Nodes, ha, kill_node, story, told, wait_linked, wait_role,
};
use crate::support::{PATIENCE, chat, metric, serve_mini};

const NUM_STREAMS: u64 = 32;
const NUM_TOKENS: u64 = 150;

/// Slow enough that a death comes in the middle.
pub(crate) const SLOW: &str = "slow-step-ms=10,engine=all";

/// Starts streams on `server`, does `fault` once all have some tokens, and returns what they said.
pub(crate) fn streams_through(server: &Server, fault: impl FnOnce()) -> Vec<(Vec<u64>, String)> {
    let num_events = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let run = |i: u64| {
            let stream = server.client().stream(COMPLETIONS, &story(i, NUM_TOKENS));
            let events: Vec<Value> = stream
                .filter_map(|event| {
                    num_events.fetch_add(1, Ordering::SeqCst);
                    match event {
                        hotspare_testkit::Event::Json(event) => Some(event),
                        _ => None,
                    }
                })
                .collect();
            told(&events)
        };
        let streams: Vec<_> = (0..NUM_STREAMS)
            .map(|i| scope.spawn(move || run(i)))
            .collect();
        wait_until("the streams have begun", PATIENCE, || {
            num_events.load(Ordering::SeqCst) >= 20 * NUM_STREAMS
        });
        fault();
        let answers = streams.into_iter().map(|stream| stream.join().unwrap());
        answers.collect()
    })
}

/// What a node alone answers.
pub(crate) fn uncut() -> Vec<(Vec<u64>, String)> {
    let server = serve_mini(&["--kv-cache-memory-bytes=64M"]);
    let run = |i| {
        told(
            &server
                .client()
                .stream(COMPLETIONS, &story(i, NUM_TOKENS))
                .collect_json(),
        )
    };
    (0..NUM_STREAMS).map(run).collect()
}

#[test]
fn either_address_gives_the_primarys_answer() {
    let nodes = Nodes::start(&[], [""; 2]);
    let steps = |server: &Server| server.main_engine()["steps"].as_u64().unwrap();
    let before = steps(&nodes.b);
    let through_b = nodes.b.client().post(CHAT, &chat("Hello"));
    assert_eq!(through_b.status, 200, "{}", through_b.text());
    assert_eq!(through_b.header("x-hotspare-node"), Some("b"));
    let epoch = nodes.a.status()["epoch"].as_u64().unwrap();
    assert!(epoch > 0);
    let expected = epoch.to_string();
    assert_eq!(
        through_b.header("x-hotspare-epoch"),
        Some(expected.as_str())
    );
    // A canary may have.
    assert!(
        steps(&nodes.b) < before + 10,
        "b's own engine did not work on it"
    );
    let through_a = nodes.a.client().post(CHAT, &chat("Hello"));
    let text = |reply: &hotspare_testkit::Reply| reply.json()["choices"][0]["message"].clone();
    assert_eq!(text(&through_b), text(&through_a));
    for (server, primary, standby) in [(&nodes.a, 200, 503), (&nodes.b, 503, 200)] {
        let status = |path: &str| server.client().get(path).status;
        assert_eq!(status("/ready"), 200);
        assert_eq!(status("/ha/primary"), primary);
        assert_eq!(status("/ha/standby"), standby);
    }
    let status = nodes.b.status();
    assert_eq!(status["peer"]["node"], "a");
    assert_eq!(status["peer"]["role"], "primary");
    assert_eq!(status["mode"], "available");
    assert_eq!(status["eligibility"], "eligible");
    assert_eq!(status["admission"], "to-peer");
}

#[test]
fn streams_through_the_standby_survive_the_whole_primary() {
    let mut nodes = Nodes::start(&[], [SLOW; 2]);
    let expected = uncut();
    let Nodes { a, b, .. } = &mut nodes;
    let answers = streams_through(b, || kill_node(a));
    assert_eq!(answers, expected);
    wait_role(b, "primary-solo");
    let reply = b.client().post(CHAT, &chat("Hello"));
    assert_eq!(reply.status, 200);
    assert!(metric(b, "hotspare:replays_total") >= NUM_STREAMS as f64);
    // What was dead comes back as the standby.
    nodes.restart_a();
    wait_role(&nodes.a, "standby");
    wait_role(&nodes.b, "primary");
    wait_linked(&nodes.a);
    assert_eq!(nodes.a.client().post(CHAT, &chat("Hello")).status, 200);
}

#[test]
fn streams_through_the_primary_survive_its_engine() {
    let nodes = Nodes::start(&[], [SLOW; 2]);
    let expected = uncut();
    let answers = streams_through(&nodes.a, || {
        let pid = nodes.a.main_engine()["pid"].as_u64().unwrap();
        send_signal(u32::try_from(pid).unwrap(), Signal::KILL);
    });
    assert_eq!(answers, expected);
    // The role went to the node that has an engine.
    wait_role(&nodes.b, "primary");
    wait_role(&nodes.a, "standby");
    for server in [&nodes.a, &nodes.b] {
        assert_eq!(server.client().post(CHAT, &chat("Hello")).status, 200);
    }
}

#[test]
fn a_switchover_loses_no_request() {
    let nodes = Nodes::start(&[], [""; 2]);
    let is_over = AtomicBool::new(false);
    let num_served = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for server in [&nodes.a, &nodes.b, &nodes.a, &nodes.b] {
            let (is_over, num_served) = (&is_over, &num_served);
            scope.spawn(move || {
                let client = server.client();
                while !is_over.load(Ordering::SeqCst) {
                    let reply = client.post(CHAT, &chat("Hello"));
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    num_served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let more = |num: u64| {
            let goal = num_served.load(Ordering::SeqCst) + num;
            wait_until("requests are served", PATIENCE, || {
                num_served.load(Ordering::SeqCst) >= goal
            });
        };
        more(8);
        for (from, to) in [(&nodes.a, &nodes.b), (&nodes.b, &nodes.a)] {
            let output = ha(from, &["switchover", "--reason", "test"]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.code(), Some(0), "{text}");
            assert!(text.starts_with("done, epoch "), "{text}");
            wait_role(to, "primary");
            wait_role(from, "standby");
            more(8);
        }
        is_over.store(true, Ordering::SeqCst);
    });
    let history = nodes.a.client().get("/ha/history").json();
    let entries = history["history"].as_array().unwrap();
    let switched = |entry: &&Value| entry["event"] == "role-changed" && entry["reason"] == "test";
    assert!(entries.iter().any(|entry| switched(&entry)), "{history}");
}

#[test]
fn an_end_of_the_primary_is_a_handover() {
    let mut nodes = Nodes::start(&[], [""; 2]);
    nodes.a.signal(Signal::TERM);
    let status = nodes.a.wait_exit(PATIENCE);
    assert_eq!(status.code(), Some(0));
    wait_role(&nodes.b, "primary-solo");
    assert_eq!(nodes.b.client().post(CHAT, &chat("Hello")).status, 200);
    // A standby's end is a farewell: nothing changes for the one that serves.
    nodes.restart_a();
    wait_role(&nodes.b, "primary");
    nodes.a.signal(Signal::TERM);
    assert_eq!(nodes.a.wait_exit(PATIENCE).code(), Some(0));
    wait_role(&nodes.b, "primary-solo");
}

#[test]
fn operators_are_answered_with_reasons_and_exit_statuses() {
    let nodes = Nodes::start(&[], [""; 2]);
    let code = |server: &Server, args: &[&str]| {
        let output = ha(server, args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().unwrap(), text)
    };
    let (status, text) = code(&nodes.b, &["status"]);
    assert!(
        status == 0 && text.starts_with("b is standby in epoch"),
        "{text}"
    );
    assert_eq!(code(&nodes.b, &["why-not"]).0, 0);
    assert_eq!(code(&nodes.a, &["switchover", "--dry-run"]).0, 0);
    let (status, text) = code(&nodes.b, &["switchover"]);
    assert!(
        status == 3 && text.contains("role: this node is standby"),
        "{text}"
    );
    let (status, text) = code(&nodes.b, &["promote"]);
    assert!(
        status == 3 && text.contains("peer: the peer serves"),
        "{text}"
    );
    let id = "00000000-0000-4000-8000-000000000001";
    assert_eq!(code(&nodes.b, &["pause", "--operation-id", id]).0, 0);
    assert_eq!(code(&nodes.b, &["pause", "--operation-id", id]).0, 0);
    let (status, text) = code(&nodes.b, &["why-not"]);
    assert!(status == 3 && text.contains("paused"), "{text}");
    assert_eq!(code(&nodes.b, &["resume"]).0, 0);
    assert_eq!(code(&nodes.b, &["why-not"]).0, 0);
    let (status, text) = code(&nodes.b, &["status", "--json"]);
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert!(status == 0 && json["role"] == "standby");
    let misspelt = json!({"dryrun": true});
    let reply = nodes.a.client().post("/ha/switchover", &misspelt);
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert_eq!(nodes.a.status()["role"], "primary");
}

#[test]
fn a_node_alone_is_what_it_was() {
    let server = serve_mini(&[]);
    let status = server.status();
    assert_eq!(status["role"], "primary-solo");
    assert_eq!(status["epoch"], 0);
    assert!(
        status.get("peer").is_none() && status.get("gates").is_none(),
        "{status}"
    );
    assert_eq!(server.client().get("/ha/primary").status, 200);
    assert_eq!(server.client().get("/ha/standby").status, 503);
    let output = ha(&server, &["switchover"]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("no peer is configured"), "{text}");
}
