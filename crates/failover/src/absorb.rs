//! Takes what an event says into the state, before the table is asked.
//!
//! Invariant: no role changes here; an answer to another ticket than the outstanding one, a
//! heartbeat out of order and one of another pair's node change nothing.

use crate::condition::Condition;
use crate::event::{Event, PortAnswer, Ticket};
use crate::state::{PendingCall, State};
use crate::step::Step;
use crate::{
    Action, Alert, BootTime, EpochFile, Health, Heartbeat, LeaseCall, LeaseReply, Promise, Role,
};

impl Step<'_> {
    pub(crate) fn absorb(&mut self, event: Event) {
        match event {
            Event::Started { boot, file } => self.start(boot, file),
            Event::Timer => {}
            Event::Heartbeat(heartbeat) => self.hear(heartbeat),
            Event::LinkClosed => self.state.peer.link_closed = true,
            Event::Probed { ticket, ports } => self.probed(ticket, ports),
            Event::PeerTraffic => self.state.peer.alive_at = self.now,
            Event::Persisted { ticket, ok } => self.persisted(ticket, ok),
            Event::Lease { ticket, reply } => self.lease_answer(ticket, reply),
            Event::Health(health) => self.health(health),
            Event::Gates(gates) => self.state.gates = gates,
            Event::Flushed { ticket } => {
                if let Some(handover) = &mut self.state.handover {
                    handover.flushed |= handover.flush == ticket;
                }
            }
            Event::HooksDone { ticket, ok } => self.hooks_done(ticket, ok),
            Event::WallClockJumped { by_ms } => {
                self.actions
                    .push(Action::Alert(Alert::WallClockJumped { by_ms }));
            }
            Event::Command { id, command } => self.command(id, command),
            Event::Terminate => self.terminate(),
        }
    }

    /// Every other role leaves through the table; who is out already only says farewell.
    fn terminate(&mut self) {
        if self.state.role == Role::Maintenance && !self.state.terminating {
            self.state.heartbeat_at = self.now;
            self.actions.push(Action::Exit);
        }
        self.state.terminating = true;
    }

    fn start(&mut self, boot: u64, file: EpochFile) {
        let (state, now) = (&mut self.state, self.now);
        state.boot = boot;
        state.started = true;
        state.booted_at = now;
        state.since = now;
        state.heartbeat_at = now;
        state.file = file;
        state.durable = file;
        state.peer.silent_from = now;
        if file.paused {
            state.paused_until = now.after(self.settings.timers.pause_ms);
        }
    }

    fn hear(&mut self, heartbeat: Heartbeat) {
        let (state, now) = (&mut self.state, self.now);
        if self.settings.peer_rank != Some(heartbeat.rank) {
            return;
        }
        let peer = &mut state.peer;
        if peer.old_boots.contains(&heartbeat.boot) {
            return;
        }
        let last = peer.heartbeat.map(|(last, _)| last);
        match last.filter(|last| last.boot == heartbeat.boot) {
            Some(last) if heartbeat.seq <= last.seq => return,
            Some(_) => {}
            None => {
                // Another process of the peer, or a message of one that is over and that this
                // process never knew: only an answer to this process proves that it is now.
                let unknown = peer
                    .newest
                    .is_none_or(|newest| newest.boot != heartbeat.boot);
                if unknown {
                    state.heartbeat_at = now;
                }
                if heartbeat.echo.is_none_or(|echo| echo.boot != state.boot) {
                    peer.newest = Some(heartbeat.as_echo());
                    return;
                }
                if let Some(last) = last {
                    peer.old_boots.rotate_right(1);
                    peer.old_boots[0] = last.boot;
                }
            }
        }
        peer.newest = Some(heartbeat.as_echo());
        peer.heartbeat = Some((heartbeat, now));
        peer.silent_from = now;
        peer.link_closed = false;
        peer.refused = false;
        peer.left = heartbeat.leaving;
        if let Some(echo) = heartbeat.echo.filter(|echo| echo.boot == state.boot) {
            peer.heard_us = Some((echo.seq, echo.sent_at));
        }
        state.rejected = false;
        state.file.seen = state.file.seen.max(heartbeat.seen);
        state.met_service |= heartbeat.role.claims();
        if heartbeat.role.claims() && state.role.serves() {
            self.actions.push(Action::Alert(Alert::DualPrimary));
        }
        self.take_promise(&heartbeat);
        self.give_promise(&heartbeat);
    }

    fn take_promise(&mut self, heartbeat: &Heartbeat) {
        let state = &mut self.state;
        let Some(promise) = heartbeat.promise else {
            return;
        };
        if promise.boot == state.boot && promise.epoch == state.epoch {
            let newest = match state.lease.failsafe {
                Some((epoch, at)) if epoch == promise.epoch => at.max(promise.sent_at),
                _ => promise.sent_at,
            };
            state.lease.failsafe = Some((promise.epoch, newest));
        }
    }

    /// A promise binds for a lease's time. It is not given while a swap of this node's may still
    /// happen, nor for an epoch that is over.
    fn give_promise(&mut self, heartbeat: &Heartbeat) {
        let strict = self.view().strict();
        let wait = self.settings.lease_wait_ms();
        let (state, now) = (&mut self.state, self.now);
        let Some(epoch) = heartbeat.failsafe else {
            return;
        };
        let swapping = state
            .lease
            .pending
            .is_some_and(|pending| matches!(pending.call, LeaseCall::Acquire { .. }));
        let barred = !state.started
            || state.role.claims()
            || state.role == Role::Promoting
            || epoch < state.file.seen
            || swapping
            || state.lease.in_doubt.is_some();
        if strict && !barred {
            let (boot, sent_at) = (heartbeat.boot, heartbeat.sent_at);
            state.lease.promise = Some(Promise {
                epoch,
                boot,
                sent_at,
            });
            state.lease.promised_until = now.after(wait);
            state.heartbeat_at = now;
        }
    }

    fn probed(&mut self, ticket: Ticket, ports: [PortAnswer; 2]) {
        if self.state.probe != Some(ticket) {
            return;
        }
        self.state.probe = None;
        if ports == [PortAnswer::Refused; 2] {
            self.state.peer.refused = true;
        } else if ports.contains(&PortAnswer::Answered) {
            self.state.peer.alive_at = self.now;
        }
    }

    fn persisted(&mut self, ticket: Ticket, ok: bool) {
        let Some(persisting) = self.state.persisting.filter(|p| p.ticket == ticket) else {
            return;
        };
        self.state.persisting = None;
        if ok {
            self.state.durable = persisting.file;
        } else {
            self.persist_failed("the epoch file could not be written");
        }
    }

    pub(crate) fn persist_failed(&mut self, reason: &'static str) {
        let durable = self.state.durable.reserved;
        self.state.persist_not_before = self.now.after(self.settings.timers.persist_retry_ms);
        if let Some(promotion) = self.state.promotion.as_mut().filter(|p| p.epoch > durable) {
            promotion.failed = Some(reason);
        }
        self.actions.push(Action::Alert(Alert::DiskFailed));
    }

    fn health(&mut self, health: Health) {
        self.state.health = health;
        if health < Health::Unready {
            self.state.unready_since = None;
        } else if self.state.unready_since.is_none() {
            self.state.unready_since = Some(self.now);
        }
    }

    fn hooks_done(&mut self, ticket: Ticket, ok: bool) {
        if let Some(promotion) = self
            .state
            .promotion
            .as_mut()
            .filter(|p| p.hooks == Some(ticket))
        {
            promotion.hooks_done = ok;
            if !ok {
                promotion.failed = Some("a required hook failed");
            }
        }
    }

    fn lease_answer(&mut self, ticket: Ticket, reply: LeaseReply) {
        let Some(pending) = self.state.lease.pending.filter(|p| p.ticket == ticket) else {
            return;
        };
        self.state.lease.pending = None;
        match reply {
            LeaseReply::Unknown => lease_call_lost(&mut self.state, pending, self.now),
            LeaseReply::Observed(record) | LeaseReply::Refused(record) => {
                self.observe(record);
                // News for a promotion is acted on at once; a refusal is looked into at once.
                let refused = pending.call != LeaseCall::Observe;
                let takeable = self.view().holds(Condition::LeaseTakeable);
                if refused || (self.state.promotion.is_some() && takeable) {
                    self.state.lease.call_at = self.now;
                }
            }
            LeaseReply::Granted(record) => {
                self.observe(record);
                match pending.call {
                    LeaseCall::Acquire { epoch, .. } | LeaseCall::Renew { epoch } => {
                        self.state.lease.granted = Some((epoch, pending.at));
                        self.state.forced_lease = false;
                    }
                    LeaseCall::Release { .. } => self.state.lease.granted = None,
                    LeaseCall::Observe => {}
                }
            }
        }
    }

    fn observe(&mut self, record: crate::LeaseRecord) {
        let (lease, now) = (&mut self.state.lease, self.now);
        if lease
            .record
            .is_none_or(|known| known.revision != record.revision)
        {
            lease.changed_at = now;
        }
        // A swap from a revision that is over can no longer happen.
        if lease
            .in_doubt
            .is_some_and(|expect| expect != record.revision)
        {
            lease.in_doubt = None;
        }
        lease.record = Some(record);
        lease.observed_at = Some(now);
    }
}

/// The store did not answer: a swap may still happen, everything else is asked again.
pub(crate) fn lease_call_lost(state: &mut State, pending: PendingCall, now: BootTime) {
    if let LeaseCall::Acquire { expect, .. } = pending.call {
        state.lease.in_doubt = Some(expect);
    }
    state.lease.call_at = state.lease.call_at.max(now);
}
