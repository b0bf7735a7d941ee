//! Does what the machine wants: send, write, call, probe, flush, hooks, history, exit.
//!
//! Invariant: nothing here waits; whatever takes time is a task or a thread, and its answer an
//! input with the action's ticket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hotspare_failover::{
    Action, Alert, BootTime, Cause, Eligibility, Epoch, Event, Health, Heartbeat, LeaseCall,
    LeaseReply, OperationId, PortAnswer, Role, Ticket,
};

use crate::commands::hex;
use crate::driver::Driver;
use crate::hooks::HookEvent;
use crate::input::Input;
use crate::probe;
use crate::shared::lock;
use crate::view::HistoryEvent;
use crate::wire::{Frame, WireHeartbeat, datagram, telling_gates};

impl Driver {
    pub(crate) fn act(&mut self, action: Action, now: BootTime) {
        match action {
            Action::Send(heartbeat) => self.send(heartbeat),
            Action::Persist { ticket, file } => {
                if !self.disk.write(ticket, file) {
                    self.answer(Event::Persisted { ticket, ok: false });
                }
            }
            Action::Lease { ticket, call } => self.call_lease(ticket, call),
            Action::Probe { ticket } => self.probe(ticket),
            Action::Flush { ticket } => self.flush(ticket),
            Action::Hooks { ticket, epoch } => self.required_hooks(ticket, epoch, now),
            Action::RoleChanged {
                from,
                to,
                epoch,
                cause,
                operation,
            } => self.role_changed((from, to), epoch, cause, operation, now),
            Action::Alert(alert) => self.alert(alert, now),
            Action::Reply { id, outcome } => {
                let outcome_text = format!("{outcome:?}");
                self.commands.end(id, &outcome);
                if let Some(note) = self.commands.news(id, &outcome) {
                    self.remember(
                        now,
                        HistoryEvent::Command {
                            operation: hex(id),
                            command: note.command,
                            reason: note.reason,
                            requested_by: note.requested_by,
                            outcome: outcome_text,
                        },
                    );
                }
            }
            Action::Exit => self.exit(),
        }
    }

    /// Puts an event behind those that wait. A task, as the queue may be full.
    fn answer(&self, event: Event) {
        let inputs = self.net.links.inputs.clone();
        tokio::spawn(async move {
            // A driver that has ended needs no answer.
            let _ended = inputs.send(Input::Event(event)).await;
        });
    }

    fn send(&mut self, heartbeat: Heartbeat) {
        let message = Arc::new(WireHeartbeat {
            node: self.shared.node.clone(),
            heartbeat,
            facts: self.facts.clone(),
            gates: telling_gates(self.state.gates()),
        });
        for link in self.links.values() {
            link.sender.heartbeat(&message);
        }
        if !self.senders.is_empty()
            && let Some(bytes) = datagram(
                &self.net.credentials.keys,
                &message,
                self.net.bounds.max_datagram_bytes,
            )
        {
            let addresses = lock(&self.net.addresses).concat();
            for address in addresses {
                let socket = self.senders.iter().find(|socket| {
                    socket
                        .local_addr()
                        .is_ok_and(|own| own.is_ipv4() == address.is_ipv4())
                });
                // A datagram that does not go out is a lost one.
                let _lost = socket.map(|socket| socket.try_send_to(&bytes, address));
            }
        }
        self.net.news.send_replace(Some(Arc::clone(&message)));
        self.last_sent = Some(message);
    }

    fn call_lease(&self, ticket: Ticket, call: LeaseCall) {
        let Some(store) = self.lease.clone() else {
            let reply = LeaseReply::Unknown;
            return self.answer(Event::Lease { ticket, reply });
        };
        let inputs = self.net.links.inputs.clone();
        let rank = self.shared.settings.rank;
        let limit = Duration::from_millis(self.shared.settings.timers.lease_call_timeout_ms);
        tokio::spawn(async move {
            let reply = tokio::time::timeout(limit, store.call(rank, call))
                .await
                .unwrap_or(LeaseReply::Unknown);
            let _ended = inputs
                .send(Input::Event(Event::Lease { ticket, reply }))
                .await;
        });
    }

    fn probe(&self, ticket: Ticket) {
        let Some(targets) = self.probe.clone() else {
            let ports = [PortAnswer::Silent; 2];
            return self.answer(Event::Probed { ticket, ports });
        };
        let inputs = self.net.links.inputs.clone();
        let (credentials, hello) = (self.net.credentials.clone(), self.net.hello.clone());
        let timers = &self.shared.settings.timers;
        let (gap_ms, timeout_ms) = (timers.probe_gap_ms, timers.probe_timeout_ms);
        tokio::spawn(async move {
            let ports = probe::both(targets, credentials, hello, gap_ms, timeout_ms).await;
            let _ended = inputs
                .send(Input::Event(Event::Probed { ticket, ports }))
                .await;
        });
    }

    /// Replication and what the front wants; the machine goes on without after `flush_timeout_ms`.
    fn flush(&self, ticket: Ticket) {
        let inputs = self.net.links.inputs.clone();
        let replicated = self.shared.replicated.clone();
        let front = lock(&self.shared.flush).clone();
        let limit = Duration::from_millis(self.shared.settings.timers.flush_timeout_ms);
        tokio::spawn(async move {
            let both = async {
                if let Some(front) = front {
                    front().await;
                }
                replicated.flushed().await;
            };
            if tokio::time::timeout(limit, both).await.is_ok() {
                let _ended = inputs.send(Input::Event(Event::Flushed { ticket })).await;
            }
        });
    }

    fn required_hooks(&self, ticket: Ticket, epoch: Epoch, now: BootTime) {
        let Some(hooks) = &self.hooks else { return };
        let mut event = self.hook_event("promote", Role::Promoting, now);
        event.epoch = epoch;
        event.reason = "a promotion waits for this hook".to_owned();
        let call = hooks.required(event);
        let inputs = self.net.links.inputs.clone();
        tokio::spawn(async move {
            let ok = call.await;
            let _ended = inputs
                .send(Input::Event(Event::HooksDone { ticket, ok }))
                .await;
        });
    }

    fn hook_event(&self, event: &'static str, prev_role: Role, now: BootTime) -> HookEvent {
        let degraded = self.state.eligibility() == Eligibility::Degraded
            || self.state.health() == Health::Degraded;
        let peer = self.peer.as_ref().map(|peer| peer.node.clone());
        HookEvent {
            event,
            role: self.state.role(),
            prev_role,
            epoch: self.state.epoch(),
            node: self.shared.node.clone(),
            peer: peer.unwrap_or_default(),
            reason: String::new(),
            requested_by: String::new(),
            op_id: String::new(),
            degraded,
            model_root: self.facts.model_hash.clone(),
            boot_ms: now,
        }
    }

    fn role_changed(
        &mut self,
        (from, to): (Role, Role),
        epoch: Epoch,
        cause: Cause,
        operation: Option<OperationId>,
        now: BootTime,
    ) {
        let counters = &mut self.counters;
        let (serves, was_asked) = (to.serves(), from == Role::Demoting);
        counters.num_promotions += u64::from(from == Role::Promoting && serves);
        counters.num_handovers += u64::from(was_asked && cause == Cause::PeerTookOver);
        counters.num_fencings += u64::from(to == Role::Fenced);
        let note = operation.and_then(|id| self.commands.note(id)).cloned();
        let (reason, requested_by) = note
            .map(|note| (note.reason, note.requested_by))
            .unwrap_or_default();
        let text = cause.text();
        tracing::info!(%from, %to, %epoch, cause = text, requested_by, "the role changed");
        let mut event = self.hook_event("role-changed", from, now);
        event.role = to;
        event.epoch = epoch;
        event.reason = if reason.is_empty() {
            text.to_owned()
        } else {
            reason.clone()
        };
        event.requested_by.clone_from(&requested_by);
        event.op_id = operation.map(hex).unwrap_or_default();
        if let Some(hooks) = &self.hooks {
            hooks.tell(event);
        }
        self.remember(
            now,
            HistoryEvent::RoleChanged {
                from,
                to,
                epoch: epoch.number(),
                cause: text.to_owned(),
                operation: operation.map(hex),
                reason,
                requested_by,
            },
        );
    }

    /// The same alert is not told more often than a log line of one kind.
    fn alert(&mut self, alert: Alert, now: BootTime) {
        let (name, text) = alert_text(alert);
        let interval_ms = self.shared.bounds.log_interval_ms;
        if let Some(&at) = self.alerted.get(name)
            && now.ms_since(at) < interval_ms
        {
            return;
        }
        self.alerted.insert(name, now);
        tracing::warn!(alert = name, "{text}");
        let name = name.to_owned();
        self.remember(now, HistoryEvent::Alert { name, text });
    }

    /// The last heartbeat and the farewell get a moment to leave before the process may end.
    fn exit(&mut self) {
        if self.exiting {
            return;
        }
        self.exiting = true;
        self.net.leaving.store(true, Ordering::Relaxed);
        let inputs = self.net.links.inputs.clone();
        let pause = Duration::from_millis(self.shared.bounds.farewell_ms);
        for link in self.links.values() {
            // Where the queue is full the heartbeat says it.
            let _full = link.sender.frame(Frame::Farewell);
        }
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ended = inputs.send(Input::FarewellSaid).await;
        });
    }
}

fn alert_text(alert: Alert) -> (&'static str, String) {
    let text = |text: &str| text.to_owned();
    match alert {
        Alert::Unprotected => (
            "unprotected",
            text("this node serves, and nothing stands by"),
        ),
        Alert::PausedOverDeadPeer => (
            "paused-over-dead-peer",
            text("the peer seems dead, and automatic role changes are paused"),
        ),
        Alert::ConfirmNeeded { alert } => (
            "confirm-needed",
            format!("the peer seems dead: confirm or reject alert {alert}"),
        ),
        Alert::Quarantined => (
            "quarantined",
            text("roles changed too often: quarantine begins"),
        ),
        Alert::Fenced => ("fenced", text("this node stopped serving by itself")),
        Alert::WallClockJumped { by_ms } => (
            "wall-clock-jumped",
            format!("the wall clock was set by {by_ms} ms; roles do not depend on it"),
        ),
        Alert::Forced => ("forced", text("a promotion overrode rules")),
        Alert::DualPrimary => (
            "dual-primary",
            text("the peer claims to serve while this node does, too"),
        ),
        Alert::DiskFailed => ("disk-failed", text("the epoch file cannot be written")),
    }
}
