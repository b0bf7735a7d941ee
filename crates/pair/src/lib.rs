//! The drivers around the pair's state machine: heartbeats, links, disk, lease, hooks, replication.
//!
//! [`Pair::start`] gives a handle and a thread that steps `failover` with what comes in and does
//! what it wants. Knows nothing of engines or HTTP: fronts get a role, an admission rule, and
//! authenticated streams to the peer.
//!
//! Invariant: every decision is the machine's; a driver that is late, or whose disk, store or peer
//! does not answer, makes the machine see that and nothing else.
#![forbid(unsafe_code)]

mod actions;
mod carrier;
mod clock;
mod commands;
mod config;
mod credentials;
mod dial;
mod disk;
mod disk_thread;
mod driver;
mod epoch_file;
mod error;
mod heard;
mod hook_exec;
mod hooks;
mod input;
mod keys;
mod lease;
mod link;
mod listen;
mod log_limiter;
mod net;
mod noise;
mod noise_stream;
mod onlooker;
mod onlooker_view;
mod pair;
mod peer;
mod probe;
mod records;
mod replica;
mod replicated;
mod shared;
mod start;
mod tls;
mod tls_error;
mod view;
mod webhook;
mod wire;

pub use carrier::{Carrier, Socket};
pub use clock::{Clock, SystemClock};
pub use config::{PairBounds, PairConfig, ProbeTarget};
pub use error::PairError;
pub use hooks::{Hook, HookEvent, HookTarget};
pub use keys::PairKeys;
pub use lease::{LeaseStore, MemoryLease};
pub use noise_stream::NoiseStream;
pub use onlooker::{Onlooker, OnlookerConfig};
pub use pair::{Pair, PeerStream, PeerStreams};
pub use records::AuditRecord;
pub use replicated::{Change, Replicated};
pub use shared::FlushFn;
pub use tls::PairTls;
pub use view::{HistoryEntry, HistoryEvent, PairCounters, PairView, PeerFacts, PeerView};
