//! What an operator can ask for, and the answers.
//!
//! Every command carries an operation id chosen by the asker; the same id again gets the same
//! answer and does nothing. One operation runs at a time.
//!
//! Invariant: a command that is refused has changed nothing.

use serde::{Deserialize, Serialize};

use crate::Epoch;

/// An operation id: a UUID, or any number that its asker does not use twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId(pub u128);

/// Rules that a forced promotion overrides, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Force {
    /// The peer was heard, or claims to serve: the operator asserts that it does not.
    pub peer: bool,
    /// A gate says no.
    pub gates: bool,
    /// The lease cannot be had: the operator asserts that the holder is off.
    pub lease: bool,
}

/// An operator's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// To the primary: hand over to the peer, without losing a request.
    Switchover,
    /// To the primary: hand over, and with `force` give up even if nobody takes over.
    Demote {
        /// Give up even if nobody takes over.
        force: bool,
    },
    /// To a standby: take over from a primary that is dead or that never was.
    Promote {
        /// Rules to override.
        force: Force,
    },
    /// No automatic role changes, for so long (at most `pause_ms`).
    Pause {
        /// For how long; `None`: `pause_ms`.
        for_ms: Option<u64>,
    },
    /// Automatic role changes again.
    Resume,
    /// Take the node out of the pair, or back in.
    Maintenance {
        /// Out, or back in.
        on: bool,
    },
    /// Mode confirm: the peer is dead, promote.
    Confirm {
        /// The alert's number.
        alert: u64,
    },
    /// Mode confirm: the peer is not dead, do nothing until it is heard again.
    Reject {
        /// The alert's number.
        alert: u64,
    },
    /// Forget the role changes that led to quarantine.
    ClearQuarantine,
    /// Stop serving at once, until this node knows that nobody else serves.
    FenceSelf,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// It runs; the same id will tell how it ended.
    Running,
    /// Done; the epoch that this node knows after it.
    Done {
        /// The highest epoch known to serve.
        epoch: Epoch,
    },
    /// Not begun, for these reasons.
    Refused(Vec<Obstacle>),
    /// Begun, and given up.
    Failed {
        /// Why, for an operator.
        reason: String,
    },
}

/// One reason why something cannot be done now.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Obstacle {
    /// The rule or gate that says no.
    pub name: String,
    /// In words for an operator.
    pub reason: String,
}

impl Obstacle {
    pub(crate) fn new(name: &str, reason: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            reason: reason.into(),
        }
    }
}
