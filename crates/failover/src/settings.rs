//! Modes, profiles and timers, each timer with a name and a unit, and the inequalities they obey.
//!
//! Invariant: `Settings::validate` accepts no set of timers for which the safety argument of the
//! lease, or of self-fencing, does not hold.

use serde::{Deserialize, Serialize};

use crate::{EpochHalf, FailoverError};

/// Who decides that a node is promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// No lease store: promoted on silence; both sides serve while the pair is cut.
    Available,
    /// With a lease store: promoted only with the lease.
    Strict,
    /// Silence raises an alert, and a person confirms. Handovers by a living primary are automatic.
    Confirm,
    /// Only commands, and the requests of a living primary's operator, change roles.
    Manual,
}

/// A set of timers for a kind of site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Two machines in one room.
    Lan,
    /// Two sites.
    Wan,
    /// Two sites with patience for a sick engine, as the founding documents ask for.
    Seed,
}

/// Which node serves first when nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitialRole {
    /// This one.
    Primary,
    /// The lower rank.
    Auto,
    /// The other one.
    Standby,
}

/// Every timer of the machine, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timers {
    /// H: from one heartbeat to the next.
    pub heartbeat_interval_ms: u64,
    /// S: silence after which the peer is suspect, and up to which its last word counts.
    pub suspect_after_ms: u64,
    /// D: silence after which the peer is dead.
    pub dead_after_ms: u64,
    /// D in quarantine: how long silence must last when roles changed too often.
    pub quarantine_dead_after_ms: u64,
    /// A gap in the machine's own steps after which a node that serves fences itself.
    pub timer_late_ms: u64,
    /// From one probe of the peer's ports to the next while it is suspect.
    pub probe_interval_ms: u64,
    /// Between the probes of the two ports.
    pub probe_gap_ms: u64,
    /// How long a probe waits for an answer.
    pub probe_timeout_ms: u64,
    /// L: how long a taker must have seen the lease unchanged.
    pub lease_ttl_ms: u64,
    /// F: how long a holder serves after it *sent* its last good renewal.
    pub renew_deadline_ms: u64,
    /// R: from one renewal to the next.
    pub renew_interval_ms: u64,
    /// How long a call to the lease store may take.
    pub lease_call_timeout_ms: u64,
    /// X: how long closing the admission gate may take.
    pub fence_budget_ms: u64,
    /// How long a joining node waits to hear its peer; and, where nobody has served yet, for a peer
    /// that goes first and is loading its model.
    pub wait_for_peer_ms: u64,
    /// How long the node of lower preference waits when nobody serves and both could.
    pub vacancy_wait_ms: u64,
    /// How long a promotion may take before it is given up.
    pub promotion_timeout_ms: u64,
    /// From one look at the lease to the next while a promotion waits for it.
    pub promotion_poll_ms: u64,
    /// How long to wait after a promotion that failed.
    pub promotion_retry_ms: u64,
    /// How long a required hook may take.
    pub hook_timeout_ms: u64,
    /// How long a write of the epoch file may take, and the pause before it is tried again.
    pub persist_retry_ms: u64,
    /// How long a draining primary waits for its counters and journal to be with the peer.
    pub flush_timeout_ms: u64,
    /// For how long a demoting node asks its peer to take over.
    pub take_over_ask_ms: u64,
    /// When a demoting node whose peer did not take over takes its role back.
    pub handover_timeout_ms: u64,
    /// U: how long the engine must be unready before the role is handed over.
    pub unready_hold_ms: u64,
    /// The window in which automatic role changes are counted.
    pub flap_window_ms: u64,
    /// How long a quarantine lasts.
    pub quarantine_ms: u64,
    /// After giving its role up, a node gets no handover for reasons of health for this long.
    pub failback_holdoff_ms: u64,
    /// How long a person has to confirm, before `on_confirm_timeout`.
    pub confirm_timeout_ms: u64,
    /// How long a pause lasts at most.
    pub pause_ms: u64,
    /// How long an operator's operation may take before it counts as failed.
    pub operation_timeout_ms: u64,
    /// How long fronts hold requests that have not begun. Used by the front, not by the machine.
    pub takeover_hold_ms: u64,
    /// How long a drained primary lets streams finish before they move. Used by the front.
    pub drain_ms: u64,
}

impl Timers {
    /// The defaults of a profile.
    #[must_use]
    pub const fn of(profile: Profile) -> Self {
        match profile {
            Profile::Lan => Self::LAN,
            Profile::Wan => Self::WAN,
            Profile::Seed => Self {
                unready_hold_ms: 150_000,
                ..Self::WAN
            },
        }
    }

    const LAN: Self = Self {
        heartbeat_interval_ms: 500,
        suspect_after_ms: 1_500,
        dead_after_ms: 3_000,
        quarantine_dead_after_ms: 60_000,
        timer_late_ms: 2_000,
        probe_interval_ms: 500,
        probe_gap_ms: 50,
        probe_timeout_ms: 400,
        lease_ttl_ms: 6_000,
        renew_deadline_ms: 4_000,
        renew_interval_ms: 1_000,
        lease_call_timeout_ms: 1_000,
        fence_budget_ms: 250,
        wait_for_peer_ms: 10_000,
        vacancy_wait_ms: 3_000,
        promotion_timeout_ms: 10_000,
        promotion_poll_ms: 100,
        promotion_retry_ms: 1_000,
        hook_timeout_ms: 10_000,
        persist_retry_ms: 1_000,
        flush_timeout_ms: 1_000,
        take_over_ask_ms: 1_500,
        handover_timeout_ms: 3_500,
        unready_hold_ms: 10_000,
        flap_window_ms: 600_000,
        quarantine_ms: 3_600_000,
        failback_holdoff_ms: 600_000,
        confirm_timeout_ms: 300_000,
        pause_ms: 7_200_000,
        operation_timeout_ms: 30_000,
        takeover_hold_ms: 15_000,
        drain_ms: 30_000,
    };

    const WAN: Self = Self {
        heartbeat_interval_ms: 2_000,
        suspect_after_ms: 6_000,
        dead_after_ms: 15_000,
        quarantine_dead_after_ms: 180_000,
        timer_late_ms: 8_000,
        probe_interval_ms: 2_000,
        probe_timeout_ms: 1_500,
        lease_ttl_ms: 30_000,
        renew_deadline_ms: 20_000,
        renew_interval_ms: 5_000,
        lease_call_timeout_ms: 5_000,
        wait_for_peer_ms: 30_000,
        vacancy_wait_ms: 15_000,
        promotion_timeout_ms: 45_000,
        promotion_poll_ms: 500,
        promotion_retry_ms: 5_000,
        flush_timeout_ms: 4_000,
        take_over_ask_ms: 6_000,
        handover_timeout_ms: 14_000,
        operation_timeout_ms: 120_000,
        takeover_hold_ms: 30_000,
        ..Self::LAN
    };
}

/// What a node is told about its pair and about itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Settings {
    /// This node's rank: lower serves first.
    pub rank: u32,
    /// The peer's rank; `None`: a node alone, which serves without asking anybody.
    pub peer_rank: Option<u32>,
    /// Who decides.
    pub mode: Mode,
    /// Which node serves first.
    pub initial_role: InitialRole,
    /// Over a dead peer: a degraded answer (another model, a quarantined node) is better than none.
    pub availability_first: bool,
    /// Mode strict: serve on the peer's promise while the lease store does not answer.
    pub failsafe: bool,
    /// Mode confirm: promote when nobody answered in time (default: hold).
    pub promote_on_confirm_timeout: bool,
    /// Hooks must have succeeded before traffic is admitted.
    pub require_hooks: bool,
    /// Automatic role changes in a flap window before quarantine.
    pub max_role_changes: u32,
    /// How far two clocks' rates may differ, in thousandths.
    pub clock_rate_permille: u64,
    /// Every timer.
    pub timers: Timers,
}

impl Settings {
    /// The defaults of a pair's node; profile `seed` waits for a person.
    #[must_use]
    pub const fn pair(rank: u32, peer_rank: u32, mode: Mode, profile: Profile) -> Self {
        Self {
            rank,
            peer_rank: Some(peer_rank),
            mode,
            initial_role: InitialRole::Auto,
            availability_first: true,
            failsafe: true,
            promote_on_confirm_timeout: false,
            require_hooks: false,
            max_role_changes: 2,
            clock_rate_permille: 10,
            timers: Timers::of(profile),
        }
    }

    /// A node without a peer.
    #[must_use]
    pub const fn alone(rank: u32) -> Self {
        let mut settings = Self::pair(rank, 0, Mode::Available, Profile::Lan);
        settings.peer_rank = None;
        settings
    }

    /// Mode `auto`: strict with a lease store; without one available, and confirm between sites
    /// that asked for patience.
    #[must_use]
    pub const fn auto_mode(has_lease_store: bool, profile: Profile) -> Mode {
        match (has_lease_store, profile) {
            (true, _) => Mode::Strict,
            (false, Profile::Lan) => Mode::Available,
            (false, Profile::Wan | Profile::Seed) => Mode::Confirm,
        }
    }

    /// Which half of the epochs this node draws from.
    #[must_use]
    pub fn epoch_half(&self) -> EpochHalf {
        match self.peer_rank {
            Some(peer) if self.rank > peer => EpochHalf::Odd,
            _ => EpochHalf::Even,
        }
    }

    /// L, stretched by how much slower the holder's clock may run than the taker's.
    #[must_use]
    pub const fn lease_wait_ms(&self) -> u64 {
        let ttl = self.timers.lease_ttl_ms;
        ttl + (ttl * self.clock_rate_permille).div_ceil(1000)
    }

    /// Checks the inequalities between the timers.
    ///
    /// # Errors
    /// The first rule that does not hold, with its numbers.
    pub fn validate(&self) -> Result<(), FailoverError> {
        let t = &self.timers;
        if self.peer_rank == Some(self.rank) {
            return Err(FailoverError::EqualRanks { rank: self.rank });
        }
        let margin = (t.lease_ttl_ms * self.clock_rate_permille).div_ceil(1000);
        let rules = [
            ("heartbeat_interval_ms >= 1", 1, t.heartbeat_interval_ms),
            (
                "suspect_after_ms >= 3 heartbeat_interval_ms",
                3 * t.heartbeat_interval_ms,
                t.suspect_after_ms,
            ),
            (
                "dead_after_ms >= 2 suspect_after_ms",
                2 * t.suspect_after_ms,
                t.dead_after_ms,
            ),
            (
                "quarantine_dead_after_ms >= dead_after_ms",
                t.dead_after_ms,
                t.quarantine_dead_after_ms,
            ),
            (
                "dead_after_ms >= timer_late_ms + heartbeat_interval_ms + fence_budget_ms",
                t.timer_late_ms + t.heartbeat_interval_ms + t.fence_budget_ms,
                t.dead_after_ms,
            ),
            (
                "timer_late_ms >= 2 heartbeat_interval_ms",
                2 * t.heartbeat_interval_ms,
                t.timer_late_ms,
            ),
            (
                "lease_ttl_ms > renew_deadline_ms + fence_budget_ms + clock margin",
                t.renew_deadline_ms + t.fence_budget_ms + margin + 1,
                t.lease_ttl_ms,
            ),
            (
                "renew_deadline_ms >= 3 renew_interval_ms",
                3 * t.renew_interval_ms,
                t.renew_deadline_ms,
            ),
            (
                "handover_timeout_ms >= take_over_ask_ms + suspect_after_ms + fence_budget_ms",
                t.take_over_ask_ms + t.suspect_after_ms + t.fence_budget_ms,
                t.handover_timeout_ms,
            ),
            (
                "promotion_timeout_ms >= lease_ttl_ms + renew_interval_ms",
                t.lease_ttl_ms + t.renew_interval_ms,
                t.promotion_timeout_ms,
            ),
        ];
        for (rule, least, got) in rules {
            if got < least {
                return Err(FailoverError::Timers { rule, least, got });
            }
        }
        Ok(())
    }
}
