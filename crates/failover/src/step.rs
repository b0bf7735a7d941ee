//! The step: facts in, transitions, wishes out.
//!
//! Order within a step: was it late; what the event says; the table, until no row fits; then
//! whatever is due (heartbeat, disk, lease, probe). Nothing else changes a state.
//!
//! Invariant: a step ends in a role for which no row of the table fits, within `MAX_TRANSITIONS`.

use crate::condition::View;
use crate::event::Event;
use crate::state::State;
use crate::table::TABLE;
use crate::{Action, BootTime, Outcome, Role, Settings};

/// More transitions in one step than any path through the table has.
const MAX_TRANSITIONS: usize = 8;

/// What an event brings: the node's next state, and what is to be done, in order. `now` is the
/// node's boot-time clock and never goes back.
#[must_use]
pub fn step(
    settings: &Settings,
    state: State,
    event: Event,
    now: BootTime,
) -> (State, Vec<Action>) {
    let mut step = Step {
        settings,
        state,
        now,
        actions: Vec::new(),
    };
    step.check_lateness(&event);
    step.absorb(event);
    step.note_vacancy();
    for _ in 0..MAX_TRANSITIONS {
        if !step.transition() {
            break;
        }
    }
    step.end_operation_in_time();
    step.state.asked = None;
    step.state.late = false;
    if step.state.started {
        step.due();
    }
    (step.state, step.actions)
}

/// A step in progress.
pub(crate) struct Step<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) state: State,
    pub(crate) now: BootTime,
    pub(crate) actions: Vec<Action>,
}

impl Step<'_> {
    pub(crate) fn view(&self) -> View<'_> {
        View {
            settings: self.settings,
            state: &self.state,
            now: self.now,
        }
    }

    /// A machine that was not stepped when it asked to be was stopped, and what it believes of its
    /// peer is as old as the stop: its silence counts from now on.
    fn check_lateness(&mut self, event: &Event) {
        let state = &mut self.state;
        let limit = state.wakeup_at.after(self.settings.timers.timer_late_ms);
        state.late = state.started && !matches!(event, Event::Started { .. }) && self.now > limit;
        state.stepped_at = self.now;
        if state.late {
            state.peer.silent_from = self.now;
            state.vacant_since = None;
        }
    }

    fn note_vacancy(&mut self) {
        let vacant = self.view().holds(crate::condition::Condition::Vacant);
        self.state.vacant_since = if vacant {
            self.state.vacant_since.or(Some(self.now))
        } else {
            None
        };
    }

    fn transition(&mut self) -> bool {
        let view = self.view();
        let role = self.state.role;
        let row = TABLE.iter().find(|row| {
            row.from.contains(&role)
                && row.when.iter().all(|&condition| view.holds(condition))
                && !row.unless.iter().any(|&condition| view.holds(condition))
        });
        let Some(row) = row else { return false };
        self.change_role(row.to, row.cause);
        true
    }

    fn end_operation_in_time(&mut self) {
        let Some(operation) = self.state.operation else {
            return;
        };
        let limit = operation
            .at
            .after(self.settings.timers.operation_timeout_ms);
        let in_progress = matches!(
            self.state.role,
            Role::Promoting | Role::Draining | Role::Demoting
        );
        if !in_progress {
            let reason = format!("the role became {}", self.state.role);
            self.end_operation(Outcome::Failed { reason });
        } else if self.now >= limit {
            let reason = "it took longer than operation_timeout_ms".to_owned();
            self.end_operation(Outcome::Failed { reason });
        }
    }
}
