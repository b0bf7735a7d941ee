//! Every schedule of a small world: two nodes and a store in lock step, one tick at a time, and an
//! adversary who may change what is wrong a few times, at any tick, to anything.
//!
//! The real machine runs in it, with the timers of profile lan; a tick is a heartbeat interval. The
//! search goes depth first over (tick, state) pairs and enters each of them once.
//!
//! Invariant: the adversary's last change is back to "nothing", early enough for the pair to
//! recover.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use hotspare_failover::{
    Action, BootTime, Epoch, EpochFile, Event, Gate, Heartbeat, LeaseCall, LeaseRecord, LeaseReply,
    Mode, PortAnswer, Profile, Role, Settings, State, step,
};

/// How often, and until when, the adversary may change what is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Changes, the last one back to "nothing" not counted.
    pub max_changes: u32,
    /// Ticks in which changes may happen.
    pub num_fault_ticks: u64,
}

/// What the search found.
#[derive(Clone, Debug)]
pub struct Explored {
    /// Different (tick, state) pairs.
    pub num_states: usize,
    /// Ticks that were computed.
    pub num_transitions: u64,
    /// Ticks of the longest schedule.
    pub depth: u64,
    /// The first violation, with the schedule that leads to it.
    pub violation: Option<String>,
}

/// What is wrong at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wrong {
    Nothing,
    CutFrom(usize),
    CutBoth,
    Late,
    Stopped(usize),
    Dead(usize),
    Off(usize),
    StoreDown,
    StoreCut(usize),
}

const WRONGS: [Wrong; 14] = [
    Wrong::Nothing,
    Wrong::CutFrom(0),
    Wrong::CutFrom(1),
    Wrong::CutBoth,
    Wrong::Late,
    Wrong::Stopped(0),
    Wrong::Stopped(1),
    Wrong::Dead(0),
    Wrong::Dead(1),
    Wrong::Off(0),
    Wrong::Off(1),
    Wrong::StoreDown,
    Wrong::StoreCut(0),
    Wrong::StoreCut(1),
];

/// Ticks before the first change, in which the pair comes up, and after the last, to recover.
const NUM_START_TICKS: u64 = 24;
const NUM_END_TICKS: u64 = 60;

#[derive(Clone, Hash)]
struct SmallNode {
    state: Option<State>,
    disk: EpochFile,
    num_boots: u64,
    inbox: Vec<Heartbeat>,
}

#[derive(Clone, Hash)]
struct Small {
    tick: u64,
    wrong: Wrong,
    num_changes: u32,
    nodes: [SmallNode; 2],
    record: LeaseRecord,
    last_epochs: [Epoch; 2],
    highest: Epoch,
    violation: Option<&'static str>,
}

struct Search {
    settings: [Settings; 2],
    gates: Arc<[Gate]>,
    bounds: Bounds,
    seen: BTreeSet<u64>,
    num_transitions: u64,
    path: Vec<(u64, Wrong)>,
    violation: Option<String>,
}

/// Walks every schedule within `bounds` in `mode`.
#[must_use]
pub fn explore(mode: Mode, bounds: Bounds) -> Explored {
    let mut search = Search {
        settings: [
            Settings::pair(1, 2, mode, Profile::Lan),
            Settings::pair(2, 1, mode, Profile::Lan),
        ],
        gates: Arc::from([Gate::pass("model")]),
        bounds,
        seen: BTreeSet::new(),
        num_transitions: 0,
        path: Vec::new(),
        violation: None,
    };
    let node = SmallNode {
        state: None,
        disk: EpochFile::default(),
        num_boots: 0,
        inbox: vec![],
    };
    let mut start = Small {
        tick: 0,
        wrong: Wrong::Nothing,
        num_changes: 0,
        nodes: [node.clone(), node],
        record: LeaseRecord::default(),
        last_epochs: [Epoch::NONE; 2],
        highest: Epoch::NONE,
        violation: None,
    };
    while start.tick < NUM_START_TICKS {
        search.tick(&mut start);
    }
    search.visit(start);
    Explored {
        num_states: search.seen.len(),
        num_transitions: search.num_transitions,
        depth: NUM_START_TICKS + bounds.num_fault_ticks + NUM_END_TICKS,
        violation: search.violation,
    }
}

impl Search {
    fn visit(&mut self, small: Small) {
        let mut hasher = DefaultHasher::new();
        small.hash(&mut hasher);
        if self.violation.is_some() || !self.seen.insert(hasher.finish()) {
            return;
        }
        let faults_end = NUM_START_TICKS + self.bounds.num_fault_ticks;
        if small.tick >= faults_end {
            self.recover(small);
            return;
        }
        for wrong in WRONGS {
            let changes = wrong != small.wrong;
            if changes && small.num_changes >= self.bounds.max_changes {
                continue;
            }
            let mut next = small.clone();
            if changes {
                next.num_changes += 1;
                self.path.push((next.tick, wrong));
                self.change(&mut next, wrong);
            }
            self.tick(&mut next);
            match next.violation {
                Some(what) => self.fail(what),
                None => self.visit(next),
            }
            if changes {
                self.path.pop();
            }
        }
    }

    /// Nothing is wrong any more: the pair must find itself.
    fn recover(&mut self, mut small: Small) {
        self.change(&mut small, Wrong::Nothing);
        let end = small.tick + NUM_END_TICKS;
        while small.tick < end && small.violation.is_none() {
            self.tick(&mut small);
        }
        let roles = small
            .nodes
            .each_ref()
            .map(|node| node.state.as_ref().map(State::role));
        let healthy = matches!(
            roles,
            [Some(Role::Primary), Some(Role::Standby)] | [Some(Role::Standby), Some(Role::Primary)]
        );
        if let Some(what) = small.violation {
            self.fail(what);
        } else if !healthy {
            self.fail(&format!("I8: at the end {roles:?}"));
        }
    }

    fn fail(&mut self, what: &str) {
        if self.violation.is_none() {
            self.violation = Some(format!("{what} after {:?}", self.path));
        }
    }

    fn change(&self, small: &mut Small, wrong: Wrong) {
        let connected = matches!(small.wrong, Wrong::Nothing | Wrong::Late);
        small.wrong = wrong;
        match wrong {
            Wrong::Dead(node) | Wrong::Off(node) => {
                small.nodes[node].state = None;
                small.nodes[node].inbox.clear();
                if wrong == Wrong::Dead(node) && connected {
                    self.give(small, 1 - node, Event::LinkClosed);
                }
            }
            _ => {}
        }
    }

    fn tick(&mut self, small: &mut Small) {
        self.num_transitions += 1;
        small.tick += 1;
        // Fronts look at their gates before the machines get to run.
        self.check(small);
        for node in 0..2 {
            let up = match small.wrong {
                Wrong::Dead(down) | Wrong::Off(down) | Wrong::Stopped(down) => down != node,
                _ => true,
            };
            if up && small.nodes[node].state.is_none() {
                self.start(small, node);
            }
            if small.runs(node) {
                for heartbeat in std::mem::take(&mut small.nodes[node].inbox) {
                    self.give(small, node, Event::Heartbeat(heartbeat));
                }
                self.give(small, node, Event::Timer);
            }
        }
        self.check(small);
    }

    fn start(&self, small: &mut Small, node: usize) {
        small.nodes[node].num_boots += 1;
        small.nodes[node].state = Some(State::new());
        let boot = small.nodes[node].num_boots * 2 + node as u64;
        let file = small.nodes[node].disk;
        self.give(small, node, Event::Started { boot, file });
        self.give(small, node, Event::Gates(self.gates.clone()));
    }

    fn check(&self, small: &mut Small) {
        let open = [0, 1].map(|node: usize| {
            small.runs(node)
                && small.nodes[node].state.as_ref().is_some_and(|state| {
                    state.admission(&self.settings[node]).admits(small.clock())
                })
        });
        if open == [true, true] && self.settings[0].mode == Mode::Strict {
            small.violation = Some("I1: both nodes admit under a lease");
        }
    }

    /// Gives an event, and at once what follows from it on either node.
    fn give(&self, small: &mut Small, node: usize, event: Event) {
        let mut work = vec![(node, event)];
        while let Some((node, event)) = work.pop() {
            if !small.runs(node) {
                if let Event::Heartbeat(heartbeat) = event {
                    small.nodes[node].inbox.push(heartbeat);
                }
                continue;
            }
            let Some(state) = small.nodes[node].state.take() else {
                continue;
            };
            let (state, actions) = step(&self.settings[node], state, event, small.clock());
            small.nodes[node].state = Some(state);
            for action in actions {
                work.extend(small.act(node, self.settings[node].rank, action));
            }
        }
    }
}

impl Small {
    fn clock(&self) -> BootTime {
        BootTime::from_ms(10_000 + 500 * self.tick)
    }

    fn runs(&self, node: usize) -> bool {
        self.nodes[node].state.is_some() && self.wrong != Wrong::Stopped(node)
    }

    fn act(&mut self, node: usize, rank: u32, action: Action) -> Option<(usize, Event)> {
        let peer = 1 - node;
        match action {
            Action::Send(heartbeat) => match self.wrong {
                Wrong::CutBoth | Wrong::Dead(_) | Wrong::Off(_) => None,
                Wrong::CutFrom(from) if from == node => None,
                Wrong::Late => {
                    self.nodes[peer].inbox.push(heartbeat);
                    None
                }
                _ => Some((peer, Event::Heartbeat(heartbeat))),
            },
            Action::Persist { ticket, file } => {
                self.nodes[node].disk = file;
                Some((node, Event::Persisted { ticket, ok: true }))
            }
            Action::Lease { ticket, call } => {
                let reply = self.call(node, rank, call);
                Some((node, Event::Lease { ticket, reply }))
            }
            Action::Probe { ticket } => {
                let answer = match self.wrong {
                    Wrong::Dead(_) => PortAnswer::Refused,
                    Wrong::CutFrom(_) | Wrong::CutBoth | Wrong::Off(_) | Wrong::Stopped(_) => {
                        PortAnswer::Silent
                    }
                    _ => PortAnswer::Answered,
                };
                Some((
                    node,
                    Event::Probed {
                        ticket,
                        ports: [answer; 2],
                    },
                ))
            }
            Action::Flush { ticket } => Some((node, Event::Flushed { ticket })),
            Action::RoleChanged {
                from: Role::Promoting,
                to: Role::PrimarySolo,
                epoch,
                ..
            } => {
                let grows = epoch > self.last_epochs[node] && epoch != self.last_epochs[peer];
                if !grows {
                    self.violation = Some("I2: an epoch came twice");
                }
                self.last_epochs[node] = epoch;
                self.highest = self.highest.max(epoch);
                None
            }
            _ => None,
        }
    }

    fn call(&mut self, node: usize, rank: u32, call: LeaseCall) -> LeaseReply {
        let cut = matches!(self.wrong, Wrong::StoreCut(n) if n == node);
        if self.wrong == Wrong::StoreDown || cut {
            return LeaseReply::Unknown;
        }
        match call.apply(rank, self.record) {
            Some(record) => {
                self.record = record;
                LeaseReply::Granted(record)
            }
            None if call == LeaseCall::Observe => LeaseReply::Observed(self.record),
            None => LeaseReply::Refused(self.record),
        }
    }
}
