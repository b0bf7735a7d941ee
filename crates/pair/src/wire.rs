//! What the nodes say to each other: frames on a control link, datagrams beside them.
//!
//! A frame is its length (four bytes, big endian) and a postcard value, in a `NoiseStream`. A
//! datagram is magic, version, key id, a heartbeat and an HMAC-SHA256 tag over all before it.
//!
//! Invariant: a length is checked before memory is taken for it, and a tag before what it covers is
//! decoded.

use hotspare_failover::{Gate, Heartbeat};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::PairKeys;
use crate::noise::WIRE_VERSION;
use crate::replica::{Ack, Batch};
use crate::view::{PeerFacts, cut};

/// Gates in a heartbeat, at most; the ones that pass are left out.
const MAX_GATES: usize = 4;
const MAX_GATE_NAME_BYTES: usize = 32;
const MAX_GATE_REASON_BYTES: usize = 120;

/// A heartbeat with what the drivers wrap it in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireHeartbeat {
    pub(crate) node: String,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) facts: PeerFacts,
    /// Those that do not pass.
    pub(crate) gates: Vec<Gate>,
}

/// What gates there are to tell of, cut to what a heartbeat has room for.
pub(crate) fn telling_gates(gates: &[Gate]) -> Vec<Gate> {
    gates
        .iter()
        .filter(|gate| gate.verdict > hotspare_failover::Verdict::Pass)
        .take(MAX_GATES)
        .cloned()
        .map(|mut gate| {
            cut(&mut gate.name, MAX_GATE_NAME_BYTES);
            cut(&mut gate.reason, MAX_GATE_REASON_BYTES);
            gate
        })
        .collect()
}

/// One message on a control link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Frame {
    Heartbeat(Box<WireHeartbeat>),
    /// The sender ends: what follows on this link, its end included, is no sign of death.
    Farewell,
    Replica(Batch),
    ReplicaAck(Ack),
}

pub(crate) async fn write_frame<W: AsyncWrite + Unpin>(
    stream: &mut W,
    frame: &Frame,
) -> std::io::Result<()> {
    let body = postcard::to_stdvec(frame).map_err(std::io::Error::other)?;
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(&body);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

pub(crate) async fn read_frame<R: AsyncRead + Unpin>(
    stream: &mut R,
    max_bytes: usize,
) -> std::io::Result<Frame> {
    let invalid = |why: &'static str| std::io::Error::new(std::io::ErrorKind::InvalidData, why);
    let len = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if len > max_bytes {
        return Err(invalid("a frame that is too long"));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    postcard::from_bytes(&body).map_err(|_| invalid("a frame that does not decode"))
}

const DATAGRAM_MAGIC: [u8; 4] = *b"HSPU";
const HEAD_BYTES: usize = 9;
const TAG_BYTES: usize = 32;

/// A datagram of a heartbeat; without its gates, and then without its facts, where it would be too
/// long.
pub(crate) fn datagram(
    keys: &PairKeys,
    message: &WireHeartbeat,
    max_bytes: usize,
) -> Option<Vec<u8>> {
    let key = keys.signing()?;
    let mut message = message.clone();
    for _ in 0..3 {
        let mut bytes = Vec::with_capacity(max_bytes);
        bytes.extend(DATAGRAM_MAGIC);
        bytes.push(WIRE_VERSION);
        bytes.extend(key.id);
        bytes.extend(postcard::to_stdvec(&message).ok()?);
        bytes.extend(key.tag(&bytes));
        if bytes.len() <= max_bytes {
            return Some(bytes);
        }
        if message.gates.is_empty() {
            message.facts = PeerFacts::default();
        }
        message.gates.clear();
    }
    None
}

/// The heartbeat of a datagram; `None` where it is none of this pair's.
pub(crate) fn open_datagram(keys: &PairKeys, bytes: &[u8]) -> Option<WireHeartbeat> {
    if bytes.len() < HEAD_BYTES + TAG_BYTES {
        return None;
    }
    let (signed, tag) = bytes.split_at(bytes.len() - TAG_BYTES);
    if signed[..4] != DATAGRAM_MAGIC || signed[4] != WIRE_VERSION {
        return None;
    }
    let key = keys.by_id([signed[5], signed[6], signed[7], signed[8]])?;
    if !key.verify(signed, tag) {
        return None;
    }
    postcard::from_bytes(&signed[HEAD_BYTES..]).ok()
}

#[cfg(test)]
#[path = "wire_test.rs"]
mod tests;
