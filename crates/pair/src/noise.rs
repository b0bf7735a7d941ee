//! The handshake of every TCP connection between the nodes: Noise NNpsk0 with the pair's key.
//!
//! In clear: a prelude with magic, version and key id, which the handshake covers, as it does the
//! key of a TLS channel around it. Then two Noise
//! messages; the second carries the responder's hello. Then the initiator's hello, its first
//! encrypted record: only that proves that the initiator is there now and no recording.
//!
//! Invariant: nothing is believed of a connection before its handshake has ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use snow::{Builder, HandshakeState};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::PairKeys;
use crate::noise_stream::NoiseStream;

const MAGIC: [u8; 4] = *b"HSPR";
/// Of prelude, hello and frames. A node refuses other versions and says so.
pub(crate) const WIRE_VERSION: u8 = 1;
const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
/// The rank of a front without an engine: no node has it.
pub(crate) const FRONT_RANK: u32 = u32::MAX;
const PRELUDE_BYTES: usize = 9;
/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 22;
/// A hello is small; nothing longer is read before somebody has proved himself.
const MAX_HANDSHAKE_BYTES: usize = 512;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// Heartbeats and replication.
    Control,
    /// Engine traffic of the fronts.
    Engine,
    /// Nothing: the answer alone is asked for.
    Probe,
    /// A front without an engine wants to hear heartbeats.
    Watch,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) node: String,
    pub(crate) rank: u32,
    pub(crate) boot: u64,
    /// What the initiator wants; the responder's own says `Control`.
    pub(crate) purpose: Purpose,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it does not have this pair's key, or is no peer at all")]
    WrongKey,
    #[error("it speaks version {0}, this node {WIRE_VERSION}")]
    Version(u8),
    #[error("a malformed handshake")]
    Malformed,
    #[error(
        "it speaks TLS, and this node has no certificate: is mTLS (--ha-tls-cert) set on both?"
    )]
    UnexpectedTls,
    #[error("{0}")]
    Tls(String),
    #[error("no key is configured")]
    NoKey,
    #[error("no answer in time")]
    Timeout,
}

fn builder<'a>(psk: &'a [u8; 32], prologue: &'a [u8]) -> Result<Builder<'a>, HandshakeError> {
    let pattern = PATTERN.parse().map_err(|_| HandshakeError::Malformed)?;
    Builder::new(pattern)
        .psk(0, psk)
        .and_then(|builder| builder.prologue(prologue))
        .map_err(|_| HandshakeError::Malformed)
}

async fn send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    head: &[u8],
    noise: &mut HandshakeState,
    payload: &[u8],
) -> Result<(), HandshakeError> {
    let mut message = [0; MAX_HANDSHAKE_BYTES];
    let len = noise
        .write_message(payload, &mut message)
        .map_err(|_| HandshakeError::Malformed)?;
    let mut out = head.to_vec();
    out.extend(u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(&message[..len]);
    stream.write_all(&out).await?;
    stream.flush().await?;
    Ok(())
}

async fn receive<S: AsyncRead + Unpin>(
    stream: &mut S,
    noise: &mut HandshakeState,
) -> Result<Vec<u8>, HandshakeError> {
    let len = usize::from(stream.read_u16().await?);
    if len > MAX_HANDSHAKE_BYTES {
        return Err(HandshakeError::Malformed);
    }
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await?;
    let mut payload = vec![0; MAX_HANDSHAKE_BYTES];
    let len = noise
        .read_message(&message, &mut payload)
        .map_err(|_| HandshakeError::WrongKey)?;
    payload.truncate(len);
    Ok(payload)
}

/// The initiator's side: proves the key, learns who answers. Both sides must give the same
/// `binding`: what names the channel underneath.
///
/// # Errors
/// The other end does not have the key, or is not there.
pub(crate) async fn initiate<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    keys: &PairKeys,
    binding: &[u8],
    hello: &Hello,
    timeout_ms: u64,
) -> Result<(NoiseStream<S>, Hello), HandshakeError> {
    let key = keys.signing().ok_or(HandshakeError::NoKey)?;
    let run = async {
        let mut prelude = [0; PRELUDE_BYTES];
        prelude[..4].copy_from_slice(&MAGIC);
        prelude[4] = WIRE_VERSION;
        prelude[5..].copy_from_slice(&key.id);
        let prologue = [&prelude, binding].concat();
        let mut noise = builder(&key.noise, &prologue)?
            .build_initiator()
            .map_err(|_| HandshakeError::Malformed)?;
        send(&mut stream, &prelude, &mut noise, &[]).await?;
        let payload = receive(&mut stream, &mut noise).await?;
        let peer = postcard::from_bytes(&payload).map_err(|_| HandshakeError::Malformed)?;
        let transport = noise
            .into_transport_mode()
            .map_err(|_| HandshakeError::Malformed)?;
        let mut stream = NoiseStream::new(stream, transport);
        if hello.purpose != Purpose::Probe {
            let mine = postcard::to_stdvec(hello).map_err(|_| HandshakeError::Malformed)?;
            stream.write_u16(length(&mine)?).await?;
            stream.write_all(&mine).await?;
            stream.flush().await?;
        }
        Ok((stream, peer))
    };
    in_time(timeout_ms, run).await
}

/// The responder's side: proves the key, learns who asks and what for.
///
/// # Errors
/// The other end does not have the key, says nothing sensible, or went away.
pub(crate) async fn respond<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    keys: &PairKeys,
    binding: &[u8],
    hello: &Hello,
    timeout_ms: u64,
) -> Result<(NoiseStream<S>, Hello), HandshakeError> {
    let run = async {
        let mut prelude = [0; PRELUDE_BYTES];
        stream.read_exact(&mut prelude).await?;
        if prelude[0] == TLS_HANDSHAKE {
            return Err(HandshakeError::UnexpectedTls);
        }
        if prelude[..4] != MAGIC {
            return Err(HandshakeError::Malformed);
        }
        if prelude[4] != WIRE_VERSION {
            return Err(HandshakeError::Version(prelude[4]));
        }
        let id = [prelude[5], prelude[6], prelude[7], prelude[8]];
        let key = keys.by_id(id).ok_or(HandshakeError::WrongKey)?;
        let prologue = [&prelude, binding].concat();
        let mut noise = builder(&key.noise, &prologue)?
            .build_responder()
            .map_err(|_| HandshakeError::Malformed)?;
        receive(&mut stream, &mut noise).await?;
        let mine = postcard::to_stdvec(hello).map_err(|_| HandshakeError::Malformed)?;
        send(&mut stream, &[], &mut noise, &mine).await?;
        let transport = noise
            .into_transport_mode()
            .map_err(|_| HandshakeError::Malformed)?;
        let mut stream = NoiseStream::new(stream, transport);
        let len = usize::from(stream.read_u16().await?);
        if len > MAX_HANDSHAKE_BYTES {
            return Err(HandshakeError::Malformed);
        }
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload).await?;
        let peer = postcard::from_bytes(&payload).map_err(|_| HandshakeError::Malformed)?;
        Ok((stream, peer))
    };
    in_time(timeout_ms, run).await
}

fn length(bytes: &[u8]) -> Result<u16, HandshakeError> {
    u16::try_from(bytes.len()).map_err(|_| HandshakeError::Malformed)
}

async fn in_time<T>(
    timeout_ms: u64,
    run: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(Duration::from_millis(timeout_ms), run)
        .await
        .unwrap_or(Err(HandshakeError::Timeout))
}

#[cfg(test)]
#[path = "noise_test.rs"]
mod tests;
