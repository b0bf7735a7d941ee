//! A node with a driver for tests: a disk and a lease store that answer at once, a peer that says
//! what the test wants.

use std::sync::Arc;

use crate::{
    Action, Alert, BootTime, Cause, Command, Echo, Epoch, EpochFile, Event, Force, Gate, Heartbeat,
    LeaseCall, LeaseRecord, LeaseReply, Mode, OperationId, Outcome, PortAnswer, Profile, Role,
    Settings, State, step,
};

pub(crate) const OWN: u32 = 2;
pub(crate) const PEER: u32 = 1;
const OWN_BOOT: u64 = 77;

pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) state: State,
    pub(crate) now: u64,
    pub(crate) store: LeaseRecord,
    pub(crate) store_answers: bool,
    pub(crate) disk_works: bool,
    pub(crate) disk: EpochFile,
    pub(crate) probes: [PortAnswer; 2],
    pub(crate) log: Vec<Action>,
    pub(crate) peer_boot: u64,
    peer_seq: u64,
    operations: u128,
}

impl Node {
    /// A node whose process starts at 100 s, with gates that pass.
    pub(crate) fn new(settings: Settings) -> Self {
        Self::with_file(settings, EpochFile::default())
    }

    pub(crate) fn with_file(settings: Settings, file: EpochFile) -> Self {
        Self::with_store(settings, file, LeaseRecord::default())
    }

    pub(crate) fn with_store(settings: Settings, file: EpochFile, store: LeaseRecord) -> Self {
        let mut node = Self {
            settings,
            state: State::new(),
            now: 100_000,
            store,
            store_answers: true,
            disk_works: true,
            disk: file,
            probes: [PortAnswer::Silent; 2],
            log: Vec::new(),
            peer_boot: 5,
            peer_seq: 0,
            operations: 0,
        };
        node.give(Event::Started {
            boot: OWN_BOOT,
            file,
        });
        node.gates(vec![Gate::pass("model")]);
        node
    }

    pub(crate) fn gates(&mut self, gates: Vec<Gate>) {
        self.give(Event::Gates(Arc::from(gates)));
    }

    pub(crate) fn at(&self) -> BootTime {
        BootTime::from_ms(self.now)
    }

    pub(crate) fn role(&self) -> Role {
        self.state.role()
    }

    /// Gives an event, and answers what the machine asks of disk, store, hooks and probes.
    pub(crate) fn give(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            let event = events.remove(0);
            let state = std::mem::take(&mut self.state);
            let (state, actions) = step(&self.settings, state, event, self.at());
            self.state = state;
            for action in actions {
                events.extend(self.answer(&action));
                self.log.push(action);
            }
        }
    }

    fn answer(&mut self, action: &Action) -> Option<Event> {
        match *action {
            Action::Persist { ticket, file } => {
                if self.disk_works {
                    self.disk = file;
                }
                Some(Event::Persisted {
                    ticket,
                    ok: self.disk_works,
                })
            }
            Action::Lease { ticket, call } => {
                let reply = if self.store_answers {
                    self.call_store(OWN, call)
                } else {
                    LeaseReply::Unknown
                };
                Some(Event::Lease { ticket, reply })
            }
            Action::Probe { ticket } => Some(Event::Probed {
                ticket,
                ports: self.probes,
            }),
            _ => None,
        }
    }

    pub(crate) fn call_store(&mut self, caller: u32, call: LeaseCall) -> LeaseReply {
        match call.apply(caller, self.store) {
            Some(record) => {
                self.store = record;
                LeaseReply::Granted(record)
            }
            None if call == LeaseCall::Observe => LeaseReply::Observed(self.store),
            None => LeaseReply::Refused(self.store),
        }
    }

    /// Lets time pass, stepping the machine whenever it asks to be.
    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let at = self.state.wakeup_at().ms().max(self.now + 1);
            if at > end {
                self.now = end;
                return;
            }
            self.now = at;
            self.give(Event::Timer);
        }
    }

    /// Lets time pass with the process stopped.
    pub(crate) fn stop(&mut self, ms: u64) {
        self.now += ms;
    }

    pub(crate) fn peer_says(&mut self, role: Role, epoch: u64) -> Heartbeat {
        self.peer_seq += 1;
        let epoch = Epoch::new(epoch);
        Heartbeat {
            sent_at: BootTime::from_ms(self.now + 1_000_000),
            echo: Some(Echo {
                boot: OWN_BOOT,
                seq: self.state.seq,
                sent_at: BootTime::from_ms(self.now.saturating_sub(20)),
            }),
            ..Heartbeat::plain(PEER, (self.peer_boot, self.peer_seq), role, epoch)
        }
    }

    /// The peer is heard once.
    pub(crate) fn hear(&mut self, role: Role, epoch: u64) {
        let heartbeat = self.peer_says(role, epoch);
        self.give(Event::Heartbeat(heartbeat));
    }

    /// The peer is heard every heartbeat interval for so long.
    pub(crate) fn run_hearing(&mut self, ms: u64, role: Role, epoch: u64) {
        let interval = self.settings.timers.heartbeat_interval_ms;
        let end = self.now + ms;
        while self.now < end {
            self.hear(role, epoch);
            self.run(interval.min(end - self.now));
        }
    }

    /// Gives a command and returns the last answer to it so far.
    pub(crate) fn command(&mut self, command: Command) -> Option<Outcome> {
        self.operations += 1;
        let id = OperationId(self.operations);
        self.give(Event::Command { id, command });
        self.outcome(id)
    }

    pub(crate) fn outcome(&self, id: OperationId) -> Option<Outcome> {
        self.log.iter().rev().find_map(|action| match action {
            Action::Reply { id: of, outcome } if *of == id => Some(outcome.clone()),
            _ => None,
        })
    }

    pub(crate) fn last_operation(&self) -> OperationId {
        OperationId(self.operations)
    }

    pub(crate) fn alerted(&self, alert: Alert) -> bool {
        self.log.contains(&Action::Alert(alert))
    }

    /// The causes of the last `count` role changes, oldest first.
    pub(crate) fn causes(&self, count: usize) -> Vec<Cause> {
        let all: Vec<Cause> = self
            .log
            .iter()
            .filter_map(|action| match action {
                Action::RoleChanged { cause, .. } => Some(*cause),
                _ => None,
            })
            .collect();
        all[all.len().saturating_sub(count)..].to_vec()
    }

    pub(crate) fn last_heartbeat(&self) -> Option<Heartbeat> {
        self.log.iter().rev().find_map(|action| match action {
            Action::Send(heartbeat) => Some(*heartbeat),
            _ => None,
        })
    }
}

pub(crate) fn pair(mode: Mode) -> Settings {
    Settings::pair(OWN, PEER, mode, Profile::Lan)
}

/// A standby of a primary in epoch 4.
pub(crate) fn standby(mode: Mode) -> Node {
    let mut node = Node::new(pair(mode));
    node.run_hearing(2_000, Role::Primary, 4);
    assert_eq!(node.role(), Role::Standby);
    node
}

/// A primary, in epoch 1, with an eligible standby.
pub(crate) fn primary(mode: Mode) -> Node {
    let mut node = Node::new(pair(mode));
    node.hear(Role::Standby, 0);
    let outcome = node.command(Command::Promote {
        force: Force::default(),
    });
    assert!(matches!(outcome, Some(Outcome::Done { .. })), "{outcome:?}");
    node.run_hearing(1_000, Role::Standby, 1);
    assert_eq!(node.role(), Role::Primary);
    assert_eq!(node.state.epoch(), Epoch::new(1));
    node
}
