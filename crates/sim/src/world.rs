//! The world: true time, a queue of what will happen, two nodes, a network and a lease store.
//!
//! Invariant: everything that happens is taken from the queue in the order of time, then of
//! scheduling, and all chance comes from one seeded stream: a plan gives one run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hotspare_failover::{
    Action, Alert, Event, Heartbeat, LeaseCall, LeaseRecord, LeaseReply, Ticket, step,
};

use crate::check::Checker;
use crate::clients::Clients;
use crate::front::Message;
use crate::network::Network;
use crate::node::Node;
use crate::pauses::Word;
use crate::plan::{Bug, Plan};
use crate::rng::Rng;

/// Something that will happen.
pub(crate) enum Happening {
    /// A process gets an event; dropped when it is another process by then.
    Give {
        node: usize,
        generation: u64,
        event: Box<Event>,
    },
    /// A heartbeat arrives.
    Arrive {
        node: usize,
        heartbeat: Box<Heartbeat>,
    },
    /// A message between fronts arrives.
    Front {
        node: usize,
        message: Message,
    },
    /// The driver's timer.
    Wake {
        node: usize,
        generation: u64,
    },
    /// A call arrives at the lease store.
    Store {
        node: usize,
        generation: u64,
        ticket: Ticket,
        call: LeaseCall,
    },
    /// Both ports of a node have been probed.
    Probe {
        node: usize,
        generation: u64,
        ticket: Ticket,
    },
    /// What a disk without fsync had in its cache reaches the platter.
    Settle {
        node: usize,
        generation: u64,
    },
    FaultBegins(usize),
    FaultEnds(usize),
    /// A process ends, or with `power` its machine.
    Die {
        node: usize,
        until: u64,
        power: bool,
    },
    /// A process starts.
    Start {
        node: usize,
    },
    /// Its model is loaded.
    Loaded {
        node: usize,
        generation: u64,
    },
    /// A person looks.
    Operator,
    /// A client does something.
    Client {
        request: u64,
    },
    /// Streams of a front go on.
    Tokens {
        node: usize,
        generation: u64,
    },
}

struct Entry {
    at: u64,
    order: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The whole simulated world.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    queue: BinaryHeap<Reverse<Entry>>,
    order: u64,
    pub(crate) nodes: [Node; 2],
    pub(crate) network: Network,
    pub(crate) record: LeaseRecord,
    pub(crate) checker: Checker,
    pub(crate) clients: Clients,
    pub(crate) num_operations: u128,
    pub(crate) num_events: u64,
    /// Lines of the trace, where somebody wants to read them.
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) hash: u64,
}

impl World {
    pub(crate) fn new(plan: Plan, trace: bool) -> Self {
        let rng = Rng::new(plan.seed ^ 0x00C0_FFEE);
        let nodes = [0, 1].map(|index: usize| {
            let mut settings = plan.settings[index].clone();
            match plan.bug {
                Some(Bug::LateTimerIgnored) => settings.timers.timer_late_ms = 3_600_000,
                Some(Bug::LeaseMargin) => {
                    settings.timers.renew_deadline_ms = settings.timers.lease_ttl_ms * 3 / 2;
                }
                _ => {}
            }
            Node::new(settings, plan.drift[index])
        });
        let mut world = Self {
            now: 0,
            rng,
            queue: BinaryHeap::new(),
            order: 0,
            nodes,
            network: Network::new(&plan),
            record: LeaseRecord::default(),
            checker: Checker::new(&plan),
            clients: Clients::default(),
            num_operations: 0,
            num_events: 0,
            trace: trace.then(Vec::new),
            hash: 0xCBF2_9CE4_8422_2325,
            plan,
        };
        for index in 0..world.plan.faults.len() {
            let fault = world.plan.faults[index];
            world.push(fault.at_ms, Happening::FaultBegins(index));
        }
        for node in 0..2 {
            let at = world.rng.below(3_000);
            world.push(at, Happening::Start { node });
        }
        world.push(2_000, Happening::Operator);
        world.push(5_000, Happening::Client { request: 0 });
        world
    }

    pub(crate) fn push(&mut self, at: u64, what: Happening) {
        self.order += 1;
        let order = self.order;
        self.queue.push(Reverse(Entry {
            at: at.max(self.now),
            order,
            what,
        }));
    }

    /// Runs to the end of the plan, or to the first violation.
    pub(crate) fn run(&mut self) {
        while let Some(Reverse(entry)) = self.queue.pop() {
            if entry.at > self.plan.end_ms || self.checker.violation.is_some() {
                break;
            }
            self.now = entry.at;
            self.num_events += 1;
            self.happen(entry.what);
            self.check_gates();
        }
        if self.checker.violation.is_none() {
            self.check_end();
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Give {
                node,
                generation,
                event,
            } => {
                if self.is_current(node, generation) {
                    // What the node tells itself stays in order.
                    if self.delayed(node).is_some() {
                        let at = self.nodes[node].paused_until;
                        self.push(
                            at,
                            Happening::Give {
                                node,
                                generation,
                                event,
                            },
                        );
                    } else {
                        let event = self.nodes[node].engine.as_it_is(*event);
                        self.give(node, event);
                    }
                }
            }
            Happening::Arrive { node, heartbeat } => {
                if let Some(at) = self.delayed(node) {
                    self.push(at, Happening::Arrive { node, heartbeat });
                } else {
                    self.give(node, Event::Heartbeat(*heartbeat));
                }
            }
            Happening::Front { node, message } => {
                if let Some(at) = self.delayed(node) {
                    self.push(at, Happening::Front { node, message });
                } else {
                    self.front_message(node, message);
                }
            }
            Happening::Wake { node, generation } => self.wake(node, generation),
            Happening::Store {
                node,
                generation,
                ticket,
                call,
            } => {
                self.call_store(node, generation, ticket, call);
            }
            Happening::Probe {
                node,
                generation,
                ticket,
            } => self.probe(node, generation, ticket),
            Happening::Settle { node, generation } => {
                if self.nodes[node].powered && self.is_current(node, generation) {
                    self.nodes[node].disk.durable = self.nodes[node].disk.file;
                }
            }
            Happening::FaultBegins(index) => self.fault_begins(index),
            Happening::FaultEnds(index) => self.fault_ends(index),
            Happening::Die { node, until, power } => self.kill(node, until, power),
            Happening::Start { node } => self.start(node),
            Happening::Loaded { node, generation } => self.loaded(node, generation),
            Happening::Operator => self.operator(),
            Happening::Client { request } => self.client(request),
            Happening::Tokens { node, generation } => self.tokens(node, generation),
        }
    }

    fn loaded(&mut self, node: usize, generation: u64) {
        if self.is_current(node, generation) {
            self.nodes[node].engine.loaded = true;
            self.tell_gates(node);
            self.tell_health(node);
        }
    }

    pub(crate) fn is_current(&self, node: usize, generation: u64) -> bool {
        self.nodes[node].generation == generation && self.nodes[node].state.is_some()
    }

    /// What comes to a stopped process waits in its sockets; in which order it looks at them, the
    /// dice say.
    pub(crate) fn delayed(&mut self, node: usize) -> Option<u64> {
        let until = self.nodes[node].paused_until;
        (self.nodes[node].state.is_some() && self.now < until).then(|| until + self.rng.below(3))
    }

    fn wake(&mut self, node: usize, generation: u64) {
        if !self.is_current(node, generation) {
            return;
        }
        if let Some(at) = self.delayed(node) {
            self.push(at, Happening::Wake { node, generation });
            return;
        }
        self.nodes[node].wake_at = u64::MAX;
        self.give(node, Event::Timer);
    }

    /// Steps a machine and does what it wants done.
    pub(crate) fn give(&mut self, node: usize, event: Event) {
        let Some(state) = self.nodes[node].state.take() else {
            return;
        };
        let clock = self.nodes[node].clock.read(self.now);
        let fresh = self.sent_at(node, &event);
        let said = Word::of(&event);
        let event = self.passed_on(event);
        let (state, actions) = step(&self.nodes[node].settings, state, event, clock);
        if let Some(said) = said {
            let pauses = &mut self.nodes[node].pauses;
            pauses.note(&said, &state, &actions, self.now);
        }
        self.nodes[node].admission = state.admission(&self.nodes[node].settings);
        let wake = self.nodes[node]
            .clock
            .when(state.wakeup_at())
            .max(self.now + 1);
        self.nodes[node].state = Some(state);
        self.note_revalidation(node, fresh);
        for action in actions {
            self.act(node, action);
        }
        if self.nodes[node].state.is_some() && wake < self.nodes[node].wake_at {
            self.nodes[node].wake_at = wake;
            let generation = self.nodes[node].generation;
            let at = wake + self.rng.below(3);
            self.push(at, Happening::Wake { node, generation });
        }
    }

    /// What the driver makes of an event.
    fn passed_on(&self, event: Event) -> Event {
        match event {
            Event::Heartbeat(heartbeat) if self.plan.bug == Some(Bug::PauseUntold) => {
                Event::Heartbeat(Heartbeat {
                    paused: false,
                    ..heartbeat
                })
            }
            event => event,
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        let generation = self.nodes[node].generation;
        let soon = self.now + self.rng.between(1, 20);
        let mut answer = |at, event| {
            self.order += 1;
            let order = self.order;
            let what = Happening::Give {
                node,
                generation,
                event: Box::new(event),
            };
            self.queue.push(Reverse(Entry { at, order, what }));
        };
        match action {
            Action::Send(heartbeat) => self.send_heartbeat(node, &heartbeat),
            Action::Persist { ticket, file } => self.persist(node, ticket, file),
            Action::Lease { ticket, call } => {
                if let Some(at) = self.network.to_store(node, self.now, &mut self.rng) {
                    self.push(
                        at,
                        Happening::Store {
                            node,
                            generation,
                            ticket,
                            call,
                        },
                    );
                }
            }
            Action::Probe { ticket } => {
                let at = self.now + self.nodes[node].settings.timers.probe_gap_ms;
                self.push(
                    at,
                    Happening::Probe {
                        node,
                        generation,
                        ticket,
                    },
                );
            }
            Action::Flush { ticket } => {
                if self.network.connected() {
                    let at = soon + 2 * self.network.delay_ms;
                    answer(at, Event::Flushed { ticket });
                }
            }
            Action::Hooks { ticket, .. } => {
                let ok = !self.rng.chance(50);
                answer(soon + 100, Event::HooksDone { ticket, ok });
            }
            Action::RoleChanged {
                from,
                to,
                epoch,
                cause,
                ..
            } => {
                self.note(node, || {
                    format!("{from} -> {to}: {}, epoch {epoch}", cause.text())
                });
                self.mix(node as u64 + 7 * to as u64 + 131 * epoch.number());
                self.check_role(node, from, to, epoch, cause);
            }
            Action::Alert(Alert::ConfirmNeeded { alert }) => self.person_answers(node, alert),
            Action::Alert(_) => {}
            Action::Reply { outcome, .. } => self.note(node, || format!("answer: {outcome:?}")),
            Action::Exit => self.exit(node),
        }
    }

    fn call_store(&mut self, node: usize, generation: u64, ticket: Ticket, call: LeaseCall) {
        if !self.network.store_answers(node) {
            return;
        }
        let rank = self.nodes[node].settings.rank;
        let reply = match call.apply(rank, self.record) {
            Some(record) => {
                self.record = record;
                LeaseReply::Granted(record)
            }
            None if call == LeaseCall::Observe => LeaseReply::Observed(self.record),
            None => LeaseReply::Refused(self.record),
        };
        self.mix(self.record.revision);
        if let Some(at) = self.network.to_store(node, self.now, &mut self.rng) {
            let event = Box::new(Event::Lease { ticket, reply });
            self.push(
                at,
                Happening::Give {
                    node,
                    generation,
                    event,
                },
            );
        }
    }

    fn send_heartbeat(&mut self, node: usize, heartbeat: &Heartbeat) {
        for at in self
            .network
            .deliveries(node, self.now, &mut self.rng)
            .into_iter()
            .flatten()
        {
            let heartbeat = Box::new(*heartbeat);
            self.push(
                at,
                Happening::Arrive {
                    node: 1 - node,
                    heartbeat,
                },
            );
        }
    }

    pub(crate) fn note(&mut self, node: usize, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let name = ["a", "b"][node];
            trace.push(format!(
                "{:>9.3} s  {name}  {}",
                self.now as f64 / 1000.0,
                line()
            ));
        }
    }

    pub(crate) fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value ^ (self.now << 20)).wrapping_mul(0x0000_0100_0000_01B3);
    }
}
