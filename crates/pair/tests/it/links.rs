//! Links that come and go: several of them, IPv6, datagrams alone, and clocks that are set.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hotspare_failover::{BootTime, Gate, Mode};
use hotspare_pair::{Clock, HistoryEvent, Pair, PairConfig, PairView, SystemClock};

use crate::nodes::{Node, Places, bounded, protected_pair, settled};
use crate::relay::Relay;

fn was_ever(view: &PairView, role: &str) -> bool {
    view.history.iter().any(
        |entry| matches!(&entry.event, HistoryEvent::RoleChanged { to, .. } if to.name() == role),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_links_one_may_close() {
    let places = Places::new();
    let relay = Relay::to(places.of[1].pair).await;
    let mut config = places.config(0, Mode::Available);
    // Long silences, so that only a closed link could make anybody suspect.
    let patient = |config: &mut PairConfig| {
        let timers = &mut config.settings.timers;
        timers.suspect_after_ms = 30_000;
        timers.dead_after_ms = 60_000;
        timers.quarantine_dead_after_ms = 60_000;
        timers.handover_timeout_ms = 40_000;
    };
    patient(&mut config);
    config.peers.push(relay.address.to_string());
    let a = Node::start(config, &places.of[0], None).await;
    let mut config = places.config(1, Mode::Available);
    patient(&mut config);
    config.bounds.reconnect_interval_ms = 1_000;
    let b = Node::start(config, &places.of[1], None).await;
    settled(&a, &b).await;
    b.wait("three links", |view| view.num_links == 3).await;
    relay.reset();
    b.wait("a lost link", |view| view.counters.num_links_lost == 1)
        .await;
    b.wait("three links again", |view| view.num_links == 3)
        .await;
    assert!(!was_ever(&b.pair.view(), "suspect"), "{:#?}", b.pair.view());
    // All of them at once is another matter: two ports refuse, and nobody waits for silence.
    a.crash().await;
    let view = b.wait_role(&["primary-solo"]).await;
    assert!(was_ever(&view, "suspect"));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_ipv6() {
    let places = Places::new();
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("SKIPPED over_ipv6: there is no IPv6 here");
        return;
    }
    let ports: [SocketAddr; 2] = [0, 1].map(|_| {
        let listener = std::net::TcpListener::bind("[::1]:0").expect("bound");
        listener.local_addr().expect("bound")
    });
    let mut nodes = Vec::new();
    for index in 0..2 {
        let mut config = places.config(index, Mode::Available);
        config.listen = vec![ports[index]];
        config.peers = vec![ports[1 - index].to_string()];
        config.probe = None;
        nodes.push(Node::start(config, &places.of[index], None).await);
    }
    settled(&nodes[0], &nodes[1]).await;
    assert_eq!(nodes[0].pair.addresses(), [ports[0]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_go_on_where_tcp_does_not() {
    let places = Places::new();
    let mut configs = [0, 1].map(|index| places.config(index, Mode::Available));
    for config in &mut configs {
        // No connection is ever accepted as a link.
        config.bounds.max_num_handshakes = 0;
        config.probe = None;
    }
    let [one, two] = configs;
    let a = Node::start(one, &places.of[0], None).await;
    let b = Node::start(two, &places.of[1], None).await;
    settled(&a, &b).await;
    assert_eq!((a.pair.view().num_links, b.pair.view().num_links), (0, 0));
    assert!(a.pair.view().counters.num_refused_handshakes > 0);
    assert!(a.pair.connect().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_alone_is_enough() {
    let places = Places::new();
    let mut nodes = Vec::new();
    for index in 0..2 {
        let mut config = places.config(index, Mode::Available);
        config.bounds.udp = false;
        nodes.push(Node::start(config, &places.of[index], None).await);
    }
    settled(&nodes[0], &nodes[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_stopped_admits_nothing() {
    let places = Places::new();
    let (a, _b) = protected_pair(&places, Mode::Available).await;
    let view = a.pair.view();
    let hotspare_failover::Admission::Open { until, .. } = view.admission else {
        panic!("{view:#?}");
    };
    // As the front would find it after a stop: the picture is old, and the clock is not.
    assert!(view.admission.admits(BootTime::from_ms(until.ms() - 1)));
    assert!(!view.admission.admits(until));
}

/// Boot time goes on as it does; wall time is set by the test.
struct SetClock {
    offset_ms: AtomicU64,
}

impl Clock for SetClock {
    fn now(&self) -> BootTime {
        SystemClock.now()
    }

    fn wall_ms(&self) -> u64 {
        SystemClock.wall_ms() + self.offset_ms.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_is_set_changes_no_role() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = PairConfig::alone("solo", dir.path().to_owned());
    let clock = Arc::new(SetClock {
        offset_ms: AtomicU64::new(0),
    });
    let (pair, _streams) =
        Pair::start(config, None, Arc::clone(&clock) as Arc<dyn Clock>).expect("started");
    pair.set_gates(vec![Gate::pass("model")]);
    let mut views = pair.subscribe();
    let serves = views.wait_for(|view| view.role.name() == "primary-solo");
    let since = bounded("the role", serves).await.expect("it runs").since;
    clock.offset_ms.store(3_600_000, Ordering::Relaxed);
    let told = views.wait_for(|view| {
        view.history.iter().any(|entry| {
            matches!(&entry.event, HistoryEvent::Alert { name, text }
                if name == "wall-clock-jumped" && text.contains("3600"))
        })
    });
    let view = bounded("the alert", told).await.expect("it runs").clone();
    assert_eq!((view.role.name(), view.since), ("primary-solo", since));
}
