//! The layout of a frame, and how a message becomes one.
//!
//! A frame is a header of 8 bytes, little-endian (magic `u16`, frame version `u16`, length `u32`),
//! and a message of that length in postcard's encoding. There is no checksum: a Unix socket does
//! not corrupt, and a link between machines is authenticated, which is stronger.
//!
//! Invariant: a frame whose message is longer than the bound is neither written nor read.

use std::io::{self, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::LinkError;

/// First bytes of a frame: "HS".
pub(crate) const MAGIC: u16 = u16::from_le_bytes(*b"HS");

/// The version of the layout described here. Versions of the messages are negotiated by `Hello`.
pub(crate) const FRAME_VERSION: u16 = 1;

/// Bytes before the message.
pub(crate) const HEADER_BYTES: usize = 8;

/// Default of the setting `max_frame_bytes`: the longest message of a frame. A prompt of a million
/// ids is 5 MiB at most.
pub const DEFAULT_MAX_FRAME_BYTES: usize = 16 << 20;

/// Appends `message` to `out` as one frame.
///
/// # Errors
/// [`LinkError::FrameTooLarge`] above `max_frame_bytes`; `out` is as before then.
pub fn encode_frame<M: Serialize + ?Sized>(
    message: &M,
    max_frame_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), LinkError> {
    let start = out.len();
    let result = encode_at(message, max_frame_bytes, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn encode_at<M: Serialize + ?Sized>(
    message: &M,
    max_frame_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), LinkError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let mut bounded = Bounded {
        out,
        num_left: max_frame_bytes.min(u32::MAX as usize),
        num_refused: 0,
    };
    let result = postcard::to_io(message, &mut bounded).map(|_| ());
    if bounded.num_refused > 0 {
        return Err(LinkError::FrameTooLarge {
            num_bytes: (out.len() - start - HEADER_BYTES) as u64 + 1,
            max_frame_bytes,
        });
    }
    result.map_err(|error| LinkError::Encode(error.to_string()))?;
    let num_bytes = (out.len() - start - HEADER_BYTES) as u32;
    out[start..start + 2].copy_from_slice(&MAGIC.to_le_bytes());
    out[start + 2..start + 4].copy_from_slice(&FRAME_VERSION.to_le_bytes());
    out[start + 4..start + HEADER_BYTES].copy_from_slice(&num_bytes.to_le_bytes());
    Ok(())
}

/// Stops an encoding at the bound, before the memory beyond it is used.
struct Bounded<'a> {
    out: &'a mut Vec<u8>,
    num_left: usize,
    num_refused: usize,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.num_left {
            self.num_refused += bytes.len();
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.num_left -= bytes.len();
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Checks a header and returns its message's length.
pub(crate) fn decode_header(
    header: [u8; HEADER_BYTES],
    max_frame_bytes: usize,
) -> Result<usize, LinkError> {
    let [m0, m1, v0, v1, length @ ..] = header;
    let found = u16::from_le_bytes([m0, m1]);
    if found != MAGIC {
        return Err(LinkError::BadMagic { found });
    }
    let found = u16::from_le_bytes([v0, v1]);
    if found != FRAME_VERSION {
        return Err(LinkError::UnsupportedFrameVersion {
            found,
            supported: FRAME_VERSION,
        });
    }
    let num_bytes = u32::from_le_bytes(length);
    if num_bytes as usize > max_frame_bytes {
        return Err(LinkError::FrameTooLarge {
            num_bytes: num_bytes.into(),
            max_frame_bytes,
        });
    }
    Ok(num_bytes as usize)
}

/// Decodes a frame's message, all of it: bytes left over are an error.
pub(crate) fn decode_message<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, LinkError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(LinkError::Decode(format!(
            "{} bytes after the message",
            rest.len()
        ))),
        Err(error) => Err(LinkError::Decode(error.to_string())),
    }
}
