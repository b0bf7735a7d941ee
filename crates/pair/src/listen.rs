//! Takes the peer's connections and datagrams.
//!
//! One listener serves control links, engine traffic and probes: what a connection is for is its
//! hello's word.
//!
//! Invariant: before its handshake has ended a connection is one of at most `max_num_handshakes`,
//! for at most `handshake_timeout_ms`.

use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket as StdUdp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::PairError;
use crate::input::Input;
use crate::link;
use crate::net::Net;
use crate::noise::Purpose;
use crate::onlooker;
use crate::wire::open_datagram;

/// With port 0 the number that TCP got may be taken for UDP: so often another one is tried.
const MAX_BIND_ATTEMPTS: usize = 16;
/// After an error of `accept`, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Sockets of one address, before there is a runtime.
pub(crate) struct Bound {
    pub(crate) tcp: StdListener,
    pub(crate) udp: Option<StdUdp>,
    pub(crate) address: SocketAddr,
}

/// Binds TCP and, where wanted, UDP to the same port.
pub(crate) fn bind(address: SocketAddr, with_udp: bool) -> Result<Bound, PairError> {
    let mut attempt = 1;
    loop {
        match bind_once(address, with_udp) {
            Ok(bound) => return Ok(bound),
            Err(source) => {
                let taken = source.kind() == std::io::ErrorKind::AddrInUse;
                if address.port() != 0 || !taken || attempt == MAX_BIND_ATTEMPTS {
                    return Err(PairError::Listen { address, source });
                }
                attempt += 1;
            }
        }
    }
}

fn bind_once(wanted: SocketAddr, with_udp: bool) -> std::io::Result<Bound> {
    let tcp = StdListener::bind(wanted)?;
    tcp.set_nonblocking(true)?;
    let address = tcp.local_addr()?;
    let udp = if with_udp {
        let udp = StdUdp::bind(address)?;
        udp.set_nonblocking(true)?;
        Some(udp)
    } else {
        None
    };
    Ok(Bound { tcp, udp, address })
}

/// Takes connections for as long as the runtime lives.
pub(crate) async fn accept(net: Arc<Net>, listener: TcpListener, handshakes: Arc<Semaphore>) {
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            net.num_refused_handshakes.fetch_add(1, Ordering::Relaxed);
            if let Some(left_out) = net.limiter.allow("handshakes") {
                tracing::warn!(%address, left_out, "too many handshakes at a time");
            }
            continue;
        };
        tokio::spawn(serve(Arc::clone(&net), stream, address, permit));
    }
}

async fn serve(
    net: Arc<Net>,
    stream: TcpStream,
    address: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let address = address.to_string();
    if net.prepare(&stream).is_err() {
        return;
    }
    let timeout_ms = net.bounds.handshake_timeout_ms;
    let credentials = &net.credentials;
    let answer = credentials.respond(stream, &net.peers, &net.hello, timeout_ms);
    let (stream, hello) = match answer.await {
        Ok(done) => done,
        Err(error) => return net.handshake_failed(&address, &error),
    };
    drop(permit);
    if !Net::is_front(&hello) && !net.is_peer(&address, &hello) {
        return;
    }
    match hello.purpose {
        Purpose::Control => link::run(stream, hello, true, &net.links).await,
        Purpose::Engine => {
            let loose = stream.map_inner(|mut inner| {
                net.relax(inner.socket().tcp()?)?;
                inner.detach()
            });
            let Ok(stream) = loose else {
                return;
            };
            // Nobody takes it, or too many wait: it is closed, and the asker hears of it.
            if net.streams.try_send(stream).is_err()
                && let Some(left_out) = net.limiter.allow("streams")
            {
                tracing::warn!(address, left_out, "a stream of the peer was not taken");
            }
        }
        Purpose::Watch => onlooker::tell(&net, stream, &hello.node).await,
        Purpose::Probe => {}
    }
}

/// Takes datagrams for as long as the runtime lives.
pub(crate) async fn receive(net: Arc<Net>, socket: UdpSocket) {
    let mut buffer = vec![0; net.bounds.max_datagram_bytes + 1];
    loop {
        let Ok((len, address)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let message = (len <= net.bounds.max_datagram_bytes)
            .then(|| open_datagram(&net.credentials.keys, &buffer[..len]))
            .flatten();
        let Some(message) = message else {
            net.num_unauthenticated.fetch_add(1, Ordering::Relaxed);
            if let Some(left_out) = net.limiter.allow("datagram") {
                tracing::warn!(%address, left_out, "a datagram without this pair's key");
            }
            continue;
        };
        // A driver that is busy hears the next one.
        let _full = net
            .links
            .inputs
            .try_send(Input::Datagram(Box::new(message)));
    }
}
