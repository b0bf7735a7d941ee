//! The handle of a pair: everything that the rest of a node asks of it, or tells it.
//!
//! Invariant: reading never waits for the driver, and admission is compared with the clock at every
//! call, so a driver that does not run admits nothing for long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hotspare_failover::{
    Admission, BootTime, Command, Epoch, Gate, Health, Obstacle, OperationId, Outcome, Settings,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::carrier::{Carrier, Loose};
use crate::config::PairConfig;
use crate::input::Input;
use crate::lease::LeaseStore;
use crate::net::{LooseStream, Net};
use crate::noise::{Hello, Purpose};
use crate::noise_stream::NoiseStream;
use crate::records::AuditRecord;
use crate::replicated::Replicated;
use crate::shared::{FlushFn, Life, Shared, lock};
use crate::view::{PairView, PeerFacts};
use crate::{Clock, PairError, start};

/// A stream for engine traffic between the nodes, authenticated and encrypted.
pub type PeerStream = NoiseStream<Carrier>;

/// The longest request id in an audit record, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;
/// Beyond the machine's own limit for an operation, to hear how it ended.
const OUTCOME_MARGIN_MS: u64 = 2_000;

/// A running pair's node. Clones are handles of the same one.
///
/// When the last handle is dropped the driver ends as if it had crashed, without a farewell:
/// [`Pair::terminate`] first.
#[derive(Clone)]
pub struct Pair {
    pub(crate) shared: Arc<Shared>,
    pub(crate) net: Arc<Net>,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) life: Arc<Life>,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pair({})", self.shared.node)
    }
}

/// Streams for engine traffic that the peer opened.
#[derive(Debug)]
pub struct PeerStreams {
    pub(crate) streams: mpsc::Receiver<LooseStream>,
}

impl PeerStreams {
    /// The next one, registered with the caller's runtime; `None` when the driver has ended.
    pub async fn next(&mut self) -> Option<PeerStream> {
        loop {
            let stream = self.streams.recv().await?;
            // One that the kernel does not want to poll is dropped, and the asker hears of it.
            if let Ok(stream) = stream.map_inner(Loose::attach) {
                return Some(stream);
            }
        }
    }
}

impl Pair {
    /// Locks the state directory, reads the epoch file, listens, and starts the driver's thread.
    ///
    /// # Errors
    /// Settings that break a rule, a state directory in use, a damaged epoch file, an address that
    /// cannot be listened on, mode strict without a lease store.
    pub fn start(
        config: PairConfig,
        lease: Option<Box<dyn LeaseStore>>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, PeerStreams), PairError> {
        start::start(config, lease, clock)
    }

    /// The picture after the last step.
    #[must_use]
    pub fn view(&self) -> Arc<PairView> {
        Arc::clone(&self.shared.view.borrow())
    }

    /// Wakes when something changed that is worth it; heartbeats and the time are not.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<PairView>> {
        self.shared.changes.subscribe()
    }

    /// The node's clock.
    #[must_use]
    pub fn now(&self) -> BootTime {
        self.shared.clock.now()
    }

    /// The machine's settings; the front finds `takeover_hold_ms` and `drain_ms` there.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Where this node listens for its peer.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.shared.addresses
    }

    /// Names this process to the peer.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.shared.boot
    }

    /// What to do with a new request now. `Open` that is over is `Hold`.
    #[must_use]
    pub fn admission(&self) -> Admission {
        let admission = self.shared.view.borrow().admission;
        match admission {
            Admission::Open { .. } if !admission.admits(self.now()) => Admission::Hold,
            admission => admission,
        }
    }

    /// Refuses what carries an epoch that is over.
    ///
    /// # Errors
    /// `StaleEpoch`, with the highest epoch known to have served.
    pub fn check_epoch(&self, epoch: Epoch) -> Result<(), PairError> {
        let state = Arc::clone(&lock(&self.shared.state));
        Ok(state.check_epoch(epoch)?)
    }

    /// The health of the own engine.
    pub fn set_health(&self, health: Health) {
        lock(&self.shared.told).health = Some(health);
        self.shared.told_news.notify_one();
    }

    /// The own gates, all of them; the first list says that the model is loaded.
    pub fn set_gates(&self, gates: Vec<Gate>) {
        lock(&self.shared.told).gates = Some(gates.into());
        self.shared.told_news.notify_one();
    }

    /// What heartbeats tell the peer of this node from now on.
    pub fn set_payload(&self, facts: PeerFacts) {
        lock(&self.shared.told).facts = Some(facts.bounded());
        self.shared.told_news.notify_one();
    }

    /// Awaited when the machine flushes before a handover, beside replication.
    pub fn set_flush(&self, flush: FlushFn) {
        *lock(&self.shared.flush) = Some(flush);
    }

    /// Tokens came from the peer's engine. Cheap; told on no more often than is useful.
    pub fn peer_traffic(&self) {
        let now = self.now().ms();
        let last = self.shared.traffic_at.load(Ordering::Relaxed);
        let interval = self.shared.bounds.peer_traffic_interval_ms;
        if now.saturating_sub(last) >= interval
            && self
                .shared
                .traffic_at
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.shared.traffic_news.notify_one();
        }
    }

    /// Gives an operator's command and waits until it has ended, for `operation_timeout_ms` and a
    /// little. `Running`: it has not; the same id asks again. Must run in a tokio runtime.
    pub async fn command(
        &self,
        id: OperationId,
        command: Command,
        reason: String,
        requested_by: String,
    ) -> Outcome {
        let ended = || Outcome::Failed {
            reason: PairError::Ended.to_string(),
        };
        let (reply, outcome) = oneshot::channel();
        let input = Input::Command {
            id,
            command,
            reason,
            requested_by,
            reply,
        };
        let ms = self.shared.settings.timers.operation_timeout_ms + OUTCOME_MARGIN_MS;
        let wait = async {
            match self.inputs.send(input).await {
                Ok(()) => outcome.await.unwrap_or_else(|_| ended()),
                Err(_) => ended(),
            }
        };
        tokio::time::timeout(Duration::from_millis(ms), wait)
            .await
            .unwrap_or(Outcome::Running)
    }

    /// Why `command` would be refused now; empty: it would be begun. Changes nothing.
    #[must_use]
    pub fn dry_run(&self, command: Command) -> Vec<Obstacle> {
        let state = Arc::clone(&lock(&self.shared.state));
        hotspare_failover::dry_run(&self.shared.settings, &state, command, self.now())
    }

    /// "Could this pair fail over now, and if not, why not?" Empty: it could.
    #[must_use]
    pub fn why_not(&self) -> Vec<Obstacle> {
        let state = Arc::clone(&lock(&self.shared.state));
        hotspare_failover::why_not(&self.shared.settings, &state, self.now())
    }

    /// SIGTERM: hands over where there is somebody to hand over to, and returns when the process
    /// may end.
    pub async fn terminate(&self) {
        let (reply, exit) = oneshot::channel();
        if self.inputs.send(Input::Terminate(reply)).await.is_ok() {
            // A driver that has ended holds nobody up.
            let _ended = exit.await;
        }
    }

    /// Ends the driver at once, without a farewell, as a crash would; returns when its sockets are
    /// closed and its state directory is free.
    ///
    /// # Errors
    /// The driver's thread has not ended in order.
    pub async fn crash(self) -> Result<(), PairError> {
        self.life.end().await
    }

    /// Opens a stream to the peer for engine traffic, registered with the caller's runtime.
    ///
    /// # Errors
    /// No peer, or none of its addresses answered as the peer does.
    pub async fn connect(&self) -> Result<PeerStream, PairError> {
        let net = &self.net;
        let first = net.preferred.load(Ordering::Relaxed);
        let mut failed = PairError::NoPeer;
        for offset in 0..net.peers.len() {
            let index = (first + offset) % net.peers.len();
            let address = &net.peers[index];
            match connect(net, index).await {
                Ok((stream, hello)) if net.is_peer(address, &hello) => return Ok(stream),
                Ok(_) => {
                    failed = PairError::Peer {
                        address: address.clone(),
                        reason: "another node answered".to_owned(),
                    };
                }
                Err(reason) => {
                    failed = PairError::Peer {
                        address: address.clone(),
                        reason,
                    };
                }
            }
        }
        Err(failed)
    }

    /// Maps and counters that the peer has, too.
    #[must_use]
    pub fn replicated(&self) -> &Replicated {
        &self.shared.replicated
    }

    /// Records that a request was admitted here in `epoch`. Never waits; what does not fit into the
    /// queue is counted (`num_lost_records`).
    pub fn audit(&self, request_id: &str, epoch: Epoch) {
        let mut request_id = request_id.to_owned();
        crate::view::cut(&mut request_id, MAX_REQUEST_ID_BYTES);
        self.shared.records.audit(AuditRecord {
            wall_ms: self.shared.clock.wall_ms(),
            boot_ms: self.now().ms(),
            node: self.shared.node.clone(),
            epoch: epoch.number(),
            request_id,
        });
    }
}

pub(crate) async fn connect(net: &Net, index: usize) -> Result<(PeerStream, Hello), String> {
    let stream = net.connect(index).await.map_err(|e| e.to_string())?;
    net.relax(&stream).map_err(|e| e.to_string())?;
    net.initiate(stream, index, Purpose::Engine)
        .await
        .map_err(|error| error.to_string())
}
