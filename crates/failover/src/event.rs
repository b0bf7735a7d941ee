//! What can happen to a node.
//!
//! Invariant: everything the machine knows came in through one of these; answers carry the ticket
//! of the action they answer, and an answer with an old ticket is ignored.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Command, EpochFile, Gate, Health, Heartbeat, LeaseReply, OperationId};

/// Ties an answer to the action that asked for it.
pub type Ticket = u64;

/// What a port of the peer did when it was probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PortAnswer {
    /// Refused or reset: the machine lives, and nothing listens.
    Refused,
    /// A valid answer of the server behind it; an accepted connection alone is none.
    Answered,
    /// Nothing in time.
    Silent,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The process has started and read its epoch file (default, when there is none yet). `boot`
    /// is a random number of this process.
    Started {
        /// Names this process in heartbeats.
        boot: u64,
        /// What the disk held.
        file: EpochFile,
    },
    /// The wake-up asked for has come, or nothing else has: time to look at the clock.
    Timer,
    /// A heartbeat that passed authentication.
    Heartbeat(Heartbeat),
    /// A link to the peer closed or was reset, without a farewell.
    LinkClosed,
    /// Two of the peer's ports were probed.
    Probed {
        /// Of the `Probe` action.
        ticket: Ticket,
        /// What each did.
        ports: [PortAnswer; 2],
    },
    /// The peer's engine still sends tokens to this front: it is not dead.
    PeerTraffic,
    /// The epoch file was written, or was not.
    Persisted {
        /// Of the `Persist` action.
        ticket: Ticket,
        /// Whether it is on the disk.
        ok: bool,
    },
    /// The lease store answered.
    Lease {
        /// Of the `Lease` action.
        ticket: Ticket,
        /// What it said.
        reply: LeaseReply,
    },
    /// The health of the local engine changed.
    Health(Health),
    /// A gate changed; the whole list.
    Gates(Arc<[Gate]>),
    /// Everything the peer must have before it takes over is with it.
    Flushed {
        /// Of the `Flush` action.
        ticket: Ticket,
    },
    /// The promotion hooks ended.
    HooksDone {
        /// Of the `Hooks` action.
        ticket: Ticket,
        /// Whether all required ones succeeded.
        ok: bool,
    },
    /// The wall clock was set by so much. Changes nothing; told to operators.
    WallClockJumped {
        /// Forward, or back.
        by_ms: i64,
    },
    /// An operator's command.
    Command {
        /// Chosen by the asker.
        id: OperationId,
        /// What is asked.
        command: Command,
    },
    /// The process was asked to end (SIGTERM).
    Terminate,
}
