//! What carries Noise between the nodes: TCP alone, or TLS over TCP.
//!
//! A stream moves from the pair's runtime to the front's: its socket leaves one reactor for the
//! other while the TLS session around it stays.
//!
//! Invariant: a carrier that was detached is attached before anything is read or written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// Carries one connection.
pub enum Carrier {
    /// Without TLS.
    Tcp(Socket),
    /// With it.
    Tls(Box<TlsStream<Socket>>),
}

/// A TCP socket, in a runtime's reactor or between two of them.
pub enum Socket {
    /// Of the runtime that uses it.
    Attached(TcpStream),
    /// Of none.
    Loose(std::net::TcpStream),
    /// An error took it away.
    Gone,
}

/// A carrier that belongs to no runtime yet.
pub(crate) struct Loose(Carrier);

impl Carrier {
    pub(crate) fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Tcp(socket) => socket,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }

    /// Leaves its runtime.
    pub(crate) fn detach(mut self) -> io::Result<Loose> {
        let socket = self.socket();
        if let Socket::Attached(stream) = std::mem::replace(socket, Socket::Gone) {
            *socket = Socket::Loose(stream.into_std()?);
        }
        Ok(Loose(self))
    }
}

impl Loose {
    /// Joins the runtime of the caller.
    pub(crate) fn attach(self) -> io::Result<Carrier> {
        let mut carrier = self.0;
        let socket = carrier.socket();
        if let Socket::Loose(stream) = std::mem::replace(socket, Socket::Gone) {
            *socket = Socket::Attached(TcpStream::from_std(stream)?);
        }
        Ok(carrier)
    }
}

impl Socket {
    pub(crate) fn tcp(&mut self) -> io::Result<&mut TcpStream> {
        match self {
            Self::Attached(stream) => Ok(stream),
            Self::Loose(_) | Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().tcp()?).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().tcp()?).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().tcp()?).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().tcp()?).poll_shutdown(cx)
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
