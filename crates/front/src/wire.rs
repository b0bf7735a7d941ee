//! The link's frames over an asynchronous socket.
//!
//! Invariant: receiving is cancel-safe, and bytes wait for the socket only up to one batch and one
//! message.

use std::collections::VecDeque;

use hotspare_link::{FrameDecoder, LinkError, encode_frame};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes asked of the socket at a time.
const READ_CHUNK_BYTES: usize = 64 << 10;

/// Reads the other side's messages.
pub(crate) struct Receiver<R> {
    stream: R,
    decoder: FrameDecoder,
    chunk: Box<[u8]>,
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    pub(crate) fn new(stream: R, max_frame_bytes: usize) -> Self {
        Self {
            stream,
            decoder: FrameDecoder::new(max_frame_bytes),
            chunk: vec![0; READ_CHUNK_BYTES].into_boxed_slice(),
        }
    }

    /// The next message, which has to be an `M`; `None` where the stream ends between two.
    pub(crate) async fn receive<M: DeserializeOwned>(&mut self) -> Result<Option<M>, LinkError> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(Some(message));
            }
            match self.stream.read(&mut self.chunk).await? {
                0 => return self.decoder.finish().map(|()| None),
                num_bytes => self.decoder.push(&self.chunk[..num_bytes]),
            }
        }
    }
}

/// Writes messages to the other side, as many at once as are waiting.
pub(crate) struct Sender<W> {
    stream: W,
    max_frame_bytes: usize,
    max_batch_bytes: usize,
    buffer: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> Sender<W> {
    pub(crate) fn new(stream: W, max_frame_bytes: usize, max_batch_bytes: usize) -> Self {
        Self {
            stream,
            max_frame_bytes,
            max_batch_bytes,
            buffer: Vec::new(),
        }
    }

    /// Writes all of `messages`. One that has no frame within the bound goes to `refused` with the
    /// reason; the connection goes on.
    pub(crate) async fn send<M: Serialize>(
        &mut self,
        messages: &mut VecDeque<M>,
        mut refused: impl FnMut(M, LinkError),
    ) -> Result<(), LinkError> {
        while let Some(message) = messages.pop_front() {
            let encoded = encode_frame(&message, self.max_frame_bytes, &mut self.buffer);
            if let Err(error) = encoded {
                refused(message, error);
            }
            if self.buffer.len() >= self.max_batch_bytes {
                self.flush().await?;
            }
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        self.stream.write_all(&self.buffer).await?;
        // Some streams hold what they encrypt until they are told.
        self.stream.flush().await?;
        self.buffer.clear();
        self.buffer.shrink_to(self.max_batch_bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hotspare_batch::{Generate, RequestId};
    use hotspare_link::{EngineMessage, FrontMessage};

    fn generate(num_ids: usize) -> FrontMessage {
        FrontMessage::Generate(Box::new(Generate {
            request_id: RequestId(7),
            attempt: 0,
            ids: vec![1; num_ids],
            num_delivered: 0,
            sampling: hotspare_batch::SamplingParams::default(),
            stop: hotspare_batch::StopParams::default(),
            priority: 0,
            deadline_ms: None,
            block_hash_keys: Vec::new(),
            prefill_only: false,
        }))
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_refused_alone() {
        let mut out = Vec::new();
        let mut sender = Sender::new(&mut out, 1000, 10);
        let mut messages = VecDeque::from([
            FrontMessage::Ping { nonce: 1 },
            generate(5_000),
            FrontMessage::Ping { nonce: 2 },
        ]);
        let mut refused = Vec::new();
        sender
            .send(&mut messages, |message, error| {
                refused.push((message, error.to_string()));
            })
            .await
            .expect("a vector takes every byte");
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].0, generate(5_000));
        assert!(refused[0].1.contains("at most 1000"), "{}", refused[0].1);

        let mut decoder = FrameDecoder::new(1000);
        decoder.push(&out);
        let mut nonces = Vec::new();
        while let Some(message) = decoder.next_message().expect("frames") {
            let FrontMessage::Ping { nonce } = message else {
                panic!("only pings were sent: {message:?}");
            };
            nonces.push(nonce);
        }
        assert_eq!(nonces, [1, 2]);
    }

    #[tokio::test]
    async fn messages_arrive_whole_however_the_bytes_come() {
        let (mut near, far) = tokio::io::duplex(3);
        let mut receiver = Receiver::new(far, 1 << 20);
        let writer = tokio::spawn(async move {
            let mut bytes = Vec::new();
            for nonce in 0..20 {
                encode_frame(&EngineMessage::Pong { nonce }, 1 << 20, &mut bytes).expect("short");
            }
            near.write_all(&bytes).await.expect("the receiver reads");
        });
        for expected in 0..20 {
            let message = receiver.receive().await.expect("frames");
            assert_eq!(message, Some(EngineMessage::Pong { nonce: expected }));
        }
        let end = receiver.receive::<EngineMessage>().await;
        assert_eq!(end.expect("a clean end"), None);
        writer.await.expect("the writer ends");
    }
}
