//! Every timer of the pair, in milliseconds. `--ha-profile` gives those that are not set.
//!
//! Invariant: a timer of `failover::Timers` is an option here, by its own name with `ha-` in front.

use clap::Args;
use hotspare_failover::Timers;

use super::values::parse_timeout_ms;

/// The pair's timers.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Pair timers")]
pub(crate) struct HaTimerArgs {
    /// From one heartbeat to the next [default: lan 500, wan 2000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_heartbeat_interval_ms: Option<u64>,
    /// Silence after which the peer is suspect [default: lan 1500, wan 6000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_suspect_after_ms: Option<u64>,
    /// Silence after which the peer is dead [default: lan 3000, wan 15000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_dead_after_ms: Option<u64>,
    /// Silence after which it is dead where roles changed too often [default: lan 60000, wan
    /// 180000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_quarantine_dead_after_ms: Option<u64>,
    /// A gap in this node's own timers after which it stops serving by itself [default: lan 2000,
    /// wan 8000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_timer_late_ms: Option<u64>,
    /// From one probe of the peer's ports to the next while it is suspect [default: lan 500, wan
    /// 2000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_probe_interval_ms: Option<u64>,
    /// Between the probes of the two ports [default: 50].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_probe_gap_ms: Option<u64>,
    /// How long a probe waits for an answer [default: lan 400, wan 1500].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_probe_timeout_ms: Option<u64>,
    /// How long the lease must have stood unchanged before it is taken [default: lan 6000, wan
    /// 30000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_lease_ttl_ms: Option<u64>,
    /// How long a holder serves after it sent its last good renewal [default: lan 4000, wan 20000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_renew_deadline_ms: Option<u64>,
    /// From one renewal of the lease to the next [default: lan 1000, wan 5000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_renew_interval_ms: Option<u64>,
    /// How long a call to the lease store may take [default: lan 1000, wan 5000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_lease_call_timeout_ms: Option<u64>,
    /// How long closing admission may take [default: 250].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_fence_budget_ms: Option<u64>,
    /// How long a starting node waits to hear its peer [default: lan 10000, wan 30000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_wait_for_peer_ms: Option<u64>,
    /// How long the node of the higher rank waits when nobody serves and both could [default: lan
    /// 3000, wan 15000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_vacancy_wait_ms: Option<u64>,
    /// How long a promotion may take before it is given up [default: lan 10000, wan 45000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_promotion_timeout_ms: Option<u64>,
    /// From one look at the lease to the next while a promotion waits for it [default: lan 100, wan
    /// 500].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_promotion_poll_ms: Option<u64>,
    /// How long to wait after a promotion that failed [default: lan 1000, wan 5000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_promotion_retry_ms: Option<u64>,
    /// How long a hook may take [default: 10000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_hook_timeout_ms: Option<u64>,
    /// How long a write of the epoch file may take, and the pause before the next try [default:
    /// 1000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_persist_retry_ms: Option<u64>,
    /// How long a draining primary waits until the peer has its counters [default: lan 1000, wan
    /// 4000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_flush_timeout_ms: Option<u64>,
    /// For how long a node that hands over asks its peer to take over [default: lan 1500, wan
    /// 6000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_take_over_ask_ms: Option<u64>,
    /// When a node whose peer did not take over takes its role back [default: lan 3500, wan 14000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_handover_timeout_ms: Option<u64>,
    /// How long the engine must be unready before the role is handed over [default: 10000, seed
    /// 150000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_unready_hold_ms: Option<u64>,
    /// The window in which automatic role changes are counted [default: 600000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_flap_window_ms: Option<u64>,
    /// How long a quarantine lasts [default: 3600000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_quarantine_ms: Option<u64>,
    /// How long a node that gave its role up gets none back for reasons of health [default:
    /// 600000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_failback_holdoff_ms: Option<u64>,
    /// How long a person has to confirm [default: 300000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_confirm_timeout_ms: Option<u64>,
    /// How long a pause of automatic role changes lasts, at most [default: 7200000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_pause_ms: Option<u64>,
    /// How long an operator's command may take before it counts as failed [default: lan 30000, wan
    /// 120000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_operation_timeout_ms: Option<u64>,
    /// How long new requests are held while no node serves; a 503 after it [default: lan 15000, wan
    /// 30000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_takeover_hold_ms: Option<u64>,
    /// How long streams on the other node's engine stay there once this node serves [default:
    /// 30000].
    #[arg(long, value_name = "MS", value_parser = parse_timeout_ms, hide_short_help = true)]
    pub(crate) ha_drain_ms: Option<u64>,
}

/// Writes what is set over timers of the same names without `ha_`.
macro_rules! timers {
    ($from:expr => $to:expr; $($field:ident = $option:ident),+ $(,)?) => {
        $(if let Some(value) = $from.$option { $to.$field = value; })+
    };
}

impl HaTimerArgs {
    /// Writes these over `timers`.
    pub(crate) fn apply(&self, timers: &mut Timers) {
        timers!(self => timers;
            heartbeat_interval_ms = ha_heartbeat_interval_ms,
            suspect_after_ms = ha_suspect_after_ms,
            dead_after_ms = ha_dead_after_ms,
            quarantine_dead_after_ms = ha_quarantine_dead_after_ms,
            timer_late_ms = ha_timer_late_ms,
            probe_interval_ms = ha_probe_interval_ms,
            probe_gap_ms = ha_probe_gap_ms,
            probe_timeout_ms = ha_probe_timeout_ms,
            lease_ttl_ms = ha_lease_ttl_ms,
            renew_deadline_ms = ha_renew_deadline_ms,
            renew_interval_ms = ha_renew_interval_ms,
            lease_call_timeout_ms = ha_lease_call_timeout_ms,
            fence_budget_ms = ha_fence_budget_ms,
            wait_for_peer_ms = ha_wait_for_peer_ms,
            vacancy_wait_ms = ha_vacancy_wait_ms,
            promotion_timeout_ms = ha_promotion_timeout_ms,
            promotion_poll_ms = ha_promotion_poll_ms,
            promotion_retry_ms = ha_promotion_retry_ms,
            hook_timeout_ms = ha_hook_timeout_ms,
            persist_retry_ms = ha_persist_retry_ms,
            flush_timeout_ms = ha_flush_timeout_ms,
            take_over_ask_ms = ha_take_over_ask_ms,
            handover_timeout_ms = ha_handover_timeout_ms,
            unready_hold_ms = ha_unready_hold_ms,
            flap_window_ms = ha_flap_window_ms,
            quarantine_ms = ha_quarantine_ms,
            failback_holdoff_ms = ha_failback_holdoff_ms,
            confirm_timeout_ms = ha_confirm_timeout_ms,
            pause_ms = ha_pause_ms,
            operation_timeout_ms = ha_operation_timeout_ms,
            takeover_hold_ms = ha_takeover_hold_ms,
            drain_ms = ha_drain_ms,
        );
    }

    /// These, and where they say nothing, `lower`.
    pub(crate) fn or(self, lower: Self) -> Self {
        first_of!(
            Self,
            self,
            lower,
            ha_heartbeat_interval_ms,
            ha_suspect_after_ms,
            ha_dead_after_ms,
            ha_quarantine_dead_after_ms,
            ha_timer_late_ms,
            ha_probe_interval_ms,
            ha_probe_gap_ms,
            ha_probe_timeout_ms,
            ha_lease_ttl_ms,
            ha_renew_deadline_ms,
            ha_renew_interval_ms,
            ha_lease_call_timeout_ms,
            ha_fence_budget_ms,
            ha_wait_for_peer_ms,
            ha_vacancy_wait_ms,
            ha_promotion_timeout_ms,
            ha_promotion_poll_ms,
            ha_promotion_retry_ms,
            ha_hook_timeout_ms,
            ha_persist_retry_ms,
            ha_flush_timeout_ms,
            ha_take_over_ask_ms,
            ha_handover_timeout_ms,
            ha_unready_hold_ms,
            ha_flap_window_ms,
            ha_quarantine_ms,
            ha_failback_holdoff_ms,
            ha_confirm_timeout_ms,
            ha_pause_ms,
            ha_operation_timeout_ms,
            ha_takeover_hold_ms,
            ha_drain_ms,
        )
    }
}
