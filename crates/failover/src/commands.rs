//! Operators' commands: checked in full before anything changes, then put to the table.
//!
//! Invariant: an id that was seen before changes nothing; while an operation runs, another one is
//! refused with the id of the one that runs.

use crate::state::{Asked, Operation, State};
use crate::step::Step;
use crate::{Action, BootTime, Command, Obstacle, OperationId, Outcome, Settings, explain};

impl Step<'_> {
    pub(crate) fn command(&mut self, id: OperationId, command: Command) {
        if let Some(outcome) = known_outcome(&self.state, id) {
            self.actions.push(Action::Reply { id, outcome });
            return;
        }
        let obstacles = dry_run(self.settings, &self.state, command, self.now);
        if !obstacles.is_empty() {
            // Refusals are not remembered: what stood in the way may be gone when it is asked
            // again.
            self.actions.push(Action::Reply {
                id,
                outcome: Outcome::Refused(obstacles),
            });
            return;
        }
        let (now, timers) = (self.now, &self.settings.timers);
        let outer = self.state.operation.replace(Operation { id, at: now });
        let state = &mut self.state;
        match command {
            Command::Switchover => state.asked = Some(Asked::Switchover),
            Command::Demote { force } => {
                let view = crate::condition::View {
                    settings: self.settings,
                    state,
                    now,
                };
                let ready = view.peer_obstacle(timers.suspect_after_ms).is_none();
                state.file.maintenance |= force && !ready;
                state.asked = Some(if ready {
                    Asked::Switchover
                } else {
                    Asked::Leave
                });
            }
            Command::Promote { force } => state.asked = Some(Asked::Promote(force)),
            Command::FenceSelf => state.asked = Some(Asked::Fence),
            Command::Pause { for_ms } => {
                let ms = for_ms.unwrap_or(timers.pause_ms).min(timers.pause_ms);
                state.file.paused = true;
                state.paused_until = now.after(ms);
            }
            Command::Resume => {
                state.file.paused = false;
                // A living peer says it again.
                if let Some((heartbeat, _)) = &mut state.peer.heartbeat {
                    heartbeat.paused = false;
                }
            }
            Command::Maintenance { on } => state.file.maintenance = on,
            Command::Confirm { .. } => self.answer(true),
            Command::Reject { .. } => self.answer(false),
            Command::ClearQuarantine => {
                state.quarantine_until = BootTime::ZERO;
                state.changes.clear();
            }
        }
        if !runs_on(command) {
            let epoch = self.state.file.seen;
            self.end_operation(Outcome::Done { epoch });
            self.state.operation = outer;
        }
    }

    fn answer(&mut self, yes: bool) {
        if let Some(confirm) = &mut self.state.confirm {
            confirm.answer = Some(yes);
        }
        self.state.rejected |= !yes;
    }
}

/// Whether a command is done only when roles have changed.
const fn runs_on(command: Command) -> bool {
    matches!(
        command,
        Command::Switchover | Command::Demote { .. } | Command::Promote { .. } | Command::FenceSelf
    )
}

fn known_outcome(state: &State, id: OperationId) -> Option<Outcome> {
    if state.operation.is_some_and(|operation| operation.id == id) {
        return Some(Outcome::Running);
    }
    state
        .done
        .iter()
        .find(|(done, _)| *done == id)
        .map(|(_, outcome)| outcome.clone())
}

/// Why `command` would be refused now; empty: it would be begun. Changes nothing.
#[must_use]
pub fn dry_run(
    settings: &Settings,
    state: &State,
    command: Command,
    now: BootTime,
) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    if runs_on(command)
        && let Some(operation) = state.operation
    {
        let reason = format!("operation {:x} is running", operation.id.0);
        obstacles.push(Obstacle::new("busy", reason));
    }
    explain::command_obstacles(settings, state, command, now, &mut obstacles);
    obstacles
}
