//! The transition table: from which role, on which conditions, to which role, and why.
//!
//! The rows are the machine: `step` takes the first row that fits until none does, and the state
//! diagram of docs/FAILOVER.md is printed from the same rows.
//!
//! Invariant: rows that take admission away stand before rows that give it.

use serde::{Deserialize, Serialize};

use crate::Role;
use crate::condition::Condition;

/// Why a role changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each has its words in `text`")]
pub enum Cause {
    NoPeer,
    ModelLoaded,
    TimerLate,
    AskedToFence,
    PeerServesHigherEpoch,
    LeaseTaken,
    LeaseLapsed,
    FailsafePromise,
    LeaseRenewed,
    EpochBehind,
    EngineLost,
    EngineUnready,
    Switchover,
    Terminating,
    Leaving,
    PeerLost,
    Flushed,
    PeerTookOver,
    HandoverTimedOut,
    TakeBack,
    StandbyReady,
    NoStandby,
    Maintenance,
    MaintenanceOver,
    EngineBack,
    PeerServes,
    PeerYields,
    LeaseFree,
    PeerHeard,
    PeerNotHeard,
    GatesPass,
    GatesBar,
    PeerSilent,
    PeerAsked,
    NobodyServes,
    PeerDead,
    PeerDeadDegraded,
    Confirmed,
    Rejected,
    ConfirmTimedOut,
    Promote,
    Promoted,
    PromotionFailed,
}

impl Cause {
    /// In words, for history, hooks and the diagram.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoPeer => "no peer is configured",
            Self::ModelLoaded => "the model is loaded",
            Self::TimerLate => "own timer was late",
            Self::AskedToFence => "asked to fence itself",
            Self::PeerServesHigherEpoch => "peer serves in a higher epoch",
            Self::LeaseTaken => "lease was taken",
            Self::LeaseLapsed => "lease lapsed",
            Self::FailsafePromise => "store silent, peer promised",
            Self::LeaseRenewed => "lease renewed",
            Self::EpochBehind => "a higher epoch has served",
            Self::EngineLost => "engine lost",
            Self::EngineUnready => "engine unready for too long",
            Self::Switchover => "switchover",
            Self::Terminating => "process is ending",
            Self::Leaving => "asked to give up",
            Self::PeerLost => "peer lost before it took over",
            Self::Flushed => "peer has all it needs",
            Self::PeerTookOver => "peer took over",
            Self::HandoverTimedOut => "peer did not take over",
            Self::TakeBack => "peer did not take over, role taken back",
            Self::StandbyReady => "standby is ready",
            Self::NoStandby => "no standby",
            Self::Maintenance => "maintenance",
            Self::MaintenanceOver => "maintenance is over",
            Self::EngineBack => "engine is back",
            Self::PeerServes => "peer serves",
            Self::PeerYields => "peer did not take over meanwhile",
            Self::LeaseFree => "lease is free",
            Self::PeerHeard => "peer is heard",
            Self::PeerNotHeard => "peer was not heard in time",
            Self::GatesPass => "gates pass",
            Self::GatesBar => "a gate bars it",
            Self::PeerSilent => "peer silent, or its link closed",
            Self::PeerAsked => "peer asks to take over",
            Self::NobodyServes => "nobody serves",
            Self::PeerDead => "peer is dead",
            Self::PeerDeadDegraded => "peer is dead, degraded is better than none",
            Self::Confirmed => "confirmed",
            Self::Rejected => "rejected",
            Self::ConfirmTimedOut => "nobody answered",
            Self::Promote => "asked to promote",
            Self::Promoted => "epoch durable, lease held",
            Self::PromotionFailed => "promotion failed",
        }
    }
}

/// One transition.
pub(crate) struct Row {
    pub(crate) from: &'static [Role],
    pub(crate) to: Role,
    pub(crate) cause: Cause,
    pub(crate) when: &'static [Condition],
    pub(crate) unless: &'static [Condition],
}

const fn row(
    from: &'static [Role],
    to: Role,
    cause: Cause,
    when: &'static [Condition],
    unless: &'static [Condition],
) -> Row {
    Row {
        from,
        to,
        cause,
        when,
        unless,
    }
}

use Cause as Y;
use Condition as C;
use Role as R;

const SERVES: &[Role] = &[R::Primary, R::PrimarySolo, R::PrimaryFailsafe];
/// Who can hand over: without the store nobody could take the lease.
const HANDS_OVER: &[Role] = &[R::Primary, R::PrimarySolo];
const CLAIMS: &[Role] = &[R::Primary, R::PrimarySolo, R::PrimaryFailsafe, R::Draining];
const IDLE: &[Role] = &[
    R::Joining,
    R::Standby,
    R::StandbyIneligible,
    R::Suspect,
    R::AwaitConfirm,
    R::Fenced,
];
const STANDS_BY: &[Role] = &[R::Standby, R::Suspect];

/// What must not be in the way of a promotion that nobody asked for.
const BARS: &[Condition] = &[C::Paused, C::QuarantineBars];

/// Every transition; the first that fits is taken.
#[rustfmt::skip]
pub(crate) const TABLE: &[Row] = &[
    // Reasons to stop, before everything else.
    row(CLAIMS, R::Fenced, Y::TimerLate, &[C::HasPeer, C::Late], &[]),
    row(&[R::Promoting, R::Demoting], R::Joining, Y::TimerLate, &[C::HasPeer, C::Late], &[]),
    row(CLAIMS, R::Fenced, Y::AskedToFence, &[C::AskedFence], &[]),
    row(CLAIMS, R::Demoting, Y::PeerServesHigherEpoch, &[C::PeerClaimsHigher], &[]),
    row(CLAIMS, R::Fenced, Y::LeaseTaken, &[C::LeaseTaken], &[]),
    row(CLAIMS, R::Fenced, Y::LeaseLapsed, &[C::LeaseLapsed], &[C::FailsafeHolds]),
    row(HANDS_OVER, R::PrimaryFailsafe, Y::FailsafePromise,
        &[C::LeaseLapsed, C::FailsafeHolds], &[]),
    row(&[R::PrimaryFailsafe], R::PrimarySolo, Y::LeaseRenewed, &[], &[C::LeaseLapsed]),
    row(SERVES, R::Promoting, Y::EpochBehind, &[C::EpochBehind], &[C::PeerClaims]),
    row(SERVES, R::Maintenance, Y::Leaving,
        &[C::AskedLeave], &[]),
    row(SERVES, R::Maintenance, Y::Terminating, &[C::Terminating], &[C::PeerReady]),

    // Handing over.
    row(HANDS_OVER, R::Draining, Y::Terminating, &[C::Terminating, C::PeerReady], &[]),
    row(&[R::PrimaryFailsafe], R::Maintenance, Y::Terminating,
        &[C::Terminating, C::PeerReady], &[]),
    row(HANDS_OVER, R::Demoting, Y::EngineLost,
        &[C::EngineFatal, C::PeerReady], &[C::Paused, C::Manual]),
    row(HANDS_OVER, R::Draining, Y::Switchover, &[C::AskedSwitchover, C::PeerReady], &[]),
    row(HANDS_OVER, R::Draining, Y::EngineUnready,
        &[C::EngineUnreadyHeld, C::PeerReady],
        &[C::Paused, C::Manual, C::Quarantined, C::PeerHeldOff]),
    row(&[R::Draining], R::PrimarySolo, Y::PeerLost, &[C::PeerSuspect], &[]),
    row(&[R::Draining], R::Demoting, Y::Flushed, &[C::Flushed], &[]),
    row(&[R::Demoting], R::Maintenance, Y::PeerTookOver,
        &[C::PeerClaimsHigher, C::Terminating], &[]),
    row(&[R::Demoting], R::Joining, Y::PeerTookOver, &[C::PeerClaimsHigher], &[]),
    row(&[R::Demoting], R::Maintenance, Y::HandoverTimedOut,
        &[C::HandoverTimedOut, C::Terminating], &[]),
    row(&[R::Demoting], R::Failed, Y::HandoverTimedOut,
        &[C::HandoverTimedOut, C::EngineFatal], &[]),
    row(&[R::Demoting], R::Promoting, Y::TakeBack, &[C::HandoverTimedOut], &[]),

    // Leaving, failing and coming back.
    row(&[R::Starting, R::Promoting, R::Failed], R::Maintenance, Y::Terminating,
        &[C::Terminating], &[]),
    row(IDLE, R::Maintenance, Y::Terminating, &[C::Terminating], &[]),
    row(IDLE, R::Maintenance, Y::Maintenance, &[C::InMaintenance], &[]),
    row(&[R::Failed], R::Maintenance, Y::Maintenance, &[C::InMaintenance], &[]),
    row(&[R::Starting], R::Maintenance, Y::Maintenance, &[C::Started, C::InMaintenance], &[]),
    row(&[R::Maintenance], R::Joining, Y::MaintenanceOver,
        &[], &[C::InMaintenance, C::Terminating]),
    row(&[R::Starting], R::Failed, Y::EngineLost, &[C::Started, C::EngineFatal], &[]),
    row(IDLE, R::Failed, Y::EngineLost, &[C::EngineFatal], &[]),
    row(&[R::Failed], R::Joining, Y::EngineBack, &[C::Loaded], &[C::EngineFatal]),
    row(&[R::Starting], R::Promoting, Y::NoPeer, &[C::Started, C::Loaded, C::Alone], &[]),
    row(&[R::Starting], R::Joining, Y::ModelLoaded, &[C::Started, C::Loaded], &[]),
    row(&[R::Joining], R::Promoting, Y::NoPeer, &[C::Alone, C::RetryOver], &[]),

    // A promotion's end.
    row(&[R::Promoting], R::Joining, Y::PeerServesHigherEpoch, &[C::PeerClaimsHigher], &[]),
    row(&[R::Promoting], R::Joining, Y::PeerServes, &[C::PromotedOverSilence, C::PeerClaims], &[]),
    row(&[R::Promoting], R::Joining, Y::PromotionFailed, &[C::PromotionFailed, C::Alone], &[]),
    row(&[R::Promoting], R::Joining, Y::PromotionFailed, &[C::PromotionFailed, C::PeerFresh], &[]),
    row(&[R::Promoting], R::Suspect, Y::PromotionFailed, &[C::PromotionFailed], &[]),
    row(&[R::Promoting], R::PrimarySolo, Y::Promoted, &[C::PromotionDone], &[]),

    // Out of the fence.
    row(&[R::Fenced], R::Joining, Y::PeerServes, &[C::PeerClaims], &[]),
        row(&[R::Fenced], R::Joining, Y::EpochBehind, &[C::EpochBehind, C::PeerFresh], &[]),
    row(IDLE, R::Promoting, Y::Promote, &[C::AskedPromote], &[]),
    row(&[R::Fenced], R::PrimarySolo, Y::LeaseRenewed,
        &[C::Strict, C::LeaseRenewedSinceFence], &[C::FencedByHand]),
    row(&[R::Fenced], R::PrimaryFailsafe, Y::FailsafePromise,
        &[C::Strict, C::FailsafeHolds], &[C::FencedByHand]),
    row(&[R::Fenced], R::Promoting, Y::LeaseFree,
        &[C::Strict, C::LeaseTakeable, C::RetryOver], &[C::FencedByHand]),
    row(&[R::Fenced], R::PrimarySolo, Y::PeerYields,
        &[C::PeerYields], &[C::Strict, C::FencedByHand]),
    row(&[R::Fenced], R::Promoting, Y::PeerDead,
        &[C::Automatic, C::PeerDead, C::RetryOver], &[C::Strict, C::FencedByHand]),
    row(&[R::Fenced], R::AwaitConfirm, Y::PeerDead,
        &[C::WaitsForPerson, C::PeerDead], &[C::FencedByHand, C::Rejected]),

    // Standing by.
    row(&[R::Joining], R::Standby, Y::PeerHeard, &[C::PeerFresh, C::Eligible], &[]),
    row(&[R::Joining], R::StandbyIneligible, Y::GatesBar, &[C::PeerFresh], &[]),
    row(&[R::Joining], R::Suspect, Y::PeerNotHeard, &[C::JoinTimedOut, C::Eligible], &[]),
    row(&[R::Joining], R::StandbyIneligible, Y::GatesBar, &[C::JoinTimedOut], &[]),
    row(STANDS_BY, R::StandbyIneligible, Y::GatesBar, &[], &[C::Eligible]),
    row(STANDS_BY, R::Promoting, Y::PeerAsked, &[C::PeerAsks], &[]),
    row(&[R::Standby], R::Suspect, Y::PeerSilent, &[C::PeerSuspect], &[]),
    row(&[R::Suspect, R::AwaitConfirm], R::Standby, Y::PeerHeard, &[C::PeerFresh], &[]),
    row(&[R::StandbyIneligible], R::Standby, Y::GatesPass, &[C::Eligible, C::PeerFresh], &[]),
    row(&[R::StandbyIneligible], R::Suspect, Y::GatesPass, &[C::Eligible, C::PeerSuspect], &[]),
    row(&[R::Standby], R::Promoting, Y::NobodyServes,
        &[C::Vacant, C::MyTurn, C::LeaseTakeable, C::RetryOver], &[C::Paused, C::Manual]),
    row(&[R::Standby], R::Promoting, Y::NobodyServes, &[C::Manual, C::Vacant, C::FirstStart], &[]),
    row(&[R::Suspect], R::Promoting, Y::PeerDead,
        &[C::Automatic, C::PeerDead, C::LeaseTakeable, C::RetryOver], BARS),
    row(&[R::Suspect], R::AwaitConfirm, Y::PeerDead,
        &[C::WaitsForPerson, C::PeerDead], &[C::Rejected]),
    row(&[R::StandbyIneligible], R::Promoting, Y::PeerDeadDegraded,
        &[C::DegradedOnly, C::AvailabilityFirst, C::Automatic, C::PeerDead,
            C::LeaseTakeable, C::RetryOver],
        BARS),
        row(&[R::AwaitConfirm], R::StandbyIneligible, Y::GatesBar,
        &[], &[C::Eligible, C::AvailabilityFirst]),
    row(&[R::AwaitConfirm], R::Promoting, Y::Confirmed, &[C::Confirmed], &[]),
    row(&[R::AwaitConfirm], R::Suspect, Y::Rejected, &[C::Rejected], &[]),
    row(&[R::AwaitConfirm], R::Promoting, Y::ConfirmTimedOut, &[C::ConfirmTimedOut], &[C::Paused]),

    // Serving, protected or not.
    row(&[R::PrimarySolo], R::Primary, Y::StandbyReady, &[C::PeerProtects], &[]),
    row(&[R::Primary], R::PrimarySolo, Y::NoStandby, &[], &[C::PeerProtects]),
];
