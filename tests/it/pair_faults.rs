//! The fault matrix over real processes, in mode `available` and profile `lan`: deaths and stops.
//!
//! Each test is one row of docs/FAULTS.md and records there what it saw.
//!
//! Invariant: a row says what was measured, and asserts only what does not depend on the machine's
//! speed: roles, texts, and that a fast path was not the slow one.

use std::time::{Duration, Instant};

use hotspare_testkit::{Server, is_running, send_signal, wait_until};
use rustix::process::Signal;

use crate::fault_table::record;
use crate::pair_nodes::{
    CHAT, COMPLETIONS, Hook, Nodes, ha, kill_node, serves, story, told, wait_linked, wait_role,
};
use crate::support::{PATIENCE, USED_BLOCKS, chat, metric};

/// `dead_after_ms` of the profile: what takes less did not wait for silence.
const DEAD_AFTER: Duration = Duration::from_secs(3);

fn engine_pid(server: &Server) -> u32 {
    let pid = server.main_engine()["pid"]
        .as_u64()
        .expect("an engine runs");
    u32::try_from(pid).expect("a process id")
}

/// Waits until a request is served by `server` as the primary.
fn wait_serves(server: &Server) {
    wait_until("the node serves", PATIENCE, || serves(server));
}

/// Kills the front of a node; its engine ends by itself.
fn kill_front(server: &mut Server) {
    send_signal(server.pid(), Signal::KILL);
    server.wait_exit(PATIENCE);
}

#[test]
fn f1_engine_killed() {
    let nodes = Nodes::start(&[], ["slow-step-ms=10,engine=all"; 2]);
    let client = nodes.a.client();
    let uncut = told(&client.stream(COMPLETIONS, &story(0, 150)).collect_json());
    let mut at = None;
    let mut events = Vec::new();
    for event in client.stream(COMPLETIONS, &story(0, 150)) {
        if let hotspare_testkit::Event::Json(event) = event {
            events.push(event);
        }
        if events.len() == 30 && at.is_none() {
            send_signal(engine_pid(&nodes.a), Signal::KILL);
            at = Some(Instant::now());
        }
    }
    assert_eq!(told(&events), uncut);
    wait_role(&nodes.b, "primary");
    let outcome = "the stream went on with the same text; b took over on request";
    record(
        "F1",
        outcome,
        at.map(|at| (at, "until the stream's end and b is primary")),
    );
}

#[test]
fn f2_front_killed() {
    let mut nodes = Nodes::start(&[], [""; 2]);
    let Nodes { a, b, .. } = &mut nodes;
    let engine = engine_pid(a);
    let at = Instant::now();
    kill_front(a);
    wait_serves(b);
    let took = at.elapsed();
    assert!(took < DEAD_AFTER, "two refused ports are proof: {took:?}");
    record(
        "F2",
        "b took over on two refused ports; a's engine ended by itself",
        Some((at, "until b serves")),
    );
    wait_until("a's engine has ended", PATIENCE, || !is_running(engine));
}

#[test]
fn f3_front_and_engine_killed() {
    let mut nodes = Nodes::start(&[], [""; 2]);
    let Nodes { a, b, .. } = &mut nodes;
    let at = Instant::now();
    kill_node(a);
    wait_serves(b);
    let took = at.elapsed();
    assert!(took < DEAD_AFTER, "two refused ports are proof: {took:?}");
    record(
        "F3",
        "b took over on two refused ports",
        Some((at, "until b serves")),
    );
}

#[test]
fn f4_power_lost() {
    let (mut nodes, cables) = Nodes::start_cabled([None, None]);
    let Nodes { a, b, .. } = &mut nodes;
    let at = Instant::now();
    // No machine is left that could refuse.
    cables.cut(true);
    kill_node(a);
    wait_serves(b);
    let took = at.elapsed();
    assert!(
        took >= DEAD_AFTER - Duration::from_millis(600),
        "silence alone is no proof: {took:?}"
    );
    record(
        "F4",
        "b took over after D of silence",
        Some((at, "until b serves")),
    );
}

#[test]
fn f5_front_stopped_and_continued() {
    let nodes = Nodes::start(&[], [""; 2]);
    let at = Instant::now();
    nodes.a.signal(Signal::STOP);
    wait_serves(&nodes.b);
    let took = at.elapsed();
    assert!(took >= DEAD_AFTER - Duration::from_millis(600), "{took:?}");
    let epoch = nodes.b.status()["epoch"].as_u64();
    nodes.a.signal(Signal::CONT);
    wait_role(&nodes.a, "standby");
    assert_eq!(nodes.a.client().post(CHAT, &chat("Hello")).status, 200);
    assert_eq!(
        nodes.b.status()["epoch"].as_u64(),
        epoch,
        "nothing else changed"
    );
    let history = nodes.a.client().get("/ha/history").json().to_string();
    assert!(history.contains("fenced"), "{history}");
    let text = format!(
        "b took over after {} ms; a fenced itself before it admitted anything, then stood by",
        took.as_millis()
    );
    record("F5", &text, None);
}

#[test]
fn f6_engine_stopped() {
    let args = ["--engine-hang-floor-ms=1000"];
    let nodes = Nodes::start(&args, ["slow-step-ms=10,engine=all"; 2]);
    let client = nodes.a.client();
    let uncut = told(&client.stream(COMPLETIONS, &story(1, 100)).collect_json());
    let mut at = None;
    let mut events = Vec::new();
    for event in client.stream(COMPLETIONS, &story(1, 100)) {
        if let hotspare_testkit::Event::Json(event) = event {
            events.push(event);
        }
        if events.len() == 30 && at.is_none() {
            send_signal(engine_pid(&nodes.a), Signal::STOP);
            at = Some(Instant::now());
        }
    }
    assert_eq!(told(&events), uncut);
    assert_eq!(client.get("/live").status, 200);
    wait_role(&nodes.b, "primary");
    let outcome =
        "the hang was noticed (floor 1 s here), the stream went on with the same text, b took over";
    record(
        "F6",
        outcome,
        at.map(|at| (at, "until the stream's end and b is primary")),
    );
}

#[test]
fn f35_standby_killed() {
    let mut nodes = Nodes::start(&[], [""; 2]);
    let Nodes { a, b, .. } = &mut nodes;
    let at = Instant::now();
    kill_node(b);
    wait_role(a, "primary-solo");
    record(
        "F35",
        "a serves on, alone",
        Some((at, "until a says primary-solo")),
    );
    assert_eq!(a.client().post(CHAT, &chat("Hello")).status, 200);
}

#[test]
fn f36_both_died_and_the_standby_comes_first() {
    let mut nodes = Nodes::start(&[], [""; 2]);
    let epoch = nodes.a.status()["epoch"].as_u64();
    kill_node(&mut nodes.b);
    kill_node(&mut nodes.a);
    let at = Instant::now();
    nodes.restart_b();
    wait_serves(&nodes.b);
    assert!(
        nodes.b.status()["epoch"].as_u64() > epoch,
        "epochs outlive processes"
    );
    record(
        "F36",
        "b waited for its peer, then served in a higher epoch",
        Some((at, "from start until b serves")),
    );
}

#[test]
fn f38_killed_between_promotion_and_hook() {
    let hook = Hook::new("sleep 1; echo \"$HA_NODE $HA_ROLE\" >> \"$LOG\"");
    let mut nodes = Nodes::start(&[&hook.option()], [""; 2]);
    kill_node(&mut nodes.a);
    wait_serves(&nodes.b);
    kill_node(&mut nodes.b);
    nodes.restart_b();
    wait_until("the hook was told", PATIENCE, || {
        hook.log().lines().any(|line| line == "b primary-solo")
    });
    record("F38", "the hook ran for the role after the restart", None);
}

#[test]
fn f39_hook_fails() {
    let hook = Hook::new("echo tried >> \"$LOG\"; exit 1");
    let mut nodes = Nodes::start(&[&hook.option()], [""; 2]);
    let at = Instant::now();
    kill_node(&mut nodes.a);
    wait_serves(&nodes.b);
    record(
        "F39",
        "b served all the same; the hook was tried again",
        Some((at, "until b serves")),
    );
    let tried = || hook.log().lines().count();
    let before = tried();
    wait_until("the hook is tried again", PATIENCE, || tried() > before);
}

#[test]
fn f40_the_dead_node_returns() {
    let mut nodes = Nodes::start(&[], [""; 2]);
    kill_node(&mut nodes.a);
    wait_serves(&nodes.b);
    let epoch = nodes.b.status()["epoch"].as_u64();
    let at = Instant::now();
    nodes.restart_a();
    wait_role(&nodes.a, "standby");
    wait_role(&nodes.b, "primary");
    record(
        "F40",
        "a stands by; no failback",
        Some((at, "from start until a stands by")),
    );
    wait_linked(&nodes.a);
    assert_eq!(nodes.a.client().post(CHAT, &chat("Hello")).status, 200);
    assert_eq!(nodes.b.status()["epoch"].as_u64(), epoch);
}

#[test]
fn f42_killed_in_a_switchover() {
    let mut nodes = Nodes::start(&[], [""; 2]);
    let Nodes { a, b, .. } = &mut nodes;
    let at = std::thread::scope(|scope| {
        // Whatever it says: its server dies.
        let url = a.base_url().to_owned();
        let asked = scope.spawn(move || crate::pair_nodes::ha_at(&url, &["switchover"]));
        let pid = a.pid();
        wait_until("the handover has begun", PATIENCE, || {
            let role = hotspare_testkit::Client::new(b.base_url())
                .get("/ha/status")
                .json()["peer"]["role"]
                .clone();
            role != "primary" || serves(b)
        });
        let at = Instant::now();
        send_signal(pid, Signal::KILL);
        let _ = asked.join();
        at
    });
    a.wait_exit(PATIENCE);
    wait_serves(b);
    record("F42", "b is the one primary", Some((at, "until b serves")));
}

#[test]
fn f43_two_operators() {
    let nodes = Nodes::start(&[], [""; 2]);
    let [switched, promoted] = std::thread::scope(|scope| {
        let one = scope.spawn(|| ha(&nodes.a, &["switchover"]));
        let two = scope.spawn(|| ha(&nodes.a, &["switchover"]));
        [one, two].map(|asked| asked.join().expect("an answer").status.code())
    });
    let codes = [switched, promoted];
    assert!(codes.contains(&Some(0)), "{codes:?}");
    assert!(codes.contains(&Some(3)), "one at a time: {codes:?}");
    wait_role(&nodes.b, "primary");
    wait_role(&nodes.a, "standby");
    record(
        "F43",
        "one was done, the other refused with its reason",
        None,
    );
}

#[test]
fn f44_paused_and_the_primary_dies() {
    let mut nodes = Nodes::start(&[], [""; 2]);
    let Nodes { a, b, .. } = &mut nodes;
    assert_eq!(ha(a, &["pause"]).status.code(), Some(0));
    wait_until("b knows", PATIENCE, || {
        let why = b.client().get("/ha/why-not").json().to_string();
        why.contains("paused")
    });
    kill_node(a);
    wait_until("b has told of it", PATIENCE, || {
        b.client()
            .get("/ha/history")
            .json()
            .to_string()
            .contains("paused-over-dead-peer")
    });
    assert!(!serves(b));
    assert_eq!(ha(b, &["promote"]).status.code(), Some(0));
    wait_serves(b);
    record(
        "F44",
        "b did nothing but tell of it; `promote` worked",
        None,
    );
}

#[test]
fn f45_ineligible_standby() {
    let mut nodes = Nodes::start_of(["spark-mini", "spark"], &[], [""; 2]);
    let Nodes { a, b, .. } = &mut nodes;
    wait_role(a, "primary-solo");
    wait_role(b, "standby-ineligible");
    let gates = b.status()["gates"].to_string();
    assert!(gates.contains("model"), "{gates}");
    let refused = b.client().post(CHAT, &chat("Hello"));
    assert_eq!(refused.status, 503, "nobody gets another model unasked");
    assert!(
        refused.text().contains("another model"),
        "{}",
        refused.text()
    );
    kill_node(a);
    wait_serves(b);
    let status = b.status();
    assert_eq!(status["degraded"], true, "{status}");
    let reply = b.client().post(CHAT, &chat("Hello"));
    assert_eq!(reply.status, 200);
    assert!(reply.header("x-hotspare-degraded").is_some());
    record(
        "F45",
        "b, which had refused to answer for a, took over degraded and says so",
        None,
    );
}

#[test]
fn f48_clients_leave_in_the_gap() {
    let mut nodes = Nodes::start(&[], ["slow-step-ms=10,engine=all"; 2]);
    let Nodes { a, b, .. } = &mut nodes;
    let mut streams: Vec<_> = (0..4)
        .map(|i| b.client().stream(COMPLETIONS, &story(i, 400)))
        .collect();
    for stream in &mut streams {
        assert!(stream.by_ref().take(10).count() == 10);
    }
    kill_node(a);
    drop(streams);
    wait_serves(b);
    wait_until("nothing runs and nothing is held", PATIENCE, || {
        let engine = b.main_engine();
        engine["running"] == 0 && engine["waiting"] == 0 && metric(b, USED_BLOCKS) == 0.0
    });
    record("F48", "nothing was generated for nobody", None);
}
