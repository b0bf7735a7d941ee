//! A front without an engine: the loss of either machine cuts no client of it.

use hotspare_testkit::{Server, wait_until};

use crate::pair::{SLOW, streams_through, uncut};
use crate::pair_nodes::{CHAT, Nodes, ha, kill_node, wait_linked, wait_role};
use crate::support::{PATIENCE, chat, metric};

/// Waits until the front can use both nodes' engines, and new requests find one.
fn wait_both(front: &Server) {
    wait_until("both nodes' engines can be used", PATIENCE, || {
        front.status()["num_peer_engines"] == 2 && front.client().get("/ready").status == 200
    });
}

#[test]
fn streams_through_a_front_survive_the_loss_of_either_node() {
    let expected = uncut();
    let mut nodes = Nodes::start(&[], [SLOW; 2]);
    let front = nodes.front(&[]);
    wait_both(&front);
    let status = front.status();
    assert_eq!(status["role"], "front", "{status}");
    assert_eq!(status["admission"], "to-peer");
    assert_eq!(status["engines"], serde_json::json!([]));
    assert_eq!(status["epoch"], nodes.a.status()["epoch"]);
    let refused = ha(&front, &["switchover"]);
    assert_ne!(refused.status.code(), Some(0), "it commands nobody");

    // The node that serves is lost, and comes back as the standby.
    let Nodes { a, b, .. } = &mut nodes;
    assert_eq!(streams_through(&front, || kill_node(a)), expected);
    wait_role(b, "primary-solo");
    let reply = front.client().post(CHAT, &chat("Hello"));
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-hotspare-node"), Some("f"));
    nodes.restart_a();
    wait_role(&nodes.a, "standby");
    wait_role(&nodes.b, "primary");
    wait_linked(&nodes.a);
    wait_both(&front);

    // And the other way round.
    let Nodes { a, b, .. } = &mut nodes;
    assert_eq!(streams_through(&front, || kill_node(b)), expected);
    wait_role(a, "primary-solo");
    assert_eq!(front.client().post(CHAT, &chat("Hello")).status, 200);
    assert!(metric(&front, "hotspare:replays_total") >= 16.0);
}

#[test]
fn a_front_of_another_configuration_gives_nobody_another_model() {
    let nodes = Nodes::start(&[], [""; 2]);
    let front = nodes.front(&["--served-model-name=other"]);
    wait_until("it has seen the nodes", PATIENCE, || {
        front.status()["num_peer_engines"] == 2
    });
    let refused = front.client().post(CHAT, &chat("Hello"));
    assert_eq!(refused.status, 503, "{}", refused.text());
    let text = refused.text();
    assert!(text.contains("configured otherwise"), "{text}");
}
