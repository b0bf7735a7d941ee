//! A relay between the nodes that can stop to let anything through, TCP and UDP, without closing.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;

/// One direction of dialling: who connects to `address` reaches the target.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    open: watch::Sender<bool>,
    resets: watch::Sender<u64>,
}

impl Relay {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.expect("bound");
            let address = tcp.local_addr().expect("bound");
            if let Ok(udp) = UdpSocket::bind(address).await {
                break (tcp, udp);
            }
        };
        let address = tcp.local_addr().expect("bound");
        let (open, gate) = watch::channel(true);
        let (resets, reset) = watch::channel(0);
        tokio::spawn(streams(tcp, target, gate.clone(), reset));
        tokio::spawn(datagrams(udp, target, gate));
        Self {
            address,
            open,
            resets,
        }
    }

    pub(crate) fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

impl Relay {
    /// Closes every connection that goes through it; new ones are taken.
    pub(crate) fn reset(&self) {
        self.resets.send_modify(|number| *number += 1);
    }
}

async fn streams(
    listener: TcpListener,
    target: SocketAddr,
    gate: watch::Receiver<bool>,
    reset: watch::Receiver<u64>,
) {
    while let Ok((near, _)) = listener.accept().await {
        let (mut gate, mut reset) = (gate.clone(), reset.clone());
        reset.mark_unchanged();
        tokio::spawn(async move {
            if gate.wait_for(|&open| open).await.is_err() {
                return;
            }
            let Ok(far) = TcpStream::connect(target).await else {
                return;
            };
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::select! {
                () = pump(near_read, far_write, gate.clone()) => {}
                () = pump(far_read, near_write, gate) => {}
                _ = reset.changed() => {}
            }
        });
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let len = from.read(&mut buffer).await.unwrap_or(0);
        if gate.wait_for(|&open| open).await.is_err()
            || len == 0
            || to.write_all(&buffer[..len]).await.is_err()
        {
            return;
        }
    }
}

async fn datagrams(socket: UdpSocket, target: SocketAddr, gate: watch::Receiver<bool>) {
    let (socket, mut buffer) = (Arc::new(socket), vec![0; 2048]);
    while let Ok((len, _)) = socket.recv_from(&mut buffer).await {
        if *gate.borrow() {
            // A datagram may be lost.
            let _lost = socket.send_to(&buffer[..len], target).await;
        }
    }
}
