//! What a node is told about its pair, and every bound of the drivers, each with a name and a unit.
//!
//! Invariant: no queue, buffer, timeout or retry of this crate is without a field here or in
//! `failover::Timers`.

use std::net::SocketAddr;
use std::path::PathBuf;

use hotspare_failover::Settings;

use crate::hooks::Hook;
use crate::{PairError, PairKeys, PairTls};

/// Everything that [`crate::Pair::start`] needs.
#[derive(Clone, Debug)]
pub struct PairConfig {
    /// The node's name, in status, hooks and headers; 1 to 64 bytes.
    pub node: String,
    /// The machine's settings.
    pub settings: Settings,
    /// Where to listen, TCP and UDP; port 0 takes any. Empty: a node without a peer.
    pub listen: Vec<SocketAddr>,
    /// The peer's addresses, `host:port`, one a link; resolved again at each connection.
    pub peers: Vec<String>,
    /// The pair's keys; none for a node without a peer.
    pub keys: PairKeys,
    /// Certificates around Noise on TCP; `None`: the key alone. UDP has the key alone always.
    pub tls: Option<PairTls>,
    /// Holds the epoch file, the lock, history and audit log. One node each.
    pub state_dir: PathBuf,
    /// What to run when the role changes.
    pub hooks: Vec<Hook>,
    /// The peer's pair port and its HTTP port, probed when it is suspect; `None`: never refused.
    pub probe: Option<[ProbeTarget; 2]>,
    /// Bounds.
    pub bounds: PairBounds,
}

/// A port to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeTarget {
    /// `host:port` of the pair: a valid handshake counts as an answer.
    Pair(String),
    /// `host:port` of HTTP: any valid answer to `GET /live` counts.
    Http(String),
}

/// Bounds of the drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairBounds {
    /// Things that wait for the driver's thread.
    pub max_num_queued_inputs: usize,
    /// How long connecting to the peer may take.
    pub connect_timeout_ms: u64,
    /// How long a handshake may take.
    pub handshake_timeout_ms: u64,
    /// Handshakes of others at a time; more are closed at once.
    pub max_num_handshakes: usize,
    /// From the end of a link to the next attempt.
    pub reconnect_interval_ms: u64,
    /// Links that the peer opened, at a time; and fronts that look on.
    pub max_num_links: usize,
    /// The largest frame on a control link.
    pub max_frame_bytes: usize,
    /// The largest datagram.
    pub max_datagram_bytes: usize,
    /// Streams for engine traffic that the peer opened and nobody took yet.
    pub max_num_waiting_streams: usize,
    /// A stream for engine traffic ends when the peer's kernel takes nothing for so long. Longer
    /// than any reader may hold its stream up: whether the peer lives is not decided here.
    pub engine_stream_timeout_ms: u64,
    /// Heartbeats over UDP beside TCP.
    pub udp: bool,
    /// A process of the peer is not believed that proves itself with an older echo.
    pub replay_window_ms: u64,
    /// Tokens from the peer's engine are told to the machine no more often.
    pub peer_traffic_interval_ms: u64,
    /// Operators' commands that wait for their outcome.
    pub max_num_commands: usize,
    /// Role changes, alerts and commands that are remembered and shown.
    pub max_num_history_entries: usize,
    /// Size of a history file; there are two.
    pub history_file_max_bytes: u64,
    /// Records for history and audit files that wait to be written; more are counted and lost.
    pub max_num_queued_records: usize,
    /// Size of an audit file.
    pub audit_file_max_bytes: u64,
    /// Audit files that are kept.
    pub max_num_audit_files: usize,
    /// From one fsync of the audit file to the next.
    pub audit_sync_interval_ms: u64,
    /// Keys and values of replicated maps and counters together.
    pub replica_max_bytes: usize,
    /// Items of a replication message.
    pub replica_batch_bytes: usize,
    /// Replication messages on their way.
    pub max_num_replica_batches: usize,
    /// When what was not acknowledged is sent again.
    pub replica_resend_ms: u64,
    /// The first pause after a hook that failed; doubles.
    pub hook_retry_ms: u64,
    /// The longest pause between attempts of a hook.
    pub hook_max_retry_ms: u64,
    /// Attempts of a hook for one change of role.
    pub max_num_hook_attempts: u32,
    /// A change of the wall clock against boot time that is told.
    pub wall_clock_jump_ms: u64,
    /// A log line of a kind appears no more often.
    pub log_interval_ms: u64,
    /// How long the farewell may take to leave before the process may end.
    pub farewell_ms: u64,
}

impl Default for PairBounds {
    fn default() -> Self {
        Self {
            max_num_queued_inputs: 1024,
            connect_timeout_ms: 1_000,
            handshake_timeout_ms: 2_000,
            max_num_handshakes: 16,
            reconnect_interval_ms: 250,
            max_num_links: 8,
            max_frame_bytes: 256 << 10,
            max_datagram_bytes: 1_400,
            max_num_waiting_streams: 16,
            engine_stream_timeout_ms: 60_000,
            udp: true,
            replay_window_ms: 60_000,
            peer_traffic_interval_ms: 100,
            max_num_commands: 64,
            max_num_history_entries: 256,
            history_file_max_bytes: 256 << 10,
            max_num_queued_records: 8_192,
            audit_file_max_bytes: 64 << 20,
            max_num_audit_files: 4,
            audit_sync_interval_ms: 1_000,
            replica_max_bytes: 16 << 20,
            replica_batch_bytes: 48 << 10,
            max_num_replica_batches: 4,
            replica_resend_ms: 1_000,
            hook_retry_ms: 1_000,
            hook_max_retry_ms: 60_000,
            max_num_hook_attempts: 100,
            wall_clock_jump_ms: 1_000,
            log_interval_ms: 10_000,
            farewell_ms: 50,
        }
    }
}

/// The longest node name, in bytes.
const MAX_NODE_BYTES: usize = 64;

impl PairConfig {
    /// A node without a peer.
    #[must_use]
    pub fn alone(node: &str, state_dir: PathBuf) -> Self {
        Self {
            node: node.to_owned(),
            settings: Settings::alone(0),
            listen: Vec::new(),
            peers: Vec::new(),
            keys: PairKeys::none(),
            tls: None,
            state_dir,
            hooks: Vec::new(),
            probe: None,
            bounds: PairBounds::default(),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), PairError> {
        self.settings.validate()?;
        let refuse = |why: &str| Err(PairError::Config(why.to_owned()));
        if self.node.is_empty() || self.node.len() > MAX_NODE_BYTES {
            return refuse("a node's name has 1 to 64 bytes");
        }
        if self.settings.peer_rank.is_none() {
            return Ok(());
        }
        if self.keys.is_empty() {
            return refuse("a pair needs a key file (--ha-key-file)");
        }
        if self.listen.is_empty() && self.peers.is_empty() {
            return refuse("a pair needs an address to listen on or a peer's address");
        }
        match &self.tls {
            Some(tls) => tls.check_names(&self.peers),
            None => Ok(()),
        }
    }
}
