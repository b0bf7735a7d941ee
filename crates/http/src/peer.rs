//! A TCP stream that tells when its peer has ended the connection, read from or not.
//!
//! hyper learns of a client's end by reading it, and does not read while bytes that follow the
//! request wait in its buffer. So the end is taken from the readiness of the socket instead.
//!
//! TCP has no sign that tells a client that closed from one that only ended its side and still
//! reads. Both count as gone, with bytes behind the request as without.
//!
//! Invariant: an end is acted upon after all that the peer sent has been given to the connection.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

struct Shared {
    read: OwnedReadHalf,
    /// Reads and writes that moved bytes.
    num_transfers: AtomicU64,
}

impl Shared {
    fn count(&self, num_bytes: usize) {
        if num_bytes > 0 {
            self.num_transfers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The stream, for the connection.
pub(crate) struct PeerStream {
    shared: Arc<Shared>,
    write: OwnedWriteHalf,
}

/// The stream's other side, for who watches it.
pub(crate) struct Peer(Arc<Shared>);

/// Splits a stream in what the connection uses and what tells of its end.
pub(crate) fn watched(stream: TcpStream) -> (PeerStream, Peer) {
    let (read, write) = stream.into_split();
    let shared = Arc::new(Shared {
        read,
        num_transfers: AtomicU64::new(0),
    });
    let peer = Peer(Arc::clone(&shared));
    (PeerStream { shared, write }, peer)
}

impl Peer {
    /// Runs a connection to its end, or until it waits for something other than a peer that has
    /// left; `None` then.
    pub(crate) async fn until_gone<T>(&self, connection: impl Future<Output = T>) -> Option<T> {
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            output = &mut connection => return Some(output),
            () = self.ended() => {}
        }
        loop {
            let before = self.0.num_transfers.load(Ordering::Relaxed);
            if let Poll::Ready(output) = futures::poll!(&mut connection) {
                return Some(output);
            }
            if self.0.num_transfers.load(Ordering::Relaxed) == before {
                return None;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Returns once the peer has closed, or ended its side.
    async fn ended(&self) {
        // Of what this interest covers, only the end of the peer's side occurs on a stream that was
        // registered for reading and writing.
        match self.0.read.ready(Interest::PRIORITY).await {
            Ok(ready) if !ready.is_read_closed() => std::future::pending().await,
            _ => {}
        }
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream: &TcpStream = self.shared.read.as_ref();
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read_buf(buf) {
                Ok(num_bytes) => {
                    self.shared.count(num_bytes);
                    return Poll::Ready(Ok(()));
                }
                // That has reset the readiness, which is asked for again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl PeerStream {
    fn counted(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(num_bytes)) = &outcome {
            self.shared.count(*num_bytes);
        }
        outcome
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.write).poll_write(cx, buf);
        self.counted(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.write).poll_write_vectored(cx, bufs);
        self.counted(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.write.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(cx)
    }
}
