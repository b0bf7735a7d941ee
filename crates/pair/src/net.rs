//! What every connection of a node shares: who it is, its keys, its bounds, what was counted.
//!
//! Invariant: an address that misbehaves costs at most a log line an interval and one of a bounded
//! number of handshakes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::PeerStream;
use crate::carrier::Loose;
use crate::config::PairBounds;
use crate::credentials::Credentials;
use crate::link::LinkContext;
use crate::log_limiter::LogLimiter;
use crate::noise::{FRONT_RANK, HandshakeError, Hello, Purpose};
use crate::noise_stream::NoiseStream;
use crate::wire::WireHeartbeat;

/// Addresses that a peer's name may have, at most.
const MAX_ADDRESSES: usize = 4;

/// A stream for engine traffic that belongs to no runtime yet.
pub(crate) type LooseStream = NoiseStream<Loose>;

/// What connections share.
pub(crate) struct Net {
    pub(crate) credentials: Credentials,
    pub(crate) hello: Hello,
    pub(crate) peer_rank: Option<u32>,
    pub(crate) peers: Vec<String>,
    pub(crate) bounds: PairBounds,
    pub(crate) dead_after_ms: u64,
    pub(crate) links: LinkContext,
    /// Streams that the peer opened.
    pub(crate) streams: mpsc::Sender<LooseStream>,
    /// The heartbeat that was sent last, for fronts that look on.
    pub(crate) news: watch::Sender<Option<Arc<WireHeartbeat>>>,
    pub(crate) num_onlookers: AtomicUsize,
    /// Where datagrams go, by peer address.
    pub(crate) addresses: Mutex<Vec<Vec<SocketAddr>>>,
    /// The peer's address that worked last.
    pub(crate) preferred: AtomicUsize,
    /// The process is ending: nothing is dialled any more.
    pub(crate) leaving: AtomicBool,
    pub(crate) limiter: LogLimiter,
    pub(crate) num_unauthenticated: AtomicU64,
    pub(crate) num_refused_handshakes: AtomicU64,
}

impl Net {
    /// Logs a handshake that failed; never more than a line an interval.
    pub(crate) fn handshake_failed(&self, address: &str, error: &HandshakeError) {
        match error {
            HandshakeError::WrongKey
            | HandshakeError::Malformed
            | HandshakeError::UnexpectedTls
            | HandshakeError::Tls(_)
            | HandshakeError::Version(_) => {
                self.num_unauthenticated.fetch_add(1, Ordering::Relaxed);
                if let Some(left_out) = self.limiter.allow("handshake") {
                    tracing::warn!(address, %error, left_out, "a connection was refused");
                }
            }
            _ => tracing::debug!(address, %error, "a handshake did not end"),
        }
    }

    /// Whether who asked is a front without an engine, and wants what such a front may have.
    pub(crate) fn is_front(hello: &Hello) -> bool {
        hello.rank == FRONT_RANK && matches!(hello.purpose, Purpose::Engine | Purpose::Watch)
    }

    /// Whether who answered, or asked, is the peer.
    pub(crate) fn is_peer(&self, address: &str, hello: &Hello) -> bool {
        let wrong = if hello.boot == self.hello.boot {
            "this is the node itself: --ha-peer names its own address"
        } else if Some(hello.rank) != self.peer_rank {
            "it has the pair's key, but not the peer's rank"
        } else {
            return true;
        };
        if let Some(left_out) = self.limiter.allow("stranger") {
            let (node, rank) = (&hello.node, hello.rank);
            tracing::error!(address, node, rank, left_out, "{wrong}");
        }
        false
    }

    /// Connects to one of the peer's addresses; its name is looked up anew.
    pub(crate) async fn connect(&self, index: usize) -> std::io::Result<TcpStream> {
        let name = &self.peers[index];
        let connect = async {
            let found: Vec<SocketAddr> = tokio::net::lookup_host(name)
                .await?
                .take(MAX_ADDRESSES)
                .collect();
            self.note_addresses(index, &found);
            let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
            for address in found {
                match TcpStream::connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let limit = Duration::from_millis(self.bounds.connect_timeout_ms);
        let stream = tokio::time::timeout(limit, connect)
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        self.prepare(&stream)?;
        Ok(stream)
    }

    /// Proves this node to who answers on `stream`, one of the peer's addresses.
    pub(crate) async fn initiate(
        &self,
        stream: TcpStream,
        index: usize,
        purpose: Purpose,
    ) -> Result<(PeerStream, Hello), HandshakeError> {
        let hello = Hello {
            purpose,
            ..self.hello.clone()
        };
        let timeout_ms = self.bounds.handshake_timeout_ms;
        self.credentials
            .initiate(stream, &self.peers[index], &hello, timeout_ms)
            .await
    }

    fn note_addresses(&self, index: usize, found: &[SocketAddr]) {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = addresses.get_mut(index)
            && known != found
        {
            found.clone_into(known);
        }
    }

    /// Small writes go out at once, and a peer that does not take them is noticed.
    pub(crate) fn prepare(&self, stream: &TcpStream) -> std::io::Result<()> {
        use rustix::net::sockopt;
        stream.set_nodelay(true)?;
        let limit = u32::try_from(self.dead_after_ms).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(stream, limit)?;
        let idle = Duration::from_millis(self.dead_after_ms).max(Duration::from_secs(1));
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, idle)?;
        sockopt::set_tcp_keepintvl(stream, idle)?;
        Ok(())
    }

    /// For engine traffic: a window that is closed for long is a slow reader, not a death.
    pub(crate) fn relax(&self, stream: &TcpStream) -> std::io::Result<()> {
        let limit = u32::try_from(self.bounds.engine_stream_timeout_ms).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(stream, limit)?;
        Ok(())
    }
}
