//! A byte stream under Noise: records of up to 64 KiB, each with its length in clear.
//!
//! An empty record is the end that the other side meant; a connection that ends without one was
//! cut, and reading says so.
//!
//! Invariant: what is read is what was written, in order, or an error.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use snow::TransportState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Of a Noise message, tag included.
const MAX_RECORD_BYTES: usize = 65_535;
const TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 2;
/// One whole record and the beginning of the next.
const RAW_BYTES: usize = 2 * (LENGTH_BYTES + MAX_RECORD_BYTES);

/// An encrypted, authenticated stream over `S`.
pub struct NoiseStream<S = TcpStream> {
    inner: S,
    transport: TransportState,
    raw: Vec<u8>,
    raw_start: usize,
    raw_end: usize,
    plain: Vec<u8>,
    plain_at: usize,
    ended: bool,
    out: Vec<u8>,
    out_at: usize,
    said_end: bool,
}

impl<S> std::fmt::Debug for NoiseStream<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NoiseStream")
    }
}

impl<S> NoiseStream<S> {
    pub(crate) fn new(inner: S, transport: TransportState) -> Self {
        Self {
            inner,
            transport,
            raw: vec![0; RAW_BYTES],
            raw_start: 0,
            raw_end: 0,
            plain: Vec::new(),
            plain_at: 0,
            ended: false,
            out: Vec::new(),
            out_at: 0,
            said_end: false,
        }
    }

    /// The same stream over what `change` makes of the inner one: to move it to another runtime.
    pub(crate) fn map_inner<T, E>(
        self,
        change: impl FnOnce(S) -> Result<T, E>,
    ) -> Result<NoiseStream<T>, E> {
        Ok(NoiseStream {
            inner: change(self.inner)?,
            transport: self.transport,
            raw: self.raw,
            raw_start: self.raw_start,
            raw_end: self.raw_end,
            plain: self.plain,
            plain_at: self.plain_at,
            ended: self.ended,
            out: self.out,
            out_at: self.out_at,
            said_end: self.said_end,
        })
    }

    /// The connection underneath.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Decrypts the next whole record, where there is one.
    fn open_record(&mut self) -> io::Result<bool> {
        let raw = &self.raw[self.raw_start..self.raw_end];
        let [high, low, rest @ ..] = raw else {
            return Ok(false);
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(record) = rest.get(..len) else {
            return Ok(false);
        };
        self.plain.resize(len, 0);
        let len_plain = self
            .transport
            .read_message(record, &mut self.plain)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a forged record"))?;
        self.plain.truncate(len_plain);
        self.plain_at = 0;
        self.ended = len_plain == 0;
        self.raw_start += LENGTH_BYTES + len;
        Ok(true)
    }

    fn seal(&mut self, plain: &[u8]) -> io::Result<()> {
        let len = plain.len() + TAG_BYTES;
        self.out.resize(LENGTH_BYTES + len, 0);
        let head = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
        self.out[..LENGTH_BYTES].copy_from_slice(&head);
        self.transport
            .write_message(plain, &mut self.out[LENGTH_BYTES..])
            .map_err(|error| io::Error::other(error.to_string()))?;
        self.out_at = 0;
        Ok(())
    }
}

impl<S: AsyncWrite + Unpin> NoiseStream<S> {
    /// Writes out what is sealed.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.out_at < self.out.len() {
            let rest = &self.out[self.out_at..];
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out_at += written;
        }
        self.out.clear();
        self.out_at = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for NoiseStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.plain_at < this.plain.len() {
                let len = buf.remaining().min(this.plain.len() - this.plain_at);
                buf.put_slice(&this.plain[this.plain_at..this.plain_at + len]);
                this.plain_at += len;
                return Poll::Ready(Ok(()));
            }
            if this.ended || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.open_record()? {
                continue;
            }
            if this.raw_start > 0 {
                this.raw.copy_within(this.raw_start..this.raw_end, 0);
                this.raw_end -= this.raw_start;
                this.raw_start = 0;
            }
            let mut space = ReadBuf::new(&mut this.raw[this.raw_end..]);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut space))?;
            let len = space.filled().len();
            if len == 0 {
                let cut = "the connection was cut";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, cut)));
            }
            this.raw_end += len;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for NoiseStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.said_end {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_drain(cx))?;
        let len = buf.len().min(MAX_RECORD_BYTES - TAG_BYTES);
        this.seal(&buf[..len])?;
        // What does not go out now goes out with the next write or flush.
        if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if !this.said_end {
            this.said_end = true;
            this.seal(&[])?;
            ready!(this.poll_drain(cx))?;
        }
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}
