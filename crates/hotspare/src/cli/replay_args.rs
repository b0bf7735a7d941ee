//! Bounds of what it takes to continue requests whose engine was lost.
//!
//! Invariant: the default that an option's help names is the one that holds; a test reads both.

use clap::Args;
use hotspare_front::FrontConfig;
use hotspare_http::HttpConfig;

use super::values::{
    parse_percent, parse_positive, parse_size, parse_size_or_zero, parse_timeout_ms,
};

/// What happens to requests when an engine is lost.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Replay limits")]
pub(crate) struct ReplayLimitArgs {
    /// Bytes of what is recorded of one request so that another engine can continue it, at most;
    /// a longer one ends with an error when its engine does [default: 16M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) journal_max_request_bytes: Option<usize>,
    /// The same for all requests together [default: 256M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) journal_max_bytes: Option<usize>,
    /// Continued requests that are read again at the same time, at most; the others stand in line
    /// by priority and length [default: 256].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) max_num_concurrent_replays: Option<usize>,
    /// Tokens of them that are read again at the same time, at most, so that new requests do not
    /// wait for long; one may be longer alone [default: 8192].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) max_num_concurrent_replay_tokens: Option<usize>,
    /// From the moment a spare engine serves until the next one is started, at least; streams that
    /// were taken over go on first [default: 500].
    #[arg(long, value_name = "MS", hide_short_help = true)]
    pub(crate) spare_start_delay_ms: Option<u64>,
    /// How long the KV blocks of a lost engine are held for those that take its streams over
    /// [default: 30000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) kv_mirror_retention_ms: Option<u64>,
    /// Time between two rounds in which a spare reads running streams along, at least
    /// [default: 5].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) spare_shadow_interval_ms: Option<u64>,
    /// A stream is read along when the spare is so many tokens behind [default: 32].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) spare_shadow_min_lag_tokens: Option<usize>,
    /// Tokens that the spare reads along in a round, at most [default: 512].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) spare_shadow_max_num_tokens: Option<usize>,
    /// Time that a round is to take, at most, as the rounds before it tell: a stream that is taken
    /// over may wait for it [default: 50].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) spare_shadow_max_round_ms: Option<u64>,
    /// Share of the time in which the spare may read along, percent [default: 50].
    #[arg(long, value_name = "N", value_parser = parse_percent, hide_short_help = true)]
    pub(crate) spare_shadow_max_load_percent: Option<u32>,
    /// Attempts in a row that may fail without a token before a request ends with an error; 0
    /// continues nothing [default: 3].
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(crate) max_num_replay_attempts: Option<u32>,
    /// How long a request waits for an engine that continues it [default: 60000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) replay_timeout_ms: Option<u64>,
    /// Wait before a request is offered again to an engine that had no room for it [default: 20].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) replay_retry_interval_ms: Option<u64>,
    /// While a stream that has begun waits to be continued, time between two comment lines that
    /// keep its connection alive [default: 2000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) replay_keep_alive_interval_ms: Option<u64>,
    /// Times that an engine may end while it works on one request alone before that request is
    /// refused; it is after two without a token between them in any case [default: 4].
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(crate) max_num_solo_losses: Option<u32>,
    /// Times in a row that an engine may end while it is found out which request ends it, before
    /// that counts as a failure of the engine [default: 16].
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(crate) max_num_excused_losses: Option<u32>,
    /// New requests that wait while requests that may have ended an engine are tried alone, at
    /// most; a 503 above it [default: 1024].
    #[arg(long, value_name = "N", value_parser = parse_size_or_zero, hide_short_help = true)]
    pub(crate) max_num_held_requests: Option<usize>,
    /// How long a request that ended engines is refused [default: 600000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) convicted_ttl_ms: Option<u64>,
    /// Such requests that are remembered, at most [default: 256].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) max_num_convicted_requests: Option<usize>,
}

impl ReplayLimitArgs {
    /// Writes these over the settings of both.
    pub(crate) fn apply(&self, front: &mut FrontConfig, http: &mut HttpConfig) {
        set!(self => front;
            journal_max_request_bytes, journal_max_bytes, max_num_concurrent_replays,
            max_num_concurrent_replay_tokens, spare_start_delay_ms, kv_mirror_retention_ms,
            spare_shadow_interval_ms,
            spare_shadow_min_lag_tokens, spare_shadow_max_num_tokens,
            spare_shadow_max_round_ms, spare_shadow_max_load_percent,
            max_num_replay_attempts, replay_timeout_ms, replay_retry_interval_ms,
            max_num_solo_losses, max_num_excused_losses, max_num_held_requests, convicted_ttl_ms,
            max_num_convicted_requests,
        );
        set!(self => http; replay_keep_alive_interval_ms);
    }

    /// These, and where they say nothing, `lower`.
    pub(crate) fn or(self, lower: Self) -> Self {
        first_of!(
            Self,
            self,
            lower,
            journal_max_request_bytes,
            journal_max_bytes,
            max_num_concurrent_replays,
            max_num_concurrent_replay_tokens,
            spare_start_delay_ms,
            kv_mirror_retention_ms,
            spare_shadow_interval_ms,
            spare_shadow_min_lag_tokens,
            spare_shadow_max_num_tokens,
            spare_shadow_max_round_ms,
            spare_shadow_max_load_percent,
            max_num_replay_attempts,
            replay_timeout_ms,
            replay_retry_interval_ms,
            replay_keep_alive_interval_ms,
            max_num_solo_losses,
            max_num_excused_losses,
            max_num_held_requests,
            convicted_ttl_ms,
            max_num_convicted_requests,
        )
    }
}
