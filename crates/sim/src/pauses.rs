//! I11: during a pause nobody takes over by itself, whoever was asked for the pause and whether he
//! still lives.
//!
//! What a node knows of a pause is taken from what it was told: a command of its own, or the newest
//! word of its peer that it took in. A process that ends forgets what its peer said.
//!
//! Invariant: the machine is not asked whether it thinks that it is paused.

use hotspare_failover::{Action, Cause, Command, Event, Heartbeat, Outcome, Role, State};

use crate::world::World;

/// The pauses that a process knows of, each since when in true time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pauses {
    own: Option<u64>,
    peers: Option<u64>,
}

/// What an event says of pauses, before the machine has seen it.
pub(crate) enum Word {
    Heartbeat(Heartbeat),
    Pause,
    Resume,
}

impl Word {
    pub(crate) fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Heartbeat(heartbeat) => Some(Self::Heartbeat(*heartbeat)),
            Event::Command { command, .. } => match command {
                Command::Pause { .. } => Some(Self::Pause),
                Command::Resume => Some(Self::Resume),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Pauses {
    /// Takes in what the machine took in.
    pub(crate) fn note(&mut self, word: &Word, state: &State, actions: &[Action], now: u64) {
        let is_done = || {
            actions.iter().any(|action| {
                let Action::Reply { outcome, .. } = action else {
                    return false;
                };
                matches!(outcome, Outcome::Done { .. })
            })
        };
        match word {
            Word::Heartbeat(said) => {
                let newest = state.peer().map(|(heartbeat, _)| heartbeat);
                if newest.is_some_and(|h| (h.boot, h.seq) == (said.boot, said.seq)) {
                    self.peers = said.paused.then_some(now);
                }
            }
            Word::Pause if is_done() => self.own = Some(now),
            Word::Resume if is_done() => *self = Self::default(),
            Word::Pause | Word::Resume => {}
        }
    }

    fn hold(&self, now: u64, pause_ms: u64) -> bool {
        // A clock may be a little fast.
        let lasts = |since: u64| now < since + pause_ms / 100 * 98;
        self.own.is_some_and(lasts) || self.peers.is_some_and(lasts)
    }
}

impl World {
    /// At every change of role.
    pub(crate) fn check_pause(&mut self, node: usize, from: Role, to: Role, cause: Cause) {
        let by_itself = matches!(
            cause,
            Cause::PeerDead
                | Cause::PeerDeadDegraded
                | Cause::NobodyServes
                | Cause::ConfirmTimedOut
        );
        // Who has served takes back what is still its own.
        if to != Role::Promoting || from == Role::Fenced || !by_itself {
            return;
        }
        let one = &self.nodes[node];
        if one.pauses.hold(self.now, one.settings.timers.pause_ms) {
            let what = format!("{} takes over during a pause: {cause:?}", ["a", "b"][node]);
            self.checker.fail("I11", self.now, what);
        }
    }
}
