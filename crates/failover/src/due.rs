//! What is due at the end of a step: pause's end, disk, hooks, lease, probe, heartbeat, wake-up.
//!
//! All of it is level-triggered: it follows from the state, and is asked for again until answered.
//!
//! Invariant: at most one write of the epoch file, one lease call and one probe are outstanding.

use crate::absorb::lease_call_lost;
use crate::condition::Condition;
use crate::state::{PendingCall, Persisting};
use crate::step::Step;
use crate::{Action, BootTime, Eligibility, Heartbeat, LeaseCall, Role};

impl Step<'_> {
    pub(crate) fn due(&mut self) {
        if self.state.file.paused && self.now >= self.state.paused_until {
            self.state.file.paused = false;
        }
        self.due_disk();
        self.due_hooks();
        self.due_lease();
        self.due_probe();
        self.due_heartbeat();
        self.set_wakeup();
    }

    fn due_disk(&mut self) {
        let (now, limit) = (self.now, self.settings.timers.promotion_timeout_ms);
        if self
            .state
            .persisting
            .is_some_and(|p| now.ms_since(p.at) >= limit)
        {
            self.state.persisting = None;
            self.persist_failed("the disk did not answer");
        }
        let state = &mut self.state;
        if state.file == state.durable
            || state.persisting.is_some()
            || now < state.persist_not_before
        {
            return;
        }
        let (ticket, file) = (state.ticket(), state.file);
        state.persisting = Some(Persisting {
            ticket,
            file,
            at: now,
        });
        self.actions.push(Action::Persist { ticket, file });
    }

    fn due_hooks(&mut self) {
        if !self.settings.require_hooks {
            return;
        }
        let Some(promotion) = self.state.promotion.filter(|p| p.hooks.is_none()) else {
            return;
        };
        if self.state.durable.reserved < promotion.epoch {
            return;
        }
        let ticket = self.state.ticket();
        if let Some(promotion) = &mut self.state.promotion {
            promotion.hooks = Some(ticket);
        }
        self.actions.push(Action::Hooks {
            ticket,
            epoch: promotion.epoch,
        });
    }

    fn due_lease(&mut self) {
        if !self.view().strict() {
            return;
        }
        let (now, timers) = (self.now, &self.settings.timers);
        if let Some(pending) = self.state.lease.pending {
            if now.ms_since(pending.at) < timers.lease_call_timeout_ms {
                return;
            }
            self.state.lease.pending = None;
            lease_call_lost(&mut self.state, pending, now);
        }
        if now < self.state.lease.call_at && !self.state.lease.release {
            return;
        }
        let Some(call) = self.next_lease_call() else {
            return;
        };
        let state = &mut self.state;
        let ticket = state.ticket();
        state.lease.pending = Some(PendingCall {
            ticket,
            call,
            at: now,
        });
        state.lease.call_at = now.after(if state.promotion.is_some() {
            timers.promotion_poll_ms
        } else {
            timers.renew_interval_ms
        });
        self.actions.push(Action::Lease { ticket, call });
    }

    fn next_lease_call(&mut self) -> Option<LeaseCall> {
        let takeable = self.view().holds(Condition::LeaseTakeable);
        let durable = self.state.durable.reserved;
        let (rank, state) = (self.settings.rank, &mut self.state);
        let held = state
            .lease
            .record
            .filter(|record| record.holder == Some(rank));
        if std::mem::take(&mut state.lease.release)
            && let Some(record) = held
        {
            return Some(LeaseCall::Release {
                epoch: record.epoch,
            });
        }
        if let Some(promotion) = state.promotion {
            let epoch = promotion.epoch;
            if held.is_some_and(|record| record.epoch == epoch) {
                return Some(LeaseCall::Renew { epoch });
            }
            return match state.lease.record {
                // The swap waits for the disk.
                Some(_) if takeable && durable < epoch => None,
                Some(record) if takeable && epoch > record.epoch => Some(LeaseCall::Acquire {
                    expect: record.revision,
                    epoch,
                }),
                _ => Some(LeaseCall::Observe),
            };
        }
        let by_hand = state
            .fence
            .is_some_and(|f| f.cause == crate::Cause::AskedToFence);
        let keeps = state.role.claims() || (state.role == Role::Fenced && !by_hand);
        let epoch = state.epoch;
        Some(match state.lease.record {
            Some(_) if keeps && held.is_some_and(|record| record.epoch == epoch) => {
                LeaseCall::Renew { epoch }
            }
            Some(record) if state.forced_lease && takeable && epoch > record.epoch => {
                LeaseCall::Acquire {
                    expect: record.revision,
                    epoch,
                }
            }
            _ => LeaseCall::Observe,
        })
    }

    fn due_probe(&mut self) {
        let suspicious = matches!(
            self.state.role,
            Role::Suspect | Role::AwaitConfirm | Role::StandbyIneligible
        );
        if !suspicious || !self.view().peer_suspect() || self.now < self.state.probe_at {
            return;
        }
        let ticket = self.state.ticket();
        self.state.probe = Some(ticket);
        self.state.probe_at = self.now.after(self.settings.timers.probe_interval_ms);
        self.actions.push(Action::Probe { ticket });
    }

    fn due_heartbeat(&mut self) {
        if self.now < self.state.heartbeat_at || self.settings.peer_rank.is_none() {
            return;
        }
        let interval = self.settings.timers.heartbeat_interval_ms;
        self.state.heartbeat_at = self.now.after(interval);
        self.state.seq += 1;
        let heartbeat = self.heartbeat();
        self.actions.push(Action::Send(heartbeat));
    }

    fn heartbeat(&self) -> Heartbeat {
        let (state, now, timers) = (&self.state, self.now, &self.settings.timers);
        let asks = state.role == Role::Demoting
            && state.handover.is_some()
            && now.ms_since(state.since) < timers.take_over_ask_ms;
        let renewed = state.lease.granted.is_some_and(|(epoch, at)| {
            epoch == state.epoch && now.ms_since(at) < 2 * timers.renew_interval_ms
        });
        // A standby that cannot take the lease protects nobody, and is handed nothing.
        let no_lease = self.view().strict() && self.view().lease_store_obstacle().is_some();
        let by_hand = state
            .fence
            .is_some_and(|f| f.cause == crate::Cause::AskedToFence);
        let wants_promise = self.view().strict()
            && self.settings.failsafe
            && (state.role.claims() || (state.role == Role::Fenced && !by_hand))
            && !renewed;
        Heartbeat {
            rank: self.settings.rank,
            boot: state.boot,
            seq: state.seq,
            sent_at: now,
            role: state.role,
            epoch: if state.role.claims() {
                state.epoch
            } else {
                state.file.seen
            },
            seen: state.file.seen,
            eligibility: if no_lease {
                Eligibility::Ineligible
            } else {
                state.eligibility()
            },
            health: state.health,
            holdoff: now < state.holdoff_until,
            quarantined: state.quarantined(now),
            paused: state.file.paused,
            take_over: asks.then_some(state.epoch),
            leaving: state.terminating && state.role == Role::Maintenance,
            failsafe: wants_promise.then_some(state.epoch),
            promise: state.lease.promise,
            echo: state.peer.newest,
        }
    }

    /// The earliest time at which a condition that depends on time may change. A heartbeat is
    /// always due soon, so that a machine which is not stepped is found late soon, too.
    fn set_wakeup(&mut self) {
        let (state, now, t) = (&self.state, self.now, &self.settings.timers);
        let mut at = if self.settings.peer_rank.is_some() {
            state.heartbeat_at
        } else {
            now.after(t.heartbeat_interval_ms)
        };
        let mut consider = |deadline: BootTime| {
            if deadline > now && deadline < at {
                at = deadline;
            }
        };
        let silent = state.peer.silent_from;
        consider(silent.after(t.suspect_after_ms));
        consider(
            silent
                .max(state.peer.alive_at)
                .after(self.view().dead_after_ms()),
        );
        consider(state.promote_not_before);
        consider(state.persist_not_before);
        if matches!(
            state.role,
            Role::Suspect | Role::AwaitConfirm | Role::StandbyIneligible
        ) {
            consider(state.probe_at);
        }
        if let Some(since) = state.vacant_since {
            consider(since.after(t.vacancy_wait_ms));
            consider(since.after(t.wait_for_peer_ms));
        }
        if let Some(since) = state.unready_since {
            consider(since.after(t.unready_hold_ms));
        }
        for ms in match state.role {
            Role::Joining => [t.wait_for_peer_ms, u64::MAX],
            Role::Draining => [t.flush_timeout_ms, u64::MAX],
            Role::Demoting => [t.handover_timeout_ms, t.take_over_ask_ms],
            Role::Promoting => [t.promotion_timeout_ms, u64::MAX],
            Role::AwaitConfirm => [t.confirm_timeout_ms, u64::MAX],
            _ => [u64::MAX; 2],
        } {
            consider(state.since.after(ms));
        }
        if self.view().strict() {
            let lease = &state.lease;
            consider(lease.call_at);
            consider(lease.promised_until);
            consider(state.lease_until(self.settings));
            consider(state.failsafe_until(self.settings));
            consider(lease.changed_at.after(self.settings.lease_wait_ms()));
            if let Some(pending) = lease.pending {
                consider(pending.at.after(t.lease_call_timeout_ms));
            }
        }
        self.state.wakeup_at = at;
    }
}
