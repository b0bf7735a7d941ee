//! What the driver does with the peer's words, and with links that come and go.
//!
//! Invariant: a link's end is told to the machine only where it may mean death: without a farewell,
//! of the peer's present process, and with no other link of it that was heard lately.

use std::sync::Arc;

use hotspare_failover::{BootTime, Event};

use crate::driver::{Driver, Link, PeerNews};
use crate::heard::News;
use crate::link::{LinkEnd, LinkId, LinkSender};
use crate::noise::Hello;
use crate::shared::lock;
use crate::view::{HistoryEntry, HistoryEvent, PairView, PeerView};
use crate::wire::{Frame, WireHeartbeat};

impl Driver {
    /// A heartbeat, over whichever plane.
    pub(crate) fn hear(&mut self, message: WireHeartbeat) {
        let now = self.shared.clock.now();
        match self.heard.judge(&message.heartbeat, now) {
            News::Duplicate => self.counters.num_duplicate_heartbeats += 1,
            News::Replay => self.counters.num_replays += 1,
            News::Stranger => {}
            News::Unproven => self.give(Event::Heartbeat(message.heartbeat)),
            News::Known => {
                self.counters.num_heartbeats_heard += 1;
                self.peer = Some(PeerNews {
                    node: message.node,
                    boot: message.heartbeat.boot,
                    facts: message.facts.bounded(),
                    gates: message.gates,
                });
                self.give(Event::Heartbeat(message.heartbeat));
            }
        }
    }

    pub(crate) fn link_up(
        &mut self,
        id: LinkId,
        hello: &Hello,
        accepted: bool,
        sender: LinkSender,
    ) {
        if let Some(last) = &self.last_sent {
            sender.heartbeat(last);
        }
        if self.links.is_empty() {
            let node = &hello.node;
            tracing::info!(node, accepted, "a link to the peer is up");
        }
        let link = Link {
            sender,
            boot: hello.boot,
            accepted,
            heard_at: self.shared.clock.now(),
            farewell: false,
        };
        self.links.insert(id, link);
        let num_accepted = self.links.values().filter(|link| link.accepted).count();
        if num_accepted > self.net.bounds.max_num_links {
            let oldest = self.links.iter().find(|(_, link)| link.accepted);
            if let Some(oldest) = oldest.map(|(&id, _)| id) {
                self.links.remove(&oldest);
            }
        }
        self.shared.replicated.meet(Some(hello.boot));
        self.pump_replica();
    }

    pub(crate) fn link_down(&mut self, id: LinkId, end: LinkEnd) {
        // One that this node closed is not in the table any more.
        let Some(gone) = self.links.remove(&id) else {
            return;
        };
        if self.links.is_empty() {
            let farewell = gone.farewell;
            tracing::info!(?end, farewell, "the last link to the peer ended");
        }
        self.shared.replicated.meet(self.newest_boot());
        self.resend_at = None;
        self.pump_replica();
        if gone.farewell || end != LinkEnd::Cut {
            return;
        }
        self.counters.num_links_lost += 1;
        let now = self.shared.clock.now();
        let fresh_ms = self.shared.settings.timers.suspect_after_ms;
        let another = self
            .links
            .values()
            .any(|link| link.boot == gone.boot && now.ms_since(link.heard_at) < fresh_ms);
        if !another && self.heard.boot() == Some(gone.boot) {
            self.give(Event::LinkClosed);
        }
    }

    /// The process at the other end of the link that came last.
    fn newest_boot(&self) -> Option<u64> {
        self.links.values().next_back().map(|link| link.boot)
    }

    pub(crate) fn frame(&mut self, id: LinkId, frame: Frame) {
        let now = self.shared.clock.now();
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.heard_at = now;
        match frame {
            Frame::Heartbeat(message) => self.hear(*message),
            Frame::Farewell => link.farewell = true,
            Frame::Replica(batch) => {
                let seen = self.state.epoch_file().seen;
                let ack = self.shared.replicated.receive(batch, seen);
                // An acknowledgement that is lost is asked for again.
                let _full = link.sender.frame(Frame::ReplicaAck(ack));
            }
            Frame::ReplicaAck(ack) => {
                if ack.stale.is_none() {
                    self.resend_at = None;
                }
                self.shared.replicated.take_ack(&ack);
                self.pump_replica();
            }
        }
    }

    /// Sends what the peer does not have, over the link that was heard last.
    pub(crate) fn pump_replica(&mut self) {
        let replicated = self.shared.replicated.clone();
        let now = self.shared.clock.now();
        let Some(boot) = self.newest_boot() else {
            return;
        };
        let link = self
            .links
            .values()
            .filter(|link| link.boot == boot)
            .max_by_key(|link| link.heard_at);
        let Some(link) = link else { return };
        let (epoch, bounds) = (self.state.epoch_file().seen, &self.shared.bounds);
        while let Some(batch) = replicated.next_batch(
            epoch,
            bounds.replica_batch_bytes,
            bounds.max_num_replica_batches,
        ) {
            if !link.sender.frame(Frame::Replica(batch)) {
                break;
            }
        }
        if replicated.is_waiting() && self.resend_at.is_none() {
            self.resend_at = Some(now.after(bounds.replica_resend_ms));
        }
    }

    pub(crate) fn remember(&mut self, now: BootTime, event: HistoryEvent) {
        let entry = HistoryEntry {
            wall_ms: self.shared.clock.wall_ms(),
            boot_ms: now.ms(),
            event,
        };
        self.shared.records.history(entry.clone());
        self.history.push_back(entry);
        while self.history.len() > self.shared.bounds.max_num_history_entries {
            self.history.pop_front();
        }
        self.shown_history = self.history.iter().cloned().collect();
    }

    /// Shows the picture after a step.
    pub(crate) fn publish(&mut self, now: BootTime) {
        let settings = &self.shared.settings;
        let state = &self.state;
        let file = state.epoch_file();
        let may_write = state.may_write(settings);
        let view = Arc::new(PairView {
            node: self.shared.node.clone(),
            role: state.role(),
            since: state.since(),
            epoch: state.epoch(),
            seen: file.seen,
            mode: settings.mode,
            admission: state.admission(settings),
            health: state.health(),
            eligibility: state.eligibility(),
            gates: state.gates().to_vec(),
            overlays: state.overlays(now),
            operation: state.operation(),
            alert: state.waiting_alert(),
            may_write,
            limit_share_percent: state.limit_share_percent(settings),
            peer: self.peer_view(),
            num_links: self.links.len(),
            history: Arc::clone(&self.shown_history),
            num_tasks: tokio::runtime::Handle::try_current()
                .map_or(0, |runtime| runtime.metrics().num_alive_tasks()),
            counters: self.counters(),
        });
        let writes_in = may_write.then(|| state.epoch());
        self.shared.replicated.set_writes_in(writes_in);
        *lock(&self.shared.state) = Arc::new(state.clone());
        let news = view.differs(&self.shared.changes.borrow());
        self.shared.view.send_replace(Arc::clone(&view));
        if news {
            self.shared.changes.send_replace(view);
        }
    }

    fn peer_view(&self) -> Option<PeerView> {
        let (heartbeat, last_heard) = self.state.peer()?;
        let news = self.peer.as_ref().filter(|p| p.boot == heartbeat.boot);
        Some(PeerView {
            node: news.map(|p| p.node.clone()).unwrap_or_default(),
            boot: heartbeat.boot,
            role: heartbeat.role,
            epoch: heartbeat.epoch,
            eligibility: heartbeat.eligibility,
            health: heartbeat.health,
            leaving: heartbeat.leaving,
            gates: news.map(|p| p.gates.clone()).unwrap_or_default(),
            facts: news.map(|p| p.facts.clone()).unwrap_or_default(),
            last_heard,
        })
    }
}
