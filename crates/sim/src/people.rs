//! The people of the simulated world: somebody answers alerts, promotes in mode manual, and ends
//! what commands began.
//!
//! Invariant: they see what a person could see, and never promote over a node that serves.

use hotspare_failover::{Command, Event, Mode, OperationId};

use crate::node::Node;
use crate::world::{Happening, World};

impl World {
    /// A person looks at the peer, and confirms if it does not serve.
    pub(crate) fn person_answers(&mut self, node: usize, alert: u64) {
        // Some do not answer.
        if self.rng.chance(200) {
            return;
        }
        let command = if self.nodes[1 - node].serves() {
            Command::Reject { alert }
        } else {
            Command::Confirm { alert }
        };
        let at = self.now + self.rng.between(1_000, 20_000);
        self.command_at(at, node, command);
    }

    pub(crate) fn command_at(&mut self, at: u64, node: usize, command: Command) {
        self.num_operations += 1;
        let id = OperationId(self.num_operations);
        let generation = self.nodes[node].generation;
        let event = Box::new(Event::Command { id, command });
        self.push(
            at,
            Happening::Give {
                node,
                generation,
                event,
            },
        );
    }

    /// In mode manual somebody has to promote when nobody serves.
    pub(crate) fn operator(&mut self) {
        self.push(self.now + 2_500, Happening::Operator);
        if self.now > self.plan.faults_end_ms {
            self.tidy_up();
        }
        if self.plan.settings[0].mode != Mode::Manual || self.nodes.iter().any(Node::serves) {
            return;
        }
        let candidate = (0..2).find(|&node| {
            self.nodes[node].state.as_ref().is_some_and(|state| {
                matches!(
                    state.role(),
                    hotspare_failover::Role::Standby
                        | hotspare_failover::Role::AwaitConfirm
                        | hotspare_failover::Role::Suspect
                        | hotspare_failover::Role::Fenced
                )
            })
        });
        if let Some(node) = candidate {
            self.command_at(
                self.now,
                node,
                Command::Promote {
                    force: Default::default(),
                },
            );
        }
    }

    /// When all is over, somebody ends what commands began.
    fn tidy_up(&mut self) {
        for node in 0..2 {
            let Some(file) = self.nodes[node]
                .state
                .as_ref()
                .map(|state| state.epoch_file())
            else {
                continue;
            };
            if file.paused {
                self.command_at(self.now, node, Command::Resume);
            }
            if file.maintenance {
                self.command_at(self.now, node, Command::Maintenance { on: false });
            }
        }
    }
}
