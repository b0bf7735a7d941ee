//! The fault matrix over real processes: cables that are cut, both ways and one way.
//!
//! Each test is one row of docs/FAULTS.md and records there what it saw.
//!
//! Invariant: a cut is silence; nothing is refused or closed by it.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use hotspare_testkit::wait_until;

use crate::fault_table::record;
use crate::pair_nodes::{CHAT, Nodes, serves, wait_linked, wait_role};
use crate::support::{PATIENCE, chat};

/// Longer than the profile's D, with time for what follows it.
const BEYOND_DEAD: Duration = Duration::from_millis(4_500);

/// Something that a node should reach if it is not cut off.
fn reference() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// The option that names it.
fn option(reference: &TcpListener) -> String {
    format!("--ha-reference={}", reference.local_addr().unwrap())
}

#[test]
fn f19_cut_both_ways() {
    let (nodes, cables) = Nodes::start_cabled([None, None]);
    let at = Instant::now();
    cables.cut(true);
    wait_until("b serves", PATIENCE, || serves(&nodes.b));
    let promoted = at.elapsed().as_millis();
    wait_role(&nodes.a, "primary-solo");
    for server in [&nodes.a, &nodes.b] {
        assert_eq!(
            server.client().post(CHAT, &chat("Hello")).status,
            200,
            "both serve"
        );
        let status = server.status();
        assert_eq!(status["may_write"], false, "{status}");
        assert_eq!(status["limit_share_percent"], 50, "{status}");
    }
    let healed = Instant::now();
    cables.cut(false);
    wait_role(&nodes.a, "standby");
    let text = format!(
        "both served, writes frozen and limits halved (b after {promoted} ms); healed, the lower \
         epoch stood by"
    );
    record(
        "F19",
        &text,
        Some((healed, "from healing until a stands by")),
    );
    wait_role(&nodes.b, "primary");
    wait_linked(&nodes.a);
    assert_eq!(nodes.a.client().post(CHAT, &chat("Hello")).status, 200);
}

#[test]
fn f20_primary_isolated() {
    let references = [reference(), reference()];
    let (nodes, cables) = Nodes::start_cabled(references.each_ref().map(|r| Some(option(r))));
    let [of_a, _of_b] = references;
    drop(of_a);
    let at = Instant::now();
    cables.cut(true);
    wait_until("b serves", PATIENCE, || serves(&nodes.b));
    record(
        "F20",
        "b took over; a serves whoever still reaches it and says that it is isolated",
        Some((at, "until b serves")),
    );
    wait_until("a knows that it is isolated", PATIENCE, || {
        nodes.a.status()["gates"].to_string().contains("references")
    });
    cables.cut(false);
    wait_role(&nodes.a, "standby-ineligible");
    wait_role(&nodes.b, "primary-solo");
}

#[test]
fn f21_standby_isolated() {
    let references = [reference(), reference()];
    let (nodes, cables) = Nodes::start_cabled(references.each_ref().map(|r| Some(option(r))));
    let [_of_a, of_b] = references;
    drop(of_b);
    wait_role(&nodes.b, "standby-ineligible");
    let epoch = nodes.a.status()["epoch"].as_u64();
    cables.cut(true);
    wait_role(&nodes.a, "primary-solo");
    std::thread::sleep(BEYOND_DEAD);
    assert!(!serves(&nodes.b), "who reaches nobody takes nothing over");
    assert_eq!(nodes.a.status()["epoch"].as_u64(), epoch);
    cables.cut(false);
    record(
        "F21",
        "b was not promoted: its references were out of reach; a served on alone",
        None,
    );
}

#[test]
fn f22_cut_from_the_primary() {
    let (nodes, cables) = Nodes::start_cabled([None, None]);
    let epoch = nodes.a.status()["epoch"].as_u64();
    // b hears nothing of a, but a's HTTP port, on another network, answers it.
    cables.cut_from_a(true);
    std::thread::sleep(BEYOND_DEAD);
    assert!(!serves(&nodes.b), "an answered probe is a sign of life");
    assert!(serves(&nodes.a));
    cables.cut_from_a(false);
    wait_role(&nodes.b, "standby");
    wait_role(&nodes.a, "primary");
    assert_eq!(nodes.a.status()["epoch"].as_u64(), epoch);
    record(
        "F22",
        "no promotion: the primary's HTTP port answered the probes",
        None,
    );
}

#[test]
fn f23_cut_from_the_standby() {
    let (nodes, cables) = Nodes::start_cabled([None, None]);
    let epoch = nodes.a.status()["epoch"].as_u64();
    let at = Instant::now();
    cables.cut_from_b(true);
    wait_role(&nodes.a, "primary-solo");
    record(
        "F23",
        "a said that nothing stands by; b heard a and did nothing",
        Some((at, "until a says primary-solo")),
    );
    std::thread::sleep(BEYOND_DEAD);
    assert!(!serves(&nodes.b));
    cables.cut_from_b(false);
    wait_role(&nodes.a, "primary");
    wait_role(&nodes.b, "standby");
    assert_eq!(nodes.a.status()["epoch"].as_u64(), epoch);
}

#[test]
fn f41_a_cable_that_flaps() {
    let (nodes, cables) = Nodes::start_cabled([None, None]);
    let is_quarantined = || {
        [&nodes.a, &nodes.b].into_iter().any(|server| {
            server.status()["overlays"]
                .to_string()
                .contains("quarantine")
        })
    };
    for (primary, other) in [
        (&nodes.a, &nodes.b),
        (&nodes.b, &nodes.a),
        (&nodes.a, &nodes.b),
    ] {
        cables.cut(true);
        wait_until(
            "the other one serves, or roles changed too often",
            PATIENCE,
            || serves(other) || is_quarantined(),
        );
        cables.cut(false);
        if is_quarantined() {
            break;
        }
        wait_role(primary, "standby");
        wait_linked(primary);
    }
    assert!(is_quarantined());
    record(
        "F41",
        "after two changes by silence in ten minutes the node is in quarantine",
        None,
    );
}
