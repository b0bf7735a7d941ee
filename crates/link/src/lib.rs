//! The link between a front and an engine: framed, versioned, bounded messages over a byte stream.
//!
//! [`encode_frame`] and [`FrameDecoder`] are pure and serve asynchronous code; [`FrameReader`] and
//! [`FrameWriter`] put them over blocking streams.
//!
//! Invariant: a frame longer than the bound, or one that does not decode, ends the connection; it
//! never allocates what it claims.
#![forbid(unsafe_code)]

mod decoder;
mod error;
mod frame;
mod greeting;
mod message;
mod stream;

#[cfg(test)]
mod link_test;

pub use decoder::FrameDecoder;
pub use error::LinkError;
pub use frame::{DEFAULT_MAX_FRAME_BYTES, encode_frame};
pub use greeting::{PeerAnswer, PeerGreeting};
pub use message::{
    EngineHello, EngineMessage, EngineStats, FrontMessage, PROTOCOL_VERSION, ProtocolRange,
};
pub use stream::{FrameReader, FrameWriter};
