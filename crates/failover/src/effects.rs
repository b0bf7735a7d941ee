//! What a change of role brings with it.
//!
//! Invariant: every change is announced by one `RoleChanged` and by a heartbeat in the same step.

use crate::state::{Asked, Confirm, Fence, Handover, MAX_DONE_OPERATIONS, Promotion};
use crate::step::Step;
use crate::table::Cause;
use crate::{Action, Alert, Epoch, Force, Outcome, Role};

impl Step<'_> {
    pub(crate) fn change_role(&mut self, to: Role, cause: Cause) {
        let from = self.state.role;
        self.count_change(to, cause);
        self.leave(from, to, cause);
        self.state.role = to;
        self.state.met_service |= to.serves();
        self.state.since = self.now;
        self.state.heartbeat_at = self.now;
        self.enter(from, to, cause);
        let epoch = if to.claims() {
            self.state.epoch
        } else {
            self.state.file.seen
        };
        let operation = self.state.operation.map(|operation| operation.id);
        self.actions.push(Action::RoleChanged {
            from,
            to,
            epoch,
            cause,
            operation,
        });
        self.end_operation_of(from, to, cause);
    }

    /// Changes that rest on silence or sickness may be wrong, and come in series when they are.
    fn count_change(&mut self, to: Role, cause: Cause) {
        let counts = match cause {
            Cause::Promoted => self.state.promotion.is_some_and(|p| !p.proven),
            Cause::EngineUnready => true,
            Cause::EngineLost => to == Role::Demoting,
            _ => false,
        };
        if !counts {
            return;
        }
        let (now, timers) = (self.now, &self.settings.timers);
        let state = &mut self.state;
        state
            .changes
            .retain(|&at| now.ms_since(at) < timers.flap_window_ms);
        state.changes.push(now);
        let limit = usize::try_from(self.settings.max_role_changes).unwrap_or(usize::MAX);
        if state.changes.len() >= limit {
            state.quarantine_until = now.after(timers.quarantine_ms);
            state.changes.clear();
            self.actions.push(Action::Alert(Alert::Quarantined));
        }
    }

    fn leave(&mut self, from: Role, to: Role, cause: Cause) {
        let (now, timers) = (self.now, &self.settings.timers);
        let state = &mut self.state;
        match from {
            Role::Promoting => {
                let promotion = state.promotion.take();
                if to == Role::PrimarySolo {
                    if let Some(promotion) = promotion {
                        state.epoch = promotion.epoch;
                        let granted = state
                            .lease
                            .granted
                            .is_some_and(|(e, _)| e == promotion.epoch);
                        state.forced_lease = promotion.force.lease && !granted;
                    }
                } else {
                    state.promote_not_before = now.after(timers.promotion_retry_ms);
                }
            }
            Role::AwaitConfirm => state.confirm = None,
            Role::Fenced => state.fence = None,
            Role::Demoting if cause == Cause::PeerTookOver => {
                state.holdoff_until = now.after(timers.failback_holdoff_ms);
            }
            _ => {}
        }
        if !matches!(to, Role::Draining | Role::Demoting) {
            state.handover = None;
        }
    }

    fn enter(&mut self, from: Role, to: Role, cause: Cause) {
        let strict = self.view().strict();
        match to {
            Role::Promoting => self.begin_promotion(from, cause),
            Role::PrimarySolo | Role::Primary | Role::PrimaryFailsafe => {
                self.state.file.seen = self.state.file.seen.max(self.state.epoch);
                if to == Role::PrimarySolo && self.settings.peer_rank.is_some() {
                    self.actions.push(Action::Alert(Alert::Unprotected));
                }
            }
            Role::Draining => {
                let flush = self.state.ticket();
                self.state.handover = Some(Handover {
                    flush,
                    flushed: false,
                });
                self.actions.push(Action::Flush { ticket: flush });
            }
            Role::Demoting => {
                // Engine lost: nothing to wait for. Peer serves already: nothing to ask for.
                if cause == Cause::EngineLost {
                    let flush = self.state.ticket();
                    self.state.handover = Some(Handover {
                        flush,
                        flushed: true,
                    });
                    self.actions.push(Action::Flush { ticket: flush });
                }
                self.state.lease.release = strict;
            }
            Role::Fenced => {
                let seq = self.state.seq + 1;
                self.state.fence = Some(Fence { cause, seq });
                self.state.lease.release = strict && cause == Cause::AskedToFence;
                self.actions.push(Action::Alert(Alert::Fenced));
            }
            Role::Joining => self.state.peer.silent_from = self.now,
            Role::AwaitConfirm => {
                let alert = self.state.ticket();
                self.state.confirm = Some(Confirm {
                    alert,
                    answer: None,
                });
                self.actions
                    .push(Action::Alert(Alert::ConfirmNeeded { alert }));
            }
            Role::Maintenance => {
                self.state.lease.release |= strict && from.claims();
                if self.state.terminating {
                    self.actions.push(Action::Exit);
                }
            }
            Role::Suspect => {
                self.state.probe = None;
                self.state.probe_at = self.now;
                if self.view().paused() {
                    self.actions.push(Action::Alert(Alert::PausedOverDeadPeer));
                }
            }
            Role::Starting
            | Role::Standby
            | Role::StandbyIneligible
            | Role::Failed
            | Role::Front => {}
        }
    }

    fn begin_promotion(&mut self, from: Role, cause: Cause) {
        let force = match self.state.asked.take() {
            Some(Asked::Promote(force)) => force,
            _ => Force {
                gates: cause == Cause::PeerDeadDegraded,
                ..Force::default()
            },
        };
        if force != Force::default() && cause == Cause::Promote {
            self.actions.push(Action::Alert(Alert::Forced));
        }
        let epoch = self.next_epoch();
        let state = &mut self.state;
        let over_silence = matches!(cause, Cause::PeerDead | Cause::PeerDeadDegraded);
        let proven = !over_silence || state.peer.refused || state.peer.left;
        state.file.reserved = epoch;
        // A write that waits for its retry need not delay this one: it is another content.
        state.persist_not_before = self.now;
        state.promotion = Some(Promotion {
            cause,
            epoch,
            force,
            proven,
            hooks: None,
            hooks_done: false,
            failed: None,
        });
        if from != Role::Demoting {
            state.lease.release = false;
        }
        state.lease.call_at = self.now;
    }

    /// Higher than every epoch this node has heard of or ever set aside.
    fn next_epoch(&self) -> Epoch {
        let state = &self.state;
        let record = state
            .lease
            .record
            .map_or(Epoch::NONE, |record| record.epoch);
        state
            .file
            .reserved
            .max(state.file.seen)
            .max(state.epoch)
            .max(record)
            .next_after(self.settings.epoch_half())
    }

    fn end_operation_of(&mut self, from: Role, to: Role, cause: Cause) {
        if self.state.operation.is_none() {
            return;
        }
        let epoch = self.state.file.seen;
        match (from, to) {
            (Role::Promoting, Role::PrimarySolo) => self.end_operation(Outcome::Done { epoch }),
            (_, Role::Maintenance) if cause == Cause::Leaving => {
                self.end_operation(Outcome::Done { epoch });
            }
            (_, Role::Fenced) if cause == Cause::AskedToFence => {
                self.end_operation(Outcome::Done { epoch });
            }
            (Role::Demoting, _) if cause == Cause::PeerTookOver => {
                self.end_operation(Outcome::Done { epoch });
            }
            (_, Role::Promoting) if cause == Cause::TakeBack => {
                self.end_operation(Outcome::Failed {
                    reason: cause.text().to_owned(),
                });
            }
            (_, Role::Promoting | Role::Draining | Role::Demoting) => {}
            _ => self.end_operation(Outcome::Failed {
                reason: cause.text().to_owned(),
            }),
        }
    }

    pub(crate) fn end_operation(&mut self, outcome: Outcome) {
        if let Some(operation) = self.state.operation.take() {
            let id = operation.id;
            if self.state.done.len() >= MAX_DONE_OPERATIONS {
                self.state.done.remove(0);
            }
            self.state.done.push((id, outcome.clone()));
            self.actions.push(Action::Reply { id, outcome });
        }
    }
}
