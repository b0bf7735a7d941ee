//! What the rest of a node asks of the state: may it admit, write, whom does it serve, what is it.
//!
//! Invariant: `Admission::Open` carries the time up to which it holds, and whoever admits compares
//! it with the clock for every request: a machine that is not stepped any more admits nothing.

use serde::{Deserialize, Serialize};

use crate::condition::View;
use crate::state::State;
use crate::{BootTime, Epoch, EpochFile, FailoverError, Gate, Health, Role, Settings};

/// What a front does with a new request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Admission {
    /// Admit it here, while the clock is before `until`; compare for every request.
    Open {
        /// In which epoch.
        epoch: Epoch,
        /// On this node's boot-time clock.
        until: BootTime,
    },
    /// Send it to the peer's engine, which serves in this epoch.
    ToPeer {
        /// The epoch to send along.
        epoch: Epoch,
    },
    /// Hold it, for `takeover_hold_ms` at most, without a byte.
    Hold,
    /// Refuse it.
    Closed,
}

impl Admission {
    /// Whether a request may be admitted here at `now`.
    #[must_use]
    pub fn admits(self, now: BootTime) -> bool {
        matches!(self, Self::Open { until, .. } if now < until)
    }
}

impl State {
    /// The role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Since when it has this role.
    #[must_use]
    pub fn since(&self) -> BootTime {
        self.since
    }

    /// The epoch in which this node serves, or the highest that it knows to have served.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        if self.role.claims() {
            self.epoch
        } else {
            self.file.seen
        }
    }

    /// What should be on the disk.
    #[must_use]
    pub fn epoch_file(&self) -> EpochFile {
        self.file
    }

    /// Step the machine no later than this.
    #[must_use]
    pub fn wakeup_at(&self) -> BootTime {
        self.wakeup_at
    }

    /// The health of the own engine, as last told.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// The own gates, as last told.
    #[must_use]
    pub fn gates(&self) -> &[Gate] {
        &self.gates
    }

    /// The peer's last heartbeat and when it came.
    #[must_use]
    pub fn peer(&self) -> Option<(&crate::Heartbeat, BootTime)> {
        self.peer
            .heartbeat
            .as_ref()
            .map(|(heartbeat, at)| (heartbeat, *at))
    }

    /// The operation that runs.
    #[must_use]
    pub fn operation(&self) -> Option<crate::OperationId> {
        self.operation.map(|operation| operation.id)
    }

    /// The alert that waits for `Confirm` or `Reject`.
    #[must_use]
    pub fn waiting_alert(&self) -> Option<u64> {
        self.confirm.map(|confirm| confirm.alert)
    }

    /// Whether a pause, a hold-off or a quarantine is on: what status shows beside the role.
    #[must_use]
    pub fn overlays(&self, now: BootTime) -> [(&'static str, bool); 3] {
        [
            ("paused", self.file.paused),
            ("holdoff", now < self.holdoff_until),
            ("quarantine", self.quarantined(now)),
        ]
    }

    /// What to do with new requests; asked after every step.
    #[must_use]
    pub fn admission(&self, settings: &Settings) -> Admission {
        let view = View {
            settings,
            state: self,
            now: self.stepped_at,
        };
        if self.role.serves() {
            let late = self.wakeup_at.after(settings.timers.timer_late_ms);
            let until = if settings.peer_rank.is_none() {
                BootTime::MAX
            } else if view.strict() {
                let lease = self
                    .lease_until(settings)
                    .max(self.failsafe_until(settings));
                lease.min(late)
            } else {
                late
            };
            return Admission::Open {
                epoch: self.epoch,
                until,
            };
        }
        if let Some(peer) = view
            .fresh()
            .filter(|h| h.role.serves() && h.epoch >= self.file.seen)
        {
            return Admission::ToPeer { epoch: peer.epoch };
        }
        match self.role {
            Role::Starting | Role::Maintenance | Role::Failed | Role::Front => Admission::Closed,
            _ => Admission::Hold,
        }
    }

    /// Whether what must be the same on both nodes (keys, configuration, stored objects) may be
    /// changed here: only where requests are served, and while the peer is known or a lease proves
    /// that it does not serve.
    #[must_use]
    pub fn may_write(&self, settings: &Settings) -> bool {
        let view = View {
            settings,
            state: self,
            now: self.stepped_at,
        };
        self.role.serves() && self.role != Role::PrimaryFailsafe && view.serves_alone()
    }

    /// Which share of a tenant's limits this node may grant, in percent: half of them while it
    /// cannot exclude that the peer serves, too.
    #[must_use]
    pub fn limit_share_percent(&self, settings: &Settings) -> u8 {
        let view = View {
            settings,
            state: self,
            now: self.stepped_at,
        };
        let alone = view.serves_alone();
        if alone { 100 } else { 50 }
    }

    /// Refuses what carries an epoch that is over.
    ///
    /// # Errors
    /// `StaleEpoch` when a higher epoch has served.
    pub fn check_epoch(&self, epoch: Epoch) -> Result<(), FailoverError> {
        if epoch < self.file.seen {
            let (got, seen) = (epoch.number(), self.file.seen.number());
            return Err(FailoverError::StaleEpoch { got, seen });
        }
        Ok(())
    }
}
