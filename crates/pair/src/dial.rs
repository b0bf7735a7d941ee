//! Keeps a control link open to each of the peer's addresses.
//!
//! Both nodes dial, so a firewall that lets one direction through is enough; the machine drops what
//! comes twice.
//!
//! Invariant: between two attempts there is at least `reconnect_interval_ms`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::link;
use crate::net::Net;
use crate::noise::{HandshakeError, Purpose};

/// For as long as the runtime lives.
pub(crate) async fn run(net: Arc<Net>, index: usize) {
    let pause = Duration::from_millis(net.bounds.reconnect_interval_ms);
    while !net.leaving.load(Ordering::Relaxed) {
        once(&net, index).await;
        tokio::time::sleep(pause).await;
    }
}

async fn once(net: &Net, index: usize) {
    let name = &net.peers[index];
    let stream = match net.connect(index).await {
        Ok(stream) => stream,
        Err(error) => {
            if let Some(left_out) = net.limiter.allow("dial") {
                tracing::info!(address = name, %error, left_out, "the peer is not reached");
            }
            return;
        }
    };
    match net.initiate(stream, index, Purpose::Control).await {
        Ok((stream, hello)) => {
            if net.is_peer(name, &hello) {
                net.preferred.store(index, Ordering::Relaxed);
                link::run(stream, hello, false, &net.links).await;
            }
        }
        Err(HandshakeError::Io(error)) if is_closed(&error) => {
            if let Some(left_out) = net.limiter.allow("refused") {
                let why = "it closed the connection: are pair key, and CA, the same on both nodes?";
                tracing::warn!(address = name, left_out, "{why}");
            }
        }
        Err(error) => net.handshake_failed(name, &error),
    }
}

fn is_closed(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset)
}
