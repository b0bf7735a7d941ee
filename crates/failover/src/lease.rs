//! The lease store as the machine sees it: one record that is changed by compare-and-swap.
//!
//! No time stamp is in the record. A taker watches the revision with its own clock, and may swap
//! only when it has not changed for a whole lease. Stores that expire leases themselves (etcd, a
//! witness) report an expired one as a record without a holder.
//!
//! Invariant: `revision` changes with every change of the record, renewals included.

use serde::{Deserialize, Serialize};

use crate::Epoch;

/// What the store holds for a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The rank of the node that holds the lease.
    pub holder: Option<u32>,
    /// The epoch in which it was last taken.
    pub epoch: Epoch,
    /// Changes with every change.
    pub revision: u64,
}

/// What the machine asks of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LeaseCall {
    /// Read the record.
    Observe,
    /// If the revision is still `expect`: become the holder, in `epoch`.
    Acquire {
        /// The revision the taker has seen unchanged.
        expect: u64,
        /// The new epoch.
        epoch: Epoch,
    },
    /// If the caller is the holder in `epoch`: change the revision.
    Renew {
        /// The holder's epoch.
        epoch: Epoch,
    },
    /// If the caller is the holder in `epoch`: leave the record without a holder.
    Release {
        /// The holder's epoch.
        epoch: Epoch,
    },
}

impl LeaseCall {
    /// What a store does with the record: the new record, or `None` when the call is refused (or
    /// only reads). Real stores do this in one transaction; this is the specification of it.
    #[must_use]
    pub fn apply(self, caller: u32, record: LeaseRecord) -> Option<LeaseRecord> {
        let owns = |epoch| record.holder == Some(caller) && record.epoch == epoch;
        let revision = record.revision + 1;
        match self {
            Self::Observe => None,
            Self::Acquire { expect, epoch } => (record.revision == expect && epoch > record.epoch)
                .then_some(LeaseRecord {
                    holder: Some(caller),
                    epoch,
                    revision,
                }),
            Self::Renew { epoch } => owns(epoch).then_some(LeaseRecord { revision, ..record }),
            Self::Release { epoch } => owns(epoch).then_some(LeaseRecord {
                holder: None,
                revision,
                ..record
            }),
        }
    }
}

/// What the store answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LeaseReply {
    /// The record as it is; answer to `Observe`.
    Observed(LeaseRecord),
    /// The call changed the record to this.
    Granted(LeaseRecord),
    /// The call was refused; the record is this.
    Refused(LeaseRecord),
    /// No answer, or an error: the call may or may not have been done.
    Unknown,
}
