//! Why not: what stands in the way of a failover, a handover or a command, in words.
//!
//! Invariant: an empty answer means that the table would do it.

use crate::condition::View;
use crate::state::State;
use crate::{
    BootTime, Command, Eligibility, Force, Health, InitialRole, Mode, Obstacle, Role, Settings,
    Verdict,
};

/// "Could this pair fail over now, and if not, why not?" Asked of a node that serves: could the
/// peer take over. Asked of any other: would this node be promoted if its peer died now.
#[must_use]
pub fn why_not(settings: &Settings, state: &State, now: BootTime) -> Vec<Obstacle> {
    let view = View {
        settings,
        state,
        now,
    };
    let mut obstacles = Vec::new();
    if settings.peer_rank.is_none() {
        obstacles.push(Obstacle::new("peer", "no peer is configured"));
        return obstacles;
    }
    if view.paused() {
        obstacles.push(Obstacle::new("paused", "automatic role changes are paused"));
    }
    if matches!(settings.mode, Mode::Confirm | Mode::Manual) {
        let reason = format!("mode {:?} waits for a person", settings.mode).to_lowercase();
        obstacles.push(Obstacle::new("mode", reason));
    }
    if state.role.claims() {
        if let Some(reason) = view.peer_obstacle(settings.timers.suspect_after_ms) {
            obstacles.push(Obstacle::new("peer", reason));
        }
        if view.fresh().is_some_and(|h| h.holdoff) {
            let reason = "the peer gave its role up lately (failback_holdoff_ms)";
            obstacles.push(Obstacle::new("holdoff", reason));
        }
        return obstacles;
    }
    match state.role {
        Role::Standby | Role::StandbyIneligible | Role::Suspect | Role::AwaitConfirm => {}
        Role::Promoting => return obstacles,
        role => obstacles.push(Obstacle::new("role", format!("this node is {role}"))),
    }
    let degraded_will_do = settings.availability_first;
    own_obstacles(state, degraded_will_do, &mut obstacles);
    if state.quarantined(now) && !settings.availability_first {
        obstacles.push(Obstacle::new("quarantine", "roles changed too often"));
    }
    if now < state.promote_not_before {
        obstacles.push(Obstacle::new(
            "retry",
            "a promotion failed less than a retry ago",
        ));
    }
    if view.strict()
        && let Some(reason) = view.lease_store_obstacle()
    {
        obstacles.push(Obstacle::new("lease", reason));
    }
    obstacles
}

/// The node's own engine, gates and standing.
fn own_obstacles(state: &State, degraded_will_do: bool, obstacles: &mut Vec<Obstacle>) {
    if state.file.maintenance {
        obstacles.push(Obstacle::new("maintenance", "this node is in maintenance"));
    }
    if state.terminating {
        obstacles.push(Obstacle::new("terminating", "this process is ending"));
    }
    if state.health >= Health::Unready {
        let reason = format!("the engine is {:?}", state.health).to_lowercase();
        obstacles.push(Obstacle::new("engine", reason));
    }
    if state.gates.is_empty() {
        obstacles.push(Obstacle::new("gates", "no gate has been checked yet"));
    }
    let barring = if degraded_will_do {
        Verdict::Block
    } else {
        Verdict::Degraded
    };
    for gate in state.gates.iter().filter(|gate| gate.verdict >= barring) {
        obstacles.push(Obstacle::new(&gate.name, gate.reason.clone()));
    }
}

pub(crate) fn command_obstacles(
    settings: &Settings,
    state: &State,
    command: Command,
    now: BootTime,
    obstacles: &mut Vec<Obstacle>,
) {
    let view = View {
        settings,
        state,
        now,
    };
    let mut say = |name: &str, reason: String| obstacles.push(Obstacle::new(name, reason));
    match command {
        Command::Switchover | Command::Demote { .. } | Command::FenceSelf
            if !state.role.serves() =>
        {
            say(
                "role",
                format!("this node is {}; epoch {}", state.role, state.file.seen),
            );
        }
        Command::Switchover | Command::Demote { force: false } => {
            if let Some(reason) = view.peer_obstacle(settings.timers.suspect_after_ms) {
                say("peer", reason.to_owned());
            }
            if state.role == Role::PrimaryFailsafe {
                say(
                    "lease",
                    "the lease store does not answer: nobody could take over".to_owned(),
                );
            }
        }
        Command::Promote { force } => promote_obstacles(&view, force, obstacles),
        Command::Maintenance { on: true }
            if state.role.claims() || matches!(state.role, Role::Promoting | Role::Demoting) =>
        {
            say(
                "role",
                format!("this node is {}: switch over first", state.role),
            );
        }
        Command::Confirm { alert } | Command::Reject { alert } => match state.confirm {
            None => say("alert", "no alert waits for an answer".to_owned()),
            Some(confirm) if confirm.alert != alert => {
                say(
                    "alert",
                    format!("alert {} waits, not {alert}", confirm.alert),
                );
            }
            Some(_) => {}
        },
        Command::Demote { force: true }
        | Command::FenceSelf
        | Command::Pause { .. }
        | Command::Resume
        | Command::Maintenance { .. }
        | Command::ClearQuarantine => {}
    }
}

fn promote_obstacles(view: &View<'_>, force: Force, obstacles: &mut Vec<Obstacle>) {
    let state = view.state;
    let may = matches!(
        state.role,
        Role::Joining
            | Role::Standby
            | Role::StandbyIneligible
            | Role::Suspect
            | Role::AwaitConfirm
            | Role::Fenced
    );
    if !may {
        let reason = format!("this node is {}; epoch {}", state.role, state.file.seen);
        obstacles.push(Obstacle::new("role", reason));
    }
    if state.health == Health::Fatal {
        obstacles.push(Obstacle::new("engine", "the engine is gone"));
    }
    if !force.gates && state.eligibility() != Eligibility::Eligible {
        own_obstacles(state, false, obstacles);
    }
    let claims = view.fresh().filter(|h| h.role.claims());
    if let Some(heartbeat) = claims.filter(|_| !force.peer) {
        let reason = format!(
            "the peer serves in epoch {}: ask it for a switchover, or force `peer`",
            heartbeat.epoch
        );
        obstacles.push(Obstacle::new("peer", reason));
    }
    if view.strict()
        && !force.lease
        && let Some(reason) = view.lease_store_obstacle()
    {
        obstacles.push(Obstacle::new("lease", reason));
    }
    if view.settings.initial_role == InitialRole::Standby && view.settings.peer_rank.is_none() {
        obstacles.push(Obstacle::new("role", "a standby without a peer"));
    }
}
