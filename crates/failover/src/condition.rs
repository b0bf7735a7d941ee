//! The conditions of the transition table: facts about a state at a time, each with a name.
//!
//! Invariant: a condition reads and never writes; what it says depends on settings, state and time.

use crate::state::{Asked, State};
use crate::table::Cause;
use crate::{BootTime, Eligibility, Health, Heartbeat, InitialRole, Mode, Role, Settings};

/// A fact that a row of the table asks for, or forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Condition {
    Started,
    Loaded,
    Alone,
    HasPeer,
    Late,
    Automatic,
    WaitsForPerson,
    Manual,
    Strict,
    Paused,
    InMaintenance,
    Terminating,
    EngineFatal,
    EngineUnreadyHeld,
    Eligible,
    DegradedOnly,
    AvailabilityFirst,
    PeerFresh,
    PeerSuspect,
    PeerDead,
    PeerClaims,
    PeerClaimsHigher,
    PeerReady,
    PeerProtects,
    PeerAsks,
    PeerYields,
    PeerHeldOff,
    EpochBehind,
    Vacant,
    MyTurn,
    FirstStart,
    Quarantined,
    QuarantineBars,
    LeaseTakeable,
    LeaseTaken,
    LeaseLapsed,
    LeaseRenewedSinceFence,
    FailsafeHolds,
    FencedByHand,
    JoinTimedOut,
    Flushed,
    HandoverTimedOut,
    PromotionDone,
    PromotionFailed,
    PromotedOverSilence,
    RetryOver,
    Confirmed,
    Rejected,
    ConfirmTimedOut,
    AskedSwitchover,
    AskedLeave,
    AskedPromote,
    AskedFence,
}

/// What conditions look at.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) state: &'a State,
    pub(crate) now: BootTime,
}

impl View<'_> {
    pub(crate) fn holds(&self, condition: Condition) -> bool {
        use Condition as C;
        let (state, settings) = (self.state, self.settings);
        match condition {
            C::Started => state.started,
            C::Loaded => !state.gates.is_empty(),
            C::Alone => settings.peer_rank.is_none(),
            C::HasPeer => settings.peer_rank.is_some(),
            C::Late => state.late,
            C::Automatic => matches!(settings.mode, Mode::Available | Mode::Strict),
            C::WaitsForPerson => matches!(settings.mode, Mode::Confirm | Mode::Manual),
            C::Manual => settings.mode == Mode::Manual,
            C::Strict => self.strict(),
            C::Paused => self.paused(),
            C::InMaintenance => state.file.maintenance,
            C::Terminating => state.terminating,
            C::EngineFatal => state.health == Health::Fatal,
            C::EngineUnreadyHeld => self.unready_held(),
            C::Eligible => state.eligibility() == Eligibility::Eligible,
            C::DegradedOnly => state.eligibility() == Eligibility::Degraded,
            C::AvailabilityFirst => settings.availability_first,
            C::Quarantined => state.quarantined(self.now),
            C::QuarantineBars => !settings.availability_first && state.quarantined(self.now),
            C::FencedByHand => state.fence.is_some_and(|f| f.cause == Cause::AskedToFence),
            C::JoinTimedOut => self.in_role_for(settings.timers.wait_for_peer_ms),
            C::Flushed => {
                state.handover.is_none_or(|h| h.flushed)
                    || self.in_role_for(settings.timers.flush_timeout_ms)
            }
            C::HandoverTimedOut => self.in_role_for(settings.timers.handover_timeout_ms),
            C::ConfirmTimedOut => {
                settings.promote_on_confirm_timeout
                    && self.in_role_for(settings.timers.confirm_timeout_ms)
            }
            C::Confirmed => state.confirm.is_some_and(|c| c.answer == Some(true)),
            C::Rejected => state.rejected,
            C::RetryOver => self.now >= state.promote_not_before,
            C::AskedSwitchover => state.asked == Some(Asked::Switchover),
            C::AskedLeave => state.asked == Some(Asked::Leave),
            C::AskedPromote => matches!(state.asked, Some(Asked::Promote(_))),
            C::AskedFence => state.asked == Some(Asked::Fence),
            C::PromotionDone => self.promotion_done(),
            C::PromotionFailed => self.promotion_failure().is_some(),
            C::PromotedOverSilence => state.promotion.is_some_and(|p| p.cause == Cause::PeerDead),
            C::LeaseTakeable => self.lease_obstacle().is_none(),
            C::LeaseTaken => self.lease_taken(),
            C::LeaseLapsed => self.strict() && self.now >= state.lease_until(settings),
            C::LeaseRenewedSinceFence => {
                state.lease.granted.is_some_and(|(_, at)| at > state.since)
                    && self.now < state.lease_until(settings)
            }
            C::FailsafeHolds => {
                self.now < state.failsafe_until(settings)
                    && (state.role != Role::Fenced
                        || state.lease.failsafe.is_some_and(|(_, at)| at > state.since))
            }
            _ => self.holds_of_peer(condition),
        }
    }

    fn holds_of_peer(&self, condition: Condition) -> bool {
        use Condition as C;
        let state = self.state;
        match condition {
            C::PeerFresh => self.fresh().is_some(),
            C::PeerSuspect => self.peer_suspect(),
            C::PeerDead => self.peer_dead(),
            C::PeerClaims => self.fresh().is_some_and(|h| h.role.claims()),
            C::PeerClaimsHigher => self.fresh().is_some_and(|h| {
                let mine = state.promotion.map_or(state.epoch, |p| p.epoch);
                h.role.claims() && h.epoch > mine
            }),
            C::PeerReady => self
                .peer_obstacle(self.settings.timers.suspect_after_ms)
                .is_none(),
            C::PeerProtects => self
                .peer_obstacle(self.settings.timers.dead_after_ms)
                .is_none(),
            C::PeerAsks => self.peer_asks(),
            C::PeerYields => self.peer_yields(),
            C::PeerHeldOff => self.fresh().is_some_and(|h| h.holdoff || h.quarantined),
            C::EpochBehind => state.file.seen > state.epoch,
            C::Vacant => self.vacant(),
            C::MyTurn => self.my_turn(),
            C::FirstStart => {
                state.file.seen.number() == 0 && self.settings.initial_role == InitialRole::Primary
            }
            _ => false,
        }
    }

    pub(crate) fn strict(&self) -> bool {
        self.settings.mode == Mode::Strict && self.settings.peer_rank.is_some()
    }

    /// Nobody else serves, as far as can be known: a lease says so, or the peer does, which hears
    /// this node. A peer that is heard and claims to serve does not hear who should.
    pub(crate) fn serves_alone(&self) -> bool {
        let limit = self.settings.timers.dead_after_ms;
        let heard_us = |at| self.now.ms_since(at) < limit;
        self.settings.peer_rank.is_none()
            || self.strict()
            || (self
                .fresh()
                .is_some_and(|heartbeat| !heartbeat.role.claims())
                && self.state.peer.heard_us.is_some_and(|(_, at)| heard_us(at)))
    }

    /// A pause is the pair's: either node's counts. That of a peer which is silent by now counts as
    /// long as a pause can last: its death is what the pause was for.
    pub(crate) fn paused(&self) -> bool {
        let pause_ms = self.settings.timers.pause_ms;
        let peer = self.state.peer.heartbeat.as_ref();
        self.state.file.paused
            || peer.is_some_and(|(heartbeat, at)| heartbeat.paused && self.now < at.after(pause_ms))
    }

    fn in_role_for(&self, ms: u64) -> bool {
        self.now.ms_since(self.state.since) >= ms
    }

    fn unready_held(&self) -> bool {
        self.state.health == Health::Unready
            && self.state.unready_since.is_some_and(|since| {
                self.now.ms_since(since) >= self.settings.timers.unready_hold_ms
            })
    }

    /// The peer's newest heartbeat, unless it is old or something says that the peer is gone.
    pub(crate) fn fresh(&self) -> Option<&Heartbeat> {
        if self.peer_suspect() {
            return None;
        }
        self.state
            .peer
            .heartbeat
            .as_ref()
            .and_then(|(heartbeat, at)| {
                (self.now.ms_since(*at) < self.settings.timers.suspect_after_ms)
                    .then_some(heartbeat)
            })
    }

    pub(crate) fn peer_suspect(&self) -> bool {
        let peer = &self.state.peer;
        peer.left
            || peer.link_closed
            || peer.refused
            || self.now.ms_since(peer.silent_from) >= self.settings.timers.suspect_after_ms
    }

    /// How long silence must last; longer where roles changed too often.
    pub(crate) fn dead_after_ms(&self) -> u64 {
        let timers = &self.settings.timers;
        if self.state.quarantined(self.now) {
            timers.quarantine_dead_after_ms
        } else {
            timers.dead_after_ms
        }
    }

    fn peer_dead(&self) -> bool {
        let peer = &self.state.peer;
        peer.left
            || peer.refused
            || self.now.ms_since(peer.silent_from.max(peer.alive_at)) >= self.dead_after_ms()
    }

    /// Why the peer could not take over now; `horizon_ms`: how old its word may be.
    pub(crate) fn peer_obstacle(&self, horizon_ms: u64) -> Option<&'static str> {
        let peer = &self.state.peer;
        let Some((heartbeat, at)) = peer.heartbeat.as_ref() else {
            return Some("the peer was never heard");
        };
        if peer.left || peer.link_closed || peer.refused || self.now.ms_since(*at) >= horizon_ms {
            return Some("the peer is not heard");
        }
        if peer
            .heard_us
            .is_none_or(|(_, at)| self.now.ms_since(at) >= horizon_ms)
        {
            return Some("the peer does not hear this node");
        }
        if heartbeat.eligibility != Eligibility::Eligible {
            return Some(
                "the peer is not eligible: its gates, its engine or its lease store bar it",
            );
        }
        if !heartbeat.role.stands_by() {
            return Some("the peer is not a standby");
        }
        None
    }

    /// The peer asked to take over, and asked so lately that it has not taken its role back.
    fn peer_asks(&self) -> bool {
        let limit = self.settings.timers.suspect_after_ms;
        let Some((heartbeat, _)) = self.state.peer.heartbeat.as_ref() else {
            return false;
        };
        heartbeat
            .take_over
            .is_some_and(|epoch| epoch >= self.state.file.seen)
            && self
                .heard_of(heartbeat)
                .is_some_and(|at| self.now.ms_since(at) < limit)
    }

    /// When this node sent what the peer had heard as it sent `heartbeat`.
    fn heard_of(&self, heartbeat: &Heartbeat) -> Option<BootTime> {
        heartbeat
            .echo
            .filter(|echo| echo.boot == self.state.boot)
            .map(|echo| echo.sent_at)
    }

    /// The peer, in an answer to something sent since the fence, neither serves nor is about to.
    fn peer_yields(&self) -> bool {
        let (Some(fence), Some(heartbeat)) = (self.state.fence, self.fresh()) else {
            return false;
        };
        let answered = heartbeat
            .echo
            .is_some_and(|echo| echo.boot == self.state.boot && echo.seq >= fence.seq);
        answered
            && heartbeat.seen <= self.state.epoch
            && matches!(
                heartbeat.role,
                Role::Starting
                    | Role::Joining
                    | Role::Standby
                    | Role::StandbyIneligible
                    | Role::Fenced
                    | Role::Maintenance
                    | Role::Failed
            )
    }

    /// The peer is heard, and neither serves nor is about to.
    fn vacant(&self) -> bool {
        self.fresh().is_some_and(|h| {
            !h.role.claims() && !matches!(h.role, Role::Promoting | Role::Demoting)
        })
    }

    /// Nobody serves: is it this node that should? A lease makes the question needless.
    fn my_turn(&self) -> bool {
        let Some(heartbeat) = self.fresh() else {
            return false;
        };
        let timers = &self.settings.timers;
        let vacant_for = |ms| {
            let since = self.state.vacant_since;
            since.is_some_and(|since| self.now.ms_since(since) >= ms)
        };
        // A cold start: who goes first is there, and may yet have loaded its model.
        let peer_comes = heartbeat.role == Role::Starting
            && self.peer_goes_first(heartbeat)
            && !self.state.met_service;
        if peer_comes && !vacant_for(timers.wait_for_peer_ms) {
            return false;
        }
        if self.strict() || vacant_for(timers.vacancy_wait_ms) {
            return true;
        }
        let peer_cannot = heartbeat.eligibility != Eligibility::Eligible
            || matches!(
                heartbeat.role,
                Role::Maintenance | Role::Failed | Role::Starting
            );
        let peer_may_return = heartbeat.role == Role::Fenced;
        match self.settings.initial_role {
            InitialRole::Primary => !peer_may_return,
            InitialRole::Standby => false,
            InitialRole::Auto => {
                !peer_may_return && (peer_cannot || self.settings.rank < heartbeat.rank)
            }
        }
    }

    /// Of two that both could, as far as this node's settings say.
    fn peer_goes_first(&self, heartbeat: &Heartbeat) -> bool {
        match self.settings.initial_role {
            InitialRole::Primary => false,
            InitialRole::Standby => true,
            InitialRole::Auto => heartbeat.rank < self.settings.rank,
        }
    }

    fn promotion_done(&self) -> bool {
        let Some(promotion) = self.state.promotion else {
            return false;
        };
        let leased = !self.strict()
            || promotion.force.lease
            || self.state.lease.granted.is_some_and(|(epoch, at)| {
                epoch == promotion.epoch
                    && self.now.ms_since(at) < self.settings.timers.renew_deadline_ms
            });
        self.state.durable.reserved >= promotion.epoch
            && leased
            && (!self.settings.require_hooks || promotion.hooks_done)
    }

    /// Why the promotion cannot succeed any more.
    pub(crate) fn promotion_failure(&self) -> Option<&'static str> {
        let promotion = self.state.promotion?;
        if let Some(reason) = promotion.failed {
            return Some(reason);
        }
        let serves_again = matches!(promotion.cause, Cause::TakeBack | Cause::EpochBehind);
        if self.state.health == Health::Fatal {
            return Some("the engine is gone");
        }
        if self.state.eligibility() == Eligibility::Ineligible
            && !promotion.force.gates
            && !serves_again
        {
            return Some("a gate bars it");
        }
        let outbid = self.strict()
            && self.state.lease.record.is_some_and(|record| {
                record
                    .holder
                    .is_some_and(|holder| holder != self.settings.rank)
                    && record.epoch >= promotion.epoch
            });
        if outbid {
            return Some("the peer has the lease in a higher epoch");
        }
        self.in_role_for(self.settings.timers.promotion_timeout_ms)
            .then_some("it took longer than promotion_timeout_ms")
    }

    fn lease_taken(&self) -> bool {
        let lease = &self.state.lease;
        self.strict()
            && lease.record.is_some_and(|record| {
                if self.state.forced_lease {
                    return record.epoch > self.state.epoch;
                }
                record.epoch != self.state.epoch || record.holder != Some(self.settings.rank)
            })
    }

    /// Why the lease may not be taken now; `None`: a swap may be tried.
    pub(crate) fn lease_obstacle(&self) -> Option<&'static str> {
        if !self.strict() {
            return None;
        }
        if let Some(reason) = self.lease_store_obstacle() {
            return Some(reason);
        }
        let (lease, wait) = (&self.state.lease, self.settings.lease_wait_ms());
        let record = lease.record?;
        let free = record
            .holder
            .is_none_or(|holder| holder == self.settings.rank);
        if !free && self.now.ms_since(lease.changed_at) < wait {
            return Some("the lease has been renewed within lease_ttl_ms");
        }
        None
    }

    /// Why the lease could not be taken even from a dead holder.
    pub(crate) fn lease_store_obstacle(&self) -> Option<&'static str> {
        let (lease, timers) = (&self.state.lease, &self.settings.timers);
        let answers = timers.lease_call_timeout_ms + 2 * timers.renew_interval_ms;
        let (Some(record), Some(at)) = (lease.record, lease.observed_at) else {
            return Some("the lease store has not answered yet");
        };
        if self.now.ms_since(at) > answers {
            return Some("the lease store does not answer");
        }
        if self.now < lease.promised_until {
            return Some("this node promised the primary not to take the lease");
        }
        // What this node promised before it was restarted, it does not know.
        let booted_for = self.now.ms_since(self.state.booted_at);
        if record.epoch.number() != 0 && booted_for < self.settings.lease_wait_ms() {
            return Some("this node started less than a lease ago");
        }
        None
    }
}
