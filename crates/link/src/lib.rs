//! The link between a front and an engine: framed, versioned, bounded messages over a byte stream.
//!
//! Invariant: a frame longer than the bound, or one that does not decode, ends the connection; it
//! never allocates what it claims.
#![forbid(unsafe_code)]

mod message;

pub use message::{
    EngineHello, EngineMessage, EngineStats, FrontMessage, PROTOCOL_VERSION, ProtocolRange,
};
