//! How patient downloads from a hub are, and how much of an answer is read.
//!
//! Invariant: the default that an option's help names is the one that holds; a test reads both.

use clap::Args;

use super::args::ServeArgs;
use super::values::{parse_positive, parse_size, parse_size_or_zero, parse_timeout_ms};
use crate::hub::HubOptions;

/// What a download may cost.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Hub limits")]
pub(crate) struct HubLimitArgs {
    /// Time to connect to the hub, at most [default: 10000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) hub_connect_timeout_ms: Option<u64>,
    /// Attempts in a row, after the first, that bring less than --hub-min-retry-progress-bytes,
    /// until a download is given up; what arrived is kept [default: 5].
    #[arg(long, value_name = "N", value_parser = parse_size_or_zero, hide_short_help = true)]
    pub(crate) hub_max_num_retries: Option<usize>,
    /// Bytes that an attempt has to bring to count as none of those [default: 1M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) hub_min_retry_progress_bytes: Option<usize>,
    /// Wait before the first such attempt, doubling with each [default: 500].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) hub_retry_backoff_min_ms: Option<u64>,
    /// The longest such wait, also where the hub asks for a longer one [default: 30000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) hub_retry_backoff_max_ms: Option<u64>,
    /// Time to wait for another process that fetches the same file [default: 21600000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) hub_lock_timeout_ms: Option<u64>,
    /// Bytes of a list of shards that are read, at most [default: 64M].
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide_short_help = true)]
    pub(crate) hub_max_index_bytes: Option<usize>,
    /// Files of one model, at most [default: 4096].
    #[arg(long, value_name = "N", value_parser = parse_positive, hide_short_help = true)]
    pub(crate) hub_max_num_files: Option<usize>,
}

impl HubLimitArgs {
    /// Writes these over `hub`.
    pub(crate) fn apply(&self, hub: &mut HubOptions) {
        set!(self => hub;
            hub_connect_timeout_ms, hub_max_num_retries, hub_min_retry_progress_bytes,
            hub_retry_backoff_min_ms, hub_retry_backoff_max_ms, hub_lock_timeout_ms,
            hub_max_index_bytes, hub_max_num_files,
        );
    }

    /// These, and where they say nothing, `lower`.
    pub(crate) fn or(self, lower: Self) -> Self {
        first_of!(
            Self,
            self,
            lower,
            hub_connect_timeout_ms,
            hub_max_num_retries,
            hub_min_retry_progress_bytes,
            hub_retry_backoff_min_ms,
            hub_retry_backoff_max_ms,
            hub_lock_timeout_ms,
            hub_max_index_bytes,
            hub_max_num_files,
        )
    }
}

/// The options of `serve` that are about fetching a model.
pub(crate) fn hub_options(args: &ServeArgs) -> HubOptions {
    let mut options = HubOptions {
        hub_read_timeout_ms: args.model.hub_read_timeout_ms,
        ..HubOptions::default()
    };
    args.hub_limits.apply(&mut options);
    options
}
