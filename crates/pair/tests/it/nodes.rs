//! Starts nodes for the tests, each with a state directory, an HTTP port and short timers.
//!
//! Ports are taken by binding to 0 on a loopback address that this test alone uses.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hotspare_failover::{Admission, Gate, Mode, Profile, Settings};
use hotspare_pair::{
    LeaseStore, Pair, PairConfig, PairKeys, PairView, PeerFacts, PeerStreams, ProbeTarget,
    SystemClock,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

/// Long enough for the busiest machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn settings(rank: u32, mode: Mode) -> Settings {
    let mut settings = Settings::pair(rank, 3 - rank, mode, Profile::Lan);
    let t = &mut settings.timers;
    t.heartbeat_interval_ms = 100;
    t.suspect_after_ms = 1_500;
    t.dead_after_ms = 8_000;
    t.timer_late_ms = 7_000;
    t.fence_budget_ms = 100;
    t.probe_interval_ms = 200;
    t.probe_timeout_ms = 500;
    t.lease_ttl_ms = 8_000;
    t.renew_deadline_ms = 6_000;
    t.renew_interval_ms = 300;
    t.vacancy_wait_ms = 2_000;
    t.promotion_timeout_ms = 10_000;
    t.promotion_retry_ms = 200;
    t.take_over_ask_ms = 3_000;
    t.handover_timeout_ms = 6_000;
    settings
}

/// A loopback address of its own.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, process[2] | 1, process[3], number[3])
}

fn free_port(ip: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).expect("a loopback address");
    listener.local_addr().expect("bound")
}

/// Where a node is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) pair: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) state_dir: PathBuf,
}

/// Two places, whose folders go when the test ends.
pub(crate) struct Places {
    pub(crate) of: [Place; 2],
    _dir: TempDir,
}

impl Places {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let of = ["a", "b"].map(|name| {
            let ip = own_address();
            let (pair, http) = loop {
                let (pair, http) = (free_port(ip), free_port(ip));
                if pair != http {
                    break (pair, http);
                }
            };
            Place {
                name: name.to_owned(),
                pair,
                http,
                state_dir: dir.path().join(name),
            }
        });
        Self { of, _dir: dir }
    }

    pub(crate) fn config(&self, index: usize, mode: Mode) -> PairConfig {
        let (own, peer) = (&self.of[index], &self.of[1 - index]);
        let rank = u32::try_from(index).expect("small") + 1;
        let mut config = PairConfig::alone(&own.name, own.state_dir.clone());
        config.settings = settings(rank, mode);
        config.listen = vec![own.pair];
        config.peers = vec![peer.pair.to_string()];
        config.keys = PairKeys::new(&[[7; 32]]).expect("a key");
        config.probe = Some([
            ProbeTarget::Pair(peer.pair.to_string()),
            ProbeTarget::Http(peer.http.to_string()),
        ]);
        config
    }

    pub(crate) async fn start(&self, index: usize, mode: Mode) -> Node {
        Node::start(self.config(index, mode), &self.of[index], None).await
    }
}

/// A running node: the pair, and an HTTP port as a front would have it.
pub(crate) struct Node {
    pub(crate) pair: Pair,
    pub(crate) streams: PeerStreams,
    http: JoinHandle<()>,
}

impl Node {
    pub(crate) async fn start(
        config: PairConfig,
        place: &Place,
        lease: Option<Box<dyn LeaseStore>>,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind(place.http)
            .await
            .expect("the HTTP port");
        let http = tokio::spawn(serve_http(listener));
        let (pair, streams) = Pair::start(config, lease, Arc::new(SystemClock)).expect("started");
        pair.set_payload(PeerFacts {
            model: "spark".to_owned(),
            model_hash: "hash".to_owned(),
            ..PeerFacts::default()
        });
        pair.set_gates(vec![Gate::pass("model")]);
        Self {
            pair,
            streams,
            http,
        }
    }

    /// As `kill -9` of every process.
    pub(crate) async fn crash(self) {
        self.http.abort();
        // Aborted, or ended.
        let _ended = self.http.await;
        bounded("the end of the driver", self.pair.crash())
            .await
            .expect("ended");
    }

    pub(crate) async fn wait(&self, what: &str, when: impl Fn(&PairView) -> bool) -> Arc<PairView> {
        let mut views = self.pair.subscribe();
        let view = tokio::time::timeout(PATIENCE, views.wait_for(|view| when(view))).await;
        match view {
            Ok(Ok(view)) => Arc::clone(&view),
            Ok(Err(_)) => panic!("{what}: the driver has ended"),
            Err(_) => panic!("{what}: not within {PATIENCE:?}: {:#?}", self.pair.view()),
        }
    }

    pub(crate) async fn wait_role(&self, roles: &[&str]) -> Arc<PairView> {
        let what = format!("role {roles:?}");
        self.wait(&what, |view| roles.contains(&view.role.name()))
            .await
    }
}

pub(crate) async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

async fn serve_http(listener: tokio::net::TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 9];
        if stream.read_exact(&mut request).await.is_ok() {
            // Who probes reads the first line and goes.
            let _gone = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await;
        }
    }
}

/// Both nodes, one serving and one standing by: `(primary, standby)`.
pub(crate) async fn protected_pair(places: &Places, mode: Mode) -> (Node, Node) {
    let a = places.start(0, mode).await;
    let b = places.start(1, mode).await;
    settled(&a, &b).await;
    (a, b)
}

/// `a` serves, and `b` stands by and knows in which epoch.
pub(crate) async fn settled(a: &Node, b: &Node) {
    let epoch = a.wait_role(&["primary"]).await.epoch;
    b.wait("a primary to send to", |view| {
        view.role.name() == "standby" && view.admission == Admission::ToPeer { epoch }
    })
    .await;
}
