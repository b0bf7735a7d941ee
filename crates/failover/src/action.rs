//! What the machine wants done.
//!
//! Invariant: an action is a wish, and losing one is survivable: everything is asked again, or
//! given up, on a timer.

use crate::event::Ticket;
use crate::table::Cause;
use crate::{Epoch, EpochFile, Heartbeat, LeaseCall, OperationId, Outcome, Role};

/// Something for the driver to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send this over every link.
    Send(Heartbeat),
    /// Write the epoch file durably, then answer `Persisted`.
    Persist {
        /// For the answer.
        ticket: Ticket,
        /// What to write.
        file: EpochFile,
    },
    /// Call the lease store, then answer `Lease`.
    Lease {
        /// For the answer.
        ticket: Ticket,
        /// The call.
        call: LeaseCall,
    },
    /// Probe two of the peer's ports, `probe_gap_ms` apart, then answer `Probed`.
    Probe {
        /// For the answer.
        ticket: Ticket,
    },
    /// Send counters, revocations and journal to the peer, then answer `Flushed`.
    Flush {
        /// For the answer.
        ticket: Ticket,
    },
    /// Run the promotion hooks, then answer `HooksDone`.
    Hooks {
        /// For the answer.
        ticket: Ticket,
        /// The new epoch.
        epoch: Epoch,
    },
    /// The role changed: for history, hooks (level-triggered) and logs.
    RoleChanged {
        /// The role before.
        from: Role,
        /// The role now.
        to: Role,
        /// The epoch that this node serves in, or knows to serve.
        epoch: Epoch,
        /// Why.
        cause: Cause,
        /// The operation behind it.
        operation: Option<OperationId>,
    },
    /// Tell somebody.
    Alert(Alert),
    /// Answer an operator's command.
    Reply {
        /// The command's id.
        id: OperationId,
        /// How it stands.
        outcome: Outcome,
    },
    /// The process may end: finish or move the streams, then exit.
    Exit,
}

/// What operators are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alert {
    /// This node serves, and nothing stands by.
    Unprotected,
    /// The peer seems dead, and automatic role changes are paused.
    PausedOverDeadPeer,
    /// The peer seems dead, and the mode waits for a person: `Confirm` or `Promote`.
    ConfirmNeeded {
        /// To be named in `Confirm` or `Reject`.
        alert: u64,
    },
    /// Roles changed too often.
    Quarantined,
    /// The node stopped serving by itself.
    Fenced,
    /// The wall clock was set.
    WallClockJumped {
        /// By so much.
        by_ms: i64,
    },
    /// A promotion overrode rules.
    Forced,
    /// The peer claimed to serve while this node did, too.
    DualPrimary,
    /// The epoch file cannot be written.
    DiskFailed,
}
