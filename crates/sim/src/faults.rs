//! Faults begin and end: processes die and start, power goes, engines fail, people give commands.
//!
//! Invariant: after the last fault has ended, both processes run, with their peer and their store
//! in reach.

use hotspare_failover::{BootTime, Command, Epoch, EpochFile, Event, Force, PortAnswer};
use hotspare_failover::{State, Ticket};

use crate::front::Front;
use crate::node::Node;
use crate::pauses::Pauses;
use crate::plan::{Bug, FaultKind};
use crate::world::{Happening, World};

impl World {
    pub(crate) fn fault_begins(&mut self, index: usize) {
        use FaultKind as F;
        let fault = self.plan.faults[index];
        let end = self.now + fault.for_ms;
        self.push(end, Happening::FaultEnds(index));
        self.note(0, || format!("-- {:?} for {} ms", fault.kind, fault.for_ms));
        self.mix(index as u64);
        match fault.kind {
            F::Kill(node) => self.kill(node, end, false),
            F::PowerLoss(node) => self.kill(node, end, true),
            F::Pause(node) => self.pause(node, end),
            F::LinkReset => self.reset_links(),
            F::WallClock(node) => self.give_now(node, Event::WallClockJumped { by_ms: 3_600_000 }),
            F::Terminate(node) => self.give_now(node, Event::Terminate),
            F::Switchover | F::FenceSelf | F::Demote => {
                let command = match fault.kind {
                    F::Switchover => Command::Switchover,
                    F::FenceSelf => Command::FenceSelf,
                    _ => Command::Demote { force: true },
                };
                if let Some(node) = self.nodes.iter().position(Node::serves) {
                    self.command_at(self.now, node, command);
                }
            }
            F::Promote(node) => {
                let command = Command::Promote {
                    force: Force {
                        gates: true,
                        ..Force::default()
                    },
                };
                self.command_at(self.now, node, command);
            }
            F::Paused(node) => self.command_at(self.now, node, Command::Pause { for_ms: None }),
            F::PausedAndKilled | F::PausedAndOff => {
                self.pause_and_kill(end, fault.kind == F::PausedAndOff);
            }
            F::Maintenance(node) => {
                self.command_at(self.now, node, Command::Maintenance { on: true });
            }
            F::Revoke => self.revoke(),
            _ => self.count_fault(fault.kind, true),
        }
    }

    pub(crate) fn fault_ends(&mut self, index: usize) {
        use FaultKind as F;
        match self.plan.faults[index].kind {
            F::Paused(node) => self.command_at(self.now, node, Command::Resume),
            F::Maintenance(node) => {
                self.command_at(self.now, node, Command::Maintenance { on: false });
            }
            kind => self.count_fault(kind, false),
        }
    }

    fn count_fault(&mut self, kind: FaultKind, begins: bool) {
        use FaultKind as F;
        let by = |count: &mut u32| {
            *count = if begins {
                *count + 1
            } else {
                count.saturating_sub(1)
            }
        };
        let (plan_loss, plan_delay) = (self.plan.loss_permille, self.plan.delay_ms);
        match kind {
            F::EngineLost(node) => {
                by(&mut self.nodes[node].engine.lost);
                self.tell_health(node);
            }
            F::EngineUnready(node) => {
                by(&mut self.nodes[node].engine.unready);
                self.tell_health(node);
            }
            F::GateBlocks(node) => {
                by(&mut self.nodes[node].engine.blocked);
                self.tell_gates(node);
            }
            F::OtherModel(node) => {
                by(&mut self.nodes[node].engine.other_model);
                self.tell_gates(node);
            }
            F::CutFrom(node) => by(&mut self.network.cut_from[node]),
            F::CutBoth => self.network.cut_from.iter_mut().for_each(by),
            F::Loss(permille) => {
                self.network.loss_permille = if begins { permille } else { plan_loss };
            }
            F::Delay(ms) => self.network.delay_ms = if begins { ms } else { plan_delay },
            F::StoreDown => by(&mut self.network.store_down),
            F::StoreUnreachable(node) => by(&mut self.network.store_cut[node]),
            F::StoreSlow(ms) => self.network.store_slow_ms = if begins { ms } else { 0 },
            F::DiskFails(node) => by(&mut self.nodes[node].disk.fails),
            F::DiskLies(node) => by(&mut self.nodes[node].disk.lies),
            _ => {}
        }
    }

    /// An operator pauses the node that serves; as soon as its peer may know, it dies. Nobody
    /// resumes before all faults have ended (`tidy_up`).
    fn pause_and_kill(&mut self, end: u64, power: bool) {
        let Some(node) = self.nodes.iter().position(Node::serves) else {
            return;
        };
        self.command_at(self.now, node, Command::Pause { for_ms: None });
        let at = self.now + self.rng.between(10, 3_000);
        let until = end.max(at);
        self.push(at, Happening::Die { node, until, power });
    }

    fn pause(&mut self, node: usize, end: u64) {
        let one = &mut self.nodes[node];
        let long = end - self.now >= one.settings.timers.dead_after_ms;
        one.paused_until = end.max(one.paused_until);
        if long && one.state.is_some() {
            one.stopped_until = Some(one.paused_until);
        }
    }

    fn give_now(&mut self, node: usize, event: Event) {
        let generation = self.nodes[node].generation;
        self.push(
            self.now,
            Happening::Give {
                node,
                generation,
                event: Box::new(event),
            },
        );
    }

    pub(crate) fn tell_gates(&mut self, node: usize) {
        if self.nodes[node].engine.loaded {
            let gates = self.nodes[node].engine.gates();
            self.give_now(node, Event::Gates(gates));
        }
    }

    pub(crate) fn tell_health(&mut self, node: usize) {
        let health = self.nodes[node].engine.health();
        self.give_now(node, Event::Health(health));
    }

    /// The process ends; with the power, what its disk had not got, too.
    pub(crate) fn kill(&mut self, node: usize, until: u64, power: bool) {
        let was_up = self.nodes[node].state.is_some();
        let one = &mut self.nodes[node];
        one.down_until = one.down_until.max(until);
        if power {
            one.powered = false;
            if one.disk.file != one.disk.durable && self.plan.bug != Some(Bug::SkipFsync) {
                one.disk.betrayed = true;
            }
            one.disk.file = one.disk.durable;
        }
        self.end_process(node);
        let at = self.nodes[node].down_until;
        self.push(at, Happening::Start { node });
        if was_up && !power && self.network.connected() {
            let at = self.now + 1 + self.rng.below(self.network.delay_ms);
            let generation = self.nodes[1 - node].generation;
            let event = Box::new(Event::LinkClosed);
            self.push(
                at,
                Happening::Give {
                    node: 1 - node,
                    generation,
                    event,
                },
            );
        }
    }

    pub(crate) fn end_process(&mut self, node: usize) {
        self.lose_streams(node);
        let one = &mut self.nodes[node];
        one.state = None;
        one.generation += 1;
        one.engine.loaded = false;
        one.admission = hotspare_failover::Admission::Closed;
        one.wake_at = u64::MAX;
        one.stopped_until = None;
        one.pauses = Pauses::default();
        one.front = Front {
            revoked: one.front.revoked,
            ..Front::default()
        };
    }

    /// The process ended as it was asked to; its supervisor starts it again.
    pub(crate) fn exit(&mut self, node: usize) {
        self.note(node, || "exits".to_owned());
        let at = self.now + self.rng.between(500, 10_000);
        self.nodes[node].down_until = self.nodes[node].down_until.max(at);
        self.end_process(node);
        let at = self.nodes[node].down_until;
        self.push(at, Happening::Start { node });
    }

    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].state.is_some() || self.now < self.nodes[node].down_until {
            return;
        }
        let one = &mut self.nodes[node];
        if !one.powered || one.generation == 0 {
            one.powered = true;
            one.clock.booted_at = self.now;
        }
        one.generation += 1;
        one.state = Some(State::new());
        let (file, generation) = (one.disk.file, one.generation);
        let boot = self.rng.bits() | 1;
        self.note(node, || format!("starts with {file:?}"));
        self.checker.started(node, file);
        self.give_now(node, Event::Started { boot, file });
        let at = self.now + self.rng.between(200, 4_000);
        self.push(at, Happening::Loaded { node, generation });
        self.push(self.now + 250, Happening::Tokens { node, generation });
    }

    /// Writes the epoch file, or says so.
    pub(crate) fn persist(&mut self, node: usize, ticket: Ticket, file: EpochFile) {
        let ok = self.nodes[node].disk.fails == 0;
        if ok {
            let skip = self.plan.bug == Some(Bug::SkipFsync);
            let generation = self.nodes[node].generation;
            let disk = &mut self.nodes[node].disk;
            disk.file = file;
            if skip {
                let at = self.now + self.rng.between(5_000, 30_000);
                self.push(at, Happening::Settle { node, generation });
            } else if disk.lies == 0 {
                disk.durable = file;
            }
        }
        let generation = self.nodes[node].generation;
        let at = self.now + self.rng.between(1, 30);
        let event = Box::new(Event::Persisted { ticket, ok });
        self.push(
            at,
            Happening::Give {
                node,
                generation,
                event,
            },
        );
    }

    fn reset_links(&mut self) {
        for node in 0..2 {
            self.give_now(node, Event::LinkClosed);
        }
    }

    /// What the peer's ports do: a host that is off says nothing, one without a process refuses.
    pub(crate) fn probe(&mut self, node: usize, generation: u64, ticket: Ticket) {
        let peer = &self.nodes[1 - node];
        let answer = if !self.network.connected() || !peer.powered {
            PortAnswer::Silent
        } else if peer.state.is_none() {
            PortAnswer::Refused
        } else if self.now < peer.paused_until {
            PortAnswer::Silent
        } else {
            PortAnswer::Answered
        };
        let timeout = self.nodes[node].settings.timers.probe_timeout_ms;
        let wait = match answer {
            PortAnswer::Silent => timeout,
            _ => (2 * self.rng.between(1, self.network.delay_ms.max(1))).min(timeout),
        };
        let event = Box::new(Event::Probed {
            ticket,
            ports: [answer; 2],
        });
        self.push(
            self.now + wait,
            Happening::Give {
                node,
                generation,
                event,
            },
        );
    }

    /// The node's boot-time clock.
    pub(crate) fn clock(&self, node: usize) -> BootTime {
        self.nodes[node].clock.read(self.now)
    }

    /// The highest epoch the node knows of.
    pub(crate) fn seen(&self, node: usize) -> Epoch {
        self.nodes[node]
            .state
            .as_ref()
            .map_or(Epoch::NONE, |state| state.epoch_file().seen)
    }
}
