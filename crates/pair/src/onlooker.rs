//! A front without an engine looks on: it hears both nodes' heartbeats and uses their engines, and
//! has no vote, no epoch and no state directory.
//!
//! It dials every address, and who answers says which node it is. A node sends what it sends its
//! peer, over a link that the machine knows nothing of.
//!
//! Invariant: a node counts as there while a link to it is open and brought something lately.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hotspare_failover::BootTime;
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::carrier::{Carrier, Loose};
use crate::config::PairBounds;
use crate::credentials::Credentials;
use crate::link::LinkContext;
use crate::log_limiter::LogLimiter;
use crate::net::Net;
use crate::noise::{FRONT_RANK, HandshakeError, Hello, Purpose};
use crate::noise_stream::NoiseStream;
use crate::onlooker_view::{picture, serving};
use crate::shared::lock;
use crate::view::{PairView, PeerView};
use crate::wire::{Frame, WireHeartbeat, read_frame, write_frame};
use crate::{Clock, PairError, PairKeys, PairTls, PeerStream};

/// How often silence is looked at.
const SILENCE_POLL: Duration = Duration::from_millis(50);

/// What a front that looks on needs to know.
#[derive(Clone, Debug)]
pub struct OnlookerConfig {
    /// Its name, in the nodes' logs.
    pub node: String,
    /// Both nodes' addresses, `host:port`, one or more for each.
    pub peers: Vec<String>,
    /// The pair's keys.
    pub keys: PairKeys,
    /// Certificates, where the nodes use them.
    pub tls: Option<PairTls>,
    /// Silence after which a node counts as gone.
    pub dead_after_ms: u64,
    /// Bounds.
    pub bounds: PairBounds,
}

/// A node as it is seen from here.
#[derive(Clone, Debug)]
pub(crate) struct SeenNode {
    /// What it last said.
    pub(crate) view: PeerView,
    /// The highest epoch that it knows to have served.
    pub(crate) seen: hotspare_failover::Epoch,
    /// Links to it that are open.
    pub(crate) num_links: usize,
}

/// Both nodes by rank, as far as they were heard.
pub(crate) type SeenNodes = BTreeMap<u32, SeenNode>;

/// See the module. Dropping it ends its links.
pub struct Onlooker {
    net: Arc<Net>,
    clock: Arc<dyn Clock>,
    seen: Arc<watch::Sender<SeenNodes>>,
    /// The rank of who answered at an address last.
    ranks: Arc<Mutex<BTreeMap<usize, u32>>>,
    view: Arc<watch::Sender<Arc<PairView>>>,
    since: BootTime,
    dead_after_ms: u64,
    tasks: Vec<AbortHandle>,
}

impl Onlooker {
    /// Begins to look, on the caller's runtime.
    ///
    /// # Errors
    /// No key, no address, or an address that no certificate could name.
    pub fn start(config: OnlookerConfig, clock: Arc<dyn Clock>) -> Result<Self, PairError> {
        let refuse = |why: &str| Err(PairError::Config(why.to_owned()));
        if config.keys.is_empty() {
            return refuse("a front needs the pair's key file (--ha-key-file)");
        }
        if config.peers.is_empty() {
            return refuse("a front needs the nodes' addresses (--ha-peer)");
        }
        if let Some(tls) = &config.tls {
            tls.check_names(&config.peers)?;
        }
        let num_peers = config.peers.len();
        let dead_after_ms = config.dead_after_ms;
        let net = Arc::new(net(config));
        let since = clock.now();
        let view = picture(
            &net.hello.node,
            since,
            &SeenNodes::new(),
            since,
            dead_after_ms,
        );
        let view = Arc::new(view);
        let mut onlooker = Self {
            net,
            clock,
            seen: Arc::new(watch::Sender::new(SeenNodes::new())),
            ranks: Arc::default(),
            view: Arc::new(watch::Sender::new(view)),
            since,
            dead_after_ms,
            tasks: Vec::new(),
        };
        onlooker.show();
        for index in 0..num_peers {
            let look = Look {
                net: Arc::clone(&onlooker.net),
                clock: Arc::clone(&onlooker.clock),
                seen: Arc::clone(&onlooker.seen),
                ranks: Arc::clone(&onlooker.ranks),
                index,
            };
            onlooker.tasks.push(tokio::spawn(look.run()).abort_handle());
        }
        Ok(onlooker)
    }

    /// Publishes the picture whenever it changes in more than time.
    fn show(&mut self) {
        let mut news = self.seen.subscribe();
        let (view, clock) = (Arc::clone(&self.view), Arc::clone(&self.clock));
        let (name, since) = (self.net.hello.node.clone(), self.since);
        let dead_after_ms = self.dead_after_ms;
        let show = async move {
            loop {
                let seen = news.borrow_and_update().clone();
                let now = picture(&name, since, &seen, clock.now(), dead_after_ms);
                view.send_if_modified(|known| {
                    let is_news = now.differs(known);
                    if is_news {
                        *known = Arc::new(now);
                    }
                    is_news
                });
                // Silence is no event.
                tokio::select! {
                    changed = news.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(SILENCE_POLL) => {}
                }
            }
        };
        self.tasks.push(tokio::spawn(show).abort_handle());
    }

    /// The picture now.
    #[must_use]
    pub fn view(&self) -> PairView {
        let (seen, name) = (self.seen.borrow(), &self.net.hello.node);
        picture(name, self.since, &seen, self.now(), self.dead_after_ms)
    }

    /// Wakes when the picture changed in more than time.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<PairView>> {
        self.view.subscribe()
    }

    /// The rank of the node that serves.
    #[must_use]
    pub fn serving(&self) -> Option<u32> {
        serving(&self.seen.borrow(), self.now(), self.dead_after_ms).map(|(rank, _)| rank)
    }

    /// How long the node with this rank has been silent; `None` where it was never heard.
    #[must_use]
    pub fn silence_ms(&self, rank: u32) -> Option<u64> {
        let seen = self.seen.borrow();
        Some(self.now().ms_since(seen.get(&rank)?.view.last_heard))
    }

    /// The own clock, of which `last_heard` is.
    #[must_use]
    pub fn now(&self) -> BootTime {
        self.clock.now()
    }

    /// Opens a stream to the engine of the node with this rank.
    ///
    /// # Errors
    /// It was never heard, or none of its addresses answers as it does.
    pub async fn connect(&self, rank: u32) -> Result<PeerStream, PairError> {
        let known: Vec<usize> = lock(&self.ranks)
            .iter()
            .filter(|(_, of)| **of == rank)
            .map(|(index, _)| *index)
            .collect();
        let mut failed = PairError::NoPeer;
        for index in known {
            let address = self.net.peers[index].clone();
            let reason = match crate::pair::connect(&self.net, index).await {
                Ok((stream, hello)) if hello.rank == rank => return Ok(stream),
                Ok(_) => "the other node answered".to_owned(),
                Err(reason) => reason,
            };
            failed = PairError::Peer { address, reason };
        }
        Err(failed)
    }
}

impl Drop for Onlooker {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Only what dialling needs: nothing is taken in here.
fn net(config: OnlookerConfig) -> Net {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    let bounds = config.bounds;
    Net {
        credentials: Credentials {
            keys: config.keys,
            tls: config.tls,
        },
        hello: Hello {
            node: config.node,
            rank: FRONT_RANK,
            boot: (high ^ low).max(1),
            purpose: Purpose::Watch,
        },
        peer_rank: None,
        addresses: Mutex::new(vec![Vec::new(); config.peers.len()]),
        peers: config.peers,
        bounds,
        dead_after_ms: config.dead_after_ms,
        links: LinkContext {
            inputs: mpsc::channel(1).0,
            max_frame_bytes: bounds.max_frame_bytes,
            idle_ms: config.dead_after_ms,
            ids: AtomicU64::new(1),
        },
        streams: mpsc::channel::<NoiseStream<Loose>>(1).0,
        news: watch::Sender::new(None),
        num_onlookers: AtomicUsize::new(0),
        preferred: AtomicUsize::new(0),
        leaving: AtomicBool::new(false),
        limiter: LogLimiter::new(bounds.log_interval_ms),
        num_unauthenticated: AtomicU64::new(0),
        num_refused_handshakes: AtomicU64::new(0),
    }
}

/// Looks at one address.
struct Look {
    net: Arc<Net>,
    clock: Arc<dyn Clock>,
    seen: Arc<watch::Sender<SeenNodes>>,
    ranks: Arc<Mutex<BTreeMap<usize, u32>>>,
    index: usize,
}

impl Look {
    async fn run(self) {
        let pause = Duration::from_millis(self.net.bounds.reconnect_interval_ms);
        loop {
            if let Err(error) = self.once().await {
                let address = &self.net.peers[self.index];
                match error {
                    HandshakeError::Io(error) => {
                        tracing::debug!(address, %error, "a node is not reached");
                    }
                    error => self.net.handshake_failed(address, &error),
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn once(&self) -> Result<(), HandshakeError> {
        let stream = self.net.connect(self.index).await?;
        let greeted = self.net.initiate(stream, self.index, Purpose::Watch).await;
        let (mut stream, hello) = greeted?;
        let address = &self.net.peers[self.index];
        if hello.rank == FRONT_RANK {
            tracing::error!(address, "this is no node of a pair, but a front");
            return Ok(());
        }
        lock(&self.ranks).insert(self.index, hello.rank);
        tracing::info!(address, node = hello.node, "a node is seen");
        let mut link = OpenLink {
            seen: &self.seen,
            rank: hello.rank,
            is_counted: false,
        };
        let patience = Duration::from_millis(self.net.dead_after_ms);
        loop {
            let frame = read_frame(&mut stream, self.net.bounds.max_frame_bytes);
            match tokio::time::timeout(patience, frame).await {
                Ok(Ok(Frame::Heartbeat(message))) => {
                    link.heard(*message, self.clock.now());
                }
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return Ok(()),
            }
        }
    }
}

/// Counts as a link as long as it lives, from its first heartbeat on.
struct OpenLink<'a> {
    seen: &'a watch::Sender<SeenNodes>,
    rank: u32,
    is_counted: bool,
}

impl OpenLink<'_> {
    fn heard(&mut self, message: WireHeartbeat, now: BootTime) {
        let heartbeat = message.heartbeat;
        let is_new = !std::mem::replace(&mut self.is_counted, true);
        let view = PeerView {
            node: message.node,
            boot: heartbeat.boot,
            role: heartbeat.role,
            epoch: heartbeat.epoch,
            eligibility: heartbeat.eligibility,
            health: heartbeat.health,
            leaving: heartbeat.leaving,
            gates: message.gates,
            facts: message.facts.bounded(),
            last_heard: now,
        };
        self.seen.send_modify(|seen| {
            let num_links = seen.get(&self.rank).map_or(0, |node| node.num_links);
            let node = SeenNode {
                view,
                seen: heartbeat.seen,
                num_links: num_links + usize::from(is_new),
            };
            seen.insert(self.rank, node);
        });
    }
}

impl Drop for OpenLink<'_> {
    fn drop(&mut self) {
        if self.is_counted {
            self.seen.send_modify(|seen| {
                if let Some(node) = seen.get_mut(&self.rank) {
                    node.num_links = node.num_links.saturating_sub(1);
                }
            });
        }
    }
}

/// The node's side: tells an onlooker what the peer is told, until it goes.
pub(crate) async fn tell(net: &Net, stream: NoiseStream<Carrier>, node: &str) {
    let Some(_counted) = Counted::new(net) else {
        if let Some(left_out) = net.limiter.allow("onlookers") {
            tracing::warn!(node, left_out, "too many fronts look on (max_num_links)");
        }
        return;
    };
    tracing::info!(node, "a front looks on");
    let mut news = net.news.subscribe();
    news.mark_changed();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let telling = async {
        while news.changed().await.is_ok() {
            let message = news.borrow_and_update().clone();
            let Some(message) = message else { continue };
            let frame = Frame::Heartbeat(Box::new(WireHeartbeat::clone(&message)));
            if write_frame(&mut writer, &frame).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = telling => {}
        () = gone(&mut reader, net.bounds.max_frame_bytes) => {}
    }
}

/// An onlooker says nothing: whatever comes is its end.
async fn gone<R: AsyncRead + Unpin>(reader: &mut R, max_bytes: usize) {
    drop(read_frame(reader, max_bytes).await);
}

/// One of the onlookers at a time that a node has.
struct Counted<'a>(&'a Net);

impl<'a> Counted<'a> {
    fn new(net: &'a Net) -> Option<Self> {
        let before = net.num_onlookers.fetch_add(1, Ordering::Relaxed);
        let counted = Self(net);
        (before < net.bounds.max_num_links).then_some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.num_onlookers.fetch_sub(1, Ordering::Relaxed);
    }
}
