//! What two fronts say to each other before one of them plays the engine's part for the other.
//!
//! The asker sends a greeting, the front that has the engine answers; after `Welcome` the stream is
//! that of an engine which has loaded: its `Hello` comes next.
//!
//! Invariant: who knows of a higher epoch refuses, and says which.

use serde::{Deserialize, Serialize};

use crate::ProtocolRange;

/// The first frame of a stream between fronts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerGreeting {
    /// Versions that the asker speaks.
    pub protocol: ProtocolRange,
    /// The highest epoch that the asker knows to have served.
    pub epoch: u64,
    /// The asker's name, for logs.
    pub node: String,
}

/// The answer to a [`PeerGreeting`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerAnswer {
    /// The engine's `Hello` follows.
    Welcome {
        /// The highest epoch that this front knows to have served.
        epoch: u64,
    },
    /// The asker's epoch is over; the stream ends.
    Stale {
        /// The epoch that is known here.
        epoch: u64,
    },
    /// There is no engine to be had now; the stream ends.
    NoEngine {
        /// Why, for logs.
        reason: String,
    },
}
