//! Bounds of what passes between the nodes of a pair.
//!
//! Invariant: the default that an option's help names is the one that holds; a test reads both.

use clap::Args;
use clap::builder::BoolishValueParser;
use hotspare_front::FrontConfig;
use hotspare_pair::PairBounds;

use super::values::{parse_positive, parse_size, parse_timeout_ms};

/// What passes between two nodes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Pair limits")]
pub(crate) struct HaLimitArgs {
    /// Things that wait for the driver's thread [default: 1024].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) ha_max_num_queued_inputs: Option<usize>,
    /// How long connecting to the peer may take [default: 1000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_connect_timeout_ms: Option<u64>,
    /// How long a handshake may take [default: 2000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_handshake_timeout_ms: Option<u64>,
    /// Handshakes of others at a time; more are closed at once [default: 16].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) ha_max_num_handshakes: Option<usize>,
    /// From the end of a link to the next attempt [default: 250].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_reconnect_interval_ms: Option<u64>,
    /// Links that the peer opened, at a time [default: 8].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) ha_max_num_links: Option<usize>,
    /// The largest frame on a control link [default: 262144].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) ha_max_frame_bytes: Option<usize>,
    /// The largest datagram [default: 1400].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) ha_max_datagram_bytes: Option<usize>,
    /// Streams for engine traffic that the peer opened and nobody took yet [default: 16].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) ha_max_num_waiting_streams: Option<usize>,
    /// How long what was sent on a stream of engine traffic may stay unacknowledged [default:
    /// 60000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_engine_stream_timeout_ms: Option<u64>,
    /// Heartbeats over UDP beside TCP [default: true].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new(),
          hide_possible_values = true, hide_short_help = true)]
    pub(crate) ha_udp: Option<bool>,
    /// A process of the peer is not believed that proves itself with an older echo [default:
    /// 60000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_replay_window_ms: Option<u64>,
    /// Tokens from the peer's engine are told to the machine no more often [default: 100].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_peer_traffic_interval_ms: Option<u64>,
    /// Operators' commands that wait for their outcome [default: 64].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) ha_max_num_commands: Option<usize>,
    /// Role changes, alerts and commands that are remembered and shown [default: 256].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) ha_max_num_history_entries: Option<usize>,
    /// Size of a history file; there are two [default: 262144].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) ha_history_file_max_bytes: Option<usize>,
    /// Records for history and audit files that wait to be written; more are counted and lost
    /// [default: 8192].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) ha_max_num_queued_records: Option<usize>,
    /// Size of an audit file [default: 67108864].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) ha_audit_file_max_bytes: Option<usize>,
    /// Audit files that are kept [default: 4].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) ha_max_num_audit_files: Option<usize>,
    /// From one fsync of the audit file to the next [default: 1000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_audit_sync_interval_ms: Option<u64>,
    /// Keys and values of replicated maps and counters together [default: 16777216].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) ha_replica_max_bytes: Option<usize>,
    /// Items of a replication message [default: 49152].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) ha_replica_batch_bytes: Option<usize>,
    /// Replication messages on their way [default: 4].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) ha_max_num_replica_batches: Option<usize>,
    /// When what was not acknowledged is sent again [default: 1000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_replica_resend_ms: Option<u64>,
    /// The first pause after a hook that failed; doubles [default: 1000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_hook_retry_ms: Option<u64>,
    /// The longest pause between attempts of a hook [default: 60000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_hook_max_retry_ms: Option<u64>,
    /// Attempts of a hook for one change of role [default: 100].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) ha_max_num_hook_attempts: Option<usize>,
    /// A change of the wall clock against boot time that is told [default: 1000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_wall_clock_jump_ms: Option<u64>,
    /// A log line of a kind appears no more often [default: 10000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_log_interval_ms: Option<u64>,
    /// How long the farewell may take to leave before the process may end [default: 50].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_farewell_ms: Option<u64>,
    /// New requests that are held while no node serves, at most; a 503 above it [default: 1024].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) ha_max_num_takeover_holds: Option<usize>,
    /// From the opening of a stream to the other node until its engine is proved, at most [default:
    /// 10000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_peer_greeting_timeout_ms: Option<u64>,
    /// First wait before such a stream is opened again; doubles [default: 20].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_peer_retry_min_ms: Option<u64>,
    /// The longest such wait [default: 1000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_peer_retry_max_ms: Option<u64>,
    /// How long the other node may leave what this node's engine says unread [default: 10000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_peer_write_timeout_ms: Option<u64>,
    /// Messages of this node's engine that wait to be written to the other node, at most [default:
    /// 16384].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) ha_max_num_relay_messages: Option<usize>,
    /// Streams to this node's engine that the other node may have open [default: 8].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) ha_max_num_peer_streams: Option<usize>,
}

/// Writes what is set over bounds of the same names without `ha_`.
macro_rules! bounds {
    ($from:expr => $to:expr; $($field:ident = $option:ident),+ $(,)?) => {
        $(if let Some(value) = $from.$option { $to.$field = value; })+
    };
}

impl HaLimitArgs {
    /// Writes these over `bounds` and `front`.
    pub(crate) fn apply(&self, bounds: &mut PairBounds, front: &mut FrontConfig) {
        bounds!(self => bounds;
            max_num_queued_inputs = ha_max_num_queued_inputs,
            connect_timeout_ms = ha_connect_timeout_ms,
            handshake_timeout_ms = ha_handshake_timeout_ms,
            max_num_handshakes = ha_max_num_handshakes,
            reconnect_interval_ms = ha_reconnect_interval_ms,
            max_num_links = ha_max_num_links,
            max_frame_bytes = ha_max_frame_bytes,
            max_datagram_bytes = ha_max_datagram_bytes,
            max_num_waiting_streams = ha_max_num_waiting_streams,
            engine_stream_timeout_ms = ha_engine_stream_timeout_ms,
            udp = ha_udp,
            replay_window_ms = ha_replay_window_ms,
            peer_traffic_interval_ms = ha_peer_traffic_interval_ms,
            max_num_commands = ha_max_num_commands,
            max_num_history_entries = ha_max_num_history_entries,
            max_num_queued_records = ha_max_num_queued_records,
            max_num_audit_files = ha_max_num_audit_files,
            audit_sync_interval_ms = ha_audit_sync_interval_ms,
            replica_max_bytes = ha_replica_max_bytes,
            replica_batch_bytes = ha_replica_batch_bytes,
            max_num_replica_batches = ha_max_num_replica_batches,
            replica_resend_ms = ha_replica_resend_ms,
            hook_retry_ms = ha_hook_retry_ms,
            hook_max_retry_ms = ha_hook_max_retry_ms,
            wall_clock_jump_ms = ha_wall_clock_jump_ms,
            log_interval_ms = ha_log_interval_ms,
            farewell_ms = ha_farewell_ms,
        );
        if let Some(value) = self.ha_history_file_max_bytes {
            bounds.history_file_max_bytes = value as u64;
        }
        if let Some(value) = self.ha_audit_file_max_bytes {
            bounds.audit_file_max_bytes = value as u64;
        }
        if let Some(value) = self.ha_max_num_hook_attempts {
            bounds.max_num_hook_attempts = u32::try_from(value).unwrap_or(u32::MAX);
        }
        bounds!(self => front;
            max_num_takeover_holds = ha_max_num_takeover_holds,
            peer_greeting_timeout_ms = ha_peer_greeting_timeout_ms,
            peer_retry_min_ms = ha_peer_retry_min_ms,
            peer_retry_max_ms = ha_peer_retry_max_ms,
            peer_write_timeout_ms = ha_peer_write_timeout_ms,
            max_num_relay_messages = ha_max_num_relay_messages,
            max_num_peer_streams = ha_max_num_peer_streams,
        );
    }

    /// These, and where they say nothing, `lower`.
    pub(crate) fn or(self, lower: Self) -> Self {
        first_of!(
            Self,
            self,
            lower,
            ha_max_num_queued_inputs,
            ha_connect_timeout_ms,
            ha_handshake_timeout_ms,
            ha_max_num_handshakes,
            ha_reconnect_interval_ms,
            ha_max_num_links,
            ha_max_frame_bytes,
            ha_max_datagram_bytes,
            ha_max_num_waiting_streams,
            ha_engine_stream_timeout_ms,
            ha_udp,
            ha_replay_window_ms,
            ha_peer_traffic_interval_ms,
            ha_max_num_commands,
            ha_max_num_history_entries,
            ha_history_file_max_bytes,
            ha_max_num_queued_records,
            ha_audit_file_max_bytes,
            ha_max_num_audit_files,
            ha_audit_sync_interval_ms,
            ha_replica_max_bytes,
            ha_replica_batch_bytes,
            ha_max_num_replica_batches,
            ha_replica_resend_ms,
            ha_hook_retry_ms,
            ha_hook_max_retry_ms,
            ha_max_num_hook_attempts,
            ha_wall_clock_jump_ms,
            ha_log_interval_ms,
            ha_farewell_ms,
            ha_max_num_takeover_holds,
            ha_peer_greeting_timeout_ms,
            ha_peer_retry_min_ms,
            ha_peer_retry_max_ms,
            ha_peer_write_timeout_ms,
            ha_max_num_relay_messages,
            ha_max_num_peer_streams,
        )
    }
}
