//! Probes of two of the peer's ports: refused, answered or silent.
//!
//! An accepted connection proves nothing (a stopped process still accepts), so the server behind
//! it must answer: the pair's port with a handshake, the HTTP port to `GET /live`.
//!
//! Invariant: only the peer's machine saying "nobody listens here" counts as refused; a server that
//! closes or resets a connection it had accepted lives.

use std::io::{self, ErrorKind};
use std::time::Duration;

use hotspare_failover::PortAnswer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::ProbeTarget;
use crate::credentials::Credentials;
use crate::noise::{HandshakeError, Hello, Purpose};

/// `HTTP/1.x NNN`, as far as it is looked at.
const STATUS_LINE_BYTES: usize = 12;
/// Before a connection that was reset is tried once more.
const RESET_PAUSE: Duration = Duration::from_millis(10);

/// Probes both, the second one `gap_ms` after the first one.
pub(crate) async fn both(
    targets: [ProbeTarget; 2],
    credentials: Credentials,
    hello: Hello,
    gap_ms: u64,
    timeout_ms: u64,
) -> [PortAnswer; 2] {
    let [first, second] = targets;
    let later = async {
        tokio::time::sleep(Duration::from_millis(gap_ms)).await;
        port(&second, &credentials, &hello, timeout_ms).await
    };
    let (first, second) = tokio::join!(port(&first, &credentials, &hello, timeout_ms), later);
    [first, second]
}

async fn port(
    target: &ProbeTarget,
    credentials: &Credentials,
    hello: &Hello,
    timeout_ms: u64,
) -> PortAnswer {
    let probe = async {
        let first = ask(target, credentials, hello, timeout_ms).await;
        match first {
            // A process that died with this connection waiting, or one that lives and closed it:
            // the next connection tells.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                tokio::time::sleep(RESET_PAUSE).await;
                ask(target, credentials, hello, timeout_ms).await
            }
            first => first,
        }
    };
    match tokio::time::timeout(Duration::from_millis(timeout_ms), probe).await {
        Ok(Ok(())) => PortAnswer::Answered,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => PortAnswer::Refused,
        Ok(Err(_)) | Err(_) => PortAnswer::Silent,
    }
}

async fn ask(
    target: &ProbeTarget,
    credentials: &Credentials,
    hello: &Hello,
    timeout_ms: u64,
) -> io::Result<()> {
    match target {
        ProbeTarget::Pair(address) => pair_port(address, credentials, hello, timeout_ms).await,
        ProbeTarget::Http(address) => http_port(address).await,
    }
}

async fn pair_port(
    address: &str,
    credentials: &Credentials,
    hello: &Hello,
    timeout_ms: u64,
) -> io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    let hello = Hello {
        purpose: Purpose::Probe,
        ..hello.clone()
    };
    match credentials
        .initiate(stream, address, &hello, timeout_ms)
        .await
    {
        Ok(_) => Ok(()),
        Err(HandshakeError::Io(error)) => Err(error),
        Err(other) => Err(io::Error::other(other)),
    }
}

async fn http_port(address: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /live HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = [0; STATUS_LINE_BYTES];
    stream.read_exact(&mut line).await?;
    let status = &line[9..];
    if line.starts_with(b"HTTP/1.") && line[8] == b' ' && status.iter().all(u8::is_ascii_digit) {
        Ok(())
    } else {
        Err(ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
#[path = "probe_test.rs"]
mod tests;
