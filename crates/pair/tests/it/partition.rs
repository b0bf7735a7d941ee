//! A cut between two living nodes in mode available: both serve, and the higher epoch stays.

use hotspare_failover::Mode;

use crate::nodes::{Node, Places, settled};
use crate::relay::Relay;

use hotspare_pair::{PairView, ProbeTarget};

/// Everything between the nodes goes through relays, probes included.
async fn through_relays(places: &Places) -> ([Node; 2], [Vec<Relay>; 2]) {
    let mut nodes = Vec::new();
    let mut relays = Vec::new();
    for index in 0..2 {
        let peer = &places.of[1 - index];
        let (pair, http) = (Relay::to(peer.pair).await, Relay::to(peer.http).await);
        let mut config = places.config(index, Mode::Available);
        config.peers = vec![pair.address.to_string()];
        config.probe = Some([
            ProbeTarget::Pair(pair.address.to_string()),
            ProbeTarget::Http(http.address.to_string()),
        ]);
        nodes.push(Node::start(config, &places.of[index], None).await);
        relays.push(vec![pair, http]);
    }
    let nodes = nodes.try_into().ok().expect("two");
    (nodes, relays.try_into().ok().expect("two"))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_serve_while_cut_and_the_higher_epoch_stays() {
    let places = Places::new();
    let ([a, b], relays) = through_relays(&places).await;
    settled(&a, &b).await;
    for relay in relays.iter().flatten() {
        relay.set_open(false);
    }
    let second = b.wait_role(&["primary-solo"]).await;
    let first = a.wait_role(&["primary-solo"]).await;
    assert_ne!(second.epoch, first.epoch);
    let highest = first.epoch.max(second.epoch);
    let admits = |view: &PairView| view.admission.admits(view.since);
    assert!(admits(&first) && admits(&second));
    for node in [&a, &b] {
        node.wait("frozen writes", |view| {
            !view.may_write && view.limit_share_percent == 50
        })
        .await;
        assert!(node.pair.replicated().set("keys", "k", b"v").is_err());
    }
    for relay in relays.iter().flatten() {
        relay.set_open(true);
    }
    let roles = ["primary", "standby"];
    let views = [a.wait_role(&roles).await, b.wait_role(&roles).await];
    let serving = views.iter().find(|view| view.role.serves());
    let serving = serving.expect("one of them serves");
    assert!(serving.epoch >= highest);
    let node = if serving.node == "a" { &a } else { &b };
    if serving.epoch == highest {
        assert_eq!(highest == first.epoch, serving.node == "a");
    }
    node.wait("writes", |view| view.may_write).await;
}
