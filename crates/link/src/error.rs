//! What can go wrong on a link.
//!
//! Invariant: every error here ends the connection. A stream of frames has no point at which it
//! could be picked up again.

use crate::ProtocolRange;

/// A failure of a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[from] std::io::Error),
    /// The other side speaks something else, or the stream is out of step.
    #[error("not a frame: it starts with {found:#06x}")]
    BadMagic {
        /// The first two bytes, little-endian.
        found: u16,
    },
    /// The frame's layout is of another version.
    #[error("frame version {found}; this build reads {supported}")]
    UnsupportedFrameVersion {
        /// From the frame.
        found: u16,
        /// What this build reads.
        supported: u16,
    },
    /// The frame's message is longer than the bound.
    #[error("a message of {num_bytes} bytes; at most {max_frame_bytes}")]
    FrameTooLarge {
        /// Its length; where it was being written, a lower bound.
        num_bytes: u64,
        /// The bound.
        max_frame_bytes: usize,
    },
    /// The frame does not hold the message that was expected.
    #[error("the frame does not decode: {0}")]
    Decode(String),
    /// The message has no encoding.
    #[error("the message does not encode: {0}")]
    Encode(String),
    /// The stream ended within a frame.
    #[error("the stream ended {num_missing_bytes} bytes before the end of a frame")]
    Truncated {
        /// How many bytes the header or the message still lacked.
        num_missing_bytes: usize,
    },
    /// The two sides share no protocol version.
    #[error("no common protocol version: {ours} here, {theirs} there")]
    NoCommonVersion {
        /// What this side speaks.
        ours: ProtocolRange,
        /// What the other side speaks.
        theirs: ProtocolRange,
    },
}
