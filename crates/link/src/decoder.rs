//! An incremental decoder: bytes in as they arrive, messages out when they are complete.
//!
//! It knows no socket, so that blocking threads and asynchronous tasks use the same one.
//!
//! Invariant: it holds bytes that were received and nothing else. A header that claims a length
//! reserves nothing.

use serde::de::DeserializeOwned;

use crate::LinkError;
use crate::frame::{HEADER_BYTES, decode_header, decode_message};

/// A buffer that grew beyond this for a long message is given back once it is empty.
const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// Cuts a byte stream into messages.
///
/// After an error the decoder stays where it was: each further call reports it again.
#[derive(Debug)]
pub struct FrameDecoder {
    max_frame_bytes: usize,
    buffer: Vec<u8>,
    /// Bytes of `buffer` before this were decoded.
    start: usize,
}

impl FrameDecoder {
    /// A decoder that refuses messages longer than `max_frame_bytes`.
    pub fn new(max_frame_bytes: usize) -> Self {
        Self {
            max_frame_bytes,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// Takes bytes from the stream, in any pieces. Call [`Self::next_message`] until it returns
    /// `None` before pushing more: then no more is buffered than one frame and one piece.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
            if self.buffer.capacity() > KEPT_BUFFER_BYTES {
                self.buffer.shrink_to(bytes.len());
            }
        } else if self.start > self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message, or `None` where more bytes are needed.
    ///
    /// # Errors
    /// The stream is not frames of `M` within the bound; end the connection.
    pub fn next_message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, LinkError> {
        let pending = &self.buffer[self.start..];
        let Some((header, rest)) = pending.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let num_bytes = decode_header(*header, self.max_frame_bytes)?;
        let Some(bytes) = rest.get(..num_bytes) else {
            return Ok(None);
        };
        let message = decode_message(bytes)?;
        self.start += HEADER_BYTES + num_bytes;
        Ok(Some(message))
    }

    /// To be called where the stream ends.
    ///
    /// # Errors
    /// [`LinkError::Truncated`] within a frame; what [`Self::next_message`] reports where it fails.
    pub fn finish(&self) -> Result<(), LinkError> {
        let pending = &self.buffer[self.start..];
        let num_missing_bytes = match pending.split_first_chunk::<HEADER_BYTES>() {
            None if pending.is_empty() => return Ok(()),
            None => HEADER_BYTES - pending.len(),
            Some((header, rest)) => {
                decode_header(*header, self.max_frame_bytes)?.saturating_sub(rest.len())
            }
        };
        Err(LinkError::Truncated { num_missing_bytes })
    }

    /// Bytes received and not yet decoded.
    pub fn num_buffered_bytes(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Bytes of memory the decoder holds.
    pub fn num_reserved_bytes(&self) -> usize {
        self.buffer.capacity()
    }
}
