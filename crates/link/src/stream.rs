//! Frames over blocking streams: what a thread uses that owns one end of a socket.
//!
//! Invariant: neither side buffers without bound. The writer goes to the stream when its buffer
//! reaches the setting, and blocks there when the other side does not read.

use std::io::{Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::encode_frame;
use crate::{FrameDecoder, LinkError};

/// Bytes asked of a stream at a time.
const READ_CHUNK_BYTES: usize = 64 << 10;

/// Reads messages from a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    decoder: FrameDecoder,
    chunk: Box<[u8]>,
}

impl<R: Read> FrameReader<R> {
    /// A reader that refuses messages longer than `max_frame_bytes`.
    pub fn new(stream: R, max_frame_bytes: usize) -> Self {
        Self {
            stream,
            decoder: FrameDecoder::new(max_frame_bytes),
            chunk: vec![0; READ_CHUNK_BYTES].into_boxed_slice(),
        }
    }

    /// Waits for the next message; `None` where the stream ends between two frames.
    ///
    /// # Errors
    /// The stream failed, ended within a frame, or does not hold frames of `M`.
    pub fn read<M: DeserializeOwned>(&mut self) -> Result<Option<M>, LinkError> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(Some(message));
            }
            match self.stream.read(&mut self.chunk) {
                Ok(0) => return self.decoder.finish().map(|()| None),
                Ok(num_bytes) => self.decoder.push(&self.chunk[..num_bytes]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The stream.
    pub fn get_ref(&self) -> &R {
        &self.stream
    }
}

/// Writes messages to a stream, several in one call to it.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    max_frame_bytes: usize,
    max_buffered_bytes: usize,
    buffer: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    /// A writer that refuses messages longer than `max_frame_bytes` and goes to the stream once it
    /// holds `max_buffered_bytes`.
    pub fn new(stream: W, max_frame_bytes: usize, max_buffered_bytes: usize) -> Self {
        Self {
            stream,
            max_frame_bytes,
            max_buffered_bytes,
            buffer: Vec::new(),
        }
    }

    /// Adds a message to the buffer. May block on the stream.
    ///
    /// # Errors
    /// [`LinkError::FrameTooLarge`], which leaves the stream whole: the message is left out and
    /// others can follow. Any other error ends the connection.
    pub fn queue<M: Serialize + ?Sized>(&mut self, message: &M) -> Result<(), LinkError> {
        encode_frame(message, self.max_frame_bytes, &mut self.buffer)?;
        if self.buffer.len() >= self.max_buffered_bytes {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is buffered. Blocks until the stream took it.
    ///
    /// # Errors
    /// The stream failed.
    pub fn flush(&mut self) -> Result<(), LinkError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let result = self.stream.write_all(&self.buffer);
        self.buffer.clear();
        if self.buffer.capacity() > 2 * self.max_buffered_bytes {
            self.buffer.shrink_to(self.max_buffered_bytes);
        }
        result?;
        Ok(self.stream.flush()?)
    }

    /// Queues a message and flushes.
    ///
    /// # Errors
    /// As for both.
    pub fn write<M: Serialize + ?Sized>(&mut self, message: &M) -> Result<(), LinkError> {
        self.queue(message)?;
        self.flush()
    }

    /// Whether nothing waits for a flush.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The stream.
    pub fn get_ref(&self) -> &W {
        &self.stream
    }

    /// The stream, to write raw bytes to it. For fault injection.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.stream
    }
}
