//! Models that are changed while a pair runs: what the nodes compare is what really serves.

use hotspare_testkit::{Server, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::pair_nodes::{CHAT, Nodes, kill_node, wait_linked, wait_role};
use crate::support::{PATIENCE, chat};

fn reload(server: &Server, model: &str) {
    let reply = server.client().post("/ha/reload", &json!({"model": model}));
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// The gates that do not pass, with their reasons.
fn barring(server: &Server) -> Vec<(String, String)> {
    let status = server.status();
    let gates = status["gates"].as_array().cloned().unwrap_or_default();
    let text = |gate: &Value, key: &str| gate[key].as_str().unwrap_or_default().to_owned();
    gates
        .iter()
        .filter(|gate| gate["verdict"] != "pass" && gate["verdict"] != "warn")
        .map(|gate| (text(gate, "name"), text(gate, "reason")))
        .collect()
}

#[test]
fn a_standby_of_another_model_is_not_eligible_until_the_primary_has_it_too() {
    let mut nodes = Nodes::start(&[], [""; 2]);
    let before = nodes.a.status()["epoch"].clone();
    reload(&nodes.b, "spark");
    wait_role(&nodes.b, "standby-ineligible");
    wait_role(&nodes.a, "primary-solo");
    let reasons = barring(&nodes.b);
    let names: Vec<&str> = reasons.iter().map(|(name, _)| name.as_str()).collect();
    // A model has a name and a length of its own, which clients see.
    assert_eq!(names, ["model", "config"], "{reasons:?}");
    let hash = |server: &Server| server.main_engine()["model_hash"].clone();
    let [of_a, of_b] = [&nodes.a, &nodes.b].map(hash);
    for hash in [&of_a, &of_b] {
        let hash = hash.as_str().expect("a hash");
        assert!(reasons[0].1.contains(hash), "{reasons:?}");
    }
    let why_not = nodes.a.client().get("/ha/why-not").text();
    assert!(why_not.contains("eligible"), "{why_not}");
    assert_eq!(nodes.b.client().post(CHAT, &chat("Hello")).status, 503);

    // The primary follows, and goes on serving in its epoch.
    reload(&nodes.a, "spark");
    wait_role(&nodes.b, "standby");
    wait_role(&nodes.a, "primary");
    assert_eq!(nodes.a.status()["epoch"], before);
    assert_eq!(barring(&nodes.b), []);
    assert_eq!(hash(&nodes.a), of_b);
    wait_linked(&nodes.b);
    let answer = |server: &Server| server.client().post(CHAT, &chat("Hello")).json();
    wait_until("b sends to a's new engine", PATIENCE, || {
        answer(&nodes.b)["model"] == "spark"
    });
    let text = |server: &Server| answer(server)["choices"][0]["message"]["content"].clone();
    assert_eq!(text(&nodes.b), text(&nodes.a));

    // SIGHUP loads the model that the node was started with.
    nodes.b.signal(Signal::HUP);
    wait_role(&nodes.b, "standby-ineligible");
    nodes.a.signal(Signal::HUP);
    wait_role(&nodes.b, "standby");
    kill_node(&mut nodes.a);
    wait_role(&nodes.b, "primary-solo");
    assert_eq!(nodes.b.status()["degraded"], false, "{}", nodes.b.status());
    assert_eq!(answer(&nodes.b)["model"], "spark-mini");
}

#[test]
fn at_a_cold_start_the_lower_rank_serves_though_it_came_later() {
    let nodes = Nodes::start_b_first(&["--ha-wait-for-peer-ms=60000"]);
    wait_role(&nodes.a, "primary");
    wait_role(&nodes.b, "standby");
    let history = nodes.b.client().get("/ha/history").json().to_string();
    assert!(!history.contains("promoting"), "{history}");
}
