//! The roles of a node, as users see them.
//!
//! Invariant: a node has exactly one role; the names are those of the HTTP interface.

use serde::{Deserialize, Serialize};

/// What a node of a pair is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads its epoch file and loads its model.
    Starting,
    /// Waits to hear from its peer, or learns who serves.
    Joining,
    /// Could take over now.
    Standby,
    /// Alive, but a gate says that it must not take over.
    StandbyIneligible,
    /// The peer is silent, or its link closed; other ways to reach it are tried.
    Suspect,
    /// The peer seems dead, and a person has to say so.
    AwaitConfirm,
    /// Takes a new epoch: on disk, then in the lease store, then hooks.
    Promoting,
    /// Serves, and an eligible standby hears it.
    Primary,
    /// Serves, and nothing stands by.
    PrimarySolo,
    /// Serves on the peer's promise, while the lease store does not answer.
    PrimaryFailsafe,
    /// Admits nothing new; flushes what the peer must have before it takes over.
    Draining,
    /// Has asked the peer to take over, or learned that it did.
    Demoting,
    /// Served, and must not until it knows that nobody else does.
    Fenced,
    /// Taken out by an operator, or on its way out.
    Maintenance,
    /// Its engine cannot serve.
    Failed,
    /// A front without an engine, which looks on: no node's machine is ever in it.
    Front,
}

impl Role {
    /// Every role of a node, in the order of its life.
    pub const ALL: [Self; 15] = [
        Self::Starting,
        Self::Joining,
        Self::Standby,
        Self::StandbyIneligible,
        Self::Suspect,
        Self::AwaitConfirm,
        Self::Promoting,
        Self::Primary,
        Self::PrimarySolo,
        Self::PrimaryFailsafe,
        Self::Draining,
        Self::Demoting,
        Self::Fenced,
        Self::Maintenance,
        Self::Failed,
    ];

    /// The role's name in status, hooks and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Joining => "joining",
            Self::Standby => "standby",
            Self::StandbyIneligible => "standby-ineligible",
            Self::Suspect => "suspect",
            Self::AwaitConfirm => "await-confirm",
            Self::Promoting => "promoting",
            Self::Primary => "primary",
            Self::PrimarySolo => "primary-solo",
            Self::PrimaryFailsafe => "primary-failsafe",
            Self::Draining => "draining",
            Self::Demoting => "demoting",
            Self::Fenced => "fenced",
            Self::Maintenance => "maintenance",
            Self::Failed => "failed",
            Self::Front => "front",
        }
    }

    /// Admits new requests.
    #[must_use]
    pub const fn serves(self) -> bool {
        matches!(
            self,
            Self::Primary | Self::PrimarySolo | Self::PrimaryFailsafe
        )
    }

    /// Holds the epoch: serves, or is handing over what it served.
    #[must_use]
    pub const fn claims(self) -> bool {
        self.serves() || matches!(self, Self::Draining)
    }

    /// Could take over, given that its gates pass.
    #[must_use]
    pub const fn stands_by(self) -> bool {
        matches!(self, Self::Standby | Self::Suspect)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
