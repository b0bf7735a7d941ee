//! Both directions of an engine's socket.
//!
//! Invariant: dropping it closes the socket; nothing that arrives later is ever read.

use std::collections::VecDeque;

use hotspare_link::{FrontMessage, LinkError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::FrontConfig;
use crate::client::EngineClient;
use crate::wire::{Receiver, Sender};

/// See the module.
pub(crate) struct Connection {
    pub(crate) receiver: Receiver<OwnedReadHalf>,
    pub(crate) sender: Sender<OwnedWriteHalf>,
}

impl Connection {
    pub(crate) fn new(
        stream: std::os::unix::net::UnixStream,
        config: &FrontConfig,
    ) -> Result<Self, std::io::Error> {
        stream.set_nonblocking(true)?;
        let (reader, writer) = UnixStream::from_std(stream)?.into_split();
        Ok(Self {
            receiver: Receiver::new(reader, config.max_frame_bytes),
            sender: Sender::new(writer, config.max_frame_bytes, config.max_write_batch_bytes),
        })
    }

    /// Sends one message.
    pub(crate) async fn send(&mut self, message: FrontMessage) -> Result<(), LinkError> {
        let mut messages = VecDeque::from([message]);
        self.sender.send(&mut messages, |_, _| {}).await
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) reason: String,
    /// It simply ended. Otherwise the engine said that it cannot go on, or spoke nonsense: what it
    /// computed may be wrong, too.
    pub(crate) is_plain: bool,
}

/// Routes messages until the connection ends; returns why it did.
pub(crate) async fn read_all<R: AsyncRead + Unpin>(
    receiver: &mut Receiver<R>,
    client: &EngineClient,
) -> Broken {
    loop {
        let (reason, is_plain) = match receiver.receive().await {
            Ok(Some(message)) => match client.on_message(message) {
                Some(fatal) => (fatal, false),
                None => continue,
            },
            Ok(None) => ("it closed its socket".to_owned(), true),
            // A frame is cut where its writer is killed.
            Err(error @ (LinkError::Truncated { .. } | LinkError::Io(_))) => {
                (error.to_string(), true)
            }
            Err(error) => (error.to_string(), false),
        };
        return Broken { reason, is_plain };
    }
}

/// Writes what is queued until the connection ends; returns why it did.
pub(crate) async fn write_all<W: AsyncWrite + Unpin>(
    sender: &mut Sender<W>,
    client: &EngineClient,
) -> String {
    let mut messages = VecDeque::new();
    loop {
        client.take_mail(&mut messages).await;
        let refused = |message, error: LinkError| client.on_refused(message, &error);
        if let Err(error) = sender.send(&mut messages, refused).await {
            return error.to_string();
        }
    }
}
