//! Every bound of the front, named and with its unit.
//!
//! Invariant: no queue, buffer, timeout or retry of this crate has a bound that is not a field
//! here.

use std::time::Duration;

use crate::ShadowMode;
use crate::liveness::LivenessConfig;

/// Settings of a [`crate::Front`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontConfig {
    /// This node's name in `/ha/status` and in the `x-hotspare-node` header.
    pub node: String,
    /// Seed of the sequence of seeds that requests without one are given. `None`: unpredictable
    /// ones.
    pub assigned_seed: Option<u64>,
    /// Sequences (prompts times `n`) in one job at most.
    pub max_num_sequences_per_job: usize,
    /// Requests that wait to be written to the engine's socket, at most; more are refused as if
    /// the engine's own queue were full.
    pub max_num_unsent_requests: usize,
    /// Bytes in a message to or from the engine, at most. The engine's own setting is equal.
    pub max_frame_bytes: usize,
    /// Bytes that are gathered for one write to the engine's socket before the write starts.
    pub max_write_batch_bytes: usize,
    /// What a client is told to wait when the queue is full, seconds.
    pub queue_full_retry_after_s: u32,
    /// What a client is told to wait when no engine is ready, seconds.
    pub not_ready_retry_after_s: u32,
    /// From the start of an engine process to its `Hello`, at most.
    pub engine_start_timeout_s: u64,
    /// From asking an engine to end until it is killed.
    pub engine_stop_timeout_ms: u64,
    /// From the end of an engine's connection until its streams are told, at most: its exit status
    /// says whether it was ended from outside.
    pub engine_exit_wait_ms: u64,
    /// An engine that made no step for this long while work was pending hangs; longer where its
    /// steps take long.
    pub engine_hang_floor_ms: u64,
    /// An engine that made no step for this long hangs, however long its steps take.
    pub engine_hang_ceiling_ms: u64,
    /// So many times the longest recent wait for a step is taken for a hang.
    pub engine_hang_factor: u32,
    /// Idle time after which an engine is asked for a token; 0 for never.
    pub engine_canary_interval_ms: u64,
    /// Engines that are loaded and proved beside the one that serves.
    pub num_spare_engines: u32,
    /// From the moment a spare serves until the next one is started, at least, and until what was
    /// taken over has yielded a token each: loading takes from the device what they need now.
    pub spare_start_delay_ms: u64,
    /// Engines keep their KV blocks in memory of the front, where their device can.
    pub has_kv_mirror: bool,
    /// For so long after its loss the KV blocks of an engine are held for those that take its
    /// streams over.
    pub kv_mirror_retention_ms: u64,
    /// What the spare that would serve next reads along of running streams.
    pub spare_shadow: ShadowMode,
    /// Time between two rounds of reading along, at least.
    pub spare_shadow_interval_ms: u64,
    /// Tokens of a stream that it has not read, below which it waits for more.
    pub spare_shadow_min_lag_tokens: usize,
    /// Tokens that it reads in a round, at most.
    pub spare_shadow_max_num_tokens: usize,
    /// Time that a round is to take, at most, as those before it tell.
    pub spare_shadow_max_round_ms: u64,
    /// Share of the time that it reads, at most; between rounds it rests for as long as that takes.
    pub spare_shadow_max_load_percent: u32,
    /// What the engine of the node that stands by reads along of running streams.
    pub peer_shadow: ShadowMode,
    /// Processes that lost their connection and have not ended, beyond which none is started.
    pub max_num_unreaped_engines: u32,
    /// Time without a request after which an engine that was replaced ends.
    pub engine_retire_grace_ms: u64,
    /// From the replacement of an engine until what still runs on it is lost.
    pub engine_retire_timeout_s: u64,
    /// Wait before the restart of an engine that did not serve for `engine_stable_after_ms`;
    /// doubles with each failure in a row. One that did is started again at once.
    pub engine_restart_backoff_min_ms: u64,
    /// Longest wait before a restart.
    pub engine_restart_backoff_max_ms: u64,
    /// An engine that served this long ends a row of failures.
    pub engine_stable_after_ms: u64,
    /// Failures in a row after which the node says that it failed, until an engine serves again.
    pub max_num_engine_failures: u32,
    /// Bytes of what is recorded of one request, so that it can be continued, at most: prompt and
    /// delivered ids above all. A longer one runs without, and ends with its engine.
    pub journal_max_request_bytes: usize,
    /// The same for all requests together.
    pub journal_max_bytes: usize,
    /// Requests that are continued at the same time and have not yielded a token yet, at most.
    pub max_num_concurrent_replays: usize,
    /// Tokens that these have to read again, at most, so that this does not starve new requests.
    /// One may be longer alone.
    pub max_num_concurrent_replay_tokens: usize,
    /// Failed attempts of a sequence since its last token, after which it ends with an error.
    pub max_num_replay_attempts: u32,
    /// Time that a sequence waits for an engine that continues it, at most; new requests that are
    /// held back while suspects are tried wait so long, too.
    pub replay_timeout_ms: u64,
    /// Wait before a replay is offered again to an engine that had no room for it.
    pub replay_retry_interval_ms: u64,
    /// Ends of engines that worked on nothing else, which convict a request even if it yields
    /// tokens between them. Two in a row convict it always.
    pub max_num_solo_losses: u32,
    /// Ends of engines while suspects were tried, with no passed trial in between, that do not
    /// count as failures of the engine.
    pub max_num_excused_losses: u32,
    /// New requests that are held back while suspects are tried, at most; more are refused as if
    /// the engine's queue were full.
    pub max_num_held_requests: usize,
    /// How long a convicted request is refused.
    pub convicted_ttl_ms: u64,
    /// Convicted requests that are remembered, at most.
    pub max_num_convicted_requests: usize,
    /// How long a new request is held while no node of the pair serves.
    pub takeover_hold_ms: u64,
    /// Requests that are held so, at most; more are refused as if the engine's queue were full.
    pub max_num_takeover_holds: usize,
    /// A peer that was silent for so long is cut off, and streams on its engine go on elsewhere.
    pub peer_dead_after_ms: u64,
    /// How long streams stay on the peer's engine once this node serves and has an engine again.
    pub peer_drain_ms: u64,
    /// From the opening of a stream to the peer until its engine is proved, at most.
    pub peer_greeting_timeout_ms: u64,
    /// First wait before a stream to the peer is opened again; doubles.
    pub peer_retry_min_ms: u64,
    /// The longest such wait.
    pub peer_retry_max_ms: u64,
    /// How long the peer may leave what this node's engine says unread.
    pub peer_write_timeout_ms: u64,
    /// Messages of this node's engine that wait to be written to the peer, at most; a peer that
    /// reads more slowly is cut off.
    pub max_num_relay_messages: usize,
    /// Streams to this node's engine that the peer may have open.
    pub max_num_peer_streams: usize,
    /// Time between two lines of statistics in the log, seconds; 0 turns them off.
    pub stats_log_interval_s: u64,
    /// Log a line for each request: sizes and parameters, never text.
    pub log_requests: bool,
}

impl Default for FrontConfig {
    fn default() -> Self {
        Self {
            node: "hotspare".to_owned(),
            assigned_seed: None,
            max_num_sequences_per_job: 4096,
            max_num_unsent_requests: 1024,
            max_frame_bytes: hotspare_link::DEFAULT_MAX_FRAME_BYTES,
            max_write_batch_bytes: 256 << 10,
            queue_full_retry_after_s: 1,
            not_ready_retry_after_s: 2,
            engine_start_timeout_s: 600,
            engine_stop_timeout_ms: 5_000,
            engine_exit_wait_ms: 50,
            engine_hang_floor_ms: 5_000,
            engine_hang_ceiling_ms: 600_000,
            engine_hang_factor: 20,
            engine_canary_interval_ms: 10_000,
            num_spare_engines: 0,
            spare_start_delay_ms: 500,
            has_kv_mirror: false,
            kv_mirror_retention_ms: 30_000,
            spare_shadow: ShadowMode::Auto,
            spare_shadow_interval_ms: 5,
            spare_shadow_min_lag_tokens: 32,
            spare_shadow_max_num_tokens: 512,
            spare_shadow_max_round_ms: 50,
            spare_shadow_max_load_percent: 50,
            peer_shadow: ShadowMode::Full,
            max_num_unreaped_engines: 4,
            engine_retire_grace_ms: 1_000,
            engine_retire_timeout_s: 600,
            engine_restart_backoff_min_ms: 100,
            engine_restart_backoff_max_ms: 30_000,
            engine_stable_after_ms: 60_000,
            max_num_engine_failures: 10,
            journal_max_request_bytes: 16 << 20,
            journal_max_bytes: 256 << 20,
            max_num_concurrent_replays: 256,
            max_num_concurrent_replay_tokens: 8192,
            max_num_replay_attempts: 3,
            replay_timeout_ms: 60_000,
            replay_retry_interval_ms: 20,
            max_num_solo_losses: 4,
            max_num_excused_losses: 16,
            max_num_held_requests: 1024,
            convicted_ttl_ms: 600_000,
            max_num_convicted_requests: 256,
            takeover_hold_ms: 15_000,
            max_num_takeover_holds: 1024,
            peer_dead_after_ms: 3_000,
            peer_drain_ms: 30_000,
            peer_greeting_timeout_ms: 10_000,
            peer_retry_min_ms: 20,
            peer_retry_max_ms: 1_000,
            peer_write_timeout_ms: 10_000,
            max_num_relay_messages: 16_384,
            max_num_peer_streams: 8,
            stats_log_interval_s: 10,
            log_requests: false,
        }
    }
}

impl FrontConfig {
    /// How long to wait before start number `failures_in_a_row` after a failure (1 is the first):
    /// doubling from the least to the greatest.
    pub(crate) fn restart_backoff(&self, failures_in_a_row: u32) -> Duration {
        let doublings = failures_in_a_row.saturating_sub(1).min(32);
        let wait = self
            .engine_restart_backoff_min_ms
            .saturating_mul(1 << doublings);
        Duration::from_millis(wait.min(self.engine_restart_backoff_max_ms))
    }

    pub(crate) fn engine_start_timeout(&self) -> Duration {
        Duration::from_secs(self.engine_start_timeout_s)
    }

    pub(crate) fn engine_stop_timeout(&self) -> Duration {
        Duration::from_millis(self.engine_stop_timeout_ms)
    }

    pub(crate) fn engine_exit_wait(&self) -> Duration {
        Duration::from_millis(self.engine_exit_wait_ms)
    }

    pub(crate) fn engine_retire_grace(&self) -> Duration {
        Duration::from_millis(self.engine_retire_grace_ms)
    }

    pub(crate) fn engine_retire_timeout(&self) -> Duration {
        Duration::from_secs(self.engine_retire_timeout_s)
    }

    /// How often an engine is looked at: a tenth of what a hang takes at least.
    pub(crate) fn watch_interval(&self) -> Duration {
        Duration::from_millis((self.engine_hang_floor_ms / 10).clamp(5, 500))
    }

    /// A look that comes this long after the one before came late.
    pub(crate) fn max_tick(&self) -> Duration {
        (Duration::from_millis(self.engine_hang_floor_ms) / 2).max(self.watch_interval() * 3)
    }

    pub(crate) fn liveness(&self) -> LivenessConfig {
        let canary_interval = Duration::from_millis(self.engine_canary_interval_ms);
        LivenessConfig {
            floor: Duration::from_millis(self.engine_hang_floor_ms),
            ceiling: Duration::from_millis(self.engine_hang_ceiling_ms),
            factor: self.engine_hang_factor,
            canary_interval: (!canary_interval.is_zero()).then_some(canary_interval),
        }
    }

    pub(crate) fn replay_timeout(&self) -> Duration {
        Duration::from_millis(self.replay_timeout_ms)
    }

    pub(crate) fn replay_retry_interval(&self) -> Duration {
        Duration::from_millis(self.replay_retry_interval_ms)
    }

    pub(crate) fn takeover_hold(&self) -> Duration {
        Duration::from_millis(self.takeover_hold_ms)
    }

    pub(crate) fn peer_greeting_timeout(&self) -> Duration {
        Duration::from_millis(self.peer_greeting_timeout_ms)
    }

    pub(crate) fn peer_retry_min(&self) -> Duration {
        Duration::from_millis(self.peer_retry_min_ms)
    }

    pub(crate) fn peer_retry_max(&self) -> Duration {
        Duration::from_millis(self.peer_retry_max_ms)
    }

    pub(crate) fn peer_write_timeout(&self) -> Duration {
        Duration::from_millis(self.peer_write_timeout_ms)
    }

    pub(crate) fn spare_start_delay(&self) -> Duration {
        Duration::from_millis(self.spare_start_delay_ms)
    }

    pub(crate) fn engine_stable_after(&self) -> Duration {
        Duration::from_millis(self.engine_stable_after_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_bound() {
        let config = FrontConfig {
            engine_restart_backoff_min_ms: 100,
            engine_restart_backoff_max_ms: 1_000,
            ..FrontConfig::default()
        };
        let waits: Vec<u128> = [1, 2, 3, 4, 5, 6, u32::MAX]
            .into_iter()
            .map(|failures| config.restart_backoff(failures).as_millis())
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000, 1_000]);
    }
}
