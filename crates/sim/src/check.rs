//! The checkers: what must hold at every instant, at every change of role, and at the end.
//!
//! They know true time and everything that happened, and use nothing of the machine but what its
//! users see. Numbers are those of docs/FAILOVER.md.
//!
//! Invariant: a checker excuses only what no software can prevent (a disk that lies and then loses
//! its power), and says so.

use std::collections::{BTreeMap, BTreeSet};

use hotspare_failover::{Admission, Cause, Epoch, EpochFile, Event, Mode, Role};

use crate::node::Node;
use crate::plan::Plan;
use crate::world::World;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// When, in milliseconds.
    pub at_ms: u64,
    /// What was seen.
    pub what: String,
}

/// What the checkers remember.
pub(crate) struct Checker {
    pub(crate) violation: Option<Violation>,
    strict: bool,
    used: BTreeSet<Epoch>,
    own_last: [Epoch; 2],
    promoted_for: [Option<Cause>; 2],
    known: [Epoch; 2],
    /// Automatic changes that rested on silence or sickness, by node.
    changes: [Vec<u64>; 2],
    both_full_since: Option<u64>,
    pub(crate) revoked: bool,
    requests: BTreeMap<u64, Progress>,
    billed: BTreeSet<u64>,
    closed_since: Option<u64>,
    pub(crate) longest_outage_ms: u64,
    pub(crate) num_promotions: u64,
    pub(crate) transitions: BTreeSet<(Role, Role, Cause)>,
    pub(crate) num_finished: u64,
    pub(crate) num_failed: u64,
    last_finished_begun_at: u64,
}

#[derive(Default)]
struct Progress {
    length: u32,
    next: u32,
    audited: bool,
    begun_at: u64,
}

impl Checker {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            violation: None,
            strict: plan.settings[0].mode == Mode::Strict,
            used: BTreeSet::new(),
            own_last: [Epoch::NONE; 2],
            promoted_for: [None; 2],
            known: [Epoch::NONE; 2],
            changes: [Vec::new(), Vec::new()],
            both_full_since: None,
            revoked: false,
            requests: BTreeMap::new(),
            billed: BTreeSet::new(),
            closed_since: None,
            longest_outage_ms: 0,
            num_promotions: 0,
            transitions: BTreeSet::new(),
            num_finished: 0,
            num_failed: 0,
            last_finished_begun_at: 0,
        }
    }

    pub(crate) fn fail(&mut self, invariant: &'static str, at_ms: u64, what: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation {
                invariant,
                at_ms,
                what,
            });
        }
    }

    pub(crate) fn started(&mut self, node: usize, file: EpochFile) {
        self.known[node] = file.seen;
        self.changes[node].clear();
    }

    pub(crate) fn begun(&mut self, request: u64, length: u32, begun_at: u64) {
        self.requests.insert(
            request,
            Progress {
                length,
                begun_at,
                ..Progress::default()
            },
        );
    }

    pub(crate) fn audited(&mut self, request: u64) {
        if let Some(progress) = self.requests.get_mut(&request) {
            progress.audited = true;
        }
    }

    pub(crate) fn has_tokens(&self, request: u64) -> bool {
        self.requests
            .get(&request)
            .is_some_and(|progress| progress.next > 0)
    }

    /// I3 and I10: the client sees the tokens from `first` up to `end`.
    pub(crate) fn tokens(&mut self, request: u64, first: u32, end: u32) {
        let Some(progress) = self.requests.get_mut(&request) else {
            return;
        };
        let (next, audited) = (progress.next, progress.audited);
        progress.next = next.max(end);
        if first != next {
            let what = format!("request {request}: token {first} follows {next} delivered ones");
            self.fail("I3", 0, what);
        } else if !audited {
            self.fail("I10", 0, format!("request {request} is in no audit log"));
        }
    }

    /// I3 and I4: the request has ended.
    pub(crate) fn finished(&mut self, request: u64, whole: bool) {
        let Some(progress) = self.requests.remove(&request) else {
            self.fail("I4", 0, format!("request {request} ended twice"));
            return;
        };
        if !whole {
            self.num_failed += 1;
            return;
        }
        self.num_finished += 1;
        self.last_finished_begun_at = self.last_finished_begun_at.max(progress.begun_at);
        if progress.next != progress.length {
            let what = format!("request {request} finished with {} tokens", progress.next);
            self.fail("I3", 0, what);
        }
        if !self.billed.insert(request) {
            self.fail("I4", 0, format!("request {request} billed twice"));
        }
    }
}

impl World {
    /// Whether the node's clock shows that it did not sleep: a long stop has ended, and since then
    /// it has stopped serving, or heard what its peer sent after it, or had the time to.
    pub(crate) fn note_revalidation(&mut self, node: usize, sent_at: Option<u64>) {
        let one = &mut self.nodes[node];
        if let Some(end) = one.stopped_until {
            let heard = sent_at.is_some_and(|at| at > end);
            let waited = self.now > end + one.settings.timers.dead_after_ms * 9 / 10;
            if self.now >= end && (heard || waited || !one.serves()) {
                one.stopped_until = None;
            }
        }
    }

    /// True time at which a heartbeat was sent.
    pub(crate) fn sent_at(&self, node: usize, event: &Event) -> Option<u64> {
        match event {
            Event::Heartbeat(heartbeat) => Some(self.nodes[1 - node].clock.when(heartbeat.sent_at)),
            _ => None,
        }
    }

    /// I1, I5, I6: after everything that happens.
    pub(crate) fn check_gates(&mut self) {
        let (now, bug) = (self.now, self.plan.bug);
        if let Some(violation) = &mut self.checker.violation {
            violation.at_ms = now;
            return;
        }
        let open = [0, 1].map(|node: usize| self.nodes[node].admits(now, bug));
        self.measure_outage(open);
        if open == [true, true] {
            if self.checker.strict {
                self.checker
                    .fail("I1", now, "both nodes admit under a lease".to_owned());
            }
            self.check_shares();
        } else {
            self.checker.both_full_since = None;
        }
        for node in 0..2 {
            let one = &self.nodes[node];
            if open[node] && one.stopped_until.is_some_and(|end| now >= end) {
                let what = format!("{} admits after a stop, unasked", ["a", "b"][node]);
                self.checker.fail("I1", now, what);
            }
            if open[node] && self.checker.revoked && !one.front.revoked {
                let what = format!("{} admits a revoked key", ["a", "b"][node]);
                self.checker.fail("I6", now, what);
            }
        }
    }

    /// I5: two nodes that admit for longer than it takes to notice grant half the limits each.
    fn check_shares(&mut self) {
        let shares: u32 = self
            .nodes
            .iter()
            .filter_map(|one| {
                one.state
                    .as_ref()
                    .map(|s| s.limit_share_percent(&one.settings))
            })
            .map(u32::from)
            .sum();
        if shares <= 100 {
            self.checker.both_full_since = None;
            return;
        }
        let timers = &self.plan.settings[0].timers;
        let limit = timers.dead_after_ms + timers.suspect_after_ms + 2 * self.network.delay_ms;
        let since = *self.checker.both_full_since.get_or_insert(self.now);
        if self.now - since > limit {
            let what = format!("both grant {shares} % of the limits for {limit} ms");
            self.checker.fail("I5", self.now, what);
        }
    }

    fn measure_outage(&mut self, open: [bool; 2]) {
        let checker = &mut self.checker;
        if open.contains(&true) {
            if let Some(since) = checker.closed_since.take() {
                checker.longest_outage_ms = checker.longest_outage_ms.max(self.now - since);
            }
        } else if checker.num_promotions > 0 {
            checker.closed_since.get_or_insert(self.now);
        }
    }

    /// I2, I7, I9: at every change of role.
    pub(crate) fn check_role(
        &mut self,
        node: usize,
        from: Role,
        to: Role,
        epoch: Epoch,
        cause: Cause,
    ) {
        self.checker.transitions.insert((from, to, cause));
        self.check_flapping(node, from, to, cause);
        self.check_pause(node, from, to, cause);
        if (from, to) != (Role::Promoting, Role::PrimarySolo) {
            return;
        }
        let now = self.now;
        self.checker.num_promotions += 1;
        let highest = self.checker.used.last().copied().unwrap_or(Epoch::NONE);
        let excused = self.nodes[node].disk.betrayed && !self.checker.strict;
        let grows = if self.checker.strict {
            epoch > highest
        } else {
            epoch > self.checker.own_last[node].max(self.checker.known[node])
        };
        if !excused && (!grows || self.checker.used.contains(&epoch)) {
            let what = format!(
                "epoch {epoch} after {highest}, own {}",
                self.checker.own_last[node]
            );
            self.checker.fail("I2", now, what);
        }
        self.checker.used.insert(epoch);
        self.checker.own_last[node] = epoch;
    }

    /// I7: who is promoted has the model, or is known to be degraded.
    pub(crate) fn check_model(&mut self, node: usize, cause: Cause) {
        let chosen = !matches!(
            cause,
            Cause::PeerDeadDegraded
                | Cause::TakeBack
                | Cause::EpochBehind
                | Cause::Promote
                | Cause::Confirmed
                | Cause::ConfirmTimedOut
        );
        let told = self.nodes[node].state.as_ref().is_some_and(|state| {
            state
                .gates()
                .iter()
                .any(|gate| gate.name == "model" && !gate.reason.is_empty())
        });
        if told && chosen {
            self.checker.fail(
                "I7",
                self.now,
                format!("promoted with another model: {cause:?}"),
            );
        }
    }

    /// I9: changes that rest on sickness or on silence of a peer that lived.
    fn check_flapping(&mut self, node: usize, from: Role, to: Role, cause: Cause) {
        // Who has served already goes on with the model it has.
        let chosen = from != Role::Fenced && to == Role::Promoting;
        if chosen && self.nodes[node].engine.other_model > 0 {
            self.check_model(node, cause);
        }
        if to == Role::Promoting {
            self.checker.promoted_for[node] = Some(cause);
        }
        let silent = (from, to) == (Role::Promoting, Role::PrimarySolo)
            && self.checker.promoted_for[node] == Some(Cause::PeerDead);
        let peer_lives = self.nodes[1 - node].runs(self.now);
        if cause != Cause::EngineUnready && !(silent && peer_lives) {
            return;
        }
        let settings = &self.nodes[node].settings;
        let (timers, now) = (&settings.timers, self.now);
        let in_quarantine = timers.flap_window_ms / timers.quarantine_dead_after_ms;
        let limit = u64::from(settings.max_role_changes) + in_quarantine + 1;
        let changes = &mut self.checker.changes[node];
        changes.retain(|&at| now - at < timers.flap_window_ms);
        changes.push(now);
        if changes.len() as u64 > limit {
            self.checker.fail(
                "I9",
                now,
                format!("more than {limit} changes in a flap window"),
            );
        }
    }

    /// I8, and what was left open: at the end of the quiet time.
    pub(crate) fn check_end(&mut self) {
        let now = self.plan.end_ms;
        self.now = now;
        let serving: Vec<usize> = (0..2)
            .filter(|&n| matches!(self.nodes[n].admission, Admission::Open { .. }))
            .collect();
        let roles = self
            .nodes
            .each_ref()
            .map(|one| one.state.as_ref().map(|s| s.role().name()));
        if serving.len() != 1 {
            self.checker
                .fail("I8", now, format!("at the end: {roles:?}"));
        }
        let other = serving.first().map_or(0, |&node| 1 - node);
        if !self.nodes[other].stands_by() || !self.nodes.iter().any(Node::serves) {
            self.checker
                .fail("I8", now, format!("no standby at the end: {roles:?}"));
        }
        // Whatever began before the quiet time has ended by now.
        let hold = self.plan.settings[0].timers.takeover_hold_ms;
        let waiting = self
            .checker
            .requests
            .values()
            .filter(|p| p.begun_at + 4 * hold < now && p.begun_at + 100_000 < now);
        let left = waiting.count();
        if left > 0 {
            self.checker
                .fail("I3", now, format!("{left} requests never ended"));
        }
        if self.checker.num_finished == 0 {
            self.checker
                .fail("I8", now, "no request was ever answered".to_owned());
        }
    }
}
