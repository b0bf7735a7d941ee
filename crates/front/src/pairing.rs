//! What a front asks of its pair, behind a trait: the real pair, or a made-up one in tests.
//!
//! Invariant: nothing here blocks, and nothing here fails where the peer is gone; what depends on
//! the peer says so in its result.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hotspare_failover::{
    Admission, BootTime, Command, Gate, Health, Obstacle, OperationId, Outcome,
};
use hotspare_pair::{PairView, PeerFacts};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// Both directions of a stream between the two fronts.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A stream between the two fronts, whatever carries it.
pub type PeerIo = Box<dyn Io>;

/// An operator's command, and who gave it why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Chosen by the asker; the same again does nothing and gets the same answer.
    pub id: OperationId,
    /// What is asked.
    pub command: Command,
    /// Why, for history and hooks.
    pub reason: String,
    /// By whom.
    pub requested_by: String,
}

/// See the module.
pub trait Pairing: Send + Sync {
    /// What to do with a request that comes now.
    fn admission(&self) -> Admission;

    /// This node's boot-time clock.
    fn now(&self) -> BootTime;

    /// The latest picture.
    fn view(&self) -> Arc<PairView>;

    /// Wakes when the picture changes in more than time.
    fn subscribe(&self) -> watch::Receiver<Arc<PairView>>;

    /// Tokens came from the peer's engine.
    fn peer_traffic(&self);

    /// The health of what this node serves with.
    fn set_health(&self, health: Health);

    /// All gates of this node.
    fn set_gates(&self, gates: Vec<Gate>);

    /// What the peer is told of this node.
    fn set_facts(&self, facts: PeerFacts);

    /// A fresh stream to the peer's front.
    fn connect(&self) -> BoxFuture<'_, io::Result<PeerIo>>;

    /// Nodes that this front uses beside its own: one, or both of a front without an engine.
    fn num_peers(&self) -> usize {
        1
    }

    /// Which of them serves, or served last.
    fn serving_peer(&self) -> usize {
        0
    }

    /// A fresh stream to the front of one of them.
    fn connect_to(&self, _peer: usize) -> BoxFuture<'_, io::Result<PeerIo>> {
        self.connect()
    }

    /// How long one of them has been silent; `None` where it was never heard.
    fn silence_of(&self, _peer: usize) -> Option<Duration> {
        self.peer_silence()
    }

    /// The next stream that the peer opened; `None` once none can come.
    fn accept(&self) -> BoxFuture<'_, Option<PeerIo>>;

    /// Remembers that this node admitted a request, by its number, in this epoch.
    fn audit(&self, epoch: u64, request_id: u64);

    /// Does what an operator asks, and waits for the end of it.
    fn command(&self, operation: Operation) -> BoxFuture<'_, Outcome>;

    /// What stands in the way of a command.
    fn dry_run(&self, command: Command) -> Vec<Obstacle>;

    /// What stands in the way of a failover now.
    fn why_not(&self) -> Vec<Obstacle>;

    /// The highest epoch known to have served.
    fn epoch(&self) -> u64 {
        self.view().seen.number()
    }

    /// How long the peer has been silent; `None` where it was never heard.
    fn peer_silence(&self) -> Option<Duration> {
        let last_heard = self.view().peer.as_ref()?.last_heard;
        let silent_ms = self.now().ms_since(last_heard);
        Some(Duration::from_millis(silent_ms))
    }
}

/// What a front of a pair is started with, beside its own settings.
pub struct PairSetup {
    /// The pair.
    pub pairing: Arc<dyn Pairing>,
    /// Where clients reach this node's HTTP.
    pub http_address: String,
}
