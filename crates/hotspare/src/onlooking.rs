//! The pair as a front without an engine sees it (`--ha-role front`).
//!
//! Invariant: it asks nothing of the nodes but their engines: commands are refused, and nothing is
//! told to anybody.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hotspare_failover::{Admission, BootTime, Command, Gate, Health, Obstacle, Outcome};
use hotspare_front::{Operation, PairSetup, Pairing, PeerIo};
use hotspare_pair::{Onlooker, OnlookerConfig, PairKeys, PairView, PeerFacts, SystemClock};
use tokio::sync::watch;

use crate::cli::Settings;
use crate::pairing::tls;

/// Nodes of a pair; their ranks are their numbers.
const NUM_NODES: usize = 2;

/// See the module.
pub(crate) struct Onlooking {
    onlooker: Onlooker,
    /// Who served last.
    last: AtomicUsize,
}

impl Onlooking {
    /// Begins to look at the nodes.
    pub(crate) fn start(settings: &Settings) -> Result<PairSetup, String> {
        let ha = &settings.ha;
        let key_file = ha.key_file.as_ref().ok_or("--ha-key-file is missing")?;
        let config = OnlookerConfig {
            node: settings.front.node.clone(),
            peers: ha.peers.clone(),
            keys: PairKeys::from_file(key_file).map_err(|e| e.to_string())?,
            tls: tls(ha)?,
            dead_after_ms: ha.machine.timers.dead_after_ms,
            bounds: ha.bounds,
        };
        let onlooker = Onlooker::start(config, Arc::new(SystemClock));
        let onlooker = onlooker.map_err(|error| format!("the pair: {error}"))?;
        tracing::info!(nodes = ?ha.peers, "This front has no engine and uses those of a pair.");
        let last = AtomicUsize::new(0);
        Ok(PairSetup {
            pairing: Arc::new(Self { onlooker, last }),
            http_address: String::new(),
        })
    }
}

/// Why a command is refused.
fn no_node() -> Vec<Obstacle> {
    vec![Obstacle {
        name: "front".to_owned(),
        reason: "this is a front without an engine: ask one of the nodes".to_owned(),
    }]
}

impl Pairing for Onlooking {
    fn admission(&self) -> Admission {
        self.onlooker.view().admission
    }

    fn now(&self) -> BootTime {
        self.onlooker.now()
    }

    fn view(&self) -> Arc<PairView> {
        Arc::new(self.onlooker.view())
    }

    fn subscribe(&self) -> watch::Receiver<Arc<PairView>> {
        self.onlooker.subscribe()
    }

    fn peer_traffic(&self) {}

    fn set_health(&self, _health: Health) {}

    fn set_gates(&self, _gates: Vec<Gate>) {}

    fn set_facts(&self, _facts: PeerFacts) {}

    fn num_peers(&self) -> usize {
        NUM_NODES
    }

    fn serving_peer(&self) -> usize {
        let serving = self.onlooker.serving();
        if let Some(rank) = serving.and_then(|rank| usize::try_from(rank).ok()) {
            self.last.store(rank, Ordering::Relaxed);
        }
        self.last.load(Ordering::Relaxed)
    }

    fn connect(&self) -> BoxFuture<'_, io::Result<PeerIo>> {
        self.connect_to(self.serving_peer())
    }

    fn connect_to(&self, peer: usize) -> BoxFuture<'_, io::Result<PeerIo>> {
        async move {
            let rank = u32::try_from(peer).map_err(io::Error::other)?;
            let stream = self.onlooker.connect(rank).await;
            Ok(Box::new(stream.map_err(io::Error::other)?) as PeerIo)
        }
        .boxed()
    }

    fn silence_of(&self, peer: usize) -> Option<Duration> {
        let ms = self.onlooker.silence_ms(u32::try_from(peer).ok()?)?;
        Some(Duration::from_millis(ms))
    }

    fn accept(&self) -> BoxFuture<'_, Option<PeerIo>> {
        async { None }.boxed()
    }

    fn audit(&self, _epoch: u64, _request_id: u64) {}

    fn command(&self, _operation: Operation) -> BoxFuture<'_, Outcome> {
        async { Outcome::Refused(no_node()) }.boxed()
    }

    fn dry_run(&self, _command: Command) -> Vec<Obstacle> {
        no_node()
    }

    fn why_not(&self) -> Vec<Obstacle> {
        no_node()
    }
}
