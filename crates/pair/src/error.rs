//! What can go wrong around the state machine: settings, keys, disk, sockets, the peer.
//!
//! Invariant: a message names what to do where an operator can do something, and never holds key
//! material.

use std::path::PathBuf;

use hotspare_failover::FailoverError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The machine's settings break a rule.
    #[error(transparent)]
    Settings(#[from] FailoverError),
    /// What the configuration says does not fit together.
    #[error("{0}")]
    Config(String),
    /// The key file cannot be used.
    #[error("key file {path}: {reason}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why, without any of its content.
        reason: String,
    },
    /// A file of mTLS cannot be used.
    #[error("{path}: {reason}")]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// Why, without any of its content.
        reason: String,
    },
    /// Another process uses the state directory.
    #[error("{path} is in use by another process: each node needs a state directory of its own")]
    Locked {
        /// The state directory.
        path: PathBuf,
    },
    /// The epoch file is damaged.
    #[error(
        "{path} is damaged ({reason}). Epochs must never be used twice, so this node does not \
         guess. Restore the file from a backup; or, while the peer serves and is in reach, delete \
         it: the node then learns the epochs from its peer before it takes part"
    )]
    EpochFileDamaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A file or folder cannot be used.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A socket cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A thread or runtime cannot be started.
    #[error("cannot start the pair's thread: {0}")]
    Thread(std::io::Error),
    /// The peer was not reached, or did not prove that it has the pair's key.
    #[error("peer {address}: {reason}")]
    Peer {
        /// Its address.
        address: String,
        /// Why not.
        reason: String,
    },
    /// No peer is configured.
    #[error("no peer is configured")]
    NoPeer,
    /// The peer did not answer in time.
    #[error("no answer within {ms} ms")]
    Timeout {
        /// How long was waited, in milliseconds.
        ms: u64,
    },
    /// What must be the same on both nodes may not be changed here now.
    #[error("writes are frozen: this node does not serve, or cannot exclude that its peer does")]
    WritesFrozen,
    /// The replicated maps and counters hold as much as they may.
    #[error("replicated state is full: {max_bytes} bytes (replica_max_bytes)")]
    ReplicaFull {
        /// The bound.
        max_bytes: usize,
    },
    /// The driver has ended.
    #[error("the pair's driver has ended")]
    Ended,
}
