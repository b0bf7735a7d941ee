//! Everything a node knows: its role, its peer, its lease, what runs.
//!
//! Nothing here decides. Conditions read it (`condition`), `absorb` writes facts into it, `effects`
//! writes what a change of role brings.
//!
//! Invariant: two equal states given equal events at equal times stay equal.

use std::sync::Arc;

use crate::event::Ticket;
use crate::table::Cause;
use crate::{
    BootTime, Echo, Eligibility, Epoch, EpochFile, Force, Gate, Health, Heartbeat, LeaseCall,
    LeaseRecord, OperationId, Outcome, Promise, Role, Settings, eligibility,
};

/// How many ended operations a node remembers, to answer a repeated id.
pub(crate) const MAX_DONE_OPERATIONS: usize = 16;

/// The state of one node's machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) role: Role,
    /// Since when the node has its role.
    pub(crate) since: BootTime,
    pub(crate) boot: u64,
    pub(crate) booted_at: BootTime,
    pub(crate) started: bool,
    /// In which it serves, served last, or is handing over; kept while fenced.
    pub(crate) epoch: Epoch,
    /// What should be on the disk, and what is.
    pub(crate) file: EpochFile,
    pub(crate) durable: EpochFile,
    pub(crate) persisting: Option<Persisting>,
    pub(crate) persist_not_before: BootTime,
    pub(crate) peer: Peer,
    pub(crate) lease: Lease,
    pub(crate) health: Health,
    pub(crate) unready_since: Option<BootTime>,
    pub(crate) gates: Arc<[Gate]>,
    pub(crate) paused_until: BootTime,
    pub(crate) terminating: bool,
    pub(crate) holdoff_until: BootTime,
    pub(crate) quarantine_until: BootTime,
    /// When roles changed by themselves, oldest first.
    pub(crate) changes: Vec<BootTime>,
    pub(crate) promotion: Option<Promotion>,
    pub(crate) promote_not_before: BootTime,
    pub(crate) handover: Option<Handover>,
    pub(crate) fence: Option<Fence>,
    pub(crate) confirm: Option<Confirm>,
    pub(crate) rejected: bool,
    pub(crate) forced_lease: bool,
    pub(crate) operation: Option<Operation>,
    pub(crate) done: Vec<(OperationId, Outcome)>,
    /// What a command of this very step asks for.
    pub(crate) asked: Option<Asked>,
    pub(crate) vacant_since: Option<BootTime>,
    /// Somebody has served in this process's life, as far as it knows.
    pub(crate) met_service: bool,
    pub(crate) tickets: Ticket,
    pub(crate) seq: u64,
    pub(crate) heartbeat_at: BootTime,
    pub(crate) probe: Option<Ticket>,
    pub(crate) probe_at: BootTime,
    pub(crate) stepped_at: BootTime,
    pub(crate) wakeup_at: BootTime,
    /// This very step came too late.
    pub(crate) late: bool,
}

/// A write of the epoch file that has not been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Persisting {
    pub(crate) ticket: Ticket,
    pub(crate) file: EpochFile,
    pub(crate) at: BootTime,
}

/// What is known of the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    /// Its newest heartbeat, and when it came.
    pub(crate) heartbeat: Option<(Heartbeat, BootTime)>,
    /// The newest that came in, of a process that has not proved itself yet, too.
    pub(crate) newest: Option<Echo>,
    /// From when its silence counts.
    pub(crate) silent_from: BootTime,
    /// Other signs of life: tokens, an answered probe.
    pub(crate) alive_at: BootTime,
    /// Up to when it has surely heard this node: the sending time of the newest echo.
    pub(crate) heard_us: Option<(u64, BootTime)>,
    pub(crate) link_closed: bool,
    pub(crate) refused: bool,
    pub(crate) left: bool,
    /// Boots that are over; their heartbeats may still come in.
    pub(crate) old_boots: [u64; 4],
}

/// What is known of the lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Lease {
    pub(crate) record: Option<LeaseRecord>,
    /// When this revision was first seen.
    pub(crate) changed_at: BootTime,
    pub(crate) observed_at: Option<BootTime>,
    pub(crate) pending: Option<PendingCall>,
    pub(crate) call_at: BootTime,
    /// The epoch last granted, and when its newest good call was sent.
    pub(crate) granted: Option<(Epoch, BootTime)>,
    /// A swap without an answer, from this revision: it may still happen.
    pub(crate) in_doubt: Option<u64>,
    /// What this node promised, and until when it binds.
    pub(crate) promise: Option<Promise>,
    pub(crate) promised_until: BootTime,
    /// The newest promise of the peer: its epoch, and when it was asked for.
    pub(crate) failsafe: Option<(Epoch, BootTime)>,
    pub(crate) release: bool,
}

/// A call to the store that has not been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PendingCall {
    pub(crate) ticket: Ticket,
    pub(crate) call: LeaseCall,
    pub(crate) at: BootTime,
}

/// A promotion in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Promotion {
    pub(crate) cause: Cause,
    pub(crate) epoch: Epoch,
    pub(crate) force: Force,
    /// It rests on proof, or on somebody's word, and not on silence.
    pub(crate) proven: bool,
    pub(crate) hooks: Option<Ticket>,
    pub(crate) hooks_done: bool,
    pub(crate) failed: Option<&'static str>,
}

/// A handover in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Handover {
    pub(crate) flush: Ticket,
    pub(crate) flushed: bool,
}

/// Why a node is fenced, and from which heartbeat on an echo is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fence {
    pub(crate) cause: Cause,
    pub(crate) seq: u64,
}

/// An alert that a person has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Confirm {
    pub(crate) alert: u64,
    pub(crate) answer: Option<bool>,
}

/// An operator's operation that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Operation {
    pub(crate) id: OperationId,
    pub(crate) at: BootTime,
}

/// What a command asks the table for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asked {
    Switchover,
    Leave,
    Promote(Force),
    Fence,
}

impl State {
    /// A node that has not read its epoch file yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            role: Role::Starting,
            since: BootTime::ZERO,
            boot: 0,
            booted_at: BootTime::ZERO,
            started: false,
            epoch: Epoch::NONE,
            file: EpochFile::default(),
            durable: EpochFile::default(),
            persisting: None,
            persist_not_before: BootTime::ZERO,
            peer: Peer::default(),
            lease: Lease::default(),
            health: Health::Ok,
            unready_since: None,
            gates: Arc::from([]),
            paused_until: BootTime::ZERO,
            terminating: false,
            holdoff_until: BootTime::ZERO,
            quarantine_until: BootTime::ZERO,
            changes: Vec::new(),
            promotion: None,
            promote_not_before: BootTime::ZERO,
            handover: None,
            fence: None,
            confirm: None,
            rejected: false,
            forced_lease: false,
            operation: None,
            done: Vec::new(),
            asked: None,
            vacant_since: None,
            met_service: false,
            tickets: 0,
            seq: 0,
            heartbeat_at: BootTime::ZERO,
            probe: None,
            probe_at: BootTime::ZERO,
            stepped_at: BootTime::ZERO,
            wakeup_at: BootTime::MAX,
            late: false,
        }
    }

    pub(crate) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.tickets
    }

    /// The node's own eligibility: its gates, its engine, and whether it is meant to take part.
    #[must_use]
    pub fn eligibility(&self) -> Eligibility {
        if self.health >= Health::Unready || self.file.maintenance || self.terminating {
            return Eligibility::Ineligible;
        }
        eligibility(&self.gates)
    }

    pub(crate) fn quarantined(&self, now: BootTime) -> bool {
        now < self.quarantine_until
    }

    /// Until when the lease, or what stands in for it, lets this node admit.
    pub(crate) fn lease_until(&self, settings: &Settings) -> BootTime {
        if self.forced_lease {
            return BootTime::MAX;
        }
        self.deadline(self.lease.granted, settings)
    }

    pub(crate) fn failsafe_until(&self, settings: &Settings) -> BootTime {
        self.deadline(self.lease.failsafe, settings)
    }

    fn deadline(&self, grant: Option<(Epoch, BootTime)>, settings: &Settings) -> BootTime {
        match grant {
            Some((epoch, at)) if epoch == self.epoch => at.after(settings.timers.renew_deadline_ms),
            _ => BootTime::ZERO,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}
