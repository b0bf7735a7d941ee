//! What a node proves itself with, and the two handshakes in which it does: TLS, then Noise.
//!
//! Invariant: the only ways to a `NoiseStream` between nodes lead through here.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::carrier::{Carrier, Socket};
use crate::noise::{self, HandshakeError, Hello};
use crate::noise_stream::NoiseStream;
use crate::tls::{BINDING_BYTES, PairTls};
use crate::tls_error::explain;
use crate::{PairKeys, PeerStream};

/// The pair's keys, and certificates where it uses them.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) keys: PairKeys,
    pub(crate) tls: Option<PairTls>,
}

type Carried = (Carrier, Option<[u8; BINDING_BYTES]>);

impl Credentials {
    /// Proves this node to who answers at `address`, and learns who that is. Each of the two
    /// handshakes may take `timeout_ms`.
    pub(crate) async fn initiate(
        &self,
        stream: TcpStream,
        address: &str,
        hello: &Hello,
        timeout_ms: u64,
    ) -> Result<(PeerStream, Hello), HandshakeError> {
        let stream = Socket::Attached(stream);
        let (carrier, binding) = match &self.tls {
            None => (Carrier::Tcp(stream), None),
            Some(tls) => carried(tls.dial(stream, address), timeout_ms).await?,
        };
        let proof = proof(binding.as_ref());
        let done = noise::initiate(carrier, &self.keys, proof, hello, timeout_ms).await;
        done.map_err(HandshakeError::of_tls)
    }

    /// Proves this node to who connected, and learns who that is; with TLS he must bear a name of
    /// one of `peers`.
    pub(crate) async fn respond(
        &self,
        stream: TcpStream,
        peers: &[String],
        hello: &Hello,
        timeout_ms: u64,
    ) -> Result<(NoiseStream<Carrier>, Hello), HandshakeError> {
        let stream = Socket::Attached(stream);
        let (carrier, binding) = match &self.tls {
            None => (Carrier::Tcp(stream), None),
            Some(tls) => carried(tls.answer(stream, peers), timeout_ms).await?,
        };
        let proof = proof(binding.as_ref());
        let done = noise::respond(carrier, &self.keys, proof, hello, timeout_ms).await;
        done.map_err(HandshakeError::of_tls)
    }
}

fn proof(binding: Option<&[u8; BINDING_BYTES]>) -> &[u8] {
    binding.map_or(&[], |binding| binding.as_slice())
}

async fn carried(
    handshake: impl Future<
        Output = std::io::Result<(tokio_rustls::TlsStream<Socket>, [u8; BINDING_BYTES])>,
    >,
    timeout_ms: u64,
) -> Result<Carried, HandshakeError> {
    let limit = Duration::from_millis(timeout_ms);
    let (stream, binding) = tokio::time::timeout(limit, handshake)
        .await
        .map_err(|_| HandshakeError::Timeout)?
        .map_err(|error| HandshakeError::Io(error).of_tls())?;
    Ok((Carrier::Tls(Box::new(stream)), Some(binding)))
}

impl HandshakeError {
    /// An error of the connection that is one of TLS, as such: a refusal may come while the first
    /// bytes inside are read.
    pub(crate) fn of_tls(self) -> Self {
        match &self {
            Self::Io(error) => match error.get_ref().and_then(|e| e.downcast_ref()) {
                Some(error) => Self::Tls(explain(error)),
                None => self,
            },
            _ => self,
        }
    }
}
